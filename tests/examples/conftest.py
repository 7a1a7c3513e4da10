"""The programs as a shell runs them, but in this process, with a tiny network in AlexNet's place and small pictures."""

import contextlib
import csv
import io
import json
import os
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minicnn
from minicnn import nn

PROGRAMS = Path(__file__).resolve().parents[2] / "examples" / "alexnet"
FILES = {"config.json", "metrics.csv", "curves.png", "filters.png", "last.safetensors", "best.safetensors"}
SIZE = 64


def tiny(variant="2012", classes=10, weight_init="he", groups=True):
    """AlexNet's outer shape: conv1.conv.weight, dropout, and shapes that differ from one variant to the next."""
    channels = {"2012": 8, "2014": 6, "tutorial": 10}
    if variant not in channels:
        raise ValueError(f"variant is one of {list(channels)}, not {variant!r}")
    n = channels[variant]
    return nn.Sequential(
        conv1=nn.Sequential(conv=nn.Conv2d(3, n, 11, stride=8), relu=nn.ReLU(), pool=nn.MaxPool2d(3, 2)),
        flatten=nn.Flatten(),
        fc6=nn.Sequential(fc=nn.Linear(9 * n, 16), relu=nn.ReLU(), dropout=nn.Dropout(0.5)),
        fc8=nn.Linear(16, classes),
    )


def small_world(patch):
    import model
    import pictures
    import runs

    for module in (model, runs):
        patch.setattr(module, "alexnet", tiny)
    for variant in model.INPUT_SIZE:
        patch.setitem(model.INPUT_SIZE, variant, SIZE)
    patch.setattr(pictures, "SYNTHETIC", (30, 20))


def run_program(name, *arguments, stderr=None):
    """What `python name arguments` does: its exit status, output and errors."""
    out, err = io.StringIO(), stderr or io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(PROGRAMS / name), run_name="__main__")
    return SimpleNamespace(status=exit.value.code or 0, out=out.getvalue(), err=err.getvalue())


@pytest.fixture
def run(monkeypatch):
    """run("train.py", "--epochs", 2, …) -> status, out, err. Pictures of curves and filters are left out."""
    import runs

    small_world(monkeypatch)
    for name in ("draw_curves", "draw_filters"):
        monkeypatch.setattr(runs, name, lambda *_: None)
    return run_program


@pytest.fixture
def mistake(run):
    """mistake(words, program, …): the program ends with status 2 and one line, which has the words in it."""

    def check(words, *arguments):
        result = run(*arguments)
        assert result.status == 2, result.err
        assert len(result.err.splitlines()) == 1 and result.err.endswith("\n"), result.err
        assert result.err.startswith(arguments[0] + ": ")
        for word in [words] if isinstance(words, str) else words:
            assert word in result.err
        return result

    return check


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A run of three epochs on synthetic pictures, to be looked at only: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "deep" / "er"
    with pytest.MonkeyPatch.context() as patch:
        small_world(patch)
        minicnn.manual_seed(5)  # to be of no consequence
        result = run_program("train.py", "--epochs", 3, "--seed", 7, "--out", folder)
    assert result.status == 0, result.err
    return SimpleNamespace(folder=folder, out=result.out, err=result.err)


@pytest.fixture
def photos(tmp_path):
    """photos(classes=3, train=4, val=2) writes train/ and val/ with pictures of several sizes; returns their folder."""
    image = pytest.importorskip("PIL.Image")

    def write(classes=3, train=4, val=2):
        rng, root = np.random.default_rng(0), tmp_path / "photos"
        for part, count in (("train", train), ("val", val)):
            for label, name in enumerate(("cat", "dog", "eel", "fox", "gnu", "hen")[:classes]):
                folder = root / part / name
                folder.mkdir(parents=True)
                for i in range(count):
                    picture = rng.integers(0, 60, (70 + 9 * i, 90, 3)) + 30 * label
                    image.fromarray(picture.astype(np.uint8)).save(folder / f"{i}.jpg")
        return root

    return write


@pytest.fixture
def at_epoch(run, monkeypatch):
    """at_epoch(n, action): action() is called when epoch n has been trained, before anything of it is written."""
    import evaluate

    def install(n, action):
        original, calls = evaluate.evaluate, []

        def measured(*arguments):
            calls.append(arguments)
            if len(calls) == n:
                action()
            return original(*arguments)

        monkeypatch.setattr(evaluate, "evaluate", measured)

    return install


@pytest.fixture
def changing_top1(monkeypatch):
    """A validation accuracy that follows from the weights, up and down; and the list of the weights measured."""
    import evaluate

    states = []

    def measured(net, *_):
        states.append({name: array.copy() for name, array in net.state_dict().items()})
        return {"loss": 1.0, "top1": float(1e4 * net.fc6.fc.weight.data.sum(dtype=np.float64) % 100), "top5": 100.0}

    monkeypatch.setattr(evaluate, "evaluate", measured)
    return states


def files(folder):
    """Names of all files in a folder, hidden ones too; none if there is no folder."""
    return set(os.listdir(folder)) if os.path.exists(folder) else set()


def metrics(folder):
    """metrics.csv as a list of rows, in numbers."""
    with open(folder / "metrics.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def state(folder):
    """All that a run leaves but pictures, times and the folder's name, bit for bit."""

    def timeless(rows):
        return [{name: value for name, value in row.items() if name not in ("images_per_s", "seconds")} for row in rows]

    found = {"config": json.loads((folder / "config.json").read_text()), "metrics": timeless(metrics(folder))}
    found["config"].pop("out")
    for name in ("last", "best"):
        arrays, info = minicnn.load(folder / f"{name}.safetensors")
        info["config"].pop("out")
        info["rows"] = timeless(info.get("rows", []))
        found[name] = {key: (a.dtype, a.shape, a.tobytes()) for key, a in arrays.items()}, info
    return found


@pytest.fixture
def look():
    """Helpers to look at the folders of runs."""
    return SimpleNamespace(FILES=FILES, SIZE=SIZE, PROGRAMS=PROGRAMS, files=files, metrics=metrics, state=state)
