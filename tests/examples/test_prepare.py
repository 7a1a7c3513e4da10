"""prepare.py: what it makes of a tree, and that it goes on where it was."""

import contextlib
import json
import os
import shutil
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import prepare
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import SIZE, flat_val, names, of_pictures, pictures, same, stored

from minicnn.data import DataError, ImageNet, read_image
from minicnn.data.transforms import CenterCrop, Compose, Resize

Image = pytest.importorskip("PIL.Image")

# -- what it makes --------------------------------------------------------------------------------------------------


def test_each_picture_becomes_the_square_in_its_middle(shrink, photos, tmp_path):
    source = photos()
    result = shrink(source)
    assert result.status == 0 and not result.err
    target = tmp_path / "small"
    assert result.out == (
        f"{target}: 12 images to train on and 6 to validate, 32 x 32 pixels; 0 were there before, 0 left out\n"
        f"to train on them: train.py --data {target}\n"
    )
    assert pictures(target) == pictures(source)
    assert set(names(target)) - set(pictures(target)) == {"prepare.json", "statistics.safetensors"}
    for name in pictures(source):
        with Image.open(target / name) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (SIZE, SIZE), "RGB")
        expected = Compose([Resize(SIZE), CenterCrop(SIZE)])(read_image(source / name, SIZE), None)
        assert abs(read_image(target / name).astype(int) - expected).mean() < 3


def test_statistics_are_those_of_the_training_pictures_as_written(shrink, photos, tmp_path):
    shrink(photos())
    assert stored(tmp_path / "small").count == 12
    assert same(stored(tmp_path / "small"), of_pictures(tmp_path / "small"))


def test_a_picture_that_has_changed_is_done_again(shrink, photos, tmp_path):
    source = photos()
    shrink(source)
    Image.new("RGB", (90, 70), (250, 250, 250)).save(source / "train" / "cat" / "1.jpg")
    result = shrink(source)
    assert "; 17 were there before" in result.out
    assert read_image(tmp_path / "small" / "train" / "cat" / "1.jpg").mean() > 240
    assert same(stored(tmp_path / "small"), of_pictures(tmp_path / "small"))


@pytest.mark.parametrize("source", ["./photos", "photos//", "x/../photos/"])
def test_other_ways_to_write_the_source(shrink, photos, tmp_path, monkeypatch, source):
    flat_val(photos())
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    assert shrink(source).status == 0
    assert len(ImageNet(tmp_path / "small", train=False)) == 6


def test_what_it_makes_can_be_trained_on(run, shrink, photos, tmp_path):
    shrink(photos(), "--size", 73)
    result = run(
        "train.py",
        "--data",
        tmp_path / "small",
        "--resize",
        73,
        "--mean",
        "image",
        "--epochs",
        1,
        "--out",
        tmp_path / "run",
    )
    assert result.status == 0, result.err
    assert f"{tmp_path}/small/statistics.safetensors" in result.out


def test_small_pictures_are_scaled_up_and_turned_ones_set_upright(shrink, photos, tmp_path):
    source, exif = photos(), Image.Exif()
    exif[0x0112] = 6  # turned right
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 8:] = 255
    Image.fromarray(pixels).save(source / "train/cat/0.jpg", exif=exif, quality=95)
    shrink(source)
    made = read_image(tmp_path / "small/train/cat/0.jpg")
    assert made.shape == (SIZE, SIZE, 3) and made[:8].max() < 40 and made[-8:].min() > 215


def test_other_formats_become_jpegs(shrink, refused, photos, tmp_path):
    source = photos()
    Image.new("RGB", (40, 50), "red").save(source / "train/cat/red.PNG")
    (source / "train/dog/0.jpg").rename(source / "train/dog/0.JPEG")
    shrink(source)
    made = pictures(tmp_path / "small")
    assert "train/cat/red.jpg" in made and "train/dog/0.JPEG" in made and len(made) == 19
    Image.new("RGB", (40, 50)).save(source / "train/cat/0.png")
    refused([f"{source}/train/cat/0.png", "would both become train/cat/0.jpg"], source)


@pytest.mark.parametrize("kaggle", [False, True])
def test_imagenets_layout(shrink, photos, tmp_path, kaggle):
    source = photos()
    flat_val(source, kaggle)
    (source / "LOC_synset_mapping.txt").write_text("cat house cat\ndog a dog\neel an eel, Anguilla\n")
    result = shrink(source)
    assert result.status == 0, result.err
    for train in (True, False):
        before, after = ImageNet(source, train=train), ImageNet(tmp_path / "small", train=train)
        assert after.names == before.names == ["house cat", "a dog", "an eel, Anguilla"]
        assert [(os.path.relpath(path, tmp_path / "small"), label) for path, label in after.samples] == [
            (os.path.relpath(path, source), label) for path, label in before.samples
        ]


