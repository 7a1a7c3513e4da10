"""The folder of a run: what it did, in numbers and images, and the network, to use or to train on.

    config.json         all settings
    metrics.csv         a row for each epoch
    curves.png          loss and accuracy by epoch
    filters.png         conv1's kernels, as the paper's figure 3
    best.safetensors    the network of the best epoch, to use
    last.safetensors    everything that is needed to continue
    ten_crop.json       with --ten-crop: the results of the last epoch's network over ten crops
    finished.json       that it has had all its epochs

Each file is written whole or not at all.
"""

import csv
import json
import os
import re
import shutil
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain, count, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from model import INPUT_SIZE, LRN, alexnet

import minicnn
from minicnn import nn
from minicnn.backends.devices import to_device
from minicnn.checkpoint import CheckpointError, replacing
from minicnn.data import DataError, PixelStatistics
from minicnn.workers import Workers

from .drawing import draw_curves, draw_filters, require_matplotlib
from .images import View
from .options import DEFAULTS, UsageError, complain, home, is_number, require_settings, say, side, use_machine
from .recipes import complete

COLUMNS = [
    "epoch", "step", "lr", "train_loss", "train_top1", "val_loss", "val_top1", "val_top5", "images_per_s", "seconds",
]  # fmt: skip
TEN_CROP, FINISHED = "ten_crop.json", "finished.json"
LAST, BEST = "last.safetensors", "best.safetensors"
HALF_WRITTEN = re.compile(
    r"\.(config\.json|metrics\.csv|curves\.png|filters\.png|best\.safetensors|last\.safetensors|ten_crop\.json"
    r"|finished\.json)\.\d+\.[0-9a-f]{8}|\.tmp[A-Za-z0-9]{6}"
)
FIVE = 5  # of so few classes the five best answers are all
FIRST = "config.json", BEST  # what comes before the last
# settings without which there is no network
NEEDED = "variant", "groups", "init", "classes", "view"


@contextmanager
def claimed(settings: Namespace, numbered: bool = False, workers: Workers | None = None) -> Iterator[None]:
    """Inside, settings.out is the run's folder, which this process or, of several, that of rank 0
    has claimed. After an interrupt, an image that cannot be read, a full disk, or workers that do
    not come, the message says how to continue."""
    workers = workers or Workers()
    with nullcontext() if workers.rank else _claimed(settings, numbered):
        settings.out = workers.decided(settings.out)
        last = Path(settings.out, LAST)
        further = f"go on with --resume {last}"
        workers.advice = lambda: f"; {further}" if last.exists() else ""
        try:
            yield
        except (KeyboardInterrupt, DataError, OSError) as error:
            if not last.exists():
                raise
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(further) from None
            mended = f"when that is mended, {further}"
            if isinstance(error, OSError) and error.strerror:
                raise OSError(error.errno, f"{error.strerror}; {mended}", error.filename) from None
            raise (OSError if isinstance(error, OSError) else DataError)(f"{error}; {mended}") from None


@contextmanager
def _claimed(settings: Namespace, numbered: bool) -> Iterator[None]:
    """Inside, settings.out is the folder of this run alone. A run that ends before its first epoch
    leaves no files. A run that continues in another folder takes its best network with it.

    numbered: if settings.out has a run already, take the first of settings.out-2, -3 … that has
    none. Raises UsageError if it has one, or one that has only begun, and perhaps goes on, or a
    network; for a copy that would go on in the folder of what has come after it; and for a run that
    another program goes on with just now.
    """
    # Fail now rather than after the first epoch if a package is missing.
    require_matplotlib()
    stays = settings.resume and os.path.realpath(settings.out) == os.path.realpath(home(settings))
    newest = os.path.basename(settings.resume or "") == LAST  # or it is a copy, perhaps of long ago
    own: list[Path] = []
    if not stays:
        settings.out, own = _claim(settings.out, numbered)
    elif not newest:
        raise UsageError(f"{settings.resume} is not called {LAST}: give --out, the folder in which to continue")
    last = Path(settings.out, LAST)
    try:
        if newest and not stays and (best := Path(home(settings), BEST)).exists():
            with replacing(last.with_name(BEST)) as path:
                shutil.copyfile(best, path)
        with alone(settings.out) as locked:
            if locked:
                remove_half_written(Path(settings.out))
            yield
    except BaseException:
        if not last.exists():
            with suppress(OSError):  # of a folder where there is something else by now
                for path in own:
                    if path.is_dir():
                        path.rmdir()
                    else:
                        path.unlink(missing_ok=True)
        raise


