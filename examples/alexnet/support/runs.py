"""The checkpoints of runs, read back: to continue a run, or to use its network."""

import json
import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

from model import INPUT_SIZE, LRN, alexnet

import minicnn
from minicnn import nn
from minicnn.checkpoint import CheckpointError
from minicnn.data import DataLoader

from .drawing import require_matplotlib
from .folders import BEST, CONFIG, LAST, PREVIOUS
from .images import View
from .options import UsageError, complain, say, side, use_machine
from .recipes import complete
from .settings import DEFAULTS, is_number, require_settings

COLUMNS = [
    "epoch", "step", "lr", "train_loss", "train_top1", "val_loss", "val_top1", "val_top5", "images_per_s", "seconds",
]  # fmt: skip
MORE_COLUMNS = ["compute_seconds", "data_seconds"]  # which older runs do not have
FIVE = 5  # of so few classes the five best answers are all
# settings that older runs do not have, and which are then the defaults
NEWER = (
    "precision", "processes", "backend", "source", "freeze", "head_lr", "parallel", "limit", "checkpoint_every",
    "max_bad", "watch", "tensorboard", "detect_anomaly", "capture",
)  # fmt: skip
# settings without which there is no network
NEEDED = "variant", "groups", "init", "classes", "view"


def merit(row: dict[str, Any]) -> tuple[float, float]:
    """The measure of the best epoch: the highest top-1 and, among equal ones, the lowest loss."""
    return row["val_top1"], -row["val_loss"]


Checkpoint = tuple[dict[str, Any], dict[str, Any]]  # arrays, info
Load = Callable[[str], Checkpoint]


def read_checkpoint(path: str) -> Checkpoint:
    """(arrays, info) of a checkpoint. Raises a CheckpointError if it cannot be read."""
    try:
        return minicnn.load(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None


# what a checkpoint counts of an epoch that was begun, beside sums; see Score.state
COUNTED = "batches", "images", "seen"
MEASURED = "lr", "seconds", "waited", "run_seconds"


def load_run(path: str, load: Load | None = None) -> Checkpoint:
    """(arrays, info) of a last.safetensors or, if that is damaged or lost, of the checkpoint that
    was written before it; a line says so, and the info has "damaged". load: reads either of them,
    or raises a CheckpointError; None: those of train.py."""
    load, previous = load or _load_run, Path(path).with_name(PREVIOUS)
    try:
        return load(path)
    except CheckpointError as error:
        if os.path.basename(path) != LAST or not previous.exists():
            raise
        try:
            arrays, info = load(str(previous))
        except CheckpointError:
            raise error from None
        complain(f"{error}: going on with {previous}, which was written before it")
        return arrays, info | {"damaged": True}


def _load_run(path: str) -> Checkpoint:
    arrays, info = read_checkpoint(path)
    newer = {name: DEFAULTS[name] for name in NEWER} | {"ranks": 1}
    needed = DEFAULTS.keys() - newer.keys() | {"epochs", *NEEDED}
    if not isinstance(info.get("rows"), list) or not has(info.get("config"), *needed):
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
        "begun epoch": is_begun(info.get("begun", {})),
        "bad files": isinstance(info.get("bad_files", {}), dict) and _strings([*info.get("bad_files", {}).values()]),
    }
    if wrong := [name for name in sound if not sound[name]]:
        raise CheckpointError(f"{path} is damaged: its {wrong[0]} are not what they should be")


def begun_epoch(path: str, saved: dict[str, Any], loader: DataLoader) -> dict[str, Any]:
    """What a checkpoint has counted of an epoch that was begun, or {}; if the data have another
    number of images by now, a line says that the epoch begins again. loader: of the batches to
    train on. Raises a CheckpointError if an epoch has not so many."""
    begun, images = saved.get("begun", {}), len(loader.dataset)
    if begun and begun["images"] != images:
        say(
            f"the data had {begun['images']} images and have {images}: epoch {len(saved['rows']) + 1} begins again, "
            "with the weights that it had come to"
        )
        saved["begun"] = begun = {}
    if begun and begun["batches"] > len(loader):
        raise CheckpointError(f"{path} is damaged: it has counted {begun['batches']} batches of {len(loader)}")
    return begun


def is_begun(begun: Any) -> bool:
    """Whether these are the counts of an epoch that was begun, or {}."""
    if begun == {}:
        return True
    return (
        has(begun, *COUNTED, *MEASURED, "sums")
        and all(type(begun[name]) is int and 0 < begun[name] < 2**53 for name in COUNTED)
        and all(is_number(begun[name]) for name in MEASURED)
        and isinstance(begun["sums"], list)
        and len(begun["sums"]) == 3
        and all(isinstance(number, float) and is_number(number) for number in begun["sums"])
    )


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


def arrays_of_view(view: View) -> dict[str, Any]:
    """The arrays of a view."""
    return {} if view.mean_image is None else {"view.mean_image": view.mean_image}


def save_network(path: str | os.PathLike[str], net: nn.Module, config: dict[str, Any], view: View) -> None:
    """A checkpoint for load_network: it needs the settings variant, groups, init and classes, and
    has defaults for lrn, dropout, dropout_scale and names."""
    save_state(path, net.state_dict(), config, view)


def save_state(path: str | os.PathLike[str], state: dict[str, Any], config: dict[str, Any], view: View) -> None:
    info = {"config": config | {"view": view.numbers()}}
    minicnn.save(path, {**state, **arrays_of_view(view)}, info)


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
            if has(json.loads((last.parent / CONFIG).read_text()), *NEEDED):
                times[last] = last.stat().st_mtime_ns
    for last in sorted(times, key=lambda path: times[path], reverse=True):
        for path in filter(os.path.exists, (last.with_name(BEST), last, last.with_name(PREVIOUS))):
            try:
                return str(path), load_network(str(path), device)
            except CheckpointError as error:
                complain(f"{error}; skipped")
    raise UsageError("there is no run in runs/: train.py makes one, and --checkpoint FILE takes any other network")
