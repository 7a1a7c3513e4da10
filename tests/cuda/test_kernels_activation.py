"""ReLU on a GPU: what test_kernels_agreement.py does not draw."""

import importlib

import numpy as np
import pytest
import standin
from agreement import agrees, naive

from minicnn.backends.cuda import activation as kernels

lesson = importlib.import_module("minicnn.functional.activation")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_next_to_zero(gpu, dtype):
    """The stand-in's compiler keeps denormal numbers, as NumPy does. CuPy compiles with -ftz=true, so
    that for a GPU a float32 below 2⁻¹²⁶ is 0 when it is compared, and then the gradient stops there."""
    least = np.finfo(dtype).smallest_normal
    few = least * np.array([-3.0, -0.5, 0.25, 0.5, 1.0, 3.0, 0.0], dtype)
    x, dy = np.random.default_rng(0).choice(np.append(few, dtype(1)), (2, 2000))
    flushed = least if gpu is not standin.cupy and dtype == np.float32 else 0
    y = kernels.rectify(gpu.asarray(x)).get()
    np.testing.assert_allclose(y, lesson.rectify(x), rtol=0, atol=flushed)
    dx = kernels.where_positive(gpu.asarray(dy), gpu.asarray(x)).get()
    seen = np.where(np.abs(x) < flushed, 0, x)
    np.testing.assert_allclose(dx, lesson.where_positive(dy, seen), rtol=0, atol=flushed)


def test_a_large_array(gpu):
    """More packs than one block has threads, and every number its own."""
    x = np.arange(-3000.0, 3000.0) / 4
    agrees(gpu, kernels.rectify, lesson.rectify, x, exactly=True)
    agrees(gpu, kernels.where_positive, lesson.where_positive, x[::-1].copy(), x, exactly=True)
    with naive("activation.rectify"):
        agrees(gpu, kernels.rectify, lesson.rectify, x, exactly=True)
