"""Data parallel training: as one process would, under mpiexec (tests/mpi/training.py); and step by step, in a crew of
threads."""

import threading
import time

import numpy as np
import pytest
from crew import Rows, crew
from launch import SIZES, checks_of, needs_mpi, passes
from numpy.testing import assert_allclose, assert_array_equal
from reference import refuses

import minicnn
from minicnn import Tensor, distributed, mpi, nn, optim
from minicnn import functional as F
from minicnn.backends import numpy as fast
from minicnn.distributed import DataParallel, Sharded
from minicnn.workers import Workers, WorkersError

__all__ = ["crew"]
KINDS = DataParallel, Sharded


@needs_mpi
@pytest.mark.parametrize("name", checks_of("training.py"))
@pytest.mark.parametrize("size", SIZES)
def test_training_under_mpiexec(size, name):
    passes(size, name)


# ----------------------------------------------------------------------------------------------------------------------
# start
@pytest.fixture
def fresh(monkeypatch):
    """As in a process that has not called start()."""
    for name in mpi.SIZES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(distributed, "_workers", None)


def test_start_alone(fresh, monkeypatch):
    monkeypatch.setattr(mpi, "connect", lambda: pytest.fail("needs no MPI"))
    monkeypatch.setattr(distributed, "set_num_threads", lambda n: pytest.fail("all threads are this process's"))
    before = fast.threads.get_num_threads()
    workers = distributed.start()
    assert type(workers) is Workers and workers.limit == 600 and distributed.start() is workers
    assert distributed.start(2.5) is workers and workers.limit == 2.5
    distributed.start()
    assert workers.limit == 2.5 and fast.threads.get_num_threads() == before
    distributed.start(0.1)
    with refuses(ValueError, "distributed.start: limit", "0.1", "0.09"):
        distributed.start(0.09)
    assert workers.limit == 0.1


@pytest.mark.parametrize("size", [2, 3])
def test_start_of_several(fresh, monkeypatch, size):
    class Several(Workers):
        def threads(self):
            return 5

    several, divided = Several(), []
    several.size = size
    monkeypatch.setenv(mpi.SIZES[0], str(size))
    monkeypatch.setattr(mpi, "connect", lambda: several)
    monkeypatch.setattr(distributed, "set_num_threads", divided.append)
    assert distributed.start(7) is several and distributed.start() is several
    assert several.limit == 7 and divided == [5]


# ----------------------------------------------------------------------------------------------------------------------
# the weights
def test_all_get_rank_0s_weights(crew):
    class Net(nn.Module):
        def __init__(self, rank):
            super().__init__()
            self.linear, self.norm = nn.Linear(2, 2), nn.BatchNorm2d(2)
            for array in self.state_dict().values():
                array[...] = rank + 1

    def work(workers):
        net = Net(workers.rank)
        versions = [p.version[0] for p in net.parameters()]
        DataParallel(net, workers)
        assert [p.version[0] for p in net.parameters()] == [version + 1 for version in versions]
        return np.concatenate([array.reshape(-1) for array in net.state_dict().values()])

    for weights in crew(3, work):
        assert (weights == 1).all()


@pytest.mark.parametrize(
    "other",
    [
        lambda: nn.Linear(3, 3),
        lambda: nn.Linear(3, 2).astype(np.float64),
        lambda: nn.Linear(3, 2, bias=False),
        lambda: nn.Sequential(nn.Linear(3, 2)),
    ],
)
def test_networks_that_differ(crew, other):
    def work(workers):
        with refuses(WorkersError, "the network of rank 2 has other parameters than that of rank 0"):
            DataParallel(other() if workers.rank == 2 else nn.Linear(3, 2), workers)

    crew(3, work)


# ----------------------------------------------------------------------------------------------------------------------
# one step
def rows_of(rank, n=2, features=3):
    return np.random.default_rng(rank).standard_normal((n, features)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [(2, 3, 1), (0, 4, 0)])
