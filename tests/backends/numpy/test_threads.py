"""minicnn/backends/numpy/threads.py: the threads, and how work is cut for them."""

import contextlib
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import warnings
import weakref

import numpy as np
import pytest
from reference import at_once, refuses
from threadpoolctl import threadpool_info

import minicnn
from minicnn.backends import numpy as fast


def test_the_number_of_threads(threads):
    for n in (1, 3, np.int64(2)):
        threads(n)
        assert fast.threads.get_num_threads() == n == minicnn.get_num_threads()
    assert fast.threads.get_num_threads() == 2


def test_blas_is_held_to_one_thread():
    fast.threads.get_num_threads()
    assert all(library["num_threads"] == 1 for library in threadpool_info() if library["user_api"] == "blas")


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("n", "step"), [(0, 1), (1, 1), (7, 1), (7, 2), (7, 7), (7, 10), (100, 3)])
def test_parallel_covers_every_slice_once(threads, count, n, step):
    threads(count)
    seen = []
    assert fast.threads.parallel(lambda lo, hi: seen.append((lo, hi)), fast.threads.slices(n, step)) is None
    assert sorted(seen) == fast.threads.slices(n, step)


def test_parallel_uses_all_threads_and_the_callers_is_one_of_them(threads):
    threads(3)
    names, meet = set(), threading.Barrier(3)

    def work(lo, hi):
        names.add(threading.current_thread())
        meet.wait(30)  # all three must be here at the same time

    fast.threads.parallel(work, fast.threads.slices(3, 1))
    assert len(names) == 3 and threading.current_thread() in names


def test_one_thread_means_this_one(threads):
    threads(1)
    seen = set()
    fast.threads.parallel(lambda lo, hi: seen.add(threading.current_thread()), fast.threads.slices(10, 1))
    assert seen == {threading.current_thread()}


def test_slices_may_call_parallel(threads):
    threads(2)
    out = np.zeros((4, 6), int)
    inner_threads = []

    def outer(lo, hi):
        mine = threading.current_thread()

        def inner(a, b):
            inner_threads.append(threading.current_thread() is mine)
            out[lo:hi, a:b] += 1

        fast.threads.parallel(inner, fast.threads.slices(6, 1))
        out[lo, 0] += int(fast.threads.parallel_sum(lambda a, b: np.array([b - a]), fast.threads.slices(6, 1))[0])

    fast.threads.parallel(outer, fast.threads.slices(4, 1))
    assert (out[:, 1:] == 1).all() and (out[:, 0] == 7).all()
    assert all(inner_threads)  # in place: the other threads are busy with slices of their own
    meet = threading.Barrier(2)
    fast.threads.parallel(lambda lo, hi: meet.wait(30), fast.threads.slices(2, 1))  # afterwards there are two again


def test_parallel_from_several_threads_at_the_same_time(threads):
    threads(2)

    def work():
        for _ in range(50):
            out = np.zeros(20, int)

            def add(lo, hi, out=out):
                out[lo:hi] += 1

            fast.threads.parallel(add, fast.threads.slices(20, 3))
            assert (out == 1).all()
            assert fast.threads.parallel_sum(
                lambda lo, hi: np.arange(lo, hi).sum(keepdims=True), fast.threads.slices(20, 3)
            ) == [190]
        return "done"

    assert at_once(*[work] * 4) == ["done"] * 4


def test_the_number_of_threads_may_change_while_others_work(threads):
    threads(2)

    def change():
        for n in itertools.islice(itertools.cycle([1, 3, 2]), 30):
            fast.threads.set_num_threads(n)
        return True

    def work():
        return all(
            fast.threads.parallel_sum(lambda lo, hi: np.ones(hi - lo).sum(keepdims=True), fast.threads.slices(30, 1))
            == [30]
            for _ in range(100)
        )

    assert at_once(change, work, work) == [True] * 3


@pytest.mark.parametrize("run", [fast.threads.parallel, fast.threads.parallel_sum])
@pytest.mark.parametrize("count", [1, 2])
def test_an_exception_in_a_slice_reaches_the_caller_and_the_threads_go_on(threads, count, run):
    threads(count)
    caller = threading.current_thread()
    for guilty in (lambda: True, lambda: threading.current_thread() is not caller):
        meet = threading.Barrier(count)

        def work(lo, hi, meet=meet, guilty=guilty):
            if lo < count:
                meet.wait(30)  # each thread has one
            if guilty() or count == 1:
                raise KeyError("this one")
            return np.ones(1)

        with pytest.raises(KeyError, match="this one"):
            run(work, fast.threads.slices(count, 1))
        assert fast.threads.parallel_sum(lambda lo, hi: np.array([lo]), fast.threads.slices(8, 1)) == [28]


