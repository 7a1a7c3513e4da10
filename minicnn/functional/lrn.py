"""Local response normalisation: strong responses quiet their neighbours (Krizhevsky et al. 2012, section 3.3).

    b_c = a_c / d_c^β          d_c = k + α Σ a_j²     over the n channels j around c, at the same pixel

with k = 2, n = 5, α = 1e-4, β = 3/4 in the paper, applied after the ReLU of conv1 and conv2 and before their pooling.

Backward, for g = dL/db. Channel i appears in its own numerator and in the d of every channel whose window holds it:

    dL/da_i = g_i d_i^-β  +  Σ_c g_c a_c · (−β) d_c^(-β-1) · 2α a_i
            = g_i d_i^-β  −  2αβ a_i · Σᵀ(g a d^(-β-1))_i

where Σᵀ sums over the channels c whose window holds i: the same window mirrored, which for odd n is the same window.
Writing S for the sum over the window, r for d^(-β-1) and v for what flows into this backward pass in turn, ⟨v, da⟩ has
the derivatives

    by g    v d^-β − 2αβ a r S(v a)
    by a    −2αβ (g r S(v a) + v Sᵀ(g a r)) + 2α a Sᵀ(−β g v r + 2αβ(β + 1) g a S(v a) r/d)

    n the window   C channels (the last axis, of any number of axes)   P all pixels of all images, as rows

| where libraries differ | here and in the paper | PyTorch, Caffe, ONNX    |
| ---------------------- | --------------------- | ----------------------- |
| α                      | multiplies the sum    | multiplies the mean     |
| k                      | 2                     | 1 by default            |
| even n                 | c − n/2 … c + n/2 − 1 | the same (PyTorch)      |

>>> import minicnn, minicnn.functional as F
>>> a = minicnn.Tensor([3.0, 4.0, 0.0])
>>> F.local_response_norm(a, n=3, k=0.0, alpha=1.0, beta=0.5)  # 3/√(3² + 4²), 4/√(3² + 4² + 0²), 0/√(4² + 0²)
Tensor([0.6, 0.8, 0. ], dtype=float32)
"""

from typing import NamedTuple

import numpy as np

from ..autograd import Function
from ..backend import BLOCK, Array, device_kernel, empty_like, parallel, scratch, slices
from ..tensor import Tensor, apply


class Norm(NamedTuple):
    """The constants of the equation."""

    n: int
    k: float
    alpha: float
    beta: float

    @property
    def window(self) -> tuple[int, int]:
        """How many channels before and after its own one sees."""
        return self.n // 2, (self.n - 1) // 2


@device_kernel
def normalise(a: Array, norm: Norm) -> Array:
    """b = a / (k + α Σ a²)^β"""
    b = empty_like(a)

    def pixels(a: Array, b: Array) -> None:
        d = _denominator(a, norm)
        np.divide(a, _power(d, norm.beta)[:, : a.shape[1]], out=b)

    _by_pixels(pixels, a, b)
    return b


@device_kernel
def normalise_backward(g: Array, a: Array, norm: Norm) -> Array:
    """da = g d^-β − 2αβ a Σᵀ(g a d^(-β-1))"""
    da = empty_like(a)

    def pixels(g: Array, a: Array, da: Array) -> None:
        c = a.shape[1]
        d = _denominator(a, norm)
        np.divide(g, _power(d, norm.beta)[:, :c], out=da)  # g d^-β
        t, row = _apart(a, norm.window[::-1], "t")
        np.multiply(da, a, out=t)
        t /= d[:, :c]  # g a d^(-β-1)
        s = _window_sum(row, len(a), norm.n, "s")
        s *= 2 * norm.alpha * norm.beta
        s[:, :c] *= a
        da -= s[:, :c]

    _by_pixels(pixels, g, a, da)
    return da


@device_kernel
def sum_window(x: Array, window: tuple[int, int]) -> Array:
    """S(x): the sum over the channels c − before … c + after."""
    y = empty_like(x)

    def pixels(x: Array, y: Array) -> None:
        inside, row = _apart(x, window, "x")
        inside[...] = x
        y[...] = _window_sum(row, len(x), sum(window) + 1, "s")[:, : x.shape[1]]

    _by_pixels(pixels, x, y)
    return y