def test_the_gradient_is_that_of_the_whole_batch(crew, kind, rows):
    def work(workers):
        minicnn.random.set_random_state((1, 0))
        net = nn.Linear(3, 2)
        net.weight.data[...] = np.arange(6).reshape(net.weight.shape) / 6
        parallel = kind(net, workers)
        x = rows_of(workers.rank, rows[workers.rank])
        with parallel.step(len(x)) as step:
            step.backward(F.cross_entropy(net(Tensor(x)), np.zeros(len(x), int)))
        assert step.share == rows[workers.rank] / sum(rows)
        return net.weight.grad.numpy(), net.bias.grad.numpy().copy()

    found = crew(3, work)
    whole = nn.Linear(3, 2)
    whole.weight.data[...] = np.arange(6).reshape(whole.weight.shape) / 6
    whole.bias.data[...] = 0
    x = np.concatenate([rows_of(rank, n) for rank, n in enumerate(rows)])
    F.cross_entropy(whole(Tensor(x)), np.zeros(len(x), int)).backward()
    for weight, bias in found:
        assert_allclose(weight, whole.weight.grad.data, rtol=1e-5, atol=1e-7)
        assert_allclose(bias, whole.bias.grad.data, rtol=1e-5, atol=1e-7)
    assert Rows.before == {f"rank {r}": sum(rows[:r]) for r in range(3)}


def square(net, x):
    return (net(Tensor(x)) * net(Tensor(x))).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_has_one_backward_pass(crew, kind):
    def work(workers):
        net, x = nn.Linear(3, 2), rows_of(workers.rank)
        parallel = kind(net, workers)
        with refuses(RuntimeError, "a step has one backward pass: add up losses"), parallel.step(2) as step:
            step.backward(square(net, x))
            step.backward(square(net, x))
        net.zero_grad()
        with refuses(RuntimeError, "a step without gradients: call step.backward(loss) inside"), parallel.step(2):
            pass
        with refuses(RuntimeError, "call step.backward(loss) instead of loss.backward()"), parallel.step(2):
            square(net, x).backward()
        with refuses(ValueError, "the batch has no rows"), parallel.step(0):
            pytest.fail("is not reached")
        with refuses(ValueError, "DataParallel.step: rows", "-1"), parallel.step(-1):
            pytest.fail("is not reached")
        net.zero_grad()
        assert not parallel.inside and parallel.running is None
        with parallel.step(2) as step:  # it still works
            step.backward(square(net, x))

    crew(2, work)


def test_what_requires_a_gradient_must_stay(crew):
    def work(workers):
        net = nn.Linear(3, 2)
        parallel = DataParallel(net, workers)
        net.bias.requires_grad = False
        message = "which parameters require a gradient has changed: make a new DataParallel"
        with refuses(RuntimeError, message), parallel.step(2):
            pytest.fail("is not reached")
        net.bias.requires_grad = True
        net.extra = nn.Parameter(np.ones(2, np.float32))
        with refuses(RuntimeError, message), parallel.step(2):
            pytest.fail("is not reached")

    crew(2, work)


def test_gradients_from_before_are_refused(crew):
    """Those of a step are sums of all workers, and would be summed again; others have no share of the rows."""

    def work(workers):
        net, x = nn.Linear(3, 2), rows_of(workers.rank)
        parallel = DataParallel(net, workers)
        net(Tensor(x)).sum().backward()
        message = "there are gradients from before: call net.zero_grad()"
        for _ in range(2):
            with refuses(RuntimeError, message), parallel.step(2) as step:
                step.backward(net(Tensor(x)).sum())
            net.weight.grad = None  # and not that of the bias
            with refuses(RuntimeError, message), parallel.step(2) as step:
                step.backward(net(Tensor(x)).sum())
            net.zero_grad()
            with parallel.step(2) as step:
                step.backward(net(Tensor(x)).sum())
        return net.bias.grad.data

    for gradient in crew(2, work):
        assert_array_equal(gradient, [2, 2])


def test_workers_that_have_parted(crew, monkeypatch):
    """Random numbers that only one has drawn, or a call of something else."""

    def drawn(workers):
        parallel = DataParallel(nn.Linear(3, 2), workers)
        monkeypatch.setattr(distributed, "random_state", lambda: (0, threading.current_thread().name == "rank 1"))
        workers.gather(None)
        with refuses(WorkersError, "not at the same step, or have drawn other random numbers"), parallel.step(1):
            pass

    def elsewhere(workers):
        parallel = DataParallel(nn.Linear(3, 2), workers)
        if workers.rank:
            workers.gather("other")
            return
        with refuses(WorkersError, "not at the same step"), parallel.step(1):
            pass

    crew(2, elsewhere)
    crew(2, drawn)


