"""digits.py: what a newcomer runs first, in a folder of its own."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minicnn

Image = pytest.importorskip("PIL.Image")
PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "digits.py"


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """run(epochs=2): the program's names, and its percentages by epoch; in a folder of its own."""

    def program(**options):
        monkeypatch.chdir(tmp_path)
        names = SimpleNamespace(**runpy.run_path(str(PROGRAM)))
        names.main(**options)
        *epochs, last = capsys.readouterr().out.splitlines()
        numbers = [re.fullmatch(r"epoch (\d+): (.*)% of other digits right", line).groups() for line in epochs]
        assert [int(epoch) for epoch, _ in numbers] == list(range(1, len(numbers) + 1))
        assert last == "wrote runs/digits.safetensors and runs/digits.png"
        return names, [float(right) for _, right in numbers]

    return program


def test_it_learns_and_leaves_a_network_and_a_picture(run):
    names, (right,) = run(epochs=1)
    assert right > 40  # where guessing has 10

    net, others = names.lenet(), names.draw_digits(1000, seed=1)
    net.load_state_dict(minicnn.load("runs/digits.safetensors")[0])
    answers = names.answers(net, others.X)
    assert round(100 * (answers == others.y).mean(), 1) == right

    with Image.open("runs/digits.png") as picture:
        pixels = np.asarray(picture).astype(int)
    red = (pixels[:, :, 0] - pixels[:, :, 1:].max(axis=2) > 100).reshape(6, 80, 10, 64).any(axis=(1, 3)).ravel()
    np.testing.assert_array_equal(red, answers[:60] != others.y[:60])
    assert red.any()


def test_the_digits():
    """The same for a seed, others for another; all ten, and brighter than their noise."""
    draw = runpy.run_path(str(PROGRAM))["draw_digits"]
    digits, again, others = (draw(500, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(digits.X, again.X)
    np.testing.assert_array_equal(digits.y, again.y)
    assert (digits.X != others.X).any() and (digits.y != others.y).any()
    assert digits.X.shape == (500, 28, 28, 1) and digits.X.dtype == np.float32
    assert np.bincount(digits.y, minlength=10).min() > 25 and digits.y.max() == 9
    assert -0.7 < digits.X.min() < -0.2 and digits.X.max(axis=(1, 2, 3)).min() > 0.7


@pytest.mark.slow
def test_over_95_percent(run):
    _, right = run()
    assert len(right) == 6 and right[-1] > 95
