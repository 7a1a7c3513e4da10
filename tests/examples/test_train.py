"""train.py: an epoch, what a run leaves and prints, how it goes on, on which data, and which mistakes end it."""

import functools
import io
import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import evaluate
import model
import numpy as np
import pytest
import tqdm
import train
from support import progress, recipes, scores, start
from support.settings import parse

import minicnn
from minicnn import Tensor, nn

COLUMNS = (
    "epoch,step,lr,train_loss,train_top1,val_loss,val_top1,val_top5,images_per_s,seconds,compute_seconds,data_seconds"
)


# -- an epoch ------------------------------------------------------------------------------------------------------


def test_an_epoch(run, look, tmp_path):
    """With a rate of next to nothing, the mean loss and top-1 while training are those of the network that comes out,
    over all images; there is one update a batch, and a step of the schedule after each."""
    options = "--batch-size", 8, "--dropout", 0, "--lr", 1e-30, "--warmup", 0, "--epochs", 2
    assert run("train.py", *options, "--out", tmp_path).status == 0
    checkpoint = "--checkpoint", tmp_path / "last.safetensors"
    found = json.loads(run("evaluate.py", *checkpoint, "--split", "train", "--json", "-").out)
    rows = look.metrics(tmp_path)
    for row in rows:
        assert row["train_loss"] == pytest.approx(found["loss"], rel=1e-4)
        assert row["train_top1"] == pytest.approx(found["top1"], rel=1e-4)
    assert [row["step"] for row in rows] == [4, 8]
    assert [row["lr"] for row in rows] == pytest.approx([1e-30 * (1 + math.cos(math.pi * i / 8)) / 2 for i in (3, 7)])


def test_dropout_is_on_in_each_epoch(run, look, tmp_path):
    """Also in the second, after the validation."""
    rows = {}
    for share in (0, 0.9):
        options = "--batch-size", 8, "--dropout", share, "--lr", 1e-30, "--epochs", 2
        assert run("train.py", *options, "--out", tmp_path / str(share)).status == 0
        rows[share] = look.metrics(tmp_path / str(share))
    for i in range(2):
        assert rows[0][i]["val_loss"] == pytest.approx(rows[0.9][i]["val_loss"])
        assert abs(rows[0][i]["train_loss"] - rows[0.9][i]["train_loss"]) > 0.1


LOADER = [(images, np.zeros(len(images), int)) for images in (np.zeros((2, 1)), np.zeros((2, 1)), np.zeros((1, 1)))]


@pytest.mark.parametrize("losses, count", [([1.0, 3.0, 2.0], 3), ([math.nan, 1.0, 1.0], 1), ([1.0, math.inf, 1.0], 2)])
def test_batches_are_counted_and_end_when_the_loss_is_no_number(monkeypatch, losses, count):
    counted, said = [], []
    bar = SimpleNamespace(
        update=lambda n: (counted.append(n), said.append(bar.bar_format)), disable=False, close=lambda: None
    )
    monkeypatch.setattr(progress, "progress_bar", lambda **_: bar)
    monkeypatch.setattr(progress, "BAR", -1.0)
    monkeypatch.setattr(scores, "OFTEN", -1.0)
    loader = type(
        "Loader",
        (),
        {"dataset": range(5), "part": (0, 1), "__iter__": lambda self: (batch for batch in LOADER)},
    )()
    score, given = scores.Score(), []
    for (_, labels), loss in zip(progress.batches(loader, "epoch 1/1", score), losses, strict=False):
        given.append(len(labels))
        score.add(Tensor(loss), Tensor(np.zeros((len(labels), 6))), labels)
    assert given == [2, 2, 1][:count] and counted == given
    if count == 3:
        assert [text[:20] for text in said] == [f"epoch 1/1 loss {mean:.3f}" for mean in (1, 2, 2)]
        assert score.trained()["train_loss"] == pytest.approx(2) and score.trained()["images_per_s"] > 0


