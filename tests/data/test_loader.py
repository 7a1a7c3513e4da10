import copy
import gc
import os
import reprlib
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minicnn.data
from minicnn.data import DataError, DataLoader, ImageFolder
from minicnn.data.transforms import (
    CenterCrop,
    Compose,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
)


class Numbered:
    """n images whose pixels hold their index, with the label index + 100; `on_read(index)` runs at each access."""

    def __init__(self, n, on_read=None, shape=(2, 3, 3)):
        self.n, self.on_read, self.shape = n, on_read, shape

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if self.on_read:
            self.on_read(index)
        return np.full(self.shape, index % 256, np.uint8), index + 100


def indices(loader):
    """One epoch's indices, after checking that images and labels belong together."""
    batches = []
    for images, labels in loader:
        np.testing.assert_array_equal(images[:, 0, 0, 0], (labels - 100) % 256)
        batches.append((labels - 100).tolist())
    return batches


def flat(batches):
    return [index for batch in batches for index in batch]


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("minicnn-data")]


def assert_workers_end():
    deadline = time.monotonic() + 10
    while workers():
        assert time.monotonic() < deadline, f"still running: {workers()}"
        time.sleep(0.001)


def wait(event):
    assert event.wait(10), "nothing happened in 10 s"


# -- batches and order ----------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3), st.integers(1, 5), st.booleans(), st.booleans())
def test_an_epoch_is_every_sample_once_in_whole_batches(n, batch_size, num_workers, prefetch, shuffle, drop_last):
    assume(n >= batch_size or not drop_last)
    loader = DataLoader(
        Numbered(n), batch_size, shuffle=shuffle, num_workers=num_workers, prefetch=prefetch, drop_last=drop_last
    )
    batches = indices(loader)
    kept = n // batch_size * batch_size if drop_last else n
    assert len(batches) == len(loader) == -(-kept // batch_size)
    assert [len(batch) for batch in batches] == [min(batch_size, kept - i) for i in range(0, kept, batch_size)]
    assert len(set(flat(batches))) == kept
    if not shuffle:
        assert flat(batches) == list(range(kept))


def test_types_and_shapes():
    images, labels = next(iter(DataLoader(Numbered(5), 4)))
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((4, 2, 3, 3), np.uint8, (4,), np.int64)
    images, _ = next(iter(DataLoader(Numbered(5), 4, transform=Normalize(0.5, 0.5))))
    assert images.dtype == np.float32
    assert images.flags.c_contiguous and images.flags.writeable


# What a dataset may have as labels, and what a batch of two of them is.
LABELS = {
    "int": (3, 4, np.int64),
    "bool": (True, False, np.int64),
    "NumPy's bool": (np.True_, np.False_, np.int64),
    "a bool and an int": (True, 2, np.int64),
    **{np.dtype(d).name: (d(1), d(2), np.int64) for d in (np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64)},
    "the largest": (np.uint64(2**63 - 1), 2**63 - 1, np.int64),
    "the least": (-(2**63), np.int8(-1), np.int64),
    "two integer dtypes": (np.uint8(255), np.int16(-2), np.int64),
    "0-d array": (np.array(7), np.array(8, np.uint8), np.int64),
    "another byte order": (np.array(1, ">i4"), np.array(2, ">i2"), np.int64),
    "float": (0.5, -2.0, np.float32),
    **{np.dtype(d).name: (d(0.5), d(2), np.float32) for d in (np.float16, np.float32, np.float64, np.longdouble)},
    "0-d floats": (np.array(0.5), np.float32(3), np.float32),
    "NaN": (float("nan"), 1.0, np.float32),
    "vectors": (np.array([0.5, 1.0]), np.array([2.0, 3.0], np.float16), np.float32),
    "vectors of integers": (np.array([1, 2], np.uint8), np.array([3, 4]), np.int64),
    "vectors of booleans": (np.array([True, False]), np.array([False, False]), np.int64),
    "lists": ([0.5, 1.0, 2.0], [0.25, 0.0, 1], np.float32),
    "one each": (np.array([3]), np.array([4]), np.int64),
    "masks": (np.eye(3, dtype=np.uint8), np.ones((3, 3), np.uint8), np.int64),
}
WORKERS = pytest.mark.parametrize(
    "options",
    [{"num_workers": 0}, {"num_workers": 2}, {"num_workers": 1, "processes": True}],
    ids=["none", "threads", "processes"],
)


@pytest.mark.parametrize("name", LABELS)
def test_labels(name):
    *labels, dtype = LABELS[name]
    _, batch = next(iter(DataLoader([(np.zeros((2, 2, 3), np.uint8), label) for label in labels], 2, num_workers=0)))
    assert batch.dtype == dtype and batch.flags.c_contiguous and batch.flags.writeable
    assert batch.shape == (2, *np.shape(labels[0]))
    np.testing.assert_array_equal(batch, np.array(labels, dtype))


@WORKERS
def test_labels_for_any_workers(options):
    """Batches of arrays too, some larger than their images, and to the last, smaller one."""
    rng = np.random.default_rng(0)
    for labels in (rng.random(7), rng.random((7, 5), np.float32), rng.integers(0, 9, (7, 40, 1)), rng.random(7) < 0.5):
        dataset = [(np.full((2, 3, 3), i, np.uint8), label) for i, label in enumerate(labels)]
        batches = list(DataLoader(dataset, 3, **options))
        np.testing.assert_array_equal(np.concatenate([images[:, 0, 0, 0] for images, _ in batches]), range(7))
        found = np.concatenate([labels for _, labels in batches])
        assert found.dtype == (np.float32 if labels.dtype.kind == "f" else np.int64)
        np.testing.assert_array_equal(found, labels.astype(found.dtype))


def test_pictures_of_any_shape():
    """As of Arrays(X, y) with X (N, features) or (N,)."""
    for x in (np.eye(4), np.arange(4.0), np.zeros((4, 2, 3, 4, 5), np.float32)):
        for options in ({"num_workers": 0}, {"num_workers": 1, "processes": True}):
            batches = list(DataLoader([(x[i], i) for i in range(4)], 3, **options))
            found = np.concatenate([images for images, _ in batches])
            assert found.dtype == x.dtype
            np.testing.assert_array_equal(found, x)
            assert [labels.tolist() for _, labels in batches] == [[0, 1, 2], [3]]


def test_a_list_of_pairs_is_a_dataset():
    dataset = [(np.full((1, 1, 3), i, np.uint8), np.int32(i)) for i in range(3)]
    assert [labels.tolist() for _, labels in DataLoader(dataset, 2)] == [[0, 1], [2]]


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(2, 30), st.integers(1, 7))
def test_order_and_augmentation_follow_from_seed_epoch_and_index(seed, epoch, n, batch_size):
    def draw(image, rng):
        return np.full((1, 1, 3), rng.random())

    def samples(**options):
        loader = DataLoader(Numbered(n), seed=seed, transform=draw, **options)
        loader.set_epoch(epoch)
        return [pair for images, labels in loader for pair in zip(labels, images[:, 0, 0, 0], strict=True)]

    reference = samples(batch_size=batch_size, shuffle=True, num_workers=0)
    for num_workers, prefetch in ((1, 1), (3, 4)):
        assert samples(batch_size=batch_size, shuffle=True, num_workers=num_workers, prefetch=prefetch) == reference
    # Neither the batch size nor the order changes what a sample draws.
    assert sorted(samples(batch_size=1, num_workers=2)) == sorted(reference)
    assert len({value for _, value in reference}) == n


