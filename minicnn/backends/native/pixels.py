"""Pixels become floats (data/pixels.py), by the kernel of pixels.c."""

from math import prod

import numpy as np

from ..numpy import pixels as numpy
from .launch import Array, contiguous, empty, launch

FLOAT = np.dtype(np.float32)


def normalize(images: Array, scale: Array, shift: Array, out: Array | None = None) -> Array:
    """x · scale[c] − shift[c]: uint8 (…, H, W, C) -> float32"""
    y = empty(images.shape, FLOAT) if out is None else out
    given = images.dtype, scale.dtype, shift.dtype, y.dtype
    if given != (np.uint8, FLOAT, FLOAT, FLOAT) or not y.flags.carray or images.shape != y.shape:
        return numpy.normalize(images, scale, shift, out)
    *outer, width, _ = images.shape
    rows, columns = prod(outer), width * len(scale)  # a row of pixels is long enough for vectors
    tables = np.tile(scale, width), np.tile(shift, width)
    launch("pixels.normalize", rows, columns, contiguous(images), *tables, y, real=FLOAT, each=columns)
    return y
