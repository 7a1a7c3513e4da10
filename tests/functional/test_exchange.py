"""Exchanges between workers: the derivatives across workers, and what a crew of threads computes."""

import numpy as np
import pytest
from crew import Together, crew
from numpy.testing import assert_array_equal
from reference import differentiable, normal, refuses

from minicnn import Tensor
from minicnn import functional as F
from minicnn.workers import Workers

__all__ = ["crew"]
PARTS = [(2, 3, 4), (5, 0, 1), (3, 0, 0), (1, 1, 1)]  # lengths along an axis
AXES = [(0, (3,)), (-1, (2, 4)), (1, (2, 1, 3)), (-2, (5, 2)), (0, (1, 0, 2))]  # of arrays with these shapes


def test_values():
    x = np.arange(12.0).reshape(2, 2, 3)  # two workers, each with 2 × 3
    both = Together(2)
    assert_array_equal(F.all_gather(Tensor(x), both).data, [[[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]]] * 2)
    assert_array_equal(F.all_gather(Tensor(x), both, 1).data, [np.arange(12).reshape(4, 3)] * 2)
    assert_array_equal(F.reduce_scatter(Tensor(x), both, [1, 1], -2).data, [[[6, 8, 10]], [[12, 14, 16]]])
    assert_array_equal(F.all_reduce(Tensor(x), both).data, [[[6, 8, 10], [12, 14, 16]]] * 2)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("axis", [-1, -2, 1, 2])
def test_derivatives_across_workers(size, axis):
    workers = Together(size)
    x, wide = normal(size, 2, 3), normal(size, *(size * n for n in (2, 3)))
    length = wide.shape[axis] // size
    differentiable(lambda x: F.all_gather(x * x, workers, axis), x)
    differentiable(lambda x: F.reduce_scatter(x * x, workers, [length] * size, axis), wide)
    differentiable(lambda x: F.all_reduce(x * x, workers), x)


def test_a_network_in_two_halves():
    """A linear layer whose columns two workers share, then one whose rows they share, has the gradients of the whole
    one: each takes half of the loss that both compute."""
    x, w, v = normal(4, 3), normal(3, 6, seed=1), normal(6, 2, seed=2)
    both = Together(2)

    def loss(y):
        return (y * y).sum()

    tx, tw, tv = (Tensor(a, requires_grad=True) for a in (x, w, v))
    loss(F.relu(tx @ tw) @ tv).backward()
    hx = Tensor(np.stack([x, x]), requires_grad=True)
    hw = Tensor(np.stack([w[:, :3], w[:, 3:]]), requires_grad=True)
    hv = Tensor(np.stack([v[:3], v[3:]]), requires_grad=True)
    y = F.all_reduce(F.relu(hx @ hw) @ hv, both)
    (loss(y) / 2).backward()
    np.testing.assert_allclose(hw.grad.data, np.stack([tw.grad.data[:, :3], tw.grad.data[:, 3:]]), rtol=1e-12)
    np.testing.assert_allclose(hv.grad.data, np.stack([tv.grad.data[:3], tv.grad.data[3:]]), rtol=1e-12)
    np.testing.assert_allclose(hx.grad.data.sum(0), tx.grad.data, rtol=1e-12)


