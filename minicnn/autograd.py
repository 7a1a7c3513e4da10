"""Reverse-mode differentiation: the backward pass through the recorded operations, and Function,
the base class of all operations.

The result of a recorded operation is a Tensor that points to its Function, its grad_fn. A Function
points to its parents: for each input, the Function that made it, or the Tensor itself if it is a
leaf (a Tensor that requires a gradient and was not computed). So Functions are nodes of a graph:

    x ──┐
        Mul ── Exp ── y      y.grad_fn is Exp;  Exp.parents == (Mul,);  Mul.parents == (x, w)
    w ──┘

![a larger graph, and the order of its backward pass](figures/autograd.png)

Nothing points forward, so there are no reference cycles, and a graph is freed as soon as no Tensor
refers to it. The one exception: after backward(create_graph=True), leaf.grad has a graph of its
own, which leads back to that leaf.

The backward pass goes from right to left through this graph, by the chain rule. L is a scalar that
was computed from y. From dL/dy, Exp computes dL/d(Mul's output), and from that Mul computes dL/dx
and dL/dw. If a value was used twice, its gradients are summed. backward_pass() does only that; Plan
and Pending below it do the bookkeeping.

Every operation passes through tensor.apply, which calls the Function's forward and then its record.
The backward pass also computes with Tensors. With create_graph=True its operations are recorded, so
that they can be differentiated again; otherwise its callers, Tensor.backward and minicnn.grad,
switch recording off during the pass. An operation that broadcasts an input (in ops.py) sums the
gradient to that input's shape itself, so this file knows nothing of broadcasting.
(examples/engine.py is the same in forty lines, without the parts that make it fast and safe.)

This file uses of a Tensor t only data, shape, dtype, grad_fn, requires_grad and version (how often
its data was overwritten, in a list that views share), uses it as a key of a dict, and calls

    t.wrap(array, node)           the array as a Tensor whose grad_fn is that node
    t.plus(other)                 t + other for two gradients of one Tensor
    t.apply(function, *inputs)    tensor.apply, which is not imported, to avoid a cycle

Try: what are the first three derivatives of x³ at 2? They are 3x², 6x and 6:

>>> import minicnn
>>> x = minicnn.Tensor(2.0, requires_grad=True)
>>> y = x**3
>>> for _ in range(3):
...     (y,) = minicnn.grad(y, x, create_graph=True)
...     print(y.item())
12.0
12.0
6.0
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ContextDecorator
from operator import attrgetter
from typing import Any

from .checks import flags
from .habits import SAVES, Instead

Tensor = Any  # minicnn.tensor.Tensor
Gradients = Tensor | tuple[Tensor | None, ...]  # of the only input, or of each


def backward_pass(
    roots: list[tuple[Tensor, Tensor]],
    deliver: Callable[[Tensor, Tensor], None],
    wanted: list[Tensor] | None,
    retain_graph: bool,
) -> None:
    """Carry the gradients of the roots, given as (tensor, gradient) pairs, down to the leaves.

    Nodes are visited from the newest to the oldest. A node that uses another's output is newer, so
    each node has received its whole gradient before it is visited, and there is no recursion.
    deliver(tensor, gradient) is called for each leaf, or for each wanted Tensor, as soon as its
    gradient is complete: Tensor.backward adds the gradient to tensor.grad, minicnn.grad collects
    the gradients in a dict.
    """
    plan = Plan([_place(tensor) for tensor, _ in roots], wanted)
    pending = Pending(plan, deliver)
    for tensor, gradient in roots:
        pending.add_root(_place(tensor), gradient)
    while plan.nodes:
        node, needed = plan.nodes.popitem()  # the last one inserted, which is the newest
        gradients = node.gradients(pending.take(node), needed)
        pending.add_all(gradients)
        if not retain_graph:
            node.free()
        del node, gradients  # so that their memory is free before the next node allocates


def _place(tensor: Tensor) -> Any:
    """Where a Tensor's gradient arrives: at the Function that made it, or at the leaf itself."""
    return tensor if tensor.grad_fn is None else tensor.grad_fn


