"""Training on several processes, each with a part of every batch: data parallelism, over MPI and
between GPUs over NCCL.

    mpiexec -n 4 python program.py

starts four processes, the workers, of ranks 0 to 3. Each has a copy of the network and computes the
gradient of its own rows of the batch. The loss of a batch is the mean over all its rows, so its
gradient is the sum of the workers' gradients, weighted by their shares of the rows:

    L = Σ_r (n_r / n) L_r        dL/dw = Σ_r (n_r / n) dL_r/dw

where worker r has n_r of the n rows, and L_r is their mean loss. If all have the same weights w,
and make the same update, they still have the same weights afterwards.

    workers = distributed.start()                           # those of mpiexec, or this process alone
    loader = DataLoader(dataset, 128, part=workers.part)    # this worker's rows of each batch
    parallel = DataParallel(net, workers)                   # gives all of them rank 0's weights
    for images, labels in loader:
        with parallel.step(len(labels)) as step:
            loss = F.cross_entropy(net(Tensor(images)), labels)
            net.zero_grad()
            step.backward(loss)                             # instead of loss.backward()
        parallel.update(optimizer)                          # instead of optimizer.step()

All workers have to do the same in the same order. What only one should do, such as printing and
saving, stands under `if workers.rank == 0:` and calls nothing of these; parallel.collect(optimizer)
comes before saving, at all. A validation set is divided by part=workers.part as well, and
sum(workers.gather(correct)) is the sum of what the workers have counted.

Gradients are sent while the backward pass goes on. Those of the last layers are complete first (in
AlexNet, they are 96% of all bytes), and a thread sums each over the workers as soon as it is there,
always in the same order: MPI makes no progress unless someone waits for it.

Random numbers follow the sample, not the worker (see random.rows_before), so how many workers there
are changes a result only in its last bits: sums are rounded in another order. With the same number
of workers, a run repeats bit for bit. Batch normalization is the exception: each worker normalizes
by the mean and variance of its own rows, and the running averages are averaged.

If a worker fails, the others would wait for it for ever. So an exception that nobody catches ends
all of them, and so does a wait of more than `limit` seconds, as after sys.exit() in one of them:
workers.abort(status, message) ends all at once. A program should leave a mark when it has succeeded
(as train.py does): a launcher may return 0 although a worker was lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np

from . import mpi
from .backends.devices import Array, device_of, on_device_of
from .backends.numpy.threads import set_num_threads
from .checks import number, shown, whole
from .nn import Module, Parameter
from .optim import Optimizer
from .random import random_state, rows_before, set_random_state
from .tensor import Tensor
from .workers import Parts, Workers, WorkersError

SMALL = 1 << 20  # gradients of fewer bytes are sent together

_workers: Workers | None = None


def start(limit: float | None = None) -> Workers:
    """The workers of this program: the processes that mpiexec or srun has started, or this process
    alone, which needs no MPI.

    The first call connects them and divides the threads among the workers of a machine
    (set_num_threads changes that); later ones return the same object.

    Args:
        limit: how many seconds a worker may wait for the others until the program ends, at first
            600. A step, and whatever rank 0 does alone, such as saving, has to take less.
    Returns:
        The workers.
    Raises:
        ImportError: there are several, and mpi4py or an MPI library is missing.
        WorkersError: the launcher belongs to another MPI library, or MPI was told to allow calls
            from one thread only.
        ValueError: the limit is below 0.1.
    """
    global _workers
    if limit is not None:
        number("distributed.start: limit", limit, 0.1)
    if _workers is None:
        _workers = mpi.connect() if mpi.launched() > 1 else Workers()
        if _workers.size > 1:
            set_num_threads(_workers.threads())
    if limit is not None:
        _workers.limit = limit
    return _workers


class Step:
    """One training step; DataParallel.step yields it."""

    def __init__(self, share: float, begin: Any = None) -> None:
        self.share, self.begin = share, begin

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of the whole batch's loss, of which this worker adds its share.

        Args:
            loss: the mean loss of this worker's rows, 0-d.
        Raises:
            RuntimeError: the step has had its backward pass already, or there are gradients from
                before.
        """
        if self.begin:
            self.begin()
        loss.backward(self.share)