class Some:
    """A queue from which only every so many tasks of a piece of work come to a thread; the rest it keeps."""

    def __init__(self, left, queue):
        self.left, self.queue, self.kept = left, queue, []

    def put(self, task):
        if task is not None and task.t > self.left:
            self.kept.append(task)
        else:
            self.queue.put(task)


@pytest.mark.parametrize("count", [2, 3])
def test_work_that_no_other_thread_takes_is_done_here(threads, count):
    """Nobody waits for a thread that has not begun. The sums are in the same order as ever."""
    threads(count)
    numbers = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)

    def work(lo, hi):
        return numbers[lo:hi].sum(0)

    expected = fast.threads.parallel_sum(work, fast.threads.slices(50, 3))
    own = fast.threads._threads.queue
    for left in range(count - 1):  # so many tasks reach a thread
        fast.threads._threads.queue = some = Some(left, own)
        seen = []
        fast.threads.parallel(lambda lo, hi, seen=seen: seen.append((lo, hi)), fast.threads.slices(50, 3))
        assert sorted(seen) == fast.threads.slices(50, 3) and len(some.kept) == count - 1 - left
        some.kept.clear()
        np.testing.assert_array_equal(fast.threads.parallel_sum(work, fast.threads.slices(50, 3)), expected)
        assert len(some.kept) == count - 1 - left
    fast.threads._threads.queue = own
    with pytest.raises(RuntimeError, match="mine"):  # the work's own error is another matter
        fast.threads.parallel(lambda lo, hi: (_ for _ in ()).throw(RuntimeError("mine")), fast.threads.slices(50, 3))


def test_work_is_done_where_no_thread_can_be_started(threads, monkeypatch):
    threads(3)
    calls = []

    def start(thread):
        calls.append(thread.daemon)
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for _ in range(2):
            assert fast.threads.parallel_sum(lambda lo, hi: np.array([lo]), fast.threads.slices(8, 1)) == [28]
    assert calls == [True] * 2  # Python does not wait for it
    test_parallel_uses_all_threads_and_the_callers_is_one_of_them(threads)


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "minicnn"]


def test_threads_are_started_as_they_are_needed_and_end_when_they_are_not(threads):
    threads(1)
    for thread in workers():
        thread.join(30)
    threads(4)
    for pieces, number in [(2, 1), (3, 2), (9, 3), (2, 3)]:
        fast.threads.parallel(lambda lo, hi: None, fast.threads.slices(pieces, 1))
        assert len(workers()) == number
    before = workers()
    threads(2)
    for thread in before:
        thread.join(30)
    assert not workers()
    fast.threads.parallel(lambda lo, hi: None, fast.threads.slices(9, 1))
    assert len(workers()) == 1


def test_a_task_that_waits_holds_no_arrays(threads):
    """Those of its work, its result and its error are free when the work is done."""
    threads(2)
    fast.threads.parallel(lambda lo, hi: None, fast.threads.slices(2, 1))  # starts a thread
    own = fast.threads._threads.queue
    fast.threads._threads.queue = none = Some(0, own)
    gc.disable()
    try:
        for fails in (False, True):
            x = np.zeros(1000)
            results = []

            def work(lo, hi, x=x, results=results, fails=fails):
                results.append(weakref.ref(y := x[lo:hi] + 1))
                return 1 / 0 if fails and lo else y

            freed = weakref.ref(x)
            with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
                fast.threads.parallel_sum(work, fast.threads.slices(1000, 500))
            del x, work
            assert len(none.kept) == 1 + fails and freed() is None and not any(r() is not None for r in results)
    finally:
        gc.enable()
        fast.threads._threads.queue = own


ENDING = """if True:
    import atexit, threading, time
    import numpy as np
    import minicnn
    from minicnn.backends.numpy import threads

    def work(threads=threads, np=np):
        return threads.parallel_sum(lambda lo, hi: np.arange(lo, hi).sum(keepdims=True), threads.slices(30, 1))[0]

    class Late:
        def __del__(self, work=work, print=print):
            print("late", work(), flush=True)

    minicnn.set_num_threads(3)
    atexit.register(lambda: print("exit", work(), flush=True))
"""
LATER = """
    late = Late()  # goes as Python's modules do
"""
BUSY = """
    threading.Thread(target=lambda: [work() for _ in iter(int, 1)], daemon=True).start()
    time.sleep(0.1)
"""


