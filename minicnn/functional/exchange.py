"""Exchanges between workers: several processes compute one network together, and each has a part of
it (Krizhevsky et al. 2012, figure 2: two GPUs, each with half of the kernels, of which some see all
of the layer before).

    all_gather        y_r = (x_0, x_1, …), side by side         at every worker r
    reduce_scatter    y_r = part r of Σ_s x_s
    all_reduce        y_r = Σ_s x_s

x_s is the input that worker s has, y_r the output that worker r gets: the same name stands for
other numbers in each process. The three are linear, but their input and output are those of all
workers together. So is the loss: it is the sum of what the workers compute,

    L = Σ_r L_r

and dy_r is what worker r knows, the gradient of L by its own y_r.

Backward. In an all_gather x_s is part s of every y_r. A small change δx_s changes L by
Σ_r (part s of dy_r) · δx_s, so

    dx_s = part s of Σ_r dy_r

which is a reduce_scatter of dy. In a reduce_scatter every x_s is a term of every y_r. Part r of x_s
goes to y_r, so part r of dx_s is dy_r, and dx_s is all of these side by side: an all_gather of dy.
Each is the other's transpose. In an all_reduce every x_s is a term of every y_r, so

    dx_s = Σ_r dy_r

which is an all_reduce of dy: it is its own transpose. So further derivatives need nothing else.

If all workers compute the same loss from the same y, as after the last all_gather of a network,
then Σ_r L_r is so many times that loss. Each has to take its share: a worker of two, half.

All workers have to make the same exchanges in the same order. A backward pass goes from the newest
operation to the oldest, so if forward passes agree, so do backward passes.

| where libraries differ (PyTorch 2.13)         | the gradient of all_gather              |
| --------------------------------------------- | --------------------------------------- |
| here, PyTorch's distributed.nn.functional     | part s of Σ_r dy_r                      |
| PyTorch's distributed.all_gather              | none: it is not recorded                |

>>> import minicnn, minicnn.functional as F
>>> from minicnn import distributed
>>> from minicnn.workers import Workers
>>> workers = distributed.start()  # this process alone
>>> F.all_gather(minicnn.Tensor([[1.0, 2.0]]), workers)
Tensor([[1., 2.]], dtype=float32)

Try: two workers hold the same x, and both compute the same loss, the sum of all that they gather.
What is the gradient of x?

>>> import numpy as np
>>> class Twins(Workers):
...     size = 2
...     def all_gather(self, array, axis=0):
...         return np.concatenate([array, array], axis), 2 * [array.shape[axis]]
...     def reduce_scatter(self, array, lengths, axis=0):
...         return 2 * np.split(array, 2, axis)[self.rank]
>>> x = minicnn.Tensor([[1.0, 2.0]], requires_grad=True)
>>> F.all_gather(x, Twins()).sum().backward()
>>> x.grad
Tensor([[2., 2.]], dtype=float32)
"""

from collections.abc import Sequence

from ..autograd import Function, Gradients
from ..backends.devices import Array
from ..checks import several, shown, whole
from ..tensor import Tensor, apply
from ..workers import Workers
from .arguments import require_tensors

__all__ = ["all_gather", "all_reduce", "reduce_scatter"]


class AllGather(Function):
    def __init__(self, workers: Workers, axis: int):
        self.workers, self.axis = workers, axis

    def forward(self, x: Array) -> Array:
        y, self.lengths = self.workers.all_gather(x, self.axis)
        return y

    def backward(self, dy: Tensor) -> Gradients:
        return apply(ReduceScatter(self.workers, self.lengths, self.axis), dy)


class ReduceScatter(Function):
    def __init__(self, workers: Workers, lengths: Sequence[int], axis: int):
        self.workers, self.lengths, self.axis = workers, lengths, axis

    def forward(self, x: Array) -> Array:
        return self.workers.reduce_scatter(x, self.lengths, self.axis)

    def backward(self, dy: Tensor) -> Gradients:
        return apply(AllGather(self.workers, self.axis), dy)


class AllReduce(Function):
    def __init__(self, workers: Workers):
        self.workers = workers

    def forward(self, x: Array) -> Array:
        y = x.copy()
        self.workers.all_reduce(y)
        return y

    def backward(self, dy: Tensor) -> Gradients:
        return apply(AllReduce(self.workers), dy)


def all_gather(x: Tensor, workers: Workers, axis: int = -1) -> Tensor:
    """The workers' Tensors side by side, at each of them (Krizhevsky et al. 2012, figure 2).

    Args:
        x: this worker's part. Only its length along the axis may differ from the others'.
        workers: what distributed.start() returned.
        axis: along which they are concatenated; by default the channels.
    Returns:
        The whole, in the order of the ranks, of x's dtype.
    Raises:
        ValueError: x has no such axis.
    """
    _check("all_gather", x, workers)
    _check_axis("all_gather", x, axis)
    return apply(AllGather(workers, axis), x)


def reduce_scatter(x: Tensor, workers: Workers, lengths: Sequence[int], axis: int = -1) -> Tensor:
    """This worker's part of the sum of the workers' Tensors.

    Args:
        x: of the same shape at each worker.
        workers: what distributed.start() returned.
        lengths: how long each worker's part is along the axis.
        axis: along which the sum is cut; by default the channels.
    Returns:
        Part workers.rank, of x's dtype.
    Raises:
        ValueError: x has no such axis, or the lengths are not those of its parts.
    """
    _check("reduce_scatter", x, workers)
    _check_axis("reduce_scatter", x, axis)
    lengths = [whole("reduce_scatter: each of the lengths", n) for n in several("reduce_scatter: lengths", lengths)]
    if len(lengths) != workers.size or sum(lengths) != x.shape[axis] or min(lengths) < 0:
        raise ValueError(
            f"reduce_scatter: {workers.size} lengths have to add up to {x.shape[axis]}, the length of axis {axis} of "
            f"{x.shape}, not {lengths}"
        )
    return apply(ReduceScatter(workers, lengths, axis), x)


def all_reduce(x: Tensor, workers: Workers) -> Tensor:
    """The sum of the workers' Tensors, at each of them.

    Args:
        x: of the same shape at each worker.
        workers: what distributed.start() returned.
    Returns:
        Of x's shape and dtype.
    """
    _check("all_reduce", x, workers)
    return apply(AllReduce(workers), x)


def _check(name: str, x: Tensor, workers: Workers) -> None:
    require_tensors(name, x=x)
    if not isinstance(workers, Workers):
        raise TypeError(f"{name}: workers are what distributed.start() returns, not {shown(workers)}")


def _check_axis(name: str, x: Tensor, axis: int) -> None:
    if not -x.ndim <= whole(f"{name}: axis", axis) < x.ndim:
        raise ValueError(f"{name}: x of shape {x.shape} has no axis {axis}")


# There is no faster version of this file: MPI and NCCL do the work, see mpi.py.
