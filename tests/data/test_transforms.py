import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnn.data import DataError
from minicnn.data.transforms import (
    CenterCrop,
    Compose,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
)

sides = st.integers(1, 40)
seeds = st.integers(0, 2**32)


def picture(height, width):
    """Every pixel tells its place: (row, column, 100)."""
    rows, columns = np.mgrid[:height, :width]
    return np.dstack([rows, columns, np.full_like(rows, 100)]).astype(np.uint8)


def rng(seed=0):
    return np.random.default_rng(seed)


@given(sides, sides, sides)
def test_resize_gives_the_short_side_and_keeps_the_ratio(height, width, short):
    image = picture(height, width)
    result = Resize(short)(image, rng())
    assert result.dtype == np.uint8 and result.shape[2] == 3
    assert min(result.shape[:2]) == short
    assert abs(max(result.shape[:2]) - short * max(height, width) / min(height, width)) <= 0.5
    assert result.shape[0 if height <= width else 1] == short
    assert result[:, :, 2].min() == result[:, :, 2].max() == 100
    np.testing.assert_array_equal(image, picture(height, width))
    assert Resize(min(height, width))(image, rng()) is image


def test_resize_is_bilinear_and_antialiased():
    stripes = np.zeros((8, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    small = Resize(2)(stripes, rng())
    assert small.shape == (2, 16, 3) and abs(small[:, 1:-1].astype(int) - 100).max() <= 1
    steps = np.uint8([[[0] * 3, [80] * 3]])
    assert Resize(2)(steps, rng())[0, :, 0].tolist() == [0, 20, 60, 80]


@given(sides, sides, st.data())
def test_center_crop(height, width, data):
    size = data.draw(st.integers(1, min(height, width)))
    result = CenterCrop(size)(picture(height, width), rng())
    assert result.shape == (size, size, 3) and result.dtype == np.uint8
    top, left = result[0, 0, :2].tolist()
    assert (top, left) == ((height - size) // 2, (width - size) // 2)
    np.testing.assert_array_equal(result, picture(height, width)[top : top + size, left : left + size])


@given(sides, sides, st.integers(0, 5), seeds, st.data())
def test_random_crop_is_a_square_of_the_padded_image(height, width, padding, seed, data):
    size = data.draw(st.integers(1, min(height, width) + 2 * padding))
    image = picture(height, width)
    result = RandomCrop(size, padding)(image, rng(seed))
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size, 3)).reshape(-1, size, size, 3)
    assert result.dtype == np.uint8 and (windows == result).all((1, 2, 3)).any()
    np.testing.assert_array_equal(result, RandomCrop(size, padding)(image, rng(seed)))
    np.testing.assert_array_equal(image, picture(height, width))


def test_random_crop_reaches_every_place_about_equally_often():
    crop, draw = RandomCrop(3), rng()
    places = [tuple(crop(picture(4, 6), draw)[0, 0, :2].tolist()) for _ in range(2000)]
    counts = np.array([places.count((top, left)) for top in range(2) for left in range(4)])
    assert counts.sum() == 2000 and counts.min() > 190 and counts.max() < 310


@given(sides, sides, seeds)
def test_flip_mirrors_left_and_right(height, width, seed):
    image = picture(height, width)
    mirrored = RandomHorizontalFlip(1)(image, rng(seed))
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
    np.testing.assert_array_equal(RandomHorizontalFlip(0)(image, rng(seed)), image)
    np.testing.assert_array_equal(RandomHorizontalFlip(1)(mirrored[::-1, 1:], rng()), mirrored[::-1, 1:][:, ::-1])


def test_flip_has_its_probability():
    flip, draw, image = RandomHorizontalFlip(0.3), rng(), picture(1, 2)
    assert abs(sum(flip(image, draw)[0, 0, 1] == 1 for _ in range(3000)) / 3000 - 0.3) < 0.03


def test_normalize_computes_its_equation():
    image = np.arange(256 * 3, dtype=np.int64).reshape(16, 16, 3).astype(np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    result = Normalize(mean, std)(image, rng())
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, (image / 255 - np.array(mean)) / np.array(std), rtol=0, atol=1e-6)
    np.testing.assert_allclose(Normalize(0.5, 0.25)(image, rng()), (image / 255 - 0.5) / 0.25, rtol=0, atol=1e-6)


@given(st.integers(0, 9), st.integers(0, 9), st.sampled_from([1, -1, 2]), st.sampled_from([1, -1, 3]))
def test_normalize_takes_views(top, left, down, right):
    view = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)[top::down, left::right]
    expected = (view / 255 - [0.1, 0.2, 0.3]) / [1, 2, 3]
    np.testing.assert_allclose(Normalize([0.1, 0.2, 0.3], [1, 2, 3])(view, rng()), expected, rtol=0, atol=1e-6)


