"""minicnn/backends/numpy/winograd.py: the three maps of convolution, with fewer multiplications."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from kernel_table import TABLE, cast, normal
from numpy.testing import assert_allclose, assert_array_equal
from reference import arrays, cut

import minicnn.functional as F
from minicnn import Tensor, use_backend
from minicnn.backends import numpy as fast
from minicnn.backends.numpy import winograd
from minicnn.backends.numpy.windows import groups_of
from minicnn.functional import conv as lesson
from minicnn.functional.windows import Window

MAPS = ("convolve", "convolve_transpose", "convolve_weight")


@pytest.fixture(autouse=True, scope="module")
def for_any_number_of_tiles():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "FEWEST_PIXELS", 0)
        patch.setattr(winograd, "FEWEST_CHANNELS", 0)
        yield


def near(name, args, dtype):
    """That map of arguments in float64, given in dtype, has what the lesson has: in float32, with no more than twice
    the error that one product of matrices makes. With a ReLU the first one has its numbers."""
    with use_backend("reference"):
        expected = getattr(lesson, name)(*args)
    found = getattr(winograd, name)(*cast(args, dtype))
    assert found.dtype == dtype and found.shape == expected.shape
    error, largest = np.abs(found - expected).max(initial=0), np.abs(expected).max(initial=1)
    assert error <= (1e-12 if dtype == np.float64 else 2e-6) * largest
    if name == "convolve":
        assert_array_equal(winograd.convolve(*cast(args, dtype), rectified=True), np.maximum(found, 0))


def slides(args):
    return winograd.suits(None, next(a for a in args if type(a) is Window), 0, 0)


@pytest.mark.parametrize("name", MAPS)
@given(st.data(), st.sampled_from([np.float64, np.float32]))
def test_each_map_is_the_lessons(name, data, dtype):
    near(name, data.draw(TABLE[f"conv.{name}"].filter(slides)), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 20, 23, 24), (1, 13, 13, 96), (5, 8, 8, 16)])
def test_accuracy_over_many_channels(shape, dtype):
    """Sums of hundreds of terms."""
    window = Window.of(3, padding=1)
    x, weight, dy = (normal(*s, seed=i) for i, s in enumerate([shape, (3, 3, shape[3] // 2, 32), (*shape[:3], 32)]))
    near("convolve", (x, weight, None, window, 2), dtype)
    near("convolve_transpose", (dy, weight, window, 2, shape[1:3]), dtype)
    near("convolve_weight", (x, dy, window, 2), dtype)


# ---------------------------------------------------------------------------------------------------- when it is taken
SLIDING = dict(kernel_size=3, stride=1, padding=0, dilation=1)


@pytest.mark.parametrize(
    "window, pixels, channels, expected",
    [
        (SLIDING, 28, 5, True),
        (SLIDING, 27, 5, False),
        (SLIDING, 28, 4, False),
        (SLIDING, 29, 6, True),
        (SLIDING, 1 << 40, 1, False),
        (SLIDING, 1, 1 << 40, False),
        (SLIDING, 0, 0, False),
        ({**SLIDING, "padding": ((5, 0), (1, 2))}, 28, 5, True),
        *[({**SLIDING, "kernel_size": size}, 99, 9, False) for size in (1, 2, 4, 5, (3, 1), (1, 3), (3, 2), (5, 3))],
        *[({**SLIDING, name: size}, 99, 9, False) for name in ("stride", "dilation") for size in (2, (1, 2), (2, 1))],
    ],
)
def test_suits(window, pixels, channels, expected, monkeypatch):
    monkeypatch.setattr(winograd, "FEWEST_PIXELS", 28)
    monkeypatch.setattr(winograd, "FEWEST_CHANNELS", 5)
    assert winograd.suits(np.empty(1), Window.of(**window), pixels, channels) is expected


def watch(monkeypatch):
    """The names of this lesson's maps, as they run."""
    ran = []
    for name in MAPS:
        real = getattr(winograd, name)
        monkeypatch.setattr(winograd, name, lambda *args, name=name, real=real: ran.append(name) or real(*args))
    return ran


@pytest.mark.parametrize(
    "n, size, fewest, taken",
    [
        (1, (6, 6), 36, True),
        (1, (5, 7), 36, False),
        (3, (4, 3), 36, True),
        (3, (11, 1), 36, False),
        (0, (4, 4), 0, True),
    ],
)
def test_conv2d_goes_this_way_if_there_are_enough_pixels(n, size, fewest, taken, monkeypatch):
    monkeypatch.setattr(winograd, "FEWEST_PIXELS", fewest)
    ran = watch(monkeypatch)
    x = Tensor(normal(n, size[0] + 2, size[1] + 2, 2), requires_grad=True)
    weight = Tensor(normal(3, 3, 2, 2), requires_grad=True)
    F.conv2d(x, weight).sum().backward()
    assert ran == list(MAPS) * taken
    ran.clear()
    F.conv_transpose2d(Tensor(normal(n, *size, 2)), weight)
    assert ran == ["convolve_transpose"] * taken


