"""The machine that the stand-in pretends to be: GPUs, their memory, and a log of all that a program asks of them."""

import threading
import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

TRANSFERS = ("to the GPU", "to the host", "between GPUs")
UNIT = 512  # bytes: what memory is handed out in, and aligned to
STATUS = {
    2: "cudaErrorMemoryAllocation: out of memory",
    35: "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version",
    100: "cudaErrorNoDevice: no CUDA-capable device is detected",
    101: "cudaErrorInvalidDevice: invalid device ordinal",
    400: "cudaErrorInvalidResourceHandle: invalid resource handle",
    700: "cudaErrorIllegalAddress: an illegal memory access was encountered",
    900: "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing",
    901: "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error during capture",
    803: "cudaErrorSystemDriverMismatch: system has unsupported display driver / cuda driver combination",
}


class CUDARuntimeError(RuntimeError):
    """An error of CUDA's runtime, by its number."""

    def __init__(self, status: int) -> None:
        super().__init__(STATUS.get(status, f"cudaError {status}"))
        self.status = status


class OutOfMemoryError(MemoryError):
    """A GPU has no memory left."""


class RaceError(AssertionError):
    """Two streams use the same memory, and nothing says which is first. A GPU would not complain."""


class Entry(NamedTuple):
    """One thing that was asked of the machine."""

    # "kernel", one of minicnn's; "product", by cuBLAS; "cupy", of CuPy's own; one of TRANSFERS; "graph", the launch of
    # one, which comes before what is in it; or "wait": the program stopped until the GPU was ready
    kind: str
    name: str  # what CuPy, cuBLAS or a .cu file calls it; for a transfer, the kind of host memory
    nbytes: int  # of the arrays in question
    device: int


class Log(list[Entry]):
    """All of it, in order."""

    @property
    def transfers(self) -> list[Entry]:
        return [entry for entry in self if entry.kind in TRANSFERS]

    @property
    def waits(self) -> list[Entry]:
        return [entry for entry in self if entry.kind == "wait"]


