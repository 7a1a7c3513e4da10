"""A run that is stopped, killed or damaged in the middle of an epoch goes on as if nothing had happened."""

import importlib.machinery
import itertools
import json
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from support import (
    bad_files,
    beside,
    drawing,
    onnx_format,
    options,
    progress,
    recording,
    runs,
    scores,
    weight_files,
)

import minicnn
from minicnn import optim
from minicnn.checks import escaped

# an epoch of four steps, of 8, 8, 8 and 6 images
COMMAND = ["train.py", "--epochs", 3, "--batch-size", 8, "--seed", 3]
STEPS = 4


@pytest.fixture
def whole(run, look, tmp_path):
    """What a run leaves that nothing disturbs."""
    assert run(*COMMAND, "--out", tmp_path / "whole").status == 0
    return look.state(tmp_path / "whole")


@pytest.fixture
def begun(run, at_step, tmp_path):
    """The checkpoint of a run that was stopped within its first epoch."""
    undo = at_step(2, kill)
    assert run(*COMMAND, "--out", tmp_path / "begun").status == 130
    undo()
    return tmp_path / "begun" / "last.safetensors"


@pytest.fixture
def at_step(run, monkeypatch):
    """at_step(n, action): action() is called in the middle of the n-th update from now."""

    def install(n, action):
        original, steps = optim.SGD.step, itertools.count(1)

        def step(optimizer):
            if next(steps) == n:
                action()
            return original(optimizer)

        monkeypatch.setattr(optim.SGD, "step", step)
        return lambda: monkeypatch.setattr(optim.SGD, "step", original)

    return install


