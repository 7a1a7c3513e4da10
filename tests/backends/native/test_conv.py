"""minicnn/backends/native/conv.py, winograd.py and matmul.py beyond the small shapes of the agreement table: whole and
partial tiles of registers, several parts of the depth, bands of rows, shares of threads, the Winograd algorithm."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_table import cast, normal
from numpy.testing import assert_array_equal

from minicnn import backends, use_backend
from minicnn.backends.native import activation, conv, fused, winograd
from minicnn.functional import conv as lesson
from minicnn.functional.windows import Window
from minicnn.ops import matmul as product

MAPS = ("convolve", "convolve_transpose", "convolve_weight")
pytestmark = pytest.mark.skipif(
    backends._backends["native"].problem() is not None, reason=str(backends._backends["native"].problem())
)


def arguments(shape, outputs, window, groups, seed=0):
    """The arguments of the three maps, in float64, with numbers that float32 has as well."""
    n, h, w, c = shape
    x, weight = normal(*shape, seed=seed), normal(*window.kernel_size, c // groups, outputs, seed=seed + 1)
    dy, bias = normal(n, *window.output_size(h, w), outputs, seed=seed + 2), normal(outputs, seed=seed + 3)
    return {
        "convolve": (x, weight, bias, window, groups),
        "convolve_transpose": (dy, weight, window, groups, (h, w)),
        "convolve_weight": (x, dy, window, groups),
    }


def near(shape, outputs, window, groups, dtype=np.float32):
    """All three maps have what the lesson has in float64, and the same bits once more; with a ReLU the
    first one has its bits."""
    for name, args in arguments(shape, outputs, window, groups).items():
        with use_backend("reference"):
            expected = getattr(lesson, name)(*args)
        given_args = cast(args, dtype)
        found = getattr(conv, name)(*given_args)
        assert found.dtype == dtype and found.shape == expected.shape
        error, largest = np.abs(found - expected).max(initial=0), np.abs(expected).max(initial=1)
        assert error <= (1e-13 if dtype == np.float64 else 1e-6) * largest, name
        assert_array_equal(getattr(conv, name)(*given_args), found, strict=True)
        if name == "convolve":
            assert fused.convolve_rectify(*given_args).tobytes() == activation.rectify(found).tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 33, 48, 63, 64, 80, 129])
def test_any_width_in_registers(outputs, dtype):
    near((2, 5, 6, 7), outputs, Window.of((2, 3)), 1, dtype)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 3), (1, 1, 5, 2), (1, 3, 4, 1), (1, 11, 1, 5), (3, 1, 13, 4), (13, 1, 1, 20)]
)
def test_any_height_in_tiles(shape):
    near(shape, 24, Window.of(1), 1)


def test_a_depth_of_several_parts():
    near((2, 6, 6, 72), 70, Window.of(3, padding=1), 1)
    near((2, 6, 6, 72), 70, Window.of(3, padding=1), 2, np.float64)


@pytest.mark.parametrize("columns", [0, 1e9], ids=["by columns", "at once"])
@pytest.mark.parametrize("stride", [1, 2, (3, 1), 4])
@pytest.mark.parametrize("dilation", [1, (2, 3)])
def test_any_stride_and_dilation(monkeypatch, columns, stride, dilation):
    monkeypatch.setattr(conv, "COLUMNS", columns)
    near((2, 17, 19, 6), 10, Window.of((3, 2), stride, ((1, 0), (2, 3)), dilation), 2)


@pytest.mark.parametrize("threads_in_use", [1, 2, 5])
@pytest.mark.parametrize("images", [0, 1, 3, 8])
def test_bands_and_shares(monkeypatch, threads, threads_in_use, images):
    """A batch of few images is cut into bands of rows, and each thread has a share of the weight's gradient."""
    threads(threads_in_use)
    for near_bytes, enough, columns in ((1, 1, 0), (4000, 1, 1e9), (conv.NEAR, 1, 1e9), (conv.NEAR, 10**6, 0)):
        monkeypatch.setattr(conv, "NEAR", near_bytes)
        monkeypatch.setattr(conv, "ENOUGH", enough)
        monkeypatch.setattr(conv, "COLUMNS", columns)
        near((images, 11, 9, 5), 6, Window.of(3, 2, 1), 1)