def test_all_go_on_with_rank_0s_random_numbers(monkeypatch):
    class Other(Workers):
        def decided(self, value):
            return (5, 7)

    minicnn.manual_seed(1)
    DataParallel(nn.Linear(3, 2), Other())
    assert minicnn.random.random_state() == (5, 7)


def test_sharded_is_updated_by_itself(monkeypatch):
    monkeypatch.setattr(distributed, "SMALL", 1)
    net = nn.Linear(3, 2)
    parallel, optimizer = Sharded(net, Workers()), optim.SGD(net.parameters(), 0.1)
    for _ in range(2):
        with parallel.step(2) as step:
            net.zero_grad()
            step.backward(net(Tensor(rows_of(0))).sum())
        with refuses(RuntimeError, "comes parallel.update(optimizer), not optimizer.step()"), parallel.step(2):
            pass
        parallel.update(optimizer)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.all, self.some, self.none, self.frozen = (nn.Linear(3, 3) for _ in range(4))
        for p in self.frozen.parameters():
            p.requires_grad = False

    def forward(self, x, rank):
        y = self.frozen(self.all(x))
        return self.some(y) if rank == 1 else y


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("small", [1, 1 << 20])
def test_parameters_without_a_gradient(crew, monkeypatch, kind, small):
    monkeypatch.setattr(distributed, "SMALL", small)

    def work(workers):
        net = Branches()
        parallel = kind(net, workers)
        optimizer = optim.SGD(net.parameters(), 1.0, momentum=0.5)
        none, frozen = net.none.weight.numpy().copy(), net.frozen.weight.numpy().copy()
        with parallel.step(2) as step:
            step.backward(net(Tensor(rows_of(0)), workers.rank).sum())
        assert all(p.grad is None for part in (net.none, net.frozen) for p in part.parameters())
        assert all(p.grad is not None for part in (net.all, net.some) for p in part.parameters())
        some = net.some.bias.numpy().copy()
        parallel.update(optimizer)
        assert_allclose(some - net.some.bias.data, [2 / 3] * 3, rtol=1e-5)
        assert_array_equal(net.none.weight.data, none)
        assert_array_equal(net.frozen.weight.data, frozen)
        return np.concatenate([p.data.reshape(-1) for p in net.parameters()])

    first, *others = crew(3, work)
    for weights in others:
        assert_array_equal(weights, first)


def test_running_averages_are_averaged(crew):
    def work(workers):
        net = nn.BatchNorm2d(2)
        net.register_buffer("integers", np.array([3, 4]))  # are no averages
        net.register_buffer("table", np.full((2, 3), workers.rank, np.float32))
        net.register_buffer("last", np.full((1, 1), workers.rank, np.float32))
        parallel = DataParallel(net, workers)
        x = np.full((1 + workers.rank, 1, 2, 2), workers.rank, np.float32)
        with parallel.step(len(x)) as step:
            step.backward(net(Tensor(x)).sum())
        assert net.integers.tolist() == [3, 4]
        net.table += workers.rank  # in evaluation all stays as it is
        net.eval()
        with parallel.step(1) as step:
            net.zero_grad()
            step.backward(net(Tensor(x)).sum())
        assert_allclose(net.table, np.full((2, 3), workers.rank))
        assert_allclose(net.last, [[0]])
        return net.running_mean, net.running_var

    for mean, var in crew(2, work):
        assert_allclose(mean, 0.1 * (1 * 0 + 2 * 1) / 3, rtol=1e-6)
        assert_allclose(var, 0.9, rtol=1e-6)


def test_gradients_that_are_not_contiguous(crew, monkeypatch):
    monkeypatch.setattr(distributed, "SMALL", 1)

    class Turned(minicnn.autograd.Function):
        def forward(self, x):
            return x.copy()

        def backward(self, dy):
            return Tensor(np.asfortranarray(np.arange(6.0).reshape(2, 3)))

    def work(workers, kind):
        net = nn.Sequential(nn.Linear(3, 2))
        net.w = nn.Parameter(np.zeros((2, 3)))
        parallel = kind(net, workers)
        optimizer = optim.SGD(net.parameters(), 1.0)
        with parallel.step(1) as step:
            step.backward(minicnn.apply(Turned(), net.w).sum())
        parallel.update(optimizer)
        return net.w.numpy().copy()

    for kind in KINDS:
        for weights in crew(2, work, kind):
            assert_array_equal(weights, -2 * np.arange(6.0).reshape(2, 3))  # the sum of two workers'


