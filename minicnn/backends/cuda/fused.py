"""A layer and its ReLU at once on a GPU: the lesson functional/fused.py, by the kernel of
linear.cu."""

from typing import Any

from ..devices import Array
from . import conv
from .launch import contiguous, empty_like
from .linear import add_bias


def convolve_rectify(x: Array, weight: Array, bias: Array | None, window: Any, groups: int) -> Array:
    return conv.convolve(x, weight, bias, window, groups, rectified=True)


def add_rectify(x: Array, bias: Array) -> Array:
    x, y = contiguous(x), empty_like(x)
    add_bias(x, bias, y, rectified=True)
    return y
