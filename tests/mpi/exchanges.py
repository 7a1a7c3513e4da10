"""What MPI exchanges is what the definition says, for many shapes and dtypes."""

import itertools

import numpy as np
from checking import all_checks
from numpy.testing import assert_array_equal
from reference import refuses

from minicnn import Tensor, mpi
from minicnn import functional as F
from minicnn.workers import WorkersError

SHAPES = [(0, (5,)), (0, (1, 3)), (-1, (2, 1)), (1, (2, 5, 3)), (-2, (2, 3, 4)), (0, (4, 0))]  # an axis, and a shape
DTYPES = "float16", "float32", "float64", "int64"


def small(seed, axis, shape, length, dtype):
    """Small integers, whose sums are exact in any order."""
    sizes = [*shape]
    sizes[axis] = length
    return np.random.default_rng(seed).integers(-9, 10, sizes).astype(dtype)


def lengths(size):
    """Of each rank's part: equal, unequal, and zero for some or all."""
    return [[2] * size, [1 + (3 * r) % 5 for r in range(size)], [r % 2 * 3 for r in range(size)], [0] * size]


def check_arrays(workers):
    size, me = workers.size, workers.rank
    for (axis, shape), parts, dtype in itertools.product(SHAPES, lengths(size), DTYPES):
        all_parts = [small(r, axis, shape, n, dtype) for r, n in enumerate(parts)]
        wholes = [small(10 + r, axis, shape, sum(parts), dtype) for r in range(size)]
        total = np.asarray(sum(wholes), dtype)

        gathered, told = workers.all_gather(all_parts[me], axis)
        assert told == parts
        same(gathered, np.concatenate(all_parts, axis))
        part = workers.reduce_scatter(wholes[me].copy(), parts, axis)
        same(part, np.split(total, np.cumsum(parts)[:-1], axis)[me])
        array = wholes[me].copy()
        workers.all_reduce(array)
        same(array, total)
        array = wholes[me].copy()
        workers.broadcast(array)
        same(array, wholes[0])


def same(a, b):
    assert a.dtype == b.dtype
    assert_array_equal(a, b)


def check_derivatives(workers):
    size, me = workers.size, workers.rank
    for (axis, shape), parts in itertools.product(SHAPES, lengths(size)):
        made = (axis, shape, sum(parts), "float64")
        dy = [small(20 + r, *made) for r in range(size)]
        dz = [small(30 + r, axis, shape, n, "float64") for r, n in enumerate(parts)]
        x = Tensor(small(me, axis, shape, parts[me], "float64"), requires_grad=True)
        wide = Tensor(small(10 + me, *made), requires_grad=True)
        F.all_gather(x, workers, axis).backward(dy[me])
        same(x.grad.data, np.split(sum(dy), np.cumsum(parts)[:-1], axis)[me])
        F.reduce_scatter(wide, workers, parts, axis).backward(dz[me])
        same(wide.grad.data, np.concatenate(dz, axis))
        wide.grad = None
        F.all_reduce(wide, workers).backward(dy[me])
        same(wide.grad.data, sum(dy))


def check_large_arrays(workers):
    """More than one piece of MPI's sums, and more than one section of a channel's."""
    size, me = workers.size, workers.rank
    n = mpi.SECTION // 4 + 12345
    array = np.arange(n, dtype=np.float32) % 1000 + me
    total = (np.arange(n, dtype=np.float32) % 1000) * size + sum(range(size))
    channel = workers.channel("cpu")
    summed, cut, few = array.copy(), array.copy(), [array[:7].copy(), array[7:20].copy()]
    parts = channel.reduce_scatter(cut)
    channel.all_reduce([summed])
    channel.all_reduce(few)
    channel.wait()
    same(summed, total)
    same(np.concatenate(few), total[:20])
    whole = np.zeros_like(array)
    for place, part in parts:
        same(part, total[place])
        whole[place] = part
    if size > 1:
        assert len(parts) == 2 and sum(len(part) for _, part in parts) < n // size + 3
    channel.all_gather(whole)
    channel.wait()
    same(whole, total)


def check_large_parts_that_are_not_equal(workers):
    """As of the rows of an odd batch."""
    size, me, columns = workers.size, workers.rank, 301
    lengths = [1000 + r for r in range(size)]
    array = np.arange(sum(lengths) * columns, dtype=np.float32).reshape(-1, columns) % 1000 + me
    total = size * (array - me) + sum(range(size))
    begin = sum(lengths[:me])
    for axis in 0, 1:
        own = workers.reduce_scatter(np.ascontiguousarray(array.swapaxes(0, axis)), lengths, axis)
        same(own.swapaxes(0, axis), total[begin : begin + lengths[me]])
    channel, odd = workers.channel("cpu"), array.reshape(-1)[: 2 * (len(array) * columns // 4) + 1]
    parts = channel.reduce_scatter(odd.copy())
    channel.wait()
    for place, part in parts:
        same(part, total.reshape(-1)[: len(odd)][place])


def check_bytes_are_counted(workers):
    share, before = (workers.size - 1) / workers.size, workers.received
    for call, nbytes in (
        (lambda: workers.all_reduce(np.ones(6)), 2 * 48),
        (lambda: workers.broadcast(np.ones(6)), 48),
        (lambda: workers.all_gather(np.ones((2, 3))), 48 * workers.size),
        (lambda: workers.reduce_scatter(np.ones((2 * workers.size, 3)), [2] * workers.size), 48 * workers.size),
        (lambda: workers.gather("text"), 0),
    ):
        call()
        assert abs(workers.received - before - share * nbytes) < 1e-9
        before = workers.received


def check_a_sum_that_fails(workers):
    """At the end of the wait, and at the next one too."""
    channel = workers.channel("cpu")
    channel.all_reduce([np.array(["text"])])
    for _ in range(2 * (workers.size > 1)):
        with refuses(WorkersError, "the workers' sums failed"):
            channel.wait()


def check_values(workers):
    values = workers.gather({"rank": workers.rank, "text": "α"})
    assert values == [{"rank": r, "text": "α"} for r in range(workers.size)]
    assert workers.decided([workers.rank, "stop"]) == [0, "stop"]


if __name__ == "__main__":
    all_checks()
