"""Workers that MPI connects: the real one, under mpiexec, and its parts and mistakes in a crew of threads."""

import contextlib
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace

import crew as crews
import numpy as np
import pytest
from crew import crew
from launch import SIZES, checks_of, mpiexec, needs_mpi, passes
from numpy.testing import assert_array_equal
from reference import refuses

from minicnn import mpi
from minicnn.backends import devices
from minicnn.workers import Workers, WorkersError

__all__ = ["crew"]
VARIABLES = mpi.SIZES


# ----------------------------------------------------------------------------------------------------------------------
# under mpiexec
@needs_mpi
@pytest.mark.parametrize("name", checks_of("exchanges.py"))
@pytest.mark.parametrize("size", SIZES)
def test_exchanges_under_mpiexec(size, name):
    passes(size, name)


ENDS = {  # what happens to a worker, and what the program says
    "raises": "ValueError: this is what went wrong",
    "memory": "MemoryError: no memory left for this test",
    "thread": "ValueError: this is what went wrong",
    "interrupted": "KeyboardInterrupt",
    "killed": "",  # MPICH's own words, or Open MPI's
    "exits": "has waited 1 s for the other workers",
    "fails": "this program says why",
    "stopped": "rank 0 has waited 1 s for the other workers",
    "sleeps": "rank 0 has waited 1 s for the other workers",
}


@pytest.fixture(scope="module")
def ends():
    """The results of ends.py. Most of the time these programs wait, so several run at a time."""
    with ThreadPoolExecutor(3) as pool:
        ways = "slow", *ENDS
        return dict(zip(ways, pool.map(lambda how: mpiexec(2, "ends.py", how), ways), strict=True))


@needs_mpi
@pytest.mark.parametrize("how", ENDS)
def test_a_lost_worker_ends_all_under_mpiexec(ends, how):
    result = ends[how]
    assert result.status and ENDS[how] in result.err and "is done" not in result.out
    assert result.seconds < 30


@needs_mpi
def test_a_slow_worker_does_not_under_mpiexec(ends):
    result = ends["slow"]
    assert (result.status, result.err) == (0, "")
    assert "rank 0 is done" in result.out and "rank 1 is done" in result.out


