"""What --watch of train.py records of a network while it learns, for each of its layers:

    gradient_norm      ‖g‖, of the gradient of the layer's weights
    weight_norm        ‖w‖, of its weights before the update; biases are left out
    update_ratio       ‖Δw‖ / ‖w‖, with the change Δw that the optimizer really made; near 0.001 is
                       usual. Far below it nothing is learned, far above it nothing is kept
    dead_share         the share of the layer's ReLUs that are dead: 0 for every image of the batch.
                       Of a convolution these are its kernels, which are dead if they give 0 at
                       every place. A dead ReLU has no gradient
    mean_activation    the mean of what comes out of the ReLUs or, of the last layer, of the logits

watch.csv has a row for each layer of the steps 1, 2, 4, … 64 and of each hundredth, and watch.png
shows it. A layer that is frozen has no gradient and no update, and the last one no ReLUs: their
cells are empty. Of several processes, the gradients are those of the whole batch, and the
activations those of rank 0's rows.

No bit of the training changes: values are read, and no random numbers drawn. Of the 2012 network a
step that is watched takes 11% longer in batches of 32, 6% in batches of 128, so that is 0.1% of a
run; and, while the step lasts, memory for another copy of the weights, 244 MB. The chart takes a
second an epoch.
"""

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minicnn import nn
from minicnn.backends.devices import Array, on_device_of
from minicnn.checkpoint import replacing
from minicnn.optim import Optimizer
from minicnn.workers import Workers

from .drawing import new_figure, own_settings
from .folders import WATCH, WATCH_CHART
from .observer import Observer
from .options import UsageError, complain, reason

EVERY = 100  # and the powers of two before it
# column: (what the chart calls it, whether its axis is logarithmic)
TITLES = {
    "gradient_norm": ("gradient ‖g‖", True),
    "weight_norm": ("weights ‖w‖", False),
    "update_ratio": ("update ‖Δw‖ / ‖w‖", True),
    "dead_share": ("dead ReLUs", False),
    "mean_activation": ("mean activation", False),
}
COLUMNS = ["step", "layer", *TITLES]


def due(step: int) -> bool:
    """Whether a step, counted from 1, is one of those that are watched."""
    return step % EVERY == 0 or (step < EVERY and step & (step - 1) == 0)


# ----------------------------------------------------------------------------- what is measured
def learned(net: nn.Module) -> dict[str, nn.Module]:
    """The layers of a network that have weights, by their names: AlexNet's conv1 … fc8."""
    return {name: layer for name, layer in net.named_children() if weights(layer)}


def weights(layer: nn.Module) -> list[nn.Parameter]:
    """The weights of a layer, without its biases."""
    return [parameter for parameter in layer.parameters() if parameter.ndim > 1]


def norm(arrays: list[Array]) -> float:
    """The length of all these arrays as one vector."""
    lengths = []
    with np.errstate(all="ignore"):
        for array in arrays:
            with on_device_of(array):
                flat = array.reshape(-1)
                length = float(np.vdot(flat, flat)) ** 0.5
                if length == np.inf:  # the squares of float32 end at 3e38, the length need not
                    largest = float(abs(flat).max())
                    if largest < np.inf:
                        length = largest * float(np.vdot(flat / largest, flat / largest)) ** 0.5
                lengths.append(length)
        return float(np.hypot.reduce(lengths))


class Activation(NamedTuple):
    """What has come out of a layer: of its ReLU or, without one, of the layer itself.

    All are arrays of one number on the layer's device, so that a GPU need not be waited for.
    """

    mean: Array
    mean_abs: Array
    dead_share: Array | None  # None without a ReLU


def activation(y: Array, relu: bool) -> Activation:
    """Of the output (N, …, C), on its device."""
    with on_device_of(y), np.errstate(all="ignore"):
        mean = y.mean()
        if not relu:
            return Activation(mean, abs(y).mean(), None)
        largest = y.reshape(-1, y.shape[-1]).max(axis=0)  # (C,)
        return Activation(mean, mean, (largest == 0).mean())


