"""Devices, threads, memory and random numbers."""

import gc
import importlib
import itertools
import os
import sys
import threading
import time
import types
import warnings
import weakref

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import minicnn
from minicnn import DeviceError, backend


def fails(error, pattern, f, *args):
    """f raises this error, in one line."""
    with pytest.raises(error, match=pattern) as caught:
        f(*args)
    assert "\n" not in str(caught.value)


@pytest.fixture
def threads():
    """Sets the number of threads for one test."""
    before = backend.get_num_threads()
    yield backend.set_num_threads
    backend.set_num_threads(before)


def at_once(*functions):
    """Run functions in threads of their own, at the same time; their results."""
    results, start = [None] * len(functions), threading.Barrier(len(functions))

    def run(i, f):
        start.wait(30)
        results[i] = f()

    running = [threading.Thread(target=run, args=(i, f)) for i, f in enumerate(functions)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
        assert not thread.is_alive(), "it hangs"
    return results


# ------------------------------------------------------------------------------------------------------------- devices
def test_names_of_devices():
    assert backend.open_device("cpu") == "cpu"
    for name in ("tpu", "", "cpu:0", "gpu:x", "gpu:-1", "gpu0", "GPU", None, 0):
        fails(DeviceError, r"unknown device .*'cpu', 'gpu' or 'gpu:N'", backend.open_device, name)


def test_a_gpu_without_cupy_says_what_to_install(monkeypatch):
    def missing(name, *args):
        assert name == "cupy"
        raise ImportError("No module named 'cupy'")

    monkeypatch.setattr(importlib, "import_module", missing)
    for name in ("gpu", "gpu:0", "gpu:1"):
        fails(DeviceError, f"'{name}'.*CuPy.*No module named.*pip install.*cuda13.*'cpu'", backend.open_device, name)
        fails(DeviceError, "CuPy", backend.to_device, np.ones(2), name)


def test_a_gpu_with_cupy_is_not_passed_off_as_the_host(monkeypatch):
    monkeypatch.setattr(importlib, "import_module", lambda name: types.ModuleType(name))
    fails(DeviceError, "'gpu'.*'cpu'", backend.open_device, "gpu")


def test_arrays_of_the_host_stay_where_they_are():
    x = np.ones(2)
    assert backend.device_of(x) == "cpu" and backend.to_device(x, "cpu") is x
    fails(DeviceError, "unknown device", backend.to_device, x, "tpu")


class DeviceArray:
    """What a GPU's array looks like from here."""

    device = types.SimpleNamespace(id=3)


def test_kernels_of_a_device_take_the_place_of_a_lessons_function(monkeypatch):
    calls = []
    kernels = types.ModuleType("minicnn.cuda.lesson")
    kernels.scale = lambda *args, **kwargs: calls.append((args, kwargs)) or "from the device"
    monkeypatch.setitem(sys.modules, "minicnn.cuda", types.ModuleType("minicnn.cuda"))
    monkeypatch.setitem(sys.modules, "minicnn.cuda.lesson", kernels)

    def scale(x, by, *, plus=0):
        """A lesson."""
        return x * by + plus

    scale.__module__ = "minicnn.functional.lesson"
    dispatching = backend.device_kernel(scale)
    assert dispatching(np.array([1, 2]), 3, plus=1).tolist() == [4, 7] and not calls
    x = DeviceArray()
    assert dispatching(x, 3, plus=1) == "from the device" and calls == [((x, 3), {"plus": 1})]
    assert dispatching.__name__ == "scale" and dispatching.__doc__ == "A lesson."
    assert backend.device_of(x) == "gpu:3"


# ------------------------------------------------------------------------------------------------------------- threads
def test_the_number_of_threads(threads):
    for n in (1, 3, np.int64(2)):
        threads(n)
        assert backend.get_num_threads() == n == minicnn.get_num_threads()
    for n in (0, -1):
        fails(ValueError, f"at least 1, not {n}", threads, n)
    with pytest.raises(TypeError):
        threads(1.5)
    assert backend.get_num_threads() == 2


def test_blas_is_held_to_one_thread():
    backend.get_num_threads()
    assert all(library["num_threads"] == 1 for library in threadpool_info() if library["user_api"] == "blas")


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("n", "step"), [(0, 1), (1, 1), (7, 1), (7, 2), (7, 7), (7, 10), (100, 3)])
def test_parallel_covers_every_slice_once(threads, count, n, step):
    threads(count)
    seen = []
    assert backend.parallel(lambda lo, hi: seen.append((lo, hi)), backend.slices(n, step)) is None
    assert sorted(seen) == [(lo, min(lo + step, n)) for lo in range(0, n, step)]


