"""Arrays(X, y): what it hands out, what it takes and what it refuses."""

import pickle

import numpy as np
import pytest

from minicnn.data import Arrays, DataLoader, PixelStatistics, SyntheticImages
from minicnn.data.transforms import CenterCrop, Compose, Normalize, RandomCrop, RandomHorizontalFlip

X = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)
Y = np.arange(10) % 3


def test_samples_are_views_that_cannot_be_written_to():
    mine = X.copy()
    dataset = Arrays(mine, Y)
    assert len(dataset) == 10
    for i in (0, 9, -1):
        image, label = dataset[i]
        assert np.shares_memory(image, mine) and label == Y[i]
        np.testing.assert_array_equal(image, X[i])
        with pytest.raises(ValueError, match="read-only"):
            image[...] = 0
    mine[...] = 7  # the caller's own array stays writable
    assert dataset[3][0].max() == 7 and dataset.X.shape == X.shape and dataset.y.tolist() == Y.tolist()
    with pytest.raises(IndexError):
        dataset[10]
    assert len(list(dataset)) == 10


INTEGERS = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]


@pytest.mark.parametrize("dtype", [*INTEGERS, np.float16, np.float32, np.float64])
def test_labels_and_numbers_of_any_integer_or_floating_dtype(dtype):
    dataset = Arrays(X.astype(dtype), Y.astype(dtype))
    image, label = dataset[4]
    assert image.dtype == label.dtype == dtype and label == 1


def test_lists_and_targets_of_several_numbers():
    dataset = Arrays([[1, 2], [3, 4], [5, 6]], [[0.5], [1.5], [2.5]])
    assert dataset[1][0].tolist() == [3, 4] and dataset[1][1].tolist() == [1.5] and len(dataset) == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_makes_batches_of_them(num_workers):
    transform = Compose([RandomCrop(8, padding=1), RandomHorizontalFlip()])
    options = {"transform": transform, "normalize": Normalize(0.5, 0.5), "num_workers": num_workers}
    loader = DataLoader(Arrays(X, Y), 4, shuffle=True, seed=1, **options)
    batches = [(images.shape, images.dtype, labels.tolist()) for images, labels in loader]
    assert [shape for shape, *_ in batches] == [(4, 8, 8, 1), (4, 8, 8, 1), (2, 8, 8, 1)]
    assert all(dtype == np.float32 for _, dtype, _ in batches)
    assert sorted(label for *_, labels in batches for label in labels) == sorted(Y)


def test_it_goes_to_other_processes():
    image, label = pickle.loads(pickle.dumps(Arrays(X, Y)))[2]
    np.testing.assert_array_equal(image, X[2])
    assert label == 2


def test_lengths_that_differ():
    with pytest.raises(ValueError, match=r"^X and y must be of one length, got 10 samples and 9 labels$"):
        Arrays(X, Y[:9])


@pytest.mark.parametrize(
    "wrong, got",
    [
        (3, r"int64 \(\)"),
        (["a", "b"], r"<U1 \(2,\)"),
        ([1j], r"complex128 \(1,\)"),
        ([None], r"object \(1,\)"),
    ],
)
def test_what_is_no_array_of_numbers(wrong, got):
    takes = r"must be an array \(N, …\) of integers or floats, got "
    for name, arguments in (("X", (wrong, Y)), ("y", (X, wrong))):
        with pytest.raises(TypeError, match=f"^{name} {takes}{got}$"):
            Arrays(*arguments)


def test_booleans_are_labels_and_no_images():
    """Which a loader hands on as 0 and 1."""
    ((_, labels),) = DataLoader(Arrays(X[:3], [True, False, True]), 3, num_workers=0)
    assert labels.dtype == np.int64 and labels.tolist() == [1, 0, 1]
    with pytest.raises(TypeError, match=r"^X must be an array .*, got bool \(2,\)$"):
        Arrays([True, False], [0, 1])


def test_lists_of_unequal_lengths():
    with pytest.raises(TypeError, match=r"^X must be an array or lists of numbers: .*inhomogeneous"):
        Arrays([[1, 2], [3]], [0, 1])


def test_what_data_sets_and_loaders_print():
    dataset = Arrays(np.zeros((1200, 8, 8, 1), np.uint8), np.arange(1200))
    assert repr(dataset) == "Arrays(X uint8 (1200, 8, 8, 1), y int64 (1200,))"
    assert repr(DataLoader(dataset, 4)) == (
        "DataLoader(1,200 samples of Arrays, batch_size=4, shuffle=False, seed=0, num_workers=2, processes=False, "
        "device='cpu')"
    )
    loader = DataLoader([dataset[0]], 1, transform=CenterCrop(4), normalize=Normalize(0.5, 0.2), num_workers=0)
    assert repr(loader) == (
        "DataLoader(1 samples of list, batch_size=1, transform=CenterCrop(size=4), shuffle=False, seed=0, "
        "num_workers=0, processes=False, normalize=Normalize(mean=0.5, std=0.2), device='cpu')"
    )
    assert repr(DataLoader(dataset, 4, part=(0, 2))).endswith(", device='cpu', part=(0, 2))")
    assert repr(SyntheticImages(20, 1, 64)) == "SyntheticImages(20, seed=1, size=64)"
    assert repr(PixelStatistics()) == "PixelStatistics(0 images)"


def test_an_index_that_does_not_fit():
    dataset = Arrays(np.zeros((3, 2)), [1, 2, 3])
    assert dataset[-1][1] == 3 == dataset[np.int64(2)][1]
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"^Arrays: index {index} is out of range: there are 3, 0 to 2$"):
            dataset[index]
    for index in (1.0, slice(0, 2), [0, 1], None):
        with pytest.raises(TypeError, match=r"^Arrays: index must be an integer, not "):
            dataset[index]
