"""Train AlexNet: python examples/alexnet/train.py [--recipe NAME] [--data FOLDER] …, or with no
arguments on synthetic images. See --help. This file is to be read from top to bottom: settings,
data, network, optimizer, and the loop."""

import sys
from argparse import Namespace
from contextlib import nullcontext
from typing import Any

import support.installed  # noqa: F401 (first)

# isort: split
from evaluate import evaluate, in_words
from model import INPUT_SIZE, alexnet
from support.bad_files import BadFiles
from support.diagnosis import divergence
from support.folders import Claim, claimed
from support.images import View, datasets, pixel_statistics, training, validation
from support.options import batch_of, command, connected, say, use_machine
from support.parallel import WAYS, Alone
from support.progress import batches
from support.recording import Run
from support.report import MISTAKES
from support.scores import Score
from support.settings import parse
from support.start import Start, begin, freeze, introduce, observers, training_mode

import minicnn
from minicnn import Captured, Tensor, detect_anomaly, nn
from minicnn import functional as F
from minicnn.optim import SGD, CosineLR, ReduceLROnPlateau, Schedule, StepLR
from minicnn.workers import Workers


def main() -> None:
    workers = connected()  # the processes that mpiexec has started, or this one alone
    settings, given = parse()  # all options, and the names of those that were given
    # with nothing, with a run that continues (--resume), or with other weights (--from)
    start = begin(settings, given)
    if start is None:  # the run has all its epochs
        return
    use_machine(settings, workers)
    anomalies = detect_anomaly() if settings.detect_anomaly else nullcontext()
    with claimed(settings, "out" not in given, workers) as claim, anomalies:
        # settings.out is this run's folder
        train(settings, given, start, workers, claim)


