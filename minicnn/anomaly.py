"""detect_anomaly: where the first NaN or infinity of a computation comes from.

A NaN spreads: one element of one gradient is enough, and a step later all weights and all losses
are NaN. What is seen is the end of that, and what is needed is its beginning: the first operation
whose result is not finite although all that it was computed from is. Inside detect_anomaly every
operation looks back at its result, and every step of the backward pass at its gradients.

Nothing is kept in Tensors for this. Which layer an operation belongs to is read from Python's own
stack of calls: the modules whose __call__ is running at that moment, the outermost first. Outside,
an operation only sees that the list autograd.observers is empty.
"""

from __future__ import annotations

import sys
import threading
from contextlib import ContextDecorator
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from .autograd import Function, backward_pass, observers
from .backends.devices import Array, on_device_of
from .nn.module import Module
from .tensor import Tensor

Modules = tuple[Module, ...]  # each was called by the one before it


class AnomalyError(ArithmeticError):
    """A result or a gradient is NaN or infinite; detect_anomaly raises it.

    Args:
        message: what happened.
        path: of the module in which the operation's forward ran, from the network: "conv3.conv";
            empty if it was in none, or in the network itself, or is not known.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class detect_anomaly(ContextDecorator):
    """Inside a with-statement or a decorated function, in this thread: the first operation whose
    output is NaN or infinite, and the first whose gradient is, is an error that names it.

    The message says in which layer of which network this happened (for a gradient: in which layer
    the operation's forward pass ran, if that was inside as well), in the forward or in the backward
    pass, to how many elements, and between which numbers the operation's inputs lie. If an input
    was NaN or infinite before, the message says that, and which parameter it is.

    Infinities that are meant count too: log(0), or a mask of −inf before a softmax. Only results
    count, and not what an operation or its gradient computes on the way, such as the −inf with
    which max-pooling pads. Every result is read once more, and a GPU is waited for each time, so a
    step takes longer; outside it costs nothing.

    Raises:
        AnomalyError: by the operation, or by backward() or grad(), inside.

    Example:
        >>> import minicnn
        >>> x = minicnn.Tensor([0.0, 4.0], requires_grad=True)
        >>> with np.errstate(divide="ignore"), detect_anomaly():  # NumPy would warn of the division
        ...     x.sqrt().sum().backward()
        Traceback (most recent call last):
            ...
        minicnn.anomaly.AnomalyError: backward pass: Sqrt's gradient of shape (2,) for its input 0
        has 1 of 2 elements infinite; the gradient of its output, of shape (2,), is 1, its output,
        of shape (2,), is from 0 to 2
    """

    def __enter__(self) -> None:
        observers.append(_Observer())

    def __exit__(self, *_: object) -> None:
        observers.remove(_Observer())


class _Observer:
    """Looks at the operations of the thread that has made it. Two of one thread are equal."""

    def __init__(self) -> None:
        # the object and not its number, which another thread gets when this one has ended
        self.thread = threading.current_thread()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Observer) and self.thread is other.thread

    def computed(self, function: Function, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Look at the output of an operation, which tensor.apply has computed.

        Args:
            function: the operation.
            inputs: its inputs.
            output: its result.
        Raises:
            AnomalyError: it is not finite.
        """
        if self.thread is not threading.current_thread():
            return
        inside, modules = _calls()
        _modules[function] = modules
        # part of its backward: what counts is the gradient that this returns
        if isinstance(inside, Function):
            return
        if found := _not_finite(output.data):
            which = "backward pass, adding up gradients or in a hook: " if inside else "forward pass: "
            what = f"{which}the output of {function.name}, of shape {output.shape}, has {found}"
            raise _error(what + _explanation(_named(inputs), modules), modules)

    def differentiated(self, node: Function, dy: Tensor, gradients: tuple[Any, ...], needed: tuple[bool, ...]) -> None:
        """Look at the gradients that an operation's backward has returned.

        Args:
            node: the operation.
            dy: the gradient of its output.
            gradients: for each input a Tensor, or something else if it is not needed.
            needed: whether it is.
        Raises:
            AnomalyError: one of them is not finite.
        """
        if self.thread is not threading.current_thread():
            return
        for i, (gradient, need) in enumerate(zip(gradients, needed, strict=True)):
            if need and (found := _not_finite(gradient.data)):
                modules = _modules.get(node)
                what = f"backward pass: {node.name}'s gradient of shape {gradient.shape} for its input {i} has {found}"
                if modules is None:
                    what += " (in which layer is not known: its forward pass ran outside detect_anomaly)"
                read = {"the gradient of its output": dy, **_named(node.saved_inputs)}
                y = getattr(node, "y", None)  # some keep their output, see Function.saved_output
                if isinstance(y, type(dy.data)):
                    read["its output"] = Tensor.wrap(y)
                raise _error(what + _explanation(read, modules or ()), modules or ())


# of each operation that was observed and is still part of a graph: the modules that were running
_modules: WeakKeyDictionary[Function, Modules] = WeakKeyDictionary()


def _calls() -> tuple[Any, Modules]:
    """What the calls that are running say of an operation: (the Function whose backward it is part
    of, or else the function backward_pass if that is running, or else None; the modules that it
    belongs to)."""
    modules: list[Module] = []
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_code is Module.__call__.__code__:
            modules.append(frame.f_locals["self"])
        elif frame.f_code is Function.gradients.__code__:
            node = frame.f_locals["self"]
            return node, _modules.get(node, ())
        elif frame.f_code is backward_pass.__code__:
            return backward_pass, ()
        frame = frame.f_back
    return None, tuple(reversed(modules))


def _error(text: str, modules: Modules) -> AnomalyError:
    """With the path of the last of these modules from the first: "conv3.conv (Conv2d) of Net: "."""
    if not modules:
        return AnomalyError(text)
    names = []
    for outer, inner in pairwise(modules):
        names += [name for name, module in outer.named_modules() if module is inner][:1]
    path, first, last = ".".join(names), type(modules[0]).__name__, type(modules[-1]).__name__
    return AnomalyError(f"{path} ({last}) of {first}: {text}" if path else f"{last}: {text}", path)


def _named(inputs: tuple[Any, ...]) -> dict[str, Tensor]:
    """Those of the inputs that are kept, by what messages call them."""
    return {f"its input {i}": tensor for i, tensor in enumerate(inputs) if isinstance(tensor, Tensor)}


def _explanation(read: dict[str, Tensor], modules: Modules) -> str:
    """What an operation has read: what of it was not finite before, or else its ranges."""
    names: dict[Tensor, str] = {value: name for name, value in (modules[0].named_parameters() if modules else ())}
    before = []
    for what, tensor in read.items():
        if found := _not_finite(tensor.data):
            if tensor in names:
                what = f"the parameter {names[tensor]}"
            before.append(f"{what}, of shape {tensor.shape}, has {found}")
    if before:
        return f"; it was computed from what was not finite before: {', and '.join(before)}"
    return "; " + ", ".join(f"{what}, of shape {t.shape}, is {_range(t.data)}" for what, t in read.items())


def _not_finite(array: Array) -> str:
    """How many elements are NaN or infinite, in words; empty if none is."""
    if array.dtype.kind != "f":
        return ""
    with on_device_of(array):
        if bool(np.isfinite(array).all()):
            return ""
        counts = {"NaN": int(np.isnan(array).sum()), "infinite": int(np.isinf(array).sum())}
    return " and ".join(f"{n} of {array.size} elements {word}" for word, n in counts.items() if n)


def _range(array: Array) -> str:
    """The smallest and the largest element, in words."""
    if not array.size:
        return "empty"
    with on_device_of(array):
        low, high = array.min().item(), array.max().item()
    return f"{low:.4g}" if low == high else f"from {low:.4g} to {high:.4g}"
