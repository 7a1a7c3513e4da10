"""ReLU on a GPU: the lesson functional/activation.py, by the kernels of activation.cu."""

from ..devices import Array
from .launch import contiguous, empty_like, launch, pack


def rectify(x: Array) -> Array:
    x, y = contiguous(x), empty_like(x)
    width = pack(x.size, x, y)
    launch("activation.rectify", x.size // width, x, y, x.size, real=x.dtype, PACK=width)
    return y


def where_positive(dy: Array, y: Array) -> Array:
    dy, y, dx = contiguous(dy), contiguous(y), empty_like(dy)
    width = pack(dy.size, dy, y, dx)
    launch("activation.where_positive", dy.size // width, dy, y, dx, dy.size, real=dy.dtype, PACK=width)
    return dx