def kill(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def raised():
    raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def own_handlers():
    """Each test begins with Python's handlers, as a program does."""
    numbers = [getattr(signal, name) for name in beside.SIGNALS if hasattr(signal, name)]
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


# -- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 3, 4, 5, 12])
def test_a_signal_waits_for_the_end_of_the_step(run, at_step, look, whole, tmp_path, capfd, step):
    """In the first step of an epoch, in the middle, in the last of an epoch and of the run."""
    folder = tmp_path / "run"
    undo = at_step(step, kill)
    result = run(*COMMAND, "--out", folder)
    undo()
    assert result.status == 130 and result.err == look.interrupted(folder)
    assert capfd.readouterr().err == beside.FINISHING.decode()
    info = minicnn.load(folder / "last.safetensors")[1]
    assert (info["epoch"], info["begun"]["batches"]) == ((step - 1) // STEPS, (step - 1) % STEPS + 1)
    minicnn.manual_seed(99)
    result = run("train.py", "--resume", folder / "last.safetensors")
    assert result.status == 0, result.err
    assert look.state(folder) == whole and look.files(folder) == look.FILES


class InterruptedImport:
    """In sys.meta_path: while this module is imported, a signal comes. A module of a package is the real one, a package
    is empty: it need not be installed, and PyTorch cannot be imported twice."""

    def __init__(self, module):
        self.module, self.went_on = module, False

    def find_spec(self, name, path=None, target=None):
        if name == self.module and "." not in name:
            return importlib.machinery.ModuleSpec(name, self)
        if name == self.module:
            self.exec_module(name)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        signal.raise_signal(signal.SIGINT)
        self.went_on = True


IMPORTS = [  # (function, a module that it imports)
    (drawing.require_matplotlib, "matplotlib.figure"),
    (drawing.require_matplotlib, "matplotlib.backends.backend_agg"),
    (onnx_format.require_onnx, "onnx"),
    (weight_files.require_torch, "torch"),
    (lambda: options.progress_bar([]), "tqdm"),
]


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize(("function", "module"), IMPORTS, ids=[module for _, module in IMPORTS])
def test_a_signal_waits_for_the_end_of_an_import(monkeypatch, function, module, stop):
    """Beside a training, which has handlers of its own, and elsewhere. What was imported halfway may crash Python."""
    monkeypatch.setitem(sys.modules, module, None)  # afterwards there is what was there before
    del sys.modules[module]
    monkeypatch.setattr(sys, "meta_path", [interrupted := InterruptedImport(module), *sys.meta_path])
    with beside.Stop() if stop else nullcontext(), pytest.raises(KeyboardInterrupt):
        function()
    assert interrupted.went_on
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_signal_waits_inside():
    inside = 0
    with pytest.raises(KeyboardInterrupt), beside.uninterrupted():
        kill(signal.SIGINT)
        inside += 1
        kill(signal.SIGINT)
        inside += 1
    assert inside == 1
    with pytest.raises(KeyboardInterrupt), beside.uninterrupted():
        kill(signal.SIGINT)
        raise ImportError("it is broken")
    with pytest.raises(KeyboardInterrupt):
        kill(signal.SIGINT)
    with beside.uninterrupted():  # nothing comes
        pass
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with beside.uninterrupted():  # as of nohup: it stays ignored
        kill(signal.SIGINT)
    signal.signal(signal.SIGINT, ignored)
    thread = threading.Thread(target=beside.uninterrupted().__enter__)
    thread.start()
    thread.join()  # other threads may not set handlers
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_many_signals(run, at_step, look, whole, tmp_path):
    """Stopped again and again, with any number of threads that load images, and in processes."""
    folder = tmp_path / "run"
    more = ["--out", folder]
    for i, loading in enumerate((["--workers", 0], ["--workers", 3], ["--workers", 1, "--processes"], [])):
        undo = at_step(2 if i < 3 else 99, kill)
        result = run(*(COMMAND if i == 0 else ["train.py"]), *more, *loading)
        undo()
        assert result.status == (130 if i < 3 else 0), result.err
        more = ["--resume", folder / "last.safetensors"]
    found = look.state(folder)
    for state in (found, whole):
        for config in (state["config"], state["last"][1]["config"], state["best"][1]["config"]):
            for name in ("workers", "processes", "earlier"):
                config.pop(name, None)
    assert found == whole


def test_a_second_signal_ends_at_once(run, at_step, look, whole, tmp_path):
    """In the middle of the step, with the checkpoint before, which is whole."""

    def twice():
        kill()
        kill()

    folder = tmp_path / "run"
    undo = at_step(STEPS + 2, twice)
    result = run(*COMMAND, "--out", folder)
    undo()
    assert result.status == 130 and result.err == look.interrupted(folder)
    assert minicnn.load(folder / "last.safetensors")[1]["epoch"] == 1
    assert run("train.py", "--resume", folder / "last.safetensors").status == 0
    assert look.state(folder) == whole


def test_a_signal_before_the_first_step_ends_at_once(run, monkeypatch, look, tmp_path):
    monkeypatch.setattr(recording.Run, "begin_epoch", lambda *_: pytest.fail("it has begun"))
    monkeypatch.setattr("support.start.Start.restore", lambda *_: kill())
    result = run(*COMMAND, "--out", tmp_path / "run")
    assert (result.status, result.err) == (130, "interrupted\n") and not (tmp_path / "run").exists()


def test_handlers_are_put_back(run, at_step, tmp_path):
    at_step(2, kill)
    assert run(*COMMAND, "--out", tmp_path / "run").status == 130
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler


# -- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [3, 6, 12])
def test_what_is_lost_when_a_program_is_killed(run, at_step, look, whole, tmp_path, step):
    """No more than what came after the newest checkpoint; here there is one after each step."""
    folder = tmp_path / "run"
    undo = at_step(step, raised)
    result = run(*COMMAND, "--checkpoint-every", 0, "--out", folder)
    undo()
    assert result.status == 130 and result.err == look.interrupted(folder)
    info = minicnn.load(folder / "last.safetensors")[1]
    assert 0 < info["epoch"] * STEPS + info["begun"].get("batches", 0) < step
    assert run("train.py", "--resume", folder / "last.safetensors", "--checkpoint-every", 10).status == 0
    assert equal_but_for_interval(look.state(folder), whole)


def equal_but_for_interval(*states):
    for state in states:
        for config in (state["config"], state["last"][1]["config"], state["best"][1]["config"]):
            config.pop("earlier", None)
            config.pop("checkpoint_every")
    return states[0] == states[1]


def test_how_often_checkpoints_are_written(run, monkeypatch, tmp_path):
    saved, original = [], recording.Run.save
    monkeypatch.setattr(
        recording.Run, "save", lambda self, *args, **kw: (saved.append(kw), original(self, *args, **kw))
    )
    clock = itertools.count()
    monkeypatch.setattr(recording.time, "perf_counter", lambda: 20.0 * next(clock))  # each look takes 20 seconds
    assert run(*COMMAND, "--checkpoint-every", 2, "--out", tmp_path / "run").status == 0
    between = [i for i, kw in enumerate(saved) if not kw]
    assert len(saved) - len(between) == 3 and between
    saved.clear()
    assert run(*COMMAND, "--checkpoint-every", 1000, "--out", tmp_path / "other").status == 0
    assert saved == 3 * [{"epoch_done": True}]


@pytest.mark.parametrize("damage", ["cut", "bit", "gone", "text"])
def test_a_damaged_checkpoint_and_the_one_before(run, at_step, look, whole, tmp_path, damage):
    folder = tmp_path / "run"
    last, previous = folder / "last.safetensors", folder / "previous.safetensors"
    undo = at_step(7, kill)
    assert run(*COMMAND, "--out", folder).status == 130
    undo()
    content = bytearray(last.read_bytes())
    before = previous.read_bytes()
    if damage == "bit":
        content[-100] ^= 4
    last.write_bytes({"cut": content[:-100], "bit": content, "gone": b"", "text": b"text"}[damage])
    if damage == "gone":
        last.unlink()
    undo = at_step(1, raised)  # before it has saved
    result = run("train.py", "--resume", last)
    undo()
    assert result.status == 130
    assert previous.read_bytes() == before
    assert result.err.startswith(f"train.py: {last} ") and f"going on with {previous}, which was" in result.err
    told = result.err.splitlines()[0]
    result = run("train.py", "--resume", last)
    # one that was gone is there again at once
    assert result.status == 0 and result.err.splitlines() == ([] if damage == "gone" else [told])
    assert look.state(folder) == whole and look.files(folder) == look.FILES
    assert runs.load_run(str(previous))[1]["epoch"] == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batches", STEPS + 1), ("batches", 10**30), ("batches", 0), ("batches", 1.0), ("images", "30"), ("seen", True),
        ("seen", 2**53), ("sums", 3), ("sums", [1.0, 2.0]), ("sums", [1.0, 2.0, 10**30]), ("sums", [1.0, 2.0, np.nan]),
        ("seconds", np.inf), ("waited", None), ("run_seconds", -np.inf), ("lr", np.nan),
    ],
)  # fmt: skip
def test_counts_of_an_epoch_that_are_damaged(run, mistake, begun, tmp_path, name, value):
    arrays, info = minicnn.load(begun)
    path = tmp_path / "last.safetensors"
    minicnn.save(path, arrays, {**info, "begun": {**info["begun"], name: value}})
    mistake([f"{path} is damaged: ", "batches of 4" if value == STEPS + 1 else "begun"], "train.py", "--resume", path)


