"""minicnn/backends/native/softmax.py and loss.py, and the exponential that both have."""

import importlib

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from minicnn import use_backend
from minicnn.backends import native

pytestmark = pytest.mark.usefixtures("cc")
SOFTMAX, LOSS = (importlib.import_module(f"minicnn.functional.{name}") for name in ("softmax", "loss"))
LENGTHS = [1, 2, 7, 8, 9, 16, 17, 63, 64, 65, 1000, 5003]  # of rows: less than a register, several, rests


def normal(*shape, dtype=np.float32):
    return (3 * np.random.default_rng(0).standard_normal(shape)).astype(dtype)


def both(module, faster, name, *args):
    """What a kernel computes, and its lesson"""
    with use_backend("reference"), np.errstate(all="ignore"):
        return getattr(faster, name)(*args), getattr(module, name)(*args)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["probabilities", "log_probabilities"])
@pytest.mark.parametrize("count", LENGTHS)
def test_rows_of_all_lengths(count, name, dtype):
    for axis in (1, 0, -1):
        x = normal(3, count, dtype=dtype) if axis else normal(count, 3, dtype=dtype)
        found, wanted = both(SOFTMAX, native.softmax, name, x, axis)
        assert found.flags.c_contiguous
        assert_allclose(found, wanted, rtol=10 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps, strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", LENGTHS)
def test_classes_of_all_numbers(classes, dtype):
    z, dy = normal(7, classes, dtype=dtype), normal(7, dtype=dtype)
    labels, tolerance = np.array([0, classes - 1, classes // 2, -1, classes, -(2**63), 2**62]), 10 * np.finfo(dtype).eps
    for name, args in ("negative_log_likelihood", (z, labels)), ("negative_log_likelihood_backward", (dy, z, labels)):
        found, wanted = both(LOSS, native.loss, name, *args)
        assert_allclose(found, wanted, rtol=tolerance, atol=tolerance, strict=True)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.uint64])
def test_labels_of_any_integers(kind):
    z, labels = normal(4, 5), np.array([0, 4, 1, 7], kind)
    assert_allclose(*both(LOSS, native.loss, "negative_log_likelihood", z, labels), rtol=1e-6)


@pytest.mark.parametrize("count", [5, 21, 300])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38])
def test_rows_with_numbers_that_are_not_finite(value, count):
    """One in each place, and one row of nothing else."""
    x = normal(count + 1, count)
    x[np.arange(count), np.arange(count)] = x[count] = value
    for name in "probabilities", "log_probabilities":
        found, wanted = both(SOFTMAX, native.softmax, name, x, 1)
        assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    labels, dy = np.arange(count + 1) % 3, np.ones(count + 1, np.float32)
    for name, args in ("negative_log_likelihood", (x, labels)), ("negative_log_likelihood_backward", (dy, x, labels)):
        found, wanted = both(LOSS, native.loss, name, *args)
        assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype, wide, lowest", [(np.float32, np.float64, -87), (np.float64, np.longdouble, -708)])
def test_the_exponential_is_right_to_two_last_bits(dtype, wide, lowest):
    """Beside 0, a number has the probability e^x / (1 + e^x)."""
    x = np.linspace(lowest, 0, 100_003).astype(dtype)
    p = native.softmax.probabilities(np.stack([x, 0 * x], 1), 1)
    expected = np.exp(x.astype(wide))
    assert abs(p[:, 0].astype(wide) / p[:, 1] / expected - 1).max() < 2 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype, lowest", [(np.float32, -120), (np.float64, -800)])
def test_the_exponential_of_less_is_a_subnormal_number_and_then_0(dtype, lowest):
    x = np.linspace(lowest, lowest * 0.7, 10_001).astype(dtype)
    p = native.softmax.probabilities(np.stack([x, 0 * x], 1), 1)[:, 0]
    assert_allclose(p, np.exp(x), rtol=1e-5, atol=np.finfo(dtype).smallest_subnormal)
    assert p[0] == 0 and 0 < p[p > 0].min() < np.finfo(dtype).tiny


def test_the_number_of_threads_changes_nothing(threads):
    x = normal(500, 700)
    first = native.softmax.probabilities(x, 1)
    threads(5)
    assert_array_equal(native.softmax.probabilities(x, 1), first)
