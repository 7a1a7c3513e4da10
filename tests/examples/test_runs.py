"""The run folder: images, checkpoints, and what is left when a disk is full."""

import errno
import json
import os
import shutil
import sys
from argparse import Namespace

import numpy as np
import pytest
from model import LRN
from support import drawing, folders, recording, runs
from support.images import RAW, View

import minicnn
from minicnn import nn
from minicnn.checkpoint import CheckpointError
from minicnn.workers import Workers

Image = pytest.importorskip("PIL.Image")


# -- checkpoints ----------------------------------------------------------------------------------------------------


def test_last_holds_everything_and_best_the_network_alone(finished):
    last, info = minicnn.load(finished.folder / "last.safetensors")
    best, _ = minicnn.load(finished.folder / "best.safetensors")
    parameters = {"conv1.conv.weight", "conv1.conv.bias", "fc6.fc.weight", "fc6.fc.bias", "fc8.weight", "fc8.bias"}
    assert set(best) == parameters
    assert {name.partition(".")[2] for name in last if name.startswith("model.")} == parameters
    assert any(name.startswith("optimizer.") for name in last) and any(name.startswith("schedule.") for name in last)
    assert info["epoch"] == 3 and info["config"]["seed"] == 7 and len(info["rows"]) == 3


FIRST = (  # what the first runs said of their settings
    "data", "verify", "workers", "variant", "groups", "init", "epochs", "batch_size", "lr", "momentum", "weight_decay",
    "warmup", "seed", "threads", "device", "out", "classes", "view", "minicnn",
)  # fmt: skip


def test_runs_from_before_there_were_recipes(run, finished, look, tmp_path):
    """And before there was a precision. They mean the same, and go on in the same way, bit for bit."""
    for version in ("old", "new"):
        (tmp_path / version).mkdir()
        for name in ("last", "best"):
            arrays, info = minicnn.load(finished.folder / f"{name}.safetensors")
            if version == "old":
                info["config"] = {name: info["config"][name] for name in FIRST}
                del info["config"]["view"]["resize"]
            minicnn.save(tmp_path / version / f"{name}.safetensors", arrays, info)
        assert runs.load_run(str(tmp_path / version / "last.safetensors"))[1]["config"]["ranks"] == 1
    found = {
        version: run("evaluate.py", "--checkpoint", tmp_path / version / "best.safetensors")
        for version in ("old", "new")
    }
    assert found["old"].status == 0 and found["old"].out == found["new"].out
    for version in ("old", "new"):
        result = run("train.py", "--resume", tmp_path / version / "last.safetensors", "--epochs", 4)
        assert result.status == 0 and len(look.metrics(tmp_path / version)) == 4
    old, new = look.state(tmp_path / "old"), look.state(tmp_path / "new")
    for found in (old, new):
        del found["best"][1]["config"]  # which stays as it was, unless the last epoch is the best one
    assert old == new


def test_a_network_that_is_saved_to_be_used(monkeypatch, look, tmp_path):
    """By convert.py, say: with few settings and a mean image."""
    look.small_world(monkeypatch)
    image = np.random.default_rng(0).random((70, 70, 3), np.float32)
    view, net = (
        View(look.SIZE, (0.0, 0.0, 0.0), RAW, image, resize=70),
        look.tiny("2014", 3, dropout_scale="evaluation"),
    )
    config = {"variant": "2014", "groups": True, "init": "he", "classes": ["a", "b", "c"]}
    runs.save_network(tmp_path / "net.safetensors", net, config, view)
    again, settings, seen = runs.load_network(str(tmp_path / "net.safetensors"))
    assert settings["names"] == ["a", "b", "c"] and settings["dropout_scale"] == "training" and settings["lrn"] == LRN
    assert again.fc6.dropout.scale == "training" and not again.training
    np.testing.assert_array_equal(seen.mean_image, image)
    assert (seen.size, tuple(seen.std), seen.resize) == (look.SIZE, RAW, 70)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array)

    more = {
        "names": ["an a", "a b", "a c"],
        "dropout_scale": "evaluation",
        "lrn": {"n": 3, "k": 1, "alpha": 1, "beta": 1},
    }
    runs.save_network(tmp_path / "net.safetensors", net, config | more, view)
    again, settings, _ = runs.load_network(str(tmp_path / "net.safetensors"))
    assert more.items() <= settings.items() and again.fc6.dropout.scale == "evaluation"


