"""Pixels become numbers on a GPU as on a CPU."""

import numpy as np
import pytest

from minicnn.backends.cuda import pixels as kernels

SCALE, SHIFT = np.float32([0.1, 0.02, 0.003]), np.float32([1.5, -2.0, 0.25])


def test_every_byte(gpu):
    images = np.arange(768, dtype=np.uint32).astype(np.uint8).reshape(16, 16, 3)
    np.testing.assert_array_equal(
        kernels.normalize(gpu.asarray(images), np.ones(3, np.float32), np.zeros(3, np.float32)).get(), images
    )


def test_one_channel(gpu):
    images = np.arange(256, dtype=np.uint32).astype(np.uint8).reshape(16, 16, 1)
    result = kernels.normalize(gpu.asarray(images), SCALE[:1], SHIFT[:1]).get()
    np.testing.assert_allclose(result, images * SCALE[0] - SHIFT[0], rtol=1e-6)


def test_images_that_are_numbers_already(gpu):
    with pytest.raises(TypeError, match="images must be uint8, not float32"):
        kernels.normalize(gpu.asarray(np.zeros((2, 2, 3), np.float32)), SCALE, SHIFT)
