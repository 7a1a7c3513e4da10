"""Local response normalization: strong responses quiet their neighbors (Krizhevsky et al. 2012,
section 3.3).

    n channels in a window   C channels, the last of any number of axes   Σ over the window of channel c

    b_c = a_c / s_c^β          s_c = k + α Σ_j a_j²

where j runs over the n channels around c at the same pixel, as far as they exist: c − n/2 … c + n/2
for odd n. In the paper k = 2, n = 5, α = 1e-4 and β = 3/4; it stands after the ReLU of conv1 and conv2
and before their pooling. Below, products, powers and quotients are entry by entry.

Let S(x)_c = Σ x_j over the window of c; so s = k + α S(a²). Its transpose is Sᵀ(x)_i = Σ x_c over
all channels c whose window holds i: the mirrored window, which is the same one if n is odd.

Backward: L is one number, g = dL/db is given, and dL/da is wanted. Channel i stands in its own
numerator and in the s of every channel whose window holds it:

    dL/da_i = g_i s_i^-β  +  Σ_c g_c a_c · (−β) s_c^(-β-1) · 2α a_i     over the c whose window holds i

Write r for s^(-β-1), and this is

    dL/da   = g s^-β  −  2αβ a Sᵀ(g a r)

Of the forward pass only a is kept for this; s is computed again.

Second derivatives. Now dL/da is an output: let M be a number computed from it, v the gradient of M
with respect to dL/da, and ⟨x, y⟩ the sum of the products x y. By the chain rule the gradients of M by
g and by a are those of ⟨v, dL/da⟩ with v held fixed. Since ⟨v a, Sᵀ(u)⟩ = ⟨S(v a), u⟩ for every u,
and here u = g a r,

    ⟨v, dL/da⟩ = ⟨v g, s^-β⟩ − 2αβ ⟨S(v a), g a r⟩

and its gradients can be read off:

    by g                      v s^-β − 2αβ a r S(v a)
    by a, if s were constant  −2αβ (g r S(v a) + v Sᵀ(g a r))
    by s                      e = −β g v r + 2αβ(β + 1) g a S(v a) r/s
    by a, through s           2α a Sᵀ(e)                             because s = k + α S(a²)

and the gradient by a is the sum of its two parts.

| where libraries differ | α times  | default k | the window for even n   |
| ---------------------- | -------- | --------- | ----------------------- |
| here, and in the paper | the sum  | 2         | c − n/2 … c + n/2 − 1   |
| PyTorch 2.14           | the mean | 1         | c − n/2 … c + n/2 − 1   |
| Paddle 3.3             | the mean | 1         | c − n/2 … c + n/2 − 1   |
| ONNX 1.23              | the mean | 1         | c − n/2 + 1 … c + n/2   |
| ONNX Runtime 1.32      | the mean | 1         | none: n has to be odd   |
| OpenCV 4.14, for Caffe | the mean | 1         | none: n has to be odd   |
| OpenVINO 2026.4        | the mean | none      | n − 1 channels around c |
| TensorFlow 2.21        | the sum  | 1         | none: it takes (n−1)/2  |
| Chainer 7.8            | the sum  | 2         | n + 1 channels around c |

>>> import minicnn, minicnn.functional as F
>>> a = minicnn.Tensor([3.0, 4.0, 0.0])  # divided by √(3² + 4²), √(3² + 4² + 0²) and √(4² + 0²)
>>> F.local_response_norm(a, n=3, k=0.0, alpha=1.0, beta=0.5)
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


class Constants(NamedTuple):
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
def normalize(a: Array, constants: Constants) -> Array:
    """b = a / s^β"""
    return a / base(a, constants) ** constants.beta


@kernel
def normalize_backward(g: Array, a: Array, constants: Constants) -> Array:
    """dL/da = g s^-β − 2αβ a Sᵀ(g a s^(-β-1))"""
    s = base(a, constants)
    from_neighbors = sum_window(g * a / s ** (constants.beta + 1), constants.window[::-1])  # Sᵀ
    return g / s**constants.beta - 2 * constants.alpha * constants.beta * a * from_neighbors


def base(a: Array, constants: Constants) -> Array:
    """s = k + α S(a²)"""
    return constants.k + constants.alpha * sum_window(a * a, constants.window)


@kernel
def sum_window(x: Array, window: tuple[int, int]) -> Array:
    """S(x), where window = (before, after): the sum over the channels c − before … c + after."""
    wide = np.pad(x, [(0, 0)] * (x.ndim - 1) + [window])
    return sum(wide[..., j : j + x.shape[-1]] for j in range(sum(window) + 1))


class LocalResponseNorm(Function):
    promotes_integers = True
    saves = ((0,),)

    def __init__(self, constants: Constants):
        self.constants = constants

    def forward(self, a: Array) -> Array:
        return normalize(a, self.constants)

    def backward(self, g: Tensor) -> Gradients:
        return apply(LocalResponseNormBackward(self.constants), g, self.saved_inputs[0])


class LocalResponseNormBackward(Function):
    saves = ((1,), (0, 1))

    def __init__(self, constants: Constants):
        self.constants = constants

    def forward(self, g: Array, a: Array) -> Array:
        return normalize_backward(g, a, self.constants)

    def backward(self, v: Tensor) -> Gradients:
        g, a = self.saved_inputs  # g is saved only if the gradient by a is wanted
        _, k, alpha, beta = self.constants
        factor = 2 * alpha * beta

        def S(x: Tensor) -> Tensor:
            return apply(WindowSum(self.constants.window), x)

        def St(x: Tensor) -> Tensor:
            return apply(WindowSum(self.constants.window[::-1]), x)

        s = k + alpha * S(a * a)
        r = s ** (-beta - 1)
        sva = S(v * a)
        by_g = by_a = None
        if self.needs_input_grad[0]:
            by_g = v * s**-beta - factor * a * r * sva
        if self.needs_input_grad[1]:
            e = g * r * (factor * (beta + 1) * a * sva / s - beta * v)
            by_a = -factor * (g * r * sva + v * St(g * a * r)) + 2 * alpha * a * St(e)
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
    """x / (k + α Σ x²)^β over n neighboring channels (Krizhevsky et al. 2012, section 3.3; its constants
    are the defaults).

    Args:
        x: (…, C), floating point: channels last.
        n: how many channels are summed, at least 1: c − n//2 … c + (n−1)//2, as far as they exist.
        k, alpha, beta: as in the equation; keyword-only, because PyTorch has them in the order alpha,
            beta, k. Most other libraries divide alpha by n (see the table above).

    Returns a Tensor like x. Raises TypeError for n that is no integer, ValueError for a 0-d x or n < 1.
    """
    n = operator.index(n)
    if n < 1 or not x.ndim:
        raise ValueError(f"local_response_norm needs n ≥ 1 and x of (…, C), not n={n} and shape {x.shape}")
    return apply(LocalResponseNorm(Constants(n, float(k), float(alpha), float(beta))), x)


# Faster versions of the functions marked @kernel, which run in their place:
# backends/numpy/lrn.py, backends/cuda/lrn.cu.
