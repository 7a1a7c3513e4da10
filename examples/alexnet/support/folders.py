"""The folder of a run: which files are in it, and how one program at a time has it.

    config.json           all settings
    metrics.csv           a row for each epoch
    curves.png            loss and accuracy by epoch
    filters.png           conv1's kernels, as the paper's figure 3
    report.html           all of it, on one page
    best.safetensors      the network of the best epoch, to use
    last.safetensors      everything that is needed to continue
    previous.safetensors  the same of the time before, if last.safetensors is damaged
    bad_files.txt         the images that could not be read, if there are any
    watch.csv, watch.png  with --watch: how each layer learns
    events.out.tfevents…  with --tensorboard: what TensorBoard shows
    ten_crop.json         with --ten-crop: the results of the last epoch's network over ten crops
    finished.json         that it has had all its epochs

Each file is written whole or not at all, but watch.csv and the events, which grow.
"""

import json
import os
import re
import shlex
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from minicnn import AnomalyError
from minicnn.checkpoint import replacing
from minicnn.data import DataError
from minicnn.workers import Workers

from .bad_files import BAD_FILES
from .beside import Aside, Stop
from .drawing import require_matplotlib
from .options import Divergence, UsageError, complain
from .settings import home

CONFIG, METRICS, CURVES, FILTERS, REPORT = "config.json", "metrics.csv", "curves.png", "filters.png", "report.html"
LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
WATCH, WATCH_CHART, EVENTS = "watch.csv", "watch.png", "events.out.tfevents."
TEN_CROP, FINISHED = "ten_crop.json", "finished.json"
FILES = (
    CONFIG, METRICS, CURVES, FILTERS, REPORT, LAST, PREVIOUS, BEST, BAD_FILES, WATCH, WATCH_CHART, TEN_CROP, FINISHED,
)  # fmt: skip
# the names that replacing() gives, and those of the package safetensors
HALF_WRITTEN = re.compile(rf"\.({'|'.join(map(re.escape, FILES))})\.\d+\.[0-9a-f]{{8}}|\.tmp[A-Za-z0-9]{{6}}")


@dataclass
class Claim:
    """What a program has that writes a run."""

    stop: Stop
    aside: Aside
    ends: ExitStack  # what is to be closed
    own: list[Path]  # what is removed if it ends before its first checkpoint
    saved: bool = False  # whether it has written one
    # what a Run can do after an error: save what was done before, and say why a training diverged
    rescue: Callable[[], None] = lambda: None
    explain: Callable[[int], str] = str

    def checkpoint_written(self) -> None:
        """There is a checkpoint: from now on nothing is removed, although the folder may seem
        empty while a network drive is away."""
        self.own.clear()
        self.saved = True


@contextmanager
def claimed(settings: Namespace, numbered: bool = False, workers: Workers | None = None) -> Iterator[Claim]:
    """Inside, settings.out is the run's folder, which this process or, of several, that of rank 0
    has claimed. After an interrupt, an image that cannot be read, a full disk, too little memory,
    or workers that do not come, the message says how to continue."""
    workers = workers or Workers()
    with nullcontext([]) if workers.rank else _claimed(settings, numbered) as own:
        settings.out = workers.decided(settings.out)
        last = Path(settings.out, LAST)
        further = f"go on with: {command_to_resume(last, workers)}"
        workers.advice = lambda: f"; {further}" if _has_run(last.parent) else ""
        try:
            with ExitStack() as ends, Aside() as aside, Stop() as stop:
                claim = Claim(stop, aside, ends, own)
                try:
                    yield claim
                except (DataError, OSError):
                    # other processes may be anywhere; what was not written is to be done again
                    if workers.size == 1 and not aside.failed:
                        with suppress(OSError):
                            claim.rescue()
                    raise
        except Divergence as error:
            again = f"; {further} --lr N" * last.exists()
            raise UsageError(claim.explain(error.batch) + again) from None
        except AnomalyError as error:
            raise UsageError(str(error)) from None
        except (KeyboardInterrupt, DataError, OSError, MemoryError) as error:
            if not (claim.saved or _has_run(last.parent)):
                raise
            if isinstance(error, BrokenPipeError):  # of which command() says nothing
                complain(f"{error.strerror}; {further}")
                raise
            raise with_advice(error, further) from None


def with_advice(error: BaseException, further: str) -> BaseException:
    """The error, with words on how to go on."""
    if isinstance(error, KeyboardInterrupt):
        return KeyboardInterrupt(further)
    mended = f"when that is mended, {further}"
    if isinstance(error, MemoryError):  # perhaps in the middle of a step: nothing is saved
        return MemoryError(f"{str(error) or 'none is left'}; {mended}")
    if isinstance(error, OSError) and error.strerror:
        return OSError(error.errno, f"{error.strerror}; {mended}", error.filename)
    return (OSError if isinstance(error, OSError) else DataError)(f"{error}; {mended}")


def command_to_resume(last: Path, workers: Workers) -> str:
    """The command that continues a run from its last.safetensors."""
    several = f"mpiexec -n {workers.size} " if workers.size > 1 else ""
    return f"{several}python {shlex.quote(sys.argv[0])} --resume {shlex.quote(str(last))}"


