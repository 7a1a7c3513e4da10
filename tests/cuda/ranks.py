"""Checks of several processes with a GPU each: rank r has gpu:r.

    mpiexec -n 2 python tests/cuda/ranks.py exchanges,training           on the stand-in for CuPy
    mpiexec -n 2 python tests/cuda/ranks.py exchanges,training cuda      on real GPUs

A check that fails ends all processes with an exception; after the last one a line says that all are done."""

import contextlib
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import standin

import minicnn
from minicnn import DeviceError, Tensor, distributed, nn, optim
from minicnn import functional as F
from minicnn.backends import devices


def arrays(workers, device):
    """All exchanges of Workers, of arrays there, and back on the host."""
    found = []
    with devices.on_device(device):
        for dtype in (np.float32, np.float64, np.int64):
            x = devices.to_device((np.arange(24).reshape(2, 3, 4) % 5 + workers.rank).astype(dtype), device)
            y = x.copy()
            workers.all_reduce(y)
            z = x.copy()
            workers.broadcast(z)
            found += [y, z]
            for axis in (0, 1, -1):
                own = devices.to_device(
                    np.arange(12 * (workers.rank + 1), dtype=dtype).reshape(
                        np.insert([3, 4], axis % 3, workers.rank + 1)
                    ),
                    device,
                )
                whole, lengths = workers.all_gather(own, axis)
                assert lengths == [rank + 1 for rank in range(workers.size)]
                found.append(whole)
                length = x.shape[axis]
                lengths = [length, *[0] * (workers.size - 2), 0] if length < workers.size else [1] * workers.size
                lengths[-1] += length - sum(lengths)
                found.append(workers.reduce_scatter(x, lengths, axis))
            turned = devices.to_device(np.arange(6, dtype=dtype).reshape(2, 3) * (workers.rank + 1), device).T
            found.append(workers.all_gather(turned, 0)[0])
            found.append(workers.reduce_scatter(turned, [1] * (workers.size - 1) + [4 - workers.size], 0))
    assert {devices.device_of(array) for array in found} == {device}
    return [devices.to_device(array, "cpu") for array in found]


def exchanges(workers, gpu):
    for here, there in zip(arrays(workers, "cpu"), arrays(workers, gpu), strict=True):
        assert here.dtype == there.dtype
        np.testing.assert_array_equal(there, here)


def gradients(workers, gpu):
    """Of the exchange functions, by both ways."""
    found = {}
    for device in ("cpu", gpu):
        rng = np.random.default_rng(workers.rank)
        x = Tensor(rng.standard_normal((3, 2 * workers.size)), requires_grad=True, device=device)
        weights = [
            Tensor(rng.standard_normal((3, n)), device=device) for n in (2 * workers.size**2, 2, 2 * workers.size)
        ]
        outputs = [
            F.all_gather(x, workers), F.reduce_scatter(x, workers, [2] * workers.size), F.all_reduce(x, workers),
        ]  # fmt: skip
        sum((y * y * w).sum() for y, w in zip(outputs, weights, strict=True)).backward()
        assert x.grad.device == device
        found[device] = [*(y.numpy() for y in outputs), x.grad.numpy()]
    for here, there in zip(found["cpu"], found[gpu], strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-10)


def network():
    minicnn.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten(), nn.Linear(64, 5),
        nn.Linear(5, 2, bias=False),
    )  # fmt: skip


def trained(net, step, update, part, device):
    rank, size = part
    rng = np.random.default_rng(1)
    for _ in range(10):
        images, labels = rng.standard_normal((7, 8, 8, 3)).astype(np.float32), rng.integers(0, 2, 7)
        rows = slice(7 * rank // size, 7 * (rank + 1) // size)
        with step(len(labels[rows])) as current:
            loss = F.cross_entropy(net(Tensor(images[rows], device=device)), labels[rows])
            net.zero_grad()
            current.backward(loss)
        update()
    return [p.numpy() for p in net.parameters()]


def training(workers, gpu):
    """Ten steps, to the weights of a process that is alone."""
    distributed.SMALL = 256  # bytes: the first Linear is cut
    alone = distributed.Workers()
    net = network()
    parallel, optimizer = distributed.DataParallel(net, alone), optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    expected = trained(net, parallel.step, lambda: parallel.update(optimizer), alone.part, "cpu")
    for kind in (distributed.DataParallel, distributed.Sharded):
        net = network().to(gpu)
        if workers.rank:
            for p in net.parameters():
                devices.assign(p.data, np.full(p.shape, 9, np.float32))  # rank 0's are what counts
        parallel, optimizer = kind(net, workers), optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        before = workers.received
        found = trained(net, parallel.step, lambda p=parallel, o=optimizer: p.update(o), workers.part, gpu)
        assert workers.received > before
        for there, here in zip(found, expected, strict=True):
            np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-6)
        all_found = workers.gather([array.tolist() for array in found])
        assert all(one == all_found[0] for one in all_found), "the ranks' weights differ"
        if kind is distributed.Sharded:
            assert parallel.own and len(parallel.own) < len(parallel.params)
            parallel.collect(optimizer)
            states = workers.gather([s.get().tolist() for p in parallel.params for s in optimizer.state[p].values()])
            assert all(state == states[0] for state in states)


def never(workers, gpu):
    """The GPU of rank 1 never ends what NCCL has asked it for."""
    workers.limit = 0.4
    if workers.rank == 1:
        standin.devices.Event.done = False
    channel = workers.channel(gpu)
    channel.all_reduce([devices.to_device(np.zeros(3, np.float32), gpu)])
    channel.wait()
    workers.limit = 0.4 if workers.rank == 1 else 60.0
    time.sleep(30)


def lost(workers, gpu):
    """Rank 1 does not come to a sum that rank 0 waits for."""
    workers.limit = 0.4 if workers.rank == 0 else 60.0
    channel = workers.channel(gpu)
    if workers.rank == 0:
        channel.all_reduce([devices.to_device(np.zeros(3, np.float32), gpu)])
        channel.wait()
    time.sleep(30)


def main():
    check, is_real = sys.argv[1], sys.argv[2:] == ["cuda"]
    with contextlib.nullcontext() if is_real else standin.installed() as machine:
        workers = distributed.start(limit=60)
        if check == "missing":
            machine.reset(gpus=2 if workers.rank else 0)
            machine.status = 0 if workers.rank else 100
            try:
                workers.device("gpu")
            except DeviceError as error:
                if workers.rank == 0:
                    print(error, file=sys.stderr)
                sys.exit(2)
        if not is_real:
            machine.reset(gpus=workers.size)
        gpu = workers.device("gpu")
        assert gpu == f"gpu:{workers.rank}"
        for name in check.split(","):
            globals()[name](workers, gpu)
        finished = workers.gather(workers.rank)
        if workers.rank == 0:  # alone, because lines of two processes may mix
            print(f"{check} by {finished}", flush=True)


if __name__ == "__main__":
    main()
