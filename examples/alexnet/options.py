"""Command lines: what the programs have in common, how a user's mistake ends in one line, and train.py's options."""

import argparse
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from model import VARIANTS
from recipes import RECIPES, complete, kind_and_folder, usual

import minicnn
from minicnn.backends import backend_of
from minicnn.backends.cuda.products import has_tf32
from minicnn.backends.devices import open_device
from minicnn.checkpoint import CheckpointError
from minicnn.data import DataError
from minicnn.data.folder import quiet

DEFAULTS: dict[str, Any] = {  # of what no recipe sets
    "data": "synthetic", "verify": True, "workers": None, "processes": None, "seed": 0,
    "threads": None, "device": "cpu", "backend": None, "precision": None, "out": "runs/alexnet",
    "source": None, "freeze": False, "head_lr": None,
}  # fmt: skip
FIXED = (  # what a checkpoint fixes: the network, how it sees pictures, what has a state, and what a state counts in
    "recipe", "variant", "groups", "init", "lrn_alpha", "dropout_scale", "resize", "mean", "scale", "schedule",
    "update", "batch_size", "seed", "freeze",
)  # fmt: skip
NETWORK = ("variant", "groups", "init", "lrn_alpha", "dropout_scale")  # what weights are of
MACHINE = ("workers", "processes", "threads", "backend", "precision")  # what another device wants otherwise
MOST_WORKERS = 24  # unless told: at 700 pictures a second each, as many as an H200 learns from in TF32


class UsageError(ValueError):
    """A mistake on the command line that argparse does not see."""


