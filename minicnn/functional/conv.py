"""Convolution: the same small set of weights looks at every place of an image (Krizhevsky et al. 2012, section 3.5).

    y[n, p, q, :] = b + Σ_ij  x[n, p·s + i·d, q·s + j·d, :] · W[i, j]             W[i, j] is a matrix (C, O)

Here x has its padding around it. Lay the window of each output pixel out as one row
(functional/windows.py), and the whole sum is one matrix product:

    X = im2col(x)                     (N·OH·OW, KH·KW·C)
    y = X W + b                       W as a matrix (KH·KW·C, O), y as (N·OH·OW, O)

The backward pass follows from that line. L is a number computed from y, and dz means dL/dz for
every z. Small changes of X, W and b change L by δL = Σ dy ∘ (δX W + X δW + δb), where ∘ multiplies
entry by entry. This is Σ dX ∘ δX + Σ dW ∘ δW + Σ db ∘ δb with

    dX = dy Wᵀ     and so    dx = col2im(dy Wᵀ)
    dW = Xᵀ dy
    db = Σ dy                                            over images and pixels

im2col only copies, so it is linear, X = A x, and dx = Aᵀ dX: col2im adds each entry of dX to the
pixel that it was copied from. A convolution keeps x and W for the backward pass, and not the
columns X, which are up to KH·KW times as large as x and are made again.

Every further derivative is made of the same three maps:

    convolve(x, W) = y        convolve_transpose(dy, W) = dx        convolve_weight(x, dy) = dW

The number T(x, W, dy) = Σ dy ∘ convolve(x, W), without the bias, is linear in each of x, W and dy,
and its partial derivatives by dy, x and W are these three maps. So, for any g of the map's shape,

    Σ g ∘ convolve(x, W) = T(x, W, g)
    Σ g ∘ convolve_transpose(dy, W) = T(g, W, dy)
    Σ g ∘ convolve_weight(x, dy) = T(x, g, dy)

and as T stands there again, the derivatives of each map are the other two. convolve_transpose by
itself is known as transposed convolution (Zeiler et al. 2010; conv_transpose.py).

Groups cut the channels into parts that do not see each other: group g has C/G input and O/G output channels. The paper
splits conv2, conv4 and conv5 in two, one part for each of its GPUs.

    N images   H W C input height, width, channels   KH KW kernel   OH OW O output   G groups
    s stride   d dilation   b bias   W the weights, but in a shape like (N, H, W, C) the width

| where libraries differ  | here                           | PyTorch          | Caffe            |
| ----------------------- | ------------------------------ | ---------------- | ---------------- |
| images                  | (N, H, W, C)                   | (N, C, H, W)     | (N, C, H, W)     |
| weights                 | (KH, KW, C/G, O)               | (O, C/G, KH, KW) | (O, C/G, KH, KW) |
| padding                 | also different on each side    | symmetric        | symmetric        |
| kernel turned around    | no (strictly, a correlation)   | no               | no               |

>>> import minicnn, minicnn.functional as F
>>> edge = minicnn.Tensor([[1.0, -1.0]]).reshape(1, 2, 1, 1)  # is a pixel brighter than its right neighbour?
>>> x = minicnn.Tensor([5.0, 5.0, 2.0, 2.0]).reshape(1, 1, 4, 1)
>>> F.conv2d(x, edge).reshape(3)
Tensor([0., 3., 0.], dtype=float32)
"""

from math import prod

import numpy as np

from ..autograd import Function, Gradients
from ..backends import kernel
from ..backends.devices import Array
from ..tensor import Tensor, apply
from .layout import check_convolution
from .windows import IntPair, Padding, Window, col2im, im2col

__all__ = ["conv2d"]


@kernel
def convolve(x: Array, weight: Array, bias: Array | None, window: Window, groups: int) -> Array:
    """y = im2col(x) W + b: (N, H, W, C), (KH, KW, C/G, O), (O,) -> (N, OH, OW, O)"""
    shape = (len(x), *window.output_size(*x.shape[1:3]), weight.shape[3])
    parts = zip(split(x, groups), split(weight, groups), strict=True)
    y = np.concatenate([im2col(x, window) @ matrix(w) for x, w in parts], axis=1).reshape(shape)  # X W
    return y if bias is None else y + bias


