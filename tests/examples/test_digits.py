"""digits.py: what a newcomer runs first, in a folder of its own."""

import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minicnn
from minicnn.data import DataLoader

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("safetensors")
PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "digits.py"


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """run("--epochs", 2): the program's names, its losses and percentages by epoch, its last line."""

    def program(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["digits.py", *map(str, arguments)])
        names = SimpleNamespace(**runpy.run_path(str(PROGRAM), run_name="__main__"))
        *epochs, last = capsys.readouterr().out.splitlines()
        numbers = [
            re.fullmatch(r"epoch (\d+): loss (.*), (.*)% of other digits right", line).groups() for line in epochs
        ]
        assert [int(epoch) for epoch, _, _ in numbers] == list(range(1, len(numbers) + 1))
        return names, [float(loss) for _, loss, _ in numbers], [float(right) for _, _, right in numbers], last

    return program


def test_it_learns_and_leaves_a_network_and_a_picture(run):
    names, losses, right, last = run("--epochs", 1)
    assert last == "wrote runs/digits/digits.safetensors and runs/digits/digits.png"
    assert losses[0] < 2.1 and right[0] > 40  # where guessing has log 10 = 2.3, and 10

    net, validation = names.lenet(), names.draw_digits(1000, seed=1)
    net.load_state_dict(minicnn.load("runs/digits/digits.safetensors")[0])
    answers = names.answers(net, DataLoader(validation, 50))
    assert round(100 * (answers == validation.y).mean(), 1) == right[0]

    with Image.open("runs/digits/digits.png") as picture:
        pixels = np.asarray(picture).astype(int)
    red = (pixels[:, :, 0] - pixels[:, :, 1:].max(axis=2) > 100).reshape(10, 80, 10, 64).any(axis=(1, 3)).ravel()
    np.testing.assert_array_equal(red, answers[:100] != validation.y[:100])
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
    _, losses, right, _ = run()
    assert right[-1] > 95 and losses[-1] < 0.2 and losses == sorted(losses, reverse=True)
