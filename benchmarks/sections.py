"""The parts of the benchmark: each starts its contenders, lets them take turns, and returns what
JSON can hold."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from typing import Any, NamedTuple

from minicnn import DeviceError, use_backend

from . import machine, networks
from .cases import CASES, CHAIN, CHAINS
from .turns import SHORTEST, BenchmarkError, Contender, measure, running, spread

# Images, and how far gradients may be apart, relative to their norm. 13 are the fewest with which
# the 3 × 3 layers use the Winograd algorithm; among so many windows rounding decides a near tie or
# two, and one moves conv1's gradient by 1e-3.
AGREEMENT = {2: 1e-3, 13: 1e-2}
OURS, DEFAULT, BEST, COMPILED, FLOOR = "minicnn", "PyTorch", "PyTorch best", "PyTorch compiled", "floor"
CAPTURED = "minicnn captured"
BACKENDS = "native", "numpy", "reference"  # minicnn's on a CPU, the fastest first
# Numbers in a batch that the lessons can be asked to compute as they are written: 32 images of
# AlexNet, which take them 2 s; 128 take 12.
READABLE = 32 * 227 * 227 * 3
Result = dict[str, Any]


class Options(NamedTuple):
    threads: int
    batches: list[int] | None = None
    rounds: int | None = None
    networks: Sequence[str] = networks.YEARS
    pytorch: bool = True
    quick: bool = False
    compiled: bool = True
    backends: Sequence[str] = BACKENDS[1:]  # the others are compared with the first
    watched: bool = True  # rounds that other processes disturb are thrown away
    busy = staticmethod(machine.busy)  # no field: how to see whether others use the machine

    def batches_of(self, network: str) -> list[int]:
        """The batches that are measured, unless others were asked for."""
        return self.batches or ([2] if self.quick else networks.NETWORKS[network].batches)

    def batch_of(self, network: str) -> int:
        """The one at which layers are measured."""
        usual = networks.NETWORKS[network].batches
        return 2 if self.quick else 32 if 32 in usual else usual[0]

    def ours(self, worker: str, *arguments: Any, threads: int = 0, name: str = OURS) -> Contender:
        """minicnn by its first backend."""
        return Contender(name, threads or self.threads, f"ours:{worker}", *arguments, backend=self.backends[0])

    def contenders(self, worker: str, network: str, batch: int) -> list[Contender]:
        """minicnn by each backend, and PyTorch's configurations. torch.compile and the lessons as
        they are written take part in whole networks only."""
        whole = worker == "Network"
        others = [b for b in self.backends[1:] if b != "reference" or (whole and readable(network, batch))]
        theirs: dict[str, tuple[bool, ...]] = {DEFAULT: (False,), BEST: (True,)} if self.pytorch else {}
        if theirs and self.compiled and whole:
            theirs[COMPILED] = True, True
        given = network, batch
        return [
            self.ours(worker, *given),
            *(Contender(by(b), self.threads, f"ours:{worker}", *given, backend=b) for b in others),
            *(Contender(name, self.threads, f"pytorch:{worker}", *given, *how) for name, how in theirs.items()),
        ]

    def pair(self, worker: str) -> list[Contender]:
        """minicnn and PyTorch, for what is the same in both configurations."""
        theirs = [Contender(DEFAULT, self.threads, f"pytorch:{worker}")] if self.pytorch else []
        return [self.ours(worker), *theirs]

    def floor(self, network: str, batch: int) -> Contender:
        return Contender(FLOOR, self.threads, "floor:Network", network, batch)

    def play(self, contenders: list[Contender], tasks: list[str], label: str, budget: float, fewest: int = 5) -> Result:
        """Measure, and say so on the standard error."""
        rounds, shortest = self.rounds or (3 if self.quick else None), SHORTEST / (4 if self.quick else 1)
        busy = self.busy if self.watched else lambda: None
        result = measure(contenders, tasks, rounds, budget, fewest, shortest, busy)
        for task, seconds in result["seconds"].items():
            medians = {name: spread(times) for name, times in seconds.items()}
            times = ", ".join(f"{name} {s.median * 1e3:.4g} ms" for name, s in medians.items() if s)
            say(f"{label}{task}: {times or 'the machine was too busy'}")
        say(f"{label}rounds thrown away: {result['discarded']}, given up: {result['missing']}")
        return result


def by(backend: str) -> str:
    """The name of a backend that is not the first."""
    return f"{OURS} {backend}"


def readable(network: str, batch: int) -> bool:
    """Whether the lessons as they are written compute such a batch in reasonable time."""
    return batch * prod(networks.NETWORKS[network].image) <= READABLE


def usable_backends(asked: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
    """minicnn's backends that can be used here, and what is the matter with the others. Raises
    DeviceError if one of them was asked for."""
    found, problems = [], []
    for name in dict.fromkeys(asked or BACKENDS):
        try:
            with use_backend(name):
                found.append(name)
        except DeviceError as error:
            if asked:
                raise
            problems.append(f"{by(name)} is left out: {error}")
    return found, problems


def describe(options: Options) -> Result:
    """The machine and the libraries, as the contenders' processes see them."""
    with running(*options.pair("Chains")) as contenders:
        return {key: value for c in contenders for key, value in c.ask("describe").items()}


