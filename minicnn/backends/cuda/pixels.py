"""The arithmetic of transforms.Normalize on a GPU: data/pixels.py, by the kernel of pixels.cu."""

from collections.abc import Sequence

import numpy as np

from ..devices import Array
from .launch import contiguous, empty, launch, pack


def normalize(images: Array, scale: Sequence[float], shift: Sequence[float], out: Array | None = None) -> Array:
    images, out = contiguous(images), empty(images.shape, np.float32) if out is None else out
    width = pack(out.size, images, out)
    # the kernel takes three channels in turn: a single one has the same numbers three times
    numbers = images, out, out.size, *np.broadcast_to(scale, 3), *np.broadcast_to(shift, 3)
    launch("pixels.normalize", out.size // width, *numbers, real=np.float32, PACK=width)
    return out
