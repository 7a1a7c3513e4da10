"""The folder of a run: what it did, in numbers and pictures, and the network, to use or to train on.

    config.json        all settings                        curves.png   loss and accuracy by epoch
    metrics.csv        a row for each epoch                filters.png  conv1's kernels, as the paper's figure 3
    last.safetensors   everything, to continue from        best.safetensors   the network of the best epoch, to use

Each file is written whole or not at all.
"""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from model import alexnet
from options import DEFAULTS
from pictures import View

import minicnn
from minicnn import backend, nn
from minicnn.backend import to_device
from minicnn.checkpoint import CheckpointError, replacing

COLUMNS = [
    "epoch", "step", "lr", "train_loss", "train_top1", "val_loss", "val_top1", "val_top5", "images_per_s", "seconds",
]  # fmt: skip


class Run:
    """A run folder, being written."""

    def __init__(self, folder: str, config: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        self.folder, self.config, self.rows = Path(folder), config, rows
        new_figure(1, 1)  # what is not installed is better missed now than after the first epoch
        minicnn.checkpoint.require_safetensors()
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / "config.json") as path:
            path.write_text(json.dumps(config, indent=2) + "\n")

    def log(self, row: dict[str, Any], net: nn.Module) -> None:
        """An epoch is over: metrics.csv and the pictures."""
        self.rows.append(row)
        with replacing(self.folder / "metrics.csv") as path, open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(
                {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in r.items()}
                for r in self.rows
            )
        with replacing(self.folder / "curves.png") as path:
            draw_curves(self.rows, path)
        with replacing(self.folder / "filters.png") as path:
            draw_filters(to_device(net.state_dict()["conv1.conv.weight"], "cpu"), path)

    def save(self, net: nn.Module, progress: dict[str, Any], parts: dict[str, Any]) -> None:
        """last.safetensors: the network, the other parts (name -> object with a state_dict), and how far it has come.
        best.safetensors goes first: if it cannot be written, the epoch counts as not done, and is done again."""
        network = {name: to_device(array, "cpu") for name, array in net.state_dict().items()}
        best = self.folder / "best.safetensors"
        if self.rows[-1]["val_top1"] >= max(row["val_top1"] for row in self.rows) or not best.exists():
            minicnn.save(best, network, {"config": self.config})
        arrays = {f"model.{name}": array for name, array in network.items()}
        for part, thing in parts.items():
            for name, value in thing.state_dict().items():
                arrays[f"{part}.{name}"] = np.asarray(value) if isinstance(value, (int, float)) else value
        info = {"config": self.config, "rows": self.rows, "random": backend.random_state(), **progress}
        minicnn.save(self.folder / "last.safetensors", arrays, info)


def load_run(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arrays, info) of a last.safetensors."""
    arrays, info = minicnn.load(path)
    if not isinstance(info.get("rows"), list) or not _complete(info.get("config")):
        raise CheckpointError(f"{path} cannot be continued from: that takes the last.safetensors of a run")
    return arrays, info


def _complete(config: Any) -> bool:
    """Has a checkpoint all the settings that train.py writes?"""
    later = {"precision"}  # older runs go on without it
    return isinstance(config, dict) and {*DEFAULTS, "classes", "view"} - later <= set(config)


def restore(path: str, arrays: dict[str, Any], info: dict[str, Any], parts: dict[str, Any]) -> None:
    """Load the parts (name -> object with load_state_dict) and the random numbers from what load_run returned."""
    for part, thing in parts.items():
        mine = {name.removeprefix(part + "."): array for name, array in arrays.items() if name.startswith(part + ".")}
        try:
            thing.load_state_dict(mine)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from None
    backend.set_random_state(info["random"])


def load_network(path: str, device: str = "cpu") -> tuple[nn.Module, dict[str, Any], View]:
    """(network in evaluation mode, its settings, how it sees a picture) from a best.safetensors or a
    last.safetensors."""
    arrays, info = minicnn.load(path)
    config = info.get("config")
    if config is None or not _complete(config):
        raise CheckpointError(
            f"{path} was not written by train.py: use a best.safetensors or last.safetensors of a run"
        )
    if "rows" in info:
        arrays = {name.removeprefix("model."): array for name, array in arrays.items() if name.startswith("model.")}
    try:
        net = alexnet(config["variant"], len(config["classes"]), config["init"], config["groups"])
        net.load_state_dict(arrays)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return net.eval().to(device), config, View(**config["view"])


# ------------------------------------------------------------------------------------------------------------- pictures
def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure that no window shows."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("drawing needs matplotlib: pip install 'minicnn[examples]'") from None
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def draw_curves(rows: list[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Loss and accuracy by epoch, training and validation."""
    figure = new_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    for axes, name, title, names in (
        (left, "loss", "cross-entropy", ("train_loss", "val_loss")),
        (right, "accuracy", "correct, %", ("train_top1", "val_top1", "val_top5")),
    ):
        for column, style in zip(names, ("-o", "-o", "--o"), strict=False):
            axes.plot(epochs, [row[column] for row in rows], style, markersize=3, label=column.replace("_", " "))
        axes.set(title=name, xlabel="epoch", ylabel=title)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    left.set_ylim(bottom=0)
    right.set_ylim(0, 101)
    figure.savefig(path, format="png")


def draw_filters(weight: Any, path: str | os.PathLike[str]) -> None:
    """The kernels of the first layer (KH, KW, 3, O) as small pictures, each on a scale of its own: the paper's figure
    3."""
    kh, kw, channels, n = weight.shape
    columns = 16
    rows = -(-n // columns)
    low, high = weight.min(axis=(0, 1, 2)), weight.max(axis=(0, 1, 2))
    kernels = (weight - low) / (high - low + 1e-12)
    sheet = np.ones((rows * (kh + 1) + 1, columns * (kw + 1) + 1, channels))
    for k in range(n):
        top, left = k // columns * (kh + 1) + 1, k % columns * (kw + 1) + 1
        sheet[top : top + kh, left : left + kw] = kernels[..., k]
    figure = new_figure(columns * 0.5, rows * 0.5)
    axes = figure.subplots()
    axes.imshow(sheet, interpolation="nearest")
    axes.axis("off")
    figure.savefig(path, format="png")
