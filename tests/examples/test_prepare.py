"""prepare.py: what it makes of a tree, that it goes on where it was, and what it does about files that are broken."""

import contextlib
import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import prepare
import programs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minicnn
from minicnn.data import DataError, ImageNet, PixelStatistics, read_image
from minicnn.data.transforms import CenterCrop, Compose, Resize

Image = pytest.importorskip("PIL.Image")

SIZE = 32


@pytest.fixture
def shrink(run, tmp_path):
    """shrink(source, …) runs the program with a small size; the target is tmp_path/small."""
    return lambda source, *options: run("prepare.py", source, tmp_path / "small", "--size", SIZE, *options)


@pytest.fixture
def refused(mistake, tmp_path):
    """refused(words, source, …): the program says in one line why it does not."""
    return lambda words, source, *options: mistake(
        words, "prepare.py", source, tmp_path / "small", "--size", SIZE, *options
    )


def names(root):
    """All files below a folder, hidden ones too."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def pictures(root):
    return [name for name in names(root) if name.startswith(("train/", "val/"))]


def stored(root):
    return PixelStatistics.of(minicnn.load(root / "statistics.safetensors")[0])


def of_pictures(root):
    """The statistics of what is there."""
    statistics = PixelStatistics()
    for name in pictures(root):
        if name.startswith("train/"):
            statistics.add(read_image(root / name))
    return statistics


def same(a, b):
    return a.count == b.count and (a.sums == b.sums).all() and (a.products == b.products).all()


def flat_val(root, kaggle=False):
    """The pictures of val/ in one folder, and a file with their labels."""
    lines = []
    for label, folder in enumerate(sorted((root / "val").iterdir())):
        for picture in sorted(folder.iterdir()):
            name = f"{folder.name}-{picture.name}"
            picture.rename(root / "val" / name)
            lines.append(f"{name[:-4]},{folder.name} 1 2 3 4" if kaggle else f"{name} {label}")
        folder.rmdir()
    (root / ("LOC_val_solution.csv" if kaggle else "val.txt")).write_text("\n".join(lines) + "\n")


# -- what it makes --------------------------------------------------------------------------------------------------


def test_each_picture_becomes_the_square_in_its_middle(shrink, photos, tmp_path):
    source = photos()
    result = shrink(source)
    assert result.status == 0 and not result.err
    target = tmp_path / "small"
    assert result.out == (
        f"{target}: 12 pictures to train on and 6 to validate, 32 x 32 pixels; 0 were there before, 0 left out\n"
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
    assert len(ImageNet(tmp_path / "small", False)) == 6


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
        before, after = ImageNet(source, train), ImageNet(tmp_path / "small", train)
        assert after.names == before.names == ["house cat", "a dog", "an eel, Anguilla"]
        assert [(os.path.relpath(path, tmp_path / "small"), label) for path, label in after.samples] == [
            (os.path.relpath(path, source), label) for path, label in before.samples
        ]


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


@pytest.fixture
def fails_after(monkeypatch):
    """fails_after(n, error): the n-th picture from now is half written when the error comes; None: it goes unnoticed."""

    def install(n, error):
        original, number = Image.Image.save, itertools.count(1)

        def save(image, path, *args, **options):
            original(image, path, *args, **options)
            if next(number) == n:
                os.truncate(path, os.path.getsize(path) // 2)
                if error is not None:
                    raise error

        monkeypatch.setattr(Image.Image, "save", save)
        return lambda: monkeypatch.setattr(Image.Image, "save", original)

    return install


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
    refused(f"{target} was begun with {begun}: go on with the same, or take another folder", source, "--quality", 90)
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


# -- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "cannot be read or written: No space left on device"),
        (OSError("encoder error -2"), "cannot be read or written: encoder error -2"),
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


def test_files_may_not_grow(photos, tmp_path):
    """The same by the system's own hand."""
    source, target = photos(), tmp_path / "small"
    script = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        f"sys.path.insert(0, {str(programs.PROGRAMS)!r})\n"
        f"runpy.run_path({str(programs.PROGRAMS / 'prepare.py')!r}, run_name='__main__')"
    )
    environment = os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(minicnn.__file__))}
    result = subprocess.run(
        [sys.executable, "-c", script, source, target], env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and str(target) in result.stderr
    assert names(target) == ["prepare.json"]


def spoilt(source):
    for name in ("train/cat/1.jpg", "val/eel/0.jpg"):
        os.truncate(source / name, 300)
    (source / "train/dog/0.jpg").write_text("no picture")
    return [f"{source}/{name}" for name in ("train/cat/1.jpg", "train/dog/0.jpg", "val/eel/0.jpg")]


def test_broken_pictures_do_not_stop_the_others(shrink, photos, tmp_path):
    source, target = photos(), tmp_path / "small"
    whole = {name: (source / name).read_bytes() for name in names(source)}
    broken = spoilt(source)
    result = shrink(source)
    assert result.status == 2 and not result.out
    *named, last = result.err.splitlines()
    assert [line.partition(": ")[0] for line in named] == broken
    assert named[1].endswith(": not a picture that Pillow can read") and ": cannot be read: " in named[0]
    assert last == (
        f"prepare.py: 3 of 18 pictures cannot be read ({target}/broken.txt), the others are done; mend or remove them and"
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
    assert result.status == 0 and "10 pictures to train on and 5 to validate" in result.out


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
    assert result.out.endswith(
        "10 pictures to train on and 5 to validate, 32 x 32 pixels; 0 were there before, 3 left out\n"
    )
    assert (target / "broken.txt").read_text() == result.err
    assert len(ImageNet(target)) == 10 and len(ImageNet(target, train=False)) == 5
    assert same(stored(target), of_pictures(target)) and stored(target).count == 10


def test_a_picture_that_broke_after_it_was_prepared(shrink, photos, tmp_path):
    source, target = photos(), tmp_path / "small"
    assert shrink(source).status == 0
    (source / "train/cat/1.jpg").write_text("no picture any more")
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
        path.write_text("no picture")
    result = shrink(source)
    lines = result.err.splitlines()
    assert len(lines) == 12 and lines[10] == f"and 14 more, see {tmp_path}/small/broken.txt"
    assert "24 of 33 pictures" in lines[11] and (tmp_path / "small/broken.txt").read_text().count("\n") == 24


@pytest.mark.parametrize("layout", ["folders", "flat"])
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_class_that_is_lost(shrink, photos, tmp_path, layout, part):
    source, target = photos(), tmp_path / "small"
    for path in (source / part / "dog").iterdir():
        path.write_text("no picture")
    if layout == "flat":
        flat_val(source)
    result = shrink(source, "--skip-broken")
    if (part, layout) == ("val", "flat"):  # needs no picture of each class
        assert result.status == 0 and "and 4 to validate" in result.out
        return
    assert result.status == 2
    assert result.err.splitlines()[-1] == (
        f"prepare.py: no picture in {source}/{part}/dog can be read, and a class needs one: mend one, or remove the"
        " class from train/ and val/"
    )
    assert not (target / "statistics.safetensors").exists()


def test_pictures_that_do_not_belong(refused, shrink, photos, tmp_path):
    source, target = photos(), tmp_path / "small"
    shrink(source)
    os.remove(source / "val/dog/1.jpg")
    refused(f"{target} holds pictures that {source} does not: {target}/val/dog/1.jpg", source)
    assert not (target / "statistics.safetensors").exists()
    os.remove(target / "val/dog/1.jpg")
    assert shrink(source).status == 0


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


# -- its parts ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 40))
def test_any_picture_becomes_a_square(tmp_path_factory, height, width, size):
    folder = tmp_path_factory.mktemp("one")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(
        folder / "1.png"
    )
    picture = prepare.Picture(str(folder / "1.png"), str(folder / "made/1.jpg"), 0, True)
    go = threading.Event()
    done = prepare.shrink([picture], size, 95, go)
    assert done.statistics.count == 1 and done.statistics.sums.shape == (size, size, 3) and not done.broken
    assert names(folder) == ["1.png", "made/1.jpg"]
    again = prepare.shrink([picture], size, 95, go)
    assert again.before == 1 and same(again.statistics, done.statistics)
    with pytest.raises(DataError):
        prepare.write(picture._replace(source=str(folder / "2.png"), target=str(folder / "made/2.jpg")), size, 95)
    assert names(folder) == ["1.png", "made/1.jpg"]
