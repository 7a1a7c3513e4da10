"""minicnn/backends/native/activation.py: the sigmoid's exponential, and what lies behind whole registers."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from minicnn.backends import native

pytestmark = pytest.mark.usefixtures("cc")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 15, 16, 17, 33, 100_003])
def test_the_sigmoid(threads, size, dtype):
    x = np.linspace(-800, 800, size).astype(dtype)
    with np.errstate(over="ignore"):
        wanted = 1 / (1 + np.exp(-x.astype(np.longdouble)))
    for count in (1, 5):
        threads(count)
        y = native.activation.logistic(x)
        assert y.dtype == dtype
        assert_allclose(y, wanted.astype(dtype), rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_sigmoid_of_what_is_not_finite(dtype):
    x = np.array([-np.inf, -0.0, 0.0, np.inf, np.nan], dtype)
    assert_array_equal(native.activation.logistic(x), np.array([0, 0.5, 0.5, 1, np.nan], dtype), strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 15, 16, 17, 33, 100_003, (16 << 20) // 4 + 5])
def test_the_gradient_of_relu(threads, monkeypatch, size, dtype):
    """In parts of registers and of lines, and past the caches."""
    monkeypatch.setattr(native.activation, "FEW", 0)
    y, dy = np.resize(np.array([-1, -0.0, 0, 2, np.nan, np.inf, -np.inf], dtype), size), np.arange(size, dtype=dtype)
    for count in (1, 5):
        threads(count)
        assert_array_equal(native.activation.where_positive(dy, y), np.where(y > 0, dy, 0).astype(dtype), strict=True)


def test_the_mask_of_leaky_relu_may_lie_anyhow():
    x = np.arange(-12.0, 12.0).reshape(4, 6)
    for given in (x, x.T, x[:, ::2], np.array(3.0), np.array(-3.0)):
        assert_array_equal(native.activation.leak(given, given > 0, 0.5), np.where(given > 0, given, 0.5 * given))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_few_numbers_are_left_to_numpy(monkeypatch, dtype):
    few, launched = native.activation.FEW, []
    for module in (native.activation, native.ops):
        own = module.launch
        monkeypatch.setattr(
            module,
            "launch",
            lambda name, *args, own=own, **options: launched.append(name) or own(name, *args, **options),
        )
    for size in (few - 1, few):
        x, y = np.random.default_rng(0).standard_normal((2, size)).astype(dtype)
        assert_array_equal(native.activation.rectify(x), np.maximum(x, 0), strict=True)
        assert_array_equal(native.activation.where_positive(x, y), np.where(y > 0, x, dtype(0)), strict=True)
        assert_array_equal(native.ops.masked(x, y > 0), np.where(y > 0, x, dtype(0)), strict=True)
        assert launched == ["activation.rectify", "activation.where_positive", "ops.masked"] * (size == few)
