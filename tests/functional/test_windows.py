"""minicnn/functional/windows.py: how windows slide, and im2col with its transpose."""

import re

import numpy as np
import pytest
import reference
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from reference import fails, normal, refuses, settings

from minicnn.functional.windows import Window, padded, pair


@given(settings())
def test_output_size(case):
    (_, h, w, _), window = case
    assert Window.of(*window).output_size(h, w) == reference.sights((h, w), *window)[0]


def test_output_size_of_alexnet():
    for size, kernel, stride, padding, expected in (
        (227, 11, 4, 0, 55),
        (224, 11, 4, 2, 55),
        (55, 3, 2, 0, 27),
        (27, 5, 1, 2, 27),
    ):
        assert Window.of(kernel, stride, padding).output_size(size, size) == (expected, expected)


def test_smallest_window_that_does_not_fit():
    window = Window.of((3, 2), 5, ((1, 0), (0, 0)), (2, 3))  # reaches over 5 × 4 pixels
    assert window.output_size(4, 4) == (1, 1)
    for size in ((3, 4), (4, 3), (0, 4)):
        with refuses(ValueError, "(3, 2)", "does not fit", f"{size[0]} × {size[1]}"):
            window.output_size(*size)


def test_ways_to_write_a_window():
    expected = Window((2, 3), (1, 1), ((1, 1), (2, 2)), (1, 1))
    assert Window.of((2, 3), padding=(1, 2)) == Window.of([2, 3], 1, ((1, 1), (2, 2)), 1) == expected
    assert (
        Window.of((2, 3), padding=[[1, 1], 2]) == Window.of(np.array([2, 3]).tolist(), padding=(1, (2, 2))) == expected
    )
    assert Window.of(2) == Window((2, 2), (1, 1), ((0, 0), (0, 0)), (1, 1))
    assert Window.of(3, 2, 1, 4) == Window((3, 3), (2, 2), ((1, 1), (1, 1)), (4, 4))
    assert Window.of(3, padding=((1, 2), (3, 4))).padding == ((1, 2), (3, 4))
    assert pair(np.int64(3), "stride") == (3, 3)
    assert pair(0, "padding", 0) == (0, 0)


@pytest.mark.parametrize("name", ["kernel_size", "stride", "dilation", "padding"])
@pytest.mark.parametrize("value", [-1, (1, -1), (-1, 1), 1.5, "3", (1, 2, 3), (1,), None, (1, 2.0)])
def test_numbers_that_are_no_window(name, value):
    with refuses(ValueError, name, "at least" if value in (-1, (1, -1), (-1, 1)) else "(height, width)"):
        Window.of(**{"kernel_size": 1, name: value})


@pytest.mark.parametrize("name", ["kernel_size", "stride", "dilation"])
def test_only_padding_may_be_0(name):
    with refuses(ValueError, name, "at least 1", "(2, 0)"):
        Window.of(**{"kernel_size": 1, name: (2, 0)})


@pytest.mark.parametrize(
    "value",
    [((1, 1), (1, 1), (1, 1)), ((1, 1),), ((1, 1, 1), (1, 1)), ((1, -1), (0, 0)), ((0, 0), (0, "1")), "full", 1.5],
)
def test_paddings_that_are_none(value):
    with refuses(ValueError, "padding", "at least 0", '((top, bottom), (left, right)), or "same"', f"not {value!r}"):
        Window.of(1, padding=value)


@given(settings())
def test_taps_go_row_by_row(case):
    (n, h, w, c), window = case
    x = padded(normal(n, h, w, c), Window.of(*window))
    columns = reference.im2col(x, window[0], window[1], 0, window[3])
    views = list(Window.of(*window).taps(x))
    (oh, ow), _ = reference.sights((h, w), *window)
    assert len(views) == np.prod(reference.both(window[0]))
    for k, view in enumerate(views):
        assert_array_equal(view, columns.reshape(n, oh, ow, len(views), c)[:, :, :, k])
        assert np.shares_memory(view, x) or not x.size


