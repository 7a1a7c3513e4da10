import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnn.data import DataError
from minicnn.data.transforms import (
    CenterCrop,
    Compose,
    Normalize,
    PCAColor,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
    SubtractMean,
    TenCrop,
)

sides = st.integers(1, 40)
channels = st.sampled_from([3, 1])
seeds = st.integers(0, 2**32)
kinds = st.sampled_from([np.uint8, np.float32])


def picture(height, width, dtype=np.uint8):
    """Every pixel tells its place: (row, column, 100)."""
    rows, columns = np.mgrid[:height, :width]
    return np.dstack([rows, columns, np.full_like(rows, 100)]).astype(dtype)


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


@pytest.mark.parametrize("height, width, short", [(1, 5000, 256), (5000, 1, 256), (4, 201, 5)])
def test_slim_pictures_are_not_made_larger(height, width, short):
    with pytest.raises(DataError, match=f"^{width} x {height} pixels would become .*: remove or crop it$"):
        Resize(short)(picture(height, width), rng())


@pytest.mark.parametrize("height, width, short", [(4, 200, 5), (200, 4, 8), (4, 400, 3), (1, 5000, 1)])
def test_others_are_and_slim_ones_may_become_smaller(height, width, short):
    scale = short / min(height, width)
    assert Resize(short)(picture(height, width), rng()).shape == (height * scale, width * scale, 3)


def test_resize_is_bilinear_and_antialiased():
    stripes = np.zeros((8, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    small = Resize(2)(stripes, rng())
    assert small.shape == (2, 16, 3) and abs(small[:, 1:-1].astype(int) - 100).max() <= 1
    steps = np.uint8([[[0] * 3, [80] * 3]])
    assert Resize(2)(steps, rng())[0, :, 0].tolist() == [0, 20, 60, 80]


@given(sides, sides, kinds, st.integers(0, 5), seeds, st.data())
def test_random_crop_is_a_square_of_the_padded_image(height, width, dtype, padding, seed, data):
    size = data.draw(st.integers(1, min(height, width) + 2 * padding))
    image = picture(height, width, dtype)
    result = RandomCrop(size, padding)(image, rng(seed))
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size, 3)).reshape(-1, size, size, 3)
    assert result.dtype == dtype and (windows == result).all((1, 2, 3)).any()
    np.testing.assert_array_equal(result, RandomCrop(size, padding)(image, rng(seed)))
    np.testing.assert_array_equal(image, picture(height, width))
    np.testing.assert_array_equal(result, RandomCrop(size, padding)(image.astype(np.uint8), rng(seed)))


