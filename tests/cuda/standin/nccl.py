"""cupy.cuda.nccl: sums over the processes that mpiexec has started, by mpi4py, or over threads of one process, each of
which is a rank.

As with other work on a stream, all of it happens as late as may be, and what will be written is poisoned until then;
calls between groupStart and groupEnd are handed to their streams at groupEnd. Ranks have to make the same calls in the
same order. NCCL would wait for ever, or crash: here it is a MismatchError. Two calls on the same memory need a wait
between them, which NCCL does not ask for.
"""

import ctypes
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from .devices import Stream, later
from .machine import RaceError, machine, poisoned

BYTES = 128  # of a unique id
SUM = 0
DTYPES = ("int8", "uint8", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")  # by NCCL's numbers
_local = threading.local()  # .group: the calls since groupStart, in this thread
_meetings: dict[bytes, "Meeting"] = {}  # of threads, by unique id


class NcclError(RuntimeError):
    """An error of NCCL's, by its number."""

    def __init__(self, status: int) -> None:
        names = {4: "NCCL_ERROR_INVALID_ARGUMENT: invalid argument", 5: "NCCL_ERROR_INVALID_USAGE: invalid usage"}
        super().__init__(f"{names[status]} (run with NCCL_DEBUG=WARN for details)")
        self.status = status


class MismatchError(AssertionError):
    """The ranks do not make the same call."""


class Meeting:
    """Where the ranks that are threads exchange values."""

    def __init__(self, size: int) -> None:
        self.barrier, self.values = threading.Barrier(size, timeout=20), [None] * size

    def gather(self, rank: int, value: Any) -> list[Any]:
        self.values[rank] = value
        self.barrier.wait()
        values = list(self.values)
        self.barrier.wait()  # before anybody comes with the next
        return values


class NcclCommunicator:
    """cupy.cuda.nccl.NcclCommunicator."""

    def __init__(self, ndev: int, commId: bytes, rank: int) -> None:
        if len(commId) != BYTES:
            raise ValueError(f"commId length {len(commId)} != {BYTES}.")
        if not 0 <= rank < ndev:
            raise NcclError(4)
        machine.library("NCCL")
        self.size, self.rank, self.device = ndev, rank, machine.current
        if _launched() == ndev > 1:
            from mpi4py import MPI

            self.gather: Callable[[Any], list[Any]] = MPI.COMM_WORLD.Dup().allgather
        else:
            with machine.lock:
                meeting = _meetings.setdefault(commId, Meeting(ndev))
            self.gather = lambda value: meeting.gather(rank, value)
        if set(self.gather((ndev, commId))) != {(ndev, commId)}:
            raise NcclError(5)

    def allReduce(self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int) -> None:
        self._ask("allReduce", sendbuf, recvbuf, count, datatype, op, None, stream)

    def reduce(self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, root: int, stream: int) -> None:
        self._ask("reduce", sendbuf, recvbuf, count, datatype, op, root, stream)

    def broadcast(self, sendbuff: int, recvbuff: int, count: int, datatype: int, root: int, stream: int) -> None:
        self._ask("broadcast", sendbuff, recvbuff, count, datatype, SUM, root, stream)

    # ------------------------------------------------------------------------------------- not in CuPy's communicator
    def _ask(
        self, name: str, source: int, target: int, count: int, datatype: int, op: int, root: int | None, stream: int
    ) -> None:
        known = 0 <= datatype < len(DTYPES) and op == SUM and (root is None or 0 <= root < self.size)
        if not known or machine.current != self.device:
            raise NcclError(4)
        if source != target:
            raise NotImplementedError("the stand-in works in place")
        call = name, count, DTYPES[datatype], root
        group = getattr(_local, "group", None)
        if group is None:
            self._begin(call, target, stream)
        else:
            group.append(lambda: self._begin(call, target, stream))

    def _begin(self, call: tuple[str, int, str, int | None], address: int, pointer: int) -> None:
        """Hand a call to its stream."""
        name, count, dtype, root = call
        stream = next(stream for stream in [Stream.null, *Stream.all] if stream.ptr == pointer)
        array, blocks = np.zeros(0, dtype), []
        if count:
            nbytes = count * np.dtype(dtype).itemsize
            blocks = [machine.block(address, nbytes)]
            stream.uses(blocks[0])
            array = np.ndarray(count, dtype, (ctypes.c_byte * nbytes).from_address(address))
        content = array.copy()
        is_read_only = root is not None and (root == self.rank) is (name == "broadcast")
        if stream.late and not is_read_only:
            array[...] = poisoned(count, dtype)
        meanwhile = array.tobytes()

        def work() -> None:
            if array.tobytes() != meanwhile:
                raise RaceError("memory was written to while NCCL works on it, on a stream of its own")
            gathered = self.gather((call, content))
            if {there for there, _ in gathered} != {call}:
                raise MismatchError(f"the ranks ask NCCL for {[there for there, _ in gathered]}")
            parts = [part for _, part in gathered]
            if not is_read_only:
                array[...] = parts[root] if name == "broadcast" else np.sum(parts, 0, dtype)

        later(stream, work, *blocks)
        machine.note("nccl", name, array.nbytes)


def groupStart() -> None:
    if hasattr(_local, "group"):
        raise NotImplementedError("the stand-in has no groups in groups")
    _local.group = []


def groupEnd() -> None:
    if not hasattr(_local, "group"):
        raise NcclError(5)
    group = _local.group
    del _local.group
    for begin in group:
        begin()


def get_unique_id() -> bytes:
    machine.library("NCCL")
    return np.random.default_rng().bytes(BYTES)


def abort() -> None:
    """One of the threads has failed: the others must not wait for it."""
    for meeting in _meetings.values():
        meeting.barrier.abort()


def _launched() -> int:
    from minicnn import mpi

    return mpi.launched()


def module() -> types.ModuleType:
    """cupy.cuda.nccl"""
    made = types.ModuleType("cupy.cuda.nccl")
    vars(made).update(
        {f"NCCL_{name.upper()}": number for number, name in enumerate(DTYPES)},
        NCCL_SUM=SUM, NcclCommunicator=NcclCommunicator, NcclError=NcclError, available=True,
        get_unique_id=get_unique_id, groupEnd=groupEnd, groupStart=groupStart,
    )  # fmt: skip
    return made
