"""The parts of `python -m benchmarks gpu`, in order of value: the tests with the sanitizers beside
them, each launch of a training step against its floor, training steps and inference beside PyTorch,
the program itself, what a step launches. Each part has a share of the time and fills in a dict that
JSON can hold, so that its measurements are kept if it fails or runs late. The prediction needs no
GPU.
"""

import importlib.util
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from minicnn.backends.cuda.products import has_tf32
from minicnn.backends.devices import describe_device, open_device

from . import machine, networks, sections
from .command import INTERRUPTS
from .gpu_launches import H100, LAUNCHED, Card, Launch, expected
from .instructions import Issued
from .sections import BEST, CAPTURED, COMPILED, DEFAULT, OURS, Result, say
from .turns import BenchmarkError, Contender, WorkerError, running

PRECISIONS = ("fp32", "tf32")
# How far another's gradients, by their norm, and its loss may be from minicnn's. In TF32 both round
# their factors to 10 bits, each in its own way, and ReLUs and maxima flip: so what rounding
# explains is measured, as the distance of minicnn's own gradient in TF32 from that in fp32. Two
# that are each so far from fp32 are at most twice as far from each other if they round alike;
# simulated with factors cut and rounded it is 1.5 times (conv1.weight, 0.105 against 0.068), so
# three times is allowed, and 0.01 of what hardly depends on rounding.
AGREEMENT = {"fp32": (1e-3, 1e-4), "tf32": (1e-2, 1e-2)}
OWN_ROUNDINGS = 3
ROOT = Path(__file__).resolve().parent.parent
SUITE, TRAIN = ROOT / "tests" / "cuda", ROOT / "examples" / "alexnet" / "train.py"
LONGEST = 470  # seconds for all parts, unless told otherwise
LAST_WORDS = 9.0  # seconds for a program that is interrupted to say how far it came
# Each array in an allocation of its own, so that the sanitizer sees where it ends.
WITHOUT_POOL = "import sys, cupy, pytest; cupy.cuda.set_allocator(None); sys.exit(pytest.main(sys.argv[1:]))"
# How places on this machine are called in what is published.
PLACES = {str(ROOT): ".", sys.prefix: "python", sys.base_prefix: "python", tempfile.gettempdir(): "tmp"}
# kernels whose threads share memory, and so could race
SHARED_MEMORY = ("loss", "matmul", "ops")


class Options(sections.Options):
    """The CPU's options, with other batches. Other users of the cores matter little to a GPU."""

    busy = staticmethod(lambda: None)

    def batches_of(self, network: str) -> list[int]:
        usual = [1] if self.quick else [1, 32, 128, 512] if network == "2012" else [128]
        return self.batches or usual

    @property
    def precisions(self) -> tuple[str, ...]:
        return PRECISIONS if has_tf32("gpu") and not self.quick else PRECISIONS[:1]

    @property
    def batch(self) -> int:
        """For what is measured at one batch only."""
        return self.first("2012")

    def first(self, network: str) -> int:
        """The batch that is measured first."""
        batches = self.batches_of(network)
        return 128 if 128 in batches else batches[-1]


class Part(NamedTuple):
    section: str  # one of SECTIONS: under which name its figures are kept
    what: str
    # The time that it needs; if all parts need more than there is, each gets less.
    seconds: float
    # fills in the figures until time.monotonic() is that late
    measure: Callable[[Options, Result, float], None]


def plan(options: Options) -> list[Part]:
    """The parts, the ones that say most first."""
    first, *others = options.networks
    rest = [batch for batch in options.batches_of(first) if batch != options.first(first)]
    parts = [
        Part("tests", "the tests, and the sanitizers beside them", 110, tests),
        Part("kernels", "each launch by itself", 25, kernels),
        steps_of(options, first, [options.first(first)], 90),
        Part("training", "examples/alexnet/train.py", 35, training),
    ]
    if options.pytorch:
        parts.append(steps_of(options, first, [options.first(first)], 90, compiled=True))
    parts += [steps_of(options, network, options.batches_of(network), 65) for network in others]
    if rest:
        parts.append(steps_of(options, first, rest, 35 * len(rest)))
    return [*parts, Part("launches", "what a training step launches", 10, recorded)]