# ------------------------------------------------------------------------------------------------- slices and threads
@pytest.mark.parametrize("size, tiles", [((4, 6), 2 * 3), ((5, 6), 3 * 3), ((4, 7), 2 * 4), ((1, 1), 1)])
@pytest.mark.parametrize("threads", [1, 3])
def test_no_tile_is_computed_in_vain(size, tiles, threads, monkeypatch):
    """As many as cover the output, in each of the three maps."""
    shapes, real = [], winograd._transform
    monkeypatch.setattr(
        winograd, "_transform", lambda m, x, w, name: shapes.append(real(m, x, w, name).shape) or real(m, x, w, name)
    )
    x, weight = Tensor(normal(2, *size, 3), requires_grad=True), Tensor(normal(3, 3, 3, 3), requires_grad=True)
    before = fast.threads.get_num_threads()
    fast.threads.set_num_threads(threads)
    try:
        y = F.conv2d(x, weight, padding=1)
        assert sum(t for _, t, _ in shapes) == 2 * tiles
        shapes.clear()
        y.sum().backward()
    finally:
        fast.threads.set_num_threads(before)
    # dy's for dx, once for each share of the channels; then x's and dy's for dW
    assert sum(t for _, t, _ in shapes) == 2 * tiles * (3 + (threads > 2))


def test_float32_is_multiplied_as_float32(monkeypatch):
    """Also the transformations: mixed with matrices of float64 they would give the same, at half the speed."""
    dtypes, real = set(), np.matmul

    def spy(a, b, **out):
        dtypes.update([a.dtype, b.dtype, *(array.dtype for array in out.values())])
        return real(a, b, **out)

    monkeypatch.setattr(np, "matmul", spy)
    for dtype in (np.float32, np.float64):
        reference.step(F.conv2d, [normal(2, 4, 5, 2).astype(dtype), normal(3, 3, 2, 2).astype(dtype)])
        assert dtypes == {np.dtype(dtype)}
        dtypes.clear()


@pytest.mark.parametrize("groups", [1, 2])
def test_the_tiles_of_a_slice_fill_the_cache(groups, monkeypatch):
    """Four times what they see and make, of some images, or of a few rows of tiles."""
    done = []
    for name in ("parallel", "parallel_sum"):
        real = getattr(winograd, name)
        monkeypatch.setattr(winograd, name, lambda f, work, real=real: done.append(work) or real(f, work))
    x, weight = Tensor(normal(7, 7, 6, 4), requires_grad=True), Tensor(normal(3, 3, 4 // groups, 6), requires_grad=True)
    rows, one = 3, 4 * (7 * 6 * 4 + 5 * 4 * 6) * 8 // groups  # 5 rows of output, 3 of tiles
    for cache, images, high in (
        (3 * one, 3, 3),
        (3 * one - 1, 2, 3),
        (one, 1, 3),
        (one - 1, 1, 2),
        (one // 3, 1, 1),
        (100 * one, 7, 3),
    ):
        with cut(cache, 1 << 40, 1):
            F.conv2d(x, weight, groups=groups).sum().backward()
        cuts = fast.threads.slices(7, images)
        by_rows = [(slice(*i), slice(*r)) for i in cuts for r in fast.threads.slices(rows, high)]
        by_groups = [(slice(*i), *part) for i in cuts for part in groups_of(groups, 4, 6)]
        assert done == [by_rows, by_groups, by_rows]
        done.clear()


# -------------------------------------------------------------------------------------------------------- the algebra
@given(arrays((4,)), arrays((3,)))
def test_four_multiplications_for_two_outputs(d, g):
    d, g = d.astype(np.float64), g.astype(np.float64)
    expected = [d[0] * g[0] + d[1] * g[1] + d[2] * g[2], d[1] * g[0] + d[2] * g[1] + d[3] * g[2]]
    assert_allclose(winograd.A @ ((winograd.B @ d) * (winograd.G @ g)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_a_number_stays_in_its_tiles(bad):
    """The outputs that see such a pixel are not numbers either, nor may be their neighbors in the same tile of 2 × 2;
    all others are untouched."""
    x, weight = normal(3, 9, 8, 2), normal(3, 3, 2, 3, seed=1)
    expected = reference.conv2d(x, weight, padding=1)
    x[1, 4, 5, 0] = bad
    with np.errstate(invalid="ignore"):
        y = F.conv2d(Tensor(x), Tensor(weight), padding=1).data
    assert not np.isfinite(y[1, 3:6, 4:7]).any()
    y[1, 2:6, 4:8] = expected[1, 2:6, 4:8]  # the tiles of rows 2 to 5 and columns 4 to 7
    assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
