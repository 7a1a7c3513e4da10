"""The settings of a training: the options of train.py, what each may be, and how they come from a
checkpoint."""

import argparse
import os
from collections.abc import Sequence
from typing import Any

from model import VARIANTS

from minicnn.checkpoint import CheckpointError

from .options import (
    MOST_WORKERS,
    Parser,
    UsageError,
    add_machine,
    counted,
    natural,
    positive,
    processes,
    seconds,
    seed,
    share,
    side,
)
from .recipes import RECIPES, complete, kind_and_folder, usual

PARALLEL = ("data", "sharded", "hybrid", "columns")
DEFAULTS: dict[str, Any] = {  # the settings that no recipe has
    "data": "synthetic", "verify": True, "workers": None, "processes": None, "seed": 0,
    "threads": None, "device": "cpu", "backend": None, "precision": None, "out": "runs/alexnet",
    "source": None, "freeze": False, "head_lr": None, "parallel": "data", "limit": 600.0,
    "checkpoint_every": 10.0, "max_bad": None, "watch": False, "tensorboard": False,
    "detect_anomaly": False, "capture": False,
}  # fmt: skip
# A checkpoint fixes these: the network, how it sees images, and what the states in it depend on.
FIXED = (
    "recipe", "variant", "groups", "init", "lrn_alpha", "dropout_scale", "resize", "mean", "scale", "schedule",
    "update", "batch_size", "seed", "freeze",
)  # fmt: skip
NETWORK = ("variant", "groups", "init", "lrn_alpha", "dropout_scale")  # how weights are used
# settings whose defaults differ between devices, or that are of one kind only
MACHINE = ("workers", "processes", "threads", "backend", "precision", "capture")
# those of them that depend on how many processes share a machine
SHARED = ("workers", "processes", "threads")

CIFAR10_FILES = (
    "CIFAR-10's binary files (cifar-10-binary.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html, unpacked)"
)
NO_VERIFY = "accept files of CIFAR-10 whose checksums are not the official ones"
RECIPE_OPTIONS: dict[str, dict[str, tuple[Any, str]]] = {  # group: option: (values, what it does)
    "network": {
        "variant": (
            VARIANTS,
            "the network: 2012 is the paper's, 2014 its author's later one, tutorial the one that textbooks print "
            "({usual})",
        ),
        "groups": (
            bool,
            "2012 only: each half of convolutions 2, 4 and 5 sees half of the channels, as on the paper's two GPUs "
            "({usual})",
        ),
        "init": (
            ("he", "paper"),
            "the initial weights: he suits pixels of unit variance; paper draws them from N(0, 0.01), which suits "
            "pixels "
            "from 0 to 255 ({usual})",
        ),
        "lrn_alpha": (
            positive,
            "2012 only: alpha of local response normalization. The paper's suits --scale raw. With --scale unit it has "
            "almost no effect, and 0.33 has the effect in conv1 that the paper's has with --scale raw ({usual})",
        ),
        "dropout": (share, "training drops each value of fc6 and fc7 with this probability p ({usual})"),
        "dropout_scale": (
            ("training", "evaluation"),
            "where outputs are rescaled for dropout: training divides what is kept by 1 - p, or evaluation multiplies "
            "everything by "
            "1 - p, as in the paper ({usual})",
        ),
    },
    "images": {
        "resize": (
            side,
            "each image's short side is scaled to N pixels (default: 256; in quick, synthetic images have the size "
            "that the network sees)",
        ),
        "mean": (
            ("imagenet", "image"),
            "what is subtracted from pixels: ImageNet's mean color, or the mean image of the training images ({usual})",
        ),
        "scale": (
            ("unit", "raw"),
            "the scale of pixels: unit gives them a variance of one, raw leaves them from 0 to 255 "
            "(default: what suits --init)",
        ),
        "crop": (
            ("random", "center"),
            "the square that training cuts out of an image: at a random place, or in the center ({usual})",
        ),
        "flip": (bool, "training mirrors half of the images ({usual})"),
        "color_pca": (
            bool,
            "training shifts each image's colors along the principal components of all colors ({usual})",
        ),
        "ten_crop": (bool, "after the last epoch, the network is also measured over ten crops of each image ({usual})"),
    },
    "training": {
        "epochs": (natural, "training goes over the images N times ({usual})"),
        "batch_size": (natural, "each update is computed from N images ({usual})"),
        "lr": (positive, "the highest learning rate ({usual})"),
        "momentum": (share, "each step keeps this share of the step before ({usual})"),
        "weight_decay": (positive, "N times each weight is added to its gradient ({usual})"),
        "update": (
            ("pytorch", "paper"),
            "what the learning rate multiplies. pytorch: the velocity v, so that w -= lr v; paper: the gradient, "
            "before it is added to v, so that w += v ({usual})",
        ),
        "schedule": (
            ("cosine", "plateau", "constant"),
            "how the learning rate changes. cosine: it rises, then falls along a cosine; plateau: it is divided by "
            "10, at most "
            "three times, when the validation error stops falling ({usual})",
        ),
        "warmup": (share, "cosine only: the learning rate rises during this share of the updates ({usual})"),
        "patience": (
            counted,
            "plateau only: the learning rate is divided after more than N epochs without a lower error ({usual})",
        ),
    },
}


