"""Pooling on a GPU: the lesson functional/pooling.py, by the kernels of pooling.cu."""

from typing import Any

import numpy as np

from ..devices import Array
from .launch import contiguous, empty, launch, pack
from .windows import geometry

PLACES = {np.dtype(np.uint8): "unsigned char", np.dtype(np.uint32): "unsigned"}


def window_maximum(x: Array, window: Any) -> Array:
    y = _pooled(x, window)
    _launch("window_maximum", window, x.shape[1:3], x, y)
    return y


def winners(x: Array, y: Array, window: Any) -> Array:
    kh, kw = window.kernel_size
    winner = empty(y.shape, np.uint8 if kh * kw <= 255 else np.uint32)
    _launch("winners", window, x.shape[1:3], x, y, winner, place=winner)
    return winner


def scatter(dy: Array, winner: Array | None, window: Any, size: tuple[int, int]) -> Array:
    dx, place = empty((len(dy), *size, dy.shape[3]), dy.dtype), _places(winner, dy)
    _launch("scatter", window, size, dy, place, dx, place=place, ALL=winner is None)
    return dx


def gather(x: Array, winner: Array | None, window: Any) -> Array:
    y, place = _pooled(x, window), _places(winner, x)
    _launch("gather", window, x.shape[1:3], x, place, y, place=place, ALL=winner is None)
    return y


def _pooled(x: Array, window: Any) -> Array:
    n, h, w, c = x.shape
    shape = geometry(window, (h, w), c)
    return empty((n, shape["OH"], shape["OW"], c), x.dtype)


def _places(winner: Array | None, like: Array) -> Array:
    """The winners; if all pixels win, an array that no kernel reads."""
    return empty((0,), np.uint8) if winner is None else winner


def _launch(
    kernel: str, window: Any, size: tuple[int, int], *arrays: Array, place: Array | None = None, ALL: bool = False
) -> None:
    """Run a kernel that writes the last of these arrays."""
    out = arrays[-1]
    arrays = tuple([contiguous(array) for array in arrays])
    types = {"place": "unsigned char" if place is None else PLACES[place.dtype]}
    shape, width = geometry(window, size, out.shape[3]), pack(out.shape[3], *arrays)
    constants = {**shape, "PADDED": window.padding != ((0, 0), (0, 0)), "ALL": ALL, "PACK": width}
    launch(f"pooling.{kernel}", out.size // width, *arrays, out.size, real=arrays[0].dtype, types=types, **constants)
