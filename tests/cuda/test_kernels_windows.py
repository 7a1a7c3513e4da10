"""im2col and col2im on a GPU: in groups, and in some of an image's channels."""

import importlib

import numpy as np
import pytest
from agreement import CHANNELS, LAYOUTS, agrees, normal, there, windows
from hypothesis import given
from hypothesis import strategies as st

from minicnn.backends.cuda import windows as kernels

lesson = importlib.import_module("minicnn.functional.windows")


def of_each_group(x, window, groups):
    """The lesson's columns, group after group."""
    parts = [lesson.im2col(part, window) for part in np.split(x, groups, axis=-1)]
    return np.concatenate(parts)


@given(st.integers(0, 3), windows(), st.sampled_from([1, 2, 3]), CHANNELS, LAYOUTS)
def test_groups_of_channels_one_after_the_other(gpu, n, geometry, groups, channels, layout):
    (h, w), window = geometry

    x = normal(n, h, w, groups * channels)
    agrees(gpu, kernels.im2col, of_each_group, x, window, groups, exactly=True, layout=layout, wide=True)


@given(windows(), st.sampled_from([1, 3, 4, 8]), st.integers(0, 2))
def test_some_channels_of_an_image(gpu, geometry, channels, first):
    """They are read and written where they are; the others stay as they were."""
    (h, w), window = geometry
    whole = there(gpu, normal(2, h, w, channels * 3).astype(np.float32))
    part = whole[..., first * channels : (first + 1) * channels]
    host_part = part.copy().get()
    columns = kernels.im2col(part, window)
    np.testing.assert_array_equal(columns.get(), lesson.im2col(host_part, window))
    others = whole.copy()
    assert kernels.col2im(columns, part.shape, window, out=part) is part
    expected = others.get()
    expected[..., first * channels : (first + 1) * channels] = lesson.col2im(columns.get(), part.shape, window)
    np.testing.assert_allclose(whole.get(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("across, stride", [(13, 1), (15, 1), (15, 2), (157, 1)])
def test_a_line_of_several_runs(gpu, across, stride):
    """Whole runs, or a last one of which 1 window of 8, or 12 of 13, are beyond the line."""
    x, window = normal(2, 1, across * stride, 3), lesson.Window.of((1, 2), stride, ((0, 0), (0, 2 - stride)))
    assert window.output_size(1, across * stride) == (1, across)
    agrees(gpu, kernels.im2col, lesson.im2col, x, window, exactly=True)


def test_each_pixel_a_window(gpu):
    x = there(gpu, normal(2, 3, 3, 4).astype(np.float32))
    columns = kernels.im2col(x, lesson.Window.of(1))
    assert columns.shape == (18, 4) and columns.data.ptr == x.data.ptr


@given(windows(), st.sampled_from([1, 2, 3]), st.sampled_from([1, 3, 4, 5]), st.sampled_from([4, 7]), LAYOUTS)
def test_im2col_with_zeros(gpu, geometry, groups, channels, whole, layout):
    (h, w), window = geometry

    def longer(x):
        columns = of_each_group(x, window, groups)
        return np.pad(columns, ((0, 0), (0, -columns.shape[1] % whole)))

    x = normal(2, h, w, groups * channels)
    options = {"exactly": True, "layout": layout, "wide": True}
    agrees(gpu, lambda x: kernels.im2col(x, window, groups, whole), longer, x, **options)


@pytest.mark.parametrize("width", [12, 13, 14, 26, 27, 40])
@pytest.mark.parametrize("channels", [3, 4])
def test_im2col_of_long_lines(gpu, width, channels):
    """One run of windows to a line, or several of which the last may be shorter."""
    x, window = normal(2, 4, width, channels), lesson.Window.of((2, 3), padding=((0, 1), (1, 1)))
    agrees(gpu, kernels.im2col, lesson.im2col, x, window, exactly=True)
