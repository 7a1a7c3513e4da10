"""Local response normalisation: strong responses quiet their neighbours (Krizhevsky et al. 2012, section 3.3).

    b_c = a_c / d_c^β          d_c = k + α Σ a_j²     over the n channels j around c, at the same pixel

with k = 2, n = 5, α = 1e-4, β = 3/4 in the paper, applied after the ReLU of conv1 and conv2 and before their pooling.

Let S sum over the window of each channel, so that d = k + α S(a²), and let Sᵀ sum for channel i
over the channels c whose window holds i: the window mirrored, which for odd n is the window itself.

Backward: L is one number, g = dL/db, da = dL/da and r = d^(-β-1). Channel i appears in its own
numerator and in the d of every channel whose window holds it:

    da_i = g_i d_i^-β  +  Σ_c g_c a_c · (−β) r_c · 2α a_i         over the c whose window holds i

    da   = g d^-β  −  2αβ a Sᵀ(g a r)

Of the forward pass only a is kept for this; d is computed again.

Second derivatives: let v be the gradient of some number with respect to da, and let ⟨x, y⟩ be the
sum of the products x y. What we want are the gradients by g and by a of ⟨v, da⟩, with v held fixed.
Since ⟨v a, Sᵀu⟩ = ⟨S(v a), u⟩ for all u,

    ⟨v, da⟩ = ⟨v g, d^-β⟩ − 2αβ ⟨S(v a), g a r⟩

and its gradients can be read off:

    by g                      v d^-β − 2αβ a r S(v a)
    by a, if d were constant  −2αβ (g r S(v a) + v Sᵀ(g a r))
    by d                      −β g v r + 2αβ(β + 1) g a S(v a) r/d
    by a, through d           2α a Sᵀ(the line above)                because d = k + α S(a²)

and the gradient by a is the sum of its two parts.

    n the window   C channels (the last axis, of any number of axes)   P all pixels of all images, as rows

| where libraries differ                  | α multiplies | k by default | an even n sees        |
| --------------------------------------- | ------------ | ------------ | --------------------- |
| here, and in the paper                  | the sum      | 2            | c − n/2 … c + n/2 − 1 |
| PyTorch 2.14, Paddle 3.3                | the mean     | 1            | the same              |
| ONNX 1.23                               | the mean     | 1            | c − n/2 + 1 … c + n/2 |
| OpenVINO 2026.4                         | the mean     |              | n − 1 channels        |
| ONNX Runtime 1.32, Caffe by OpenCV 4.14 | the mean     | 1            | an error              |
| TensorFlow 2.21                         | the sum      | 1            |                       |
| Chainer 7.8                             | the sum      | 2            | n + 1 channels        |

>>> import minicnn, minicnn.functional as F
>>> a = minicnn.Tensor([3.0, 4.0, 0.0])
>>> F.local_response_norm(a, n=3, k=0.0, alpha=1.0, beta=0.5)  # 3/√(3² + 4²), 4/√(3² + 4² + 0²), 0/√(4² + 0²)
Tensor([0.6, 0.8, 0. ], dtype=float32)
"""

import operator
from typing import NamedTuple

import numpy as np

from ..autograd import Function, Gradients
from ..backends import kernel
from ..backends.devices import Array
from ..tensor import Tensor, apply
from .precision import float16_in_float32

__all__ = ["local_response_norm"]


class Norm(NamedTuple):
    """The constants of the equation."""

    n: int
    k: float
    alpha: float
    beta: float

    @property
    def window(self) -> tuple[int, int]:
        """How many channels before its own, and how many after it, a channel's window holds."""
        return self.n // 2, (self.n - 1) // 2


@kernel
def normalise(a: Array, norm: Norm) -> Array:
    """b = a / d^β"""
    return a / denominator(a, norm) ** norm.beta


@kernel
def normalise_backward(g: Array, a: Array, norm: Norm) -> Array:
    """da = g d^-β − 2αβ a Sᵀ(g a d^(-β-1))"""
    d = denominator(a, norm)
    shares = sum_window(g * a / d ** (norm.beta + 1), norm.window[::-1])
    return g / d**norm.beta - 2 * norm.alpha * norm.beta * a * shares


def denominator(a: Array, norm: Norm) -> Array:
    """d = k + α S(a²)"""
    return norm.k + norm.alpha * sum_window(a * a, norm.window)


@kernel
def sum_window(x: Array, window: tuple[int, int]) -> Array:
    """S(x): the sum over the channels c − before … c + after."""
    wide = np.pad(x, [(0, 0)] * (x.ndim - 1) + [window])
    return sum(wide[..., j : j + x.shape[-1]] for j in range(sum(window) + 1))


class LocalResponseNorm(Function):
    promotes_integers = True
    saves = ((0,),)

    def __init__(self, norm: Norm):
        self.norm = norm

    def forward(self, a: Array) -> Array:
        return normalise(a, self.norm)

    def backward(self, g: Tensor) -> Gradients:
        return apply(LocalResponseNormBackward(self.norm), g, self.saved_inputs[0])


class LocalResponseNormBackward(Function):
    saves = ((1,), (0, 1))

    def __init__(self, norm: Norm):
        self.norm = norm

    def forward(self, g: Array, a: Array) -> Array:
        return normalise_backward(g, a, self.norm)

    def backward(self, v: Tensor) -> Gradients:
        g, a = self.saved_inputs
        _, k, alpha, beta = self.norm
        c = 2 * alpha * beta

        def S(x: Tensor) -> Tensor:
            return apply(WindowSum(self.norm.window), x)

        def St(x: Tensor) -> Tensor:
            return apply(WindowSum(self.norm.window[::-1]), x)

        d = k + alpha * S(a * a)
        r = d ** (-beta - 1)
        sva = S(v * a)
        by_g = by_a = None
        if self.needs_input_grad[0]:
            by_g = v * d**-beta - c * a * r * sva
        if self.needs_input_grad[1]:
            by_a = -c * (g * r * sva + v * St(g * a * r)) + 2 * alpha * a * St(
                g * r * (c * (beta + 1) * a * sva / d - beta * v)
            )
        return by_g, by_a


class WindowSum(Function):
    """S: the sum over a window of channels. Its transpose Sᵀ sums over the mirrored window."""

    def __init__(self, window: tuple[int, int]):
        self.window = window

    def forward(self, x: Array) -> Array:
        return sum_window(x, self.window)

    def backward(self, g: Tensor) -> Gradients:
        return apply(WindowSum(self.window[::-1]), g)


@float16_in_float32
def local_response_norm(x: Tensor, n: int = 5, *, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75) -> Tensor:
    """b = x / (k + α Σ x²)^β over n neighbouring channels (Krizhevsky et al. 2012, section 3.3; its constants are the
    defaults).

    Args:
        x: (…, C), floating: channels last.
        n: how many channels are summed, at least 1: c − n//2 … c + (n−1)//2, as far as they exist.
        k, alpha, beta: as in the equation, by name: PyTorch has them in the order alpha, beta, k.
            Mind that most other libraries divide alpha by n (see the table above).

    Returns an array like x. Raises ValueError for a 0-d x or n < 1.
    """
    if n < 1 or not x.ndim:
        raise ValueError(f"local_response_norm needs n ≥ 1 and x of (…, C), not n={n} and shape {x.shape}")
    return apply(LocalResponseNorm(Norm(operator.index(n), float(k), float(alpha), float(beta))), x)


# Functions marked @kernel may be replaced by the faster ones of backends/numpy/lrn.py and
# backends/cuda/lrn.cu.