def test_counts_of_an_epoch_that_has_ended(run, at_step, look, whole, begun, tmp_path):
    """As after a signal during the validation: the epoch has no further batches."""
    arrays, info = minicnn.load(begun)
    path = tmp_path / "last.safetensors"
    minicnn.save(path, arrays, {**info, "begun": {**info["begun"], "batches": STEPS}})
    assert run("train.py", "--resume", path).status == 0
    assert len(look.metrics(tmp_path)) == 3


def test_two_damaged_checkpoints(run, mistake, finished, tmp_path):
    for name in ("last", "previous"):
        content = (finished.folder / f"{name}.safetensors").read_bytes()
        (tmp_path / f"{name}.safetensors").write_bytes(content[:-1])
    mistake(f"{tmp_path / 'last.safetensors'} ", "train.py", "--resume", tmp_path / "last.safetensors", "--epochs", 9)


def test_a_damaged_checkpoint_does_not_take_the_place_of_the_one_before(run, at_step, tmp_path):
    folder = tmp_path / "run"
    assert run(*COMMAND, "--out", folder).status == 0
    last, previous = folder / "last.safetensors", folder / "previous.safetensors"
    before = previous.read_bytes()
    last.write_bytes(last.read_bytes()[:-1])
    at_step(1, kill)
    assert run("train.py", "--resume", last, "--epochs", 4).status == 130
    assert previous.read_bytes() == before and runs.load_run(str(last))[1]["begun"]["batches"] == 1


