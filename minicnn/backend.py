"""The ground floor: threads, memory and random numbers; and, from devices.py, where arrays are. It knows arrays and
nothing above them.

Four kinds of state outlive a call here: the number of threads, the random seed with its count of draws, each thread's
scratch buffers, and memory kept for reuse. The last two are caches: dropping them changes no result.
"""

import contextlib
import contextvars
import functools
import importlib
import operator
import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from typing import Any, TypeVar, cast

import numpy as np
from threadpoolctl import ThreadpoolController

from .devices import (  # noqa: F401  # the floors above find them here
    Array,
    DeviceError,
    Upload,
    array_module,
    assign,
    computing_on_gpu,
    constant,
    describe_device,
    device_of,
    from_dlpack,
    has_tf32,
    index_copy,
    matmul_precision,
    memory_stats,
    on_device,
    on_device_of,
    open_device,
    run_there,
    set_matmul_precision,
    synchronize,
    to_device,
    to_dlpack,
)

Call = TypeVar("Call", bound=Callable[..., Any])


def device_kernel(function: Call) -> Call:
    """Decorate a lesson's array function: for NumPy arrays it runs as written; for arrays of a device, the function of
    the same name in minicnn.cuda.<same module> takes its place, with the same arguments."""
    module = "minicnn.cuda." + function.__module__.rpartition(".")[2]
    there: Any = None

    @functools.wraps(function)
    def dispatch(array: Array, *args: Any, **kwargs: Any) -> Any:
        if isinstance(array, np.ndarray):
            return function(array, *args, **kwargs)
        nonlocal there
        if there is None:  # to ask for it at every call takes longer
            there = importlib.import_module(module)
        return getattr(there, function.__name__)(array, *args, **kwargs)

    return cast(Call, dispatch)


# -------------------------------------------------------------------------------------------------------------- threads
# Numbers to a slice of elementwise work. Smaller ones queue for the interpreter lock: LRN takes twice as long in slices
# of 65,000, eight times as long in slices of 8,000.
BLOCK = 1 << 18
# Bytes of working memory to a slice of a batch: about what one core's share of the cache holds.
CACHE = 6 << 20


class _Threads:
    """The worker threads, started at first use. The thread that asks for work is one of them."""

    def __init__(self) -> None:
        self.count = 0  # 0: not started
        self.pool: ThreadPoolExecutor | None = None
        self.local = threading.local()  # .busy: this thread is inside a slice, so what it calls runs at once, in place
        self.lock = threading.Lock()

    def start(self, count: int) -> None:
        # BLAS's own threads would fight with ours for the cores: 1240 ms a training step with them, 1030 ms without.
        ThreadpoolController().limit(limits=1, user_api="blas")
        old, self.pool = self.pool, ThreadPoolExecutor(count - 1, "minicnn") if count > 1 else None
        self.count = count
        if old is not None:
            old.shutdown(wait=False)

    def run(self, work: Callable[[int], Any], count: int) -> list[Any]:
        """[work(0), …, work(count − 1)], the first here and each other in a thread of its own; all have ended when
        this returns."""
        others: list[Future[Any]] = []
        # The lock, so that the pool is not replaced meanwhile. There may be no pool, if set_num_threads(1) came in
        # between, or one that takes no more work (RuntimeError), if Python is shutting down: then this thread does it.
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
        """Is this thread inside a slice?"""
        return getattr(self.local, "busy", False)


_threads = _Threads()


def _after_fork() -> None:
    """A forked child has none of its parent's threads, which may have held locks: begin again at the next use."""
    global _threads
    count, _threads = _threads.count, _Threads()
    _memory.lock, _random.lock = threading.RLock(), threading.Lock()
    if count:
        _threads.start(count)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def set_num_threads(n: int) -> None:
    """Use n threads from now on, in the whole process. BLAS libraries are held to one thread for each of them, also
    for other users of BLAS in this process."""
    if operator.index(n) < 1:
        raise ValueError(f"the number of threads must be at least 1, not {n}")
    with _threads.lock:
        _threads.start(n)


def get_num_threads() -> int:
    """The number of threads in use: by default, one for each core this process may run on."""
    if not _threads.count:
        with _threads.lock:
            if not _threads.count:
                cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
                _threads.start(cores or 1)
    return _threads.count


