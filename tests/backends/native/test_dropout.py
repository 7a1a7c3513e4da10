"""minicnn/backends/native/dropout.py: the numbers of NumPy's generator, piece by piece."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from minicnn import use_backend
from minicnn.backends import native
from minicnn.functional.dropout import drop

pytestmark = pytest.mark.usefixtures("cc")
KEY = 2**64 - 1, 12345678901


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("first", [0, 3, 8, 2**40 + 1])
@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 300_000])
def test_the_mask_is_the_lesson_s(threads, size, first, dtype):
    x = np.arange(1, size + 1).astype(dtype)
    with use_backend("reference"):
        wanted = drop(x, 0.3, KEY, first, 2.0)
    for count in (1, 5):
        threads(count)
        assert_array_equal(native.dropout.drop(x, 0.3, KEY, first, 2.0), wanted, strict=True)


def test_a_number_that_is_p_is_kept():
    """Every number is a multiple of 2⁻²⁴: p may be one of those drawn."""
    x = np.ones(1000, np.float32)
    drawn = np.random.Generator(np.random.Philox(key=np.array(KEY, np.uint64))).random(1000, np.float32)
    for i in (0, 7, 500):
        for p in (drawn[i], np.nextafter(drawn[i], np.float32(1)), np.nextafter(drawn[i], np.float32(0))):
            assert_array_equal(native.dropout.drop(x, float(p), KEY, 0, 1.0), drawn >= p)


@pytest.mark.parametrize("p", [0.0, 1.0, 1e-9, 1 - 1e-9])
def test_none_and_all(p):
    x = np.arange(5000, dtype=np.float32)
    with use_backend("reference"):
        assert_array_equal(native.dropout.drop(x, p, KEY, 0, 1.0), drop(x, p, KEY, 0, 1.0))


def test_what_is_dropped_is_0_whatever_it_was():
    x = np.full(64, np.nan, np.float32)
    y = native.dropout.drop(x, 0.5, KEY, 0, 2.0)
    assert 0 < (y == 0).sum() < 64 and np.isnan(y[y != 0]).all()
