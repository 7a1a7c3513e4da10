"""train.py: the same command does the same again, and a run that has ended goes on."""

import errno
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from math import cos, pi
from pathlib import Path

import evaluate
import pytest
from support import images

import minicnn


def test_the_same_seed_the_same_run(run, look, tmp_path):
    """However many threads or processes load the images, and whatever was drawn before."""
    for name, options in {"a": (3, 1), "b": (3, 0), "c": (4, 1), "d": (3, 1, "--processes")}.items():
        minicnn.manual_seed(ord(name))
        seed, workers, *others = options
        result = run("train.py", "--seed", seed, "--workers", workers, *others, "--epochs", 2, "--out", tmp_path / name)
        assert result.status == 0, result.err
    a, b, c, d = (look.state(tmp_path / name) for name in "abcd")
    for same in (b, d):
        assert a["metrics"] == same["metrics"] and a["last"][0] == same["last"][0] and a["best"][0] == same["best"][0]
    assert a["metrics"] != c["metrics"] and a["last"][0] != c["last"][0]


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(run, at_epoch, look, tmp_path):
    """Interrupted in the third of four epochs: everything is the same, bit for bit, dropout included."""
    assert run("train.py", "--epochs", 4, "--out", tmp_path / "whole").status == 0
    folder = tmp_path / "run"

    at_epoch(3)
    result = run("train.py", "--epochs", 4, "--out", folder)
    assert result.status == 130 and result.err == look.interrupted(folder)
    assert look.files(folder) == look.UNFINISHED
    assert minicnn.load(folder / "last.safetensors")[1]["epoch"] == 2 and len(look.metrics(folder)) == 2
    minicnn.manual_seed(99)
    result = run("train.py", "--resume", folder / "last.safetensors")
    assert result.status == 0 and "epoch 3/4" in result.out and "epoch 2/4" not in result.out
    assert look.state(folder) == look.state(tmp_path / "whole")
    seconds = [row["seconds"] for row in look.metrics(folder)]
    assert seconds == sorted(seconds)


def test_a_finished_run_goes_on_for_more_epochs(run, look, tmp_path):
    """With a schedule for all four epochs: the rate that had fallen to nothing rises again."""
    last = tmp_path / "last.safetensors"
    assert run("train.py", "--epochs", 2, "--seed", 5, "--out", tmp_path).status == 0
    first, before = look.metrics(tmp_path), look.state(tmp_path)["last"][0]
    assert run("train.py", "--resume", last, "--epochs", 4).status == 0
    rows, after = look.metrics(tmp_path), look.state(tmp_path)["last"][0]
    assert rows[:2] == first and [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[3]["step"] == 2 * rows[1]["step"] and rows[2]["lr"] > rows[3]["lr"] > 0
    assert all(after[name] != before[name] for name in after if name.startswith("model."))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["epochs"] == 4 and config["seed"] == 5


def test_what_was_otherwise_before_is_in_the_settings(run, tmp_path):
    last = tmp_path / "last.safetensors"
    again = ["train.py", "--resume", last, "--epochs"]
    assert run("train.py", "--epochs", 1, "--out", tmp_path).status == 0
    assert "earlier" not in json.loads((tmp_path / "config.json").read_text())
    assert run(*again, 3, "--weight-decay", 0, "--flip").status == 0
    assert run(*again, 4, "--lr", 0.5).status == 0
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["epochs"], config["weight_decay"], config["flip"], config["lr"]) == (4, 0, True, 0.5)
    assert config["earlier"] == minicnn.load(last)[1]["config"]["earlier"] == [
        {"until_epoch": 1, "epochs": 1, "weight_decay": 0.0005, "flip": False},
        {"until_epoch": 3, "epochs": 3, "lr": 0.004},
    ]  # fmt: skip


def test_a_picture_that_cannot_be_read(mistake, run, photos, look, tmp_path):
    """The run goes on when it is mended."""
    folder, last = photos(), tmp_path / "run" / "last.safetensors"
    path = folder / "val" / "dog" / "0.jpg"
    whole, command = path.read_bytes(), ["train.py", "--data", folder, "--epochs"]
    path.write_text("no image")
    found = mistake(f"{path}: not an image", *command, 1, "--out", last.parent)
    assert f"; when that is mended, go on with: python {look.PROGRAMS}/train.py --resume {last}\n" in found.err
    path.write_bytes(whole)
    assert run("train.py", "--resume", last).status == 0
    path.write_text("no image")
    again = ["train.py", "--resume", last, "--epochs", 2]
    mistake([f"{path}: not an image", "; when that is mended, go on with: python ", f"--resume {last}"], *again)
    path.write_bytes(whole)
    assert run(*again).status == 0 and len(look.metrics(last.parent)) == 2


