"""minicnn/backends/numpy/memory.py: large arrays on recycled memory, and each thread's buffers."""

import gc
import os
import signal
import threading
import time
import weakref

import numpy as np
import pytest
from reference import at_once

from minicnn.backends.numpy import memory as recycler
from minicnn.backends.numpy.memory import empty, empty_like, scratch

LARGE = (recycler.LARGE // 4, 4)  # of bytes


def address(array):
    return array.__array_interface__["data"][0]


def test_empty_is_as_numpys():
    for shape, dtype in [
        ((2, 3), np.float64),
        ((0,), np.float32),
        ((), int),
        ((512, 1024), np.float32),
        ((1 << 18, 0), bool),
        ([2, 3], "float16"),
    ]:
        x = empty(shape, dtype)
        assert type(x) is np.ndarray and x.shape == tuple(shape) and x.dtype == dtype
        assert x.flags.c_contiguous and x.flags.writeable and x.flags.aligned
        x[...] = 1
        y = empty_like(x.T)
        assert y.shape == x.T.shape and y.dtype == x.dtype and y.flags.c_contiguous
    assert empty((2,)).dtype == np.float32


def test_memory_is_reused_after_the_last_view_is_gone(memory):
    x = empty(LARGE, np.uint8)
    first = address(x)
    views = [x[1:], x.reshape(-1)[5:], x.view(np.float32), x.T[2], memoryview(x), np.frombuffer(x, np.uint8)[3:]]
    ref = weakref.ref(x)
    del x
    for _ in range(len(views)):
        assert address(empty(LARGE, np.uint8)) != first
        views.pop(0)
    assert ref() is None
    again = empty((2, recycler.LARGE // 8), np.float32)  # as many bytes, another shape and dtype
    assert address(again) == first and memory.lent_bytes == recycler.LARGE


def test_arrays_that_live_never_share_memory(memory):
    random, live = np.random.default_rng(0), []
    for i in range(300):
        if live and random.random() < 0.5:
            array, number = live.pop(random.integers(len(live)))
            assert (array == number).all()
        else:
            x = empty((int(random.integers(1, 3)), recycler.LARGE), np.uint8)
            x[...] = i % 251
            live.append((x[:, :: int(random.integers(1, 4))], i % 251))
    assert all((array == number).all() for array, number in live)
    live.clear()
    del x, array
    assert memory.lent_bytes == 0


def test_memory_is_lent_to_several_threads(memory):
    def work(number):
        for _ in range(60):
            x = empty(LARGE, np.uint8)
            x[::7] = number
            time.sleep(0)
            if not (x[::7] == number).all():
                return "another thread wrote here"
        return "alone"

    assert at_once(*[lambda n=n: work(n) for n in range(4)]) == ["alone"] * 4
    assert memory.lent_bytes == 0


def test_no_more_is_kept_than_twice_what_was_used(memory):
    size = recycler.LARGE
    many = [empty((size,), np.uint8) for _ in range(8)]
    del many
    assert memory.idle_bytes == memory.most_lent == 8 * size
    other = empty((8 * size,), np.uint8)  # nothing that is kept is large enough
    assert memory.idle_bytes == 8 * size == memory.lent_bytes == memory.most_lent
    del other
    last = empty((2 * size + 1,), np.uint8)  # with this there would be too much
    assert memory.idle_bytes == 0 and memory.lent_bytes == 2 * size + 1 and memory.most_lent == 8 * size
    del last
    assert memory.idle_bytes == 2 * size + 1


def test_a_pass_forward_finds_its_memory_again(memory):
    """Without a graph each layer's array is given back soon, and the next pass asks for the same ones."""
    sizes = [40, 40, 40, 9, 25, 25, 6, 8, 8, 8, 6, 1]
    made = []
    fresh = recycler._aligned
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recycler, "_aligned", lambda nbytes: made.append(nbytes) or fresh(nbytes))
        for turn in range(5):
            made.clear()
            for size in sizes:
                x = empty((size * recycler.LARGE,), np.uint8)  # while the one before is still there
            del x
            assert bool(made) == (turn == 0)
    assert memory.most_lent == 80 * recycler.LARGE >= (memory.idle_bytes + memory.lent_bytes) / 2


def test_an_array_may_have_a_block_of_up_to_twice_its_size(memory):
    size = recycler.LARGE
    large, larger = empty((4 * size,), np.uint8), empty((6 * size,), np.uint8)
    places = address(large), address(larger)
    del large, larger
    for wanted, lent in ((3 * size, 0), (2 * size, 0), (6 * size, 1), (4 * size + 1, 1), (2 * size - 1, None)):
        x = empty((wanted,), np.uint8)
        assert x.shape == (wanted,) and (address(x) in places) == (lent is not None)
        assert lent is None or address(x) == places[lent]
        assert memory.lent_bytes == (wanted if lent is None else (4, 6)[lent] * size)
        del x
    assert memory.lent_bytes == 0


def test_small_arrays_are_left_to_numpy(memory):
    x = empty((recycler.LARGE - 1,), np.uint8)
    assert x.flags.owndata and memory.lent_bytes == 0
    assert not empty((recycler.LARGE,), np.uint8).flags.owndata


def test_more_memory_than_there_is_changes_nothing(memory):
    with pytest.raises(MemoryError):
        empty((1 << 58,))
    gc.collect()  # what is left of it must not fail either
    assert memory.lent_bytes == 0 == memory.idle_bytes


def test_idle_blocks_give_way_when_there_is_no_more_memory(memory, monkeypatch):
    size, fresh = recycler.LARGE, recycler._aligned

    def limited(nbytes):
        if memory.idle_bytes:
            raise MemoryError
        return fresh(nbytes)

    many = [empty((size,), np.uint8) for _ in range(8)]
    del many
    monkeypatch.setattr(recycler, "_aligned", limited)
    x = empty((3 * size,), np.uint8)
    assert memory.idle_bytes == 0 and memory.lent_bytes == x.nbytes


def test_memory_is_given_back_while_some_is_sought(memory):
    """By garbage collection, in the same thread."""
    blocks = [memory.take(n * recycler.LARGE) for n in (5, 7)]

    class Size(int):
        __hash__ = int.__hash__

        def __gt__(self, other):
            while blocks:
                memory.give_back(blocks.pop())
            return int(self) > other

    memory.idle[Size(3 * recycler.LARGE)] = []
    assert memory._fitting(2 * recycler.LARGE) == 0
    assert memory._fitting(3 * recycler.LARGE) == 5 * recycler.LARGE


def test_scratch_is_one_buffer_for_each_name_and_thread():
    like = np.empty(0, np.float32)
    a = scratch("a", (4, 5), like)
    assert a.shape == (4, 5) and a.dtype == np.float32 and a.flags.c_contiguous and a.flags.writeable
    assert address(scratch("a", (2, 3), like)) == address(a)
    assert scratch("a", (2,), np.empty(0)).dtype == np.float64
    assert not np.shares_memory(scratch("b", (4, 5), like), a)
    larger = scratch("a", (40, 50), like)
    assert larger.shape == (40, 50) and address(scratch("a", (4, 5), like)) == address(larger)
    mine = scratch("a", (3,), like)
    mine[:] = 7
    (others,) = at_once(lambda: scratch("a", (3,), like))
    others[:] = 8
    assert (mine == 7).all() and scratch("c", (0, 3), like).shape == (0, 3)


def test_memory_begins_with_a_line_of_the_cache(memory):
    held = [empty((recycler.LARGE + size,), np.uint8) for size in range(0, 200, 8)]
    assert all(address(array) % recycler.LINE == 0 for array in held)


def test_what_is_lent_counts_as_well_as_what_is_kept(memory):
    size = recycler.LARGE
    kept, lent = [empty((size,), np.uint8) for _ in range(3)], empty((3 * size + 1,), np.uint8)
    del kept
    assert (memory.idle_bytes, memory.lent_bytes, memory.most_lent) == (3 * size, 3 * size + 1, 6 * size + 1)
    more = empty((6 * size - 2,), np.uint8)
    assert memory.idle_bytes == 3 * size and len(memory.idle[size]) == 3
    del more
    other = empty((12 * size,), np.uint8)  # with this there would be more than twice as much
    assert memory.idle_bytes == 0 and not any(memory.idle.values())
    assert memory.lent_bytes == lent.nbytes + other.nbytes


def test_large_arrays_like_others_use_recycled_memory(memory):
    for size in (recycler.LARGE - 1, recycler.LARGE, recycler.LARGE + 1):
        assert empty_like(np.zeros(size, np.uint8)).flags.owndata == (size < recycler.LARGE)


@pytest.mark.parametrize("what", ["take", "give_back"])
def test_one_thread_at_a_time(memory, what):
    block = memory.take(recycler.LARGE)
    waiting = threading.Thread(target=getattr(memory, what), args=[recycler.LARGE if what == "take" else block])
    with memory.lock:
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()


def test_scratch_of_the_same_size_is_the_same():
    like = np.empty(0, np.float32)
    assert address(scratch("same", (4, 5), like)) == address(scratch("same", (5, 4), like))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_need_not_wait_for_a_thread_that_it_does_not_have(memory):
    begun, end = threading.Event(), threading.Event()

    def hold():
        with memory.lock:
            begun.set()
            end.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait(60)
    if not (child := os.fork()):
        signal.alarm(20)
        os._exit(0 if empty(LARGE, np.uint8).nbytes == recycler.LARGE else 1)
    end.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
