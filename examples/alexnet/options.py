"""The command line of train.py: its options, their defaults, and how a user's mistake ends in one line."""

import argparse
import io
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from model import VARIANTS

import minicnn
from minicnn.backend import has_tf32, open_device
from minicnn.checkpoint import CheckpointError
from minicnn.data import DataError

DEFAULTS: dict[str, Any] = {
    "data": "synthetic", "verify": True, "workers": None,
    "variant": "2012", "groups": True, "init": "he",
    "epochs": None, "batch_size": None, "lr": None, "momentum": 0.9, "weight_decay": 5e-4, "warmup": 0.1, "seed": 0,
    "threads": None, "device": "cpu", "precision": None, "out": "runs/alexnet",
}  # fmt: skip
BY_DATA = {  # epochs, batch size and learning rate
    "synthetic": (4, 16, 0.004), "cifar10": (20, 64, 0.01), "folder": (30, 32, 0.01),
}  # fmt: skip
MODEL = ("variant", "groups", "init")  # what a checkpoint fixes
MACHINE = ("workers", "threads", "precision")  # what another device wants otherwise
MOST_WORKERS = 16  # beyond, threads queue for the interpreter


class UsageError(ValueError):
    """A mistake on the command line that argparse does not see."""


def command(main: Callable[[], None]) -> int:
    """Run a program; a user's mistake is one line on the standard error and exit status 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # where it is not Unicode, a bar is drawn with question marks
    try:
        main()
        return 0
    except (UsageError, CheckpointError, DataError, minicnn.DeviceError, ImportError, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            error = UsageError(f"{error.filename} cannot be read or written: {error.strerror}")
        print(f"{os.path.basename(sys.argv[0])}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaint is one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (--help explains the options)")


def number(kind: type, least: float, most: float, what: str) -> Callable[[str], Any]:
    """An argparse type: a number in a range."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return parse


natural = number(int, 1, 2**31, "a whole number of at least 1")
counted = number(int, 0, 2**31, "a whole number of at least 0")
seed = number(int, 0, 2**63 - 1, "a whole number from 0 to 2**63 - 1")
positive = number(float, 0, 1e30, "a number of at least 0")
share = number(float, 0, 0.99, "a share from 0 to 0.99")


def progress_bar(*args: Any, **options: Any) -> Any:
    """A tqdm bar that goes when it is done, and is not there at all where no terminal is."""
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError("the progress bar needs tqdm: pip install 'minicnn[examples]'") from None
    return tqdm(*args, leave=False, disable=None, **options)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        default="runs/alexnet/best.safetensors",
        metavar="FILE",
        help="a best.safetensors or last.safetensors of a run (default: runs/alexnet/best.safetensors)",
    )


def add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument("--device", metavar="NAME", help="cpu, gpu, or gpu:N (default: cpu)")
    group.add_argument(
        "--threads", type=natural, metavar="N", help="threads to compute with on a CPU (default: one for each core)"
    )
    group.add_argument(
        "--precision",
        choices=("fp32", "tf32"),
        help="how a GPU multiplies matrices: tf32 (default, where the card has it) rounds the factors to 10 bits, "
        "fp32 does not and is slower",
    )


