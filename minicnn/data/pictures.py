"""Pixels become numbers: the arithmetic of transforms.Normalize. On a GPU it is minicnn/cuda/pictures.cu."""

from math import prod

import numpy as np
from numpy.typing import NDArray

from ..backend import Array, device_kernel, empty


@device_kernel
def normalise(images: Array, scale: NDArray[np.float32], shift: NDArray[np.float32]) -> Array:
    """x · scale[c] − shift[c]: uint8 (…, H, W, 3) -> float32; scale and shift are three numbers each"""
    return normalise_into(empty(images.shape, np.float32), images, scale, shift)


def normalise_into(
    out: NDArray[np.float32], images: NDArray[np.uint8], scale: NDArray[np.float32], shift: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The same on a CPU, written to an array of the caller's."""
    *outer, width, channels = images.shape
    # Whole rows of W·3 numbers: broadcasting along an axis of 3 is seven times slower.
    shape = prod(outer), width * channels
    rows = out.reshape(shape)  # (N·H, W·3), a view
    np.multiply(images.reshape(shape), np.tile(scale, width), out=rows)
    rows -= np.tile(shift, width)
    return out