@given(sides, sides, kinds, st.data())
def test_ten_crop(height, width, dtype, data):
    size = data.draw(st.integers(1, min(height, width)))
    image = picture(height, width, dtype)
    result = TenCrop(size)(image[:, ::-1], rng())  # of a view
    assert result.shape == (10, size, size, 3) and result.dtype == dtype
    last, right = height - size, width - size
    corners = [(0, 0), (0, right), (last, 0), (last, right)]
    for crop, (top, left) in zip(result, [*corners, (last // 2, right // 2)], strict=False):
        np.testing.assert_array_equal(crop, image[:, ::-1][top : top + size, left : left + size])
    np.testing.assert_array_equal(result[4], CenterCrop(size)(image[:, ::-1], rng()))
    np.testing.assert_array_equal(result[5:], result[:5, :, ::-1])
    np.testing.assert_array_equal(image, picture(height, width))


@given(sides, sides, kinds, seeds)
def test_flip_mirrors_left_and_right(height, width, dtype, seed):
    image = picture(height, width, dtype)
    mirrored = RandomHorizontalFlip(1)(image, rng(seed))
    assert mirrored.dtype == dtype
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
    np.testing.assert_array_equal(RandomHorizontalFlip(0)(image, rng(seed)), image)
    np.testing.assert_array_equal(RandomHorizontalFlip(1)(mirrored[::-1, 1:], rng()), mirrored[::-1, 1:][:, ::-1])


def test_flip_has_its_probability():
    flip, draw, image = RandomHorizontalFlip(0.3), rng(), picture(1, 2)
    assert abs(sum(flip(image, draw)[0, 0, 1] == 1 for _ in range(3000)) / 3000 - 0.3) < 0.03


@given(sides, sides, seeds, st.sampled_from([1, 0.5, (58.4, 1, 57.4)]))
def test_subtract_mean_takes_from_each_pixel_its_own(height, width, seed, std):
    draw = rng(seed)
    image, mean = draw.integers(0, 256, (height, width, 3), dtype=np.uint8), draw.random((height, width, 3)) * 255
    before = image.copy()
    result = SubtractMean(mean, std)(image[:, ::-1], rng())
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, (image[:, ::-1] - mean) / std, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(image, before)


def test_subtract_mean_wants_the_size_of_its_mean_image():
    subtract = SubtractMean(np.zeros((9, 8, 3)))
    assert one_line(DataError, subtract, picture(8, 9), rng()) == (
        "SubtractMean(mean_image of 9x8 (height x width), std=1.0) was given an image of 8x9 (height x width);"
        " put Resize and CenterCrop before it"
    )
    for mean in (np.zeros((9, 8)), np.zeros((9, 8, 4)), np.full((9, 8, 3), np.nan)):
        assert one_line(ValueError, SubtractMean, mean) == (
            f"mean_image must be a finite array (H, W, 3) or (H, W, 1), got an array {mean.shape}"
        )
    for std in (0, -1, math.nan, (1, 1), (1, 1, 0)):
        assert one_line(ValueError, SubtractMean, np.zeros((9, 8, 3)), std) == (
            f"std must be one number or one per channel of the mean image, above 0, got {std}"
        )


EIGENVALUES, EIGENVECTORS = np.array([0.2, 0.02, 0.005]), np.linalg.qr(rng(5).standard_normal((3, 3)))[0]


@given(sides, sides, seeds, st.sampled_from([255, 1.0, (4.0, 5.0, 6.0)]), st.floats(0, 2))
def test_pca_color_computes_its_equation(height, width, seed, scale, std):
    image = rng(seed).standard_normal((height + 1, width, 3)).astype(np.float32)[1:, ::-1]
    before, alpha = image.copy(), rng(seed).normal(0, std, 3)
    shift = sum(EIGENVECTORS[:, i] * EIGENVALUES[i] * alpha[i] for i in range(3)) * scale
    result = PCAColor(EIGENVALUES, EIGENVECTORS, std, scale)(image, rng(seed))
    assert result.dtype == np.float32 and result.shape == image.shape
    np.testing.assert_allclose(result, image + shift, rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(image, before)


def test_pca_color_shifts_along_each_component_by_a_tenth_of_its_eigenvalue():
    """On the scale of 0 to 255, with the paper's 0.1; the shifts are independent, and as often down as up."""
    transform, draw, black = PCAColor(EIGENVALUES, EIGENVECTORS), rng(), np.zeros((1, 1, 3), np.float32)
    shifts = np.array([transform(black, draw)[0, 0] for _ in range(4000)]) @ EIGENVECTORS / 255  # (4000, 3)
    np.testing.assert_allclose(shifts.std(axis=0), 0.1 * EIGENVALUES, rtol=0.05)
    assert (abs(shifts.mean(axis=0)) < 4 * 0.1 * EIGENVALUES / math.sqrt(4000)).all()
    np.testing.assert_allclose(np.corrcoef(shifts.T), np.eye(3), atol=0.06)


@pytest.mark.parametrize(
    "arguments",
    [
        (EIGENVALUES[:2], EIGENVECTORS),
        (EIGENVALUES, EIGENVECTORS[:2]),
        (EIGENVALUES, EIGENVECTORS, -0.1),
        (EIGENVALUES, EIGENVECTORS, math.nan),
        (EIGENVALUES, EIGENVECTORS, 0.1, (1.0, 2.0)),
    ],
)
def test_what_pca_color_does_not_take(arguments):
    message = one_line(ValueError, PCAColor, *arguments)
    assert message.startswith("PCAColor takes eigenvalues (3,), eigenvectors (3, 3), a std of 0 or more")
    assert message.endswith(str(arguments[-1]) if len(arguments) == 4 else "and 255.0")


def test_normalize_computes_its_equation():
    image = np.arange(256 * 3, dtype=np.int64).reshape(16, 16, 3).astype(np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    result = Normalize(mean, std)(image, rng())
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, (image / 255 - np.array(mean)) / np.array(std), rtol=0, atol=1e-6)
    np.testing.assert_allclose(Normalize(0.5, 0.25)(image, rng()), (image / 255 - 0.5) / 0.25, rtol=0, atol=1e-6)


@given(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9), st.sampled_from([1, -1, 2]))
def test_normalize_takes_batches(n, height, width, step):
    """Bit for bit what it makes of each image."""
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


def test_the_papers_way():
    """Sections 2 and 4.1, in order: every number follows from the image and the draws."""
    image, mean = rng().integers(0, 256, (30, 40, 3), dtype=np.uint8), rng(1).random((24, 24, 3)) * 255
    steps = [Resize(24), CenterCrop(24), SubtractMean(mean), RandomCrop(20), RandomHorizontalFlip()]
    result = Compose([*steps, PCAColor(EIGENVALUES, EIGENVECTORS)])(image, rng(3))
    draw = rng(3)
    top, left, flipped, alpha = draw.integers(5), draw.integers(5), draw.random() < 0.5, draw.normal(0, 0.1, 3)
    square = Resize(24)(image, rng())[:, 4:28]
    seen = (square - mean)[top : top + 20, left : left + 20][:, :: -1 if flipped else 1]
    np.testing.assert_allclose(result, seen + 255 * EIGENVECTORS @ (EIGENVALUES * alpha), atol=1e-4)


MEAN = SubtractMean(np.zeros((9, 8, 3)))
PCA = PCAColor(EIGENVALUES, EIGENVECTORS, scale=(1.0, 2.0, 3.0))


@pytest.mark.parametrize("transforms", [3, Resize(5), [Resize(5), 3], (step for step in [Resize(5)])])
def test_what_is_no_list_of_transforms(transforms):
    """A generator would be empty after the first image."""
    given = "a generator" if hasattr(transforms, "send") else repr(transforms)
    message = f"Compose takes a list of transforms, not {given}"
    assert one_line(TypeError, Compose, transforms) == message


@pytest.mark.parametrize("deterministic", [Resize(5), CenterCrop(5), TenCrop(5), Normalize(0.5, 0.5), MEAN])
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
    assert repr(TenCrop(7)) == "TenCrop(size=7)"


def test_arrays_are_left_out_of_reprs():
    assert repr(MEAN) == "SubtractMean(mean_image of 9x8 (height x width), std=1.0)"
    assert repr(PCA) == "PCAColor(std=0.1, scale=(1.0, 2.0, 3.0))"


@pytest.mark.parametrize("transform", [*PIPELINE.transforms, TenCrop(5)])
def test_transforms_go_to_other_processes(transform):
    assert pickle.loads(pickle.dumps(transform)) == transform


def test_so_do_those_with_arrays():
    image, mean = rng().integers(0, 256, (9, 8, 3), dtype=np.uint8), rng(1).random((9, 8, 3)) * 255
    transform = Compose([SubtractMean(mean), PCA])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(transform))(image, rng(2)), transform(image, rng(2)))


def one_line(error, function, *args):
    with pytest.raises(error) as info:
        function(*args)
    assert "\n" not in str(info.value)
    return str(info.value)


def test_an_image_too_small_to_crop():
    message = " does not fit into an image of 30x20 (height x width); put Resize({}) before it"
    assert one_line(DataError, CenterCrop(21), picture(30, 20), rng()) == "CenterCrop(size=21)" + message.format(21)
    assert one_line(DataError, TenCrop(21), picture(30, 20), rng()) == "TenCrop(size=21)" + message.format(21)
    assert one_line(DataError, RandomCrop(31), picture(30, 20), rng()) == (
        "RandomCrop(size=31, padding=0)" + message.format(31)
    )
    assert RandomCrop(31, padding=6)(picture(30, 20), rng()).shape == (31, 31, 3)


BYTES, EITHER = (f"a {kind} image (H, W, 3) or (H, W, 1)" for kind in ("uint8", "uint8 or float32"))
COLORS, FLOATS = (f"a {kind} image (H, W, 3)" for kind in ("uint8", "float32"))


@pytest.mark.parametrize(
    "transform, kind",
    [
        (Resize(5), BYTES),
        (RandomCrop(5), EITHER),
        (RandomCrop(2, padding=1), EITHER),
        (CenterCrop(2), EITHER),
        (TenCrop(2), EITHER),
        (RandomHorizontalFlip(), EITHER),
        (MEAN, COLORS),
        (SubtractMean(np.zeros((9, 9, 1))), "a uint8 image (H, W, 1)"),
        (PCA, FLOATS),
        (Normalize(0.5, 0.25), "uint8 images (…, H, W, 3) or (…, H, W, 1)"),
        (Normalize((0.5, 0.4, 0.3), 0.25), "uint8 images (…, H, W, 3)"),
        (Normalize(0.5, (0.1, 0.2, 0.3)), "uint8 images (…, H, W, 3)"),
    ],
)
def test_what_is_no_image(transform, kind):
    own = np.float32 if kind == FLOATS else np.uint8
    others = {FLOATS: [np.uint8], EITHER: []}.get(kind, [np.float32])
    refused = [n for n in (1, 3) if f" {n})" not in kind]
    images = [np.zeros(shape, own) for shape in ((9, 9), (9, 9, 4), (9, 9, 2), *((9, 9, n) for n in refused))]
    for image in images + [np.zeros((9, 9, 3), dtype) for dtype in [np.float64, np.int64, *others]]:
        message = f"{transform} takes {kind}, got {image.dtype} {image.shape}"
        assert one_line(DataError, transform, image, rng()) == message


@given(sides, sides, kinds, seeds, st.data())
def test_a_picture_of_one_channel_is_cropped_and_mirrored_as_one_of_three(height, width, dtype, seed, data):
    gray = rng(seed).integers(0, 256, (height, width, 1), dtype=np.uint8).astype(dtype)
    three = gray.repeat(3, 2)
    size = data.draw(st.integers(1, min(height, width)))
    for transform in (CenterCrop(size), RandomCrop(size), RandomCrop(size, 2), TenCrop(size), RandomHorizontalFlip()):
        result = transform(gray[::-1], rng(seed))
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, transform(three[::-1], rng(seed))[..., :1])