@pytest.mark.parametrize("refuses", [False, True])
def test_where_a_file_cannot_have_two_names(run, monkeypatch, look, tmp_path, refuses):
    def refuse(*_):
        raise OSError("no links")

    if refuses:
        monkeypatch.setattr(os, "link", refuse)
    assert run(*COMMAND, "--out", tmp_path).status == 0
    assert look.files(tmp_path) == look.FILES
    assert [runs.load_run(str(tmp_path / f"{n}.safetensors"))[1]["epoch"] for n in ("last", "previous")] == [3, 2]


def test_where_a_file_cannot_have_two_names_and_the_disk_is_full(run, monkeypatch, look, whole, tmp_path):
    """There is no last.safetensors then, and nothing else may be removed: the run goes on from the one before."""
    save, numbers, folder = minicnn.save, itertools.count(), tmp_path / "run"

    def full(path, *given):
        if path.name == "last.safetensors" and next(numbers) == 2:
            raise OSError(28, "No space left on device", str(path))
        save(path, *given)

    def refuse(*_):
        raise OSError("no links")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(minicnn, "save", full)
    result = run(*COMMAND, "--out", folder)
    last = folder / "last.safetensors"
    assert result.status == 2 and not last.exists()
    assert result.err == (
        f"train.py: {last}: No space left on device; when that is mended, go on with: "
        f"python {look.PROGRAMS}/train.py --resume {last}\n"
    )
    assert run("train.py", "--resume", last).status == 0
    assert look.state(folder) == whole and look.files(folder) == look.FILES


@pytest.mark.parametrize("there", ["nothing", "a file"])
def test_a_folder_that_is_gone(run, at_step, look, tmp_path, there):
    """A network drive may be away: the line says how to go on, and when it is back, nothing is lost."""
    folder, away, last = tmp_path / "run", tmp_path / "away", tmp_path / "run" / "last.safetensors"

    def vanish():
        folder.rename(away)
        if there == "a file":
            folder.write_text("mine")

    at_step(2 * STEPS + 2, vanish)  # the first checkpoint is written for sure
    result = run(*COMMAND, "--out", folder)
    *_, line = result.err.splitlines()  # before it, of what was drawn just then
    assert result.status == 2 and line.startswith(f"train.py: {folder}")
    assert line.endswith(f"; when that is mended, go on with: python {look.PROGRAMS}/train.py --resume {last}")
    assert {"config.json", "best.safetensors", "last.safetensors"} <= look.files(away)
    assert folder.exists() == (there == "a file")


@pytest.mark.parametrize("step", [2, 2 * STEPS + 2])
def test_memory_that_is_not_there(run, at_step, look, tmp_path, step):
    """Of the first epoch there is no checkpoint, of the third one."""

    def none_left():
        raise MemoryError

    at_step(step, none_left)
    result, last = run(*COMMAND, "--out", tmp_path / "run"), tmp_path / "run" / "last.safetensors"
    how = f"none is left; when that is mended, go on with: python {look.PROGRAMS}/train.py --resume {last}"
    advice = "a smaller --batch-size needs less" if step == 2 else how
    assert (result.status, result.err) == (2, f"train.py: there is not enough memory: {advice}\n")


def test_events_of_others_stay(run, look, at_step, tmp_path):
    """A run that ends before its first checkpoint removes its own."""
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "events.out.tfevents.1700000000.other").write_text("other")
    at_step(1, raised)
    assert run(*COMMAND, "--tensorboard", "--out", folder).status == 130
    assert look.files(folder) == {"events.out.tfevents.1700000000.other"}


def test_a_checkpoint_that_could_not_be_written_is_kept_once(tmp_path):
    """When the next try comes, both names are of one file, and there is no third."""
    last, previous = tmp_path / "last", tmp_path / "previous"
    last.write_text("new")
    previous.write_text("old")
    for _ in range(3):
        recording.keep(last, previous)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "previous"]
    assert previous.read_text() == last.read_text() == "new"


