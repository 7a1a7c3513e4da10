"""The NumPy backend's threads, and how work is cut for them. NumPy's copies, elementwise functions
and matmul release the interpreter lock, so threads do run side by side, each on a slice that stays
in its core's cache.

The first piece of work limits BLAS to one thread for each of these, in the whole process.
"""

import contextlib
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from ...checks import whole
from .memory import empty

Array = np.ndarray

# Elements in a slice of elementwise work. Smaller slices queue for the interpreter lock: LRN takes
# twice as long in slices of 65,000, eight times as long in slices of 8,000.
BLOCK = 1 << 18
# Bytes of working memory for a slice of a batch: about what one core's share of the cache holds.
CACHE = 6 << 20


class _Task:
    """work(t), which the first thread that comes to it does."""

    def __init__(self, work: Callable[[int], Any], t: int) -> None:
        self.work, self.t = work, t
        self.context = contextvars.copy_context()  # with the caller's np.errstate
        self.taken, self.ended = threading.Lock(), threading.Lock()
        self.ended.acquire()
        self.result: Any = None
        self.error: BaseException | None = None

    def do(self) -> None:
        """Do it, unless a thread has begun already."""
        if not self.taken.acquire(blocking=False):
            return
        _threads.local.busy = True
        try:
            self.result = self.context.run(self.work, self.t)
        except BaseException as error:
            self.error = error
        finally:
            _threads.local.busy = False
            del self.work, self.context  # the queue may still have the task, but not the arrays
            self.ended.release()

    def outcome(self) -> Any:
        """The result of a task that has ended, or its error."""
        try:
            if self.error is not None:
                raise self.error
            return self.result
        finally:
            del self.result, self.error  # its traceback leads to this task


class _Threads:
    """The worker threads, started when there is work for them. The thread that asks for work is one
    more.

    A worker waits in a queue of C's, which hands work over in a third of the time that a
    ThreadPoolExecutor takes. It is a daemon: Python ends without waiting for it.
    """

    def __init__(self) -> None:
        self.count = self.workers = 0  # 0: not started
        self.queue: SimpleQueue[_Task | None] = SimpleQueue()  # None: a worker ends
        # .busy: this thread is inside a slice, so parallel work that it starts runs in this thread
        self.local = threading.local()
        self.lock = threading.Lock()

    def start(self, count: int) -> None:
        # BLAS's own threads would compete with ours for the cores: 1240 ms a training step with
        # them, 1030 ms without.
        ThreadpoolController().limit(limits=1, user_api="blas")
        for _ in range(self.workers):
            self.queue.put(None)
        self.queue, self.workers, self.count = SimpleQueue(), 0, count

    def run(self, work: Callable[[int], Any], count: int) -> list[Any]:
        """[work(0), …, work(count − 1)], each in a thread of its own, or in this one if it comes to
        it first: it waits for none that has not begun. All have ended when this returns."""
        tasks = [_Task(work, t) for t in range(count)]
        with self.lock:  # so that this remains the workers' queue meanwhile
            self._hire(min(self.count, count) - 1)
            for task in tasks[1 : 1 + self.workers]:
                self.queue.put(task)
        for task in tasks:
            task.do()
        for task in tasks:
            task.ended.acquire()
        return [task.outcome() for task in tasks]

    def _hire(self, workers: int) -> None:
        """Have so many workers, if there can be so many threads: not while Python shuts down."""
        with contextlib.suppress(RuntimeError):
            while self.workers < workers:
                threading.Thread(target=_serve, args=(self.queue,), name="minicnn", daemon=True).start()
                self.workers += 1

    def inside(self) -> bool:
        """Whether this thread is inside a slice."""
        return getattr(self.local, "busy", False)


def _serve(queue: "SimpleQueue[_Task | None]") -> None:
    while (task := queue.get()) is not None:
        task.do()
        del task  # which has a result


_threads = _Threads()


def _after_fork() -> None:
    """A forked child has none of its parent's threads, and they may have held locks: it starts its
    own at the next use.
    """
    global _threads
    count, _threads = _threads.count, _Threads()
    if count:
        _threads.start(count)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


MOST = 1024  # threads; so many can be started anywhere


