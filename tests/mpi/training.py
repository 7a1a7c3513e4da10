"""N ranks train as one process does that has the whole batch."""

import contextlib
import hashlib
import itertools
import os

import numpy as np
from checking import all_checks

import minicnn
from minicnn import Tensor, distributed, mpi, nn, optim
from minicnn import functional as F
from minicnn.data import Arrays, DataLoader, transforms
from minicnn.distributed import DataParallel, Sharded

TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5}
OPTIMIZERS = {
    "SGD": lambda params: optim.SGD(params, 0.05, momentum=0.9, weight_decay=0.01),
    "Adam": lambda params: optim.Adam(params, 0.01, eps=1e-3, weight_decay=0.01),
}


def network(seed, dtype, hidden=40):
    minicnn.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.4),
        nn.Linear(96, hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, 5),
    ).astype(dtype)  # fmt: skip


def loader(part):
    """Batches of 10, 10, 10 and 1: not all ranks have rows of the last one."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (31, 9, 9, 3), dtype=np.uint8), rng.integers(0, 5, 31)
    augment = transforms.Compose([transforms.RandomCrop(8, padding=1), transforms.RandomHorizontalFlip()])
    normalize = transforms.Normalize((0.5, 0.5, 0.5), (0.3, 0.3, 0.3))
    return DataLoader(
        Arrays(images, labels), 10, transform=augment, normalize=normalize, shuffle=True, part=part, num_workers=1
    )


def train(name, dtype, kind=None, workers=None, epochs=3, hidden=40):
    """The weights and the optimizer's state after so many epochs of 4 steps; with no kind by one process, in a loop
    that knows nothing of others."""
    net = network(0 if workers is None else workers.rank, dtype, hidden)  # rank 0's weights are to be everybody's
    optimizer = OPTIMIZERS[name](net.parameters())
    parallel = kind(net, workers) if kind else None
    minicnn.manual_seed(7)
    batches = loader(workers.part if workers else (0, 1))
    for _ in range(epochs):
        for images, labels in batches:
            x = Tensor(images.astype(dtype))
            if parallel is None:
                loss = F.cross_entropy(net(x), labels)
                net.zero_grad()
                loss.backward()
                optimizer.step()
                continue
            with parallel.step(len(labels)) as step:
                loss = F.cross_entropy(net(x), labels)
                net.zero_grad()
                step.backward(loss)
            parallel.update(optimizer)
    if parallel is not None:
        parallel.collect(optimizer)
    return {**net.state_dict(), **{f"state {key}": array for key, array in optimizer.state_dict().items()}}


@contextlib.contextmanager
def small_pieces():
    """So that a small network has parameters that are cut and sent in several pieces."""
    before = distributed.SMALL, mpi.PIECE, mpi.SECTION
    distributed.SMALL, mpi.PIECE, mpi.SECTION = 1500, 512, 4096
    yield
    distributed.SMALL, mpi.PIECE, mpi.SECTION = before


def digest(arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()


def agree(workers, found, expected, dtype):
    """As one process, but for rounding; and the same bits at each rank."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        error, scale = abs(found[name] * 1.0 - array).max(initial=0), abs(array).max(initial=0)
        assert error <= TOLERANCE[dtype] * scale, (name, error, scale)
    assert len(set(workers.gather(digest(found)))) == 1


def check_weights_are_those_of_one_process(workers):
    ways = list(itertools.product(OPTIMIZERS, TOLERANCE, (DataParallel, Sharded)))
    if workers.size > 2:  # they are slow on two cores
        ways = [("SGD", np.float64, Sharded), ("Adam", np.float32, DataParallel), ("Adam", np.float64, DataParallel)]
    for name, dtype, kind in ways:
        with small_pieces():
            agree(workers, train(name, dtype, kind, workers), train(name, dtype), dtype)


def check_large_parameters(workers):
    """One of 2.3 MB, and one of 6.1 MB, more than a piece."""
    for dtype, hidden in (np.float32, 6000), (np.float64, 8000):
        expected = train("SGD", dtype, epochs=1, hidden=hidden)
        for kind in DataParallel, Sharded:
            agree(workers, train("SGD", dtype, kind, workers, 1, hidden), expected, dtype)


def check_a_run_repeats_bit_for_bit(workers):
    with small_pieces():
        for kind in DataParallel, Sharded:
            first, second = (digest(train("Adam", np.float32, kind, workers, 1)) for _ in range(2))
            assert first == second


def check_running_averages(workers):
    """Each rank normalizes by its own rows; the running averages are averaged."""
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Linear(3, 2))
    parallel, rng = DataParallel(net, workers), np.random.default_rng(0)
    optimizer, expected = optim.SGD(net.parameters(), 0.1), np.zeros(3, np.float32)
    for _ in range(2):
        rows = [2 + r for r in range(workers.size)]
        batches = [rng.standard_normal((n, 2, 2, 3)).astype(np.float32) for n in rows]
        with parallel.step(rows[workers.rank]) as step:
            net.zero_grad()
            step.backward(net(Tensor(batches[workers.rank])).sum())
        optimizer.step()
        means = [0.9 * expected + 0.1 * batch.mean((0, 1, 2)) for batch in batches]
        expected = sum(n * mean for n, mean in zip(rows, means, strict=True)) / sum(rows)
    # means near 0 have cancelled digits
    np.testing.assert_allclose(net[0].running_mean, expected, rtol=1e-5, atol=1e-7)
    assert len(set(workers.gather(digest(net.state_dict())))) == 1


def check_parameters_without_a_gradient(workers):
    """In a step all rows may leave a parameter out, or those of some ranks."""

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.used, self.unused, self.frozen = (nn.Linear(3, 3) for _ in range(4))

        def forward(self, x):
            y = self.frozen(self.trunk(x))
            return self.used(y) if workers.rank == 0 else y

    for kind in DataParallel, Sharded:
        net = Heads()
        for p in net.frozen.parameters():
            p.requires_grad = False
        parallel, optimizer = kind(net, workers), optim.SGD(net.parameters(), 0.1, momentum=0.9)
        before = net.state_dict()["frozen.weight"].copy()
        x = np.eye(3, dtype=np.float32)
        for _ in range(2):
            with parallel.step(3) as step:
                net.zero_grad()
                step.backward(net(Tensor(x)).sum())
            assert net.unused.weight.grad is None and net.frozen.weight.grad is None
            np.testing.assert_allclose(net.used.bias.grad.data, 3 / workers.size, rtol=1e-6)
            parallel.update(optimizer)
        np.testing.assert_array_equal(net.frozen.weight.data, before)
        assert len(set(workers.gather(digest(net.state_dict())))) == 1
        assert optimizer.missed[net.unused.weight] == 2 and not optimizer.missed[net.used.weight]


def check_threads_are_divided(workers):
    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count()))
    sharing = workers.gather(own).count(own)
    assert workers.threads() == max(1, len(own) // sharing)
    if workers.size > 1:
        assert minicnn.get_num_threads() == workers.threads()


def check_who_is_here(workers):
    assert workers.part == (workers.rank, workers.size)
    assert workers.gather(workers.rank) == list(range(workers.size))
    assert distributed.start() is workers and workers.limit == 30.0


if __name__ == "__main__":
    all_checks()
