"""minicnn/backends/numpy/winograd.py: the three maps of convolution, with fewer multiplications."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference import agree, arrays, cut, differentiable, keeps, normal, paddings, same_in_slices

import minicnn.functional as F
from minicnn import Tensor, grad
from minicnn.backends import numpy as fast
from minicnn.backends.numpy import conv, winograd
from minicnn.backends.numpy.windows import groups_of
from minicnn.functional.windows import Window

MAPS = ("convolve", "convolve_transpose", "convolve_weight")
SETTINGS = [
    dict(padding=1),
    dict(padding=((1, 0), (0, 2)), groups=2),
    dict(padding=((4, 1), (0, 5)), groups=2),  # tiles that see nothing but padding
    dict(),
]


@pytest.fixture(autouse=True, scope="module")
def for_any_number_of_tiles():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "FEWEST_PIXELS", 0)
        patch.setattr(winograd, "FEWEST_CHANNELS", 0)
        yield


@st.composite
def cases(draw, biased=False):
    """([x, weight, perhaps a bias], keyword arguments) for conv2d"""
    groups = draw(st.integers(1, 3))
    c, o = (groups * draw(st.integers(1, 3)) for _ in range(2))
    padding = draw(paddings(4))
    h, w = (max(1, 3 - sum(p)) + draw(st.integers(0, 5)) for p in reference.sides(padding))
    x, weight = draw(arrays((draw(st.integers(0, 3)), h, w, c))), draw(arrays((3, 3, c // groups, o)))
    biases = draw(st.lists(arrays((o,)), max_size=1)) if biased else []
    return [x, weight, *biases], dict(padding=padding, groups=groups)


def near(actual, expected, scale, dtype):
    """Within the accuracy of that dtype, measured by the largest sum of the terms without their signs."""
    assert actual.dtype == dtype and actual.shape == expected.shape
    error = np.abs(actual - expected).max(initial=0)
    assert error <= (1e-12 if dtype == np.float64 else 2e-6) * np.abs(scale).max(initial=0)


@given(cases(biased=True))
def test_convolve_is_the_equation(case):
    (x, weight, *bias), options = case
    before = [a.copy() for a in (x, weight)]
    y = winograd.convolve(x, weight, bias[0] if bias else None, Window.of(3, **padded(options)), options["groups"])
    wide = [a.astype(np.float64) for a in (x, weight, *bias)]
    near(y, reference.conv2d(*wide, **options), reference.conv2d(*map(abs, wide), **options), x.dtype)
    for a, b in zip((x, weight), before, strict=True):
        assert_array_equal(a, b)


@given(st.data(), cases())
def test_convolve_transpose_is_the_equation(data, case):
    (x, weight), options = case
    window = Window.of(3, **padded(options))
    dy = data.draw(arrays((len(x), *window.output_size(*x.shape[1:3]), weight.shape[3])))
    before = [a.copy() for a in (dy, weight)]
    dx = winograd.convolve_transpose(dy, weight, window, options["groups"], x.shape[1:3])
    wide = [a.astype(np.float64) for a in (dy, weight)]
    expected, scale = (reference.conv_transpose2d(*args, **options) for args in (wide, map(abs, wide)))
    near(dx, expected, scale, x.dtype)
    for a, b in zip((dy, weight), before, strict=True):
        assert_array_equal(a, b)


@given(st.data(), cases())
def test_convolve_weight_is_the_equation(data, case):
    (x, weight), options = case
    window = Window.of(3, **padded(options))
    dy = data.draw(arrays((len(x), *window.output_size(*x.shape[1:3]), weight.shape[3])))
    before = [a.copy() for a in (x, dy)]
    dw = winograd.convolve_weight(x, dy, window, options["groups"])
    wide = [a.astype(np.float64) for a in (x, dy)]
    expected, scale = (reference.conv2d_weight(*args, 3, **options) for args in (wide, map(abs, wide)))
    near(dw, expected, scale, x.dtype)
    for a, b in zip((x, dy), before, strict=True):
        assert_array_equal(a, b)


def padded(options):
    return {"padding": options["padding"]} if "padding" in options else {}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 20, 23, 24), (1, 13, 13, 96), (5, 8, 8, 16)])
def test_accuracy_over_many_channels(shape, dtype):
    """Sums of hundreds of terms; in float32, no more than twice the error that one product of matrices makes."""
    x, weight = normal(*shape).astype(dtype), normal(3, 3, shape[3] // 2, 32, seed=1).astype(dtype)
    window = Window.of(3, padding=1)
    y = winograd.convolve(x, weight, None, window, 2)
    dy = normal(*y.shape, seed=2).astype(dtype)
    dx = winograd.convolve_transpose(dy, weight, window, 2, shape[1:3])
    dw = winograd.convolve_weight(x, dy, window, 2)
    x, weight, dy = (a.astype(np.float64) for a in (x, weight, dy))
    options = dict(padding=1, groups=2)
    for actual, expected in (
        (y, reference.conv2d(x, weight, **options)),
        (dx, reference.conv_transpose2d(dy, weight, **options)),
        (dw, reference.conv2d_weight(x, dy, 3, **options)),
    ):
        near(actual, expected, expected, dtype)


@given(cases())
def test_the_three_maps_are_adjoint(case):
    """⟨convolve(x, W), dy⟩ = ⟨x, convolve_transpose(dy, W)⟩ = ⟨W, convolve_weight(x, dy)⟩"""
    (x, weight), options = case
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    window, groups = Window.of(3, padding=options["padding"]), options["groups"]
    y = winograd.convolve(x, weight, None, window, groups)
    dy = normal(*y.shape)
    products = [
        (y * dy).sum(),
        (x * winograd.convolve_transpose(dy, weight, window, groups, x.shape[1:3])).sum(),
        (weight * winograd.convolve_weight(x, dy, window, groups)).sum(),
    ]
    assert_allclose(products, products[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", SETTINGS)
@pytest.mark.parametrize("size", [(4, 4), (3, 5)])
def test_derivatives(options, size):
    groups = options.get("groups", 1)
    x, weight = normal(1, *size, 2), normal(3, 3, 2 // groups, 2, seed=1)
    differentiable(F.conv2d, x, weight, normal(2, seed=2), **options)
    dy = normal(1, *Window.of(3, **padded(options)).output_size(*size), 2)
    differentiable(F.conv_transpose2d, dy, weight, normal(2, seed=2), **options)


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


@pytest.mark.parametrize("kernel", [(1, 1), (3, 2), (2, 3), (5, 5)])
@pytest.mark.parametrize("options", [dict(), dict(stride=2), dict(dilation=(1, 2))])
def test_other_kernels_go_the_direct_way(kernel, options, monkeypatch):
    ran = watch(monkeypatch)
    agree(F.conv2d, reference.conv2d, normal(1, 7, 10, 2), normal(*kernel, 2, 3), **options)
    assert not ran


@pytest.mark.parametrize("options", [dict(stride=2), dict(stride=(1, 2)), dict(dilation=2), dict(dilation=(2, 1))])
def test_other_steps_go_the_direct_way(options, monkeypatch):
    ran = watch(monkeypatch)
    agree(F.conv2d, reference.conv2d, normal(1, 7, 7, 2), normal(3, 3, 2, 3), **options)
    assert not ran


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


def test_slices():
    for options in SETTINGS:
        groups = options.get("groups", 1)
        x, weight = normal(7, 6, 5, 4), normal(3, 3, 4 // groups, 6, seed=1)
        same_in_slices(F.conv2d, x, weight, normal(6, seed=2), **options)
        same_in_slices(F.conv_transpose2d, normal(7, 6, 7, 6), weight, normal(4, seed=2), **options)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_number_of_threads_does_not_matter(n):
    x, weight, bias = normal(n, 21, 10, 6), normal(3, 3, 3, 4, seed=1), normal(4, seed=2)
    options, results = dict(padding=1, groups=2), []
    for threads in (1, 2, 3, 5):
        with cut(4 * (21 * 10 * 10) * 8 + 1, 64, threads):  # one image
            first, second = (reference.step(F.conv2d, [x, weight, bias], **options) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            assert_array_equal(a, b)  # bit for bit
        results.append(first)
    for others in results[1:]:
        for a, b in zip(results[0], others, strict=True):
            assert_allclose(b, a, rtol=1e-12, atol=1e-12)


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


def test_what_the_user_holds_stays():
    def make(n, seed):
        return [normal(*shape, seed=seed).astype(np.float32) for shape in ((n, 6, 5, 4), (3, 3, 2, 6), (6,))]

    keeps(F.conv2d, make, padding=1, groups=2)


# -------------------------------------------------------------------------------------------------------- the algebra
@given(arrays((4,)), arrays((3,)))
def test_four_multiplications_for_two_outputs(d, g):
    d, g = d.astype(np.float64), g.astype(np.float64)
    expected = [d[0] * g[0] + d[1] * g[1] + d[2] * g[2], d[1] * g[0] + d[2] * g[1] + d[3] * g[2]]
    assert_allclose(winograd.A @ ((winograd.B @ d) * (winograd.G @ g)), expected, rtol=1e-12, atol=1e-12)


def test_by_hand():
    """One image of 3 × 3, one output; then 2 × 2 outputs, of which a kernel picks each of nine neighbours."""
    x = np.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    powers = 10.0 ** np.arange(9).reshape(3, 3, 1, 1)
    assert winograd.convolve(x, powers, None, Window.of(3), 1).item() == 987654321
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    for i in range(3):
        for j in range(3):
            weight = np.zeros((3, 3, 1, 1))
            weight[i, j] = 1
            y = winograd.convolve(x, weight, np.array([100.0]), Window.of(3), 1)
            assert_array_equal(y[0, :, :, 0], 100 + x[0, i : i + 2, j : j + 2, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_a_number_stays_in_its_tiles(bad):
    """The outputs that see such a pixel are not numbers either, nor may be their neighbours in the same tile of 2 × 2;
    all others are untouched."""
    x, weight = normal(3, 9, 8, 2), normal(3, 3, 2, 3, seed=1)
    expected = reference.conv2d(x, weight, padding=1)
    x[1, 4, 5, 0] = bad
    with np.errstate(invalid="ignore"):
        y = F.conv2d(Tensor(x), Tensor(weight), padding=1).data
    assert not np.isfinite(y[1, 3:6, 4:7]).any()
    y[1, 2:6, 4:8] = expected[1, 2:6, 4:8]  # the tiles of rows 2 to 5 and columns 4 to 7
    assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


def test_second_derivatives_go_this_way_too(monkeypatch):
    ran = watch(monkeypatch)
    x, weight = Tensor(normal(1, 4, 4, 1), requires_grad=True), Tensor(normal(3, 3, 1, 1), requires_grad=True)
    gradients = grad(F.conv2d(x, weight), (x, weight), Tensor(np.ones((1, 2, 2, 1))), create_graph=True)
    ran.clear()
    grad(gradients, (x, weight), [g.detach() for g in gradients])
    assert sorted(ran) == ["convolve_transpose", "convolve_weight"]
    assert conv.winograd is winograd
