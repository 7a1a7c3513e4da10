"""Measure a trained network: python examples/alexnet/evaluate.py [--checkpoint FILE] [--data …]
[--crops 10]"""

import json
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable

import support.installed  # noqa: F401 (first)

# isort: split
import numpy as np
from support.confusion import FEW, draw, matrix_text, per_class, table_text
from support.drawing import require_matplotlib
from support.images import dataset, validation
from support.options import (
    Parser,
    UsageError,
    add_network,
    batch_of,
    command,
    complain,
    natural,
    output_file,
    progress_bar,
    say,
)
from support.report import MISTAKES, write_report
from support.runs import FIVE, begin, require_classes
from support.scores import Score

from minicnn import Tensor, nn, no_grad
from minicnn import functional as F
from minicnn.backends.devices import Array, to_device
from minicnn.checkpoint import CheckpointError, replacing
from minicnn.data import DataError, DataLoader
from minicnn.data.folder import some


def outputs(net: nn.Module, images: Array) -> Tensor:
    """The network's logits (N, K) for images (N, S, S, 3).

    For ten crops of each, (N, 10, S, S, 3), the mean of their ten softmax outputs counts (section
    4.1). Its logarithm is returned, which is as good as logits: softmax makes the mean of it again,
    and cross_entropy that mean's loss.
    """
    crops = images.reshape(-1, *images.shape[-3:])
    with batch_of(len(crops)):
        logits = net(Tensor(crops))  # (N·10, K)
    if images.ndim == 4:
        return logits
    log_p = F.log_softmax(logits).reshape(*images.shape[:2], logits.shape[1])  # (N, 10, K)
    # (N, 1, K), taken out so that not all ten become 0 in exp
    largest = log_p.max(axis=1, keepdims=True)
    # (N, K)
    return ((log_p - largest).exp().mean(axis=1, keepdims=True).log() + largest).reshape(len(images), logits.shape[1])


@no_grad()
def evaluate(
    net: nn.Module, loader: DataLoader, score: Score | None = None, check: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """The loss, and top1 and top5 in percent, of a network over a data set. The loader gives one
    crop of each image or ten. `score` does the counting, if it is to count more; check() is called
    after each batch."""
    training, score = net.training, score or Score()
    net.eval()
    for images, labels in progress_bar(loader, desc="validate", unit=" batches"):
        logits = outputs(net, images)
        score.add(F.cross_entropy(logits, Tensor(labels)), logits, labels, images)
        check()
    net.train(training)
    return score.result()


def in_words(result: dict[str, float], classes: int, digits: int = 1, prefix: str = "", between: str = "  ") -> str:
    """The percentage of images whose best answer is right and, with more than five classes, of
    those that have the right class among the five best."""
    shown = ["top1", "top5"] if classes > FIVE else ["top1"]
    return between.join(f"top-{name[3:]} {result[prefix + name]:.{digits}f}%" for name in shown)


def require_number(value: float, checkpoint: str) -> None:
    """Raise a CheckpointError if a network's output is NaN or infinite."""
    if not np.isfinite(value):
        raise CheckpointError(f"{checkpoint}: the network's outputs are NaN or infinite; its training has diverged")


# ------------------------------------------------------------------------------------- command line
DESCRIPTION = """\
Measure a network of train.py or convert.py: its loss, how many of its answers
are right, and which classes it confuses with which."""
EXAMPLES = """\
The program prints its results, and writes a file only with --draw, --report or
--json.

examples:
  evaluate.py
  evaluate.py --checkpoint runs/photos/best.safetensors --crops 10
  evaluate.py --data other_photos --draw matrix.png --json report.json"""


def command_line() -> Parser:
    parser = Parser(
        prog="evaluate.py", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=RawDescriptionHelpFormatter
    )
    add_network(parser)
    parser.add_argument(
        "--data",
        metavar="WHAT",
        help="the images: synthetic, cifar10:DIR, imagenet:DIR, or a folder with train/ and val/, or one of them, "
        "in which the images of each class are in a folder with its name; classes may be missing (default: the data "
        "that the network was trained on)",
    )
    parser.add_argument(
        "--split", choices=("train", "val"), default="val", help="measure on this part of the images (default: val)"
    )
    parser.add_argument(
        "--worst", type=natural, default=FEW, metavar="N",
        help=f"if there are more than N classes, the table lists the N with the lowest recall (default: {FEW})",
    )  # fmt: skip
    parser.add_argument("--draw", type=output_file(".png"), metavar="FILE.png", help="also draw the confusion matrix")
    parser.add_argument(
        "--report", type=output_file(".html"), metavar="FILE.html",
        help="also write a page with the results, the filters, and images of the mistakes of which the network was "
        "most sure",
    )  # fmt: skip
    parser.add_argument(
        "--json", type=output_file(""), metavar="FILE", help="write all results as JSON; - is the standard output"
    )
    return parser


def main() -> None:
    settings, net, config, view = begin(command_line())
    classes, names = config["classes"], config["names"]
    if settings.report:
        require_matplotlib()
    given, what = settings.data, settings.data or config.get("data")
    settings.data = what
    if what is None:
        raise UsageError(f"{settings.checkpoint} does not say what it was trained on: give --data to measure it on")
    try:
        seed, verify = config.get("seed", 0), config.get("verify", True)
        images = dataset(what, settings.split, seed, view.size, verify, view.resize, classes)
    except (UsageError, DataError) as error:
        if given:
            raise
        raise UsageError(f"{error} ({settings.checkpoint} was trained on it: if it has moved, give --data)") from None
    require_classes(settings.checkpoint, classes, what, images.classes)
    score = Score(len(classes), mistakes=MISTAKES if settings.report else 0)
    result = evaluate(net, validation(images, view, settings, settings.crops), score)
    require_number(result["loss"], settings.checkpoint)
    if lacking := [names[k] for k in np.flatnonzero(score.confusion.sum(axis=1) == 0)]:
        complain(
            f"{what} ({settings.split}) has no images of {len(lacking)} of {len(classes)} classes: {some(lacking)}"
        )

    table = per_class(score.confusion, classes, names)
    report = {"settings": vars(settings), "config": config, "images": score.seen, **result}
    text = json.dumps({**report, "classes": table, "confusion": score.confusion.tolist()})
    if settings.json == "-":
        print(text)
    else:
        of = "" if settings.crops == 1 else " (of the mean probabilities of ten crops)"
        say(
            f"{score.seen} images of {what} ({settings.split}): "
            f"loss {result['loss']:.4f}{of}, {in_words(result, len(classes), digits=2, between=', ')}"
        )
        print("\n" + table_text(table, settings.worst))
        if len(names) <= FEW:
            print("\n" + matrix_text(score.confusion, names))
        if settings.json:
            with replacing(settings.json) as path:
                path.write_text(text + "\n")
            say(f"wrote {settings.json}")
    if settings.draw:
        with replacing(settings.draw) as path:
            draw(path, score.confusion, names)
        if settings.json != "-":
            say(f"wrote {settings.draw}")
    if settings.report:
        row = {f"val_{name}": value for name, value in result.items()}
        kernels = to_device(net.conv1.conv.weight.data, "cpu")
        with replacing(settings.report) as path:
            write_report(path, {**config, "data": what}, [row], kernels, score, view)
        if settings.json != "-":
            say(f"wrote {settings.report}")


if __name__ == "__main__":
    sys.exit(command(main))
