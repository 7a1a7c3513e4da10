"""Reverse-mode differentiation: what an operation is, and the walk back through the operations that were recorded.

A recorded Tensor points to the Function that made it, its node; a node points along its edges to the nodes (or leaf
Tensors) that made its inputs. Nothing points forward, so there are no reference cycles and a graph is freed as soon as
its last Tensor is.

    x ──┐
        Mul ── Exp ── y          y.node is Exp;  Exp.edges == (Mul,);  Mul.edges == (x, w)
    w ──┘

This file sees a Tensor only as its data, shape, dtype, node, requires_grad and version.
"""

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import ContextDecorator
from operator import attrgetter
from typing import Any

Tensor = Any  # minicnn.tensor.Tensor, which is on a floor above this one
_clock = itertools.count()


class _Mode(threading.local):
    recording = True


_mode = _Mode()


def is_recording() -> bool:
    """Are operations in this thread recorded for differentiation?"""
    return _mode.recording


class set_grad_enabled(ContextDecorator):
    """Record operations, or do not, inside a with-statement or a decorated function; in this thread only."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.before: list[bool] = []

    def __enter__(self) -> None:
        self.before.append(_mode.recording)
        _mode.recording = self.enabled

    def __exit__(self, *_: object) -> None:
        _mode.recording = self.before.pop()

    def _recreate_cm(self) -> "set_grad_enabled":
        return set_grad_enabled(self.enabled)  # each call of a decorated function has its own: threads may overlap


class no_grad(set_grad_enabled):
    """Do not record operations: for evaluation, where no gradient is wanted. Works as a with-statement and as a
    decorator, per thread."""

    def __init__(self) -> None:
        super().__init__(False)


class Function:
    """One operation: an array in, an array out, and how a gradient flows back.

    A subclass keeps its hyperparameters from __init__ and defines

        forward(*arrays) -> array       the result; what the backward pass needs besides the inputs is set on self
        backward(grad) -> gradients     given dL/d(output), the Tensor dL/d(input) for each input, computed with
                                        operations on Tensors, so that it can itself be recorded and differentiated
        reads                           reads[i] names the inputs whose values the gradient of input i is computed from

    An object records one call. In backward, self.needs[i] tells whether the gradient of input i is wanted (None may be
    returned otherwise), and self.inputs[j] is the Tensor that was input j, kept only if a wanted gradient reads it. A
    gradient is a new Tensor or a view of the one handed in, never something that is kept.
    """

    reads: tuple[tuple[int, ...], ...] = ()
    floating = False  # does the result need real numbers? then integers are converted first
    edges: Any = None  # a node, a leaf Tensor or None for each input; None: not recorded, or freed

    inputs: tuple[Any, ...]
    needs: tuple[bool, ...]
    shape: tuple[int, ...]
    dtype: Any
    order: int
    _versions: list[tuple[Any, int]]  # what is read, and how often it had been overwritten then

    def forward(self, *arrays: Any) -> Any:
        raise NotImplementedError(f"{self.name} does not define forward")

    def backward(self, grad: Tensor) -> Tensor | tuple[Tensor | None, ...]:
        raise NotImplementedError(f"{self.name} does not define backward")

    @property
    def name(self) -> str:
        return type(self).__name__

    def record(self, inputs: tuple[Tensor, ...], output: Any) -> bool:
        """Become a node of the graph, if any input requires a gradient: remember where the inputs came from, and those
        of them that backward reads."""
        needs, edges = [], []  # filled in one loop: list comprehensions take three times as long for so few
        for tensor in inputs:
            needs.append(tensor.requires_grad)
            edges.append((tensor.node or tensor) if tensor.requires_grad else None)
        if True not in needs:
            return False
        if self.edges is not None:
            raise RuntimeError(f"this {self.name} has recorded a call already: make a new one for each call")
        if output.dtype.kind != "f":
            raise TypeError(f"{self.name}: a Tensor of dtype {output.dtype} cannot require a gradient")
        kept: list[Tensor | None] = [None] * len(inputs)
        versions = []
        for reads, need in zip(self.reads, needs, strict=False):  # the last inputs may be left out
            if need:
                for j in reads:
                    kept[j] = inputs[j]
                    versions.append((inputs[j], inputs[j].version[0]))
        self.edges, self.needs, self.inputs, self._versions = tuple(edges), tuple(needs), tuple(kept), versions
        self.shape, self.dtype = output.shape, output.dtype
        self.order = next(_clock)
        return True

    def gradients(self, grad: Tensor, needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        """backward(grad), with its result checked; `needs` can ask for fewer gradients than there could be."""
        for tensor, version in self._versions:
            if tensor.version[0] != version:
                raise RuntimeError(
                    f"{self.name}: an input of shape {tensor.shape} that its backward pass reads was overwritten since "
                    "the forward pass, by an optimizer step or load_state_dict: call backward() before that happens"
                )
        every, self.needs = self.needs, needs
        try:
            gradients = self.backward(grad)
        finally:
            self.needs = every
        if not isinstance(gradients, tuple):
            gradients = (gradients,)
        if len(gradients) != len(needs):
            raise RuntimeError(f"{self.name}.backward returned {len(gradients)} gradients for {len(needs)} inputs")
        for i, needed in enumerate(needs):
            if not needed:
                continue
            gradient, edge = gradients[i], self.edges[i]
            if not isinstance(gradient, type(grad)):
                kind = "no gradient" if gradient is None else f"a {type(gradient).__name__}, not a Tensor,"
                raise RuntimeError(f"{self.name}.backward returned {kind} for input {i}, which needs one")
            if gradient.data.shape != edge.shape or gradient.data.dtype != edge.dtype:
                raise RuntimeError(
                    f"{self.name}.backward returned a gradient of shape {gradient.shape} and dtype {gradient.dtype} "
                    f"for input {i} of shape {edge.shape} and dtype {edge.dtype}"
                )
        return gradients

    def free(self) -> None:
        """Forget everything: the graph below can go. A second backward through here is then an error."""
        self.__dict__.clear()


class Copy(Function):
    """The same numbers in memory of their own."""

    def forward(self, x: Any) -> Any:
        return x.copy()

    def backward(self, grad: Tensor) -> Tensor:
        return grad


def walk(
    roots: list[tuple[Tensor, Tensor]],
    deliver: Callable[[Tensor, Tensor], None],
    wanted: list[Tensor] | None,
    retain_graph: bool,
) -> None:
    """Carry the gradients of the roots, given as (tensor, gradient) pairs, down to the leaves.

    deliver(tensor, gradient) is called for each leaf, or for each wanted Tensor, as soon as its gradient is complete.
    Nodes are visited from the newest to the oldest, so each has received its whole gradient before it passes it on;
    there is no recursion. Each delivered gradient has memory of its own.
    """
    targets = None if wanted is None else {_target(tensor): tensor for tensor in wanted}
    nodes, missing = _survey([_target(tensor) for tensor, _ in roots], targets)
    received: dict[Any, Tensor] = {}
    taken = {memory_of(gradient) for _, gradient in roots}  # memory that is already somebody's

    def finish(tensor: Tensor, gradient: Tensor) -> None:
        if memory_of(gradient) in taken or 0 in gradient.data.strides:
            gradient = gradient.apply(Copy(), gradient)
        taken.add(memory_of(gradient))
        deliver(tensor, gradient)

    def receive(target: Any, gradient: Tensor) -> None:
        before = received.get(target)
        # never in place: the memory may be another's as well
        received[target] = gradient if before is None else before + gradient
        if target in missing:
            missing[target] -= 1
            if not missing[target]:
                finish(target, received.pop(target))

    for tensor, gradient in roots:
        target = _target(tensor)
        if target in nodes or target in missing:
            receive(target, gradient)
    del roots, tensor, gradient, target
    while nodes:
        node, needs = nodes.popitem()
        gradient = received.pop(node)
        if targets is not None and node in targets:
            finish(targets[node], gradient)
        if True in needs:
            gradients = node.gradients(gradient, needs)
            if needs.count(True) > 1:  # what goes two ways is nobody's alone
                owners = [memory_of(g) for g, needed in zip(gradients, needs, strict=True) if needed]
                taken.update([owner for owner in owners if owners.count(owner) > 1])
            for edge, needed, gradient in zip(node.edges, needs, gradients, strict=True):
                if needed:
                    receive(edge, gradient)
            del gradients, edge
        if not retain_graph:
            node.free()
        del node, gradient  # so that what was used is gone before the next node asks for memory


def _target(tensor: Tensor) -> Any:
    """Where the gradient of a Tensor arrives: at the node that made it, or at the leaf itself."""
    return tensor if tensor.node is None else tensor.node


def memory_of(tensor: Tensor) -> int:
    """The identity of whatever owns a Tensor's memory."""
    owner = tensor.data
    while getattr(owner, "base", None) is not None:
        owner = owner.base
    return id(owner)


