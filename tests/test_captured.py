"""minicnn/captured.py on the CPU, where nothing is captured; with a GPU: tests/cuda/test_graph.py."""

import numpy as np
import pytest

from minicnn import Captured, Tensor, nn


def test_on_a_cpu_the_function_runs_each_time():
    layer, runs = nn.Linear(3, 2), []

    def passes(x, scale):
        runs.append(x.shape)
        y = layer(x) * scale
        y.sum().backward()
        return y, (y.sum(), None)

    captured = Captured(passes, layer)
    x, scale = Tensor(np.ones((4, 3), np.float32)), Tensor(2.0)
    for _ in range(3):
        layer.weight.grad = Tensor(np.ones((3, 2), np.float32))  # forgotten
        y, (total, nothing) = captured(x, scale)
        np.testing.assert_array_equal(layer.weight.grad.numpy(), np.full((3, 2), 8.0))
    assert len(runs) == 3 and nothing is None
    assert not y.requires_grad and not total.requires_grad and y.shape == (4, 2)


@pytest.mark.parametrize(
    "inputs, error, message",
    [
        ((np.ones(3),), TypeError, r"Captured: the function's inputs are Tensors, not "),
        ((Tensor(1.0), 2.0), TypeError, r"Captured: the function's inputs are Tensors, not 2\.0"),
        ((Tensor(1.0, requires_grad=True),), ValueError, r"Captured: an input that requires a gradient"),
        ((), ValueError, r"Captured: inputs on one device, not on none"),
    ],
)
def test_inputs_that_do_not_fit(inputs, error, message):
    with pytest.raises(error, match=message):
        Captured(lambda *inputs: None, nn.ReLU())(*inputs)


def test_results_that_do_not_fit():
    for result in (1.0, [Tensor(1.0)], np.ones(3), (Tensor(1.0), 2)):
        with pytest.raises(TypeError, match="Captured: the function returns Tensors, a tuple of them, or None, not "):
            Captured(lambda x, result=result: result, nn.ReLU())(Tensor(1.0))


def test_what_is_captured_is_a_function_with_a_module():
    for arguments in ((nn.ReLU(), None), (3, nn.ReLU())):
        with pytest.raises(TypeError, match="Captured: a function and a Module, not "):
            Captured(*arguments)


def test_the_callers_results_are_copies():
    layer = nn.Linear(3, 2)
    captured, x = Captured(lambda x: (layer.weight.detach(), x), layer), Tensor(np.ones((1, 3), np.float32))
    weight, same = captured(x)
    before = weight.numpy().copy()
    layer.weight.data[...] = 7
    x.data[...] = 7
    np.testing.assert_array_equal(weight.numpy(), before)
    np.testing.assert_array_equal(same.numpy(), 1)


def test_a_captured_is_not_called_inside_another_one():
    layer = nn.Linear(3, 2)
    inner = Captured(layer, layer)
    outer = Captured(lambda x: inner(x), layer)
    x = Tensor(np.ones((1, 3), np.float32))
    with pytest.raises(RuntimeError, match=r"^a Captured was called inside another one: call its function instead$"):
        outer(x)
    assert inner(x).shape == (1, 2)


def test_gradients_stay_in_the_module():
    layer, head, x = nn.Linear(3, 2), nn.Linear(2, 1, bias=False), Tensor(np.ones((1, 3), np.float32))
    factor = Tensor(np.ones((1, 2), np.float32), requires_grad=True)
    for passes, shape in (
        (lambda x: head(layer(x)).sum().backward(), r"\(2, 1\)"), (lambda x: (layer(x) * factor).sum().backward(), r"\(1, 2\)"),
    ):  # fmt: skip
        words = f"a gradient went to a Tensor of shape {shape} that is not a parameter of the Linear"
        with pytest.raises(ValueError, match=words):
            Captured(passes, layer)(x)
    assert Captured(lambda x: head(layer(x)).sum().backward(), nn.ModuleList([layer, head]))(x) is None