@pytest.mark.parametrize("groups, threads_in_use, parts", [(1, 1, 1), (1, 2, 2), (1, 16, 3), (2, 5, 3), (3, 4, 2)])
def test_threads_share_the_channels_of_an_image(threads, threads_in_use, groups, parts):
    """Where the weights are more than its numbers, each thread has some of them, in whole registers."""
    threads(threads_in_use)
    shape, outputs, window = (1, 4, 5, 3 * groups), 200 * groups, Window.of(3, 2, 1)
    near(shape, outputs, window, groups)
    near(shape, outputs, window, groups, np.float64)
    near((2, *shape[1:]), outputs, window, groups)
    near((1, 4, 5, 200 * groups), 3 * groups, window, groups)  # dx has more channels than y
    x, y = np.empty(shape, np.float32), np.empty((1, *window.output_size(4, 5), outputs), np.float32)
    cut, cuts, _ = conv._cut(x, y, window, groups)
    assert cut[conv.PARTS] == parts and cuts * groups * parts >= min(threads_in_use, 6)


@pytest.mark.parametrize("groups, threads_in_use, shares", [(1, 2, 2), (2, 2, 1), (2, 3, 3), (2, 4, 2), (3, 4, 4)])
def test_shares_where_groups_are_units_already(monkeypatch, threads, groups, threads_in_use, shares):
    """All threads have as many units, and no more sums are made than that takes."""
    threads(threads_in_use)
    monkeypatch.setattr(conv, "empty", lambda shape, dtype: made.append(shape) or np.empty(shape, dtype))
    made, args = [], arguments((8, 6, 6, 2 * groups), 3 * groups, Window.of(3), groups)["convolve_weight"]
    conv.convolve_weight(*args)
    assert [shape[0] for shape in made if len(shape) == 5] == [shares] * (shares > 1)
    near((8, 6, 6, 2 * groups), 3 * groups, Window.of(3), groups)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m, k", [(2, 3), (4, 3), (2, 5)])