@contextmanager
def alone(folder: str) -> Iterator[bool]:
    """Inside, a second program that enters with the same folder gets a UsageError. The system's
    lock ends with the program, however it ends. What is yielded says whether there is one: on
    Windows and on some network drives nothing is locked."""
    try:
        import fcntl
    except ImportError:
        yield False
        return
    handle, locked = os.open(folder, os.O_RDONLY), False
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except BlockingIOError:
            raise UsageError(f"{folder} has a run that another program goes on with: wait until it has ended") from None
        except OSError:
            pass
        yield locked
    finally:
        os.close(handle)


def remove_half_written(folder: Path) -> None:
    """Remove what a program that was killed was writing in the folder of a run: files with the
    names that replacing() gives them, and those of safetensors."""
    for path in folder.iterdir():
        if HALF_WRITTEN.fullmatch(path.name) and path.is_file():
            with suppress(OSError):
                path.unlink()


def _claim(out: str, numbered: bool) -> tuple[str, list[Path]]:
    """The folder, in which a config.json is made, and the paths that this run has made and that can
    be removed, in this order, if it ends before its first epoch is done."""
    others = (f"{out}-{i}" for i in count(2)) if numbered else ()
    for name in chain([out], others):
        folder = Path(name)
        own = [path for path in (*map(folder.joinpath, FIRST), folder, *folder.parents) if not path.exists()]
        if (folder / LAST).exists() or (folder / BEST).exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            open(folder / "config.json", "x").close()
            return name, own
    last, best = Path(out, LAST), Path(out, BEST)
    if best.exists() and not last.exists():
        raise UsageError(f"--out {out} holds a network, {BEST}: take another folder")
    other = f"--resume {last}" if last.exists() else "remove that one, which has not finished an epoch"
    raise UsageError(f"--out {out} holds a run: take another folder, or {other}")