@contextmanager
def _claimed(settings: Namespace, numbered: bool) -> Iterator[list[Path]]:
    """Inside, settings.out is the folder of this run alone. A run that ends before its first
    checkpoint leaves no files: the paths that are yielded are then removed, and its events. A run
    that continues in another folder takes its best network with it.

    numbered: if settings.out has a run already, take the first of settings.out-2, -3 … that has
    none. Raises UsageError if it has one, or a network; for a copy that would go on in the folder
    of what has come after it; and for a run that another program writes just now.
    """
    # Fail now rather than after the first epoch if a package is missing.
    require_matplotlib()
    stays = settings.resume and os.path.realpath(settings.out) == os.path.realpath(home(settings))
    newest = os.path.basename(settings.resume or "") == LAST  # or it is a copy, perhaps of long ago
    own: list[Path] = []
    with ExitStack() as lock:
        if not stays:
            settings.out, own = _claim(settings.out, numbered, lock)
        elif not newest:
            raise UsageError(f"{settings.resume} is not called {LAST}: give --out, another folder in which to continue")
        elif lock.enter_context(alone(settings.out)):
            remove_half_written(Path(settings.out))
        folder = Path(settings.out)
        others = {*folder.glob(f"{EVENTS}*")}  # of earlier starts, or of other programs
        try:
            if newest and not stays and (best := Path(home(settings), BEST)).exists():
                with replacing(folder / BEST) as path:
                    shutil.copyfile(best, path)
            yield own
        except BaseException:
            if own and not _has_run(folder):
                with suppress(OSError):  # of a folder where there is something else by now
                    for path in (*({*folder.glob(f"{EVENTS}*")} - others), *own):
                        if path.is_dir():
                            path.rmdir()
                        else:
                            path.unlink(missing_ok=True)
            raise


def _claim(out: str, numbered: bool, lock: ExitStack) -> tuple[str, list[Path]]:
    """The folder, which is locked and in which a config.json is made, and the paths that this run
    has made and that can be removed, in this order, if it ends before its first checkpoint. What a
    program left that was killed before its own is removed."""
    others = (f"{out}-{i}" for i in count(2)) if numbered else ()
    for name in chain([out], others):
        folder = Path(name)
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        if _has_network(folder):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as attempt:
            try:
                locked = attempt.enter_context(alone(name))
            except UsageError:
                if numbered:
                    continue
                raise
            if _has_network(folder):  # of another program, which was faster
                continue
            if locked and _has_only_begun(folder):
                remove_half_written(folder)
                for path in (*map(folder.joinpath, FILES), *folder.glob(f"{EVENTS}*")):
                    path.unlink(missing_ok=True)
            own = [path for path in map(folder.joinpath, FILES) if not path.exists()]
            with suppress(FileExistsError):
                open(folder / CONFIG, "x").close()
                lock.push(attempt.pop_all())
                return name, own + made
    last, best = Path(out, LAST), Path(out, BEST)
    if best.exists() and not last.exists():
        raise UsageError(f"--out {out} holds a network, {BEST}: take another folder, or remove that file")
    other = f"--resume {last}" if _has_network(Path(out)) else "remove that one, which has no checkpoint yet"
    raise UsageError(f"--out {out} holds a run: take another folder, or {other}")


def _has_run(folder: Path) -> bool:
    """Whether there is a checkpoint with which a run can go on. Where a file cannot have two names,
    there is no last.safetensors while it is written, or when it could not be."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS))


def _has_network(folder: Path) -> bool:
    """Whether there is a checkpoint, or a network of one's own. A best.safetensors beside a
    config.json without content is neither, but a copy of a program that was killed then."""
    config = folder / CONFIG
    copied = config.exists() and not config.stat().st_size
    return _has_run(folder) or ((folder / BEST).exists() and not copied)


def _has_only_begun(folder: Path) -> bool:
    """Whether a run has left its settings here; some other program may have a config.json too."""
    with suppress(OSError, ValueError):
        text = (folder / CONFIG).read_text()
        return not text or "minicnn" in json.loads(text)
    return False


@contextmanager
def alone(folder: str) -> Iterator[bool]:
    """Inside, a second program that enters with the same folder gets a UsageError. The system's
    lock ends with the program, however it ends. What is yielded says whether there is one: on
    Windows and on some network drives nothing is locked."""
    try:
        import fcntl
    except ImportError:
        yield False
        return
    handle, locked = os.open(folder, os.O_RDONLY), False
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except BlockingIOError:
            raise UsageError(f"{folder} has a run that another program goes on with: wait until it has ended") from None
        except OSError:
            pass
        yield locked
    finally:
        os.close(handle)


def remove_half_written(folder: Path) -> None:
    """Remove what a program that was killed was writing in the folder of a run."""
    for path in folder.iterdir():
        if HALF_WRITTEN.fullmatch(path.name) and path.is_file():
            with suppress(OSError):
                path.unlink()
