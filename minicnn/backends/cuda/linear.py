"""The bias of a convolution on a GPU: the + b of the lesson functional/conv.py, by the kernel of
linear.cu."""

from ..devices import Array
from .launch import contiguous, launch, pack


def add_bias(y: Array, bias: Array) -> None:
    """y + b in place: (…, C), contiguous, and (C,)"""
    if y.shape[-1:] != bias.shape:
        raise ValueError(f"add_bias: y of shape {y.shape} needs a bias of shape {y.shape[-1:]}, not {bias.shape}")
    bias = contiguous(bias)
    width = pack(bias.size, y, bias)
    launch("linear.add_bias", y.size // width, y, bias, y.size, real=y.dtype, C=bias.size, PACK=width)