@given(sides, sides, seeds, sides)
def test_a_picture_of_one_channel_becomes_numbers_as_one_of_three(height, width, seed, short):
    gray = rng(seed).integers(0, 256, (height, width, 1), dtype=np.uint8)
    three, mean = gray.repeat(3, 2), rng(seed).random((height, width, 1)) * 255
    for one, other in (
        (Resize(short), Resize(short)),
        (Normalize(0.3, 0.2), Normalize((0.3,) * 3, (0.2,) * 3)),
        (Normalize([0.3], (0.2,)), Normalize(0.3, 0.2)),
        (SubtractMean(mean, 2.0), SubtractMean(mean.repeat(3, 2), 2.0)),
        (SubtractMean(mean, (2.0,)), SubtractMean(mean.repeat(3, 2), (2.0,) * 3)),
    ):
        result, expected = one(gray, rng()), other(three, rng())
        assert result.dtype == expected.dtype and result.shape == (*expected.shape[:2], 1)
        np.testing.assert_array_equal(result, expected[:, :, :1])
    out = np.full((2, height, width, 1), np.nan, np.float32)
    Normalize(0.3, 0.2).write(gray, out[1])
    np.testing.assert_array_equal(out[1], Normalize(0.3, 0.2)(gray))
    np.testing.assert_array_equal(Normalize(0.3, 0.2)(gray[None]), out[1:])


