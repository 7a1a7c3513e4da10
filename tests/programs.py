"""The programs as a shell runs them, but in this process, with a tiny network in AlexNet's place and small images; and
helpers to look at what they leave."""

import contextlib
import csv
import importlib.util
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
from minicnn import Tensor, nn
from minicnn import functional as F

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PROGRAMS = EXAMPLES / "alexnet"
FILES = {
    "config.json",
    "metrics.csv",
    "curves.png",
    "filters.png",
    "report.html",
    "last.safetensors",
    "previous.safetensors",
    "best.safetensors",
    "finished.json",
}
ONE_EPOCH = FILES - {"previous.safetensors"}  # of a run that had one checkpoint
UNFINISHED = FILES - {"finished.json"}  # of a run that was interrupted
TIMES = "images_per_s", "seconds", "compute_seconds", "data_seconds"  # columns that differ each time
SIZE = 64


def tiny(
    variant="2012", classes=10, weight_init="he", groups=True, lrn=None, dropout_scale="training", dropout=0.5
):  # fmt: skip
    """AlexNet's outer shape: conv1.conv.weight, dropout, and shapes that differ from one variant to the next."""
    channels = {"2012": 8, "2014": 6, "tutorial": 10}
    if variant not in channels:
        raise ValueError(f"variant is one of {list(channels)}, not {variant!r}")
    n = channels[variant]
    return nn.Sequential(
        conv1=nn.Sequential(conv=nn.Conv2d(3, n, 11, stride=8), relu=nn.ReLU(), pool=nn.MaxPool2d(3, 2)),
        flatten=nn.Flatten(),
        fc6=nn.Sequential(fc=nn.Linear(9 * n, 16), relu=nn.ReLU(), dropout=nn.Dropout(dropout, scale=dropout_scale)),
        fc8=nn.Linear(16, classes),
    )


def small_world(patch):
    import model
    from support import images, runs

    for module in (model, runs):
        patch.setattr(module, "alexnet", tiny)
    for variant in model.INPUT_SIZE:
        patch.setitem(model.INPUT_SIZE, variant, SIZE)
    patch.setattr(images, "SYNTHETIC", {"train": 30, "val": 20})


def run_program(name, *arguments, stderr=None):
    """What `python name arguments` does: its exit status, output and errors. A name without a folder is in alexnet."""
    path = EXAMPLES / name if "/" in name else PROGRAMS / name
    out, err = io.StringIO(), stderr or io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(path), run_name="__main__")
    minicnn.set_matmul_precision("fp32")
    return SimpleNamespace(status=exit.value.code or 0, out=out.getvalue(), err=err.getvalue())


def load_program(name):
    """A program as a module, such as "cuda_convnet/train.py", whose name another has too."""
    spec = importlib.util.spec_from_file_location(name.replace("/", "_").removesuffix(".py"), EXAMPLES / name)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])  # of which the program makes more
        patch.setitem(sys.modules, spec.name, module)  # where dataclasses look
        spec.loader.exec_module(module)
    return module


def step(net, optimizer, images, labels):
    """One update, as the programs' loops have it; returns the loss."""
    logits = net(Tensor(images))
    loss = F.cross_entropy(logits, Tensor(labels))
    net.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@pytest.fixture
def run(monkeypatch):
    """run("train.py", "--epochs", 2, …) -> status, out, err. Images of curves and filters are left out."""
    from support import recording

    small_world(monkeypatch)
    for name in ("draw_curves", "draw_filters", "write_report"):
        monkeypatch.setattr(recording, name, lambda *_, **__: None)
    return run_program


@pytest.fixture
def mistake(run):
    """mistake(words, program, …): the program ends with status 2 and one line, which has the words in it."""

    def check(words, *arguments):
        result = run(*arguments)
        assert result.status == 2, result.err
        assert len(result.err.splitlines()) == 1 and result.err.endswith("\n"), result.err
        assert result.err.startswith(Path(arguments[0]).name + ": ")
        for word in [words] if isinstance(words, str) else words:
            assert word in result.err
        return result

    return check


def interrupted(folder):
    """The line with which a program ends that was interrupted."""
    return f"interrupted: go on with: python {PROGRAMS / 'train.py'} --resume {folder / 'last.safetensors'}\n"


def write_cifar10(folder, count=4):
    """CIFAR-10's binary version with so many images in each file; the brighter, the later their class."""
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    rng = np.random.default_rng(0)
    folder.mkdir()
    (folder / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        records = rng.integers(0, 60, (count, 1 + 3 * 32 * 32), dtype=np.uint8)
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        records += 20 * labels[:, None]
        records[:, 0] = labels
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


def files(folder):
    """Names of all files in a folder, hidden ones too; none if there is no folder."""
    return set(os.listdir(folder)) if os.path.exists(folder) else set()


def metrics(folder):
    """metrics.csv as a list of rows, in numbers."""
    with open(folder / "metrics.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def state(folder):
    """All that a run leaves but images, times and the folder's name, bit for bit."""

    def timeless(rows):
        return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]

    found = {"config": json.loads((folder / "config.json").read_text()), "metrics": timeless(metrics(folder))}
    found["config"].pop("out")
    for name in ("last", "best"):
        arrays, info = minicnn.load(folder / f"{name}.safetensors")
        info["config"].pop("out")
        info["rows"] = timeless(info.get("rows", []))
        found[name] = {key: (a.dtype, a.shape, a.tobytes()) for key, a in arrays.items()}, info
    return found
