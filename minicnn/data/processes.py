"""Worker processes for a DataLoader. Threads wait for each other wherever Python runs, processes do not: two of them
load 1.1 to 1.4 times as many JPEGs of 256 x 256 (benchmarks/loader.py). Images come back in shared memory, and stay
there; a pipe would take as long as loading them.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from math import prod
from multiprocessing import spawn
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends import backend_of, chosen_backend, use_backend
from .folder import DataError, quiet

LINE = 64  # bytes of a cache line
ENDED = "a process that loads images ended itself, with exit status {}: look for os._exit, and at standard error"
KILLED = "a process that loads images was ended by signal {} ({}), perhaps for lack of memory; fewer take less"
NOT_BEGUN = (
    "a process that loads images ended before it began. It imports the program first: put the program's own code"
    ' under `if __name__ == "__main__":` (any other reason it has written on standard error)'
)


class Processes:
    """So many processes, each with a copy of `load`, which is called as load(key, empty, indices) and returns (images,
    labels) in arrays that empty(shape, dtype) makes. Images, for which it asks first, of up to `nbytes` bytes
    cross through shared memory, in one of several slots; more of them, and labels, through a pipe.

    lend: how many slots may be out at a time, as the images that a caller has got and still has. Others are copied, so
    that there is always a slot for each process.

    The processes end when this object is dropped. Raises TypeError if `load` cannot be pickled, DataError without
    shared memory, and for a program that is in no file, as one on the standard input.
    """

    def __init__(self, load: Callable[..., Any], number: int, nbytes: int, lend: int):
        try:
            pickled = pickle.dumps(load)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"processes need a dataset and transforms that can be pickled, unlike threads: {error}"
            ) from None
        program = spawn.get_preparation_data("").get("init_main_from_path")
        if program is not None and not os.path.exists(program):  # as "<stdin>"
            raise DataError(
                f"processes import the program first, and there is no file {os.path.basename(program)}: run it from a"
                " file, or let threads load (processes=False)"
            )
        context = multiprocessing.get_context("spawn")  # a forked child would inherit locks that nobody holds any more
        slots = number + 1 + lend  # so that one can be emptied while all are at work
        nbytes = -(-nbytes // LINE) * LINE
        try:
            memory = context.RawArray("B", slots * nbytes + LINE)
            self.begun = context.RawValue("B")  # 1 as soon as one of them has come so far
            with deaf_to("SIGHUP"):  # of which Python's resource tracker, which starts here, would die, with tracebacks
                self.executor = ProcessPoolExecutor(number, context, begin, (pickled, memory, slots, self.begun))
        except OSError as error:  # as where there is no /dev/shm
            raise DataError(
                f"processes need shared memory, and there is none: {error}; threads do without (processes=False)"
            ) from error
        self.slots = slots_in(memory, slots)
        self.free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(slots):
            self.free.put(slot)
        self.number = number

    def load(self, key: Any, empty: Callable[..., Any], indices: list[int], closed: threading.Event) -> tuple[Any, Any]:
        """What `load` returns for them, in a slot that is lent or in arrays that this `empty` makes,
        unless `closed` is set; computed by the backend that this thread has chosen, if it is one for
        the CPU. For any number of threads at once, but not the main thread, whose interrupts would
        free a slot that is still written to."""
        slot, lent = self.free.get(), False
        backend = chosen_backend() and backend_of("cpu")
        try:
            if closed.is_set():
                raise CancelledError
            try:
                with deaf_to("SIGINT"):  # the processes start with the first task
                    future = self.executor.submit(load, key, indices, slot, backend)
                found, labels = future.result()
            except BrokenProcessPool:
                raise DataError(self._how_it_ended() if self.begun.value else NOT_BEGUN) from None
            images = at(self.slots[slot], *found) if isinstance(found, tuple) else found
            lent = isinstance(found, tuple) and self.free.qsize() > self.number
            if lent:
                return self._lend(slot, *found), labels
            own = empty(images.shape, images.dtype), empty(labels.shape, labels.dtype)
            own[0][...], own[1][...] = images, labels
            return own
        finally:
            if not lent:
                self.free.put(slot)

    def _how_it_ended(self) -> str:
        """For the user, once a process has ended. The executor then ends the others, by SIGTERM."""
        executor: Any = self.executor  # which does not say it in public
        executor._executor_manager_thread.join(5)  # that fetches the exit codes
        codes = {process.exitcode for process in executor._processes.values()}
        code = max(codes - {-signal.SIGTERM, None}, default=-signal.SIGTERM)
        return ENDED.format(code) if code >= 0 else KILLED.format(-code, signal.strsignal(-code))

    def _lend(self, slot: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """The images in a slot, which comes back when no array needs its memory any more."""
        row = self.slots[slot]
        memory = (ctypes.c_ubyte * row.nbytes).from_buffer(row)  # every view of the array keeps it
        weakref.finalize(memory, self.free.put, slot).atexit = False  # a SimpleQueue's put may interrupt itself
        return at(np.frombuffer(memory, np.uint8), shape, dtype)


@contextmanager
def deaf_to(name: str) -> Iterator[None]:
    """Processes that are started in here do not get a signal, where there is such a choice."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.Signals[name]})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def at(slot: NDArray[np.uint8], shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An array that begins where the slot does."""
    return slot[: prod(shape) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)


