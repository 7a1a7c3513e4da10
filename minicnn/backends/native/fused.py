"""A layer and its ReLU at once (functional/fused.py), by the kernels of conv.c, winograd.c and
fused.c."""

from typing import Any

from ..numpy import activation as numpy
from . import activation, conv
from .launch import Array, contiguous, empty_like, launch


def convolve_rectify(x: Array, weight: Array, bias: Array | None, window: Any, groups: int) -> Array:
    """max(convolve(x, K) + b, 0): (N, H, W, C), (KH, KW, C/G, O), (O,) -> (N, OH, OW, O)"""
    return conv.convolve(x, weight, bias, window, groups, rectified=True)


def add_rectify(x: Array, bias: Array) -> Array:
    """max(x + b, 0): (…, O), (O,) -> (…, O)"""
    if x.size < activation.FEW:
        return numpy.rectify(x + bias)
    x, bias = contiguous(x), contiguous(bias)
    y, columns = empty_like(x), len(bias)
    rows = x.size // max(columns, 1)
    launch("fused.add_rectify", rows, x, bias, columns, y, real=x.dtype, each=columns)
    return y
