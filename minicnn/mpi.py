"""Several workers, which MPI connects, and NCCL their GPUs. And what keeps a program from waiting
for ever when one of its workers is lost.

A worker that raises an error, ends, or is stopped leaves the others inside a call of MPI, which
waits without end. So here

- an exception that nobody catches ends all workers (MPI_Abort);
- a thread looks at the clock: if a worker waits for the others for more than `limit` seconds, it
  ends all of them with a message;
- a worker whose program has ended waits for the others in the same way.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from math import prod
from time import monotonic, sleep
from typing import Any

import numpy as np

from .backends import devices
from .backends.devices import Array, DeviceError
from .backends.numpy.memory import empty
from .workers import Channel, Parts, Workers, WorkersError, cores

# Bytes that MPI sums at a time, in calls that block and in others. From 32 MiB on its own copies are
# in fresh memory, and a sum takes up to three times as long.
PIECE, SECTION = 4 << 20, 16 << 20
AT_ONCE, NAP = 16, 1e-4  # how many non-blocking calls; seconds between looks at them
TIMED_OUT = 75  # the exit status after `limit` seconds
# How launchers tell a process how many there are.
SIZES = "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"


def launched() -> int:
    """How many processes a launcher (mpiexec, srun) has started, as it tells each of them; 1
    without a launcher."""
    said = [os.environ[name] for name in SIZES if name in os.environ]
    return max([int(text) for text in said if text.isdecimal()], default=1)


def connect() -> MPIWorkers:
    """The workers that a launcher has started, if it has started several.

    Raises:
        ImportError: mpi4py or an MPI library is not installed.
        WorkersError: the launcher belongs to another MPI library than the one that mpi4py uses, or
            MPI was told to allow calls from one thread only.
    """
    expected = launched()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            f"a launcher has started {expected} processes, which need mpi4py and an MPI library to find each other: "
            f"pip install mpi4py mpich ({devices.one_line(error)})"
        ) from None
    if MPI.COMM_WORLD.size != expected:
        library = " ".join(MPI.Get_library_version().partition("\n")[0].split())
        raise WorkersError(
            f"a launcher has started {expected} processes, but mpi4py finds {MPI.COMM_WORLD.size}: it uses {library}, "
            "and the launcher belongs to another library (srun: see --mpi=list)"
        )
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise WorkersError("MPI was started for calls from one thread only: leave mpi4py.rc.thread_level as it is")
    return MPIWorkers(MPI.COMM_WORLD)


class MPIWorkers(Workers):
    """Workers that an MPI communicator connects."""

    def __init__(self, comm: Any) -> None:
        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        self.links: dict[str, Any] = {"cpu": MPILink(comm)}
        self.watch = Watch(self)
        with self.watch:
            self.machine = comm.Split_type(MPI().COMM_TYPE_SHARED)  # the workers of one machine
        self._end_together()

    def gather(self, value: Any) -> list[Any]:
        with self.watch:
            return self.comm.allgather(value)

    def all_reduce(self, array: Array) -> None:
        self._exchange(array, lambda link: link.all_reduce([_flat(array)]))
        self.count(2 * array.nbytes)

    def broadcast(self, array: Array) -> None:
        self._exchange(array, lambda link: link.broadcast(_flat(array)))
        self.count(array.nbytes)

    def all_gather(self, array: Array, axis: int = 0) -> tuple[Array, list[int]]:
        lengths = self.gather(array.shape[axis])
        shapes = [_with_length(array.shape, length, axis) for length in lengths]
        counts = [prod(shape) for shape in shapes]
        with devices.on_device_of(array):
            own = _flat(array if array.flags.c_contiguous else array.copy())
            whole = np.empty_like(array, shape=(sum(counts),))
            self._exchange(array, lambda link: link.all_gather(own, whole, counts))
            self.count(whole.nbytes)
            parts = [part.reshape(shape) for part, shape in zip(_cut(whole, counts), shapes, strict=True)]
            return np.concatenate(parts, axis), lengths

    def reduce_scatter(self, array: Array, lengths: Sequence[int], axis: int = 0) -> Array:
        counts = [prod(_with_length(array.shape, length, axis)) for length in lengths]
        with devices.on_device_of(array):
            parts = _cut(array, lengths, axis)
            whole = np.concatenate([part.reshape(-1) for part in parts])
            own = self._exchange(array, lambda link: link.reduce_scatter(whole, counts))
        self.count(array.nbytes)
        return own.reshape(parts[self.rank].shape)

    def _exchange(self, array: Array, call: Callable[[Any], Any]) -> Any:
        """Make a call on the connection of an array's device."""
        link = self.link(devices.device_of(array))
        with self.watch:
            result = call(link)
            self.watch.until(link.wait())
        return result

    def link(self, device: str) -> Any:
        """The connection of a device, which is made at the first use."""
        if device not in self.links:
            with self.watch:
                self.links[device] = devices.link(
                    device, self.rank, self.size, lambda value: self.comm.allgather(value)[0]
                )
        return self.links[device]

    def count(self, nbytes: float) -> None:
        """Count what a ring sends to each worker, in one pass, of an array of so many bytes."""
        self.received += nbytes * (self.size - 1) / self.size

    def channel(self, device: str) -> Channel:
        return MPIChannel(self) if device == "cpu" else LinkChannel(self, device)

    def device(self, name: str) -> str:
        if name != "gpu":
            return name
        problem = ""
        try:
            name = devices.open_device(f"gpu:{self.machine.rank if devices.count('gpu') > 1 else 0}")
        except DeviceError as error:
            problem = f"rank {self.rank}: {error}"
        if problems := [text for text in self.gather(problem) if text]:
            raise DeviceError(problems[0])
        return name

    def threads(self) -> int:
        own = cores()
        return max(1, len(own) // self.machine.allgather(own).count(own))

    def abort(self, status: int, message: str = "") -> None:
        if message:
            print(message, file=sys.stderr)
        for stream in sys.stdout, sys.stderr:
            with contextlib.suppress(Exception):  # it is closed, or its reader has gone
                stream.flush()
        sleep(0.2)  # until the launcher has read it: what it has not is lost
        self.comm.Abort(status)

    def _end_together(self) -> None:
        """From now on, no worker ends alone."""

        def ending(hook: Callable[..., Any], kind: Callable[..., type]) -> Callable[..., None]:
            def ended(*error: Any) -> None:
                sleep(1 if self.rank else 0)  # an error that all have is rank 0's to print
                hook(*error)
                print(f"(this is rank {self.rank})", file=sys.stderr)
                self.abort(130 if issubclass(kind(*error), KeyboardInterrupt) else 1)

            return ended

        sys.excepthook = ending(sys.excepthook, lambda kind, *_: kind)
        threading.excepthook = ending(threading.excepthook, lambda args: args.exc_type)
        atexit.register(self._leave, self.comm.Dup())

    def _leave(self, comm: Any) -> None:
        """Wait until the program has ended at each worker. The communicator is used for nothing
        else, so that no other call of theirs takes this one for its counterpart."""
        self.watch.ended = True
        with self.watch:
            comm.Barrier()


def MPI() -> Any:
    """The module, which connects to the launcher when it is imported."""
    from mpi4py import MPI

    return MPI


def _flat(array: Array) -> Array:
    """A contiguous array as one of one axis, on the same memory."""
    if not array.flags.c_contiguous:
        raise ValueError(f"workers exchange contiguous arrays, not one of shape {array.shape} that is not: copy it")
    return array.reshape(-1)


def _with_length(shape: tuple[int, ...], length: int, axis: int) -> tuple[int, ...]:
    """The shape with another length along an axis."""
    axis %= len(shape)
    return (*shape[:axis], length, *shape[axis + 1 :])


def _cut(array: Array, lengths: Sequence[int], axis: int = 0) -> list[Array]:
    """The parts of an array that have these lengths."""
    return np.split(array, list(accumulate(lengths))[:-1], axis)


def sections(array: Array, nbytes: int) -> list[Array]:
    """An array of one axis in parts of at most so many bytes."""
    step = nbytes // array.itemsize
    return [array[lo : lo + step] for lo in range(0, len(array), step)]


def shares(length: int, size: int) -> list[int]:
    """How many of the elements of an array are each worker's own."""
    ends = [length * rank // size for rank in range(size + 1)]
    return [end - begin for begin, end in pairwise(ends)]


class MPILink:
    """What MPI does with arrays of one axis, on the host; see Link in backends/cuda/nccl.py."""

    def __init__(self, comm: Any) -> None:
        self.comm, self.in_place = comm, MPI().IN_PLACE

    def all_reduce(self, arrays: Sequence[Array]) -> None:
        for array in arrays:
            for section in sections(array, PIECE):
                self.comm.Allreduce(self.in_place, section)

    def reduce_scatter(self, array: Array, counts: Sequence[int]) -> Array:
        """This worker's part of the sum."""
        own = np.empty(counts[self.comm.rank], array.dtype)
        self.comm.Reduce_scatter(array, own, counts)  # not in place, which MPICH 5.0.2 may not survive
        return own

    def all_gather(self, own: Array, whole: Array, counts: Sequence[int]) -> None:
        self.comm.Allgatherv(own, [whole, counts])

    def broadcast(self, array: Array) -> None:
        self.comm.Bcast(array)

    def wait(self) -> Callable[[], bool]:
        """Every call has waited."""
        return lambda: True


class MPIChannel(Channel):
    """A thread that sums one array after the other, on a communicator of its own.

    Beside a computation on all cores, blocking calls of MPICH hardly get on: they give up their
    turn whenever a message has not come yet. Non-blocking ones that the thread asks after, and
    sleeps in between, do: 0.45 s of matmuls and a sum of 244 MB over 2.5 Gbit/s, which alone takes
    0.82 s, take 0.85 s together instead of 1.24. Open MPI's non-blocking sums take twice as long as
    blocking ones: 1.70 s instead of 1.03. (MPICH 5.0, Open MPI 5.0, two cores of an AMD EPYC, Zen 5.)
    """

    def __init__(self, workers: MPIWorkers) -> None:
        self.workers = workers
        with workers.watch:
            self.comm = workers.comm.Dup()
        self.in_place, self.asking = MPI().IN_PLACE, MPI().get_vendor()[0] == "MPICH"
        self.piece = SECTION if self.asking else PIECE
        self.calls: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self.done = threading.Event()
        self.error: BaseException | None = None
        threading.Thread(target=self._work, name="minicnn-mpi", daemon=True).start()

    def _work(self) -> None:
        while True:
            call = self.calls.get()
            try:
                with self.workers.watch:
                    call()
            except BaseException as error:  # which wait() raises
                self.error = error
            del call  # with its arrays

    def _call(self, name: str, calls: Iterable[tuple[Any, ...]]) -> None:
        """Make calls of one kind, such as "allreduce", with these arguments."""
        if not self.asking:
            for arguments in calls:
                getattr(self.comm, name.capitalize())(*arguments)
            return
        begun: deque[tuple[Any, Any]] = deque()  # with the arrays, which mpi4py does not hold
        for arguments in calls:
            if len(begun) == AT_ONCE:
                self._finish(begun.popleft()[0])
            begun.append((getattr(self.comm, f"I{name}")(*arguments), arguments))
        for request, _ in begun:
            self._finish(request)

    def _finish(self, request: Any) -> None:
        while not request.Test():
            sleep(NAP)

    def all_reduce(self, arrays: Sequence[Array]) -> None:
        self.workers.count(2 * sum(array.nbytes for array in arrays))
        self.calls.put(partial(self._sum, [_flat(array) for array in arrays]))

    def _sum(self, arrays: Sequence[Array]) -> None:
        whole = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        self._call("allreduce", [(self.in_place, section) for section in sections(whole, self.piece)])
        # equivalent (comparison): one array would be copied onto itself
        if len(arrays) > 1:
            for array, part in zip(arrays, _cut(whole, [len(array) for array in arrays]), strict=True):
                array[...] = part

    def reduce_scatter(self, array: Array) -> Parts:
        self.workers.count(array.nbytes)
        parts, calls, begin = [], [], 0
        for section in sections(array, SECTION):
            counts = shares(len(section), self.workers.size)
            place = begin + sum(counts[: self.workers.rank])
            count = counts[self.workers.rank]
            own = empty((count,), array.dtype)
            parts.append((slice(place, place + count), own))
            calls.append((section, own, counts))
            begin += len(section)
        self.calls.put(partial(self._call, "reduce_scatter", calls))
        return parts

    def all_gather(self, array: Array) -> None:
        self.workers.count(array.nbytes)
        every = sections(array, SECTION)
        calls = [(self.in_place, [section, shares(len(section), self.workers.size)]) for section in every]
        self.calls.put(partial(self._call, "allgatherv", calls))

    def wait(self) -> None:
        self.done.clear()
        self.calls.put(self.done.set)
        self.done.wait()
        if self.error is not None:
            raise WorkersError(f"the workers' sums failed: {devices.one_line(self.error)}") from self.error


class LinkChannel(Channel):
    """The connection of a GPU, which works beside the computation by itself. It is the workers' own:
    calls on two connections at once could each keep the GPUs from the other.
    """

    def __init__(self, workers: MPIWorkers, device: str) -> None:
        self.workers, self.link = workers, workers.link(device)

    def all_reduce(self, arrays: Sequence[Array]) -> None:
        self.workers.count(2 * sum(array.nbytes for array in arrays))
        with self.workers.watch:
            self.link.all_reduce([_flat(array) for array in arrays])

    def reduce_scatter(self, array: Array) -> Parts:
        self.workers.count(array.nbytes)
        counts = shares(len(array), self.workers.size)
        begin = sum(counts[: self.workers.rank])
        with self.workers.watch:
            own = self.link.reduce_scatter(array, counts)
        return [(slice(begin, begin + len(own)), own)]

    def all_gather(self, array: Array) -> None:
        self.workers.count(array.nbytes)
        with self.workers.watch:
            self.link.all_gather_in_place(array, shares(len(array), self.workers.size))

    def wait(self) -> None:
        with self.workers.watch:
            self.workers.watch.until(self.link.wait())


class Watch:
    """with watch: inside, this thread waits for the other workers. If that takes more than `limit`
    seconds, all workers end."""

    def __init__(self, workers: Workers) -> None:
        self.workers, self.ended = workers, False  # ended: it is at the end of its program
        # equivalent (constant): it may begin with anything
        self.now = 0.0  # seconds; it stands still while the process is suspended
        self.inside: dict[int, float] = {}  # since when, by thread
        self.later: list[tuple[float, Callable[[], bool]]] = []
        threading.Thread(target=self._look, name="minicnn-watch", daemon=True).start()

    def __enter__(self) -> None:
        self.inside[threading.get_ident()] = self.now

    def __exit__(self, *error: object) -> None:
        self.inside.pop(threading.get_ident(), None)

    def until(self, done: Callable[[], bool]) -> None:
        """What a GPU has been asked for may take as long: until done() is true."""
        if not done():
            self.later.append((self.now, done))

    def _look(self) -> None:
        while True:
            nap, begun = min(0.25, self.workers.limit / 4), monotonic()
            sleep(nap)
            self.now += min(monotonic() - begun, 4 * nap)  # more is a process that was suspended
            for entry in self.later.copy():
                if entry[1]():
                    self.later.remove(entry)  # in place, because others add to it
            # equivalent (call): without the copy another thread may change it meanwhile
            waits = [*self.inside.copy().values(), *(since for since, _ in self.later)]
            waited = self.now - min(waits, default=self.now)
            if waited > self.workers.limit:
                self.workers.abort(TIMED_OUT, self._message(waited))

    def _message(self, waited: float) -> str:
        rank, limit, advice = self.workers.rank, self.workers.limit, self.workers.advice()
        if self.ended:
            what = f"the program of rank {rank} has ended, and {waited:.0f} s later those of others have not"
        else:
            what = (
                f"rank {rank} has waited {waited:.0f} s for the other workers: one of them has ended, has been "
                "stopped, or needs more time"
            )
        return f"{what} (the limit is {limit:g} s){advice}"
