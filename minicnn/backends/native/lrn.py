"""Local response normalization (functional/lrn.py), by the kernels of lrn.c. Threads share the
elements of all pixels, in lines of the cache."""

from typing import Any

from ..numpy import lrn as numpy
from .launch import ALIGNED, Array, contiguous, empty_like, launch

Constants = Any  # functional.lrn.Constants, which belongs to a layer of imports above this one

BLOCK = 1024  # lrn.c's
MOST = 16  # β is less than so many quarters


def normalize(x: Array, constants: Constants) -> Array:
    """y = x / s^β"""
    if (numbers := _numbers(constants)) is None:
        return numpy.normalize(x, constants)
    return _launch("normalize", constants.window, (x,), numbers)


def normalize_backward(dy: Array, x: Array, constants: Constants) -> Array:
    """dx = dy s^-β − 2αβ x Sᵀ(dy x r)"""
    if (numbers := _numbers(constants)) is None:
        return numpy.normalize_backward(dy, x, constants)
    # a block, and what windows see of the elements before and after it, twice
    most = 2 * (BLOCK + 2 * min(constants.n, x.shape[-1]) + 2 * ALIGNED) * x.itemsize
    return _launch("normalize_backward", constants.window, (dy, x), numbers, room=most)


def sum_window(x: Array, window: tuple[int, int]) -> Array:
    """S(x) for window = (before, after)"""
    return _launch("sum_window", window, (x,))


def _numbers(constants: Constants) -> tuple[float, float, int] | None:
    """k, α and 4β; None if that is not a small whole number, since NumPy's powers are quicker than
    C's."""
    quarters = 4 * constants.beta
    return (constants.k, constants.alpha, int(quarters)) if quarters in range(MOST) else None


def _launch(
    kernel: str, window: tuple[int, int], arrays: tuple[Array, ...], numbers: tuple[float, ...] = (), room: int = 0
) -> Array:
    """Run a kernel on arrays (…, C); its result."""
    arrays = tuple(map(contiguous, arrays))
    out = empty_like(arrays[0])
    channels, line = out.shape[-1], ALIGNED // out.itemsize
    before, after = (min(side, channels) for side in window)  # there are no more
    launch(
        f"lrn.{kernel}", -(-out.size // line), *arrays, out, out.size, channels, before, after, *numbers,
        real=out.dtype, each=line, room=room,
    )  # fmt: skip
    return out
