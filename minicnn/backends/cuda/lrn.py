"""Local response normalization on a GPU: the lesson functional/lrn.py, by the kernels of lrn.cu."""

from typing import Any

from ..devices import Array
from .launch import contiguous, empty_like, launch, pack

# channels: the loops over a window so long are not unrolled, nor is a channel's place in its
# pack known then
LONG = 8


def normalize(x: Array, norm: Any) -> Array:
    return _launch("normalize", norm.window, (x,), (norm.k, norm.alpha, norm.beta))


def normalize_backward(dy: Array, x: Array, norm: Any) -> Array:
    return _launch("normalize_backward", norm.window, (dy, x), (norm.k, norm.alpha, norm.beta))


def sum_window(x: Array, window: tuple[int, int]) -> Array:
    return _launch("sum_window", window, (x,), ())


def _launch(kernel: str, window: tuple[int, int], given: tuple[Array, ...], numbers: tuple[float, ...]) -> Array:
    """Run a kernel on arrays (…, C); its result."""
    out, channels = empty_like(given[0]), given[0].shape[-1]
    arrays = [*map(contiguous, given), out]
    before, after = window
    width = pack(channels, *arrays) if before + 1 + after < LONG else 1
    launch(
        f"lrn.{kernel}", out.size // width, *arrays, out.size, *numbers, real=out.dtype,
        C=channels, BEFORE=before, AFTER=after, PACK=width,
    )  # fmt: skip
    return out
