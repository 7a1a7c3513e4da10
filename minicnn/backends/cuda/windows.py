"""im2col and col2im on a GPU: the lesson functional/windows.py, by the kernels of windows.cu."""

import functools
from typing import Any

from ..devices import Array
from .launch import contiguous, empty, launch, pack

# windows to a thread of im2col: all 13 of AlexNet's conv3 to conv5, 9 of conv2's 27, 11 of
# conv1's 55
MOST = 13
# each pixel is a window: kernel, stride, padding, dilation
EVERY_PIXEL = (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)


def im2col(x: Array, window: Any, groups: int = 1, whole: int = 1) -> Array:
    """The lesson's columns, but group after group, in rows that zeros make a multiple of `whole`
    elements long: (G·N·OH·OW, ROW). The result is x itself if each of its pixels is a window."""
    n, h, w, channels = x.shape
    c = channels // groups
    shape = geometry(window, (h, w), c)
    row = -(-shape["KH"] * shape["KW"] * c // whole) * whole
    if window == EVERY_PIXEL and groups == 1 and row == c and x.flags.c_contiguous:
        return x.reshape(n * h * w, channels)
    if channels > 1 and x.strides[3] != x.itemsize:
        x = x.copy()
    lines, ow = groups * n * shape["OH"], shape["OW"]
    columns, (image, constants) = empty((lines * ow, row), x.dtype), _strides(x)
    width, runs = pack(row, columns), -(-ow // MOST)
    count = lines * runs * (row // width)
    launch(
        "windows.im2col", count, x, columns, count, n, image, real=x.dtype,
        PACK=width, READ=min(width, _width(c, x)), RUN=-(-ow // runs), G=groups, ROW=row, **constants, **shape,
    )  # fmt: skip
    return columns


def col2im(columns: Array, shape: tuple[int, ...], window: Any, out: Array | None = None) -> Array:
    """The lesson's col2im, into `out` if that is given."""
    x, columns = empty(shape, columns.dtype) if out is None else out, contiguous(columns)
    (_, h, w, c), (image, constants) = shape, _strides(x)
    width = min(_width(c, x), pack(columns.shape[1], columns))
    launch(
        "windows.col2im", x.size // width, columns, x, x.size, image, real=x.dtype,
        PACK=width, READ=width, RUN=1, G=1, ROW=columns.shape[1], **constants, **geometry(window, (h, w), c),
    )  # fmt: skip
    return x


def _strides(x: Array) -> tuple[int, dict[str, int]]:
    """How many elements the next image begins after, and, as constants, the next line and pixel."""
    image, line, pixel, _ = x.strides
    return image // x.itemsize, {"LINE": line // x.itemsize, "PIXEL": pixel // x.itemsize}


def _width(channels: int, x: Array) -> int:
    """PACK, for some channels of each pixel."""
    image, line, pixel, _ = x.strides
    return 1 if (image | line | pixel) % (4 * x.itemsize) else pack(channels, x)


@functools.cache
def geometry(window: Any, size: tuple[int, int], channels: int) -> dict[str, int]:
    """The constants of the kernels that slide a window over an image of that size; kept, so not
    to be changed."""
    ((top, _), (left, _)), (oh, ow) = window.padding, window.output_size(*size)
    (kh, kw), (sh, sw), (dh, dw) = window.kernel_size, window.stride, window.dilation
    return {
        "C": channels, "H": size[0], "W": size[1], "KH": kh, "KW": kw, "SH": sh, "SW": sw, "DH": dh, "DW": dw,
        "TOP": top, "LEFT": left, "OH": oh, "OW": ow,
    }  # fmt: skip
