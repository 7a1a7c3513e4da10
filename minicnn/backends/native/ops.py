"""Sums and Masked (minicnn/ops.py), by the kernels of ops.c."""

from math import prod

import numpy as np

from ..numpy import ops as numpy
from . import activation
from .launch import Array, contiguous, empty_like, launch, truths

BLOCK = 1 << 15  # elements of a block of pixels


def total(x: Array, axes: tuple[int, ...]) -> Array:
    """The sum over some axes. What is small, does not lie in C's order, or is summed over axes that
    are not beside each other is left to NumPy."""
    beside = axes == tuple(range(axes[0], axes[-1] + 1)) if axes else False
    if x.size <= numpy.SHORT or not beside or not x.flags.c_contiguous:
        return numpy.total(x, axes)
    x = contiguous(x)  # it may be out of step
    before, after = x.shape[: axes[0]], x.shape[axes[-1] + 1 :]
    images, channels, real = prod(before), prod(after), x.dtype
    pixels, y = x.size // (images * channels), np.empty((*before, *after), x.dtype)
    if channels == 1 and images > 1:
        launch("ops.row_sums", images, pixels, x, y, real=real, each=pixels)
        return y
    step = max(16, BLOCK // channels)
    blocks = -(-pixels // step)
    if 8 * blocks > pixels:  # a block has a row of numbers of its own, in double
        return numpy.total(x, axes)
    sums = np.empty((images * blocks, channels))
    work = blocks, pixels, channels, step, x, sums
    launch("ops.column_sums", len(sums), *work, real=real, each=min(step, pixels) * channels)
    launch("ops.merge_sums", images, blocks, channels, sums, y, real=real, each=blocks * channels)
    return y


def masked(x: Array, mask: Array) -> Array:
    """x where the mask holds, otherwise 0"""
    if x.size < activation.FEW:
        return numpy.masked(x, mask)
    x, mask = contiguous(x), truths(np.broadcast_to(mask, x.shape))
    y = empty_like(x)
    launch("ops.masked", x.size, x, mask, y, real=x.dtype)
    return y
