"""minicnn/functional/windows.py: how windows slide, and im2col with its transpose."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from reference import arrays, normal, paddings, pairs, refuses

from minicnn.functional.windows import Window, col2im, im2col, inside, padded, pair, taps


@st.composite
def settings(draw, batch=3):
    """An image's shape, and (kernel, stride, padding, dilation) that fit it."""
    kernel, stride, padding, dilation = (
        draw(pairs(1, 3)),
        draw(pairs(1, 3)),
        draw(paddings(2)),
        draw(pairs(1, 2)),
    )
    least = [
        max(1, d * (k - 1) + 1 - sum(p))
        for k, d, p in zip(reference.both(kernel), reference.both(dilation), reference.sides(padding), strict=True)
    ]
    h, w = (n + draw(st.integers(0, 4)) for n in least)
    return (draw(st.integers(0, batch)), h, w, draw(st.integers(1, 3))), (kernel, stride, padding, dilation)


@given(st.data(), settings())
def test_im2col_and_its_transpose(data, case):
    shape, window = case
    x = data.draw(arrays(shape))
    before = x.copy()
    columns = im2col(x, Window.of(*window))
    expected = reference.im2col(x, *window)
    assert columns.dtype == x.dtype
    assert_array_equal(columns, expected)
    assert_array_equal(x, before)

    c = data.draw(arrays(expected.shape, lambda *shape, seed: np.random.default_rng(seed).integers(-9, 9, shape)))
    before = c.copy()
    pixels = col2im(c, shape, Window.of(*window))
    assert pixels.dtype == c.dtype
    assert_array_equal(pixels, reference.col2im(c, shape, *window))
    assert_array_equal(c, before)


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
    "value", [((1, 1), (1, 1), (1, 1)), ((1, 1),), ((1, 1, 1), (1, 1)), ((1, -1), (0, 0)), ((0, 0), (0, "1"))]
)
def test_paddings_that_are_none(value):
    with refuses(ValueError, "padding"):
        Window.of(1, padding=value)


def test_the_border_is_written_each_time():
    """Two layers that share a shape with their padding share the buffer, too."""
    x = normal(2, 3, 3, 1)
    for padding, value in ((1, 7.0), (((0, 2), (2, 0)), 0.0), (((2, 0), (1, 1)), -np.inf)):
        window = Window.of(2, padding=padding)
        expected = np.pad(x, ((0, 0), *window.padding, (0, 0)), constant_values=value)
        assert_array_equal(padded(x, window, value), expected)
        assert_array_equal(inside(expected, window), x)
    assert padded(x, Window.of(2)) is x
    assert_array_equal(padded(x, Window.of(2, padding=1)), np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))


@pytest.mark.parametrize("side", range(4))
def test_padding_on_one_side_only(side):
    sizes = [0, 0, 0, 0]
    sizes[side] = 2
    window = Window.of(2, padding=(sizes[:2], sizes[2:]))
    x = normal(1, 3, 4, 2)
    expected = np.pad(x, ((0, 0), sizes[:2], sizes[2:], (0, 0)))
    assert_array_equal(padded(x, window), expected)
    assert_array_equal(inside(expected, window), x)


@given(settings())
def test_taps_go_row_by_row(case):
    (n, h, w, c), window = case
    x = padded(normal(n, h, w, c), Window.of(*window))
    columns = reference.im2col(x, window[0], window[1], 0, window[3])
    views = list(taps(x, Window.of(*window)))
    (oh, ow), _ = reference.sights((h, w), *window)
    assert len(views) == np.prod(reference.both(window[0]))
    for k, view in enumerate(views):
        assert_array_equal(view, columns.reshape(n, oh, ow, len(views), c)[:, :, :, k])
        assert np.shares_memory(view, x) or not x.size
