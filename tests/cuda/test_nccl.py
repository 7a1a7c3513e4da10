"""backends/cuda/nccl.py and what mpi.py does with it, on the stand-in: each rank is a thread here. Processes have
test_nccl_processes.py."""

import gc
import importlib
import re
import subprocess
import sys
import threading
import warnings
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import standin as stand_in
from standin import nccl as stand_in_nccl

from minicnn import mpi
from minicnn.backends import devices
from minicnn.backends.cuda.nccl import DTYPES, Link
from minicnn.backends.devices import DeviceError
from minicnn.mpi import LinkChannel, MPIWorkers


def ranks(size, work):
    """[work(link, xp)] of so many ranks, each a thread with a GPU of its own."""
    meeting, results, errors = stand_in_nccl.Meeting(size), [None] * size, []

    def run(rank):
        try:
            link = Link(stand_in.cupy, rank, rank, size, lambda value: meeting.gather(rank, value)[0])
            with stand_in.cupy.cuda.Device(rank):
                results[rank] = work(link, stand_in.cupy)
        except BaseException as error:
            errors.append(error)
            stand_in_nccl.abort()
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return results


@pytest.fixture
def machine(standin):
    standin.reset(gpus=3)
    return standin


def numbers(rank, count, dtype=np.float32):
    return (np.arange(count) % 7 + 10 * rank + 1).astype(dtype)


# ------------------------------------------------------------------------------------------------------------ the sums
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_sums_are_numpys(machine, size, dtype):
    counts = [4, 0, 3][:size]
    n = sum(counts)
    begins = np.cumsum([0, *counts])

    def work(link, cupy):
        rank = link.rank
        one, two, part = (cupy.asarray(numbers(rank, n, dtype)) for _ in range(3))
        gathered, sent = cupy.empty(n, dtype), cupy.asarray(numbers(rank, n, dtype))
        places = cupy.asarray(numbers(rank, n, dtype))
        link.all_reduce([one, two[:2]])
        own = link.reduce_scatter(part, counts)
        link.all_gather(cupy.asarray(numbers(rank, counts[rank], dtype)), gathered, counts)
        link.all_gather_in_place(places, counts)
        link.broadcast(sent)
        assert link.wait()() is True
        assert own.data.ptr == part[begins[rank] :].data.ptr or not own.size
        return [array.get() for array in (one, two, own, gathered, places, sent)]

    whole = [numbers(rank, n, dtype) for rank in range(size)]
    total = np.sum(whole, 0, dtype)
    for rank, found in enumerate(ranks(size, work)):
        lo, hi = begins[rank], begins[rank + 1]
        expected = [
            total, np.concatenate([total[:2], whole[rank][2:]]), total[lo:hi],
            np.concatenate([numbers(other, count, dtype) for other, count in enumerate(counts)]),
            np.concatenate([whole[other][begins[other] : begins[other + 1]] for other in range(size)]), whole[0],
        ]  # fmt: skip
        for array, right in zip(found, expected, strict=True):
            assert array.dtype == dtype
            np.testing.assert_array_equal(array, right)


def test_int64_by_its_other_name(machine):
    """On Linux, NumPy has two that are int64."""

    def work(link, cupy):
        array = cupy.asarray(np.array([1, 2], np.longlong))
        link.all_reduce([array])
        link.wait()
        return array.get().tolist()

    assert ranks(2, work) == [[2, 4], [2, 4]]


def test_it_is_done_beside_the_computation(machine):
    """The host does not wait, and without wait() the result is not there."""

    def work(link, cupy):
        array, other = cupy.asarray(numbers(link.rank, 3)), cupy.ones(3, np.float32)
        link.all_reduce([array])
        assert link.stream.ptr != 0 and not link.stream.done
        early = (array + other).get()
        link.wait()
        late = (array + other).get()
        return early.tolist(), late.tolist()

    for early, late in ranks(2, work):
        assert np.isnan(early).all() and late == [13, 15, 17]
    assert {entry.name for entry in machine.log.waits} == {"get"}


def test_it_begins_after_what_has_been_computed(machine):
    def work(link, cupy):
        array = cupy.zeros(3, np.float32)
        array += link.rank + 1  # still at work when NCCL is called
        link.all_reduce([array])
        link.wait()
        return array.get().tolist()

    assert ranks(2, work) == [[3, 3, 3]] * 2


