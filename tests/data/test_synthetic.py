"""SyntheticImages: what it promises about its images, and that linear models cannot solve them."""

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest

from minicnn.data.synthetic import CONTRAST, PATTERNS, SyntheticImages

TRAIN, TEST = 1500, 500
# Ten colors that mix dark with bright channels, as no image does: whoever can count colors can tell them apart.
PAINT = [color for color in product((20, 140, 240), repeat=3) if {20, 240} <= set(color)][:10]


def coarse(picture, side):
    """Mean over square blocks: (H, W, 3) to (side, side, 3)."""
    block = len(picture) // side
    return picture.reshape(side, block, side, block, 3).mean(axis=(1, 3))


def histogram_4x4x4(picture):
    red, green, blue = (picture >> 6).astype(np.intp).reshape(-1, 3).T
    return np.bincount(16 * red + 4 * green + blue, minlength=64)


def histogram_16_each(picture):
    return np.concatenate([np.bincount(channel >> 4, minlength=16) for channel in picture.reshape(-1, 3).T])


FEATURES = {
    "pixels": lambda picture: coarse(picture, 32).ravel(),
    "histogram 4x4x4": histogram_4x4x4,
    "histogram 16 each": histogram_16_each,
}


def logistic_regression(x, labels):
    """Accuracy on the last TEST rows of multinomial logistic regression trained on the others by SGD with momentum.

    It is the best over epochs, step sizes and L2 penalties, chosen on the very rows it reports: no honest choice of
    them does better.
    """
    x = np.asarray(x, np.float32)
    scale = x[:TRAIN].std(axis=0)
    x = (x - x[:TRAIN].mean(axis=0)) / np.maximum(scale, 0.05 * scale.max())
    targets, best = np.eye(10, dtype=np.float32)[labels], 0.0
    for rate, penalty in product((1.0, 5.0), (0.01, 1.0)):
        rng, rate = np.random.default_rng(0), rate / x.shape[1]
        weight, bias, velocity = (np.zeros(shape, np.float32) for shape in ((x.shape[1], 10), 10, (x.shape[1], 10)))
        for _ in range(12):
            for rows in rng.permutation(TRAIN).reshape(-1, 100):
                logits = x[rows] @ weight + bias
                error = np.exp(logits - logits.max(axis=1, keepdims=True))
                error = (error / error.sum(axis=1, keepdims=True) - targets[rows]) / len(rows)
                velocity = 0.9 * velocity - rate * (x[rows].T @ error + penalty * weight)
                weight, bias = weight + velocity, bias - rate * error.sum(axis=0)
            best = max(best, np.mean(np.argmax(x[TRAIN:] @ weight + bias, axis=1) == labels[TRAIN:]))
    return best


def paint_label(picture, label):
    """The same image with a square on it whose place and color say the label: easy for pixels and for colors."""
    row, column = divmod(label, 4)
    painted = picture.copy()
    painted[32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = PAINT[label]
    return painted


@pytest.fixture(scope="module")
def pictures():
    dataset = SyntheticImages(TRAIN + TEST, size=128)
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(dataset.__getitem__, range(len(dataset))))


def score(pictures, feature):
    return logistic_regression([FEATURES[feature](p) for p, _ in pictures], np.array([label for _, label in pictures]))


@pytest.mark.parametrize("feature, limit", [("pixels", 0.40), ("histogram 4x4x4", 0.30), ("histogram 16 each", 0.30)])
def test_is_hard_for_a_linear_model(pictures, feature, limit):
    assert score(pictures, feature) < limit


@pytest.mark.parametrize("feature", FEATURES)
def test_the_linear_model_learns_what_is_linear(pictures, feature):
    assert score([(paint_label(p, label), label) for p, label in pictures], feature) > 0.90


def test_shape_type_and_label():
    dataset = SyntheticImages(12)
    picture, label = dataset[11]
    assert len(dataset) == 12
    assert picture.shape == (227, 227, 3) and picture.dtype == np.uint8 and picture.flags.c_contiguous
    assert label == 1 and type(label) is int
    assert len(dataset.classes) == len(set(dataset.classes)) == 10 and dataset.classes[label] == "vertical"


def test_a_picture_follows_from_seed_and_index_alone():
    few, many = SyntheticImages(20, seed=3, size=64), SyntheticImages(1000, seed=3, size=64)
    backwards = {i: many[i][0] for i in reversed(range(20))}
    with ThreadPoolExecutor(4) as pool:
        threaded = [picture for picture, _ in pool.map(few.__getitem__, range(20))]
    for i in range(20):
        np.testing.assert_array_equal(few[i][0], backwards[i])
        np.testing.assert_array_equal(few[i][0], threaded[i])


def test_all_pictures_differ():
    datasets = [SyntheticImages(50, seed, size=64) for seed in (0, 1, 2**64 - 1)]
    assert len({dataset[i][0].tobytes() for dataset in datasets for i in range(50)}) == 150


def test_the_global_random_state_is_left_alone():
    before = np.random.get_state(legacy=False)
    SyntheticImages(1)[0]
    np.testing.assert_equal(np.random.get_state(legacy=False), before)


def test_a_for_loop_ends_after_the_last_picture():
    assert [label for _, label in iter(SyntheticImages(12, size=64))] == [*range(10), 0, 1]


@pytest.mark.parametrize("label", range(10), ids=[pattern.__name__ for pattern in PATTERNS])
def test_every_size_shows_the_same_scene(label):
    for i in range(label, 50, 10):
        small, large = SyntheticImages(50, size=64)[i][0], SyntheticImages(50, size=256)[i][0]
        assert np.corrcoef(small.ravel(), coarse(large, 64).ravel())[0, 1] > 0.9


@pytest.mark.parametrize("label", range(10), ids=[pattern.__name__ for pattern in PATTERNS])
def test_figure_and_ground_differ_and_share_the_picture(label):
    for i in range(label, 100, 10):
        picture = SyntheticImages(100)[i][0].astype(np.float32)
        low, high = np.percentile(picture, (10, 90), axis=(0, 1))
        assert (high - low > 0.8 * 255 * CONTRAST).all()
        assert 0.25 < np.mean(picture > (low + high) / 2) < 0.75


def test_indices_are_those_of_a_list():
    dataset = SyntheticImages(13, size=64)
    picture, label = dataset[-1]
    np.testing.assert_array_equal(picture, dataset[12][0])
    assert label == 2 and dataset[np.int64(12)][1] == 2
    for index in (13, -14):
        with pytest.raises(IndexError, match=r"is out of range: there are 13, 0 to 12"):
            dataset[index]
    with pytest.raises(TypeError):
        dataset[1.0]  # type: ignore[index]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"n": 0}, "SyntheticImages: n, the number of images, must be a whole number from 1, not 0"),
        ({"n": -5}, "number from 1, not -5"),
        ({"n": 10, "size": 63}, "SyntheticImages: size, pixels a side, must be a whole number from 64, not 63"),
        ({"n": 10, "seed": -1}, "SyntheticImages: seed must be a whole number from 0 to 18446744073709551615, not -1"),
        ({"n": 10, "seed": 2**64}, "number from 0 to 18446744073709551615, not 18446744073709551616"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        SyntheticImages(**arguments)
    assert "\n" not in str(caught.value)


def test_an_index_that_is_no_integer():
    for index in (1.5, "0", None, [0]):
        with pytest.raises(TypeError, match=r"^SyntheticImages: index must be an integer, not "):
            SyntheticImages(3)[index]