# ----------------------------------------------------------------------------------------------------------------------
# the launcher
@pytest.mark.parametrize(
    ("said", "size"),
    [
        ({}, 1),
        ({"PMI_SIZE": "4", "PMI_RANK": "0"}, 4),
        ({"OMPI_COMM_WORLD_SIZE": "3", "PMIX_RANK": "0"}, 3),
        ({"PMI_RANK": "0", "SLURM_STEP_NUM_TASKS": "8"}, 8),
        ({"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "8"}, 8),
        ({"SLURM_STEP_NUM_TASKS": "8"}, 8),  # srun without --mpi
        ({"PMI_RANK": "0"}, 1),
        ({"PMI_SIZE": "1", "OMPI_COMM_WORLD_SIZE": "2"}, 2),
        ({"PMI_SIZE": "many"}, 1),
    ],
)
def test_how_many_a_launcher_has_started(monkeypatch, said, size):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert mpi.launched() == size


def pretend(monkeypatch, size, found=None, level=3):
    """A launcher says that it has started so many; mpi4py, if it is there, finds `found`."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", str(size))
    module = ModuleType("mpi4py")
    if found is not None:
        module.MPI = SimpleNamespace(
            COMM_WORLD=SimpleNamespace(size=found), Get_library_version=lambda: "Some  MPI\tv5\nand its options",
            Query_thread=lambda: level, THREAD_MULTIPLE=3,
        )  # fmt: skip
    monkeypatch.setitem(sys.modules, "mpi4py", module)


def test_mpi4py_is_missing(monkeypatch):
    pretend(monkeypatch, 4)
    with refuses(ImportError, "has started 4 processes", "pip install mpi4py mpich", "cannot import name 'MPI'"):
        mpi.connect()


def test_another_library_than_the_launchers(monkeypatch):
    pretend(monkeypatch, 4, found=1)
    with refuses(WorkersError, "has started 4 processes", "mpi4py finds 1", "uses Some MPI v5, and the launcher"):
        mpi.connect()


def test_connect(monkeypatch):
    pretend(monkeypatch, 4, found=4)
    monkeypatch.setattr(mpi, "MPIWorkers", lambda comm: ("workers of", comm.size))
    assert mpi.connect() == ("workers of", 4)


def test_mpi_for_one_thread_only(monkeypatch):
    pretend(monkeypatch, 4, found=4, level=2)
    with refuses(WorkersError, "for calls from one thread only: leave mpi4py.rc.thread_level as it is"):
        mpi.connect()


# ----------------------------------------------------------------------------------------------------------------------
# in a crew of threads
def test_collective_calls(crew):
    def work(workers):
        rank, results = workers.rank, []
        a = np.arange(6.0) + rank
        workers.all_reduce(a)
        b = np.arange(6.0).reshape(2, 3) * (rank + 1)
        workers.broadcast(b)
        workers.limit = 5.0
        results += [a, b, *workers.all_gather(np.full((2, rank), rank), 1)]
        results += [workers.all_gather(np.full((rank, 2), rank))[0]]
        assert_array_equal(workers.all_gather(np.full((2, 2, rank), rank), -1)[0], np.full((2, 2, 3), [1, 2, 2]))
        assert_array_equal(workers.all_gather(np.arange(4)[::2])[0], [0, 2] * 3)
        assert not workers.watch.later
        results += [workers.reduce_scatter(np.arange(8.0).reshape(2, 4), [1, 0, 3], 1)]
        results += [workers.reduce_scatter(np.arange(8.0).reshape(4, 2), [1, 0, 3])]
        results += [workers.gather(rank), workers.decided({"rank": rank}), workers.part]
        return results

    for rank, (a, b, c, lengths, d, e, f, ranks, decided, part) in enumerate(crew(3, work)):
        assert_array_equal(a, 3 * np.arange(6.0) + 3)
        assert_array_equal(b, np.arange(6.0).reshape(2, 3))
        assert_array_equal(c, [[1, 2, 2]] * 2)
        assert lengths == [0, 1, 2]
        assert_array_equal(d, [[1, 1], [2, 2], [2, 2]])
        assert_array_equal(e, 3 * np.split(np.arange(8.0).reshape(2, 4), [1, 1], 1)[rank])
        assert_array_equal(f, 3 * np.split(np.arange(8.0).reshape(4, 2), [1, 1])[rank])
        assert ranks == [0, 1, 2] and decided == {"rank": 0} and part == (rank, 3)


def test_received_bytes(crew):
    def work(workers):
        channel, counts = workers.channel("cpu"), []
        for call in (
            lambda: workers.all_reduce(np.ones(6)),
            lambda: workers.broadcast(np.ones(6)),
            lambda: workers.all_gather(np.ones(2)),
            lambda: workers.reduce_scatter(np.ones(6), [2, 2, 2]),
            lambda: workers.gather("text"),
            lambda: channel.all_reduce([np.ones(5), np.ones(1)]),
            lambda: channel.reduce_scatter(np.ones(6)),
            lambda: channel.all_gather(np.ones(6)),
        ):
            before = workers.received
            call()
            channel.wait()
            counts.append(workers.received - before)
        return counts

    for counts in crew(3, work):
        assert counts == [64, 32, 32, 32, 0, 64, 32, 32]


@pytest.mark.parametrize("vendor", ["MPICH", "Open MPI"])
def test_a_channel(crew, monkeypatch, vendor):
    """It asks after non-blocking calls, of which mpi4py does not hold the arrays; with Open MPI its calls block."""
    monkeypatch.setattr(crews.MPI, "get_vendor", lambda: (vendor, (5, 0, 0)))
    monkeypatch.setattr(mpi, "PIECE", 40)
    monkeypatch.setattr(mpi, "SECTION", 56)
    monkeypatch.setattr(mpi, "AT_ONCE", 2)
    made, looks, make, wait = [], [], crews.Request.__init__, mpi.sleep
    at_once = []

    def begin(self, *call):
        make(self, *call)
        made.append(self)
        at_once.append(sum(r.thread == self.thread and not r.finished for r in list(made)))

    monkeypatch.setattr(crews.Request, "__init__", begin)
    monkeypatch.setattr(mpi, "sleep", lambda seconds: looks.append(seconds) if seconds == mpi.NAP else wait(seconds))
    pieces = []
    for name in "Allreduce", "Reduce_scatter", "Allgatherv":
        call = getattr(crews.Comm, name)
        monkeypatch.setattr(
            crews.Comm,
            name,
            lambda self, place, array, *counts, call=call: pieces.append(array) or call(self, place, array, *counts),
        )

    def work(workers):
        channel = workers.channel("cpu")
        one, several, cut = np.arange(17.0), [np.arange(3.0), np.arange(8.0).reshape(2, 4)], np.arange(17.0)
        channel.all_reduce([one])
        channel.all_reduce(several)
        parts = channel.reduce_scatter(cut)
        channel.wait()
        mine, whole = np.zeros(17), np.full(17, -5.0)
        for place, part in parts:
            mine[place] = part
            whole[place] = part
        channel.all_gather(whole)
        channel.wait()
        return one, *several, mine, whole

    results = crew(3, work)
    for one, first, second, _, whole in results:
        assert_array_equal(one, 3 * np.arange(17.0))
        assert_array_equal(first, 3 * np.arange(3.0))
        assert_array_equal(second, 3 * np.arange(8.0).reshape(2, 4))
        assert_array_equal(whole, 3 * np.arange(17.0))
    assert_array_equal(sum(result[3] for result in results), 3 * np.arange(17.0))
    assert all(4 <= np.count_nonzero(result[3]) <= 7 for result in results)
    assert max(at_once, default=2) == 2
    assert len(made) == looks.count(mpi.NAP) == (len(pieces) if vendor == "MPICH" else 0)
    assert max(len(piece) for piece in pieces if isinstance(piece, np.ndarray)) == (7 if vendor == "MPICH" else 5)
    assert {len(piece) for piece in pieces[:3]} == {7 if vendor == "MPICH" else 5}


def test_a_channels_error(crew):
    def work(workers):
        channel = workers.channel("cpu")
        channel.calls.put(lambda: 1 / 0)
        with refuses(WorkersError, "the workers' sums failed: division by zero"):
            channel.wait()

    crew(2, work)


def test_a_channel_holds_no_array_that_is_done(crew):
    def work(workers):
        channel, array = workers.channel("cpu"), np.ones(9)
        channel.all_reduce([array])
        held, begin = weakref.ref(array), time.monotonic()
        del array
        while held() is not None and time.monotonic() < begin + 5:
            time.sleep(0.01)
        return held()

    assert crew(1, work) == [None]


def test_small_arrays_are_sent_as_one(crew):
    """And one alone is not copied."""

    def work(workers):
        channel, sent, arrays = workers.channel("cpu"), [], [np.ones(2), np.ones((2, 2))]
        channel._call = lambda name, calls: sent.extend(section for _, section in calls)
        channel.all_reduce(arrays)
        channel.all_reduce(arrays[1:])
        channel.wait()
        assert [array.shape for array in sent] == [(6,), (4,)] and np.shares_memory(sent[1], arrays[1])

    crew(1, work)


def test_arrays_are_made_where_theirs_are(crew, monkeypatch):
    inside, asked = [], []

    @contextlib.contextmanager
    def on_device_of(array):
        asked.append(array)
        inside.append(array)
        yield
        inside.pop()

    monkeypatch.setattr(devices, "on_device_of", on_device_of)

    def work(workers):
        for name in "all_gather", "reduce_scatter":
            call = getattr(workers.links["cpu"], name)
            monkeypatch.setattr(
                workers.links["cpu"],
                name,
                lambda *args, call=call: asked.append(len(inside)) or call(*args),
                raising=False,
            )
        x, y = np.ones(2), np.ones(3)
        workers.all_gather(x)
        workers.reduce_scatter(y, [3])
        assert [asked[0] is x, asked[1], asked[2] is y, asked[3]] == [True, 1, True, 1]

    crew(1, work)


def test_threads_end_with_the_program(crew):
    def work(workers):
        workers.channel("cpu")
        return {thread.name: thread.daemon for thread in threading.enumerate() if thread.name.startswith("minicnn-")}

    (found,) = crew(1, work)
    assert found["minicnn-mpi"] is True and found["minicnn-watch"] is True


def test_the_start_is_watched(crew, monkeypatch):
    made, seen = [], []
    split = crews.Comm.Split_type

    class Noted(crews.Watch):
        def __init__(self, workers):
            made.append(self)
            super().__init__(workers)

    monkeypatch.setattr(mpi, "Watch", Noted)
    monkeypatch.setattr(
        crews.Comm, "Split_type", lambda self, kind: seen.append(len(made[0].inside)) or split(self, kind)
    )
    crew(1, lambda workers: None)
    assert seen == [1] and not made[0].inside


def test_what_is_not_contiguous(crew):
    def work(workers):
        with refuses(ValueError, "contiguous arrays", "(3, 2)", "copy it"):
            workers.all_reduce(np.ones((2, 3)).T)

    crew(1, work)


def test_device(crew, monkeypatch):
    def work(workers):
        return [workers.device(name) for name in ("cpu", "gpu", "gpu:3")]

    monkeypatch.setattr(devices, "open_device", lambda name: name)
    for count in 2, 1:
        monkeypatch.setattr(devices, "count", lambda kind, n=count: {"gpu": n}[kind])
        assert crew(2, work) == [["cpu", "gpu:0", "gpu:3"], ["cpu", f"gpu:{count - 1}", "gpu:3"]]


@pytest.mark.parametrize(
    ("own", "threads"),
    [
        ([[0, 1, 2, 3]] * 3, [1, 1, 1]),
        ([[0, 1, 2, 3]] * 2, [2, 2]),
        ([[0, 1], [2, 3], [2, 3]], [2, 1, 1]),  # bound to cores of their own, or not
        ([[0]] * 2, [1, 1]),
    ],
)
def test_threads(crew, monkeypatch, own, threads):
    monkeypatch.setattr(mpi, "cores", lambda: own[int(threading.current_thread().name.split()[1])])
    assert crew(len(own), lambda workers: workers.threads()) == threads


def test_channels_by_device(crew, monkeypatch):
    monkeypatch.setattr(mpi, "LinkChannel", lambda workers, device: device)
    assert crew(1, lambda workers: workers.channel("gpu:1")) == ["gpu:1"]


def test_a_link_is_made_at_the_first_use(crew, monkeypatch):
    made, waits = [], []

    class Link:
        def all_reduce(self, arrays):
            arrays[0][...] = 7

        def wait(self):
            return lambda: waits.append(1) or True

    monkeypatch.setattr(devices, "device_of", lambda array: "gpu:1")
    monkeypatch.setattr(devices, "link", lambda *arguments: made.append(arguments) or Link())

    def work(workers):
        array = np.zeros(3)
        workers.all_reduce(array)
        workers.all_reduce(array)
        ((*who, decided),) = made
        assert who == ["gpu:1", 0, 1] and decided("key") == "key" and waits == [1, 1]
        assert workers.links["gpu:1"] and workers.links["cpu"]
        return array

    assert_array_equal(crew(1, work)[0], [7] * 3)


# ----------------------------------------------------------------------------------------------------------------------
# the end
def test_an_exception_ends_all(crew, capsys, monkeypatch):
    said, slept, wait, here = [], [], mpi.sleep, threading.current_thread()
    monkeypatch.setattr(sys, "excepthook", lambda *error: said.append(error))
    monkeypatch.setattr(threading, "excepthook", lambda arguments: said.append(arguments))
    monkeypatch.setattr(
        mpi, "sleep", lambda s: slept.append((s, len(said))) if threading.current_thread() is here else wait(s)
    )
    crew(1, lambda workers: None)
    aborted, errors = crew.comms[0].hub.aborted, [(kind, kind("no"), None) for kind in (ValueError, KeyboardInterrupt)]
    for error in errors:
        sys.excepthook(*error)
        threading.excepthook(SimpleNamespace(exc_type=error[0]))
    assert said[::2] == errors and [arguments.exc_type for arguments in said[1::2]] == [ValueError, KeyboardInterrupt]
    assert aborted == [(0, 1), (0, 1), (0, 130), (0, 130)]
    # rank 0 says at once what all may have to say, and each waits until the launcher has read it
    assert slept == [(0, 0), (0.2, 1), (0, 1), (0.2, 2), (0, 2), (0.2, 3), (0, 3), (0.2, 4)]
    assert capsys.readouterr() == ("", "(this is rank 0)\n" * 4)
    for rank in 1, 2:
        crew.workers[0].rank = rank
        sys.excepthook(*errors[0])
        assert slept[-2:] == [(1, 3 + rank), (0.2, 4 + rank)]
        assert capsys.readouterr().err == f"(this is rank {rank})\n"


def test_what_the_watch_says_at_the_end_of_a_program(crew):
    crew(1, lambda workers: None)
    (workers,) = crew.workers
    assert workers.watch._message(3.0).startswith("rank 0 has waited 3 s for the other workers")
    workers._leave(crew.comms[0])
    workers.advice = lambda: "; go on"
    message = "the program of rank 0 has ended, and 3 s later those of others have not (the limit is 600 s); go on"
    assert workers.watch._message(3.0) == message


def test_the_watchs_clock_stands_still_while_the_process_does(monkeypatch):
    """A nap that takes four times as long is a busy machine, a longer one is a process that was stopped."""
    clock, naps = [0.0], iter([0.25, 0.5, 100.0, 0.3])

    def sleep(seconds):
        assert seconds == 0.25
        clock[0] += next(naps)

    monkeypatch.setattr(mpi, "sleep", sleep)
    monkeypatch.setattr(mpi, "monotonic", lambda: clock[0])
    watch = object.__new__(mpi.Watch)
    watch.workers, watch.inside, watch.later, watch.now = SimpleNamespace(limit=60.0), {}, [], 0.0
    with pytest.raises(StopIteration):  # the naps are over
        watch._look()
    assert watch.now == pytest.approx(0.25 + 0.5 + 1.0 + 0.3)


def test_abort(crew, capsys, monkeypatch):
    crew(1, lambda workers: None)
    (workers,), slept, wait, aborted = crew.workers, [], mpi.sleep, crew.comms[0].hub.aborted
    here = threading.current_thread()
    monkeypatch.setattr(
        mpi, "sleep", lambda s: slept.append((s, len(aborted))) if threading.current_thread() is here else wait(s)
    )
    workers.abort(3, "a message")
    assert aborted == [(0, 3)] and capsys.readouterr() == ("", "a message\n")
    assert slept == [(0.2, 0)]  # so that the launcher reads it
    flushed = []
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(flush=lambda: 1 / 0))
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(flush=lambda: flushed.append(1), write=lambda text: 1 / 0))
    workers.abort(4)
    assert crew.comms[0].hub.aborted[1:] == [(0, 4)] and flushed == [1]


def test_what_has_ended_waits_for_the_others(crew):
    """On a communicator of its own: it is no counterpart of what the others do meanwhile."""
    inside, order = [], []

    def work(workers):
        ((leave, *arguments),) = (call for call in crew.at_exit if call[0].__self__ is workers)
        assert arguments[0] is not workers.comm
        if workers.rank == 1:
            time.sleep(0.1)
            order.append("still working")
        arguments[0].Barrier = lambda barrier=arguments[0].Barrier: (
            inside.append(dict(workers.watch.inside)) or barrier()
        )
        leave(*arguments)
        order.append("left")
        assert not workers.watch.inside

    crew(2, work)
    assert order == ["still working", "left", "left"] and all(inside)


def test_everything_that_waits_is_watched(crew):
    """The watch knows it while another worker has not come yet."""

    def work(workers):
        seen, meet = [], crews.Comm.allgather

        def allgather(comm, value):
            if comm.rank == workers.rank == 0:
                seen.append(threading.get_ident() in workers.watch.inside)
            return meet(comm, value)

        channel = workers.channel("cpu")
        for comm in workers.comm, channel.comm:
            comm.allgather = lambda value, comm=comm: allgather(comm, value)
        workers.gather(1)
        workers.all_reduce(np.ones(2))
        workers.channel("cpu")
        channel.all_reduce([np.ones(2)])
        channel.wait()
        return seen

    seen, _ = crew(2, work)
    assert seen == [True] * 4


# ----------------------------------------------------------------------------------------------------------------------
# the watch
class Aborted(Workers):
    """Notes how it is to end."""

    rank = 3

    def __init__(self, limit):
        self.limit, self.calls, self.ended = limit, [], threading.Event()

    def abort(self, status, message=""):
        self.calls.append((status, message))
        self.limit = crews.End()
        self.ended.set()


@pytest.fixture
def watched():
    made = []

    def watch(limit):
        workers = Aborted(limit)
        made.append(workers)
        return workers, crews.Watch(workers)

    yield watch
    for workers in made:
        workers.limit = crews.End()


def test_who_waits_too_long_ends_all(watched):
    workers, watch = watched(0.2)
    begin = time.monotonic()
    with watch:
        assert workers.ended.wait(10)
    assert time.monotonic() - begin >= 0.2
    ((status, message),) = workers.calls
    assert status == 75 and "\n" not in message
    assert (
        message.startswith("rank 3 has waited 0 s for the other workers: one of them")
        and "(the limit is 0.2 s)" in message
    )


def test_who_does_not_wait_may_take_any_time(watched):
    workers, watch = watched(0.2)
    for _ in range(3):
        with watch:
            time.sleep(0.01)
        assert not watch.inside
        time.sleep(0.15)
    assert not workers.ended.is_set()


def test_the_one_who_has_waited_longest_counts(watched):
    workers, watch = watched(0.3)
    here = threading.Event()

    def other():
        with watch:
            here.set()
            workers.ended.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    here.wait(10)
    while not workers.ended.is_set():
        with watch:
            time.sleep(0.01)
    thread.join(10)
    assert len(workers.calls) == 1


def test_what_a_gpu_was_asked_for_may_take_as_long(watched):
    workers, watch = watched(0.2)
    done = threading.Event()
    watch.until(lambda: True)
    assert not watch.later
    watch.until(done.is_set)
    done.set()
    time.sleep(0.4)
    assert not watch.later and not workers.calls
    watch.until(lambda: False)
    assert workers.ended.wait(10) and workers.calls[0][0] == 75


@pytest.mark.parametrize(("limit", "pause"), [(600.0, 0.25), (0.4, 0.1), (1.2, 0.25)])
def test_how_often_the_watch_looks(monkeypatch, limit, pause):
    slept, looked = [], threading.Event()

    def sleep(seconds):
        slept.append(seconds)
        workers.limit = crews.End()
        looked.set()

    monkeypatch.setattr(mpi, "sleep", sleep)
    workers = Aborted(limit)
    crews.Watch(workers)
    assert looked.wait(5)
    assert slept[0] == pytest.approx(pause)


# ----------------------------------------------------------------------------------------------------------------------
# parts
def test_sections():
    array = np.arange(10, dtype=np.float32)
    assert [part.tolist() for part in mpi.sections(array, 16)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [part.tolist() for part in mpi.sections(array, 19)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [len(part) for part in mpi.sections(array, 40)] == [10] and not mpi.sections(array[:0], 16)
    assert all(np.shares_memory(part, array) for part in mpi.sections(array, 16))


def test_shares():
    assert mpi.shares(10, 4) == [2, 3, 2, 3] and mpi.shares(2, 3) == [0, 1, 1] and mpi.shares(0, 2) == [0, 0]
    assert mpi.shares(9, 1) == [9]


def test_pieces_are_large_and_fixed():
    """Where a sum is cut decides about its last bits."""
    assert (mpi.PIECE, mpi.SECTION, mpi.TIMED_OUT) == (1 << 22, 1 << 24, 75)
