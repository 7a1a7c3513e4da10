"""Batches that processes load: those that threads would load, whatever their size, their errors, and what ends when."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import heap
from types import SimpleNamespace

import numpy as np
import pytest

from minicnn import DeviceError, backends
from minicnn.backends import Backend, chosen_backend, use_backend
from minicnn.data import DataError, DataLoader, processes
from minicnn.data.loader import _Key
from minicnn.data.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip

TRANSFORM = Compose([RandomCrop(6), RandomHorizontalFlip()])
NORMALIZE = Normalize((0.5, 0.4, 0.3), 0.25)


class Noise:
    """Images, of which those from `large` on are larger; `bad` cannot be read."""

    def __init__(self, n=20, large=99, bad=99):
        self.n, self.large, self.bad = n, large, bad

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if index == self.bad:
            raise DataError("this one is broken")
        side = 8 if index < self.large else 24
        return np.random.default_rng(index).integers(0, 256, (side, side, 3), np.uint8), index

    def process(self, image, rng):
        return np.full((1, 1, 3), os.getpid(), np.int64)

    def reference(self, image, rng):
        return np.full((1, 1, 3), chosen_backend() == "reference")


class Deadly(Noise):
    """As Noise, but where image 3 is read the process ends, by itself or by a signal."""

    def __init__(self, code):
        super().__init__()
        self.code = code

    def __getitem__(self, index):
        if index == 3:
            os._exit(self.code) if self.code >= 0 else os.kill(os.getpid(), -self.code)
        return super().__getitem__(index)


class Locked(Exception):
    """Cannot be pickled."""

    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()


class LockedFile(Locked, OSError):
    """A file's error that cannot be pickled."""


class Placed(Exception):
    """Can be pickled, but not unpickled: of all the arguments there is only one left then."""

    def __init__(self, what, line):
        super().__init__(f"{what} in line {line}")


