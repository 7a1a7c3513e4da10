"""The bias on a GPU: the + b of the lessons functional/conv.py and functional/fused.py, by the
kernel of linear.cu."""

from ..devices import Array
from .launch import contiguous, launch, pack


def add_bias(x: Array, bias: Array, y: Array, rectified: bool = False) -> None:
    """y = x + b, or max(x + b, 0) if rectified: (…, C), contiguous, and (C,). y may be x."""
    if x.shape[-1:] != bias.shape:
        raise ValueError(f"add_bias: x of shape {x.shape} needs a bias of shape {x.shape[-1:]}, not {bias.shape}")
    bias = contiguous(bias)
    width, constants = pack(bias.size, x, bias, y), {"C": bias.size, "RECTIFIED": rectified}
    launch("linear.add_bias", x.size // width, x, bias, y, x.size, real=x.dtype, PACK=width, **constants)