@pytest.mark.parametrize("last, printed", [(LATER, ["exit 435", "late 435"]), (BUSY, ["exit 435"])])
def test_python_ends_and_work_is_done_until_then(last, printed):
    done = subprocess.run([sys.executable, "-c", ENDING + last], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.splitlines() == printed, done.stderr


def test_after_an_exception_no_new_slice_is_begun(threads):
    threads(1)
    seen = []
    with pytest.raises(KeyError):
        fast.threads.parallel(lambda lo, hi: seen.append(lo) or {}[lo], fast.threads.slices(8, 1))
    assert seen == [0]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_parallel_sum(threads, count):
    threads(count)
    numbers = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)
    for n, step in [(100, 7), (100, 1), (100, 100), (100, 1000), (1, 1), (0, 0)]:
        work = fast.threads.slices(n, step) if n else [(0, 0)]  # one empty piece
        buffers = threading.local()

        def slice_sum(lo, hi, buffers=buffers):
            if not hasattr(buffers, "out"):
                buffers.out = np.empty(3, np.float32)
            return np.sum(numbers[lo:hi], axis=0, out=buffers.out)  # the same buffer each time

        total = fast.threads.parallel_sum(slice_sum, work)
        np.testing.assert_allclose(total, numbers[:n].sum(0), rtol=1e-4, atol=1e-5, strict=True)
        assert all(np.array_equal(total, fast.threads.parallel_sum(slice_sum, work)) for _ in range(20))  # bit for bit
        assert total.flags.writeable and not np.shares_memory(total, buffers.out)


def test_a_child_forked_while_another_thread_holds_the_locks(threads):
    """The child has no such thread: nobody would ever let go of them."""
    threads(2)
    held, forked = threading.Event(), threading.Event()

    def hold():
        with fast.memory._memory.lock, minicnn.random._random.lock, fast.threads._threads.lock:
            held.set()
            return forked.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            signal.alarm(20)  # ends the child, if it hangs
            fast.memory.empty((fast.memory.LARGE,), np.uint8)
            minicnn.random.generator()
            fast.threads.set_num_threads(3)
            fast.threads.parallel(lambda lo, hi: None, fast.threads.slices(3, 1))
            os._exit(0)
        finally:
            os._exit(1)
    forked.set()
    holder.join(30)
    assert os.waitpid(child, 0)[1] == 0


