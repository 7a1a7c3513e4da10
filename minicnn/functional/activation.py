"""Activations: elementwise nonlinearities, applied to the sum that a neuron has received.

    relu(x)        = max(x, 0)                  Krizhevsky et al. 2012, section 3.1
    leaky_relu(x)  = x where x > 0, else a·x    Maas, Hannun and Ng 2013
    sigmoid(x)     = 1 / (1 + e^-x)
    tanh(x)
    gelu(x)        = x/2 · (1 + tanh u),  u = √(2/π) (x + 0.044715 x³)    Hendrycks and Gimpel 2016

Each takes a Tensor of floats of any shape, and returns one of the same shape and dtype; a Tensor of
integers is a TypeError. In section 3.1 a network learned six times as fast with relu as with tanh.

Only gelu's derivative needs the input x. The others keep the output y instead, or leaky_relu a mask
of where x > 0, which the signs of y do not tell if a is negative:

    relu           dx = dy where y > 0, else 0      (0 at x = 0)
    leaky_relu     dx = dy where x > 0, else a·dy
    sigmoid        dx = dy · y (1 − y)
    tanh           dx = dy · (1 − y²)

gelu(x) is a fit to x · Φ(x), with Φ(x) the probability that a standard normal variable is below x;
they differ by at most 0.0005. It has a minimum near x = −0.75, so y does not determine x. It is
computed as x · s, s = sigmoid(2u): the equal (1 + tanh u) / 2 loses digits where u < 0. So

    gelu           dx = dy · (s + x s'), s' = s (1 − s) · 2u', 2u' = 2 √(2/π) (1 + 3 · 0.044715 x²)

Second derivatives. Let g be the gradient that arrives at dx: the gradients of dy and x are those of
the scalar Σ g dx. In relu and leaky_relu dx is dy times 0, a or 1, which a small change of x does
not change, so dy gets g times the same factor, and x gets 0. In the others dx is a product that
contains x or y = f(x), and autograd applies the product rule: in sigmoid's Σ g · dy · (y − y²), dy
gets g (y − y²), and y gets g · dy · (1 − 2y), which flows on to x as every gradient of y does.

Far from 0, s is 0 or 1 to the last bit, in any dtype. So the code clips x to ±60 in gelu's factors:
if one of them overflowed, 0 · ∞ would be NaN where gelu and its derivative are finite.

>>> import minicnn, minicnn.functional as F
>>> F.relu(minicnn.Tensor([-1.0, 0.0, 2.0]))
Tensor([0., 0., 2.], dtype=float32)
>>> [round(F.gelu(minicnn.Tensor(x)).item(), 4) for x in (-1.0, 0.0, 1.0, 3.0)]
[-0.1588, 0.0, 0.8412, 2.9964]

Try: a neuron has received −5. How much of a gradient does each activation pass on to it?

>>> for activation in (F.relu, F.leaky_relu, F.sigmoid, F.tanh):
...     x = minicnn.Tensor(-5.0, requires_grad=True)
...     activation(x).backward()
...     print(f"{activation.__name__} {x.grad.item():.4f}")
relu 0.0000
leaky_relu 0.0100
sigmoid 0.0066
tanh 0.0002
"""

from math import pi, sqrt

import numpy as np

from ..autograd import Function, Gradients
from ..backends import kernel
from ..backends.devices import Array
from ..checks import number
from ..ops import Masked
from ..tensor import Tensor, apply
from .arguments import require_floating

__all__ = ["gelu", "leaky_relu", "relu", "sigmoid", "tanh"]

SLOPE, CUBIC = 2 * sqrt(2 / pi), 0.044715  # 2u = SLOPE · (x + CUBIC · x³)
FAR = 60.0  # where |2u| is 15,508, and e^−|2u| is 0 even as a long double


@kernel
def rectify(x: Array) -> Array:
    """max(x, 0)"""
    return np.maximum(x, 0)