class DataParallel:
    """Workers that train one network together. When it is made, all get the weights of rank 0, and
    its random numbers.

    Args:
        net: the network, of the same layers at each worker.
        workers: what start() returned.
    Attributes:
        waited: how many seconds step() has waited at its end for sums that were not complete.
    Raises:
        WorkersError: the workers' networks differ in names, shapes or dtypes.

    Example:
        >>> from minicnn import distributed, functional as F, nn, optim
        >>> net = nn.Linear(3, 2)
        >>> optimizer = optim.SGD(net.parameters(), lr=0.1)
        >>> parallel = DataParallel(net, distributed.start())
        >>> with parallel.step(rows=1) as step:
        ...     step.backward(F.cross_entropy(net(Tensor([[1.0, 2.0, 3.0]])), np.array([0])))
        >>> parallel.update(optimizer)
    """

    def __init__(self, net: Module, workers: Workers) -> None:
        for argument, value, kind in (("net", net, Module), ("workers", workers, Workers)):
            if not isinstance(value, kind):
                raise TypeError(f"DataParallel: {argument} must be a {kind.__name__}, not {shown(value)}")
        self.net, self.workers, self.waited = net, workers, 0.0
        state = net.state_dict()
        forms = workers.gather([[name, list(array.shape), str(array.dtype)] for name, array in state.items()])
        if different := [rank for rank, form in enumerate(forms) if form != forms[0]]:
            raise WorkersError(f"the network of rank {different[0]} has other parameters than that of rank 0")
        for array in state.values():
            workers.broadcast(array)
        self.params = _learned(net)
        for p in net.parameters():
            p.version[0] += 1
        set_random_state(workers.decided(random_state()))
        for p in self.params:
            p.register_post_accumulate_grad_hook(self._arrived)
        self.buckets = _buckets(self.params)
        # equivalent (call): for one device; several need one order, the same at each worker
        self.channels = {device: workers.channel(device) for device in sorted({p.device for p in self.params})}
        self.running: set[Tensor] | None = None  # those whose gradient has arrived, in a backward pass
        self.sent = 0  # equivalent (statement, constant): how many buckets; step() sets it
        self.inside = False
        self.due = False  # update() has to come next, and nothing else will do

    @contextmanager
    def step(self, rows: int) -> Iterator[Step]:
        """One training step: inside, this worker computes with its rows of a batch, and afterwards
        each .grad is that of the whole batch.

        Args:
            rows: how many rows this worker has, 0 or more; those of lower ranks come before.
        Raises:
            ValueError: no worker has any.
            RuntimeError: Step.backward was not called, or not once.
            WorkersError: a worker has drawn random numbers that the others have not, or is not at a
                step.
        """
        if self.due:
            raise RuntimeError("after a step of Sharded comes parallel.update(optimizer), not optimizer.step()")
        here = "step", whole("DataParallel.step: rows", rows, 0), random_state()
        there = self.workers.gather(here)
        if any(other[::2] != here[::2] for other in there):
            raise WorkersError(
                f"the workers are not at the same step, or have drawn other random numbers (seed, count): {there}; "
                "what one does alone must call nothing of workers and draw nothing: call net.eval() before it"
            )
        rows_of_all = [rows for _, rows, _ in there]
        if not sum(rows_of_all):
            raise ValueError("DataParallel.step: the batch has no rows")
        before, share = sum(rows_of_all[: self.workers.rank]), rows / sum(rows_of_all)
        if set(_learned(self.net)) != set(self.params):
            raise RuntimeError("which parameters require a gradient has changed: make a new DataParallel")
        self.inside, self.sent, self.running = True, 0, None
        try:
            with rows_before(before, rows):
                yield Step(share, self._begin)
            if self.running is None:
                raise RuntimeError("a step without gradients: call step.backward(loss) inside")
            self._finish(share)
        finally:
            self.inside, self.running = False, None

    def update(self, optimizer: Optimizer) -> None:
        """Make an optimizer's step, everywhere the same.

        Args:
            optimizer: of the network's parameters.
        """
        optimizer.step()

    def collect(self, optimizer: Optimizer) -> None:
        """Give each worker the optimizer's whole state, as before it is saved. (Here each has it.)

        Args:
            optimizer: as in update.
        """

    def _begin(self) -> None:
        """A backward pass begins."""
        if self.running is not None:
            raise RuntimeError("a step has one backward pass: add up losses, or begin another step")
        if any(p.grad is not None for p in self.params):
            raise RuntimeError("there are gradients from before: call net.zero_grad() before step.backward(loss)")
        self.running = set()

    def _arrived(self, p: Tensor) -> None:
        """The gradient of p is complete. (Outside of a step it is this worker's own.)"""
        if not self.inside:
            return
        if self.running is None:
            raise RuntimeError("inside a step, call step.backward(loss) instead of loss.backward()")
        self.running.add(p)
        while self.sent < len(self.buckets) and self.running.issuperset(self.buckets[self.sent]):
            self._send(self.buckets[self.sent])
            self.sent += 1

    def _finish(self, share: float) -> None:
        """Send what has not been sent, and wait for all."""
        used = np.array([p.grad is not None for p in self.params], np.int64)
        for p in self.params:
            if p.grad is None:  # no row of this worker's led to it
                with on_device_of(p.data):
                    p.grad = Tensor(np.zeros_like(p.data))
        for bucket in self.buckets[self.sent :]:
            self._send(bucket)
        begun = perf_counter()
        for channel in self.channels.values():
            channel.wait()
        self.waited += perf_counter() - begun
        self.workers.all_reduce(used)
        for p, count in zip(self.params, used, strict=True):
            if not count:
                p.grad = None
        if averages := _running_averages(self.net):
            with on_device_of(averages[0]):
                whole = np.concatenate([share * array.reshape(-1) for array in averages])
                self.workers.all_reduce(whole)
                ends = np.cumsum([array.size for array in averages]).tolist()
                for array, part in zip(averages, np.split(whole, ends[:-1]), strict=True):
                    array[...] = part.reshape(array.shape)

    def _send(self, bucket: list[Parameter]) -> None:
        """Begin to sum the gradients of these parameters."""
        self.channels[bucket[0].device].all_reduce([_gradient(p) for p in bucket])