@given(st.data())
def test_winograd(m, k, dtype, data):
    """Any size, padding and groups, with channels that fill registers."""
    padding = tuple((data.draw(st.integers(0, k - 1)), data.draw(st.integers(0, k - 1))) for _ in range(2))
    groups = data.draw(st.integers(1, 2))
    c, o = (16 * groups * data.draw(st.integers(1, 5)) for _ in range(2))
    h, w = (data.draw(st.integers(max(1, k - sum(sides)), 9)) for sides in padding)
    shape, window = (data.draw(st.integers(1, 5)), h, w, c), Window.of(k, padding=padding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "FEWEST_PIXELS", 0)
        patch.setattr(winograd, "FEWEST_CHANNELS", {3: 0, 5: 0})
        patch.setattr(winograd, "ENOUGH", {k: data.draw(st.sampled_from([1, 5, 40, 196]))})
        patch.setattr(winograd, "NEAR", 1)
        patch.setattr(winograd, "tile_for", lambda size, k: m)
        assert winograd.suits(np.empty(shape, dtype), np.empty((k, k, c // groups, o), dtype), window, groups)
        for name, args in arguments(shape, o, window, groups).items():
            with use_backend("reference"):
                expected = getattr(lesson, name)(*args)
            found = getattr(conv, name)(*cast(args, dtype))
            error, largest = np.abs(found - expected).max(initial=0), np.abs(expected).max(initial=1)
            allowed = 1e-13 if dtype == np.float64 else 1e-6 if m + k == 5 else 1e-5
            assert found.dtype == dtype and error <= allowed * largest, name
            if name == "convolve":
                rectified = fused.convolve_rectify(*cast(args, dtype))
                assert rectified.tobytes() == activation.rectify(found).tobytes()


def test_the_tiles_that_save_enough_products():
    assert [winograd.tile_for((n, n), 3) for n in (1, 2, 3, 4, 5, 6, 7, 8, 13, 16)] == [2, 2, 4, 4, 2, 2, 4, 4, 2, 4]
    assert winograd.tile_for((1, 32), 3) == 2 and winograd.tile_for((32, 32), 5) == 2


@pytest.mark.parametrize("channels", [16, 64], ids=["plain", "Winograd"])
def test_a_gradient_over_many_pixels_keeps_its_digits(threads, channels):
    """Added up one after another, 50,176 terms of 0.1 in float32 would lose digits."""
    threads(1)
    window, dtype = Window.of(3), np.float32
    x, dy = np.ones((16, 58, 58, channels), dtype), np.full((16, 56, 56, channels), 0.1, dtype)
    assert winograd.suits(dy, np.empty((3, 3, channels, channels), dtype), window, 1) == (channels == 64)
    found = conv.convolve_weight(x, dy, window, 1)
    assert np.abs(found / (16 * 56 * 56 * float(dtype(0.1))) - 1).max() < 5e-6


def test_columns_that_would_fill_the_memory_are_not_made(threads):
    threads(2)
    weight = np.empty((7, 7, 3, 16), np.float32)
    for n, size, few in ((2, 100, True), (2, 400, False), (1, 100, False)):
        dy = np.empty((n, size, size, 16), np.float32)
        dx = np.empty((n, size + 6, size + 6, 3), np.float32)
        assert conv._columns_are_fewer(dx, dy, weight, Window.of(7)) is few


def test_operands_that_c_cannot_read_go_to_numpy():
    """Unaligned ones, and shapes that do not fit, which are its error."""
    a, b = np.ones((32, 4096), np.float32), np.ones((4096, 1024), np.float32)
    unaligned = np.frombuffer(bytes(1) + a.tobytes(), np.float32, offset=1).reshape(a.shape)
    with use_backend("native"):
        assert_array_equal(product(unaligned, b), np.full((32, 1024), 4096, np.float32))
        with pytest.raises(ValueError, match="matmul"):
            product(a, b[:1024])


def test_what_winograd_leaves_to_the_plain_product():
    x, weight = np.empty((4, 32, 32, 64), np.float32), np.empty((3, 3, 64, 64), np.float32)
    window = Window.of(3, padding=1)
    assert winograd.suits(x, weight, window, 1)
    assert winograd.suits(x, weight, Window.of(5, padding=4), 1)
    others = [Window.of(3, 2, 1), Window.of(3, 1, 2, 2), Window.of(3, padding=3), Window.of((3, 1)), Window.of(7)]
    assert not any(winograd.suits(x, weight, other, 1) for other in others)
    assert not winograd.suits(x[:1, :8], weight, window, 1)  # too few pixels
    assert not winograd.suits(x, weight, window, 2)  # too few channels
    few = np.empty((5, 5, 48, 48), np.float32)
    assert winograd.suits(x, few, Window.of(5), 1) and not winograd.suits(x, few, window, 1)
    assert not winograd.suits(x, few[:, :, :32], Window.of(5), 1)
    assert not winograd.suits(x, np.empty((3, 3, 72, 64), np.float32), window, 1)
    # 8 numbers of float64 are as long
    assert winograd.suits(np.empty(x.shape), np.empty((3, 3, 72, 64)), window, 1)


def test_infinities_and_nan_reach_the_pixels_that_see_them():
    for value in (np.inf, -np.inf, np.nan):
        x = np.zeros((1, 7, 7, 3), np.float32)
        x[0, 3, 3, 1] = value
        weight = np.ones((3, 3, 3, 20), np.float32)
        window = Window.of(3, padding=1)
        with use_backend("reference"), np.errstate(invalid="ignore"):  # which some BLAS kernels report, some not
            expected = lesson.convolve(x, weight, None, window, 1)
        assert_array_equal(conv.convolve(x, weight, None, window, 1), expected)
