"""Measure a trained network: python examples/alexnet/evaluate.py [--checkpoint FILE] [--data …]"""

import sys
import time

import numpy as np
from options import Parser, add_checkpoint, add_machine, command, natural, progress_bar, use_machine
from pictures import datasets, validation
from runs import load_network

from minicnn import Tensor, nn, no_grad
from minicnn import functional as F
from minicnn.backend import Array, on_device_of, to_device
from minicnn.checkpoint import CheckpointError
from minicnn.data import DataLoader

MOST_KEPT, OFTEN = 50, 0.5  # batches and seconds between counts


def top_k(logits: Array, labels: Array, k: int) -> Array:
    """How many of the labels (N,) are among the k largest of their logits (N, K): an array of one number, on their
    device.

    Of a label that ties with others for the last places, the part that counts is its chance if lots were drawn. So a
    network that gives each of 10 classes the same logit has 10% right: not all, nor what the order of the classes
    would make of it. Logits that are no numbers are wrong.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)  # (N, 1)
    tied = (logits == own).sum(axis=1)  # (N,), 1 or more, for a logit equals itself; 0 if it is no number
    larger = logits.shape[1] - (logits <= own).sum(axis=1)
    return np.clip((k - larger) / np.maximum(tied, 1), 0, 1).sum()


class Score:
    """The mean loss of an epoch's pictures, and how many per cent of their labels are the best answer or among the five
    best.

    What a batch gives stays where it was computed, and is counted once in a while: for that the program has to wait
    for a GPU, and the GPU then for the program.
    """

    def __init__(self) -> None:
        self.kept: list[tuple[Array, Array, Array]] = []  # loss, logits and labels of each batch that is not counted
        self.counted = time.perf_counter()
        self.sums, self.seen = np.zeros(3), 0  # of loss, top-1 and top-5; over so many pictures

    def add(self, loss: Tensor, logits: Tensor, labels: Array) -> None:
        """A batch, with its mean loss. The first is counted at once."""
        self.kept.append((loss.data, logits.data, labels))
        if not self.seen or len(self.kept) == MOST_KEPT or time.perf_counter() - self.counted > OFTEN:
            self.count()

    def count(self) -> None:
        """Fetch what was kept."""
        if self.kept:
            losses, logits, labels = zip(*self.kept, strict=True)
            with on_device_of(losses[0]):
                means = to_device(np.stack(losses), "cpu")
                best = [top_k(np.concatenate(logits), np.concatenate(labels), k) for k in (1, 5)]
                self.sums[1:] += to_device(np.stack(best), "cpu")
            for n, mean in zip(map(len, labels), means.tolist(), strict=True):
                self.sums[0] += n * mean
                self.seen += n
        self.kept, self.counted = [], time.perf_counter()

    def result(self) -> dict[str, float]:
        """loss, top1 and top5 of all pictures so far."""
        self.count()
        loss, top1, top5 = (self.sums * (1, 100, 100) / self.seen).tolist()
        return {"loss": loss, "top1": top1, "top5": top5}


@no_grad()
def evaluate(net: nn.Module, loader: DataLoader) -> dict[str, float]:
    """loss, and top1 and top5 in percent, of a network over a data set."""
    training, score = net.training, Score()
    net.eval()
    for images, labels in progress_bar(loader, desc="validate", unit=" batches"):
        logits = net(Tensor(images))
        score.add(F.cross_entropy(logits, Tensor(labels)), logits, labels)
    net.train(training)
    return score.result()


def main() -> None:
    parser = Parser(prog="evaluate.py", description="Measure a network that train.py has trained.")
    add_checkpoint(parser)
    parser.add_argument(
        "--data",
        metavar="WHAT",
        help="synthetic, cifar10:DIR or a folder with train/ and val/ (default: what it was trained with)",
    )
    parser.add_argument("--batch-size", type=natural, default=32, metavar="N", help="(default: 32)")
    add_machine(parser)
    settings = parser.parse_args()
    use_machine(settings)
    net, config, view = load_network(settings.checkpoint, settings.device)
    what = settings.data = settings.data or config["data"]
    train, val = datasets(what, config["seed"], view.size, config["verify"])
    if train.classes != config["classes"]:
        raise CheckpointError(
            f"{settings.checkpoint} knows the classes {config['classes']}, but {what} has {train.classes}"
        )
    result = evaluate(net, validation(val, view, settings))
    print(
        f"{len(val)} pictures of {what}: "
        f"loss {result['loss']:.4f}, top-1 {result['top1']:.2f}%, top-5 {result['top5']:.2f}%"
    )


if __name__ == "__main__":
    sys.exit(command(main))