def use_machine(settings: argparse.Namespace) -> None:
    """Open the device, and settle what depends on it. Raises DeviceError if it is not there, UsageError if it lacks
    what was asked for."""
    settings.device = open_device("cpu" if settings.device is None else settings.device)
    if settings.threads:
        minicnn.set_num_threads(settings.threads)
    gpu = settings.device != "cpu"
    tf32 = gpu and has_tf32(settings.device)
    if settings.precision is None:
        settings.precision = "tf32" if tf32 else "fp32"
    elif settings.precision == "tf32" and not tf32:
        raise UsageError(f"--precision tf32: NVIDIA cards since 2020 (Ampere) have it, {settings.device} does not")
    minicnn.set_matmul_precision(settings.precision)
    if getattr(settings, "workers", None) is None:
        settings.workers = min(minicnn.get_num_threads(), MOST_WORKERS) if gpu else 1


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, set[str]]:
    """(settings, the names of those that were given)."""
    parser = Parser(
        prog="train.py",
        description="Train AlexNet. With no arguments: the network of Krizhevsky, Sutskever and Hinton 2012, "
        "on synthetic pictures.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", metavar="WHAT",
        help="synthetic (default): ten classes of drawn textures; cifar10:DIR: CIFAR-10's binary files; "
        "or a FOLDER with train/ and val/, each with one folder of pictures per class",
    )  # fmt: skip
    data.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="take CIFAR-10 files that are not the official ones, byte for byte",
    )
    data.add_argument(
        "--workers", type=counted, metavar="N",
        help="threads that load pictures (default: 1; for a GPU, one for each core)",
    )  # fmt: skip

    network = parser.add_argument_group("network")
    network.add_argument(
        "--variant",
        choices=VARIANTS,
        help="2012: the paper's; 2014: the later one-tower network; tutorial: as textbooks print it",
    )
    network.add_argument(
        "--no-groups", dest="groups", action="store_false", help="2012 without the split over two GPUs"
    )
    network.add_argument(
        "--init",
        choices=("he", "paper"),
        help="he (default), for inputs of unit variance; paper: N(0, 0.01), for 0 to 255 less the mean",
    )

    training = parser.add_argument_group("training")
    training.add_argument(
        "--epochs",
        type=natural,
        metavar="N",
        help="passes over the data (default: synthetic 4, cifar10 20, a folder 30)",
    )
    training.add_argument(
        "--batch-size",
        type=natural,
        metavar="N",
        help="pictures per update (default: synthetic 16, cifar10 64, a folder 32)",
    )
    training.add_argument(
        "--lr", type=positive, metavar="RATE", help="highest learning rate (default: synthetic 0.004, others 0.01)"
    )
    training.add_argument("--momentum", type=positive, metavar="M", help="(default: 0.9)")
    training.add_argument("--weight-decay", type=positive, metavar="W", help="(default: 0.0005)")
    training.add_argument(
        "--warmup",
        type=share,
        metavar="SHARE",
        help="share of the updates over which the rate rises; then it falls along a cosine (default: 0.1)",
    )
    training.add_argument(
        "--seed", type=seed, metavar="N", help="of weights, order, augmentation and dropout (default: 0)"
    )

    add_machine(parser)

    run = parser.add_argument_group("run folder")
    run.add_argument(
        "--out",
        metavar="FOLDER",
        help="where settings, metrics, curves and checkpoints go (default: runs/alexnet)",
    )
    run.add_argument(
        "--resume",
        metavar="FILE",
        help="continue from a last.safetensors, in its folder, with the settings it was made with",
    )

    given = parser.parse_args(arguments)
    settings = argparse.Namespace(**{"resume": None, **DEFAULTS, **vars(given)})
    fill(settings)
    if not settings.resume and _holds_a_run(settings.out):
        if "out" in vars(given):
            raise UsageError(f"--out {settings.out} holds a run: take another folder, or --resume its last.safetensors")
        settings.out = next(
            name for name in (f"{settings.out}-{i}" for i in itertools.count(2)) if not os.path.exists(name)
        )
    return settings, set(vars(given))


def _holds_a_run(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "last.safetensors"))


def fill(settings: argparse.Namespace) -> None:
    """The defaults that depend on the data."""
    usual = BY_DATA.get(settings.data.partition(":")[0], BY_DATA["folder"])
    for name, value in zip(("epochs", "batch_size", "lr"), usual, strict=True):
        if getattr(settings, name) is None:
            setattr(settings, name, value)


def adopt(settings: argparse.Namespace, given: set[str], saved: dict[str, Any]) -> None:
    """Continue a run: its settings, except what was given anew, and what suits another kind of device; the network
    cannot be another."""
    moved = "device" in given and settings.device[:3] != saved["device"][:3]  # from cpu to gpu:N, or back
    for name in DEFAULTS:
        if name in MODEL and name in given and getattr(settings, name) != saved[name]:
            raise UsageError(
                f"{settings.resume} is a run with {name} {saved[name]}, not {getattr(settings, name)}: leave it out"
            )
        if name not in given and name != "out" and not (moved and name in MACHINE):
            setattr(settings, name, saved.get(name))
    home = os.path.dirname(settings.resume) or "."
    if "out" not in given:
        settings.out = home
    elif os.path.realpath(settings.out) != os.path.realpath(home) and _holds_a_run(settings.out):
        raise UsageError(f"--out {settings.out} holds another run: take another folder")