def test_the_loop_is_the_same_in_each_program():
    """The update's lines, of which benchmarks/gpu_workers.py records what a GPU is asked to do."""
    root, updates = Path(train.__file__).parents[2], set()
    for name in ("alexnet/train.py", "cuda_convnet/train.py", "ablations/run.py", "../benchmarks/gpu_workers.py"):
        program = (root / "examples" / name).read_text()
        for several, one in (
            (", way.step(len(labels)) as step:", ":"),
            ("step.backward(loss)", "loss.backward()"),
            ("way.update(optimizer)", "    optimizer.step()"),
        ):
            program = program.replace(several, one)  # what is there for several processes
        if both := re.search(r"def passes\(.*?\"\"\"\n(.*?)\n *return loss, logits\n", program, re.DOTALL):
            call = "loss, logits = passes(Tensor(images), Tensor(labels))"
            lines = both[1].replace("(images)", "(Tensor(images))").replace(", labels)", ", Tensor(labels))")
            program = program.replace(call, lines.strip())
        (lines,) = re.findall(r" for images, labels in batches.*?optimizer\.step\(\)", program, re.DOTALL)
        _, *lines = lines.splitlines()
        updates.add("\n".join(line.partition("  #")[0].strip() for line in map(str.strip, lines)))
    assert len(updates) == 1 and updates.pop().count("\n") == 6


# -- what a run leaves ----------------------------------------------------------------------------------------------


def test_the_run_folder(finished, look):
    assert look.files(finished.folder) == look.FILES
    assert (finished.folder / "metrics.csv").read_text().splitlines()[0] == COLUMNS
    config = json.loads((finished.folder / "config.json").read_text())
    settings = {"data": "synthetic", "variant": "2012", "epochs": 3, "seed": 7, "device": "cpu"}
    assert settings.items() <= config.items()
    assert {"batch_size", "lr", "init", "momentum", "weight_decay"} <= set(config) and len(config["classes"]) == 10