def steps_of(options: Options, network: str, batches: list[int], seconds: float, compiled: bool = False) -> Part:
    what = f"training and inference, {network}, batch {', '.join(map(str, batches))}{' compiled' if compiled else ''}"
    return Part("steps", what, seconds, partial(steps, network, batches, compiled))


def measured(options: Options, chosen: Sequence[str], longest: float, save: Callable[[Result], None]) -> Result:
    """The parts of the chosen sections, in `longest` seconds, and what they were measured on; saved
    after each part. What fails in one of them, and one that runs late, is said in "parts", and the
    others go on. Raises DeviceError without a GPU, BenchmarkError if the last of it could not be
    saved."""
    open_device("gpu")
    begun, cupy = time.monotonic(), sys.modules["cupy"]
    runtime = cupy.cuda.runtime
    results: Result = {
        "machine": machine.describe(options.threads),
        "gpu": {
            "name": runtime.getDeviceProperties(0)["name"].decode(), "described": describe_device("gpu"),
            "driver": runtime.driverGetVersion(), "cuda": runtime.runtimeGetVersion(), "cupy": cupy.__version__,
        },
        "parts": [],
    }  # fmt: skip
    left = [part for part in plan(options) if part.section in chosen]
    unsaved = None
    while left:
        now, wanted = time.monotonic(), sum(part.seconds for part in left)
        part = left.pop(0)
        allowed = (begun + longest - now) * part.seconds / wanted
        entry: Result = {"part": part.what, "allowed": allowed, "seconds": 0.0, "problem": None}
        results["parts"].append(entry)
        problems, interrupted = [], False
        try:
            part.measure(options, results.setdefault(part.section, {}), now + allowed)
        except (Exception, KeyboardInterrupt) as error:
            problems, interrupted = [one_line(error)], isinstance(error, KeyboardInterrupt)
        with undisturbed() as came:
            entry["problem"] = "; ".join(problems + failed_runs(part.section, results)) or None
            if entry["problem"]:
                say(f"{part.what}: {entry['problem']}")
            entry["seconds"], results["seconds"] = time.monotonic() - now, time.monotonic() - begun
            try:
                save(results)
                unsaved = None
            except Exception as error:
                unsaved = one_line(error)
                say(f"not saved yet: {unsaved}")
        if interrupted or came:
            kept = f"not all that had been measured is in the files: {unsaved}"
            raise KeyboardInterrupt(kept if unsaved else "what had been measured is in the files")
    if unsaved:
        raise BenchmarkError(f"the last figures could not be saved: {unsaved}")
    return results


@contextmanager
def undisturbed() -> Iterator[list[int]]:
    """What would interrupt the program is only noted inside."""
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in INTERRUPTS}
    for number in INTERRUPTS:
        if handlers[number] != signal.SIG_IGN:
            signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield came
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)


def failed_runs(section: str, results: Result) -> list[str]:
    """The programs of a part that did not end well, and what they said last."""
    found = results[section]
    runs = {"": found} if section == "training" and found else {}
    if section == "tests":
        runs = {"pytest: ": found["pytest"]} if "pytest" in found else {}
        runs |= {f"{name}: ": run for name, run in sorted(found.get("sanitizer", {}).items())}
    return [f"{name}{run['summary']}" for name, run in runs.items() if run["status"] != 0]


def failures(results: Result) -> list[str]:
    """What is not as it should be, a line each."""
    found = [f"{entry['part']}: {entry['problem']}" for entry in results["parts"] if entry["problem"]]
    for what, apart in results.get("steps", {}).get("agreement", {}).items():
        if apart["wrong"]:
            found.append(f"{what}: not the same results as minicnn's: {', '.join(apart['wrong'])}")
    return found


