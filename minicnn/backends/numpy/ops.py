"""Arithmetic, sums and matmul (minicnn/ops.py) on all threads."""

from collections.abc import Callable
from math import prod

import numpy as np

from . import memory, threads
from .masks import select, selected
from .memory import empty, empty_like
from .threads import Array, elementwise, parallel, parallel_sum, slices, usable_threads

SHORT = 512  # elements: NumPy's sum of so few is accurate enough
FEW = 256  # rows of float32: adding them one by one costs a few of its last bits
NARROW = 16  # columns: fewer are turned into rows


def broadcast(a: Array, b: Array, ufunc: Callable[..., Array]) -> Array:
    """ufunc(a, b), of arrays that are broadcast against each other; a large result uses recycled
    memory.
    """
    block = threads.BLOCK
    if (a.size < block and b.size < block) or a.dtype != b.dtype:
        return ufunc(a, b)
    return _broadcast_in_pieces(a, b, ufunc)


def _broadcast_in_pieces(a: Array, b: Array, ufunc: Callable[..., Array]) -> Array:
    """The same. (In one function, the lambda's variables would cost small arrays a quarter of their
    time.)"""
    shape = np.broadcast_shapes(a.shape, b.shape)
    out, a, b = empty(shape, a.dtype), np.broadcast_to(a, shape), np.broadcast_to(b, shape)
    # equivalent (constant): the step differs for a single element, which is one piece anyway
    step = max(1, threads.BLOCK * len(out) // max(1, out.size))
    parallel(lambda lo, hi: ufunc(a[lo:hi], b[lo:hi], out=out[lo:hi]), slices(len(out), step))
    return out


def masked(x: Array, mask: Array) -> Array:
    """x where the mask holds, otherwise 0"""
    if x.nbytes < memory.LARGE:  # equivalent (condition, comparison): both ways are right
        return selected(x, mask)
    out = empty_like(x)
    elementwise(select, x, np.broadcast_to(mask, x.shape), out)
    return out


def total(x: Array, axes: tuple[int, ...]) -> Array:
    """The sum over some axes. NumPy adds pairwise, so that errors stay small, only along the last
    axis in memory.
    """
    if x.dtype.kind != "f" or x.size <= SHORT:
        return x.sum(axis=axes)
    if x.dtype == np.float16:
        return total(x.astype(np.float32), axes).astype(x.dtype)
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    shape = [x.shape[axis] for axis in kept]
    if kept == list(range(len(kept))):  # they are the last ones
        return np.ascontiguousarray(x.reshape(*shape, -1)).sum(-1)
    before = prod(shape[: axes[0]])
    # the axes are side by side, behind others: a stack of rows
    if before > 1 and list(axes) == list(range(axes[0], axes[-1] + 1)):
        stack = x.reshape(before, prod([x.shape[axis] for axis in axes]), -1)
        # otherwise NumPy would not call BLAS
        # equivalent (constant): no stride is 1 byte
        plain = stack.strides[2] == x.itemsize and min(stack.strides) > 0
        out = empty((before, stack.shape[2]), x.dtype)

        def sums(lo: int, hi: int) -> None:
            out[lo:hi] = sum_rows(stack[lo:hi] if plain else np.ascontiguousarray(stack[lo:hi]))

        parallel(sums, slices(before, max(1, threads.BLOCK * before // x.size)))
        return out.reshape(shape)
    rows = x.transpose(*axes, *kept).reshape(-1, prod(shape))
    step = max(1, threads.BLOCK * len(rows) // x.size)
    return parallel_sum(lambda lo, hi: sum_rows(np.ascontiguousarray(rows[lo:hi])), slices(len(rows), step)).reshape(
        shape
    )


def sum_rows(rows: Array) -> Array:
    """(…, rows, columns) -> (…, columns). It is the product 1 · rows, for which BLAS takes 9 µs
    where NumPy's sum takes 41 (2,730 rows of 96), with a tenth of the error; but BLAS adds FEW rows
    one after the other.
    """
    # equivalent (comparison, condition, sign, constant): both ways are right
    if rows.shape[-1] < NARROW:
        return np.ascontiguousarray(rows.swapaxes(-1, -2)).sum(-1)
    ones = np.ones(min(FEW, rows.shape[-2]), rows.dtype)
    result = ones @ rows[..., :FEW, :]
    for i in range(FEW, rows.shape[-2], FEW):
        part = rows[..., i : i + FEW, :]
        result += ones[: part.shape[-2]] @ part
    return result


def matmul(a: Array, b: Array) -> Array:
    """a @ b. The product of two matrices is shared among the threads, each of which computes a part
    of its longer side.
    """
    if a.ndim != 2 or b.ndim != 2:
        return np.matmul(a, b)
    rows, columns = a.shape[0], b.shape[1]
    out = empty((rows, columns), np.result_type(a, b))
    if rows * columns * a.shape[1] < threads.BLOCK:  # too small to share
        return np.matmul(a, b, out=out)
    # An outer product (inner dimension 1) is multiplied: BLAS takes four times as long as memory
    # needs to write the result.
    multiply = np.matmul if a.shape[1] != 1 else np.multiply
    share = -(-max(rows, columns) // usable_threads())
    if rows >= columns:
        parallel(lambda lo, hi: multiply(a[lo:hi], b, out=out[lo:hi]), slices(rows, share))
    else:
        parallel(lambda lo, hi: multiply(a, b[:, lo:hi], out=out[:, lo:hi]), slices(columns, share))
    return out
