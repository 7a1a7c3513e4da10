"""engine.py: its gradients beside numerical ones and minicnn's, and the loss that falls."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

import minicnn.functional as F
from minicnn import Tensor

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "engine.py"
engine = SimpleNamespace(**runpy.run_path(str(PROGRAM)))
Value = engine.Value


def numerical(f, arrays, i, step=1e-6):
    """The derivative of the number f(*arrays) by each element of arrays[i], from both sides."""
    result = np.zeros(np.shape(arrays[i]))
    for place in np.ndindex(result.shape):
        sides = []
        for sign in (1, -1):
            moved = [np.array(array, float) for array in arrays]
            moved[i][place] += sign * step
            sides.append(float(f(*map(Value, moved)).data))
        result[place] = (sides[0] - sides[1]) / (2 * step)
    return result


RNG = np.random.default_rng(0)
X, W, B = RNG.normal(size=(5, 3)), RNG.normal(size=(3, 4)), RNG.normal(size=4)


@pytest.mark.parametrize(
    "f, arrays",
    [
        (lambda x, w, b: (x * w + b) * x, [2.0, -3.0, 10.0]),
        (lambda a: a * a * a + a, [1.5]),
        (lambda a, b: (a.relu() + b.relu()) * a, [1.5, -2.0]),
        (lambda x, w, b: engine.mean(engine.add_to_rows(engine.matmul(x, w), b).relu()), [X, W, B]),
        (lambda x: engine.mean(x * x + x), [X]),
        (lambda *p: engine.loss_of(p[1:], p[0], 0.5), [X, W, B, RNG.normal(size=(4, 1)), np.zeros(1)]),
    ],
)
def test_gradients_are_the_numerical_ones(f, arrays):
    inputs = [Value(array) for array in arrays]
    f(*inputs).backward()
    for i, value in enumerate(inputs):
        expected = numerical(f, arrays, i)
        assert np.abs(expected).max() > 1e-3 or np.shape(arrays[i]) == ()  # not 0 against 0
        assert_allclose(value.grad, expected, rtol=1e-6, atol=1e-8)


def test_a_value_waits_for_its_whole_gradient():
    """In whatever order the parents are visited: a is used by b and by what b was used for."""
    for sum_of in (lambda a, b: a + b * b, lambda a, b: b * b + a):
        a = Value(3.0)
        sum_of(a, a * a).backward()
        assert a.grad == 1 + 4 * 3.0**3


def test_it_agrees_with_minicnn():
    arrays = X, W, B, RNG.normal(size=(4, 1)), np.zeros(1)
    target = RNG.normal(size=(5, 1))
    values, tensors = map(Value, arrays), [Tensor(array, requires_grad=True) for array in arrays]
    x, *parameters = values
    loss = engine.loss_of(parameters, x, target)
    loss.backward()
    x_, w1, b1, w2, b2 = tensors
    expected = F.mse_loss(F.linear(F.relu(F.linear(x_, w1, b1)), w2, b2), target)
    expected.backward()
    assert_allclose(loss.data, expected.item(), rtol=1e-12)
    for value, tensor in zip((x, *parameters), tensors, strict=True):
        assert_allclose(value.grad, tensor.grad.data, rtol=1e-10, atol=1e-14)


def test_what_it_prints(capsys):
    engine.main()
    first, *steps = capsys.readouterr().out.splitlines()
    assert first == "y = 8, dy/dx = -2, dy/dw = 4, dy/db = 2"
    losses = [float(re.fullmatch(r"step \d+: loss (.*)", line)[1]) for line in steps]
    assert len(losses) == 6 and losses == sorted(losses, reverse=True)
    assert losses[0] > 1 and losses[-1] < 0.02


def test_forty_lines():
    """The engine itself, which is what stands before the examples of it."""
    code = PROGRAM.read_text(encoding="utf-8").split('"""', 2)[2].split("# ---")
    lines = [line for part in code[:2] for line in part.splitlines() if line.strip()]
    assert 30 < len(lines) <= 45
