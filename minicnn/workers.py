"""The processes of one program, and what they tell each other: the interface, and a process that is
alone. minicnn/mpi.py has the same for several, and distributed.start() chooses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from .backends.devices import Array

Parts = list[tuple[slice, Array]]  # see Channel.reduce_scatter


def cores() -> list[int]:
    """The numbers of the cores on which this process may run."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


class WorkersError(RuntimeError):
    """The other workers cannot be reached, or do not do what this one does."""


class Workers:
    """The processes of one program. All of them have to call the same methods in the same order,
    and each call returns when all have made it.

    This class is a process that is alone, for which all of it is simple; distributed.start()
    returns a subclass if there are several. Arrays are contiguous, and on the host or on a GPU.

    Attributes:
        rank: this worker's number, from 0.
        size: how many there are.
        limit: how many seconds a worker may wait for the others until the program ends.
        received: how many bytes of arrays each worker has received, if they are sent in a ring:
            (size − 1) / size times the bytes of the whole array, and twice that in all_reduce.
    """

    rank = 0
    size = 1
    limit = 600.0
    received = 0.0

    @property
    def part(self) -> tuple[int, int]:
        """(rank, size), as DataLoader takes it."""
        return self.rank, self.size

    def all_reduce(self, array: Array) -> None:
        """Replace an array by the sum of all workers' arrays, in place: the same bits everywhere.

        Args:
            array: of the same shape and dtype everywhere.
        """

    def all_gather(self, array: Array, axis: int = 0) -> tuple[Array, list[int]]:
        """All workers' arrays, side by side.

        Args:
            array: only its length along the axis may differ between workers.
            axis: along which they are concatenated.
        Returns:
            (the whole, in the order of the ranks, at each worker; the length of each part).
        """
        return array, [array.shape[axis]]

    # equivalent (constant): a worker that is alone cuts nothing
    def reduce_scatter(self, array: Array, lengths: Sequence[int], axis: int = 0) -> Array:
        """This worker's part of the sum of all workers' arrays.

        Args:
            array: of the same shape and dtype everywhere.
            lengths: the length of each worker's part along the axis.
            axis: along which the sum is cut.
        Returns:
            Its part: a new array, or from a worker that is alone the array itself.
        """
        return array

    def broadcast(self, array: Array) -> None:
        """Overwrite an array with that of rank 0.

        Args:
            array: of the same shape and dtype everywhere.
        """

    def gather(self, value: Any) -> list[Any]:
        """The workers' values, in the order of the ranks.

        Args:
            value: anything that can be pickled.
        """
        return [value]

    def decided(self, value: Any) -> Any:
        """The value of rank 0: a decision that all have to follow.

        Args:
            value: as in gather.
        """
        return self.gather(value)[0]

    def advice(self) -> str:
        """What is said after the message when `limit` is over, such as how to go on. A program sets
        its own: workers.advice = lambda: "; …"."""
        return ""

    def abort(self, status: int, message: str = "") -> None:
        """End the program with all of its workers.

        Args:
            status: the exit status, where the launcher passes it on.
            message: a line for the standard error.
        """
        if message:
            print(message, file=sys.stderr, flush=True)
        raise SystemExit(status)

    def device(self, name: str) -> str:
        """The device that this worker should use.

        Args:
            name: "cpu", "gpu" or "gpu:N".
        Returns:
            For "gpu", the GPU with this worker's number on its machine, or the only one that it can
            see; any other name as it is.
        Raises:
            DeviceError: one of the workers, which the message names, has no such GPU. All of them
                raise it.
        """
        return name

    def threads(self) -> int:
        """How many threads this worker should use: the cores of a machine are divided among those
        of its workers that may run on the same ones."""
        return len(cores())

    def channel(self, device: str) -> Channel:
        """Connections of their own, for sums that go on while this thread computes.

        Args:
            device: where the arrays are.
        """
        return Channel()


class Channel:
    """Sums of arrays that are made one after another, beside the computation. Between the call and
    the end of wait(), nobody else may touch an array. This class is that of a worker that is alone.
    """

    def all_reduce(self, arrays: Sequence[Array]) -> None:
        """Replace each array by the sum of all workers' arrays.

        Args:
            arrays: of one dtype; small ones are sent as one.
        """

    def reduce_scatter(self, array: Array) -> Parts:
        """Sum an array of one axis, so that each worker gets the sum of a part of it.

        Args:
            array: the same length and dtype everywhere. It is overwritten.
        Returns:
            (place, sum) for each section of this worker's part: array[place] is where it belongs,
            `sum` is the array that holds its sum after wait().
        """
        return [(slice(0, len(array)), array)]

    def all_gather(self, array: Array) -> None:
        """Exchange the parts of an array of one axis, where each worker has its own part.

        Args:
            array: cut as reduce_scatter cuts it.
        """

    def wait(self) -> None:
        """Wait until all of it is done.

        Raises:
            WorkersError: a sum could not be made.
        """