def test_draws_come_from_philox_keyed_by_seed_and_epoch_and_counted_by_stream():
    loader = DataLoader(
        Numbered(6), 6, transform=lambda image, rng: rng.random((1, 1, 3)), shuffle=True, seed=2**63 - 1
    )
    loader.set_epoch(9)
    images, labels = next(iter(loader))

    def stream(number):
        key, counter = np.array([2**63 - 1, 9], np.uint64), np.array([0, 0, 0, number], np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    order = stream(0).permutation(6)
    np.testing.assert_array_equal(labels - 100, order)
    np.testing.assert_array_equal(images[:, 0, 0], [stream(1 + index).random(3) for index in order])


def test_set_epoch_repeats_and_resumes():
    loader = DataLoader(Numbered(20), 3, shuffle=True, seed=5)
    epochs = [indices(loader) for _ in range(4)]
    assert loader.epoch == 4
    loader.set_epoch(2)
    assert [indices(loader), indices(loader)] == epochs[2:]
    fresh = DataLoader(Numbered(20), 3, shuffle=True, seed=5, num_workers=0)
    fresh.set_epoch(3)
    assert indices(fresh) == epochs[3]


@given(st.data(), st.integers(1, 30), st.integers(1, 12), st.sampled_from([0, 2]), st.booleans(), st.booleans())
def test_an_epoch_goes_on_where_it_was_left(data, n, batch_size, num_workers, shuffle, drop_last):
    """As if it had never stopped; nothing before is read, and the next epoch is a whole one."""
    assume(n >= batch_size or not drop_last)
    parts = data.draw(st.integers(1, 4), "parts")
    options = {
        "transform": add_noise, "shuffle": shuffle, "drop_last": drop_last, "seed": 3,
        "part": (data.draw(st.integers(0, parts - 1), "which"), parts),
    }  # fmt: skip
    whole = DataLoader(Numbered(n), batch_size, num_workers=0, **options)
    epoch, batch = data.draw(st.integers(0, 3), "epoch"), data.draw(st.integers(0, len(whole)), "batch")
    whole.set_epoch(epoch)
    expected, following = list(whole), list(whole)
    read = []
    loader = DataLoader(Numbered(n, read.append), batch_size, num_workers=num_workers, **options)
    loader.set_epoch(epoch, batch)
    assert (loader.epoch, loader.batch, len(loader)) == (epoch, batch, len(whole))
    found = list(loader)
    assert len(read) == sum(max(1, len(labels)) for _, labels in expected[batch:])
    for here, there in ((found, expected[batch:]), (list(loader), following)):
        for (images, labels), (expected_images, expected_labels) in zip(here, there, strict=True):
            np.testing.assert_array_equal(images, expected_images)
            np.testing.assert_array_equal(labels, expected_labels)
    assert (loader.epoch, loader.batch) == (epoch + 2, 0)


@WORKERS
def test_an_epoch_of_which_nothing_is_left(options):
    """Another one follows; and set_epoch begins at the front unless it says otherwise."""
    loader = DataLoader([(np.zeros((2, 2, 3), np.uint8), i) for i in range(5)], 2, **options)
    loader.set_epoch(4, 3)
    assert list(loader) == [] and loader.epoch == 5
    assert [labels.tolist() for _, labels in loader] == [[0, 1], [2, 3], [4]]
    loader.set_epoch(6, 2)
    assert [labels.tolist() for _, labels in loader] == [[4]]
    loader.set_epoch(6, 2)
    loader.set_epoch(6)
    assert len(list(loader)) == 3


def test_an_iteration_that_was_broken_off_is_an_epoch_too():
    loader = DataLoader(Numbered(20), 3, shuffle=True)
    next(iter(loader))
    second = indices(loader)
    loader.set_epoch(1)
    assert indices(loader) == second


def test_two_iterators_at_once():
    loader = DataLoader(Numbered(30), 4, shuffle=True)
    expected = [indices(loader), indices(loader)]
    loader.set_epoch(0)
    pairs = [(a.tolist(), b.tolist()) for (_, a), (_, b) in zip(loader, loader, strict=True)]
    assert [[[label - 100 for label in labels] for labels in side] for side in zip(*pairs, strict=True)] == expected


def test_slow_samples_do_not_change_the_order():
    loader = DataLoader(Numbered(24, on_read=lambda i: time.sleep(0.002 if i % 4 == 0 else 0)), 2, num_workers=4)
    assert flat(indices(loader)) == list(range(24))


# -- parts of batches -----------------------------------------------------------------------------------------------


def add_noise(image, rng):
    return image + rng.random(image.shape)


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 9), st.sampled_from([0, 2]), st.booleans(), st.booleans())
def test_the_parts_of_a_batch_are_its_rows(n, batch_size, parts, num_workers, shuffle, drop_last):
    """Each row once, in every epoch, augmented alike; the last, smaller batch too."""
    assume(n >= batch_size or not drop_last)
    options = {"transform": add_noise, "shuffle": shuffle, "seed": 3, "drop_last": drop_last}
    whole = DataLoader(Numbered(n), batch_size, num_workers=0, **options)
    loaders = [
        DataLoader(Numbered(n), batch_size, num_workers=num_workers, part=(which, parts), **options)
        for which in range(parts)
    ]
    assert {len(loader) for loader in loaders} == {len(whole)}
    for _ in range(2):
        for (images, labels), *batches in zip(whole, *loaders, strict=True):
            np.testing.assert_array_equal(np.concatenate([some for some, _ in batches]), images)
            np.testing.assert_array_equal(np.concatenate([some for _, some in batches]), labels)
            for which, (some, some_labels) in enumerate(batches):
                size = len(labels) * (which + 1) // parts - len(labels) * which // parts
                assert some.shape == (size, 2, 3, 3) and some_labels.shape == (size,)
                assert some.dtype == images.dtype and some_labels.dtype == np.int64
    assert {loader.epoch for loader in loaders} == {2}


