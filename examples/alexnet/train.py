"""Train AlexNet: python examples/alexnet/train.py [--data FOLDER] …, or with no arguments on synthetic pictures. See
--help."""

import sys
import time
from argparse import Namespace
from dataclasses import asdict
from typing import Any

import numpy as np
from evaluate import Score, evaluate
from model import INPUT_SIZE, alexnet
from options import UsageError, adopt, command, parse, progress_bar, use_machine
from pictures import View, datasets, training, validation
from runs import Run, load_run, restore

import minicnn
from minicnn import Tensor, nn
from minicnn import functional as F
from minicnn.backend import describe_device
from minicnn.data import DataLoader
from minicnn.optim import SGD, CosineLR


def train_epoch(
    net: nn.Module, loader: DataLoader, optimizer: SGD, schedule: CosineLR, epoch: int, settings: Namespace
) -> dict[str, float]:
    """One pass over the training pictures: its last learning rate, mean loss, top-1 in percent, images per second."""
    net.train()
    score, start = Score(), time.perf_counter()
    with progress_bar(total=len(loader.dataset), desc=f"epoch {epoch}/{settings.epochs}", unit=" images") as bar:
        for images, labels in loader:
            logits = net(Tensor(images))
            loss = F.cross_entropy(logits, Tensor(labels))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            lr = optimizer.lr
            schedule.step()

            score.add(loss, logits, labels)
            bar.set_postfix(loss=f"{score.sums[0] / score.seen:.3f}", refresh=False)
            bar.update(len(labels))
    result = score.result()
    seconds = time.perf_counter() - start
    return {
        "lr": lr, "train_loss": result["loss"], "train_top1": result["top1"], "images_per_s": score.seen / seconds,
    }  # fmt: skip


def train(settings: Namespace, given: set[str]) -> None:
    arrays, saved = load_run(settings.resume) if settings.resume else ({}, {})
    if saved:
        adopt(settings, given, saved["config"])
    use_machine(settings)
    minicnn.manual_seed(settings.seed)

    view = View.of(INPUT_SIZE[settings.variant], settings.init)
    pictures, val_pictures = datasets(settings.data, settings.seed, view.size, settings.verify)
    loader, val_loader = training(pictures, view, settings), validation(val_pictures, view, settings)
    classes = pictures.classes
    if saved and classes != saved["config"]["classes"]:
        raise UsageError(f"{settings.resume} knows the classes {saved['config']['classes']}, the data has {classes}")
    net = alexnet(settings.variant, len(classes), settings.init, settings.groups).to(settings.device)
    optimizer = SGD(net.parameters(), settings.lr, settings.momentum, settings.weight_decay)
    updates = settings.epochs * len(loader)
    schedule = CosineLR(optimizer, updates, int(settings.warmup * updates))
    if saved:
        restore(settings.resume, arrays, saved, {"model": net, "optimizer": optimizer, "schedule": schedule})
        if len(saved["rows"]) >= settings.epochs:
            print(
                f"{settings.resume} has its {settings.epochs} epochs: --epochs with a larger number goes on from there"
            )
            return
    introduce(settings, given, net, loader, val_loader)

    config = {name: value for name, value in vars(settings).items() if name != "resume"}
    config |= {"classes": classes, "view": asdict(view), "minicnn": minicnn.__version__}
    run = Run(settings.out, config, saved.get("rows", []))
    begun = time.perf_counter() - (run.rows[-1]["seconds"] if run.rows else 0)
    for epoch in range(len(run.rows) + 1, settings.epochs + 1):
        loader.set_epoch(epoch)
        result: dict[str, Any] = train_epoch(net, loader, optimizer, schedule, epoch, settings)
        result |= {f"val_{name}": value for name, value in evaluate(net, val_loader).items()}
        if not np.isfinite(result["train_loss"] + result["val_loss"]):
            raise UsageError(f"training diverged in epoch {epoch}: its loss is no number any more; lower --lr")
        run.log({"epoch": epoch, "step": optimizer.steps, **result, "seconds": time.perf_counter() - begun}, net)
        run.save(net, {"epoch": epoch}, {"optimizer": optimizer, "schedule": schedule})
        print(
            f"epoch {epoch}/{settings.epochs}  loss {result['train_loss']:.3f}  val loss {result['val_loss']:.3f}  "
            f"top-1 {result['val_top1']:.1f}%  top-5 {result['val_top5']:.1f}%  {result['images_per_s']:.1f} images/s"
        )
    print(f"{time.perf_counter() - begun:.0f} s; the run is in {settings.out}")


def introduce(settings: Namespace, given: set[str], net: nn.Module, loader: DataLoader, val_loader: DataLoader) -> None:
    """Say what is going to happen, and what nobody asked for."""
    parameters = sum(p.size for p in net.parameters())
    drawn = ": drawn textures, not photographs; --data takes a folder of yours" if settings.data == "synthetic" else ""
    if settings.device == "cpu":
        machine = f"cpu with {minicnn.get_num_threads()} threads"
    else:
        machine = f"{settings.device}, {describe_device(settings.device)}, with products in {settings.precision}"
    print(f"AlexNet {settings.variant}, {parameters:,} parameters, on {machine}")
    print(f"data: {settings.data}{drawn}")
    print(
        f"      {len(loader.dataset)} pictures to train on, {len(val_loader.dataset)} to validate, "
        f"{len(loader.dataset.classes)} classes"
    )
    defaults = {name: value for name, value in vars(settings).items() if name not in given and name != "resume"}
    print(
        ("as before: " if settings.resume else "default: ")
        + ", ".join(f"{name} {value}" for name, value in defaults.items() if value is not None)
    )


if __name__ == "__main__":
    sys.exit(command(lambda: train(*parse())))
