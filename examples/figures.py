"""Draws the figures of the lessons with the lessons' own code.

    python examples/figures.py                 # into minicnn/figures; needs matplotlib
    python examples/figures.py --out FOLDER

Every number in a figure comes from the library. What it shows also stands in the file, as JSON in
the PNG's description, so that a test can tell when the code has moved on and the figure has not.
"""

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import minicnn.functional as F
from minicnn import Tensor
from minicnn.autograd import Function
from minicnn.functional.pooling import scatter, winners
from minicnn.functional.windows import Window, col2im, im2col

FOLDER = Path(__file__).resolve().parents[1] / "minicnn" / "figures"
INK, PALE, GRAY = "#222222", "#b8b8b8", "#e8e8e8"
# two behind numbers, and one for words about them
BLUE, ORANGE, BROWN = "#9ecae9", "#ffbf79", "#a85a00"
STRONG = "#1f5f99", "#c8423f", "#3d8a3b", "#8b5fa8"  # for lines and words

Data = dict[str, Any]
Drawing = tuple[Figure, Data]


# ----------------------------------------------------------------------------- parts of figures
def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of width × height cells, with (0, 0) in the upper left corner."""
    figure = Figure(figsize=(9.6, 9.6 * height / width), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def box(axes: Axes, x: float, y: float, width: float, height: float, fill: str = "none", line: str = PALE) -> None:
    thick = 0.8 if line == PALE else 2.2
    axes.add_patch(Rectangle((x, y), width, height, facecolor=fill, edgecolor=line, linewidth=thick, zorder=thick))


def say(axes: Axes, x: float, y: float, words: str, **options: Any) -> None:
    settings = {"ha": "center", "va": "center_baseline", "fontsize": 11, "color": INK, "zorder": 4}
    axes.text(x, y, words, **settings | options)


def grid(axes: Axes, array: np.ndarray, x: float, y: float, fills: dict[tuple[int, int], str]) -> None:
    """The numbers of a matrix in cells, its corner at (x, y); fills[row, column] colors a cell."""
    for (i, j), number in np.ndenumerate(array):
        box(axes, x + j, y + i, 1, 1, fills.get((i, j), "white"))
        say(axes, x + j + 0.5, y + i + 0.5, f"{number:g}", color=INK if number else PALE)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], words: str = "", **options: Any) -> None:
    """Draw an arrow from start to end, with words above it."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color=INK, zorder=3, **options))
    say(axes, (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 - axes.get_xlim()[1] / 45, words)


# ------------------------------------------------------------------------------------ the figures
def windows() -> Drawing:
    """A window becomes a row, and col2im adds each number to the pixel that it was copied from."""
    image, window = np.arange(1.0, 17).reshape(1, 4, 4, 1), Window.of(kernel_size=3)
    columns = im2col(image, window)
    back = col2im(columns, image.shape, window)
    row, pixel = 1, (1, 1)  # the window that is shown, and a pixel that all windows see
    number, added = image[0, :, :, 0][pixel], back[0, :, :, 0][pixel]
    copies = np.argwhere(columns == number).tolist()

    figure, axes = canvas(23, 7)
    seen = {(i, j): BLUE for i in range(3) for j in range(1, 4)}
    grid(axes, image[0, :, :, 0], 0.5, 0.5, seen | {pixel: ORANGE})
    box(axes, 1.5, 0.5, 3, 3, line=STRONG[0])
    grid(axes, columns, 7, 0.5, {(row, k): BLUE for k in range(9)} | {(i, k): ORANGE for i, k in copies})
    box(axes, 7, 0.5 + row, 9, 1, line=STRONG[0])
    grid(axes, back[0, :, :, 0], 18.5, 0.5, {pixel: ORANGE})
    arrow(axes, (4.8, 2.5), (6.7, 2.5), "im2col")
    arrow(axes, (16.3, 2.5), (18.2, 2.5), "col2im")
    say(axes, 2.5, 5.2, "an image, 4 × 4")
    say(axes, 11.5, 5.2, "its four windows of 3 × 3, each as a row")
    say(axes, 20.5, 5.2, "all added back")
    words = f"{number:g} is in {len(copies)} windows, so it is added {len(copies)} times: {added:g}"
    say(axes, 11.5, 6.2, words, color=BROWN)
    return figure, {"image": image, "columns": columns, "back": back}


def block(axes: Axes, x: float, y: float, shape: tuple[int, ...], name: str, fills: dict[tuple[int, int], str]) -> None:
    """An image (H, W, C), its channels one behind the other; fills[row, column] colors a pixel."""
    h, w, c = shape
    for back in (0.35 * k for k in reversed(range(c))):
        for i, j in np.ndindex(h, w):
            box(axes, x + back + j, y - back + i, 1, 1, fills.get((i, j), "white"))
    label(axes, x, y - 0.35 * (c - 1), w + 0.35 * (c - 1), h + 0.35 * (c - 1), name, shape)


def table(axes: Axes, x: float, y: float, shape: tuple[int, ...], name: str, fill: str = "") -> None:
    """A matrix of that shape, without its numbers; fill colors its row 1."""
    for i, j in np.ndindex(shape):
        box(axes, x + j, y + i, 1, 1, fill if i == 1 and fill else "white")
    label(axes, x, y, shape[1], shape[0], name, shape)


def label(axes: Axes, x: float, y: float, width: float, height: float, name: str, shape: tuple[int, ...]) -> None:
    """A name above a box and a shape below it."""
    say(axes, x + width / 2, y - 0.8, name, fontsize=13)
    say(axes, x + width / 2, y + height + 0.8, f"{shape}")


def conv() -> Drawing:
    """The shapes of a convolution, and of the way back from dy to dx."""
    x, weight = np.ones((1, 3, 3, 2)), np.ones((2, 2, 2, 3))
    y = F.conv2d(Tensor(x), Tensor(weight)).data
    dx = F.conv_transpose2d(Tensor(y), Tensor(weight)).data
    rows = im2col(x, Window.of(kernel_size=2))
    matrix = weight.reshape(-1, weight.shape[3])
    product = rows @ matrix
    back = product @ matrix.T
    pixel = {(0, 1): ORANGE}  # of the output; it is row 1 of the matrices
    seen = {(i, j): BLUE for i in (0, 1) for j in (1, 2)}  # by its window

    figure, axes = canvas(39, 21)
    say(axes, 0.8, 1, "conv2d", ha="left", fontsize=13, weight="bold")
    block(axes, 2.5, 4.7, x.shape[1:], "x", seen)
    arrow(axes, (6.4, 6), (9.2, 6), "im2col")
    table(axes, 9.7, 4, rows.shape, "X", BLUE)
    say(axes, 18.7, 6, "@", fontsize=14)
    table(axes, 19.7, 2, matrix.shape, "K")
    say(axes, 23.7, 6, "=", fontsize=14)
    table(axes, 24.7, 4, product.shape, "y", ORANGE)
    arrow(axes, (28.2, 6), (31, 6), "reshape")
    block(axes, 31.7, 5.4, y.shape[1:], "y", pixel)

    say(axes, 0.8, 12.7, "back: conv_transpose2d", ha="left", fontsize=13, weight="bold")
    block(axes, 1.5, 16.7, y.shape[1:], "dy", pixel)
    arrow(axes, (4.6, 17.3), (7.2, 17.3), "reshape")
    table(axes, 7.7, 15.3, product.shape, "dy", ORANGE)
    say(axes, 11.7, 17.3, "@", fontsize=14)
    table(axes, 12.7, 15.8, matrix.T.shape, "Kᵀ")
    say(axes, 21.7, 17.3, "=", fontsize=14)
    table(axes, 22.7, 15.3, back.shape, "dX", BLUE)
    arrow(axes, (31.2, 17.3), (34, 17.3), "col2im")
    block(axes, 34.7, 16, dx.shape[1:], "dx", seen)
    arrays = {"x": x, "X": rows, "K": matrix, "y": y, "dX": back, "dx": dx}
    return figure, {name: array.shape for name, array in arrays.items()}


def pooling() -> Drawing:
    """Who wins in windows that overlap, and what gradient the winners get."""
    x = np.array(
        [[14.0, 13, 10, 16, 15], [19, 5, 25, 22, 23], [21, 24, 8, 11, 6], [20, 4, 1, 7, 17], [12, 9, 18, 2, 3]]
    ).reshape(1, 5, 5, 1)
    window = Window.of(kernel_size=3, stride=2)
    y = F.max_pool2d(Tensor(x), kernel_size=3, stride=2).data
    winner = winners(x, y, window)
    dy = np.array([1.0, 2, 4, 8]).reshape(y.shape)
    dx = scatter(dy, winner, window, (5, 5))
    won = {(i, j): ORANGE for i, j in np.argwhere(dx[0, :, :, 0]).tolist()}
    twice = x[0, :, :, 0].max()

    figure, axes = canvas(24, 8)
    grid(axes, x[0, :, :, 0], 0.8, 0.6, won)
    grid(axes, y[0, :, :, 0], 9.3, 2.1, {})
    grid(axes, dy[0, :, :, 0], 13.3, 2.1, {})
    grid(axes, dx[0, :, :, 0], 18.2, 0.6, won)
    for color, (p, q) in zip(STRONG, np.ndindex(2, 2), strict=True):
        gap = 0.06 if p == q else 0.16  # so that no frame hides another
        box(axes, 0.8 + 2 * q + gap, 0.6 + 2 * p + gap, 3 - 2 * gap, 3 - 2 * gap, line=color)
        for left in (9.3, 13.3):
            box(axes, left + q + 0.08, 2.1 + p + 0.08, 0.84, 0.84, line=color)
    arrow(axes, (6.1, 3.1), (9, 3.1), "maximum")
    arrow(axes, (15.6, 3.1), (17.9, 3.1), "scatter")
    say(axes, 3.3, 6.3, "x, four windows of 3 × 3")
    say(axes, 10.3, 6.3, "y")
    say(axes, 14.3, 6.3, "dy")
    say(axes, 20.7, 6.3, "dx")
    words = f"{twice:g} has won two windows, so it gets the gradients of both: {dx[x == twice].item():g}"
    say(axes, 12, 7.3, words, color=BROWN)
    return figure, {"x": x, "y": y, "winner": winner, "dx": dx}


def lrn() -> Drawing:
    """One pixel's channels before and after, with the paper's constants."""
    x = np.array([20, 60, 10, 0, 30, 15, 60, 200, 150, 40, 0, 25, 10, 35, 20, 5.0])
    y = F.local_response_norm(Tensor(x)).data
    marked = {1: ("alone", STRONG[0]), 6: ("beside a strong one", STRONG[1])}  # equally active

    figure = Figure(figsize=(9.6, 3.6), facecolor="white", layout="constrained")
    for axes, numbers, words in zip(figure.subplots(1, 2), (x, y), ("before", "after"), strict=True):
        axes.bar(range(len(x)), numbers, color=PALE)
        for c, (name, color) in marked.items():
            axes.bar(c, numbers[c], color=color, label=name)
            axes.text(c, numbers[c], f"{numbers[c]:.0f}", ha="center", va="bottom", color=color)
        axes.set(xlabel="channel", ylabel="activity", title=f"{words} local response normalization")
        axes.set(xticks=range(0, len(x), 2), ylim=(0, 1.1 * numbers.max()))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper right")
    return figure, {"x": x, "y": y}


def autograd() -> Drawing:
    """A graph, and the order in which a backward pass goes through it."""
    names = {
        Tensor(np.ones(shape), requires_grad=True): name for name, shape in (("x", (4, 3)), ("w", (3, 2)), ("b", 2))
    }
    x, w, b = leaves = list(names)
    z = x @ w + b
    loss = (z * F.sigmoid(z)).sum()
    edges, found, order = [], [loss.grad_fn], []
    for node in found:  # which grows meanwhile
        names[node] = node.name
        found += [parent for parent in node.parents if isinstance(parent, Function) and parent not in found]
    for node in found:
        edges += [(names[node], names[parent]) for parent in node.parents]
        node.backward = noting(order, node)
    for leaf in leaves:
        leaf.register_post_accumulate_grad_hook(lambda leaf: order.append(names[leaf]))
    loss.backward()

    places = {
        "x": (1.6, 1.2), "w": (1.6, 4.2), "MatMul": (6.2, 1.2), "b": (6.2, 4.2), "Add": (10.6, 2.5),
        "Sigmoid": (14.6, 4.4), "Mul": (18.5, 2.5), "Sum": (22.3, 2.5),
    }  # fmt: skip
    steps = [name for name in order if name not in ("x", "w", "b")]
    figure, axes = canvas(24, 8)
    shapes = {}
    for name, (x, y) in places.items():
        leaf = name not in steps
        width, corner = (1.1, 0.5) if leaf else (2.5, 0.15)
        style = f"round,pad=0,rounding_size={corner}"
        fill = GRAY if leaf else BLUE
        shapes[name] = FancyBboxPatch(
            (x - width / 2, y - 0.55), width, 1.1, style, facecolor=fill, edgecolor=INK, zorder=2
        )
        axes.add_patch(shapes[name])
        say(axes, x, y, name)
        if leaf:
            done = [step for step in order[: order.index(name)] if step in steps]
            say(axes, x, y + 1.05, f"{name}.grad after {len(done)}", fontsize=10)
        else:
            badge = x - width / 2, y - 0.55
            axes.add_patch(Circle(badge, 0.42, facecolor=ORANGE, edgecolor=INK, zorder=4))
            say(axes, *badge, f"{steps.index(name) + 1}", fontsize=10)
    for start, end in edges:
        arrow(axes, places[start], places[end], patchA=shapes[start], patchB=shapes[end])
    code = "z = x @ w + b", "loss = (z * sigmoid(z)).sum()", "loss.backward()"
    say(axes, 12, 6.4, "        ".join(code), family="monospace")
    words = "z was used twice: Add waits for the gradients from Mul and Sigmoid, and adds them up"
    say(axes, 12, 7.4, words, color=BROWN)
    return figure, {"edges": edges, "order": order}


def noting(order: list[str], node: Function) -> Callable[[Tensor], Any]:
    """The node's backward, which also notes that it runs."""
    backward, name = node.backward, node.name

    def noted(dy: Tensor) -> Any:
        order.append(name)
        return backward(dy)

    return noted


FIGURES: dict[str, Callable[[], Drawing]] = {
    "windows": windows,
    "conv": conv,
    "pooling": pooling,
    "lrn": lrn,
    "autograd": autograd,
}


def words_in(figure: Figure) -> list[str]:
    """The words of a figure, except the numbers along axes."""
    texts = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts)]
    return [text.get_text() for text in texts if text.get_text()]


def draw(folder: Path) -> None:
    """Write every figure into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in FIGURES.items():
        with matplotlib.rc_context(matplotlib.rcParamsDefault):
            figure, data = make()
            image = io.BytesIO()
            figure.savefig(image, dpi=104)
            about = PngInfo()
            about.add_itxt("Description", json.dumps(data, default=lambda array: array.tolist()))
            about.add_itxt("Words", json.dumps(words_in(figure)))
            about.add_text("Software", f"matplotlib {matplotlib.__version__}")
            small = Image.open(image).convert("RGB").quantize(64)  # a quarter of the bytes
            small.save(folder / f"{name}.png", optimize=True, pnginfo=about)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Draw the figures of the lessons, windows.png, conv.png, pooling.png, lrn.png and autograd.png.",
        epilog="example: python examples/figures.py --out figures",
    )
    parser.add_argument(
        "--out", type=Path, default=FOLDER, help="write the figures into this folder (default: minicnn/figures)"
    )
    folder = parser.parse_args().out
    try:
        draw(folder)
    except OSError as error:
        parser.error(f"--out {folder}: cannot write there ({error.strerror}): name another folder")


if __name__ == "__main__":
    main()
