"""minicnn/backend.py: devices, memory and random numbers; its threads are in test_backend_threads.py."""

import gc
import importlib
import itertools
import sys
import time
import types
import weakref

import numpy as np
import pytest
from reference import at_once

import minicnn
from minicnn import DeviceError
from minicnn.backends import devices
from minicnn.backends import numpy as fast


def fails(error, pattern, f, *args):
    """f raises this error, in one line."""
    with pytest.raises(error, match=pattern) as caught:
        f(*args)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------- devices
def test_names_of_devices():
    assert devices.open_device("cpu") == "cpu"
    for name in ("tpu", "", "cpu:0", "gpu:x", "gpu:-1", "gpu0", "GPU", None, 0):
        fails(DeviceError, r"unknown device .*'cpu', 'gpu' or 'gpu:N'", devices.open_device, name)


def test_a_gpu_without_cupy_says_what_to_install(monkeypatch):
    def missing(name, *args):
        assert name == "cupy"
        raise ModuleNotFoundError("No module named 'cupy'", name="cupy")

    monkeypatch.setattr(importlib, "import_module", missing)
    for name in ("gpu", "gpu:0", "gpu:1"):
        fails(DeviceError, f"'{name}'.*CuPy.*not installed.*pip install.*cuda13.*'cpu'", devices.open_device, name)
        fails(DeviceError, "CuPy", devices.to_device, np.ones(2), name)


def test_arrays_of_the_host_stay_where_they_are():
    x = np.ones(2)
    assert devices.device_of(x) == "cpu" and devices.to_device(x, "cpu") is x
    fails(DeviceError, "unknown device", devices.to_device, x, "tpu")


class DeviceArray:
    """What a GPU's array looks like from here."""

    device = types.SimpleNamespace(id=3)


def test_kernels_of_a_device_take_the_place_of_a_lessons_function(monkeypatch):
    calls = []
    kernels = types.ModuleType("minicnn.backends.cuda.lesson")
    kernels.scale = lambda *args, **kwargs: calls.append((args, kwargs)) or "from the device"
    monkeypatch.setitem(sys.modules, "minicnn.backends.cuda", types.ModuleType("minicnn.backends.cuda"))
    monkeypatch.setitem(sys.modules, "minicnn.backends.cuda.lesson", kernels)

    def scale(x, by, *, plus=0):
        """A lesson."""
        return x * by + plus

    scale.__module__ = "minicnn.functional.lesson"
    dispatching = devices.device_kernel(scale)
    assert dispatching(np.array([1, 2]), 3, plus=1).tolist() == [4, 7] and not calls
    x = DeviceArray()
    assert dispatching(x, 3, plus=1) == "from the device" and calls == [((x, 3), {"plus": 1})]
    assert dispatching.__name__ == "scale" and dispatching.__doc__ == "A lesson."
    assert devices.device_of(x) == "gpu:3"


