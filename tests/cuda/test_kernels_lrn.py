"""Local response normalization on a GPU against the lesson."""

import importlib

import numpy as np
import pytest
from agreement import agrees, awkward, normal

from minicnn.backends.cuda import lrn as kernels

lesson = importlib.import_module("minicnn.functional.lrn")
Constants = lesson.Constants


@pytest.mark.parametrize("channels", [4, 8, 12])
def test_packs_of_channels(gpu, channels):
    """Every window that is short enough, over pixels that have others on both sides."""
    x = normal(11, channels)
    for window in np.ndindex(4, 4):
        agrees(gpu, kernels.sum_window, lesson.sum_window, x, window)
    for n in range(1, 8):
        norm = Constants(n, 1.0, 0.5, 0.75)
        agrees(gpu, kernels.normalize, lesson.normalize, x, norm)
        agrees(gpu, kernels.normalize_backward, lesson.normalize_backward, x[::-1].copy(), x, norm)


@pytest.mark.parametrize("channels", [5, 8, 24])
@pytest.mark.parametrize("n", [4, 5])
def test_infinities_and_NaN(gpu, channels, n):
    """They reach the channels that they reach in the lesson, and no pixel beside."""
    norm = Constants(n, 2.0, 0.5, 0.75)
    a, g = awkward(40, channels), normal(40, channels)
    agrees(gpu, kernels.normalize, lesson.normalize, a, norm)
    agrees(gpu, kernels.normalize_backward, lesson.normalize_backward, g, a, norm)


@pytest.mark.parametrize("channels", [3, 8])
def test_denominators_of_zero(gpu, channels):
    """With k = 0 a window of zeros has no result, but it stays alone."""
    norm = Constants(3, 0.0, 1.0, 0.75)
    a = np.where(np.arange(6 * channels).reshape(6, channels) % 7 < 4, 0.0, normal(6, channels))
    agrees(gpu, kernels.normalize, lesson.normalize, a, norm)
    agrees(gpu, kernels.normalize_backward, lesson.normalize_backward, normal(6, channels, seed=1), a, norm)
