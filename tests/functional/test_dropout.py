"""minicnn/functional/dropout.py"""

import importlib
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from reference import arrays, fails, normal, refuses

import minicnn
import minicnn.functional as F
from minicnn import Tensor, manual_seed
from minicnn.backends import numpy as fast
from minicnn.random import generator, rows_before

module = importlib.import_module("minicnn.functional.dropout")  # the function has its name


SCALES = ("training", "evaluation")


def seeded(x, p=0.4, scale="training"):
    manual_seed(5)
    return F.dropout(x, p, scale=scale)


@pytest.mark.parametrize("scale", SCALES)
@given(st.data(), st.lists(st.integers(0, 4), max_size=4).map(tuple), st.sampled_from([0.1, 0.5, 0.8]))
def test_each_number_is_dropped_or_scaled(scale, data, shape, p):
    x = data.draw(arrays(shape)) if shape else np.array(1.5)
    before, tensor = x.copy(), Tensor(x, requires_grad=True)
    y = F.dropout(tensor, p, scale=scale)
    y.backward(np.full(shape, 3, x.dtype))
    assert y.shape == x.shape and y.dtype == tensor.grad.dtype == x.dtype
    s, kept = x.dtype.type(1 / (1 - p) if scale == "training" else 1), y.data != 0
    assert_array_equal(y.data, np.where(kept, x * s, 0))
    assert_array_equal(tensor.grad.data, np.where(kept, 3 * s, 0))
    assert_array_equal(x, before)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_evaluation_gives_what_training_does_on_average(p, scale):
    n = 100_000
    y = F.dropout(Tensor(np.ones(n)), p, True, scale=scale).data
    expected = 1 if scale == "training" else 1 - p
    five_sigma = 5 * np.sqrt(p * (1 - p) / n)
    assert abs((y == 0).mean() - p) < five_sigma
    assert abs(y.mean() / expected - 1) < five_sigma / (1 - p)
    assert abs((y[1:] * y[:-1] == 0).mean() - (1 - (1 - p) ** 2)) < 2 * five_sigma  # neighbors are independent
    assert_array_equal(F.dropout(Tensor(np.ones(3)), p, False, scale=scale).data, expected)


@given(arrays((3, 4)), st.sampled_from([0.1, 0.5, 1]))
def test_the_papers_evaluation_multiplies_by_what_is_kept(x, p):
    before, tensor, state = x.copy(), Tensor(x, requires_grad=True), minicnn.random.random_state()
    y = F.dropout(tensor, p, training=False, scale="evaluation")
    y.backward(np.full(x.shape, 3, x.dtype))
    assert y.dtype == x.dtype and minicnn.random.random_state() == state
    assert_array_equal(y.data, x * x.dtype.type(1 - p))
    assert_array_equal(tensor.grad.data, np.full(x.shape, x.dtype.type(1 - p)) * 3)
    assert_array_equal(x, before)


def test_both_scales_draw_the_same_masks():
    x = normal(6, 5)
    np.testing.assert_allclose(seeded(Tensor(x)).data * 0.6, seeded(Tensor(x), scale="evaluation").data, rtol=1e-15)


def test_half_is_the_default_and_training_too():
    x = Tensor(np.ones(1000))
    manual_seed(1)
    y = F.dropout(x)
    assert set(y.data.tolist()) == {0.0, 2.0}
    manual_seed(1)
    assert_array_equal(y.data, F.dropout(x, 0.5, True).data)


