"""minicnn/backends/native/pooling.py beyond the small shapes of the agreement table: channels of several registers and
of parts of one, rows that end in the middle of a register, windows of every number of neighbors, shares of threads."""

import numpy as np
import pytest
from kernel_table import awkward, normal
from numpy.testing import assert_array_equal

from minicnn import backends, use_backend
from minicnn.backends import numpy as fast
from minicnn.backends.native import pooling
from minicnn.functional import pooling as lesson
from minicnn.functional.windows import Window

pytestmark = pytest.mark.skipif(
    backends._backends["native"].problem() is not None, reason=str(backends._backends["native"].problem())
)
WINDOWS = [
    Window.of(3, 2), Window.of(2, 2), Window.of(3, 2, 1), Window.of(2, 2, 1), Window.of(3, 1, 1), Window.of(2, 1),
    Window.of((2, 3), (3, 1)), Window.of(1), Window.of(1, 3), Window.of(3, 2, 1, 2), Window.of(4, 3, 2, 2),
    Window.of((5, 4), 2, ((2, 1), (0, 2))), Window.of((1, 17), 2), Window.of((18, 1), 1), Window.of(3, (4, 6)),
]  # fmt: skip


def same(x, window, dtype):
    """All four kernels have what the lesson has."""
    x, size = x.astype(dtype), x.shape[1:3]
    with use_backend("reference"), np.errstate(invalid="ignore"):
        y = lesson.window_maximum(x, window)
        winner = lesson.winners(x, y, window)
        dy = awkward(*y.shape, seed=1).astype(dtype)
        sums = [
            (lesson.gather(x, some, window), lesson.scatter(dy, some, window, size), some) for some in (winner, None)
        ]
    assert_array_equal(pooling.window_maximum(x, window), y, strict=True)
    assert_array_equal(pooling.winners(x, y, window), winner, strict=True)
    for gathered, scattered, some in sums:
        assert_array_equal(pooling.gather(x, some, window), gathered, strict=True)
        assert_array_equal(pooling.scatter(dy, some, window, size), scattered, strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_any_window(window, dtype):
    for channels in (3, 16, 20):
        same(awkward(2, 19, 20, channels), window, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 100])
def test_any_number_of_channels(channels, dtype):
    for window in (Window.of(3, 2), Window.of(2, 2, 1), Window.of(4, 1, 2)):
        same(awkward(2, 7, 8, channels), window, dtype)


@pytest.mark.parametrize("height", range(1, 6))
@pytest.mark.parametrize("width", range(1, 6))
def test_small_images(height, width):
    for window in (Window.of(2, 2, 1), Window.of(3, 1, 1), Window.of(1, 2), Window.of(3, 4, 1)):
        same(awkward(1, height, width, 3), window, np.float32)


def test_places_of_four_bytes():
    for window in (Window.of((16, 16), 3), Window.of((2, 129), (1, 2))):
        for channels in (3, 20):
            x = awkward(2, 18, 131, channels)
            assert lesson.winners(x, lesson.window_maximum(x, window), window).dtype == np.uint32
            same(x, window, np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "window", [Window.of(3, 2), Window.of(2, 2, 1), Window.of(3, 1, 1), Window.of((17, 17), 9)], ids=str
)
def test_what_is_written_past_the_caches(window, dtype):
    """Images that are together larger than FAR of far.h have the bits that they have alone."""
    x = normal(17, 64, 64, 64).astype(dtype)
    y = pooling.window_maximum(x, window)
    winner, dy = pooling.winners(x, y, window), normal(*y.shape, seed=1).astype(dtype)
    for some in (winner, None):
        alone = [
            pooling.scatter(dy[i : i + 1], some if some is None else some[i : i + 1], window, (64, 64))
            for i in range(17)
        ]
        assert_array_equal(pooling.scatter(dy, some, window, (64, 64)), np.concatenate(alone))


def test_nan_wins_a_large_window_and_nothing_else_does():
    x = normal(1, 9, 9, 18).astype(np.float32)
    x[0, 4, 4, 17] = np.nan
    y = pooling.window_maximum(x, Window.of(5))
    assert np.isnan(y[..., 17]).all() and not np.isnan(y[..., :17]).any()
    assert (pooling.winners(x, y, Window.of(5))[..., 17] == 25).all()


@pytest.mark.parametrize("threads_in_use", [1, 2, 5])
def test_shares_of_threads(threads_in_use):
    before = fast.threads.get_num_threads()
    fast.threads.set_num_threads(threads_in_use)
    try:
        for window in (Window.of(3, 2), Window.of(3, 2, 1)):
            same(awkward(3, 65, 64, 24), window, np.float32)
            same(awkward(1, 200, 131, 7), window, np.float32)
    finally:
        fast.threads.set_num_threads(before)
