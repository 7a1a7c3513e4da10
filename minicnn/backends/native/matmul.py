"""The product of two matrices (minicnn/ops.py), by the kernel of matmul.c where BLAS is slower."""

import numpy as np

from ..numpy import ops
from .launch import Array, empty, launch
from .product import room_for

# Where BLAS is slower: the smallest side has so many rows or columns, and there are so many
# multiplications. With 32 rows of 4,096 and weights (4096, 9216), the product with their transpose
# takes half of BLAS's time, their gradient 0.7 of it.
FEWEST, MOST, LEAST = 8, 64, 1 << 24
TALL, BROAD, DEEP = 240, 512, 96  # rows and columns of a unit's result; rows of b at a time


def matmul(a: Array, b: Array) -> Array:
    """a @ b"""
    plain = a.ndim == b.ndim == 2 and a.dtype == b.dtype and a.flags.aligned and b.flags.aligned
    if not plain or a.shape[1] != len(b):
        return ops.matmul(a, b)
    (height, depth), width = a.shape, b.shape[1]
    if not FEWEST <= min(height, depth, width) <= MOST or height * depth * width < LEAST:
        return ops.matmul(a, b)
    out = empty((height, width), a.dtype)
    if b.strides[1] == b.itemsize:
        _multiply(a, b, out, DEEP)
    else:  # the rows of bᵀ lie in memory as the kernel reads the left matrix
        _multiply(b.T, np.ascontiguousarray(a.T), out.T, depth)
    return out


def _multiply(a: Array, b: Array, out: Array, deep: int) -> None:
    (height, depth), width = a.shape, b.shape[1]
    places = [(array, *(step // array.itemsize for step in array.strides)) for array in (a, b, out)]
    tall, broad, deep = min(TALL, height), min(BROAD, width), max(1, min(deep, depth))
    units = -(-height // tall) * -(-width // broad)
    numbers = height, depth, width, tall, broad, deep
    arguments = [argument for place in places for argument in place]
    room = room_for(tall, 2 * (tall + depth))
    launch("matmul.matmul", units, *arguments, *numbers, real=a.dtype, each=tall * broad, room=room)