def test_metrics(finished, look):
    config, rows = json.loads((finished.folder / "config.json").read_text()), look.metrics(finished.folder)
    updates = -(-30 // config["batch_size"])
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [updates, 2 * updates, 3 * updates]
    assert all(0 < row["lr"] <= config["lr"] for row in rows)
    for row in rows:
        assert 1 < row["train_loss"] < 10 and 1 < row["val_loss"] < 10 and row["images_per_s"] > 0  # ln 10 is 2.3
        assert 0 <= row["val_top1"] <= row["val_top5"] <= 100 and row["val_top1"] % 5 == 0  # of 20 images
        assert row["train_top1"] * 30 / 100 == pytest.approx(round(row["train_top1"] * 30 / 100), abs=1e-3)
    assert max(row["val_top5"] for row in rows) > 1  # in percent
    assert 0 < rows[0]["seconds"] < rows[1]["seconds"] < rows[2]["seconds"]


def test_best_is_the_best_epoch(run, changing_top1, look, tmp_path):
    """In four runs, so that it is not always the first or the last."""
    best_epochs = set()
    for seed in range(4):
        changing_top1.clear()
        assert run("train.py", "--seed", seed, "--epochs", 4, "--out", tmp_path / str(seed)).status == 0
        best = int(np.argmax([row["val_top1"] for row in look.metrics(tmp_path / str(seed))]))
        best_epochs.add(best)
        arrays, _ = minicnn.load(tmp_path / str(seed) / "best.safetensors")
        assert all(np.array_equal(arrays[name], array) for name, array in changing_top1[best].items())
    assert len(best_epochs) > 1


@pytest.mark.parametrize(
    "losses, best",
    [([1, 1], 2), ([1, 2], 1), ([2, 1], 2), ([3, 1, 2], 2), ([1, 3, 1, 2], 3), ([3, 2, 1], 3)],
)
def test_of_epochs_with_the_same_top_1_the_one_of_the_lowest_loss_is_kept(run, monkeypatch, tmp_path, losses, best):
    """And the last of those; also when the run goes on, epoch by epoch. A higher top-1 is better
    with any loss, a lower one worse."""
    weights = []

    def measured(net, *_):
        weights.append({name: array.copy() for name, array in net.state_dict().items()})
        return {"loss": float(losses[len(weights) - 1]), "top1": top1[len(weights) - 1], "top5": 100.0}

    def kept(*arguments):
        result = run("train.py", *arguments)
        (line,) = [line for line in result.out.splitlines() if line.startswith("best: ")]
        return int(re.search(r"in epoch (\d+);", line)[1]), minicnn.load(tmp_path / "best.safetensors")[0]

    monkeypatch.setattr(evaluate, "evaluate", measured)
    top1 = [50.0] * len(losses)
    epoch, arrays = kept("--epochs", len(losses), "--out", tmp_path)
    assert epoch == best and all(np.array_equal(array, weights[best - 1][name]) for name, array in arrays.items())
    for loss, value, expected in ((9.0, 60.0, True), (0.1, 55.0, False), (9.0, 60.0, True), (9.5, 60.0, False)):
        losses, top1 = [*losses, loss], [*top1, value]
        best = len(losses) if expected else best
        epoch, arrays = kept("--resume", tmp_path / "last.safetensors", "--epochs", len(losses))
        assert epoch == best and all(np.array_equal(array, weights[best - 1][name]) for name, array in arrays.items())


def test_what_differs_from_the_recipe_is_printed(run, finished, look, tmp_path):
    """Not what is as it always is, nor what was given as it would have been; and when a run goes
    on, too."""
    (line,) = [line for line in finished.out.splitlines() if line.startswith("recipe ")]
    assert line == f"recipe quick, but epochs 3, seed 7; all settings are in {finished.folder / 'config.json'}"
    assert re.search(r"cpu \(threads \d+\)", finished.out)
    folder = tmp_path / "run"
    given = "--epochs", 1, "--lr", 0.01, "--no-groups", "--workers", 2, "--momentum", 0.9
    first = run("train.py", "--recipe", "tutorial", *given, "--out", folder)
    again = run("train.py", "--resume", folder / "last.safetensors", "--epochs", 2)
    usual = run("train.py", "--out", tmp_path / "usual")
    for result, said in (
        (first, "recipe tutorial, but groups False, epochs 1, workers 2; "),
        (again, "recipe tutorial, but groups False, epochs 2; "),
        (usual, "recipe quick; "),
    ):
        (line,) = [line for line in result.out.splitlines() if line.startswith("recipe ")]
        assert line.startswith(said + "all settings are in"), line


def test_how_much_of_the_disk_a_run_takes_is_printed(finished):
    """But for what is not arrays, which is little beside 57 million parameters."""
    assert f"\n{finished.folder} will take 0 MB of the disk\n" in finished.out
    net = nn.Sequential(a=nn.Linear(1000, 100), fc8=nn.Linear(100, 10))
    settings = parse(["--out", "there"])[0]
    for momentum, copies in ((0.9, 5), (0.0, 3)):
        settings.momentum = momentum
        states = [list(thing.state_dict().values()) for thing in (net, train.sgd(net, settings))]
        size = start.disk_space(*states)
        assert size == pytest.approx(copies * 4 * (1000 * 100 + 100 + 100 * 10 + 10), abs=100)


@pytest.mark.parametrize(
    "count, size, words",
    [
        (4, 12, "--batch-size 3 makes 4"),
        (2, 99, "--batch-size 2 makes 3"),
        (4, 11, None),
        (1, 9, "--batch-size 1 makes 3"),
    ],
)
def test_one_update_an_epoch_is_said(run, photos, tmp_path, count, size, words):
    options = "--batch-size", size, "--epochs", 1, "--out", tmp_path / "run"
    result = run("train.py", "--data", photos(train=count), *options)
    said = [line.strip() for line in result.out.splitlines() if "one update an epoch" in line]
    expected = f"all {3 * count} are one batch, so there is one update an epoch; {words}"
    assert result.status == 0 and said == ([expected] if words else [])


def test_the_end_says_what_is_best_and_what_comes_next(run, monkeypatch, look, tmp_path):
    top1 = iter([10.0, 40.0, 40.0, 20.0, 50.0])
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: {"loss": 1.0, "top1": next(top1), "top5": 100.0})
    best = tmp_path / "best.safetensors"
    out = run("train.py", "--epochs", 4, "--out", tmp_path).out.splitlines()
    assert out[-4:-1] == [
        "best: top-1 40.0% in epoch 3; see report.html (the filters are noise at first)",
        f"to measure it: python {look.PROGRAMS / 'evaluate.py'} --checkpoint {best}",
        f"to ask it: python {look.PROGRAMS / 'predict.py'} --checkpoint {best} PHOTO",
    ]
    best.unlink()
    again = run("train.py", "--resume", tmp_path / "last.safetensors", "--ten-crop")
    assert again.status == 0 and "ten crops" in again.out and "best:" not in again.out