# -------------------------------------------------------------------------------------------------------------- memory
LARGE = (fast.memory.LARGE // 4, 4)  # of bytes


def address(array):
    return array.__array_interface__["data"][0]


def test_empty_is_as_numpys():
    for shape, dtype in [
        ((2, 3), np.float64),
        ((0,), np.float32),
        ((), int),
        ((512, 1024), np.float32),
        ((1 << 18, 0), bool),
        ([2, 3], "float16"),
    ]:
        x = fast.memory.empty(shape, dtype)
        assert type(x) is np.ndarray and x.shape == tuple(shape) and x.dtype == dtype
        assert x.flags.c_contiguous and x.flags.writeable and x.flags.aligned
        x[...] = 1
        y = fast.memory.empty_like(x.T)
        assert y.shape == x.T.shape and y.dtype == x.dtype and y.flags.c_contiguous
    assert fast.memory.empty((2,)).dtype == np.float32


def test_memory_is_reused_after_the_last_view_is_gone(memory):
    x = fast.memory.empty(LARGE, np.uint8)
    first = address(x)
    views = [x[1:], x.reshape(-1)[5:], x.view(np.float32), x.T[2], memoryview(x), np.frombuffer(x, np.uint8)[3:]]
    ref = weakref.ref(x)
    del x
    for _ in range(len(views)):
        assert address(fast.memory.empty(LARGE, np.uint8)) != first
        views.pop(0)
    assert ref() is None
    again = fast.memory.empty((2, fast.memory.LARGE // 8), np.float32)  # as many bytes, another shape and dtype
    assert address(again) == first and memory.lent_bytes == fast.memory.LARGE


def test_arrays_that_live_never_share_memory(memory):
    random, live = np.random.default_rng(0), []
    for i in range(300):
        if live and random.random() < 0.5:
            array, number = live.pop(random.integers(len(live)))
            assert (array == number).all()
        else:
            x = fast.memory.empty((int(random.integers(1, 3)), fast.memory.LARGE), np.uint8)
            x[...] = i % 251
            live.append((x[:, :: int(random.integers(1, 4))], i % 251))
    assert all((array == number).all() for array, number in live)
    live.clear()
    del x, array
    assert memory.lent_bytes == 0


def test_memory_is_lent_to_several_threads(memory):
    def work(number):
        for _ in range(60):
            x = fast.memory.empty(LARGE, np.uint8)
            x[::7] = number
            time.sleep(0)
            if not (x[::7] == number).all():
                return "another thread wrote here"
        return "alone"

    assert at_once(*[lambda n=n: work(n) for n in range(4)]) == ["alone"] * 4
    assert memory.lent_bytes == 0


def test_no_more_is_kept_than_is_used(memory):
    many = [fast.memory.empty(LARGE, np.uint8) for _ in range(8)]
    del many
    assert memory.idle_bytes == 8 * fast.memory.LARGE
    other = fast.memory.empty((2, fast.memory.LARGE), np.uint8)  # shapes have changed
    assert memory.idle_bytes == 0 and memory.lent_bytes == 2 * fast.memory.LARGE
    del other
    assert memory.idle_bytes == 2 * fast.memory.LARGE


def test_small_arrays_are_left_to_numpy(memory):
    x = fast.memory.empty((fast.memory.LARGE - 1,), np.uint8)
    assert x.flags.owndata and memory.lent_bytes == 0
    assert not fast.memory.empty((fast.memory.LARGE,), np.uint8).flags.owndata


def test_more_memory_than_there_is_changes_nothing(memory):
    with pytest.raises(MemoryError):
        fast.memory.empty((1 << 58,))
    gc.collect()  # what is left of it must not fail either
    assert memory.lent_bytes == 0 == memory.idle_bytes


def test_scratch_is_one_buffer_for_each_name_and_thread():
    like = np.empty(0, np.float32)
    a = fast.memory.scratch("a", (4, 5), like)
    assert a.shape == (4, 5) and a.dtype == np.float32 and a.flags.c_contiguous and a.flags.writeable
    assert address(fast.memory.scratch("a", (2, 3), like)) == address(a)
    assert fast.memory.scratch("a", (2,), np.empty(0)).dtype == np.float64
    assert not np.shares_memory(fast.memory.scratch("b", (4, 5), like), a)
    larger = fast.memory.scratch("a", (40, 50), like)
    assert larger.shape == (40, 50) and address(fast.memory.scratch("a", (4, 5), like)) == address(larger)
    mine = fast.memory.scratch("a", (3,), like)
    mine[:] = 7
    (others,) = at_once(lambda: fast.memory.scratch("a", (3,), like))
    others[:] = 8
    assert (mine == 7).all() and fast.memory.scratch("c", (0, 3), like).shape == (0, 3)


# ------------------------------------------------------------------------------------------------------ random numbers
def test_each_draw_has_its_own_numbers_and_a_seed_repeats_them():
    minicnn.random.manual_seed(5)
    first = [minicnn.random.generator().random(4) for _ in range(3)]
    minicnn.random.manual_seed(5)
    again = [minicnn.random.generator().random(4) for _ in range(3)]
    minicnn.manual_seed(6)
    other = [minicnn.random.generator().random(4) for _ in range(3)]
    np.testing.assert_array_equal(first, again)
    assert len({x.tobytes() for x in first + other}) == 6


def test_the_state_is_two_integers():
    minicnn.random.manual_seed(7)
    assert minicnn.random.random_state() == (7, 0)
    minicnn.random.generator()
    minicnn.random.generator().random(1000)  # how much is drawn does not matter
    state = minicnn.random.random_state()
    assert state == (7, 2)
    x = minicnn.random.generator().random(3)
    minicnn.random.set_random_state(state)
    assert minicnn.random.random_state() == state
    np.testing.assert_array_equal(minicnn.random.generator().random(3), x)
    minicnn.random.set_random_state([np.int64(7), np.uint64(2)])
    np.testing.assert_array_equal(minicnn.random.generator().random(3), x)


def test_seeds_are_from_0_to_2_to_the_64():
    for seed in (0, 2**64 - 1):
        minicnn.random.manual_seed(seed)
        minicnn.random.generator().random()
    for seed in (-1, 2**64):
        fails(ValueError, str(seed), minicnn.random.manual_seed, seed)
    fails(ValueError, "-1", minicnn.random.set_random_state, (3, -1))
    with pytest.raises(TypeError):
        minicnn.random.manual_seed(1.5)
    assert minicnn.random.random_state()[0] == 2**64 - 1


def test_no_two_threads_get_the_same_draw():
    draws = at_once(*[lambda: [minicnn.random.generator().random() for _ in range(50)]] * 4)
    assert len(set(itertools.chain(*draws))) == 200
