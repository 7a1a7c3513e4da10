"""cupy.cuda: devices, streams and events, memory and its pools, the runtime.

What is computed is computed at once, on the default stream. A copy on a non-blocking stream happens as late as may be:
when the program or the default stream waits for it. Until then its target is poisoned, so that a missing wait shows,
and what it copies from and to must be kept.
"""

import contextlib
import ctypes
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .machine import CUDARuntimeError, Graph, Memory, OutOfMemoryError, RaceError, machine


class Device:
    """cupy.cuda.Device: `with` it, what is made is made there."""

    def __init__(self, device: Any = None) -> None:
        self.id = machine.current if device is None else int(device)
        self._before: list[int] = []

    def __enter__(self) -> "Device":
        self._before.append(machine.current)
        try:
            machine.use(self.id)
        except CUDARuntimeError:
            self._before.pop()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        machine.local.device = self._before.pop()

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def use(self) -> None:
        machine.use(self.id)

    def synchronize(self) -> None:
        with self:
            for stream in list(Stream.all):
                stream.run_until(len(stream.queue))
            machine.wait("Device.synchronize")

    @property
    def compute_capability(self) -> str:
        machine.call()
        return machine.capability


class Stream:
    """cupy.cuda.Stream. `queue` is what it was told to do, `done_until` how much of that it has done."""

    null: "Stream"
    all: "weakref.WeakSet[Stream]" = weakref.WeakSet()

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.late = non_blocking and not null
        self.queue: list[Callable[[], Any]] = []
        self.done_until = 0
        self.waited = 0  # for the default stream, up to this time of its clock
        self.ptr, self.device_id = (0, -1) if null else (id(self), machine.current)
        if not null:
            machine.call()
            Stream.all.add(self)

    def __enter__(self) -> "Stream":
        machine.local.stream = self
        return self

    def __exit__(self, *error: Any) -> None:
        machine.local.stream = None

    def begin_capture(self) -> None:
        """What is asked for from now on is for a graph."""
        machine.call()
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if not self.late or get_current_stream() is not self:
            raise NotImplementedError("the stand-in captures the current stream only, a non-blocking one")
        machine.local.graph = Graph()

    def end_capture(self) -> Graph:
        graph, machine.local.graph = machine.graph, None
        if graph is None or graph.broken:
            raise CUDARuntimeError(901)
        return graph

    @property
    def done(self) -> bool:
        return self.done_until == len(self.queue)

    def synchronize(self) -> None:
        self.finish("Stream.synchronize")

    def record(self, event: "Event | None" = None) -> "Event":
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: "Event") -> None:
        machine.call()
        if event.stream is None:
            return
        if self.ptr == 0:
            event.stream.run_until(event.until)
        elif event.stream.ptr == 0:
            self.waited = max(self.waited, event.clock)
        else:
            self.queue.append(lambda: event.stream.run_until(event.until))

    # --------------------------------------------------------------------------------------------- not in CuPy's Stream
    def run_until(self, end: int) -> None:
        """Do what was put off, as far as that place in the queue."""
        while self.done_until < end:
            self.done_until += 1
            self.queue[self.done_until - 1]()
            self.queue[self.done_until - 1] = lambda: None  # lets go of the arrays

    def finish(self, name: str) -> None:
        """The program waits for all of it."""
        self.run_until(len(self.queue))
        if self.ptr == 0:
            machine.wait(name)
        else:
            machine.note("wait", name)

    def uses(self, memory: Memory) -> None:
        """This stream is about to use memory: RaceError if the default stream may still be at it."""
        if self.ptr and self.device_id != machine.current:
            raise CUDARuntimeError(400)
        if self.late and memory.last_use > max(self.waited, machine.waited):
            raise RaceError(
                "a copy on a stream of its own to or from memory that the default stream still uses: "
                "stream.wait_event(event) is missing, for an event recorded after that use"
            )


Stream.null = Stream(null=True)


def later(stream: Stream, action: Callable[[], Any], *blocks: Any) -> None:
    """Do something with blocks of memory on a stream: now, or as late as may be. Then RaceError, if nobody has kept
    them: they may be anybody's by now."""
    if not stream.late:
        action()
        return
    kept = [weakref.ref(block) for block in blocks]

    def late() -> None:
        if any(block() is None for block in kept):
            raise RaceError("memory was let go of before a copy to or from it, on a stream of its own, was done")
        action()

    stream.queue.append(late)


