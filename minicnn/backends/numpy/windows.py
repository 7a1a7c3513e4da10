"""Windows (functional/windows.py) in this thread's scratch memory, and how the work of convolution
and pooling is cut: into a few images, bands of rows, or channels of a group.
"""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from . import threads
from .memory import empty, scratch
from .threads import Array, batch_step, get_num_threads, slices

Window = Any  # functional.windows.Window, which belongs to a layer of imports above this one
# the window (kernel, stride, padding, dilation) for which every pixel is a window
EVERY_PIXEL = (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)


def band(window: Window, rows: slice, height: int) -> tuple[slice, Window]:
    """What a band of output rows sees of an image of that height: the image's rows, and the window
    with as much of the padding as belongs to them.
    """
    (kh, _), (sh, _), ((top, _), sides), (dh, _) = window
    first, last = rows.start * sh - top, (rows.stop - 1) * sh - top + dh * (kh - 1) + 1
    seen = slice(min(max(first, 0), height), min(max(last, 0), height))
    above = min(max(-first, 0), last - first)
    below = last - first - above - (seen.stop - seen.start)
    return seen, window._replace(padding=((above, below), sides))


def groups_of(groups: int, channels: int, outputs: int, shares: int = 1) -> list[tuple[slice, slice, slice]]:
    """For each group, and each share of its input channels: those channels, the group's output
    channels, and those input channels as numbered within the group.
    """
    c, o = channels // groups, outputs // groups
    cuts = slices(c, -(-c // shares)) if c else [(0, 0)]
    return [
        (slice(g * c + lo, g * c + hi), slice(g * o, (g + 1) * o), slice(lo, hi))
        for g in range(groups)
        for lo, hi in cuts
    ]


def channel_pieces(x: Array, y: Array, groups: int, image_bytes: int) -> list[tuple[slice, slice, slice, slice]]:
    """The work of a map from y back to x, as (images, then a triple of groups_of): some images of
    one group at a time, with image_bytes of working memory for each. A pixel of x belongs to the
    windows of several rows, so the channels are divided when there are fewer images than threads,
    or an image needs many times the cache.
    """
    n = len(x)
    shares = max(-(-get_num_threads() // (max(n, 1) * groups)), image_bytes // (8 * threads.CACHE))
    parts = groups_of(groups, x.shape[3], y.shape[3], shares)
    return [(slice(*cut), *part) for cut in slices(n, batch_step(n, image_bytes)) for part in parts]


def padded(x: Array, window: Window, value: float = 0.0) -> Array:
    """(N, H, W, C) -> (N, H + top + bottom, W + left + right, C) with `value` around it, in this
    thread's scratch; x itself if the window has no padding.
    """
    (top, bottom), (left, right) = window.padding
    if not (top or bottom or left or right):
        return x
    n, h, w, c = x.shape
    out = scratch("padded", (n, top + h + bottom, left + w + right, c), like=x)
    out[...] = value  # each time, because two layers may share this buffer, but not their padding
    out[:, top : top + h, left : left + w] = x
    return out


def columns_of(x: Array, window: Window, groups: int = 1) -> Array:
    """(N, H, W, C) -> (N·OH·OW, KH·KW·C): each window as a row. With groups of channels, the rows
    of the first group, then those of the second …: (G·N·OH·OW, KH·KW·C/G). The result is this
    thread's scratch, which the next call overwrites; or x itself, if each of its pixels is a
    window.
    """
    n, h, w, channels = x.shape
    (kh, kw), (sh, sw), _, (dh, dw) = window
    oh, ow = window.output_size(h, w)
    if window == EVERY_PIXEL and groups == 1 and x.flags.c_contiguous:
        return x.reshape(n * h * w, channels)
    x, c = padded(x, window), channels // groups
    sn, sy, sx, sc = x.strides
    strides = c * sc, sn, sh * sy, sw * sx, dh * sy, dw * sx, sc
    columns = scratch("columns", (groups, n, oh, ow, kh, kw, c), like=x)
    np.copyto(columns, as_strided(x, columns.shape, strides))
    return columns.reshape(groups * n * oh * ow, kh * kw * c)


def im2col(x: Array, window: Window) -> Array:
    """(N, H, W, C) -> (N·OH·OW, KH·KW·C): each window as a row, in an array of the caller's own."""
    return columns_of(x, window).copy()


def col2im(columns: Array, shape: tuple[int, ...], window: Window) -> Array:
    """(N·OH·OW, KH·KW·C) -> shape (N, H, W, C): each element is added to the pixel it was copied
    from.
    """
    x = empty(shape, columns.dtype)
    col2im_into(x, columns, window)
    return x


def col2im_into(out: Array, columns: Array, window: Window) -> None:
    """The same, written to an array of the caller's."""
    n, h, w, c = out.shape
    (kh, kw), _, ((top, bottom), (left, right)), _ = window
    oh, ow = window.output_size(h, w)
    columns = columns.reshape(n, oh, ow, kh * kw, c)
    x = scratch("padded", (n, top + h + bottom, left + w + right, c), like=columns)
    x[...] = 0
    for k, tap in enumerate(window.taps(x)):
        tap += columns[:, :, :, k]
    out[...] = window.unpadded(x)
