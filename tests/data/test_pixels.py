"""The arithmetic of pixels, to the last bit."""

import numpy as np
import pytest

from minicnn import use_backend
from minicnn.data import pixels

SCALE, SHIFT = np.float32([0.017, 0.25, 1.0]), np.float32([2.1, 0.0, -0.3])


@pytest.mark.parametrize("shape", [(4, 5, 3), (2, 4, 5, 3), (0, 4, 5, 3), (3, 0, 2, 3), (2, 600, 700, 3)])
def test_normalize_is_a_product_and_a_difference_in_float32(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    expected = images.astype(np.float32) * SCALE - SHIFT
    result = pixels.normalize(images, SCALE, SHIFT)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(pixels.normalize(images[..., ::-1, :], SCALE, SHIFT), expected[..., ::-1, :])


@pytest.mark.parametrize("backend", [None, "reference"])
def test_normalize_writes_where_it_is_told(backend):
    images, out = np.full((2, 3, 3), 9, np.uint8), np.zeros((3, 2, 3, 3), np.float32)
    there = out[1]
    with use_backend(backend):
        assert pixels.normalize(images, SCALE, SHIFT, there) is there
    np.testing.assert_array_equal(out[1], np.float32(9) * SCALE - SHIFT + np.zeros((2, 3, 1), np.float32))
    assert not out[0].any() and not out[2].any()
