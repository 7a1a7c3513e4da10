"""Sums on a GPU against NumPy's."""

import numpy as np
import pytest
from agreement import agrees, awkward, normal

from minicnn.backends.cuda import ops as kernels


@pytest.mark.parametrize("rows", [1023, 1024, 1025, 4000, 40_000])
@pytest.mark.parametrize("columns", [1, 3, 8, 20])
def test_many_rows(gpu, rows, columns):
    """Two stages; and no number is left out or taken twice."""
    x = normal(rows, columns)
    agrees(gpu, kernels.total, np.sum, x, (0,))
    agrees(gpu, kernels.total, np.sum, np.arange(rows * columns).reshape(x.shape) % 64.0, (0,), exactly=True)


def test_the_rows_of_a_bias(gpu):
    """As many channels as take one block, several, or a part of one."""
    for columns in (48, 96, 128, 132, 384, 1000):
        agrees(gpu, kernels.total, np.sum, normal(3, 500, columns), (0, 1))


def test_infinities_and_NaN(gpu):
    agrees(gpu, kernels.total, np.sum, awkward(3, 50), (0,))


def test_integers(gpu):
    for x in (np.arange(12).reshape(3, 4), np.ones((3, 4), bool)):
        result = kernels.total(gpu.asarray(x), (0,)).get()
        assert result.dtype == np.int64
        np.testing.assert_array_equal(result, x.sum(0))


@pytest.mark.parametrize("rows, launches", [(2, 1), (1024, 1), (1025, 2), (100_000, 2)])
def test_launches(standin, rows, launches):
    import cupy

    x = cupy.zeros((rows, 12), np.float32)
    standin.log.clear()
    kernels.total(x, (0,))
    assert [entry.kind for entry in standin.log] == ["kernel"] * launches