KINDS: dict[str, Any] = {  # what each setting may be: a type, one of several values, or a number
    "recipe": RECIPES, "data": str, "verify": bool, "workers": counted, "processes": bool, "seed": seed,
    "threads": natural, "device": str, "backend": str, "precision": ("fp32", "tf32"), "out": str,
    "parallel": PARALLEL, "limit": seconds, "ranks": natural,
    "checkpoint_every": positive, "max_bad": counted, "watch": bool, "tensorboard": bool, "detect_anomaly": bool,
    "capture": bool,
    "source": str, "freeze": bool, "head_lr": positive,
    **{name: kind for options in RECIPE_OPTIONS.values() for name, (kind, _) in options.items()},
    "mean": ("imagenet", "image", "source"), "scale": ("unit", "raw", "source"),
}  # fmt: skip
MAY_BE_NONE = ("workers", "processes", "threads", "backend", "precision", "source", "head_lr", "max_bad")


def require_settings(path: str, config: dict[str, Any]) -> None:
    """Raise a CheckpointError if a setting that was read from a file has a value that its option
    does not accept."""
    for name in KINDS.keys() & config.keys():
        if not _takes(KINDS[name], config[name]) and not (config[name] is None and name in MAY_BE_NONE):
            raise CheckpointError(f"{path} is damaged: its settings have {name} {config[name]!r}")


def _takes(kind: Any, value: Any) -> bool:
    if isinstance(kind, tuple):
        return value in kind
    if isinstance(kind, type):
        return isinstance(value, kind)
    try:
        return is_number(value) and kind(repr(value)) == value
    except argparse.ArgumentTypeError:
        return False


def is_number(value: Any) -> bool:
    """Whether it is one, and neither NaN nor infinite."""
    return isinstance(value, (int, float)) and abs(value) <= 1e300


