"""Standardization over a batch: every channel with mean 0 and variance 1, then with a mean and a
variance that can be learned. It is what batch normalization does in training.

    x̂ = (x − μ) / s,  s = √(σ² + ε)      y = γ x̂ + β        Ioffe and Szegedy 2015, algorithm 1

μ and σ² are the mean and the (biased) variance of each channel over all other axes.

    C channels, the last axis   n pixels, along (N, H, W) or any axes before it

Backward. Write mean for the mean over the pixels. As s² is mean((x − μ)²) + ε, 2s δs is
2 mean((x − μ)(δx − δμ)). To first order a small change δx changes

    μ by    δμ = mean(δx)
    s by    δs = mean((x − μ)(δx − δμ)) / s = mean(x̂ δx)            as x − μ = s x̂, of mean 0
    x̂ by    (δx − δμ − x̂ δs) / s = P(δx),  P(u) = (u − mean(u) − x̂ mean(x̂ u)) / s

and L by Σ γ dy P(δx). P is its own transpose, Σ u P(w) = Σ P(u) w, as both are
(Σ u w − Σ u Σ w / n − Σ x̂ u Σ x̂ w / n) / s. So the factors of δx, δγ and δβ are

    dx = γ P(dy)            dγ = Σ x̂ dy            dβ = Σ dy

P removes from dy what would only change the mean or the variance: dβ / n and x̂ dγ / n.

Second derivatives. Now dγ, dβ and dx are outputs, computed from u = dy, x and γ. If g arrives at dγ
and h at dβ, L changes by Σ (g x̂ + h) δu + Σ g u P(δx), so

    u gets  g x̂ + h, which is y for γ = g and β = h
    x gets  g P(u), which is dx for γ = g

If g, of x's shape, arrives at dx, let a = Σ x̂ g, b = Σ x̂ u and
k = Σ g P(u) = (Σ g u − Σ g Σ u / n − a b / n) / s. The derivatives of γ k are

    u gets  γ P(g)
    γ gets  k
    x gets  −γ (k x̂ + b P(g) + a P(u)) / (n s)

because δx changes 1/s by −Σ x̂ δx / (n s²), a by Σ P(g) δx, and b by Σ P(u) δx. All of these are
the maps y, (dγ, dβ) and dx again, which are the Functions below, so there are derivatives of any
order. They keep x, and the (C,) numbers μ and σ².

>>> import numpy as np, minicnn
>>> from minicnn.functional.standardize import Standardize
>>> x = minicnn.Tensor([[1.0, 5.0], [3.0, 5.0], [8.0, 8.0]], requires_grad=True)
>>> gamma, beta = minicnn.Tensor([1.0, 1.0]), minicnn.Tensor([0.0, 10.0])
>>> y = minicnn.tensor.apply(Standardize(eps=0.0), x, gamma, beta)
>>> print(y.detach().numpy().round(2))
[[-1.02  9.29]
 [-0.34  9.29]
 [ 1.36 11.41]]

Try: whatever dy is, a gradient step leaves the mean and the variance of each channel as they are,
to first order. What are the sums of dx and of x̂ dx?

>>> y.backward(minicnn.Tensor([[3.0, 1.0], [4.0, 1.0], [-1.0, 5.0]]))
>>> for dx in x.grad, (y - beta) * x.grad:
...     print(abs(dx.sum(axis=0).numpy()).max() < 1e-6)
True
True
"""

import math

import numpy as np

from ..autograd import Function, Gradients
from ..backends import kernel
from ..backends.devices import Array
from ..ops import total
from ..tensor import Tensor, apply

__all__: list[str] = []


def pixels(x: Array | Tensor) -> tuple[tuple[int, ...], int]:
    """All axes but the channels, and n."""
    return tuple(range(x.ndim - 1)), math.prod(x.shape[:-1])


