"""Measure a trained network: python examples/alexnet/evaluate.py [--checkpoint FILE] [--data …]"""

import sys
from typing import Any

import numpy as np
from options import Parser, add_checkpoint, add_machine, command, natural, progress_bar
from pictures import datasets, validation
from runs import load_network

import minicnn
from minicnn import Tensor, nn, no_grad
from minicnn import functional as F
from minicnn.checkpoint import CheckpointError
from minicnn.data import DataLoader


def top_k(logits: Any, labels: Any, k: int) -> int:
    """How many of the labels (N,) are among the k largest of their logits (N, K)."""
    best = np.argpartition(-logits, min(k, logits.shape[1]) - 1, axis=1)[:, :k]  # (N, k)
    return int((best == labels[:, None]).sum())


@no_grad()
def evaluate(net: nn.Module, loader: DataLoader, device: str = "cpu") -> dict[str, float]:
    """loss, and top1 and top5 in percent, of a network over a data set."""
    training = net.training
    net.eval()
    loss, top1, top5, n = 0.0, 0, 0, 0
    for images, labels in progress_bar(loader, desc="validate", unit=" batches"):
        logits = net(Tensor(images, device=device))
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        top1 += top_k(logits.numpy(), labels, 1)
        top5 += top_k(logits.numpy(), labels, 5)
        n += len(labels)
    net.train(training)
    return {"loss": loss / n, "top1": 100 * top1 / n, "top5": 100 * top5 / n}


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
    if settings.threads:
        minicnn.set_num_threads(settings.threads)
    device = settings.device or "cpu"
    net, config, view = load_network(settings.checkpoint, device)
    what = settings.data or config["data"]
    train, val = datasets(what, config["seed"], view.size, config["verify"])
    if train.classes != config["classes"]:
        raise CheckpointError(
            f"{settings.checkpoint} knows the classes {config['classes']}, but {what} has {train.classes}"
        )
    result = evaluate(net, validation(what, val, view, settings.batch_size, 1), device)
    print(
        f"{len(val)} pictures of {what}: "
        f"loss {result['loss']:.4f}, top-1 {result['top1']:.2f}%, top-5 {result['top5']:.2f}%"
    )


if __name__ == "__main__":
    sys.exit(command(main))
