"""The three files of a run: Markdown for people, JSON for programs, and a chart. Made from the same numbers."""

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .chart import draw
from .sections import BEST, DEFAULT, FLOOR, OURS, Result
from .turns import Spread, ratios, spread


def write(results: Result, folder: Path) -> None:
    """cpu.md, cpu.json and cpu.png."""
    publish(folder, {
        "cpu.md": lambda path: path.write_text(markdown(results), encoding="utf-8"),
        "cpu.json": lambda path: path.write_text(to_json(results), encoding="utf-8"),
        "cpu.png": lambda path: draw(results, path),
    })  # fmt: skip


def publish(folder: Path, files: dict[str, Callable[[Path], Any]]) -> None:
    """Write files by their names, all or none: the old ones stay until all new ones are there."""
    fresh = {folder / f".{os.getpid()}-{name}": folder / name for name in files}
    try:
        for path, write in zip(fresh, files.values(), strict=True):
            write(path)
        for path, name in fresh.items():
            os.replace(path, name)
    finally:
        for path in fresh:
            path.unlink(missing_ok=True)


def to_json(results: Result) -> str:
    """Numbers to five digits, a list of numbers on one line; null for what was not measured."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(v) for key, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [rounded(v) for v in value]
        if isinstance(value, float):
            return float(f"{value:.5g}") if math.isfinite(value) else None
        return value

    text = json.dumps(rounded(results), indent=1, ensure_ascii=False)
    return re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def markdown(results: Result) -> str:
    parts = {"steps": _steps, "layers": _layers, "threads": _threads, "ops": _ops, "engine": _engine}
    blocks = ["# minicnn on a CPU", *_conditions(results)]
    for name, part in parts.items():
        blocks += part(results[name]) if name in results else []
    return "\n\n".join(blocks) + "\n"


def _conditions(results: Result) -> Iterator[str]:
    m = results["machine"]
    yield (
        f"{m['date']}. {m['processor']}, {m['cores']} cores, caches {m['caches']}, {m['memory_gib']} GiB, "
        f"{m['system']}. Python {m['python']}, NumPy {m['numpy']} with {m['blas']}, minicnn "
        f"{m['minicnn'] or 'from source'}, PyTorch {m['pytorch'] or '(not compared)'}. {m['threads']} threads, float32."
    )
    yield (
        f"**{OURS}** through its public API. **{DEFAULT}** as it comes; **{BEST}** with channels_last for network and "
        f"images, and SGD(fused=True). The **{FLOOR}** is the network's matrix products, as im2col makes them, through "
        "the same BLAS on operands that lie ready, and nothing else; Winograd's way takes fewer products, so layers of "
        "3 × 3 kernels may lie below it."
    )
    found = list(_measurements(results))
    lost, missing = sum(f["discarded"] for f in found), sum(f["missing"] > 0 for f in found)
    watched = (
        f"Rounds in which other processes took more than 5% of the cores' time were thrown away: {lost} in "
        f"{len(found)} measurements."
        if results["watched"]
        else "**This system does not tell whether other processes took the machine: no round was thrown away.**"
    )
    yield (
        "Each has a process of its own, with the same weights and images, and one turn in every round, while the others"
        " sleep. Medians with quartiles (extremes, of fewer than five rounds); ratios are taken within each round. "
        + watched
        + (f" **{missing} of them ended with fewer rounds than planned: the machine was too busy.**" if missing else "")
    )
    for what, apart in results["agreement"].items():
        yield (
            f"Checked first ({what}): the loss differs from minicnn's by {apart['loss']:.0e}, no gradient by more than "
            f"{apart['gradient']:.0e} of its norm ({apart['parameter']})."
        )


def _measurements(value: Any) -> Iterator[Result]:
    if isinstance(value, dict) and "discarded" in value:
        yield value
    if isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _measurements(part)


def table(head: list[str], *rows: list[str]) -> str:
    rows = tuple([cell.replace("|", "\\|") for cell in row] for row in (head, ["---"] * len(head), *rows))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def number(x: float) -> str:
    return f"{x:.3g}" if abs(x) < 1000 else f"{x:,.0f}"


def shown(s: Spread | None, scale: float = 1.0) -> str:
    return "{} ({} to {})".format(*(number(x * scale) for x in s)) if s else "–"


def _median(seconds: dict[str, list[float]], name: str, scale: float = 1e3) -> str:
    s = spread(seconds.get(name, []))
    return number(s.median * scale) if s else "–"


def _steps(results: list[Result]) -> Iterator[str]:
    names = list(results[0]["step"]["seconds"]["step"])
    compared, times, memory = [], [], []
    for way in ("step", "inference"):
        for r in results:
            seconds, label = r[way]["seconds"][way], [r["network"], str(r["batch"]), way]
            counts = f"{len(seconds[OURS])} ({r[way]['discarded']})"
            compared.append([*label, *(shown(ratios(seconds, name, OURS)) for name in names[1:]), counts])
            speeds = [f"{r['batch'] / s.median:.3g}" if (s := spread(seconds[n])) else "–" for n in names]
            times.append([*label, *(shown(spread(seconds[n]), 1e3) for n in names), *speeds])
    for r in results:
        before, peak, faults = r["memory"]["before"], r["memory"]["peak"], r["step"]["faults"]["step"]
        sizes = [f"{number(peak[n])} ({number(before[n])})" for n in names]
        memory.append([r["network"], str(r["batch"]), *sizes, *(number(faults[n]) for n in names)])
    yield "## Training step and inference"
    yield (
        f"How many times as long as {OURS}: above 1, {OURS} is faster. A step is zero_grad, forward with dropout, loss,"
        " backward, and SGD with momentum and weight decay."
    )
    yield table(["network", "batch", "", *names[1:], "rounds (thrown away)"], *compared)
    yield table(["network", "batch", "", *(f"{n}, ms" for n in names), *(f"{n}, images/s" for n in names)], *times)
    yield (
        "Peak memory in MiB (in brackets: before the first step, with libraries, weights and images), and minor page "
        "faults a step, after the first two:"
    )
    yield table(["network", "batch", *(f"{n}, MiB" for n in names), *(f"{n}, faults" for n in names)], *memory)


def _layers(results: list[Result]) -> Iterator[str]:
    ways = ("forward", "backward")
    for r in results:
        seconds = r["seconds"]
        names = list(seconds["conv1 forward"])
        rows = []
        for layer in dict.fromkeys(task.split()[0] for task in seconds):
            passes = [seconds.get(f"{layer} {way}") or {} for way in ways]
            if layer in seconds:
                passes[1] = seconds[layer]
            rows.append([layer, *(_median(times, name) for times in passes for name in names)])
        sums = [sum(_numbers(row[i + 1] for row in rows)) for i in range(2 * len(names))]
        yield f"## Layers of the {r['network']} network, batch {r['batch']}"
        yield (
            f"Milliseconds, medians of {len(seconds['conv1 forward'][OURS])} rounds. conv1 makes no gradient for the "
            "images; sgd is the optimizer's step."
        )
        head = ["layer", *(f"{way}, {name}" for way in ways for name in names)]
        yield table(head, *rows, ["sum", *map(number, sums)])


def _numbers(cells: Iterator[str]) -> Iterator[float]:
    return (float(cell.replace(",", "")) for cell in cells if cell != "–")


def _threads(r: Result) -> Iterator[str]:
    seconds = r["seconds"]["step"]
    one, several = seconds
    yield "## Threads"
    yield (
        f"A training step of the {r['network']} network at batch {r['batch']}: {_median(seconds, one)} ms with {one}, "
        f"{_median(seconds, several)} ms with {several}, {shown(ratios(seconds, one, several))} times as fast."
    )


def _ops(results: Result) -> Iterator[str]:
    rows = []
    for case in results["cases"]:
        ways = [results["seconds"][f"{case['name']} {way}"] for way in ("forward", "backward")]
        names = list(ways[0])
        rates = [f"{case['work'] / s.median:.3g}" if (s := spread(ways[0][n])) else "–" for n in names]
        times = [_median(seconds, name, 1e6) for name in names for seconds in ways]
        rows.append([case["name"], *times, *rates, case["unit"]])
    heads = [f"{name}, {way}" for name in names for way in ("forward", "backward")]
    yield "## Single operations"
    yield (
        "Microseconds, and the rate of the forward pass: floating-point operations, or bytes that must be read and "
        "written once."
    )
    yield table(["operation", *heads, *(f"{name}, rate" for name in names), "unit"], *rows)


def _engine(r: Result) -> Iterator[str]:
    names = list(r["seconds"]["add"])
    rows, costs, scale = [], [], 1e6 / r["chain"]
    for op, calls in r["numpy calls"].items():
        row = [op, *(_median(r["seconds"][op], name, scale) for name in names)]
        whole, one = (spread(r["seconds"][task][OURS]) for task in (op, f"numpy {op}"))
        if whole and one:
            arithmetic = sum(calls) * one.median
            costs.append((whole.median - arithmetic) * scale)
            row += [f"{arithmetic * scale:.3g}", f"{costs[-1]:.3g}"]
        rows.append(row)
    yield "## The engine"
    yield (
        f"Microseconds for a node, forward and backward, in a chain of {r['chain']} operations on one number; what "
        f"NumPy takes for the same arithmetic; and the difference, {OURS}'s own cost."
    )
    yield table(["operation", *names, "NumPy", "difference"], *rows)
    step = spread(r["step"]["seconds"]["step"][OURS])
    if step and costs:
        share = r["nodes"] * max(costs) * 1e-6 / step.median
        yield (
            f"A training step of the 2012 network records {r['nodes']} nodes. At {max(costs):.3g} µs each they are "
            f"{share:.2%} of a step at batch 1, which takes {step.median * 1e3:.3g} ms."
        )
