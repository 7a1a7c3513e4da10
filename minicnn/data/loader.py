"""DataLoader: shuffled, augmented batches, loaded by worker threads or processes while the caller
works on the batch before.

>>> import numpy as np
>>> from minicnn.data import DataLoader
>>> dataset = [(np.full((4, 4, 3), i, np.uint8), i % 2) for i in range(10)]
>>> loader = DataLoader(dataset, batch_size=4, shuffle=True, seed=1)
>>> [(images.shape, labels.shape) for images, labels in loader]
[((4, 4, 4, 3), (4,)), ((4, 4, 4, 3), (4,)), ((2, 4, 4, 3), (2,))]

Of two arrays, Arrays(X, y) makes a dataset.

For a GPU the same loop gets arrays on that GPU. Images are copied as bytes, through pinned memory,
while the batch before is worked on, and become floats there:

    DataLoader(dataset, 128, transform=RandomCrop(227), normalize=Normalize(mean, std),
    device="gpu")

All randomness comes from Philox, a counter-based generator: its key is (seed, epoch), and the
highest word of its counter is 0 for the order of the epoch and 1 + i for sample i. So neither
threads nor batches change what is drawn.
"""

from __future__ import annotations

import copy
import functools
import inspect
import operator
import reprlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

from ..backends import chosen_backend, use_backend
from ..backends.devices import Array, on_device, on_host, open_device, uploader
from ..backends.numpy.memory import empty
from ..checks import flags, shown, whole
from .folder import DataError
from .processes import Processes
from .reading import NOT_THE_FILES
from .transforms import Normalize, Transform

EXAMPLES = 100  # samples that are tried for the shape of a batch of which none can be loaded

Batch = tuple[Array, Array]
Batches = Generator[Batch, None, None]
Bad = list[tuple[str, Exception]]
Loaded = tuple[Array, Array, Bad]  # a batch, and the names and errors of samples that are left out
Load = Callable[..., Loaded]


