"""The kernels of the lesson matmul.cu, to be tried beside cuBLAS. Networks multiply by
products.py."""

from ..devices import Array
from .launch import contiguous, empty, launch, launch_blocks

TILE = 16  # TILE · TILE is BLOCK


def matmul_naive(a: Array, b: Array) -> Array:
    """a @ b of two matrices, one thread for each element"""
    (m, k), n = a.shape, b.shape[1]
    out = empty((m, n), a.dtype)
    arrays = contiguous(a), contiguous(b), out
    launch("matmul.matmul_naive", out.size, *arrays, m, k, n, real=a.dtype, TILE=TILE)
    return out


def matmul_tiled(a: Array, b: Array) -> Array:
    """a @ b of two matrices, one block for each TILE · TILE elements"""
    (m, k), n = a.shape, b.shape[1]
    out, tiles = empty((m, n), a.dtype), -(-m // TILE) * -(-n // TILE)
    arrays = contiguous(a), contiguous(b), out
    launch_blocks("matmul.matmul_tiled", tiles, *arrays, tiles, m, k, n, real=a.dtype, TILE=TILE)
    return out