@kernel
def moments(x: Array) -> Array:
    """μ and σ²: (…, C) -> (2, C)"""
    axes, n = pixels(x)
    mean = total(x, axes) / n
    return np.stack([mean, total((x - mean) ** 2, axes) / n])


@kernel
def normalize(x: Array, moments: Array, gamma: Array, beta: Array, eps: float) -> Array:
    """y = γ x̂ + β"""
    mean, var = moments
    return (x - mean) * (gamma / np.sqrt(var + eps)) + beta


@kernel
def sums(dy: Array, x: Array, moments: Array, eps: float) -> Array:
    """dγ = Σ x̂ dy and dβ = Σ dy: (2, C)"""
    (mean, var), (axes, _) = moments, pixels(x)
    return np.stack([total((x - mean) * dy, axes) / np.sqrt(var + eps), total(dy, axes)])


@kernel
def normalize_backward(dy: Array, x: Array, moments: Array, gamma: Array, sums: Array, eps: float) -> Array:
    """dx = γ P(dy) = γ (dy − dβ / n − x̂ dγ / n) / s"""
    (mean, var), (dgamma, dbeta), (_, n) = moments, sums, pixels(x)
    s = np.sqrt(var + eps)
    return (dy - dbeta / n - (x - mean) * (dgamma / (n * s))) * (gamma / s)


class _OfBatch(Function):
    """A map with μ and σ² of x, which are computed unless another map has done so."""

    def __init__(self, eps: float, known: Array | None = None, sums: Array | None = None):
        self.eps, self.known, self.sums = eps, known, sums

    def moments(self, x: Array) -> Array:
        self.known = moments(x) if self.known is None else self.known
        return self.known

    def gamma_p(self, u: Tensor, x: Tensor, gamma: Tensor, sums: Array | None = None) -> Tensor:
        """γ P(u)"""
        return apply(StandardizeBackward(self.eps, self.known, sums), u, x, gamma)


class Standardize(_OfBatch):
    promotes_integers = True
    saves = ((0, 1), (0,), (0,))

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:
        return normalize(x, self.moments(x), gamma, beta, self.eps)

    def backward(self, dy: Tensor) -> Gradients:
        x, gamma, _ = self.saved_inputs
        sums = apply(StandardizeSums(self.eps, self.known), dy, x)
        return self.gamma_p(dy, x, gamma, sums.data) if self.needs_input_grad[0] else None, sums[0], sums[1]


class StandardizeSums(_OfBatch):
    saves = ((0, 1), (0, 1))

    def forward(self, dy: Array, x: Array) -> Array:
        return sums(dy, x, self.moments(x), self.eps)

    def backward(self, g: Tensor) -> Gradients:
        u, x = self.saved_inputs
        return apply(Standardize(self.eps, self.known), x, g[0], g[1]), self.gamma_p(u, x, g[0])


class StandardizeBackward(_OfBatch):
    saves = ((0, 1, 2), (0, 1, 2), (0, 1, 2))

    def forward(self, dy: Array, x: Array, gamma: Array) -> Array:
        known = self.moments(x)
        dgamma_dbeta = sums(dy, x, known, self.eps) if self.sums is None else self.sums
        return normalize_backward(dy, x, known, gamma, dgamma_dbeta, self.eps)

    def backward(self, g: Tensor) -> Gradients:
        (u, x, gamma), (axes, n) = self.saved_inputs, pixels(g)
        (a, sum_g), (b, sum_u) = (apply(StandardizeSums(self.eps, self.known), v, x) for v in (g, u))
        s = (x.var(axes) + self.eps).sqrt()
        k, f = ((g * u).sum(axes) - (sum_g * sum_u + a * b) / n) / s, -gamma / (n * s)
        to_x = f * k / s * (x - x.mean(axes)) + self.gamma_p(g, x, f * b) + self.gamma_p(u, x, f * a)
        return self.gamma_p(g, x, gamma), to_x, k


# Faster versions of the @kernel functions: standardize.py in backends/numpy and backends/native.