class Run:
    """A run folder, being written: of a network with these settings and this view, from the
    beginning or from what load_run has returned. The settings that changed when a run continued are
    kept in them, as `earlier`. Of several processes, the one that has rank 0 writes."""

    def __init__(
        self, settings: Namespace, more: dict[str, Any], view: View, saved: dict[str, Any], rank: int = 0
    ) -> None:
        self.writes = rank == 0
        config = {name: value for name, value in vars(settings).items() if name != "resume"} | more
        if saved and (earlier := _earlier(config, saved)):
            config["earlier"] = earlier
        self.folder, self.config, self.view = Path(settings.out), config | {"view": view.numbers()}, view
        self.rows: list[dict[str, Any]] = saved.get("rows", [])
        # empty if the file was removed, or is in another folder
        here = self.rows if (self.folder / BEST).exists() else []
        # the row of the best epoch, the last of equal ones
        self.best = max(reversed(here), key=merit, default=None)
        self.write("config.json", self.config)
        if self.writes:
            (self.folder / FINISHED).unlink(missing_ok=True)

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write a file of JSON into the run's folder."""
        if not self.writes:
            return
        with replacing(self.folder / name) as path:
            path.write_text(json.dumps(content, indent=2) + "\n")

    def keep(self, row: dict[str, Any], parts: dict[str, Any], statistics: PixelStatistics | None = None) -> None:
        """Write the files of an epoch that is done: first the checkpoints, then the table and the
        images; if one of those cannot be written, a line says so. parts: name -> object with a
        state_dict; "model" is the network. Raises UsageError if the training has diverged."""
        if not np.isfinite(row["train_loss"] + row["val_loss"]):
            advice = "; a lower --lr may help" if "lr" in self.config else ""
            raise UsageError(f"training diverged in epoch {row['epoch']}: the loss is NaN or infinite{advice}")
        self.rows.append(row)
        # for which all processes are needed
        states = {name: part.state_dict() for name, part in parts.items()}
        if not self.writes:
            return
        self.save(states, statistics)
        with suppress(OSError):
            (self.folder / TEN_CROP).unlink(missing_ok=True)  # of an earlier last epoch
        kernels = to_device(states["model"]["conv1.conv.weight"], "cpu")
        self._show("metrics.csv", self._write_metrics)
        self._show("curves.png", lambda path: draw_curves(self.rows, path, len(self.config["classes"]) > FIVE))
        self._show("filters.png", lambda path: draw_filters(kernels, path))

    def _show(self, name: str, write: Callable[[Path], None]) -> None:
        """Write a file; if that fails, a line says so, and the run continues."""
        try:
            with replacing(self.folder / name) as path:
                write(path)
        except Exception as error:  # of another program that has it open, of fonts, and so on
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
            complain(f"{self.folder / name} is not written: {reason}; the run continues")

    def _write_metrics(self, path: Path) -> None:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(
                {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in r.items()}
                for r in self.rows
            )

    def save(self, states: dict[str, dict[str, Any]], statistics: PixelStatistics | None) -> None:
        """last.safetensors: the network, the other parts, and how far it has come. best.safetensors
        goes first: if it cannot be written, the epoch counts as not done, and is done again."""
        if self.best is None or merit(self.rows[-1]) >= merit(self.best):
            _save_state(self.folder / BEST, states["model"], self.config, self.view)
            self.best = self.rows[-1]
        arrays = _of_view(self.view)
        if statistics is not None:
            arrays |= {f"statistics.{name}": array for name, array in statistics.arrays().items()}
        for part, state in states.items():
            for name, value in state.items():
                arrays[f"{part}.{name}"] = np.asarray(value) if isinstance(value, (int, float, list)) else value
        progress = {"epoch": self.rows[-1]["epoch"], "rows": self.rows}
        info = {"config": self.config, "random": minicnn.random.random_state(), **progress}
        minicnn.save(self.folder / LAST, arrays, info)


def conclude(run: Run) -> None:
    """Print a run's best result, and the commands that use its network. A file says that the run
    has come to its end: mpiexec may return 0 when it has not."""
    run.write(FINISHED, {"epochs": len(run.rows), "seconds": run.rows[-1]["seconds"]})
    if best := run.best:  # or it has been removed
        path, programs = run.folder / BEST, os.path.dirname(sys.argv[0])
        say(
            f"best: top-1 {best['val_top1']:.1f}% in epoch {best['epoch']}; see curves.png, and filters.png (noise at "
            "first)"
        )
        say(f"to measure it: python {os.path.join(programs, 'evaluate.py')} --checkpoint {path}")
        say(f"to ask it: python {os.path.join(programs, 'predict.py')} --checkpoint {path} PHOTO")


def merit(row: dict[str, Any]) -> tuple[float, float]:
    """The measure of the best epoch: the highest top-1 and, among equal ones, the lowest loss."""
    return row["val_top1"], -row["val_loss"]