def test_what_looks_on_can_be_left_out_again(run, look, tmp_path):
    command = ["train.py", "--epochs", 1, "--out", tmp_path]
    assert run(*command, "--watch", "--tensorboard", "--detect-anomaly").status == 0
    (events,) = tmp_path.glob("events*")
    before = (tmp_path / "watch.csv").read_bytes(), events.read_bytes()
    command = ["train.py", "--resume", tmp_path / "last.safetensors", "--epochs", 2]
    assert run(*command, "--no-watch", "--no-tensorboard", "--no-detect-anomaly").status == 0
    assert ((tmp_path / "watch.csv").read_bytes(), *(path.read_bytes() for path in tmp_path.glob("events*"))) == before
    config = json.loads((tmp_path / "config.json").read_text())
    assert not any(config[name] for name in ("watch", "tensorboard", "detect_anomaly"))


def test_a_finished_run_has_nothing_left_to_do(run, look, tmp_path):
    assert run("train.py", "--epochs", 1, "--out", tmp_path).status == 0
    before = look.state(tmp_path)
    assert run("train.py", "--resume", tmp_path / "last.safetensors").status == 0
    assert look.state(tmp_path) == before


def test_ten_crops_of_a_finished_run_change_no_other_setting(run, tmp_path):
    last, config = tmp_path / "last.safetensors", tmp_path / "config.json"
    assert run("train.py", "--epochs", 2, "--out", tmp_path).status == 0
    before = json.loads(config.read_text())
    result = run("train.py", "--resume", last, "--ten-crop", "--epochs", 1, "--lr", 0.5, "--flip")
    assert result.status == 0 and (tmp_path / "ten_crop.json").exists()
    after = json.loads(config.read_text())
    assert after.pop("ten_crop") and not before.pop("ten_crop")
    assert after.pop("earlier") == [{"until_epoch": 2, "ten_crop": False}] and after == before


def test_a_copy_of_an_earlier_epoch(run, mistake, monkeypatch, look, tmp_path):
    """Goes on in another folder, without the best network of what came after it."""
    top1 = iter([10.0, 90.0, 20.0])
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: {"loss": 1.0, "top1": next(top1), "top5": 100.0})
    folder, other = tmp_path / "run", tmp_path / "other"
    last, copy = folder / "last.safetensors", folder / "first.safetensors"
    assert run("train.py", "--epochs", 1, "--out", folder).status == 0
    copy.write_bytes(last.read_bytes())
    assert run("train.py", "--resume", last, "--epochs", 2).status == 0
    before = look.state(folder)
    mistake("--out", "train.py", "--resume", copy, "--epochs", 2)
    mistake("--out", "train.py", "--resume", copy, "--epochs", 2, "--out", folder)
    assert look.state(folder) == before
    assert run("train.py", "--resume", copy, "--epochs", 2, "--out", other).status == 0
    best, _ = minicnn.load(other / "best.safetensors")
    trained, _ = minicnn.load(other / "last.safetensors")
    assert all((best[name] == trained[f"model.{name}"]).all() for name in best)


def test_a_finished_run_does_not_move(run, look, tmp_path):
    """Ten crops of it, which were not asked for before, go into its own folder."""
    last, elsewhere = tmp_path / "run" / "last.safetensors", tmp_path / "elsewhere"
    assert run("train.py", "--epochs", 2, "--out", last.parent).status == 0
    result = run("train.py", "--resume", last, "--ten-crop", "--epochs", 1, "--out", elsewhere)
    assert result.status == 0 and "has its 2 epochs" in result.out
    assert not elsewhere.exists() and (last.parent / "ten_crop.json").exists()


def test_runs_that_begin_at_once_have_folders_of_their_own(run, monkeypatch, tmp_path):
    """The second begins when the first has looked at its images; given a folder, it is told that it is taken."""
    results, original = [], images.pixel_statistics

    def meanwhile(*arguments):
        monkeypatch.setattr(images, "pixel_statistics", original)
        results.append(run("train.py", "--epochs", 1))
        results.append(run("train.py", "--epochs", 1, "--out", "runs/alexnet"))
        return original(*arguments)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(images, "pixel_statistics", meanwhile)
    first = run("train.py", "--epochs", 1)
    assert [result.status for result in (first, *results)] == [0, 0, 2] and "another program" in results[1].err
    assert first.out.endswith("runs/alexnet\n") and results[0].out.endswith("runs/alexnet-2\n")
    assert (tmp_path / "runs/alexnet/last.safetensors").exists()


