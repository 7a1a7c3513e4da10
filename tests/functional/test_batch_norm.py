"""minicnn/functional/batch_norm.py"""

import importlib
from itertools import product

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference import DTYPES, agree, arrays, fails, gradients_alone, normal, refuses

import minicnn.functional as F
from minicnn import Tensor, apply

module = importlib.import_module("minicnn.functional.batch_norm")  # the name is that of the function
EPS = st.sampled_from([1e-5, 1e-3, 0.5])


def batch_norm(x, gamma, beta, running_mean, running_var, **options):
    """What the package wants by name, by position."""
    named = {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_var": running_var}
    return F.batch_norm(x, **named, **options)


def training(x, gamma, beta, **options):
    """With running statistics that nobody looks at."""
    c = x.shape[-1]
    return batch_norm(x, gamma, beta, np.zeros(c), np.ones(c), training=True, **options)


def evaluation(mean, var, f=batch_norm):
    return lambda x, gamma, beta, **options: f(x, gamma, beta, mean, var, **options)


def by_running(x, gamma, beta, mean, var, eps=1e-5):
    y = np.zeros(x.shape)
    for c in range(x.shape[-1]):
        y[..., c] = gamma[c] * (x[..., c] - mean[c]) / np.sqrt(var[c] + eps) + beta[c]
    return y


@given(st.data(), st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(1, 4), EPS)
def test_training_is_the_equation(data, lead, c, eps):
    lead[0] += 2  # more than one pixel
    # a broadcast batch has variance 0, where differences of 1/√(σ² + ε) say little: hence the slope
    x = data.draw(arrays((*lead, c)))
    x = (x + np.arange(x.size).reshape(x.shape) % 7).astype(x.dtype)
    args = [x, data.draw(arrays((c,))), data.draw(arrays((c,)))]
    agree(training, lambda *args, **options: reference.batch_norm(*args, **options)[0], *args, eps=eps)


@given(st.data(), st.lists(st.integers(0, 3), max_size=3), st.integers(1, 4), EPS)
def test_evaluation_is_the_equation(data, lead, c, eps):
    args = [data.draw(arrays(shape)) for shape in ((*lead, c), (c,), (c,))]
    mean, var = normal(c, seed=7), normal(c, seed=8) ** 2 + 0.1  # float32 stays float32, whatever these are
    before = mean.copy(), var.copy()
    agree(evaluation(mean, var), evaluation(mean, var, by_running), *args, eps=eps)
    assert_array_equal((mean, var), before)


@given(st.data(), DTYPES, st.integers(2, 9), st.sampled_from([0.0, 0.1, 0.3, 1.0]))
def test_running_statistics(data, dtype, n, momentum):
    """Updated in place, with the unbiased variance, in their own dtype."""
    x = data.draw(arrays((n, 2, 3)))
    mean, var = np.full(3, 4.0, dtype), np.full(3, 5.0, dtype)
    one = Tensor(np.ones(3, x.dtype))
    batch_norm(Tensor(x), one, one, mean, var, training=True, momentum=momentum)
    _, batch_mean, batch_var = reference.batch_norm(x.astype(float), 1, 0)
    assert mean.dtype == var.dtype == dtype
    assert_allclose(mean, (1 - momentum) * 4 + momentum * batch_mean, rtol=1e-5, atol=1e-6)
    assert_allclose(var, (1 - momentum) * 5 + momentum * batch_var, rtol=1e-5, atol=1e-6)


def test_defaults():
    x, one, zero = Tensor(1e-3 * normal(8, 3)), Tensor(np.ones(3)), Tensor(np.zeros(3))
    mean, var = normal(3, seed=1), normal(3, seed=2) ** 2
    assert_allclose(
        batch_norm(x, one, zero, mean, 1e-6 * var).data, by_running(x.data, one.data, zero.data, mean, 1e-6 * var)
    )
    expected, batch_mean, batch_var = reference.batch_norm(x.data, 1, 0)
    new = 0.9 * mean + 0.1 * batch_mean, 0.9 * var + 0.1 * batch_var
    assert_allclose(batch_norm(x, one, zero, mean, var, training=True).data, expected)
    assert_allclose((mean, var), new)


def test_a_constant_channel():
    x = Tensor(np.full((4, 2), 3.0), requires_grad=True)
    y = training(x, Tensor(np.ones(2)), Tensor(np.full(2, 7.0)))
    y.sum().backward()
    assert_array_equal(y.data, np.full((4, 2), 7.0))
    assert_allclose(x.grad.data, np.zeros((4, 2)), atol=1e-9)


def test_an_empty_batch():
    """Nothing comes out, nothing is learned, and the running statistics stay."""
    tensors = [Tensor(np.ones(shape), requires_grad=True) for shape in ((0, 2, 3), (3,), (3,))]
    mean, var = np.full(3, 4.0), np.full(3, 5.0)
    y = batch_norm(*tensors, mean, var, training=True)
    y.backward(np.zeros((0, 2, 3)))
    assert y.shape == tensors[0].grad.shape == (0, 2, 3)
    assert_array_equal((mean, var), ([4.0] * 3, [5.0] * 3))
    assert_array_equal([t.grad.data for t in tensors[1:]], np.zeros((2, 3)))
    assert training(*[Tensor(np.ones(shape)) for shape in ((4, 0), (0,), (0,))]).shape == (4, 0)


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("which", range(5))
def test_shapes_that_do_not_fit(which, mode):
    shapes = [(4, 3), (3,), (3,), (3,), (3,)]
    for wrong in [(4, 2), ()] if which == 0 else [(2,), (1,), (1, 3), ()]:
        shapes[which] = wrong
        arrays = [np.ones(shape) for shape in shapes]
        with refuses(ValueError, "batch_norm", "gamma, beta, running_mean and running_var", str(wrong)):
            batch_norm(*[Tensor(a) for a in arrays[:3]], *arrays[3:], training=mode)


def test_a_single_number_has_no_channel():
    with refuses(ValueError, "batch_norm", "x of shape ()"):
        batch_norm(*[Tensor(np.array(1.0))] * 3, np.array(0.0), np.array(1.0))


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 1, 1, 3)])
def test_one_pixel_has_no_variance(shape):
    args = Tensor(np.ones(shape)), Tensor(np.ones(3)), Tensor(np.ones(3))
    with refuses(ValueError, "batch_norm", "one pixel", "eval()"):
        training(*args)
    assert evaluation(np.zeros(3), np.ones(3))(*args).shape == shape
    if len(shape) > 1:
        assert training(Tensor(np.ones((2, *shape[1:]))), *args[1:]).shape == (2, *shape[1:])


