import hashlib
import io
import os

import numpy as np
import pytest

from minicnn.data import CIFAR10, DataError, cifar10

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write_cifar10_binary(folder, images, labels, files):
    """Write images (N, 32, 32, 3) and labels (N,) in the layout of the binary version, shared out among the files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")  # the official one ends in an empty line
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
    records = np.concatenate([labels[:, None], planes], axis=1).astype(np.uint8)
    for name, part in zip(files, np.array_split(records, len(files)), strict=True):
        (folder / name).write_bytes(part.tobytes())


@pytest.fixture
def written(tmp_path):
    rng = np.random.default_rng(0)
    splits = {}
    for train, files, count in ((True, cifar10.TRAIN_FILES, 23), (False, cifar10.TEST_FILES, 4)):
        splits[train] = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, count)
        write_cifar10_binary(tmp_path / "cifar-10-batches-bin", *splits[train], files)
    return tmp_path, splits


def message(root, **options):
    with pytest.raises(DataError) as info:
        CIFAR10(root, **options)
    assert "\n" not in str(info.value)
    return str(info.value)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_images_and_labels(written, train, inner):
    root, splits = written
    images, labels = splits[train]
    dataset = CIFAR10(root / inner, train=train, verify=False)
    assert dataset.classes == NAMES and len(dataset) == len(labels)
    assert dataset.images.dtype == np.uint8 and dataset.images.flags.c_contiguous and dataset.labels.dtype == np.int64
    np.testing.assert_array_equal(dataset.images, images)
    np.testing.assert_array_equal(dataset.labels, labels)
    image, label = dataset[3]
    assert type(label) is int and label == labels[3]
    np.testing.assert_array_equal(image, images[3])
    assert len(list(dataset)) == len(labels)


def test_what_it_prints(written):
    assert repr(CIFAR10(written[0], train=False, verify=False)) == "CIFAR10(4 images, 10 classes)"


def test_the_first_kilobyte_of_a_record_is_red(tmp_path):
    record = bytes([7]) + bytes([255] * 1024) + bytes(1024) + bytes([*range(32)] * 32)
    write_cifar10_binary(tmp_path, np.zeros((1, 32, 32, 3)), np.zeros(1), cifar10.TEST_FILES)
    (tmp_path / "test_batch.bin").write_bytes(record)
    image, label = CIFAR10(tmp_path, train=False, verify=False)[0]
    assert label == 7 and (image[:, :, 0] == 255).all() and (image[:, :, 1] == 0).all()
    np.testing.assert_array_equal(image[:, :, 2], np.tile(np.arange(32), (32, 1)))


def test_the_images_cannot_be_changed_by_accident(written):
    dataset = CIFAR10(written[0], verify=False)
    with pytest.raises(ValueError, match="read-only"):
        dataset[0][0][:] = 0


def test_checksums(written, monkeypatch):
    root, _ = written
    folder = root / "cifar-10-batches-bin"
    digests = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in cifar10.MD5}
    name = "data_batch_1.bin"
    assert message(root) == (
        f"{folder}/{name}: MD5 is {digests[name]}, the official file's is {cifar10.MD5[name]};"
        " unpack it again, or pass verify=False (programs: --no-verify) for a copy that is meant to differ"
    )
    monkeypatch.setattr(cifar10, "MD5", digests)
    assert len(CIFAR10(root)) == 23 and len(CIFAR10(root, train=False)) == 4
    content = bytearray((folder / "data_batch_4.bin").read_bytes())
    content[1000] ^= 1
    (folder / "data_batch_4.bin").write_bytes(content)
    assert message(root).startswith(f"{folder}/data_batch_4.bin: MD5 is ")
    assert len(CIFAR10(root, train=False)) == 4


def test_missing_files(written, tmp_path):
    root, _ = written
    folder = root / "cifar-10-batches-bin"
    needs = ": no such file; CIFAR10 reads the unpacked cifar-10-binary.tar.gz"
    assert message(tmp_path / "nowhere") == f"{tmp_path}/nowhere/batches.meta.txt{needs}"
    (folder / "data_batch_2.bin").unlink()
    assert message(root, verify=False) == f"{folder}/data_batch_2.bin{needs}"


def test_what_is_no_file(written, monkeypatch):
    """A pipe would be waited for, and a device never ends."""
    root, _ = written
    path = root / "cifar-10-batches-bin" / "test_batch.bin"
    for make, reason in (
        (lambda: os.mkfifo(path), "it is a named pipe, not a regular file"),
        (lambda: os.symlink("/dev/zero", path), "it is a device, not a regular file"),
        (path.mkdir, "Is a directory"),
        (lambda: os.symlink(path.name, path), "Too many levels of symbolic links"),
    ):
        path.rmdir() if path.is_dir() else path.unlink()
        make()
        assert message(root, train=False) == f"{path}: cannot be read: {reason}"
    assert message("a\0b") == "a\\x00b/batches.meta.txt: cannot be read: embedded null byte"


def test_a_file_that_is_larger_than_the_memory(written, monkeypatch):
    class File(io.BytesIO):
        def read(self):
            raise MemoryError

    monkeypatch.setattr(cifar10, "open", lambda path, mode: File(), raising=False)
    assert message(written[0]).endswith("batches.meta.txt: cannot be read: it is too large for the memory")


@pytest.mark.parametrize("size", [0, 3072, 3074])
def test_wrong_size(written, size):
    path = written[0] / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(bytes(size))
    for verify in (True, False):
        assert message(written[0], train=False, verify=verify) == (
            f"{path}: {size} bytes, not a whole number of 3073-byte records; unpack it again"
        )


def test_bad_label(written):
    path = written[0] / "cifar-10-batches-bin" / "data_batch_5.bin"
    content = bytearray(path.read_bytes())
    content[2 * 3073] = 10
    path.write_bytes(content)
    assert message(written[0], verify=False) == f"{path}: record 2 has the label 10; labels go from 0 to 9"


def test_wrong_number_of_class_names(written):
    path = written[0] / "cifar-10-batches-bin" / "batches.meta.txt"
    path.write_text("cat\ndog\n")
    assert message(written[0], verify=False) == f"{path}: 2 class names, expected 10"


def test_names_that_are_not_utf_8(written):
    path = written[0] / "cifar-10-batches-bin" / "batches.meta.txt"
    path.write_bytes(b"caf\xe9 " + b"a " * 9)
    assert CIFAR10(written[0], verify=False).classes == ["caf\ufffd", *"a" * 9]


def test_re_encoded_photos(shared, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    with np.load(shared / "cifar10_jpeg.npz") as archive:
        data, offsets, labels = archive["test_bytes"], archive["test_offsets"], archive["test_labels"]
    chosen = range(0, 10000, 20)
    images = np.stack([Image.open(io.BytesIO(data[offsets[i] : offsets[i + 1]].tobytes())) for i in chosen])
    write_cifar10_binary(tmp_path, images, labels[chosen], cifar10.TEST_FILES)
    dataset = CIFAR10(tmp_path, train=False, verify=False)
    assert np.unique(dataset.labels).tolist() == list(range(10))
    # Published means of the channels: 0.491, 0.482, 0.447.
    np.testing.assert_allclose(dataset.images.mean((0, 1, 2)) / 255, [0.491, 0.482, 0.447], atol=0.02)
