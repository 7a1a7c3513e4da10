"""CIFAR10: 60,000 photos of 32×32 pixels in ten classes (Krizhevsky, "Learning multiple layers of
features from tiny images", 2009), read from the files of its binary version,
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import hashlib
import os

import numpy as np
from numpy.typing import NDArray

from ..checks import flags
from .reading import DataError, path_of, require_regular

FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILES = ("test_batch.bin",)
MD5 = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the red, the green and the blue plane


class CIFAR10:
    """The 50,000 training or the 10,000 test photos: `dataset[i]` is (image, label), a uint8 array
    (32, 32, 3) and an int (Krizhevsky 2009).

    Args:
        root: the unpacked folder cifar-10-batches-bin, or the folder that holds it.
        train: whether to read the training photos; otherwise the test photos are read.
        verify: compare each file's MD5 with the official one. With False, files with any number of
            records are read.
    Attributes:
        images: uint8 (N, 32, 32, 3), read-only, as is each image that is handed out.
        labels: int64 (N,).
        classes: the names of the ten classes.
    Raises:
        DataError: a file is missing or cannot be read, or has the wrong size, checksum, labels or
            number of class names; the message names it.
        TypeError: root is not a path.

    Example:
        >>> CIFAR10("cifar-10-batches-bin", train=False)  # doctest: +SKIP
        CIFAR10(10,000 images, 10 classes)
    """

    def __init__(self, root: str | os.PathLike[str], train: bool = True, *, verify: bool = True):
        root = path_of("root", root)
        flags("CIFAR10", train=train, verify=verify)
        inner = os.path.join(root, FOLDER)
        folder = inner if os.path.isdir(inner) else root
        self.classes = _read(folder, "batches.meta.txt").decode(errors="replace").split()
        if len(self.classes) != 10:
            raise DataError(f"{folder}/batches.meta.txt: {len(self.classes)} class names, expected 10")
        files = TRAIN_FILES if train else TEST_FILES
        records = np.concatenate([_records(folder, name, verify) for name in files])  # (N, 3073)
        self.labels: NDArray[np.int64] = records[:, 0].astype(np.int64)
        planes = records[:, 1:].reshape(-1, 3, 32, 32)
        # (N, 32, 32, 3)
        self.images: NDArray[np.uint8] = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        self.images.flags.writeable = False

    def __repr__(self) -> str:
        return f"CIFAR10({len(self):,} images, {len(self.classes)} classes)"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        return self.images[index], int(self.labels[index])


def _records(folder: str, name: str, verify: bool) -> NDArray[np.uint8]:
    content, path = _read(folder, name), os.path.join(folder, name)
    if not content or len(content) % RECORD:
        raise DataError(f"{path}: {len(content)} bytes, not a whole number of {RECORD}-byte records; unpack it again")
    if verify:
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if md5 != MD5[name]:
            raise DataError(
                f"{path}: MD5 is {md5}, the official file's is {MD5[name]}; unpack it again,"
                " or pass verify=False (programs: --no-verify) for a copy that is meant to differ"
            )
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    if (bad := np.flatnonzero(records[:, 0] > 9)).size:
        raise DataError(f"{path}: record {bad[0]} has the label {records[bad[0], 0]}; labels go from 0 to 9")
    return records


def _read(folder: str, name: str) -> bytes:
    path = os.path.join(folder, name)
    try:
        require_regular(path)
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; CIFAR10 reads the unpacked cifar-10-binary.tar.gz") from None
    except (OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "it is too large for the memory"
        raise DataError(f"{path}: cannot be read: {reason}") from None
