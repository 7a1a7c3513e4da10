"""minicnn/functional/lrn.py: local response normalization. α is near 1 here: at the paper's 1e-4 a channel too few in
the sum would change the result by 1e-5 and pass."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference import agree, arrays, normal, refuses

import minicnn
import minicnn.functional as F
from minicnn import Tensor, grad, gradcheck
from minicnn.functional import lrn
from minicnn.tensor import apply

SHAPES = st.one_of(
    st.tuples(st.integers(1, 6)),
    st.tuples(st.integers(0, 3), st.integers(1, 6)),
    st.tuples(st.integers(0, 3), st.integers(1, 2), st.integers(1, 3), st.integers(1, 7)),
)


@given(
    st.data(),
    SHAPES,
    st.fixed_dictionaries(
        dict(
            n=st.integers(1, 8),
            k=st.sampled_from([0.5, 1.0, 2.0]),
            alpha=st.sampled_from([0.7, 1.0, 1.3]),
            beta=st.sampled_from([0.75, 0.5, 1.5]),
        )
    ),
)
def test_is_the_equation(data, shape, options):
    agree(F.local_response_norm, reference.local_response_norm, data.draw(arrays(shape)), **options)


def test_defaults_are_the_papers_constants():
    a = 100 * normal(3, 8)
    b = F.local_response_norm(Tensor(a)).data
    assert_allclose(b[:, 3], a[:, 3] / (2 + 1e-4 * (a[:, 1:6] ** 2).sum(1)) ** 0.75, rtol=1e-12)
    agree(F.local_response_norm, reference.local_response_norm, a)


def test_integers_become_real_numbers():
    b = F.local_response_norm(Tensor(np.array([200, 100], np.uint8)), alpha=1.0)
    assert b.dtype == np.float32
    assert_allclose(b.data, np.array([200, 100]) / 50002**0.75, rtol=1e-6)


def test_the_window():
    """A sum, not a mean, over c − n//2 … c + (n−1)//2; its transpose mirrors it."""
    a = Tensor(np.array([0.0, 0, 1, 0, 0]), requires_grad=True)
    for n, seen_by in ((1, [2]), (2, [2, 3]), (3, [1, 2, 3]), (4, [1, 2, 3, 4]), (5, [0, 1, 2, 3, 4])):
        b = F.local_response_norm(a + 1e-9, n, k=1.0, alpha=3.0, beta=1.0)
        assert np.flatnonzero(b.data < 0.9e-9).tolist() == [c for c in seen_by if c != 2]
        assert b.data[2] == pytest.approx(1 / 4)
        ones = F.local_response_norm(Tensor(np.ones(9), requires_grad=True), n, k=0.0, alpha=1.0, beta=1.0)
        assert ones.data[4] == pytest.approx(1 / n)


def test_third_derivatives():
    def second(a, g, v):
        with_grad = [t if t.requires_grad else Tensor(t.data, requires_grad=True) for t in (a, g)]
        b = F.local_response_norm(with_grad[0], n=2, alpha=1.0)
        (da,) = grad(b, with_grad[0], with_grad[1], create_graph=True)
        return grad(da, with_grad, v, create_graph=True)

    a, g, v = (Tensor(normal(2, 3, seed=i), requires_grad=True) for i in range(3))
    by_a, by_g = second(a, g, v)
    flow = normal(2, 2, 3, seed=4)
    thirds = grad((by_a, by_g), (a, g, v), [Tensor(f) for f in flow])
    for i, third in enumerate(thirds):
        direction = normal(2, 3, seed=5 + i)
        sides = []
        for sign in (1, -1):
            moved = [Tensor(t.data + sign * 1e-5 * direction * (i == j)) for j, t in enumerate((a, g, v))]
            sides.append(sum((f * s.data).sum() for f, s in zip(flow, second(*moved), strict=True)))
        assert_allclose((third.data * direction).sum(), (sides[0] - sides[1]) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize("n", range(7, 12))
def test_a_pixel_does_not_see_its_neighbors(n):
    a = normal(2, 3, 4)
    a[0, 1, 0] = a[1, 2, 3] = np.nan
    x = Tensor(a, requires_grad=True)
    b = F.local_response_norm(x, n=n)
    b.backward(np.ones(a.shape))
    expected = np.zeros((2, 3, 4), bool)
    expected[0, 1] = expected[1, 2] = True
    if n == 7:
        assert_array_equal(np.isnan(b.data), expected)
        assert_array_equal(np.isnan(x.grad.data), expected)
    assert_array_equal(np.isnan(b.data).any(-1), expected.any(-1))
    assert_array_equal(np.isnan(x.grad.data).any(-1), expected.any(-1))


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_second_derivatives_with_a_constant(wanted):
    inputs = [Tensor(normal(2, 5, seed=i), requires_grad=flag) for i, flag in enumerate(wanted)]
    assert gradcheck(lambda g, a: apply(lrn.LocalResponseNormBackward(lrn.Constants(4, 1.0, 0.9, 0.75)), g, a), inputs)


def test_only_the_wanted_second_gradient_is_computed(monkeypatch):
    sums, real = [], lrn.sum_window
    monkeypatch.setattr(lrn, "sum_window", lambda *args: sums.append(args) or real(*args))
    a, g = Tensor(normal(2, 4), requires_grad=True), Tensor(normal(2, 4, seed=1), requires_grad=True)
    counts = []
    for wanted in ([g], [a, g]):
        (da,) = grad(F.local_response_norm(a, n=3), a, g, create_graph=True)
        sums.clear()
        grad(da, wanted, Tensor(np.ones((2, 4))))
        counts.append(len(sums))
    assert counts[0] < counts[1]


def test_what_does_not_fit():
    with refuses(ValueError, "local_response_norm needs x of", "not of shape ()"):
        F.local_response_norm(Tensor(1.0))
    for name, value in (("k", "2"), ("alpha", np.nan), ("beta", np.inf)):
        with refuses(ValueError, f"local_response_norm: {name} must be a finite number, not {value!r}"):
            F.local_response_norm(Tensor(np.ones(3)), **{name: value})


@pytest.mark.parametrize("backend", [None, "reference"])
def test_a_window_wider_than_all_channels(backend):
    """It sees the same channels, so that it takes no longer, however wide it is."""
    x = Tensor(normal(2, 4), requires_grad=True)
    with minicnn.use_backend(backend):
        expected, found = (F.local_response_norm(x, n) for n in (9, 10**18))
        assert_array_equal(found.numpy(), expected.numpy())
        assert_allclose(found.numpy(), F.local_response_norm(x, 10).numpy(), rtol=1e-14)
        assert not np.array_equal(found.numpy(), F.local_response_norm(x, 6).numpy())
        assert F.local_response_norm(Tensor(np.ones((2, 0))), 3).shape == (2, 0)


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("name", ["k", "alpha", "beta"])
def test_constants_that_are_numpys_numbers(backend, name):
    """float64's, they do not make float32 images float64."""
    x = Tensor(np.ones((2, 8), np.float32), requires_grad=True)
    with minicnn.use_backend(backend):
        y = F.local_response_norm(x, **{name: np.float64(2)})
        y.sum().backward()
    assert y.dtype == x.grad.dtype == np.float32


@pytest.mark.parametrize("n", [2.5, "5", None, 0, -1])
def test_n_is_an_integer(n):
    with refuses(ValueError, f"local_response_norm: n must be a whole number from 1, not {n!r}"):
        F.local_response_norm(Tensor(np.ones(3)), n)