def test_imagenet_as_kaggle_unpacks_it(shrink, photos, tmp_path):
    source = photos()
    flat_val(source, kaggle=True)
    (source / "LOC_synset_mapping.txt").write_text("cat house cat\ndog a dog\neel an eel, Anguilla\n")
    before = [ImageNet(source, train=train) for train in (True, False)]
    tree = source / "ILSVRC/Data/CLS-LOC"
    tree.mkdir(parents=True)
    for part in ("train", "val"):
        (source / part).rename(tree / part)
    result = shrink(source)
    assert result.status == 0, result.err
    for train in (True, False):
        after = ImageNet(tmp_path / "small", train=train)
        assert after.names == ["house cat", "a dog", "an eel, Anguilla"]
        assert [(os.path.relpath(path, tmp_path / "small"), label) for path, label in after.samples] == [
            (os.path.relpath(path, source), label) for path, label in before[not train].samples
        ]


def test_tiny_imagenets_layout(shrink, photos, tmp_path):
    """Its folders called images, labels in the validation folder, and words for more than its classes."""
    source = photos()
    (source / "words.txt").write_text("ant\tan ant\ncat\ta cat\ndog\ta dog\neel\tan eel\n")
    (source / "wnids.txt").write_text("eel\ncat\ndog\n")
    flat_val(source)
    for folder in (*(source / "train").iterdir(), source / "val"):
        pictures_there = list(folder.iterdir())
        (folder / "images").mkdir()
        for picture in pictures_there:
            picture.rename(folder / "images" / picture.name)
    named = [line.split() for line in (source / "val.txt").read_text().splitlines()]
    lines = [f"{name}\t{('cat', 'dog', 'eel')[int(label)]}\t0\t0\t9\t9\n" for name, label in named]
    (source / "val" / "val_annotations.txt").write_text("".join(lines))
    (source / "val.txt").unlink()
    result = shrink(source)
    assert result.status == 0, result.err
    for train in (True, False):
        before, after = ImageNet(source, train=train), ImageNet(tmp_path / "small", train=train)
        assert len(after) == (12 if train else 6) and after.classes == ["cat", "dog", "eel"]
        assert after.names == before.names == ["a cat", "a dog", "an eel"]
        assert [(os.path.relpath(path, tmp_path / "small"), label) for path, label in after.samples] == [
            (os.path.relpath(path, source), label) for path, label in before.samples
        ]
    assert shrink(source).status == 0


