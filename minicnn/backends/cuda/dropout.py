"""Dropout on a GPU: the lesson functional/dropout.py, by the kernels of dropout.cu."""

from ..devices import Array
from .launch import contiguous, empty_like, launch, pack


def drop(x: Array, p: float, key: tuple[int, int], first: int, s: float) -> Array:
    x, y = contiguous(x), empty_like(x)
    args = x, y, x.size, p, s, *key, first
    if first % 8:  # x begins inside a block of the generator: only the naive kernel can
        launch("dropout.drop_naive", x.size, *args, real=x.dtype)
    else:
        launch("dropout.drop", -(-x.size // 8), *args, real=x.dtype, PACK=pack(x.size, x, y))
    return y