class Plan:
    """The nodes that a backward pass is going to visit, determined before it begins.

    Attributes:
        nodes: {Function: needed}, the oldest first: the Functions through which a gradient reaches
            a wanted Tensor (all of them, if wanted is None). needed[i] tells whether it must
            compute the gradient of input i.
        missing: {leaf: the number of gradients that it has not received yet}.
        wanted: {place where its gradient arrives (see _place): wanted Tensor}.
    """

    def __init__(self, starts: list[Any], wanted: list[Tensor] | None) -> None:
        nodes: list[Function] = []
        leaves: list[Tensor] = []
        arrivals: defaultdict[Any, int] = defaultdict(int)  # how many gradients each place receives
        for start in starts:
            arrivals[start] += 1
        stack = list(arrivals)
        while stack:
            place = stack.pop()
            if not isinstance(place, Function):
                leaves.append(place)
                continue
            if place.parents is None:
                raise RuntimeError(
                    f"the graph through {place.name} was freed by an earlier backward pass: "
                    "give that one retain_graph=True, or run forward again"
                )
            nodes.append(place)
            for parent in place.parents:
                if parent is not None:
                    if parent not in arrivals:
                        stack.append(parent)
                    arrivals[parent] += 1

        nodes.sort(key=attrgetter("order"))
        self.wanted: dict[Any, Tensor] = {}
        self.nodes: dict[Function, tuple[bool, ...]]
        if wanted is None:
            self.nodes = {node: node.needs_input_grad for node in nodes}
        else:
            self.wanted = {_place(tensor): tensor for tensor in wanted}
            self.nodes = self._leading_to(set(self.wanted), nodes)
            leaves = [leaf for leaf in leaves if leaf in self.wanted]
        self.missing = {leaf: arrivals[leaf] for leaf in leaves}

    @staticmethod
    def _leading_to(useful: set[Any], nodes: list[Function]) -> dict[Function, tuple[bool, ...]]:
        """Of the nodes, the oldest first, those from which a gradient reaches a useful place: which
        of their gradients do."""
        found = {}
        for node in nodes:
            needed = tuple([parent in useful for parent in node.parents])  # they are older
            if True in needed or node in useful:
                useful.add(node)
                found[node] = needed
        return found


class Pending:
    """The gradients that nodes and leaves have received so far in a backward pass.

    A gradient that is delivered must not share its memory with any other Tensor, because its owner
    may write to it. `shared` holds the memory that others may still read: that of the gradients
    with which the pass began, of those that were delivered, and of arrays that two parents
    received. A gradient whose memory is in it is copied before it is delivered.
    """

    def __init__(self, plan: Plan, deliver: Callable[[Tensor, Tensor], None]) -> None:
        self.plan, self.deliver = plan, deliver
        self.received: dict[Any, Tensor] = {}
        self.shared: set[int] = set()  # see memory_of

    def add_root(self, place: Any, gradient: Tensor) -> None:
        """Add a gradient with which the pass begins. Its memory remains the caller's. If this place
        does not lead to anything wanted, the gradient is dropped."""
        self.shared.add(memory_of(gradient))
        if place in self.plan.nodes or place in self.plan.missing:
            self.add_all([(place, gradient)])

    def add_all(self, gradients: list[tuple[Any, Tensor]]) -> None:
        """Add each of the gradients, given as (place, gradient) pairs, to its node or leaf."""
        if len(gradients) != 1:  # did one array go to two of them?
            owners = [memory_of(gradient) for _, gradient in gradients]
            self.shared.update([owner for owner in owners if owners.count(owner) != 1])
        received, missing = self.received, self.plan.missing
        for parent, gradient in gradients:
            before = received.get(parent)
            # never +=, because the memory may be another Tensor's as well
            received[parent] = gradient if before is None else before.plus(gradient)
            if parent in missing:
                missing[parent] -= 1
                if not missing[parent]:
                    self._deliver(parent, received.pop(parent))

    def take(self, node: Function) -> Tensor:
        """Remove and return the complete gradient of a node's output; if it is wanted, deliver it
        too."""
        gradient = self.received.pop(node)
        if node in self.plan.wanted:
            self._deliver(self.plan.wanted[node], gradient)
        return gradient

    def _deliver(self, tensor: Tensor, gradient: Tensor) -> None:
        # a broadcast view has a stride of 0: several of its elements are one place in memory, so
        # writing to one of them would change the others
        if memory_of(gradient) in self.shared or 0 in gradient.data.strides:
            gradient = gradient.apply(Copy(), gradient)
        self.shared.add(memory_of(gradient))
        self.deliver(tensor, gradient)


