"""Dropout on a GPU: the lesson functional/dropout.py, by the kernel of dropout.cu."""

from ..backend import Array, empty_like
from .launch import contiguous, launch, pack


def drop(x: Array, p: float, key: tuple[int, int]) -> Array:
    """x · m / (1 − p), with the m of that key"""
    x, y = contiguous(x), empty_like(x)
    scale = 1 / (1 - p) if p < 1 else 0.0
    launch("dropout.drop", -(-x.size // 8), x, y, x.size, p, scale, *key, real=x.dtype, PACK=pack(x.size, x, y))
    return y