def test_images_with_the_channels_first_are_told_how_to_turn():
    """Where turning them would make them fit, and not elsewhere."""

    def message(shape, channels, variances):
        x, one, mean, var = (np.ones(n, np.float32) for n in (shape, channels, channels, variances))
        with pytest.raises(ValueError) as caught:
            F.batch_norm(Tensor(x), gamma=Tensor(one), beta=Tensor(one), running_mean=mean, running_var=var)
        return str(caught.value)

    assert "x.transpose(0, 2, 3, 1)" in message((2, 3, 4, 5), 3, 3)
    for shape, channels, variances in (
        ((2, 3, 4), 3, 3),
        ((2, 3, 4, 5, 6), 3, 3),
        ((2, 3, 4, 5), 4, 4),
        ((2, 3, 4, 5), 3, 5),
    ):
        assert "transpose" not in message(shape, channels, variances)


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
@pytest.mark.parametrize("training", [True, False])
def test_running_statistics_are_arrays(name, training):
    """As Tensors they would stay as they are, without a word."""
    one, zero = Tensor(np.ones(2)), Tensor(np.zeros(2))
    running = {"running_mean": np.zeros(2), "running_var": np.ones(2), name: one}
    with pytest.raises(TypeError, match=f"^batch_norm: {name} is an array, which it updates"):
        F.batch_norm(Tensor(normal(3, 2)), gamma=one, beta=zero, **running, training=training)


def test_a_call_that_is_refused_changes_nothing():
    running = {"running_mean": np.zeros(2, np.float32), "running_var": np.ones(2, np.float32)}
    x, gamma = (
        Tensor(np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)),
        Tensor(np.ones(2, np.float32)),
    )
    for change, error in (
        ({"beta": Tensor(np.ones(2))}, TypeError), ({"momentum": 1.5}, ValueError), ({"momentum": "1"}, ValueError),
        ({"eps": -1e-9}, ValueError), ({"training": 2}, ValueError), ({"running_var": np.ones(2, int)}, TypeError),
        ({"gamma": "a"}, TypeError), ({"beta": [1.0, 1.0]}, TypeError),
    ):  # fmt: skip
        name = next(iter(change)) if "beta" not in change or isinstance(change["beta"], list) else "float32 and float64"
        given = {"gamma": gamma, "beta": gamma, "training": True, **running, **change}
        fails(error, name, F.batch_norm, x, **given)
    assert running["running_mean"].tolist() == [0, 0] and running["running_var"].tolist() == [1, 1]


def test_what_is_no_tensor_and_no_setting():
    one = {
        "gamma": Tensor(np.ones(2)),
        "beta": Tensor(np.ones(2)),
        "running_mean": np.zeros(2),
        "running_var": np.ones(2),
    }
    x = Tensor(np.ones((3, 2)))
    for name in ("x", "gamma", "beta"):
        given = {"x": x, **one, name: np.ones((3, 2) if name == "x" else 2)}
        fails(TypeError, f"^batch_norm: {name} must be a Tensor, not an array", F.batch_norm, **given)
    fails(ValueError, "^batch_norm: training is False or True, not 'no'$", F.batch_norm, x, **one, training="no")
    for name, wrong in (("momentum", (1.5, -0.1, "1")), ("eps", (-1e-9, np.nan, None))):
        for value in wrong:
            fails(
                ValueError,
                f"^batch_norm: {name} must be a .*number from 0.*, not ",
                F.batch_norm,
                x,
                **one,
                **{name: value},
            )
    assert F.batch_norm(x, **one, eps=0, momentum=1).shape == (3, 2)


@pytest.mark.parametrize("f", [training, evaluation(np.array([2.5]), np.array([0.3]))], ids=["training", "evaluation"])
def test_integers_become_the_dtype_of_the_weights(f):
    x, one, zero = np.array([[1], [3], [8]]), Tensor(np.ones(1)), Tensor(np.zeros(1))
    found, expected = f(Tensor(x), one, zero), f(Tensor(x.astype(float)), one, zero)
    assert_array_equal(found.data, expected.data, strict=True)


def test_evaluation_makes_integers_float32():
    arrays = np.array([[1], [3], [8]]), np.ones(1, int), np.zeros(1, int)
    y = apply(module.BatchNorm(0.0, np.array([[3.0], [4.0]], np.float32)), *[Tensor(array) for array in arrays])
    assert y.dtype == np.float32 and y.data.ravel().tolist() == [-1, 0, 2.5]


@pytest.mark.parametrize("wanted", [flags for flags in product([False, True], repeat=3) if any(flags)])
def test_any_of_the_gradients_of_evaluation_alone(wanted):
    gradients_alone(lambda: module.BatchNorm(1e-3, np.ones((2, 3))), [(5, 3), (3,), (3,)], wanted)
