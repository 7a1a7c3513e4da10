"""The results of run.py's runs: table.md, table.json, and a chart for each idea.

A run is a dictionary: train_error, a list of per cent by epoch; test_error, a list of [epoch, per
cent]; of a race, which ends when the training error has reached the goal, also rates, all that were
tried, and rate, the best of them. Runs of a kind are a list, one for each seed.
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support.drawing import new_figure, own_settings

from minicnn.checkpoint import replacing

GOAL = 25.0  # per cent of the training images that are wrong, in the paper's figure 1
PAPER = {  # how much more of ImageNet's images are wrong then, top-1, where the paper says so
    "no normalization": "1.4 (3.3)", "pooling without overlap": "0.4 (3.4)", "no color shift": "over 1 (4.1)",
}  # fmt: skip
COLORS = ("#0072b2", "#d55e00", "#009e73")  # which the color-blind can tell apart

Run = dict[str, Any]


def reached(run: Run) -> bool:
    return run["train_error"][-1] <= GOAL


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the standard deviation as estimated from a sample, which takes two values."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def compare(arms: dict[str, list[Run]]) -> list[dict[str, Any]]:
    """A row for each arm: how many of the test images were wrong in the end, and how many more than
    with the baseline of the same seed."""
    errors = {name: [run["test_error"][-1][1] for run in runs] for name, runs in arms.items()}
    rows = []
    for name, own in errors.items():
        test_error, spread = mean_and_spread(own)
        more, more_spread = mean_and_spread([a - b for a, b in zip(own, errors["baseline"], strict=True)])
        train_error, _ = mean_and_spread([run["train_error"][-1] for run in arms[name]])
        rows.append({
            "name": name, "seeds": len(own), "train_error": train_error, "test_error": test_error, "spread": spread,
            "more": more, "more_spread": more_spread,
        })  # fmt: skip
    return rows


def finish(races: dict[str, list[Run]]) -> list[dict[str, Any]]:
    """A row for each race: the rates that were tried, the best for each seed, how many runs have
    reached the goal; if all have, after how many epochs, and how many times those of the first
    race."""
    rows: list[dict[str, Any]] = []
    for name, runs in races.items():
        epochs = spread = None
        if all(map(reached, runs)):
            epochs, spread = mean_and_spread([len(run["train_error"]) for run in runs])
        first = rows[0]["epochs"] if rows else epochs
        times = epochs / first if epochs and first else None
        rates = [run["rate"] for run in runs]
        rows.append({
            "name": name, "tried": runs[0]["rates"], "rates": rates, "seeds": len(runs),
            "reached": sum(map(reached, runs)), "epochs": epochs, "spread": spread, "times": times,
        })  # fmt: skip
    return rows


def markdown(arms: list[dict[str, Any]], races: list[dict[str, Any]]) -> str:
    """The rows of compare and of finish as two tables."""

    def number(value: float, spread: float | None, sign: str = "") -> str:
        return f"{value:{sign}.1f}" + ("" if spread is None else f" ± {spread:.1f}")

    lines = []
    if arms:
        lines += [
            "| network | test error, % | more than baseline | in the paper | error while learning, % |",
            "| --- " * 5 + "|",
        ]
    for row in arms:
        more = "" if row["name"] == "baseline" else number(row["more"], row["more_spread"], "+")
        error, paper = number(row["test_error"], row["spread"]), PAPER.get(row["name"], "")
        lines.append(f"| {row['name']} | {error} | {more} | {paper} | {row['train_error']:.1f} |")
    if races:
        lines += [""] * bool(arms)
        lines += [
            f"| activation | best rates (of) | epochs to a training error of {GOAL:.0f}% | times ReLU's |",
            "| --- " * 4 + "|",
        ]
    for row in races:
        best = dict.fromkeys(row["rates"])  # each once
        rates = f"{', '.join(map(str, best))} ({', '.join(map(str, row['tried']))})"
        times = "" if row["times"] is None else f"{row['times']:.1f}"
        epochs = f"{row['reached']} of {row['seeds']} runs have reached it"
        if row["epochs"] is not None:
            epochs = number(row["epochs"], row["spread"])
        lines.append(f"| {row['name']} | {rates} | {epochs} | {times} |")
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------- charts
def by_epoch(axes: Any) -> None:
    """Set up an axis of epochs, with whole numbers and a grid."""
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)


def draw_idea(arms: dict[str, list[Run]]) -> Any:
    """Left the errors by epoch, means and ranges over the seeds; right the last test errors, those
    of a seed joined."""
    figure = new_figure(9, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    # (arms, seeds)
    last = np.array([[run["test_error"][-1][1] for run in runs] for runs in arms.values()])
    right.plot(last, "-", color="0.8", zorder=1)
    for place, (color, (name, runs)) in enumerate(zip(COLORS, arms.items(), strict=False)):
        tested = np.array([run["test_error"] for run in runs])  # (seeds, times, 2)
        epochs, errors = tested[0, :, 0], tested[:, :, 1]
        learned = np.mean([run["train_error"] for run in runs], axis=0)
        left.plot(epochs, errors.mean(axis=0), "-o", color=color, markersize=3, label=name)
        left.fill_between(epochs, errors.min(axis=0), errors.max(axis=0), color=color, alpha=0.2, linewidth=0)
        left.plot(np.arange(len(learned)) + 1, learned, ":", color=color)
        right.plot([place] * len(runs), last[place], "o", color=color)
        right.plot([place - 0.2, place + 0.2], [last[place].mean()] * 2, "-", color=color)
    left.set(ylabel="error, %", title="test (solid) and training (dotted)")
    left.legend(frameon=False)
    by_epoch(left)
    names = [name.replace(" ", "\n", 1) for name in arms]
    right.set(
        xticks=range(len(arms)), xticklabels=names, xlim=(-0.5, len(arms) - 0.5), title="test error at the end, %"
    )
    right.grid(alpha=0.3, axis="y")
    return figure


def draw_races(races: dict[str, list[Run]]) -> Any:
    """The paper's figure 1: training errors by epoch, a line for each seed."""
    figure = new_figure(6.5, 4)
    axes = figure.subplots()
    colors = dict(zip(("ReLU", "tanh", "sigmoid"), COLORS, strict=True))
    for name, runs in races.items():
        activation, _, other = name.partition(",")
        for i, run in enumerate(runs):
            errors = run["train_error"]
            label = {} if i else {"label": name}
            axes.plot(np.arange(len(errors)) + 1, errors, "--" if other else "-", color=colors[activation], **label)
            if reached(run):
                axes.plot(len(errors), errors[-1], "o", color=colors[activation])
    axes.axhline(GOAL, color="0.4", linestyle=":", linewidth=1)
    axes.set(ylabel="training error, %", ylim=(GOAL - 5, None))
    axes.legend(frameon=False)
    by_epoch(axes)
    return figure


