"""The NumPy backend's memory: large arrays use recycled memory, and each thread keeps buffers for
its work.
"""

import os
import threading
from collections import defaultdict
from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

# Bytes. From here on the C library's allocator may return an array's memory to the system: a third
# of LeNet's inference went into fetching it again.
LARGE = 1 << 17
LINE = 64  # bytes of a line of the cache


def _aligned(nbytes: int) -> np.ndarray:
    """Fresh memory that begins with a line of the cache. NumPy's begins 16 bytes later, and then a
    loop in C may take 1.7 times as long, because each register's load or store touches two lines.
    """
    room = np.empty(nbytes + LINE, np.uint8)
    begin = -room.ctypes.data % LINE
    return room[begin : begin + nbytes]


class _Memory:
    """Blocks of memory that no array uses, by size. A fresh block costs a page fault for each page
    touched: up to 45% of a training step.
    """

    def __init__(self) -> None:
        self.idle: defaultdict[int, list[np.ndarray]] = defaultdict(list)
        self.idle_bytes = self.lent_bytes = self.most_lent = 0
        # reentrant: garbage collection may give memory back while some is taken
        self.lock = threading.RLock()

    def take(self, nbytes: int) -> np.ndarray:
        """A block of so many bytes, or of up to twice as many."""
        with self.lock:
            size = nbytes if self.idle.get(nbytes) else self._fitting(nbytes)
            if size:
                block = self.idle[size].pop()
                self.idle_bytes -= size
            else:
                # shapes have changed: blocks would hold more than twice what was ever lent of them
                if self.idle_bytes + self.lent_bytes + nbytes > 2 * self.most_lent:
                    self._let_go()
                try:
                    block = _aligned(nbytes)
                except MemoryError:  # there may be enough without what nobody uses
                    self._let_go()
                    block = _aligned(nbytes)
            self.lent_bytes += block.nbytes
            self.most_lent = max(self.most_lent, self.lent_bytes)
            return block

    def _fitting(self, nbytes: int) -> int:
        """The size of the smallest blocks that do; 0 if there are none."""
        sizes = list(self.idle)  # meanwhile this thread may give back a block of another size
        return min((size for size in sizes if nbytes < size <= 2 * nbytes and self.idle[size]), default=0)

    def _let_go(self) -> None:
        """Keep no idle blocks."""
        self.idle.clear()
        self.idle_bytes = 0

    def give_back(self, block: np.ndarray) -> None:
        with self.lock:
            self.lent_bytes -= block.nbytes
            self.idle_bytes += block.nbytes
            self.idle[block.nbytes].append(block)


_memory = _Memory()


class _Loan:
    """Memory lent to one array. NumPy makes the array, and every view of it, refer to its loan;
    with the last of them the memory is given back.
    """

    __slots__ = "__array_interface__", "block", "memory"

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, nbytes: int) -> None:
        self.memory = _memory
        self.block = _memory.take(nbytes)
        self.__array_interface__ = {**self.block.__array_interface__, "shape": shape, "typestr": dtype.str}

    def __del__(self) -> None:
        if hasattr(self, "block"):  # there was enough memory
            self.memory.give_back(self.block)


def empty(shape: Iterable[int], dtype: Any = np.float32) -> np.ndarray:
    """An uninitialized array, as np.empty; a large one on recycled memory."""
    shape, dtype = tuple(shape), np.dtype(dtype)
    nbytes = prod(shape) * dtype.itemsize
    return np.asarray(_Loan(shape, dtype, nbytes)) if nbytes >= LARGE else np.empty(shape, dtype)


def empty_like(array: np.ndarray) -> np.ndarray:
    """An uninitialized contiguous array of the same shape and dtype."""
    return np.empty(array.shape, array.dtype) if array.nbytes < LARGE else empty(array.shape, array.dtype)


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[str, np.ndarray] = {}


_scratch = _Scratch()


def scratch(name: str, shape: tuple[int, ...], like: np.ndarray) -> np.ndarray:
    """This thread's buffer of that name, uninitialized, with the dtype of `like`. It can be used
    until the name is asked for again.
    """
    nbytes = prod(shape) * like.itemsize
    buffer = _scratch.buffers.get(name)
    if buffer is None or buffer.nbytes < nbytes:
        buffer = _scratch.buffers[name] = np.empty(nbytes, np.uint8)
    return buffer[:nbytes].view(like.dtype).reshape(shape)


def _after_fork() -> None:
    """A forked child must not wait for a lock that a thread of its parent held."""
    _memory.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
