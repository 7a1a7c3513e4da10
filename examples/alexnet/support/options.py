"""Command lines: what the programs have in common, how a user's mistake ends in one line, and
train.py's options."""

import argparse
import io
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from typing import Any, NoReturn

from model import VARIANTS

import minicnn
from minicnn import distributed
from minicnn.backends import backend_of
from minicnn.backends.cuda.products import has_tf32
from minicnn.backends.devices import open_device
from minicnn.checkpoint import CheckpointError
from minicnn.data import DataError
from minicnn.data.folder import quiet
from minicnn.distributed import WorkersError
from minicnn.mpi import launched
from minicnn.workers import Workers

from .recipes import RECIPES, complete, kind_and_folder, usual

DEFAULTS: dict[str, Any] = {  # the settings that no recipe has
    "data": "synthetic", "verify": True, "workers": None, "processes": None, "seed": 0,
    "threads": None, "device": "cpu", "backend": None, "precision": None, "out": "runs/alexnet",
    "source": None, "freeze": False, "head_lr": None, "parallel": "data", "limit": 600.0,
    "checkpoint_every": 10.0, "max_bad": None, "watch": False, "tensorboard": False,
    "detect_anomaly": False,
}  # fmt: skip
# A checkpoint fixes these: the network, how it sees images, and what the states in it depend on.
FIXED = (
    "recipe", "variant", "groups", "init", "lrn_alpha", "dropout_scale", "resize", "mean", "scale", "schedule",
    "update", "batch_size", "seed", "freeze",
)  # fmt: skip
NETWORK = ("variant", "groups", "init", "lrn_alpha", "dropout_scale")  # how weights are used
# settings whose defaults differ between devices
MACHINE = ("workers", "processes", "threads", "backend", "precision")
# those of them that depend on how many processes share a machine
SHARED = ("workers", "processes", "threads")
# characters that terminals act on, and ends of lines
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# The default's upper limit: at 700 images a second each, these feed an H200 that trains in TF32.
MOST_WORKERS = 24


PARALLEL = ("data", "sharded", "hybrid", "columns")

_workers = Workers()  # what connected() has returned


class UsageError(ValueError):
    """A mistake on the command line that argparse does not see."""


class Divergence(UsageError):
    """The loss of a batch is NaN or infinite: of this one in its epoch, from 1."""

    def __init__(self, batch: int) -> None:
        super().__init__(f"training diverged: the loss of batch {batch} is NaN or infinite")
        self.batch = batch


