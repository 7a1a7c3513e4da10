"""Convolution: the same weights at each place of an image (Krizhevsky et al. 2012, section 3.5).

    N images   H W C input height, width, channels   OH OW O those of the output   KH KW kernel
    n image   p q output pixel   i j position in the kernel   s stride   d dilation   G groups
    x images, with their padding around them   K the weights   b bias

    y[n, p, q, :] = b + Σ_ij  x[n, p·s + i·d, q·s + j·d, :] @ K[i, j]

where K[i, j] is a matrix (C, O). (K is not flipped: strictly, this is a correlation.) If the window
of each output pixel is a row of a matrix X (lesson windows), the sum is one matrix product:

    X = im2col(x)                     (N·OH·OW, KH·KW·C)
    y = X @ K + b                     K as a matrix (KH·KW·C, O), y as (N·OH·OW, O)

![the shapes, forward and back](../figures/conv.png)

Backward: dx means dL/dx. To first order, small changes δX, δK, δb change y by δX @ K + X @ δK + δb,
and L by the sum of dy ∘ that, ∘ being elementwise. In it, for rows r and columns k of X,

    Σ_ro dy[r,o] Σ_k δX[r,k] K[k,o]  =  Σ_rk (Σ_o dy[r,o] K[k,o]) δX[r,k]

and the factor of δX is dX; likewise for the other two. im2col only copies: with x and X as vectors
it is X = A x, where each row of A has a single 1. Hence dx = Aᵀ dX, which is col2im: each element
of dX is added to the pixel that it was copied from, or dropped if that was padding. So

    dx = col2im(dy @ Kᵀ)        dK = Xᵀ @ dy        db = Σ dy over images and pixels

So a convolution keeps x if dK is wanted, and K if dx is. It does not keep X, about KH·KW/s² times
as large as x: im2col runs again. All further derivatives consist of the same three maps:

    convolve(x, K) = y        convolve_transpose(dy, K) = dx        convolve_weight(x, dy) = dK

T(x, K, dy) = Σ dy ∘ convolve(x, K), without b, is linear in x, in K and in dy; its derivatives by
dy, x and K are the maps. If g arrives at the output of one, the scalar to differentiate is

    Σ g ∘ convolve(x, K)            = T(x, K, g)
    Σ g ∘ convolve_transpose(dy, K) = T(g, K, dy)
    Σ g ∘ convolve_weight(x, dy)    = T(x, g, dy)

which is T with g in the place of one argument: the other two maps give the gradients of each, to
any order. Lesson conv_transpose is about convolve_transpose itself.

Groups: the C/G input channels of group i reach only the O/G output channels of group i: one matrix
product for each group. The paper splits conv2, conv4 and conv5 in two, one part for each GPU.

| where libraries differ | here                       | PyTorch 2.14, and Caffe's files |
| ---------------------- | -------------------------- | ------------------------------- |
| images                 | (N, H, W, C)               | (N, C, H, W)                    |
| weights                | (KH, KW, C/G, O)           | (O, C/G, KH, KW)                |
| padding                | one number a side          | one number an axis              |

>>> import minicnn, minicnn.functional as F
>>> edge = minicnn.Tensor([[1.0, -1.0]]).reshape(1, 2, 1, 1)  # how much darker is the next pixel?
>>> x = minicnn.Tensor([5.0, 5.0, 2.0, 2.0]).reshape(1, 1, 4, 1)
>>> F.conv2d(x, edge).reshape(3)
Tensor([0., 3., 0.], dtype=float32)

Try: which kernel moves an image by one pixel to the right?

>>> F.conv2d(x, minicnn.Tensor([[1.0, 0.0, 0.0]]).reshape(1, 3, 1, 1), padding="same").reshape(4)
Tensor([0., 5., 5., 2.], dtype=float32)
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
    """y = im2col(x) @ K + b: (N, H, W, C), (KH, KW, C/G, O), (O,) -> (N, OH, OW, O)"""
    pairs = zip(split(x, groups), split(weight, groups), strict=True)
    y = np.concatenate([im2col(x_g, window) @ matrix(k_g) for x_g, k_g in pairs], axis=1)
    y = y.reshape(len(x), *window.output_size(*x.shape[1:3]), weight.shape[3])
    return y if bias is None else y + bias


@kernel
def convolve_transpose(dy: Array, weight: Array, window: Window, groups: int, size: tuple[int, int]) -> Array:
    """dx = col2im(dy @ Kᵀ): (N, OH, OW, O), (KH, KW, C/G, O) -> (N, H, W, C), where (H, W) = size:
    with a stride, several image sizes have the same output size"""
    shape = (len(dy), *size, weight.shape[2])  # (N, H, W, C/G)
    pairs = zip(split(dy, groups), split(weight, groups), strict=True)
    return np.concatenate([col2im(matrix(dy_g) @ matrix(k_g).T, shape, window) for dy_g, k_g in pairs], axis=-1)


@kernel
def convolve_weight(x: Array, dy: Array, window: Window, groups: int) -> Array:
    """dK = im2col(x)ᵀ @ dy: (N, H, W, C), (N, OH, OW, O) -> (KH, KW, C/G, O)"""
    pairs = zip(split(x, groups), split(dy, groups), strict=True)
    dk = np.concatenate([im2col(x_g, window).T @ matrix(dy_g) for x_g, dy_g in pairs], axis=1)
    return dk.reshape(*window.kernel_size, x.shape[3] // groups, dy.shape[3])


def split(array: Array, groups: int) -> list[Array]:
    """The array's last axis split into one part for each group."""
    return np.split(array, groups, axis=-1)


