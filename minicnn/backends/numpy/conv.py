"""Convolution's three maps (functional/conv.py) on all threads: columns of a few images at a time,
which stay in the cache, and one matmul for each; or the Winograd algorithm, where that is faster.

The columns are made again for the weight gradient: kept, those of AlexNet's conv2 alone would take
214 MiB at batch 32.
"""

from typing import Any

import numpy as np

from . import winograd
from .memory import empty, scratch
from .threads import Array, parallel, parallel_sum, pieces
from .windows import band, channel_pieces, col2im_into, columns_of, groups_of

Window = Any  # functional.windows.Window, which belongs to a layer of imports above this one


def convolve(
    x: Array, weight: Array, bias: Array | None, window: Window, groups: int, rectified: bool = False
) -> Array:
    """y = im2col(x) W + b: (N, H, W, C), (KH, KW, C/G, O), (O,) -> (N, OH, OW, O); or, if
    rectified, max(y, 0), of each slice while it is in the cache
    """
    n, h, w, channels = x.shape
    oh, ow = window.output_size(h, w)
    outputs = weight.shape[3]
    if winograd.suits(x, window, n * oh * ow, min(channels, outputs) // groups):
        return winograd.convolve(x, weight, bias, window, groups, rectified)
    y = empty((n, oh, ow, outputs), x.dtype)  # (N, OH, OW, O)
    matrix = weight.reshape(-1, outputs)  # (KH·KW·C/G, O)

    def some(images: slice, rows: slice) -> None:
        seen, part = band(window, rows, h)
        out = y[images, rows].reshape(-1, outputs)  # (n·OH·OW, O)
        # (G, n·OH·OW, KH·KW·C/G)
        columns = columns_of(x[images, seen], part, groups).reshape(groups, len(out), len(matrix))
        for g, (_, o, _) in enumerate(groups_of(groups, channels, outputs)):
            np.matmul(columns[g], matrix[:, o], out=out[:, o])
        if bias is not None:
            out += bias
        if rectified:
            np.maximum(out, 0, out=out)

    parallel(some, pieces(x, oh, _row_bytes(y, weight.shape)))
    return y


def convolve_transpose(dy: Array, weight: Array, window: Window, groups: int, size: tuple[int, int]) -> Array:
    """dx = col2im(dy Wᵀ): (N, OH, OW, O), (KH, KW, C/G, O) -> (N, H, W, C), where (H, W) = size"""
    n, oh, ow, outputs = dy.shape
    channels = weight.shape[2] * groups
    if winograd.suits(dy, window, n * oh * ow, min(channels, outputs) // groups):
        return winograd.convolve_transpose(dy, weight, window, groups, size)
    dx = empty((n, *size, channels), dy.dtype)  # (N, H, W, C)

    def some(images: slice, c: slice, o: slice, within: slice) -> None:
        gradient = dy[images].reshape(-1, outputs)[:, o]  # (n·OH·OW, O/G)
        matrix = weight[:, :, within, o].reshape(-1, gradient.shape[1])  # (KH·KW·c, O/G)
        # (n·OH·OW, KH·KW·c)
        columns = scratch("columns", (len(gradient), len(matrix)), like=dy)
        np.matmul(gradient, matrix.T, out=columns)
        part = dx[images, :, :, c]
        col2im_into(part, columns, window)

    parallel(some, channel_pieces(dx, dy, groups, oh * _row_bytes(dy, weight.shape)))
    return dx


def convolve_weight(x: Array, dy: Array, window: Window, groups: int) -> Array:
    """dW = im2col(x)ᵀ dy: (N, H, W, C), (N, OH, OW, O) -> (KH, KW, C/G, O)"""
    h, channels = x.shape[1], x.shape[3]
    n, oh, ow, outputs = dy.shape
    if winograd.suits(x, window, n * oh * ow, min(channels, outputs) // groups):
        return winograd.convolve_weight(x, dy, window, groups)
    shape = (*window.kernel_size, channels // groups, outputs)

    def some(images: slice, rows: slice) -> Array:
        seen, part = band(window, rows, h)
        gradient = dy[images, rows].reshape(-1, outputs)  # (n·OH·OW, O)
        dw = scratch("dw", shape, like=x)
        matrix = dw.reshape(-1, outputs)  # (KH·KW·C/G, O)
        # (G, n·OH·OW, KH·KW·C/G)
        columns = columns_of(x[images, seen], part, groups).reshape(groups, len(gradient), len(matrix))
        for g, (_, o, _) in enumerate(groups_of(groups, channels, outputs)):
            np.matmul(columns[g].T, gradient[:, o], out=matrix[:, o])
        return dw

    return parallel_sum(some, pieces(x, oh, _row_bytes(dy, shape)))


def _row_bytes(y: Array, weight_shape: tuple[int, ...]) -> int:
    """The size of a group's columns for one row of output pixels. Those of a few images stay in the
    cache, which is 1.2 times as fast as all columns at once.
    """
    kh, kw, c, _ = weight_shape
    return y.shape[2] * kh * kw * c * y.itemsize
