"""What --tensorboard of train.py writes, for TensorBoard to show: the table of epochs, the loss
every few seconds, and conv1's kernels."""

import os
import threading
import time
from pathlib import Path
from typing import Any

from minicnn.backends.devices import Array
from minicnn.optim import Optimizer

from .events import Events
from .folders import FILTERS
from .observer import Observer
from .options import complain

SECONDS = 10.0  # between losses
TAGS = {  # column of metrics.csv: what it is called
    "train_loss": "loss/train", "val_loss": "loss/val", "train_top1": "top-1/train", "val_top1": "top-1/val",
    "val_top5": "top-5/val", "lr": "learning rate", "images_per_s": "images per second",
}  # fmt: skip


class Board(Observer):
    """Writes events into a folder. What can no longer be written ends no training: a line says so.

    Args:
        folder: the run's.
        optimizer: of the training, which has made the steps that earlier files are to keep.
    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], optimizer: Optimizer) -> None:
        self.folder, self.optimizer = folder, optimizer
        self.events = Events(folder, purge_step=optimizer.steps + bool(optimizer.steps))
        self.lock = threading.Lock()  # draw() is called in another thread
        self.told, self.loss, self.seen = time.perf_counter(), 0.0, 0

    def after(self, score: Any, images: Array, labels: Array) -> None:
        now = time.perf_counter()
        if now - self.told < SECONDS:
            return
        score.count()
        if score.seen < self.seen:  # of the next epoch
            self.loss, self.seen = 0.0, 0
        loss, seen = float(score.sums[0]), score.seen
        if seen > self.seen:
            self._write(self.optimizer.steps, {"loss/now": (loss - self.loss) / (seen - self.seen)})
        self.told, self.loss, self.seen = now, loss, seen

    def draw(self, folder: Path, row: dict[str, Any]) -> None:
        kernels = folder / FILTERS
        png = kernels.read_bytes() if kernels.exists() else b""
        self._write(row["step"], {tag: row[name] for name, tag in TAGS.items()}, png)

    def close(self) -> None:
        self.events.close()

    def _write(self, step: int, values: dict[str, float], png: bytes = b"") -> None:
        try:
            with self.lock:
                self.events.scalars(step, values)
                if png:
                    self.events.image(step, "conv1", png)
        except OSError as error:
            complain(f"the events in {self.folder} are not written: {error.strerror}; the run continues")
