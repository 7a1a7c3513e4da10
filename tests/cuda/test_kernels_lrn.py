"""Local response normalisation on a GPU against the lesson."""

import importlib

import numpy as np
import pytest
from agreement import LAYOUTS, agrees, awkward, normal
from hypothesis import given
from hypothesis import strategies as st

from minicnn.cuda import lrn as kernels

lesson = importlib.import_module("minicnn.functional.lrn")
Norm = lesson.Norm
SHAPES = st.tuples(st.integers(0, 3), st.integers(1, 3), st.sampled_from([1, 2, 3, 4, 7, 8, 12, 20]))
NORMS = st.builds(
    Norm, st.integers(1, 14), st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([1e-4, 0.3, 2.0]),
    st.sampled_from([0.75, 0.5, 1.0]),
)  # fmt: skip


@given(SHAPES, NORMS, LAYOUTS)
def test_normalise(gpu, shape, norm, layout):
    agrees(
        gpu,
        lambda a: kernels.normalise(a, norm),
        lambda a: lesson.normalise(a, norm),
        3 * normal(*shape),
        layout=layout,
        wide=True,
    )


@given(SHAPES, NORMS, LAYOUTS)
def test_normalise_backward(gpu, shape, norm, layout):
    agrees(
        gpu, lambda g, a: kernels.normalise_backward(g, a, norm), lambda g, a: lesson.normalise_backward(g, a, norm),
        normal(*shape, seed=1), 3 * normal(*shape), layout=layout, wide=True,
    )  # fmt: skip


@given(SHAPES, st.tuples(st.integers(0, 6), st.integers(0, 6)), LAYOUTS)
def test_sum_window(gpu, shape, window, layout):
    agrees(
        gpu,
        lambda x: kernels.sum_window(x, window),
        lambda x: lesson.sum_window(x, window),
        normal(*shape),
        layout=layout,
        wide=True,
    )


@pytest.mark.parametrize("channels", [5, 8, 24])
@pytest.mark.parametrize("n", [4, 5])
def test_infinities_and_NaN(gpu, channels, n):
    """They reach the channels that they reach in the lesson, and no pixel beside."""
    norm = Norm(n, 2.0, 0.5, 0.75)
    a, g = awkward(40, channels), normal(40, channels)
    agrees(gpu, lambda a: kernels.normalise(a, norm), lambda a: lesson.normalise(a, norm), a)
    agrees(
        gpu,
        lambda g, a: kernels.normalise_backward(g, a, norm),
        lambda g, a: lesson.normalise_backward(g, a, norm),
        g,
        a,
    )


@pytest.mark.parametrize("channels", [3, 8])
def test_denominators_of_zero(gpu, channels):
    """With k = 0 a window of zeros has no result, but it stays alone."""
    norm = Norm(3, 0.0, 1.0, 0.75)
    a = np.where(np.arange(6 * channels).reshape(6, channels) % 7 < 4, 0.0, normal(6, channels))
    agrees(gpu, lambda a: kernels.normalise(a, norm), lambda a: lesson.normalise(a, norm), a)
    agrees(
        gpu, lambda g, a: kernels.normalise_backward(g, a, norm), lambda g, a: lesson.normalise_backward(g, a, norm),
        normal(6, channels, seed=1), a,
    )  # fmt: skip


@pytest.mark.parametrize("channels", [6, 8])
def test_one_axis(gpu, channels):
    norm = Norm(5, 1.0, 0.1, 0.75)
    agrees(gpu, lambda a: kernels.normalise(a, norm), lambda a: lesson.normalise(a, norm), normal(channels))
