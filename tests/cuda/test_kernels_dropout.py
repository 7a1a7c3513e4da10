"""Dropout on a GPU: the mask that NumPy draws on a CPU, number for number."""

import importlib

import numpy as np
import pytest
from agreement import awkward, naive, wide_index

import minicnn.functional as F
from minicnn import Tensor, manual_seed
from minicnn.backends.cuda import dropout as kernels
from minicnn.backends.cuda.graph import Graph, Memory
from minicnn.random import rows_before

lesson = importlib.import_module("minicnn.functional.dropout")


def mask(gpu, p, key, size=4096, first=0):
    return kernels.drop(gpu.asarray(np.ones(size, np.float32)), p, key, first, 2.0).get()


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_long_arrays(gpu, p):
    """Many blocks of the generator, and exactly the same numbers kept."""
    x = np.ones(10_007, np.float32)
    np.testing.assert_array_equal(mask(gpu, p, (3, 5), 10_007), lesson.drop(x, p, (3, 5), 0, 2.0))


def test_keys_differ(gpu):
    masks = [mask(gpu, 0.5, key).tobytes() for key in ((0, 0), (0, 1), (1, 0), (2**63, 0), (0, 2**63))]
    assert len(set(masks)) == 5


def test_p_is_compared_in_float32(gpu):
    """With p on, and just beside, a number that is drawn."""
    u = np.random.Generator(np.random.Philox(key=np.array([3, 5], np.uint64))).random(64, np.float32)
    for p in (float(u[7]), float(np.nextafter(u[7], np.float32(1))), float(u[7]) + 1e-12):
        np.testing.assert_array_equal(mask(gpu, p, (3, 5), 64), lesson.drop(np.ones(64, np.float32), p, (3, 5), 0, 2.0))


def test_what_is_dropped_is_zero(gpu):
    """Infinities and NaN as well."""
    y = kernels.drop(gpu.asarray(awkward(400).astype(np.float32)), 0.5, (1, 2), 0, 2.0).get()
    kept = lesson.drop(np.ones(400, np.float32), 0.5, (1, 2), 0, 2.0) > 0
    assert (y[~kept] == 0).all()
    np.testing.assert_array_equal(y[kept], awkward(400)[kept] * 2)


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 12, 15, 17])
def test_nothing_is_written_beyond_the_end(gpu, monkeypatch, count, first):
    whole = gpu.asarray(np.full(count + 32, 7, np.float32))
    monkeypatch.setattr(kernels, "empty_like", lambda x: whole[:count])
    y = kernels.drop(gpu.asarray(np.ones(count, np.float32)), 0.5, (3, 5), first, 2.0)
    np.testing.assert_array_equal(y.get(), lesson.drop(np.ones(count, np.float32), 0.5, (3, 5), first, 2.0))
    assert (whole.get()[count:] == 7).all()


@pytest.mark.parametrize("first", [8, 9, 15, 1 << 40, (1 << 40) + 3, (1 << 62) + 8, (1 << 62) + 13])
def test_the_mask_begins_at_any_number(gpu, first):
    expected = lesson.drop(np.ones(1001, np.float32), 0.5, (3, 5), first, 2.0)
    np.testing.assert_array_equal(mask(gpu, 0.5, (3, 5), 1001, first), expected)
    with wide_index():
        np.testing.assert_array_equal(mask(gpu, 0.5, (3, 5), 1001, first), expected)


def test_the_naive_kernel_begins_at_any_number(gpu):
    with naive("dropout.drop") as launched:  # which it stands for
        for first in range(17):
            expected = lesson.drop(np.ones(20, np.float32), 0.5, (3, 5), first, 2.0)
            np.testing.assert_array_equal(mask(gpu, 0.5, (3, 5), 20, first), expected)
    assert len(launched) == 17


@pytest.mark.parametrize("scale", ["training", "evaluation"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("row", [1, 3, 8, 35])
def test_processes_that_share_a_batch_drop_what_one_does(gpu, row, dtype, scale):
    """Backward as well, though it runs after the with-statement."""
    x = np.arange(1, 1 + 12 * row, dtype=dtype).reshape(12, row)

    def trained(x, lo):
        manual_seed(5)
        tensor = Tensor(gpu.asarray(x), requires_grad=True)
        with rows_before(lo):
            y = F.dropout(tensor, scale=scale)
        y.backward(gpu.asarray(x + 1))
        return y.numpy(), tensor.grad.numpy()

    whole = trained(x, 0)
    for lo, hi in ((0, 5), (5, 5), (5, 6), (6, 12), (8, 12)):
        for part, all_rows in zip(trained(x[lo:hi], lo), whole, strict=True):
            np.testing.assert_array_equal(part, all_rows[lo:hi], strict=True)


def test_in_a_graph_draws_are_counted(gpu):
    """What is launched again takes the draw that is as many draws later."""
    x, out = gpu.asarray(np.ones(40, np.float32)), []
    kernels.drop(x, 0.5, (3, 5), 3, 2.0)  # compiled
    graph = Graph(lambda: out.append(kernels.drop(x, 0.5, (3, 5), 3, 2.0)), Memory())
    for drawn in (0, 2, 2**64 - 3):
        graph.launch(drawn)
        expected = lesson.drop(np.ones(40, np.float32), 0.5, (3, (5 + drawn) % 2**64), 3, 2.0)
        np.testing.assert_array_equal(out[0].get(), expected)
    expected = lesson.drop(np.ones(40, np.float32), 0.5, (3, 5), 3, 2.0)
    np.testing.assert_array_equal(kernels.drop(x, 0.5, (3, 5), 3, 2.0).get(), expected)