def on_outputs(layers: dict[str, nn.Module], tell: Callable[[str, Array, bool], None]) -> Callable[[], None]:
    """From now on, tell(name, output, whether it is a ReLU's) is called whenever one of these
    layers has computed. Returns a function that ends it."""

    def hook(name: str, relu: bool) -> Callable[..., None]:
        return lambda _module, _inputs, y: tell(name, y.data, relu)

    removers = []
    for name, layer in layers.items():
        relus = [module for _, module in layer.named_modules() if isinstance(module, nn.ReLU)]
        removers += [module.register_forward_hook(hook(name, bool(relus))) for module in relus or [layer]]

    def remove() -> None:
        for remover in removers:
            remover()

    return remove


# ------------------------------------------------------------------------------------ recording
class Watch(Observer):
    """Watches a network that an optimizer trains, and writes into the folder of its run. When it is
    made, rows of steps that the optimizer has not made, or makes again, are removed, and a last
    line that was not written to its end.

    watch = Watch(net, optimizer, folder)       # after a run's state is restored
    for images, labels in …:
        watch.before()
        …                                       # forward pass, backward pass and update
        watch.after(score, images, labels)
    watch.draw(folder, row)                     # after each epoch

    Raises OSError if watch.csv cannot be read or written now. Later on that is a line on the
    standard error, and the run continues.
    """

    def __init__(self, net: nn.Module, optimizer: Optimizer, folder: str | os.PathLike[str]) -> None:
        self.layers, self.optimizer, self.folder = learned(net), optimizer, Path(folder)
        self.watching = self.failed = False
        self.activations: dict[str, Activation] = {}
        self.former: dict[str, list[Array]] = {}  # the weights before the update
        self.norms: dict[str, float] = {}
        on_outputs(self.layers, self._note)
        self.rows = self._kept(optimizer.steps)
        self.unwritten: list[list[str]] = []
        text = _lines([COLUMNS, *self.rows])
        self.size = len(text)  # of what is in the file for good
        with replacing(self.folder / WATCH) as path:
            path.write_bytes(text)

    def _kept(self, steps: int) -> list[list[str]]:
        """The rows of the first steps that an earlier process has written."""
        if not steps or not (self.folder / WATCH).exists():
            return []
        lines = (self.folder / WATCH).read_bytes().decode(errors="replace").splitlines(keepends=True)
        rows = [row for row in csv.reader(line for line in lines if line.endswith("\n")) if len(row) == len(COLUMNS)]
        return [row for row in rows if row[0].isdecimal() and int(row[0]) <= steps]

    def _note(self, name: str, output: Array, relu: bool) -> None:
        if self.watching and output.size:
            self.activations[name] = activation(output, relu)

    def before(self) -> None:
        self.watching = due(self.optimizer.steps + 1)
        if self.watching:
            for name, layer in self.layers.items():
                arrays = [p.data for p in weights(layer)]
                self.norms[name] = norm(arrays)
                with on_device_of(arrays[0]):  # what is frozen does not change
                    self.former[name] = [p.data.copy() for p in weights(layer) if p.requires_grad]

    def after(self, score: Any, images: Array, labels: Array) -> None:
        if not self.watching:
            return
        rows = []
        for name, layer in self.layers.items():
            values: dict[str, float | None] = dict.fromkeys(TITLES)
            values["weight_norm"] = self.norms[name]
            learning = [p for p in weights(layer) if p.requires_grad]
            if gradients := [p.grad.data for p in learning if p.grad is not None]:
                changes = []
                for p, former in zip(learning, self.former[name], strict=True):
                    with on_device_of(former), np.errstate(all="ignore"):
                        changes.append(np.subtract(p.data, former, out=former))
                values["gradient_norm"] = norm(gradients)
                values["update_ratio"] = norm(changes) / max(self.norms[name], 1e-30)
            if seen := self.activations.get(name):
                values["mean_activation"] = float(seen.mean)
                values["dead_share"] = None if seen.dead_share is None else float(seen.dead_share)
            cells = ["" if value is None else f"{value:.6g}" for value in values.values()]
            rows.append([str(self.optimizer.steps), name, *cells])
        self.watching = False
        self.activations, self.former = {}, {}
        self.rows += rows
        self._write(rows)

    def _write(self, rows: list[list[str]]) -> None:
        """Append rows to the file, behind what is there for good."""
        self.unwritten += rows
        text = _lines(self.unwritten)
        try:
            with open(self.folder / WATCH, "r+b") as file:
                file.seek(self.size)
                file.truncate()  # what is left of a time when the disk was full
                file.write(text)
        except OSError as error:
            if not self.failed:
                complain(f"{self.folder / WATCH} is not written: {error.strerror}; the run continues")
            self.failed = True
        else:
            self.failed, self.unwritten, self.size = False, [], self.size + len(text)

    def draw(self, folder: Path, row: dict[str, Any]) -> None:
        rows = list(self.rows)  # to which another thread may add
        if not rows:
            return
        try:
            with replacing(self.folder / WATCH_CHART) as path:
                draw_watched(rows, path)
        except Exception as error:  # of fonts, of another program that has it open, and so on
            complain(f"{self.folder / WATCH_CHART} is not drawn: {reason(error)}; the run continues")


