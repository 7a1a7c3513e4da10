"""Checkpoints: what comes back, that a file is replaced whole or not at all, what is said of files that are none."""

import contextlib
import json
import os
import struct
import sys

import numpy as np
import pytest
from reference import fails

import minicnn
from minicnn.checkpoint import CheckpointError, load, replacing, save

pytest.importorskip("safetensors")


ARRAYS = {
    "matrix": np.arange(6.0).reshape(2, 3), "float32": np.array([0.1, np.nan, -np.inf], np.float32), "float16": np.ones(2, np.float16),
    "a number": np.array(2.5), "an integer": np.array(7), "nothing": np.zeros((0, 3), np.float32), "flags": np.array([True, False]),
    "bytes": np.arange(256, dtype=np.uint8), "int64": np.array([-(2**62)]), "transposed": np.arange(6.0).reshape(2, 3).T,
    "strided": np.arange(10.0)[::-3], "other byte order": np.arange(3, dtype=">f4"), "read-only": np.broadcast_to(np.float32(3), (2, 2)),
}  # fmt: skip


def test_arrays_and_info_come_back(tmp_path):
    info = {"epoch": 3, "names": ["cat", "dog"], "nested": {"lr": 0.1, "none": None}, "text": "ñ 猫"}
    before = {name: array.copy() for name, array in ARRAYS.items()}
    save(tmp_path / "file.safetensors", ARRAYS, info)
    arrays, back = load(str(tmp_path / "file.safetensors"))
    assert back == info and set(arrays) == set(ARRAYS)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])
        assert array.shape == before[name].shape and array.dtype == before[name].dtype.newbyteorder("="), name
        np.testing.assert_array_equal(ARRAYS[name], before[name])
    assert [p.name for p in tmp_path.iterdir()] == ["file.safetensors"]


def test_without_info_or_arrays(tmp_path):
    save(tmp_path / "a", {"x": np.ones(2)})
    assert load(tmp_path / "a")[1] == {}
    save(tmp_path / "a", {}, {"only": "info"})  # in place of the first
    assert load(tmp_path / "a") == ({}, {"only": "info"})


def test_files_of_other_programs_are_read(tmp_path):
    from safetensors.numpy import load_file, save_file

    save_file({"w": np.ones((2, 3), np.float32)}, tmp_path / "theirs")
    arrays, info = load(tmp_path / "theirs")
    assert arrays["w"].shape == (2, 3) and info == {}
    save_file({"w": np.ones(2)}, tmp_path / "theirs", {"format": "pt"})
    assert load(tmp_path / "theirs")[1] == {}
    save(tmp_path / "ours", {"w": np.arange(3)})
    assert load_file(tmp_path / "ours")["w"].tolist() == [0, 1, 2]


# -------------------------------------------------------------------------------------------------- whole or not at all
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    save(path, {"x": np.ones(3)})

    def broken(*args, **kwargs):
        raise OSError(28, "No space left on device")

    def check():
        assert os.listdir(tmp_path) == ["file"] and load(path)[0]["x"].tolist() == [1, 1, 1]

    for function in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, broken)
            error = fails(OSError, "No space left", save, path, {"x": np.zeros(3)})
        assert str(path) in str(error)
        check()
    for info in ({"info": {1, 2}}, {"info": object()}, {(1, 2): 3}, 3, "text"):
        fails(TypeError, "^info is a dict of what JSON can hold: ", save, path, {"x": np.zeros(3)}, info)
        check()
    for bad in (np.array(["text"]), np.array([None]), np.array([1j])):
        with pytest.raises((OSError, TypeError, ValueError)) as caught:
            save(path, {"x": bad})
        assert "\n" not in str(caught.value)
        check()
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise error
        check()


@pytest.mark.parametrize("sync", [True, False])
def test_the_disk_is_waited_for_unless_told_otherwise(tmp_path, monkeypatch, sync):
    waited = []
    monkeypatch.setattr(os, "fsync", waited.append)
    with replacing(tmp_path / "file", **({} if sync else {"sync": False})) as temporary:
        temporary.write_bytes(b"whole")
    assert len(waited) == sync and (tmp_path / "file").read_bytes() == b"whole"


def test_replacing(tmp_path):
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        with replacing(path) as temporary:
            temporary.write_text("new")
            assert not path.exists() and temporary.parent == tmp_path
    finally:
        os.umask(before)
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "error, words, name, value",
    [
        (TypeError, "x is a list", "x", [1.0, 2.0]),
        (TypeError, "x is a float", "x", 1.0),
        (TypeError, "x has dtype complex128", "x", np.ones(2, complex)),
        (TypeError, "x has dtype object", "x", np.array([None])),
        (ValueError, "__metadata__", "__metadata__", np.ones(2)),
        (TypeError, "arrays by their names, which are strings, not 3$", 3, np.ones(2)),
    ],
)
def test_what_cannot_be_saved(tmp_path, error, words, name, value):
    fails(error, words, save, tmp_path / "file", {"a": np.ones(1), name: value})
    assert not os.listdir(tmp_path)


