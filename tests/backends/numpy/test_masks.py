"""minicnn/backends/numpy/masks.py"""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import minicnn
import minicnn.functional as F
from minicnn import Tensor
from minicnn.backends.numpy.masks import ZEROS, select, selected, zero

NUMBERS = [np.nan, -np.inf, np.inf, -1.5, 0.0, 3e38]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_what_is_left_out_is_zero(dtype):
    x = np.array([np.nan, -np.inf, np.inf, -1.5, 0.0, 6e4] * 2, dtype).reshape(3, 4).T
    mask = np.arange(12).reshape(4, 3) % 5 < 2
    out = np.full((4, 3), 7, dtype)
    select(x, mask, out)
    assert_array_equal(out, np.where(mask, x, 0))
    assert not np.signbit(out[~mask]).any()
    for some in (mask, mask[:1], mask[:, 0], mask[0, 0], np.bool_(False)):
        given = x[:, 0] if some.ndim == 1 else x
        out = selected(given, some)
        assert_array_equal(out, np.where(some, given, dtype(0)), strict=True)
        assert not np.signbit(out[~np.broadcast_to(some, out.shape)]).any()


def test_a_zero_that_promotes_nothing():
    for dtype in (np.float16, np.float32, np.float64, np.longdouble):
        x = np.array([-1, -0.0, 2, np.nan], dtype)
        assert_array_equal(np.maximum(x, zero(x)), np.array([0, 0, 2, np.nan], dtype), strict=True)
    assert [dtype.itemsize for dtype in ZEROS] == [2, 4, 8] and not any(ZEROS.values())


@pytest.mark.parametrize("backend", [None, "reference"])
def test_an_infinite_gradient_stays_where_it_belongs(backend):
    """No NaN beside it, and no warning (which would be an error here)."""
    flow = Tensor(np.array(NUMBERS, np.float32))
    with minicnn.use_backend(backend):
        x = Tensor(np.full(6, -1.0, np.float32), requires_grad=True)
        F.relu(x).backward(flow)
        assert_array_equal(x.grad.data, np.zeros(6))
        pixels = Tensor(np.float32([0, 1] * 6).reshape(1, 1, 12, 1), requires_grad=True)
        F.max_pool2d(pixels, (1, 2)).backward(flow.reshape(1, 1, 6, 1))
        assert_array_equal(pixels.grad.data.reshape(6, 2), [[0, number] for number in flow.data])
        minicnn.manual_seed(0)
        assert_array_equal(F.dropout(flow, 1.0).data, np.zeros(6))
