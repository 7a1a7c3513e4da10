"""Dropout on a GPU: the lesson functional/dropout.py, by the kernel of dropout.cu."""

from ..devices import Array
from .launch import contiguous, empty_like, launch, pack


def drop(x: Array, p: float, key: tuple[int, int], s: float) -> Array:
    x, y = contiguous(x), empty_like(x)
    launch("dropout.drop", -(-x.size // 8), x, y, x.size, p, s, *key, real=x.dtype, PACK=pack(x.size, x, y))
    return y
