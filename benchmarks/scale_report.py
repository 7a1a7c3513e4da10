"""What `python -m benchmarks scale` measures, and its report."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.options import UsageError

from . import machine, networks
from .jobs import Job
from .report import described, median, number, page, publish, table, to_json
from .scale import WAYS, Costs, Layer, Link, layers_of, speedups, step_time, stops, traffic
from .sections import OURS, Result
from .turns import running

ROWS = 32  # in the batch of which one worker is timed
MEGA = 1e6


def run(given: argparse.Namespace) -> Result:
    """All that the report says."""
    layers = of_network("2012")
    if given.step is None:
        costs, measured = measure(), True
    else:
        times = (given.step, given.fixed, given.linear, given.optimizer)
        costs, measured = Costs(ROWS, *(milliseconds / 1e3 for milliseconds in times)), False
    link = Link(given.bandwidth * 1e9 / 8, given.latency / 1e3)
    return {
        "machine": machine.describe(1), "costs": costs._asdict(), "measured": measured, "link": link._asdict(),
        "batch": given.batch, "each": given.each,
        "bytes": {way: bytes_by_layer(layers, way, given.batch) for way in WAYS},
        "strong": predicted(layers, costs, link, given.most, given.batch, weak=False),
        "weak": predicted(layers, costs, link, given.most, given.each, weak=True),
        "here": compare(costs, load(given.measured)) if given.measured else [],
    }  # fmt: skip


def of_network(network: str) -> list[Layer]:
    return layers_of(networks.build(network), networks.pictures(network, 1)[0].shape[1:])


def measure() -> Costs:
    """Time one worker with one thread, on a batch and on half of it."""
    seconds, notes = {}, {}
    for rows in (ROWS, ROWS // 2):
        job = Job(OURS, 1, "ours:Parallel", networks.YEARS[0], rows, "data", processes=1, mpi=True)
        with running(job):
            steps = {"step": job.ask("warm_up", "step", 0.0)}
            turns = [job.ask("turn", steps).seconds["step"] for _ in range(2)]
            notes[rows] = {name: median(values) for name, values in job.ask("notes")["step"].items()}
            seconds[rows] = median(turns) - notes[rows]["update"]
    fixed = max(0.0, 2 * seconds[ROWS // 2] - seconds[ROWS])
    return Costs(ROWS, seconds[ROWS], fixed, notes[ROWS]["linear"], notes[ROWS]["update"])


def bytes_by_layer(layers: list[Layer], way: str, batch: int) -> dict[str, list[float]]:
    """What each of two workers receives, forward and backward."""
    found = traffic(layers, way, 2, batch)
    return {layer.name: [t.forward, t.backward] for layer, t in zip(layers, found, strict=True)}


def predicted(layers: list[Layer], costs: Costs, link: Link, most: int, batch: int, weak: bool) -> Result:
    """The speed-ups of each way, by the number of workers, without overlap and with it. Each worker
    needs a row of the batch, or each pair of columns."""

    def found(way: str, overlap: bool) -> dict[int, float]:
        rows = most if weak else batch * (2 if way == "columns" else 1)
        return speedups(
            lambda n: step_time(layers, costs, link, way, n, batch * n if weak else batch, overlap),
            min(most, rows), weak,
        )  # fmt: skip

    return {way: [found(way, overlap) for overlap in (False, True)] for way in WAYS}


# ------------------------------------------------------------------------- beside what was measured
def load(path: Path) -> Result:
    """What `python -m benchmarks parallel` has measured."""
    try:
        results: Result = json.loads(path.read_text(encoding="utf-8"))
        threads = set(results["threads"].values())
        base = results["seconds"]["step"][f"{OURS}, one process"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--measured {path} is not a parallel.json of `parallel --processes 1,2,4 --threads 1` "
            f"({type(error).__name__}: {error})"
        ) from None
    if threads != {1} or not base:
        raise UsageError(f"--measured {path}: each process has to have one thread: add --threads 1 to `parallel`")
    return results


def compare(costs: Costs, results: Result) -> list[Result]:
    """Predicted and measured speed-ups. One worker's times and the bandwidth are those that were
    measured there: the bandwidth is that of sums after the backward pass, of two workers."""
    layers = of_network(results["network"])
    steps, notes, alone = results["seconds"], results["notes"], f"{OURS}, one process"
    own = notes[alone]["step"]
    update, step = median(own["update"]), median(steps["step"][alone])
    costs = Costs(
        results["batch"], step - update, costs.fixed / costs.step * (step - update), median(own["linear"]), update
    )
    after = notes.get(f"{OURS} data, 2", {}).get("after")
    if not after:
        raise UsageError("--measured: the run has no data parallel training on 2 processes")
    link = Link(median(after["received"]) / median(after["waited"]), 0.0)
    found = []
    for name, n in results["processes"].items():
        way = name.removeprefix(f"{OURS} ").partition(",")[0]
        for task, overlap in {"step": True, "after": False}.items():
            if n > 1 and name.startswith(f"{OURS} ") and way in WAYS and name in steps[task]:
                time = step_time(layers, costs, link, way, n, results["batch"], overlap, results["machine"]["cores"])
                computed = sum(t.forward + t.backward for t in traffic(layers, way, n, results["batch"]))
                found.append({
                    "way": way, "workers": n, "overlap": overlap, "predicted": step / time,
                    "measured": step / median(steps[task][name]), "computed": computed / MEGA,
                    "megabytes": median(notes[name][task]["received"]) / MEGA,
                })  # fmt: skip
    return found


# ------------------------------------------------------------------------------------------- report
def write(results: Result, folder: Path) -> None:
    """scale.md for people, scale.json for programs."""
    publish(folder, {"scale.md": lambda: markdown(results), "scale.json": lambda: to_json(results)})
    print(markdown(results), end="")


def markdown(results: Result) -> str:
    costs, link, measured = results["costs"], results["link"], results["measured"]
    times = ", ".join(f"{words} {number(1e3 * costs[name])} ms" for name, words in {
        "step": "forward and backward pass", "fixed": "of it independent of the batch", "linear":
        "backward pass of the linear layers", "optimizer": "optimizer",
    }.items())  # fmt: skip
    blocks = [
        "# Training on 1 to 1024 workers, predicted",
        described(results["machine"]),
        f"The 2012 network. One worker, with a batch of {costs['rows']}: {times} "
        f"({'measured here, one thread' if measured else 'as given'}). Links of "
        f"{number(link['bandwidth'] * 8e-9)} Gbit/s with a latency of {number(link['latency'] * 1e6)} µs. "
        "benchmarks/scale.py has the model. A way stops paying where its efficiency falls below 50%, or where it is "
        "no faster than with half of the workers.",
        "**data**: each worker has the whole network and some rows. **hybrid**: the linear layers are divided by "
        "their outputs. **columns**: two halves of the network; more than two workers are pairs of halves, each pair "
        "with some rows, which train.py does not do: its --parallel columns is for two.",
        "## What each of two workers receives in a step",
        f"Megabytes by layer, forward and backward, for {results['batch']} images. fc8 has the logits with it.",
        _bytes(results["bytes"]),
        f"## Strong scaling: {results['batch']} images for all workers",
        *_speedups(results["strong"]),
        f"## Weak scaling: {results['each']} images for each worker",
        *_speedups(results["weak"]),
    ]
    if results["here"]:
        blocks += ["## Predicted and measured", *_here(results["here"])]
    return page(blocks)


def _bytes(found: dict[str, dict[str, list[float]]]) -> str:
    head = ["layer", *(f"{way}, {when}" for way in found for when in ("forward", "backward"))]
    names = list(found[WAYS[0]])
    rows = [[name, *(_megabytes(x) for way in found for x in found[way][name])] for name in names]
    sums = [sum(layer[i] for layer in found[way].values()) for way in found for i in (0, 1)]
    return table(head, *rows, ["all", *map(_megabytes, sums)])


def _megabytes(nbytes: float) -> str:
    return number(nbytes / MEGA) if nbytes else "–"


def _speedups(found: Result) -> Iterator[str]:
    yield "Times as many images a second as one worker; in parentheses, without overlap."
    workers = max((without for without, _ in found.values()), key=len)
    rows = [
        [str(n), *(f"{number(b[n])} ({number(a[n])})" if n in a else "–" for a, b in found.values())] for n in workers
    ]
    yield table(["workers", *found], *rows)
    for way, (without, overlapped) in found.items():
        yield f"**{way}** {stops(overlapped)}; without overlap, it {stops(without)}."


def _here(found: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        "The times of one worker and the bandwidth are of that run. The model does not know that workers of one "
        "machine share its memory and caches, and take turns where there are more of them than cores. Bytes as they "
        "are computed above, and as the workers counted them."
    )
    yield table(
        ["way", "workers", "overlap", "predicted speed-up", "measured", "MB computed", "counted"],
        *([f["way"], str(f["workers"]), "yes" if f["overlap"] else "no",
           *(number(f[name]) for name in ("predicted", "measured", "computed", "megabytes"))] for f in found),
    )  # fmt: skip