def test_data_that_have_changed_within_an_epoch(run, at_step, photos, look, tmp_path):
    """The epoch begins again, and says so."""
    data, folder = photos(classes=3, train=4), tmp_path / "run"
    at_step(2, kill)
    command = ["train.py", "--data", data, "--batch-size", 4, "--epochs", 2, "--out", folder]
    assert run(*command).status == 130
    (data / "train" / "cat" / "0.jpg").unlink()
    result = run("train.py", "--resume", folder / "last.safetensors")
    assert result.status == 0 and "the data had 12 images and have 11: epoch 1 begins again" in result.out
    assert [row["step"] for row in look.metrics(folder)] == [5, 8]


# -- observers -----------------------------------------------------------------------------------------------------


def test_what_is_watched_goes_on_too(run, at_step, look, whole, tmp_path):
    """watch.csv is that of a run that nothing stopped; the training is the same, watched or not; and
    each start has a file for TensorBoard."""
    command = [*COMMAND, "--watch", "--tensorboard", "--out"]
    assert run(*command, tmp_path / "watched").status == 0
    folder = tmp_path / "run"
    undo = at_step(7, kill)
    assert run(*command, folder).status == 130
    undo()
    assert run("train.py", "--resume", folder / "last.safetensors").status == 0
    table = (folder / "watch.csv").read_text()
    assert table == (tmp_path / "watched" / "watch.csv").read_text()
    assert [line.split(",")[:2] for line in table.splitlines()[1:9:7]] == [["1", "conv1"], ["1", "fc8"]][:2] or table
    events = [name for name in look.files(folder) if name.startswith("events.")]
    assert len(events) == 2 and look.files(folder) - set(events) == look.FILES | {"watch.csv", "watch.png"}
    found = look.state(folder)
    for state in (found, whole):
        for config in (state["config"], state["last"][1]["config"], state["best"][1]["config"]):
            for name in ("watch", "tensorboard"):
                config.pop(name)
    assert found == whole


def test_the_loss_every_ten_seconds(run, monkeypatch, tmp_path):
    """TensorBoard has it within an epoch; then the table of epochs, and conv1's kernels."""
    from support import board

    clock = itertools.count()
    monkeypatch.setattr(board.time, "perf_counter", lambda: 6.0 * next(clock))
    scalars, images = [], []
    monkeypatch.setattr(board.Events, "scalars", lambda self, step, values: scalars.append((step, values)))
    monkeypatch.setattr(board.Events, "image", lambda self, step, tag, png: images.append((step, tag)))
    assert run(*COMMAND, "--tensorboard", "--out", tmp_path / "run").status == 0
    epochs = [(step, values) for step, values in scalars if "lr" not in values and len(values) > 1]
    assert [step for step, _ in epochs] == [4, 8, 12] and epochs[0][1].keys() == set(board.TAGS.values())
    within = [(step, values["loss/now"]) for step, values in scalars if "loss/now" in values]
    assert within and all(0 < loss < 100 for _, loss in within) and not images  # which the tests do not draw


# -- folders --------------------------------------------------------------------------------------------------------


def test_a_run_that_was_killed_before_its_first_checkpoint(run, mistake, look, tmp_path):
    """Its folder is taken over, with what it has left; a folder with somebody else's config.json is not."""
    pytest.importorskip("fcntl")
    folder = tmp_path / "run"
    for text in ("", json.dumps({"minicnn": "0.1.0", "epochs": 9})):
        folder.mkdir()
        (folder / "config.json").write_text(text)
        for name in ("watch.csv", "bad_files.txt", "events.out.tfevents.1.x", ".config.json.12.0123abcd", "notes.txt"):
            (folder / name).write_text("old")
        assert run("train.py", "--epochs", 1, "--out", folder).status == 0
        assert look.files(folder) == look.ONE_EPOCH | {"notes.txt"}
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 768}')
    mistake(["holds a run", "no checkpoint"], "train.py", "--epochs", 1, "--out", folder)
    assert look.files(folder) == {"config.json"}