def test_a_network_is_loaded_with_its_own_settings(monkeypatch, tmp_path):
    """All that alexnet takes but the weights."""
    given, view = [], View(224, (0.0, 0.0, 0.0), RAW)
    net = nn.Sequential(fc=nn.Linear(2, 2))
    monkeypatch.setattr(runs, "alexnet", lambda *arguments: given.append(arguments) or net)
    lrn = {"n": 3, "k": 1, "alpha": 1, "beta": 1}
    config = {"variant": "2014", "groups": False, "init": "paper", "classes": ["a", "b", "c"]}
    others = {"lrn": lrn, "dropout": 0.25, "dropout_scale": "evaluation"}
    for more in ({}, others):
        runs.save_network(tmp_path / "net.safetensors", net, config | more, view)
        runs.load_network(str(tmp_path / "net.safetensors"))
    assert given == [
        ("2014", 3, "zeros", False, LRN, "training", 0.5),
        ("2014", 3, "zeros", False, lrn, "evaluation", 0.25),
    ]


@pytest.mark.parametrize("name", ["last", "best"])
def test_both_checkpoints_give_the_network(run, finished, look, name):
    net, config, view = runs.load_network(str(finished.folder / f"{name}.safetensors"))
    assert not net.training and len(config["classes"]) == 10 and view.size == look.SIZE
    arrays, _ = minicnn.load(finished.folder / f"{name}.safetensors")
    prefix = "model." if name == "last" else ""
    for key, array in net.state_dict().items():
        np.testing.assert_array_equal(array, arrays[prefix + key])


def bfloat16(path, *_):
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


def with_info(text):
    """A file whose info is what minicnn.save would not write."""

    def write(path, _, arrays, __):
        pytest.importorskip("safetensors.numpy").save_file(arrays, path, {"info": text})

    return write


BROKEN = {  # what writes a file that is no checkpoint, given its path, a whole file, its arrays and its settings
    "missing": lambda path, *_: None,
    "folder": lambda path, *_: path.mkdir(),
    "empty": lambda path, *_: path.write_bytes(b""),
    "text": lambda path, *_: path.write_text("no checkpoint, just a few words\n" * 20),
    "truncated": lambda path, whole, *_: path.write_bytes(whole[:-100]),
    "header": lambda path, whole, *_: path.write_bytes(whole[:100]),
    "foreign": lambda path, _, arrays, __: minicnn.save(path, arrays),
    "number": with_info("1.5"),
    "list": with_info('["rows", "config"]'),
    "config": lambda path, _, arrays, __: minicnn.save(path, arrays, {"config": 3, "rows": 3}),
    "variant": lambda path, _, arrays, config: minicnn.save(path, arrays, {"config": {**config, "variant": "2014"}}),
    "unknown": lambda path, _, arrays, config: minicnn.save(path, arrays, {"config": {**config, "variant": "2013"}}),
    "classes": lambda path, _, arrays, config: minicnn.save(path, arrays, {"config": {**config, "classes": ["a"]}}),
    "bfloat16": bfloat16,
    "info": with_info("a network of\nanother program"),
}


@pytest.mark.parametrize("program", ["evaluate.py", "predict.py", "train.py"])
@pytest.mark.parametrize("kind", BROKEN)
def test_unreadable_checkpoints(mistake, finished, look, tmp_path, program, kind):
    best, path = finished.folder / "best.safetensors", tmp_path / "broken.safetensors"
    arrays, info = minicnn.load(best)
    BROKEN[kind](path, best.read_bytes(), arrays, info["config"])
    before = look.files(tmp_path)
    arguments = {
        "evaluate.py": ["--checkpoint", path],
        "predict.py": ["--checkpoint", path, "photo.jpg"],
        "train.py": ["--resume", path],
    }
    mistake(str(path), program, *arguments[program])
    assert look.files(tmp_path) == before


JUNK = None, "x", -1, 0, 1.5, [], {}, True, [1, "a"], {"a": 1}, float("nan"), float("inf")


def damages(info, at=()):
    """(where, info with something else there) for each field of it, at any depth, and each kind of
    junk."""
    for name, value in info.items() if isinstance(info, dict) else enumerate(info):
        for junk in JUNK:
            if type(junk) is not type(value) or junk != value:
                changed = {**info} if isinstance(info, dict) else [*info]
                changed[name] = junk
                yield (*at, name), changed
        if isinstance(value, (dict, list)) and name not in ("classes", "names"):
            for where, inner in damages(value, (*at, name)):
                changed = {**info} if isinstance(info, dict) else [*info]
                changed[name] = inner
                yield where, changed


