"""Dropout (functional/dropout.py), by the kernel of dropout.c."""

from math import ceil

import numpy as np

from .launch import Array, contiguous, empty_like, launch

PIECE = 1024  # as in dropout.c
SLOW = 4  # an element takes as long as so many that are only moved


def drop(x: Array, p: float, key: tuple[int, int], first: int, s: float) -> Array:
    """x · s where the mask m of that key, from its number `first` on, is true, else 0"""
    x = contiguous(x)
    y = empty_like(x)
    least_kept = ceil(float(np.float32(p)) * 2**24)  # of 24 bits
    pieces, each = -(-x.size // PIECE), SLOW * PIECE
    launch("dropout.drop", pieces, x.size, x, y, least_kept, s, *key, first, real=x.dtype, each=each)
    return y