def set_num_threads(n: int) -> None:
    """Use n threads from now on, in the whole process. BLAS libraries are limited to one thread for
    each of them, also for other users of BLAS in this process.

    Args:
        n: the number of threads, from 1 to 1,024.
    Raises:
        ValueError: n is something else.

    Example:
        >>> import minicnn
        >>> before = minicnn.get_num_threads()
        >>> minicnn.set_num_threads(1)
        >>> minicnn.get_num_threads()
        1
        >>> minicnn.set_num_threads(before)
    """
    n = whole("set_num_threads: n", n, 1, MOST)
    with _threads.lock:
        _threads.start(n)


def get_num_threads() -> int:
    """The number of threads in use; by default, one for each core this process may run on."""
    if not _threads.count:
        with _threads.lock:
            if not _threads.count:
                cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
                _threads.start(cores or 1)
    return _threads.count


def usable_threads() -> int:
    """How many threads a call made here may use: one, if it is made from inside a slice."""
    return 1 if _threads.inside() else get_num_threads()


def slices(n: int, step: int) -> list[tuple[int, int]]:
    """[0, n) in slices (lo, hi) of about the same length, at most `step`."""
    even = -(-n // -(-n // step)) if n else step
    return [(lo, min(lo + even, n)) for lo in range(0, n, even)]


def batch_step(n: int, nbytes: int) -> int:
    """How many of n items, each with nbytes of working memory, to take at a time: as many as fit in
    the cache, and the same number for each thread.
    """
    threads = get_num_threads()
    turns = -(-n // (threads * max(1, CACHE // max(nbytes, 1)))) or 1
    return -(-n // (threads * turns)) or 1


def pieces(x: Array, rows: int, row_bytes: int) -> list[tuple[slice, slice]]:
    """The images of x, of `rows` rows each, as (images, rows) to take at a time, where a row needs
    row_bytes of working memory: a few whole images, or a band of rows of one, if an image does not
    fit in the cache or there are fewer images than threads.
    """
    n = len(x)
    bands = max(-(-rows * row_bytes // CACHE), -(-get_num_threads() // max(n, 1)))
    if n and bands == 1:
        return [(slice(*cut), slice(0, rows)) for cut in slices(n, batch_step(n, rows * row_bytes))]
    images = slices(n, 1) or [(0, 0)]  # without images the pieces are empty
    return [(slice(*image), slice(*cut)) for image in images for cut in slices(rows, -(-rows // bands))]


def parallel(function: Callable[..., Any], work: Sequence[tuple[Any, ...]]) -> None:
    """Call function(*piece) for every piece of work, on all threads, which take pieces from a
    shared queue; each call must write what no other touches.
    """
    left = deque(work)
    count = min(usable_threads(), len(left))

    def some(_: int) -> None:
        try:
            while left:
                try:
                    piece = left.popleft()
                except IndexError:  # another thread took the last one
                    return
                function(*piece)
        except BaseException:
            left.clear()  # so that the other threads stop as well
            raise

    if count <= 1:
        some(0)
    else:
        _threads.run(some, count)


def parallel_sum(function: Callable[..., Array], work: Sequence[tuple[Any, ...]]) -> Array:
    """The sum of the arrays function(*piece) over at least one piece of work.

    Which thread adds up which pieces is fixed, and so is the order in which the threads' sums are
    added: a run repeats bit for bit. The function may return the same buffer each time.
    """
    count = max(1, min(usable_threads(), len(work)))

    def some(t: int) -> Array:
        total: Any = None
        for piece in work[t::count]:
            part = function(*piece)
            if total is None:
                total = empty(part.shape, part.dtype)
                total[...] = part
            else:
                total += part
        return total

    first, *others = _threads.run(some, count) if count > 1 else [some(0)]
    for other in others:
        first += other
    return first


def elementwise(function: Callable[..., Any], *arrays: Array) -> None:
    """Call function on matching blocks of arrays that have one size; those it writes to must be
    contiguous.
    """
    if arrays[0].size <= BLOCK:
        function(*arrays)
        return
    flat = [array.reshape(-1) for array in arrays]
    parallel(lambda lo, hi: function(*[array[lo:hi] for array in flat]), slices(flat[0].size, BLOCK))
