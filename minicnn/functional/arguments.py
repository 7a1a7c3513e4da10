"""What a lesson's public function is given, checked in a line, so that the lesson need not speak of
it. Settings are checked by `minicnn.checks`."""

from typing import Any

from ..backends.devices import is_array
from ..checks import flags, shown
from ..tensor import Tensor


def require_tensors(name: str, **arguments: Any) -> None:
    """Check arguments that have to be Tensors; the keywords are what the message calls them."""
    for argument, value in arguments.items():
        if not isinstance(value, Tensor):
            wrap = ": wrap an array as Tensor(array)" if is_array(value) or isinstance(value, (list, float)) else ""
            raise TypeError(f"{name}: {argument} must be a Tensor, not {shown(value)}{wrap}")


def require_constants(name: str, **arguments: Any) -> None:
    """Check arguments that have to be Tensors or, as constants, arrays."""
    for argument, value in arguments.items():
        if not isinstance(value, Tensor) and not is_array(value):
            raise TypeError(f"{name}: {argument} must be a Tensor or an array, not {shown(value)}")


def require_images(name: str, x: Any, **settings: Any) -> None:
    """Check that x is a Tensor of images, and that settings are True or False."""
    require_tensors(name, x=x)
    flags(name, **settings)
    if x.ndim != 4:
        raise ValueError(f"{name} needs x of (N, H, W, C), not {x.shape}")


def require_floating(name: str, x: Any) -> Tensor:
    """x, if it is a Tensor of floats."""
    if not isinstance(x, Tensor):
        require_tensors(name, x=x)
    if x.dtype.kind != "f":
        raise TypeError(f"{name} needs a floating-point Tensor, not {x.dtype}")
    return x


def require_written(name: str, **arguments: Any) -> None:
    """Check arguments that the function updates: arrays of floats that are not read-only."""
    for argument, value in arguments.items():
        if isinstance(value, Tensor):
            raise TypeError(f"{name}: {argument} is an array, which it updates: write .data of a Tensor")
        if not is_array(value) or value.dtype.kind != "f":
            raise TypeError(f"{name}: {argument} must be an array of floats, not {shown(value)}")
        if not getattr(value.flags, "writeable", True):
            raise ValueError(f"{name}: {argument}, which it updates, is a read-only array of shape {value.shape}")
