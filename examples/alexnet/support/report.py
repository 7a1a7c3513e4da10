"""report.html: a run on one page. Everything is in the file, so that it opens anywhere, without a
network and without scripts, and the same run gives the same bytes."""

import base64
import html
import io
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicnn.checks import escaped

from .confusion import FEW, colors, draw, lowest, most_confused, per_class, short
from .drawing import filter_sheet, new_figure, own_settings, require_matplotlib
from .images import View
from .recipes import kind_and_folder
from .runs import FIVE, merit

MISTAKES = 24  # that a Score should keep
POINTS = 500  # of a curve, at most, and rows of a table
PAIRS, FIRST = 50, 15  # of classes that are confused; of these, shown at first
NONE = "–"  # in the place of a number
NUMBER = re.compile(rf"[-+\d.,e]+%?|nan|inf|{NONE}")
SIDE = 144  # of a photo, in pixels
NAME = 48  # letters of a name, at most
INK = "#010203"  # what is drawn in this color gets that of the page's text
BLUE, ORANGE = "#3d85c6", "#e07b39"  # to be seen on white and on black

# title: {column of the rows: (label, color, style)}
Lines = Mapping[str, tuple[str, str, str]]
CHARTS: dict[str, Lines] = {
    "loss": {"train_loss": ("training", BLUE, "-"), "val_loss": ("validation", ORANGE, "-")},
    "correct, %": {
        "train_top1": ("training", BLUE, "-"),
        "val_top1": ("validation", ORANGE, "-"),
        "val_top5": ("among the five best", ORANGE, "--"),
    },
    "learning rate": {"lr": ("", BLUE, "-")},
    "images a second, in training": {"images_per_s": ("", BLUE, "-")},
    "seconds of an epoch": {"compute_seconds": ("computing", BLUE, "-"), "data_seconds": ("waiting", ORANGE, "-")},
}
FIGURES = ["class", "images", "recall", "precision", "most often taken for"]
SPEED = 3  # with this chart those of the speed begin

STYLE = Path(__file__).with_name("report.css")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    kernels: Any = None,
    score: Any = None,
    view: View | None = None,
    ten_crops: Mapping[str, float] | None = None,
) -> None:
    """Write a run's report.html. What is not given is left out of it, and so are charts of columns
    that the rows do not have.

    Args:
        path: the file.
        config: all settings of the run, with its classes and their names, and the version.
        rows: the rows of metrics.csv.
        kernels: of conv1, (KH, KW, 3, O), on the host.
        score: the Score of the last validation, with its confusion and mistakes.
        view: how the network sees an image, to show the mistakes.
        ten_crops: the results over ten crops.
    """
    names = list(config.get("names", config["classes"]))
    parts = [
        _numbers(rows, ten_crops or {}, len(names)),
        section("Curves", charts(rows, config, list(CHARTS)[:SPEED])),
        _filters(kernels),
    ]
    if score is not None and score.confusion.size:
        parts.append(_confusion(score.confusion, list(config["classes"]), names))
    if score is not None and view is not None:
        parts.append(_mistakes(score.mistakes, view, names))
    parts += [
        section("Speed", charts(rows, config, list(CHARTS)[SPEED:])),
        _epochs(rows),
        _settings(config, names),
        _commands(config, len(rows)),
    ]
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_title(config)}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<h1>{_title(config)}</h1>
<p class="faint">{_summary(config, rows, len(names))}</p>
{"".join(parts)}</body>
</html>
"""
    Path(path).write_text(page, encoding="utf-8")


# --------------------------------------------------------------------------------------- HTML
def text(value: Any) -> str:
    """Anything as text for HTML. What comes from outside, such as the names of folders, can have
    any characters."""
    return html.escape(escaped(str(value)))


def named(name: str) -> str:
    """A class's name, cut if it is long; its direction of writing, whatever it is, ends with it."""
    return f"<bdi>{text(short(name, NAME))}</bdi>"


def section(title: str, *parts: str, note: str = "") -> str:
    """Parts below a heading; nothing if they are empty."""
    note = f'<p class="faint">{note}</p>\n' if note else ""
    return f"<h2>{title}</h2>\n{note}{''.join(parts)}\n" if any(parts) else ""


