"""Convolution's three maps (functional/conv.py), by the kernels of conv.c."""

from math import gcd
from typing import Any

import numpy as np

from ..numpy.threads import BLOCK, usable_threads
from . import winograd
from .launch import Array, added, contiguous, empty, launch
from .product import REGISTER, SPARE, room_for

Window = Any  # functional.windows.Window, which belongs to a layer of imports above this one

# Bytes of images and of results that a unit of work should have: they stay in a core's second-level
# cache. And pixels of results that it should have, for which the weights are copied once.
NEAR, ENOUGH = 512 << 10, 256
# as in conv.c: all but the first are places in the Shape
SIDE, GROUPS, PARTS, FEW, BANDS, SHARES = 16, -5, -4, -3, -2, -1
MOST_COLUMNS = 16 << 20  # bytes of an image's
COLUMNS = 1.5  # how much longer a multiplication takes by way of columns, which are added up


def convolve(
    x: Array, weight: Array, bias: Array | None, window: Window, groups: int, rectified: bool = False
) -> Array:
    """y = im2col(x) @ K + b: (N, H, W, C), (KH, KW, C/G, O), (O,) -> (N, OH, OW, O); or, if
    rectified, max(y, 0), without another pass over y"""
    if winograd.suits(x, weight, window, groups):
        return winograd.convolve(x, weight, bias, window, groups, rectified)
    n, h, w, _ = x.shape
    y = empty((n, *window.output_size(h, w), weight.shape[3]), x.dtype)
    x, weight = contiguous(x), contiguous(weight)
    shape, cuts, room = _cut(x, y, window, groups)
    arguments = x, weight, bias if bias is None else contiguous(bias), rectified, y, shape
    launch("conv.convolve", cuts * _units(shape), *arguments, real=x.dtype, each=BLOCK, room=room)
    return y


def convolve_transpose(dy: Array, weight: Array, window: Window, groups: int, size: tuple[int, int]) -> Array:
    """dx = col2im(dy @ Kᵀ): (N, OH, OW, O), (KH, KW, C/G, O) -> (N, H, W, C) of size (H, W)"""
    if winograd.suits(dy, weight, window, groups):
        return winograd.convolve_transpose(dy, transposed(weight), window, groups, size)
    dx, dy = empty((len(dy), *size, weight.shape[2] * groups), dy.dtype), contiguous(dy)
    shape, cuts, room = _cut(dx, dy, window, groups, back=True)
    if _columns_are_fewer(dx, dy, weight, window):
        units, room = _cut_columns(shape, dy, weight)
        arrays = dy, contiguous(weight), dx
        launch("conv.convolve_transpose_by_columns", units, *arrays, shape, real=dy.dtype, each=BLOCK, room=room)
    else:
        arrays = dy, transposed(weight), dx
        units = cuts * _units(shape)
        launch("conv.convolve_transpose", units, *arrays, shape, real=dy.dtype, each=BLOCK, room=room)
    return dx


def _units(shape: Array) -> int:
    """The units of each cut."""
    return int(shape[GROUPS] * shape[PARTS])


