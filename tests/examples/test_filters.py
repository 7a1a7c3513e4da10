"""filters.py: the paper's figure 3 from a folder of photographs."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("tqdm")
PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "filters.py"


def test_it_learns_and_draws_96_filters(photos, monkeypatch, tmp_path, capsys):
    folder = photos(classes=2, train=32) / "train"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["filters.py", str(folder), "--epochs", "2"])
    runpy.run_path(str(PROGRAM), run_name="__main__")
    assert capsys.readouterr().out.endswith("after 2 updates; wrote runs/filters/filters.png\n")
    sheet = np.asarray(Image.open("runs/filters/filters.png"))
    assert sheet.shape == (6 * 13 * 4, 16 * 13 * 4, 3)
    tiles = sheet.reshape(6, 13, 4, 16, 13, 4, 3)[:, 1:-1, 0, :, 1:-1, 0].swapaxes(1, 2)
    assert tiles.shape == (6, 16, 11, 11, 3)
    assert (tiles.min(axis=(2, 3, 4)) == 0).all() and (tiles.max(axis=(2, 3, 4)) == 255).all()


def test_a_filter_lies_where_its_number_says(tmp_path):
    filters = np.random.default_rng(0).normal(size=(11, 11, 3, 96)).astype(np.float32)
    filters[:, :, :, 17] = 0.0
    filters[2, 5, 1, 17] = 1.0  # a green dot in the second filter of the second row
    runpy.run_path(str(PROGRAM))["draw"](filters, tmp_path / "filters.png")
    sheet = np.asarray(Image.open(tmp_path / "filters.png"))
    tile = sheet[13 * 4 : 26 * 4, 13 * 4 : 26 * 4]
    green = np.argwhere((tile == (0, 255, 0)).all(axis=2))
    assert green.min(axis=0).tolist() == [3 * 4, 6 * 4] and green.max(axis=0).tolist() == [4 * 4 - 1, 7 * 4 - 1]
