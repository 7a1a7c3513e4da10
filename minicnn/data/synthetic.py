"""SyntheticImages: ten classes of textures, drawn on demand, so that a network can be trained
without a download.

All images are made the same way, so that only the arrangement in space tells the class. A pattern
gives each pixel's signed distance from the nearest edge (positive on the figure, negative on the
ground); a soft step turns the distance into a mask between 0 and 1; the mask blends two random
colors; a slope of brightness and some grain are added. Colors carry no label, and since figure and
ground may swap theirs, no single pixel does either: a model that weighs pixels or counts colors
learns little. What tells the classes apart is how edges run, and that is what convolutions find.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator

from ..checks import place, whole

# How hard the task is. Lengths are in pixels of an image of side 227; other sides show the same
# scene, scaled. A period, from one stripe (ring, dot, …) to the next, is drawn uniformly on a log
# scale.
PERIOD = (20.0, 48.0)
DUTY = (0.45, 0.55)  # share of the image that the figure covers
TILT = 8.0  # degrees that a pattern may lean to either side
CONTRAST = 0.4  # least difference of the two colors in each channel; 1 is the channel's whole range
SHADE = 0.05  # brightness added or taken away at the border, at most; 1 is the whole range
GRAIN = 0.05  # amplitude of the noise of single pixels; 1 is the whole range
EDGE = 3.0  # width of the blend from ground to figure

SIDE = 227  # the side at which the lengths above hold
SMALLEST = 64  # on a smaller side the finest patterns would be lost between the pixels

# A pattern takes a random generator, the coordinates x (1, W) and y (H, 1) from the image's center,
# a period and a duty, and returns the signed distances (H, W). Its scalars are Python floats, which
# leave float32 arrays float32.


def stripes(rng: Generator, turns: Any, period: float, duty: float) -> Any:
    """Stripes across `turns`, a coordinate that grows by 1 in each period, at a random phase."""
    turns = turns + rng.random()
    return period * (duty / 2 - abs(turns - np.floor(turns) - 0.5))


def lean(rng: Generator, x: Any, y: Any) -> tuple[Any, Any]:
    """The coordinates, tilted by a random angle."""
    angle = math.radians(rng.uniform(-TILT, TILT))
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def move(rng: Generator, x: Any, y: Any) -> tuple[Any, Any]:
    """The coordinates from a random center."""
    return x + SIDE * rng.uniform(-0.25, 0.25), y + SIDE * rng.uniform(-0.25, 0.25)


def horizontal(rng: Generator, x: Any, y: Any, period: float, duty: float) -> Any:
    """Stripes from left to right."""
    x, y = lean(rng, x, y)
    return stripes(rng, y / period, period, duty)


def vertical(rng: Generator, x: Any, y: Any, period: float, duty: float) -> Any:
    """Stripes from top to bottom."""
    x, y = lean(rng, x, y)
    return stripes(rng, x / period, period, duty)


def diagonal(rng: Generator, x: Any, y: Any, period: float, duty: float) -> Any:
    """Rising or falling, so that a mirror image stays in its class."""
    x, y = lean(rng, x, y)
    across = (x + y if rng.random() < 0.5 else x - y) / math.sqrt(2)
    return stripes(rng, across / period, period, duty)


def zigzag(rng: Generator, x: Any, y: Any, period: float, duty: float) -> Any:
    """Horizontal stripes that a triangle wave of slope 1 pushes up and down."""
    x, y = lean(rng, x, y)
    # a distance rises and falls as a triangle wave does
    wave = stripes(rng, x / (2 * period), 2 * period, duty)
    return stripes(rng, (y + wave) / (math.sqrt(2) * period), period, duty)


def checks(rng: Generator, x: Any, y: Any, period: float, duty: float) -> Any:
    """Figure where one of two sets of stripes runs, but not both: about half of the image, whatever
    the duty."""
    x, y = lean(rng, x, y)
    columns, rows = stripes(rng, x / period, period, duty), stripes(rng, y / period, period, duty)
    return np.minimum(np.maximum(columns, rows), -np.minimum(columns, rows))


def rings(rng: Generator, x: Any, y: Any, period: float, duty: float) -> Any:
    """Concentric circles."""
    x, y = move(rng, x, y)
    return stripes(rng, np.sqrt(x * x + y * y) / period, period, duty)


def rays(rng: Generator, x: Any, y: Any, period: float, duty: float) -> Any:
    """Stripes across the angle, a whole number of them, about a period wide at a third of the side
    from the hub."""
    x, y = move(rng, x, y)
    angle = math.tau / round(math.tau * SIDE / 3 / period)
    return stripes(rng, np.arctan2(y, x) / angle, angle * np.sqrt(x * x + y * y), duty)


def dots(rng: Generator, x: Any, y: Any, period: float, duty: float) -> Any:
    """Discs on a triangular lattice: each row is shifted by half a period from the one before."""
    x, y = lean(rng, x, y)
    height = period * math.sqrt(0.75)
    row = y / height + rng.random()
    column = x / period + rng.random() + np.floor(row) / 2
    # x and y from here on are distances from the disc's center
    x, y = period * (column - np.floor(column) - 0.5), height * (row - np.floor(row) - 0.5)
    return math.sqrt(duty * period * height / math.pi) - np.sqrt(x * x + y * y)


def blocks(rng: Generator, x: Any, y: Any, period: float, duty: float) -> Any:
    """A grid whose cells are figure or ground at random."""
    cell = 0.9 * period
    centers = np.arange(-SIDE / 2, SIDE / 2 + cell, cell, dtype=np.float32) - cell * rng.random()
    figure = rng.permutation(len(centers) ** 2).reshape(len(centers), -1) < duty * len(centers) ** 2
    # (H, cells): how far a pixel lies in each
    rows = np.clip((cell / 2 - abs(y - centers)) / EDGE + 0.5, 0, 1)
    columns = np.clip((cell / 2 - abs(x.T - centers)) / EDGE + 0.5, 0, 1)  # (W, cells)
    return EDGE * (rows @ figure.astype(np.float32) @ columns.T - 0.5)


def noise(rng: Generator, x: Any, y: Any, period: float, duty: float) -> Any:
    """White noise, blurred and cut at one height: blotches without order."""
    blur = period / 7
    knots = np.arange(-SIDE / 2 - 3 * blur, SIDE / 2 + 3 * blur, blur, dtype=np.float32)
    rows = np.exp(-(((y - knots) / blur) ** 2) / 2)  # (H, knots)
    columns = np.exp(-(((x.T - knots) / blur) ** 2) / 2)  # (W, knots)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    columns /= np.linalg.norm(columns, axis=1, keepdims=True)
    # heights of variance 1
    heights = rows @ rng.standard_normal((len(knots), len(knots)), dtype=np.float32) @ columns.T
    # the normal density is near 1 / sqrt(tau) here
    return 2 * blur * (heights + math.sqrt(math.tau) * (duty - 0.5))


PATTERNS = (horizontal, vertical, diagonal, zigzag, checks, rings, rays, dots, blocks, noise)


def draw(rng: Generator, pattern: Callable[..., Any], size: int) -> np.ndarray:
    """One image, uint8 (size, size, 3). The grain comes last, so that all sizes draw the same scene
    from one seed.
    """
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) * SIDE
    x, y = axis[None, :], axis[:, None]
    period, duty = PERIOD[0] * (PERIOD[1] / PERIOD[0]) ** rng.random(), rng.uniform(*DUTY)
    mask = np.clip(pattern(rng, x, y, period, duty) / EDGE + 0.5, 0, 1)

    margin = SHADE + GRAIN  # left free in each channel, so that nothing needs clipping
    dark, bright = np.sort(rng.uniform(margin, 1 - margin - CONTRAST, size=(2, 3)), axis=0)
    bright += CONTRAST
    ground, figure = (dark, bright) if rng.random() < 0.5 else (bright, dark)

    angle = rng.uniform(0, math.tau)
    light = (x * math.cos(angle) + y * math.sin(angle)) * (SHADE * math.sqrt(2) / SIDE)
    light += GRAIN * (2 * rng.random((size, size), dtype=np.float32) - 1)
    image = np.empty((size, size, 3), np.uint8)
    for channel, (low, high) in enumerate(zip(ground.tolist(), figure.tolist(), strict=True)):
        image[:, :, channel] = 255 * (low + (high - low) * mask + light)
    return image


class SyntheticImages:
    """`n` images of ten textures: `dataset[i]` is a uint8 array (size, size, 3) and its label, an
    int.

    The label is i % 10, so the classes are balanced but come in turn: shuffle them. Image i follows
    from seed and i alone, up to float rounding. A negative index counts from the end, as in a list.
    A mirror image stays in its class.

    Args:
        n: how many images, 1 or more.
        seed: from 0 to 2⁶⁴ − 1.
        size: the side of an image in pixels, 64 or more.
    Attributes:
        classes: the names of the ten textures.
        n: as given.
        seed: as given.
        size: as given.
    Raises:
        ValueError: n, seed or size is out of range.
        IndexError: an image is asked for whose index is out of range.

    Example:
        >>> dataset = SyntheticImages(20, size=64)
        >>> image, label = dataset[3]
        >>> image.shape, dataset.classes[label]
        ((64, 64, 3), 'zigzag')
    """

    def __init__(self, n: int, seed: int = 0, size: int = SIDE):
        self.n = whole("SyntheticImages: n, the number of images,", n, 1)
        self.seed = whole("SyntheticImages: seed", seed, 0, 2**64 - 1)
        self.size = whole("SyntheticImages: size, pixels a side,", size, SMALLEST)
        self.classes = [pattern.__name__ for pattern in PATTERNS]

    def __repr__(self) -> str:
        return f"SyntheticImages({self.n}, seed={self.seed}, size={self.size})"

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        i = place("SyntheticImages: index", index, self.n)
        label = i % len(PATTERNS)
        # counter-based: the key is the whole state
        rng = np.random.Generator(np.random.Philox(key=self.seed << 64 | i))
        return draw(rng, PATTERNS[label], self.size), label
