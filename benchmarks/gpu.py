"""The parts of `python -m benchmarks gpu`: the GPU's tests and the sanitizer, each launch of a training step against
its floor, training steps and inference beside PyTorch; and what can be said without a GPU. Each returns what JSON can
hold."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from minicnn.backend import describe_device, has_tf32, open_device

from . import machine, sections
from .gpu_launches import H100, LAUNCHED, Card, Launch, expected
from .sections import BEST, COMPILED, DEFAULT, OURS, Result
from .turns import Contender, running

PRECISIONS = ("fp32", "tf32")
# How far PyTorch's gradients and loss may be from minicnn's, relative to them. TF32 rounds factors to 10 bits.
AGREEMENT = {"fp32": (1e-3, 1e-4), "tf32": (1e-1, 1e-2)}
ROOT = Path(__file__).resolve().parent.parent
SUITE = ROOT / "tests" / "cuda"
LONGEST = 470.0  # seconds: the sanitizer, which comes last, has what is left
# Each array in an allocation of its own, so that the sanitizer sees where it ends.
WITHOUT_POOL = "import sys, cupy, pytest; cupy.cuda.set_allocator(None); sys.exit(pytest.main(sys.argv[1:]))"


class Options(sections.Options):
    """The CPU's, with other batches. Who else uses the cores matters little to a GPU."""

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
        batches = self.batches_of("2012")
        return 128 if 128 in batches else batches[-1]


def measured(options: Options, parts: Sequence[str]) -> Result:
    """These parts, and what they were measured on. Raises DeviceError without a GPU."""
    open_device("gpu")
    begun, cupy = time.perf_counter(), sys.modules["cupy"]
    runtime = cupy.cuda.runtime
    results: Result = {
        "machine": machine.describe(options.threads),
        "gpu": {
            "name": runtime.getDeviceProperties(0)["name"].decode(), "described": describe_device("gpu"),
            "driver": runtime.driverGetVersion(), "cuda": runtime.runtimeGetVersion(), "cupy": cupy.__version__,
        },
    }  # fmt: skip
    for name, part in PARTS.items():
        if name in parts:
            results[name] = part(options, LONGEST - (time.perf_counter() - begun))
    results["seconds"] = time.perf_counter() - begun
    return results


# ------------------------------------------------------------------------------------------------------ right, and safe
def tests(limit: float) -> Result:
    """The tests on the GPU."""
    return command([sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(SUITE)], limit)


def sanitizer(limit: float) -> Result:
    """The tests of the kernels, under the tool that sees every access beside an array."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return {"summary": "compute-sanitizer is not on the path", "status": None, "seconds": 0.0}
    files = [str(file) for file in sorted(SUITE.glob("test_kernels*"))]
    pytest = [sys.executable, "-c", WITHOUT_POOL, "-q", "-x", "-m", "gpu", *files]
    return command([tool, "--tool", "memcheck", "--error-exitcode", "9", *pytest], limit)


def command(words: list[str], limit: float) -> Result:
    """Run it for at most so many seconds: its exit status (None: it took longer) and last line."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, status = process.communicate(timeout=limit)[0], process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, status = process.communicate()[0] + f"\nnot done after {limit:.0f} s", None
    lines = [line.strip(" =") for line in output.splitlines() if line.strip(" =")]
    summary = lines[-1] if lines else ""
    print(f"{Path(words[0]).name} … {summary}", file=sys.stderr, flush=True)
    return {"summary": summary, "status": status, "seconds": time.perf_counter() - begun}


# ------------------------------------------------------------------------------------------------- what a step launches
def launches(options: Options) -> Result:
    """Every launch and transfer of a training step, one entry for those that are the same. Needs no GPU."""
    with running(Contender("stand-in", options.threads, "gpu_workers:StandIn", "2012", options.batch)) as (worker,):
        found = [_entry(launch, times) for launch, times in worker.ask("launches")]
    return {"network": "2012", "batch": options.batch, "launches": found}


def host(options: Options) -> float | None:
    """Seconds that Python takes to ask for a training step; None without CuPy. Needs no GPU."""
    if importlib.util.find_spec("cupy") is None:
        return None
    with running(Contender("host", options.threads, "gpu_host:Host", "2012", options.batch)) as (worker,):
        return worker.ask("seconds", 100)


def _entry(launch: Launch, times: int) -> Result:
    return {**launch._replace(again=None)._asdict(), "times": times}