@kernel
def convolve_transpose(dy: Array, weight: Array, window: Window, groups: int, size: tuple[int, int]) -> Array:
    """dx = col2im(dy Wᵀ): (N, OH, OW, O), (KH, KW, C/G, O) -> (N, H, W, C), where (H, W) = size"""
    shape = (len(dy), *size, weight.shape[2])  # (N, H, W, C/G)
    parts = zip(split(dy, groups), split(weight, groups), strict=True)
    return np.concatenate([col2im(matrix(dy) @ matrix(w).T, shape, window) for dy, w in parts], axis=-1)


@kernel
def convolve_weight(x: Array, dy: Array, window: Window, groups: int) -> Array:
    """dW = im2col(x)ᵀ dy: (N, H, W, C), (N, OH, OW, O) -> (KH, KW, C/G, O)"""
    shape = (*window.kernel_size, x.shape[3] // groups, dy.shape[3])
    parts = zip(split(x, groups), split(dy, groups), strict=True)
    return np.concatenate([im2col(x, window).T @ matrix(dy) for x, dy in parts], axis=1).reshape(shape)


def split(array: Array, groups: int) -> list[Array]:
    """The last axis, cut into one part for each group."""
    return np.split(array, groups, axis=-1)


def matrix(array: Array) -> Array:
    """(…, O) -> (everything before, O): each output channel as a column."""
    return array.reshape(prod(array.shape[:-1]), array.shape[-1])


class _Convolution(Function):
    """One of the three maps; `size` is (H, W), the image's."""

    saves: tuple[tuple[int, ...], ...] = ((1,), (0,))

    def __init__(self, window: Window, groups: int, size: tuple[int, int]):
        self.settings = self.window, self.groups, self.size = window, groups, size


class Conv2d(_Convolution):
    """y = convolve(x, W) + b"""

    saves = ((1,), (0,), ())

    def forward(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        return convolve(x, weight, bias, self.window, self.groups)

    def backward(self, dy: Tensor) -> Gradients:
        x, weight, *bias = self.saved_inputs
        dx = apply(Conv2dTranspose(*self.settings), dy, weight) if self.needs_input_grad[0] else None
        dw = apply(Conv2dWeight(*self.settings), x, dy) if self.needs_input_grad[1] else None
        if not bias:
            return dx, dw
        return dx, dw, dy.sum(axis=(0, 1, 2)) if self.needs_input_grad[2] else None


class Conv2dTranspose(_Convolution):
    """dx = convolve_transpose(dy, W)"""

    def forward(self, dy: Array, weight: Array) -> Array:
        return convolve_transpose(dy, weight, self.window, self.groups, self.size)

    def backward(self, g: Tensor) -> Gradients:
        dy, weight = self.saved_inputs
        return (
            apply(Conv2d(*self.settings), g, weight) if self.needs_input_grad[0] else None,
            apply(Conv2dWeight(*self.settings), g, dy) if self.needs_input_grad[1] else None,
        )


class Conv2dWeight(_Convolution):
    """dW = convolve_weight(x, dy)"""

    def forward(self, x: Array, dy: Array) -> Array:
        return convolve_weight(x, dy, self.window, self.groups)

    def backward(self, g: Tensor) -> Gradients:
        x, dy = self.saved_inputs
        return (
            apply(Conv2dTranspose(*self.settings), dy, g) if self.needs_input_grad[0] else None,
            apply(Conv2d(*self.settings), x, g) if self.needs_input_grad[1] else None,
        )


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution of images with a kernel, as in Krizhevsky et al. 2012.

    Args:
        x: (N, H, W, C), floating.
        weight: (KH, KW, C/groups, O), of x's dtype.
        bias: (O,) or None.
        stride, dilation: int or (height, width).
        padding: int, (height, width) or ((top, bottom), (left, right)): so many zeros around the image;
            "same", for a stride of 1: as many as make OH, OW = H, W, the odd one at the far side.
        groups: divides both C and O.

    Returns (N, OH, OW, O) with OH = ⌊(H + top + bottom − dilation·(KH − 1) − 1) / stride⌋ + 1. Raises ValueError if
    the shapes do not fit.
    """
    check_convolution("conv2d", x, weight, bias, groups)
    window = Window.of(weight.shape[:2], stride, padding, dilation)
    return apply(Conv2d(window, groups, (x.shape[1], x.shape[2])), x, weight, *([] if bias is None else [bias]))


# Functions marked @kernel may be replaced by the faster ones of backends/numpy/conv.py, of
# backends/numpy/winograd.py and of backends/cuda/conv.py.