class Raising(Noise):
    """`error` where image 4 is read."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def __getitem__(self, index):
        if index == 4:
            raise self.error("broken", *[7] * (self.error is Placed))
        return super().__getitem__(index)


class Shut(Noise):
    """Cannot be unpickled."""

    def __setstate__(self, state):
        raise self.error("it stays shut")

    def __init__(self, error):
        super().__init__()
        Shut.error = error


def epochs(loader, n=2):
    return [[(images.copy(), labels.copy()) for images, labels in loader] for _ in range(n)]


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert len(a) == len(b)
        for (x, i), (y, j) in zip(a, b, strict=True):
            assert x.dtype == y.dtype and i.dtype == np.int64
            np.testing.assert_array_equal(x, y)
            np.testing.assert_array_equal(i, j)


def assert_ends(process):
    deadline = time.monotonic() + 20
    while process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("normalize", [None, NORMALIZE], ids=["bytes", "numbers"])
def test_the_batches_of_threads(normalize):
    """In every epoch, to the last and smaller batch; of two iterators at once, too."""
    options = {"transform": TRANSFORM, "shuffle": True, "seed": 3, "normalize": normalize}
    loader = DataLoader(Noise(), 6, num_workers=2, processes=True, **options)
    expected = epochs(DataLoader(Noise(), 6, num_workers=0, **options), 3)
    assert_same(epochs(loader), expected[:2])
    loader.set_epoch(1)
    one, two = iter(loader), iter(loader)
    pairs = list(zip(one, two, strict=True))
    assert_same([[a for a, _ in pairs], [b for _, b in pairs]], expected[1:])


def test_they_are_processes_which_stay_and_end_with_the_loader():
    dataset = Noise(8)
    loader = DataLoader(dataset, 2, transform=dataset.process, num_workers=2, processes=True)
    ids = [{int(image[0, 0, 0]) for images, _ in epoch for image in images} for epoch in epochs(loader, 3)]
    workers = list(loader._running.executor._processes.values())
    assert os.getpid() not in set.union(*ids) and set.union(*ids) <= {worker.pid for worker in workers}
    assert 1 <= len(workers) <= 2
    del loader
    for worker in workers:
        assert_ends(worker)


@pytest.mark.parametrize("processes, num_workers", [(True, 1), (False, 1), (False, 0)])
def test_the_callers_backend_loads(processes, num_workers):
    """In each epoch the one that the caller has then."""
    dataset = Noise(4)
    loader = DataLoader(dataset, 2, transform=dataset.reference, num_workers=num_workers, processes=processes)
    for name in (None, "reference", "numpy", "reference", None):
        with use_backend(name):
            assert [images.all() for images, _ in loader] == [name == "reference"] * 2


def test_a_backend_that_the_processes_do_not_have():
    """Nothing else computes in its place."""
    loader, backend = DataLoader(Noise(4), 2, num_workers=1, processes=True), Backend("here alone", "cpu", {})
    try:
        with use_backend("here alone"), pytest.raises(DeviceError, match="no backend 'here alone'"):
            list(loader)
    finally:
        backend.remove()
    assert len(list(loader)) == 2


def test_a_backend_for_a_gpu_does_not_concern_the_processes(monkeypatch):
    monkeypatch.setattr(backends, "open_device", lambda device: device)  # for there is none
    backend = Backend("far", "gpu", {})
    try:
        with use_backend("far"):
            assert len(list(DataLoader(Noise(4), 2, num_workers=1, processes=True))) == 2
    finally:
        backend.remove()


def test_batches_stay_where_they_were_loaded():
    """Without a copy, from a cache line on, while few of them are kept; and their places come back."""
    loader = DataLoader(Noise(60), 5, num_workers=1, prefetch=1, processes=True)
    slots = None
    for images, _ in loader:
        slots = loader._running.slots
        assert np.shares_memory(images, slots) and images.ctypes.data % 64 == 0 and images.flags.writeable
    view = images[1:, ::2]
    del images
    kept = [view, *(images for images, _ in loader)]
    lent = [i for i, one in enumerate(kept) if np.shares_memory(one, slots)]
    assert 2 <= len(lent) <= 3 and lent[0] == 0  # with slots in which batches are just being loaded, not more
    kept[lent[1]][...] = 7
    assert_same(epochs(loader, 1), epochs(DataLoader(Noise(60), 5, num_workers=0), 1))
    assert (kept[lent[1]] == 7).all()
    running = loader._running
    del kept, view
    assert sorted(running.free.get_nowait() for _ in range(len(slots))) == list(range(len(slots)))


@pytest.mark.parametrize("which", [2, 3])
def test_parts_of_batches(which):
    """Their places have room for the largest part of a batch, not for the batch; here that is 6 and 2 samples. Part 2
    has 1 of 6 and 0 of 2, part 3 has 2 and 1."""
    options = {"transform": TRANSFORM, "shuffle": True, "part": (which, 4)}
    loader = DataLoader(Noise(), 6, num_workers=1, processes=True, **options)
    assert_same(epochs(loader), epochs(DataLoader(Noise(), 6, num_workers=0, **options)))
    assert loader._running.slots.shape[1] == 256  # 2 * 6 * 6 * 3, and the rest of a cache line


def test_batches_larger_than_the_first():
    loader = DataLoader(Noise(20, large=10), 5, num_workers=2, processes=True)
    assert_same(epochs(loader, 1), epochs(DataLoader(Noise(20, large=10), 5, num_workers=0), 1))


def test_errors_are_those_of_threads():
    loader = DataLoader(Noise(bad=7), 5, num_workers=2, processes=True)
    batches = iter(loader)
    next(batches)
    with pytest.raises(DataError, match=r"^sample 7: this one is broken$"):
        list(batches)
    with pytest.raises(DataError, match="its batch began with"):
        list(DataLoader(Noise(20, large=3), 5, num_workers=1, processes=True))


@pytest.mark.parametrize(
    "code, words",
    [
        (0, "ended itself, with exit status 0: look for os._exit, and at standard error"),
        (7, "ended itself, with exit status 7: look for os._exit, and at standard error"),
        (-signal.SIGKILL, "was ended by signal 9 (Killed), perhaps for lack of memory; fewer take less"),
        (-signal.SIGTERM, "was ended by signal 15 (Terminated), perhaps for lack of memory; fewer take less"),
    ],
)
def test_a_worker_that_dies_is_an_error(code, words):
    """Not the one of two that is ended because of it, by SIGTERM."""
    with pytest.raises(DataError) as info:
        list(DataLoader(Deadly(code), 2, num_workers=2, processes=True))
    assert str(info.value) == f"a process that loads images {words}"


@pytest.mark.parametrize(
    "error, message",
    [
        (Locked, "sample 4: broken (Locked, an exception that processes cannot send)"),
        (Placed, "sample 4: broken in line 7 (Placed, an exception that processes cannot send)"),
    ],
)
def test_an_exception_that_cannot_cross(error, message):
    """Its own words do, and the processes go on."""
    loader = DataLoader(Raising(error), 2, num_workers=1, processes=True)
    for _ in range(2):
        with pytest.raises(DataError) as info:
            list(loader)
        assert str(info.value) == message
        assert "raise self.error" in str(info.value.__cause__)  # where it was raised
    with pytest.raises(error, match=r"^sample 4: broken"):
        list(DataLoader(Raising(error), 2, num_workers=1))


@pytest.mark.parametrize("part", [(0, 1), (1, 3)])
def test_what_is_left_out_is_what_threads_leave_out(part):
    """With the same words, told in the caller's thread by something that no process has to have; and in the next
    epoch again. A batch that has no rows, and one that is too large for its place, come as they are."""
    told = {}
    for number, options in enumerate(({"num_workers": 0}, {"num_workers": 2, "processes": True})):
        events, lock = [], threading.Lock()

        def on_bad(name, error, events=events, lock=lock):
            with lock:
                events.append((name, type(error), str(error), threading.current_thread()))

        loader = DataLoader(
            Holey(20, large=15), 5, transform=RandomHorizontalFlip(), normalize=NORMALIZE, part=part, on_bad=on_bad,
            **options,
        )  # fmt: skip
        loader.set_epoch(0, batch=1)
        for _ in range(2):
            for images, labels in loader:
                events.append((images.shape, images.dtype, images.tobytes(), labels.tolist()))
        told[number] = events
    assert told[0] == told[1] and len(told[0]) > 7
    assert ("sample 6", DataError, "sample 6: no. 6 is broken", threading.current_thread()) in told[1] or part != (0, 1)


class Holey(Noise):
    """As Noise, of which these cannot be read, in one way or the other: all of the third batch of five, and one before
    and one behind it; and the very first."""

    def __getitem__(self, index):
        if index in (0, 6, 10, 11, 12, 13, 14, 16):
            raise OSError(5, "Input/output error") if index % 3 == 1 else DataError(f"no. {index} is broken")
        return super().__getitem__(index)


def test_an_error_of_what_is_left_out_that_cannot_cross():
    """Its words do, and the batch that it belongs to."""
    found = []
    loader = DataLoader(
        Raising(LockedFile), 5, num_workers=1, processes=True, on_bad=lambda name, error: found.append((name, error))
    )
    assert [len(labels) for _, labels in loader] == [4, 5, 5, 5]
    ((name, error),) = found
    assert name == "sample 4" and type(error) is DataError
    assert str(error) == "sample 4: broken (LockedFile, an exception that processes cannot send)"


@pytest.mark.parametrize("options", [{"num_workers": 2}, {"num_workers": 1, "processes": True}])
def test_of_what_nothing_can_be_loaded(options):
    told = []
    loader = DataLoader(Holey(1), 5, on_bad=lambda *bad: told.append(bad), **options)
    with pytest.raises(DataError, match=r"^sample 0: no. 0 is broken; none of 1 samples tried can be loaded$"):
        list(loader)
    assert not told


def test_a_copy_that_cannot_be_made():
    """Its reason is given each time it is asked for; it is about a module only where something is missing from one."""
    memory, begun = np.zeros(600, np.uint8), SimpleNamespace()
    before, here = signal.getsignal(signal.SIGINT), processes._here[:]
    try:
        for error in (OSError, AttributeError, ModuleNotFoundError):
            processes.begin(pickle.dumps(Shut(error)), memory, 2, begun)
            for _ in range(2):
                with pytest.raises(TypeError) as info:
                    processes.load(_Key(0, 0), [7], 0, None)
            assert str(info.value) == (
                f"processes cannot make their copies of this dataset and its transforms: {error.__name__}: it stays shut"
                + "; put its class in a module of its own, which a process can import" * (error is not OSError)
            )
    finally:
        processes._here[:] = here
        signal.signal(signal.SIGINT, before)


def test_without_shared_memory(monkeypatch, tmp_path):
    """As where there is no /dev/shm."""
    monkeypatch.setattr(heap.Arena, "_dir_candidates", [str(tmp_path / "missing")])
    dataset = [(np.zeros((2000, 2000, 3), np.uint8), 0)] * 2  # more than was asked for before and is free again
    with pytest.raises(DataError) as info:
        iter(DataLoader(dataset, 1, num_workers=1, processes=True))
    assert str(info.value).startswith("processes need shared memory, and there is none: [Errno 2] No such file")
    assert str(info.value).endswith("/missing'; threads do without (processes=False)")


LOAD = """
import numpy as np
from minicnn.data import DataLoader
{guard}
    class Mine:
        def __len__(self): return 4
        def __getitem__(self, i): return np.zeros((4, 4, 3), np.uint8), 0
    for images, _ in DataLoader(Mine(), 4, num_workers=1, processes=True): print(images.shape)
