"""Softmax: K elements become K probabilities.

    softmax(x)_i   = e^x_i / Σ_j e^x_j              over the last axis, or another
    log_softmax(x) = x − log Σ_j e^x_j

Both derivatives can be written with the output y, so the input need not be kept. The derivative of
softmax is ∂y_i/∂x_j = y_i (δ_ij − y_j): a larger x_j raises its own probability and lowers all
others. Summed over the outputs i with their gradients,

    softmax        dx_j = Σ_i dy_i y_i (δ_ij − y_j)  =  y_j (dy_j − Σ_i dy_i y_i)
    log_softmax    dx_j = Σ_i dy_i (δ_ij − e^y_j)    =  dy_j − e^y_j Σ_i dy_i

Second derivatives, for one row, with ⟨u, w⟩ = Σ_i u_i w_i. Let g be the gradient that arrives at
dx: the gradients of dy and y are those of the scalar ⟨g, dx⟩, with g fixed,

    softmax        ⟨g, dx⟩ = ⟨g y, dy⟩ − ⟨g, y⟩⟨y, dy⟩      by dy  y (g − ⟨g, y⟩), the same map
                                                            by y   g dy − g ⟨y, dy⟩ − ⟨g, y⟩ dy
    log_softmax    ⟨g, dx⟩ = ⟨g, dy⟩ − ⟨g, e^y⟩ Σ_i dy_i    by dy  g − ⟨g, e^y⟩
                                                            by y   −g e^y Σ_i dy_i

and the gradient of y flows on to x as every gradient of y does. Autograd finds these, because dx is
computed with Tensors.

The exponentials are those of x − max x, row by row. That does not change the result (e^max
cancels); none of them overflows, and in each row at least one is 1, so no sum is 0. One maximum for
all rows would not suffice: a row far below it would become 0/0. An element of −∞ gets probability
0. A row becomes NaN if all of it is −∞, or if it holds +∞ or NaN: −∞ + ∞ is NaN.

>>> import minicnn, minicnn.functional as F
>>> F.softmax(minicnn.Tensor([[1000.0, 1000.0], [-1000.0, 0.0]]))
Tensor([[0.5, 0.5],
        [0. , 1. ]], dtype=float32)

Try: how sure does softmax become of the largest element, if all are multiplied by 0, 1 or 10?

>>> for factor in (0, 1, 10):
...     print(F.softmax(factor * minicnn.Tensor([1.0, 1.5])).numpy().round(2))
[0.5 0.5]
[0.38 0.62]
[0.01 0.99]
"""

import numpy as np

from ..autograd import Function, Gradients
from ..backends import kernel
from ..backends.devices import Array
from ..checks import whole
from ..ops import normal_axes, total
from ..tensor import Tensor, apply
from .arguments import require_floating
from .precision import float16_in_float32

__all__ = ["log_softmax", "softmax"]


@kernel
def probabilities(x: Array, axis: int) -> Array:
    """e^x / Σ e^x along the axis"""
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / summed(e, axis)


@kernel
def log_probabilities(x: Array, axis: int) -> Array:
    """x − log Σ e^x along the axis"""
    z = x - x.max(axis, keepdims=True)
    return z - np.log(summed(np.exp(z), axis))


def summed(e: Array, axis: int) -> Array:
    """The sum along the axis, which is kept with length 1. (ops.total sums in float64.)"""
    sums = total(e, normal_axes(axis, e.ndim))
    return sums.reshape([1 if i == axis % e.ndim else n for i, n in enumerate(e.shape)])


class Softmax(Function):
    def __init__(self, axis: int):
        self.axis = axis

    def forward(self, x: Array) -> Array:
        self.y = probabilities(x, self.axis)
        return self.y

    def backward(self, dy: Tensor) -> Gradients:
        y = self.saved_output(dy)
        return y * (dy - (dy * y).sum(self.axis, keepdims=True))


class LogSoftmax(Function):
    def __init__(self, axis: int):
        self.axis = axis

    def forward(self, x: Array) -> Array:
        self.y = log_probabilities(x, self.axis)
        return self.y

    def backward(self, dy: Tensor) -> Gradients:
        y = self.saved_output(dy)
        return dy - y.exp() * dy.sum(self.axis, keepdims=True)


@float16_in_float32
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """e^x / Σ e^x along an axis: non-negative elements that sum to 1.

    Args:
        x: floating point, of any shape.
        axis: the axis; one that exists.
    Returns:
        A Tensor of x's shape and dtype.
    Raises:
        TypeError: x holds integers.
        ValueError: x does not have that axis.
    """
    return _along("softmax", Softmax, x, axis)


@float16_in_float32
def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """log softmax(x) along an axis, accurate also where softmax(x) is rounded to 0.

    Args:
        x, axis: as for softmax.
    Returns:
        A Tensor of x's shape and dtype.
    Raises:
        TypeError: x holds integers.
        ValueError: x does not have that axis.

    Example:
        >>> log_softmax(Tensor([0.0, 1000.0]))
        Tensor([-1000.,     0.], dtype=float32)
    """
    return _along("log_softmax", LogSoftmax, x, axis)


def _along(name: str, function: type[Softmax] | type[LogSoftmax], x: Tensor, axis: int) -> Tensor:
    require_floating(name, x)
    normal_axes(whole(f"{name}: axis", axis), x.ndim)  # a ValueError if the axis does not exist
    if not x.size:  # an axis of length 0 has no maximum
        return x
    return apply(function(axis), x)


# There is no faster version of these kernels.