def test_synthetic_data_say_so(finished):
    assert "synthetic" in finished.out and "not photo" in finished.out
    assert "30 images" in finished.out and "20 to validate" in finished.out and "4,250 parameters" in finished.out


def test_a_line_for_each_epoch_and_no_bar_without_a_terminal(finished):
    assert finished.err == "" and "\r" not in finished.out
    assert len(re.findall(r"^epoch \d/3 .*top-1 .*%.*images/s", finished.out, re.MULTILINE)) == 3
    assert str(finished.folder) in finished.out


@pytest.mark.parametrize("columns", [60, 200])
def test_a_bar_on_a_terminal(run, monkeypatch, tmp_path, columns):
    """The loss is in sight on a narrow one too."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(tqdm, "tqdm", functools.partial(tqdm.tqdm, mininterval=0, ncols=columns))
    monkeypatch.setattr(progress, "BAR", -1)
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    assert run("train.py", "--epochs", 1, "--batch-size", 5, "--out", tmp_path / "run", stderr=terminal).status == 0
    shown = {
        60: r"epoch 1/1 loss \d\.\d{3} top-1 \d+\.\d% \d+% [\d,]+/s \d:\d\d run \d:\d\d",
        200: r"epoch 1/1  loss \d\.\d{3}  top-1 \d+\.\d% \|.*\| \d+%  [\d,]+ images/s  \d+% waiting for data  "
        r"\d:\d\d left  run \d:\d\d",
    }[columns]
    steps = [text.rstrip() for text in terminal.getvalue().split("\r") if re.match(r"epoch 1/1 +loss", text)]
    assert len(steps) > 3 and all(len(text) <= columns and re.fullmatch(shown, text) for text in steps), steps
    assert terminal.getvalue().rstrip("\r").endswith(" ")  # wiped out


# -- recipes --------------------------------------------------------------------------------------------------------


def paper(*options):
    """A run of the paper's recipe that waits for no more than an epoch, in small images and batches."""
    return ["train.py", "--recipe", "paper", "--resize", 72, "--batch-size", 8, "--patience", 0, *options]


def test_the_papers_recipe_from_the_command_line(run, look, changing_top1, tmp_path):
    """On drawn images. The validation accuracy is made up, and the rate falls after each epoch that is no better."""
    result = run(*paper("--epochs", 5, "--seed", 3, "--out", tmp_path / "run"))
    assert result.status == 0 and not result.err
    assert "computed now" in result.out and "recipe paper, but " in result.out
    config, rows = json.loads((tmp_path / "run" / "config.json").read_text()), look.metrics(tmp_path / "run")
    given = {"recipe": "paper", "resize": 72, "batch_size": 8, "patience": 0, "epochs": 5}
    assert given.items() <= config.items()
    of_recipe = {
        name: values[1] for name, values in recipes.TABLE.items() if name not in given and values[1] is not None
    }
    assert {**of_recipe, "scale": "raw", "lrn": model.LRN, "names": config["classes"]}.items() <= config.items()

    best, lr = -1.0, 0.01
    for row in rows:
        assert row["lr"] == pytest.approx(lr)
        best, lr = max(best, row["val_top1"]), lr if row["val_top1"] > best else max(lr / 10, 1e-5)
    assert rows[-1]["lr"] < 0.01
    ten_crop = json.loads((tmp_path / "run" / "ten_crop.json").read_text())
    assert (
        set(ten_crop) == {"loss", "top1", "top5"}
        and f"ten crops of each image: top-1 {ten_crop['top1']:.1f}%" in result.out
    )
    assert look.files(tmp_path / "run") == look.FILES | {"ten_crop.json"}