def memory_of(tensor: Tensor) -> int:
    """The id of the object that owns a Tensor's memory. (If an owner is freed, another may get its
    id: then one unnecessary copy is made.)"""
    owner = tensor.data
    while getattr(owner, "base", None) is not None:
        owner = owner.base
    return id(owner)


_counter = itertools.count()
# what looks at each operation and its gradients, inside minicnn.detect_anomaly; elsewhere empty
observers: list[Any] = []


class Function:
    """One operation: how an array is computed from arrays, and how the gradient flows back.

    A subclass stores its settings in __init__ and defines

        forward(*arrays) -> array      the result; values that backward needs besides the inputs are
                                       set on self
        backward(dy) -> gradients      from dy = dL/dy of the output y, the Tensor dL/dx for each
                                       input x, computed with operations on Tensors, so that it can
                                       itself be recorded and differentiated
        saves                          saves[i]: the indices of the inputs that backward reads to
                                       compute the gradient of input i. A product x·w has
                                       saves = ((1,), (0,)): the gradient of x reads w, that of w
                                       reads x.

    An object records one call. backward must return new Tensors, or dy itself, or views of it. It
    must not return a saved input or an array that the Function keeps on self, because the owner of
    a leaf's gradient may write to its memory. minicnn.apply has an example.

    Attributes:
        needs_input_grad: in backward, needs_input_grad[i] tells whether the gradient of input i is
            wanted; otherwise None may be returned for it.
        saved_inputs: in backward, saved_inputs[j] is the Tensor that was input j, which is kept
            only if a wanted gradient reads it.
    """

    saves: tuple[tuple[int, ...], ...] = ()
    promotes_integers = False  # True: tensor.apply converts integers to floating point first
    # for each input the Function that made it, or the leaf, or None if it needs no gradient; None
    # instead of a tuple until a call is recorded, and after the node is freed
    parents: Any = None

    saved_inputs: tuple[Any, ...]
    needs_input_grad: tuple[bool, ...]
    order: int  # nodes are numbered as they are recorded: a larger number is newer
    shape: tuple[int, ...]  # of its output, like dtype; a parent that is a leaf has both too
    dtype: Any
    _versions: Sequence[tuple[Any, int]] = ()  # the saved Tensors, how often each was overwritten
    # PyTorch's names: reading one is an error that says what to write here
    save_for_backward = Instead("save_for_backward", SAVES)
    saved_tensors = Instead("saved_tensors", SAVES)

    def __init_subclass__(cls, **options: Any) -> None:
        """Check the definition of a subclass.

        Raises:
            TypeError: `saves` is not a tuple of indices for each input, or forward or backward is a
                static method, as in PyTorch.
        """
        super().__init_subclass__(**options)
        own = vars(cls)
        for method, argument in ("forward", "x"), ("backward", "dy"):
            if isinstance(own.get(method), staticmethod):
                raise TypeError(
                    f"{cls.__name__}.{method} is static: an operation is an object here, which is what ctx "
                    f"is in PyTorch: write def {method}(self, {argument})"
                )
        saves = own.get("saves", ())
        if not isinstance(saves, property) and not _are_saves(saves):
            raise TypeError(
                f"{cls.__name__}.saves is {saves!r}: write a tuple for each input, of the indices of the inputs "
                "from which its gradient is computed, such as ((0,),) for x²"
            )

    def forward(self, *arrays: Any) -> Any:
        """The result, an array, from the arrays of the inputs; each subclass defines it."""
        raise NotImplementedError(f"{self.name} does not define forward")

    @classmethod
    def apply(cls, *_: Any) -> None:
        """PyTorch's way to call a Function.

        Raises:
            TypeError: always; the message says what to write instead.
        """
        raise TypeError(f"an operation is an object here: minicnn.apply({cls.__name__}(…), x)")

    def backward(self, dy: Tensor) -> Gradients:
        """The gradient of each input from dy, that of the output; each subclass defines it."""
        raise NotImplementedError(f"{self.name} does not define backward")

    @property
    def name(self) -> str:
        return type(self).__name__

    def saved_output(self, dy: Tensor) -> Tensor:
        """For use in backward: self.y, which forward has returned, as a Tensor whose grad_fn is
        this node, so that gradients computed from it can be differentiated again.

        Args:
            dy: the gradient of the output.
        """
        try:
            y = self.y  # type: ignore[attr-defined]
        except AttributeError:
            raise AttributeError(
                f"saved_output is the array that {self.name}.forward keeps: write self.y = …"
            ) from None
        return dy.wrap(y, self)

    def record(self, inputs: tuple[Tensor, ...], output: Any) -> bool:
        """Become a node of the graph if this thread records and an input requires a gradient: store
        the parents, and the inputs that `saves` lists. tensor.apply calls this.

        Args:
            inputs: the Tensors.
            output: the array that forward has returned.
        Returns:
            Whether it was recorded.
        """
        if not _mode.recording:
            return False
        needs = tuple([tensor.requires_grad for tensor in inputs])
        if True not in needs:
            return False
        if self.parents is not None:
            raise RuntimeError(f"this {self.name} has recorded a call already: make a new one for each call")
        self.shape, self.dtype = output.shape, output.dtype
        if output.dtype.kind != "f":
            raise TypeError(f"{self.name}: a Tensor of dtype {self.dtype} cannot require a gradient")
        if self.saves:
            self._save(inputs, needs)
        else:
            self.saved_inputs = (_UNSAVED,) * len(inputs)
        self.parents = tuple([(tensor.grad_fn or tensor) if tensor.requires_grad else None for tensor in inputs])
        self.needs_input_grad, self.order = needs, next(_counter)
        return True

    def _save(self, inputs: tuple[Tensor, ...], needs: tuple[bool, ...]) -> None:
        """Keep the inputs that the wanted gradients read, and how often each was overwritten."""
        saved, versions = [_UNSAVED] * len(inputs), []
        try:
            for numbers in itertools.compress(self.saves, needs):
                for j in numbers:
                    saved[j] = tensor = inputs[j]
                    versions.append((tensor, tensor.version[0]))
        except IndexError:
            raise TypeError(
                f"{self.name}.saves is {self.saves}, but the indices of its inputs are 0 to {len(inputs) - 1}"
            ) from None
        self.saved_inputs, self._versions = tuple(saved), versions

    def gradients(self, dy: Tensor, needed: tuple[bool, ...]) -> list[tuple[Any, Tensor]]:
        """backward(dy), checked: a gradient for each input that needs one.

        Args:
            dy: the gradient of the output.
            needed: for each input, whether its gradient is wanted in this pass.
        Returns:
            The wanted gradients, each after the parent to which it goes.
        Raises:
            RuntimeError: a saved input was overwritten since the forward pass, or backward returned
                something other than a Tensor of the right shape and dtype for a wanted input.
        """
        if True not in needed:
            return []
        for tensor, version in self._versions:
            if tensor.version[0] != version:
                raise RuntimeError(
                    f"{self.name}: an input of shape {tensor.shape} that its backward pass reads was overwritten since "
                    "the forward pass, by an optimizer step, load_state_dict or p.data = …: call backward() before that"
                )
        recorded = self.needs_input_grad
        self.needs_input_grad = needed  # backward reads it
        try:
            gradients = self.backward(dy)
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            if len(error.args) == 1:
                error.args = (f"{self.name}.backward: {error}",)
            raise
        finally:
            self.needs_input_grad = recorded
        if not isinstance(gradients, tuple):
            gradients = (gradients,)
        if len(gradients) != len(needed):
            raise RuntimeError(
                f"{self.name}.backward returned {len(gradients)} gradients for {len(needed)} inputs: "
                "return a tuple with one for each, None for an input that needs none"
            )
        wanted = []
        for i, need in enumerate(needed):
            if not need:
                continue
            gradient, parent = gradients[i], self.parents[i]
            if not isinstance(gradient, type(dy)):
                kind = "no gradient" if gradient is None else f"a {type(gradient).__name__}, not a Tensor,"
                raise RuntimeError(f"{self.name}.backward returned {kind} for input {i}, which needs one")
            if gradient.data.shape != parent.shape or gradient.data.dtype != parent.dtype:
                raise RuntimeError(
                    f"{self.name}.backward returned a gradient of shape {gradient.shape} and dtype {gradient.dtype} "
                    f"for input {i} of shape {parent.shape} and dtype {parent.dtype}"
                )
            wanted.append((parent, gradient))
        if observers:
            for observer in tuple(observers):
                observer.differentiated(self, dy, gradients, needed)
        return wanted

    def free(self) -> None:
        """Drop all references, so that the graph below can be freed. A second backward pass through
        this node is then an error."""
        self.__dict__.clear()  # so parents is the class's None again


