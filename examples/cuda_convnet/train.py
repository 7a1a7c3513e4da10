"""Train one of the two small networks for CIFAR-10 that come with cuda-convnet, the program with
which AlexNet was trained: python examples/cuda_convnet/train.py --data DIR [--network 18pct]

    network    its author's test error and time    layers
    80sec      26%, 80 seconds on a GTX 580        three convolutions of 5 × 5, two linear layers
    18pct      18%, 20 minutes                     three convolutions of 5 × 5 with normalization,
                                                   one linear layer

Every constant is from the folder example-layers of cuda-convnet (Krizhevsky 2011, 2012): the layers
are in layers-80sec.cfg and layers-18pct.cfg, their learning rates and decays in
layer-params-80sec.cfg and layer-params-18pct.cfg. As there, the network sees whole images of 32 ×
32 pixels, neither cropped nor mirrored, on the scale of 0 to 255 less the mean image of the
training set. One thing differs: here the images come in another order in each epoch.
"""

import os
import sys
from argparse import SUPPRESS, BooleanOptionalAction, Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

# whose options and run folders are used here
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "alexnet"))
import support.installed  # noqa: F401 (first)

# isort: split
import numpy as np
from evaluate import evaluate
from support.folders import Claim, claimed
from support.images import RAW, View
from support.options import Parser, UsageError, add_machine, batch_of, command, natural, say, seed, use_machine
from support.progress import batches
from support.recording import Run
from support.report import MISTAKES
from support.runs import (
    Checkpoint,
    begun_epoch,
    finished,
    has,
    load_run,
    part_of,
    read_checkpoint,
    require_classes,
    require_sound,
    restore,
)
from support.scores import Score
from support.settings import CIFAR10_FILES, NO_VERIFY, adopt

import minicnn
from minicnn import Captured, Tensor, nn
from minicnn import functional as F
from minicnn.checkpoint import CheckpointError
from minicnn.data import CIFAR10, DataLoader
from minicnn.nn import init
from minicnn.optim import SGD

EPOCHS = {"80sec": 10, "18pct": 140}
# after each of these epochs, all rates fall to a tenth
SLOWER = {"80sec": (8,), "18pct": (120, 130)}
RATES = {"conv": 0.001, "fc": 0.001, "bias": 0.002}
DECAYS = {"80sec": {"conv": 0.004, "fc": 0.03, "bias": 0.0}, "18pct": {"conv": 0.004, "fc": 1.0, "bias": 0.0}}
BATCH = 128
DEFAULTS: dict[str, Any] = {
    "network": "80sec", "data": None, "verify": True, "epochs": None, "seed": 0,
    "device": "cpu", "backend": None, "threads": None, "precision": None, "capture": False, "out": None, "resume": None,
}  # fmt: skip


class MapResponseNorm(nn.Module):
    """x / (1 + α · mean of x²)^β over 3 × 3 pixels of one channel, zeros around them:
    cuda-convnet's rnorm. (What the paper calls local response normalization is over neighboring
    channels of one pixel: cuda-convnet's cmrnorm, nn.LocalResponseNorm.)"""

    def forward(self, x: Tensor) -> Tensor:
        root = (1 + 5e-5 * F.avg_pool2d(x * x, 3, stride=1, padding=1)).sqrt()
        return x / (root * root.sqrt())  # β = 3/4


def network(name: str) -> nn.Sequential:
    """Images (N, 32, 32, 3) to logits (N, 10). Pooling windows may overhang the border, and see
    less there: 32 pixels become 16, 8 and 4."""
    plain = name == "80sec"

    def conv(inputs: int, outputs: int, std: float) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, 5, padding=2, weight_init=init.normal(std))

    def fc(inputs: int, outputs: int, std: float) -> nn.Linear:
        return nn.Linear(inputs, outputs, weight_init=init.normal(std))

    def average() -> nn.AvgPool2d:
        return nn.AvgPool2d(3, stride=2, ceil_mode=True)

    def norm() -> dict[str, nn.Module]:
        return {} if plain else {"norm": MapResponseNorm()}

    largest = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    layers: dict[str, nn.Module] = {
        # -> 16 × 16 × 32
        "conv1": nn.Sequential(conv=conv(3, 32, 0.0001), pool=largest, relu=nn.ReLU(), **norm()),
        # -> 8 × 8 × 32
        "conv2": nn.Sequential(conv=conv(32, 32, 0.01), relu=nn.ReLU(), pool=average(), **norm()),
        # -> 4 × 4 × 64
        "conv3": nn.Sequential(conv=conv(32, 64, 0.01), relu=nn.ReLU(), pool=average()),
        # -> 1024
        "flatten": nn.Flatten(),
    }
    if plain:
        layers["fc64"] = nn.Sequential(fc=fc(1024, 64, 0.1), relu=nn.ReLU())
        layers["fc10"] = fc(64, 10, 0.1)
    else:
        layers["fc10"] = fc(1024, 10, 0.01)
    return nn.Sequential(**layers)


