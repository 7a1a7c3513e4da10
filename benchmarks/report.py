"""What the reports of all benchmarks are made of: files, pages of text and tables, numbers,
bars."""

import json
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .sections import BEST, COMPILED, DEFAULT, FLOOR, OURS, Result, by
from .turns import Spread, ratios, spread

COLORS = {
    OURS: "#0b6e99", by("native"): "#0b6e99", by("numpy"): "#6fb3c8", by("reference"): "#bcd9e2",
    DEFAULT: "#e8b088", BEST: "#c0563f", COMPILED: "#7d8f69",
}  # fmt: skip
MEDIANS = "Medians with quartiles (extremes, of fewer than five rounds); ratios are taken within each round."
DISTURBED = "Rounds in which other processes took more than 5% of the cores' time were thrown away"
KEPT = "Rounds in which other processes worked were **kept**"
WAYS = ("step", "inference")
Groups = list[tuple[str, dict[str, float]]]  # label, and a number for each contender


# -------------------------------------------------------------------------------------------- files
def publish(folder: Path, files: Mapping[str, Callable[[], Any]]) -> None:
    """Write files by their names, all or none: the old ones stay until all new ones are there. Each
    function makes a text or a figure."""
    fresh = {folder / f".{os.getpid()}-{name}": folder / name for name in files}
    try:
        for path, make in zip(fresh, files.values(), strict=True):
            made = make()
            if isinstance(made, str):
                path.write_text(made, encoding="utf-8")
            else:
                made.savefig(path, dpi=110, format="png")
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


def page(blocks: Iterable[str]) -> str:
    """Markdown of these blocks; paragraphs in lines of at most 100 columns."""
    return "\n\n".join(
        block if block.startswith(("#", "|", "```")) or "\n" in block
        else textwrap.fill(block, 100, break_long_words=False, break_on_hyphens=False)
        for block in blocks
    ) + "\n"  # fmt: skip


# --------------------------------------------------------------------------------- what tables hold
def table(head: list[str], *rows: list[str]) -> str:
    rows = tuple([cell.replace("|", "\\|") for cell in row] for row in (head, ["---"] * len(head), *rows))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def number(x: float) -> str:
    return f"{x:.3g}" if abs(x) < 1000 else f"{x:,.0f}"


def shown(s: Spread | None, scale: float = 1.0) -> str:
    return "{} ({} to {})".format(*(number(x * scale) for x in s)) if s else "–"


def median(seconds: Sequence[float], scale: float = 1.0) -> float:
    """The median of these seconds, in other units, or NaN if there are none."""
    s = spread(seconds)
    return s.median * scale if s else math.nan


def cell(x: float) -> str:
    return "–" if math.isnan(x) else number(x)


def described(m: Result, *others: str) -> str:
    """When a report was made, on which machine, and with which programs."""
    machine = f"{m['processor']}, {m['cores']} cores, caches {m['caches']}, {m['memory_gib']} GiB, {m['system']}"
    ours = f"NumPy {m['numpy']} with {m['blas']}, {OURS} {m['minicnn'] or 'from source'}"
    return f"{m['date']}. {machine}. Python {m['python']}, {', '.join([ours, *others])}."


def contenders(measured: Iterable[Result]) -> list[str]:
    """The names of those that took part in any training step, minicnn's first."""
    return list(dict.fromkeys([OURS, *(name for m in measured for name in m["step"]["seconds"]["step"])]))


def steps(measured: list[Result], keys: list[str]) -> Iterator[str]:
    """Tables of training steps and inference: times as long as minicnn, milliseconds and speeds.
    The keys tell the measurements apart; what is missing in one of them is a dash."""
    names = contenders(measured)
    compared, times = [], []
    for way in WAYS:
        for m in measured:
            if way not in m:
                continue
            seconds, label = m[way]["seconds"][way], [*(str(m[key]) for key in keys), way]
            others = [ratios(seconds, name, OURS) if name in seconds else None for name in names[1:]]
            rounds = f"{len(seconds[OURS])} ({m[way]['discarded']})"
            compared.append([*label, *map(shown, others), rounds])
            spreads = [spread(seconds.get(name, [])) for name in names]
            rates = [number(m["batch"] / s.median) if s else "–" for s in spreads]
            times.append([*label, *(shown(s, 1e3) for s in spreads), *rates])
    if names[1:]:
        yield f"How many times as long as {OURS}: above 1, {OURS} is faster."
        yield table([*keys, "", *names[1:], "rounds (thrown away)"], *compared)
    yield table([*keys, "", *(f"{n}, {unit}" for unit in ("ms", "images/s") for n in names)], *times)


def by_contender(measured: list[Result], keys: list[str], **columns: Callable[[Result, str], str]) -> str:
    """A table of something about each contender, as these functions tell it."""
    names = contenders(measured)
    head = [*keys, *(f"{name}, {unit}" for unit in columns for name in names)]
    rows = ([str(m[key]) for key in keys] + [tell(m, n) for tell in columns.values() for n in names] for m in measured)
    return table(head, *rows)


# ------------------------------------------------------------------------------------------- charts
def speeds(measured: Iterable[Result], way: str) -> Groups:
    """Images a second."""
    return [
        (
            f"{m['batch']}\n{m['network']}",
            {name: m["batch"] / median(times) for name, times in m[way]["seconds"][way].items() if times},
        )
        for m in measured
        if way in m
    ]


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