def test_an_interrupted_run_of_the_papers_recipe_goes_on(run, at_epoch, look, tmp_path):
    """With the same mean image and colors, and the plateau where it was: bit for bit, though the statistics are not
    computed again."""
    assert run(*paper("--epochs", 4, "--out", tmp_path / "whole")).status == 0

    at_epoch(3)
    folder = tmp_path / "run"
    assert run(*paper("--epochs", 4, "--out", folder)).status == 130
    result = run("train.py", "--resume", folder / "last.safetensors")
    assert result.status == 0 and "computed" not in result.out and "ten crops" in result.out
    assert look.state(folder) == look.state(tmp_path / "whole")
    arrays, _ = minicnn.load(folder / "last.safetensors")
    best, _ = minicnn.load(folder / "best.safetensors")
    assert {"schedule.best", "schedule.waited", "schedule.count", "statistics.sums"} <= set(arrays)
    assert arrays["schedule.count"] == 4 and arrays["statistics.count"] == 30
    assert best["view.mean_image"].shape == arrays["view.mean_image"].shape == (72, 72, 3)
    measured = run("evaluate.py", "--checkpoint", folder / "last.safetensors", "--crops", 10)
    assert f"loss {json.loads((folder / 'ten_crop.json').read_text())['loss']:.4f}" in measured.out


def test_a_run_goes_on_by_another_backend(run, tmp_path):
    """Which says so; otherwise the backend stays the run's."""
    options = ("--epochs", 1, "--no-ten-crop", "--backend", "numpy", "--out", tmp_path)
    assert run(*paper(*options)).status == 0
    last, words = tmp_path / "last.safetensors", "until now the run was computed by the backend"
    again = run("train.py", "--resume", last, "--epochs", 2)
    assert again.status == 0 and "backend numpy\n" in again.out and words not in again.out
    other = run("train.py", "--resume", last, "--epochs", 3, "--backend", "reference")
    assert other.status == 0
    assert f"backend reference\n      {words} numpy: the last bits of results differ\n" in other.out
    assert json.loads((tmp_path / "config.json").read_text())["backend"] == "reference"


def test_a_rate_by_hand(run, look, tmp_path):
    """As the paper's authors did it: stopped, and gone on with another rate."""
    options = ("--epochs", 1, "--patience", 9, "--no-ten-crop", "--out", tmp_path)
    assert run(*paper(*options)).status == 0
    last = tmp_path / "last.safetensors"
    assert run("train.py", "--resume", last, "--epochs", 2).status == 0
    assert run("train.py", "--resume", last, "--epochs", 3, "--lr", 0.002).status == 0
    assert run("train.py", "--resume", last, "--epochs", 4).status == 0
    assert [row["lr"] for row in look.metrics(tmp_path)] == pytest.approx([0.01, 0.01, 0.002, 0.002])


def test_a_rate_by_hand_starts_the_waiting_anew(run, look, tmp_path, monkeypatch):
    """And the rate still stops falling at a thousandth of the first one."""
    right = iter(range(50, 0, -1))  # per cent: never as many again
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: {"loss": 1.0, "top1": next(right), "top5": 60.0})
    last = tmp_path / "last.safetensors"
    assert run(*paper("--epochs", 3, "--patience", 2, "--no-ten-crop", "--out", tmp_path)).status == 0
    assert run("train.py", "--resume", last, "--epochs", 9, "--lr", 3e-5).status == 0
    rates = [0.01] * 3 + [3e-5] * 3 + [1e-5] * 3
    assert [row["lr"] for row in look.metrics(tmp_path)] == pytest.approx(rates)