def test_a_run_that_goes_on_elsewhere_and_is_killed_at_once(run, at_step, look, whole, tmp_path):
    """Its new folder has a checkpoint from the beginning, which is that of the old one."""
    old, new = tmp_path / "old" / "last.safetensors", tmp_path / "new" / "last.safetensors"
    undo = at_step(STEPS + 2, kill)  # within the second epoch
    assert run(*COMMAND, "--out", old.parent).status == 130
    undo()
    undo = at_step(1, raised)
    assert run("train.py", "--resume", old, "--out", new.parent).status == 130
    undo()
    (arrays, info), (expected, before) = (minicnn.load(path) for path in (new, old))
    assert all(np.array_equal(arrays[name], expected[name]) for name in expected | arrays)
    assert [info[name] for name in ("rows", "begun", "random")] == [before[n] for n in ("rows", "begun", "random")]
    assert run("train.py", "--resume", new).status == 0
    for name in ("last", "best"):
        assert look.state(new.parent)[name][0] == whole[name][0]


def test_a_run_that_was_killed_before_it_went_on_elsewhere(run, finished, mistake, look, tmp_path):
    """Its folder is taken over, with the copy of the best network; a network without a run is not."""
    pytest.importorskip("fcntl")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "best.safetensors").write_text("a copy, or a part of one")
    (folder / "config.json").write_text("")
    arguments = "train.py", "--resume", finished.folder / "last.safetensors", "--epochs", 9, "--out", folder
    assert run(*arguments).status == 0
    for path in folder.iterdir():
        if path.name not in ("best.safetensors", "config.json"):
            path.unlink()
    mistake("holds a network", *arguments)
    assert look.files(folder) == {"best.safetensors", "config.json"}


def test_a_run_that_was_killed_just_before_its_end(run, look, whole, tmp_path):
    """With its last checkpoint written, but not what shows it: the rest comes with --resume."""
    pytest.importorskip("fcntl")
    folder = tmp_path / "run"
    assert run(*COMMAND, "--watch", "--out", folder).status == 0
    files = look.files(folder)
    for name in ("finished.json", "metrics.csv", "report.html", "watch.png"):
        (folder / name).unlink()
    (folder / ".metrics.csv.12.0123abcd").touch()
    result = run("train.py", "--resume", folder / "last.safetensors")
    assert result.status == 0 and "best: top-1" in result.out and "epoch 3/3" not in result.out
    assert look.files(folder) == files and len(look.metrics(folder)) == 3
    assert "best" not in run("train.py", "--resume", folder / "last.safetensors").out  # now it has ended


def test_a_run_that_was_killed_between_its_first_files(run, at_step, look, whole, tmp_path):
    """last.safetensors comes before the first best.safetensors, which --resume makes up for."""
    folder = tmp_path / "run"
    undo = at_step(STEPS + 1, raised)
    assert run(*COMMAND, "--out", folder).status == 130
    undo()
    for name in look.files(folder) - {"config.json", "last.safetensors"}:
        (folder / name).unlink()
    assert run("train.py", "--resume", folder / "last.safetensors").status == 0
    assert look.state(folder) == whole and look.files(folder) == look.FILES


# -- images that cannot be read -------------------------------------------------------------------------------------


def test_images_that_cannot_be_read_are_left_out(run, photos, look, tmp_path):
    """Each is named once, and in bad_files.txt, whether it is trained on or validated with."""
    data, folder = photos(classes=3, train=4, val=3), tmp_path / "run"
    bad = [data / "train" / "cat" / "1.jpg", data / "val" / "eel" / "2.jpg", data / "train" / "dog" / "3.jpg"]
    for path in bad:
        path.write_bytes(b"no image")
    command = ["train.py", "--data", data, "--batch-size", 4, "--out", folder, "--epochs", 2]
    result = run(*command, "--max-bad", 3)
    assert result.status == 0, result.err
    lines = result.err.splitlines()
    assert sorted(line.partition(": not an image")[0] for line in lines) == sorted(f"train.py: {path}" for path in bad)
    assert all(line.endswith("; left out") for line in lines)
    named = (folder / "bad_files.txt").read_text().splitlines()
    assert sorted(line.partition(": ")[0] for line in named) == sorted(map(str, bad))
    assert look.files(folder) == look.FILES | {"bad_files.txt"}

    result = run("train.py", "--resume", folder / "last.safetensors", "--epochs", 3)
    assert result.status == 0 and not result.err  # they are known
    assert (folder / "bad_files.txt").read_text().splitlines() == named


