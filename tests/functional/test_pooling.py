"""minicnn/functional/pooling.py: maxima and means of windows."""

from unittest.mock import patch

import numpy as np
import pytest
import reference
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference import agree, arrays, differentiable, distinct, fails, pairs, refuses

import minicnn.functional as F
from minicnn import Tensor, use_backend
from minicnn.functional import average_pooling, pooling
from minicnn.functional.windows import Window


@st.composite
def cases(draw, dilated):
    """(an image's shape, keyword arguments that fit)"""
    kernel = draw(pairs(1, 4))
    options = dict(kernel_size=kernel)
    if draw(st.booleans()):
        options["stride"] = draw(pairs(1, 5))
    if draw(st.booleans()):
        options["ceil_mode"] = True
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


@given(st.data(), cases(dilated=False), st.sampled_from([{}, {"count_include_pad": False}]))
def test_avg_pool2d_is_the_equation(data, case, counted):
    shape, options = case
    agree(F.avg_pool2d, reference.avg_pool2d, data.draw(arrays(shape)), **counted, **options)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("padding", [0, 1, ((1, 2), (0, 0)), ((0, 0), (2, 1)), ((2, 0), (0, 2))])
def test_what_the_mean_is_divided_by(padding, include, ceil_mode):
    """One number, or one for each window where a window sees what does not count."""
    for h, w in ((6, 6), (7, 6), (6, 7)):
        x = np.random.default_rng(0).standard_normal((2, h, w, 3))
        options = dict(kernel_size=4, stride=2, padding=padding, ceil_mode=ceil_mode, count_include_pad=include)
        agree(F.avg_pool2d, reference.avg_pool2d, x, **options)


def test_a_byte_does_not_hold_every_count():
    ones = Tensor(np.ones((1, 16, 16, 1), np.uint8))
    assert F.avg_pool2d(ones, 17, 17, 1, count_include_pad=False).data.tolist() == [[[[1.0]]]]


@given(st.data(), cases(dilated=False), st.sampled_from([{}, {"count_include_pad": False}]))
def test_large_windows_are_added_up_row_by_row(data, case, counted):
    """As if any of more than a pixel were large."""
    shape, options = case
    with patch.object(average_pooling, "FEW", 1):
        agree(F.avg_pool2d, reference.avg_pool2d, data.draw(arrays(shape)), **counted, **options)


@pytest.mark.parametrize(
    "size, steps", [((8, 8), 1), ((64, 1), 1), ((13, 5), 2), ((5, 13), 2), ((65, 1), 2), ((1, 65), 2)]
)
def test_which_windows_are_large(size, steps):
    first, *_ = parts = average_pooling._parts(Window.of(size, 3, padding=((1, 2), (3, 4))))
    assert len(parts) == steps
    if steps == 2:
        assert first == Window((1, size[1]), (1, 3), ((0, 0), (3, 4)), (1, 1))
        assert parts[1] == Window((size[0], 1), (3, 1), ((1, 2), (0, 0)), (1, 1))


def test_derivatives_of_max_pool2d():
    """Those of a mean, which is made of other functions: test_every_op.py."""
    options = dict(kernel_size=(3, 2), stride=(2, 1), padding=((1, 0), (0, 1)), dilation=(1, 2), ceil_mode=True)
    differentiable(F.max_pool2d, distinct(2, 5, 5, 2), **options)


def test_a_winner_is_named_in_as_few_bytes_as_will_do():
    """A window of 255 pixels has 256 outcomes: one more than a byte's pixels is that none won."""
    for kernel, dtype in (((15, 17), np.uint8), ((16, 16), np.uint32)):
        for backend in (None, "reference"):
            with use_backend(backend):
                x, y = np.full((1, *kernel, 1), np.nan), np.full((1, 1, 1, 1), np.nan)
                found = pooling.winners(x, y, pooling.Window.of(kernel))
            assert found.dtype == dtype and found.item() == np.prod(kernel)


@pytest.mark.parametrize("f", [F.max_pool2d, F.avg_pool2d])
def test_integers_become_real_numbers(f):
    for dtype in (np.int64, np.uint8):
        y = f(Tensor(np.full((1, 17, 17, 1), 255, dtype)), 17, padding=8)
        assert y.dtype == np.float32
        assert_array_equal(y.data, f(Tensor(np.full((1, 17, 17, 1), 255, np.float32)), 17, padding=8).data)


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
        assert not any(isinstance(t, Tensor) and t.shape == x.shape for t in node.saved_inputs)
        node = node.parents[0]
    assert node is x


@pytest.mark.parametrize("padding", [1, ((1, 0), (0, 0)), ((0, 1), (0, 0)), ((0, 0), (1, 0)), ((0, 0), (0, 1))])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_padding_on_each_side_counts(padding, ceil_mode):
    """A mean of ones with zeros around them is the share of ones; in steps of 1 no window overhangs."""
    ones = np.ones((1, 4, 5, 1))
    sides = padding if isinstance(padding, tuple) else ((1, 1), (1, 1))
    padded = np.pad(ones, ((0, 0), *sides, (0, 0)))
    expected = F.avg_pool2d(Tensor(padded), 3, 1).data
    assert_allclose(F.avg_pool2d(Tensor(ones), 3, 1, padding, ceil_mode).data, expected, rtol=1e-12)
    without = F.avg_pool2d(Tensor(ones), 3, 1, padding, ceil_mode, count_include_pad=False)
    assert_allclose(without.data, np.ones(expected.shape), rtol=1e-12)


def test_flags_that_are_neither_true_nor_false():
    x = Tensor(np.ones((1, 4, 4, 2)))
    for pool in (F.max_pool2d, F.avg_pool2d):
        fails(ValueError, f"^{pool.__name__}: ceil_mode is False or True, not 2$", pool, x, 2, ceil_mode=2)
        fails(TypeError, f"^{pool.__name__}: x must be a Tensor, not an array", pool, x.data, 2)
    fails(
        ValueError,
        "^avg_pool2d: count_include_pad is False or True, not 'a'$",
        F.avg_pool2d,
        x,
        2,
        count_include_pad="a",
    )