def test_what_needs_color_says_so():
    message = one_line(DataError, PCA, np.zeros((9, 9, 1), np.float32), rng())
    assert message == f"{PCA} takes a float32 image (H, W, 3), got float32 (9, 9, 1)"


def test_resize_and_crop_round_as_the_table_says():
    """640 × 427 pixels to 256: the long side is 383.7, and of 384 an odd rest of 161 is left of 223."""
    assert Resize(256)(np.zeros((427, 640, 3), np.uint8), rng()).shape == (256, 384, 3)
    assert CenterCrop(223)(picture(256, 384), rng())[0, 0, :2].tolist() == [16, 80]


def test_arguments_out_of_range():
    def integer(name, least, value):
        return f"{name} must be a whole number from {least}, not {value}"

    assert one_line(ValueError, Resize, 0) == integer("short_side", 1, 0)
    assert one_line(ValueError, TenCrop, 0) == integer("size", 1, 0)
    assert one_line(ValueError, CenterCrop, 2.5) == integer("size", 1, 2.5)
    assert one_line(ValueError, RandomCrop, -1) == integer("size", 1, -1)
    assert one_line(ValueError, RandomCrop, 4, -1) == integer("padding", 0, -1)
    assert one_line(ValueError, Resize, 2**63) == integer("short_side", "1 to 2**63 - 1", 2**63)
    assert RandomCrop(np.int64(2))(picture(3, 3), rng()).shape == (2, 2, 3)
    for p in (-0.1, 1.1, math.nan):
        assert (
            one_line(ValueError, RandomHorizontalFlip, p) == f"p, a probability, must be a number from 0 to 1, not {p}"
        )
    for mean, std in ((0.5, 0), (0.5, (1, 1)), ((1, 2, 3, 4), 1), (math.nan, 1), (0, math.inf), (0, "a"), (None, 1)):
        assert one_line(ValueError, Normalize, mean, std) == (
            f"mean and std must be one number or three, std above 0, got {mean!r} and {std!r}"
        )