def test_too_many_images_that_cannot_be_read(run, mistake, photos, look, tmp_path):
    """The run ends, and goes on when they are mended."""
    data, folder = photos(classes=3, train=4), tmp_path / "run"
    for path in (data / "train").glob("*/[12].jpg"):
        path.write_bytes(b"")
    command = ["train.py", "--data", data, "--batch-size", 4, "--out", folder, "--epochs", 2, "--max-bad", 2]
    result = run(*command)
    last = folder / "last.safetensors"
    *named, line = result.err.splitlines()
    assert result.status == 2 and 3 <= len(named) <= 6
    assert f"train.py: {len(named)} images cannot be read, which bad_files.txt names, and --max-bad is 2: " in line
    assert line.endswith(f"when that is mended, go on with: python {look.PROGRAMS}/train.py --resume {last}")
    assert len((folder / "bad_files.txt").read_text().splitlines()) == len(named)
    assert run("train.py", "--resume", last, "--max-bad", 6).status == 0
    assert len((folder / "bad_files.txt").read_text().splitlines()) == 6


def test_too_many_images_that_are_mended(run, photos, look, tmp_path):
    """The run goes on, and names them no longer."""
    data, folder = photos(classes=3, train=4), tmp_path / "run"
    bad = list((data / "train").glob("*/[12].jpg"))
    sound = [path.read_bytes() for path in bad]
    for path in bad:
        path.write_bytes(b"")
    command = ["train.py", "--data", data, "--batch-size", 4, "--out", folder, "--epochs", 2, "--max-bad", 2]
    assert run(*command).status == 2
    for path, content in zip(bad, sound, strict=True):
        path.write_bytes(content)
    result = run("train.py", "--resume", folder / "last.safetensors")
    assert result.status == 0 and not result.err
    assert look.files(folder) == look.FILES


def test_a_batch_of_bad_images(run, photos, tmp_path):
    data = photos(classes=3, train=4)
    for path in (data / "train").glob("*/[123].jpg"):
        path.write_bytes(b"")
    command = ["train.py", "--data", data, "--batch-size", 2, "--workers", 0, "--max-bad", 99]
    result = run(*command, "--out", tmp_path / "run")
    assert result.status == 2 and "none of the images of a batch can be read" in result.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("most", "images", "allowed"), [(None, 999, 0), (None, 1_281_167, 1281), (7, 10, 7), (0, 5000, 0)]
)
def test_how_many_images_may_be_bad(most, images, allowed):
    bad = bad_files.BadFiles(most, images, {})
    assert bad.most == allowed and bool(bad.options) == (allowed > 0)
    met = [(f"{i}.jpg", "no image") for i in range(allowed)]
    assert bad.add(met) == (allowed > 0) and not bad.add(met) and not bad.too_many
    assert bad.add([("one\nmore.jpg", "rotten")]) and bad.too_many
    assert bad.text().splitlines()[-1] == "one\\nmore.jpg: rotten" and len(bad.text().splitlines()) == allowed + 1


# -- what is shown --------------------------------------------------------------------------------------------------


def test_a_line_every_thirty_seconds_without_a_terminal(run, monkeypatch, tmp_path):
    clock = itertools.count()
    monkeypatch.setattr(progress.time, "perf_counter", lambda: 5.0 * next(clock))
    result = run("train.py", "--epochs", 1, "--batch-size", 1, "--out", tmp_path / "run")
    lines = [line for line in result.out.splitlines() if "waiting for data" in line]
    assert 1 < len(lines) < 30 and all(line.startswith("epoch 1/1  loss ") for line in lines)
    assert all(" left  run " in line for line in lines)


def test_the_part_of_an_epoch_that_one_of_several_workers_has():
    """A checkpoint has counted the images of all. Its first batch may have no rows for this one."""
    score = scores.Score(workers=SimpleNamespace(size=2, rank=0))
    score.restore({"batches": 2, "lr": 0.1, "waited": 0.0, "sums": [8.0, 4.0, 8.0], "seen": 8, "seconds": 1.0})
    meter = progress.Meter(10, "epoch 1/1", score)
    with meter:
        meter.show(0)
        title, loss, top1, done, *_ = meter.words()
    assert (title, loss, top1, done) == ("epoch 1/1", "loss 1.000", "top-1 50.0%", "40%")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01"), (187_200, "2 d 4 h")]
)
def test_durations(seconds, words):
    assert progress.duration(seconds) == words