def usable_threads() -> int:
    """How many threads a call made here may use: one, if it is made from inside a slice, or for a GPU."""
    return 1 if _threads.inside() or computing_on_gpu() else get_num_threads()


def slices(n: int, step: int) -> list[tuple[int, int]]:
    """[0, n) in slices (lo, hi) of about the same length, at most `step`."""
    even = -(-n // -(-n // step)) if n else step
    return [(lo, min(lo + even, n)) for lo in range(0, n, even)]


def batch_step(n: int, nbytes: int) -> int:
    """How many of n items, each with nbytes of working memory, to take at a time: what fits in the cache, and as much
    for each thread."""
    threads = get_num_threads()
    turns = -(-n // (threads * max(1, CACHE // max(nbytes, 1)))) or 1
    return -(-n // (threads * turns)) or 1


def pieces(x: Array, rows: int, row_bytes: int) -> list[tuple[slice, slice]]:
    """The images of x, of so many rows each, as (images, rows) to take at a time, for row_bytes of working memory to a
    row: a few whole images, or a band of rows of one, if an image does not fit in the cache or there are fewer than
    threads. A GPU takes them all at once."""
    n = len(x)
    if not isinstance(x, np.ndarray):
        return [(slice(0, n), slice(0, rows))]
    bands = max(-(-rows * row_bytes // CACHE), -(-get_num_threads() // max(n, 1)))
    if n and bands == 1:
        return [(slice(*cut), slice(0, rows)) for cut in slices(n, batch_step(n, rows * row_bytes))]
    images = slices(n, 1) or [(0, 0)]  # of no images, empty pieces
    return [(slice(*image), slice(*cut)) for image in images for cut in slices(rows, -(-rows // bands))]


def parallel(function: Callable[..., Any], work: Sequence[tuple[Any, ...]]) -> None:
    """Call function(*piece) for every piece of work, on all threads; each call must write what no other touches.

    NumPy's copies and products release the interpreter lock, so the threads do run side by side. Pieces go to whoever
    is free.
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
            left.clear()  # the others stop as well
            raise

    if count <= 1:
        some(0)
    else:
        _threads.run(some, count)


def parallel_sum(function: Callable[..., Array], work: Sequence[tuple[Any, ...]]) -> Array:
    """The sum of the arrays function(*piece) over at least one piece of work.

    Which thread adds up which pieces is fixed, and so is the order in which the threads' sums are added: a run repeats
    bit for bit. function may return the same buffer each time, but not on a GPU, where there is one piece.
    """
    count = max(1, min(usable_threads(), len(work)))

    def some(t: int) -> Array:
        total = None
        for piece in work[t::count]:
            part = function(*piece)
            if not isinstance(part, np.ndarray):
                return part
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
    """Call function on matching blocks of arrays that have one size; those it writes to must be contiguous."""
    if arrays[0].size <= BLOCK or not isinstance(arrays[0], np.ndarray):
        function(*arrays)
        return
    flat = [array.reshape(-1) for array in arrays]
    parallel(lambda lo, hi: function(*[array[lo:hi] for array in flat]), slices(flat[0].size, BLOCK))


def combine(ufunc: Callable[..., Array], a: Array, b: Array) -> Array:
    """ufunc(a, b), such as np.add, of two floating arrays that are broadcast against each other: if that is much, on
    all threads and recycled memory."""
    if (a.size < BLOCK and b.size < BLOCK) or not isinstance(a, np.ndarray) or a.dtype != b.dtype:
        return ufunc(a, b)
    shape = np.broadcast_shapes(a.shape, b.shape)
    out, a, b = empty(shape, a.dtype), np.broadcast_to(a, shape), np.broadcast_to(b, shape)
    step = max(1, BLOCK * len(out) // max(1, out.size))
    parallel(lambda lo, hi: ufunc(a[lo:hi], b[lo:hi], out=out[lo:hi]), slices(len(out), step))
    return out


# --------------------------------------------------------------------------------------------------------------- memory
LARGE = 1 << 20  # bytes; below this the allocator recycles by itself


class _Memory:
    """Blocks of memory that no array uses, by size. A fresh block costs a page fault for each page touched: up to 45%
    of a training step."""

    def __init__(self) -> None:
        self.idle: defaultdict[int, list[np.ndarray]] = defaultdict(list)
        self.idle_bytes = self.lent_bytes = 0
        self.lock = threading.RLock()  # reentrant: memory can come back, by garbage collection, while some is taken

    def take(self, nbytes: int) -> np.ndarray:
        with self.lock:
            if self.idle[nbytes]:
                block = self.idle[nbytes].pop()
                self.idle_bytes -= nbytes
            else:
                if self.idle_bytes > self.lent_bytes + nbytes:  # shapes have changed: more is kept than used
                    self.idle.clear()
                    self.idle_bytes = 0
                block = np.empty(nbytes, np.uint8)
            self.lent_bytes += nbytes
            return block

    def give_back(self, block: np.ndarray) -> None:
        with self.lock:
            self.lent_bytes -= block.nbytes
            self.idle_bytes += block.nbytes
            self.idle[block.nbytes].append(block)


_memory = _Memory()


class _Loan:
    """Memory lent to one array. NumPy makes the array, and every view of it, refer to its loan; with the last of them
    it goes back."""

    __slots__ = "__array_interface__", "block", "memory"

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, nbytes: int) -> None:
        self.memory = _memory
        self.block = _memory.take(nbytes)
        self.__array_interface__ = {**self.block.__array_interface__, "shape": shape, "typestr": dtype.str}

    def __del__(self) -> None:
        if hasattr(self, "block"):  # there was enough memory
            self.memory.give_back(self.block)


def empty(shape: Iterable[int], dtype: Any = np.float32, like: Array = None) -> Array:
    """An uninitialised array, as np.empty; a large one on recycled memory. `like` is an array of the device to be
    used."""
    shape, dtype = tuple(shape), np.dtype(dtype)
    if like is not None and not isinstance(like, np.ndarray):
        return array_module(like).ndarray(shape, dtype)
    nbytes = prod(shape) * dtype.itemsize
    return np.asarray(_Loan(shape, dtype, nbytes)) if nbytes >= LARGE else np.empty(shape, dtype)


def empty_like(array: Array) -> Array:
    """An uninitialised contiguous array of the same shape, dtype and device."""
    if type(array) is np.ndarray and array.nbytes < LARGE:
        return np.empty(array.shape, array.dtype)
    if not isinstance(array, np.ndarray):
        return array_module(array).ndarray(array.shape, array.dtype)
    return empty(array.shape, array.dtype, like=array)


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[str, np.ndarray] = {}


_scratch = _Scratch()


def scratch(name: str, shape: tuple[int, ...], like: Array) -> Array:
    """This thread's buffer of that name, uninitialised, with the dtype and device of `like`. It lasts until the name
    is asked for again."""
    if not isinstance(like, np.ndarray):
        return array_module(like).empty(shape, like.dtype)
    nbytes = prod(shape) * like.itemsize
    buffer = _scratch.buffers.get(name)
    if buffer is None or buffer.nbytes < nbytes:
        buffer = _scratch.buffers[name] = np.empty(nbytes, np.uint8)
    return buffer[:nbytes].view(like.dtype).reshape(shape)


# ------------------------------------------------------------------------------------------------------- random numbers
class _Random:
    def __init__(self) -> None:
        self.seed, self.draws, self.lock = 0, 0, threading.Lock()


_random = _Random()


def manual_seed(seed: int) -> None:
    """Begin the random numbers of this process again, from that seed (0 to 2⁶⁴ − 1)."""
    set_random_state((seed, 0))


def random_state() -> tuple[int, int]:
    """(seed, draws so far): all there is to the state, since each draw is keyed by this pair."""
    return _random.seed, _random.draws


def set_random_state(state: tuple[int, int]) -> None:
    """Continue from a state that random_state returned."""
    seed, draws = map(operator.index, state)
    for name, value in (("seed", seed), ("number of draws", draws)):
        if not 0 <= value < 1 << 64:
            raise ValueError(f"a {name} is an integer from 0 to 2**64 - 1, not {value}")
    with _random.lock:
        _random.seed, _random.draws = seed, draws


def draw() -> tuple[int, int]:
    """The key of the next draw: the seed, and the number of the draw."""
    with _random.lock:
        key = (_random.seed, _random.draws)
        _random.draws += 1
    return key


def generator(key: tuple[int, int] | None = None) -> np.random.Generator:
    """The generator of a draw, or of the next one: Philox with that key."""
    return np.random.Generator(np.random.Philox(key=np.array(key or draw(), np.uint64)))
