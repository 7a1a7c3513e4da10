"""minicnn/functional/activation.py: relu, sigmoid, tanh, gelu, softmax, log_softmax."""

import math
import weakref

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from limits import ACTIVATIONS, reaches_its_limits
from numpy.testing import assert_allclose, assert_array_equal
from reference import agree, arrays, differentiable, distinct, fails, refuses

import minicnn.functional as F
from minicnn import Tensor


def each_gelu(x):
    """Number by number, with the tanh of the paper."""
    y = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        v = float(x[place])
        y[place] = 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))
    return y


ELEMENTWISE = {
    F.gelu: each_gelu,
    F.leaky_relu: lambda x: np.where(x > 0, x, 0.01 * x),
    F.relu: lambda x: np.where(x > 0, x, 0.0),
    F.sigmoid: lambda x: 1 / (1 + np.exp(-x)),
    F.tanh: lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
}
ROWS = {F.softmax: reference.softmax, F.log_softmax: reference.log_softmax}
ALL = [*ELEMENTWISE, *ROWS]
SHAPES = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple)


@pytest.mark.parametrize("f", ELEMENTWISE)
@given(st.data(), SHAPES)
def test_elementwise(f, data, shape):
    agree(f, ELEMENTWISE[f], data.draw(arrays(shape, distinct)))


@pytest.mark.parametrize("f", ROWS)
@given(st.data(), SHAPES)
def test_along_an_axis(f, data, shape):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    agree(f, ROWS[f], data.draw(arrays(shape)), axis=axis)
    if axis in (-1, len(shape) - 1):
        agree(f, ROWS[f], data.draw(arrays(shape)))


@pytest.mark.parametrize("f", ALL)
def test_derivatives(f):
    differentiable(f, distinct(3, 4))


def gradient(f, x, dy):
    x = Tensor(x, requires_grad=True)
    y = f(x)
    y.backward(np.asarray(dy, y.dtype))
    return y.data, x.grad.data


