"""Captured: what a function asks of a GPU, asked for as a whole.

A training step of AlexNet launches a hundred kernels, and the host takes 20 µs for each. The GPU is
faster than that with small batches, and waits for the host. But from one step to the next the host
asks for the same: only images, labels, random numbers and learning rate differ. So the launches of a
step are captured once, as a CUDA graph, and from then on launched all together.

    def passes(images, labels):
        loss = F.cross_entropy(net(images), labels)
        loss.backward()
        return loss

    passes = minicnn.Captured(passes, net)
    for images, labels in loader:
        loss = passes(Tensor(images), Tensor(labels))
        optimizer.step()

The update stays outside: it is one launch for 24 parameters, and has another learning rate each
time. The numbers of dropout are those that they would be without Captured.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from . import autograd
from .backends import chosen_backend
from .backends.cuda.products import matmul_precision
from .backends.devices import graphs, on_device
from .checks import shown
from .nn.module import Module
from .random import draw, drawn_here, place_of_rows, random_state, set_random_state
from .tensor import Tensor

MOST = 4  # graphs that a Captured keeps; each holds memory for its results
SEEN = 16  # calls that it remembers beside them


class _Now(threading.local):
    calling = False  # whether this thread is inside the call of a Captured


_now = _Now()


class Captured:
    """A function whose work on a GPU is captured, and repeated as a whole.

    It is called as the function is. The first call for some shapes runs the function, the second
    one captures it, and all others repeat what was captured: then the function itself does not run.
    It runs, and is captured anew, whenever something else differs that decides what is computed:
    dtypes, devices, the modules and their modes, the numbers and texts among their attributes,
    their parameters and buffers, requires_grad, no_grad, the matmul precision, the backend, the
    seed. On a CPU, with hooks of modules or parameters, or inside detect_anomaly it runs each time.

    What else the function reads must not change: a number of Python's stays as it was when it was
    captured. It may call backward(). It must not update parameters, and not wait for the GPU, as
    item(), numpy() and print do. All that a step computes with has its place in memory for as long
    as the Captured is there, beside what plain calls use.

    Args:
        function: of Tensors; it returns a Tensor, a tuple of Tensors, or None.
        module: all parameters and buffers that the function uses are in it.
    Raises:
        TypeError: an input is not a Tensor, or the function returns something else.
        ValueError: an input requires a gradient, inputs are on several devices, or a gradient goes
            to a parameter that is not in the module.
        RuntimeError: the function does what cannot be captured.

    Example:
        >>> import minicnn
        >>> layer = minicnn.nn.Linear(2, 1)
        >>> def passes(x):
        ...     loss = (layer(x) * layer(x)).sum()
        ...     loss.backward()
        ...     return loss
        >>> passes = Captured(passes, layer)
        >>> passes(Tensor([[1.0, 2.0]])).requires_grad, layer.weight.grad.shape
        (False, (2, 1))
    """

    def __init__(self, function: Callable[..., Any], module: Module) -> None:
        if not callable(function) or not isinstance(module, Module):
            raise TypeError(f"Captured: a function and a Module, not {shown(function)} and {shown(module)}")
        self.function, self.module = function, module
        self.steps: dict[Any, _Step] = {}  # by what decides what is computed, the last used one last
        self.seen: deque[Any] = deque(maxlen=SEEN)
        self.capture: dict[str, Any] = {}  # by device, what captures there

    def __call__(self, *inputs: Tensor) -> Any:
        """Gradients that the parameters have are forgotten first: what the function leaves are
        those of this call. Results require no gradient. They are the caller's; the gradients are
        overwritten by the next call."""
        if _now.calling:
            raise RuntimeError("a Captured was called inside another one: call its function instead")
        _now.calling = True
        try:
            return self._call(inputs)
        finally:
            _now.calling = False

    def _call(self, inputs: tuple[Tensor, ...]) -> Any:
        device = _checked(inputs)
        self.module.zero_grad()
        if device == "cpu":
            return _each(Tensor.copy, self._run(inputs))
        deciding = _Deciding(self.module, inputs)
        if deciding.looked_at or (deciding.key not in self.steps and deciding.key not in self.seen):
            results = _each(Tensor.copy, self._run(inputs))
            self.seen.append(deciding.key)  # now that it has not failed
            return results
        with on_device(device):
            step = self.steps.pop(deciding.key, None) or self._capture(device, deciding, inputs)
            self.steps[deciding.key] = step
            return step(inputs)

    def _capture(self, device: str, deciding: _Deciding, inputs: tuple[Tensor, ...]) -> _Step:
        """The function's work, captured, in the place of what was not used for longest."""
        while len(self.steps) >= MOST:
            del self.steps[next(iter(self.steps))]
        if device not in self.capture:
            self.capture[device] = graphs(device)
        return _Step(self.capture[device], self._run, deciding, inputs)

    def _run(self, inputs: tuple[Tensor, ...]) -> Any:
        """The function's results, without a graph."""
        with autograd.reached_leaves() as leaves:
            results = _each(Tensor.detach, self.function(*inputs))
        own = {id(p) for p in self.module.parameters()}
        if outside := [leaf for leaf in leaves if id(leaf) not in own]:
            raise ValueError(
                f"Captured: a gradient went to a Tensor of shape {outside[0].shape} that is not a parameter of the "
                f"{type(self.module).__name__}: make a Module that has all of them"
            )
        return results


