"""minicnn/functional/linear.py"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import agree, arrays, fails, normal, refuses

import minicnn.functional as F
from minicnn import Tensor, ops


def linear(x, weight, bias=None):
    y = np.zeros((*x.shape[:-1], weight.shape[1]))
    for j in range(weight.shape[1]):
        for i in range(weight.shape[0]):
            y[..., j] += x[..., i] * weight[i, j]
        if bias is not None:
            y[..., j] += bias[j]
    return y


@given(
    st.data(),
    st.lists(st.integers(0, 3), max_size=3),
    st.integers(0, 4),
    st.integers(1, 4),
    st.booleans(),
)
def test_is_the_equation(data, lead, n, m, with_bias):
    bias = [data.draw(arrays((m,)))] if with_bias else []
    agree(F.linear, linear, data.draw(arrays((*lead, n))), data.draw(arrays((n, m))), *bias)


def test_images_are_one_matrix(monkeypatch):
    """A product of stacks of matrices is slower, and is not shared among threads."""
    ranks, real = [], ops.matmul
    monkeypatch.setattr(ops, "matmul", lambda a, b: ranks.append((a.ndim, b.ndim)) or real(a, b))
    y = F.linear(*[Tensor(normal(*shape), requires_grad=True) for shape in ((2, 3, 4, 5), (5, 6), (6,))])
    y.sum().backward()
    assert ranks == [(2, 2)] * 3


@pytest.mark.parametrize(
    "x, weight, words",
    [
        ((), (3, 2), ["()", "(3, 2)"]),
        ((3,), (2, 3), ["(3,)", "(2, 3)"]),
        ((3, 2), (3, 2), ["(3, 2)"]),
        ((2, 3), (3,), ["(2, 3)", "(3,)"]),
        ((2, 3), (3, 2, 1), ["(3, 2, 1)"]),
    ],
)
def test_what_does_not_fit(x, weight, words):
    with refuses(ValueError, "linear", "(…, in)", "(in, out)", *words):
        F.linear(Tensor(np.ones(x)), Tensor(np.ones(weight)))


@pytest.mark.parametrize("bias", [(), (3,), (1,), (1, 2), (2, 2)])
def test_biases_that_do_not_fit(bias):
    with refuses(ValueError, "linear", "bias", str(bias), "(2,)"):
        F.linear(Tensor(np.ones((2, 3))), Tensor(np.ones((3, 2))), Tensor(np.ones(bias)))


def test_a_weight_of_pytorch():
    x, weight = Tensor(np.ones((4, 2))), Tensor(np.ones((3, 2)))
    with refuses(ValueError, "linear", "(4, 2)", "(3, 2)", "the weight (in, out): weight.T?"):
        F.linear(x, weight)
    assert F.linear(x, weight.T).shape == (4, 3)
    with pytest.raises(ValueError) as caught:
        F.linear(x, Tensor(np.ones((3, 5))))
    assert "weight.T" not in str(caught.value)


def test_what_is_no_tensor_and_no_array():
    x = Tensor(np.ones((3, 2)))
    fails(TypeError, "^linear: x must be a Tensor, not an array", F.linear, x.data, Tensor(np.ones((2, 1))))
    for weight in ("a", [[1.0], [1.0]], None):
        fails(TypeError, "^linear: weight must be a Tensor or an array, not ", F.linear, x, weight)
    fails(TypeError, "^linear: bias must be a Tensor or an array, not 1$", F.linear, x, Tensor(np.ones((2, 1))), 1)