@pytest.mark.parametrize(
    "part, expected, sizes",
    [
        ((0, 1), [0, 1, 2, 3, 4, 5, 6], [5, 2]),
        ((0, 2), [0, 1, 5], [2, 1]),
        ((1, 2), [2, 3, 4, 6], [3, 1]),
        ((2, 4), [2, 5], [1, 0]),
    ],
)
def test_only_the_rows_of_a_part_are_read(part, expected, sizes):
    """Of a part without rows, the batch's first sample, which tells the shape."""
    read = []
    loader = DataLoader(Numbered(7, read.append), 5, num_workers=0, part=part)
    assert [len(labels) for _, labels in loader] == sizes
    assert read == expected


@WORKERS
def test_a_part_without_rows(options):
    """Its shape and dtype are those of its own batch, its labels' too."""
    shapes = [(2, 3, 3)] * 3 + [(4, 1, 3)] * 2
    dataset = [(np.zeros(shape, np.uint8), np.full(5, 0.5)) for shape in shapes]
    first, last = DataLoader(dataset, 3, part=(0, 4), **options)
    assert [(x.shape, x.dtype) for x in first] == [((0, 2, 3, 3), np.uint8), ((0, 5), np.float32)]
    assert [(x.shape, x.dtype) for x in last] == [((0, 4, 1, 3), np.uint8), ((0, 5), np.float32)]


# -- threads --------------------------------------------------------------------------------------------------------


def test_without_workers_everything_happens_in_the_callers_thread():
    seen = []
    iterator = iter(
        DataLoader(Numbered(6, lambda index: seen.append((index, threading.current_thread()))), 2, num_workers=0)
    )
    assert seen == [] and not workers()
    next(iterator)
    assert seen == [(0, threading.current_thread()), (1, threading.current_thread())]


def test_workers_run_beside_each_other():
    meeting = threading.Barrier(3, timeout=10)
    names = set()

    def on_read(index):
        names.add(threading.current_thread().name)
        meeting.wait()  # passes only if three batches are loaded at the same time

    assert flat(indices(DataLoader(Numbered(6, on_read), 1, num_workers=3))) == list(range(6))
    assert len(names) == 3


@pytest.mark.parametrize("prefetch, options", [(1, {"prefetch": 1}), (3, {"prefetch": 3}), (5, {"num_workers": 3})])
def test_batches_in_flight_are_bounded(prefetch, options):
    begun = set()
    loader = DataLoader(Numbered(20, begun.add), 1, **options)
    for count, _ in enumerate(loader, 1):
        deadline = time.monotonic() + 10
        while len(begun) < min(20, count + prefetch) and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(0.002)
        assert len(begun) == min(20, count + prefetch)


def test_breaking_off_stops_within_a_batch():
    hold, reached, begun = threading.Event(), threading.Event(), []

    def on_read(index):
        begun.append(index)
        if index >= 10:
            reached.set()
            wait(hold)

    for _ in DataLoader(Numbered(100, on_read), 10, num_workers=1):
        wait(reached)
        break
    hold.set()
    assert_workers_end()
    assert begun == list(range(11))


def test_closing_the_iterator_ends_the_threads():
    iterator = iter(DataLoader(Numbered(40), 2))
    next(iterator)
    assert workers()
    iterator.close()
    assert_workers_end()
    assert next(iterator, "end") == "end"


