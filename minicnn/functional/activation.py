"""Activations: what a neuron makes of the sum it has received.

    relu(x)        = max(x, 0)                  Krizhevsky et al. 2012, section 3.1
    leaky_relu(x)  = x where x > 0, else a·x    Maas, Hannun and Ng 2013
    sigmoid(x)     = 1 / (1 + e^-x)
    tanh(x)
    gelu(x)        = x/2 · (1 + tanh u)         Hendrycks and Gimpel 2016, section 2
                     u = √(2/π) (x + 0.044715 x³)

With relu the paper's network learned six times as fast as with tanh.

Each derivative but gelu's can be written with the output y, so the input need not be kept:

    relu           dx = dy where y > 0, else 0      (0 at x = 0)
    leaky_relu     dx = dy where x > 0, else a·dy
    sigmoid        dx = dy · y (1 − y)
    tanh           dx = dy · (1 − y²)

GELU weighs x by the probability Φ(x) that a normal number is below it; u is a fit, and x · Φ(x) and
gelu(x) are never more than 0.0005 apart. It falls before it rises, to −0.17 near x = −0.75, so its
output does not tell its input, which is kept. As (1 + tanh u) / 2 = sigmoid(2u), which for negative
u is not the small difference of two numbers near 1, it is computed as y = x · s with
s = sigmoid(2u). By the product rule, with the derivative s (1 − s) of the sigmoid,

    gelu           dx = dy · (s + x · s (1 − s) · 2u'),  2u' = 2 √(2/π) (1 + 3 · 0.044715 x²)

Second derivatives. Let g be the gradient that arrives at dx: the gradients of dy and x are those of
the number Σ g dx. In relu and leaky_relu dx is dy times 0, a or 1, which a small change of x does
not change, so dy gets g times the same, and x nothing. In the others dx is a product with y = f(x)
or x in it, and autograd goes on by the product rule: of sigmoid's Σ g · dy · (y − y²), dy gets
g (y − y²), and y gets g · dy · (1 − 2y), which goes on to x as each gradient of y does.

Far from 0, s is 0 or 1 to the last bit, in any dtype; there its factors stop growing, for if one of them
overflows, 0 · ∞ is NaN, where gelu(−∞) is 0 and the derivative of gelu at ±∞ is 1 or 0.

>>> import minicnn, minicnn.functional as F
>>> F.relu(minicnn.Tensor([-1.0, 0.0, 2.0]))
Tensor([0., 0., 2.], dtype=float32)
>>> [round(F.gelu(minicnn.Tensor(number)).item(), 4) for number in (-1.0, 0.0, 1.0, 3.0)]
[-0.1588, 0.0, 0.8412, 2.9964]

Try: a neuron has received −5. How much of a gradient does each activation let through to it?

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
from ..ops import Masked
from ..tensor import Tensor, apply

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
    """Linear in dy, and its own transpose."""

    def __init__(self, y: Array):
        self.y = y

    def forward(self, dy: Array) -> Array:
        return where_positive(dy, self.y)

    def backward(self, g: Tensor) -> Gradients:
        return apply(WherePositive(self.y), g)


@kernel
def leak(x: Array, positive: Array, negative_slope: float) -> Array:
    """x where it is positive, else negative_slope · x"""
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
    e = np.exp(-np.abs(x))  # of −|x|, so that nothing overflows
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
    """max(x, 0), elementwise (Krizhevsky et al. 2012, section 3.1; Nair and Hinton 2010). The derivative at 0 is 0."""
    return apply(ReLU(), require_floating("relu", x))


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where it is positive, else negative_slope · x, elementwise (Maas, Hannun and Ng 2013)."""
    require_floating("leaky_relu", x)
    # of a slope of 0 it is relu, also where x is −∞, for which the product would be NaN
    return apply(LeakyReLU(negative_slope) if negative_slope else ReLU(), x)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x), elementwise."""
    return apply(Sigmoid(), require_floating("sigmoid", x))


def tanh(x: Tensor) -> Tensor:
    """(e^x − e^-x) / (e^x + e^-x), elementwise."""
    return apply(Tanh(), require_floating("tanh", x))


def gelu(x: Tensor) -> Tensor:
    """x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))), elementwise: the tanh form of the Gaussian error linear
    unit (Hendrycks and Gimpel 2016, section 2), PyTorch's gelu(x, approximate="tanh").

    x is floating, of any shape; the result has its shape and dtype. Raises TypeError for integers.
    """
    return apply(GELU(), require_floating("gelu", x))


def require_floating(name: str, x: Tensor) -> Tensor:
    if x.dtype.kind != "f":
        raise TypeError(f"{name} needs a floating-point Tensor, not {x.dtype}")
    return x


# Faster versions of the functions marked @kernel, which run in their place:
# backends/numpy/activation.py, backends/cuda/activation.cu.
