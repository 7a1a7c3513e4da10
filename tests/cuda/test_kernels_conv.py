"""Convolution on a GPU against the lesson."""

import importlib

import pytest
from agreement import normal, there

from minicnn.backends.cuda import conv as kernels
from minicnn.backends.cuda import products

lesson = importlib.import_module("minicnn.functional.conv")


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
