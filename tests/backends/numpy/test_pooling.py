"""minicnn/backends/numpy/pooling.py: a few images at a time, and winners in as few bytes as will do."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from reference import cut, distinct, normal

import minicnn.functional as F
from minicnn import Tensor, grad, use_backend
from minicnn.backends import numpy as fast
from minicnn.backends.numpy import pooling
from minicnn.functional import pooling as lesson
from minicnn.functional.windows import Window


def test_slices_fit_the_cache(monkeypatch):
    """Of each array that a slice works on there is room for two."""
    done, real = [], pooling.parallel
    monkeypatch.setattr(pooling, "parallel", lambda function, work: done.append(work) or real(function, work))
    x = Tensor(distinct(7, 6, 5, 3), requires_grad=True)
    need = 2 * x.data[0].nbytes
    for cache, step in ((3 * need, 3), (3 * need - 1, 2), (need - 1, 1), (100 * need, 7)):
        with cut(cache, 1 << 40, 1):
            (dx,) = grad(F.max_pool2d(x, 2), x, Tensor(normal(7, 3, 2, 3), requires_grad=True), create_graph=True)
            dx.sum().backward()
        assert done == [fast.threads.slices(7, step)] * 4  # maximum, winners, scatter, gather
        done.clear()


@pytest.mark.parametrize("room, expected", [(7, [(0, 7)]), (6, [(0, 3), (3, 6), (6, 7)])])
def test_a_batch_that_fits_the_cache_is_not_shared(room, expected, threads, monkeypatch):
    """Two threads would get into each other's way."""
    threads(3)
    x = distinct(7, 6, 5, 3)
    monkeypatch.setattr(fast.threads, "CACHE", room * 2 * x[0].nbytes)
    assert pooling._slices(x) == expected


@pytest.mark.parametrize(
    "kernel, dtype",
    [((15, 17), np.uint8), ((1, 255), np.uint8)]
    + [(kernel, np.uint32) for kernel in ((1, 256), (1, 257), (257, 1), (16, 16), (17, 17))],
)
def test_windows_of_more_places_than_a_byte_can_name(kernel, dtype):
    """ "None" needs a number as well: a window of 255 pixels has 256 outcomes, one of 256 has too many."""
    nothing = np.full((1, *kernel, 1), np.nan)
    for backend in (None, "reference"):
        with use_backend(backend):
            found = lesson.winners(nothing, np.full((1, 1, 1, 1), np.nan), Window.of(kernel))
        assert found.dtype == dtype and found.item() == np.prod(kernel)
    for place in (0, 254, np.prod(kernel) // 2, np.prod(kernel) - 1):
        x = np.zeros((1, *kernel, 1))
        x.reshape(-1)[place] = 1
        tensor = Tensor(x, requires_grad=True)
        F.max_pool2d(tensor, kernel).backward(np.full((1, 1, 1, 1), 7.0))
        assert_array_equal(tensor.grad.data, 7 * x)


@pytest.mark.parametrize("kernel, dtype", [((15, 17), np.uint8), ((16, 16), np.uint32)])
def test_places_have_as_many_bytes_as_they_need(kernel, dtype):
    """KH · KW, for a window without a maximum, is a place too."""
    x = np.full((1, *kernel, 1), np.nan, np.float32)
    window = Window.of(kernel)
    place = pooling.winners(x, pooling.window_maximum(x, window), window)
    assert place.dtype == dtype and place.item() == kernel[0] * kernel[1]


WINDOWS = [  # kernel, stride, padding, dilation
    (2, 2, 0, 1), (3, 2, 0, 1), (3, 2, ((0, 1), (0, 0)), 1), (3, 1, ((1, 0), (0, 2)), 1), (1, 1, 0, 1), (2, 3, 0, 1), ((1, 3), (2, 3), 0, 1),
    ((3, 2), (2, 3), 1, 1), ((2, 3), (3, 2), ((0, 1), (1, 0)), 1), (2, 2, 0, 2), (3, 2, 1, (2, 1)), ((4, 2), (1, 2), 0, (1, 3)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kernel, stride, padding, dilation", WINDOWS)
def test_sums_are_the_lessons_to_the_last_bit(kernel, stride, padding, dilation, dtype):
    """In its order, because a pixel may win several windows; where a window has no winner, and with −0 and ∞."""
    window = Window.of(kernel, stride, padding, dilation)
    rng = np.random.default_rng(0)
    for h, w in ((9, 8), (7, 10), (8, 11)):
        oh, ow = window.output_size(h, w)
        dy = (rng.standard_normal((3, oh, ow, 4)) * 10.0 ** rng.integers(-3, 4, (3, oh, ow, 4))).astype(dtype)
        dy[rng.random(dy.shape) < 0.2] = -0.0
        winner = rng.integers(0, np.prod(window.kernel_size) + 1, dy.shape).astype(np.uint8)
        dy[winner == np.prod(window.kernel_size)] = np.nan
        dy[0, 0, 0, 0] = np.inf
        x = rng.standard_normal((3, h, w, 4)).astype(dtype)
        x[x < -1] = -0.0
        for places, flow in ((winner, dy), (None, np.nan_to_num(dy, nan=-0.0, posinf=np.inf))):
            for name, args in (("scatter", (flow, places, window, (h, w))), ("gather", (x, places, window))):
                with use_backend("reference"):
                    expected = getattr(lesson, name)(*args)
                found = getattr(pooling, name)(*args)
                assert_array_equal(found, expected, strict=True)
                assert_array_equal(np.signbit(found), np.signbit(expected))
