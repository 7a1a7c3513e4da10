"""Products of matrices on a GPU, by cuBLAS, in the precision that set_matmul_precision asks for.
matmul.cu is a lesson on such products, and has kernels of our own to compare with."""

import sys
from typing import Any

import numpy as np

from ...checks import choice
from ..devices import Array, open_device
from .graph import cublas
from .launch import empty

_precision = "fp32"


def set_matmul_precision(precision: str) -> None:
    """Choose how a GPU multiplies float32 matrices. Sums are float32 in both cases, and nothing
    else is affected.

    Args:
        precision: "fp32" (the default), or "tf32", which rounds the factors to 10 bits and is
            several times as fast where the GPU has it.
    Raises:
        ValueError: the precision is neither of the two.

    Example:
        >>> set_matmul_precision("tf32")
        >>> matmul_precision()
        'tf32'
        >>> set_matmul_precision("fp32")
    """
    global _precision
    choice("set_matmul_precision: precision", precision, "fp32", "tf32")
    _precision = precision


def matmul_precision() -> str:
    """What set_matmul_precision was told."""
    return _precision


def has_tf32(device: str) -> bool:
    """Whether that GPU can multiply in TF32, as those since Ampere (2020) can."""
    device = open_device(device)
    return int(sys.modules["cupy"].cuda.Device(int(device.partition(":")[2])).compute_capability) >= 80


NORMAL, TRANSPOSED = 0, 1  # cublasOperation_t
# cudaDataType_t: CUDA_R_32F, CUDA_R_64F
TYPES: dict[np.dtype[Any], int] = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}
# Where cuBLAS reads the factors of a b and of what is in `out` already: 1 and 0, on the host.
FACTORS = {dtype: np.array([1, 0], dtype) for dtype in TYPES}
ADDRESSES = {dtype: (two.ctypes.data, two.ctypes.data + two.itemsize) for dtype, two in FACTORS.items()}


def product(a: Array, b: Array, out: Array) -> Array:
    """a @ b into `out`: matrices of one floating dtype, whose rows, or for a and b columns, are
    contiguous; or stacks of as many such matrices (G, …, …), by one launch.

    cuBLAS is told how far apart they lie, so views such as W.T or x[:, some] are read where they
    are. It is column-major: to it, a row-major matrix is its transpose, so it is asked for
    outᵀ = bᵀ aᵀ.
    """
    *stack, m, k = a.shape
    n = b.shape[-1]
    if a.dtype not in TYPES or not a.dtype == b.dtype == out.dtype:
        raise TypeError(f"a product on a GPU is of float32 or of float64, not {a.dtype} @ {b.dtype} into {out.dtype}")
    if b.shape != (*stack, k, n) or out.shape != (*stack, m, n):
        raise ValueError(f"a product of {a.shape} and {b.shape} into {out.shape}: the shapes do not fit")
    if not k:
        out[...] = 0
    if not (k and out.size):
        return out
    (how_a, a, row_a), (how_b, b, row_b), (how_out, _, row_out) = _layout(a), _layout(b), _layout(out)
    if how_out != NORMAL:
        raise ValueError(f"a product is written to rows, not to strides {out.strides}")
    cuda, kind, (one, zero) = sys.modules["cupy"].cuda, TYPES[out.dtype], ADDRESSES[out.dtype]
    constants, handle = cuda.cublas, cuda.device.get_cublas_handle()
    if out.dtype == np.float64:
        compute = constants.CUBLAS_COMPUTE_64F
    elif matmul_precision() == "tf32":
        compute = constants.CUBLAS_COMPUTE_32F_FAST_TF32
    else:
        compute = constants.CUBLAS_COMPUTE_32F
    how = compute, constants.CUBLAS_GEMM_DEFAULT
    sizes = handle, how_b, how_a, n, m, k, one
    first, second, third = (b.data.ptr, kind, row_b), (a.data.ptr, kind, row_a), (zero, out.data.ptr, kind, row_out)
    if not stack:
        cublas().gemmEx(*sizes, *first, *second, *third, *how)
    else:
        (count,), (of_a, of_b, of_out) = stack, [matrix.strides[0] // out.itemsize for matrix in (a, b, out)]
        cublas().gemmStridedBatchedEx(*sizes, *first, of_b, *second, of_a, *third, of_out, count, *how)
    return out


def _layout(matrix: Array) -> tuple[int, Array, int]:
    """(whether its rows or its columns are contiguous, the matrix, how many elements the next one
    begins after)"""
    (rows, columns), size = matrix.shape[-2:], matrix.itemsize
    down, along = matrix.strides[-2:]
    if (columns == 1 or along == size) and (rows == 1 or down >= columns * size):
        return NORMAL, matrix, columns if rows == 1 else down // size
    if (rows == 1 or down == size) and (columns == 1 or along >= rows * size):
        return TRANSPOSED, matrix, rows if columns == 1 else along // size
    return NORMAL, matrix.copy(), columns


def matmul(a: Array, b: Array) -> Array:
    """a @ b; of stacks of matrices, broadcast against each other, by one launch for those along the
    last axis of the stack."""
    if a.ndim == b.ndim == 2:
        return product(a, b, empty((a.shape[0], b.shape[1]), a.dtype))
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = empty((*stack, a.shape[-2], b.shape[-1]), a.dtype)
    a, b = _stacked(a, stack), _stacked(b, stack)
    for index in np.ndindex(stack[:-1]):
        product(a[index], b[index], out[index])
    return out


def _stacked(matrices: Array, stack: tuple[int, ...]) -> Any:
    return np.broadcast_to(matrices, (*stack, *matrices.shape[-2:]))
