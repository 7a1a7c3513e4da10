"""Standardization, as in batch normalization (functional/standardize.py), by the kernels of
standardize.c."""

from math import prod

import numpy as np

from .launch import Array, contiguous, empty_like, launch

BLOCK = 1 << 15  # elements of a block of pixels: two arrays of so many fit in a core's cache
LINE = 128  # columns of a line, if a pixel has fewer channels


def moments(x: Array) -> Array:
    """μ and σ²: (…, C) -> (2, C)"""
    x = contiguous(x)
    pixels, channels, step, partial = _blocks(x)
    result = np.empty((2, channels), x.dtype)
    launch("standardize.moments", len(partial), pixels, channels, step, x, partial, real=x.dtype, each=step * channels)
    each = 2 * len(partial)
    launch("standardize.merge_moments", channels, pixels, channels, step, partial, *result, real=x.dtype, each=each)
    return result


def normalize(x: Array, moments: Array, gamma: Array, beta: Array, eps: float) -> Array:
    """y = γ x̂ + β"""
    mean, var = moments
    return _by_lines("standardize.normalize", [x], [mean, gamma / np.sqrt(var + eps), beta])


def sums(dy: Array, x: Array, moments: Array, eps: float) -> Array:
    """dγ = Σ x̂ dy and dβ = Σ dy: (2, C)"""
    dy, x, (mean, var) = contiguous(dy), contiguous(x), contiguous(moments)
    pixels, channels, step, partial = _blocks(x)
    result, real = np.empty((2, channels), x.dtype), x.dtype
    work = pixels, channels, step, dy, x, mean, partial
    launch("standardize.sums", len(partial), *work, real=real, each=2 * step * channels)
    work = len(partial), channels, partial, np.sqrt(var + eps), *result
    launch("standardize.merge_sums", channels, *work, real=real, each=2 * len(partial))
    return result


def normalize_backward(dy: Array, x: Array, moments: Array, gamma: Array, sums: Array, eps: float) -> Array:
    """dx = γ (dy − dβ / n − x̂ dγ / n) / s"""
    (mean, var), (dgamma, dbeta), n = moments, sums, prod(x.shape[:-1])
    s = np.sqrt(var + eps)
    return _by_lines("standardize.normalize_backward", [dy, x], [mean, dbeta / n, dgamma / (n * s), gamma / s])


def _blocks(x: Array) -> tuple[int, int, int, Array]:
    """How many pixels and channels there are, how many pixels a block has, and room for two sums of
    each block and channel."""
    pixels, channels = prod(x.shape[:-1]), x.shape[-1]
    step = max(16, BLOCK // max(channels, 1))
    return pixels, channels, step, np.empty((-(-pixels // step), 2, channels))


def _by_lines(kernel: str, arrays: list[Array], constants: list[Array]) -> Array:
    """A result of the arrays' shape, by a kernel that takes them in lines, with constants for each
    column of a line: those of the channels of several pixels, if these are few."""
    arrays = [contiguous(array) for array in arrays]
    x, channels = arrays[0], arrays[0].shape[-1]
    y = empty_like(x)
    columns = max(1, LINE // max(channels, 1)) * channels
    if columns:
        table = np.tile(np.stack(constants), columns // channels)
        count, each = -(-x.size // columns), columns * (len(arrays) + 1)
        launch(kernel, count, x.size, columns, *arrays, *table, y, real=x.dtype, each=each)
    return y