def test_a_run_goes_on_in_one_program_at_a_time(run, at_epoch, look, tmp_path):
    """Its first one or one that resumes it. The other gets a line and changes nothing, and may go on
    when the first has ended, however it did; meanwhile it may go on elsewhere."""
    pytest.importorskip("fcntl")
    folder, results = tmp_path / "run", []
    last = folder / "last.safetensors"

    def meanwhile():
        before = {name: (folder / name).read_bytes() for name in look.files(folder)}
        results.append(run("train.py", "--resume", last, "--epochs", 9))
        assert before == {name: (folder / name).read_bytes() for name in look.files(folder)}

    for first in (["--epochs", 3, "--out", folder], ["--resume", last, "--epochs", 5]):
        at_epoch(2, meanwhile)
        assert run("train.py", *first).status == 0
    line = f"train.py: {folder} has a run that another program goes on with: wait until it has ended\n"
    assert [(result.status, result.err) for result in results] == [(2, line)] * 2
    assert look.files(folder) == look.FILES and len(look.metrics(folder)) == 5

    program = "import os, sys\nfrom support import folders\nwith folders.alone(sys.argv[1]):\n    print(flush=True)\n    sys.stdin.read()"
    folders = Path(minicnn.__file__).parents[1], look.PROGRAMS
    with subprocess.Popen(
        [sys.executable, "-c", program, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(map(str, folders))},
    ) as other:  # fmt: skip
        other.stdout.readline()
        assert run("train.py", "--resume", last, "--epochs", 6).err == line
        assert run("train.py", "--resume", last, "--epochs", 6, "--out", tmp_path / "elsewhere").status == 0
        other.kill()
    assert run("train.py", "--resume", last, "--epochs", 6).status == 0