def watching(way: str, workers: Workers, net: nn.Module, optimizer: Optimizer, folder: str) -> Observer:
    """A Watch or, of several processes, one in the first of them.

    Raises UsageError for a way of --parallel in which no process has all of the weights' gradients.
    """
    if workers.size > 1 and way != "data":
        raise UsageError(
            f"--watch shows the gradients of whole layers, which no process has with --parallel {way}: leave out "
            "--watch, or take --parallel data"
        )
    return Observer() if workers.rank else Watch(net, optimizer, folder)


def _lines(rows: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


# -------------------------------------------------------------------------------------- drawing
@own_settings()
def draw_watched(rows: list[list[str]], path: str | os.PathLike[str]) -> None:
    """The rows of watch.csv as a chart: a line of panels for each quantity, with a panel for each
    layer, over the steps. The panels of a line have one scale."""
    layers = list(dict.fromkeys(row[1] for row in rows))
    width, height = 0.7 + 1.9 * len(layers), 0.7 + 1.4 * len(TITLES)
    figure = new_figure(width, height)
    figure.set_layout_engine("none")  # matplotlib's takes seconds for forty panels
    margins = {"left": 0.7 / width, "right": 1 - 0.1 / width, "bottom": 0.45 / height, "top": 1 - 0.3 / height}
    grid = figure.subplots(
        len(TITLES), len(layers), sharex=True, sharey="row", squeeze=False,
        gridspec_kw={**margins, "wspace": 0.06, "hspace": 0.1},
    )  # fmt: skip
    for panels, (column, (title, logarithmic)) in zip(grid, TITLES.items(), strict=True):
        panels[0].set_ylabel(title, fontsize=8)
        for axes, layer in zip(panels, layers, strict=True):
            own = [row for row in rows if row[1] == layer]
            values = np.array([float(row[COLUMNS.index(column)] or "nan") for row in own])
            values[np.isinf(values) | (logarithmic & (values <= 0))] = np.nan  # which are gaps
            axes.plot([int(row[0]) for row in own], values, "-o", markersize=2, linewidth=1)
            axes.tick_params(labelsize=7)
            axes.grid(alpha=0.3)
        if logarithmic:
            panels[0].set_yscale("log")
            panels[0].minorticks_off()
        elif column == "dead_share":
            panels[0].set_ylim(-0.02, 1.02)
    for panels, layer in zip(grid.T, layers, strict=True):
        panels[0].set_title(layer, fontsize=9)
        panels[-1].set_xlabel("step", fontsize=8)
    figure.savefig(path, format="png")
