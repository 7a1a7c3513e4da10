"""minicnn/backends/native/standardize.py: blocks of pixels, lines of columns, groups of vectors."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from minicnn import use_backend
from minicnn.backends import native
from minicnn.functional import standardize as lesson

pytestmark = pytest.mark.skipif(native.backend.problem() is not None, reason=str(native.backend.problem()))
EPS = 1e-3
# a few channels of many pixels, whole vectors and not; lines of one pixel; more channels than fit in
# a line; several blocks, of which the last is short
SHAPES = [(40_000, 1), (3000, 3), (2100, 20), (1025, 64), (600, 65), (333, 100), (70, 512), (40, 1024), (37, 2100)]


def given(shape, dtype=np.float32, offset=0.0):
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape).astype(dtype) + dtype(k * offset) for k in (1, 0))
    gamma, beta = rng.standard_normal((2, shape[-1])).astype(dtype)
    return x, dy, gamma, beta


def everything(module, x, dy, gamma, beta):
    with use_backend("reference"):  # which the lesson's own functions ask for
        moments = module.moments(x)
        sums = module.sums(dy, x, moments, EPS)
        y = module.normalize(x, moments, gamma, beta, EPS)
        return moments, sums, y, module.normalize_backward(dy, x, moments, gamma, sums, EPS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_all_paths(shape, dtype):
    args = given(shape, dtype)
    for found, wanted in zip(everything(native.standardize, *args), everything(lesson, *args), strict=True):
        tolerance = (1e-5 if dtype == np.float32 else 1e-13) * abs(wanted).max()
        assert found.dtype == dtype
        assert_allclose(found, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_number_of_threads_changes_nothing(threads, shape):
    args = given(shape)
    first = everything(native.standardize, *args)
    threads(5)
    for found, wanted in zip(everything(native.standardize, *args), first, strict=True):
        assert_array_equal(found, wanted)


def test_a_mean_far_from_0():
    """Squares of differences from the mean, not of x: here x² has 12 digits more than the variance."""
    x = given((50_000, 3), np.float64, offset=1e6)[0]
    mean, var = native.standardize.moments(x)
    assert_allclose(mean, x.mean(0), rtol=1e-14)
    assert_allclose(var, x.var(0), rtol=1e-10)
    mean, var = native.standardize.moments(given((50_000, 3), np.float32, offset=1e3)[0])
    assert_allclose(var, 1, rtol=0.02)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite(value):
    """Spoils its channel and no other, as in the lesson."""
    x, dy, gamma, beta = given((3000, 3))
    x[1234, 1] = value
    with np.errstate(invalid="ignore"):
        found, wanted = (everything(module, x, dy, gamma, beta) for module in (native.standardize, lesson))
    assert np.isnan(wanted[2][:, 1]).all() and not np.isnan(wanted[2][:, ::2]).any()
    for a, b in zip(found, wanted, strict=True):
        assert_allclose(a, b, rtol=1e-4, atol=1e-5)
