"""Convolution on a GPU: the three maps of the lesson functional/conv.py for all images at once. cuBLAS multiplies
(products.py) what the kernels of windows.cu lay out."""

from typing import Any

from ..backend import Array, empty
from . import products
from .linear import add_bias
from .windows import col2im, im2col


def convolve(x: Array, weight: Array, bias: Array | None, window: Any, groups: int) -> Array:
    """y = im2col(x) W + b: (N, H, W, C), (KH, KW, C/G, O), (O,) -> (N, OH, OW, O)"""
    n, h, w, _ = x.shape
    outputs = weight.shape[3]
    y = empty((n, *window.output_size(h, w), outputs), x.dtype, like=x)  # (N, OH, OW, O)
    parts = _split(weight.reshape(-1, outputs), groups), _split(y.reshape(-1, outputs), groups)
    for columns, matrix, out in zip(_columns(x, window, groups), *parts, strict=True):
        products.product(columns, matrix, out)
    if bias is not None:
        add_bias(y, bias)
    return y


def convolve_transpose(dy: Array, weight: Array, window: Any, groups: int, size: tuple[int, int]) -> Array:
    """dx = col2im(dy Wᵀ): (N, OH, OW, O), (KH, KW, C/G, O) -> (N, H, W, C), where (H, W) = size"""
    kh, kw, c, outputs = weight.shape
    dx = empty((len(dy), *size, c * groups), dy.dtype, like=dy)  # (N, H, W, C)
    parts = _split(dy.reshape(-1, outputs), groups), _split(weight.reshape(-1, outputs), groups), _split(dx, groups)
    for gradient, matrix, part in zip(*parts, strict=True):
        columns = empty((len(gradient), kh * kw * c), dy.dtype, like=dy)  # (N·OH·OW, KH·KW·C/G)
        products.product(gradient, matrix.T, columns)
        col2im(columns, part.shape, window, part)
    return dx


def convolve_weight(x: Array, dy: Array, window: Any, groups: int) -> Array:
    """dW = im2col(x)ᵀ dy: (N, H, W, C), (N, OH, OW, O) -> (KH, KW, C/G, O)"""
    outputs = dy.shape[3]
    dw = empty((*window.kernel_size, x.shape[3] // groups, outputs), x.dtype, like=x)
    parts = _split(dy.reshape(-1, outputs), groups), _split(dw.reshape(-1, outputs), groups)
    for columns, gradient, out in zip(_columns(x, window, groups), *parts, strict=True):
        products.product(columns.T, gradient, out)
    return dw


def _columns(x: Array, window: Any, groups: int) -> list[Array]:
    """im2col(x) for each group: (N·OH·OW, KH·KW·C/G)"""
    columns = im2col(x, window, groups)
    if groups == 1:
        return [columns]
    return list(columns.reshape(groups, len(columns) // groups, columns.shape[1]))


def _split(array: Array, groups: int) -> list[Array]:
    """For each group its share of the last axis."""
    if groups == 1:
        return [array]
    share = array.shape[-1] // groups
    return [array[..., g * share : (g + 1) * share] for g in range(groups)]
