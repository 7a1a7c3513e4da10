"""minicnn/backends/numpy/masks.py"""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import minicnn
import minicnn.functional as F
from minicnn import Tensor
from minicnn.backends.numpy.masks import select

NUMBERS = [np.nan, -np.inf, np.inf, -1.5, 0.0, 3e38]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_what_is_left_out_is_zero(dtype):
    x = np.array([np.nan, -np.inf, np.inf, -1.5, 0.0, 6e4] * 2, dtype).reshape(3, 4).T
    mask = np.arange(12).reshape(4, 3) % 5 < 2
    out = np.full((4, 3), 7, dtype)
    select(x, mask, out)
    assert_array_equal(out, np.where(mask, x, 0))
    assert not np.signbit(out[~mask]).any()


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
