"""Which classes a network takes for which. The confusion matrix (K, K) has a row for each class and
a column for each answer; here it becomes figures for each class, text, and an image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from minicnn.checks import escaped

from .drawing import drawable, new_figure, own_settings, require_matplotlib

FEW = 20  # classes whose matrix can be read number by number
CELLS = 100  # most rows of an image
LETTERS = 24  # of a name
SCALE = 0.5, 0, 100  # of colors: the power of a share, and the least and the most per cent

Matrix = NDArray[np.int64]


def per_class(confusion: Matrix, classes: Sequence[str], names: Sequence[str]) -> list[dict[str, Any]]:
    """For each class: how many images it has, and how many of them, and what per cent (recall), are
    right; what per cent of the answers that say this class are right (precision); the class that it
    is most often taken for, and how often. A share of nothing is None."""
    mistakes = confusion * (1 - np.eye(len(confusion), dtype=int))
    table = []
    for k, (images, answers) in enumerate(zip(confusion.sum(axis=1), confusion.sum(axis=0), strict=True)):
        right, other = confusion[k, k], mistakes[k].argmax()
        row = {
            "class": classes[k],
            "name": names[k],
            "images": int(images),
            "right": int(right),
            "recall": float(100 * right / images) if images else None,
            "precision": float(100 * right / answers) if answers else None,
            "taken_for": classes[other] if mistakes[k, other] else None,
            "times": int(mistakes[k, other]),
        }
        table.append(row)
    return table


def lowest(table: list[dict[str, Any]], worst: int) -> list[dict[str, Any]]:
    """The figures of the classes with the lowest recall, of those that have images; of equal ones,
    those with the lower precision come first."""
    tried = [row for row in table if row["images"]]
    return sorted(tried, key=lambda row: (row["recall"], row["precision"] or 0))[:worst]


def most_confused(confusion: Matrix, most: int) -> list[tuple[int, int, int]]:
    """(class, answer, how often) of the most frequent mistakes, from the most frequent one."""
    mistakes = confusion - np.diag(np.diag(confusion))
    places = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    pairs = (divmod(int(place), len(confusion)) for place in places)
    return [(i, k, int(mistakes[i, k])) for i, k in pairs if mistakes[i, k]]


def short(name: str, letters: int = LETTERS) -> str:
    """A name in one line, cut to at most `letters`. Characters that cannot be drawn are replaced,
    because the name of a folder can have any bytes."""
    name = escaped(name)
    return name if len(name) <= letters else name[: letters - 1] + "…"


def table_text(table: list[dict[str, Any]], worst: int) -> str:
    """The figures for each class, or of more than `worst` classes for those with the lowest
    recall."""
    words = {row["class"]: short(row["name"]) for row in table}
    width = max(5, *map(len, words.values()))
    lines = [f"{'class':<{width}}  images  recall  precision  most often taken for"]
    if len(table) > worst:
        table = lowest(table, worst)
        lines.insert(0, f"the {len(table)} classes with the lowest recall, of {len(words)}:")
    for row in table:
        recall, precision = ("-" if row[name] is None else f"{row[name]:.1f}%" for name in ("recall", "precision"))
        other = f"{words[row['taken_for']]} ({row['times']})" if row["times"] else "-"
        lines.append(f"{words[row['class']]:<{width}}  {row['images']:>8}  {recall:>6}  {precision:>9}  {other}")
    return "\n".join(lines)


def matrix_text(confusion: Matrix, names: Sequence[str]) -> str:
    """The matrix as text; its columns have the rows' numbers."""
    names = [short(name) for name in names]
    width, cell = max(6, *map(len, names)), max(2, len(str(confusion.max()))) + 1
    lines = [f"{'taken for':>{width + 3}} " + "".join(f"{k:>{cell}}" for k in range(1, len(names) + 1))]
    for k, (name, row) in enumerate(zip(names, confusion.tolist(), strict=True), 1):
        lines.append(f"{k:2} {name:<{width}} " + "".join(f"{count or '.':>{cell}}" for count in row))
    return "\n".join(lines)


def shares(counts: Matrix) -> NDArray[np.float64]:
    """What per cent of each row is in each cell."""
    return 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def colors(confusion: Matrix) -> NDArray[np.uint8]:
    """The matrix as pixels (K, K, 3), one for each cell, in draw's colors."""
    matplotlib = require_matplotlib()
    share = matplotlib.colors.PowerNorm(*SCALE)(shares(confusion))
    return matplotlib.colormaps["Blues"](share, bytes=True)[..., :3]


@own_settings()
def draw(path: Path | BinaryIO, confusion: Matrix, names: Sequence[str]) -> None:
    """The matrix as an image: what share of each class got which answer, on a scale that brings out
    small shares. The counts of up to 20 classes are written in; of more than 100, several neighbors
    share a cell."""
    step = -(-len(names) // CELLS)
    starts = range(0, len(names), step)
    counts = np.add.reduceat(np.add.reduceat(confusion, starts, axis=0), starts, axis=1)
    share = shares(counts)
    few = len(names) <= FEW
    side = 0.42 * len(names) if few else 10

    figure = new_figure(side + 3, side + 2)
    axes = figure.subplots()
    scale = require_matplotlib().colors.PowerNorm(*SCALE)
    image = axes.imshow(share, cmap="Blues", norm=scale)
    labels, fonts = drawable([short(name) for name in names])
    labels = [labels[k] for k in starts]
    style: dict[str, Any] = {"fontsize": 10 if few else 6, "fontfamily": fonts, "parse_math": False}
    axes.set_xticks(range(len(labels)), labels, rotation=90, **style)
    axes.set_yticks(range(len(labels)), labels, **style)
    cell = "" if step == 1 else f" (each cell is {step} classes, named after the first)"
    axes.set(xlabel="taken for" + cell, ylabel="class")
    for i, k in np.argwhere(counts) if few else ():
        axes.text(k, i, counts[i, k], ha="center", va="center", color="white" if share[i, k] > 30 else "black")
    figure.colorbar(image, label="% of the class", fraction=0.045)
    figure.savefig(path, format="png", bbox_inches="tight")
