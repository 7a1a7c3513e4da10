"""ReLU and others (functional/activation.py), by the kernels of activation.c."""

from .launch import ALIGNED, Array, contiguous, empty_like, launch, truths


def rectify(x: Array) -> Array:
    """max(x, 0)"""
    x = contiguous(x)
    y = empty_like(x)
    launch("activation.rectify", x.size, x, y, real=x.dtype)
    return y


def where_positive(dy: Array, y: Array) -> Array:
    """dy where y > 0, otherwise 0"""
    dy, y = contiguous(dy), contiguous(y)
    dx, line = empty_like(dy), ALIGNED // dy.itemsize
    launch("activation.where_positive", -(-dy.size // line), dy, y, dx, dy.size, real=dy.dtype, each=line)
    return dx


def leak(x: Array, positive: Array, negative_slope: float) -> Array:
    """x where x is positive, else negative_slope · x"""
    x, positive = contiguous(x), truths(positive)
    y = empty_like(x)
    launch("activation.leak", x.size, x, positive, negative_slope, y, real=x.dtype)
    return y


def logistic(x: Array) -> Array:
    """1 / (1 + e^-x)"""
    x = contiguous(x)
    y = empty_like(x)
    launch("activation.logistic", x.size, x, y, real=x.dtype)
    return y