def test_what_is_no_image_and_no_generator():
    for transform in (Resize(5), CenterCrop(5), RandomCrop(5), TenCrop(5), RandomHorizontalFlip(), MEAN, PCA):
        message = one_line(DataError, transform, [1, 2], rng())
        assert message == f"{transform} takes an image, an array (H, W, C), got [1, 2]"
    assert one_line(DataError, Normalize(0, 1), "a") == (
        "Normalize(mean=0, std=1) takes uint8 images, an array (…, H, W, C), got 'a'"
    )
    for transform in (RandomCrop(5), RandomHorizontalFlip(), PCA):
        image = picture(9, 8, np.float32)
        message = one_line(TypeError, transform, image, "seed")
        assert message == f"{transform} takes rng, a numpy.random.Generator, second, not 'seed'"


def test_images_that_cannot_be_scaled():
    message = "Resize(short_side=5) was given an image of no pixels, 0x3 (height x width)"
    assert one_line(DataError, Resize(5), np.zeros((0, 3, 3), np.uint8), rng()) == message
    message = one_line(DataError, Resize(2**20 + 1), picture(2, 2), rng())
    assert message == "2 x 2 pixels would become 1048577 x 1048577, and no side can be longer than 1,048,576"


def test_numbers_of_transforms():
    assert (
        TenCrop(True)(picture(2, 2), rng()).shape == (10, 1, 1, 3)
        and repr(CenterCrop(np.int64(2))) == "CenterCrop(size=2)"
    )
    for std in (None, "1", math.inf):
        assert "a std of 0 or more" in one_line(ValueError, PCAColor, EIGENVALUES, EIGENVECTORS, std)
    for name, wrong in (("eigenvalues", ("a", EIGENVECTORS)), ("eigenvectors", (EIGENVALUES, [[1], [2, 3]]))):
        assert one_line(TypeError, PCAColor, *wrong).startswith(f"PCAColor: {name} must be numbers, not ")
    assert one_line(TypeError, PCAColor, EIGENVALUES, EIGENVECTORS, 0.1, "a").startswith(
        "PCAColor: scale must be numbers"
    )
    assert one_line(TypeError, SubtractMean, "a").startswith("mean_image must be an array, not ")
    assert one_line(ValueError, SubtractMean, 3.0).endswith("got an array ()")
    assert one_line(TypeError, SubtractMean, np.zeros((2, 2, 3)), "a").startswith(
        "std must be one number or several, not "
    )
    assert RandomHorizontalFlip(np.float64(0.5)) == RandomHorizontalFlip(0.5)
