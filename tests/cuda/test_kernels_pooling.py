"""Pooling on a GPU against the lesson, with ties, infinities, NaN and windows that see nothing but padding."""

import importlib

import numpy as np
from agreement import CHANNELS, LAYOUTS, agrees, awkward, normal, there, windows
from hypothesis import given
from hypothesis import strategies as st

from minicnn.cuda import pooling as kernels
from minicnn.functional.windows import Window

lesson = importlib.import_module("minicnn.functional.pooling")
BATCH, SEED = st.integers(0, 2), st.integers(0, 99)
EXACTLY = {"exactly": True}


@given(BATCH, windows(pooling=True), CHANNELS, SEED, LAYOUTS)
def test_window_maximum_and_winners(gpu, n, geometry, channels, seed, layout):
    (h, w), window = geometry
    for make in (awkward, normal):
        x = make(n, h, w, channels, seed=seed)
        y = lesson.window_maximum(x, window)
        agrees(
            gpu, lambda x: kernels.window_maximum(x, window), lambda x: lesson.window_maximum(x, window), x,
            exactly=True, layout=layout, wide=True,
        )  # fmt: skip
        agrees(
            gpu, lambda x, y: kernels.winners(x, y, window), lambda x, y: lesson.winners(x, y, window), x, y,
            exactly=True, layout=layout, wide=True,
        )  # fmt: skip


@given(BATCH, windows(pooling=True), CHANNELS, SEED, LAYOUTS, st.booleans())
def test_scatter_and_gather(gpu, n, geometry, channels, seed, layout, everyone):
    (h, w), window = geometry
    x = awkward(n, h, w, channels, seed=seed)
    y = lesson.window_maximum(x, window)
    winner = None if everyone else lesson.winners(x, y, window)
    agrees(
        gpu, lambda dy, won: kernels.scatter(dy, won, window, (h, w)),
        lambda dy, won: lesson.scatter(dy, won, window, (h, w)), normal(*y.shape, seed=seed), winner,
        layout=layout, wide=True,
    )  # fmt: skip
    agrees(
        gpu, lambda x, won: kernels.gather(x, won, window), lambda x, won: lesson.gather(x, won, window), x, winner,
        layout=layout, wide=True,
    )  # fmt: skip


def test_windows_of_the_padding_alone(gpu):
    """Two pixels far apart, both in the padding: −∞, and no winner."""
    window = Window((2, 2), (1, 1), ((1, 1), (1, 1)), (4, 4))
    x = normal(1, 3, 3, 4)
    y = kernels.window_maximum(there(gpu, x), window)
    assert (y.get() == -np.inf).all()
    assert (kernels.winners(there(gpu, x), y, window).get() == 4).all()


def test_images_without_pixels(gpu):
    window = Window((2, 2), (1, 1), ((1, 1), (1, 1)), (1, 1))
    for channels in (3, 4):
        x = there(gpu, normal(2, 0, 0, channels))
        y = kernels.window_maximum(x, window)
        assert (y.get() == -np.inf).all() and y.shape == (2, 1, 1, channels)
        assert (kernels.winners(x, y, window).get() == 4).all()
        assert (kernels.gather(x, None, window).get() == 0).all()


def test_places_beyond_a_byte(gpu):
    """Windows of 16 × 17 pixels: the last is number 271."""
    x = np.arange(18.0 * 19).reshape(1, 18, 19, 1)
    x[0, 3, 4] = np.nan
    window = Window.of((16, 17))
    y = lesson.window_maximum(x, window)
    winner = lesson.winners(x, y, window)
    assert winner.dtype == np.uint32 and set(winner.ravel()) == {272}
    x[0, 3, 4] = 0
    y = lesson.window_maximum(x, window)
    winner = lesson.winners(x, y, window)
    assert (winner == 271).all()
    agrees(gpu, lambda x, y: kernels.winners(x, y, window), lambda x, y: lesson.winners(x, y, window), x, y, **EXACTLY)
    for dy in (y, normal(*y.shape)):
        agrees(
            gpu, lambda dy, won: kernels.scatter(dy, won, window, (18, 19)),
            lambda dy, won: lesson.scatter(dy, won, window, (18, 19)), dy, winner,
        )  # fmt: skip
    agrees(gpu, lambda x, won: kernels.gather(x, won, window), lambda x, won: lesson.gather(x, won, window), x, winner)


def test_the_papers_windows(gpu):
    """3 × 3 in steps of 2, for several images and packs of channels."""
    window, x = Window.of(3, 2), awkward(3, 9, 11, 8)
    y = lesson.window_maximum(x, window)
    winner = lesson.winners(x, y, window)
    dy = normal(*y.shape)
    agrees(gpu, lambda x: kernels.window_maximum(x, window), lambda x: y.astype(x.dtype), x, **EXACTLY)
    agrees(gpu, lambda x, y: kernels.winners(x, y, window), lambda x, y: winner, x, y, **EXACTLY)
    for won in (winner, None):
        agrees(
            gpu, lambda dy, won: kernels.scatter(dy, won, window, (9, 11)),
            lambda dy, won: lesson.scatter(dy, won, window, (9, 11)), dy, won,
        )  # fmt: skip
        agrees(
            gpu, lambda x, won: kernels.gather(x, won, window), lambda x, won: lesson.gather(x, won, window),
            normal(*x.shape), won,
        )  # fmt: skip