def test_parallel_uses_all_threads_and_the_callers_is_one_of_them(threads):
    threads(3)
    names, meet = set(), threading.Barrier(3)

    def work(lo, hi):
        names.add(threading.current_thread())
        meet.wait(30)  # all three must be here at the same time

    backend.parallel(work, backend.slices(3, 1))
    assert len(names) == 3 and threading.current_thread() in names


def test_one_thread_means_this_one(threads):
    threads(1)
    seen = set()
    backend.parallel(lambda lo, hi: seen.add(threading.current_thread()), backend.slices(10, 1))
    assert seen == {threading.current_thread()}


def test_slices_may_call_parallel(threads):
    threads(2)
    out = np.zeros((4, 6), int)
    inner_threads = []

    def outer(lo, hi):
        mine = threading.current_thread()

        def inner(a, b):
            inner_threads.append(threading.current_thread() is mine)
            out[lo:hi, a:b] += 1

        backend.parallel(inner, backend.slices(6, 1))
        out[lo, 0] += int(backend.parallel_sum(lambda a, b: np.array([b - a]), backend.slices(6, 1))[0])

    backend.parallel(outer, backend.slices(4, 1))
    assert (out[:, 1:] == 1).all() and (out[:, 0] == 7).all()
    assert all(inner_threads)  # in place: the other threads are busy with slices of their own
    meet = threading.Barrier(2)
    backend.parallel(lambda lo, hi: meet.wait(30), backend.slices(2, 1))  # afterwards there are two again


def test_parallel_from_several_threads_at_the_same_time(threads):
    threads(2)

    def work():
        for _ in range(50):
            out = np.zeros(20, int)

            def add(lo, hi, out=out):
                out[lo:hi] += 1

            backend.parallel(add, backend.slices(20, 3))
            assert (out == 1).all()
            assert backend.parallel_sum(lambda lo, hi: np.arange(lo, hi).sum(keepdims=True), backend.slices(20, 3)) == [
                190
            ]
        return "done"

    assert at_once(*[work] * 4) == ["done"] * 4


def test_the_number_of_threads_may_change_while_others_work(threads):
    threads(2)

    def change():
        for n in itertools.islice(itertools.cycle([1, 3, 2]), 30):
            backend.set_num_threads(n)
        return True

    def work():
        return all(
            backend.parallel_sum(lambda lo, hi: np.ones(hi - lo).sum(keepdims=True), backend.slices(30, 1)) == [30]
            for _ in range(100)
        )

    assert at_once(change, work, work) == [True] * 3


@pytest.mark.parametrize("run", [backend.parallel, backend.parallel_sum])
@pytest.mark.parametrize("count", [1, 2])
def test_an_exception_in_a_slice_reaches_the_caller_and_the_threads_go_on(threads, count, run):
    threads(count)
    caller = threading.current_thread()
    for guilty in (lambda: True, lambda: threading.current_thread() is not caller):
        meet = threading.Barrier(count)

        def work(lo, hi, meet=meet, guilty=guilty):
            if lo < count:
                meet.wait(30)  # each thread has one
            if guilty() or count == 1:
                raise KeyError("this one")
            return np.ones(1)

        with pytest.raises(KeyError, match="this one"):
            run(work, count, 1)
        assert backend.parallel_sum(lambda lo, hi: np.array([lo]), backend.slices(8, 1)) == [28]


def test_after_an_exception_no_new_slice_is_begun(threads):
    threads(1)
    seen = []
    with pytest.raises(KeyError):
        backend.parallel(lambda lo, hi: seen.append(lo) or {}[lo], backend.slices(8, 1))
    assert seen == [0]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_parallel_sum(threads, count):
    threads(count)
    numbers = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)
    for n, step in [(100, 7), (100, 1), (100, 100), (1, 1), (0, 5)]:
        buffers = threading.local()

        def slice_sum(lo, hi, buffers=buffers):
            if not hasattr(buffers, "out"):
                buffers.out = np.empty(3, np.float32)
            return np.sum(numbers[lo:hi], axis=0, out=buffers.out)  # the same buffer each time

        total = backend.parallel_sum(slice_sum, backend.slices(n, step))
        np.testing.assert_allclose(total, numbers[:n].sum(0), rtol=1e-4, atol=1e-5, strict=True)
        assert all(
            np.array_equal(total, backend.parallel_sum(slice_sum, backend.slices(n, step))) for _ in range(20)
        )  # bit for bit
        assert total.flags.writeable and not np.shares_memory(total, buffers.out)