@pytest.mark.parametrize("given", [
    ("--update", "paper"),  # the other rule's velocities have another scale and sign
    ("--batch-size", 7),  # a cosine's progress counts batches
    ("--seed", 8),  # drawn images follow from it
    ("--recipe", "paper"), ("--mean", "image"), ("--dropout-scale", "evaluation"), ("--schedule", "plateau"),
    ("--variant", "2014"), ("--init", "paper"), ("--no-groups",),
])  # fmt: skip
def test_what_a_run_cannot_change_on_its_way(mistake, finished, look, given):
    before, last = look.state(finished.folder), finished.folder / "last.safetensors"
    name = given[0][2:].removeprefix("no-").replace("-", "_")
    words = [str(last), name, "leave the option out", *map(str, given[1:])]
    mistake(words, "train.py", "--resume", last, "--epochs", 4, *given)
    assert look.state(finished.folder) == before


@pytest.mark.parametrize("data", ["photos", "cifar", "synthetic"])
@pytest.mark.parametrize("recipe", ["paper", "tutorial"])
def test_recipes_on_all_data(run, look, request, tmp_path, recipe, data):
    what = {"photos": lambda: request.getfixturevalue("photos")(), "synthetic": lambda: "synthetic"}
    what["cifar"] = lambda: f"cifar10:{look.write_cifar10(tmp_path / 'cifar')}"
    options = ["--resize", 72, "--epochs", 2, "--no-verify", "--out", tmp_path / "run"]
    result = run("train.py", "--recipe", recipe, "--data", what[data](), *options)
    assert result.status == 0 and not result.err
    assert all(np.isfinite(row["train_loss"]) for row in look.metrics(tmp_path / "run"))
    again = run("evaluate.py", "--checkpoint", tmp_path / "run" / "last.safetensors")
    assert again.status == 0 and f"top-1 {look.metrics(tmp_path / 'run')[-1]['val_top1']:.2f}%" in again.out


def test_imagenet(run, photos, tmp_path):
    words = "".join(f"{name} a {name}, or so\n" for name in ("cat", "dog", "eel"))
    (photos() / "synset_words.txt").write_text(words)
    result = run("train.py", "--data", f"imagenet:{tmp_path / 'photos'}", "--epochs", 1, "--out", tmp_path / "run")
    assert result.status == 0 and "3 classes" in result.out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["classes"] == ["cat", "dog", "eel"] and config["names"] == [
        f"a {c}, or so" for c in config["classes"]
    ]


# -- on which data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["2012", "2014", "tutorial"])
@pytest.mark.parametrize("init", ["he", "paper"])
def test_a_folder_of_pictures(run, photos, look, tmp_path, variant, init):
    """Three classes that differ in brightness; all five best answers are right, there being but three."""
    options = ["--variant", variant, "--init", init, "--epochs", 2, "--batch-size", 5, "--lr", 0.001]
    result = run("train.py", "--data", photos(), *options, "--out", tmp_path / "run")
    assert result.status == 0 and not result.err
    assert "12 images" in result.out and "6 to validate" in result.out and "3 classes" in result.out
    assert [row["step"] for row in look.metrics(tmp_path / "run")] == [3, 6]
    assert all(row["val_top5"] == 100 for row in look.metrics(tmp_path / "run")) and "top-5" not in result.out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["variant"], config["init"], config["classes"]) == (variant, init, ["cat", "dog", "eel"])
    assert "not photo" not in result.out


# -- which mistakes end it ------------------------------------------------------------------------------------------


def test_data_that_are_not_there(mistake, look, tmp_path):
    cifar = look.write_cifar10(tmp_path / "cifar")
    for data, words in {
        tmp_path / "nowhere": ["nowhere", "synthetic", "cifar10:DIR", "train/", "val/"],
        tmp_path: [str(tmp_path), "train/", "val/"],
        "cifar10": ["cifar10:DIR"],
        f"cifar10:{tmp_path}": [str(tmp_path)],
        f"cifar10:{cifar}": [str(cifar / "data_batch_1.bin"), "MD5", "verify"],
    }.items():
        mistake(words, "train.py", "--data", data, "--out", tmp_path / "run")
    assert look.files(tmp_path) == {"cifar"}