def test_folders_that_are_not_there(tmp_path):
    error = fails(OSError, "No such file", save, tmp_path / "no" / "file", {"x": np.ones(1)})
    assert str(tmp_path / "no" / "file") in str(error)
    fails(FileNotFoundError, "missing", load, tmp_path / "missing")
    fails((CheckpointError, OSError), "folder", load, tmp_path)
    with pytest.raises(OSError, match=str(tmp_path)):
        save(tmp_path, {"x": np.ones(1)})
    assert not os.listdir(tmp_path)


# ---------------------------------------------------------------------------------------- files that are no checkpoints
def raw(header, body=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + body


def entry(dtype="F32", shape=(1,), end=4):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [0, end]}


FOREIGN = {
    "empty": b"",
    "text": b"epoch,loss\n" * 100,
    "zip": b"PK\x03\x04" + bytes(100),
    "pickle": b"\x80\x04\x95" + bytes(100),
    "zeros": bytes(100),
    "no header": raw(b""),
    "not JSON": raw(b"{'a': 1}"),
    "a huge header": struct.pack("<Q", 2**60) + b"{}",
    "data missing": raw({"a": entry()}, b"\0\0"),
    "too much data": raw({"a": entry()}, bytes(9)),
    "shape and size differ": raw({"a": entry(shape=(2,))}, bytes(4)),
    "unknown dtype": raw({"a": entry("F99")}, bytes(4)),
    "info is no JSON": raw({"__metadata__": {"info": "[1"}, "a": entry()}, bytes(4)),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_files(what, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(FOREIGN[what])
    error = fails(CheckpointError, "file", load, path)
    assert str(path) in str(error)
    assert issubclass(CheckpointError, ValueError)


def test_a_file_cut_short_anywhere(tmp_path):
    path = tmp_path / "file"
    save(path, {"x": np.arange(40.0), "y": np.ones(3)}, {"epoch": 1})
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        fails(CheckpointError, "not whole|not a checkpoint", load, path)


def test_the_package_that_is_needed(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for f in (lambda: save(tmp_path / "a", {}), lambda: load(tmp_path / "a")):
        fails(ImportError, r"safetensors.*pip install safetensors", f)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("ending", [".npz", ".pth", ".PT"])
def test_a_name_that_other_programs_would_misread(tmp_path, ending):
    fails(
        ValueError,
        f"writes safetensors, not {ending.lower()}",
        minicnn.save,
        tmp_path / f"net{ending}",
        {"a": np.ones(1)},
    )
    assert not list(tmp_path.iterdir())


def test_what_is_no_dict_of_arrays(tmp_path):
    net = minicnn.nn.Linear(2, 1)
    fails(TypeError, r"the path first: save\(path, arrays\)", minicnn.save, net.state_dict(), tmp_path / "net")
    fails(TypeError, "a dict such as net.state_dict.., not a Linear", minicnn.save, tmp_path / "net", net)
    minicnn.save(tmp_path / "net", dict(net.named_parameters()))  # Tensors will do
    np.testing.assert_array_equal(minicnn.load(tmp_path / "net")[0]["weight"], net.weight.data)


def test_a_mount_that_refuses_to_change_modes(tmp_path, monkeypatch):
    """The file is there all the same."""

    def refused(self, mode, **options):
        raise PermissionError(1, "Operation not permitted", str(self))

    monkeypatch.setattr(type(tmp_path), "chmod", refused)
    minicnn.save(tmp_path / "net", {"a": np.ones(2)})
    assert minicnn.load(tmp_path / "net")[0]["a"].tolist() == [1, 1]


@pytest.mark.parametrize("kind, size", [("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1), ("F8_E8M0", 1), ("C64", 8)])
def test_numbers_that_numpy_does_not_have(tmp_path, kind, size):
    """Also where a package has taught it some of them, as JAX does."""
    header = {"a": entry("U8", end=1), "b": {**entry(kind), "data_offsets": [1, 1 + size]}}
    (tmp_path / "net").write_bytes(raw(header, bytes(1 + size)))
    words = f"net: b holds {kind}, a dtype that NumPy does not have: save it as float32"
    fails(CheckpointError, words, load, tmp_path / "net")
    with contextlib.suppress(ImportError):
        import ml_dtypes  # noqa: F401
    fails(CheckpointError, words, load, tmp_path / "net")


@pytest.mark.parametrize(
    "info",
    ["[" * 100_000, "1" * 6000, "NaN", "{", "", "made by another program", "[1]", '"text"'],
    ids=["deep", "long", "no number", "cut", "empty", "another program's", "a list", "a text"],
)
def test_info_that_cannot_be_read(tmp_path, info):
    (tmp_path / "net").write_bytes(raw({"__metadata__": {"info": info}}))
    words = r"net is not a checkpoint: its info is not a JSON object.*load_file reads the arrays of other"
    fails(CheckpointError, words, minicnn.load, tmp_path / "net")


def test_what_is_no_ordinary_file():
    fails(CheckpointError, "not a regular file", minicnn.load, os.devnull)