def matrix(array: Array) -> Array:
    """(…, O) -> (the product of the other axes, O): each output channel as a column."""
    return array.reshape(prod(array.shape[:-1]), array.shape[-1])


class _Convolution(Function):
    """One of the three maps; `size` is the image's (H, W), which convolve_transpose has to know."""

    saves: tuple[tuple[int, ...], ...] = ((1,), (0,))  # each gradient reads the other input

    def __init__(self, window: Window, groups: int, size: tuple[int, int]):
        self.window, self.groups, self.size = window, groups, size
        self.settings = window, groups, size


class Conv2d(_Convolution):
    """y = convolve(x, K) + b"""

    saves = ((1,), (0,), ())  # dx from K, dK from x, db from neither

    @classmethod
    def on(cls, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, *slide: Padding) -> Tensor:
        """y, for the arguments of conv2d: stride, padding and dilation last."""
        check_convolution("conv2d", x, weight, bias, groups)
        window = Window.of(weight.shape[:2], *slide)
        return apply(cls(window, groups, (x.shape[1], x.shape[2])), x, weight, *([] if bias is None else [bias]))

    def forward(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        return convolve(x, weight, bias, self.window, self.groups)

    def backward(self, dy: Tensor) -> Gradients:
        x, weight = self.saved_inputs[:2]
        dx = apply(Conv2dTranspose(*self.settings), dy, weight) if self.needs_input_grad[0] else None
        dk = apply(Conv2dWeight(*self.settings), x, dy) if self.needs_input_grad[1] else None
        if len(self.needs_input_grad) == 2:  # there is no bias
            return dx, dk
        db = dy.sum(axis=(0, 1, 2)) if self.needs_input_grad[2] else None
        return dx, dk, db


class Conv2dTranspose(_Convolution):
    """dx = convolve_transpose(dy, K)"""

    def forward(self, dy: Array, weight: Array) -> Array:
        return convolve_transpose(dy, weight, self.window, self.groups, self.size)

    def backward(self, g: Tensor) -> Gradients:
        dy, weight = self.saved_inputs
        return (
            apply(Conv2d(*self.settings), g, weight) if self.needs_input_grad[0] else None,
            apply(Conv2dWeight(*self.settings), g, dy) if self.needs_input_grad[1] else None,
        )


class Conv2dWeight(_Convolution):
    """dK = convolve_weight(x, dy)"""

    def forward(self, x: Array, dy: Array) -> Array:
        return convolve_weight(x, dy, self.window, self.groups)

    def backward(self, g: Tensor) -> Gradients:
        x, dy = self.saved_inputs
        return (
            apply(Conv2dTranspose(*self.settings), dy, g) if self.needs_input_grad[0] else None,
            apply(Conv2d(*self.settings), x, g) if self.needs_input_grad[1] else None,
        )


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: IntPair = 1, padding: Padding = 0,
    dilation: IntPair = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Convolution of images with a kernel (Krizhevsky et al. 2012, section 3.5).

    Args:
        x: (N, H, W, C), floating point.
        weight: (KH, KW, C/groups, O), of x's dtype.
        bias: (O,) or None.
        stride, dilation: int or (height, width).
        padding: zeros added: int, (height, width), ((top, bottom), (left, right)), or "same", which
            makes OH, OW = H, W for a stride of 1; an odd zero goes to the bottom and the right.
        groups: the number of groups, a divisor of both C and O.
    Returns:
        (N, OH, OW, O) with OH = ⌊(H + top + bottom − dilation·(KH − 1) − 1) / stride⌋ + 1.
    Raises:
        ValueError: the shapes or settings do not fit.
    """
    return Conv2d.on(x, weight, bias, groups, stride, padding, dilation)


# Faster versions of the functions marked @kernel, which run in their place: conv.py and winograd.py
# in backends/numpy, conv.c and winograd.c in backends/native, conv.py in backends/cuda.
