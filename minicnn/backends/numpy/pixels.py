"""Pixels become floats (data/pixels.py), in one pass over whole rows."""

from math import prod

import numpy as np

from .memory import empty
from .threads import Array


def normalize(images: Array, scale: Array, shift: Array, out: Array | None = None) -> Array:
    """x · scale[c] − shift[c]: uint8 (…, H, W, C) -> float32"""
    if out is None:
        out = empty(images.shape, np.float32)
    *outer, width, channels = images.shape
    # in whole rows of W·C elements, because broadcasting along an axis of 3 is seven times slower
    shape = prod(outer), width * channels
    rows = out.reshape(shape)  # (N·H, W·C), a view
    np.multiply(images.reshape(shape), np.tile(scale, width), out=rows)
    rows -= np.tile(shift, width)
    return out
