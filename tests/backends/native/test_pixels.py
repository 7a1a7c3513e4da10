"""minicnn/backends/native/pixels.py: rows of pixels, in an array that is given or a new one."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from minicnn import use_backend
from minicnn.backends import native
from minicnn.data import pixels

pytestmark = pytest.mark.usefixtures("cc")
SCALE, SHIFT = np.float32([0.01, 0.02, 0.03]), np.float32([1, 2, 3])


@pytest.mark.parametrize("shape", [(3, 3), (40, 37, 3), (9, 64, 64, 3), (5, 0, 4, 3), (0, 4, 3), (7, 33, 1)])
def test_images_become_floats(threads, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    scale, shift = SCALE[: shape[-1]], SHIFT[: shape[-1]]
    out, gaps = np.empty(shape, np.float32), np.empty((*shape, 2), np.float32)[..., 0]
    with use_backend("reference"):
        wanted = pixels.normalize(images, scale, shift)
    for count in (1, 5):
        threads(count)
        for given in (None, out, gaps):
            found = native.pixels.normalize(images, scale, shift, given)
            assert given is None or found is given
            assert_array_equal(found, wanted, strict=True)
    assert_array_equal(native.pixels.normalize(images[::-1], scale, shift), wanted[::-1])
