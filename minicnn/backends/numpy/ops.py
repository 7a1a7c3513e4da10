"""Arithmetic, sums and matrix products (minicnn/ops.py) on all threads."""

from collections.abc import Callable

import numpy as np

from . import threads
from .memory import empty
from .threads import Array, parallel, parallel_sum, slices, usable_threads


def broadcast(a: Array, b: Array, ufunc: Callable[..., Array]) -> Array:
    """ufunc(a, b), of arrays that are broadcast against each other; a large result is on recycled memory."""
    block = threads.BLOCK
    if (a.size < block and b.size < block) or a.dtype != b.dtype:
        return ufunc(a, b)
    shape = np.broadcast_shapes(a.shape, b.shape)
    out, a, b = empty(shape, a.dtype), np.broadcast_to(a, shape), np.broadcast_to(b, shape)
    # equivalent (constant): the step is another for a lone number, which is one piece anyway
    step = max(1, block * len(out) // max(1, out.size))
    parallel(lambda lo, hi: ufunc(a[lo:hi], b[lo:hi], out=out[lo:hi]), slices(len(out), step))
    return out


def total(x: Array, axes: tuple[int, ...]) -> Array:
    """The sum over some axes; over the first ones of a large array, such as over all pixels, in slices."""
    first = axes == tuple(range(len(axes))) and x.ndim > len(axes)
    if not first or x.size < threads.BLOCK or not x.flags.c_contiguous:
        return x.sum(axis=axes)
    rows = x.reshape(-1, *x.shape[len(axes) :])
    step = max(1, threads.BLOCK * len(rows) // x.size)
    return parallel_sum(lambda lo, hi: rows[lo:hi].sum(0), slices(len(rows), step))


def matmul(a: Array, b: Array) -> Array:
    """a @ b. The product of two matrices is shared among the threads, each of which makes a part of its longer side."""
    if a.ndim != 2 or b.ndim != 2:
        return np.matmul(a, b)
    rows, columns = a.shape[0], b.shape[1]
    out = empty((rows, columns), np.result_type(a, b))
    if rows * columns * a.shape[1] < threads.BLOCK:  # too small to share
        return np.matmul(a, b, out=out)
    # a sum of one product each is better multiplied: BLAS takes four times as long as memory to write the result
    multiply = np.matmul if a.shape[1] != 1 else np.multiply
    share = -(-max(rows, columns) // usable_threads())
    if rows >= columns:
        parallel(lambda lo, hi: multiply(a[lo:hi], b, out=out[lo:hi]), slices(rows, share))
    else:
        parallel(lambda lo, hi: multiply(a, b[:, lo:hi], out=out[:, lo:hi]), slices(columns, share))
    return out