def test_all_of_a_call_is_one_group(machine, monkeypatch):
    """Else a rank's first call would wait for the others', for each root or array."""
    said = []
    for name in ("groupStart", "groupEnd"):
        old = getattr(stand_in_nccl, name)
        monkeypatch.setattr(stand_in.cupy.cuda.nccl, name, lambda name=name, old=old: (said.append(name), old()))
    for name in ("allReduce", "reduce", "broadcast"):
        old = getattr(stand_in_nccl.NcclCommunicator, name)
        monkeypatch.setattr(
            stand_in_nccl.NcclCommunicator, name, lambda *args, name=name, old=old: (said.append(name), old(*args))
        )

    def work(link, cupy):
        array = cupy.zeros(3, np.float32)
        link.all_reduce([array[:1], array[1:]])
        link.wait()

    ranks(1, work)
    assert said == ["groupStart", "allReduce", "allReduce", "groupEnd"]


def test_memory_is_held_until_it_is_done(machine):
    def work(link, cupy):
        array = cupy.asarray(numbers(link.rank, 3))
        link.all_reduce([array])
        memory = weakref.ref(array._memory)
        del array
        gc.collect()
        assert memory() is not None
        link.wait()
        gc.collect()
        return memory() is None

    assert ranks(2, work) == [True, True]


def test_whether_nccl_has_finished(machine, monkeypatch):
    def work(link, cupy):
        link.broadcast(cupy.zeros(1, np.float32))
        done = link.wait()
        monkeypatch.setattr(stand_in.devices.Event, "done", False)
        first = done()
        monkeypatch.setattr(stand_in.devices.Event, "done", True)
        return first, done()

    assert ranks(1, work) == [(False, True)]


def test_a_dtype_that_nccl_has_not(machine):
    def work(link, cupy):
        array = cupy.zeros(3, np.float32)
        with pytest.raises(TypeError, match=r"^NCCL exchanges arrays of int8, .*, float64, not of complex64$"):
            link.all_reduce([array, cupy.zeros(3, np.complex64)])
        array.fill(2)
        link.broadcast(array)  # the group has ended
        link.wait()
        return array.get().tolist()

    machine.reset(gpus=3)
    with pytest.raises(stand_in.RaceError):  # what had been asked for before is at work
        ranks(1, work)


def test_the_current_gpu_stays(machine):
    def work(link, cupy):
        with cupy.cuda.Device(2):
            array = cupy.zeros(3, np.float32)
        with cupy.cuda.Device(0):
            with pytest.raises(ValueError, match=r"current"):
                array + 1
            return cupy.cuda.runtime.getDevice(), link.gpu.id, link.communicator.device, link.stream.device_id

    assert ranks(3, work) == [(0, rank, rank, rank) for rank in range(3)]


def test_one_gpu_alone(gpu):
    """As a real GPU can do it: it needs no other."""
    pytest.importorskip("cupy.cuda.nccl")
    if not gpu.cuda.nccl.available:
        pytest.skip("NCCL is not installed")
    link = devices.link("gpu", 0, 1, lambda key: key)
    for dtype in DTYPES:
        with devices.on_device("gpu"):
            x, whole = gpu.asarray(numbers(0, 5, dtype)), gpu.zeros(5, dtype)
            link.all_reduce([x])
            link.wait()
            own = link.reduce_scatter(x, [5])
            link.wait()
            link.broadcast(own)
            link.wait()
            link.all_gather(own, whole, [5])
            done = link.wait()
            assert whole.get().tolist() == numbers(0, 5, dtype).tolist() and done() is True


# ------------------------------------------------------------------------------------------------- what can be missing
def test_nccl_is_not_installed(machine, monkeypatch):
    def found(name):
        warnings.warn(f"{name} could not be loaded", stacklevel=1)  # which is an error in tests
        return SimpleNamespace(available=False)

    monkeypatch.setattr(importlib, "import_module", found)
    machine.runtime, filters = 13000, list(warnings.filters)
    with pytest.raises(DeviceError) as caught:
        Link(stand_in.cupy, 1, 2, 3, lambda key: pytest.fail("the others do not come to this"))
    assert warnings.filters == filters
    assert str(caught.value) == (
        "gpu:1 of rank 2 cannot be connected with the other ranks' by NCCL: it is not installed: "
        "pip install nvidia-nccl-cu13"
    )