def one_line(error: BaseException) -> str:
    """The kind of error and what it says; of an error in another process, the last line of its
    traceback."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    lines = str(error).strip().splitlines() or [""]
    said = f"{lines[0]} {lines[-1]}" if len(lines) > 1 and lines[0].endswith(":") else lines[0]
    return said if isinstance(error, (BenchmarkError, WorkerError)) else f"{type(error).__name__}: {said}"


# ---------------------------------------------------------------------------------- right, and safe
def tests(options: Options, found: Result, until: float) -> None:
    """The tests on the GPU in several processes, and beside them the tests of the kernels under the
    tool that sees every access beside an array, and every race for shared memory: a process for
    each file."""
    cores = len(machine.cores())
    several = bool(importlib.util.find_spec("xdist")) and cores > 2
    side_by_side = min(8, cores // 2) if several else 1
    how = ["-q", "-rfE", "--tb=short", "-p", "no:cacheprovider", "-m", "gpu"]
    if several:
        how += ["-n", str(side_by_side)]
        # pytest-benchmark warns if xdist is used
        how += ["-p", "no:benchmark"] if importlib.util.find_spec("pytest_benchmark") else []
    tool = shutil.which("compute-sanitizer")
    sanitizer = found["sanitizer"] = {}
    with ThreadPoolExecutor(max(2, cores - side_by_side // 2)) as pool, Programs() as programs:

        def keep(into: Result, name: str, words: Sequence[str], **environment: str) -> None:
            # stored at once, because the next may be interrupted
            into[name] = programs.run(words, until, **environment)

        asked = [pool.submit(keep, found, "pytest", [sys.executable, "-m", "pytest", *how, str(SUITE)])]
        for name, words in (sanitizers(tool) if tool else {}).items():
            asked.append(pool.submit(keep, sanitizer, name, words, MINICNN_ADDRESS_SANITIZER="1"))
        for run in asked:
            run.result()


def sanitizers(tool: str) -> dict[str, list[str]]:
    """The runs of compute-sanitizer, by name."""
    files = {file.stem.removeprefix("test_kernels_"): file for file in sorted(SUITE.glob("test_kernels_*.py"))}
    kinds = [("memcheck", name) for name in files] + [("racecheck", name) for name in SHARED_MEMORY]
    pytest = [sys.executable, "-c", WITHOUT_POOL, "-q", "-p", "no:cacheprovider", "-m", "gpu"]
    # CuPy asks for some things that may fail, and is prepared for it: these are not errors here.
    how = ["--report-api-errors", "no", "--error-exitcode", "9"]
    return {f"{kind} {name}": [tool, "--tool", kind, *how, *pytest, str(files[name])] for kind, name in kinds}


class Programs:
    """Programs with a limit to their time. With the end of `with Programs() as programs`, also when
    the benchmark is ended, those that still run are ended with all that they have started."""

    def __init__(self) -> None:
        self.running: set[subprocess.Popen[str]] = set()
        self.closed = False
        self.lock = threading.Lock()

    def __enter__(self) -> "Programs":
        return self

    def __exit__(self, *error: Any) -> None:
        with self.lock:
            self.closed = True
            for process in self.running:
                _signal(process, signal.SIGKILL)

    def run(self, words: Sequence[str], until: float, **environment: str) -> Result:
        """Run one until time.monotonic() is that late; LAST_WORDS before, it is interrupted, so
        that it can say how far it came. What it has started ends with it. From any thread. Its exit
        status (None: it ran late, or could not be started), the seconds that it took, its output
        (without the places where things lie on this machine), and the last line of that."""
        begun, late = time.monotonic(), False
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with self.lock:
            if self.closed or until - begun < LAST_WORDS:
                return {"summary": "not begun: there was no time left", "status": None, "seconds": 0.0, "output": ""}
            try:
                process = subprocess.Popen(
                    words, cwd=ROOT, env={**os.environ, "PYTHONPATH": path, **environment}, stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                said = f"not begun: {one_line(error)}"
                return {"summary": said, "status": None, "seconds": 0.0, "output": ""}
            self.running.add(process)
        try:
            output = process.communicate(timeout=until - begun - LAST_WORDS)[0]
        except subprocess.TimeoutExpired:
            late = True
            _signal(process, signal.SIGINT)
            try:
                output = process.communicate(timeout=LAST_WORDS - 1)[0]
            except subprocess.TimeoutExpired:
                output = _end(process)
        finally:
            _signal(process, signal.SIGKILL)
            with self.lock:
                self.running.discard(process)
        seconds = time.monotonic() - begun
        # status 0: it ended just in time, or only its children are late
        late = late and process.returncode != 0
        for place, name in PLACES.items():
            output = re.sub(rf"{re.escape(place)}(?![\w-])", name, output)
        lines = [line.strip(" =") for line in output.splitlines() if line.strip(" =")]
        summary = (lines or ["it said nothing"])[-1]
        if late:
            summary = f"not done after {seconds:.0f} s: {summary}"
        status = None if late else process.returncode
        return {"summary": summary, "status": status, "seconds": seconds, "output": output}


def _end(process: subprocess.Popen[str]) -> str:
    """What it had said. A process in a session of its own may go on holding the other end of the
    pipe."""
    _signal(process, signal.SIGKILL)
    try:
        return process.communicate(timeout=1)[0]
    except subprocess.TimeoutExpired as error:
        return (error.output or b"").decode(errors="replace")
    finally:
        assert process.stdout is not None
        process.stdout.close()
        process.wait()


def _signal(process: subprocess.Popen[str], number: int) -> None:
    """To a process and its children; nothing if they have ended."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def training(options: Options, found: Result, until: float) -> None:
    """The program itself: some epochs on drawn textures, with all that loading and validation
    take."""
    size = ["--batch-size", "8", "--epochs", "1"] if options.quick else ["--batch-size", "128", "--epochs", "3"]
    with tempfile.TemporaryDirectory() as folder, Programs() as programs:
        out = ["--out", str(Path(folder) / "run")]
        found |= programs.run([sys.executable, str(TRAIN), "--device", "gpu", *size, *out], until)