def test_a_large_result_is_on_recycled_memory():
    x = np.ones((fast.memory.LARGE // 8, 2), np.float32)
    y = module.drop(x, 0.5, (1, 2), 0, 2.0)
    assert not y.flags.owndata and y.shape == x.shape and 0.45 < y.mean() / 2 < 0.55


def test_nothing_is_kept_for_the_gradient_but_the_key():
    x = Tensor(np.ones((3, 4), np.float32), requires_grad=True)
    node = F.dropout(x, 0.5).grad_fn
    assert not any(isinstance(value, (np.ndarray, Tensor)) for value in (*vars(node).values(), *node.saved_inputs))


def test_without_dropping():
    x = Tensor(normal(3), requires_grad=True)
    state = minicnn.random.random_state()
    for p in (0, 0.5, 1):
        assert F.dropout(x, p, training=False) is x
    for training in (True, False):
        assert F.dropout(x, 0.0, training) is F.dropout(x, 0, training, scale="evaluation") is x
    assert minicnn.random.random_state() == state


@pytest.mark.parametrize("backend", ["numpy", "reference"])
def test_the_share_below_p_is_dropped(monkeypatch, backend):
    class Numbers:
        def random(self, shape=None, dtype=None, out=None):
            out = np.empty(shape, dtype) if out is None else out
            out[...] = np.array([0, 0.25 - 1e-7, 0.25, 0.75], dtype)
            return out

    for each in (module, fast.dropout):
        monkeypatch.setattr(each, "generator", lambda key, first: Numbers())
    with minicnn.use_backend(backend):
        assert F.dropout(Tensor(np.full(4, 3.0)), 0.25).data.tolist() == [0, 0, 4, 4]


def test_draws_follow_from_the_seed():
    x = Tensor(np.ones((50, 20), np.float32))
    manual_seed(3)
    first, second = F.dropout(x).data, F.dropout(x).data
    assert not np.array_equal(first, second)
    assert minicnn.random.random_state() == (3, 2)  # one draw for each call
    manual_seed(3)
    assert_array_equal(F.dropout(x).data, first)
    assert_array_equal(F.dropout(x).data, second)
    manual_seed(4)
    assert not np.array_equal(F.dropout(x).data, first)


def trained(x, row, p, scale):
    """Dropout of x, which has the rows of a batch from `row` on, and its gradient, asked for after the statement."""
    manual_seed(5)
    tensor = Tensor(x, requires_grad=True)
    with rows_before(row):
        y = F.dropout(tensor, p, scale=scale)
    y.backward(x + 1)
    return y.data, tensor.grad.data


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("scale", SCALES)
@given(
    st.lists(st.integers(0, 12), max_size=3), st.sampled_from([(), (1,), (3,), (8,), (5, 7), (2, 0), (2, 3, 5)]),
    st.sampled_from([np.float32, np.float64, np.float16]), st.sampled_from([0.3, 0.5]),
)  # fmt: skip
def test_processes_that_share_a_batch_drop_what_one_does(backend, scale, cuts, row, dtype, p):
    x = np.arange(1, 1 + 12 * np.prod(row, dtype=int), dtype=dtype).reshape(12, *row)
    with minicnn.use_backend(backend):
        whole = trained(x, 0, p, scale)
        for lo, hi in itertools.pairwise([0, *sorted(cuts), 12]):  # some have no rows
            for part, all_rows in zip(trained(x[lo:hi], lo, p, scale), whole, strict=True):
                assert_array_equal(part, all_rows[lo:hi], strict=True)
            assert minicnn.random.random_state() == (5, 1)


def test_a_number_has_no_rows():
    """All processes have the same one."""
    x = Tensor(np.array(3.0))
    kept = [generator((3, i)).random(dtype=np.float32) >= 0.5 for i in range(20)]
    for row in (0, 7):
        manual_seed(3)
        with rows_before(row):
            assert [F.dropout(x).item() for _ in range(20)] == [6 * keep for keep in kept]
    assert set(kept) == {True, False}


def test_integers_become_float32():
    for dtype, expected in ((np.float32, np.float32), (np.float64, np.float64), (np.int64, np.float32)):
        x = Tensor(np.ones(3, dtype))
        for p in (0.5, 1):
            assert F.dropout(x, p).dtype == F.dropout(x, p, False, scale="evaluation").dtype == expected


@pytest.mark.parametrize("p", [-0.01, 1.01, float("nan"), float("inf")])
@pytest.mark.parametrize("training", [True, False])
def test_what_is_no_probability(p, training):
    with refuses(ValueError, "dropout", "from 0 to 1", str(p)):
        F.dropout(Tensor(np.ones(2)), p, training)


@pytest.mark.parametrize("scale", ["train", "", None, 2.0])
@pytest.mark.parametrize("p, training", [(0.5, True), (0.5, False), (0, True)])
def test_what_is_no_scale(scale, p, training):
    with refuses(ValueError, "dropout", "'training' or 'evaluation'", repr(scale)):
        F.dropout(Tensor(np.ones(2)), p, training, scale=scale)


@pytest.mark.parametrize("backend", [None, "reference"])
def test_a_probability_that_is_numpys_number(backend):
    """float64's, it does not make float32 images float64."""
    x = Tensor(np.ones(8, np.float32), requires_grad=True)
    with minicnn.use_backend(backend):
        y = F.dropout(x, np.float64(0.5))
        y.sum().backward()
    assert y.dtype == x.grad.dtype == np.float32


def test_what_is_not_dropped():
    fails(ValueError, "^dropout: training is False or True, not 'no'$", F.dropout, Tensor([1.0]), training="no")
    fails(TypeError, "^dropout: x must be a Tensor, not an array", F.dropout, np.ones(2))