def test_settings_that_are_damaged(run, finished, tmp_path, monkeypatch):
    """Whatever stands in the place of whatever field, a run goes on and a network answers, or there
    is one line. What is never taken for a setting is told so by its name."""
    arrays, info = minicnn.load(finished.folder / "last.safetensors")
    info["rows"], path = info["rows"][:1], tmp_path / "last.safetensors"
    seen, refused = set(), set()
    for where, damaged in damages(info):
        found = {**arrays}, json.loads(json.dumps(damaged))
        monkeypatch.setattr(runs, "read_checkpoint", lambda _, found=found: found)
        seen.add(where)
        for load in (runs.load_run, runs.load_network):
            try:
                load(str(path))
            except CheckpointError as error:
                assert str(error).startswith(str(path)) and "\n" not in str(error)
                refused.add(where)
    assert len(seen) > 60
    free = {("config", name) for name in ("minicnn", "earlier")} | {
        ("epoch",),
        *(("rows", 0, f"{what}_seconds") for what in ("data", "compute")),
    }
    unused = {where for where in seen if where[0] == "random"} | free
    assert seen - refused <= unused, sorted(map(str, seen - refused - unused))


DAMAGED_VIEWS = [  # what no file says of its view, of a network that sees 224 pixels
    *(("size", value) for value in (-1, 0, 223, 224.0, "224", None, True)),
    *(("resize", value) for value in (-1, 0, 223, 256.0, 10**9, "256", None)),
    *(("mean", value) for value in (0, [0, 0], [0, 0, "x"], [0, 0, np.nan], [0, 0, np.inf], [[0, 0, 0]], None)),
    *(("std", value) for value in (1, [1, 1], [1, 1, 0], [1, 1, -1], [1, 1, np.nan], [1, 1, np.inf], [1, 1, None])),
]


def test_views_that_are_damaged():
    config = {"variant": "2014", "groups": True, "init": "he", "classes": ["a", "b"]}
    whole = {"size": 224, "mean": [0, 0.5, -1], "std": [1, 1e-3, 255], "resize": 4096}
    view = runs.view_of("a file", {**config, "view": whole}, {})
    assert view.numbers() == whole and runs.view_of("", {**config, "view": {**whole, "resize": 224}}, {}).resize == 224
    for name, value in [*DAMAGED_VIEWS, ("colors", "RGB"), ("resize", 4097)]:
        with pytest.raises(CheckpointError, match=r"^a file: its view is damaged: [^\n]*$"):
            runs.view_of("a file", {**config, "view": {**whole, name: value}}, {})


@pytest.mark.parametrize("image", [(64, 64, 3), (72, 72, 1), (72, 72), (72, 60, 3), "nan"])
@pytest.mark.parametrize("program", ["evaluate.py", "predict.py", "train.py"])
def test_a_mean_image_that_is_damaged(mistake, look, tmp_path, program, image):
    net, path = look.tiny("2014", 3), str(tmp_path / "net.safetensors")
    pixels = np.full((72, 72, 3), np.nan) if image == "nan" else np.zeros(image)
    config = {"variant": "2014", "groups": True, "init": "he", "classes": ["a", "b", "c"]}
    view = View(look.SIZE, (0.0, 0.0, 0.0), RAW, pixels.astype(np.float32), resize=72)
    runs.save_network(path, net, config, view)
    option = "--from" if program == "train.py" else "--checkpoint"
    words = [path, "view is damaged", "finite" if image == "nan" else f"the mean image {image}"]
    mistake(words, program, option, path, *["photo.jpg"] * (program == "predict.py"))


@pytest.mark.parametrize("value", [np.zeros(2), np.zeros(0), np.array(np.inf)], ids=["two", "none", "infinite"])
def test_a_state_that_is_damaged(mistake, run, tmp_path, value):
    """Of the network, of its optimizer and of a schedule that has a state."""
    last = tmp_path / "last.safetensors"
    assert run("train.py", "--schedule", "plateau", "--epochs", 1, "--out", tmp_path).status == 0
    arrays, info = minicnn.load(last)
    for name in ("model.fc8.bias", "optimizer.velocity.0", "schedule.count", "schedule.waited"):
        minicnn.save(last, {**arrays, name: value}, info)
        words = [str(last), f"its {name.partition('.')[0]} cannot be restored: "]
        mistake(words, "train.py", "--resume", last, "--epochs", 2)


