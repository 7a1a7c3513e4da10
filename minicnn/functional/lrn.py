"""Local response normalization: strong responses weaken the neighboring channels (Krizhevsky et al.
2012, section 3.3).

![one pixel's channels, before and after](../figures/lrn.png)

    y_c = x_c / s_c^β          s_c = k + α Σ_j x_j²          (the paper writes a for x and b for y)

where j runs over those of the n channels around c, at the same pixel, that exist: c − n/2 … c + n/2
for odd n. In the paper k = 2, n = 5, α = 1e-4 and β = 3/4; the layer follows the ReLU of conv1 and
conv2 and precedes their pooling. Below, products, powers and quotients are elementwise.

Let S(x)_c = Σ x_j over the window of c, so that s = k + α S(x²), and ⟨u, w⟩ = Σ_c u_c w_c. The sum
⟨u, S(w)⟩ contains u_c w_j once if the window of c holds j. Collected by j, it is ⟨Sᵀ(u), w⟩ with
Sᵀ(u)_j = Σ u_c over all c whose window holds j: over the mirrored window (the same one for odd n).

Backward. L is a scalar, dy = dL/dy is given, and dx is wanted. To first order a small change δx
changes, with r = s^(-β-1),

    s by    δs = 2α S(x δx)
    y by    δy = s^-β δx − β x r δs
    L by    ⟨dy, δy⟩ = ⟨dy s^-β, δx⟩ − 2αβ ⟨dy x r, S(x δx)⟩ = ⟨dy s^-β − 2αβ x Sᵀ(dy x r), δx⟩

The factor of δx is dx = dy s^-β − 2αβ x Sᵀ(dy x r). Only x is kept for it: s is computed again.

Second derivatives. Now dx is an output, computed from dy and x, and g is its gradient. By the chain
rule the gradients of dy and x are those of the scalar ⟨g, dx⟩, with g fixed. In it S moves to the
other side once more:

    ⟨g, dx⟩ = ⟨g dy, s^-β⟩ − 2αβ ⟨g x, Sᵀ(dy x r)⟩ = ⟨g dy, s^-β⟩ − 2αβ ⟨t, dy x r⟩,  t = S(g x)

This is linear in dy, so the gradient of dy is its factor, g s^-β − 2αβ x r t. A change δx acts in
three places. The derivatives of s^-β and r by s are −β r and −(β + 1) r/s, so

    by x itself    −2αβ ⟨t, dy r δx⟩           = ⟨−2αβ dy r t, δx⟩
    by t           −2αβ ⟨S(g δx), dy x r⟩      = ⟨−2αβ g Sᵀ(dy x r), δx⟩
    by s           ⟨e, δs⟩ = 2α ⟨e, S(x δx)⟩   = ⟨2α x Sᵀ(e), δx⟩

with e = −β g dy r + 2αβ(β + 1) t dy x r/s; the gradient of x is the sum of the factors of δx.

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
>>> x = minicnn.Tensor([3.0, 4.0, 0.0])  # divided by √(3² + 4²), √(3² + 4² + 0²) and √(4² + 0²)
>>> F.local_response_norm(x, n=3, k=0.0, alpha=1.0, beta=0.5)
Tensor([0.6, 0.8, 0. ], dtype=float32)

Try: how much larger is y if x is 10 times as large? For small x nearly 10 times, as s stays near k.
For large x, where s is nearly α Σ x_j², it is 10^(1 − 2β) times as large, which is smaller:

>>> for x in (minicnn.Tensor([1.0, 2.0, 3.0]), minicnn.Tensor([1e5, 2e5, 3e5])):
...     print((F.local_response_norm(10 * x) / F.local_response_norm(x)).numpy().round(2))
[9.51 9.51 9.51]
[0.32 0.32 0.32]
"""

from typing import NamedTuple

import numpy as np

from ..autograd import Function, Gradients
from ..backends import kernel
from ..backends.devices import Array
from ..checks import numbers, whole
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
        """The number of channels in the window of c before c, and after c."""
        return self.n // 2, (self.n - 1) // 2


@kernel
def normalize(x: Array, constants: Constants) -> Array:
    """y = x / s^β"""
    return x / base(x, constants) ** constants.beta