"""
UNDER_MAIN = 'if __name__ == "__main__":'


@pytest.mark.parametrize(
    "how, guard, words",
    [
        ("file", "if True:", f"put the program's own code under `{UNDER_MAIN}`"),
        ("file", UNDER_MAIN, "Can't get attribute 'Mine' on <module '__mp_main__' from"),
        ("-c", "if True:", "; put its class in a module of its own, which a process can import"),
        ("-", UNDER_MAIN, "there is no file <stdin>: run it from a file, or let threads load (processes=False)"),
        ("gone", UNDER_MAIN, "there is no file program.py: run it from a file"),
    ],
    ids=["no guard", "a class under the guard", "as in a notebook", "standard input", "a file that is gone"],
)
def test_processes_that_cannot_begin(tmp_path, how, guard, words):
    """The last line is their reason. A notebook's cells are in no file, as `python -c` is not."""
    program = LOAD.format(guard=guard)
    (tmp_path / "program.py").write_text("import os; os.remove('program.py')\n" * (how == "gone") + program)
    arguments = {"-c": ["-c", program], "-": ["-"]}.get(how, ["program.py"])
    result = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, timeout=60, input=program,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 1 and result.stdout == "", result.stderr
    last = result.stderr.splitlines()[-1]
    assert words in last and "lack of memory" not in last


