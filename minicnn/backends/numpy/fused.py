"""A convolution and its ReLU at once (functional/fused.py)."""

from typing import Any

from . import conv
from .threads import Array


def convolve_rectify(x: Array, weight: Array, bias: Array | None, window: Any, groups: int) -> Array:
    """max(convolve(x, W) + b, 0): (N, H, W, C), (KH, KW, C/G, O), (O,) -> (N, OH, OW, O)"""
    return conv.convolve(x, weight, bias, window, groups, rectified=True)