def _by_pixels(function, a: Array, *others: Array) -> None:
    """Call function on blocks of pixels, (P, C), of arrays (…, C): three times as fast in blocks."""
    rows = [array.reshape(-1, a.shape[-1]) for array in (a, *others)]
    step = max(1, BLOCK // a.shape[-1])
    parallel(lambda lo, hi: function(*[array[lo:hi] for array in rows]), slices(len(rows[0]), step))


def _denominator(a: Array, norm: Norm) -> Array:
    """d = k + α S(a²), as _window_sum returns it"""
    squares, row = _apart(a, norm.window, "squares")
    np.multiply(a, a, out=squares)
    d = _window_sum(row, len(a), norm.n, "d")
    d *= norm.alpha
    d += norm.k
    return d


def _apart(like: Array, window: tuple[int, int], name: str) -> tuple[Array, Array]:
    """Room for numbers (P, C) with zeros beside each pixel's channels, so that no window reaches into the next pixel;
    and all of it as one long row."""
    (before, after), (p, c) = window, like.shape
    wide = scratch(name, (p + 1, before + c + after), like=like)  # one more row, for the last windows to read from
    wide[:, :before] = wide[:, before + c :] = wide[p:] = 0
    return wide[:p, before : before + c], wide.reshape(-1)


def _window_sum(row: Array, p: int, n: int, name: str) -> Array:
    """The sums of n neighbours each in a row of _apart: (P, C + n − 1), of which the last n − 1 reach into the next
    pixel and mean nothing. Sums of 2, of 4, … as long as they fit, then the rest one by one: 3 additions for n = 5."""
    size = len(row) // (p + 1) * p
    total, width = row, 1
    while 2 * width <= n:
        total = np.add(total[:-width], total[width:], out=scratch(f"{name} {width}", (len(total) - width,), like=row))
        width *= 2
    total = total[:size]
    for shift in range(width, n):
        total += row[shift : shift + size]
    return total.reshape(p, -1)


def _power(d: Array, beta: float) -> Array:
    """d^β. For the paper's 3/4 by two square roots, which are ten times as fast as np.power."""
    y = scratch("power", d.shape, like=d)
    if beta != 0.75:
        return np.power(d, d.dtype.type(beta), out=y)
    np.sqrt(d, out=y)
    y *= np.sqrt(y, out=scratch("root", d.shape, like=d))
    return y


class LocalResponseNorm(Function):
    floating = True
    reads = ((0,),)

    def __init__(self, norm: Norm):
        self.norm = norm

    def forward(self, a):
        return normalise(a, self.norm)

    def backward(self, g):
        return apply(LocalResponseNormBackward(self.norm), g, self.inputs[0])


class LocalResponseNormBackward(Function):
    reads = ((1,), (0, 1))

    def __init__(self, norm: Norm):
        self.norm = norm

    def forward(self, g, a):
        return normalise_backward(g, a, self.norm)

    def backward(self, v):
        g, a = self.inputs
        _, k, alpha, beta = self.norm
        c = 2 * alpha * beta

        def S(x):
            return apply(WindowSum(self.norm.window), x)

        def St(x):
            return apply(WindowSum(self.norm.window[::-1]), x)

        d = k + alpha * S(a * a)
        r = d ** (-beta - 1)
        sva = S(v * a)
        by_g = by_a = None
        if self.needs[0]:
            by_g = v * d**-beta - c * a * r * sva
        if self.needs[1]:
            by_a = -c * (g * r * sva + v * St(g * a * r)) + 2 * alpha * a * St(
                g * r * (c * (beta + 1) * a * sva / d - beta * v)
            )
        return by_g, by_a


class WindowSum(Function):
    """S: the sum over a window of channels. Its transpose is the sum over the mirrored window."""

    def __init__(self, window: tuple[int, int]):
        self.window = window

    def forward(self, x):
        return sum_window(x, self.window)

    def backward(self, g):
        return apply(WindowSum(self.window[::-1]), g)


def local_response_norm(x: Tensor, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75) -> Tensor:
    """b = x / (k + α Σ x²)^β over n neighbouring channels (Krizhevsky et al. 2012, section 3.3; its constants are the
    defaults).

    Args:
        x: (…, C), floating: channels last.
        n: how many channels are summed, at least 1: c − n//2 … c + (n−1)//2, as far as they exist.
        k, alpha, beta: as in the equation. Mind that other libraries divide alpha by n.

    Returns an array like x. Raises ValueError for a 0-d x or n < 1.
    """
    if n < 1 or not x.ndim:
        raise ValueError(f"local_response_norm needs n ≥ 1 and x of (…, C), not n={n} and shape {x.shape}")
    return apply(LocalResponseNorm(Norm(n, k, alpha, beta)), x)
