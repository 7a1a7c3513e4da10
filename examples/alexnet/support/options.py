"""Command lines: what the programs have in common, how a user's mistake ends in one line, and
train.py's options."""

import argparse
import io
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from typing import Any, NoReturn

import minicnn
from minicnn import distributed
from minicnn.backends import backend_of, missed
from minicnn.backends.cuda.products import has_tf32
from minicnn.backends.devices import open_device
from minicnn.checkpoint import CheckpointError
from minicnn.checks import escaped
from minicnn.data import DataError
from minicnn.data.folder import quiet
from minicnn.distributed import WorkersError
from minicnn.mpi import launched
from minicnn.workers import Workers

from .beside import uninterrupted

# The default's upper limit: at 700 images a second each, these feed an H200 that trains in TF32.
MOST_WORKERS = 24


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
        print(escaped(message), file=sys.stderr)
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
        print(escaped(line), file=file)


def reason(error: Exception) -> str:
    """What went wrong, in a few words."""
    return getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__


def processes() -> int:
    """How many processes this program has."""
    return _workers.size


def name_of_program() -> str:
    """With the rank, if it is not 0."""
    return os.path.basename(sys.argv[0]) + f" (rank {_workers.rank})" * (_workers.rank > 0)


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


def progress_bar(*args: Any, **options: Any) -> Any:
    """A tqdm bar that disappears when it is done, and is not shown at all without a terminal."""
    try:
        with uninterrupted():
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
        help="the code that computes: cuda on a GPU; on a CPU native (default, which needs a C compiler) or numpy. "
        "reference runs the lessons as they are written: slowly and in one thread, which suits a debugger",
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
    with uninterrupted():  # mpi4py is imported
        _workers = distributed.start()
    if _workers.rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the end)
    return _workers


def _check_capture(settings: argparse.Namespace, workers: Workers | None) -> None:
    """Raise UsageError unless steps can be captured with these settings."""
    if workers is not None and workers.size > 1:
        raise UsageError(f"--capture is for one process, not for {workers.size}: leave it out")
    if settings.device == "cpu":
        raise UsageError("--capture is for --device gpu: leave it out")
    for name in ("watch", "detect_anomaly"):  # which look at each step
        if getattr(settings, name, False):
            raise UsageError(f"--capture and --{name.replace('_', '-')} exclude each other: leave one of them out")


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
    with uninterrupted():  # CuPy is imported
        settings.device = open_device("cpu" if settings.device is None else settings.device)
    if getattr(settings, "capture", False):
        _check_capture(settings, workers)
    if settings.threads:
        minicnn.set_num_threads(settings.threads)
    if settings.backend is not None:
        minicnn.use_backend(settings.backend)
    elif problem := missed(settings.device):
        say(problem)
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
