"""prepare.py: full disks, broken images, trees and options that it does not take."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from trees import SIZE, flat_val, names, of_pictures, pictures, same, stored

from minicnn.data import ImageNet

Image = pytest.importorskip("PIL.Image")


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(errno.ENOSPC, "No space left on device"), ".jpg: No space left on device"),
        (OSError("encoder error -2"), ".jpg: encoder error -2"),
        (None, "cannot be read back as written; is the disk full, or failing?"),
    ],
)
def test_a_full_disk_leaves_only_whole_pictures(refused, shrink, photos, tmp_path, fails_after, error, words):
    """Without an error, too: Pillow does not notice if the last block of a file is not written to its end."""
    source, target = photos(), tmp_path / "small"
    mend = fails_after(6, error)
    refused([str(target / "train"), words], source, "--workers", 1)
    assert 5 <= len(pictures(target)) < 18 and set(names(target)) == {*pictures(target), "prepare.json"}
    mend()
    assert shrink(source).status == 0 and same(stored(target), of_pictures(target))


def spoilt(source):
    for name in ("train/cat/1.jpg", "val/eel/0.jpg"):
        os.truncate(source / name, 300)
    (source / "train/dog/0.jpg").write_text("no image")
    return [f"{source}/{name}" for name in ("train/cat/1.jpg", "train/dog/0.jpg", "val/eel/0.jpg")]


def test_broken_pictures_do_not_stop_the_others(shrink, photos, tmp_path):
    source, target = photos(), tmp_path / "small"
    whole = {name: (source / name).read_bytes() for name in names(source)}
    broken = spoilt(source)
    result = shrink(source)
    assert result.status == 2 and not result.out
    *named, last = result.err.splitlines()
    assert [line.partition(": ")[0] for line in named] == broken
    assert named[1].endswith(": not an image that Pillow can read") and ": cannot be read: " in named[0]
    assert last == (
        f"prepare.py: 3 of 18 images cannot be read ({target}/broken.txt), the others are done; mend or remove them and"
        " start again, or add --skip-broken to do without them"
    )
    assert (target / "broken.txt").read_text().splitlines() == named
    assert len(pictures(target)) == 15 and not (target / "statistics.safetensors").exists()
    for path in broken:
        Path(path).write_bytes(whole[os.path.relpath(path, source)])
    result = shrink(source)
    assert result.status == 0 and not result.err and "; 15 were there before, 0 left out" in result.out
    assert same(stored(target), of_pictures(target)) and "broken.txt" not in names(target)


def test_broken_pictures_that_were_removed(shrink, photos, tmp_path):
    source = photos()
    broken = spoilt(source)
    shrink(source)
    for path in broken:
        os.remove(path)
    result = shrink(source)
    assert result.status == 0 and "10 images to train on and 5 to validate" in result.out


@pytest.mark.parametrize("layout", ["folders", "flat"])
def test_broken_pictures_can_be_left_out(shrink, photos, tmp_path, layout):
    source, target = photos(), tmp_path / "small"
    broken = spoilt(source)
    if layout == "flat":
        flat_val(source)
        broken[2] = f"{source}/val/eel-0.jpg"
    result = shrink(source, "--skip-broken")
    assert result.status == 0
    assert [line.partition(": ")[0] for line in result.err.splitlines()] == broken
    assert "10 images to train on and 5 to validate, 32 x 32 pixels; 0 were there before, 3 left out\n" in result.out
    assert result.out.endswith(f"train.py --data {'imagenet:' * (layout == 'flat')}{target}\n")
    assert (target / "broken.txt").read_text() == result.err
    assert len(ImageNet(target)) == 10 and len(ImageNet(target, train=False)) == 5
    assert same(stored(target), of_pictures(target)) and stored(target).count == 10


def test_a_picture_that_broke_after_it_was_prepared(shrink, photos, tmp_path):
    source, target = photos(), tmp_path / "small"
    assert shrink(source).status == 0
    (source / "train/cat/1.jpg").write_text("no image any more")
    os.utime(source / "train/cat/1.jpg", (2e9, 2e9))
    assert shrink(source).status == 2 and (target / "train/cat/1.jpg").exists()
    assert shrink(source, "--skip-broken").status == 0
    assert stored(target).count == 11 and same(stored(target), of_pictures(target))


def test_names_as_long_as_they_may_be(shrink, photos, tmp_path):
    source = photos()
    (source / "train/cat/1.jpg").rename(source / f"train/cat/{'Ж' * 125}.jpg")  # 254 bytes
    assert shrink(source).status == 0 and (tmp_path / f"small/train/cat/{'Ж' * 125}.jpg").exists()


def test_of_many_broken_pictures_the_first_are_named(shrink, photos, tmp_path):
    source = photos(train=9)
    for path in sorted(source.glob("train/*/[1-8].jpg")):
        path.write_text("no image")
    result = shrink(source)
    lines = result.err.splitlines()
    assert len(lines) == 12 and lines[10] == f"and 14 more, see {tmp_path}/small/broken.txt"
    assert "24 of 33 images" in lines[11] and (tmp_path / "small/broken.txt").read_text().count("\n") == 24


@pytest.mark.parametrize("layout", ["folders", "flat"])
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_class_that_is_lost(shrink, photos, tmp_path, layout, part):
    source, target = photos(), tmp_path / "small"
    for path in (source / part / "dog").iterdir():
        path.write_text("no image")
    if layout == "flat":
        flat_val(source)
    result = shrink(source, "--skip-broken")
    if (part, layout) == ("val", "flat"):  # needs no image of each class
        assert result.status == 0 and "and 4 to validate" in result.out
        return
    assert result.status == 2
    assert result.err.splitlines()[-1] == (
        f"prepare.py: no image in {source}/{part}/dog can be read, and a class needs one: mend one, or remove the"
        " class from train/ and val/"
    )
    assert not (target / "statistics.safetensors").exists()


def test_pictures_that_do_not_belong(refused, shrink, photos, tmp_path):
    source, target = photos(), tmp_path / "small"
    shrink(source)
    os.remove(source / "val/dog/1.jpg")
    before = (target / "statistics.safetensors").read_bytes()
    refused(f"{target} holds images that {source} does not: {target}/val/dog/1.jpg; remove them, or take", source)
    assert (target / "statistics.safetensors").read_bytes() == before
    os.remove(target / "val/dog/1.jpg")
    assert shrink(source).status == 0


def test_a_class_that_was_removed(refused, shrink, photos, tmp_path):
    """Of its folder nothing remains that train.py would stumble on."""
    source, target = photos(), tmp_path / "small"
    shrink(source)
    for part in ("train", "val"):
        shutil.rmtree(source / part / "eel")
    refused("remove them", source)
    for path in target.glob("*/eel/*"):
        path.unlink()
    assert shrink(source).status == 0 and len(ImageNet(target).classes) == 2


@pytest.mark.parametrize("name", ["./small", "x//small", "x/../small", "small/"])
def test_other_ways_to_write_the_target(run, photos, tmp_path, monkeypatch, name):
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    command = ["prepare.py", photos(), name, "--size", SIZE]
    assert run(*command).status == 0 and "; 18 were there before" in run(*command).out


def test_large_photos_are_decoded_only_as_large_as_they_are_needed(shrink, photos, decoded):
    source = photos()
    Image.new("RGB", (320, 336)).save(source / "train" / "cat" / "0.jpg")
    assert shrink(source).status == 0 and decoded.count((40, 42)) == 1  # an eighth


def test_trees_that_cannot_be_trained_with(refused, photos, tmp_path):
    refused(f"{tmp_path}/nowhere/train: does not exist", tmp_path / "nowhere")
    source = photos()
    (source / "val/eel").rename(source / "val/ape")
    refused("missing: eel; unknown: ape", source)
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize(
    "options", ["--size 0", "--size 4097", "--quality 0", "--quality 101", "--workers 0", "--fast", "more"]
)
def test_options_that_make_no_sense(refused, photos, options):
    refused(options.split()[-1], photos(), *options.split())


def test_source_and_target_are_asked_for(mistake):
    mistake(["SOURCE", "TARGET"], "prepare.py")