def details(summary: str, content: str) -> str:
    """What is shown on a click; nothing if it is empty."""
    return f"<details><summary>{summary}</summary>\n{content}</details>\n" if content else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Of cells, which are HTML; nothing without rows. Numbers, and headings above them, stand on
    the right."""
    if not rows:
        return ""
    numbers = [all(map(NUMBER.fullmatch, column)) and set(column) != {NONE} for column in zip(*rows, strict=True)]
    lines = []
    for tag, cells in (("th", head), *(("td", row) for row in rows)):
        styles = [tag + ' class="number"' * number for number in numbers]
        lines.append("".join(f"<{style}>{cell}</{tag}>" for style, cell in zip(styles, cells, strict=True)))
    return '<div class="wide"><table>\n' + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table></div>\n"


def data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def pixelated(pixels: NDArray[np.uint8], width: int, alt: str) -> str:
    """Pixels (H, W, 3) that are shown as squares, in all at most so wide."""
    uri = image_file(pixels, "png", optimize=True)
    return f'<img class="pixels" style="max-width: {width}px" alt="{alt}" src="{uri}">'


def image_file(pixels: NDArray[np.uint8], kind: str, **options: Any) -> str:
    """The URI of pixels (H, W, 3), as a "png" or a "jpeg"."""
    from PIL import Image  # which matplotlib needs too

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return data_uri(kind, file.getvalue())


# ------------------------------------------------------------------------------------- charts
def charts(rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any], titles: Sequence[str]) -> str:
    """Those of CHARTS for which the rows have columns."""
    figures, out = [], ["val_top5"] * (len(config.get("classes", ())) <= FIVE)
    for title in titles:
        known = {name for row in rows for name in row}.difference(out)
        lines = {name: line for name, line in CHARTS[title].items() if name in known}
        if lines and all("epoch" in row for row in rows):
            # which divides by ten
            log = title == "learning rate" and config.get("schedule") == "plateau"
            figures.append(f"<figure><figcaption>{title}</figcaption>\n{chart(title, rows, lines, log)}</figure>\n")
    return f'<div class="charts">\n{"".join(figures)}</div>\n' if figures else ""


@own_settings()
def chart(title: str, rows: Sequence[Mapping[str, Any]], lines: Lines, log: bool = False) -> str:
    """Columns by epoch, as SVG to be put into HTML."""
    ink = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    own = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 9} | dict.fromkeys(ink, INK)
    shown = thinned(rows)
    with require_matplotlib().rc_context(own):
        figure = new_figure(4.6, 2.7)
        axes = figure.subplots()
        for name, (label, color, style) in lines.items():
            values = [row.get(name, math.nan) for row in shown]
            marker = "o" if len(shown) <= 30 else ""
            axes.plot([row["epoch"] for row in shown], values, style, color=color, label=label, marker=marker, ms=3)
        axes.grid(alpha=0.2, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if log:
            axes.set_yscale("log")
        elif title != "learning rate":
            axes.update_datalim([(shown[0]["epoch"], 0)])  # so that there is a margin above
            axes.autoscale_view()
            axes.set_ylim(0, 101 if "%" in title else None)
        axes.yaxis.set_major_formatter("{x:g}")
        if len(lines) > 1:
            axes.legend(frameon=False)
        file = io.BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    drawn = file.getvalue().decode()
    drawn = drawn[drawn.index("<svg") :].replace(INK, "currentColor")
    key = "".join(filter(str.isalpha, title))  # because each has the same names inside
    for before in ('id="', 'href="#', "url(#"):
        drawn = drawn.replace(before, before + key + "-")
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{title}, by epoch" ', 1)


def thinned(rows: Sequence[Any]) -> list[Any]:
    """At most 500 of them, evenly, with the first and the last."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), POINTS)).round().astype(int)
    return [rows[place] for place in places]


# ------------------------------------------------------------------------------- the sections
def _title(config: Mapping[str, Any]) -> str:
    kind, folder = kind_and_folder(str(config.get("data", "")))
    known = {"synthetic": "drawn textures", "cifar10": "CIFAR-10", "imagenet": "ImageNet"}
    return text(f"AlexNet {config.get('variant', '')} on {known.get(kind) or os.path.basename(folder) or 'images'}")


def _summary(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], classes: int) -> str:
    words = [f"{classes:,} classes", f"recipe {config['recipe']}" if "recipe" in config else ""]
    if rows and "epoch" in rows[-1]:
        words.append(f"{rows[-1]['epoch']} of {config.get('epochs', rows[-1]['epoch'])} epochs")
    if rows and "seconds" in rows[-1]:
        words.append(duration(rows[-1]["seconds"]))
    words.append(f"minicnn {config['minicnn']}" if "minicnn" in config else "")
    return text(" · ".join(filter(None, words)))


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _numbers(rows: Sequence[Mapping[str, Any]], ten_crops: Mapping[str, float], classes: int) -> str:
    """The best and the last numbers."""
    measured, last = [row for row in rows if "val_top1" in row], rows[-1] if rows else {}
    found, word = [], "last " * (len(measured) > 1)
    if len(measured) > 1:
        best = max(reversed(measured), key=merit)
        found.append((f"{best['val_top1']:.1f}%", f"best top-1, in epoch {best['epoch']}"))
    for name, form, words in (
        ("val_top1", "{:.1f}%", f"{word}top-1"),
        ("val_top5", "{:.1f}%", f"{word}top-5"),
        ("val_loss", "{:.3f}", f"{word}loss"),
        ("train_loss", "{:.3f}", "loss in training"),
        ("images_per_s", "{:,.1f}", "images a second"),
    ):
        if name in last and (name != "val_top5" or classes > FIVE):
            found.append((form.format(last[name]), words))
    for name in ("top1", "top5")[: 1 + (classes > FIVE)]:
        if name in ten_crops:
            found.append((f"{ten_crops[name]:.1f}%", f"top-{name[3:]} over ten crops"))
    numbers = "".join(f"<div><b>{value}</b>{words}</div>\n" for value, words in found)
    return f'<div class="numbers">\n{numbers}</div>\n' if found else ""


