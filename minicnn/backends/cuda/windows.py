"""im2col and col2im on a GPU: the lesson functional/windows.py, by the kernels of windows.cu."""

import functools
from typing import Any

from ..devices import Array
from .launch import contiguous, empty, launch, pack

EVERY_PIXEL = (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)  # is a window: kernel, stride, padding, dilation


def im2col(x: Array, window: Any, groups: int = 1) -> Array:
    """(N, H, W, C) -> (G·N·OH·OW, KH·KW·C/G): each window as a row; x itself, if each of its pixels is a window."""
    n, h, w, channels = x.shape
    c = channels // groups
    shape = geometry(window, (h, w), c)
    if window == EVERY_PIXEL and groups == 1 and x.flags.c_contiguous:
        return x.reshape(n * h * w, channels)
    if channels > 1 and x.strides[3] != x.itemsize:
        x = x.copy()
    rows, wide = groups * n * shape["OH"] * shape["OW"], shape["KH"] * shape["KW"] * c
    columns, strides = empty((rows, wide), x.dtype), _strides(x)
    width = _width(c, strides, x, columns)
    numbers = columns.size, n, *strides
    launch("windows.im2col", columns.size // width, x, columns, *numbers, real=x.dtype, PACK=width, G=groups, **shape)
    return columns


def col2im(columns: Array, shape: tuple[int, ...], window: Any, out: Array | None = None) -> Array:
    """(N·OH·OW, KH·KW·C) -> shape (N, H, W, C): each entry added to the pixel it was copied from; into `out`, if
    given."""
    x, columns = empty(shape, columns.dtype) if out is None else out, contiguous(columns)
    (_, h, w, c), strides = shape, _strides(x)
    width = _width(c, strides, x, columns)
    launch(
        "windows.col2im", x.size // width, columns, x, x.size, *strides,
        real=x.dtype, PACK=width, G=1, **geometry(window, (h, w), c),
    )  # fmt: skip
    return x


def _strides(x: Array) -> list[int]:
    """How many numbers the next image, line and pixel begin after."""
    return [stride // x.itemsize for stride in x.strides[:3]]


def _width(channels: int, strides: list[int], *arrays: Array) -> int:
    """PACK, for pixels of so many channels."""
    return pack(channels, *arrays) if all(stride % 4 == 0 for stride in strides) else 1


@functools.cache
def geometry(window: Any, size: tuple[int, int], channels: int) -> dict[str, int]:
    """The constants of the kernels that slide a window over an image of that size; kept, so not to be changed."""
    ((top, _), (left, _)), (oh, ow) = window.padding, window.output_size(*size)
    (kh, kw), (sh, sw), (dh, dw) = window.kernel_size, window.stride, window.dilation
    return {
        "C": channels, "H": size[0], "W": size[1], "KH": kh, "KW": kw, "SH": sh, "SW": sw, "DH": dh, "DW": dw,
        "TOP": top, "LEFT": left, "OH": oh, "OW": ow,
    }  # fmt: skip