class Dataset(Protocol):
    """What a DataLoader needs of a dataset: its length, and (image, label) for each index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> tuple[NDArray[Any], Any]: ...


class DataLoader:
    """Batches of a dataset: images (N, H, W, C) in the dtype that the transform yields, and labels
    (N,) int64, in arrays of the caller's own on `device`.

    Labels that are integers or booleans are int64 in a batch, floats are targets, float32. A label
    may also be an array or a list of any shape (k,), which makes a batch (N, k).

    When a sample raises an error, so does the iteration: an error of the same type, its message
    preceded by the sample's file (`dataset.samples[i][0]`, where there is one) or index. With
    `on_bad`, a sample that cannot be read is left out instead, and the epoch goes on.

    Threads end with the iteration, or one sample after the iterator is closed or dropped; an
    iterator that is held until the interpreter exits ends after the batches in flight. Processes
    end with the DataLoader. Several iterators may run at the same time.

    Args:
        dataset: has a length, and (image, label) for each index; see Arrays, ImageFolder, CIFAR10
            and others.
        batch_size: samples in a batch, 1 or more. What follows is given by name, because PyTorch's
            third argument is shuffle.
        transform: called as transform(image, rng) for each sample, see minicnn.data.transforms.
        shuffle: a new order in each epoch. Each iteration over the loader is one epoch.
        seed: with the epoch it determines the order, and with the epoch and a sample's index what
            the transform draws for it.
        num_workers: threads that load batches (decoding and copying release the interpreter's
            lock). With 0, the caller's thread loads each batch when it is asked for.
        prefetch: how many batches may be loading or waiting while the caller holds one; by default
            two more than there are workers.
        drop_last: leave out the last batch of an epoch if it is smaller than the others.
        normalize: the last transform, after which images are float32. Where it runs depends on the
            device: in the workers, or on the GPU, which then receives a quarter of the bytes.
        device: "cpu", "gpu" or "gpu:N". Each batch is copied to a GPU while the batch before is
            worked on; the GPU itself keeps the two in order, and the program does not wait.
        processes: let processes load batches instead of threads; several processes are faster. They
            start with the first epoch, in a few tenths of a second, each with a copy of the dataset
            (of ImageNet, a list of names of 0.3 GB) and of the transforms. They import the program,
            so its own code has to stand under `if __name__ == "__main__":`.
        part: (which, of how many). Of each batch of `batch_size` samples, part r of n is the rows
            [size*r//n, size*(r + 1)//n), and only these are loaded. So n programs, each with its
            own part, together load the batches that one loads without, each row once, in the same
            order and with the same augmentation. Where a batch has fewer samples than there are
            parts, some parts have no rows: they are (0, H, W, C) and (0,).
        on_bad: called as on_bad(name, error) for each sample that raises DataError or OSError, as a
            file does that is damaged or has vanished (but not if too many files are open); by
            default, and for other errors, the iteration ends. The sample is left out of its batch,
            which has a row less; there are as many batches as ever, perhaps of (0, H, W, C) and
            (0,). The call comes right before the batch is handed out, in the thread that iterates,
            so it does not depend on the number of workers; of each part, for its own rows. `name`
            is the sample's file or index, as in messages. What on_bad raises ends the iteration.
    Attributes:
        epoch: the epoch that the next iteration will be, from 0; it counts up by itself.
        batch: the batch of it that comes first, 0 unless set_epoch has said otherwise.
    Raises:
        ValueError: an argument is out of range, or an epoch would have no batch.
        DeviceError: the device is not there.
        TypeError: arrays are given instead of a dataset, or `transform` or `on_bad` takes other
            arguments; or, when the first epoch begins, the dataset or a transform cannot be copied
            to processes.
        DataError: in the iteration, if a sample is not (array, label), or shapes or dtypes differ
            in one batch; with `on_bad`, if no sample of a batch can be loaded, nor any of a hundred
            others.

    Example:
        >>> loader = DataLoader([(np.zeros((4, 4, 3), np.uint8), i) for i in range(10)], 4)
        >>> [labels.tolist() for images, labels in loader]
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        transform: Transform | None = None,
        shuffle: bool = False,
        seed: int = 0,
        num_workers: int = 2,
        prefetch: int | None = None,
        drop_last: bool = False,
        normalize: Normalize | None = None,
        device: str = "cpu",
        processes: bool = False,
        part: tuple[int, int] = (0, 1),
        on_bad: Callable[[str, Exception], object] | None = None,
    ):
        first = dataset[0] if isinstance(dataset, (tuple, list)) and dataset else dataset
        if on_host(first):
            raise TypeError("arrays X of images and y of labels are not a dataset: write DataLoader(Arrays(X, y), …)")
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")) or isinstance(dataset, type):
            raise TypeError(f"DataLoader: dataset must have a length and samples by index, unlike {shown(dataset)}")
        flags("DataLoader", shuffle=shuffle, drop_last=drop_last, processes=processes)
        if normalize is not None and not isinstance(normalize, Normalize):
            raise TypeError(f"DataLoader: normalize must be a transforms.Normalize, not {shown(normalize)}")
        if transform is not None:
            _check_call(transform, "a transform is called as transform(image, rng), and several are a Compose")
        if on_bad is not None:
            _check_call(on_bad, "on_bad is called as on_bad(name, error)")
        self.dataset, self.transform, self.shuffle, self.drop_last = dataset, transform, shuffle, drop_last
        self.batch_size = whole("batch_size", batch_size, 1)
        self.seed = whole("seed", seed, 0)
        self.num_workers = whole("num_workers", num_workers, 1 if processes else 0)
        self.prefetch = self.num_workers + 2 if prefetch is None else whole("prefetch", prefetch, 1)
        self.normalize, self.device = normalize, open_device(device)
        self.epoch = self.batch = 0
        self.processes, self.part, self.on_bad = processes, _checked_part(part), on_bad
        self._running: Processes | None = None
        if len(self) == 0:
            raise ValueError(
                f"no batch to load: the dataset has {len(dataset)} samples, batch_size is {batch_size},"
                f" drop_last is {drop_last}"
            )

    def __repr__(self) -> str:
        """The dataset's length and type, and the settings."""
        settings = {
            "batch_size": self.batch_size, "transform": self.transform, "shuffle": self.shuffle, "seed": self.seed,
            "num_workers": self.num_workers, "processes": self.processes, "normalize": self.normalize,
            "device": self.device, "part": None if self.part == (0, 1) else self.part,
        }  # fmt: skip
        given = ", ".join(f"{name}={value!r}" for name, value in settings.items() if value is not None)
        return f"DataLoader({len(self.dataset):,} samples of {type(self.dataset).__name__}, {given})"

    def __len__(self) -> int:
        """Batches per epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int, batch: int = 0) -> None:
        """Choose the epoch that the next iteration will be, and where in it to begin, as when
        training resumes. From there on it is the same epoch: the order, the augmentation. Nothing
        before is loaded.

        Args:
            epoch: 0 or more.
            batch: how many batches to leave out, from 0 to len(loader), with which none is left.
                The iteration after the next one begins with its first batch again.
        Raises:
            ValueError: an argument is not such an integer.

        Example:
            >>> loader = DataLoader([(np.zeros((4, 4, 3), np.uint8), i) for i in range(10)], 4)
            >>> loader.set_epoch(0, batch=1)
            >>> [labels.tolist() for images, labels in loader]
            [[4, 5, 6, 7], [8, 9]]
        """
        self.epoch, self.batch = whole("epoch", epoch, 0), whole("batch", batch, 0, len(self))

    def __iter__(self) -> Batches:
        key, first = _Key(self.seed, self.epoch), self.batch
        self.epoch, self.batch = self.epoch + 1, 0
        size = len(self.dataset)
        order = _stream(key, 0).permutation(size) if self.shuffle else np.arange(size)
        batches = [order[i * self.batch_size :][: self.batch_size].tolist() for i in range(first, len(self))]
        upload = uploader(self.device)
        load = self._in_processes(key, batches[0]) if self.processes and batches else self._load
        load = functools.partial(load, key, empty if upload is None else upload.empty)
        loaded = self._prefetched(load, batches) if self.num_workers else (load(batch) for batch in batches)
        return self._handed_out(loaded if upload is None else self._uploaded(loaded, upload), len(batches))

    def _handed_out(self, batches: Generator[Loaded, None, None], number: int) -> Batches:
        """The batches for the caller, in whose thread this runs."""
        try:
            for _ in range(number):
                # no name here holds a batch: when the caller lets go of it, its memory is free
                yield self._told(next(batches))
        finally:
            batches.close()

    def _told(self, loaded: Loaded) -> Batch:
        """A batch, once on_bad knows what it is without."""
        images, labels, bad = loaded
        for name, error in bad:
            assert self.on_bad is not None
            self.on_bad(name, error)
        return images, labels

    def _uploaded(self, batches: Iterable[Loaded], upload: Any) -> Generator[Loaded, None, None]:
        """The batches on the GPU, each sent before the one ahead of it is handed out."""
        sent: deque[Any] = deque()
        try:
            for images, labels, bad in batches:
                sent.append((upload.send(images, labels), bad))
                if len(sent) > 1:
                    yield self._received(upload, *sent.popleft())
            while sent:
                yield self._received(upload, *sent.popleft())
        finally:
            if not sys.is_finalizing():
                upload.close()

    def _received(self, upload: Any, ticket: Any, bad: Bad) -> Loaded:
        with on_device(self.device):
            # later batches overwrite these arrays: the caller gets copies of his own
            images, labels = upload.receive(ticket)
            return images.copy() if self.normalize is None else self.normalize(images), labels.copy(), bad

    def _in_processes(self, key: _Key, batch: list[int]) -> Load:
        """_load, as processes do it. They start now, if they do not run: then one image tells how
        large a part of a batch is.
        """
        if self._running is None:
            row, _ = self._arrays(np.empty, 1, *self._example(key, batch))
            # batches for a GPU are copied to pinned memory
            lend = self.prefetch + 2 if self.device == "cpu" else 0
            rows = -(-self.batch_size // self.part[1])  # at most
            there = copy.copy(self)
            there.on_bad = None if self.on_bad is None else _told_elsewhere
            self._running = Processes(there._load, self.num_workers, rows * row.nbytes, lend)
        return self._running.load

    def __getstate__(self) -> dict[str, Any]:
        """For a copy in another process, which has no processes of its own."""
        return self.__dict__ | {"_running": None}

    def _prefetched(self, load: Load, batches: list[list[int]]) -> Generator[Loaded, None, None]:
        # with processes one more, which is about to take over what a process has loaded
        threads = self.num_workers + self.processes
        pool = ThreadPoolExecutor(threads, "minicnn-data", use_backend, (chosen_backend(),))
        closed = threading.Event()
        pending: deque[Future[Loaded]] = deque()
        try:
            for indices in batches:
                pending.append(pool.submit(load, indices, closed))
                if len(pending) > self.prefetch:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            # This is reached as well when the iterator is dropped, perhaps in a worker: so do not
            # wait for the workers.
            closed.set()
            pool.shutdown(wait=False)

    def _load(
        self, key: _Key, empty: Callable[..., Array], batch: list[int], closed: threading.Event | None = None
    ) -> Loaded:
        """This loader's part of a batch in host memory, in arrays that `empty` makes."""
        which, parts = self.part
        indices = batch[len(batch) * which // parts : len(batch) * (which + 1) // parts]
        normalize = self._normalize_here()
        bad: Bad = []
        rows = 0
        for index, image, label in self._readable(key, indices, bad, closed):
            if rows == 0:
                first_image, first_label = image, label
                images, labels = self._arrays(empty, len(indices), image, label)
            self._check_alike(index, "image", image, first_image, "add transforms.Resize and CenterCrop or RandomCrop")
            self._check_alike(index, "label", label, first_label, "all have to be integers, or all float(label)")
            if normalize is None:
                images[rows] = image
            else:
                normalize.write(image, images[rows])
            labels[rows] = label
            rows += 1
        if rows == 0:
            images, labels = self._arrays(empty, 1, *self._example(key, batch, closed))
        return (images, labels, bad) if rows == len(images) else (images[:rows], labels[:rows], bad)

    def _arrays(
        self, empty: Callable[..., Array], rows: int, image: NDArray[Any], label: NDArray[Any]
    ) -> tuple[Array, Array]:
        """Memory for so many rows like these: (N, H, W, C), and (N,) or (N, k)."""
        dtype = image.dtype if self._normalize_here() is None else np.float32
        return empty((rows, *image.shape), dtype), empty((rows, *label.shape), label.dtype)

    def _normalize_here(self) -> Normalize | None:
        """What is left to the workers of `normalize`."""
        return self.normalize if self.device == "cpu" else None

    def _readable(
        self, key: _Key, indices: Iterable[int], bad: Bad, closed: threading.Event | None
    ) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
        """(index, image, label) of these samples, less those left out, which go to `bad`."""
        for index in indices:
            if closed is not None and closed.is_set():
                raise CancelledError
            try:
                image, label = self._sample(key, index)
            except (DataError, OSError) as error:
                if self.on_bad is None or getattr(error, "errno", None) in NOT_THE_FILES:
                    raise
                # the traceback would hold this frame, and so images, and `bad` itself
                bad.append((self._name(index), error.with_traceback(None)))
            else:
                yield index, image, label

    def _example(
        self, key: _Key, batch: list[int], closed: threading.Event | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """A sample that has the shapes and dtypes of a batch's, if need be one of another batch."""
        size = len(self.dataset)
        some = dict.fromkeys([*batch, *range(0, size, -(-size // EXAMPLES))])
        bad: Bad = []
        for _, image, label in self._readable(key, some, bad, closed):
            return image, label
        name, error = bad[0]
        reason = str(error).removeprefix(f"{name}: ")
        raise DataError(f"{name}: {reason}; none of {len(some)} samples tried can be loaded") from error

    def _check_alike(self, index: int, what: str, array: NDArray[Any], first: NDArray[Any], advice: str) -> None:
        if array.shape != first.shape or array.dtype != first.dtype:
            raise DataError(
                f"{self._name(index)}: {what} is {array.dtype} {array.shape},"
                f" its batch began with {first.dtype} {first.shape}; {advice}"
            )

    def _sample(self, key: _Key, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        try:
            image, label = _pair(self.dataset[index])
            if self.transform is not None:
                image = self._transformed(image, _stream(key, 1 + index))
            _check_array(image)
            if self.normalize is not None:
                self.normalize.check(image)
            return image, _label(label)
        except Exception as error:
            name, message = self._name(index), error.args[0] if error.args else ""
            if isinstance(message, str) and name not in message:
                error.args = (f"{name}: {message}", *error.args[1:])
            raise

    def _transformed(self, image: Any, rng: np.random.Generator) -> Any:
        """transform(image, rng) for whatever the dataset has, because the user's own transform may
        make an array of it.
        """
        assert self.transform is not None
        try:
            return self.transform(image, rng)
        except (AttributeError, DataError) as error:  # 'Image' object has no attribute 'dtype'
            _check_array(image, error)
            raise

    def _name(self, index: int) -> str:
        samples = getattr(self.dataset, "samples", None)
        return f"sample {index}" if samples is None else str(samples[index][0])


def _told_elsewhere(name: str, error: Exception) -> None:
    """on_bad of the copies in processes, which send what they leave out along with a batch."""


def _check_call(function: Any, how: str) -> None:
    if not callable(function):
        raise TypeError(f"{how}: {shown(function)} is not callable")
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise TypeError(f"{how}: {error}") from None
    except ValueError:  # what is written in C may not tell what it takes
        pass


def _checked_part(part: Any) -> tuple[int, int]:
    try:
        which, parts = map(operator.index, part)
        if 0 <= which < parts:
            return which, parts
    except (TypeError, ValueError):
        pass
    raise ValueError(f"part must be (which, of how many), two integers with 0 <= which < how many, got {shown(part)}")


def _pair(sample: Any) -> tuple[Any, Any]:
    if isinstance(sample, (tuple, list)) and len(sample) == 2:
        return sample[0], sample[1]
    length = f" of {len(sample)}" if isinstance(sample, (tuple, list)) else ""
    raise DataError(
        f"a dataset's sample is (image, label), not a {type(sample).__name__}{length}: let dataset[i] return"
        " (image, label); of arrays X and y, Arrays(X, y) is a dataset"
    )


def _check_array(image: Any, cause: Exception | None = None) -> None:
    if on_host(image):
        return
    array = 'np.asarray(image.convert("RGB"))' if hasattr(image, "convert") else "np.asarray(image)"
    kind = f"{type(image).__module__}.{type(image).__name__}"
    raise DataError(f"the image is a {kind}, not a NumPy array (H, W, C): let the dataset return {array}") from cause


def _label(label: Any) -> NDArray[Any]:
    """A label as int64, a target as float32."""
    array = np.asarray(label)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind in "bi" or (array.dtype.kind == "u" and (array < 2**63).all()):
        return array.astype(np.int64)
    raise DataError(
        f"the label is {reprlib.repr(label)}, not an integer of 64 bits, a float or an array of these;"
        " of a class, give its index"
    )


class _Key(ISeedSequence):
    """Hands Philox its key. So does Philox's argument `key`, but only after drawing entropy: 15 µs
    a sample instead of 4.
    """

    def __init__(self, seed: int, epoch: int):
        self.words = np.array([seed, epoch], np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        return self.words


def _stream(key: _Key, word: int) -> np.random.Generator:
    counter = np.array([0, 0, 0, word], np.uint64)
    # NumPy documents that a key may be such an object
    return np.random.Generator(np.random.Philox(key, counter=counter))  # type: ignore[arg-type]