class Sharded(DataParallel):
    """The same where each worker updates only its own share of the weights, and sends them to the
    others: the optimizer's work and the traffic of its state are divided. (Rajbhandari et al. 2020
    call that the first stage of ZeRO.)

    As many bytes are sent as before, but half of them, the weights, after the backward pass: this
    pays on fast connections, as within a machine. update() has to follow each step. The .grad of a
    parameter of a MiB or more is not the sum, so nothing else can use it, such as clip_grad_norm.
    The optimizer has to treat each element for itself, as SGD and Adam do.
    """

    def __init__(self, net: Module, workers: Workers) -> None:
        super().__init__(net, workers)
        self.own: dict[Tensor, Parts] = {}

    def update(self, optimizer: Optimizer) -> None:
        self.due = False
        optimizer.only = self._own_parts
        try:
            optimizer.step()
        finally:
            optimizer.only = None
        self._gather([p.data for p in self.own])

    def collect(self, optimizer: Optimizer) -> None:
        self._gather([array for p in self.own for array in optimizer.state.get(p, {}).values()])

    def _gather(self, arrays: list[Array]) -> None:
        for array in arrays:
            self.channels[device_of(array)].all_gather(array.reshape(-1))
        for channel in self.channels.values():
            channel.wait()

    def _send(self, bucket: list[Parameter]) -> None:
        if bucket[0].data.nbytes < SMALL:
            super()._send(bucket)
        else:
            (p,) = bucket
            self.due = True
            self.own[p] = self.channels[p.device].reduce_scatter(_gradient(p).reshape(-1))

    def _own_parts(self, p: Tensor, arrays: tuple[Array, ...]) -> list[tuple[Array, ...]]:
        """(w, g, *slots) of each section that is this worker's own."""
        if p not in self.own:
            return [arrays]
        w, _, *slots = [array.reshape(-1) for array in arrays]
        return [(w[place], total, *[slot[place] for slot in slots]) for place, total in self.own[p]]


def _running_averages(net: Module) -> list[Array]:
    """The arrays of the layers in training that are not learned, such as batch normalization's."""
    return [
        vars(module)[name]
        for _, module in net.named_modules()
        if module.training
        for name in module._buffers
        if vars(module)[name].dtype.kind == "f"
    ]


def _learned(net: Module) -> list[Parameter]:
    return [p for p in net.parameters() if p.requires_grad]


def _gradient(p: Tensor) -> Array:
    """The array of p.grad, made contiguous."""
    assert p.grad is not None
    if not p.grad.data.flags.c_contiguous:
        p.grad = Tensor(p.grad.data.copy())
    return p.grad.data


def _buckets(params: list[Parameter]) -> list[list[Parameter]]:
    """The parameters from the last to the first, as their gradients become complete, in groups
    that are sent together: small ones of one kind, up to SMALL bytes."""
    buckets: list[list[Parameter]] = []
    for p in reversed(params):
        last = buckets[-1] if buckets else []
        alike = last and (last[0].device, last[0].dtype) == (p.device, p.dtype)
        if alike and sum(q.data.nbytes for q in (*last, p)) < SMALL:
            last.append(p)
        else:
            buckets.append([p])
    return buckets
