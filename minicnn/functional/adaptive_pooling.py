"""Adaptive pooling: an image of any size becomes one of OH × OW pixels, each the mean of a bin.

    y[p, q] = mean of x[h, w]  over  ⌊p·H/OH⌋ ≤ h < ⌈(p+1)·H/OH⌉  and  ⌊q·W/OW⌋ ≤ w < ⌈(q+1)·W/OW⌉

So the linear layer behind it always sees OH·OW·C elements, whatever the size of the image; with one
bin for the whole image it is global average pooling (Lin, Chen and Yan 2013, section 3.2). The bins
are those of PyTorch. They cover the image, none is empty, and if H is a multiple of OH they are
windows side by side; else some are a pixel larger than others, or share a pixel. If the image is
smaller than OH × OW, pixels repeat.

Forward. A bin is a rectangle, so all its rows have the same number of pixels, and its mean is the
mean over its columns of the means over its rows. Therefore one axis is pooled after the other, in
OH + OW steps, not OH · OW:

    along an axis      y[p] = 1/|bin p| · Σ x[h]  over h in bin p

Backward. The mean is linear in x: if bin p holds h, x[h] is in y[p] with the weight 1/|bin p|, so

    dx[h] = Σ dy[p] / |bin p|  over the bins p that hold h

which is linear in dy, with the same weights: Σ dy[p] y[p] = Σ dx[h] x[h], sorted by p or by h. So
each of the two maps is the gradient of the other, to any order, and nothing of x is kept.

    N images   H W C input height, width, channels   OH OW output height, width

>>> import numpy as np, minicnn, minicnn.functional as F
>>> x = minicnn.Tensor(np.arange(5.0).reshape(1, 5, 1, 1), requires_grad=True)
>>> y = F.adaptive_avg_pool2d(x, (2, 1))  # the bins of five pixels are 0 1 2 and 2 3 4
>>> y.reshape(2)
Tensor([1., 3.], dtype=float64, grad_fn=Reshape)
>>> (6 * y).sum().backward()
>>> x.grad.reshape(5)
Tensor([2., 2., 4., 2., 2.], dtype=float64)

Try: what do two pixels, 10 and 20, become as an image of three pixels, and of four?

>>> x = minicnn.Tensor([10.0, 20.0]).reshape(1, 2, 1, 1)
>>> F.adaptive_avg_pool2d(x, (3, 1)).reshape(3), F.adaptive_avg_pool2d(x, (4, 1)).reshape(4)
(Tensor([10., 15., 20.], dtype=float32), Tensor([10., 10., 20., 20.], dtype=float32))
"""

import numpy as np

from ..autograd import Function, Gradients
from ..backends import kernel
from ..backends.devices import Array
from ..ops import total
from ..tensor import Tensor, apply
from .arguments import require_images
from .precision import float16_in_float32
from .windows import IntPair, pair

__all__ = ["adaptive_avg_pool2d"]

MOST = 1 << 20  # bins of an axis, which are made one after the other


def bins(size: int, count: int) -> list[tuple[int, int]]:
    """(start, end) of each of `count` bins of an axis with `size` pixels."""
    # ⌈a/b⌉ = −⌊−a/b⌋
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


@kernel
def bin_means(x: Array, axis: int, count: int) -> Array:
    """(…, size, …) -> (…, count, …): the mean of each bin along the axis."""
    lead = (slice(None),) * axis
    parts = [(x[lead + (slice(start, end),)], end - start) for start, end in bins(x.shape[axis], count)]
    # total is a sum, in float64, rounded once
    return np.stack([total(pixels, (axis,)) / size for pixels, size in parts], axis)


@kernel
def bin_spread(dy: Array, axis: int, size: int) -> Array:
    """(…, count, …) -> (…, size, …): each element divided among the pixels of its bin."""
    dx = np.zeros_like(dy, shape=(*dy.shape[:axis], size, *dy.shape[axis + 1 :]))
    means, pixels = np.moveaxis(dy, axis, 0), np.moveaxis(dx, axis, 0)
    for mean, (start, end) in zip(means, bins(size, len(means)), strict=True):
        pixels[start:end] += mean / (end - start)
    return dx


class BinMeans(Function):
    """The mean of each of `count` bins along an axis."""

    promotes_integers = True

    def __init__(self, axis: int, count: int):
        self.axis, self.count = axis, count

    def forward(self, x: Array) -> Array:
        self.size = x.shape[self.axis]
        return bin_means(x, self.axis, self.count)

    def backward(self, dy: Tensor) -> Gradients:
        return apply(BinSpread(self.axis, self.size), dy)


class BinSpread(Function):
    """The transpose of BinMeans, for an axis of `size` pixels."""

    def __init__(self, axis: int, size: int):
        self.axis, self.size = axis, size

    def forward(self, dy: Array) -> Array:
        self.count = dy.shape[self.axis]
        return bin_spread(dy, self.axis, self.size)

    def backward(self, g: Tensor) -> Gradients:
        return apply(BinMeans(self.axis, self.count), g)


@float16_in_float32
def adaptive_avg_pool2d(x: Tensor, output_size: IntPair) -> Tensor:
    """The mean of each of OH × OW bins that cover the image, as in PyTorch.

    Args:
        x: (N, H, W, C), floating point; H and W may be smaller than OH and OW, but not 0.
        output_size: (OH, OW), or one integer for both.
    Returns:
        (N, OH, OW, C), of x's dtype.
    Raises:
        ValueError: x does not have such a shape, or output_size is not one or two integers from 1.

    Example:
        >>> adaptive_avg_pool2d(Tensor([[1.0, 2.0], [3.0, 6.0]]).reshape(1, 2, 2, 1), 1).item()
        3.0
    """
    oh, ow = pair(output_size, "adaptive_avg_pool2d: output_size", most=MOST)
    require_images("adaptive_avg_pool2d", x)
    if not x.shape[1] or not x.shape[2]:
        raise ValueError(f"adaptive_avg_pool2d needs x of (N, H, W, C) with pixels, not {x.shape}")
    return apply(BinMeans(2, ow), apply(BinMeans(1, oh), x))


# There is no faster version of these kernels.
