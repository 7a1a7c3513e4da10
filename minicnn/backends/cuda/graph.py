"""CUDA graphs: what a function asks of a GPU, captured instead of done, and then done as a whole,
as often as wanted. The host asks for a whole graph in the time of a few launches.

A captured launch keeps the arguments that it was captured with: addresses, so nothing else may use
the memory in the meantime, which has a pool of its own; and numbers. One number has to be another
each time, namely how many draws of random numbers came before. The kernel of dropout adds up two
parts of it: one is an argument, and the other, drawn_since(), lies on the GPU.
"""

import contextlib
import functools
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from ..devices import Array, DeviceError, one_line
from .cublas import CapturedCublas


class Graph:
    """What a function asks of the current GPU. Nothing of it is done before launch().

    Args:
        function: called once, here. All that it computes with must have been used before, since
            nothing can be compiled or loaded inside.
        pool: the memory of what it makes, from new_pool(). Graphs that are never launched at the
            same time may share one.
    Raises:
        RuntimeError: the function asks for something that cannot be captured.
    """

    def __init__(self, function: Callable[[], Any], pool: Any) -> None:
        cuda = sys.modules["cupy"].cuda
        self.pool, self.drawn = pool, sys.modules["cupy"].zeros((), np.uint64)
        # not the default stream, which cannot be captured, nor one that waits for it
        stream = cuda.Stream(non_blocking=True)
        with cuda.using_allocator(pool.malloc), stream:
            self.cublas = CapturedCublas(stream.ptr)
            stream.begin_capture()
            _capturing.graph = self
            try:
                function()
            except BaseException as error:
                with contextlib.suppress(RuntimeError):  # CUDA's, because the graph is broken
                    stream.end_capture()
                if isinstance(error, RuntimeError) and not isinstance(error, DeviceError):
                    raise RuntimeError(
                        f"this cannot be captured: {one_line(error)}; inside, do not read results (item(), numpy(), "
                        "bool(), print), send arrays to the GPU, wait for it or update parameters"
                    ) from error
                raise
            finally:
                _capturing.graph = None
            self.graph = stream.end_capture()
        _graphs.add(self)

    def launch(self, drawn: int) -> None:
        """Do all of it, after what the current stream has been asked for.

        Args:
            drawn: how many draws of random numbers there were since it was captured.
        """
        self.drawn.fill(drawn)
        self.graph.launch()


# those that there are; used by memory_stats
_graphs: weakref.WeakSet[Graph] = weakref.WeakSet()


def pools() -> list[Any]:
    """The memory of all graphs."""
    return list({id(graph.pool): graph.pool for graph in list(_graphs)}.values())


def new_pool() -> Any:
    """Memory for graphs on the current GPU. What the GPU's other pool does not use is given back
    first."""
    cupy = sys.modules["cupy"]
    cupy.get_default_memory_pool().free_all_blocks()
    return cupy.cuda.MemoryPool()


class _Capturing(threading.local):
    graph: Graph | None = None


_capturing = _Capturing()


def drawn_since() -> Array:
    """How many draws of random numbers there were since the launch that is asked for now was
    captured, a number on the current GPU; 0 if it is not captured."""
    cupy = sys.modules["cupy"]
    return _none(cupy, cupy.cuda.runtime.getDevice()) if _capturing.graph is None else _capturing.graph.drawn


@functools.cache
def _none(cupy: Any, device: int) -> Array:
    return cupy.zeros((), np.uint64)


def cublas() -> Any:
    """What has cuBLAS's products for what is asked for now, captured or not."""
    return sys.modules["cupy"].cuda.cublas if _capturing.graph is None else _capturing.graph.cublas


def refuse_capture(what: str) -> None:
    """Say that something would go wrong in a graph.

    Raises:
        RuntimeError: this thread is capturing one.
    """
    if _capturing.graph is not None:
        raise RuntimeError(what)
