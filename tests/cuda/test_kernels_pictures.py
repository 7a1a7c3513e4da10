"""Pixels become numbers on a GPU as on a CPU."""

import host
import numpy as np
import pytest
from agreement import LAYOUTS, there
from hypothesis import given
from hypothesis import strategies as st

from minicnn.backends.cuda import pictures as kernels
from minicnn.data import pictures as lesson

SCALE, SHIFT = np.float32([0.1, 0.02, 0.003]), np.float32([1.5, -2.0, 0.25])


@given(st.lists(st.integers(0, 5), min_size=2, max_size=3), LAYOUTS)
def test_normalise(gpu, shape, layout):
    images = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = lesson.normalise(images, SCALE, SHIFT)

    def run():
        result = kernels.normalise(there(gpu, images, layout), SCALE, SHIFT).get()
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-5)
        return result

    result = run()
    with host.backwards():
        np.testing.assert_array_equal(run(), result)


def test_every_byte(gpu):
    images = np.arange(768, dtype=np.uint32).astype(np.uint8).reshape(16, 16, 3)
    np.testing.assert_array_equal(
        kernels.normalise(gpu.asarray(images), np.ones(3, np.float32), np.zeros(3, np.float32)).get(), images
    )


def test_images_that_are_numbers_already(gpu):
    with pytest.raises(TypeError, match="images must be uint8, not float32"):
        kernels.normalise(gpu.asarray(np.zeros((2, 2, 3), np.float32)), SCALE, SHIFT)
