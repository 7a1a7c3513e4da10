"""ReLU (functional/activation.py) on all threads."""

import numpy as np

from .masks import select
from .memory import empty_like
from .threads import Array, elementwise


def rectify(x: Array) -> Array:
    """max(x, 0)"""
    y = empty_like(x)
    elementwise(lambda x, y: np.maximum(x, 0, out=y), x, y)
    return y


def where_positive(dy: Array, y: Array) -> Array:
    """dy where y > 0, otherwise 0"""
    dx = empty_like(dy)
    elementwise(lambda dy, y, dx: select(dy, y > 0, dx), dy, y, dx)
    return dx