@given(settings())
def test_padding_and_back(case):
    """Each side by itself, with any value."""
    (n, h, w, c), (kernel, stride, padding, dilation) = case
    window, x = Window.of(kernel, stride, padding, dilation), normal(n, h, w, c)
    for value in (0.0, 7.0, -np.inf):
        expected = np.pad(x, ((0, 0), *window.padding, (0, 0)), constant_values=value)
        assert_array_equal(padded(x, window, value), expected)
        assert_array_equal(window.unpadded(expected), x)


@given(
    st.tuples(st.integers(3, 9), st.integers(3, 9)), st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)), st.tuples(st.integers(0, 1), st.integers(0, 1)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
)  # fmt: skip
def test_a_last_window_that_overhangs(size, kernel, stride, sides, dilation):
    """It takes so much more padding on the far sides, and begins inside the image or its first padding."""
    padding = (sides, sides[::-1])
    assume(all(n + sum(p) > d * (k - 1) for n, k, p, d in zip(size, kernel, padding, dilation, strict=True)))
    window = Window.of(kernel, stride, padding, dilation)
    wider = window.with_overhang(*size)
    assert wider._replace(padding=window.padding) == window
    for axis in (0, 1):
        begins = reference.starts(size[axis], kernel[axis], stride[axis], padding[axis], dilation[axis], ceil_mode=True)
        before, after = wider.padding[axis]
        end = begins[-1] + dilation[axis] * (kernel[axis] - 1) + 1
        assert wider.output_size(*size)[axis] == len(begins)
        assert before == padding[axis][0] and after == max(padding[axis][1], end - size[axis])


@pytest.mark.parametrize("kernel_size, dilation, padding", [
    (1, 1, ((0, 0), (0, 0))), (3, 1, ((1, 1), (1, 1))), ((4, 2), 1, ((1, 2), (0, 1))), ((3, 5), (2, 3), ((2, 2), (6, 6))),
])  # fmt: skip
def test_padding_that_keeps_the_size(kernel_size, dilation, padding):
    """The odd pixel is at the bottom and on the right."""
    window = Window.of(kernel_size, 1, "same", dilation)
    assert window.padding == padding and window.output_size(9, 7) == (9, 7)


@pytest.mark.parametrize("stride", [2, (1, 2), (2, 1)])
def test_padding_that_would_keep_the_size_of_fewer_steps(stride):
    with refuses(ValueError, 'padding="same" needs a stride of 1', repr(stride)):
        Window.of(3, stride, "same")


@pytest.mark.parametrize(
    "kernel, padding", [(3, 2), ((2, 4), 2), ((4, 2), 2), (4, ((0, 3), (0, 0))), (4, ((0, 0), (3, 0)))]
)
def test_a_pooling_window_is_at_most_half_padding(kernel, padding):
    fails(
        ValueError, "^max: padding .* is more than half of the window", Window.of_pooling, "max", kernel, 1, padding, 1
    )


def test_a_pooling_window_steps_by_its_size_unless_told_otherwise():
    assert Window.of_pooling("max", (4, 2), None, ((2, 0), (1, 1)), 1) == Window.of((4, 2), (4, 2), ((2, 0), (1, 1)), 1)
    assert Window.of_pooling("max", 3, 2, 1, 2) == Window.of(3, 2, 1, 2)


def test_a_padding_that_is_an_array():
    for padding in (np.ones(2, int), np.zeros(3), np.array(["same", "same"])):
        with refuses(ValueError, "padding must be integers of at least 0", 'or "same", not an array of shape'):
            Window.of(3, padding=padding)


def test_a_pair_has_limits():
    assert pair((2, 3), "n", least=2, most=3) == (2, 3)
    for value in (4, (4, 3), (3, 4)):
        with pytest.raises(ValueError, match=f"^n must be at most 3, not {re.escape(str(value))}$"):
            pair(value, "n", most=3)
