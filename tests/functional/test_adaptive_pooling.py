"""minicnn/functional/adaptive_pooling.py: means of bins."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from reference import agree, arrays, both, differentiable, fails, normal, pairs, refuses

import minicnn.functional as F
from minicnn import Tensor
from minicnn.functional.adaptive_pooling import BinMeans
from minicnn.tensor import apply


def each_bin(x, output_size):
    """The equation, pixel by pixel."""
    (n, h, w, c), (oh, ow) = x.shape, both(output_size)
    y = np.zeros((n, oh, ow, c))
    for p, q in np.ndindex(oh, ow):
        rows = range(math.floor(p * h / oh), math.ceil((p + 1) * h / oh))
        columns = range(math.floor(q * w / ow), math.ceil((q + 1) * w / ow))
        for i in rows:
            for j in columns:
                y[:, p, q] += x[:, i, j] / (len(rows) * len(columns))
    return y


SIDE = st.integers(1, 7)


@given(st.data(), st.tuples(st.integers(0, 2), SIDE, SIDE, st.integers(0, 3)), pairs(1, 7))
def test_the_equation(data, shape, output_size):
    agree(F.adaptive_avg_pool2d, each_bin, data.draw(arrays(shape)), output_size=output_size)


@pytest.mark.parametrize("output_size", [1, (2, 3), (5, 1), (7, 6)])
def test_derivatives(output_size):
    differentiable(F.adaptive_avg_pool2d, normal(2, 5, 4, 2), output_size=output_size)


@pytest.mark.parametrize("count", [2, 7])
def test_derivatives_along_one_axis(count):
    """Of two, mistakes of sign would cancel."""
    differentiable(lambda x: apply(BinMeans(1, count), x), normal(2, 5, 3))


def test_integers_become_real_numbers():
    y = F.adaptive_avg_pool2d(Tensor(np.arange(4).reshape(1, 2, 2, 1)), 1)
    assert y.item() == 1.5 and y.dtype == F.avg_pool2d(Tensor(np.arange(4).reshape(1, 2, 2, 1)), 2).dtype == np.float32


def test_nan_stays_in_its_bins():
    x = np.zeros((1, 5, 1, 1))
    x[0, 2] = np.nan
    assert np.isnan(F.adaptive_avg_pool2d(Tensor(x), (4, 1)).data.ravel()).tolist() == [False, True, True, False]


@pytest.mark.torch
@pytest.mark.parametrize("output_size", [1, 3, (2, 5), (9, 11)])
def test_pytorch_has_the_same_bins(output_size):
    torch = pytest.importorskip("torch")
    x, dy = normal(2, 9, 7, 3), normal(2, *both(output_size), 3, seed=1)
    ours, theirs = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y = F.adaptive_avg_pool2d(ours, output_size)
    other = torch.nn.functional.adaptive_avg_pool2d(theirs.permute(0, 3, 1, 2), output_size).permute(0, 2, 3, 1)
    y.backward(dy)
    other.backward(torch.tensor(dy))
    assert_allclose(y.data, other.detach().numpy(), rtol=1e-12, atol=1e-12)
    assert_allclose(ours.grad.data, theirs.grad.numpy(), rtol=1e-12, atol=1e-12)


def test_mistakes():
    x = Tensor(np.ones((1, 4, 4, 1)))
    for bad in (0, -1, (2, 0), 1.5, (1, 2, 3), None, "2"):
        with refuses(ValueError, "adaptive_avg_pool2d", "output_size", repr(bad)):
            F.adaptive_avg_pool2d(x, bad)
    for shape in ((4, 4, 1), (1, 0, 4, 1), (1, 4, 0, 1)):
        with refuses(ValueError, "adaptive_avg_pool2d", "(N, H, W, C)", str(shape)):
            F.adaptive_avg_pool2d(Tensor(np.ones(shape)), 2)


def test_more_bins_than_can_be_made():
    one = Tensor(np.ones((1, 1, 1, 0)))
    assert F.adaptive_avg_pool2d(one, (1 << 20, 1)).shape == (1, 1 << 20, 1, 0)
    for size in ((1, (1 << 20) + 1), ((1 << 20) + 1, 1)):
        words = rf"^adaptive_avg_pool2d: output_size must be at most 1,048,576, not \({size[0]}, {size[1]}\)$"
        fails(ValueError, words, F.adaptive_avg_pool2d, one, size)