DESCRIPTION = """\
Train AlexNet. Without arguments, the program trains the network of Krizhevsky,
Sutskever and Hinton (2012) on images that it draws itself."""
EXAMPLES = """\
A run writes into its folder: config.json, with all settings; metrics.csv,
curves.png, filters.png and report.html, which show its progress;
best.safetensors, the network of the best epoch, which is that of the highest
top-1 and, among equal ones, of the lowest loss; last.safetensors, from which
the run can continue, and previous.safetensors, the one before it; and with
--ten-crop, ten_crop.json. finished.json says that it has had all its epochs. A
run of the 2012 network takes 1,138 MB.

After Ctrl-C the program finishes the step, saves, and prints the command that
continues; a second Ctrl-C ends it at once.

examples:
  train.py --data photos --epochs 40
  train.py --data photos --out runs/paper --recipe paper --lr 0.005
  train.py --resume runs/paper/last.safetensors --epochs 120
  train.py --data photos --from alexnet.safetensors --lr 0.001 --head-lr 0.01
  mpiexec -n 2 python train.py --data photos --parallel hybrid"""


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, set[str]]:
    """(settings, the names of those that were given)."""
    parser = Parser(
        prog="train.py",
        usage="%(prog)s [options]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--recipe", choices=RECIPES,
        help="a set of defaults for the options of network, images and training. quick (default) makes a good "
        "network soon, paper trains as Krizhevsky, Sutskever and Hinton did, tutorial as textbooks do",
    )  # fmt: skip

    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", metavar="WHAT",
        help="what the network learns from. synthetic (default): ten classes of textures that this program draws; "
        f"cifar10:DIR: {CIFAR10_FILES}; imagenet:DIR: ImageNet's folders; or a FOLDER with train/ and "
        "val/, each of which has a folder of images for each class",
    )  # fmt: skip
    data.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help=NO_VERIFY,
    )
    data.add_argument(
        "--workers", type=counted, metavar="N",
        help=f"N threads or processes load images (default: 1; for a GPU, one per core, at most {MOST_WORKERS})",
    )  # fmt: skip
    data.add_argument(
        "--processes", action=argparse.BooleanOptionalAction,
        help="load images in processes instead of threads: faster if there are several (default: only for a GPU)",
    )  # fmt: skip

    for title, options in RECIPE_OPTIONS.items():
        group = parser.add_argument_group(title)
        for name, (values, text) in options.items():
            if isinstance(values, tuple):
                how: dict[str, Any] = {"choices": values}
            else:
                how = {"action": argparse.BooleanOptionalAction} if values is bool else {"type": values, "metavar": "N"}
            group.add_argument("--" + name.replace("_", "-"), help=text.format(usual=usual(name)), **how)

    add_machine(parser)

    run = parser.add_argument_group("run")
    run.add_argument("--seed", type=seed, metavar="N", help="N decides everything that is drawn at random (default: 0)")
    run.add_argument(
        "--out",
        metavar="FOLDER",
        help="the run's folder (default: runs/alexnet, or the first of runs/alexnet-2, -3 and so on that is free)",
    )
    run.add_argument(
        "--resume",
        metavar="FILE",
        help="continue the run of a last.safetensors, in its folder and with its settings, except those given now",
    )
    run.add_argument(
        "--checkpoint-every", type=positive, metavar="MINUTES",
        help="write last.safetensors after so many minutes, and after each epoch, while training goes on (default: 10)",
    )  # fmt: skip
    run.add_argument(
        "--max-bad", type=counted, metavar="N",
        help="leave out up to N images that cannot be read; bad_files.txt names them (default: one in a thousand)",
    )  # fmt: skip
    run.add_argument(
        "--watch", action=argparse.BooleanOptionalAction,
        help="write watch.csv and watch.png: gradients, the size of updates, and dead ReLUs, by layer",
    )  # fmt: skip
    run.add_argument(
        "--tensorboard", action=argparse.BooleanOptionalAction, help="write a file of events that TensorBoard shows"
    )
    run.add_argument(
        "--detect-anomaly", action=argparse.BooleanOptionalAction,
        help="end at the first operation whose output or gradient is NaN or infinite, and name it; slower",
    )  # fmt: skip
    run.add_argument(
        "--capture", action=argparse.BooleanOptionalAction,
        help="with --device gpu, in one process: ask for all launches of a step at once, as a CUDA graph",
    )  # fmt: skip

    several = parser.add_argument_group("several processes, started by mpiexec -n N (see PARALLEL.md beside train.py)")
    several.add_argument(
        "--parallel", choices=PARALLEL,
        help="what each process has: data (default): all weights, and some images of each batch; sharded: the same, "
        "but it updates only its share of the weights; hybrid: of the linear layers only some outputs; columns: half "
        "of the kernels of each layer, as each of the paper's two GPUs",
    )  # fmt: skip
    several.add_argument(
        "--limit", type=seconds, metavar="N",
        help="the run ends if a process waits longer than N seconds for the others (default: 600)",
    )  # fmt: skip

    tuning = parser.add_argument_group("fine-tuning")
    tuning.add_argument(
        "--from", dest="source", metavar="FILE",
        help="begin a run with the weights of a best.safetensors, a last.safetensors or a file of convert.py. "
        "If the classes are others, the last layer is a new one. The network sees images as it did before, unless "
        "--mean, --scale, --resize or --crop say otherwise",
    )  # fmt: skip
    tuning.add_argument(
        "--freeze", action="store_true",
        help="train only the last layer. All other layers keep their weights, and have no dropout",
    )  # fmt: skip
    tuning.add_argument(
        "--head-lr", type=positive, metavar="N", help="the highest learning rate of the last layer (default: --lr)"
    )

    given = parser.parse_args(arguments)
    settings = argparse.Namespace(**complete({"resume": None, **DEFAULTS, **vars(given)}))
    if settings.resume and settings.source:
        raise UsageError("--from begins a new run and --resume continues one: give only one of them")
    if not settings.resume and not settings.source and (settings.freeze or settings.head_lr is not None):
        raise UsageError("--freeze and --head-lr are for a network that comes --from a file")
    if settings.freeze and settings.head_lr is not None:
        raise UsageError("--freeze trains only the last layer, whose learning rate is --lr: leave out --head-lr")
    settings.data = _from_anywhere(settings.data)
    return settings, set(vars(given))


