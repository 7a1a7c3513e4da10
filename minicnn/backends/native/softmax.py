"""Softmax (functional/softmax.py), by the kernels of softmax.c."""

import numpy as np

from .launch import Array, contiguous, empty_like, launch


def probabilities(x: Array, axis: int) -> Array:
    """e^x / Σ e^x along the axis"""
    return _rows("softmax.probabilities", x, axis)


def log_probabilities(x: Array, axis: int) -> Array:
    """x − log Σ e^x along the axis"""
    return _rows("softmax.log_probabilities", x, axis)


def _rows(kernel: str, x: Array, axis: int) -> Array:
    """A kernel's result for x, whose rows are the lines along an axis."""
    rows = contiguous(np.atleast_1d(x).swapaxes(axis, -1))
    y, count = empty_like(rows), rows.shape[-1]
    launch(kernel, rows.size // max(count, 1), count, rows, y, real=x.dtype, each=count)
    return contiguous(y.swapaxes(axis, -1)).reshape(x.shape)