def test_another_slope():
    """Which is the derivative at 0, too."""
    y, dx = gradient(lambda x: F.leaky_relu(x, 0.5), np.array([-2.0, 0.0, 3.0], np.float32), [1, 1, np.inf])
    assert_array_equal(y, np.float32([-1, 0, 3]), strict=True)
    assert_array_equal(dx, np.float32([0.5, 0.5, np.inf]), strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relu_has_derivative_0_at_0(dtype):
    x = np.array([-1, -0.0, 0.0, np.finfo(dtype).tiny, 1], dtype)
    y, dx = gradient(F.relu, x, [7, 7, 7, 7, 7])
    assert_array_equal(y, [0, 0, 0, np.finfo(dtype).tiny, 1])
    assert_array_equal(dx, [0, 0, 0, 7, 7])


def test_relu_lets_go_of_its_input():
    x = Tensor(distinct(3, 4), requires_grad=True)
    h = x + 1.0
    memory = weakref.ref(h.data)
    y = F.relu(h)
    del h
    assert memory() is None
    y.sum().backward()
    assert_array_equal(x.grad.data, (x.data + 1 > 0).astype(float))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_numbers(dtype):
    x = np.array([-np.inf, -1e4, -800, 0, 800, 1e4, np.inf], dtype)
    y, dx = gradient(F.sigmoid, x, np.ones(7))
    assert_array_equal(y, [0, 0, 0, 0.5, 1, 1, 1])
    assert_array_equal(dx, [0, 0, 0, 0.25, 0, 0, 0])
    y, dx = gradient(F.tanh, x, np.ones(7))
    assert_array_equal(y, [-1, -1, -1, 0, 1, 1, 1])
    assert_array_equal(dx, [0, 0, 0, 1, 0, 0, 0])
    y, dx = gradient(F.gelu, x[1:-1], np.ones(5))
    assert_array_equal(y, [0, 0, 0, 800, 1e4])
    assert_array_equal(dx, [0, 0, 0.5, 1, 1])


def test_gelu_is_near_its_definition():
    """x times the probability that a normal number is below x, of which the tanh is a fit; and small results are exact
    to the last digits, where 1 + tanh u would have none."""
    x = np.linspace(-6, 6, 241)
    exact = np.array([v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in x])
    assert 1e-4 < abs(F.gelu(Tensor(x)).data - exact).max() < 5e-4
    u = math.sqrt(2 / math.pi) * (8 + 0.044715 * 8**3)
    assert F.gelu(Tensor(np.array([-8.0]))).item() == pytest.approx(-8 / (1 + math.exp(2 * u)), rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_row_has_its_own_maximum(dtype):
    x = np.array([[1e4, 1e4 + 1], [-1e4, -1e4 - 1], [0, 3000]], dtype)
    a, b = 1 / (1 + np.e), np.e / (1 + np.e)
    y, dx = gradient(F.softmax, x, [[1, 0]] * 3)
    assert_allclose(y, [[a, b], [b, a], [0, 1]], rtol=1e-6)
    assert_allclose(dx, [[a * b, -a * b]] * 2 + [[0, 0]], rtol=1e-5)
    y, dx = gradient(F.log_softmax, x, [[1, 0]] * 3)
    assert_allclose(y, [[np.log(a), np.log(b)], [np.log(b), np.log(a)], [-3000, 0]], rtol=1e-6)
    assert_allclose(dx, [[1 - a, -b], [1 - b, -a], [1, -1]], rtol=1e-5)
    y, _ = gradient(lambda t: F.softmax(t, axis=0), x.T.copy(), np.ones((2, 3)))
    assert_allclose(y, [[a, b, 0], [b, a, 1]], rtol=1e-6)


@pytest.mark.parametrize("f", ALL)
def test_a_single_number(f):
    """0-d, with the axes 0 and −1."""
    expected = {F.softmax: (1, 0), F.log_softmax: (0, 0)}.get(f)
    options = [{}, dict(axis=0), dict(axis=-1)] if expected else [{}]
    for option in options:
        y, dx = gradient(lambda x, option=option: f(x, **option), np.array(0.5), np.array(3.0))
        value, derivative = expected or (gradient(f, np.array([0.5]), [1.0])[i][0] for i in range(2))
        assert y.shape == dx.shape == ()
        assert (y, dx) == (value, 3 * derivative)


@pytest.mark.parametrize("f", ALL)
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_integers_are_refused(f, dtype):
    for shape in ((), (2, 3)):
        with refuses(TypeError, f.__name__, "floating-point", np.dtype(dtype).name):
            f(Tensor(np.ones(shape, dtype)))


@pytest.mark.parametrize("f", ROWS)
def test_axes_that_do_not_exist(f):
    for shape, axis in (((2, 3), 2), ((0, 3), 5), ((2, 3), -3), ((), 1), ((), -2)):
        with refuses(ValueError, f"axis {axis}", str(len(shape))):
            f(Tensor(np.ones(shape)), axis=axis)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_limits_are_reached(name, dtype):
    reaches_its_limits(name, dtype)


def test_settings_of_activations():
    x = Tensor([1.0, -1.0])
    for slope in (np.nan, np.inf, "a", None):
        fails(ValueError, "^leaky_relu: negative_slope must be a finite number, not ", F.leaky_relu, x, slope)
    assert F.leaky_relu(Tensor(np.float32([-1])), np.float64(0.5)).dtype == np.float32
    for name in ("softmax", "log_softmax"):
        fails(ValueError, f"^{name}: axis must be a whole number, not 1.5$", getattr(F, name), x, 1.5)
        fails(TypeError, f"^{name}: x must be a Tensor, not an array", getattr(F, name), x.data)
        fails(
            TypeError, f"^{name} needs a floating-point Tensor, not int64$", getattr(F, name), Tensor(np.zeros(0, int))
        )