def _from_anywhere(data: str) -> str:
    """The argument of --data with an absolute path, so that it means the same in another folder."""
    kind, folder = kind_and_folder(data)
    if not folder:
        return data
    return os.path.abspath(folder) if kind == "photos" else f"{kind}:{os.path.abspath(folder)}"


def home(settings: argparse.Namespace) -> str:
    """The folder of the run that is resumed."""
    return os.path.dirname(settings.resume) or "."


def require_same(settings: argparse.Namespace, name: str, path: str, saved: dict[str, Any]) -> None:
    """Raise UsageError unless a setting has the value that is saved in a file."""
    if getattr(settings, name) != saved[name]:
        raise UsageError(f"{path} has {name} {saved[name]}, not {getattr(settings, name)}: leave the option out")


def _take_over(
    settings: argparse.Namespace, given: set[str], path: str, saved: dict[str, Any], fixed: Sequence[str]
) -> None:
    """Take the settings that are saved in a file, except those that were given. Raises UsageError
    if a fixed setting was given another value."""
    for name in [name for name in vars(settings) if name in saved]:
        if name not in given:
            setattr(settings, name, saved[name])
        elif name in fixed:
            require_same(settings, name, path, saved)


def adopt_network(settings: argparse.Namespace, given: set[str], config: dict[str, Any], resize: int) -> None:
    """Begin with the network of settings.source: its form and its view of images are those of
    `config`, which load_network has returned, and of `resize`. Raises UsageError if another form
    was asked for."""
    own = {name: config[name] for name in (*NETWORK, "dropout", "crop") if name in config}
    own |= {"lrn_alpha": config["lrn"]["alpha"], "resize": resize, "mean": "source", "scale": "source"}
    _take_over(settings, given, settings.source, own, NETWORK)


def adopt(settings: argparse.Namespace, given: set[str], saved: dict[str, Any], fixed: Sequence[str] = FIXED) -> None:
    """Continue a run: take its settings, except those that were given and, on another kind of
    device or in another number of processes, those that depend on it. Raises UsageError if a fixed
    setting was given another value."""
    # from cpu to gpu:N, or back
    moved = "device" in given and settings.device[:3] != saved["device"][:3]
    shared = saved.get("ranks", 1) != processes()  # cuda_convnet is always one process
    apart = ("resume", "out", *(MACHINE if moved else SHARED if shared else ()))
    kept = {name: value for name, value in saved.items() if name not in apart}
    _take_over(settings, given, settings.resume, kept, fixed)
    # only one of them has velocities
    if "momentum" in given and 0 in (settings.momentum, saved["momentum"]):
        require_same(settings, "momentum", settings.resume, saved)
    if "head_lr" in given and saved["head_lr"] is None:  # it has one rate for all
        require_same(settings, "head_lr", settings.resume, saved)
    if "out" not in given:
        settings.out = home(settings)