def command(main: Callable[[], None], several: bool = False) -> int:
    """Run a program; a user's mistake is one line on the standard error and exit status 2. The
    signals of batch systems and of closed terminals interrupt the program, as Ctrl-C does.

    several: whether processes that mpiexec has started divide its work. Otherwise each would do all
    of it, and it is refused."""
    if sys.stderr is None:  # closed, as by 2>&-; its number is kept from files that are opened
        os.open(os.devnull, os.O_WRONLY)
        sys.stderr = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (until the end)
    quiet()
    # a run that diverges has a message of its own
    warnings.filterwarnings("ignore", "(overflow|invalid value) encountered", RuntimeWarning)
    for name in {"SIGTERM", "SIGHUP"} & signal.Signals.__members__.keys():
        if signal.getsignal(signal.Signals[name]) == signal.SIG_DFL:  # nohup has one ignored
            signal.signal(signal.Signals[name], signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without Unicode shows question marks for bars; a file gets each line at once.
        sys.stdout.reconfigure(errors="replace", line_buffering=True)
    try:
        if not several and launched() > 1:
            raise UsageError("the program runs in one process: start it without mpiexec")
        main()
        if sys.stdout is not None:  # closed, as by >&-
            sys.stdout.flush()
        return 0
    except BrokenPipeError:
        # The reader of the standard output has gone, as head does. Python flushes it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ended(141)  # as shells say when the signal for it ends a program
    except (UsageError, CheckpointError, DataError, minicnn.DeviceError, WorkersError, ImportError, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            error = UsageError(f"{error.filename}: {error.strerror}")
        return ended(2, f"{name_of_program()}: {error}")
    except MemoryError as error:
        advice = str(error) or "a smaller --batch-size needs less"
        return ended(2, f"{name_of_program()}: there is not enough memory: {advice}")
    except KeyboardInterrupt as error:
        return ended(130, f"interrupted: {error}" if error.args else "interrupted")


def ended(status: int, message: str = "") -> int:
    """The program has failed: print the line, end the other processes of it, if there are any, and
    return the status."""
    if _workers.rank:  # if all have the same message, rank 0 prints it, and ends the others
        time.sleep(1)
    if message:
        print(printable(message), file=sys.stderr)
    if _workers.size > 1:
        _workers.abort(status)
    return status


@contextmanager
def batch_of(size: int) -> Iterator[None]:
    """While a batch is worked on: a MemoryError names the batch's size and --batch-size."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(
            f"{str(error) or 'none left'}, in a batch of {size}: a smaller --batch-size needs less"
        ) from None


def say(message: str) -> None:
    """A line on the standard output."""
    _print(message, sys.stdout)


def complain(message: str) -> None:
    """A line on the standard error."""
    _print(f"{name_of_program()}: {message}", sys.stderr)


def _print(line: str, file: Any) -> None:
    """A line of its own, although there may be a progress bar."""
    tqdm = sys.modules.get("tqdm.std")
    with tqdm.tqdm.external_write_mode(file) if tqdm else nullcontext():
        print(printable(line), file=file)


def name_of_program() -> str:
    """With the rank, if it is not 0."""
    return os.path.basename(sys.argv[0]) + f" (rank {_workers.rank})" * (_workers.rank > 0)


def printable(text: str) -> str:
    """The text in one line that moves no cursor and changes no color: names of files and classes
    may have any characters."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, without the usage, and suggest the option that
    was meant. No argument may be empty, as "$DATA" is if the shell variable DATA is not set."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            wrong = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            close = [close for word in wrong for close in get_close_matches(word, self._option_string_actions, 1)]
            meant = f": did you mean {' and '.join(close)}?" * bool(close)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        for name, value in vars(found).items():
            if value == "" or (isinstance(value, list) and "" in value):
                self.error(f"argument {name.replace('_', '-')}: must not be empty")
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
seconds = number(float, 1, 1e9, "a number of at least 1")
side = number(int, 1, 4096, "a whole number from 1 to 4096")


def output_file(ending: str) -> Callable[[str], str]:
    """An argparse type: a file that is written at the end, whose name is checked now."""

    def parse(name: str) -> str:
        if not name.endswith(ending):
            raise argparse.ArgumentTypeError(f"{name} does not end in {ending}")
        if not os.path.isdir(os.path.dirname(name) or "."):
            raise argparse.ArgumentTypeError(f"{name} would be in a folder that does not exist")
        if os.path.exists(name) and not os.path.isfile(name):
            raise argparse.ArgumentTypeError(f"{name} exists and is not a file")
        return name

    return parse


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


def progress_bar(*args: Any, **options: Any) -> Any:
    """A tqdm bar that disappears when it is done, and is not shown at all without a terminal."""
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError("the progress bar needs tqdm: pip install tqdm") from None
    return tqdm(*args, leave=False, disable=True if _workers.rank else None, **options)


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a trained network, its crops of an image, and the machine."""
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="the network: a best.safetensors or last.safetensors of a run, or a file that convert.py has written "
        "(default: best.safetensors of the newest run in runs/)",
    )
    parser.add_argument(
        "--crops", type=int, choices=(1, 10), default=1,
        help="1: the network sees the middle of each image (default); 10: it sees the corners, the middle and the "
        "mirror images of these five, and the mean of its ten answers counts",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=natural, default=32, metavar="N", help="compute N crops at a time (default: 32)"
    )
    add_machine(parser)


def add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument("--device", metavar="NAME", help="where to compute: cpu (default), gpu, or gpu:N")
    group.add_argument(
        "--threads", type=natural, metavar="N", help="a CPU computes with N threads (default: one for each core)"
    )
    group.add_argument(
        "--backend", metavar="NAME",
        help="the code that computes (default: numpy on a CPU, cuda on a GPU). reference runs the lessons as they are "
        "written: slowly and in one thread, which suits a debugger",
    )  # fmt: skip
    group.add_argument(
        "--precision",
        choices=("fp32", "tf32"),
        help="how a GPU multiplies matrices: tf32 (default, where the card has it) rounds the factors to 10 bits; "
        "fp32 does not, and is slower",
    )


def connected() -> Workers:
    """The processes that mpiexec has started, or this one alone. Only rank 0 of them prints and
    shows progress."""
    global _workers
    _workers = distributed.start()
    if _workers.rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the end)
    return _workers


def use_machine(settings: argparse.Namespace, workers: Workers | None = None) -> None:
    """Open the device, and fill in the settings that depend on it. Raises DeviceError if there is
    no such device, UsageError if it cannot do what was asked for."""
    if workers is not None:
        distributed.start(settings.limit)
        if settings.batch_size < workers.size:
            raise UsageError(f"--batch-size {settings.batch_size} is too small for {workers.size} processes")
        if workers.size > 1 and settings.device.startswith("gpu"):
            settings.device = "gpu"  # each has its own: not that of rank 0, which a checkpoint has
        settings.device = workers.device(settings.device)
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
        raise UsageError("--processes needs --workers of at least 1: give more workers, or --no-processes")


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
    shared = saved.get("ranks", 1) != _workers.size  # cuda_convnet is always one process
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
