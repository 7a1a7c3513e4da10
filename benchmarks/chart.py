"""The chart: images a second by batch, and where the time goes, layer by layer."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .sections import BEST, COMPILED, DEFAULT, FLOOR, OURS, Result
from .turns import spread

COLORS = {OURS: "#0b6e99", DEFAULT: "#e8b088", BEST: "#c0563f", COMPILED: "#7d8f69"}
Groups = list[tuple[str, dict[str, float]]]  # label, and a number for each contender


def draw(results: Result, path: Path) -> None:
    """A row of panels for steps and inference, and one for each network whose layers were measured."""
    rows: list[list[tuple[str, str, Groups]]] = []  # title, unit, groups
    if "steps" in results:
        titles = {"step": "Training step, by batch and network", "inference": "Inference, by batch and network"}
        rows.append([(titles[way], "images a second", _speeds(results["steps"], way)) for way in titles])
    for r in results.get("layers", []):
        titles = {"forward": "forward", "backward": "backward, and the optimizer"}
        about = f"{r['network']}, batch {r['batch']}: "
        rows.append([(about + titles[way], "milliseconds", _layers(r["seconds"], way)) for way in titles])
    figure = Figure(figsize=(13, 0.6 + 4.4 * len(rows)), layout="constrained")
    for i, panel in enumerate(panel for row in rows for panel in row):
        bars(figure.add_subplot(len(rows), 2, i + 1), *panel)
    if figure.axes:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    m = results["machine"]
    figure.suptitle(f"minicnn and PyTorch {m['pytorch'] or ''}\n{m['processor']}, {m['threads']} threads, float32")
    figure.savefig(path, dpi=110, format="png")


def _speeds(results: list[Result], way: str) -> Groups:
    return [
        (
            f"{r['batch']}\n{r['network']}",
            {name: r["batch"] / t for name, t in _medians(r[way]["seconds"][way]).items()},
        )
        for r in results
    ]


def _layers(seconds: Result, way: str) -> Groups:
    """Layers that take a fiftieth of the time or more; the others together."""
    found = []
    for task in seconds:
        layer, _, direction = task.partition(" ")
        if (direction or "backward") == way:
            found.append((layer, {name: t * 1e3 for name, t in _medians(seconds[task]).items()}))
    least = sum(max(values.values(), default=0) for _, values in found) / 50
    large = [group for group in found if max(group[1].values(), default=0) >= least]
    small = [group[1] for group in found if group not in large]
    return [*large, ("the rest", {name: sum(v.get(name, 0) for v in small) for name in COLORS})]


def _medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {name: s.median for name, times in seconds.items() if (s := spread(times))}


def bars(axes: Any, title: str, unit: str, groups: Groups) -> None:
    """A group of bars for each label, with the floor as a line across them."""
    names = [name for name in COLORS if any(values.get(name) for _, values in groups)]
    width = 0.8 / max(1, len(names))
    for i, name in enumerate(names):
        places = [g - 0.4 + width * (i + 0.5) for g in range(len(groups))]
        axes.bar(places, [values.get(name, 0) for _, values in groups], width * 0.94, color=COLORS[name], label=name)
    floors = {g: values[FLOOR] for g, (_, values) in enumerate(groups) if FLOOR in values}
    if floors:
        ends = [g - 0.44 for g in floors], [g + 0.44 for g in floors]
        axes.hlines(
            list(floors.values()), *ends, "black", linewidth=1.8, label="floor: the products through BLAS alone"
        )
    axes.set_xticks(range(len(groups)), [label for label, _ in groups], rotation=0 if unit[0] == "i" else 60)
    axes.set_title(title, fontsize=11)
    axes.set_ylabel(f"{unit} ({'higher' if unit[0] == 'i' else 'lower'} is better)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
