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
from concurrent.futures import Future, ThreadPoolExecutor
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


class _Threads:
    """The worker threads, started at first use. The thread that asks for work is one of them."""

    def __init__(self) -> None:
        self.count = 0  # 0: not started
        self.pool: ThreadPoolExecutor | None = None
        # .busy: this thread is inside a slice, so parallel work that it starts runs in this thread
        self.local = threading.local()
        self.lock = threading.Lock()

    def start(self, count: int) -> None:
        # BLAS's own threads would compete with ours for the cores: 1240 ms a training step with
        # them, 1030 ms without.
        ThreadpoolController().limit(limits=1, user_api="blas")
        old, self.pool = self.pool, ThreadPoolExecutor(count - 1, "minicnn") if count > 1 else None
        self.count = count
        if old is not None:
            old.shutdown(wait=False)

    def run(self, work: Callable[[int], Any], count: int) -> list[Any]:
        """[work(0), …, work(count − 1)], the first here and each other in a thread of its own; all
        have ended when this returns."""
        others: list[Future[Any]] = []
        # The lock keeps the pool from being replaced meanwhile. This thread does all of the work if
        # there is no pool, because set_num_threads(1) came in between, or if it takes no more work
        # (RuntimeError), because Python is shutting down.
        with self.lock, contextlib.suppress(RuntimeError):
            while self.pool is not None and len(others) < count - 1:
                context = contextvars.copy_context()  # with the caller's np.errstate
                others.append(self.pool.submit(context.run, self._inside, work, len(others) + 1))
        try:
            mine = [self._inside(work, t) for t in (0, *range(len(others) + 1, count))]
        finally:
            errors = [other.exception() for other in others]
        for error in errors:
            if error is not None:
                raise error
        return [mine[0], *(other.result() for other in others), *mine[1:]]

    def _inside(self, work: Callable[[int], Any], t: int) -> Any:
        self.local.busy = True
        try:
            return work(t)
        finally:
            self.local.busy = False

    def inside(self) -> bool:
        """Whether this thread is inside a slice."""
        return getattr(self.local, "busy", False)


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