class Event:
    """cupy.cuda.Event: a moment in a stream."""

    def __init__(self) -> None:
        machine.call()
        self.device = machine.current
        self.stream: Stream | None = None
        self.until = self.clock = 0

    def record(self, stream: Stream | None = None) -> None:
        machine.call()
        stream = stream or Stream.null
        if stream.ptr and stream.device_id != self.device:
            raise CUDARuntimeError(400)
        self.stream, self.until, self.clock = stream, len(stream.queue), machine.clock

    def synchronize(self) -> None:
        if self.stream is not None:
            self.stream.run_until(self.until)
        machine.note("wait", "Event.synchronize")
        if self.stream is Stream.null:
            machine.waited = max(machine.waited, self.clock)

    @property
    def done(self) -> bool:
        return self.stream is None or self.stream.done_until >= self.until


def get_current_stream() -> Stream:
    machine.call()
    return getattr(machine.local, "stream", None) or Stream.null


# --------------------------------------------------------------------------------------------------------------- memory
class MemoryPool:
    """cupy.cuda.MemoryPool, of the current device. What the default one holds on to is what no other does."""

    def used_bytes(self) -> int:
        owner = None if self is default_pool else self
        blocks = [block for block in list(machine.blocks) if block.gpu is machine.gpu()]
        return sum(block.size for block in blocks if (block.pool and block.pool()) is owner)

    def total_bytes(self) -> int:
        used = self.used_bytes()
        return machine.gpu().reserved - (machine.gpu().used - used) if self is default_pool else used

    def free_all_blocks(self) -> None:
        machine.gpu().reserved = machine.gpu().used

    def malloc(self, size: int) -> Any:
        raise NotImplementedError("the stand-in has pools for using_allocator only")


default_pool = MemoryPool()


@contextlib.contextmanager
def using_allocator(allocator: Callable[[int], Any]) -> Iterator[None]:
    """Inside, memory comes from the pool whose malloc is given."""
    machine.local.pool = allocator.__self__
    try:
        yield
    finally:
        machine.local.pool = None


class _Pinned:
    ptr = size = 0
    __hash__ = object.__hash__

    def holds(self, ptr: int, nbytes: int) -> bool:
        return self.ptr <= ptr and ptr + nbytes <= self.ptr + self.size


def empty_pinned(shape: Any, dtype: Any = float) -> np.ndarray:
    """In host memory that a GPU can read by itself; poisoned."""
    machine.call()
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    # ctypes, because a class in Python cannot offer its memory to NumPy
    memory = type("PinnedMemoryPointer", (_Pinned, ctypes.c_ubyte * max(size, 1)), {})()
    memory.ptr, memory.size = ctypes.addressof(memory), size
    ctypes.memset(memory, 85, size)
    with machine.lock:
        machine.pinned.add(memory)
    return np.ndarray(shape, dtype, memory)


# -------------------------------------------------------------------------------------------------------------- runtime
def getDeviceCount() -> int:
    machine.call()
    return len(machine.gpus)


def getDeviceProperties(device: int) -> dict[str, Any]:
    machine.call()
    return {"name": b"Stand-in", "totalGlobalMem": machine.gpus[device].total}


def memGetInfo() -> tuple[int, int]:
    gpu = machine.gpu()
    return gpu.total - gpu.reserved, gpu.total


def get_cublas_handle() -> int:
    """A number: the device's, plus 1."""
    machine.library("cuBLAS")
    return machine.current + 1


def content() -> dict[str, Any]:
    """What of this is in the module cupy itself."""
    return {"get_default_memory_pool": lambda: default_pool}


def modules() -> dict[str, types.ModuleType]:
    """cupy.cuda and what is in it, and cupyx, as far as minicnn asks for it."""
    content: dict[str, dict[str, Any]] = {
        "cupy.cuda": {
            "Device": Device, "Event": Event, "Stream": Stream, "get_current_stream": get_current_stream,
            "MemoryPool": MemoryPool, "using_allocator": using_allocator,
        },
        "cupy.cuda.device": {"get_cublas_handle": get_cublas_handle},
        "cupy.cuda.memory": {"OutOfMemoryError": OutOfMemoryError},
        "cupy.cuda.runtime": {
            "CUDARuntimeError": CUDARuntimeError, "driverGetVersion": lambda: machine.driver,
            "getDevice": lambda: machine.gpu().index, "getDeviceCount": getDeviceCount,
            "getDeviceProperties": getDeviceProperties, "memGetInfo": memGetInfo,
            "runtimeGetVersion": lambda: machine.runtime,
        },
        "cupyx": {"empty_pinned": empty_pinned},
    }  # fmt: skip
    made = {name: types.ModuleType(name) for name in content}
    for name, module in made.items():
        vars(module).update(content[name])
    return made
