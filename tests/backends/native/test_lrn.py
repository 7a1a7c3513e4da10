"""minicnn/backends/native/lrn.py beyond the small shapes of the agreement table: rows of several blocks, windows larger
than a pixel or than a block, shares of threads, what the lesson makes of infinities."""

import numpy as np
import pytest
from kernel_table import alike, normal
from numpy.testing import assert_array_equal

from minicnn import backends, use_backend
from minicnn.backends import numpy as fast
from minicnn.backends.native import lrn
from minicnn.functional import lrn as lesson
from minicnn.functional.lrn import Constants

pytestmark = pytest.mark.skipif(
    backends._backends["native"].problem() is not None, reason=str(backends._backends["native"].problem())
)


def same(x, dy, constants, dtype):
    """All three kernels have what the lesson has in float64."""
    narrow, shares = (x.astype(dtype), dy.astype(dtype)), 1e-13 if dtype == np.float64 else 2e-6
    with use_backend("reference"), np.errstate(all="ignore"):
        expected = (
            lesson.normalize(x, constants),
            lesson.normalize_backward(dy, x, constants),
            lesson.sum_window(x, constants.window),
        )
    found = (
        lrn.normalize(narrow[0], constants),
        lrn.normalize_backward(narrow[1], narrow[0], constants),
        lrn.sum_window(narrow[0], constants.window),
    )
    for result, wanted in zip(found, expected, strict=True):
        alike(result, wanted, dtype, shares)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 96, 256, 1000])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9, 40])
def test_any_channels_and_windows(channels, n, dtype):
    x, dy = normal(3000 // channels, channels), normal(3000 // channels, channels, seed=1)
    same(3 * x, dy, Constants(n, 2.0, 0.3, 0.75), dtype)


@pytest.mark.parametrize("n", [2047, 3000, 6000])
def test_a_window_larger_than_a_block_or_a_pixel(n):
    same(normal(3, 2500), normal(3, 2500, seed=1), Constants(n, 2.0, 0.01, 0.75), np.float32)


@pytest.mark.parametrize("beta", [0.0, 0.25, 0.5, 1.0, 1.25, 1.5, 2.75, 3.75, 4.0, 0.6, -0.5])
def test_any_power(beta):
    same(normal(5, 40), normal(5, 40, seed=1), Constants(5, 2.0, 0.3, beta), np.float64)


@pytest.mark.parametrize("channels", [6, 16, 48])
@pytest.mark.parametrize("k", [0.0, 2.0])
def test_zeros_infinities_and_overflow(k, channels):
    """Squares that overflow make y and dx 0, as in the lesson, not NaN."""
    x = normal(40, channels).astype(np.float32)
    x[3], x[7, 2], x[11, 4], x[20, 1], x[21, 3] = 0, np.inf, np.nan, 1e25, -1e25
    dy, constants = np.ones_like(x), Constants(3, k, 1e-4, 0.75)
    with use_backend("reference"), np.errstate(all="ignore"):
        expected = lesson.normalize(x, constants), lesson.normalize_backward(dy, x, constants)
    assert np.isnan(expected[0]).any() and (expected[1][20] == 0).any()
    for result, wanted in zip(
        (lrn.normalize(x, constants), lrn.normalize_backward(dy, x, constants)), expected, strict=True
    ):
        alike(result, wanted, np.float32, 1e-5)


@pytest.mark.parametrize("n", [3, 5, 9])
def test_nan_stays_in_its_windows(n):
    x, dy = (normal(9, 64, seed=i).astype(np.float32) for i in (0, 1))
    x[2, 63], x[4, 0], dy[6, 16] = np.nan, np.nan, np.nan
    same(x, dy, Constants(n, 2.0, 0.3, 0.75), np.float32)


def test_every_number_of_threads_has_the_same_bits():
    x, dy = (normal(20, 20, 96, seed=i).astype(np.float32) for i in (0, 1))
    constants, before, results = Constants(5, 2.0, 1e-4, 0.75), fast.threads.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            fast.threads.set_num_threads(threads)
            results.append((lrn.normalize(x, constants), lrn.normalize_backward(dy, x, constants)))
    finally:
        fast.threads.set_num_threads(before)
    for other in results[1:]:
        assert_array_equal(other, results[0])
