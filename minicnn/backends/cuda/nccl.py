"""Sums of arrays over the GPUs of several processes, by NVIDIA's library NCCL. Its calls go into a
stream of their own, so that the GPU computes at the same time.
"""

import importlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

from ..devices import Array, DeviceError, one_line

DTYPES = ("int8", "uint8", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")


class Link:
    """The connection of one GPU with those of other processes. All of these make the same calls in
    the same order, and then wait(). Arrays have one axis and are on this GPU.

    Args:
        cupy: the module.
        number: which GPU.
        rank: this process's number.
        size: how many processes there are.
        decided: a function that returns to all what rank 0 gives it.
    Raises:
        DeviceError: NCCL is not there, or cannot connect the GPUs.
    """

    def __init__(self, cupy: Any, number: int, rank: int, size: int, decided: Callable[[Any], Any]) -> None:
        self.cupy, self.gpu, self.rank = cupy, cupy.cuda.Device(number), rank
        try:
            self.nccl = _import_nccl(cupy)
            key = decided(self.nccl.get_unique_id() if rank == 0 else None)
            with self.gpu:
                self.communicator = self.nccl.NcclCommunicator(size, key, rank)
                self.stream = cupy.cuda.Stream(non_blocking=True)
        except Exception as error:
            raise DeviceError(
                f"gpu:{number} of rank {rank} cannot be connected with the other ranks' by NCCL: {one_line(error)}"
            ) from None
        self.kinds = {name: getattr(self.nccl, f"NCCL_{name.upper()}") for name in DTYPES}
        self.held: list[Array] = []  # what NCCL works on

    def all_reduce(self, arrays: Sequence[Array]) -> None:
        """Replace each array by the sum of all processes' arrays."""
        self._call(self.communicator.allReduce, [(array, (self.nccl.NCCL_SUM,)) for array in arrays])

    def reduce_scatter(self, array: Array, counts: Sequence[int]) -> Array:
        """This process's part of the sum, in its place in the array."""
        parts = self._cut(array, counts)
        self._call(self.communicator.reduce, [(part, (self.nccl.NCCL_SUM, root)) for root, part in enumerate(parts)])
        return parts[self.rank]

    def all_gather(self, own: Array, whole: Array, counts: Sequence[int]) -> None:
        """Write the parts of all processes into `whole`."""
        self._cut(whole, counts)[self.rank][...] = own
        self.all_gather_in_place(whole, counts)

    def all_gather_in_place(self, array: Array, counts: Sequence[int]) -> None:
        """The same where each process's part is in its place already."""
        self._call(self.communicator.broadcast, [(part, (root,)) for root, part in enumerate(self._cut(array, counts))])

    def broadcast(self, array: Array) -> None:
        """Overwrite an array with that of rank 0."""
        self._call(self.communicator.broadcast, [(array, (0,))])

    def _cut(self, array: Array, counts: Sequence[int]) -> list[Array]:
        """The parts of an array that have so many elements."""
        return self.cupy.split(array, list(accumulate(counts))[:-1])

    def _call(self, function: Callable[..., Any], work: Iterable[tuple[Array, tuple[int, ...]]]) -> None:
        """Call a function of NCCL's for each array, in place, after what the GPU has been asked to
        do so far. As one group, because several roots would wait for one another."""
        with self.gpu:
            self.stream.wait_event(self.cupy.cuda.get_current_stream().record())
            self.nccl.groupStart()
            try:
                for array, options in work:
                    if array.dtype.name not in self.kinds:
                        raise TypeError(f"NCCL exchanges arrays of {', '.join(DTYPES)}, not of {array.dtype}")
                    place, kind = array.data.ptr, self.kinds[array.dtype.name]
                    function(place, place, array.size, kind, *options, self.stream.ptr)
                    self.held.append(array)
            finally:
                self.nccl.groupEnd()

    def wait(self) -> Callable[[], bool]:
        """Let the GPU do what comes now after what NCCL was asked for. The host does not wait.

        Returns:
            A function that tells whether NCCL has finished.
        """
        with self.gpu:
            end = self.stream.record()
            self.cupy.cuda.get_current_stream().wait_event(end)
        self.held.clear()  # whoever gets their memory now uses it later, in the same stream
        return lambda: bool(end.done)


def _import_nccl(cupy: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy has ten lines of it for a library that is not there
        nccl = importlib.import_module("cupy.cuda.nccl")
    if not nccl.available:
        cuda = cupy.cuda.runtime.runtimeGetVersion() // 1000
        raise ImportError(f"it is not installed: pip install nvidia-nccl-cu{cuda}")
    return nccl
