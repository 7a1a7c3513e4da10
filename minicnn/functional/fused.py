"""Fused layers: a convolution or a linear layer and the ReLU behind it, computed at once.

    z = x ∗ K + b   or   x W + b        lessons conv and linear
    y = max(z, 0)                       lesson activation

For a ReLU by itself a processor reads each number of z from memory and writes one of y, and has
next to nothing to compute: it waits for memory. Where z has just been made it is still in a
register, or in the cache, and the maximum costs nothing. So the two layers together write y at
once, and z need not go through memory. On a GPU they also need one launch less.

Backward: the chain rule goes through the two layers as before. z is not kept, and need not be: y is
positive where z is, and only there. So

    dz = dy where y > 0, else 0         lesson activation

and from dz the gradients dx, dK (or dW) and db are those of the first layer. In the code that is a
line in front of the first layer's backward, which does not change. Second derivatives: dz is linear
in dy, and where y > 0 does not change with a small change of z (see activation), so again the two
layers' derivatives follow each other.

The numbers are those of the two layers, bit for bit, and so are the gradients.

nn.Sequential computes these in place of nn.Conv2d or nn.Linear followed by nn.ReLU, unless somebody
looks at z, with a forward hook or detect_anomaly. In a forward of your own, call them yourself.

>>> import minicnn, minicnn.functional as F
>>> x = minicnn.Tensor([[1.0, 2.0]])
>>> weight = minicnn.Tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
>>> bias = minicnn.Tensor([-3.0, 0.5])
>>> y = F.linear_relu(x, weight, bias)
>>> y
Tensor([[0. , 2.5]], dtype=float32, grad_fn=AddReLU)

Try: which weights learn? Only those that lead to an output above 0:

>>> y.sum().backward()
>>> weight.grad
Tensor([[0., 1.],
        [0., 2.]], dtype=float32)
"""

import numpy as np

from ..autograd import Function, Gradients
from ..backends import kernel
from ..backends.devices import Array
from ..ops import broadcast
from ..tensor import Tensor, apply
from .activation import WherePositive, rectify, relu
from .arguments import require_floating
from .conv import Conv2d, convolve
from .linear import check_linear, linear
from .windows import IntPair, Padding, Window

__all__ = ["conv2d_relu", "linear_relu"]


@kernel
def convolve_rectify(x: Array, weight: Array, bias: Array | None, window: Window, groups: int) -> Array:
    """max(convolve(x, K) + b, 0): (N, H, W, C), (KH, KW, C/G, O), (O,) -> (N, OH, OW, O)"""
    return rectify(convolve(x, weight, bias, window, groups))


@kernel
def add_rectify(x: Array, bias: Array) -> Array:
    """max(x + b, 0): (…, O), (O,) -> (…, O)"""
    return rectify(broadcast(x, bias, np.add))


class Conv2dReLU(Conv2d):
    """y = max(convolve(x, K) + b, 0)"""

    def forward(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        self.y = convolve_rectify(x, weight, bias, self.window, self.groups)
        return self.y

    def backward(self, dy: Tensor) -> Gradients:
        return super().backward(apply(WherePositive(self.y), dy))


class AddReLU(Function):
    """y = max(x + b, 0)"""

    def forward(self, x: Array, bias: Array) -> Array:
        self.y = add_rectify(x, bias)
        return self.y

    def backward(self, dy: Tensor) -> Gradients:
        dx = apply(WherePositive(self.y), dy)
        return dx, dx.sum(axis=tuple(range(dx.ndim - 1))) if self.needs_input_grad[1] else None


def conv2d_relu(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: IntPair = 1, padding: Padding = 0,
    dilation: IntPair = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """relu(conv2d(x, …)), in one pass over memory less.

    Args:
        x, weight, bias, stride, padding, dilation, groups: as for conv2d.
    Returns:
        (N, OH, OW, O), as conv2d's.
    Raises:
        ValueError: the shapes or settings do not fit.
    """
    return Conv2dReLU.on(x, weight, bias, groups, stride, padding, dilation)


def linear_relu(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """relu(linear(x, …)), in one pass over memory less.

    Args:
        x, weight, bias: as for linear.
    Returns:
        (…, out), of x's dtype.
    Raises:
        ValueError: the shapes do not fit.
    """
    check_linear(x, weight, bias)
    y = require_floating("relu", linear(x, weight))  # (…, out)
    return relu(y) if bias is None else apply(AddReLU(), y, bias)


# Faster versions of the functions marked @kernel, which run in their place: fused.py in each of
# backends/numpy, backends/native (by fused.c, conv.c and winograd.c) and backends/cuda (linear.cu).
