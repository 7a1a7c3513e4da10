"""Local response normalization (functional/lrn.py) on all threads, in blocks of pixels: a layer of
AlexNet takes 12 ms, and 53 with whole arrays.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from . import threads
from .memory import empty_like, scratch
from .threads import Array, parallel, slices

Constants = Any  # functional.lrn.Constants, which belongs to a layer of imports above this one


def normalize(x: Array, constants: Constants) -> Array:
    """y = x / (k + α Σ x²)^β"""
    y = empty_like(x)

    def pixels(x: Array, y: Array) -> None:
        s = _base(x, constants)
        np.divide(x, _power(s, constants.beta)[:, : x.shape[1]], out=y)

    _by_pixels(pixels, x, y)
    return y


def normalize_backward(dy: Array, x: Array, constants: Constants) -> Array:
    """dx = dy s^-β − 2αβ x Sᵀ(dy x s^(-β-1))"""
    dx = empty_like(x)

    def pixels(dy: Array, x: Array, dx: Array) -> None:
        c = x.shape[1]
        s = _base(x, constants)
        np.divide(dy, _power(s, constants.beta)[:, :c], out=dx)  # dy s^-β
        t, row = _apart(x, constants.window[::-1], "t")
        np.multiply(dx, x, out=t)
        t /= s[:, :c]  # dy x s^(-β-1)
        sums = _window_sum(row, len(x), constants.n, "sums")
        sums *= 2 * constants.alpha * constants.beta
        sums[:, :c] *= x
        dx -= sums[:, :c]

    _by_pixels(pixels, dy, x, dx)
    return dx


def sum_window(x: Array, window: tuple[int, int]) -> Array:
    """S(x): the sum over the channels c − before … c + after."""
    y = empty_like(x)

    def pixels(x: Array, y: Array) -> None:
        inside, row = _apart(x, window, "x")
        inside[...] = x
        y[...] = _window_sum(row, len(x), sum(window) + 1, "sums")[:, : x.shape[1]]

    _by_pixels(pixels, x, y)
    return y


def _by_pixels(function: Callable[..., None], a: Array, *others: Array) -> None:
    """Call function on blocks of pixels, (P, C), of arrays (…, C), which is three times as fast as
    at once. Arrays without elements have no blocks.
    """
    if not a.size:
        return
    first = a.reshape(-1, a.shape[-1])
    rows = [first, *[array.reshape(first.shape) for array in others]]
    step = max(1, threads.BLOCK // a.shape[-1])
    parallel(lambda lo, hi: function(*[array[lo:hi] for array in rows]), slices(len(first), step))


def _base(x: Array, constants: Constants) -> Array:
    """s = k + α S(x²), as _window_sum returns it"""
    squares, row = _apart(x, constants.window, "squares")
    np.multiply(x, x, out=squares)
    s = _window_sum(row, len(x), constants.n, "base")
    s *= constants.alpha
    s += constants.k
    return s


def _apart(like: Array, window: tuple[int, int], name: str) -> tuple[Array, Array]:
    """A buffer (P, C) with zeros beside each pixel's channels, so that no window reaches into the
    next pixel; and all of it as one long row.
    """
    (before, after), (p, c) = window, like.shape
    end = before + c
    # one more row, for the last windows to read from
    wide = scratch(name, (p + 1, end + after), like=like)
    wide[:, :before] = wide[:, end:] = wide[p:] = 0
    return wide[:p, before:end], wide.reshape(-1)


def _window_sum(row: Array, p: int, n: int, name: str) -> Array:
    """The sums of n neighbors each in a row of _apart: (P, C + n − 1), of which the last n − 1
    reach into the next pixel and mean nothing. Sums of 2, of 4, … are doubled as long as they fit,
    and the rest is added one by one: 3 additions for n = 5.
    """
    size = len(row) // (p + 1) * p
    total, width = row, 1
    while 2 * width <= n:  # equivalent (comparison, constant): the same sums with more additions
        total = np.add(total[:-width], total[width:], out=scratch(f"{name} {width}", (len(total) - width,), like=row))
        width *= 2
    total = total[:size]
    for shift in range(width, n):
        total += row[shift : shift + size]
    return total.reshape(p, -1)


def _power(s: Array, beta: float) -> Array:
    """s^β. For the paper's 3/4 it takes two square roots, √s · √√s, which are ten times as fast as
    np.power.
    """
    y = scratch("power", s.shape, like=s)
    if beta != 0.75:
        return np.power(s, s.dtype.type(beta), out=y)
    np.sqrt(s, out=y)
    y *= np.sqrt(y, out=scratch("root", s.shape, like=s))
    return y