@kernel
def where_positive(dy: Array, y: Array) -> Array:
    """dy where y > 0, else 0"""
    return np.where(y > 0, dy, dy.dtype.type(0))


class ReLU(Function):
    def forward(self, x: Array) -> Array:
        self.y = rectify(x)
        return self.y

    def backward(self, dy: Tensor) -> Gradients:
        return apply(WherePositive(self.y), dy)


class WherePositive(Function):
    """dy where y > 0, else 0: linear in dy, and its own transpose."""

    def __init__(self, y: Array):
        self.y = y

    def forward(self, dy: Array) -> Array:
        return where_positive(dy, self.y)

    def backward(self, g: Tensor) -> Gradients:
        return apply(WherePositive(self.y), g)


@kernel
def leak(x: Array, positive: Array, negative_slope: float) -> Array:
    """x where x is positive, else negative_slope · x"""
    return np.where(positive, x, x * x.dtype.type(negative_slope))


class LeakyReLU(Function):
    def __init__(self, negative_slope: float):
        self.negative_slope = negative_slope

    def forward(self, x: Array) -> Array:
        self.positive = x > 0
        return leak(x, self.positive, self.negative_slope)

    def backward(self, dy: Tensor) -> Gradients:
        return apply(Masked(self.positive), dy) + self.negative_slope * apply(Masked(~self.positive), dy)


@kernel
def logistic(x: Array) -> Array:
    """1 / (1 + e^-x)"""
    e = np.exp(-np.abs(x))  # at most 1, never ∞; where x < 0 the result is e^x / (1 + e^x)
    return np.where(np.signbit(x), e, 1) / (1 + e)


class Sigmoid(Function):
    def forward(self, x: Array) -> Array:
        self.y = logistic(x)
        return self.y

    def backward(self, dy: Tensor) -> Gradients:
        y = self.saved_output(dy)
        return dy * (y * (1 - y))


class Tanh(Function):
    def forward(self, x: Array) -> Array:
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy: Tensor) -> Gradients:
        y = self.saved_output(dy)
        return dy * (1 - y * y)


class GELU(Function):
    saves = ((0,),)

    def forward(self, x: Array) -> Array:
        near = np.clip(x, -FAR, FAR)
        return np.maximum(x, -FAR) * logistic(SLOPE * near * (1 + CUBIC * near * near))

    def backward(self, dy: Tensor) -> Gradients:
        x = self.saved_inputs[0].clip(-FAR, FAR)
        s = sigmoid(SLOPE * x * (1 + CUBIC * x * x))
        return dy * (s + x * s * (1 - s) * (SLOPE * (1 + 3 * CUBIC * x * x)))


def relu(x: Tensor) -> Tensor:
    """max(x, 0), elementwise (Nair and Hinton 2010); its derivative is 0 at 0 and at NaN."""
    return apply(ReLU(), require_floating("relu", x))


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where x is positive, else negative_slope · x, elementwise (Maas, Hannun and Ng 2013).

    Args:
        x: of floats, of any shape.
        negative_slope: the derivative where x is not positive.
    """
    require_floating("leaky_relu", x)
    negative_slope = number("leaky_relu: negative_slope", negative_slope)
    # with a slope of 0 it is relu, also where x is −∞, for which the product would be NaN
    return apply(LeakyReLU(negative_slope) if negative_slope else ReLU(), x)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x), elementwise."""
    return apply(Sigmoid(), require_floating("sigmoid", x))


def tanh(x: Tensor) -> Tensor:
    """(e^x − e^-x) / (e^x + e^-x), elementwise."""
    return apply(Tanh(), require_floating("tanh", x))


def gelu(x: Tensor) -> Tensor:
    """x/2 · (1 + tanh u), elementwise, u = √(2/π) (x + 0.044715 x³), PyTorch's "tanh" form."""
    return apply(GELU(), require_floating("gelu", x))


# Faster versions of the functions marked @kernel, which run in their place:
# backends/numpy/activation.py, backends/native/activation.c, backends/cuda/activation.cu.
