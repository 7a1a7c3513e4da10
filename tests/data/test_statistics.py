"""The mean image, the covariance and the principal components, against NumPy's on the images themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minicnn
from minicnn.data import DataError
from minicnn.data.statistics import PixelStatistics


def pictures(n, height, width, seed=0):
    """Random ones of three correlated channels."""
    rng = np.random.default_rng(seed)
    mixed = rng.random((n, height, width, 3)) @ [[150, 90, 20], [0, 80, 60], [0, 0, 150]]
    return np.minimum(mixed, 255).astype(np.uint8)


def added(images):
    statistics = PixelStatistics()
    for image in images:
        statistics.add(image)
    return statistics


sides = st.integers(1, 9)


@given(st.integers(1, 7), sides, sides, st.integers(0, 99))
def test_results_are_numpys(n, height, width, seed):
    images = pictures(n, height, width, seed)
    statistics, pixels = added(images), images.reshape(-1, 3) / 255
    assert statistics.count == n and statistics.mean_image.dtype == np.float32
    np.testing.assert_allclose(statistics.mean_image, images.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(statistics.mean, pixels.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(statistics.covariance, np.cov(pixels.T, bias=True), rtol=0, atol=1e-15)


@given(st.integers(1, 4), sides, sides, st.integers(0, 99))
def test_color_pca_takes_the_covariance_apart(n, height, width, seed):
    statistics = added(pictures(n, height, width, seed))
    eigenvalues, eigenvectors = statistics.color_pca()
    rebuilt = eigenvectors @ np.diag(eigenvalues) @ eigenvectors.T
    np.testing.assert_allclose(rebuilt, statistics.covariance, rtol=0, atol=1e-15)
    np.testing.assert_allclose(eigenvectors.T @ eigenvectors, np.eye(3), rtol=0, atol=1e-14)
    assert eigenvalues[0] >= eigenvalues[1] >= eigenvalues[2] >= 0
    assert all(column[abs(column).argmax()] > 0 for column in eigenvectors.T)


def test_sums_are_exact_for_millions_of_pictures():
    """Two million white images and a black one of 256 × 256: the sum of their squares is beyond float64's integers,
    its square beyond int64's."""
    statistics = added(np.full((1, 256, 256, 3), 255, np.uint8))
    n = 2_000_000
    statistics.count, statistics.sums, statistics.products = n, n * statistics.sums, n * statistics.products
    assert not statistics.covariance.any()
    statistics.add(np.zeros((256, 256, 3), np.uint8))
    np.testing.assert_allclose(statistics.covariance, np.full((3, 3), n / (n + 1) ** 2), rtol=1e-12)
    np.testing.assert_allclose(statistics.mean, n / (n + 1), rtol=1e-15)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_workers_change_nothing(counts, shuffled):
    images = pictures(sum(counts) or 1, 3, 4)
    whole, parts, order = added(images), PixelStatistics(), list(range(len(images)))
    shuffled.shuffle(order)
    for count in [*counts, len(images)]:
        mine, order = order[:count], order[count:]
        parts.merge(added(images[mine]))
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(parts.arrays()[name], array)


def test_pictures_are_not_changed_and_may_be_views():
    images = pictures(2, 8, 6)
    before = images.copy()
    views, copies = added(images[:, ::-2, 1:]), added(images[:, ::-2, 1:].copy())
    np.testing.assert_array_equal(views.products, copies.products)
    np.testing.assert_array_equal(views.mean_image, copies.mean_image)
    np.testing.assert_array_equal(images, before)


def test_a_file_and_back(tmp_path):
    images = pictures(5, 4, 3)
    minicnn.save(tmp_path / "statistics.safetensors", added(images[:3]).arrays())
    stored, _ = minicnn.load(tmp_path / "statistics.safetensors")
    before = {name: array.copy() for name, array in stored.items()}
    again = PixelStatistics.of(stored)
    for image in images[3:]:
        again.add(image)
    for name, array in added(images).arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)
    for name, array in before.items():
        np.testing.assert_array_equal(stored[name], array)  # what was loaded is not what is counted on


@pytest.mark.parametrize("change", ["missing", "more", "float", "shape", "empty"])
def test_other_arrays_are_refused(change):
    arrays = dict(added(pictures(1, 2, 2)).arrays())
    if change == "missing":
        del arrays["count"]
    elif change == "more":
        arrays["weight"] = np.zeros(3, np.int64)
    elif change == "float":
        arrays["sums"] = arrays["sums"].astype(np.float64)
    elif change == "shape":
        arrays["products"] = arrays["products"][:, :2]
    else:
        arrays = {}
    with pytest.raises(DataError, match="not pixel statistics"):
        PixelStatistics.of(arrays)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_no_picture(image):
    with pytest.raises(DataError, match=r"PixelStatistics takes uint8 images \(H, W, 3\), got .*\(") as info:
        PixelStatistics().add(image)
    assert f"{image.dtype} {image.shape}" in str(info.value)


def test_one_size_only():
    statistics, other = added(pictures(2, 4, 5)), added(pictures(1, 5, 4))
    before = statistics.mean_image
    with pytest.raises(DataError, match=r"one size: the first was \(4, 5, 3\), this one is \(5, 4, 3\)"):
        statistics.add(pictures(1, 5, 4)[0])
    with pytest.raises(DataError, match="one size"):
        statistics.merge(other)
    assert statistics.count == 2
    np.testing.assert_array_equal(statistics.mean_image, before)


@pytest.mark.parametrize("result", ["mean_image", "mean", "covariance", "color_pca"])
def test_no_results_without_pictures(result):
    with pytest.raises(DataError, match="before the first image"):
        value = getattr(PixelStatistics(), result)
        value()


def test_what_is_no_image_and_no_statistics():
    found = PixelStatistics()
    for wrong in ("a", None, [1, 2], minicnn.Tensor([1.0])):
        with pytest.raises(DataError, match=r"^PixelStatistics takes uint8 images \(H, W, 3\), got "):
            found.add(wrong)
        with pytest.raises(TypeError, match=r"^merge: other must be a PixelStatistics, not "):
            found.merge(wrong)
        with pytest.raises(DataError, match=r"^PixelStatistics.of takes arrays by their names, .* not "):
            PixelStatistics.of(wrong)
    with pytest.raises(DataError, match=r"^PixelStatistics.of takes arrays"):
        PixelStatistics.of({"count": 1, "sums": 2, "products": 3})
