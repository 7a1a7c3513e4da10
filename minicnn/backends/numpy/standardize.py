"""Standardization (functional/standardize.py) on all threads, in blocks of pixels that stay in a
core's cache. A block lies in lines, of several pixels each if these have few channels, because
NumPy takes as long for a line of 64 numbers as for one of 256.
"""

from collections.abc import Callable
from math import prod

import numpy as np

from . import threads
from .memory import empty_like, scratch
from .ops import sum_rows, total
from .threads import Array, parallel, parallel_sum, slices

LONG = 1024  # numbers in a line that is not lengthened


def moments(x: Array) -> Array:
    """μ and σ²: (…, C) -> (2, C)"""
    n, (lines,) = prod(x.shape[:-1]), _lines(x)
    mean = _channels(total(lines, (0,)), x) / n
    (means,) = _columns(lines, mean)

    def squares(x: Array) -> Array:
        d = np.subtract(x, means, out=scratch("d", x.shape, like=x))
        return sum_rows(np.multiply(d, d, out=d))

    return np.stack([mean, _channels(_sum_of_blocks(squares, lines), x) / n])


def normalize(x: Array, moments: Array, gamma: Array, beta: Array, eps: float) -> Array:
    """y = γ x̂ + β"""
    (mean, var), y = moments, empty_like(x)
    lines = _lines(x, y)
    mean, scale, beta = _columns(lines[0], mean, gamma / np.sqrt(var + eps), beta)

    def block(x: Array, y: Array) -> None:
        np.subtract(x, mean, out=y)
        y *= scale
        y += beta

    _by_blocks(block, *lines)
    return y


def sums(dy: Array, x: Array, moments: Array, eps: float) -> Array:
    """dγ = Σ x̂ dy and dβ = Σ dy: (2, C)"""
    lines = _lines(dy, x)
    (mean,) = _columns(lines[0], moments[0])

    def block(dy: Array, x: Array) -> Array:
        d = np.subtract(x, mean, out=scratch("d", x.shape, like=x))
        return np.stack([sum_rows(np.multiply(d, dy, out=d)), sum_rows(np.ascontiguousarray(dy))])

    products, sums = _sum_of_blocks(block, *lines)
    return np.stack([_channels(products, x) / np.sqrt(moments[1] + eps), _channels(sums, x)])


def normalize_backward(dy: Array, x: Array, moments: Array, gamma: Array, sums: Array, eps: float) -> Array:
    """dx = γ (dy − dβ / n − x̂ dγ / n) / s"""
    (mean, var), (dgamma, dbeta), n, dx = moments, sums, prod(x.shape[:-1]), empty_like(x)
    lines, s = _lines(dy, x, dx), np.sqrt(var + eps)
    mean, slope, offset, scale = _columns(lines[0], mean, dgamma / (n * s), dbeta / n, gamma / s)

    def block(dy: Array, x: Array, dx: Array) -> None:
        np.subtract(x, mean, out=dx)
        dx *= slope
        dx += offset
        np.subtract(dy, dx, out=dx)
        dx *= scale

    _by_blocks(block, *lines)
    return dx


def _lines(*arrays: Array) -> list[Array]:
    """The arrays in lines: (…, C) -> (n / k, k C)"""
    n, channels, k = prod(arrays[0].shape[:-1]), arrays[0].shape[-1], 1
    while n and n % (2 * k) == 0 and 2 * k * channels <= LONG:
        k *= 2
    return [array.reshape(n // k, k * channels) for array in arrays]


def _columns(lines: Array, *constants: Array) -> list[Array]:
    """The channels' constants for the columns of a line: (C,) -> (k C,)"""
    return [np.tile(constant, lines.shape[1] // max(1, len(constant))) for constant in constants]


def _channels(columns: Array, x: Array) -> Array:
    """The sums of the channels from those of the columns: (k C,) -> (C,)"""
    return columns.reshape(-1, x.shape[-1]).sum(axis=0) if columns.size else columns


def _blocks(lines: Array) -> list[tuple[int, int]]:
    return slices(len(lines), max(1, threads.BLOCK // max(1, lines.shape[1])))


def _sum_of_blocks(function: Callable[..., Array], *lines: Array) -> Array:
    return parallel_sum(lambda lo, hi: function(*[array[lo:hi] for array in lines]), _blocks(lines[0]))


def _by_blocks(function: Callable[..., None], *lines: Array) -> None:
    parallel(lambda lo, hi: function(*[array[lo:hi] for array in lines]), _blocks(lines[0]))