@kernel
def normalize_backward(dy: Array, x: Array, constants: Constants) -> Array:
    """dx = dy s^-β − 2αβ x Sᵀ(dy x r)"""
    s = base(x, constants)
    from_neighbors = sum_window(dy * x / s ** (constants.beta + 1), constants.window[::-1])  # Sᵀ
    return dy / s**constants.beta - 2 * constants.alpha * constants.beta * x * from_neighbors


def base(x: Array, constants: Constants) -> Array:
    """s = k + α S(x²)"""
    return constants.k + constants.alpha * sum_window(x * x, constants.window)


@kernel
def sum_window(x: Array, window: tuple[int, int]) -> Array:
    """S(x) for window = (before, after): the sum over the channels c − before … c + after."""
    wide = np.pad(x, [(0, 0)] * (x.ndim - 1) + [window])
    return sum(wide[..., j : j + x.shape[-1]] for j in range(sum(window) + 1))


class LocalResponseNorm(Function):
    promotes_integers = True
    saves = ((0,),)

    def __init__(self, constants: Constants):
        self.constants = constants

    def forward(self, x: Array) -> Array:
        return normalize(x, self.constants)

    def backward(self, dy: Tensor) -> Gradients:
        return apply(LocalResponseNormBackward(self.constants), dy, self.saved_inputs[0])


class LocalResponseNormBackward(Function):
    saves = ((1,), (0, 1))

    def __init__(self, constants: Constants):
        self.constants = constants

    def forward(self, dy: Array, x: Array) -> Array:
        return normalize_backward(dy, x, self.constants)

    def backward(self, g: Tensor) -> Gradients:
        dy, x = self.saved_inputs  # dy is saved only if the gradient of x is wanted
        _, k, alpha, beta = self.constants
        factor = 2 * alpha * beta

        def S(w: Tensor) -> Tensor:
            return apply(WindowSum(self.constants.window), w)

        def St(u: Tensor) -> Tensor:
            return apply(WindowSum(self.constants.window[::-1]), u)

        s = k + alpha * S(x * x)
        r = s ** (-beta - 1)
        t = S(g * x)
        by_dy = by_x = None
        if self.needs_input_grad[0]:
            by_dy = g * s**-beta - factor * x * r * t
        if self.needs_input_grad[1]:
            e = dy * r * (factor * (beta + 1) * x * t / s - beta * g)
            by_x = -factor * (dy * r * t + g * St(dy * x * r)) + 2 * alpha * x * St(e)
        return by_dy, by_x


class WindowSum(Function):
    """S: the sum over a window of channels; its transpose Sᵀ sums over the mirrored window."""

    def __init__(self, window: tuple[int, int]):
        self.window = window

    def forward(self, x: Array) -> Array:
        return sum_window(x, self.window)

    def backward(self, dy: Tensor) -> Gradients:
        return apply(WindowSum(self.window[::-1]), dy)


@float16_in_float32
def local_response_norm(x: Tensor, n: int = 5, *, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75) -> Tensor:
    """x / (k + α Σ x²)^β over n neighboring channels (Krizhevsky et al. 2012, section 3.3).

    Args:
        x: (…, C), floating point: channels last.
        n: the number of channels that are summed: c − n//2 … c + (n−1)//2, as far as they exist.
        k, alpha, beta: as in the equation; keyword-only, because PyTorch's order is alpha, beta, k.
            If k is 0, a window of zeros gives 0/0, NaN. Most libraries divide alpha by n.
    Returns:
        (…, C), of x's dtype.
    Raises:
        ValueError: n is not an integer from 1, a constant is not a finite number, or x is 0-d.
    """
    if not x.ndim:
        raise ValueError(f"local_response_norm needs x of (…, C), not of shape {x.shape}")
    all_channels = 2 * x.shape[-1] + 1  # equivalent (constant): a wider window sees the same
    n = min(whole("local_response_norm: n", n, 1), all_channels)
    return apply(LocalResponseNorm(Constants(n, *numbers("local_response_norm", k=k, alpha=alpha, beta=beta))), x)


# Faster versions of the @kernel functions: backends/numpy/lrn.py, native/lrn.c, cuda/lrn.cu.