class Gpu:
    """One GPU's memory: how much is in use by arrays, and how much CuPy's pool holds on to."""

    def __init__(self, index: int, total: int) -> None:
        self.index, self.total = index, total
        self.used = self.reserved = self.most = 0

    def need(self, nbytes: int) -> None:
        """OutOfMemoryError unless there is that much left."""
        if self.used + nbytes > self.total:
            raise OutOfMemoryError(
                f"Out of memory allocating {nbytes:,} bytes (allocated so far: {self.used:,} bytes)."
            )

    def take(self, nbytes: int) -> int:
        """Enter so many bytes, in whole units, in the books."""
        size = -(-nbytes // UNIT) * UNIT
        self.need(size)
        self.used += size
        self.reserved, self.most = max(self.used, self.reserved), max(self.used, self.most)
        return size


class Memory:
    """A block of a GPU's memory: on the host, in truth."""

    def __init__(self, content: np.ndarray) -> None:
        """Takes over a fresh array."""
        self.size, self.gpu = 0, machine.gpu()
        self.size = self.gpu.take(content.nbytes)
        self.root = root(content)
        self.ptr, self.nbytes = content.ctypes.data, content.nbytes
        # the pool that was in use, which this does not keep; None for the default one
        pool = getattr(machine.local, "pool", None)
        self.pool = None if pool is None else weakref.ref(pool)
        if machine.graph is not None and pool is None:
            raise RaceError("memory from the default pool in a graph: others may use it when the graph is launched")
        self.last_use = 0  # when the default stream was last asked to read or write it
        with machine.lock:
            machine.blocks.add(self)

    def __del__(self) -> None:
        self.gpu.used -= self.size

    def holds(self, ptr: int, nbytes: int = 1) -> bool:
        return self.ptr <= ptr and ptr + nbytes <= self.ptr + self.nbytes


class Node:
    """Something in a graph. Its memory must be there when the graph is launched: an array's that was made before, as
    long as that array is there; an array's that was made inside, as long as the pool of its memory."""

    def __init__(self, kind: str, name: str, memories: list[Memory], nbytes: int, action: Callable[[], Any]) -> None:
        self.what, self.nbytes, self.action = (kind, name), nbytes, action
        self.inside = [memory for memory in memories if memory.pool is not None]
        self.needed = [memory.pool or weakref.ref(memory) for memory in memories]
        self.roots = [memory.root for memory in memories]

    def launch(self) -> None:
        there = [thing() for thing in self.needed]
        if None in there:
            raise CUDARuntimeError(700)
        before = [thing for thing in there if isinstance(thing, Memory)]
        machine.launch(*self.what, [*before, *self.inside], self.nbytes)
        self.action()


class Graph:
    """cupy.cuda.Graph: what was captured."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.broken = False

    def launch(self, stream: Any = None) -> None:
        machine.note("graph", "launch")
        for node in self.nodes:
            node.launch()


class Machine:
    """What there is, and what has happened. One in a process; reset() makes it new."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reset()

    def reset(self, gpus: int = 2, memory: int = 80 << 30) -> None:
        self.gpus = [Gpu(i, memory) for i in range(gpus)]
        self.log = Log()
        self.driver, self.runtime = 13020, 13020  # versions
        self.status = 0  # what every call of CUDA's runtime fails with, if not 0
        self.libraries: dict[str, Exception] = {}  # what the first use of "NVRTC" or "cuBLAS" raises
        self.capability = "90"
        self.clock = 0  # goes up with each launch
        self.waited = 0  # its time when the program last waited for all of the default stream
        self.local = threading.local()  # .device: the number of the current one, in this thread
        self.blocks: weakref.WeakSet[Memory] = weakref.WeakSet()
        self.pinned: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def graph(self) -> "Graph | None":
        """The one that this thread captures."""
        return getattr(self.local, "graph", None)

    def call(self) -> None:
        """Every use of CUDA passes here."""
        if self.status:
            raise CUDARuntimeError(self.status)

    def library(self, name: str) -> None:
        """Every use of a library of CUDA's passes here."""
        self.call()
        if name in self.libraries:
            raise self.libraries[name]

    @property
    def current(self) -> int:
        return getattr(self.local, "device", 0)

    def use(self, device: int) -> None:
        self.call()
        if not 0 <= device < len(self.gpus):
            raise CUDARuntimeError(101)
        self.local.device = device

    def gpu(self) -> Gpu:
        self.call()
        return self.gpus[self.current]

    def note(self, kind: str, name: str, nbytes: int = 0) -> None:
        self.call()
        if self.graph is not None:  # a transfer or a wait
            self.graph.broken = True
            raise CUDARuntimeError(900)
        self.log.append(Entry(kind, name, nbytes, self.current))

    def wait(self, name: str) -> None:
        """The program has waited for the default stream."""
        self.note("wait", name)
        self.waited = self.clock

    def check(self, memories: Iterable["Memory"]) -> None:
        """ValueError unless the current GPU can work with these blocks."""
        self.call()
        for memory in memories:
            if memory.gpu.index != self.current:
                raise ValueError(
                    "Array device must be same as the current device: "
                    f"array device = {memory.gpu.index} while current = {self.current}"
                )

    def launch(self, kind: str, name: str, memories: list["Memory"], nbytes: int) -> None:
        """The default stream of the current GPU works with these blocks."""
        self.check(memories)
        if getattr(self.local, "stream", None) is not None:
            raise NotImplementedError("the stand-in computes on the default stream only")
        self.clock += 1
        for memory in memories:
            memory.last_use = self.clock
        self.note(kind, name, nbytes)

    def do(self, kind: str, name: str, memories: list["Memory"], nbytes: int, action: Callable[[], Any]) -> None:
        """The default stream of the current GPU does something with these blocks: now, or when the graph is launched
        that is being captured. The action must not hold on to arrays."""
        if self.graph is None:
            self.launch(kind, name, memories, nbytes)
            action()
        else:
            self.check(memories)
            self.graph.nodes.append(Node(kind, name, memories, nbytes, action))

    def block(self, ptr: int, nbytes: int) -> Memory:
        """The block that holds these bytes; where there is none, a GPU would end the program."""
        with self.lock:
            found = next((memory for memory in self.blocks if memory.holds(ptr, nbytes)), None)
        if found is None:
            raise CUDARuntimeError(700)
        return found

    def pinned_block(self, array: np.ndarray) -> Any:
        """The block of memory that a GPU can read by itself in which an array of the host lies, if it does."""
        with self.lock:
            return next((block for block in self.pinned if block.holds(array.ctypes.data, array.nbytes)), None)


def root(array: np.ndarray) -> np.ndarray:
    """The array whose memory this one is a view of; itself, if none."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def poisoned(shape: Any, dtype: Any, order: str = "C") -> np.ndarray:
    """A fresh array of what nobody computes on purpose: NaN, or bytes of 85."""
    array = np.empty(shape, dtype, order)
    if array.dtype.kind in "fc":
        array.fill(np.nan)
    elif array.size:
        array.ravel("K").view(np.uint8).fill(85)
    return array


machine = Machine()
cupy: Any = types.ModuleType("cupy")  # the other files fill it, and find each other's functions in it, as CuPy's do