def test_an_exception_in_the_body_ends_the_threads():
    with pytest.raises(ZeroDivisionError):
        for _ in DataLoader(Numbered(40), 2):
            raise ZeroDivisionError
    gc.collect()  # the traceback held the iterator
    assert_workers_end()


def test_dropping_the_iterator_ends_the_threads_without_the_collector():
    gc.disable()
    try:
        iterator = iter(DataLoader(Numbered(40), 2))
        next(iterator)
        del iterator
        assert_workers_end()
    finally:
        gc.enable()


def test_a_worker_may_collect_its_own_iterator():
    dropped, collected = threading.Event(), threading.Event()

    def on_read(index):
        if index == 1:
            wait(dropped)
            gc.collect()
            collected.set()

    class Holder:
        pass

    gc.collect()
    gc.disable()
    try:
        holder = Holder()
        holder.me, holder.iterator = holder, iter(DataLoader(Numbered(9, on_read), 1, num_workers=1))
        next(holder.iterator)
        del holder
        assert workers()
        dropped.set()
        wait(collected)
        assert_workers_end()
    finally:
        gc.enable()


SCRIPT = """
import signal, time, threading
import numpy as np
from minicnn.data import DataLoader

class Slow:
    def __len__(self): return 1000
    def __getitem__(self, index):
        time.sleep(0.002)
        return np.zeros((2, 2, 3), np.uint8), index

loader = DataLoader(Slow(), 4)
iterator = iter(loader)
next(iterator)
"""


