"""minicnn/backends/cuda/kept.py: the columns of a pass forward, until the pass backward takes them."""

import gc
import importlib
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from agreement import normal, there

import minicnn
from minicnn import functional as F
from minicnn.backends.cuda import conv, devices
from minicnn.backends.cuda.kept import SHARE, Kept

WINDOW = importlib.import_module("minicnn.functional.windows").Window.of(3, padding=1)


@pytest.fixture
def columns(monkeypatch):
    """None are kept yet."""
    fresh = Kept()
    monkeypatch.setattr(conv, "kept", fresh)
    monkeypatch.setattr(devices, "kept", fresh)
    return fresh


@pytest.fixture
def made(monkeypatch):
    """The shapes of the images of which columns are made."""
    shapes, im2col = [], conv.im2col
    monkeypatch.setattr(conv, "im2col", lambda x, *rest: shapes.append(x.shape) or im2col(x, *rest))
    return shapes


def arrays(gpu, groups=1):
    shapes = [(2, 5, 6, 4), (3, 3, 4 // groups, 8), (2, 5, 6, 8)]
    return [there(gpu, normal(*shape, seed=i)) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("groups", [1, 2])
def test_columns_are_made_once_for_both_passes(gpu, columns, made, groups):
    x, weight, dy = arrays(gpu, groups)
    expected = conv.convolve_weight(x, dy, WINDOW, groups).get()
    assert made == [x.shape]
    y = conv.convolve(x, weight, None, WINDOW, groups).get()
    found = conv.convolve_weight(x, dy, WINDOW, groups).get()
    assert made == [x.shape] * 2 and np.array_equal(found, expected) and not columns.made
    again = conv.convolve_weight(x, dy, WINDOW, groups).get()  # as a second pass backward does
    assert made == [x.shape] * 3 and np.array_equal(again, expected)
    conv.convolve(x, weight, None, WINDOW, groups)
    x *= 2  # a pass forward never uses what another has made
    assert np.array_equal(conv.convolve(x, weight, None, WINDOW, groups).get(), 2 * y)
    assert np.array_equal(conv.convolve_weight(x, dy, WINDOW, groups).get(), 2 * expected)


def test_each_way_to_make_them_is_told_apart(gpu, columns, made):
    x, weight, dy = arrays(gpu)
    half = weight[:, :, :2].copy()
    expected = [conv.convolve_weight(x, dy, WINDOW, groups).get() for groups in (1, 2)]
    conv.convolve(x, weight, None, WINDOW, 1)
    conv.convolve(x, half, None, WINDOW, 2)
    made.clear()
    found = [conv.convolve_weight(x, dy, WINDOW, groups).get() for groups in (1, 2)]
    assert not made and all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_they_are_kept_no_longer_than_their_images(gpu, columns):
    x, weight, _ = arrays(gpu)
    conv.convolve(x, weight, None, WINDOW, 1)
    (key,) = columns.made
    room = columns.room.copy()
    assert columns.made[key][1].nbytes == 60 * 36 * 8
    del x
    gc.collect()
    assert not columns.made
    assert columns.room == {gpu_number: left + 60 * 36 * 8 for gpu_number, left in room.items()}


def test_images_that_are_their_own_columns_are_not_kept(gpu, columns):
    x, _, dy = arrays(gpu)
    pixel = importlib.import_module("minicnn.functional.windows").Window.of(1)
    conv.convolve(x, there(gpu, normal(1, 1, 4, 8)), None, pixel, 1)
    assert not columns.made
    assert conv.convolve_weight(x, dy, pixel, 1).shape == (1, 1, 4, 8)


def test_no_more_is_kept_than_a_share_of_the_memory(standin, columns, made):
    import cupy

    size = 60 * 36 * 8
    standin.reset(memory=SHARE * (2 * size + 5))
    _, weight, dy = arrays(cupy)
    several = [there(cupy, normal(2, 5, 6, 4, seed=i)) for i in range(3)]
    for x in several:
        conv.convolve(x, weight, None, WINDOW, 1)
    assert len(columns.made) == 2 and columns.room == {0: 5}
    made.clear()
    for x in several[::-1]:
        conv.convolve_weight(x, dy, WINDOW, 1)
    assert made == [several[0].shape] and columns.room == {0: 2 * size + 5}  # the oldest has made room
    conv.convolve(several[0], weight, None, WINDOW, 1)
    larger = there(cupy, normal(5, 5, 6, 4))
    conv.convolve(larger, weight, None, WINDOW, 1)  # for these there is not
    assert len(columns.made) == 1 and columns.take(several[0], (WINDOW, 1)) is not None


@pytest.mark.parametrize("what", ["a kernel's", "CuPy's"])
def test_what_is_kept_gives_way_when_the_memory_is_used_up(standin, columns, made, what):
    """In whatever operation that happens."""
    standin.reset(memory=75_000)
    x, weight, large = (minicnn.Tensor(normal(*s), device="gpu") for s in [(2, 5, 6, 4), (3, 3, 4, 8), (2500,)])
    dy = there(importlib.import_module("cupy"), normal(2, 5, 6, 8))
    expected = conv.convolve_weight(x.data, dy, WINDOW, 1).get()
    F.conv2d(x, weight, padding=1)
    assert len(columns.made) == 1  # of 17,280 bytes
    operation = F.relu if what == "a kernel's" else lambda large: large + 1
    results = [operation(large), operation(large)]
    assert len(results) == 2 and not columns.made and columns.room == {0: 0}
    with pytest.raises(minicnn.DeviceError, match="out of memory"):
        results.append(operation(large))
    del results
    F.conv2d(x, weight, padding=1)  # it may be used up again
    assert not columns.made
    made.clear()
    assert np.array_equal(conv.convolve_weight(x.data, dy, WINDOW, 1).get(), expected) and made == [x.shape]


def test_each_gpu_has_its_own(standin, columns):
    standin.reset(memory=70_000)
    pairs = [
        [minicnn.Tensor(normal(*s), device=device) for s in [(2, 5, 6, 4), (3, 3, 4, 8)]]
        for device in ("gpu:0", "gpu:1")
    ]
    for x, weight in pairs:
        F.conv2d(x, weight, padding=1)
    assert sorted(gpu for _, _, gpu in columns.made.values()) == [0, 1]
    assert columns.room == {0: 70_000 // SHARE - 17_280, 1: 70_000 // SHARE - 17_280}
    with minicnn.backends.devices.on_device("gpu:1"):
        assert columns.give_up()
        assert not columns.give_up()
    assert [gpu for _, _, gpu in columns.made.values()] == [0] and columns.room[1] == 0


def test_each_stream_has_its_own(standin, columns, monkeypatch):
    """Those of another stream may not be done yet."""
    import cupy

    x, weight, _ = arrays(cupy)
    conv.convolve(x, weight, None, WINDOW, 1)
    with monkeypatch.context() as patch:
        patch.setattr(cupy.cuda, "get_current_stream", lambda: cupy.cuda.Stream(non_blocking=True))
        assert columns.take(x, (WINDOW, 1)) is None
    assert columns.take(x, (WINDOW, 1)) is not None


def test_gradients_of_a_network(standin, columns, made):
    """With a graph that is kept, with derivatives of derivatives, and without a pass backward."""
    x, weight, _ = (
        minicnn.Tensor(normal(*s), requires_grad=True, device="gpu") for s in [(2, 5, 6, 4), (3, 3, 4, 8), (1,)]
    )
    for _ in range(2):
        made.clear()
        F.conv2d(x, weight, padding=1).sum().backward()
        assert made == [x.shape] and not columns.made
    first = x.grad.numpy(), weight.grad.numpy()
    (dx,) = minicnn.grad((F.conv2d(x, weight, padding=1) ** 2).sum(), x, create_graph=True)
    minicnn.grad((dx**2).sum(), [x, weight])
    y = F.conv2d(x, weight, padding=1).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert np.array_equal(x.grad.numpy(), 2 * first[0]) and np.array_equal(weight.grad.numpy(), 2 * first[1])
    with minicnn.no_grad():
        F.conv2d(x.detach() * 1, weight, padding=1)
    del x, dx, y
    gc.collect()
    assert not columns.made


class Made:
    """An array that was made, as far as Kept looks at it."""

    def __init__(self, nbytes, gpu=0):
        self.nbytes, self.device = nbytes, SimpleNamespace(id=gpu)


class Source:
    """One that something is made of."""


def test_the_oldest_give_way_first(standin, columns):
    columns.room[0] = 100
    sources, made = [Source() for _ in range(4)], [Made(n) for n in (50, 30, 20, 60)]
    for source, some in zip(sources[:3], made, strict=False):
        columns.keep(source, "how", some)
    assert columns.room == {0: 0} and len(columns.made) == 3  # they may use all of it
    columns.keep(sources[3], "how", made[3])
    assert columns.room == {0: 20}
    assert [columns.take(source, "how") for source in sources] == [None, None, made[2], made[3]]
    columns.keep(sources[0], "how", made[0])
    columns.keep(sources[1], "how", Made(101))
    assert columns.take(sources[1], "how") is None
    columns.keep(sources[1], "how", whole := Made(100))
    assert columns.take(sources[0], "how") is None and columns.take(sources[1], "how") is whole
    assert columns.room == {0: 100}


def test_the_last_thing_made_in_one_way_is_kept(standin, columns):
    columns.room[0] = 100
    source, last = Source(), Made(30)
    columns.keep(source, "how", Made(40))
    columns.keep(source, "how", last)
    assert columns.room == {0: 70} and columns.take(source, "how") is last and columns.room == {0: 100}


@pytest.mark.parametrize("what", ["keep", "take", "give_up"])
def test_one_thread_at_a_time(standin, columns, what):
    columns.room[0] = 100
    source = Source()
    columns.keep(source, "how", Made(10))
    arguments = {"keep": [source, "how", Made(1)], "take": [source, "how"], "give_up": []}[what]
    working = threading.Thread(target=getattr(columns, what), args=arguments)
    before = dict(columns.made)
    with columns.lock:
        working.start()
        working.join(0.1)
        assert working.is_alive() and columns.made == before and columns.room == {0: 90}
    working.join(10)
    assert not working.is_alive()
