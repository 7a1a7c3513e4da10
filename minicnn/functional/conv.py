"""Convolution: the same small set of weights looks at every place of an image (Krizhevsky et al. 2012, section 3.5).

    y[n, p, q, :] = b + Σ_ij  x[n, p·s + i·d, q·s + j·d, :] · W[i, j]             W[i, j] is a matrix (C, O)

Lay the window of each output pixel out as one row (lesson windows), and the whole sum is one matrix product:

    X = im2col(x)                     (N·OH·OW, KH·KW·C)
    y = X W + b                       W as a matrix (KH·KW·C, O), y as (N·OH·OW, O)

The backward pass follows from that line. For L a function of y and dy = dL/dy,

    dX = dy Wᵀ     and so    dx = col2im(dy Wᵀ)          each entry goes back to the pixel it was copied from
    dW = Xᵀ dy
    db = Σ dy                                            over images and pixels

These are three maps, each linear in both of its arguments, and the derivatives of each are the other two:

    convolve(x, W) = y        convolve_transpose(dy, W) = dx        convolve_weight(x, dy) = dW

so every further derivative is made of them as well. convolve_transpose by itself is known as transposed convolution
(Zeiler et al. 2010). For kernels of 3 × 3 in steps of 1 there is a shorter way to the same three (lesson winograd).

Groups cut the channels into parts that do not see each other: group g has C/G input and O/G output channels. The paper
splits conv2, conv4 and conv5 in two, one part for each of its GPUs.

    N images   H W C input height, width, channels   KH KW kernel   OH OW O output   G groups

| where libraries differ  | here                           | PyTorch          | Caffe            |
| ----------------------- | ------------------------------ | ---------------- | ---------------- |
| images                  | (N, H, W, C)                   | (N, C, H, W)     | (N, C, H, W)     |
| weights                 | (KH, KW, C/G, O)               | (O, C/G, KH, KW) | (O, C/G, KH, KW) |
| padding                 | also different on each side    | the same         | the same         |
| kernel turned around    | no (strictly, a correlation)   | no               | no               |

>>> import minicnn, minicnn.functional as F
>>> edge = minicnn.Tensor([[1.0, -1.0]]).reshape(1, 2, 1, 1)  # is a pixel brighter than its right neighbour?
>>> x = minicnn.Tensor([5.0, 5.0, 2.0, 2.0]).reshape(1, 1, 4, 1)
>>> F.conv2d(x, edge).reshape(3)
Tensor([0., 3., 0.], dtype=float32)
"""

from typing import Any

from ..autograd import Function
from ..backend import Array, device_kernel, empty, parallel, parallel_sum, pieces, scratch
from ..products import product
from ..tensor import Tensor, apply
from . import winograd
from .linear import add_bias
from .shapes import pad
from .windows import Window, channel_pieces, col2im, groups_of, im2col, pair


