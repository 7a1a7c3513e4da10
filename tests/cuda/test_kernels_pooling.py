"""Pooling on a GPU against the lesson, with ties, infinities, NaN and windows that see nothing but padding."""

import importlib

import numpy as np
import pytest
from agreement import agrees, normal, there

import minicnn
import minicnn.functional as F
from minicnn import Tensor
from minicnn.backends.cuda import pooling as kernels
from minicnn.functional.windows import Window

lesson = importlib.import_module("minicnn.functional.pooling")


@pytest.mark.parametrize("window", [
    Window((3, 3), (2, 2), ((0, 0), (0, 0)), (1, 1)), Window((2, 3), (3, 2), ((1, 0), (0, 1)), (1, 1)),
    Window((3, 2), (1, 3), ((1, 1), (1, 0)), (2, 1)), Window((2, 4), (2, 1), ((0, 1), (2, 2)), (3, 2)),
])  # fmt: skip
@pytest.mark.parametrize("channels", [3, 8])
def test_strides_and_holes_of_each_kind(gpu, window, channels):
    x = normal(3, 9, 8, channels)
    y = lesson.window_maximum(x, window)
    for winner in (lesson.winners(x, y, window), None):
        agrees(gpu, kernels.scatter, lesson.scatter, normal(*y.shape, seed=1), winner, window, (9, 8))
        agrees(gpu, kernels.gather, lesson.gather, x, winner, window)


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
    agrees(gpu, kernels.winners, lesson.winners, x, y, window, exactly=True)
    agrees(gpu, kernels.scatter, lesson.scatter, normal(*y.shape), winner, window, (18, 19))
    agrees(gpu, kernels.gather, lesson.gather, x, winner, window)


def test_the_kernels_take_the_lessons_winners(gpu):
    """As when the backend changes between a forward and a backward pass."""
    for kernel in ((2, 3), (1, 255), (16, 16)):
        x = there(gpu, normal(1, *kernel, 2))
        window = Window.of(kernel)
        with minicnn.use_backend("reference"):
            winner = lesson.winners(x, lesson.window_maximum(x, window), window)
        assert winner.dtype == kernels.winners(x, kernels.window_maximum(x, window), window).dtype
        dy = there(gpu, np.full((1, 1, 1, 2), 7.0))
        found = kernels.scatter(dy, winner, window, kernel).get()
        np.testing.assert_array_equal(found, np.where(x.get() == x.get().max((1, 2)), 7, 0))


@pytest.mark.parametrize("counted", [True, False])
def test_the_pixels_that_a_mean_counts_are_counted_there(standin, counted):
    x = np.ones((2, 6, 5, 3), np.float32)
    expected = F.avg_pool2d(Tensor(x), 3, 2, 1, True, counted).data
    moved = Tensor(x, device="gpu:1")
    standin.log.clear()
    y = F.avg_pool2d(moved, 3, 2, 1, True, counted)
    assert not standin.log.transfers and y.dtype == np.float32
    np.testing.assert_array_equal(y.data.get(), expected)