def test_a_forked_child_has_threads_of_its_own(threads):
    threads(2)
    backend.parallel(lambda lo, hi: None, backend.slices(4, 1))
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process that has threads
        child = os.fork()
    if not child:
        try:
            names, meet = set(), threading.Barrier(2)
            backend.parallel(
                lambda lo, hi: names.add(threading.current_thread()) or meet.wait(20), backend.slices(2, 1)
            )
            os.write(write, b"%d%d" % (len(names), backend.get_num_threads()))
        finally:
            os._exit(0)
    os.close(write)
    assert os.read(read, 10) == b"22"
    os.close(read)
    assert os.waitpid(child, 0)[1] == 0


def test_batch_step(threads):
    threads(2)
    assert backend.batch_step(8, 1) == 4 and backend.batch_step(7, 1) == 4 and backend.batch_step(1, 1) == 1
    assert backend.batch_step(1000, backend.CACHE // 3) == 3 and backend.batch_step(1000, backend.CACHE * 2) == 1
    assert backend.batch_step(0, 1) == 1 == backend.batch_step(2, 0)


def test_elementwise_goes_through_blocks_of_any_shape(threads, monkeypatch):
    threads(2)
    monkeypatch.setattr(backend, "BLOCK", 7)
    x, y, sizes = np.arange(60.0).reshape(3, 4, 5).transpose(2, 0, 1), np.zeros((5, 3, 4)), []
    backend.elementwise(lambda x, y: sizes.append(x.size) or np.multiply(x, 2, out=y), x, y)
    np.testing.assert_array_equal(y, 2 * x)
    assert sorted(sizes) == [4] + 8 * [7]
    backend.elementwise(lambda x: sizes.append("never"), np.empty((0, 3)))
    assert "never" not in sizes


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    "shapes",
    [((50, 4), (4, 3)), ((3, 4), (4, 50)), ((5, 0), (0, 5)), ((0, 4), (4, 3)), ((1, 60), (60, 1)), ((2, 5, 3), (3, 4))],
)
def test_matmul(threads, monkeypatch, count, shapes):
    threads(count)
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(shape).astype(np.float32) for shape in shapes)
    for block in (1, backend.BLOCK):
        monkeypatch.setattr(backend, "BLOCK", block)
        for left in (a, np.asfortranarray(a)):
            np.testing.assert_allclose(backend.matmul(left, b), np.matmul(a, b), rtol=1e-4, atol=1e-5, strict=True)
    ints = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(backend.matmul(ints, ints.T), ints @ ints.T, strict=True)


