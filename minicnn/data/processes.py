"""Worker processes for a DataLoader. Threads wait for each other wherever Python runs, processes do
not: two of them load 1.1 to 1.4 times as many JPEGs of 256 x 256 (benchmarks/loader.py). Images
come back in shared memory, and stay there; a pipe would take as long as loading them.
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
    """Processes that load batches, each with a copy of `load`.

    It is called as load(key, empty, indices) and returns (images, labels, bad), the first two in
    arrays that empty(shape, dtype) makes, the third a list of (name, exception). Images, for which
    it asks first, are passed through shared memory, in one of several slots, if they have at most
    `nbytes` bytes; larger ones, and all else, through a pipe. The processes end when this object is
    dropped.

    Args:
        load: the function.
        number: how many processes.
        nbytes: bytes of a slot.
        lend: how many slots may be lent at a time, as the images of a batch that a caller has
            received and still holds. Others are copied, so that there is always a slot for each
            process.
    Raises:
        TypeError: `load` cannot be pickled.
        DataError: there is no shared memory, or the program is not in a file, because it comes from
            standard input.
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
        # a forked child would inherit locks that nobody will release
        context = multiprocessing.get_context("spawn")
        slots = number + 1 + lend  # so that one can be emptied while all are at work
        nbytes = -(-nbytes // LINE) * LINE
        try:
            memory = context.RawArray("B", slots * nbytes + LINE)
            self.begun = context.RawValue("B")  # 1 as soon as one of them has come so far
            # Python's resource tracker, which starts here, would die of SIGHUP, with tracebacks
            with deaf_to("SIGHUP"):
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

    def load(
        self, key: Any, empty: Callable[..., Any], indices: list[int], closed: threading.Event
    ) -> tuple[Any, Any, Any]:
        """What `load` returns for these indices, in a slot that is lent or in arrays that this
        `empty` makes, unless `closed` is set; computed by the backend that this thread has chosen,
        if it is one for the CPU. Any number of threads may call it at once, but not the main
        thread, whose interrupts would free a slot that is still written to.
        """
        slot, lent = self.free.get(), False
        backend = chosen_backend() and backend_of("cpu")
        try:
            if closed.is_set():
                raise CancelledError
            try:
                with deaf_to("SIGINT"):  # the processes start with the first task
                    future = self.executor.submit(load, key, indices, slot, backend)
                found, labels, bad = future.result()
            except BrokenProcessPool:
                raise DataError(self._how_it_ended() if self.begun.value else NOT_BEGUN) from None
            images = at(self.slots[slot], *found) if isinstance(found, tuple) else found
            lent = isinstance(found, tuple) and self.free.qsize() > self.number
            if lent:
                return self._lend(slot, *found), labels, bad
            own = empty(images.shape, images.dtype), empty(labels.shape, labels.dtype)
            own[0][...], own[1][...] = images, labels
            return *own, bad
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
        """The images in a slot, which is free again when no array needs its memory any more."""
        row = self.slots[slot]
        memory = (ctypes.c_ubyte * row.nbytes).from_buffer(row)  # every view of the array keeps it
        # garbage collection may run this inside put itself, which a SimpleQueue allows
        weakref.finalize(memory, self.free.put, slot).atexit = False
        return at(np.frombuffer(memory, np.uint8), shape, dtype)


@contextmanager
def deaf_to(name: str) -> Iterator[None]:
    """Processes that are started in here do not receive a signal, where the system offers that
    choice.
    """
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


# ----------------------------------------------------------------------------------------- a worker
class Worker:
    """The settings with which a process loads."""

    def __init__(self, pickled: bytes, memory: Any, slots: int):
        self.from_dataset: Callable[..., Any] = pickle.loads(pickled)
        self.slots = slots_in(memory, slots)

    def load(self, key: Any, indices: list[int], slot: int) -> tuple[Any, NDArray[Any], list[Any]]:
        """((shape, dtype) of the images, which are in the slot, labels, bad); or (images, labels,
        bad) if the slot is too small.
        """
        room = self.slots[slot]

        def empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
            nonlocal room
            fits = prod(shape) * np.dtype(dtype).itemsize <= room.nbytes
            array, room = at(room, shape, dtype) if fits else np.empty(shape, dtype), room[:0]
            return array

        images, labels, bad = self.from_dataset(key, empty, indices)
        found = (images.shape, images.dtype) if np.may_share_memory(images, self.slots) else images
        return found, labels, [(name, sendable(error)) for name, error in bad]


_here: list[Worker | TypeError] = []  # in a worker process: what it is, or why it cannot be


def slots_in(memory: Any, slots: int) -> NDArray[np.uint8]:
    """The slots (slots, bytes) of shared memory, each of which begins where a cache line does: the
    same in every process, because memory is shared by pages.
    """
    whole = np.frombuffer(memory, np.uint8)
    start = -whole.ctypes.data % LINE
    return whole[start : start + len(whole) - LINE].reshape(slots, -1)


def begin(pickled: bytes, memory: Any, slots: int, begun: Any) -> None:
    """Prepare a worker process."""
    begun.value = 1
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Ctrl-C reaches all processes; the parent ends the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet()  # each process would repeat the warnings
    try:
        _here[:] = [Worker(pickled, memory, slots)]
    except Exception as error:  # for whoever asks it to load
        # of a class that was defined in a notebook or by `python -c`
        missing = isinstance(error, (AttributeError, ImportError))
        advice = "; put its class in a module of its own, which a process can import" if missing else ""
        _here[:] = [
            TypeError(
                "processes cannot make their copies of this dataset and its transforms:"
                f" {type(error).__name__}: {error}{advice}"
            )
        ]


def load(key: Any, indices: list[int], slot: int, backend: str | None) -> Any:
    """Load a batch in a worker process, see Processes.load."""
    if backend != chosen_backend():  # the caller may have chosen another since the last time
        use_backend(backend)
    worker = _here[0]
    if isinstance(worker, TypeError):
        raise worker
    try:
        return worker.load(key, indices, slot)
    except Exception as error:
        if sendable(error) is error:
            raise
        raise sendable(error) from error


def sendable(error: Exception) -> Exception:
    """An exception, or its words if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:  # whatever a class of the user's own does
        return DataError(f"{error} ({type(error).__name__}, an exception that processes cannot send)")


def _end_with_parent() -> None:
    """End when the parent has ended, however it did: otherwise a worker whose parent was killed
    waits for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