@pytest.mark.parametrize("random", [None, -1, [], [1], [1, "a"], [-1, 0], {}])
def test_random_numbers_that_are_damaged(mistake, finished, tmp_path, random):
    arrays, info = minicnn.load(finished.folder / "last.safetensors")
    minicnn.save(tmp_path / "last.safetensors", arrays, {**info, "random": random})
    words = [str(tmp_path / "last.safetensors"), "damaged"]
    mistake(words, "train.py", "--resume", tmp_path / "last.safetensors", "--epochs", 4)


def test_what_workers_say_that_wait_in_vain(tmp_path):
    """How to go on, as soon as there is something to go on with."""
    for workers in (Workers(), second := Workers()):
        second.rank = 1  # which does not claim the folder
        settings = Namespace(out=str(tmp_path / str(workers.rank)), resume=None)
        with folders.claimed(settings, workers=workers):
            assert workers.advice() == ""
            last = tmp_path / str(workers.rank) / "last.safetensors"
            last.parent.mkdir(exist_ok=True)
            last.touch()
            assert workers.advice() == f"; go on with: python {sys.argv[0]} --resume {last}"


# -- images -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["curves.png", "filters.png"])
def test_pictures_show_something(finished, name):
    with Image.open(finished.folder / name) as picture:
        assert picture.format == "PNG" and picture.width >= 640
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert len(np.unique(pixels @ [1, 256, 65536])) > 50 and pixels.std() > 10


def test_curves_of_any_number_of_epochs(tmp_path):
    """Of one, too, and of a run that diverged."""
    row = {"train_loss": 2.3, "train_top1": 10.0, "val_loss": 2.4, "val_top1": 15.0, "val_top5": 55.0}
    for name, values in {"one": [2.3], "three": [2.3, 1.1, 0.2], "diverged": [2.3, np.nan, np.nan]}.items():
        rows = [{"epoch": i + 1, **row, "train_loss": value} for i, value in enumerate(values)]
        drawing.draw_curves(rows, tmp_path / name)
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 2 * picture.height > 600


def test_one_epoch_has_one_tick_and_room_above_it(tmp_path, monkeypatch):
    row = {"train_loss": 2.3, "train_top1": 10.0, "val_loss": 2.25, "val_top1": 15.0, "val_top5": 55.0}
    figure = drawing.new_figure(9, 3.6)
    monkeypatch.setattr(drawing, "new_figure", lambda *size: figure)
    drawing.draw_curves([{"epoch": 1, **row}], tmp_path / "curves.png")
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]
    bottom, top = figure.axes[0].get_ylim()
    assert bottom == 0 and top > 1.02 * 2.3


def test_each_kernel_is_shown_on_its_own_scale(tmp_path):
    """96 red kernels under a black row, half of them a thousand times larger, and one without any contrast."""
    weight = np.full((11, 11, 3, 96), -1, np.float32)
    weight[1:, :, 0] = 1
    weight[..., ::2] *= 1000
    weight[..., 1] = 0.5
    drawing.draw_filters(weight, tmp_path / "filters.png")
    with Image.open(tmp_path / "filters.png") as picture:
        red = (np.asarray(picture.convert("RGB")) == (255, 0, 0)).all(axis=2)

    def most_patches(lines):
        return max(np.count_nonzero(np.diff(line.astype(int), prepend=0) == 1) for line in lines)

    assert most_patches(red) * most_patches(red.T) == 96


# -- a full disk ----------------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint(mistake, run, at_epoch, look, tmp_path):
    """A limit on the size of files will do for a full disk: the system refuses to write on, half-way."""
    resource = pytest.importorskip("resource")
    folder, limits, before = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE), {}

    def fill():
        before["last"] = (folder / "last.safetensors").read_bytes()
        enough_for_the_best = len(before["last"]) * 3 // 4
        resource.setrlimit(resource.RLIMIT_FSIZE, (enough_for_the_best, limits[1]))

    at_epoch(2, fill)
    try:
        mistake(str(folder / "last.safetensors"), "train.py", "--epochs", 3, "--out", folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert look.files(folder) <= look.FILES
    assert (folder / "last.safetensors").read_bytes() == before["last"]
    assert run("train.py", "--resume", folder / "last.safetensors").status == 0
    assert [row["epoch"] for row in look.metrics(folder)] == [1, 2, 3]


@pytest.fixture
def disk(monkeypatch):
    """disk(name): from now on there is no space for a file of that name; disk(None): there is again."""
    replace = os.replace

    def no_space_for(name):
        def full(source, target):
            if os.path.basename(target) == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), source)
            replace(source, target)

        monkeypatch.setattr(os, "replace", full)

    return no_space_for