def draw_differences(rows: list[dict[str, Any]]) -> Any:
    """How many more images are wrong after each change: means and standard deviations over the
    seeds."""
    changes = [row for row in rows if row["name"] != "baseline"]
    figure = new_figure(7.5, 1 + 0.4 * len(changes))
    axes = figure.subplots()
    places = range(len(changes))
    spreads = [row["more_spread"] or 0 for row in changes]
    axes.errorbar([row["more"] for row in changes], places, xerr=spreads, fmt="o", color=COLORS[0], capsize=3)
    axes.axvline(0, color="0.4", linewidth=1)
    axes.set(yticks=places, yticklabels=[row["name"] for row in changes], ylim=(len(changes) - 0.5, -0.5))
    axes.set(xlabel="test error less the baseline's, percentage points")
    axes.grid(alpha=0.3, axis="x")
    return figure


@own_settings()
def report(folder: Path, ideas: dict[str, list[str]], arms: dict[str, list[Run]], races: dict[str, list[Run]]) -> str:
    """Write the tables and the charts. Returns the tables as text.

    arms: the baseline's runs and those of each change, by name; ideas: the names of the changes
    that belong to each.
    """
    compared, finished = compare(arms), finish(races)
    text = markdown(compared, finished)
    with replacing(folder / "table.md") as path:
        path.write_text(text)
    with replacing(folder / "table.json") as path:
        path.write_text(json.dumps({"arms": compared, "races": finished}, indent=1) + "\n")
    figures = {idea: draw_idea({name: arms[name] for name in ("baseline", *names)}) for idea, names in ideas.items()}
    if ideas:
        figures["differences"] = draw_differences(compared)
    if races:
        figures["relu"] = draw_races(races)
    for name, figure in figures.items():
        with replacing(folder / f"{name}.png") as path:
            figure.savefig(path, format="png")
    return text