def _columns_are_fewer(dx: Array, dy: Array, weight: Array, window: Window) -> bool:
    """Whether the product that makes columns, and their sum, take less time than the product that
    makes dx at once: by the multiplications of each, in whole registers."""
    kh, kw, c, _ = weight.shape
    (sh, sw), width = window.stride, REGISTER // dx.itemsize
    if _column_bytes(dy, weight) > MOST_COLUMNS or len(dy) < usable_threads():
        return False
    direct = dx.shape[1] * dx.shape[2] * kh * kw / (sh * sw) * -(-c // width)
    return COLUMNS * dy.shape[1] * dy.shape[2] * -(-kh * kw * c // width) < direct


def _column_bytes(dy: Array, weight: Array) -> int:
    """The size of an image's columns."""
    kh, kw, c, _ = weight.shape
    return dy.shape[1] * dy.shape[2] * kh * kw * c * dy.itemsize


def _cut_columns(shape: Array, dy: Array, weight: Array) -> tuple[int, int]:
    """The same as _cut for the way by columns, with its `few` and `bands` put into the Shape."""
    n, image = len(dy), _column_bytes(dy, weight)
    few = max(1, min(NEAR // max(image, 1), -(-n // usable_threads())))
    shape[FEW], shape[BANDS] = few, 1
    pixels, elements = few * dy.shape[1] * dy.shape[2], dy.shape[3]
    return -(-n // few), room_for(max(pixels, elements), 2 * (pixels + elements)) + few * image


def transposed(weight: Array) -> Array:
    """Kᵀ: (KH, KW, C/G, O) -> (KH, KW, O, C/G)"""
    kh, kw, c, o = weight.shape
    turned = empty((kh, kw, o, c), weight.dtype)
    units = kh * kw * -(-o // SIDE)
    launch("conv.transpose", units, contiguous(weight), turned, c, o, real=weight.dtype, each=c * SIDE)
    return turned


def convolve_weight(x: Array, dy: Array, window: Window, groups: int) -> Array:
    """dK = im2col(x)ᵀ @ dy: (N, H, W, C), (N, OH, OW, O) -> (KH, KW, C/G, O)"""
    x, dy = contiguous(x), contiguous(dy)
    weight = empty((*window.kernel_size, x.shape[3] // groups, dy.shape[3]), x.dtype)
    if winograd.suits(dy, weight, window, groups):
        return winograd.convolve_weight(x, dy, window, groups)
    shape, cuts, room = _cut(x, dy, window, groups)
    if not cuts:
        weight[...] = 0
        return weight
    each, threads = _units(shape), usable_threads()
    shares = min(cuts, threads // gcd(threads, each))  # so that all threads have as many units
    sums = weight[None] if shares == 1 else empty((shares, *weight.shape), x.dtype)
    shape[SHARES] = shares
    launch("conv.convolve_weight", shares * each, x, dy, sums, shape, real=x.dtype, each=BLOCK, room=room)
    return weight if shares == 1 else added(sums, weight)


def _cut(x: Array, y: Array, window: Window, groups: int, back: bool = False) -> tuple[Array, int, int]:
    """The Shape of conv.c; into how many cuts its pixels are divided; and how much working memory a
    thread needs. The map goes from x to y, or back."""
    (n, h, w, c), (_, oh, ow, o) = x.shape, y.shape
    (kh, kw), (sh, sw), ((top, _), (left, _)), (dh, dw) = window
    rows, columns = (h, w) if back else (oh, ow)
    if back:  # the rows and columns of y that the image's windows have, some of them outside of y
        seen = (
            (h - 1 + top) // sh - (top - dh * (kh - 1)) // sh + 1,
            (w - 1 + left) // sw - (left - dw * (kw - 1)) // sw + 1,
        )
    else:
        seen = (oh - 1) * sh + dh * (kh - 1) + 1, (ow - 1) * sw + dw * (kw - 1) + 1
    inner, outer = (o // groups, c // groups) if back else (c // groups, o // groups)
    elements, image = kh * kw * inner, seen[0] * seen[1] * inner * x.itemsize
    whole = max(1, image + rows * columns * SPARE)
    few, threads = max(1, NEAR // whole, ENOUGH // max(1, rows * columns)), usable_threads()
    few = min(few, max(1, -(-n // threads)))
    # So many threads share an image: each has all of it and some of the weights, if these are more,
    # or a band of its rows and all weights.
    sharing, parts = -(-threads // max(n, 1)), 1
    if elements * outer * x.itemsize > image:
        parts = max(1, min(-(-sharing // groups), outer * x.itemsize // SPARE))
    bands = max(1, min(rows, max(-(-whole // NEAR), -(-sharing // (groups * parts))))) if few == 1 else 1
    pixels = few * columns * (rows // bands + 1)
    room = room_for(max(pixels, elements), 2 * (pixels + elements)) + few * image
    shape = n, h, w, c, oh, ow, o, kh, kw, sh, sw, top, left, dh, dw, groups, parts, few, bands, 1
    return np.array(shape, np.intp), -(-n // few) * bands, room
