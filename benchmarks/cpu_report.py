"""The report of a run on a CPU."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .machine import AVX2
from .report import (
    COLORS,
    DISTURBED,
    KEPT,
    MEDIANS,
    WAYS,
    Groups,
    bars,
    by_contender,
    cell,
    contenders,
    described,
    median,
    number,
    page,
    publish,
    shown,
    speeds,
    steps,
    table,
    to_json,
)  # fmt: skip
from .sections import BEST, COMPILED, DEFAULT, FLOOR, OURS, Result, by
from .turns import ratios, spread

OTHERS = {
    by("native"): "by the native backend", by("numpy"): "by the NumPy backend",
    by("reference"): "by the lessons as they are written, with one thread",
}  # fmt: skip


def write(results: Result, folder: Path) -> None:
    """cpu.md for people, cpu.json for programs, and cpu.png."""
    publish(folder, {
        "cpu.md": lambda: markdown(results), "cpu.json": lambda: to_json(results), "cpu.png": lambda: draw(results),
    })  # fmt: skip


def markdown(results: Result) -> str:
    parts = {"steps": _steps, "layers": _layers, "threads": _threads, "ops": _ops, "engine": _engine}
    blocks = ["# minicnn on a CPU", *_conditions(results)]
    for name, part in parts.items():
        blocks += part(results[name]) if name in results else []
    return page(blocks)


def _conditions(results: Result) -> Iterator[str]:
    m = results["machine"]
    yield described(m, f"PyTorch {m['pytorch'] or '(not compared)'}") + f" {m['threads']} threads, float32."
    ours = {OURS: f"through its public API by the backend {m['backend']}"}
    for name in contenders(results.get("steps", [])):
        ours |= {name: OTHERS[name]} if name in OTHERS else {}
    yield (
        ", ".join(f"**{name}** {words}" for name, words in ours.items()) + f". **{DEFAULT}** as it comes; **{BEST}** "
        f"with channels_last for network and images, and SGD(fused=True); **{COMPILED}** is that through torch.compile,"
        f" once it has compiled. The **{FLOOR}** is the network's matrix products, as im2col makes them, through the "
        "same BLAS on operands that lie ready, and nothing else; the Winograd algorithm takes fewer multiplications, "
        "so layers of 3 × 3 kernels may lie below it."
    )
    if results.get("avx2"):
        held = " ".join(f"{name}={value!r}" for name, value in AVX2.items())
        yield f"**All of them are held to AVX2**, by the environment: {held}."
    yield from (f"**{problem}.**" for problem in results.get("problems", []))
    found = list(_measurements(results))
    lost, missing = sum(f["discarded"] for f in found), sum(f["missing"] > 0 for f in found)
    watched = (
        f"{DISTURBED}: {lost} in {len(found)} measurements."
        if results["watched"]
        else f"{KEPT}."
        if results.get("anyway")
        else "**This system does not tell whether other processes took the machine: no round was thrown away.**"
    )
    yield (
        "Each has a process of its own, with the same weights and images, and one turn in every round, while the others"
        f" sleep. {MEDIANS} {watched}"
        + (f" **{missing} of them ended with fewer rounds than planned: the machine was too busy.**" if missing else "")
    )
    if results["agreement"]:
        yield (
            f"Checked first, in training mode without dropout: how far the loss is from {OURS}'s, and the gradient that"
            " is furthest, of its norm."
        )
        rows = [
            [what, f"{apart['loss']:.0e}", f"{apart['gradient']:.0e}", apart["parameter"]]
            for what, apart in results["agreement"].items()
        ]
        yield table(["network, contender, batch", "loss", "gradient", "of"], *rows)


def _measurements(value: Any) -> Iterator[Result]:
    if isinstance(value, dict) and "discarded" in value:
        yield value
    if isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _measurements(part)


def _steps(results: list[Result]) -> Iterator[str]:
    keys = ["network", "batch", "threads"]
    yield "## Training step and inference"
    yield "A step is zero_grad, forward with dropout, loss, backward, and SGD with momentum and weight decay."
    yield from steps(results, keys)
    yield (
        "Peak memory in MiB (in brackets: before the first step, with libraries, weights and images; what compiling "
        "takes is in it), and minor page faults a step, after the first two:"
    )
    yield by_contender(
        results, keys,
        MiB=lambda r, name: f"{number(r['memory']['peak'][name])} ({number(r['memory']['before'][name])})",
        faults=lambda r, name: cell(r["step"]["faults"]["step"][name]),
    )  # fmt: skip


def _layers(results: list[Result]) -> Iterator[str]:
    ways = ("forward", "backward")
    for r in results:
        seconds = r["seconds"]
        first = next(iter(seconds))
        names = list(seconds[first])
        rows = []
        for layer in dict.fromkeys(task.split()[0] for task in seconds):
            passes = [seconds.get(f"{layer} {way}") or {} for way in ways]
            if layer in seconds:
                passes[1] = seconds[layer]
            rows.append([layer, *(_milliseconds(times, name) for times in passes for name in names)])
        sums = [sum(_numbers(row[i + 1] for row in rows)) for i in range(2 * len(names))]
        yield f"## Layers of the {r['network']} network, batch {r['batch']}"
        yield (
            f"Milliseconds, medians of {len(seconds[first][OURS])} rounds. {first.split()[0]} makes no gradient for "
            "the images; sgd is the optimizer's step."
        )
        head = ["layer", *(f"{way}, {name}" for way in ways for name in names)]
        yield table(head, *rows, ["sum", *map(number, sums)])


def _milliseconds(seconds: dict[str, list[float]], name: str) -> str:
    return cell(median(seconds.get(name, []), 1e3))


def _numbers(cells: Iterator[str]) -> Iterator[float]:
    return (float(cell.replace(",", "")) for cell in cells if cell != "–")


def _threads(r: Result) -> Iterator[str]:
    seconds = r["seconds"]["step"]
    times = [f"{_milliseconds(seconds, count)} ms with {count}" for count in seconds]
    yield "## Threads"
    yield (
        f"A training step of the {r['network']} network at batch {r['batch']}: {', '.join(times)}, "
        f"{shown(ratios(seconds, *seconds))} times as fast."
    )


def _ops(results: Result) -> Iterator[str]:
    rows = []
    for case in results["cases"]:
        ways = [results["seconds"][f"{case['name']} {way}"] for way in ("forward", "backward")]
        names = list(ways[0])
        rates = [f"{case['work'] / s.median:.3g}" if (s := spread(ways[0][n])) else "–" for n in names]
        times = [cell(median(seconds[name], 1e6)) for name in names for seconds in ways]
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
        row = [op, *(cell(median(r["seconds"][op][name], scale)) for name in names)]
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


# ---------------------------------------------------------------------------------------- the chart
def draw(results: Result) -> Figure:
    """A row of panels for steps and inference, and one for each network whose layers were
    measured."""
    panels: list[tuple[str, str, Groups]] = []  # title, unit, groups
    if "steps" in results:
        titles = dict(zip(WAYS, ("Training step", "Inference"), strict=True))
        measured = [r for r in results["steps"] if r["threads"] == results["machine"]["threads"]]
        unit = f"images a second, where {OURS}'s are 1"
        panels += [(f"{titles[w]}, by batch and network", unit, _relative(speeds(measured, w))) for w in WAYS]
    for r in results.get("layers", []):
        titles = {"forward": "forward", "backward": "backward, and the optimizer"}
        about = f"{r['network']}, batch {r['batch']}: "
        panels += [(about + titles[way], "milliseconds", _by_layer(r["seconds"], way)) for way in titles]
    rows = len(panels) // 2
    figure = Figure(figsize=(13, 0.6 + 4.4 * rows), layout="constrained")
    for i, panel in enumerate(panels):
        bars(figure.add_subplot(rows, 2, i + 1), *panel)
    if figure.axes:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    m = results["machine"]
    figure.suptitle(f"minicnn and PyTorch {m['pytorch'] or ''}\n{m['processor']}, {m['threads']} threads, float32")
    return figure


def _relative(groups: Groups) -> Groups:
    """The same as multiples of minicnn's."""
    return [(label, {name: x / values[OURS] for name, x in values.items()}) for label, values in groups if values]


def _by_layer(seconds: Result, way: str) -> Groups:
    """Layers that take a fiftieth of the time or more; the others together."""
    found = []
    for task in seconds:
        layer, _, direction = task.partition(" ")
        if (direction or "backward") == way:
            found.append((layer, {name: median(times, 1e3) for name, times in seconds[task].items() if times}))
    least = sum(max(values.values(), default=0) for _, values in found) / 50
    large = [group for group in found if max(group[1].values(), default=0) >= least]
    small = [group[1] for group in found if group not in large]
    return [*large, ("the rest", {name: sum(v.get(name, 0) for v in small) for name in COLORS})]
