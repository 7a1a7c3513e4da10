"""Dropout on a GPU: the mask that NumPy draws on a CPU, number for number."""

import importlib

import numpy as np
import pytest
from agreement import awkward

from minicnn.backends.cuda import dropout as kernels

lesson = importlib.import_module("minicnn.functional.dropout")


def mask(gpu, p, key, size=4096):
    return kernels.drop(gpu.asarray(np.ones(size, np.float32)), p, key, 2.0).get()


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_long_arrays(gpu, p):
    """Many blocks of the generator, and exactly the same numbers kept."""
    x = np.ones(10_007, np.float32)
    np.testing.assert_array_equal(mask(gpu, p, (3, 5), 10_007), lesson.drop(x, p, (3, 5), 2.0))


def test_keys_differ(gpu):
    masks = [mask(gpu, 0.5, key).tobytes() for key in ((0, 0), (0, 1), (1, 0), (2**63, 0), (0, 2**63))]
    assert len(set(masks)) == 5


def test_p_is_compared_in_float32(gpu):
    """With p on, and just beside, a number that is drawn."""
    u = np.random.Generator(np.random.Philox(key=np.array([3, 5], np.uint64))).random(64, np.float32)
    for p in (float(u[7]), float(np.nextafter(u[7], np.float32(1))), float(u[7]) + 1e-12):
        np.testing.assert_array_equal(mask(gpu, p, (3, 5), 64), lesson.drop(np.ones(64, np.float32), p, (3, 5), 2.0))


def test_what_is_dropped_is_zero(gpu):
    """Infinities and NaN as well."""
    y = kernels.drop(gpu.asarray(awkward(400).astype(np.float32)), 0.5, (1, 2), 2.0).get()
    kept = lesson.drop(np.ones(400, np.float32), 0.5, (1, 2), 2.0) > 0
    assert (y[~kept] == 0).all()
    np.testing.assert_array_equal(y[kept], awkward(400)[kept] * 2)
