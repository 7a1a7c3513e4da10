"""predict.py: five lines for each photo, with bars, and the picture of them."""

import re

import numpy as np
import predict
import pytest

from minicnn import nn
from minicnn.data import transforms

Image = pytest.importorskip("PIL.Image")

LINE = re.compile(r"^\s+(\w+)\s+(\d+\.\d)%\s*(█*)$")


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    path = tmp_path / "photo.jpg"
    Image.fromarray(pixels).save(path)
    return path


def test_the_largest_probabilities_come_first():
    net = nn.Sequential(flatten=nn.Flatten(), fc=nn.Linear(3, 6))
    net.fc.weight.data[:] = 0
    net.fc.bias.data[:] = np.log([1, 5, 2, 9, 3, 4])
    answer = predict.predict(net, np.zeros((1, 1, 3), np.uint8), transforms.Normalize(0, 1), list("abcdef"))
    assert [name for name, _ in answer] == list("dbfec")
    assert [p for _, p in answer] == pytest.approx([9 / 24, 5 / 24, 4 / 24, 3 / 24, 2 / 24])


@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_five_lines_with_bars(run, finished, photo, checkpoint):
    result = run("predict.py", "--checkpoint", finished.folder / f"{checkpoint}.safetensors", photo)
    assert result.status == 0 and not result.err
    title, *lines = result.out.splitlines()
    assert title == str(photo)
    names, percents, bars = zip(*(LINE.match(line).groups() for line in lines), strict=True)
    percents = [float(p) for p in percents]
    assert len(set(names)) == 5 and sorted(percents, reverse=True) == percents and 50 < sum(percents) < 100.3
    lengths = [len(bar) for bar in bars]
    assert lengths == pytest.approx(np.array(percents) * lengths[0] / percents[0], abs=1) and lengths[0] > 0


def test_several_photos_and_fewer_than_five_classes(run, photos, photo, tmp_path):
    run("train.py", "--data", photos(classes=2), "--epochs", 1, "--out", tmp_path / "run")
    result = run("predict.py", "--checkpoint", tmp_path / "run" / "best.safetensors", photo, photo)
    lines = result.out.splitlines()
    assert result.status == 0 and len(lines) == 6 and lines[:3] == lines[3:]
    assert {line.split()[0] for line in lines[1:3]} == {"cat", "dog"}


def test_the_drawing_shows_each_photo(run, finished, photo, tmp_path):
    best = finished.folder / "best.safetensors"
    result = run("predict.py", photo, photo, "--checkpoint", best, "--draw", tmp_path / "bars.png")
    assert result.status == 0 and not result.err
    assert {path.name for path in tmp_path.iterdir()} == {"photo.jpg", "bars.png"}
    with Image.open(tmp_path / "bars.png") as picture:
        assert picture.format == "PNG" and picture.width > 500 and picture.height > 400
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    halves = np.array_split(pixels, 2)  # a photo in each, left, and bars of some colour, right
    for half in halves:
        left, right = np.array_split(half, 2, axis=1)
        assert len(np.unique(left @ [1, 256, 65536])) > 500
        assert (np.ptp(right, axis=2) > 50).sum() > 100


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "truncated"])
def test_unreadable_photos(mistake, finished, photo, tmp_path, kind):
    path = tmp_path / "other.jpg"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("this is no picture")
    elif kind == "truncated":
        path.write_bytes(photo.read_bytes()[:-700])
    before = set(tmp_path.iterdir())
    best, drawing = finished.folder / "best.safetensors", tmp_path / "bars.png"
    assert not mistake(str(path), "predict.py", "--checkpoint", best, photo, path, "--draw", drawing).out
    assert set(tmp_path.iterdir()) == before


def test_drawings_that_cannot_be_written(mistake, finished, photo, tmp_path):
    best = finished.folder / "best.safetensors"
    for name in ("photo.jpg/bars.png", "nowhere/bars.png"):
        mistake(str(tmp_path / name), "predict.py", "--checkpoint", best, photo, "--draw", tmp_path / name)
    mistake([".png", "bars.doc"], "predict.py", "--checkpoint", best, photo, "--draw", tmp_path / "bars.doc")
    assert list(tmp_path.iterdir()) == [photo]


def test_photos_are_asked_for(mistake):
    mistake("photo", "predict.py")