def test_the_number_of_workers_changes_nothing(run, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(140):
        folder = tmp_path / "many" / ("train" if i % 10 else "val") / "ab"[i // 70]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    for workers in (1, 4):
        result = run("prepare.py", tmp_path / "many", tmp_path / str(workers), "--size", 8, "--workers", workers)
        assert result.status == 0, result.err
    one, four = tmp_path / "1", tmp_path / "4"
    assert len(pictures(one)) == 140 and pictures(one) == pictures(four)
    assert all((one / name).read_bytes() == (four / name).read_bytes() for name in pictures(one))
    assert same(stored(one), stored(four)) and stored(one).count == 126


def test_quality(run, photos, tmp_path):
    source = photos()
    for quality in (30, 95):
        assert run("prepare.py", source, tmp_path / str(quality), "--quality", quality).status == 0
    low, high = (sum((tmp_path / q / name).stat().st_size for name in pictures(source)) for q in ("30", "95"))
    assert 2 * low < high
    assert pictures(tmp_path / "95") == pictures(source)
    assert read_image(tmp_path / "95" / "train/cat/0.jpg").shape == (256, 256, 3)


# -- going on -------------------------------------------------------------------------------------------------------


def test_it_goes_on_where_it_was(shrink, photos, tmp_path, fails_after):
    source, target = photos(), tmp_path / "small"
    mend = fails_after(8, KeyboardInterrupt())
    assert shrink(source).status == 130
    mend()
    made = pictures(target)
    assert 7 <= len(made) < 18 and set(names(target)) == {*made, "prepare.json"}
    written = {name: os.stat(target / name).st_mtime_ns for name in made}
    result = shrink(source)
    assert result.status == 0 and f"; {len(made)} were there before, 0 left out" in result.out
    assert {name: os.stat(target / name).st_mtime_ns for name in made} == written
    assert pictures(target) == pictures(source) and same(stored(target), of_pictures(target))
    assert "; 18 were there before" in shrink(source).out


def test_an_interrupt_waits_for_no_more_than_the_picture_at_hand(shrink, photos, tmp_path, monkeypatch):
    source, waits, shut = photos(), threading.Event(), threading.Event()

    def before(thing, name, action):
        original = getattr(thing, name)
        monkeypatch.setattr(thing, name, lambda *args, **options: (action(), original(*args, **options))[1])

    def interrupt():
        if not shut.is_set():
            assert waits.wait(60)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            assert shut.wait(60)

    before(Image.Image, "save", interrupt)
    before(Future, "result", waits.set)
    before(ThreadPoolExecutor, "shutdown", shut.set)
    result = shrink(source, "--workers", 1)
    assert (result.status, result.err) == (130, "interrupted\n")
    assert pictures(tmp_path / "small") == ["train/cat/0.jpg"]


def cut(path):
    os.truncate(path, 200)


def zeros(path):
    """Its end never reached the disk. Pillow notices that only where the zeros do not pass for pixels."""
    content = path.read_bytes()
    for lost in range(2, 400):
        path.write_bytes(content[:-lost] + bytes(lost))
        with contextlib.suppress(DataError):
            read_image(path)
            return
    pytest.fail("Pillow notices always")


def other_size(path):
    Image.new("RGB", (SIZE, SIZE + 1)).save(path)


@pytest.mark.parametrize("spoil", [cut, zeros, other_size, os.remove, lambda path: path.write_bytes(b"")])
def test_what_is_not_whole_is_done_again(shrink, photos, tmp_path, spoil):
    source, target = photos(), tmp_path / "small"
    shrink(source)
    before = {name: (target / name).read_bytes() for name in names(target)}
    spoil(target / "train/dog/2.jpg")
    result = shrink(source)
    assert result.status == 0 and "; 17 were there before" in result.out
    assert {name: (target / name).read_bytes() for name in names(target)} == before


def test_statistics_are_there_when_everything_is(shrink, photos, tmp_path, fails_after):
    source, target = photos(), tmp_path / "small"
    shrink(source)
    os.remove(target / "train/dog/2.jpg")
    fails_after(1, KeyboardInterrupt())
    assert shrink(source).status == 130
    assert not (target / "statistics.safetensors").exists()


def test_other_settings_are_refused(shrink, refused, photos, tmp_path, fails_after):
    source, target = photos(), tmp_path / "small"
    mend = fails_after(4, KeyboardInterrupt())
    shrink(source)
    mend()
    shutil.copytree(source, tmp_path / "other")
    before = names(target)
    begun = json.dumps({"source": str(source), "size": 32, "quality": 95})
    refused(f"{target} was begun with {begun}: give the same settings, or take another folder", source, "--quality", 90)
    refused("begun", source, "--size", 31)
    refused("begun", tmp_path / "other")
    assert names(target) == before
    (tmp_path / "link").symlink_to(source)
    assert shrink(tmp_path / "link").status == 0  # another name for the same folder


def test_folders_that_are_taken(shrink, refused, photos, tmp_path):
    source, target = photos(), tmp_path / "small"
    target.mkdir()
    (target / "note").write_text("mine")
    refused(f"{target} is not empty, and no run of this program began it: take another folder", source)
    assert names(target) == ["note"]
    os.remove(target / "note")
    assert shrink(source).status == 0  # an empty folder will do


@pytest.mark.parametrize("inside", ["", "small", "train/deep/small"])
def test_the_source_stays_as_it_is(mistake, photos, tmp_path, inside):
    source = photos()
    before = names(source)
    (tmp_path / "link").symlink_to(source)
    for root in (source, tmp_path / "link"):
        mistake("is SOURCE or lies in it", "prepare.py", source, root / inside)
    assert names(source) == before


# -- its parts ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 40))
def test_any_picture_becomes_a_square(tmp_path_factory, height, width, size):
    folder = tmp_path_factory.mktemp("one")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(
        folder / "1.png"
    )
    picture = prepare.Photo(str(folder / "1.png"), str(folder / "made/1.jpg"), 0, True)
    go = threading.Event()
    done = prepare.shrink([picture], size, 95, go)
    assert done.statistics.count == 1 and done.statistics.sums.shape == (size, size, 3) and not done.broken
    assert names(folder) == ["1.png", "made/1.jpg"]
    again = prepare.shrink([picture], size, 95, go)
    assert again.before == 1 and same(again.statistics, done.statistics)
    with pytest.raises(DataError):
        prepare.write(picture._replace(source=str(folder / "2.png"), target=str(folder / "made/2.jpg")), size, 95)
    assert names(folder) == ["1.png", "made/1.jpg"]
