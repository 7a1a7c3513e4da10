"""Convolution on a GPU: the three maps of the lesson functional/conv.py for all images at once.
cuBLAS multiplies (products.py) what the kernels of windows.cu lay out.

A row of columns is made a whole number of packs long, by zeros: conv1 of AlexNet has 364 elements
to a row, not 363. Rows that begin at multiples of 16 bytes are written four elements at once, and
cuBLAS has faster kernels for them: with 363, conv1's products in TF32 took an H200 386 and 372 µs,
where memory needs 167. The weights get rows of zeros (conv.cu) to match, and what the gradient has
there is left out.

The columns of the images are kept from the forward pass for the gradient of the weights (kept.py).
"""

from typing import Any

from ..devices import Array
from . import products
from .activation import rectify
from .kept import kept
from .launch import contiguous, empty, launch, pack
from .linear import add_bias
from .windows import col2im, im2col

WHOLE = 4  # elements to a pack


def convolve(x: Array, weight: Array, bias: Array | None, window: Any, groups: int, rectified: bool = False) -> Array:
    n, h, w, _ = x.shape
    outputs = weight.shape[3]
    y = empty((n, *window.output_size(h, w), outputs), x.dtype)  # (N, OH, OW, O)
    weight = _with_rows_of_zeros(weight.reshape(-1, outputs))  # (⌈KH·KW·C/G⌉, O)
    columns = im2col(x, window, groups, WHOLE)  # (G·N·OH·OW, ⌈KH·KW·C/G⌉)
    products.product(_stacked(columns, groups), _by_group(weight, groups), _by_group(y, groups))
    if columns.base is None:  # it is not the images themselves
        kept.keep(x, (window, groups), columns)
    if bias is not None:
        add_bias(y, bias, y, rectified)
    elif rectified:
        return rectify(y)
    return y


def convolve_transpose(dy: Array, weight: Array, window: Any, groups: int, size: tuple[int, int]) -> Array:
    kh, kw, c, outputs = weight.shape
    dx = empty((len(dy), *size, c * groups), dy.dtype)  # (N, H, W, C)
    parts = _split(dy.reshape(-1, outputs), groups), _split(weight.reshape(-1, outputs), groups), _split(dx, groups)
    for gradient, matrix, part in zip(*parts, strict=True):
        columns = empty((len(gradient), kh * kw * c), dy.dtype)  # (N·OH·OW, KH·KW·C/G)
        products.product(gradient, matrix.T, columns)
        col2im(columns, part.shape, window, part)
    return dx


def convolve_weight(x: Array, dy: Array, window: Any, groups: int) -> Array:
    (kh, kw), c, outputs = window.kernel_size, x.shape[3] // groups, dy.shape[3]
    columns = kept.take(x, (window, groups))
    if columns is None:
        columns = im2col(x, window, groups, WHOLE)
    dw = empty((columns.shape[1], outputs), x.dtype)  # (⌈KH·KW·C/G⌉, O)
    columns = _stacked(columns, groups).swapaxes(-2, -1)  # (G, ⌈KH·KW·C/G⌉, N·OH·OW)
    products.product(columns, _by_group(dy, groups), _by_group(dw, groups))
    return dw[: kh * kw * c].reshape(kh, kw, c, outputs)


def _with_rows_of_zeros(matrix: Array) -> Array:
    """The matrix with rows of zeros below it: one row for each element of a row of columns."""
    rows, outputs = matrix.shape
    if not rows % WHOLE:
        return matrix
    matrix, longer = contiguous(matrix), empty((-(-rows // WHOLE) * WHOLE, outputs), matrix.dtype)
    width = pack(outputs, matrix, longer)
    numbers = matrix, matrix.size, longer, longer.size
    launch("conv.followed_by_zeros", longer.size // width, *numbers, real=matrix.dtype, PACK=width)
    return longer


def _stacked(columns: Array, groups: int) -> Array:
    """The columns of each group: (G, N·OH·OW, ⌈KH·KW·C/G⌉), where ⌈n⌉ is the next multiple of
    WHOLE; like _by_group, just a matrix if there is one group."""
    return columns if groups == 1 else columns.reshape(groups, len(columns) // groups, columns.shape[1])


def _by_group(array: Array, groups: int) -> Array:
    """(…, O) -> (G, the product of the other axes, O/G), a view: one matrix for each group."""
    outputs = array.shape[-1]
    if groups == 1:
        return array.reshape(-1, outputs)
    return array.reshape(-1, groups, outputs // groups).swapaxes(0, 1)


def _split(array: Array, groups: int) -> list[Array]:
    """For each group its share of the last axis."""
    if groups == 1:
        return [array]
    share = array.shape[-1] // groups
    return [array[..., g * share : (g + 1) * share] for g in range(groups)]