def _earlier(config: dict[str, Any], saved: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings that differ from those with which the run was saved, and the changes before
    that. A setting that an older run does not have is None."""
    old = saved["config"]
    other = {name: old[name] for name in config if old.get(name) not in (None, config[name])}
    return old.get("earlier", []) + ([{"until_epoch": len(saved["rows"]), **other}] if other else [])


def read_checkpoint(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arrays, info) of a checkpoint. Raises a CheckpointError if it cannot be read."""
    try:
        return minicnn.load(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None


def load_run(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arrays, info) of a last.safetensors."""
    arrays, info = read_checkpoint(path)
    newer: dict[str, Any] = {  # what older runs do not say
        "precision": None, "processes": None, "backend": None, "source": None, "freeze": False, "head_lr": None,
        "parallel": "data", "limit": 600.0, "ranks": 1,
    }  # fmt: skip
    needed = DEFAULTS.keys() - newer.keys() | {"epochs", *NEEDED}
    if not info.get("rows") or not has(info.get("config"), *needed):
        raise CheckpointError(f"{path} cannot be continued: only the last.safetensors of a run can")
    require_sound(path, info)
    info["config"] = newer | complete(info["config"])
    return arrays, info


def require_sound(path: str, info: dict[str, Any]) -> None:
    """Raise a CheckpointError unless the settings of a checkpoint, and the rows of a run, are
    valid."""
    config, rows = info["config"], info.get("rows", [])
    require_settings(path, config)
    classes, lrn = config["classes"], config.get("lrn", LRN)
    names = config.get("names", classes)
    sound = {
        "classes": _strings(classes) and len(classes) > 0,
        "names": _strings(names) and _strings(classes) and len(names) == len(classes),
        "lrn": isinstance(lrn, dict)
        and lrn.keys() - {"groups"} == LRN.keys()
        and all(map(is_number, lrn.values()))
        and lrn.get("groups", 1) in (1, 2),
        "rows": isinstance(rows, list)
        and all(has(row, *COLUMNS) and all(is_number(row[name]) for name in COLUMNS) for row in rows),
    }
    if wrong := [name for name in sound if not sound[name]]:
        raise CheckpointError(f"{path} is damaged: its {wrong[0]} are not what they should be")


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def has(config: Any, *names: str) -> bool:
    """Whether these are settings, with these names among them."""
    return isinstance(config, dict) and set(names) <= set(config)


def finished(path: str, rows: list[Any], epochs: int) -> bool:
    """Whether a run has all its epochs; if so, a line says how it could continue."""
    if len(rows) >= epochs:
        say(f"{path} has its {len(rows)} epochs: --epochs with a larger number continues from there")
    return len(rows) >= epochs


def _of_view(view: View) -> dict[str, Any]:
    """The arrays of a view."""
    return {} if view.mean_image is None else {"view.mean_image": view.mean_image}


def save_network(path: str | os.PathLike[str], net: nn.Module, config: dict[str, Any], view: View) -> None:
    """A checkpoint for load_network: it needs the settings variant, groups, init and classes, and
    has defaults for lrn, dropout, dropout_scale and names."""
    _save_state(path, net.state_dict(), config, view)


def _save_state(path: str | os.PathLike[str], state: dict[str, Any], config: dict[str, Any], view: View) -> None:
    info = {"config": config | {"view": view.numbers()}}
    minicnn.save(path, {**state, **_of_view(view)}, info)


def require_classes(path: str, known: list[str], what: str, found: list[str]) -> None:
    """Raise a CheckpointError unless the classes that a checkpoint knows are those of the data, in
    their order."""
    numbers = known == [str(k) for k in range(len(known))]
    advice = "; it knows its classes by numbers alone: convert.py --names gives them names" if numbers else ""
    for mine, other in zip_longest(known, found, fillvalue="none"):
        if mine != other:
            raise CheckpointError(
                f"{path} knows {len(known)} classes, {what} has {len(found)}; "
                f"the first that differ are {mine} and {other}{advice}"
            )


def part_of(arrays: dict[str, Any], part: str) -> dict[str, Any]:
    """The arrays of one part of a checkpoint."""
    return {name.removeprefix(part + "."): array for name, array in arrays.items() if name.startswith(part + ".")}


def restore(path: str, arrays: dict[str, Any], info: dict[str, Any], parts: dict[str, Any]) -> None:
    """Load the parts (name -> object with load_state_dict) and the random numbers from what
    load_run returned."""
    for part, thing in parts.items():
        try:
            thing.load_state_dict(part_of(arrays, part))
        except (ValueError, TypeError, OverflowError) as error:
            raise CheckpointError(f"{path}: its {part} cannot be restored: {error}") from None
    try:
        minicnn.random.set_random_state(info["random"])
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: its random numbers cannot be restored: {error}") from None


def view_of(path: str, config: dict[str, Any], arrays: dict[str, Any]) -> View:
    """How a network sees an image, from the settings and arrays of its file."""
    image, size = arrays.get("view.mean_image"), INPUT_SIZE[config["variant"]]
    try:  # older runs do not say the resize
        view = View(**{"resize": complete(config)["resize"], **config["view"]}, mean_image=image)
        numbers, shape = (view.size, view.resize, *view.mean, *view.std), (view.resize, view.resize, 3)
        if len(numbers) != 8 or not all(map(is_number, numbers)) or (image is not None and image.shape != shape):
            raise ValueError(f"{config['view']}, and the mean image {None if image is None else image.shape}")
        if view.size != size or not side(str(view.resize)) >= size:
            raise ValueError(f"size {view.size} and resize {view.resize}, of a network that sees {size} pixels")
        # which refuses means and deviations that are NaN, infinite, or not above 0
        view.evaluation()
        return view
    except (ValueError, TypeError, ArgumentTypeError) as error:
        raise CheckpointError(f"{path}: its view is damaged: {error}") from None


Network = tuple[nn.Module, dict[str, Any], View]


def load_network(path: str, device: str = "cpu") -> Network:
    """(network in evaluation mode, its settings, how it sees an image) from a best.safetensors, a
    last.safetensors or what convert.py wrote."""
    arrays, info = read_checkpoint(path)
    config = info.get("config")
    if not has(config, *NEEDED):
        what = (
            "has a network of cuda_convnet" if has(config, "network") else "was not written by train.py or convert.py"
        )
        raise CheckpointError(f"{path} {what}: use a best.safetensors or last.safetensors that has AlexNet")
    require_sound(path, info)
    config = {"lrn": LRN, "dropout": 0.5, "dropout_scale": "training", "names": config["classes"], **config}
    view = view_of(path, config, arrays)
    config["view"] = view.numbers()
    arrays.pop("view.mean_image", None)
    if "rows" in info:
        arrays = part_of(arrays, "model")
    try:
        net = alexnet(
            config["variant"], len(config["classes"]), "zeros", config["groups"], config["lrn"],
            config["dropout_scale"], config["dropout"],
        )  # fmt: skip
        net.load_state_dict(arrays)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    return net.eval().to(device), config, view


def begin(parser: ArgumentParser) -> tuple[Namespace, nn.Module, dict[str, Any], View]:
    """The settings of a program with the options of add_network and --draw, and what load_network
    returns."""
    settings = parser.parse_args()
    if settings.draw:
        require_matplotlib()  # fail now rather than when the drawing is due
    use_machine(settings)
    if settings.checkpoint is not None:
        return settings, *load_network(settings.checkpoint, settings.device)
    settings.checkpoint, (net, config, view) = newest_network(settings.device)
    complain(f"using the network of the newest run, {settings.checkpoint}, trained on {config.get('data')}")
    return settings, net, config, view


def newest_network(device: str) -> tuple[str, Network]:
    """The file of the best network of the newest run in runs/, and what load_network returns. If a
    file is damaged, a line says so, and the next one is tried. Raises UsageError if there is
    none."""
    times = {}
    for last in Path("runs").glob(f"*/{LAST}"):
        with suppress(OSError, ValueError):  # of one that is being removed, or damaged
            if has(json.loads((last.parent / "config.json").read_text()), *NEEDED):
                times[last] = last.stat().st_mtime_ns
    for last in sorted(times, key=lambda path: times[path], reverse=True):
        for path in filter(os.path.exists, (last.with_name(BEST), last)):
            try:
                return str(path), load_network(str(path), device)
            except CheckpointError as error:
                complain(f"{error}; skipped")
    raise UsageError("there is no run in runs/: train.py makes one, and --checkpoint FILE takes any other network")