class _Deciding:
    """All that decides what a function computes.

    Attributes:
        key: of it, with ids of objects.
        held: those objects, which have to be kept for as long as the key is in use.
        looked_at: whether somebody wants to see each module's output or each gradient.
    """

    def __init__(self, module: Module, inputs: tuple[Tensor, ...]) -> None:
        self.modules = [part for _, part in module.named_modules()]
        self.parameters = list(module.parameters())
        arrays = [value.data if isinstance(value, Tensor) else value for _, value in module._entries()]
        self.held = [*self.modules, *self.parameters, *arrays]
        hooks = any(part._hooks for part in self.modules) or any(p.hooks for p in self.parameters)
        self.looked_at = hooks or bool(autograd.observers)
        seed, _ = random_state()
        self.key = (
            tuple([(x.shape, x.dtype, x.device) for x in inputs]),
            tuple([id(thing) for thing in self.held]),
            tuple([value for part in self.modules for value in vars(part).values() if type(value) in PLAIN]),
            tuple([part.training for part in self.modules]),
            tuple([p.requires_grad for p in self.parameters]),
            autograd.is_recording(), matmul_precision(), chosen_backend(), seed, place_of_rows(),
        )  # fmt: skip


PLAIN = {bool, int, float, str}


class _Step:
    """What a function does, captured."""

    def __init__(self, capture: Any, run: Callable[..., Any], deciding: _Deciding, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = tuple([x.detach().copy() for x in inputs])
        self.held = deciding.held
        before, drawn_before = random_state(), drawn_here()

        def function() -> None:
            self.results = run(self.inputs)

        try:
            self.graph = capture(function)
        except BaseException:
            for p in deciding.parameters:
                p.grad = None  # nothing has computed it
            raise
        finally:
            self.first, self.draws = before[1], drawn_here() - drawn_before
            alone = random_state()[1] == self.first + self.draws
            if alone:
                set_random_state(before)
        if not alone:
            raise RuntimeError("Captured: another thread has drawn random numbers meanwhile, or set their state")
        self.gradients = [(p, p.grad) for p in deciding.parameters if p.grad is not None]

    def __call__(self, inputs: tuple[Tensor, ...]) -> Any:
        for there, x in zip(self.inputs, inputs, strict=True):
            there.data[...] = x.data
        _, drawn = draw(self.draws)
        self.graph.launch((drawn - self.first) % 2**64)
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return _each(Tensor.copy, self.results)


def _checked(inputs: tuple[Tensor, ...]) -> str:
    """The device of the inputs, if the function can be captured with them."""
    for x in inputs:
        if not isinstance(x, Tensor):
            raise TypeError(f"Captured: the function's inputs are Tensors, not {shown(x)}")
        if x.requires_grad:
            raise ValueError("Captured: an input that requires a gradient: put it into the module, or detach() it")
    devices = sorted({x.device for x in inputs})
    if len(devices) != 1:
        raise ValueError(f"Captured: inputs on one device, not on {', '.join(devices) or 'none'}")
    return devices[0]


def _each(change: Callable[[Tensor], Tensor], result: Any) -> Any:
    """The same of what a function has returned, changed."""
    if isinstance(result, tuple):
        return tuple([_each(change, part) for part in result])
    if result is not None and not isinstance(result, Tensor):
        raise TypeError(f"Captured: the function returns Tensors, a tuple of them, or None, not {shown(result)}")
    return None if result is None else change(result)