@pytest.mark.parametrize(
    "end, status, error",
    [
        ("", 0, ""),
        ("del iterator", 0, ""),
        ("loader.me, loader.iterator = loader, iterator; del loader, iterator", 0, ""),
        ("for images, labels in loader: 1 / 0", 1, "ZeroDivisionError"),
        ("for images, labels in loader: signal.raise_signal(signal.SIGINT)", -signal.SIGINT, "KeyboardInterrupt"),
    ],
)
def test_the_interpreter_exits_at_once(end, status, error):
    environment = os.environ | {"PYTHONPATH": str(Path(minicnn.data.__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT + end], env=environment, timeout=60, capture_output=True, text=True
    )
    assert result.returncode == status
    assert result.stdout == ""
    if error:
        assert result.stderr.count("Traceback") == 1 and result.stderr.splitlines()[-1].startswith(error)
    else:
        assert result.stderr == ""


# -- errors ---------------------------------------------------------------------------------------------------------


class Broken(Exception):
    pass


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_in_a_worker_reaches_the_caller_in_its_turn(num_workers):
    def on_read(index):
        if index == 7:
            raise Broken("the disk is on fire", 42)

    loader = DataLoader(Numbered(20, on_read), 3, num_workers=num_workers)
    seen = []
    with pytest.raises(Broken) as info:
        for _, labels in loader:
            seen += (labels - 100).tolist()
    assert seen == [0, 1, 2, 3, 4, 5]
    assert info.value.args == ("sample 7: the disk is on fire", 42)
    assert "on_read" in [entry.name for entry in info.traceback]


@pytest.mark.parametrize(
    "error, args",
    [
        (KeyError(3), (3,)),
        (OSError(5, "Input/output error"), (5, "Input/output error")),
        (ValueError(), ("sample 0: ",)),
        (ValueError("sample 0: known"), ("sample 0: known",)),
    ],
)
def test_only_messages_are_changed(error, args):
    def on_read(index):
        raise error

    with pytest.raises(type(error)) as info:
        list(DataLoader(Numbered(1, on_read), 1))
    assert info.value is error and error.args == args


@pytest.mark.parametrize("num_workers", [0, 2])
def test_stop_iteration_in_a_dataset_does_not_pass_for_the_end(num_workers):
    with pytest.raises(RuntimeError) as info:
        list(DataLoader(Numbered(1, lambda index: next(iter(()))), 1, num_workers=num_workers))
    assert info.value.__cause__.args == ("sample 0: ",)


def test_an_error_of_a_transform_names_the_sample():
    def transform(image, rng):
        raise TypeError("no")

    with pytest.raises(TypeError, match=r"^sample 0: no$"):
        next(iter(DataLoader(Numbered(2), 2, transform=transform)))


def test_what_is_called_otherwise_than_a_transform():
    for transform in ([lambda image, rng: image], lambda image: image, 3):
        with pytest.raises(
            TypeError, match=r"^a transform is called as transform\(image, rng\), and several are a Compose"
        ):
            DataLoader(Numbered(2), 2, transform=transform)
    DataLoader(Numbered(2), 2, transform=max)  # which does not tell what it takes


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_of_one_batch_must_agree(num_workers):
    dataset = [(np.zeros((4, 4 + i // 3, 3), np.uint8), 0) for i in range(6)]
    with pytest.raises(DataError) as info:
        list(DataLoader(dataset, 4, num_workers=num_workers))
    assert str(info.value) == (
        "sample 3: image is uint8 (4, 5, 3), its batch began with uint8 (4, 4, 3);"
        " add transforms.Resize and CenterCrop or RandomCrop"
    )
    assert len(list(DataLoader(dataset, 3, num_workers=num_workers))) == 2
    mixed = [(np.zeros((2, 2, 3), dtype), 0) for dtype in (np.uint8, np.float32)]
    with pytest.raises(DataError, match=r"^sample 1: image is float32 \(2, 2, 3\), its batch began with uint8"):
        list(DataLoader(mixed, 2, num_workers=num_workers))


@WORKERS
@pytest.mark.parametrize(
    "other, words",
    [
        (
            0.5,
            r"label is float32 \(\), its batch began with int64 \(\); all have to be integers, or all float\(label\)",
        ),
        ([1], r"label is int64 \(1,\), its batch began with int64 \(\)"),
    ],
)
def test_labels_of_one_batch_must_agree(options, other, words):
    dataset = [(np.zeros((2, 2, 3), np.uint8), label) for label in (0, 1, 2, 3, other)]
    with pytest.raises(DataError, match=f"^sample 4: {words}"):
        list(DataLoader(dataset, 3, **options))
    assert len(list(DataLoader(dataset, 4, **options))) == 2


@WORKERS
def test_a_sample_that_is_no_pair(options):
    picture, found = np.zeros((2, 2, 3), np.uint8), []
    samples = {
        "ndarray": picture[:2],  # which could be unpacked
        "tuple of 1": (picture,),
        "tuple of 3": (picture, 0, 0),
        "list of 3": [picture, 0, 0],
        "dict": {"image": picture, "label": 0},
        "NoneType": None,
    }
    dataset = [(picture, 0), [picture, 1], *samples.values()]
    list(DataLoader(dataset, 1, on_bad=lambda name, error: found.append(str(error)), **options))
    assert found == [
        f"sample {i}: a dataset's sample is (image, label), not a {what}: let dataset[i] return (image, label);"
        " of arrays X and y, Arrays(X, y) is a dataset"
        for i, what in enumerate(samples, 2)
    ]
    with pytest.raises(DataError) as info:
        list(DataLoader(dataset, 1, **options))
    assert str(info.value) == found[0]


def test_arrays_in_a_dataset_s_place():
    x, y = np.zeros((8, 2, 2, 3), np.uint8), np.zeros(8, int)
    for dataset in ((x, y), [x, y], x, [x[0], x[1]], (x, [0] * 8)):
        with pytest.raises(TypeError, match=r"not a dataset: write DataLoader\(Arrays\(X, y\), …\)$"):
            DataLoader(dataset, 2)
    with pytest.raises(ValueError, match="no batch to load"):
        DataLoader([], 1)
    sample = (x[0], 3)
    assert next(iter(DataLoader((sample, sample), 2)))[1].tolist() == [3, 3]


@WORKERS
def test_an_image_that_is_no_array(options):
    """By itself, or where a transform needs one; but a transform may make it one."""
    Image = pytest.importorskip("PIL.Image")
    picture = Image.new("RGB", (4, 4))
    words = "^sample 1: the image is a {}, not a NumPy array \\(H, W, C\\): let the dataset return {}$"
    convert = r'np.asarray\(image.convert\("RGB"\)\)'
    dataset = [(np.zeros((4, 4, 3), np.uint8), 0), (picture, 1)]
    transforms = [None, CenterCrop(2), Resize(2), Compose([RandomHorizontalFlip()]), Normalize(0.5, 0.5)]
    for transform in transforms[: 1 if "processes" in options else 5]:  # which take a moment to start
        with pytest.raises(DataError, match=words.format("PIL.Image.Image", convert)):
            list(DataLoader(dataset, 1, transform=transform, **options))
    with pytest.raises(DataError, match=words.format("PIL.Image.Image", convert)):
        list(DataLoader(dataset, 1, normalize=Normalize(0.5, 0.5), **options))
    with pytest.raises(DataError, match=words.format("builtins.list", r"np.asarray\(image\)")):
        list(DataLoader([dataset[0], ([[0]], 1)], 1, **options))
    batches = list(DataLoader(dataset, 2, transform=to_array, **options))
    assert [images.shape for images, _ in batches] == [(2, 4, 4, 3)]


def to_array(image, rng):
    return np.asarray(image)


def test_an_attribute_error_of_ones_own_stays():
    dataset = [(np.zeros((4, 4, 3), np.uint8), 0)]
    with pytest.raises(AttributeError, match=r"^sample 0: .*nothing"):
        list(DataLoader(dataset, 1, transform=lambda image, rng: image.nothing))


@pytest.mark.parametrize(
    "label",
    ["cat", None, 1j, 2**63, -(2**63) - 1, np.uint64(2**63), np.array([1, 2**63], np.uint64), np.array(["a"]), object],
)
def test_a_label_that_is_no_number(label):
    dataset = [(np.zeros((2, 2, 3), np.uint8), 0), (np.zeros((2, 2, 3), np.uint8), label)]
    with pytest.raises(DataError) as info:
        list(DataLoader(dataset, 2))
    assert str(info.value) == (
        f"sample 1: the label is {reprlib.repr(label)}, not an integer of 64 bits, a float or an array of these;"
        " of a class, give its index"
    )


def test_bad_arguments():
    def message(*args, **options):
        with pytest.raises(ValueError) as info:
            DataLoader(*args, **options)
        return str(info.value)

    def integer(name, least, value):
        return f"{name} must be a whole number from {least}, not {value}"

    data = Numbered(3)
    assert message(data, 0) == integer("batch_size", 1, 0)
    assert message(data, 2.0) == integer("batch_size", 1, 2.0)
    assert message(data, 1, num_workers=-1) == integer("num_workers", 0, -1)
    assert message(data, 1, prefetch=0) == integer("prefetch", 1, 0)
    assert message(data, 1, seed=-1) == integer("seed", 0, -1)
    assert message(data, 1, seed=2**64) == integer("seed", "0 to 2**63 - 1", 2**64)
    for part in ((2, 2), (-1, 2), (0, 0), (0, -1), (0.0, 2), (0, 2.0), (0,), (0, 1, 2), 1, None, "02"):
        assert message(data, 1, part=part) == (
            f"part must be (which, of how many), two integers with 0 <= which < how many, got {part!r}"
        )
    assert DataLoader(data, 1, part=np.array([1, 2])).part == (1, 2)
    assert message(Numbered(0), 1) == (
        "no batch to load: the dataset has 0 samples, batch_size is 1, drop_last is False"
    )
    assert message(data, 4, drop_last=True) == (
        "no batch to load: the dataset has 3 samples, batch_size is 4, drop_last is True"
    )
    loader = DataLoader(data, 1)
    with pytest.raises(ValueError) as info:
        loader.set_epoch(-1)
    assert str(info.value) == integer("epoch", 0, -1)
    loader.set_epoch(5, 2)
    for batch, words in {
        -1: integer("batch", "0 to 3", -1),
        4: integer("batch", "0 to 3", 4),
        1.0: integer("batch", "0 to 3", 1.0),
    }.items():
        with pytest.raises(ValueError) as info:
            loader.set_epoch(6, batch)
        assert str(info.value) == words
        assert (loader.epoch, loader.batch) == (5, 2)  # as they were
    for on_bad in (3, lambda name: None, lambda name, error, more: None, [print]):
        with pytest.raises(TypeError, match=r"^on_bad is called as on_bad\(name, error\): "):
            DataLoader(data, 1, on_bad=on_bad)


# -- samples that are left out --------------------------------------------------------------------------------------


class Holey(Numbered):
    """As Numbered, but those in `bad` raise error(index)."""

    def __init__(self, n, bad, error=lambda index: OSError(5, "no") if index % 2 else DataError("no"), **options):
        super().__init__(n, **options)
        self.bad, self.error = bad, error

    def __getitem__(self, index):
        if index in self.bad:
            raise self.error(index)
        return super().__getitem__(index)


@given(st.data(), st.integers(1, 24), st.integers(1, 8), st.booleans(), st.booleans())
def test_samples_that_cannot_be_read_are_left_out(data, n, batch_size, shuffle, drop_last):
    """Compared with lists of numbers, for each number of workers: what is handed out, and when on_bad is called."""
    assume(n >= batch_size or not drop_last)
    bad = data.draw(st.sets(st.integers(0, n - 1), max_size=n - 1), "bad")
    parts = data.draw(st.integers(1, 3), "parts")
    which = data.draw(st.integers(0, parts - 1), "which")
    options = {"shuffle": shuffle, "drop_last": drop_last, "seed": 1, "part": (which, parts)}
    rows = indices(DataLoader(Numbered(n), batch_size, num_workers=0, **options))
    expected = []
    for row in rows:
        expected += [(f"sample {index}", OSError if index % 2 else DataError) for index in row if index in bad]
        expected.append([index for index in row if index not in bad])
    for num_workers in (0, 1, 3):
        found = []
        loader = DataLoader(
            Holey(n, bad), batch_size, num_workers=num_workers, prefetch=3, **options,
            on_bad=lambda name, error, found=found: found.append((name, type(error))),
        )  # fmt: skip
        for images, labels in loader:
            np.testing.assert_array_equal(
                images, np.broadcast_to((labels - 100)[:, None, None, None], (len(labels), 2, 3, 3))
            )
            assert images.dtype == np.uint8 and labels.dtype == np.int64
            found.append((labels - 100).tolist())
        assert found == expected and len(loader) == len(rows)


def augmented(image, rng):
    return image if image is None else image + rng.integers(0, 9, image.shape, np.uint8)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_stays_is_augmented_as_before(num_workers):
    """The rows are those that the batch has without holes."""
    samples = [(np.full((2, 2, 3), i, np.uint8), i / 2) for i in range(7)]
    holey = [(None, 0) if i in (3, 5) else sample for i, sample in enumerate(samples)]
    told = []
    options = {"transform": augmented, "normalize": Normalize(0.5, 0.25), "num_workers": num_workers}
    whole = list(DataLoader(samples, 3, **options))
    some = list(DataLoader(holey, 3, on_bad=lambda name, error: told.append((name, str(error))), **options))
    for (images, labels), (expected, targets), rows in zip(some, whole, (slice(3), slice(1, 2), slice(1)), strict=True):
        np.testing.assert_array_equal(images, expected[rows])
        np.testing.assert_array_equal(labels, targets[rows])
        assert images.dtype == expected.dtype and labels.dtype == np.float32
        assert images.flags.c_contiguous and images.flags.writeable
    assert [name for name, _ in told] == ["sample 3", "sample 5"]
    assert told[0][1].startswith("sample 3: the image is a builtins.NoneType, not a NumPy array")


@pytest.mark.parametrize("num_workers", [0, 3])
def test_on_bad_is_called_in_its_turn(num_workers):
    """Not when a batch is loaded, and in the thread that iterates."""
    told, loaded = [], threading.Event()
    loader = DataLoader(
        Holey(8, {6}, on_read=lambda index: loaded.set() if index == 7 else None), 2, num_workers=num_workers,
        prefetch=9, on_bad=lambda *_: told.append(threading.current_thread()),
    )  # fmt: skip
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    if num_workers:
        wait(loaded)
    assert told == []
    assert (next(batches)[1] - 100).tolist() == [7] and told == [threading.current_thread()]
    assert list(batches) == []


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("error", [TypeError, ValueError, RuntimeError, MemoryError])
def test_other_errors_end_the_iteration_as_before(num_workers, error):
    told = []
    dataset = Holey(9, {2, 4}, lambda index: error("no") if index == 4 else DataError("no"))
    with pytest.raises(error, match=r"^sample 4: no$"):
        list(DataLoader(dataset, 2, num_workers=num_workers, on_bad=lambda name, error: told.append(name)))
    assert told == ["sample 2"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_mixed_shapes_are_an_error_all_the_same(num_workers):
    """The batch began with the first that is left in it."""
    dataset = [(np.zeros((2, side, 3), np.uint8) if side else None, 0) for side in (4, 4, 0, 5, 6, 0, 5, 0, 6)]
    loader = DataLoader(dataset[:6], 2, num_workers=num_workers, on_bad=lambda *_: None)
    assert [images.shape for images, _ in loader] == [(2, 2, 4, 3), (1, 2, 5, 3), (1, 2, 6, 3)]
    with pytest.raises(
        DataError, match=r"^sample 2: image is uint8 \(2, 6, 3\), its batch began with uint8 \(2, 5, 3\)"
    ):
        list(DataLoader(dataset[6:], 3, num_workers=num_workers, on_bad=lambda *_: None))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("error", [ZeroDivisionError, DataError, StopIteration])
def test_what_on_bad_raises_ends_the_iteration(num_workers, error):
    """And its threads, at once. StopIteration does not pass for the end of the epoch."""

    def on_bad(name, found):
        raise error(name)

    seen = []
    with pytest.raises(RuntimeError if error is StopIteration else error) as info:
        for _, labels in DataLoader(Holey(40, {5}), 2, num_workers=num_workers, on_bad=on_bad):
            seen += (labels - 100).tolist()
    assert seen == [0, 1, 2, 3] and "sample 5" in (*info.value.args, *getattr(info.value.__cause__, "args", ()))
    assert_workers_end()  # though the traceback holds their iterator


# Of three batches of three, the second has no shape. Which are bad besides, whose part it is, and what comes out.
HOLES = [
    ((), (0, 1), [(3, 2, 3, 3), (0, 2, 3, 3), (3, 4, 1, 3)]),
    ((0,), (0, 1), [(2, 2, 3, 3), (0, 2, 3, 3), (3, 4, 1, 3)]),
    ((0, 1, 2), (0, 1), [(0, 4, 1, 3), (0, 4, 1, 3), (3, 4, 1, 3)]),
    ((6,), (0, 3), [(1, 2, 3, 3), (0, 2, 3, 3), (0, 4, 1, 3)]),
    ((0, 6, 7), (0, 4), [(0, 2, 3, 3), (0, 2, 3, 3), (0, 4, 1, 3)]),  # a part that has no rows
]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_batch_of_which_nothing_can_be_read(num_workers):
    """Its shape is that of a sample of the same batch, if another part has one, else that of another batch's."""
    shapes = [(2, 3, 3)] * 3 + [None] * 3 + [(4, 1, 3)] * 3
    for number, (bad, (which, parts), expected) in enumerate(HOLES):
        normalize = Normalize(0.5, 0.5) if number % 2 else None
        holes = {3, 4, 5, *bad}
        dataset = [(None if i in holes else np.zeros(shapes[i], np.uint8), np.full(5, 0.5)) for i in range(9)]
        told = []
        loader = DataLoader(
            dataset, 3, part=(which, parts), normalize=normalize, num_workers=num_workers,
            on_bad=lambda name, _, told=told: told.append(name),
        )  # fmt: skip
        batches = list(loader)
        assert [images.shape for images, _ in batches] == expected
        for images, labels in batches:
            assert images.dtype == (np.uint8 if normalize is None else np.float32)
            assert labels.dtype == np.float32 and labels.shape == (len(images), 5)
        rows = {1: range(9), 3: (0, 3, 6), 4: ()}[parts]
        assert told == [f"sample {i}" for i in rows if i in holes]


@pytest.mark.parametrize("n, tried", [(1000, 102), (999, 101), (1001, 92), (150, 76), (100, 100), (7, 7), (1, 1)])
def test_data_that_are_gone(n, tried):
    """A hundred samples from all over a large dataset are tried, not a million; then there is no shape, and on_bad has
    nothing to leave out."""
    read = []
    dataset = Holey(n, range(n), lambda index: read.append(index) or OSError(5, "gone"))
    for num_workers in (0, 1):
        read.clear()
        loader = DataLoader(dataset, 2, num_workers=num_workers, on_bad=lambda *_: pytest.fail("it is told"))
        loader.set_epoch(0, len(loader) - 1)
        first = 2 * (len(loader) - 1)
        with pytest.raises(DataError) as info:
            list(loader)
        words = f"sample {first}: [Errno 5] gone; none of {tried} samples tried can be loaded"
        assert str(info.value) == words and isinstance(info.value.__cause__, OSError)
        assert len(set(read)) == tried and max(read) - min(read) > 0.9 * n - 2


def test_the_last_that_is_left_tells_the_shape():
    for last in (0, 990):  # of every tenth
        loader = DataLoader(Holey(1000, set(range(1000)) - {last}), 500, on_bad=lambda *_: None)
        assert sorted(images.shape for images, _ in loader) == [(0, 2, 3, 3), (1, 2, 3, 3)]


def test_an_iterator_that_is_closed_looks_for_no_shape():
    hold, reached, read = threading.Event(), threading.Event(), []

    def error(index):
        read.append(index)
        if len(read) == 7:  # the second of those that are looked at for their shape
            reached.set()
            wait(hold)
        return DataError("no")

    batches = iter(DataLoader(Holey(90, range(1, 90), error), 6, num_workers=1, prefetch=1, on_bad=lambda *_: None))
    next(batches)
    wait(reached)
    batches.close()
    hold.set()
    assert_workers_end()
    assert len(read) == 7


class Gone(OSError):
    """Unlike an OSError, it can be referred to weakly."""


def test_an_error_that_was_told_is_forgotten():
    """It holds no images, and nothing holds it."""
    errors = []
    gc.collect()
    gc.disable()
    try:
        loader = DataLoader(Holey(6, {1, 4}, Gone), 3, on_bad=lambda name, error: errors.append(weakref.ref(error)))
        for _ in loader:
            pass
        assert [error() for error in errors] == [None, None]
    finally:
        gc.enable()


def test_batches_are_the_callers_alone():
    """Their memory is free as soon as he lets go of them, while the iterator waits."""
    for options in ({"num_workers": 0}, {"num_workers": 1, "prefetch": 1}):
        batches = iter(DataLoader(Numbered(4), 1, **options))
        images, labels = next(batches)
        gone = [weakref.ref(array if array.base is None else array.base) for array in (images, labels)]
        del images, labels
        assert [one() for one in gone] == [None, None]
        batches.close()


def test_a_copy_of_a_loader_is_told_as_well():
    told = []
    loader = copy.copy(DataLoader(Holey(3, {1}), 3, on_bad=lambda name, error: told.append(name)))
    assert [(labels - 100).tolist() for _, labels in loader] == [[0, 2]] and told == ["sample 1"]


def vanish(path):
    path.unlink()


def become_a_folder(path):
    path.unlink()
    path.mkdir()


def become_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def become_text(path):
    path.write_bytes(b"404 Not Found")


def become_empty(path):
    path.write_bytes(b"")


def rot(path):
    path.write_bytes(path.read_bytes()[:-40])


def lead_to_itself(path):
    path.unlink()
    path.symlink_to(path)


@WORKERS
def test_photos_that_perish_within_the_epoch(tmp_path, options):
    """Each is named, the others come as ever, and nothing waits for a pipe that nobody writes to."""
    pytest.importorskip("PIL.Image")
    from PIL import Image

    ends = {
        vanish: "cannot be read: No such file or directory", become_a_folder: "cannot be read: Is a directory",
        become_a_pipe: "cannot be read: it is a named pipe, not a regular file",
        become_text: "not an image that Pillow can read", become_empty: "not an image that Pillow can read",
        rot: "cannot be read: image file is truncated", lead_to_itself: "cannot be read: Too many levels of symbolic links",
    }  # fmt: skip
    rng = np.random.default_rng(0)
    for i in range(24):
        path = tmp_path / f"{i % 2}" / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(path)
    folder, told = ImageFolder(tmp_path), []
    options = {"transform": RandomCrop(16), "shuffle": True, "prefetch": 1, **options}
    whole = DataLoader(folder, 4, **{**options, "num_workers": 0, "processes": False})
    loader = DataLoader(folder, 4, on_bad=lambda name, error: told.append((name, str(error))), **options)
    order = [label for _, label in DataLoader([(np.zeros(1), i) for i in range(24)], 4, shuffle=True)]
    expected, batches = list(whole), iter(loader)
    found = [next(batches)]
    perished = np.concatenate(order)[-len(ends) :].tolist()
    for index, end in zip(perished, ends, strict=True):
        end(Path(folder.samples[index][0]))
    found += batches
    assert [name for name, _ in told] == [folder.samples[index][0] for index in perished]
    for (name, message), words in zip(told, ends.values(), strict=True):
        assert message.startswith(f"{name}: {words}"), message
    for (images, labels), (all_images, all_labels), numbers in zip(found, expected, order, strict=True):
        kept = ~np.isin(numbers, perished)
        np.testing.assert_array_equal(images, all_images[kept])
        np.testing.assert_array_equal(labels, all_labels[kept])
    assert [len(labels) for _, labels in found] == [4, 4, 4, 4, 1, 0]


# -- files ----------------------------------------------------------------------------------------------------------


def test_an_error_names_the_file_once(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    Image.new("RGB", (6, 8)).save(tmp_path / "b/4.png")
    folder = ImageFolder(tmp_path)
    with pytest.raises(DataError) as info:
        list(DataLoader(folder, 2, transform=CenterCrop(7)))
    assert str(info.value) == (
        f"{tmp_path}/b/4.png: CenterCrop(size=7) does not fit into an image of 8x6"
        " (height x width); put Resize(7) before it"
    )
    with pytest.raises(DataError, match=f"^{tmp_path}/b/4.png: image is uint8"):
        list(DataLoader(folder, 4))
    (tmp_path / "a/2.png").write_bytes(b"text")
    with pytest.raises(DataError, match=f"^{tmp_path}/a/2.png: not an image that Pillow can read$"):
        list(DataLoader(folder, 4))


def test_real_photos_come_out_the_same_for_any_number_of_workers(shared):
    pytest.importorskip("PIL")
    folder = ImageFolder(shared / "caltech10" / "val")
    transform = Compose([Resize(64), RandomCrop(56, padding=2), RandomHorizontalFlip(), Normalize(0.5, 0.25)])
    loaders = [DataLoader(folder, 32, transform=transform, shuffle=True, seed=1, num_workers=count) for count in (0, 2)]
    labels = []
    for (a, a_labels), (b, b_labels) in zip(*loaders, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a_labels, b_labels)
        assert a.shape[1:] == (56, 56, 3) and a.dtype == np.float32 and a.std() > 0.3
        labels += a_labels.tolist()
    assert sorted(labels) == [label for _, label in folder.samples]
