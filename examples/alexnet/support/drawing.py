"""How the programs draw, and the two images of a run. They are drawn with matplotlib's default
settings, because the user's may need programs or fonts that are missing."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .beside import uninterrupted

COLUMNS = 16  # of a sheet of filters


def require_matplotlib() -> Any:
    """The package, or an ImportError that says how to get it."""
    os.environ.pop("MPLBACKEND", None)  # of a notebook, which may have another Python than this
    # it would report every font that it does not find
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        with uninterrupted():
            import matplotlib.backends.backend_agg  # would be imported at the first drawing
            import matplotlib.figure
            import matplotlib.font_manager
    except ModuleNotFoundError:
        raise ImportError("drawing needs matplotlib: pip install matplotlib") from None
    except Exception as error:  # as of one that was built for another NumPy
        raise ImportError(f"drawing needs matplotlib, which cannot be imported: {error}") from None
    return matplotlib


@contextmanager
def own_settings() -> Iterator[None]:
    """Inside, and in a function that this decorates, matplotlib has its default settings."""
    matplotlib = require_matplotlib()
    with matplotlib.rc_context(matplotlib.rcParamsDefault), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # which is missing: see drawable
        yield


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure that no window shows."""
    return require_matplotlib().figure.Figure(figsize=(width, height), dpi=120, layout="constrained")


def drawable(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """(labels, the fonts to draw them with) for names in any script. If no font has all letters of
    a name, the label is its number, from 1."""
    fonts = require_matplotlib().font_manager
    families = ["DejaVu Sans"]  # which comes with matplotlib
    missing = {letter for name in names for letter in name if letter.isprintable()}
    for family in (*families, *sorted({font.name for font in fonts.fontManager.ttflist})):
        if not missing:
            break
        try:
            font = fonts.get_font(fonts.findfont(family))
        except Exception:  # of a font of small images, or a damaged one
            continue
        found = {letter for letter in missing if font.get_char_index(ord(letter))}
        missing -= found
        if found and family not in families:
            families.append(family)
    labels = [str(k) if missing & set(name) else name for k, name in enumerate(names, 1)]
    return labels, families


@own_settings()
def draw_curves(rows: list[dict[str, Any]], path: str | os.PathLike[str], top5: bool = True) -> None:
    """Loss and accuracy by epoch, training and validation, with or without the five best
    answers."""
    figure = new_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    for axes, name, title, names in (
        (left, "loss", "cross-entropy", ("train_loss", "val_loss")),
        (right, "accuracy", "correct, %", ("train_top1", "val_top1", "val_top5")[: 3 if top5 else 2]),
    ):
        for column, style in zip(names, ("-o", "-o", "--o"), strict=False):
            axes.plot(epochs, [row[column] for row in rows], style, markersize=3, label=column.replace("_", " "))
        axes.set(title=name, xlabel="epoch", ylabel=title)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    # 0 is on the axis, and the margin above depends on the whole range
    left.update_datalim([(epoch, 0) for epoch in epochs])
    left.autoscale_view()
    left.set_ylim(bottom=0)
    right.set_ylim(0, 101)
    figure.savefig(path, format="png")


def filter_sheet(weight: Any) -> Any:
    """The kernels of the first layer (KH, KW, 3, O) on one sheet (H, W, 3), from 0 to 1, each on a
    scale of its own: the paper's figure 3."""
    kh, kw, channels, n = weight.shape
    rows = -(-n // COLUMNS)
    low, high = weight.min(axis=(0, 1, 2)), weight.max(axis=(0, 1, 2))
    kernels = (weight - low) / (high - low + 1e-12)
    sheet = np.ones((rows * (kh + 1) + 1, COLUMNS * (kw + 1) + 1, channels))
    for k in range(n):
        top, left = k // COLUMNS * (kh + 1) + 1, k % COLUMNS * (kw + 1) + 1
        sheet[top : top + kh, left : left + kw] = kernels[..., k]
    return sheet


@own_settings()
def draw_filters(weight: Any, path: str | os.PathLike[str]) -> None:
    """The kernels of the first layer (KH, KW, 3, O) as small images."""
    figure = new_figure(COLUMNS * 0.5, -(-weight.shape[3] // COLUMNS) * 0.5)
    axes = figure.subplots()
    axes.imshow(filter_sheet(weight), interpolation="nearest")
    axes.axis("off")
    figure.savefig(path, format="png")