# ----------------------------------------------------------------------------------------------------------------------
# several steps
def deep():
    minicnn.random.set_random_state((1, 0))
    return nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2)).astype(np.float64)


def optimizers(net, name):
    if name == "Adam":
        return optim.Adam(net.parameters(), 0.1)
    return optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=0.01)


@pytest.mark.parametrize("small", [1, 100, 200, 1 << 20])  # bytes: no, some or all parameters are sent together
@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.parametrize("kind", KINDS)
def test_steps(crew, monkeypatch, kind, name, small):
    monkeypatch.setattr(distributed, "SMALL", small)
    monkeypatch.setattr(mpi, "SECTION", 80)
    start, made = deep().state_dict(), threading.Lock()

    def run(rows, workers=None):
        with made:
            net = deep()
        net.load_state_dict(start)
        optimizer = optimizers(net, name)
        parallel = kind(net, workers) if workers else None
        for i in range(4):
            x = np.concatenate([rows_of(10 * i + r) for r in rows]).astype(np.float64)
            if parallel is None:
                net.zero_grad()
                F.cross_entropy(net(Tensor(x)), np.zeros(len(x), int)).backward()
                optimizer.step()
            else:
                with parallel.step(2) as step:
                    loss = F.cross_entropy(net(Tensor(x)), np.zeros(2, int))
                    net.zero_grad()
                    step.backward(loss)
                parallel.update(optimizer)
                assert optimizer.only is None
        if parallel:
            parallel.collect(optimizer)
        return {**net.state_dict(), **optimizer.state_dict()}

    expected = run(range(3))
    for found in crew(3, lambda workers: run([workers.rank], workers)):
        assert found.keys() == expected.keys()
        for key, array in expected.items():
            assert_allclose(found[key], array, rtol=1e-12, atol=1e-14)


def test_only_is_reset_after_an_error(crew):
    def work(workers):
        net = deep()
        parallel, optimizer = Sharded(net, workers), optim.SGD(net.parameters(), 0.1)
        optimizer.step = lambda: 1 / 0
        with pytest.raises(ZeroDivisionError):
            parallel.update(optimizer)
        assert optimizer.only is None

    crew(1, work)


def test_an_optimizer_of_some_parameters(crew, monkeypatch):
    """Two optimizers may share a network."""
    monkeypatch.setattr(distributed, "SMALL", 1)

    def work(workers):
        net = deep()
        first = optim.SGD(net[0].parameters(), 0.1, momentum=0.9)
        rest = optim.Adam([p for layer in (net[2], net[4]) for p in layer.parameters()], 0.1)
        parallel = Sharded(net, workers)
        with parallel.step(2) as step:
            step.backward(F.cross_entropy(net(Tensor(rows_of(0).astype(np.float64))), np.zeros(2, int)))
        for optimizer in first, rest:
            parallel.update(optimizer)
            parallel.collect(optimizer)
        return [*net.state_dict().values(), *first.state_dict().values(), *rest.state_dict().values()]

    one, two = crew(2, work)
    for a, b in zip(one, two, strict=True):
        assert_array_equal(a, b)


# ----------------------------------------------------------------------------------------------------------------------
# what is sent, and when
class Spy:
    """A channel that notes what it is given."""

    def __init__(self, log):
        self.log = log

    def all_reduce(self, arrays):
        self.log.append([array.size for array in arrays])

    def reduce_scatter(self, array):
        self.log.append(("scatter", array.size))
        return [(slice(0, array.size), array)]

    def all_gather(self, array):
        self.log.append(("gather", array.size))

    def wait(self):
        self.log.append("wait")
        time.sleep(0.01)


class Alone(Workers):
    def __init__(self):
        self.log = []

    def channel(self, device):
        self.log.append(device)
        return Spy(self.log)