def prediction(options: Options) -> Result:
    """What each of them, and the whole step, will take on an H100, from bytes and operations."""
    found, card, totals = launches(options), expected(H100), {}
    work = [entry for entry in found["launches"] if entry["kind"] in LAUNCHED]  # transfers go on beside it
    for precision in PRECISIONS:
        for entry in work:
            entry[precision] = card.least(entry["kind"], entry["bytes"], entry["operations"], precision)
        seconds = sum(entry["times"] * entry[precision]["seconds"] for entry in work)
        totals[precision] = {"seconds": seconds, "images/s": found["batch"] / seconds}
    return {**found, "totals": totals, "host": host(options), "known": H100._asdict(), "expected": card._asdict()}


def kernels(options: Options) -> Result:
    """Each kernel and product of a training step by itself, beside what its bytes and operations cost at the least, by
    what this GPU reaches in a copy and in a large product."""
    arguments = ("2012", options.batch, options.quick)
    with running(Contender(OURS, options.threads, "gpu_workers:Kernels", *arguments)) as (worker,):
        peaks = worker.ask("peaks")
        cards = {"floor": Card("as measured", peaks["bandwidth"], peaks["fp32"], peaks["tf32"])}
        if "H100" in describe_device("gpu"):
            cards["predicted"] = expected(H100)
        entries = []
        for launch, times, measured in worker.ask("launches"):
            entry = {**_entry(launch, times), "measured": measured}
            for name, card in cards.items():
                entry[name] = {p: card.least(launch.kind, launch.bytes, launch.operations, p) for p in measured}
            entries.append(entry)
    return {"network": "2012", "batch": options.batch, "peaks": peaks, "launches": entries}


# ------------------------------------------------------------------------------------------------------- whole networks
def steps(options: Options) -> Result:
    """Training steps and inference by network, precision and batch, on pictures that are on the GPU already."""
    results: Result = {"agreement": {}, "measured": [], "problems": []}
    for network in options.networks:
        others = {DEFAULT: (False, False), BEST: (True, False), COMPILED: (True, True)} if options.pytorch else {}
        contenders = [
            Contender(OURS, options.threads, "gpu_workers:Network", network),
            *(Contender(name, options.threads, "gpu_pytorch:Network", network, *how) for name, how in others.items()),
        ]
        with running(*contenders):
            for precision in options.precisions if others else ():  # before any step, which would part their weights
                results["agreement"] |= agreement(contenders[:-1], network, precision)
            for precision in options.precisions:
                for batch in options.batches_of(network):
                    label = f"{network}, {precision}, batch {batch}, "
                    ready = []
                    for c in contenders:
                        if c.name == COMPILED and (network, batch) != ("2012", options.batch):
                            continue  # to compile takes half a minute each time
                        if problem := c.ask("attempt", batch, precision):
                            results["problems"].append(f"{label}{c.name}: {problem}")
                        else:
                            ready.append(c)
                    if contenders[0] not in ready:
                        continue
                    results["measured"].append({
                        "network": network, "precision": precision, "batch": batch,
                        "step": options.play(ready, ["step"], label, 4),
                        "inference": options.play(ready, ["inference"], label, 2),
                        "reserved": {c.name: c.ask("reserved") for c in ready},
                        "waits": {c.name: c.ask("waits", "step", 1 if options.quick else 4) for c in ready},
                    })  # fmt: skip
    return results


def agreement(contenders: Sequence[Contender], network: str, precision: str) -> Result:
    """How far the others' loss and gradients are from the first one's, without dropout. Raises BenchmarkError if that
    is too far."""
    found: Result = {}
    reference = None
    for c in contenders:
        c.ask("take", 2, precision)
        gradients = c.ask("gradients")
        if reference is None:
            reference = gradients
        else:
            what = f"{network}, {precision}"
            found[f"{what}, {c.name}"] = sections.agree(reference, gradients, what, c.name, *AGREEMENT[precision])
    return found


PARTS: dict[str, Callable[[Options, float], Result]] = {
    "tests": lambda options, left: tests(min(150.0, left)),
    "launches": lambda options, left: launches(options),
    "kernels": lambda options, left: kernels(options),
    "steps": lambda options, left: steps(options),
    "sanitizer": lambda options, left: sanitizer(max(30.0, left)),
}
SECTIONS = tuple(PARTS)