@pytest.mark.parametrize(
    "missing, empty, words",
    [
        (["val"], None, ["train/", "val/"]),
        (["train"], None, ["train/", "val/"]),
        (["train/eel"], None, ["val", "eel"]),
        ([], "train/eel", ["train/eel", "no images"]),
        ([], "val/eel", ["val/eel", "no images"]),
        (["train/dog", "train/eel"], None, ["train", "one class", "cat"]),
        (["train/cat", "train/dog", "train/eel"], None, ["train", "class"]),
        (["val/cat", "val/dog", "val/eel"], None, ["val", "missing: cat, dog, eel"]),
    ],
)
def test_folders_that_are_no_data(mistake, photos, tmp_path, missing, empty, words):
    root = photos()
    for name in missing:
        shutil.rmtree(root / name)
    if empty:
        shutil.rmtree(root / empty)
        (root / empty).mkdir()
    mistake([str(root), *words], "train.py", "--data", root, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_validation_set_may_lack_a_class(run, photos, look, tmp_path):
    """It counts among the classes all the same, and evaluate.py tells how the others do."""
    root = photos()
    shutil.rmtree(root / "val" / "cat")
    result = run("train.py", "--data", root, "--epochs", 1, "--out", tmp_path / "run")
    assert result.status == 0, result.err
    assert "classes without images to validate: cat\n" in result.out
    assert json.loads((tmp_path / "run" / "config.json").read_text())["classes"] == ["cat", "dog", "eel"]
    report = run("evaluate.py", "--checkpoint", tmp_path / "run" / "best.safetensors", "--data", root)
    assert report.status == 0 and "cat" in report.out and "4 images" in report.out, report


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("kind", ["text", "truncated", "empty"])
def test_files_that_are_no_pictures(mistake, photos, look, tmp_path, part, kind, workers):
    """They are found in the first epoch, or at its end; the run can go on when they are mended."""
    bad = photos() / part / "dog" / "1.jpg"
    whole = bad.read_bytes()
    bad.write_bytes({"text": b"these are words", "truncated": whole[: len(whole) // 2], "empty": b""}[kind])
    data = ["--data", tmp_path / "photos", "--workers", workers, "--batch-size", 2]
    last = tmp_path / "run" / "last.safetensors"
    found = mistake(str(bad), "train.py", *data, "--out", tmp_path / "run")
    assert ("when that is mended, go on with: python " in found.err) == last.exists() == bool(look.files(last.parent))
    assert last.exists() or part == "train"  # where it may be in the first batch


def test_a_checkpoint_of_other_data(mistake, finished, look, photos):
    last, best = (finished.folder / f"{name}.safetensors" for name in ("last", "best"))
    before = look.state(finished.folder)
    mistake(str(last), "train.py", "--resume", last, "--epochs", 4, "--data", photos())
    mistake("best.safetensors", "train.py", "--resume", best)
    assert look.state(finished.folder) == before and look.files(finished.folder) == look.FILES


def test_other_classes_of_the_same_number(mistake, run, photos, tmp_path):
    """The network would take cats for dogs, and no array's shape would tell."""
    assert run("train.py", "--data", photos(), "--epochs", 1, "--out", tmp_path / "run").status == 0
    for part in ("train", "val"):
        (tmp_path / "photos" / part / "cat").rename(tmp_path / "photos" / part / "zebra")
    words = "knows 3 classes", "has 3; the first that differ are"
    mistake(words, "train.py", "--resume", tmp_path / "run" / "last.safetensors", "--epochs", 2)


def test_classes_called_by_numbers_are_not_renamed(mistake, run, photos, tmp_path):
    """A run on folders 0, 1 and 2 does not go on with cats, dogs and eels."""
    data, last = photos(), tmp_path / "run" / "last.safetensors"
    names = {"cat": "0", "dog": "1", "eel": "2"}
    for part in ("train", "val"):
        for name, number in names.items():
            (data / part / name).rename(data / part / number)
    assert run("train.py", "--data", data, "--epochs", 1, "--out", last.parent).status == 0
    for part in ("train", "val"):
        for name, number in names.items():
            (data / part / number).rename(data / part / name)
    mistake("the first that differ are 0 and cat", "train.py", "--resume", last, "--epochs", 2)
    mistake("0 and cat", "evaluate.py", "--checkpoint", last)
    assert minicnn.load(last)[1]["config"]["classes"] == ["0", "1", "2"]


def test_a_run_that_goes_on_keeps_the_names_of_its_classes(run, photos, tmp_path):
    """Also when the file that had them has gone."""
    words, last = photos() / "synset_words.txt", tmp_path / "run" / "last.safetensors"
    words.write_text("".join(f"{name} a {name}\n" for name in ("cat", "dog", "eel")))
    data = f"imagenet:{tmp_path / 'photos'}"
    assert run("train.py", "--data", data, "--epochs", 1, "--out", last.parent).status == 0
    words.unlink()
    assert run("train.py", "--resume", last, "--epochs", 2).status == 0
    assert minicnn.load(last)[1]["config"]["names"] == ["a cat", "a dog", "a eel"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of what overflows on the way
def test_training_that_diverges(mistake, run, monkeypatch, tmp_path):
    """It ends when that is seen, not an epoch of ImageNet later."""
    monkeypatch.setattr(scores, "OFTEN", 0)
    steps, step = [], minicnn.optim.SGD.step
    monkeypatch.setattr(minicnn.optim.SGD, "step", lambda optimizer: steps.append(step(optimizer)))
    command = ["train.py", "--lr", 1e6, "--batch-size", 2, "--out", tmp_path / "run"]
    found = mistake(["diverged: the loss of step", "the first that went wrong is the", "--lr"], *command)
    assert 0 < len(steps) < 15
    assert re.search(r"^(weights that are NaN|the largest weight of each layer: conv1 )", found.out, re.MULTILINE), (
        found.out
    )
    found = run(*command, "--detect-anomaly")
    assert found.status == 2 and len(found.err.splitlines()) == 1 and "diverged" not in found.err


def test_a_run_is_not_overwritten(mistake, run, look, monkeypatch, tmp_path):
    """In a folder that was asked for, that is a mistake; by default, the next free name is taken."""
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        assert run("train.py", "--epochs", 1).status == 0
    assert len(look.files("runs")) == 3
    before = look.state(tmp_path / "runs" / "alexnet")
    mistake(["runs/alexnet", "--resume"], "train.py", "--epochs", 2, "--out", "runs/alexnet")
    (tmp_path / "runs" / "begun").mkdir()
    (tmp_path / "runs" / "begun" / "config.json").write_text("{}")  # as of a run that goes on elsewhere
    mistake(["runs/begun", "no checkpoint"], "train.py", "--out", "runs/begun")
    assert look.state(tmp_path / "runs" / "alexnet") == before
    assert run("evaluate.py").status == 0  # of runs/alexnet


def test_a_network_is_not_overwritten(mistake, run, monkeypatch, tmp_path):
    """One that convert.py has put there, or that is all that was kept of a run."""
    monkeypatch.chdir(tmp_path)
    for name, word in {"best.safetensors": "holds a network", "last.safetensors": "--resume"}.items():
        path = tmp_path / name.partition(".")[0] / name
        path.parent.mkdir()
        path.write_text("a network")
        mistake([word, path.parent.name], "train.py", "--out", path.parent)
        assert path.read_text() == "a network" and len(list(path.parent.iterdir())) == 1
    (tmp_path / "runs").mkdir()
    (tmp_path / "best").rename(tmp_path / "runs" / "alexnet")
    assert run("train.py", "--epochs", 1).out.endswith("runs/alexnet-2\n")


def test_folders_that_cannot_be_written(mistake, look, tmp_path):
    file = tmp_path / "file.txt"
    file.write_text("in the way")
    for out in (file, file / "run", "/dev/null/run"):
        mistake(str(out), "train.py", "--out", out)
    assert look.files(tmp_path) == {"file.txt"} and file.read_text() == "in the way"