# ------------------------------------------------------------------------------------------------------------- a worker
class Worker:
    """What a process has to load with."""

    def __init__(self, pickled: bytes, memory: Any, slots: int):
        self.from_dataset: Callable[..., Any] = pickle.loads(pickled)
        self.slots = slots_in(memory, slots)

    def load(self, key: Any, indices: list[int], slot: int) -> tuple[Any, NDArray[Any]]:
        """((shape, dtype) of the images, which are in the slot, labels); or (images, labels) if there is no room."""
        room = self.slots[slot]

        def empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
            nonlocal room
            fits = prod(shape) * np.dtype(dtype).itemsize <= room.nbytes
            array, room = at(room, shape, dtype) if fits else np.empty(shape, dtype), room[:0]
            return array

        images, labels = self.from_dataset(key, empty, indices)
        return (images.shape, images.dtype) if np.may_share_memory(images, self.slots) else images, labels


_here: list[Worker | TypeError] = []  # in a worker process: what it is, or why it cannot be


def slots_in(memory: Any, slots: int) -> NDArray[np.uint8]:
    """The slots (slots, bytes) of shared memory, each of which begins where a cache line does: the same
    ones in every process, for memory is shared by pages."""
    numbers = np.frombuffer(memory, np.uint8)
    start = -numbers.ctypes.data % LINE
    return numbers[start : start + len(numbers) - LINE].reshape(slots, -1)


def begin(pickled: bytes, memory: Any, slots: int, begun: Any) -> None:
    begun.value = 1
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the others
    quiet()  # each process would say them again
    try:
        _here[:] = [Worker(pickled, memory, slots)]
    except Exception as error:  # for whoever asks it to load
        missing = isinstance(error, (AttributeError, ImportError))  # a class of a notebook, of `python -c`
        advice = "; put its class in a module of its own, which a process can import" if missing else ""
        _here[:] = [
            TypeError(
                "processes cannot make their copies of this dataset and its transforms:"
                f" {type(error).__name__}: {error}{advice}"
            )
        ]


def load(key: Any, indices: list[int], slot: int, backend: str | None) -> Any:
    if backend != chosen_backend():  # whoever asks may have chosen another since the last time
        use_backend(backend)
    worker = _here[0]
    if isinstance(worker, TypeError):
        raise worker
    try:
        return worker.load(key, indices, slot)
    except Exception as error:
        if _can_be_sent(error):
            raise
        raise DataError(f"{error} ({type(error).__name__}, an exception that processes cannot send)") from error


def _can_be_sent(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
        return True
    except Exception:  # whatever a class of the user's own does
        return False


def _end_with_parent() -> None:
    """However that ends: without this, a worker whose parent was killed waits for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