def _filters(kernels: Any) -> str:
    if kernels is None:
        return ""
    sheet = np.rint(255 * filter_sheet(np.nan_to_num(kernels))).astype(np.uint8)
    height, width, _, count = kernels.shape
    note = f"The {count} kernels of {height}×{width} pixels, each on a scale of its own."
    return section("Filters of conv1", pixelated(sheet, 4 * sheet.shape[1], "filters"), note=note)


def _confusion(confusion: NDArray[np.int64], classes: Sequence[str], names: Sequence[str]) -> str:
    """The matrix as an image, and which classes are confused."""
    if len(names) <= FEW:
        file = io.BytesIO()
        draw(file, confusion, names)
        uri, width = data_uri("png", file.getvalue()), int.from_bytes(file.getvalue()[16:20], "big")
        image = f'<div class="wide" style="--width: {width}px"><img alt="confusion matrix" src="{uri}"></div>'
        note = ""
    else:
        image = pixelated(colors(confusion), max(600, len(names)), "confusion matrix")
        note = (
            f"{len(names):,} classes from top to bottom, their answers from left to right, both in the order of their "
            "numbers: the darker a pixel, the larger the share of its class."
        )
    pairs = [
        (named(names[i]), named(names[k]), f"{count}", percent(100 * count / confusion[i].sum()))
        for i, k, count in most_confused(confusion, PAIRS)
    ]
    figures, words = per_class(confusion, classes, names), dict(zip(classes, names, strict=True))
    worst = []
    for row in lowest(figures, FEW):
        other = f"{named(words[row['taken_for']])} ({row['times']})" if row["times"] else NONE
        worst.append((named(row["name"]), f"{row['images']}", percent(row["recall"]), percent(row["precision"]), other))
    head, title = ["class", "taken for", "times", "share"], f"The {len(worst)} classes with the lowest recall"
    more = details(f"{len(pairs[FIRST:])} more", table(head, pairs[FIRST:]))
    tables = [
        section("Most confused", table(head, pairs[:FIRST]), more),
        section("Classes" if len(names) <= FEW else title, table(FIGURES, worst)),
    ]
    two = "".join(f"<div>\n{part}</div>\n" for part in tables if part)
    return section("Confusion", image, note=note) + f'<div class="two">\n{two}</div>\n'


def percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.0f}%"


def _mistakes(mistakes: Sequence[Any], view: View, names: Sequence[str]) -> str:
    """The wrong answers that the network was most sure of."""
    figures = []
    for mistake in mistakes:
        uri = photo(view.pixels(mistake.image))
        answer, label = named(names[mistake.answer]), named(names[mistake.label])
        words = f"<b>{answer}</b> {100 * mistake.probability:.1f}%<br>is {label}"
        figures.append(f'<figure><img alt="" src="{uri}"><figcaption>{words}</figcaption></figure>\n')
    note = "As the network saw them: its answer and the probability that it gave it, and what is right."
    photos = f'<div class="photos">\n{"".join(figures)}</div>\n' if figures else ""
    return section("Most confident mistakes", photos, note=note)


def photo(pixels: NDArray[np.uint8]) -> str:
    """The URI of an image (S, S, 3), made smaller."""
    from PIL import Image

    small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image_file(np.asarray(small), "jpeg", quality=80)


def _epochs(rows: Sequence[Mapping[str, Any]]) -> str:
    """All columns of the rows, whatever they are."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if "epoch" not in columns:
        return ""
    shown = [[number(row.get(name, NONE)) for name in columns] for row in thinned(rows)]
    title = f"{len(rows)} epochs" if len(rows) == len(shown) else f"{len(shown)} of {len(rows)} epochs"
    return details(f"{title} in numbers", table([text(name.replace("_", " ")) for name in columns], shown))


def number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, (int, float)) else text(value)


def _settings(config: Mapping[str, Any], names: Sequence[str]) -> str:
    settings = {name: value for name, value in config.items() if name not in ("classes", "names")}
    rows = [
        (text(name), text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)))
        for name, value in settings.items()
    ]
    some = ", ".join(named(name) for name in names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
    return section("Settings", table(["setting", "value"], [*rows, ("classes", some)]))


def _commands(config: Mapping[str, Any], epochs: int) -> str:
    """What uses the run's network, and what goes on with it."""
    if not config.get("out"):  # as of what convert.py wrote
        return ""
    programs, out = os.path.dirname(sys.argv[0]), str(config["out"])
    wanted = config.get("epochs", epochs)
    further = [] if epochs < wanted else ["--epochs", str(2 * wanted)]
    commands = [
        ("evaluate.py", "--checkpoint", os.path.join(out, "best.safetensors")),
        ("predict.py", "--checkpoint", os.path.join(out, "best.safetensors"), "PHOTO"),
        ("train.py", "--resume", os.path.join(out, "last.safetensors"), *further),
    ]
    lines = [text(shlex.join(["python", os.path.join(programs, program), *rest])) for program, *rest in commands]
    return section("To measure it, to ask it, to go on", "<pre>" + "\n".join(lines) + "</pre>")