# -------------------------------------------------------------------------------------------------------------- memory
LARGE = (backend.LARGE // 4, 4)  # of bytes


def address(array):
    return array.__array_interface__["data"][0]


@pytest.fixture
def memory(monkeypatch):
    """A recycler of its own, with nothing kept yet."""
    fresh = backend._Memory()
    monkeypatch.setattr(backend, "_memory", fresh)
    return fresh


def test_empty_is_as_numpys():
    for shape, dtype in [
        ((2, 3), np.float64),
        ((0,), np.float32),
        ((), int),
        ((512, 1024), np.float32),
        ((1 << 18, 0), bool),
        ([2, 3], "float16"),
    ]:
        x = backend.empty(shape, dtype)
        assert type(x) is np.ndarray and x.shape == tuple(shape) and x.dtype == dtype
        assert x.flags.c_contiguous and x.flags.writeable and x.flags.aligned
        x[...] = 1
        y = backend.empty_like(x.T)
        assert y.shape == x.T.shape and y.dtype == x.dtype and y.flags.c_contiguous
    assert backend.empty((2,)).dtype == np.float32


def test_memory_is_reused_after_the_last_view_is_gone(memory):
    x = backend.empty(LARGE, np.uint8)
    first = address(x)
    views = [x[1:], x.reshape(-1)[5:], x.view(np.float32), x.T[2], memoryview(x), np.frombuffer(x, np.uint8)[3:]]
    ref = weakref.ref(x)
    del x
    for _ in range(len(views)):
        assert address(backend.empty(LARGE, np.uint8)) != first
        views.pop(0)
    assert ref() is None
    again = backend.empty((2, backend.LARGE // 8), np.float32)  # as many bytes, another shape and dtype
    assert address(again) == first and memory.lent_bytes == backend.LARGE


def test_arrays_that_live_never_share_memory(memory):
    random, live = np.random.default_rng(0), []
    for i in range(300):
        if live and random.random() < 0.5:
            array, number = live.pop(random.integers(len(live)))
            assert (array == number).all()
        else:
            x = backend.empty((int(random.integers(1, 3)), backend.LARGE), np.uint8)
            x[...] = i % 251
            live.append((x[:, :: int(random.integers(1, 4))], i % 251))
    assert all((array == number).all() for array, number in live)
    live.clear()
    del x, array
    assert memory.lent_bytes == 0


def test_memory_is_lent_to_several_threads(memory):
    def work(number):
        for _ in range(60):
            x = backend.empty(LARGE, np.uint8)
            x[::7] = number
            time.sleep(0)
            if not (x[::7] == number).all():
                return "another thread wrote here"
        return "alone"

    assert at_once(*[lambda n=n: work(n) for n in range(4)]) == ["alone"] * 4
    assert memory.lent_bytes == 0


def test_no_more_is_kept_than_is_used(memory):
    many = [backend.empty(LARGE, np.uint8) for _ in range(8)]
    del many
    assert memory.idle_bytes == 8 * backend.LARGE
    other = backend.empty((2, backend.LARGE), np.uint8)  # shapes have changed
    assert memory.idle_bytes == 0 and memory.lent_bytes == 2 * backend.LARGE
    del other
    assert memory.idle_bytes == 2 * backend.LARGE


def test_small_arrays_are_left_to_numpy(memory):
    x = backend.empty((backend.LARGE - 1,), np.uint8)
    assert x.flags.owndata and memory.lent_bytes == 0
    assert not backend.empty((backend.LARGE,), np.uint8).flags.owndata


def test_more_memory_than_there_is_changes_nothing(memory):
    with pytest.raises(MemoryError):
        backend.empty((1 << 58,))
    gc.collect()  # what is left of it must not fail either
    assert memory.lent_bytes == 0 == memory.idle_bytes


def test_scratch_is_one_buffer_for_each_name_and_thread():
    like = np.empty(0, np.float32)
    a = backend.scratch("a", (4, 5), like)
    assert a.shape == (4, 5) and a.dtype == np.float32 and a.flags.c_contiguous and a.flags.writeable
    assert address(backend.scratch("a", (2, 3), like)) == address(a)
    assert backend.scratch("a", (2,), np.empty(0)).dtype == np.float64
    assert not np.shares_memory(backend.scratch("b", (4, 5), like), a)
    larger = backend.scratch("a", (40, 50), like)
    assert larger.shape == (40, 50) and address(backend.scratch("a", (4, 5), like)) == address(larger)
    mine = backend.scratch("a", (3,), like)
    mine[:] = 7
    (others,) = at_once(lambda: backend.scratch("a", (3,), like))
    others[:] = 8
    assert (mine == 7).all() and backend.scratch("c", (0, 3), like).shape == (0, 3)


# ------------------------------------------------------------------------------------------------------ random numbers
def test_each_draw_has_its_own_numbers_and_a_seed_repeats_them():
    backend.manual_seed(5)
    first = [backend.generator().random(4) for _ in range(3)]
    backend.manual_seed(5)
    again = [backend.generator().random(4) for _ in range(3)]
    minicnn.manual_seed(6)
    other = [backend.generator().random(4) for _ in range(3)]
    np.testing.assert_array_equal(first, again)
    assert len({x.tobytes() for x in first + other}) == 6


def test_the_state_is_two_integers():
    backend.manual_seed(7)
    assert backend.random_state() == (7, 0)
    backend.generator()
    backend.generator().random(1000)  # how much is drawn does not matter
    state = backend.random_state()
    assert state == (7, 2)
    x = backend.generator().random(3)
    backend.set_random_state(state)
    assert backend.random_state() == state
    np.testing.assert_array_equal(backend.generator().random(3), x)
    backend.set_random_state([np.int64(7), np.uint64(2)])
    np.testing.assert_array_equal(backend.generator().random(3), x)


def test_seeds_are_from_0_to_2_to_the_64():
    for seed in (0, 2**64 - 1):
        backend.manual_seed(seed)
        backend.generator().random()
    for seed in (-1, 2**64):
        fails(ValueError, str(seed), backend.manual_seed, seed)
    fails(ValueError, "-1", backend.set_random_state, (3, -1))
    with pytest.raises(TypeError):
        backend.manual_seed(1.5)
    assert backend.random_state()[0] == 2**64 - 1


def test_no_two_threads_get_the_same_draw():
    draws = at_once(*[lambda: [backend.generator().random() for _ in range(50)]] * 4)
    assert len(set(itertools.chain(*draws))) == 200
