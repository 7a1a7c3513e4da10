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

from collections.abc import Callable
from typing import Any

from . import autograd
from .backends import chosen_backend
from .backends.cuda.products import matmul_precision
from .backends.devices import Array, graphs, on_device
from .checks import shown
from .nn.module import Module
from .random import draw, place_of_rows, random_state, set_random_state
from .tensor import Tensor

MOST = 4  # graphs that a Captured keeps; each holds memory for its results


class Captured:
    """A function whose work on a GPU is captured, and repeated as a whole.

    It is called as the function is. The first call for some shapes runs the function, the second
    one in a row captures it, and all others repeat what was captured: then the function itself does
    not run. It runs, and is captured anew, whenever something else differs that decides what is
    computed: dtypes, devices, the modules' modes and arrays, requires_grad, no_grad, the matmul
    precision, the backend, the seed. On a CPU, with a forward hook, or inside detect_anomaly it
    runs each time.

    What else the function reads must not change: a setting such as Dropout.p, or a number of
    Python's, stays as it was when it was captured. It may call backward(). It must not update
    parameters, and not wait for the GPU, as item(), numpy() and print do.

    Args:
        function: of Tensors; it returns a Tensor, a tuple of Tensors, or None.
        module: all parameters and buffers that the function uses are in it.
    Raises:
        TypeError: an input is not a Tensor, or the function returns something else.
        ValueError: an input requires a gradient, or inputs are on several devices.
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
        self.steps: dict[Any, _Step] = {}
        self.capture: dict[str, Any] = {}  # by device, what captures there
        self.before: Any = None  # the key of the call before

    def __call__(self, *inputs: Tensor) -> Any:
        """Gradients that the parameters have are forgotten first: what the function leaves are
        those of this call. Results require no gradient. They are the caller's; the gradients are
        overwritten by the next call."""
        device = _checked(inputs)
        self.module.zero_grad()
        key = None if device == "cpu" else self._key(inputs)
        before, self.before = self.before, key
        if key is None or (key not in self.steps and key != before):
            return _each(Tensor.detach, self.function(*inputs))
        with on_device(device):
            if key not in self.steps:
                while len(self.steps) >= MOST:
                    del self.steps[next(iter(self.steps))]
                if device not in self.capture:
                    self.capture[device] = graphs(device)
                self.steps[key] = _Step(self.capture[device], self.function, self.module, inputs)
            return self.steps[key](inputs)

    def _key(self, inputs: tuple[Tensor, ...]) -> Any:
        """All that decides what is computed; None if somebody looks on."""
        modules = [module for _, module in self.module.named_modules()]
        if autograd.observers or any(module._hooks for module in modules):
            return None
        seed, _ = random_state()
        return (
            tuple([(x.shape, x.dtype, x.device) for x in inputs]),
            tuple([module.training for module in modules]),
            tuple([id(array) for array in _held(self.module)]),
            tuple([p.requires_grad for p in self.module.parameters()]),
            autograd.is_recording(), matmul_precision(), chosen_backend(), seed, place_of_rows(),
        )  # fmt: skip


class _Step:
    """What a function does, captured."""

    def __init__(self, capture: Any, function: Callable[..., Any], module: Module, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = [x.detach().copy() for x in inputs]
        self.held = _held(module)  # their ids are in the key
        state = random_state()

        def run() -> None:
            self.results = _each(Tensor.detach, function(*self.inputs))

        try:
            self.graph = capture(run)
            self.first, self.draws = state[1], random_state()[1] - state[1]
            self.gradients = [(p, p.grad) for p in module.parameters() if p.grad is not None]
        except BaseException:
            module.zero_grad()  # nothing has computed them
            raise
        finally:
            set_random_state(state)

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


def _held(module: Module) -> list[Array]:
    """The arrays of a module's parameters and buffers."""
    return [value.data if isinstance(value, Tensor) else value for _, value in module._entries()]


def _each(change: Callable[[Tensor], Tensor], result: Any) -> Any:
    """The same of what a function has returned, changed."""
    if isinstance(result, tuple):
        return tuple([_each(change, part) for part in result])
    if result is not None and not isinstance(result, Tensor):
        raise TypeError(f"Captured: the function returns Tensors, a tuple of them, or None, not {shown(result)}")
    return None if result is None else change(result)
