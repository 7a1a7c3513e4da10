"""The arithmetic of transforms.Normalize on a GPU: data/pictures.py, by the kernel of pictures.cu."""

from collections.abc import Sequence

import numpy as np

from ..backend import Array, empty
from .launch import contiguous, launch, pack


def normalise(images: Array, scale: Sequence[float], shift: Sequence[float]) -> Array:
    """x · scale[c] − shift[c]: uint8 (…, H, W, 3) -> float32"""
    images, out = contiguous(images), empty(images.shape, np.float32, like=images)
    width = pack(out.size, images, out)
    numbers = images, out, out.size, *scale, *shift
    launch("pictures.normalise", out.size // width, *numbers, real=np.float32, PACK=width)
    return out
