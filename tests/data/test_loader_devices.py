"""The loader's normalization, memory and devices on a machine without a GPU; with one: tests/cuda/test_training.py."""

import sys

import numpy as np
import pytest

from minicnn import DeviceError
from minicnn.backends import devices
from minicnn.data import DataError, DataLoader
from minicnn.data.transforms import Compose, Normalize, RandomCrop


@pytest.mark.parametrize("num_workers", [0, 2])
def test_normalize_is_the_last_transform(num_workers):
    """Bit for bit, of views as well."""
    rng = np.random.default_rng(0)
    dataset = [(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)[:, ::-1], i) for i in range(7)]
    crop, normalize = RandomCrop(8, padding=1), Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.1))
    options = {"shuffle": True, "seed": 3, "num_workers": num_workers}
    inside = DataLoader(dataset, 3, transform=Compose([crop, normalize]), **options)
    beside = DataLoader(dataset, 3, transform=crop, normalize=normalize, **options)
    for (a, a_labels), (b, b_labels) in zip(inside, beside, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a_labels, b_labels)
        assert b.dtype == np.float32 and b.flags.c_contiguous and b.flags.writeable


@pytest.mark.parametrize("num_workers", [0, 2])
def test_parts_are_normalized_too(num_workers):
    """Also those without rows."""
    dataset = [(np.full((2, 2, 3), i, np.uint8), i) for i in range(5)]
    whole, *parts = (
        list(DataLoader(dataset, 3, normalize=Normalize(0.5, 0.2), num_workers=num_workers, part=part))
        for part in ((0, 1), (0, 3), (1, 3), (2, 3))
    )
    for (images, _), *found in zip(whole, *parts, strict=True):
        assert all(some.dtype == np.float32 for some, _ in found)
        np.testing.assert_array_equal(np.concatenate([some for some, _ in found]), images)
    assert parts[0][1][0].shape == (0, 2, 2, 3)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_normalize_names_the_sample_that_it_cannot_take(num_workers):
    dataset = [(np.zeros((2, 2, 3), np.uint8), 0), (np.zeros((2, 2, 3)), 0)]
    with pytest.raises(
        DataError, match=r"^sample 1: Normalize\(mean=0.5, std=0.5\) takes uint8 images .*, got float64"
    ):
        list(DataLoader(dataset, 1, normalize=Normalize(0.5, 0.5), num_workers=num_workers))


def test_large_batches_are_the_callers_own():
    """Their memory is used again as soon as, and not before, the caller lets go of them."""
    dataset = [(np.full((600, 600, 3), i, np.uint8), i) for i in range(6)]
    batches = [images for images, _ in DataLoader(dataset, 2)]
    assert [images.min() for images in batches] == [0, 2, 4] and [images.max() for images in batches] == [1, 3, 5]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(batches) for b in batches[:i])


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(devices, "opened", set())
    for device in ("gpu", "gpu:1", "tpu"):
        with pytest.raises(DeviceError, match=device):
            DataLoader([(np.zeros((2, 2, 3), np.uint8), 0)], 1, device=device)