def _survey(
    roots: list[Any], targets: dict[Any, Tensor] | None
) -> tuple[dict[Function, tuple[bool, ...]], dict[Tensor, int]]:
    """Look at the graph before the walk. Of what leads to a target (everything does, if targets is None): the nodes,
    the oldest first, with the gradients that each is to compute, and how many gradients each leaf is to receive."""
    nodes: list[Function] = []
    arrivals: defaultdict[Any, int] = defaultdict(int)  # of gradients, at each node and leaf
    for root in roots:
        arrivals[root] += 1
    stack = list(arrivals)
    while stack:
        place = stack.pop()
        if not isinstance(place, Function):
            continue
        if place.edges is None:
            raise RuntimeError(
                f"the graph through {place.name} was freed by an earlier backward pass: "
                "give that one retain_graph=True, or run forward again"
            )
        nodes.append(place)
        for edge in place.edges:
            if edge is not None:
                if edge not in arrivals:
                    stack.append(edge)
                arrivals[edge] += 1

    nodes.sort(key=attrgetter("order"))
    useful = set(arrivals if targets is None else targets)
    asked = {}
    for node in nodes:
        needs = node.needs if targets is None else tuple([edge in useful for edge in node.edges])
        if True in needs or node in useful:
            useful.add(node)
            asked[node] = needs
    return asked, {place: arrivals[place] for place in useful if not isinstance(place, Function)}