@device_kernel
def convolve(x: Array, weight: Array, bias: Array | None, window: Window, groups: int) -> Array:
    """y = im2col(x) W + b: (N, H, W, C), (KH, KW, C/G, O), (O,) -> (N, OH, OW, O)"""
    n, h, w, channels = x.shape
    oh, ow = window.output_size(h, w)
    outputs = weight.shape[3]
    if winograd.suits(x, window, n * oh * ow, min(channels, outputs) // groups):
        return winograd.convolve(x, weight, bias, window, groups)
    y = empty((n, oh, ow, outputs), x.dtype, like=x)  # (N, OH, OW, O)
    matrix = weight.reshape(-1, outputs)  # (KH·KW·C/G, O)

    def some(images: slice, rows: slice) -> None:
        seen, part = window.band(rows, h)
        out = y[images, rows].reshape(-1, outputs)  # (n·OH·OW, O)
        columns = im2col(x[images, seen], part, groups).reshape(groups, len(out), len(matrix))  # (G, …, KH·KW·C/G)
        for g, (_, o, _) in enumerate(groups_of(groups, channels, outputs)):
            product(columns[g], matrix[:, o], out=out[:, o])
        if bias is not None:
            add_bias(out, bias)

    parallel(some, pieces(x, oh, _row_bytes(y, weight.shape)))
    return y


@device_kernel
def convolve_transpose(dy: Array, weight: Array, window: Window, groups: int, size: tuple[int, int]) -> Array:
    """dx = col2im(dy Wᵀ): (N, OH, OW, O), (KH, KW, C/G, O) -> (N, H, W, C), where (H, W) = size"""
    n, oh, ow, outputs = dy.shape
    channels = weight.shape[2] * groups
    if winograd.suits(dy, window, n * oh * ow, min(channels, outputs) // groups):
        return winograd.convolve_transpose(dy, weight, window, groups, size)
    dx = empty((n, *size, channels), dy.dtype, like=dy)  # (N, H, W, C)

    def some(images: slice, c: slice, o: slice, within: slice) -> None:
        gradient = dy[images].reshape(-1, outputs)[:, o]  # (n·OH·OW, O/G)
        matrix = weight[:, :, within, o].reshape(-1, gradient.shape[1])  # (KH·KW·c, O/G)
        columns = scratch("columns", (len(gradient), len(matrix)), like=dy)  # (n·OH·OW, KH·KW·c)
        product(gradient, matrix.T, out=columns)
        part = dx[images, :, :, c]
        col2im(columns, part.shape, window, out=part)

    parallel(some, channel_pieces(dx, dy, groups, oh * _row_bytes(dy, weight.shape)))
    return dx


@device_kernel
def convolve_weight(x: Array, dy: Array, window: Window, groups: int) -> Array:
    """dW = im2col(x)ᵀ dy: (N, H, W, C), (N, OH, OW, O) -> (KH, KW, C/G, O)"""
    h, channels = x.shape[1], x.shape[3]
    n, oh, ow, outputs = dy.shape
    if winograd.suits(x, window, n * oh * ow, min(channels, outputs) // groups):
        return winograd.convolve_weight(x, dy, window, groups)
    shape = (*window.kernel_size, channels // groups, outputs)

    def some(images: slice, rows: slice) -> Array:
        seen, part = window.band(rows, h)
        gradient = dy[images, rows].reshape(-1, outputs)  # (n·OH·OW, O)
        dw = scratch("dw", shape, like=x)
        matrix = dw.reshape(-1, outputs)  # (KH·KW·C/G, O)
        columns = im2col(x[images, seen], part, groups).reshape(groups, len(gradient), len(matrix))  # (G, …, KH·KW·C/G)
        for g, (_, o, _) in enumerate(groups_of(groups, channels, outputs)):
            product(columns[g].T, gradient[:, o], out=matrix[:, o])
        return dw

    return parallel_sum(some, pieces(x, oh, _row_bytes(dy, shape)))


def _row_bytes(y: Array, weight_shape: tuple[int, ...]) -> int:
    """The size of a group's columns for one row of output pixels. Those of a few images stay in the cache, which is 1.2
    times as fast as all columns at once."""
    kh, kw, c, _ = weight_shape
    return y.shape[2] * kh * kw * c * y.itemsize


class _Convolution(Function):
    """One of the three maps; `size` is (H, W), the image's."""

    reads: tuple[tuple[int, ...], ...] = ((1,), (0,))

    def __init__(self, window: Window, groups: int, size: tuple[int, int]):
        self.settings = self.window, self.groups, self.size = window, groups, size


class Conv2d(_Convolution):
    """y = convolve(x, W) + b"""

    reads = ((1,), (0,), ())

    def forward(self, x, weight, bias=None):
        return convolve(x, weight, bias, self.window, self.groups)

    def backward(self, dy):
        x, weight, *bias = self.inputs
        dx = apply(Conv2dTranspose(*self.settings), dy, weight) if self.needs[0] else None
        dw = apply(Conv2dWeight(*self.settings), x, dy) if self.needs[1] else None
        if not bias:
            return dx, dw
        return dx, dw, dy.sum(axis=(0, 1, 2)) if self.needs[2] else None


class Conv2dTranspose(_Convolution):
    """dx = convolve_transpose(dy, W)"""

    def forward(self, dy, weight):
        return convolve_transpose(dy, weight, self.window, self.groups, self.size)

    def backward(self, g):
        dy, weight = self.inputs
        return (
            apply(Conv2d(*self.settings), g, weight) if self.needs[0] else None,
            apply(Conv2dWeight(*self.settings), g, dy) if self.needs[1] else None,
        )


class Conv2dWeight(_Convolution):
    """dW = convolve_weight(x, dy)"""

    def forward(self, x, dy):
        return convolve_weight(x, dy, self.window, self.groups)

    def backward(self, g):
        x, dy = self.inputs
        return (
            apply(Conv2dTranspose(*self.settings), dy, g) if self.needs[0] else None,
            apply(Conv2d(*self.settings), x, g) if self.needs[1] else None,
        )


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution of images with a kernel, as in Krizhevsky et al. 2012.

    Args:
        x: (N, H, W, C), floating.
        weight: (KH, KW, C/groups, O), of x's dtype.
        bias: (O,) or None.
        stride, dilation: int or (height, width).
        padding: int, (height, width) or ((top, bottom), (left, right)): so many zeros around the image.
        groups: divides both C and O.

    Returns (N, OH, OW, O) with OH = ⌊(H + top + bottom − dilation·(KH − 1) − 1) / stride⌋ + 1. Raises ValueError if
    the shapes do not fit.
    """
    _check("conv2d", x, weight, bias, groups)
    window = Window.of(weight.shape[:2], stride, padding, dilation)
    return apply(Conv2d(window, groups, (x.shape[1], x.shape[2])), x, weight, *([] if bias is None else [bias]))


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """The transpose of conv2d with the same weight and settings (Zeiler et al. 2010): from conv2d's output size back
    to its input size.

    Args:
        x: (N, H, W, O), floating.
        weight: (KH, KW, C/groups, O): conv2d's weight, so the result has C channels.
        bias: (C,) or None.
        stride, padding, dilation, groups: conv2d's.
        output_padding: int or (height, width), smaller than the stride or the dilation. Several input sizes give
            conv2d the same output size; this picks a larger one.

    Returns (N, (H − 1)·stride − top − bottom + dilation·(KH − 1) + output_padding + 1, …, C). Raises ValueError if the
    shapes do not fit.
    """
    _check("conv_transpose2d", x, weight, bias, groups, transposed=True)
    window = Window.of(weight.shape[:2], stride, padding, dilation)
    extra = pair(output_padding, "output_padding", 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, window.stride, window.dilation, strict=True)):
        raise ValueError(
            f"conv_transpose2d: output_padding {output_padding} must be smaller than the stride {stride} "
            f"or the dilation {dilation}"
        )
    h, w = (
        (n - 1) * s - sum(p) + d * (k - 1) + e + 1
        for n, k, s, p, d, e in zip(x.shape[1:3], *window, extra, strict=True)
    )
    if h < 1 or w < 1:
        raise ValueError(f"conv_transpose2d: padding {padding} leaves nothing of the result ({h} × {w} pixels)")
    if extra == (0, 0):
        y = apply(Conv2dTranspose(window, groups, (h, w)), x, weight)
    else:  # there may be pixels that no window reaches: unpadded first, then zeros beyond, then what the padding leaves
        (top, bottom), (left, right) = window.padding
        whole = h - extra[0] + top + bottom, w - extra[1] + left + right
        y = apply(Conv2dTranspose(window._replace(padding=((0, 0), (0, 0))), groups, whole), x, weight)
        y = pad(y, ((0, 0), (0, extra[0]), (0, extra[1]), (0, 0)))[:, top : top + h, left : left + w]
    return y if bias is None else y + bias


def _check(name: str, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, transposed: bool = False) -> None:
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(
            f"{name} needs x of (N, H, W, C) and weight of (KH, KW, C/groups, O), not {x.shape} and {weight.shape}"
        )
    if groups < 1 or weight.shape[3] % groups:
        raise ValueError(
            f"{name}: groups={groups} must divide the {weight.shape[3]} channels that are the weight's last axis"
        )
    taken, made = weight.shape[2] * groups, weight.shape[3]
    if transposed:
        taken, made = made, taken
    if x.shape[3] != taken:
        raise ValueError(
            f"{name}: x of shape {x.shape} has {x.shape[3]} channels; "
            f"a weight of shape {weight.shape} with groups={groups} needs {taken}"
        )
    if bias is not None and bias.shape != (made,):
        raise ValueError(f"{name}: bias of shape {bias.shape}, expected ({made},)")
