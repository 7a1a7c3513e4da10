"""The bias on a GPU: a sum in place, or a sum and its ReLU."""

import numpy as np
import pytest
from agreement import CHANNELS, agrees, awkward, normal
from hypothesis import given
from hypothesis import strategies as st

from minicnn.backends.cuda import linear as kernels
from minicnn.functional import fused as lesson


def added(y, bias):
    y = y.copy()
    assert kernels.add_bias(y, bias, y) is None
    return y


@given(st.lists(st.integers(0, 5), max_size=3), CHANNELS, st.sampled_from(["contiguous", "shifted"]))
def test_add_bias(gpu, outer, channels, layout):
    y, bias = normal(*outer, channels), normal(channels, seed=1)
    agrees(gpu, added, np.add, y, bias, layout=layout)


def rectified(x, bias):
    y = x * 0
    assert kernels.add_bias(x, bias, y, rectified=True) is None
    return y


@given(st.lists(st.integers(0, 5), max_size=3), CHANNELS, st.sampled_from(["contiguous", "shifted"]), st.data())
def test_a_bias_and_its_relu(gpu, outer, channels, layout, data):
    x = data.draw(st.sampled_from([normal, awkward]))(*outer, channels)
    agrees(gpu, rectified, lesson.add_rectify, x, normal(channels, seed=1), layout=layout)


def test_a_bias_of_another_length(gpu):
    with pytest.raises(ValueError, match=r"x of shape \(2, 4\) needs a bias of shape \(4,\), not \(2,\)"):
        kernels.add_bias(y := gpu.asarray(normal(2, 4)), gpu.asarray(normal(2)), y)


def test_y_with_gaps(gpu):
    y = gpu.asarray(normal(2, 8))
    with pytest.raises(ValueError, match="is not contiguous"):
        kernels.add_bias(y[:, ::2], gpu.asarray(normal(4)), y[:, ::2])