def test_words_that_fit():
    words = ["epoch 12/90", "loss 2.345", "top-1 45.2%", "45%", "380/s", "wait 3%", "12:34", "run 3 d 4 h"]
    kept = [progress.fitting(words, columns) for columns in (99, 65, 60, 50, 40, 30)]
    assert kept == [
        " ".join(words),
        "epoch 12/90 loss 2.345 top-1 45.2% 45% 380/s 12:34 run 3 d 4 h",
        "epoch 12/90 loss 2.345 top-1 45.2% 45% 12:34 run 3 d 4 h",
        "epoch 12/90 loss 2.345 top-1 45.2% 45% 12:34",
        "epoch 12/90 loss 2.345 45% 12:34",
        "epoch 12/90 loss 2.345 45%",
    ]


def test_a_clock_that_stands_still(run, monkeypatch, tmp_path):
    monkeypatch.setattr(time, "perf_counter", lambda: 1.0)
    assert run("train.py", "--epochs", 1, "--out", tmp_path / "run").status == 0


# -- a thread for files ---------------------------------------------------------------------------------------------


def test_what_goes_wrong_aside():
    def fail():
        raise OSError("no")

    done = []
    with pytest.raises(OSError, match="no"), beside.Aside() as aside:
        aside.begin(lambda: done.append(1))
        aside.begin(fail)
        with pytest.raises(OSError, match="no"):
            aside.wait()
        assert aside.failed and done == [1]
        aside.wait()  # it is said once
        aside.begin(lambda: None)
        aside.wait()
        assert not aside.failed
        aside.begin(fail)
    with pytest.raises(KeyError), beside.Aside() as aside:  # the reason comes first
        aside.begin(fail)
        raise KeyError
    with beside.Aside() as aside:
        aside.begin(fail)
        with pytest.raises(OSError, match="no"):
            while True:
                aside.look()


def test_copies_are_the_states_of_one_moment(tmp_path):
    """The training goes on while they are written."""
    arrays = {"w": np.arange(3.0), "n": 2}
    run = recording.Run.__new__(recording.Run)
    run.buffers, run.statistics, run.view = {}, None, type("View", (), {"mean_image": None})()
    first = run._copied({"part": arrays})
    arrays["w"] += 1
    assert first["part.w"].tolist() == [0, 1, 2] and first["part.n"] == 2
    memory = first["part.w"]
    assert run._copied({"part": arrays})["part.w"] is memory and memory.tolist() == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("loading", [["--workers", 2], ["--workers", 1, "--processes"]], ids=["threads", "processes"])
def test_a_training_with_hundreds_of_odd_images(run, photos, look, tmp_path, loading):
    """More than 300 broken and odd files in one class: none ends the run, and each that cannot be read is named."""
    odd_images = pytest.importorskip("odd_images")
    data = photos(classes=3, train=4)
    (data / "train" / "odd").mkdir()
    (data / "val" / "odd").mkdir()
    shutil.copy(data / "val" / "cat" / "0.jpg", data / "val" / "odd")
    odd = [file for file in odd_images.write(data / "train" / "odd") if file.listed]
    assert len(odd) > 300
    command = [
        "train.py",
        "--data",
        data,
        "--resize",
        64,
        "--batch-size",
        16,
        "--epochs",
        1,
        "--max-bad",
        400,
        *loading,
    ]
    result = run(*command, "--out", tmp_path / "run")
    assert result.status == 0, result.err[-500:]
    named = {line.partition(": ")[0] for line in (tmp_path / "run" / "bad_files.txt").read_text().splitlines()}
    assert len(named) > 100 and len(result.err.splitlines()) >= len(named)
    for file in odd:
        path = escaped(file.path)
        assert path in named if file.shown is None else file.either or file.shown.ndim == 0 or path not in named, path
