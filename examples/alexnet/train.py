"""Train AlexNet: python examples/alexnet/train.py [--recipe NAME] [--data FOLDER] …, or with no arguments on synthetic
images. See --help."""

import os
import sys
import time
from argparse import Namespace
from typing import Any

import installed  # noqa: F401 (first)
import numpy as np
from evaluate import Score, evaluate, in_words
from model import INPUT_SIZE, LRN, alexnet
from options import DEFAULTS, MACHINE, adopt, adopt_network, batch_of, command, parse, progress_bar, say, use_machine
from pictures import View, datasets, pixel_statistics, training, validation
from recipes import complete
from runs import (
    BEST,
    TEN_CROP,
    Network,
    Run,
    claimed,
    finished,
    load_network,
    load_run,
    part_of,
    require_classes,
    restore,
    view_of,
)

import minicnn
from minicnn import Tensor, nn
from minicnn import functional as F
from minicnn.backends.devices import describe_device
from minicnn.data import DataLoader
from minicnn.data.folder import some
from minicnn.optim import SGD, CosineLR, Optimizer, ReduceLROnPlateau, Schedule, StepLR


def network(settings: Namespace, classes: int, lrn: dict[str, Any] | None = None) -> nn.Sequential:
    """As --variant, --groups, --init, --lrn-alpha, --dropout and --dropout-scale say; lrn has the
    constants of local response normalization, where more than alpha differs from the paper's."""
    net = alexnet(
        settings.variant, classes, settings.init, settings.groups, lrn or {**LRN, "alpha": settings.lrn_alpha},
        dropout=settings.dropout, dropout_scale=settings.dropout_scale,
    )  # fmt: skip
    return net.to(settings.device)


def take_weights(net: nn.Module, source: nn.Module, known: list[str], classes: list[str]) -> str:
    """Give a network the weights of another, all but those of its last layer where the classes are
    not the same ones. Returns what was done, in words."""
    arrays, words = source.state_dict(), "all its layers, for the classes are the same"
    if known != classes:
        arrays = {name: array for name, array in arrays.items() if not name.startswith("fc8.")}
        words = f"all its layers but the last: fc8 is new, for {len(classes)} classes instead of {len(known)} others"
    net.load_state_dict({**net.state_dict(), **arrays})
    return words


def freeze(net: nn.Module) -> None:
    """Let no layer learn but the last."""
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


def sgd(net: nn.Module, settings: Namespace) -> SGD:
    """As --lr, --head-lr, --momentum, --weight-decay and --update say, over the parameters that are
    not frozen."""
    learned: list[Any] = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if settings.head_lr is not None:
        *_, last = net.children()
        head = list(last.parameters())
        rest = [parameter for parameter in learned if parameter not in set(head)]
        learned = [{"params": rest}, {"params": head, "lr": settings.head_lr}]
    paper = settings.update == "paper"
    return SGD(learned, settings.lr, settings.momentum, weight_decay=settings.weight_decay, paper_update=paper)


def schedule_for(optimizer: SGD, settings: Namespace, updates: int) -> Schedule:
    """As --schedule says, for a training of so many updates. A plateau's step() wants the validation error of each
    epoch, the others' is called after each update."""
    if settings.schedule == "plateau":  # the paper's rate was divided by ten three times
        return ReduceLROnPlateau(optimizer, patience=settings.patience, min_lr=settings.lr / 1000)
    if settings.schedule == "constant":
        return StepLR(optimizer, 1, gamma=1.0)
    return CosineLR(optimizer, updates, warmup_steps=int(settings.warmup * updates))


