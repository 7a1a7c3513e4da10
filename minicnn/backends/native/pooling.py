"""Pooling (functional/pooling.py), by the kernels of pooling.c. Threads share the rows of pixels
that are written."""

from math import gcd
from typing import Any

import numpy as np

from .launch import Array, contiguous, empty, launch

Window = Any  # functional.windows.Window, which belongs to a layer of imports above this one

LARGE = 16  # a window of more pixels is looked at by rows, and then across their maxima


def window_maximum(x: Array, window: Window) -> Array:
    """The maximum of each window: (N, H, W, C) -> (N, OH, OW, C)"""
    (kh, kw), (sh, sw), (vertical, horizontal), _ = window
    if kh * kw > LARGE and min(kh, kw) > 1:  # KH + KW comparisons, not KH·KW
        x = window_maximum(x, window._replace(kernel_size=(1, kw), stride=(1, sw), padding=((0, 0), horizontal)))
        window = window._replace(kernel_size=(kh, 1), stride=(sh, 1), padding=(vertical, (0, 0)))
    geometry, shape = _geometry(window, x.shape)
    y = empty(shape, x.dtype)
    _launch("window_maximum", y, window, contiguous(x), y, geometry, real=x.dtype)
    return y


def winners(x: Array, y: Array, window: Window) -> Array:
    """The place of each window's first maximum: (N, H, W, C), (N, OH, OW, C) -> (N, OH, OW, C)"""
    geometry, shape = _geometry(window, x.shape)
    winner = empty(shape, np.uint8 if window.kernel_size[0] * window.kernel_size[1] <= 255 else np.uint32)
    _launch("winners", winner, window, contiguous(x), contiguous(y), *_typed(winner), geometry, real=x.dtype)
    return winner


def scatter(dy: Array, winner: Array | None, window: Window, size: tuple[int, int]) -> Array:
    """Each pixel's sum over the windows that it won: (N, OH, OW, C) -> (N, H, W, C)"""
    dx = empty((len(dy), *size, dy.shape[3]), dy.dtype)
    geometry, _ = _geometry(window, dx.shape)
    _launch("scatter", dx, window, contiguous(dy), *_typed(winner), dx, geometry, real=dy.dtype)
    return dx


def gather(x: Array, winner: Array | None, window: Window) -> Array:
    """x at the winners' places, or each window's sum: (N, H, W, C) -> (N, OH, OW, C)"""
    geometry, shape = _geometry(window, x.shape)
    y = empty(shape, x.dtype)
    _launch("gather", y, window, contiguous(x), *_typed(winner), y, geometry, real=x.dtype)
    return y


def _launch(kernel: str, out: Array, window: Window, *args: Any, real: Any) -> None:
    """Run a kernel for the rows of what it writes."""
    n, height, width, channels = out.shape
    launch(f"pooling.{kernel}", n * height if width * channels else 0, *args, real=real, each=width * channels)


def _typed(winner: Array | None) -> tuple[Array | None, Array | None]:
    """The winners for the argument of their type."""
    if winner is None:
        return None, None
    winner = contiguous(winner)
    return (winner, None) if winner.dtype == np.uint8 else (None, winner)


def _geometry(window: Window, shape: tuple[int, ...]) -> tuple[Array, tuple[int, ...]]:
    """The Geometry of pooling.c, and (N, OH, OW, C)."""
    (kh, kw), (sh, sw), ((top, _), (left, _)), (dh, dw) = window
    n, h, w, c = shape
    oh, ow = window.output_size(h, w)
    next_h, next_w = sh // gcd(sh, dh), sw // gcd(sw, dw)
    numbers = (n, h, w, c, oh, ow, kh, kw, sh, sw, top, left, dh, dw)
    steps = (next_h, next_w, next_h * dh // sh, next_w * dw // sw)
    return np.array(numbers + steps, np.intp), (n, oh, ow, c)