# ----------------------------------------------------------------------------- what a step launches
def recorded(options: Options, found: Result, until: float) -> None:
    found |= launches(options, until)


def launches(options: Options, until: float = math.inf) -> Result:
    """Every launch and transfer of a training step, one entry for those that are the same. Needs no
    GPU."""
    entries = [_entry(launch, times) for launch, times in _asked(options, until)]
    return {"network": "2012", "batch": options.batch, "launches": entries}


def _asked(options: Options, until: float = math.inf) -> list[tuple[Launch, int]]:
    standin = Contender("stand-in", options.threads, "gpu_workers:StandIn", "2012", options.batch)
    with running(standin, until=until) as (worker,):
        return worker.ask("launches")


def issued(options: Options, asked: list[Launch]) -> list[Issued] | str:
    """What each of these kernels issues, or why that cannot be told. Needs no GPU."""
    with running(Contender("NVRTC", options.threads, "instructions:Machine")) as (worker,):
        return worker.ask("issued", asked)


def host(options: Options, contender: str = "Network") -> float | None:
    """Seconds that Python takes to ask for a training step; None without CuPy. Needs no GPU."""
    if importlib.util.find_spec("cupy") is None:
        return None
    with running(Contender("host", options.threads, "gpu_host:Host", contender, "2012", options.batch)) as (worker,):
        return worker.ask("seconds", 100)


def _entry(launch: Launch, times: int) -> Result:
    return {**launch._replace(code=None, again=None)._asdict(), "times": times}


def prediction(options: Options) -> Result:
    """What each of them, and the whole step, will take on an H100, from bytes, operations and
    machine instructions."""
    asked, card, totals = _asked(options), expected(H100), {}
    found: Result = {"network": "2012", "batch": options.batch, "launches": [_entry(*pair) for pair in asked]}
    # transfers overlap with the computation
    work = [entry for entry in found["launches"] if entry["kind"] in LAUNCHED]
    counted = issued(options, [launch for launch, _ in asked if launch.code])
    found["uncounted"] = counted if isinstance(counted, str) else None
    if not isinstance(counted, str):
        for entry, count in zip([entry for entry in work if entry["kind"] == "kernel"], counted, strict=True):
            entry["issued"] = count._asdict()
    for precision in PRECISIONS:
        for entry in work:
            issuing = entry["issued"]["seconds"] if "issued" in entry else 0.0
            entry[precision] = card.least(entry["kind"], entry["bytes"], entry["operations"], precision, issuing)
        seconds = sum(entry["times"] * entry[precision]["seconds"] for entry in work)
        totals[precision] = {"seconds": seconds, "images/s": found["batch"] / seconds}
    return {
        **found, "machine": machine.describe(options.threads), "totals": totals, "host": host(options),
        "captured": host(options, "CapturedNetwork"),
        "known": H100._asdict(), "expected": card._asdict(),
    }  # fmt: skip


