"""The start of a training: from nothing, from a run that continues (--resume), or from the weights
of another network (--from), whose layers but the last may be frozen. And the lines that are printed
at the start."""

import os
from argparse import Namespace
from dataclasses import dataclass, field
from typing import Any

from model import LRN

import minicnn
from minicnn import nn
from minicnn.backends.devices import describe_device
from minicnn.data import DataLoader
from minicnn.data.folder import some
from minicnn.optim import SGD, Optimizer, ReduceLROnPlateau, Schedule

from .board import Board
from .diagnosis import Plateau
from .folders import FINISHED, TEN_CROP
from .images import View
from .observer import Observer
from .options import UsageError, say
from .parallel import Way
from .recipes import complete
from .runs import begun_epoch, finished, load_network, load_run, part_of, require_classes, restore, view_of
from .settings import DEFAULTS, MACHINE, adopt, adopt_network, home
from .watch import watching


@dataclass
class Start:
    """What a training starts with: the file of a run (`arrays`, `saved`) or of a network; of a
    training from the beginning, all is empty."""

    path: str = ""
    config: dict[str, Any] = field(default_factory=dict)  # the settings in the file
    view: View | None = None  # how its network sees an image
    source: nn.Module | None = None  # the network, of --from
    arrays: dict[str, Any] = field(default_factory=dict)  # all that --resume has
    saved: dict[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        return self.config.get("classes", [])

    @property
    def statistics(self) -> dict[str, Any]:
        """The arrays of PixelStatistics."""
        return part_of(self.arrays, "statistics")

    def lrn(self, settings: Namespace) -> dict[str, Any]:
        """The constants of local response normalization."""
        columns = settings.parallel == "columns"  # each normalizes its own channels
        lrn = self.config.get("lrn", {**LRN, "alpha": settings.lrn_alpha} | ({"groups": 2} if columns else {}))
        if columns and (settings.variant != "2012" or not settings.groups or lrn.get("groups") != 2):
            raise UsageError(
                "--parallel columns trains the 2012 network in two columns from its beginning (or resumes such a run): "
                f"{self.path or f'variant {settings.variant}'} is another network; --parallel hybrid divides it too"
            )
        return lrn

    def names(self, dataset: Any) -> list[str]:
        """The words for a data set's classes. Classes that are known keep the names that they
        have."""
        names = getattr(dataset, "names", dataset.classes)
        return self.config.get("names", names) if self.classes == dataset.classes else names

    def require_classes(self, data: str, classes: list[str]) -> None:
        """Raise a CheckpointError if a run would continue with other classes than its own."""
        if self.saved:
            require_classes(self.path, self.classes, data, classes)

    def give_weights(self, net: nn.Module, classes: list[str]) -> None:
        """Give the network the source's weights, if there is a source."""
        if self.source:
            say(f"from {self.path}: {take_weights(net, self.source, self.classes, classes)}")

    def restore(
        self, way: Way, net: nn.Module, optimizer: SGD, schedule: Schedule, settings: Namespace, given: set[str],
        loader: DataLoader,
    ) -> None:  # fmt: skip
        """If a run continues, restore the states of its parts, except the settings that were given.
        way: how they are divided. loader: of the batches to train on."""
        if not self.saved:
            return
        rows, begun = self.saved["rows"], begun_epoch(self.path, self.saved, loader)
        plateau = schedule if isinstance(schedule, ReduceLROnPlateau) else None
        parts = {"model": way.whole(net), "optimizer": way.whole(optimizer)}
        parts |= {"schedule": plateau} if plateau else {}
        restore(self.path, self.arrays, self.saved, parts)
        for group in optimizer.param_groups:
            group |= {name: value for name, value in optimizer.defaults.items() if name != "lr"}
        if plateau:  # whose rate is the optimizer's, not a formula
            plateau.min_lr = (rows[0] if rows else self.config)["lr"] / 1000
            for name, group in zip(("lr", "head_lr"), optimizer.param_groups, strict=False):
                if name in given:
                    group["lr"], plateau.waited = getattr(settings, name), 0
        else:
            schedule.load_state_dict({"count": len(rows) * len(loader) + begun.get("batches", 0)})


def begin(settings: Namespace, given: set[str]) -> Start | None:
    """The start that --resume or --from asks for; its settings replace those that were not given.
    None if the run has all its epochs already. Settings that no longer have an effect are removed
    from `given`."""
    if settings.resume:
        arrays, saved = load_run(settings.resume)
        config = saved["config"]
        adopt(settings, given, config)
        if finished(settings.resume, saved["rows"], settings.epochs):
            # the other settings only matter for training
            given &= {"data", "verify", "ten_crop", "device", *MACHINE}
            adopt(settings, given, config)
            settings.epochs = len(saved["rows"])
            here = os.path.realpath(settings.out) == os.path.realpath(home(settings))
            # just before its end
            killed = here and not os.path.exists(os.path.join(settings.out, FINISHED))
            ten_crops = settings.ten_crop and not os.path.exists(os.path.join(settings.out, TEN_CROP))
            if not killed and not ten_crops:
                return None
        view = view_of(settings.resume, config, arrays)
        return Start(settings.resume, config, view, arrays=arrays, saved=saved)
    if settings.source:
        source, config, view = load_network(settings.source)
        adopt_network(settings, given, config, view.resize)
        return Start(settings.source, config, view, source)
    return Start()


# -------------------------------------------------------------------------------------- fine-tuning
def take_weights(net: nn.Module, source: nn.Module, known: list[str], classes: list[str]) -> str:
    """Give a network the weights of another, except those of the last layer if the classes differ.
    Returns what was done, in words."""
    arrays, words = source.state_dict(), "all its layers, because the classes are the same"
    if known != classes:
        arrays = {name: array for name, array in arrays.items() if not name.startswith("fc8.")}
        words = f"all its layers but the last: fc8 is new, for {len(classes)} classes instead of {len(known)} others"
    net.load_state_dict({**net.state_dict(), **arrays})
    return words


def freeze(net: nn.Module) -> None:
    """Freeze all layers but the last."""
    *layers, _ = net.children()
    for layer in layers:
        for parameter in layer.parameters():
            parameter.requires_grad = False


def training_mode(net: nn.Module) -> None:
    """The layers that learn are in training mode. Those that are frozen stay as in evaluation: they
    drop out nothing, and statistics that they keep do not change."""
    net.train()
    for layer in net.children():
        if {parameter.requires_grad for parameter in layer.parameters()} == {False}:
            layer.eval()


# ------------------------------------------------------------------------------------ what looks on
def observers(
    settings: Namespace, way: Way, net: nn.Module, optimizer: SGD, classes: int, updates: int
) -> list[Observer]:
    """What looks for a plateau, in the first of several processes, and what --watch and
    --tensorboard ask for. updates: how many the run makes."""
    found: list[Observer] = []
    if settings.watch:
        found.append(watching(settings.parallel, way.workers, net, optimizer, settings.out))
    if way.workers.rank == 0:
        found.append(Plateau(net, optimizer, settings, classes, updates, way.alone))
        if settings.tensorboard:
            found.append(Board(settings.out, optimizer))
    return found


# ------------------------------------------------------------------------------- what is said of it
def introduce(
    settings: Namespace, given: set[str], start: Start, way: Way, net: nn.Module, optimizer: Optimizer,
    loader: DataLoader, val_loader: DataLoader,
) -> None:  # fmt: skip
    """Print the configuration: the machine, the data, the settings that differ from the recipe's,
    and what may surprise."""
    weights, state = (list(way.whole(thing).state_dict().values()) for thing in (net, optimizer))
    parameters = sum(array.size for array in weights)
    drawn = (
        ": synthetic textures, not photographs; --data takes a folder of your own"
        if settings.data == "synthetic"
        else ""
    )
    if settings.device == "cpu":
        machine = f"cpu (threads {minicnn.get_num_threads()})"
    else:
        machine = f"{settings.device}, {describe_device(settings.device)}, with matrix products in {settings.precision}"
    say(f"AlexNet {settings.variant}, {parameters:,} parameters, on {machine}, backend {settings.backend}")
    if settings.resume and (before := start.config["backend"]) != settings.backend:
        say(f"      until now the run was computed by the backend {before}: the last bits of results differ")
    if way.workers.size > 1:
        say(f"in {way.workers.size} processes (--parallel {settings.parallel})")
    elif settings.parallel == "columns":
        say("in one process, which has both columns: each normalizes its own channels; mpiexec -n 2 divides them")
    elif settings.parallel != "data" and "parallel" in given:
        say(f"in one process, where --parallel {settings.parallel} divides nothing; mpiexec -n N starts several")
    say(f"data: {settings.data}{drawn}")
    images = len(loader.dataset)
    say(
        f"      {images} images to train on, {len(val_loader.dataset)} to validate, "
        f"{len(loader.dataset.classes)} classes"
    )
    seen = {label for _, label in getattr(val_loader.dataset, "samples", ())}
    if lacking := [name for label, name in enumerate(loader.dataset.classes) if seen and label not in seen]:
        say(f"      classes without images to validate: {some(lacking)}")
    if len(loader) == 1 and images > 1:
        size = -(-images // 4)
        say(
            f"      all {images} are one batch, so there is one update an epoch; --batch-size {size} makes "
            f"{-(-images // size)}"
        )
    usual = complete({**DEFAULTS, "recipe": settings.recipe, "data": settings.data})
    # elsewhere, or not chosen
    told = {"data", "device", "parallel", "limit", "out", "source", *(set(MACHINE) - given)}
    differ = {name: value for name, value in vars(settings).items() if value != usual.get(name, value)}
    other = [f"{name} {value}" for name, value in differ.items() if value != "source"]
    other = [text for text in other if text.partition(" ")[0] not in told]
    if taken := [name for name in ("mean", "scale") if getattr(settings, name) == "source"]:
        other.append(f"pixels with the {' and '.join(taken)} of {os.path.basename(settings.source)}")
    config = os.path.join(settings.out, "config.json")
    say(f"recipe {settings.recipe}{', but ' * bool(other)}{', '.join(other)}; all settings are in {config}")
    say(f"{settings.out} will take {disk_space(weights, state) / 1e6:,.0f} MB of the disk")


def disk_space(weights: list[Any], state: list[Any]) -> int:
    """The bytes that a run takes: best.safetensors holds the network's weights, last.safetensors
    these and the optimizer's state, and so does previous.safetensors."""
    return sum(array.nbytes for array in (*weights, *weights, *weights, *state, *state))
