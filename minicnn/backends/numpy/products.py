"""Products of matrices: by BLAS on a CPU, by cuBLAS on a GPU."""

import numpy as np

from .backend import BLOCK, Array, device_kernel, empty, parallel, slices, usable_threads


@device_kernel
def product(a: Array, b: Array, out: Array) -> Array:
    """a @ b into `out`, all of them matrices or stacks of matrices, in this thread."""
    return np.matmul(a, b, out=out)


@device_kernel
def matmul(a: Array, b: Array) -> Array:
    """a @ b. A product of two matrices is shared among the threads, each of which makes a part of its longer side."""
    if a.ndim != 2 or b.ndim != 2:
        return np.matmul(a, b)
    rows, columns = a.shape[0], b.shape[1]
    out = empty((rows, columns), np.result_type(a, b))
    if rows * columns * a.shape[1] < BLOCK:  # too small to share
        return np.matmul(a, b, out=out)
    # a sum of one product each is better multiplied: BLAS takes four times as long as memory to write the result
    multiply = np.matmul if a.shape[1] > 1 else np.multiply
    share = -(-max(rows, columns) // usable_threads())
    if rows >= columns:
        parallel(lambda lo, hi: multiply(a[lo:hi], b, out=out[lo:hi]), slices(rows, share))
    else:
        parallel(lambda lo, hi: multiply(a, b[:, lo:hi], out=out[:, lo:hi]), slices(columns, share))
    return out
