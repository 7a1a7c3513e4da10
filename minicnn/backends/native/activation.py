"""ReLU (functional/activation.py), by the kernels of activation.c."""

from .launch import Array, contiguous, empty_like, launch


def rectify(x: Array) -> Array:
    """max(x, 0)"""
    x = contiguous(x)
    y = empty_like(x)
    launch("activation.rectify", x.size, x, y, real=x.dtype)
    return y


def where_positive(dy: Array, y: Array) -> Array:
    """dy where y > 0, otherwise 0"""
    dy, y = contiguous(dy), contiguous(y)
    dx = empty_like(dy)
    launch("activation.where_positive", dy.size, dy, y, dx, real=dy.dtype)
    return dx
