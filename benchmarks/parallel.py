"""Training on several processes: minicnn's ways of dividing the work beside PyTorch's
DistributedDataParallel, taking turns on the same cores."""

from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from . import cable, machine, networks
from .jobs import Job
from .report import DISTURBED, KEPT, MEDIANS, cell, described, median, number, page, publish, shown, table, to_json
from .sections import OURS, Result, say
from .turns import BenchmarkError, measure, ratios, running, spread

WAYS = "data", "sharded", "hybrid", "columns"
DDP, DDP_BEST, ALONE = "PyTorch DDP", "PyTorch DDP best", "PyTorch, one process"
CLOSE = 0.01  # how far the decrease of the loss in a first step may be apart, relative


class Options(NamedTuple):
    processes: list[int]
    batch: int
    ways: tuple[str, ...] = WAYS
    threads: int | None = None  # of each process; the cores are divided among them, unless told
    rounds: int | None = None
    limit: float = 300.0  # seconds, after which no round begins
    pytorch: bool = True
    quick: bool = False
    bandwidth: float | None = None  # Gbit/s
    watched: bool = True  # rounds that other processes disturb are thrown away

    @property
    def network(self) -> str:
        return networks.TINY if self.quick else "2012"

    def threads_of(self, processes: int) -> int:
        return self.threads or max(1, len(machine.cores()) // processes)


def name_of(way: str, processes: int) -> str:
    return f"{OURS} {way}, {processes}" if processes > 1 else f"{OURS}, one process"


def jobs(options: Options, connection: cable.Cable | None) -> Iterator[Job]:
    """The contenders, in the order of their turns."""
    for n in options.processes:
        threads, work = options.threads_of(n), (options.network, options.batch)
        if options.pytorch:
            for name, best in {DDP: False, DDP_BEST: True}.items() if n > 1 else {ALONE: False}.items():
                label = name if n == 1 else f"{name}, {n}"
                yield Job(label, threads, "pytorch:Distributed", *work, best, processes=n, mpi=False, cable=connection)
        for way in options.ways if n > 1 else ("data",):
            if way != "columns" or (n == 2 and not options.quick):
                name = name_of(way, n)
                yield Job(name, threads, "ours:Parallel", *work, way, processes=n, mpi=True, cable=connection)


def run(options: Options) -> Result:
    """Measure all of it."""
    connected = cable.cable(options.bandwidth, max(options.processes)) if options.bandwidth else nullcontext()
    until = perf_counter() + options.limit
    with connected as connection, ExitStack() as stack:
        contenders: list[Job] = []
        for job in jobs(options, connection):
            stack.callback(job.end)
            contenders.append(job)
        with running(*contenders):
            agree(contenders)
            rounds, budget = options.rounds or (3 if options.quick else None), options.limit
            busy = machine.busy if options.watched else lambda: None
            tasks = ["step", "after", "alone"]
            measured = measure(contenders, tasks, rounds, budget, 3, 0.0, busy, until=until)
            notes = {job.name: job.ask("notes") for job in contenders}
    return {
        "machine": machine.describe(options.threads_of(1)), "batch": options.batch, "network": options.network,
        "bandwidth": options.bandwidth, "watched": options.watched,
        "processes": {job.name: job.processes for job in contenders},
        "threads": {job.name: job.asked for job in contenders}, "notes": notes, **enough(measured, options.limit),
    }  # fmt: skip


def enough(measured: Result, limit: float) -> Result:
    """What measure has returned. Raises BenchmarkError if it kept fewer than three rounds, or fewer
    than it was asked for."""
    kept = min(len(seconds) for seconds in measured["seconds"]["step"].values())
    if kept < min(3, kept + measured["missing"]):
        raise BenchmarkError(
            f"{kept} undisturbed rounds in {limit:g} s, where three are needed, and {measured['discarded']} that other "
            "processes disturbed: give more time with --limit, end them, or keep those rounds with --anyway"
        )
    return measured


def agree(contenders: list[Job]) -> None:
    """All take the same first step: without dropout, the loss falls by as much. (Columns normalize
    their halves by themselves; that makes less of a difference.)"""
    expected = None
    for job in contenders:
        losses = job.ask_all("decrease")  # of equal numbers of rows, or of all
        before, after = (sum(part) / len(losses) for part in zip(*losses, strict=True))
        say(f"{job.name}: the first step takes the loss from {before:.4f} to {after:.4f}")
        expected = expected or (before, before - after)
        found = (before, before - after)
        close = [abs(ours / theirs - 1) < CLOSE for ours, theirs in zip(found, expected, strict=True)]
        if not all(close):  # NaN is not either
            raise BenchmarkError(f"{job.name} and {contenders[0].name} do not compute the same: see above")


# ------------------------------------------------------------------------------------------- report
def best_ddp(results: Result, processes: int) -> str | None:
    """The faster of PyTorch's configurations."""
    steps = results["seconds"]["step"]
    names = [f"{name}, {processes}" for name in (DDP, DDP_BEST) if f"{name}, {processes}" in steps]
    return min(names, key=lambda name: median(steps[name]), default=None)


def rows(results: Result) -> Iterator[list[str]]:
    """The lines of the table: each contender, and below it its variations."""
    variations = {"step": "", "after": ", gradients sent after the backward pass", "alone": ", nothing sent (no_sync)"}
    steps = results["seconds"]["step"]
    for name, n in results["processes"].items():
        reference = best_ddp(results, max(n, 2) if n > 1 else max(results["processes"].values()))
        for task, words in variations.items():
            seconds = results["seconds"][task].get(name)
            if seconds is None:
                continue
            noted = results["notes"][name].get(task, {})
            ratio = ratios({name: steps[reference], "": seconds}, name, "") if reference else None
            yield [
                name + words, str(results["threads"][name]), shown(spread(seconds), 1e3),
                number(results["batch"] / median(seconds)), shown(ratio),
                cell(median(noted.get("waited", []), 1e3)) if n > 1 else "–",
                cell(median(noted.get("received", []), 1e-6)) if n > 1 else "–",
                cell(median(noted.get("cable", []), 1e-6)),
            ]  # fmt: skip


def markdown(results: Result) -> str:
    m, bandwidth = results["machine"], results["bandwidth"]
    pytorch = [f"PyTorch {m['pytorch']}"] if any("PyTorch" in name for name in results["processes"]) else []
    over = f"a cable of {bandwidth:g} Gbit/s between two network namespaces" if bandwidth else "this machine's memory"
    thrown = f"{DISTURBED} ({results['discarded']})"
    disturbed = thrown if results["watched"] else KEPT
    kept = len(next(iter(results["seconds"]["step"].values())))
    blocks = [
        "# Training on several processes",
        described(m, *pytorch),
        f"Training steps of the {results['network']} network with dropout, SGD with momentum and weight decay, "
        f"{results['batch']} images for all processes together, over {over}. All took the same first step, which was "
        f"checked. They took turns of three steps; {kept} rounds. {MEDIANS} {disturbed}.",
        "**PyTorch DDP** is DistributedDataParallel over gloo as it comes; **best** with channels_last, fused SGD, "
        "gradients as views of the buckets, and a static graph. Times DDP's speed: how many times as long as each of "
        f"these the faster one of the two took. {OURS} divides the work over MPI in the ways of train.py's --parallel.",
        table(
            ["contender, processes", "threads of each", "step, ms", "images/s", "times DDP's speed",
             "of it waiting for sums, ms", "MB received by each", "MB sent over the cable by each"], *rows(results),
        ),
    ]  # fmt: skip
    return page(blocks)


def write(results: Result, folder: Path) -> None:
    """parallel.md for people, parallel.json for programs; over a cable, parallel-cable.*"""
    name = "parallel-cable" if results["bandwidth"] else "parallel"
    publish(folder, {f"{name}.md": lambda: markdown(results), f"{name}.json": lambda: to_json(results)})
    print(markdown(results), end="")