def train(settings: Namespace, given: set[str], start: Start, workers: Workers, claim: Claim) -> None:
    minicnn.manual_seed(settings.seed)
    # how several processes divide the work
    way = WAYS[settings.parallel](workers) if workers.size > 1 else Alone(workers)

    # Data: images of classes, and how the network sees them.
    size = INPUT_SIZE[settings.variant]
    dataset, val_dataset = datasets(settings.data, settings.seed, size, settings.verify, settings.resize, start.classes)
    start.require_classes(settings.data, dataset.classes)
    bad = BadFiles(settings.max_bad, len(dataset), start.saved.get("bad_files"))
    options = {"part": way.rows.part, **bad.options}
    statistics = pixel_statistics(dataset, settings, start.statistics, workers, **bad.options)
    view = View.of(size, settings, statistics, start.view)
    loader = training(dataset, view, settings, statistics, **options)
    val_loader = validation(val_dataset, view, settings, **options)

    # Network, optimizer and schedule: new ones, unless there is something to start with.
    lrn = start.lrn(settings)
    net = network(settings, len(dataset.classes), lrn)
    start.give_weights(net, dataset.classes)
    net = way.divide(net)
    if settings.freeze:
        freeze(net)
    optimizer = sgd(net, settings)
    schedule = schedule_for(optimizer, settings, settings.epochs * len(loader))
    plateau = schedule if isinstance(schedule, ReduceLROnPlateau) else None
    way.begin(net)
    start.restore(way, net, optimizer, schedule, settings, given, loader)
    introduce(settings, given, start, way, net, optimizer, loader, val_loader)

    known = {"classes": dataset.classes, "names": start.names(dataset), "lrn": lrn, "ranks": workers.size}
    known["minicnn"] = minicnn.__version__
    run = Run(  # which writes the folder
        settings, known, view, start.saved, claim, statistics=statistics, bad=bad, workers=workers,
        observers=observers(settings, way, net, optimizer, len(dataset.classes), settings.epochs * len(loader)),
        explain=lambda images, labels, ago: divergence(net, images, labels, optimizer.steps - ago, way.alone),
        parts=lambda: {"model": way.whole(net), "optimizer": way.whole(optimizer), "schedule": schedule},
    )  # fmt: skip

    def passes(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch's passes forward and backward: the loss, and the logits (N, classes)."""
        net.zero_grad()
        logits = net(images)
        loss = F.cross_entropy(logits, labels)
        step.backward(loss)  # and, of several processes, sum the gradients
        return loss, logits

    if settings.capture:
        passes = Captured(passes, net)
    for epoch in range(len(run.rows) + 1, settings.epochs + 1):
        title = f"epoch {epoch}/{settings.epochs}"

        # Train: one update for each batch of images (N, S, S, 3) with labels (N,).
        score = Score(workers=way.rows, strict=True)
        run.begin_epoch(loader, score)  # in another order and with other crops than the one before
        training_mode(net)
        for images, labels in batches(loader, title, score, run):
            with batch_of(len(labels)), way.step(len(labels)) as step:
                loss, logits = passes(Tensor(images), Tensor(labels))
                score.add(loss, logits, labels)
            way.update(optimizer)
            score.lr = optimizer.lr
            if not plateau:
                schedule.step()
        result: dict[str, Any] = {"lr": score.lr, **score.trained()}

        # Validate.
        validated = Score(len(dataset.classes), way.rows, MISTAKES)
        result |= {f"val_{name}": value for name, value in evaluate(net, val_loader, validated, run.check).items()}
        if plateau:
            plateau.step(100 - result["val_top1"])

        # Save the tables and images, the network if it is the best so far, and all that it takes to
        # continue.
        run.keep({"epoch": epoch, "step": optimizer.steps, **result, "seconds": run.seconds}, validated)
        say(
            f"{title}  loss {result['train_loss']:.3f}  val loss {result['val_loss']:.3f}  "
            f"{in_words(result, len(dataset.classes), prefix='val_')}  {result['images_per_s']:.1f} images/s"
        )

    if settings.ten_crop:  # once, at the end: it takes ten times as long
        ten_crops = validation(val_dataset, view, settings, crops=10, **options)
        result = evaluate(net, ten_crops, Score(workers=way.rows), run.check)
        run.keep_ten_crops(result)
        say(f"ten crops of each image: {in_words(result, len(dataset.classes))}")
    run.conclude()
    say(f"{run.seconds:.0f} s; the run is in {settings.out}")


def network(settings: Namespace, classes: int, lrn: dict[str, Any]) -> nn.Sequential:
    """The network of --variant, --groups, --init, --dropout and --dropout-scale; lrn has the
    constants of local response normalization."""
    net = alexnet(
        settings.variant, classes, settings.init, settings.groups, lrn,
        dropout=settings.dropout, dropout_scale=settings.dropout_scale,
    )  # fmt: skip
    return net.to(settings.device)


def sgd(net: nn.Module, settings: Namespace) -> SGD:
    """The optimizer of --lr, --head-lr, --momentum, --weight-decay and --update, for the parameters
    that are not frozen."""
    learned: list[Any] = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if settings.head_lr is not None:  # the last layer has a rate of its own
        *_, last = net.children()
        head = list(last.parameters())
        rest = [parameter for parameter in learned if parameter not in set(head)]
        learned = [{"params": rest}, {"params": head, "lr": settings.head_lr}]
    paper = settings.update == "paper"
    return SGD(learned, settings.lr, settings.momentum, weight_decay=settings.weight_decay, paper_update=paper)


def schedule_for(optimizer: SGD, settings: Namespace, updates: int) -> Schedule:
    """The schedule of --schedule, for a training of this many updates. The step() of a plateau
    takes the validation error of each epoch; that of the others is called after each update."""
    if settings.schedule == "plateau":  # the paper's rate was divided by ten three times
        return ReduceLROnPlateau(optimizer, patience=settings.patience, min_lr=settings.lr / 1000)
    if settings.schedule == "constant":
        return StepLR(optimizer, 1, gamma=1.0)
    return CosineLR(optimizer, updates, warmup_steps=int(settings.warmup * updates))


if __name__ == "__main__":
    sys.exit(command(main, several=True))