def kernels(options: Options, found: Result, until: float) -> None:
    """Each kernel and product of a training step by itself, beside what its bytes and operations
    cost at the least, by what this GPU reaches in a copy and in a large product."""
    contender = Contender(OURS, options.threads, "gpu_workers:Kernels", "2012", options.batch, options.quick)
    found |= {"network": "2012", "batch": options.batch, "launches": [], "problems": []}
    with running(contender, until=until, report=found["problems"].append) as (worker,):
        peaks = found["peaks"] = worker.ask("peaks")
        cards = {"floor": Card("as measured", peaks["bandwidth"], peaks["fp32"], peaks["tf32"])}
        if "H100" in describe_device("gpu"):
            cards["predicted"] = expected(H100)
        launches = worker.ask("launches")
        found["differ"] = len(launches)
        for i, (launch, times) in enumerate(launches):
            entry = {**_entry(launch, times), "measured": worker.ask("time", i)}
            for name, card in cards.items():
                entry[name] = {
                    p: card.least(launch.kind, launch.bytes, launch.operations, p) for p in entry["measured"]
                }
            found["launches"].append(entry)


# ----------------------------------------------------------------------------------- whole networks
def steps(network: str, batches: Sequence[int], compiled: bool, options: Options, found: Result, until: float) -> None:
    """Training steps and inference by precision and batch, on images that are on the GPU already.
    `compiled`: beside PyTorch's best through torch.compile, which takes half a minute each time,
    and nothing else."""
    agreed, figures, problems = (
        found.setdefault(*new) for new in (("agreement", {}), ("measured", []), ("problems", []))
    )
    how = {DEFAULT: (False, False), BEST: (True, False)} if not compiled else {COMPILED: (True, True)}
    contenders = [
        Contender(OURS, options.threads, "gpu_workers:Network", network),
        Contender(CAPTURED, options.threads, "gpu_workers:CapturedNetwork", network),
        *(
            Contender(name, options.threads, "gpu_pytorch:Network", network, *settings)
            for name, settings in how.items()
            if options.pytorch
        ),
    ]
    with running(*contenders, until=until, report=problems.append):
        last = f"{network}, {options.precisions[-1]}, {contenders[-1].name}"
        if not compiled and last not in agreed:  # before any step, which would part their weights
            agreement(contenders, network, options.precisions, agreed)
        for batch in batches:
            for precision in reversed(options.precisions):  # what train.py uses first
                label = f"{network}, {precision}, batch {batch}, "
                ready = []
                for c in contenders:
                    if problem := c.ask("attempt", batch, precision):
                        problems.append(f"Not measured: {label}{c.name}: {problem}")
                    else:
                        ready.append(c)
                if contenders[0] not in ready:
                    continue
                figure: Result = {"network": network, "precision": precision, "batch": batch}
                figures.append(figure)  # now, for what follows may run late
                figure["step"] = options.play(ready, ["step"], label, 4)
                figure["inference"] = options.play(ready, ["inference"], label, 2)
                figure["reserved"] = {c.name: c.ask("reserved") for c in ready}
                figure["waits"] = {c.name: c.ask("waits", "step", 1 if options.quick else 4) for c in ready}


def agreement(contenders: Sequence[Contender], network: str, precisions: Sequence[str], found: Result) -> None:
    """How far the others' loss and gradients are from minicnn's, on two images and without dropout,
    and whether that is near enough (AGREEMENT)."""
    exact: networks.Gradients | None = None
    ours, *others = contenders
    for precision in precisions if others else ():
        gradients = {}
        for c in contenders:
            c.ask("take", 2, precision)
            gradients[c.name] = c.ask("gradients")
        reference = gradients[ours.name]
        exact = exact or reference
        rounding = networks.differences(exact, reference)
        gradient, loss = AGREEMENT[precision]
        for c in others:
            apart = networks.differences(reference, gradients[c.name])
            allowed = {name: max(gradient, OWN_ROUNDINGS * rounding[name]) for name in apart} | {"loss": loss}
            # NaN is not either
            wrong = [name for name in apart if not apart[name] <= allowed[name]]
            furthest = max(reference[1], key=apart.__getitem__)
            found[f"{network}, {precision}, {c.name}"] = {
                "loss": apart["loss"], "gradient": apart[furthest], "parameter": furthest,
                "rounding": rounding[furthest], "wrong": wrong,
            }  # fmt: skip


SECTIONS = ("tests", "kernels", "steps", "training", "launches")
