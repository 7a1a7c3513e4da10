"""figures.py: what is committed is what the code draws today, and shows what plain loops find."""

import json
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import reference
from numpy.testing import assert_allclose, assert_array_equal

import minicnn

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")
PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "figures.py"
figures = SimpleNamespace(**runpy.run_path(str(PROGRAM)))
PACKAGE = Path(minicnn.__file__).parent
NAMES = sorted(figures.FIGURES)


def read(path):
    """(pixels as numbers from 0 to 255, what the file says that it shows, what drew it)"""
    with Image.open(path) as picture:
        return (
            np.asarray(picture.convert("RGB"), float),
            json.loads(picture.text["Description"]),
            picture.text["Software"],
        )


def words(path):
    with Image.open(path) as image:
        return json.loads(image.text["Words"])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures") / "new"
    with mock.patch.object(sys, "argv", ["figures.py", "--out", str(folder)]):
        figures.main()
    return folder


def alike(a, b, same_program):
    """Do two images show the same? Another matplotlib draws other letters, so then blocks of pixels
    are compared, with how much ink there is."""
    if a.shape != b.shape or same_program:
        return a.shape == b.shape and np.abs(a - b).mean() < 0.1
    height, width = (size // 8 for size in a.shape[:2])
    a, b = (x[: 8 * height, : 8 * width].reshape(height, 8, width, 8, 3).mean((1, 3)) for x in (a, b))
    return np.abs(a - b).mean() < 0.2 * (255 - a).mean()


def test_the_committed_ones_are_these(drawn):
    assert (
        NAMES
        == [path.stem for path in sorted(drawn.iterdir())]
        == [p.stem for p in sorted(figures.FOLDER.glob("*.png"))]
    )


@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_is_up_to_date(drawn, name):
    path = figures.FOLDER / f"{name}.png"
    (old, said, drew), (new, says, draws) = read(path), read(drawn / f"{name}.png")
    assert said.keys() == says.keys()
    for key, value in says.items():
        if key in ("edges", "order"):
            assert said[key] == value
        else:
            assert_allclose(said[key], value, rtol=1e-12)
    assert words(path) == words(drawn / f"{name}.png")
    assert alike(old, new, drew == draws), "python examples/figures.py draws another one"
    for same_program in (True, False):  # and images are told apart
        assert alike(old, old, same_program)
        assert not any(alike(old, x, same_program) for x in (np.full_like(old, 255), old[:, ::-1], old[:-1]))
    assert path.stat().st_size < 60_000 and old.shape[1] <= 1000
    corners = old[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert_array_equal(corners, 255)  # white, on a dark page too


def test_they_show_what_loops_find(drawn):
    shown = {name: read(drawn / f"{name}.png")[1] for name in NAMES}

    said = {key: np.array(value) for key, value in shown["windows"].items()}
    columns = reference.im2col(said["image"], (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1))
    assert_array_equal(said["columns"], columns)
    added = np.zeros(17)
    for number in columns.ravel().astype(int):
        added[number] += number
    assert_array_equal(said["back"].ravel(), added[1:])

    assert shown["conv"] == {
        "x": [1, 3, 3, 2], "X": [4, 8], "K": [8, 3], "y": [1, 2, 2, 3], "dX": [4, 8], "dx": [1, 3, 3, 2],
    }  # fmt: skip

    said = {key: np.array(value)[0, :, :, 0] for key, value in shown["pooling"].items()}
    dx = np.zeros((5, 5))
    for p, q in np.ndindex(2, 2):
        seen = said["x"][2 * p : 2 * p + 3, 2 * q : 2 * q + 3]
        assert said["y"][p, q] == seen.max() and said["winner"][p, q] == seen.argmax()
        dx[said["x"] == seen.max()] += 2 ** (2 * p + q)
    assert_array_equal(said["dx"], dx)
    assert sorted(dx[dx > 0]) == [3, 4, 8]  # one has won twice

    said = {key: np.array(value) for key, value in shown["lrn"].items()}
    assert_allclose(said["y"], reference.local_response_norm(said["x"]), rtol=1e-12)
    assert said["x"][1] == said["x"][6] and said["y"][1] > 2 * said["y"][6]

    assert shown["autograd"]["order"] == ["Sum", "Mul", "Sigmoid", "Add", "b", "MatMul", "x", "w"]
    edges = {tuple(edge) for edge in shown["autograd"]["edges"]}
    assert edges == {
        ("Sum", "Mul"), ("Mul", "Add"), ("Mul", "Sigmoid"), ("Sigmoid", "Add"), ("Add", "MatMul"), ("Add", "b"),
        ("MatMul", "x"), ("MatMul", "w"),
    }  # fmt: skip


def test_each_is_in_a_lesson():
    linked = [
        (path.parent / link).resolve()
        for path in (*PACKAGE.glob("*.py"), *PACKAGE.glob("functional/*.py"))
        for link in re.findall(r"!\[.+?\]\((.+?)\)", path.read_text(encoding="utf-8"))
    ]
    assert sorted(linked) == [figures.FOLDER / f"{name}.png" for name in NAMES]


def test_a_folder_that_is_a_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["figures.py", "--out", str(tmp_path / "file")])
    with pytest.raises(SystemExit):
        figures.main()
    assert "cannot write there" in capsys.readouterr().err and (tmp_path / "file").read_text() == "mine"
