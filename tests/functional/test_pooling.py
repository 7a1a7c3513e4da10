"""minicnn/functional/pooling.py: maxima and means of windows."""

import numpy as np
import pytest
import reference
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from reference import agree, arrays, differentiable, distinct, keeps, normal, pairs, refuses

import minicnn.functional as F
from minicnn import Tensor, grad
from minicnn.functional import pooling

EVERYTHING = dict(kernel_size=(3, 2), stride=(2, 1), padding=((1, 0), (0, 1)), dilation=(1, 2), ceil_mode=True)
MEAN = dict(kernel_size=(3, 2), stride=(2, 1), padding=((1, 0), (0, 1)), ceil_mode=True)


@st.composite
def cases(draw, dilated):
    """(an image's shape, keyword arguments that fit)"""
    kernel = draw(pairs(1, 4))
    options = dict(kernel_size=kernel)
    if draw(st.booleans()):
        options["stride"] = draw(pairs(1, 5))
    if draw(st.booleans()):
        options["ceil_mode"] = draw(st.booleans())
    if dilated:
        options["dilation"] = draw(pairs(1, 3))
    vertical, horizontal = (st.tuples(*[st.integers(0, k // 2)] * 2) for k in reference.both(kernel))
    half = min(reference.both(kernel)) // 2
    options["padding"] = draw(st.one_of(pairs(0, half), st.tuples(vertical, horizontal)))
    h, w = (
        max(1, d * (k - 1) + 1 - sum(p)) + draw(st.integers(0, 5))
        for k, d, p in zip(
            reference.both(kernel),
            reference.both(options.get("dilation", 1)),
            reference.sides(options["padding"]),
            strict=True,
        )
    )
    return (draw(st.integers(0, 3)), h, w, draw(st.integers(1, 3))), options


@given(st.data(), cases(dilated=True))
def test_max_pool2d_is_the_equation(data, case):
    shape, options = case
    x = data.draw(arrays(shape, distinct))
    assume(np.isfinite(reference.max_pool2d(x, **options)).all())  # with dilation a window may see padding alone
    agree(F.max_pool2d, reference.max_pool2d, x, **options)


@given(st.data(), cases(dilated=True))
def test_the_first_of_equal_maxima_takes_the_whole_gradient(data, case):
    shape, options = case
    x = data.draw(arrays(shape, lambda *shape, seed: np.random.default_rng(seed).integers(-2, 0, shape)))
    tensor = Tensor(x, requires_grad=True)
    y = F.max_pool2d(tensor, **options)
    dy = np.random.default_rng(0).integers(-9, 9, y.shape).astype(x.dtype)
    y.backward(dy)
    assert_array_equal(y.data, reference.max_pool2d(x, **options))
    assert_array_equal(tensor.grad.data, reference.max_pool2d(x, **options, dy=dy))


@given(st.data(), cases(dilated=False), st.booleans())
def test_avg_pool2d_is_the_equation(data, case, counted):
    shape, options = case
    agree(F.avg_pool2d, reference.avg_pool2d, data.draw(arrays(shape)), count_include_pad=counted, **options)


@pytest.mark.parametrize("options", [dict(kernel_size=2), dict(kernel_size=3, stride=2), EVERYTHING])
def test_derivatives_of_max_pool2d(options):
    differentiable(F.max_pool2d, distinct(2, 5, 5, 2), **options)


@pytest.mark.parametrize("options", [dict(kernel_size=2), dict(kernel_size=3, stride=2, padding=1), MEAN])
@pytest.mark.parametrize("counted", [True, False])
def test_derivatives_of_avg_pool2d(options, counted):
    differentiable(F.avg_pool2d, normal(2, 5, 4, 2), count_include_pad=counted, **options)


def test_what_the_user_holds_stays():
    def make(n, seed):
        return [distinct(n, 5, 4, 2, seed=seed).astype(np.float32)]

    keeps(F.max_pool2d, make, **EVERYTHING)
    keeps(F.avg_pool2d, make, **MEAN)


def row(*numbers):
    return Tensor(np.array(numbers, np.float64).reshape(1, 1, -1, 1), requires_grad=True)


def pooled(x, *args, f=F.max_pool2d, **options):
    """(y, dx for dy = 1, 10, 100, …)"""
    y = f(x, *args, **options)
    (dx,) = grad(y, x, Tensor(10.0 ** np.arange(y.size).reshape(y.shape)))
    return y.data.ravel().tolist(), dx.data.ravel().tolist()


def test_overlapping_windows_add_up():
    assert pooled(row(1, 5, 2, 4), (1, 2), 1) == ([5, 5, 4], [0, 11, 0, 100])
    assert pooled(row(1, 5, 2, 4), (1, 3), 1) == ([5, 5], [0, 11, 0, 0])


def test_the_padding_never_wins():
    assert pooled(row(-3, -1, -2), (1, 2), 2, ((0, 0), (1, 1))) == ([-3, -1], [1, 10, 0])
    image = Tensor(-1 - np.arange(4.0).reshape(1, 2, 2, 1))
    assert F.max_pool2d(image, 3, 2, 1).data.ravel().tolist() == [-1]
    for infinity in (-np.inf, np.inf):  # not even against its own value
        assert pooled(row(infinity, -np.inf), (1, 2), 2, ((0, 0), (1, 1))) == ([infinity, -np.inf], [1, 10])


def test_windows_that_skip_pixels():
    assert pooled(row(1, 9, 2, 9, 3), (1, 1), 2) == ([1, 2, 3], [1, 0, 10, 0, 100])
    assert pooled(row(1, 9, 2, 8, 3), (1, 2), 1, dilation=2) == ([2, 9, 3], [0, 10, 1, 0, 100])


@pytest.mark.parametrize("f", [F.max_pool2d, F.avg_pool2d])
def test_integers_become_real_numbers(f):
    for dtype in (np.int64, np.uint8):
        y = f(Tensor(np.full((1, 17, 17, 1), 255, dtype)), 17, padding=8)
        assert y.dtype == np.float32
        assert_array_equal(y.data, f(Tensor(np.full((1, 17, 17, 1), 255, np.float32)), 17, padding=8).data)


@pytest.mark.parametrize("place", range(4))
def test_nan_propagates(place):
    numbers = [1.0, 4.0, 2.0, 3.0]
    numbers[place] = np.nan
    expected = [np.nan if place in window else max(numbers[i] for i in window) for window in ((0, 1), (1, 2), (2, 3))]
    assert_array_equal(F.max_pool2d(row(*numbers), (1, 2), 1).data.ravel(), expected)
    assert_array_equal(F.max_pool2d(row(*numbers).transpose(0, 2, 1, 3), (2, 1), 1).data.ravel(), expected)
    image = Tensor(np.array(numbers).reshape(1, 2, 2, 1))
    assert np.isnan(F.max_pool2d(image, 2).item()) and np.isnan(F.avg_pool2d(image, 2).item())


@pytest.mark.parametrize("place", range(4))
def test_no_pixel_wins_a_window_of_nan(place):
    """Its gradient goes nowhere: the windows beside it have theirs."""
    numbers = [1.0, 4.0, 2.0, 3.0]
    numbers[place] = np.nan
    x = row(*numbers)
    flow, expected = 10.0 ** np.arange(3), np.zeros(4)
    for p in range(3):
        if place not in (p, p + 1):
            expected[p + int(numbers[p + 1] > numbers[p])] += flow[p]
    assert pooled(x, (1, 2), 1)[1] == expected.tolist()
    assert pooled(x, 1)[1] == [0 if p == place else 10.0**p for p in range(4)]
    windows = pooling.Window.of((1, 2))
    found = pooling.winners(x.data, pooling.window_maximum(x.data, windows), windows).ravel()
    assert [int(k) == 2 for k in found] == [place in (p, p + 1) for p in range(3)]  # KH·KW: none

    y = F.max_pool2d(x, (1, 2), 1)
    dy = Tensor(flow.reshape(y.shape), requires_grad=True)
    (dx,) = grad(y, x, dy, create_graph=True)
    (back,) = grad(dx, dy, Tensor(np.array([5.0, 6.0, 7.0, 8.0]).reshape(dx.shape)))  # nor does anything come back
    assert [bool(b) for b in back.data.ravel()] == [place not in (p, p + 1) for p in range(3)]


def test_a_whole_image_of_nan():
    x = Tensor(np.full((2, 5, 4, 3), np.nan), requires_grad=True)
    y = F.max_pool2d(x, 3, 2, 1)
    assert np.isnan(y.data).all()
    y.backward(np.ones(y.shape))
    assert_array_equal(x.grad.data, np.zeros(x.shape))


@pytest.mark.parametrize(
    "n, kernel, stride, padding, floor, ceil",
    [
        (5, 2, 2, 0, 2, 3),  # one pixel is left over
        (4, 2, 2, 0, 2, 2),  # none is
        (6, 3, 2, 0, 2, 3),
        (3, 2, 2, 1, 2, 2),  # 5 pixels with padding; a third window would start in the padding at 3
        (4, 2, 3, 1, 2, 2),  # at 5, the end of the padding
        (5, 3, 4, 1, 2, 2),
        (2, 1, 3, 0, 1, 1),  # beyond the image
        (5, 2, 4, 0, 1, 2),  # starts at 4, the last pixel
        (4, 2, 4, (1, 0), 1, 2),  # at 3, the last pixel
    ],
)
def test_ceil_mode_takes_a_last_window_that_starts_in_the_image(n, kernel, stride, padding, floor, ceil):
    for axis in (1, 2):
        shape, pads = [1, 1, 1, 1], [(0, 0), (0, 0)]
        shape[axis], pads[axis - 1] = n, reference.both(padding)
        x = Tensor(distinct(*shape))
        kernels, strides = (kernel if axis == 1 else 1, kernel if axis == 2 else 1), (stride, stride)
        for f in (F.max_pool2d, F.avg_pool2d):
            for mode, size in ((False, floor), (True, ceil)):
                assert f(x, kernels, strides, tuple(pads), ceil_mode=mode).shape[axis] == size


def test_what_a_mean_counts():
    x, options = row(6, 12, 18), dict(f=F.avg_pool2d, ceil_mode=True)
    assert pooled(x, (1, 2), **options) == ([9, 18], [0.5, 0.5, 10])  # what overhangs is not counted
    assert pooled(x, (1, 2), 2, ((0, 0), (1, 0)), **options) == ([3, 15], [0.5, 5, 5])
    assert pooled(x, (1, 2), 2, ((0, 0), (1, 0)), count_include_pad=False, **options) == ([6, 15], [1, 5, 5])


def test_the_stride_is_the_kernel_by_default():
    x = Tensor(distinct(1, 6, 9, 1))
    for f in (F.max_pool2d, F.avg_pool2d):
        assert_array_equal(f(x, (2, 3)).data, f(x, (2, 3), (2, 3)).data)
        assert f(x, 3).shape == (1, 2, 3, 1)


@pytest.mark.parametrize("f", [F.max_pool2d, F.avg_pool2d])
def test_padding_is_at_most_half_of_the_window(f):
    x = Tensor(distinct(1, 4, 4, 1))
    assert f(x, 2, 2, 1).shape == (1, 3, 3, 1)
    assert f(x, (2, 4), 2, (1, 2)).shape == (1, 3, 3, 1)
    for kernel, padding in ((1, 1), (3, 2), ((2, 4), 2), (4, ((0, 3), (0, 0))), (4, ((0, 0), (3, 0)))):
        with refuses(ValueError, f.__name__, "padding", "half"):
            f(x, kernel, 1, padding)


@pytest.mark.parametrize("f", [F.max_pool2d, F.avg_pool2d])
def test_what_does_not_fit(f):
    x = Tensor(distinct(1, 3, 4, 1))
    assert f(x, (3, 4)).shape == (1, 1, 1, 1)
    for kernel in ((4, 1), (1, 5)):
        for mode in (False, True):
            with refuses(ValueError, "does not fit", "3 × 4"):
                f(x, kernel, ceil_mode=mode)
    for shape in ((3, 4, 1), (1, 1, 3, 4, 1), ()):
        with refuses(ValueError, f.__name__, "(N, H, W, C)", str(shape)):
            f(Tensor(np.ones(shape)), 1)
    for options, word in ((dict(kernel_size=0), "kernel_size"), (dict(kernel_size=1, stride=0), "stride")):
        with refuses(ValueError, word, "at least 1"):
            f(x, **options)
    with refuses(ValueError, "dilation", "at least 1"):
        F.max_pool2d(x, 1, dilation=0)


def test_the_backward_pass_needs_x_only_to_find_the_winners():
    """Average-pooling keeps nothing."""
    x = Tensor(distinct(1, 4, 4, 1), requires_grad=True)
    assert F.max_pool2d(x, 2).grad_fn.saved_inputs == (x,)
    node = F.avg_pool2d(x, 2).grad_fn
    while hasattr(node, "parents"):
        assert not any(t is not None and t.shape == x.shape for t in node.saved_inputs)
        node = node.parents[0]
    assert node is x