def test_cupys_own_module_is_found_or_missed_in_one_line():
    """Without the library it warns in ten lines, and has nothing in it."""
    pytest.importorskip("cupy", reason="CuPy is not installed")
    code = """
import cupy
from minicnn.backends.cuda import nccl
try:
    print(nccl._import_nccl(cupy).available)
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"True|it is not installed: pip install nvidia-nccl-cu1[23]", done.stdout.strip()), done.stdout
    assert not done.stderr


def test_nccl_fails(machine):
    machine.libraries["NCCL"] = stand_in_nccl.NcclError(5)
    with pytest.raises(
        DeviceError, match=r"^gpu:0 of rank 0 cannot be .*NCCL: NCCL_ERROR_INVALID_USAGE: invalid .*\)$"
    ):
        Link(stand_in.cupy, 0, 0, 1, lambda key: key)


def test_only_rank_0_makes_the_key(machine, monkeypatch):
    made, said = [], []
    monkeypatch.setattr(stand_in.cupy.cuda.nccl, "get_unique_id", lambda: made.append(1) or b"k" * 128)
    monkeypatch.setattr(stand_in.cupy.cuda.nccl, "NcclCommunicator", lambda *args: args)
    for rank in range(2):
        link = Link(stand_in.cupy, 0, rank, 2, lambda key: said.append(key) or b"key of rank 0")
        assert link.communicator == (2, b"key of rank 0", rank)
    assert made == [1] and said == [b"k" * 128, None]


# -------------------------------------------------------------------------------------------------------------- mpi.py
class Watch:
    def __init__(self):
        self.depth, self.until_of = 0, []

    def __enter__(self):
        self.depth += 1

    def __exit__(self, *error):
        self.depth -= 1

    def until(self, done):
        self.until_of.append(done)


class FakeLink:
    def __init__(self, watch):
        self.watch, self.calls = watch, []

    def _note(self, name, *args):
        assert self.watch.depth == 1, "nobody looks at the clock"
        self.calls.append((name, *args))

    def all_reduce(self, arrays):
        self._note("all_reduce", [array.shape for array in arrays], [array.base is not None for array in arrays])

    def reduce_scatter(self, array, counts):
        self._note("reduce_scatter", array.shape, counts)
        return array[2:5]

    def all_gather_in_place(self, array, counts):
        self._note("all_gather_in_place", array.shape, counts)

    def wait(self):
        self._note("wait")
        return "done"


def test_a_channel_of_gpus():
    watch = Watch()
    link, counted, asked = FakeLink(watch), [], []
    workers = SimpleNamespace(
        rank=1, size=3, watch=watch, count=counted.append, link=lambda device: asked.append(device) or link
    )
    channel = LinkChannel(workers, "gpu:1")
    assert asked == ["gpu:1"]
    x = np.zeros((2, 4), np.float32)
    assert channel.all_reduce([x, x[1]]) is None
    flat = np.arange(8.0)
    ((place, own),) = channel.reduce_scatter(flat)
    channel.all_gather(flat)
    channel.wait()
    assert place == slice(2, 5) and own.tolist() == [2, 3, 4]
    assert link.calls == [
        ("all_reduce", [(8,), (4,)], [True, True]), ("reduce_scatter", (8,), [2, 3, 3]),
        ("all_gather_in_place", (8,), [2, 3, 3]), ("wait",),
    ]  # fmt: skip
    assert counted == [2 * 48, 64, 64] and watch.until_of == ["done"] and watch.depth == 0
    with pytest.raises(ValueError, match=r"contiguous"):
        channel.all_reduce([x.T])


def mpi_workers(rank, machine_rank=0, size=2, gathered=lambda value: [value]):
    """MPIWorkers without MPI."""
    workers = object.__new__(MPIWorkers)
    workers.rank, workers.size, workers.machine, workers.links = rank, size, SimpleNamespace(rank=machine_rank), {}
    workers.watch, workers.gather = Watch(), gathered
    return workers


def test_which_gpu(machine):
    assert devices.count("gpu") == 3 and not devices.opened
    assert [mpi_workers(5, there).device("gpu") for there in range(3)] == ["gpu:0", "gpu:1", "gpu:2"]
    assert mpi_workers(5, 1).device("cpu") == "cpu" and mpi_workers(5, 1).device("gpu:7") == "gpu:7"
    machine.reset(gpus=2)
    assert mpi_workers(5, 1).device("gpu") == "gpu:1"
    machine.reset(gpus=1)
    assert devices.count("gpu") == 1 and mpi_workers(5, 1).device("gpu") == "gpu:0"


def test_a_gpu_that_is_missing_is_an_error_of_all(machine):
    with pytest.raises(DeviceError, match=r"^rank 5: device 'gpu:3': there are 3 GPUs, numbered from 0$"):
        mpi_workers(5, 3).device("gpu")
    with pytest.raises(DeviceError, match=r"^rank 1: no driver$"):
        mpi_workers(0, gathered=lambda own: [own, "rank 1: no driver", "rank 2: no driver"]).device("gpu")
    machine.status = 100
    with pytest.raises(DeviceError, match=r"^rank 1: device 'gpu': the driver sees no GPU"):
        mpi_workers(1).device("gpu")


def test_a_connection_is_made_once(machine, monkeypatch):
    asked = []

    def link(device, rank, size, decided):
        assert workers.watch.depth == 1
        asked.append((device, rank, size, decided("key")))
        return FakeLink(workers.watch)

    monkeypatch.setattr(devices, "link", link)
    workers = mpi_workers(1, size=3)
    workers.comm = SimpleNamespace(allgather=lambda value: [f"{value} of rank 0", value, value])
    assert workers.link("gpu:1") is workers.link("gpu:1") is workers.channel("gpu:1").link
    assert asked == [("gpu:1", 1, 3, "key of rank 0")]


def test_calls_are_watched():
    workers = mpi_workers(0)
    workers.links["cpu"], workers.received = FakeLink(workers.watch), 0.0
    workers.all_reduce(np.zeros((2, 3)))
    assert workers.links["cpu"].calls == [("all_reduce", [(6,)], [True]), ("wait",)]
    assert workers.watch.until_of == ["done"] and workers.watch.depth == 0


def test_what_has_finished_is_no_longer_watched(monkeypatch):
    """All of it at the next look; and what comes meanwhile is not lost."""

    class Limit(list):  # of one look
        limit = property(lambda self: self.pop())

    def never():
        return False

    def finished():
        watch.until(never)
        return True

    monkeypatch.setattr(mpi, "sleep", lambda seconds: None)
    watch = object.__new__(mpi.Watch)
    watch.workers, watch.inside, watch.later, watch.now = Limit([60.0] * 2), {}, [], 0.0
    for done in (never, finished, finished, never):
        watch.later.append((0.0, done))
    with pytest.raises(IndexError):
        watch._look()
    assert [done for _, done in watch.later] == [never] * 4


def test_the_channel_and_the_calls_share_it(machine):
    workers = mpi_workers(0, size=1)
    workers.comm, workers.received = SimpleNamespace(allgather=lambda value: [value]), 0.0
    x = devices.to_device(np.arange(6, dtype=np.float32).reshape(2, 3), "gpu:1")
    workers.all_reduce(x)
    assert list(workers.links) == ["gpu:1"] and isinstance(workers.channel("gpu:1").link, Link)
    assert workers.links["gpu:1"].gpu.id == 1 and workers.watch.until_of[0]() is True and workers.watch.depth == 0
    assert x.get().tolist() == [[0, 1, 2], [3, 4, 5]]


# ---------------------------------------------------------------------------------------------------- the stand-in's own
def test_the_stand_in_finds_what_nccl_would_not_say(machine):
    def different(link, cupy):
        array = cupy.zeros(3 + link.rank, np.float32)
        link.all_reduce([array])
        link.wait()

    with pytest.raises(stand_in_nccl.MismatchError, match=r"allReduce.*3.*allReduce.*4"):
        ranks(2, different)

    def written(link, cupy):
        array = cupy.zeros(3, np.float32)
        link.all_reduce([array])
        array.fill(1)
        link.wait()

    with pytest.raises(stand_in.RaceError, match=r"written to while NCCL works"):
        ranks(1, written)

    def late(link, cupy):
        array = cupy.zeros(3, np.float32)
        stand_in_nccl.NcclCommunicator.allReduce(
            link.communicator, array.data.ptr, array.data.ptr, 3, 7, 0, link.stream.ptr
        )

    with pytest.raises(stand_in.RaceError, match=r"wait_event"):
        ranks(1, late)


@pytest.mark.parametrize(("arguments", "status"), [((3, 9, 0, 0), 4), ((3, 7, 1, 0), 4), ((3, 7, 0, 1), 4)])
def test_the_stand_in_refuses(machine, arguments, status):
    def work(link, cupy):
        array = cupy.zeros(3, np.float32)
        place = array.data.ptr
        with pytest.raises(stand_in_nccl.NcclError, match=r"INVALID_ARGUMENT"):
            link.communicator.reduce(place, place, *arguments, link.stream.ptr)

    ranks(1, work)