class _Unsaved:
    """Stands for an input that was not saved: using it is an AttributeError with an explanation."""

    def __repr__(self) -> str:
        return "an input that is not kept for the backward pass: the Function's `saves` must name it"

    def __getattr__(self, *_: Any) -> Any:
        raise AttributeError(f"{self!r}")

    # Python looks up operators in the class, not with __getattr__
    __add__ = __sub__ = __mul__ = __truediv__ = __pow__ = __matmul__ = __neg__ = __abs__ = __getattr__
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rpow__ = __rmatmul__ = __getitem__ = __getattr__
    __lt__ = __le__ = __gt__ = __ge__ = __getattr__


_UNSAVED = _Unsaved()


def _are_saves(saves: Any) -> bool:
    """Whether these are sequences of indices of inputs."""
    return isinstance(saves, (tuple, list)) and all(
        isinstance(numbers, (tuple, list)) and all(type(j) is int and j >= 0 for j in numbers) for numbers in saves
    )


class Copy(Function):
    """A copy of the array."""

    def forward(self, x: Any) -> Any:
        return x.copy()

    def backward(self, dy: Tensor) -> Tensor:
        return dy


class _Mode(threading.local):
    recording = True

    def __init__(self) -> None:
        self.left: list[bool] = []  # the former value, for each with-statement that was entered


_mode = _Mode()


def is_recording() -> bool:
    """Whether operations in this thread are recorded for differentiation."""
    return _mode.recording


class set_grad_enabled(ContextDecorator):
    """Switch recording on or off inside a with-statement or a decorated function, in this thread.

    Args:
        enabled: whether operations are recorded.
    """

    def __init__(self, enabled: bool) -> None:
        flags("set_grad_enabled", enabled=enabled)
        self.enabled = enabled

    def __enter__(self) -> None:
        _mode.left.append(_mode.recording)
        _mode.recording = self.enabled

    def __exit__(self, *_: object) -> None:
        _mode.recording = _mode.left.pop()


class no_grad(set_grad_enabled):
    """Do not record operations inside a with-statement or a decorated function, in this thread: for
    evaluation, where no gradient is wanted.

    Example:
        >>> import minicnn
        >>> x = minicnn.Tensor([1.0], requires_grad=True)
        >>> with no_grad():
        ...     (2 * x).requires_grad
        False
    """

    def __init__(self) -> None:
        super().__init__(False)


# There is no faster version of this file: the engine is the same on every backend.
