"""Dropout on a GPU: the lesson functional/dropout.py, by the kernel of dropout.cu."""

from ..devices import Array
from .graph import drawn_since
from .launch import contiguous, empty_like, launch, pack


def drop(x: Array, p: float, key: tuple[int, int], first: int, s: float) -> Array:
    x, y = contiguous(x), empty_like(x)
    blocks, width = -(-(first % 8 + x.size) // 8), 1 if first % 8 else pack(x.size, x, y)
    launch("dropout.drop", blocks, x, y, x.size, p, s, *key, drawn_since(), first, real=x.dtype, PACK=width)
    return y