def test_buckets_go_out_in_the_order_of_the_backward_pass(monkeypatch):
    """While it still runs: those of the last layers before the first layers' gradients are there."""
    monkeypatch.setattr(distributed, "SMALL", 8 * 18)
    workers, net = Alone(), deep()  # of 21, 7, 35, 5, 10 and 2 numbers
    parallel = DataParallel(net, workers)
    assert [[p.size for p in bucket] for bucket in parallel.buckets] == [[2, 10, 5], [35], [7], [21]]
    assert parallel.waited == 0
    net[0].weight.register_post_accumulate_grad_hook(lambda p: workers.log.append("last"))
    with parallel.step(2) as step:
        step.backward(net(Tensor(rows_of(0).astype(np.float64))).sum())
        workers.log.append("backward is done")
    assert workers.log[0] == "cpu" and workers.log[-2:] == ["backward is done", "wait"]
    assert [entry for entry in workers.log if isinstance(entry, list)] == [[2, 10, 5], [35], [7], [21]]
    assert workers.log.index([35]) < workers.log.index("last")
    assert 0.01 <= parallel.waited < 5
    before = parallel.waited
    net.zero_grad()
    with parallel.step(2) as step:
        step.backward(net(Tensor(rows_of(0).astype(np.float64))).sum())
    assert before + 0.01 <= parallel.waited < before + 5


def test_sharded_sends_the_large_ones_in_parts(monkeypatch):
    monkeypatch.setattr(distributed, "SMALL", 8 * 21)
    workers, net = Alone(), deep()
    parallel, optimizer = Sharded(net, workers), optim.Adam(net.parameters(), 0.1)
    with parallel.step(2) as step:
        step.backward(net(Tensor(rows_of(0).astype(np.float64))).sum())
    assert workers.log[1:] == [[2, 10, 5], ("scatter", 35), [7], ("scatter", 21), "wait"]
    workers.log.clear()
    parallel.update(optimizer)
    assert workers.log == [("gather", 35), ("gather", 21), "wait"]
    workers.log.clear()
    parallel.collect(optimizer)
    assert workers.log == [("gather", 35)] * 2 + [("gather", 21)] * 2 + ["wait"]


def test_buckets():
    def bucket(*params):
        return distributed._buckets([nn.Parameter(np.zeros(n, dtype)) for n, dtype in params])

    f, d, limit = np.float32, np.float64, distributed.SMALL // 4
    assert distributed.SMALL == 1 << 20
    sizes = [[p.size for p in group] for group in bucket((1, f), (2, f), (3, d), (4, d), (5, f))]
    assert sizes == [[5], [4, 3], [2, 1]]
    assert [len(group) for group in bucket((limit - 2, f), (1, f))] == [2]
    assert [len(group) for group in bucket((limit - 1, f), (1, f))] == [1, 1]
    assert [len(group) for group in bucket((1, f), (limit - 1, f), (1, f), (1, f))] == [2, 1, 1]
    assert bucket() == []


def test_limit_of_what_is_small():
    workers = Alone()
    for length, kind in ((distributed.SMALL // 4, "scatter"), (distributed.SMALL // 4 - 1, None)):
        net = nn.Module()
        net.w = nn.Parameter(np.zeros(length, np.float32))
        parallel = Sharded(net, workers)
        workers.log.clear()
        with parallel.step(1) as step:
            step.backward(net.w.sum())
        assert (workers.log[0] == (kind, length)) if kind else (workers.log[0] == [length])


def test_one_process_needs_no_mpi():
    net, x = nn.Linear(3, 2), rows_of(0)
    for kind in KINDS:
        parallel, optimizer = kind(net, Workers()), optim.SGD(net.parameters(), 0.1)
        before = net.weight.numpy().copy()
        with parallel.step(2) as step:
            net.zero_grad()
            step.backward(net(Tensor(x)).sum())
        parallel.update(optimizer)
        parallel.collect(optimizer)
        assert_allclose(before - net.weight.data, 0.1 * net.weight.grad.data, rtol=1e-5)


def test_what_is_no_network_and_no_worker():
    net = nn.Linear(2, 1)
    with refuses(TypeError, "DataParallel: net must be a Module, not 3"):
        DataParallel(3, Workers())
    with refuses(TypeError, "DataParallel: workers must be a Workers, not 'a'"):
        DataParallel(net, "a")