def test_what_a_killed_program_was_writing_is_removed(run, look, tmp_path):
    """By the next one that goes on with the run, and nothing else is."""
    pytest.importorskip("fcntl")
    folder = tmp_path / "run"
    assert run("train.py", "--epochs", 2, "--out", folder).status == 0
    # killed while it writes a checkpoint
    program = """
import os, sys, threading
import numpy as np
import minicnn

def watch():
    while not any(name.startswith(".last") for name in os.listdir(sys.argv[1])):
        pass
    os.kill(os.getpid(), 9)

threading.Thread(target=watch, daemon=True).start()
while True:
    minicnn.save(sys.argv[1] + "/last.safetensors", {"x": np.zeros(10_000_000, np.float32)})
"""
    own = {name: (folder / name).read_bytes() for name in look.files(folder)}
    environment = {**os.environ, "PYTHONPATH": str(Path(minicnn.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", program, folder], env=environment).returncode == -signal.SIGKILL
    left = look.files(folder) - look.FILES
    assert any(name.startswith(".last.safetensors.") for name in left)
    for name, content in own.items():  # if a whole checkpoint came before
        (folder / name).write_bytes(content)
    for name in (".best.safetensors.123.0a1b2c3d", ".tmpAb1C2d"):  # the second by the package safetensors, once
        (folder / name).touch()
    kept = {".notes", ".tmpfile", ".last.safetensors.bak", "model.safetensors.1.0a1b2c3d", ".tmpAbC12"}
    for name in kept:
        (folder / name).write_text("mine")
    (folder / ".tmpAbC123").mkdir()
    assert run("train.py", "--resume", folder / "last.safetensors", "--epochs", 3).status == 0
    assert look.files(folder) == look.FILES | kept | {".tmpAbC123"}


@pytest.mark.parametrize("what", ["no fcntl", "no locks"])
def test_where_there_are_no_locks_a_run_goes_on_all_the_same(run, monkeypatch, tmp_path, what):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    if what == "no fcntl":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", refuse)
    assert run("train.py", "--epochs", 1, "--out", tmp_path / "run").status == 0
    (tmp_path / "run" / ".last.safetensors.123.0a1b2c3d").touch()  # another program may be writing it
    assert run("train.py", "--resume", tmp_path / "run" / "last.safetensors", "--epochs", 2).status == 0
    assert (tmp_path / "run" / ".last.safetensors.123.0a1b2c3d").exists()


def test_momentum_can_change_but_not_begin_or_end(run, mistake, tmp_path):
    last = tmp_path / "last.safetensors"
    assert run("train.py", "--epochs", 1, "--out", tmp_path).status == 0
    mistake("momentum 0.9, not 0", "train.py", "--resume", last, "--epochs", 2, "--momentum", 0)
    assert run("train.py", "--resume", last, "--epochs", 2, "--momentum", 0.5).status == 0


def test_what_ends_before_its_first_epoch_leaves_the_folder_free(run, at_epoch, look, tmp_path):
    at_epoch(1)
    command = ["train.py", "--epochs", 1, "--out", tmp_path]
    assert run(*command).status == 130 and not look.files(tmp_path)
    assert run(*command).status == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_what_batch_systems_send_is_an_interrupt(run, at_epoch, look, tmp_path, name):
    which = getattr(signal, name, None) or pytest.skip(f"there is no {name} here")
    folder = tmp_path / "run"
    assert run("train.py", "--epochs", 3, "--out", tmp_path / "whole").status == 0
    at_epoch(3, lambda: os.kill(os.getpid(), which))
    with handled_as_usual(which):
        result = run("train.py", "--epochs", 3, "--out", folder)
    assert result.status == 130 and minicnn.load(folder / "last.safetensors")[1]["begun"]["batches"] == 2
    assert look.files(folder) == look.UNFINISHED and result.err.endswith(look.interrupted(folder))


def test_a_signal_that_is_ignored_stays_so(run, at_epoch, tmp_path):
    """Under nohup a run outlives its terminal."""
    which = getattr(signal, "SIGHUP", None) or pytest.skip("there is no SIGHUP here")
    with handled_as_usual(which, signal.SIG_IGN):
        at_epoch(1, lambda: os.kill(os.getpid(), which))
        assert run("train.py", "--epochs", 1, "--out", tmp_path / "run").status == 0


@contextmanager
def handled_as_usual(which, how=signal.SIG_DFL):
    """Not as pytest has it, or an earlier test."""
    before = signal.signal(which, how)
    try:
        yield
    finally:
        signal.signal(which, before)


def test_ten_crops_that_were_interrupted(run, at_epoch, look, tmp_path):
    """Or are of an earlier epoch."""
    last = tmp_path / "last.safetensors"
    for epochs in (1, 2):
        at_epoch(2)
        options = ["--epochs", 1, "--ten-crop", "--out", tmp_path] if epochs == 1 else ["--resume", last, "--epochs", 2]
        result = run("train.py", *options)
        assert result.status == 130 and f"--resume {last}" in result.err and not (tmp_path / "ten_crop.json").exists()
        assert "ten crops" in run("train.py", "--resume", last).out and (tmp_path / "ten_crop.json").exists()


def test_the_best_network_of_a_run_that_moved(run, monkeypatch, tmp_path):
    """It goes with the run, until there is a better one."""
    top1 = iter([90.0, 40.0, 70.0, 95.0])
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: {"loss": 1.0, "top1": next(top1), "top5": 100.0})
    a, b = tmp_path / "a", tmp_path / "b"
    kept = []

    def watched(path, arrays, info=None, save=minicnn.save):
        save(path, arrays, info)
        if path.name == "best.safetensors":
            kept.append(path.parent.name)

    monkeypatch.setattr(minicnn, "save", watched)
    assert run("train.py", "--epochs", 1, "--out", a).status == 0
    assert run("train.py", "--resume", a / "last.safetensors", "--epochs", 2, "--out", b).status == 0
    assert run("train.py", "--resume", b / "last.safetensors", "--epochs", 3).status == 0
    assert kept == ["a"] and (b / "best.safetensors").read_bytes() == (a / "best.safetensors").read_bytes()
    assert run("train.py", "--resume", b / "last.safetensors", "--epochs", 4).status == 0
    assert kept == ["a", "b"]


def test_a_schedule_goes_on_where_the_epoch_is(run, photos, look, tmp_path):
    """Though there are fewer images now, and fewer updates in an epoch."""
    command = ["train.py", "--data", photos(train=8), "--batch-size", 2, "--warmup", 0]
    assert run(*command, "--epochs", 1, "--out", tmp_path / "run").status == 0
    for name in ("cat", "dog", "eel"):
        for i in range(2, 8):
            (tmp_path / "photos" / "train" / name / f"{i}.jpg").unlink()
    assert run("train.py", "--resume", tmp_path / "run" / "last.safetensors", "--epochs", 2).status == 0
    rows = look.metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [12, 15] and rows[1]["lr"] == pytest.approx(
        0.01 * (1 + cos(pi * 5 / 6)) / 2
    )


def test_another_normalization(run, mistake, tmp_path):
    """It stays that of the run."""
    last = tmp_path / "last.safetensors"
    assert run("train.py", "--epochs", 1, "--lrn-alpha", 0.33, "--out", tmp_path).status == 0
    mistake("lrn_alpha 0.33, not 0.5", "train.py", "--resume", last, "--epochs", 2, "--lrn-alpha", 0.5)
    assert run("train.py", "--resume", last, "--epochs", 2).status == 0
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["lrn"]["alpha"] == config["lrn_alpha"] == 0.33