@given(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9), st.sampled_from([1, -1, 2]))
def test_normalize_takes_batches(n, height, width, step):
    """Bit for bit what it makes of each picture."""
    images = np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)[:, ::step, ::step]
    normalize, before = Normalize([0.1, 0.2, 0.3], [1, 2, 3]), images.copy()
    result = normalize(images)
    assert result.shape == images.shape and result.dtype == np.float32 and result.flags.c_contiguous
    assert all(np.array_equal(row, normalize(image, rng())) for row, image in zip(result, images, strict=True))
    np.testing.assert_array_equal(images, before)


def test_normalize_writes_to_an_array_that_is_there():
    image, out = picture(7, 5)[::-1], np.full((2, 7, 5, 3), np.nan, np.float32)
    Normalize(0.3, 0.2).write(image, out[1])
    np.testing.assert_array_equal(out[1], Normalize(0.3, 0.2)(image))
    assert np.isnan(out[0]).all()


PIPELINE = Compose([Resize(24), RandomCrop(20), RandomHorizontalFlip(), Normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))])


def test_compose_runs_in_order_on_one_generator():
    image = picture(30, 40)
    by_hand, draw = image, rng(3)
    for transform in PIPELINE.transforms:
        by_hand = transform(by_hand, draw)
    np.testing.assert_array_equal(PIPELINE(image, rng(3)), by_hand)
    assert by_hand.shape == (20, 20, 3) and by_hand.dtype == np.float32
    assert Compose([])(image, rng()) is image
    np.testing.assert_array_equal(image, picture(30, 40))


@pytest.mark.parametrize("deterministic", [Resize(5), CenterCrop(5), Normalize(0.5, 0.5)])
def test_deterministic_transforms_draw_nothing(deterministic):
    draw = rng(1)
    deterministic(picture(9, 8), draw)
    assert draw.random() == rng(1).random()


def test_reprs_say_how_to_build_the_transform():
    assert repr(PIPELINE) == (
        "Compose(transforms=[Resize(short_side=24), RandomCrop(size=20, padding=0), RandomHorizontalFlip(p=0.5),"
        " Normalize(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))])"
    )
    assert eval(repr(PIPELINE)) == PIPELINE and repr(CenterCrop(7)) == "CenterCrop(size=7)"


def one_line(error, function, *args):
    with pytest.raises(error) as info:
        function(*args)
    assert "\n" not in str(info.value)
    return str(info.value)


def test_an_image_too_small_to_crop():
    message = " does not fit into an image of 30x20 (height x width); put Resize({}) before it"
    assert one_line(DataError, CenterCrop(21), picture(30, 20), rng()) == "CenterCrop(size=21)" + message.format(21)
    assert one_line(DataError, RandomCrop(31), picture(30, 20), rng()) == (
        "RandomCrop(size=31, padding=0)" + message.format(31)
    )
    assert RandomCrop(31, padding=6)(picture(30, 20), rng()).shape == (31, 31, 3)


@pytest.mark.parametrize("transform", PIPELINE.transforms + [CenterCrop(2), RandomCrop(2, padding=1)])
@pytest.mark.parametrize("image", [np.zeros((9, 9, 3)), np.zeros((9, 9), np.uint8), np.zeros((9, 9, 1), np.uint8)])
def test_what_is_no_image(transform, image):
    kind = "uint8 images (H, W, 3) or (N, H, W, 3)" if isinstance(transform, Normalize) else "a uint8 image (H, W, 3)"
    message = f"{transform} takes {kind}, got {image.dtype} {image.shape}"
    assert one_line(DataError, transform, image, rng()) == message


def test_arguments_out_of_range():
    def integer(name, least, value):
        return f"{name} must be an integer from {least} to 2**63 - 1, got {value}"

    assert one_line(ValueError, Resize, 0) == integer("short_side", 1, 0)
    assert one_line(ValueError, CenterCrop, 2.5) == integer("size", 1, 2.5)
    assert one_line(ValueError, RandomCrop, -1) == integer("size", 1, -1)
    assert one_line(ValueError, RandomCrop, 4, -1) == integer("padding", 0, -1)
    assert one_line(ValueError, Resize, 2**63) == integer("short_side", 1, 2**63)
    assert RandomCrop(np.int64(2))(picture(3, 3), rng()).shape == (2, 2, 3)
    for p in (-0.1, 1.1, math.nan):
        assert one_line(ValueError, RandomHorizontalFlip, p) == f"p must be a probability between 0 and 1, got {p}"
    for mean, std in ((0.5, 0), (0.5, (1, 1)), ((1, 2, 3, 4), 1), (math.nan, 1), (0, math.inf), (0, "a"), (None, 1)):
        assert one_line(ValueError, Normalize, mean, std) == (
            f"mean and std must be one number or three, std above 0, got {mean} and {std}"
        )