def command(main: Callable[[], None]) -> int:
    """Run a program; a user's mistake is one line on the standard error and exit status 2. What batch systems send, and
    terminals that are closed, is an interrupt, as Ctrl-C is."""
    if sys.stderr is None:  # closed, as by 2>&-: the place is kept, so that no file of ours gets into it
        os.open(os.devnull, os.O_WRONLY)
        sys.stderr = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (until the end)
    quiet()
    warnings.filterwarnings("ignore", "(overflow|invalid value) encountered", RuntimeWarning)  # a diverged run says so
    for name in {"SIGTERM", "SIGHUP"} & signal.Signals.__members__.keys():
        if signal.getsignal(signal.Signals[name]) == signal.SIG_DFL:  # nohup has one ignored
            signal.signal(signal.Signals[name], signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Where it is not Unicode, a bar is drawn with question marks; in a file, each line is there at once.
        sys.stdout.reconfigure(errors="replace", line_buffering=True)
    try:
        main()
        if sys.stdout is not None:  # closed, as by >&-
            sys.stdout.flush()
        return 0
    except BrokenPipeError:  # whoever read the standard output has gone, as head does; it is flushed again at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as shells say when the signal for it ends a program
    except (UsageError, CheckpointError, DataError, minicnn.DeviceError, ImportError, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            error = UsageError(f"{error.filename} cannot be read or written: {error.strerror}")
        complain(str(error))
        return 2
    except MemoryError as error:
        complain(f"there is not enough memory: {str(error) or 'a lower --batch-size takes less'}")
        return 2
    except KeyboardInterrupt as error:
        print(f"interrupted: {error}" if error.args else "interrupted", file=sys.stderr)
        return 130


@contextmanager
def batch_of(size: int) -> Iterator[None]:
    """In here a batch is worked on; where the memory does not suffice for it, the error says so."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(
            f"{str(error) or 'none left'}, in a batch of {size}: a lower --batch-size takes less"
        ) from None


def complain(message: str) -> None:
    """A line on the standard error."""
    print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaint is one line, without the usage. No argument may be empty, as "$DATA" is where
    the shell knows no DATA."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found = super().parse_args(args, namespace)
        for name, value in vars(found).items():
            if value == "" or (isinstance(value, list) and "" in value):
                self.error(f"argument {name.replace('_', '-')}: '' is no name")
        return found

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
share = number(float, 0, 0.999, "a share from 0 to 0.999")
side = number(int, 1, 4096, "a whole number from 1 to 4096")


def output_file(ending: str) -> Callable[[str], str]:
    """An argparse type: a file to be written in the end. What is wrong with its name is better said now."""

    def parse(name: str) -> str:
        if not name.endswith(ending):
            raise argparse.ArgumentTypeError(f"{name} does not end in {ending}")
        if not os.path.isdir(os.path.dirname(name) or "."):
            raise argparse.ArgumentTypeError(f"{name} would be in a folder that does not exist")
        if os.path.exists(name) and not os.path.isfile(name):
            raise argparse.ArgumentTypeError(f"{name} is there and is not a file")
        return name

    return parse


RECIPE_OPTIONS: dict[str, dict[str, tuple[Any, str]]] = {  # group: option: (values, what it does)
    "network": {
        "variant": (
            VARIANTS,
            "2012: the paper's; 2014: the later one-tower network; tutorial: as textbooks print it ({usual})",
        ),
        "groups": (bool, "2012: convolutions 2, 4 and 5 in two halves, as over the paper's two GPUs ({usual})"),
        "init": (
            ("he", "paper"),
            "he: for pixels of unit variance; paper: N(0, 0.01), for pixels from 0 to 255 ({usual})",
        ),
        "lrn_alpha": (
            positive,
            "2012: alpha of local response normalization. The paper's is for pixels from 0 to 255; for those of unit "
            "variance 0.33 does the same in conv1, and the paper's next to nothing ({usual})",
        ),
        "dropout": (share, "share of what fc6 and fc7 give that is left out in training ({usual})"),
        "dropout_scale": (
            ("training", "evaluation"),
            "where dropout of a half makes up for it: in training, what is kept counts twice; in evaluation, all "
            "counts half ({usual})",
        ),
    },
    "pictures": {
        "resize": (
            side,
            "the short side that they are scaled to (default: 256; in quick, of drawn ones, what the network sees)",
        ),
        "mean": (
            ("imagenet", "image"),
            "what is subtracted: ImageNet's mean color, or a mean image of the training pictures ({usual})",
        ),
        "scale": (("unit", "raw"), "unit variance, or pixels from 0 to 255 (default: what suits --init)"),
        "crop": (("random", "center"), "the square of each that the network is trained on ({usual})"),
        "flip": (bool, "mirror half of them in training ({usual})"),
        "color_pca": (bool, "in training, shift colors along the principal components of all ({usual})"),
        "ten_crop": (bool, "in the end, also measure the network over ten crops of each ({usual})"),
    },
    "training": {
        "epochs": (natural, "passes over the pictures ({usual})"),
        "batch_size": (natural, "pictures per update ({usual})"),
        "lr": (positive, "learning rate, the highest ({usual})"),
        "momentum": (share, "({usual})"),
        "weight_decay": (positive, "({usual})"),
        "update": (
            ("pytorch", "paper"),
            "what the rate scales: all of the momentum, or each gradient as it is added to it ({usual})",
        ),
        "schedule": (
            ("cosine", "plateau", "constant"),
            "of the rate. cosine: it rises, then falls along a cosine; plateau: it is divided by 10, three times at "
            "most, when the validation error no longer falls ({usual})",
        ),
        "warmup": (share, "cosine: share of the updates over which the rate rises ({usual})"),
        "patience": (counted, "plateau: it has not fallen for more than N epochs ({usual})"),
    },
}


def progress_bar(*args: Any, **options: Any) -> Any:
    """A tqdm bar that goes when it is done, and is not there at all where no terminal is."""
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError("the progress bar needs tqdm: pip install tqdm") from None
    return tqdm(*args, leave=False, disable=None, **options)


def add_network(parser: argparse.ArgumentParser) -> None:
    """A trained network, in how many crops it sees a picture, and where it is computed."""
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="a best.safetensors or last.safetensors of a run, or what convert.py has written (default: "
        "best.safetensors of the newest run in runs/)",
    )
    parser.add_argument(
        "--crops", type=int, choices=(1, 10), default=1,
        help="1: the middle of each picture (default); 10: its corners and middle and their mirror images, "
        "and the mean of the network's ten answers",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=natural, default=32, metavar="N", help="crops at a time (default: 32)")
    add_machine(parser)


def add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument("--device", metavar="NAME", help="cpu, gpu, or gpu:N (default: cpu)")
    group.add_argument(
        "--threads", type=natural, metavar="N", help="threads to compute with on a CPU (default: one for each core)"
    )
    group.add_argument(
        "--backend", metavar="NAME",
        help="what computes: the device's fastest (default: numpy on a CPU, cuda on a GPU), or reference, which "
        "runs everything as the lessons are written: slowly, in one thread, for a debugger",
    )  # fmt: skip
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
    if settings.backend is not None:
        minicnn.use_backend(settings.backend)
    if settings.backend not in (None, computing := backend_of(settings.device)):
        raise UsageError(f"--backend {settings.backend} does not compute on {settings.device}, {computing} does")
    settings.backend = computing
    gpu = settings.device != "cpu"
    tf32 = gpu and has_tf32(settings.device)
    if settings.precision is None:
        settings.precision = "tf32" if tf32 else "fp32"
    elif settings.precision == "tf32" and not tf32:
        raise UsageError(f"--precision tf32: NVIDIA cards since 2020 (Ampere) have it, {settings.device} does not")
    minicnn.set_matmul_precision(settings.precision)
    if getattr(settings, "workers", None) is None:
        settings.workers = min(minicnn.get_num_threads(), MOST_WORKERS) if gpu else 1
    if getattr(settings, "processes", False) is None:
        settings.processes = gpu and settings.workers > 0
    if getattr(settings, "processes", False) and not settings.workers:
        raise UsageError("--workers 0 leaves no --processes: take 1 at least, or --no-processes")


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, set[str]]:
    """(settings, the names of those that were given)."""
    parser = Parser(
        prog="train.py",
        description="Train AlexNet. With no arguments: the network of Krizhevsky, Sutskever and Hinton 2012, "
        "on synthetic pictures.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--recipe", choices=RECIPES,
        help="what the options of network, pictures and training are unless given. quick (default): a good network "
        "soon; paper: as Krizhevsky, Sutskever and Hinton trained theirs; tutorial: as textbooks do",
    )  # fmt: skip

    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", metavar="WHAT",
        help="synthetic (default): ten classes of drawn textures; cifar10:DIR: CIFAR-10's binary files; "
        "imagenet:DIR: ImageNet's folders; or a FOLDER with train/ and val/, each with one folder of pictures a class",
    )  # fmt: skip
    data.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="take CIFAR-10 files that are not the official ones, byte for byte",
    )
    data.add_argument(
        "--workers", type=counted, metavar="N",
        help=f"threads or processes that load pictures (default: 1; for a GPU, one a core, at most {MOST_WORKERS})",
    )  # fmt: skip
    data.add_argument(
        "--processes", action=argparse.BooleanOptionalAction,
        help="processes, of which several load more than as many threads do (default: for a GPU)",
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
    run.add_argument("--seed", type=seed, metavar="N", help="of weights, order, augmentation and dropout (default: 0)")
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

    tuning = parser.add_argument_group("fine-tuning")
    tuning.add_argument(
        "--from", dest="source", metavar="FILE",
        help="begin a run with the weights of a best.safetensors, a last.safetensors or what convert.py has written. "
        "If the classes are others, the last layer is a new one. The network sees pictures as it did, unless --mean, "
        "--scale, --resize or --crop say otherwise",
    )  # fmt: skip
    tuning.add_argument(
        "--freeze", action="store_true",
        help="train the last layer alone. All others keep their weights, and drop out nothing",
    )  # fmt: skip
    tuning.add_argument(
        "--head-lr", type=positive, metavar="N", help="learning rate of the last layer (default: that of all, --lr)"
    )

    given = parser.parse_args(arguments)
    settings = argparse.Namespace(**complete({"resume": None, **DEFAULTS, **vars(given)}))
    if settings.resume and settings.source:
        raise UsageError("--from begins a new run and --resume goes on with one: give one of them")
    if not settings.resume and not settings.source and (settings.freeze or settings.head_lr is not None):
        raise UsageError("--freeze and --head-lr are for a network that comes --from a file")
    if settings.freeze and settings.head_lr is not None:
        raise UsageError("--freeze leaves nothing to learn but the last layer, whose rate is --lr: leave out --head-lr")
    settings.data = _from_anywhere(settings.data)
    return settings, set(vars(given))


def _from_anywhere(data: str) -> str:
    """An argument of --data that means the same to programs in another folder."""
    kind, folder = kind_and_folder(data)
    if not folder:
        return data
    return os.path.abspath(folder) if kind == "photos" else f"{kind}:{os.path.abspath(folder)}"


def home(settings: argparse.Namespace) -> str:
    """The folder of the run that is resumed."""
    return os.path.dirname(settings.resume) or "."


def require_same(settings: argparse.Namespace, name: str, path: str, saved: dict[str, Any]) -> None:
    """Raise UsageError unless a setting is what it is in a file."""
    if getattr(settings, name) != saved[name]:
        raise UsageError(f"{path} has {name} {saved[name]}, not {getattr(settings, name)}: leave it out")


def _take_over(
    settings: argparse.Namespace, given: set[str], path: str, saved: dict[str, Any], fixed: Sequence[str]
) -> None:
    """Take the settings that are saved in a file, except what was given anew. Raises UsageError if what is fixed was
    given as something else."""
    for name in [name for name in vars(settings) if name in saved]:
        if name not in given:
            setattr(settings, name, saved[name])
        elif name in fixed:
            require_same(settings, name, path, saved)


def adopt_network(settings: argparse.Namespace, given: set[str], config: dict[str, Any], resize: int) -> None:
    """Begin with the network of settings.source: its form and how it sees pictures are as `config` says, which
    load_network has returned, and as the `resize` of its view. Raises UsageError if another form was asked for."""
    own = {name: config[name] for name in (*NETWORK, "dropout", "crop") if name in config}
    own |= {"lrn_alpha": config["lrn"]["alpha"], "resize": resize, "mean": "source", "scale": "source"}
    _take_over(settings, given, settings.source, own, NETWORK)


def adopt(settings: argparse.Namespace, given: set[str], saved: dict[str, Any], fixed: Sequence[str] = FIXED) -> None:
    """Continue a run: its settings, except what was given anew, and what suits another kind of device. Raises
    UsageError if what is fixed was given as something else."""
    moved = "device" in given and settings.device[:3] != saved["device"][:3]  # from cpu to gpu:N, or back
    apart = ("resume", "out", *(MACHINE if moved else ()))
    kept = {name: value for name, value in saved.items() if name not in apart}
    _take_over(settings, given, settings.resume, kept, fixed)
    if "momentum" in given and 0 in (settings.momentum, saved["momentum"]):  # only one of them has velocities
        require_same(settings, "momentum", settings.resume, saved)
    if "head_lr" in given and saved["head_lr"] is None:  # it has one rate for all
        require_same(settings, "head_lr", settings.resume, saved)
    if "out" not in given:
        settings.out = home(settings)
