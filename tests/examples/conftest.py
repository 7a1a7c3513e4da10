"""What the tests of the programs share."""

import itertools
import os
from concurrent.futures import wait
from types import SimpleNamespace

import numpy as np
import programs
import pytest
import trees
from programs import run_program, small_world

import minicnn

mistake, run = programs.mistake, programs.run  # fixtures


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A run of three epochs on synthetic images, to be looked at only: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "deep" / "er"
    with pytest.MonkeyPatch.context() as patch:
        small_world(patch)
        minicnn.manual_seed(5)  # to be of no consequence
        result = run_program("train.py", "--epochs", 3, "--seed", 7, "--out", folder)
    assert result.status == 0, result.err
    return SimpleNamespace(folder=folder, out=result.out, err=result.err)


@pytest.fixture
def photos(tmp_path):
    """photos(classes=3, train=4, val=2) writes train/ and val/ with images of several sizes; returns their folder."""
    image = pytest.importorskip("PIL.Image")

    def write(classes=3, train=4, val=2):
        rng, root = np.random.default_rng(0), tmp_path / "photos"
        for part, count in (("train", train), ("val", val)):
            for label, name in enumerate(("cat", "dog", "eel", "fox", "gnu", "hen")[:classes]):
                (root / part / name).mkdir(parents=True)
                for i in range(count):
                    picture = rng.integers(0, 60, (70 + 9 * i, 90, 3)) + 30 * label
                    image.fromarray(picture.astype(np.uint8)).save(root / part / name / f"{i}.jpg")
        return root

    return write


@pytest.fixture
def decoded(monkeypatch):
    """The sizes in pixels to which files were decoded, before they were scaled down to those that are needed."""
    image = pytest.importorskip("PIL.Image").Image
    sizes, original = [], image.resize

    def noted(self, *arguments, **options):
        sizes.append(self.size)
        return original(self, *arguments, **options)

    monkeypatch.setattr(image, "resize", noted)
    return sizes


def interrupt():
    raise KeyboardInterrupt


@pytest.fixture
def at_epoch(run, monkeypatch):
    """at_epoch(n, action): action() is called when epoch n has been trained and all before is written, but nothing of it;
    Ctrl-C, if nothing else is said."""
    import evaluate

    def install(n, action=interrupt):
        original, calls = evaluate.evaluate, []

        def measured(*arguments):
            calls.append(arguments)
            if len(calls) == n:
                if len(arguments) > 3:  # a Run's check()
                    wait([last] if (last := arguments[3].__self__.claim.aside.last) else [])
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


@pytest.fixture
def look():
    """Helpers to look at the folders of runs."""
    return programs


@pytest.fixture
def shrink(run, tmp_path):
    """shrink(source, …) runs the program with a small size; the target is tmp_path/small."""
    return lambda source, *options: run("prepare.py", source, tmp_path / "small", "--size", trees.SIZE, *options)


@pytest.fixture
def refused(mistake, tmp_path):
    """refused(words, source, …): the program says in one line why it does not."""
    return lambda words, source, *options: mistake(
        words, "prepare.py", source, tmp_path / "small", "--size", trees.SIZE, *options
    )


@pytest.fixture
def fails_after(monkeypatch):
    """fails_after(n, error): the n-th image from now is half written when the error comes; None: it goes unnoticed."""

    def install(n, error):
        image_class = pytest.importorskip("PIL.Image").Image
        original, number = image_class.save, itertools.count(1)

        def save(image, path, *args, **options):
            original(image, path, *args, **options)
            if next(number) == n:
                os.truncate(path, os.path.getsize(path) // 2)
                if error is not None:
                    raise error

        monkeypatch.setattr(image_class, "save", save)
        return lambda: monkeypatch.setattr(image_class, "save", original)

    return install