def test_slices():
    assert (
        fast.threads.slices(0, 3) == []
        and fast.threads.slices(1, 3) == [(0, 1)]
        and fast.threads.slices(3, 3) == [(0, 3)]
    )
    assert fast.threads.slices(7, 3) == [(0, 3), (3, 6), (6, 7)] and fast.threads.slices(2, 1) == [(0, 1), (1, 2)]
    assert fast.threads.slices(8, 6) == [(0, 4), (4, 8)] and fast.threads.slices(9, 8) == [
        (0, 5),
        (5, 9),
    ]  # not 6 + 2 or 8 + 1
    for n in range(1, 40):
        for step in range(1, 45):
            lengths = [hi - lo for lo, hi in fast.threads.slices(n, step)]
            assert [lo for lo, _ in fast.threads.slices(n, step)] == [sum(lengths[:i]) for i in range(len(lengths))]
            assert sum(lengths) == n and max(lengths) <= step
            assert max(lengths) == -(-n // -(-n // step))  # no longer than as few slices as can be must be


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 16])
def test_pieces(threads, monkeypatch, count, n):
    """Every row of every image once; something for each thread; no more than fits in the cache."""
    threads(count)
    monkeypatch.setattr(fast.threads, "CACHE", 100)
    for rows, row_bytes in itertools.product([1, 2, 3, 4, 5, 13], [1, 7, 30, 99, 100, 101, 1000]):
        work, times = fast.threads.pieces(np.empty(n), rows, row_bytes), np.zeros((n, rows), int)
        for images, band in work:
            assert 0 <= images.start < images.stop <= n and 0 <= band.start < band.stop <= rows
            times[images, band] += 1
        assert (times == 1).all()
        tallest = max(band.stop - band.start for _, band in work)
        most = max(images.stop - images.start for images, _ in work)
        if n >= count and rows * row_bytes <= 100:
            assert tallest == rows and most * rows * row_bytes <= 100  # whole images
            assert most <= -(-n // count)  # of which no thread has more than need be
        else:
            assert most == 1  # a band of one
            assert tallest <= -(-rows // -(-count // n))
            assert (tallest - 1) * row_bytes < 100  # up to one row more than fits


@pytest.mark.parametrize("count", [1, 2, 3])
def test_pieces_of_nothing(threads, count):
    """At least one, which is empty: parallel_sum needs it."""
    threads(count)
    for rows, row_bytes in ((4, 1), (1, 1), (4, fast.threads.CACHE)):
        work = fast.threads.pieces(np.empty(0), rows, row_bytes)
        assert work and all(images == slice(0, 0) and 0 <= r.start < r.stop <= rows for images, r in work)


def test_pieces_by_hand(threads):
    threads(2)
    large = fast.threads.CACHE // 2
    whole, top, bottom = slice(0, 4), slice(0, 2), slice(2, 4)
    assert fast.threads.pieces(np.empty(1), 4, 1) == [(slice(0, 1), top), (slice(0, 1), bottom)]
    assert fast.threads.pieces(np.empty(2), 4, 1) == [(slice(0, 1), whole), (slice(1, 2), whole)]
    assert fast.threads.pieces(np.empty(5), 4, 1) == [(slice(0, 3), whole), (slice(3, 5), whole)]
    assert fast.threads.pieces(np.empty(2), 4, large) == [
        (slice(i, i + 1), band) for i in (0, 1) for band in (top, bottom)
    ]
    threads(1)
    assert fast.threads.pieces(np.empty(1), 4, 1) == [(slice(0, 1), whole)] and fast.threads.pieces(
        np.empty(3), 4, 1
    ) == [(slice(0, 3), whole)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_batch_step_gives_each_thread_as_much(threads, count):
    """No slice is larger than fits; the largest share of a thread is at most one item above the smallest possible."""
    threads(count)
    for n in range(1, 40):
        for fit in (1, 2, 3, 7, 100):
            step = fast.threads.batch_step(n, fast.threads.CACHE // fit)
            assert 1 <= step <= fit
            turns = -(-len(fast.threads.slices(n, step)) // count)
            assert turns == -(-n // (count * fit)), (n, fit)  # not a turn more than the cache asks for


def test_batch_step(threads):
    threads(2)
    assert (
        fast.threads.batch_step(8, 1) == 4 and fast.threads.batch_step(7, 1) == 4 and fast.threads.batch_step(1, 1) == 1
    )
    assert (
        fast.threads.batch_step(1000, fast.threads.CACHE // 3) == 3
        and fast.threads.batch_step(1000, fast.threads.CACHE * 2) == 1
    )
    assert fast.threads.batch_step(0, 1) == 1 == fast.threads.batch_step(2, 0)


def test_elementwise_goes_through_blocks_of_any_shape(threads, monkeypatch):
    threads(2)
    monkeypatch.setattr(fast.threads, "BLOCK", 7)
    x, y, sizes = np.arange(60.0).reshape(3, 4, 5).transpose(2, 0, 1), np.zeros((5, 3, 4)), []
    fast.threads.elementwise(lambda x, y: sizes.append(x.size) or np.multiply(x, 2, out=y), x, y)
    np.testing.assert_array_equal(y, 2 * x)
    assert sorted(sizes) == [4] + 8 * [7]
    fast.threads.elementwise(lambda x: sizes.append(x.shape), np.empty((0, 3)))
    assert sizes[9:] == [(0, 3)]


def test_elementwise_hands_small_arrays_over_as_they_are(threads, monkeypatch):
    threads(2)
    monkeypatch.setattr(fast.threads, "BLOCK", 12)
    seen = []

    def note(*arrays):
        seen.append((threading.current_thread(), *arrays))

    for shape in ((3, 4), (12,), (1,), (), (5, 0)):
        arrays = np.zeros(shape).T, np.ones(shape, np.float32)
        fast.threads.elementwise(note, *arrays)
        ((thread, *handed),) = seen
        assert thread is threading.current_thread() and all(a is b for a, b in zip(handed, arrays, strict=True))
        seen.clear()
    fast.threads.elementwise(note, np.zeros(13))
    assert sorted(len(a) for _, a in seen) == [6, 7]


def test_the_callers_error_state_holds_in_every_thread(threads):
    threads(2)
    meet = threading.Barrier(2)  # both threads take part

    def divide(lo, hi):
        meet.wait(30)
        return np.ones(1) / np.zeros(1)

    with np.errstate(divide="ignore"):
        fast.threads.parallel(divide, fast.threads.slices(2, 1))
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        fast.threads.parallel(divide, fast.threads.slices(2, 1))
    with warnings.catch_warnings(), pytest.raises(RuntimeWarning):
        warnings.simplefilter("error")
        fast.threads.parallel(divide, fast.threads.slices(2, 1))


@pytest.mark.parametrize("n", [0, -1, 1025, 1.5, "2", None])
def test_numbers_of_threads_that_do_not_fit(n):
    minicnn.set_num_threads(before := fast.threads.get_num_threads())
    with refuses(ValueError, f"set_num_threads: n must be a whole number from 1 to 1024, not {n!r}"):
        minicnn.set_num_threads(n)
    assert fast.threads.get_num_threads() == before