def sgd(net: nn.Module, name: str) -> SGD:
    """Three groups, of the kernels, the linear layers' weights and the biases, each with its own
    rate and decay, in the order of RATES."""
    kinds = {4: "conv", 2: "fc", 1: "bias"}
    groups: dict[str, list[Tensor]] = {kind: [] for kind in RATES}
    for parameter in net.parameters():
        groups[kinds[parameter.ndim]].append(parameter)
    decays = DECAYS[name]
    return SGD(
        [{"params": group, "lr": RATES[kind], "weight_decay": decays[kind]} for kind, group in groups.items()],
        lr=RATES["conv"], momentum=0.9, paper_update=True,
    )  # fmt: skip


def with_one_optimizer(arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a checkpoint in today's form; an older one has an optimizer for each kind of
    parameter."""
    if "conv.lr" not in arrays:
        return arrays
    old = [part_of(arrays, kind) for kind in RATES]
    # less lr and steps
    velocities = [state[f"velocity.{i}"] for state in old for i in range(len(state) - 2)]
    new = {f"optimizer.velocity.{i}": velocity for i, velocity in enumerate(velocities)}
    rates = np.array([float(state["lr"]) for state in old])
    return {**arrays, **new, "optimizer.lr": rates, "optimizer.steps": old[0]["steps"]}


def slowdown(name: str, epoch: int, epochs: int) -> float:
    """The factor by which the learning rates of an epoch, from 1, are lower than at first: the
    author's schedule, shrunk or stretched to this many epochs."""
    return 0.1 ** sum(epoch > epochs * after / EPOCHS[name] for after in SLOWER[name])


def load(path: str) -> Checkpoint:
    """(arrays, info) of a run. Raises a CheckpointError if the file is not one, or damaged."""
    arrays, info = read_checkpoint(path)
    config = info.get("config")
    needed = DEFAULTS.keys() - {"resume", "backend", "capture"} | {"classes"}
    if not has(config, *needed) or config["network"] not in EPOCHS or not isinstance(info.get("rows"), list):
        raise CheckpointError(f"{path} is not a last.safetensors of cuda_convnet/train.py")
    require_sound(path, info)
    return arrays, info


def train(settings: Namespace, arrays: dict[str, Any], saved: dict[str, Any], claim: Claim) -> None:
    """Train a network; arrays and saved, if not empty, are the checkpoint to go on from."""
    minicnn.manual_seed(settings.seed)
    dataset, test_dataset = (CIFAR10(settings.data, part, verify=settings.verify) for part in (True, False))
    if saved:
        require_classes(settings.resume, saved["config"]["classes"], settings.data, dataset.classes)
    mean_image = arrays.get("view.mean_image")
    if mean_image is None:
        mean_image = dataset.images.mean(axis=0, dtype=np.float64).astype(np.float32)
    view = View(32, (0.0, 0.0, 0.0), RAW, mean_image, resize=32)
    try:
        transform = view.evaluation()
    except ValueError as error:
        raise CheckpointError(f"{settings.resume} is damaged: {error}") from None
    machine: dict[str, Any] = {"num_workers": settings.workers, "device": settings.device}
    loader = DataLoader(dataset, BATCH, transform=transform, shuffle=True, seed=settings.seed, **machine)
    test_loader = DataLoader(test_dataset, BATCH, transform=transform, **machine)
    net = network(settings.network).to(settings.device)
    optimizer = sgd(net, settings.network)
    if saved:
        restore(settings.resume, with_one_optimizer(arrays), saved, {"model": net, "optimizer": optimizer})
        begun_epoch(settings.resume, saved, loader)
    more = {"classes": dataset.classes, "minicnn": minicnn.__version__}
    run = Run(settings, more, view, saved, claim, lambda: {"model": net, "optimizer": optimizer})

    def passes(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and the logits (N, 10) of a batch; the gradients are left in the parameters."""
        net.zero_grad()
        logits = net(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        return loss, logits

    if settings.capture:
        passes = Captured(passes, net)
    for epoch in range(len(run.rows) + 1, settings.epochs + 1):
        for group, rate in zip(optimizer.param_groups, RATES.values(), strict=True):
            group["lr"] = rate * slowdown(settings.network, epoch, settings.epochs)
        title = f"epoch {epoch}/{settings.epochs}"

        score = Score(strict=True)
        run.begin_epoch(loader, score)
        net.train()
        for images, labels in batches(loader, title, score, run):
            with batch_of(len(labels)):
                loss, logits = passes(Tensor(images), Tensor(labels))
                score.add(loss, logits, labels)
                optimizer.step()

        row: dict[str, Any] = {"lr": optimizer.lr, **score.trained(), "epoch": epoch, "step": optimizer.steps}
        validated = Score(len(dataset.classes), mistakes=MISTAKES)
        row |= {f"val_{name}": value for name, value in evaluate(net, test_loader, validated, run.check).items()}
        row["seconds"] = run.seconds
        run.keep(row, validated)
        say(
            f"{title}  training error {100 - row['train_top1']:.2f}%  "
            f"test error {100 - row['val_top1']:.2f}%  {row['seconds'] / 60:.1f} minutes  "
            f"{row['images_per_s']:.0f} images/s"
        )
    claim.aside.wait()
    say(f"the run is in {settings.out}")


EXAMPLES = """\
A run writes into its folder what examples/alexnet/train.py does: config.json,
metrics.csv, curves.png, filters.png, report.html, best.safetensors, last.safetensors
and previous.safetensors, about 4 MB.

examples:
  cuda_convnet/train.py --data cifar-10-batches-bin
  cuda_convnet/train.py --data cifar-10-batches-bin --network 18pct --epochs 92
  cuda_convnet/train.py --resume runs/cifar-18pct/last.safetensors"""


def main() -> None:
    parser = Parser(
        prog="cuda_convnet/train.py", description=__doc__, epilog=EXAMPLES, allow_abbrev=False,
        argument_default=SUPPRESS, formatter_class=RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--data", metavar="DIR", help=f"the folder of {CIFAR10_FILES}")
    parser.add_argument("--no-verify", dest="verify", action="store_false", help=NO_VERIFY)
    parser.add_argument(
        "--network",
        choices=EPOCHS,
        help="80sec (default) reaches 26%% test error; 18pct reaches 18%%, in much longer time",
    )
    parser.add_argument(
        "--epochs", type=natural, metavar="N", help="training goes over the images N times (default: 10; 18pct: 140)"
    )
    parser.add_argument(
        "--seed", type=seed, metavar="N", help="N decides the initial weights and the order of the images (default: 0)"
    )
    add_machine(parser)
    parser.add_argument(
        "--capture", action=BooleanOptionalAction,
        help="with --device gpu: ask for all launches of a step at once, as a CUDA graph",
    )  # fmt: skip
    parser.add_argument("--out", metavar="FOLDER", help="the run's folder (default: runs/cifar-NETWORK)")
    parser.add_argument(
        "--resume", metavar="FILE", help="continue the run of a last.safetensors, in its folder and with its settings"
    )
    given = vars(parser.parse_args())
    settings = Namespace(**{**DEFAULTS, **given})
    arrays, saved = load_run(settings.resume, load) if settings.resume else ({}, {})
    if settings.resume:
        adopt(settings, set(given), saved["config"], fixed=("network", "seed"))
        if finished(settings.resume, saved["rows"], settings.epochs):
            return
    if settings.data is None:
        raise UsageError("--data DIR is needed: the folder of CIFAR-10's binary files")
    settings.data = os.path.abspath(settings.data)
    settings.epochs = settings.epochs or EPOCHS[settings.network]
    settings.out = settings.out or f"runs/cifar-{settings.network}"
    use_machine(settings)
    with claimed(settings) as claim:
        train(settings, arrays, saved, claim)


if __name__ == "__main__":
    sys.exit(command(main))
