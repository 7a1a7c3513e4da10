"""Convolution on a GPU against the lesson."""

import importlib

import pytest
from agreement import LAYOUTS, agrees, normal, there, windows
from hypothesis import given
from hypothesis import strategies as st

from minicnn.backends.cuda import conv as kernels
from minicnn.backends.cuda import products

lesson = importlib.import_module("minicnn.functional.conv")
CHANNELS = st.sampled_from([1, 2, 3, 4])  # of a group


@given(st.integers(0, 2), windows(), st.sampled_from([1, 2, 3]), CHANNELS, CHANNELS, st.booleans(), LAYOUTS)
def test_convolve(gpu, n, geometry, groups, c, o, biased, layout):
    size, window = geometry
    x, weight = normal(n, *size, groups * c), normal(*window.kernel_size, c, groups * o, seed=1)
    bias = normal(groups * o, seed=2) if biased else None
    agrees(gpu, kernels.convolve, lesson.convolve, x, weight, bias, window, groups, layout=layout)


@given(st.integers(0, 2), windows(), st.sampled_from([1, 2, 3]), CHANNELS, CHANNELS, LAYOUTS)
def test_convolve_transpose_and_weight(gpu, n, geometry, groups, c, o, layout):
    size, window = geometry
    x, weight = normal(n, *size, groups * c), normal(*window.kernel_size, c, groups * o, seed=1)
    dy = normal(n, *window.output_size(*size), groups * o, seed=2)
    options = {"layout": layout}
    agrees(gpu, kernels.convolve_transpose, lesson.convolve_transpose, dy, weight, window, groups, size, **options)
    agrees(gpu, kernels.convolve_weight, lesson.convolve_weight, x, dy, window, groups, **options)


@pytest.mark.parametrize("channels, numbers", [(3, 28), (4, 36)])
def test_rows_are_whole_packs(gpu, monkeypatch, channels, numbers):
    """Of columns, of the weights they are multiplied with, and of the gradient, which is given out without the rest."""
    seen, product = [], products.product
    monkeypatch.setattr(products, "product", lambda a, b, out: seen.append((a, b, out)) or product(a, b, out))
    window = lesson.Window.of(3, padding=1)
    x, weight, dy = (there(gpu, normal(*s)) for s in [(2, 5, 5, channels), (3, 3, channels, 8), (2, 5, 5, 8)])
    kernels.convolve(x, weight, None, window, 1)
    assert kernels.convolve_weight(x, dy, window, 1).shape == weight.shape
    (columns, matrix, _), (transposed, _, dw) = seen
    assert columns.shape == transposed.T.shape == (50, numbers) and matrix.shape == dw.shape == (numbers, 8)
    for array in (columns[:, 9 * channels :], matrix[9 * channels :], dw[9 * channels :]):
        assert (array.get() == 0).all()
