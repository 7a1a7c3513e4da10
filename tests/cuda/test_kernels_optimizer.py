"""SGD and Adam on a GPU against those on a CPU."""

import host
import numpy as np
import pytest
from agreement import DTYPES, normal, there
from hypothesis import given
from hypothesis import strategies as st

from minicnn import Tensor, optim
from minicnn.backends.cuda import optimizer as kernels

SHAPES = st.lists(
    st.sampled_from([(), (1,), (3,), (4,), (2, 3), (8,), (5, 5), (40, 7), (300,), (0,), (16, 16)]), min_size=1
)
SGD = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "momentum": {"momentum": 0.9},
    "all of it": {"momentum": 1.0},
    "both": {"momentum": 0.9, "weight_decay": 0.1},
    "nesterov": {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
    "paper": {"momentum": 0.9, "weight_decay": 0.1, "paper_update": True},
    "paper, plain": {"weight_decay": 0.1, "paper_update": True},
}


def on_a_cpu(optimizer, gradients):
    """What step does to parameters, and to the optimizer's arrays: [(w, g, …), …] before and after."""
    slots = [optimizer.state[slot] for slot in optimizer.slots]
    for seed, arrays in enumerate(slots):
        for array in arrays:
            array[...] = abs(normal(*array.shape, seed=seed + 2))
    for p, g in zip(optimizer.params, gradients, strict=True):
        p.grad = Tensor(g)
    every = [
        (p.data, g, *(slot[i] for slot in slots))
        for i, (p, g) in enumerate(zip(optimizer.params, gradients, strict=True))
    ]
    before = [tuple(array.copy() for array in arrays) for arrays in every]
    optimizer.step()
    return before, every


def check(gpu, shapes, dtype, make, step, layout="contiguous"):
    """The kernel changes what it should as the CPU does, and leaves gradients alone."""
    params = [Tensor(normal(*shape, seed=i).astype(dtype), requires_grad=True) for i, shape in enumerate(shapes)]
    gradients = [normal(*shape, seed=1000 + i).astype(dtype) for i, shape in enumerate(shapes)]
    optimizer = make(params)
    optimizer.steps = 2
    before, after = on_a_cpu(optimizer, gradients)

    def run():
        moved = [tuple(there(gpu, array, layout) for array in arrays) for arrays in before]
        step(optimizer, moved)
        return [array.get() for arrays in moved for array in arrays]

    results = run()
    tolerance = 1e-12 if dtype == np.float64 else 2e-6
    for result, wanted in zip(results, [array for arrays in after for array in arrays], strict=True):
        np.testing.assert_allclose(result, wanted, rtol=tolerance, atol=tolerance)
    with host.backwards():
        for again, result in zip(run(), results, strict=True):
            np.testing.assert_array_equal(again, result)


def sgd(optimizer, every):
    o = optimizer
    kernels.sgd(every, o.lr, o.momentum, o.weight_decay, o.nesterov, o.paper_update)


def adam(optimizer, every):
    o = optimizer
    kernels.adam(every, o.lr, *o.betas, o.eps, o.weight_decay, o.steps)


DTYPE, LAYOUT = st.sampled_from(DTYPES), st.sampled_from(["contiguous", "shifted"])


@given(SHAPES, DTYPE, st.sampled_from(sorted(SGD)), LAYOUT)
def test_sgd(gpu, shapes, dtype, options, layout):
    check(gpu, shapes, dtype, lambda params: optim.SGD(params, 0.1, **SGD[options]), sgd, layout)


@given(SHAPES, DTYPE, st.sampled_from([0.0, 0.1]), LAYOUT)
def test_adam(gpu, shapes, dtype, decay, layout):
    check(gpu, shapes, dtype, lambda params: optim.Adam(params, 0.1, (0.8, 0.99), 1e-3, decay), adam, layout)


@pytest.mark.parametrize("count", [24, 25, 60])
def test_many_parameters(gpu, count):
    shapes = [(1 + i % 9,) for i in range(count)]
    check(gpu, shapes, np.float32, lambda params: optim.SGD(params, 0.1, momentum=0.9), sgd)


def test_a_gradient_with_gaps(gpu):
    w, g = gpu.asarray(np.ones((3, 4), np.float32)), gpu.asarray(normal(4, 3).astype(np.float32))
    kernels.sgd([(w, g.T)], 0.5, 0.0, 0.0, False, False)
    np.testing.assert_allclose(w.get(), 1 - 0.5 * normal(4, 3).T, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("count, launches", [(1, 1), (24, 1), (25, 2)])
def test_launches(standin, count, launches):
    import cupy

    every = [(cupy.ones(8, np.float32), cupy.ones(8, np.float32)) for _ in range(count)]
    standin.log.clear()
    kernels.sgd(every, 0.1, 0.0, 0.0, False, False)
    assert [entry.kind for entry in standin.log] == ["kernel"] * launches


def test_mistakes(gpu):
    x = gpu.asarray(np.ones((4, 4), np.float32))
    for wrong, error, words in [
        ((x, x), ValueError, "takes 3 arrays for each parameter, not 2"),
        ((x, x, x, x), ValueError, "takes 3 arrays for each parameter, not 4"),
        ((x.T[1:], x, x), ValueError, "not contiguous"),
        ((x, x, x[1:]), ValueError, r"a parameter of shape \(4, 4\) has shape \(3, 4\)"),
        ((x, x.astype(np.float64), x), TypeError, "must be float32, not float64"),
        ((x, np.ones((4, 4), np.float32), x), TypeError, "must be an array on a GPU, not ndarray"),
    ]:
        with pytest.raises(error, match=words) as caught:
            kernels.sgd([wrong], 0.1, 0.9, 0.0, False, False)
        assert "\n" not in str(caught.value)