@pytest.mark.parametrize(
    "name, epoch",
    [("last.safetensors", 1), ("last.safetensors", 2), ("best.safetensors", 0)],
)
def test_no_space_for_one_file(mistake, run, at_epoch, changing_top1, disk, look, tmp_path, name, epoch):
    """What is there is whole, and the run goes on from it as if nothing had happened. Epoch 0 stands for the best."""
    folder, command = tmp_path / "run", ["train.py", "--epochs", 3, "--out"]
    assert run(*command, tmp_path / "undisturbed").status == 0
    best = max(look.metrics(tmp_path / "undisturbed"), key=lambda row: row["val_top1"])["epoch"]
    at_epoch(epoch or best, lambda: disk(name))
    mistake([str(folder / name), os.strerror(errno.ENOSPC)], *command, folder)
    assert look.files(folder) <= look.FILES and folder.exists() == (folder / "last.safetensors").exists()
    disk(None)
    last = folder / "last.safetensors"
    result = run("train.py", "--resume", last) if last.exists() else run(*command, folder)
    assert result.status == 0, result.err
    assert look.state(folder) == look.state(tmp_path / "undisturbed")


@pytest.mark.parametrize("name", ["metrics.csv", "curves.png", "filters.png"])
def test_what_is_there_to_be_looked_at_ends_no_run(run, at_epoch, disk, look, tmp_path, name):
    """A table or an image that cannot be replaced, as where another program has it open, is a line
    for each epoch; once it can be, it has everything."""
    folder = tmp_path / "run"
    assert run("train.py", "--epochs", 3, "--out", tmp_path / "undisturbed").status == 0
    at_epoch(1, lambda: disk(name))
    result = run("train.py", "--epochs", 2, "--out", folder)
    line = f"train.py: {folder / name} is not written: {os.strerror(errno.ENOSPC)}; the run continues\n"
    assert result.status == 0 and result.err == 2 * line and "epoch 2/2" in result.out
    assert look.files(folder) == look.FILES - {name}
    disk(None)
    result = run("train.py", "--resume", folder / "last.safetensors", "--epochs", 3)
    assert result.status == 0 and not result.err and look.files(folder) == look.FILES
    assert [row["epoch"] for row in look.metrics(folder)] == [1, 2, 3]


@pytest.mark.parametrize("error, reason", [(RuntimeError("no glyphs\nat all"), "no glyphs"), (KeyError(), "KeyError")])
def test_a_drawing_that_fails_ends_no_run(run, monkeypatch, look, tmp_path, error, reason):
    def fail(*_):
        raise error

    monkeypatch.setattr(recording, "draw_curves", fail)
    result = run("train.py", "--epochs", 1, "--out", tmp_path)
    assert (result.status, result.err) == (
        0,
        f"train.py: {tmp_path / 'curves.png'} is not written: {reason}; the run continues\n",
    )
    assert look.files(tmp_path) == look.ONE_EPOCH - {"curves.png"}


def test_curves_of_few_classes_have_no_five_best(run, photos, monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(recording, "draw_curves", lambda rows, path, top5: shown.append(top5))
    for classes, data in ((10, "synthetic"), (6, photos(classes=6)), (5, None)):
        if data is None:
            for part in ("train", "val"):
                shutil.rmtree(tmp_path / "photos" / part / "hen")
            data = tmp_path / "photos"
        assert run("train.py", "--data", data, "--epochs", 1, "--out", tmp_path / str(classes)).status == 0
    assert shown == [True, True, False]


def test_what_a_run_needs_is_saved_first(run, monkeypatch, look, tmp_path):
    """What happens while an image is drawn costs no epoch."""

    found = []
    monkeypatch.setattr(
        recording, "draw_curves", lambda *_: found.append(minicnn.load(tmp_path / "last.safetensors")[1]["epoch"])
    )
    assert run("train.py", "--epochs", 2, "--out", tmp_path).status == 0 and found == [1, 2]


def test_no_space_at_the_start(mistake, disk, look, tmp_path):
    disk("config.json")
    mistake([str(tmp_path / "run" / "config.json"), os.strerror(errno.ENOSPC)], "train.py", "--out", tmp_path / "run")
    assert not look.files(tmp_path / "run")