def test_one_worker_exchanges_with_nobody():
    x, alone = Tensor(normal(2, 3), requires_grad=True), Workers()
    for y in F.all_gather(x, alone), F.all_gather(x, alone, 0), F.reduce_scatter(x, alone, [3]), F.all_reduce(x, alone):
        assert_array_equal(y.data, x.data)
        assert_array_equal(F.all_reduce(y, alone).data, x.data)
    F.all_reduce(x, alone).sum().backward()
    assert_array_equal(x.grad.data, np.ones((2, 3)))


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize(("axis", "shape"), AXES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_unequal_parts(crew, parts, axis, shape, dtype):
    """Values and gradients, of small integers, so that sums are exact."""

    def small(seed, length):
        sizes = [*shape]
        sizes[axis] = length
        return np.random.default_rng(seed).integers(-9, 10, sizes).astype(dtype)

    def work(workers):
        r = workers.rank
        x = Tensor(small(r, parts[r]), requires_grad=True)
        wide = Tensor(small(10 + r, sum(parts)), requires_grad=True)
        y, z = F.all_gather(x, workers, axis), F.reduce_scatter(wide, workers, parts, axis)
        total = F.all_reduce(wide, workers)
        y.backward(small(20 + r, sum(parts)))
        z.backward(small(30 + r, parts[r]))
        dx, dwide, wide.grad = x.grad.data, wide.grad.data, None
        total.backward(small(40 + r, sum(parts)))
        return y.data, dx, z.data, dwide, total.data, wide.grad.data

    places = np.cumsum(parts)[:-1]
    ys = np.concatenate([small(s, n) for s, n in enumerate(parts)], axis)
    dxs = np.split(sum(small(20 + s, sum(parts)) for s in range(3)), places, axis)
    sums = sum(small(10 + s, sum(parts)) for s in range(3))
    dwide = np.concatenate([small(30 + s, n) for s, n in enumerate(parts)], axis)
    dsums = sum(small(40 + s, sum(parts)) for s in range(3))
    for r, found in enumerate(crew(3, work)):
        expected = ys, dxs[r], np.split(sums, places, axis)[r], dwide, sums, dsums
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == dtype
            assert_array_equal(a, b)


def test_an_input_stays_as_it_is_and_need_not_be_contiguous(crew):
    def work(workers):
        x = np.arange(6.0).reshape(2, 3).T + workers.rank
        y = (
            F.all_gather(Tensor(x), workers),
            F.reduce_scatter(Tensor(x), workers, [2, 1], 0),
            F.all_reduce(Tensor(x), workers),
        )
        assert_array_equal(x, np.arange(6.0).reshape(2, 3).T + workers.rank)
        return [t.data for t in y]

    x = np.arange(6.0).reshape(2, 3).T
    for r, (gathered, scattered, total) in enumerate(crew(2, work)):
        assert_array_equal(gathered, np.concatenate([x, x + 1], -1))
        assert_array_equal(scattered, (2 * x + 1)[[slice(2), slice(2, 3)][r]])
        assert_array_equal(total, 2 * x + 1)


def test_mistakes():
    x = Tensor(normal(3, 2, 4))
    three = Together(3)
    with refuses(ValueError, "all_gather", "(3, 2, 4)", "no axis 3"):
        F.all_gather(x, three, 3)
    with refuses(ValueError, "reduce_scatter", "no axis -4"):
        F.reduce_scatter(x, three, [4, 0, 0], -4)
    for lengths in ([2, 2], [1, 1, 1], [5, -1, 0], [2, 2, 0, 0]):
        with refuses(ValueError, "reduce_scatter: 3 lengths", "add up to 4", "axis -1", f"not {lengths}"):
            F.reduce_scatter(x, three, lengths)


def test_what_is_no_worker_and_no_axis():
    x, alone = Tensor([1.0, 2.0]), Workers()
    for name, arguments in (("all_gather", ()), ("reduce_scatter", ([2],)), ("all_reduce", ())):
        function = getattr(F, name)
        with refuses(TypeError, f"{name}: workers are what distributed.start() returns, not 'a'"):
            function(x, "a", *arguments)
        with refuses(TypeError, f"{name}: x must be a Tensor, not [1.0]"):
            function([1.0], alone, *arguments)
        if name != "all_reduce":
            for axis in (None, 1.5, "0"):
                with refuses(ValueError, f"{name}: axis must be a whole number, not {axis!r}"):
                    function(x, alone, *arguments, axis=axis)
    with refuses(TypeError, "reduce_scatter: lengths must be a list, not 2"):
        F.reduce_scatter(x, alone, 2)
    with refuses(ValueError, "reduce_scatter: each of the lengths must be a whole number, not 2.0"):
        F.reduce_scatter(x, alone, [2.0])
