"""ReLU (functional/activation.py) on all threads. What is small is computed at once, because for a
few numbers each call of NumPy's takes longer than its work."""

import numpy as np

from . import memory
from .masks import select, selected, zero
from .memory import empty_like
from .threads import Array, elementwise


def rectify(x: Array) -> Array:
    """max(x, 0)"""
    if x.nbytes < memory.LARGE:  # equivalent (condition, comparison): both ways are right
        return np.maximum(x, zero(x))
    y = empty_like(x)
    elementwise(lambda x, y: np.maximum(x, 0, out=y), x, y)
    return y


def where_positive(dy: Array, y: Array) -> Array:
    """dy where y > 0, otherwise 0"""
    if dy.nbytes < memory.LARGE:  # equivalent (condition, comparison): both ways are right
        return selected(dy, y > zero(y))
    dx = empty_like(dy)
    elementwise(lambda dy, y, dx: select(dy, y > 0, dx), dy, y, dx)
    return dx
