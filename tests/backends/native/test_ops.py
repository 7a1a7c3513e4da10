"""minicnn/backends/native/ops.py: sums over blocks, columns and rows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from minicnn.backends import native

pytestmark = pytest.mark.usefixtures("cc")
SUMS = [  # the leading axes, with few and many channels; one of the middle; the last; all
    ((60_000, 3), (0,)), ((20, 30, 50, 64), (0, 1, 2)), ((700, 65), (0,)), ((33, 1024), (0,)), ((20, 2500), (0,)),
    ((9, 5000, 7), (1,)), ((5, 13, 13, 96), (1, 2)), ((400, 10), (1,)), ((7, 5003), (1,)), ((300, 2, 3), (1, 2)),
    ((50, 40, 30), (0, 1, 2)), ((513,), (0,)), ((100_000, 1), (0,)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape, axes", SUMS)
def test_sums(threads, shape, axes, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    found = native.ops.total(x, axes)
    exact = x.sum(axis=axes, dtype=np.longdouble)
    assert found.shape == exact.shape and found.dtype == dtype
    error = np.finfo(dtype).eps * np.sqrt(np.square(x, dtype=np.float64).sum(axis=axes))
    assert (abs(found - exact) <= 8 * error).all()
    threads(5)
    assert_array_equal(native.ops.total(x, axes), found)


@pytest.mark.parametrize("shape, axes", SUMS)
def test_sums_of_what_lies_otherwise(shape, axes):
    """In Fortran's order, in every other place, in steps of no memory, and out of step."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    odd = np.empty(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(shape)
    odd[...] = x
    twice = np.empty((*shape[:-1], 2 * shape[-1]), np.float32)[..., ::2]
    twice[...] = x
    for other in (np.asfortranarray(x), twice, np.broadcast_to(x[:1], shape), odd):
        wanted = other.sum(axis=axes, dtype=np.float64)
        assert_allclose(native.ops.total(other, axes), wanted, rtol=1e-5, atol=1e-3)


def test_many_ones_are_counted():
    for axes, shape in (((0,), (20_000_000, 1)), ((1,), (2, 18_000_000))):
        assert (native.ops.total(np.ones(shape, np.float32), axes) == shape[axes[0]]).all()


def test_sums_of_nothing():
    for shape, axes in (((0, 3), (0,)), ((3, 0), (0,)), ((3, 0), (1,)), ((600, 3), ())):
        x = np.ones(shape, np.float32)
        assert_array_equal(native.ops.total(x, axes), x.sum(axis=axes), strict=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sum_with_a_number_that_is_not_finite(value):
    x = np.ones((3000, 5), np.float32)
    x[1234, 2] = value
    assert_array_equal(native.ops.total(x, (0,)), [3000, 3000, value, 3000, 3000])
    assert_array_equal(native.ops.total(x, (1,))[1233:1236], [5, value, 5])
    x[99, 2] = -value
    assert np.isnan(native.ops.total(x, (0,))[2])
