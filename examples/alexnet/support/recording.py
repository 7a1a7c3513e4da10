"""Class Run: writes what a training leaves in its folder, while the training goes on."""

import csv
import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import minicnn
from minicnn.backends.devices import Array, to_device
from minicnn.checkpoint import replacing
from minicnn.data import DataError, DataLoader, PixelStatistics
from minicnn.workers import Workers

from .bad_files import BAD_FILES, BadFiles
from .drawing import draw_curves, draw_filters
from .folders import BEST, CONFIG, CURVES, FILTERS, FINISHED, LAST, METRICS, PREVIOUS, REPORT, TEN_CROP, Claim
from .images import View
from .observer import Observer
from .options import UsageError, complain, reason, say
from .report import write_report
from .runs import COLUMNS, FIVE, MORE_COLUMNS, arrays_of_view, merit, save_state
from .settings import DEFAULTS

# explain(images, labels, how many steps ago) -> (why a loss is NaN or infinite, lines of evidence)
Explain = Callable[[Array, Array, int], tuple[str, list[str]]]


class Run:
    """A run that is being written, from its beginning or from what load_run has returned. Of
    several processes, all call the same methods, and that of rank 0 writes.

    Files are written in a thread while the training goes on, from copies in memory: as many bytes
    as last.safetensors has.

    Args:
        settings: all of them. Those that changed when a run continued are kept, as `earlier`.
        more: what else is to be known of it.
        view: how the network sees an image.
        saved: the info of the checkpoint with which it continues, or {}.
        claim: what claimed() yields.
        parts: returns {name: object with a state_dict} of all that is needed to continue; "model"
            is the network.
        statistics: of the training images, if they are used.
        bad: the images that cannot be read.
        workers: all processes.
        observers: of each step.
        explain: called if a loss is NaN or infinite.
    Attributes:
        rows: the table of epochs.
        best: the row of the best one, or None.
    """

    def __init__(
        self, settings: Namespace, more: dict[str, Any], view: View, saved: dict[str, Any], claim: Claim,
        parts: Callable[[], dict[str, Any]], statistics: PixelStatistics | None = None, bad: BadFiles | None = None,
        workers: Workers | None = None, observers: Sequence[Observer] = (), explain: Explain | None = None,
    ) -> None:  # fmt: skip
        self.claim, self.parts, self.view, self.statistics = claim, parts, view, statistics
        self.workers, self.bad = workers or Workers(), bad or BadFiles(0, 0)
        self.observers, self.writes = observers, self.workers.rank == 0
        config = {name: value for name, value in vars(settings).items() if name != "resume"} | more
        if saved and (earlier := _earlier(config, saved)):
            config["earlier"] = earlier
        self.folder, self.config = Path(settings.out), config | {"view": view.numbers()}
        self.rows: list[dict[str, Any]] = saved.get("rows", [])
        # empty if the file was removed, or is in another folder
        here = self.rows if (self.folder / BEST).exists() else []
        # the last of equal ones
        self.best = max(reversed(here), key=merit, default=None)
        # of an epoch: what was counted before the run continued
        self.begun = saved.get("begun", {})
        self.sound = not saved.get("damaged", False)  # the last.safetensors that is there now
        # of the epoch that is trained just now: what is counted, how many images, and the batch
        self.score: Any = None
        self.images, self.batch = 0, (np.zeros(0), np.zeros(0))
        self.explain = explain
        self.validated: Any = None  # the Score of the last validation
        self.report: Callable[..., None] | None = None  # writes that of the last epoch
        self.report_due = 0.0  # when
        self.buffers: dict[str, np.ndarray] = {}
        self.every = 60 * getattr(settings, "checkpoint_every", DEFAULTS["checkpoint_every"])
        self.saved_at = time.perf_counter()
        seconds = self.begun["run_seconds"] if self.begun else self.rows[-1]["seconds"] if self.rows else 0.0
        self.started = self.saved_at - seconds
        if self.workers.decided(bool(saved) and not (self.folder / LAST).exists()):
            self.save()  # of a run that goes on in another folder, which is whole from now on
        self.write(CONFIG, self.config)
        self._make_up_leeway(settings.epochs)
        if self.writes:
            (self.folder / FINISHED).unlink(missing_ok=True)
        self._name_bad_files()
        for observer in observers:
            claim.ends.callback(observer.close)
        claim.stop.armed, claim.rescue, claim.explain = True, self._rescue, self._explain

    @property
    def seconds(self) -> float:
        """How long the run has taken, its earlier parts included."""
        return time.perf_counter() - self.started

    def seconds_of_others(self, training: float) -> float:
        """About how long the epochs after this one take, if the training of one takes so long."""
        before = [0.0] + [row["seconds"] for row in self.rows]
        usual = before[-1] - before[-2] if self.rows else training
        return usual * (self.config["epochs"] - len(self.rows) - 1)

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write a file of JSON into the run's folder, after those that are being written."""
        if self.writes:
            self.claim.aside.wait()
            with replacing(self.folder / name) as path:
                path.write_text(json.dumps(content, indent=2) + "\n")

    def begin_epoch(self, loader: DataLoader, score: Any) -> None:
        """Begin the next epoch, or go on with the one that was begun: the loader's next batch is
        the first that was not trained on, and the score has counted those before."""
        self.score, self.images = score, len(loader.dataset)
        if self.begun:
            score.restore(self.begun)
            self.begun = {}
        loader.set_epoch(len(self.rows) + 1, score.batches)  # another order, and other crops

    def before(self, images: Array, labels: Array) -> None:
        """A step begins, with this batch, of which some images may be left out, but not all."""
        if self.bad.most and not sum(self.score.workers.gather(len(labels))):
            raise DataError("none of the images of a batch can be read")
        self.batch = images, labels
        for observer in self.observers:
            observer.before()

    def after(self) -> None:
        """It has ended."""
        for observer in self.observers:
            observer.after(self.score, *self.batch)

    def check(self) -> None:
        """Between two steps: write a checkpoint if it is time, name images that cannot be read, and
        end after a signal.

        Raises:
            KeyboardInterrupt: a process got a signal; everything is saved.
            DataError: too many images cannot be read; everything is saved.
            OSError: a file could not be written.
        """
        aside = self.claim.aside
        aside.look()
        due = not aside.busy and time.perf_counter() - self.saved_at >= self.every
        told = self.workers.gather((self.claim.stop.asked, due, self.bad.take()))
        asked = any(asked for asked, _, _ in told)
        if self.bad.add([image for _, _, met in told for image in met]):
            self._name_bad_files()
        ends = asked or self.bad.too_many
        if ends or told[0][1]:  # by the clock of rank 0
            self.save()
        if ends:
            aside.wait()
            self.workers.decided(None)  # for rank 0, which writes: the first to end ends all
        if asked:
            raise KeyboardInterrupt
        self.bad.require_few()

    def keep(self, row: dict[str, Any], validated: Any) -> None:
        """Write the files of an epoch that is done: first the checkpoints, then the table, the
        images and the report; if one of those cannot be written, a line says so. validated: the
        Score of the validation, with its confusion and mistakes. Raises UsageError if the training
        has diverged."""
        if not np.isfinite(row["train_loss"] + row["val_loss"]):
            raise UsageError(f"training diverged in epoch {row['epoch']}: the loss is NaN or infinite{self._advice}")
        self.claim.aside.wait()  # for the report of the epoch before
        self.rows.append(row)
        self.score, self.validated = None, validated
        self.save(epoch_done=True)

    def keep_ten_crops(self, result: dict[str, float]) -> None:
        """Write the results over ten crops, also into the report of the last epoch."""
        self.write(TEN_CROP, result)
        if self.report is not None:
            self._show(REPORT, partial(self.report, ten_crops=result))

    def _rescue(self) -> None:
        """Save what was done before an error, if a batch was."""
        if self.rows or (self.score is not None and self.score.batches):
            self.save()

    def _explain(self, batch: int) -> str:
        """Why the training ends: the loss of this batch of the epoch, from 1, is NaN or
        infinite."""
        why = f"the loss of batch {batch} of epoch {len(self.rows) + 1} is NaN or infinite"
        if self.explain:
            why, evidence = self.explain(*self.batch, self.score.batches - batch)
            for line in evidence:
                say(line)
        return f"training diverged: {why}{self._advice}"

    @property
    def _advice(self) -> str:
        return "; a lower --lr may help" if "lr" in self.config else ""

    def save(self, epoch_done: bool = False) -> None:
        """Copy the state of the training, and begin to write it."""
        states = {name: part.state_dict() for name, part in self.parts().items()}
        begun = self.begun  # until begin_epoch
        if self.score is not None:
            begun = {**self.score.state(), "images": self.images, "run_seconds": self.seconds}
        if not self.writes:
            return
        self.claim.aside.wait()  # until the copies are free that it writes
        arrays = self._copied(states)
        best = epoch_done and (self.best is None or merit(self.rows[-1]) >= merit(self.best))
        if best:
            self.best = self.rows[-1]
        info = {
            "config": self.config, "random": minicnn.random.random_state(), "epoch": len(self.rows),
            "rows": list(self.rows), "begun": begun, "bad_files": dict(self.bad.known),
        }  # fmt: skip
        self.claim.aside.begin(lambda: self._write(arrays, info, epoch_done, best))
        self.saved_at = time.perf_counter()

    def _copied(self, states: dict[str, dict[str, Any]]) -> dict[str, np.ndarray]:
        """The states by one name for each value, in memory of their own, which is used again and
        again."""
        arrays = arrays_of_view(self.view)
        if self.statistics is not None:
            arrays |= {f"statistics.{name}": array for name, array in self.statistics.arrays().items()}
        for part, state in states.items():
            for name, value in state.items():
                key = f"{part}.{name}"
                if not hasattr(value, "dtype"):  # a number or several
                    arrays[key] = np.asarray(value)
                elif key in self.buffers:
                    self.buffers[key][...] = to_device(value, "cpu")
                else:
                    self.buffers[key] = np.array(to_device(value, "cpu"))
        return arrays | self.buffers

    def _write(self, arrays: dict[str, np.ndarray], info: dict[str, Any], epoch_done: bool, best: bool) -> None:
        """The checkpoints, in the thread. best.safetensors goes first: if it cannot be written, the
        epoch counts as not done, and is done again. Only where there is nothing yet with which a
        run could go on, it comes later."""
        begins = not (self.folder / LAST).exists() and not (self.folder / PREVIOUS).exists()
        if begins:
            self._write_last(arrays, info)
        if best:
            network = {name.removeprefix("model."): a for name, a in arrays.items() if name.startswith("model.")}
            save_state(self.folder / BEST, network, self.config, self.view)
        if not begins:
            self._write_last(arrays, info)
        if epoch_done:
            self._draw(info["rows"], arrays["model.conv1.conv.weight"])
            for observer in self.observers:
                observer.draw(self.folder, info["rows"][-1])

    def _write_last(self, arrays: dict[str, np.ndarray], info: dict[str, Any]) -> None:
        """The one before stays, in case that the new one is damaged one day."""
        last = self.folder / LAST
        if last.exists() and self.sound:
            keep(last, self.folder / PREVIOUS)
        minicnn.save(last, arrays, info)
        self.claim.checkpoint_written()
        self.sound = True

    def _draw(self, rows: list[dict[str, Any]], kernels: np.ndarray) -> None:
        with suppress(OSError):
            (self.folder / TEN_CROP).unlink(missing_ok=True)  # of an earlier last epoch
        top5 = len(self.config["classes"]) > FIVE
        self._show(METRICS, lambda path: write_metrics(rows, path))
        self._show(CURVES, lambda path: draw_curves(rows, path, top5))
        self._show(FILTERS, lambda path: draw_filters(kernels, path))
        self.report = partial(
            write_report, config=self.config, rows=rows, kernels=kernels.copy(), score=self.validated, view=self.view
        )
        # It takes a second or two of a processor: a hundredth of a run's time at most.
        if len(rows) == self.config["epochs"] or time.perf_counter() > self.report_due:
            begun = time.perf_counter()
            self._show(REPORT, self.report)
            now = time.perf_counter()
            self.report_due = now + 100 * (now - begun)

    def _make_up_leeway(self, epochs: int) -> None:
        """Write what is missing of a run that was killed when it had written the checkpoint of an
        epoch, but not all that follows: its best network, or what shows its last epoch, without
        confusion and mistakes."""
        best = max(reversed(self.rows), key=merit, default=None)
        first = not self.begun and bool(self.rows) and best is self.rows[-1] and not (self.folder / BEST).exists()
        shown = len(self.rows) < epochs or (self.folder / FINISHED).exists()
        first, shown = self.workers.decided((first, shown))
        if shown and not first:
            return
        state = {name: to_device(array, "cpu") for name, array in self.parts()["model"].state_dict().items()}
        if not self.writes:
            return
        if first:
            save_state(self.folder / BEST, state, self.config, self.view)
            self.best = best
        if not shown:
            self._draw(self.rows, state["conv1.conv.weight"])
            for observer in self.observers:
                observer.draw(self.folder, self.rows[-1])

    def _show(self, name: str, write: Callable[[Path], None]) -> None:
        """Write a file; if that fails, a line says so, and the run continues."""
        try:
            with replacing(self.folder / name) as path:
                write(path)
        except Exception as error:  # of another program that has it open, of fonts, and so on
            complain(f"{self.folder / name} is not written: {reason(error)}; the run continues")

    def _name_bad_files(self) -> None:
        """Write bad_files.txt or, if there are none, remove it."""
        if not self.writes:
            return
        if not self.bad.known:
            (self.folder / BAD_FILES).unlink(missing_ok=True)
            return
        with replacing(self.folder / BAD_FILES, sync=False) as path:
            path.write_text(self.bad.text())

    def conclude(self) -> None:
        """Print the best result, and the commands that use the network. A file says that the run
        has come to its end: mpiexec may return 0 when it has not."""
        self.write(FINISHED, {"epochs": len(self.rows), "seconds": self.rows[-1]["seconds"]})
        if best := self.best:  # or it has been removed
            path, programs = self.folder / BEST, os.path.dirname(sys.argv[0])
            say(
                f"best: top-1 {best['val_top1']:.1f}% in epoch {best['epoch']}; see report.html (the filters are noise "
                "at first)"
            )
            say(f"to measure it: python {os.path.join(programs, 'evaluate.py')} --checkpoint {path}")
            say(f"to ask it: python {os.path.join(programs, 'predict.py')} --checkpoint {path} PHOTO")


def keep(last: Path, previous: Path) -> None:
    """Give a file a second name, in the place of another file. Where a file cannot have two, it
    loses the first, and there is none of that name until the next is written."""
    if previous.exists() and previous.samefile(last):  # since the next could not be written
        return
    with replacing(previous, sync=False) as path:
        path.unlink()
        try:
            os.link(last, path)
        except OSError:
            os.replace(last, path)


def write_metrics(rows: list[dict[str, Any]], path: Path) -> None:
    """A table that spreadsheets read, with a row for each epoch."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *MORE_COLUMNS], restval="")
        writer.writeheader()
        writer.writerows(
            {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows
        )


def _earlier(config: dict[str, Any], saved: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings that differ from those with which the run was saved, and the changes before
    that. A setting that an older run does not have is None."""
    old = saved["config"]
    other = {name: old[name] for name in config if old.get(name) not in (None, config[name])}
    return old.get("earlier", []) + ([{"until_epoch": len(saved["rows"]), **other}] if other else [])
