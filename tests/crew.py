"""Workers without MPI: all of them in one process. Together has them along the first axis of its arrays, so that
derivatives are seen across workers. A crew has each in a thread, connected as MPI connects processes."""

import atexit
import contextlib
import sys
import threading
import weakref
from collections.abc import Iterator
from itertools import accumulate
from types import SimpleNamespace

import numpy as np
import pytest

from minicnn import distributed, mpi
from minicnn.workers import Workers

PATIENCE = 4  # seconds until a thread that waits for the others raises an error


class Together(Workers):
    """array[r] is the array of worker r: an axis is counted from the end, or from 1."""

    def __init__(self, size):
        self.size = size

    def all_reduce(self, array):
        array[...] = array.sum(0, keepdims=True)

    def all_gather(self, array, axis=1):
        whole = np.concatenate(list(array), axis - (axis > 0))
        return np.stack([whole] * self.size), [array.shape[axis]] * self.size

    def reduce_scatter(self, array, lengths, axis=1):
        return np.stack(np.split(array.sum(0), list(accumulate(lengths))[:-1], axis - (axis > 0)))


class Hub:
    """Where the threads of one communicator meet."""

    def __init__(self, size):
        self.meeting, self.values, self.aborted = threading.Barrier(size, timeout=PATIENCE), [None] * size, []


class Comm:
    """What mpi.py uses of mpi4py's communicator. Arrays have one axis and are contiguous."""

    def __init__(self, hub, rank, hubs):
        self.hub, self.rank, self.size, self.hubs = hub, rank, len(hub.values), hubs

    def allgather(self, value):
        self.hub.values[self.rank] = value
        self.hub.meeting.wait()
        values = list(self.hub.values)
        self.hub.meeting.wait()
        return values

    def Barrier(self):
        self.allgather(None)

    def Dup(self):
        hub = self.allgather(Hub(self.size))[0]
        self.hubs.append(hub)
        return Comm(hub, self.rank, self.hubs)

    def Split_type(self, kind):
        assert kind == MPI.COMM_TYPE_SHARED
        return self.Dup()

    def Abort(self, status):
        self.hub.aborted.append((self.rank, status))

    def arrays(self, array):
        assert array.ndim == 1 and array.flags.c_contiguous
        arrays = self.allgather(array.copy())
        assert {(a.shape, a.dtype) for a in arrays} == {(array.shape, array.dtype)}
        return arrays

    def Allreduce(self, place, array):
        assert place is MPI.IN_PLACE
        array[...] = sum(self.arrays(array))

    def Reduce_scatter(self, array, own, counts):
        assert sum(counts) == len(array) and len(own) == counts[self.rank]
        begin = sum(counts[: self.rank])
        own[...] = sum(self.arrays(array))[begin : begin + len(own)]

    def Allgatherv(self, own, whole_and_counts):
        whole, counts = whole_and_counts
        begin, count = sum(counts[: self.rank]), counts[self.rank]
        own = whole[begin : begin + count] if own is MPI.IN_PLACE else own
        assert own.shape == (count,) and sum(counts) == len(whole)
        assert own.flags.c_contiguous and whole.flags.c_contiguous
        whole[...] = np.concatenate(self.allgather(own.copy()))

    def Bcast(self, array):
        array[...] = self.arrays(array)[0]

    def Iallreduce(self, *arguments):
        return Request(self.Allreduce, arguments)

    def Ireduce_scatter(self, *arguments):
        return Request(self.Reduce_scatter, arguments)

    def Iallgatherv(self, place, whole_and_counts):
        whole, counts = whole_and_counts
        return Request(lambda place, whole: self.Allgatherv(place, [whole, counts]), (place, whole))


class Request:
    """A call that has not been made when it is first looked at. Like mpi4py's, it does not hold its arrays."""

    def __init__(self, call, arguments):
        self.call, self.looked, self.finished, self.thread = call, False, False, threading.get_ident()
        self.arguments = [weakref.ref(a) if isinstance(a, np.ndarray) else lambda a=a: a for a in arguments]

    def Test(self):
        if self.looked:
            arguments = [argument() for argument in self.arguments]
            assert not any(argument is None for argument in arguments), "an array that MPI works with has been freed"
            self.call(*arguments)
            self.finished = True
        self.looked = not self.looked
        return not self.looked


MPI = SimpleNamespace(IN_PLACE="in place", COMM_TYPE_SHARED="one machine", get_vendor=lambda: ("MPICH", (5, 0, 2)))


class End:
    """Ends the thread that meets it, as `limit` or as `calls`."""

    def __truediv__(self, other: object = None) -> None:
        raise SystemExit

    __lt__ = get = __truediv__


class Watch(mpi.Watch):
    def _look(self):
        with contextlib.suppress(SystemExit):
            super()._look()


class Channel(mpi.MPIChannel):
    made: list[mpi.MPIChannel] = []

    def __init__(self, workers):
        self.made.append(self)
        super().__init__(workers)

    def _work(self):
        with contextlib.suppress(SystemExit):
            super()._work()


class Crew:
    """crew(size, work, …): work(workers, …) in a thread for each worker; the results.

    Attributes:
        comms: the communicators of the last run, at each worker the first one.
        workers: those of the last run.
        at_exit: what was registered to run at the end of the program.
    """

    def __init__(self):
        self.comms, self.workers, self.at_exit, self.all = [], [], [], []

    def __call__(self, size, work, *arguments):
        hubs = [Hub(size)]
        self.comms = [Comm(hubs[0], rank, hubs) for rank in range(size)]
        self.workers, results, errors = [None] * size, [None] * size, []

        def run(rank):
            try:
                self.workers[rank] = mpi.MPIWorkers(self.comms[rank])
                self.all.append(self.workers[rank])
                results[rank] = work(self.workers[rank], *arguments)
            except BaseException as error:
                errors.append(error)
                for hub in hubs:
                    hub.meeting.abort()

        threads = [threading.Thread(target=run, args=(rank,), name=f"rank {rank}", daemon=True) for rank in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * PATIENCE)
            assert not thread.is_alive(), "it hangs"
        if errors:
            raise errors[0]
        return results


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    """Makes crews, without their threads' effects on the rest of the process."""
    crew = Crew()
    monkeypatch.setattr(mpi, "MPI", lambda: MPI)
    monkeypatch.setattr(mpi, "Watch", Watch)
    monkeypatch.setattr(mpi, "MPIChannel", Channel)
    monkeypatch.setattr(atexit, "register", lambda *call: crew.at_exit.append(call))
    for module in sys, threading:
        monkeypatch.setattr(module, "excepthook", module.excepthook)
    monkeypatch.setattr(distributed, "rows_before", Rows)  # the real one is of a process, not of a thread
    Rows.before = {}
    yield crew
    for workers in crew.all:
        workers.limit = End()
    while Channel.made:
        channel = Channel.made.pop()
        calls, channel.calls = channel.calls, End()
        calls.put(lambda: None)


class Rows:
    """random.rows_before, which notes what it is called with."""

    before: dict[str, int] = {}

    def __init__(self, n, rows):
        self.n = n

    def __enter__(self):
        self.before[threading.current_thread().name] = self.n

    def __exit__(self, *error):
        """There is nothing to restore."""
