"""The product of two matrices (minicnn/ops.py), by the kernel of matmul.c where BLAS is slower."""

from math import ceil

import numpy as np

from ..numpy import ops
from ..numpy.threads import usable_threads
from .launch import Array, empty, launch
from .product import room_for

# Between so many multiplications, shared by threads, the kernel takes 0.5 to 0.9 of the time of
# BLAS, to which Python's threads hand the work over. One thread does as well with BLAS, with AVX2
# better; so do threads where the result has fewer rows or columns than SHORTEST.
LEAST, FEW, SHORTEST = 1 << 18, 1 << 26, 8
# Of more multiplications, where the shortest side is no longer than this: with 32 rows of 4,096 and
# weights (4096, 9216), the product with their transpose takes half of BLAS's time, their gradient
# 0.7.
MANY, SHORT = 1 << 24, 64
TALL, BROAD, DEEP = 240, 128, 256  # rows and columns of a unit's result; rows of b at a time
BROAD_OF_MANY, DEEP_OF_MANY = 512, 96  # of a b that comes from memory
ROWS = 12  # a multiple of the 6 that the kernel computes together


def matmul(a: Array, b: Array) -> Array:
    """a @ b"""
    plain = a.ndim == b.ndim == 2 and a.dtype == b.dtype and a.flags.aligned and b.flags.aligned
    if not plain or a.shape[1] != len(b):
        return ops.matmul(a, b)
    (height, depth), width = a.shape, b.shape[1]
    work = height * depth * width
    few = LEAST <= work <= FEW and min(height, width) >= SHORTEST and usable_threads() > 1
    if not few and not (work >= MANY and SHORTEST <= min(height, depth, width) <= SHORT):
        return ops.matmul(a, b)
    out = empty((height, width), a.dtype)
    if b.strides[1] != b.itemsize and height <= SHORT:
        # the rows of bᵀ lie in memory as the kernel reads the left matrix
        _multiply(b.T, np.ascontiguousarray(a.T), out.T, BROAD_OF_MANY, depth)
    elif few:
        _multiply(a, b, out, BROAD, DEEP)
    else:
        _multiply(a, b, out, BROAD_OF_MANY, DEEP_OF_MANY)
    return out


def _multiply(a: Array, b: Array, out: Array, broad: int, deep: int) -> None:
    (height, depth), width = a.shape, b.shape[1]
    across = ceil(width / broad)
    share = ceil(height * across / (2 * usable_threads()) / ROWS) * ROWS  # two units a thread
    tall = max(1, min(TALL, share, height))
    places = [(array, *(step // array.itemsize for step in array.strides)) for array in (a, b, out)]
    arguments = [argument for place in places for argument in place]
    deep = max(1, min(deep, depth))
    numbers = height, depth, width, tall, min(broad, width), deep
    units, room = ceil(height / tall) * across, room_for(tall, 2 * (tall + deep))
    launch("matmul.matmul", units, *arguments, *numbers, real=a.dtype, each=tall * broad * depth // 32, room=room)