def say(line: str) -> None:
    with suppress(OSError):  # the terminal has been closed
        print(line, file=sys.stderr, flush=True)


def cannot_compile(options: Options) -> str | None:
    """Why torch.compile cannot be measured here, if it should be and cannot: it needs a C++
    compiler."""
    if not (options.pytorch and options.compiled):
        return None
    with running(Contender(COMPILED, options.threads, "pytorch:Compiler")) as (compiler,):
        problem = compiler.ask("problem")
    return f"{COMPILED} is left out: torch.compile does not work here ({problem})" if problem else None


def agreement(options: Options) -> Result:
    """Check that all compute the same loss and gradients. Raises BenchmarkError if they do not."""
    results: Result = {}
    for network in options.networks:
        for batch, allowed in AGREEMENT.items():
            with running(*options.contenders("Network", network, batch)) as (ours, *others):
                reference = ours.ask("gradients")
                for other in others:
                    what = f"{network}, {other.name}, {batch} images"
                    results[what] = agree(reference, other.ask("gradients"), network, other.name, allowed)
    return results


def agree(
    ours: networks.Gradients,
    theirs: networks.Gradients,
    network: str,
    name: str,
    allowed: float = AGREEMENT[2],
    loss: float = 1e-4,
) -> Result:
    """How far apart they are; raises BenchmarkError if that is too far."""
    apart = networks.differences(ours, theirs)
    if wrong := networks.disagreement(apart, allowed, loss):
        raise BenchmarkError(f"the {network} network: minicnn and {name} do not compute the same: {wrong}")
    parameter = max(ours[1], key=apart.__getitem__)
    say(f"{network}: {name} computes the same; of all gradients {parameter}'s is furthest, {apart[parameter]:.0e}")
    return {"loss": apart["loss"], "gradient": apart[parameter], "parameter": parameter}


def steps(options: Options) -> list[Result]:
    """Training steps and inference, by network and batch, with so many threads."""
    results = []
    for network in options.networks:
        for batch in options.batches_of(network):
            contenders = [*options.contenders("Network", network, batch), options.floor(network, batch)]
            label, fewest = f"{network}, batch {batch}, threads {options.threads}, ", 5 if batch <= 128 else 3
            with running(*contenders):
                before = {c.name: c.ask("peak") for c in contenders}
                step = options.play(contenders, ["step"], label, 40, fewest)
                peak = {c.name: c.ask("peak") for c in contenders}
                inference = options.play(contenders, ["inference"], label, 15, fewest)
            results.append({
                "network": network, "batch": batch, "threads": options.threads, "step": step, "inference": inference,
                "memory": {"before": before, "peak": peak}, "libraries": {c.name: c.threads for c in contenders},
            })  # fmt: skip
    return results


def layers(options: Options) -> list[Result]:
    """Each layer forward and backward."""
    results = []
    for network in options.networks:
        batch = options.batch_of(network)
        with running(*options.contenders("Layers", network, batch), options.floor(network, batch)) as contenders:
            names = [*(layer.name for layer in networks.layers(networks.build(network))), "loss", "sgd"]
            tasks = [f"{name}{way}" for name in names for way in (" forward", " backward", "")]
            tasks = [task for task in tasks if task in contenders[0].tasks]
            result = options.play(contenders, tasks, f"{network}, batch {batch}, ", 25)
        results.append({"network": network, "batch": batch, **result})
    return results


def threads(options: Options) -> Result:
    """A training step of minicnn with one thread against all."""
    batch = options.batch_of("2012")
    counts = {"1 thread": 1, f"{options.threads} threads": options.threads}
    with running(*[options.ours("Network", "2012", batch, threads=n, name=c) for c, n in counts.items()]) as contenders:
        step = options.play(contenders, ["step"], f"2012, batch {batch}, ", 30)
    return {"network": "2012", "batch": batch, **step}


def ops(options: Options) -> Result:
    """Single operations over sizes."""
    cases = [case for case in CASES if case.work < 0.02 or not options.quick]
    with running(*options.pair("Operations")) as contenders:
        tasks = [f"{case.name} {way}" for case in cases for way in ("forward", "backward")]
        result = options.play(contenders, tasks, "", 25)
    return {"cases": [{"name": case.name, "work": case.work, "unit": case.unit} for case in cases], **result}


def engine(options: Options) -> Result:
    """What a node costs forward and backward, and what AlexNet's nodes make of a training step at
    batch 1."""
    with running(*options.pair("Chains")) as contenders:
        tasks = [name for op in CHAINS for name in (op, f"numpy {op}")]
        chains = options.play(contenders, tasks, f"{CHAIN} times ", 10)
    with running(options.ours("Network", "2012", 1)) as contenders:
        nodes = contenders[0].ask("nodes")
        step = options.play(contenders, ["step"], "2012, batch 1, ", 5)
    return {"chain": CHAIN, "numpy calls": CHAINS, "nodes": nodes, "step": step, **chains}
