"""Dropout (functional/dropout.py) on all threads."""

import numpy as np

from ...random import generator
from .masks import select
from .memory import empty, empty_like
from .threads import Array, elementwise


def drop(x: Array, p: float, key: tuple[int, int], first: int, s: float) -> Array:
    """x · s where the mask m of that key, from its number `first` on, is 1, otherwise 0"""
    uniform = empty(x.shape, np.float32)
    generator(key, first).random(dtype=np.float32, out=uniform)
    y = empty_like(x)
    elementwise(lambda x, u, y: select(x, np.greater_equal(u, p), y), x, uniform, y)
    if s != 1:
        y *= x.dtype.type(s)
    return y
