"""SGD and Adam on a GPU: many parameters at once, and mistakes. That they are right is in test_kernels_agreement.py."""

import importlib

import numpy as np
import pytest
from agreement import agrees, normal
from hypothesis import given
from kernel_table import DECAY, RATE, parameters

from minicnn import Tensor, nn, optim
from minicnn.backends.cuda import launch
from minicnn.backends.cuda import optimizer as kernels

lesson = importlib.import_module("minicnn.optim.optimizer")


@pytest.mark.parametrize("count", [24, 25, 60])
def test_many_parameters(gpu, count):
    shapes = [(1 + i % 9,) for i in range(count)]
    parameters = [tuple(normal(*shape, seed=100 * i + k) for k in range(4)) for i, shape in enumerate(shapes)]
    for nesterov in (False, True):
        some = [arrays[:3] for arrays in parameters]
        agrees(gpu, kernels.sgd, lesson.sgd, some, 0.1, 0.9, 0.1, nesterov, False)
    parameters = [(w, g, m, abs(v)) for w, g, m, v in parameters]
    agrees(gpu, kernels.adam, lesson.adam, parameters, lesson.AdamStep(0.1, 0.8, 0.99, 1e-3, 0.1, 0.9))


@given(parameters(1), RATE, DECAY)
def test_the_naive_kernel(gpu, some, lr, weight_decay):
    """One launch for each parameter, of which the largest takes two blocks."""

    def sgd_naive(every, lr, momentum, weight_decay, nesterov, paper):
        for w, g, v in every:
            numbers = w.size, lr, momentum, weight_decay
            launch.launch("optimizer.sgd_naive", w.size, w, launch.contiguous(g), v, *numbers, real=w.dtype, MOST=1)

    agrees(gpu, sgd_naive, lesson.sgd, some, lr, 0.5, weight_decay, False, False)


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


def test_momentum_that_is_set_on_the_way(gpu):
    """As on a CPU."""
    p = nn.Parameter(Tensor(np.ones(3, np.float32), device="gpu").data)
    p.grad = Tensor(np.ones(3, np.float32), device="gpu")
    optimizer = optim.SGD([p], 0.5, momentum=0.9)
    optimizer.step()
    optimizer.param_groups[0]["momentum"] = 0.0
    optimizer.step()
    assert p.data.get().tolist() == [0, 0, 0]
    optimizer = optim.SGD([p], 0.5)
    optimizer.param_groups[0]["momentum"] = 0.9
    with pytest.raises(ValueError, match=r"'velocity'.*make a new optimizer"):
        optimizer.step()