def test_a_dropped_iterator_asks_for_nothing_more():
    loader = DataLoader(Noise(), 1, num_workers=1, prefetch=9, processes=True)
    batches, asked = iter(loader), []
    original = loader._running.executor.submit
    loader._running.executor.submit = lambda *task: asked.append(task) or original(*task)
    next(batches)
    batches.close()
    at_most = len(asked) + 2  # whose threads were about to
    list(loader)
    assert len(asked) <= at_most + 20


def test_what_cannot_be_sent():
    locked = Noise()
    locked.lock = threading.Lock()
    for dataset, transform in ((Noise(), lambda image, rng: image), (locked, None)):
        with pytest.raises(TypeError, match=r"can be pickled, unlike threads: .*(lambda|lock)"):
            iter(DataLoader(dataset, 2, transform=transform, num_workers=1, processes=True))
    with pytest.raises(ValueError, match="num_workers must be a whole number from 1, not 0"):
        DataLoader(Noise(), 2, num_workers=0, processes=True)


def test_a_slot():
    """What a worker does, in this process: small batches in its slot and in no other, large ones elsewhere."""
    memory, key = np.zeros(3 * 128 + processes.LINE, np.uint8), _Key(0, 0)
    loader = DataLoader(Noise(), 1, transform=RandomCrop(4))
    worker = processes.Worker(pickle.dumps(loader._load), memory, 3)
    (shape, dtype), labels, bad = worker.load(key, [4, 5], 1)
    assert (shape, dtype) == ((2, 4, 4, 3), np.uint8) and labels.tolist() == [4, 5] and bad == []
    expected, *_ = loader._load(key, np.empty, [4, 5])
    np.testing.assert_array_equal(worker.slots[1, :96], expected.ravel())
    assert not worker.slots[[0, 2]].any() and expected.any() and not worker.slots[1, 96:].any()
    assert np.shares_memory(worker.slots, memory) and worker.slots.shape == (3, 128)
    images, labels, _ = worker.load(key, [1, 2, 3], 1)
    assert images.shape == (3, 4, 4, 3) and images.base is None and labels.tolist() == [1, 2, 3]


def test_a_worker_begins_deaf_to_interrupts(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(processes, "_here", [])
    try:
        begun = SimpleNamespace(value=0)
        processes.begin(pickle.dumps(DataLoader(Noise(), 1)._load), np.zeros(600, np.uint8), 2, begun)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert begun.value == 1 and processes.load(_Key(0, 0), [7], 0, None)[1].tolist() == [7]
    finally:
        signal.signal(signal.SIGINT, before)


def is_running(pid):
    try:
        os.kill(pid, 0)
        return True
    except ProcessLookupError:
        return False


# In short naps: a signal that comes just before a sleep begins is heard when that ends.
SLEEP = "for _ in range(600): time.sleep(0.1)"
PROGRAM = """
import multiprocessing, signal, sys, time
from test_processes import Noise
from minicnn.data import DataLoader
if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    batches = iter(DataLoader(Noise(), 1, num_workers=2, processes=True))
    next(batches)
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    {end}
"""


@pytest.mark.parametrize(
    "end, sent, status",
    [
        ("pass", None, 0),
        ("sys.exit(5)", None, 5),
        (SLEEP, signal.SIGINT, -signal.SIGINT),
        (SLEEP, signal.SIGHUP, -signal.SIGINT),
        (SLEEP, signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_the_interpreter_exits_and_no_process_remains(tmp_path, end, sent, status):
    """With an iterator at work; after Ctrl-C, or when a terminal is closed, which all processes hear of, one of them
    speaks; also if it is killed."""
    (tmp_path / "program.py").write_text(PROGRAM.format(end=end))
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    program = subprocess.Popen(
        [sys.executable, "program.py"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    workers = list(map(int, program.stdout.readline().split()))
    if sent == signal.SIGKILL:
        program.kill()
    elif sent:
        os.killpg(program.pid, sent)
    _, err = program.communicate(timeout=60)
    assert program.returncode == status and err.count("Traceback") == (status == -signal.SIGINT), err
    deadline = time.monotonic() + 20
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert workers
