"""minicnn/backends/numpy/windows.py: windows in scratch memory, and how an image's work is cut."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from reference import arrays, normal, settings

from minicnn.backends import numpy as fast
from minicnn.backends.numpy.windows import band, channel_pieces, col2im_into, columns_of, groups_of, padded
from minicnn.functional.windows import Window


@given(settings(), st.integers(1, 3))
def test_groups_of_channels_one_after_the_other(case, groups):
    (n, h, w, c), window = case
    x = normal(n, h, w, groups * c)
    parts = [reference.im2col(x[..., g * c : (g + 1) * c], *window) for g in range(groups)]
    assert_array_equal(columns_of(x, Window.of(*window), groups), np.concatenate(parts))
    x = normal(2, 2, 3, 3 * groups)  # each pixel a window
    parts = [x[..., 3 * g : 3 * g + 3].reshape(12, 3) for g in range(groups)]
    assert_array_equal(columns_of(x, Window.of(1), groups), np.concatenate(parts))


@given(settings())
def test_col2im_into_some_channels(case):
    (n, h, w, c), window = case
    image = normal(n, h, w, c + 2)
    expected, out = image.copy(), image[..., 1:-1]
    columns = reference.im2col(normal(n, h, w, c, seed=1), *window)
    expected[..., 1:-1] = reference.col2im(columns, (n, h, w, c), *window)
    col2im_into(out, columns, Window.of(*window))
    np.testing.assert_allclose(image, expected, rtol=1e-12)


@given(arrays((2, 3, 4, 5)))
def test_a_window_of_one_pixel_needs_no_copy(x):
    columns = columns_of(x, Window.of(1))
    assert_array_equal(columns, x.reshape(-1, 5))
    assert np.shares_memory(columns, x) == x.flags.c_contiguous
    for other in (Window.of(1, 2), Window.of(1, (1, 2)), Window.of(1, padding=((0, 0), (0, 1))), Window.of((1, 2))):
        columns = columns_of(x, other)
        assert_array_equal(columns, reference.im2col(x, *other))
        assert not np.shares_memory(columns, x)


def test_the_border_is_written_each_time():
    """Two layers that share a shape with their padding share the buffer, too."""
    x = normal(2, 3, 3, 1)
    for padding, value in (
        (1, 7.0), (((0, 2), (2, 0)), 0.0), (((2, 0), (1, 1)), -np.inf), (((2, 0), (0, 0)), 1.0), (((0, 2), (0, 0)), 1.0),
    ):  # fmt: skip
        window = Window.of(2, padding=padding)
        expected = np.pad(x, ((0, 0), *window.padding, (0, 0)), constant_values=value)
        assert_array_equal(padded(x, window, value), expected)
        assert_array_equal(window.unpadded(expected), x)
    assert padded(x, Window.of(2)) is x
    assert_array_equal(padded(x, Window.of(2, padding=1)), np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))


@given(settings(pads=7), st.integers(1, 9))
def test_bands_stacked_are_the_whole(case, step):
    """Every cut of the output's rows, with paddings so wide that some bands see nothing else."""
    (n, h, w, c), settings = case
    window, x = Window.of(*settings), normal(n, h, w, c)
    oh, ow = window.output_size(h, w)
    whole = columns_of(x, window).reshape(n, oh, -1 if n else 0).copy()
    for first in range(oh):
        rows = slice(first, min(first + step, oh))
        seen, part = band(window, rows, h)
        assert 0 <= seen.start <= seen.stop <= h
        assert part == window._replace(padding=(part.padding[0], window.padding[1])) and min(part.padding[0]) >= 0
        assert part.output_size(seen.stop - seen.start, w) == (rows.stop - rows.start, ow)
        of_band = columns_of(x[:, seen], part).reshape(n, rows.stop - rows.start, whole.shape[2])
        assert_array_equal(of_band, whole[:, rows])


@pytest.mark.parametrize("groups, inputs, outputs", [(1, 1, 1), (1, 6, 4), (2, 6, 4), (3, 6, 9), (6, 6, 6)])
@pytest.mark.parametrize("shares", [1, 2, 3, 10])
def test_groups_and_shares_of_their_channels(groups, inputs, outputs, shares):
    parts, c, o = groups_of(groups, inputs, outputs, shares), inputs // groups, outputs // groups
    covered = [channel for part, _, _ in parts for channel in range(inputs)[part]]
    assert covered == list(range(inputs))  # each once
    assert len(parts) >= groups and max(part.stop - part.start for part, _, _ in parts) == -(-c // shares)
    for part, made, within in parts:
        group = part.start // c
        assert part.start < part.stop <= (group + 1) * c
        assert made == slice(group * o, (group + 1) * o)
        assert within == slice(part.start - group * c, part.stop - group * c)
    if shares == 1:
        assert len(parts) == groups == len(groups_of(groups, inputs, outputs))


def test_groups_of_no_channels_are_there_all_the_same():
    """For their outputs, which are sums of nothing."""
    nothing = slice(0, 0)
    for shares in (1, 3):
        assert groups_of(2, 0, 4, shares) == [(nothing, slice(0, 2), nothing), (nothing, slice(2, 4), nothing)]


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@given(st.integers(0, 9), st.integers(1, 3), st.integers(1, 5), st.sampled_from([1, 100, 1599, 1600, 5000]))
def test_the_work_of_a_map_back_to_the_image(threads, n, groups, c, image_bytes):
    """Every channel of every image once; a piece for each thread, if there are so many channels; one image at a time,
    if more do not fit; fewer of its channels, if it is eight times too large."""
    before = fast.threads.get_num_threads()
    fast.threads.set_num_threads(threads)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fast.threads, "CACHE", 100)
            x, y = np.zeros((n, 2, 2, groups * c)), np.zeros((n, 2, 2, groups * 2))
            work = channel_pieces(x, y, groups, image_bytes)
            step = fast.threads.batch_step(n, image_bytes)
    finally:
        fast.threads.set_num_threads(before)
    for images, channels, outputs, within in work:
        x[images, :, :, channels] += 1
        group = channels.start // c
        assert outputs == slice(2 * group, 2 * group + 2)
        assert within == slice(channels.start - c * group, channels.stop - c * group)
        assert images.stop - images.start <= step
    assert (x == 1).all()
    if n:
        # into how many parts a group's channels have to be cut
        parts = min(c, max(-(-threads // (n * groups)), image_bytes // 800, 1))
        assert max(within.stop - within.start for *_, within in work) == -(-c // parts)
        if n * groups * c <= threads or image_bytes >= 800 * c:
            assert len(work) == n * groups * c  # each on its own
        assert max(i.stop - i.start for i, *_ in work) == step
    else:
        assert not work


@pytest.mark.parametrize("side", range(4), ids=["top", "bottom", "left", "right"])
def test_padding_on_one_side_only(side):
    sides = [0] * 4
    sides[side] = 2
    window = Window.of(3, padding=((sides[0], sides[1]), (sides[2], sides[3])))
    x = normal(2, 4, 5, 3)
    expected = np.pad(x, ((0, 0), *window.padding, (0, 0)))
    assert_array_equal(padded(x, window), expected)