def update(net: nn.Module, optimizer: Optimizer, images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """One step on a batch: its mean loss and its logits."""
    with batch_of(len(labels)):
        logits = net(Tensor(images))
        loss = F.cross_entropy(logits, Tensor(labels))
        net.zero_grad()
        loss.backward()
        optimizer.step()
    return loss, logits


def train_epoch(
    net: nn.Module, loader: DataLoader, optimizer: Optimizer, title: str, schedule: Schedule | None = None
) -> dict[str, float]:
    """One pass over the training images, with a step of the schedule after each update: the last learning rate (of
    the first parameters), mean loss, top-1 in percent, images per second. It ends early if the loss is no number."""
    training_mode(net)
    score, start = Score(), time.perf_counter()
    with progress_bar(total=len(loader.dataset), desc=title, unit=" images") as bar:
        for images, labels in loader:
            loss, logits = update(net, optimizer, images, labels)
            lr = optimizer.lr
            if schedule:
                schedule.step()

            score.add(loss, logits, labels)
            loss_so_far = score.sums[0] / score.seen
            bar.set_description(f"{title}  loss {loss_so_far:.3f}", refresh=False)  # narrow ones show it
            bar.update(len(labels))
            if not np.isfinite(score.sums[0]):
                break
    result, seconds = score.result(), time.perf_counter() - start
    return {
        "lr": lr, "train_loss": result["loss"], "train_top1": result["top1"], "images_per_s": score.seen / seconds,
    }  # fmt: skip


def train(settings: Namespace, given: set[str]) -> None:
    arrays, saved = load_run(settings.resume) if settings.resume else ({}, {})
    if saved:
        adopt(settings, given, saved["config"])
        if finished(settings.resume, saved["rows"], settings.epochs):
            given = given & {"data", "verify", "ten_crop", "device", *MACHINE}  # with the others nothing is trained
            adopt(settings, given, saved["config"])
            settings.epochs = len(saved["rows"])
            if not settings.ten_crop or os.path.exists(os.path.join(settings.out, TEN_CROP)):
                return
    source = load_network(settings.source) if settings.source and not saved else None
    if source:
        adopt_network(settings, given, source[1], source[2].resize)
    use_machine(settings)
    with claimed(settings, numbered="out" not in given):
        fit(settings, given, arrays, saved, source)


def fit(
    settings: Namespace, given: set[str], arrays: dict[str, Any], saved: dict[str, Any], source: Network | None = None
) -> None:
    """Train a network: from the beginning, from what load_run has returned, or from what
    load_network has, `source`."""
    minicnn.manual_seed(settings.seed)
    size = INPUT_SIZE[settings.variant]
    earlier, seen = {}, None
    if saved:
        earlier, seen = saved["config"], view_of(settings.resume, saved["config"], arrays)
    elif source:
        _, earlier, seen = source
    known = earlier.get("classes", [])
    pictures, val_pictures = datasets(settings.data, settings.seed, size, settings.verify, settings.resize, known)
    classes = pictures.classes
    if saved:
        require_classes(settings.resume, known, settings.data, classes)
    statistics = pixel_statistics(pictures, settings, part_of(arrays, "statistics"))
    view = View.of(size, settings, statistics, seen)
    loader, val_loader = training(pictures, view, settings, statistics), validation(val_pictures, view, settings)
    constants = earlier.get("lrn", {**LRN, "alpha": settings.lrn_alpha})
    net = network(settings, len(classes), constants)
    if source:
        say(f"from {settings.source}: {take_weights(net, source[0], known, classes)}")
    if settings.freeze:
        freeze(net)
    optimizer = sgd(net, settings)
    schedule = schedule_for(optimizer, settings, settings.epochs * len(loader))
    plateau = isinstance(schedule, ReduceLROnPlateau)
    if saved:
        parts = {"model": net, "optimizer": optimizer} | ({"schedule": schedule} if plateau else {})
        restore(settings.resume, arrays, saved, parts)
        for group in optimizer.param_groups:
            group |= {name: value for name, value in optimizer.defaults.items() if name != "lr"}
        if plateau:  # whose rate is the optimizer's, not a formula
            schedule.min_lr = saved["rows"][0]["lr"] / 1000
            for name, group in zip(("lr", "head_lr"), optimizer.param_groups, strict=False):
                if name in given:
                    group["lr"], schedule.waited = getattr(settings, name), 0
        else:  # of so many images as there are today
            schedule.load_state_dict({"count": len(saved["rows"]) * len(loader)})
    introduce(settings, given, net, optimizer, loader, val_loader)

    names = getattr(pictures, "names", classes)
    if known == classes:  # these keep the names that they have
        names = earlier.get("names", names)
    more = {"classes": classes, "names": names, "lrn": constants}
    run = Run(settings, more | {"minicnn": minicnn.__version__}, view, saved)
    begun = time.perf_counter() - (run.rows[-1]["seconds"] if run.rows else 0)
    for epoch in range(len(run.rows) + 1, settings.epochs + 1):
        loader.set_epoch(epoch)
        title = f"epoch {epoch}/{settings.epochs}"
        result: dict[str, Any] = train_epoch(net, loader, optimizer, title, None if plateau else schedule)
        result |= {f"val_{name}": value for name, value in evaluate(net, val_loader).items()}
        if plateau:
            schedule.step(100 - result["val_top1"])
        row = {"epoch": epoch, "step": optimizer.steps, **result, "seconds": time.perf_counter() - begun}
        run.keep(row, net, {"optimizer": optimizer, "schedule": schedule}, statistics)
        say(
            f"{title}  loss {result['train_loss']:.3f}  val loss {result['val_loss']:.3f}  "
            f"{in_words(result, len(classes), prefix='val_')}  {result['images_per_s']:.1f} images/s"
        )
    if settings.ten_crop:  # once, at the end: it takes ten times as long
        result = evaluate(net, validation(val_pictures, view, settings, crops=10))
        run.write(TEN_CROP, result)
        say(f"ten crops of each image: {in_words(result, len(classes))}")
    conclude(run)
    say(f"{time.perf_counter() - begun:.0f} s; the run is in {settings.out}")


def introduce(
    settings: Namespace, given: set[str], net: nn.Module, optimizer: Optimizer, loader: DataLoader,
    val_loader: DataLoader,
) -> None:  # fmt: skip
    """Say what is going to happen: the settings that are not the recipe's, and what may
    surprise."""
    parameters = sum(p.size for p in net.parameters())
    drawn = ": drawn textures, not photographs; --data takes a folder of yours" if settings.data == "synthetic" else ""
    if settings.device == "cpu":
        machine = f"cpu (threads {minicnn.get_num_threads()})"
    else:
        machine = f"{settings.device}, {describe_device(settings.device)}, with products in {settings.precision}"
    say(f"AlexNet {settings.variant}, {parameters:,} parameters, on {machine}, backend {settings.backend}")
    say(f"data: {settings.data}{drawn}")
    pictures = len(loader.dataset)
    say(
        f"      {pictures} images to train on, {len(val_loader.dataset)} to validate, "
        f"{len(loader.dataset.classes)} classes"
    )
    seen = {label for _, label in getattr(val_loader.dataset, "samples", ())}
    if lacking := [name for label, name in enumerate(loader.dataset.classes) if seen and label not in seen]:
        say(f"      no images to validate: {some(lacking)}")
    if len(loader) == 1 and pictures > 1:
        size = -(-pictures // 4)
        say(
            f"      all {pictures} are one batch, so there is one update an epoch; --batch-size {size} makes "
            f"{-(-pictures // size)}"
        )
    usual = complete({**DEFAULTS, "recipe": settings.recipe, "data": settings.data})
    told = {"data", "device", "out", "source", *(set(MACHINE) - given)}  # elsewhere, or not chosen
    other = [f"{name} {value}" for name, value in vars(settings).items() if value != usual.get(name, value)]
    other = [text for text in other if text.partition(" ")[0] not in told]
    config = os.path.join(settings.out, "config.json")
    say(f"recipe {settings.recipe}{', but ' * bool(other)}{', '.join(other)}; all settings are in {config}")
    say(f"{settings.out} will take {disk_space(net, optimizer) / 1e6:,.0f} MB of the disk")


def disk_space(net: nn.Module, optimizer: Optimizer) -> int:
    """How many bytes a run takes: best.safetensors has the network, last.safetensors too, and the
    optimizer's state."""
    arrays = *net.state_dict().values(), *net.state_dict().values(), *optimizer.state_dict().values()
    return sum(array.nbytes for array in arrays)


def conclude(run: Run) -> None:
    """Say what has come of it, and what can be done with it."""
    if best := run.best:  # or it has been removed
        path, programs = run.folder / BEST, os.path.dirname(sys.argv[0])
        say(
            f"best: top-1 {best['val_top1']:.1f}% in epoch {best['epoch']}; see curves.png, and filters.png (noise at "
            "first)"
        )
        say(f"to measure it: python {os.path.join(programs, 'evaluate.py')} --checkpoint {path}")
        say(f"to ask it: python {os.path.join(programs, 'predict.py')} --checkpoint {path} PHOTO")


if __name__ == "__main__":
    sys.exit(command(lambda: train(*parse())))
