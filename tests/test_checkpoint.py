"""Checkpoints: what comes back, that a file is replaced whole or not at all, what is said of files that are none."""

import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import resource
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from reference import fails

import minicnn
from minicnn.checkpoint import CheckpointError, load, replacing, save

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
    package = pytest.importorskip("safetensors.numpy")
    load_file, save_file = package.load_file, package.save_file
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
    for info in ({"info": {1, 2}}, {"info": object()}, {(1, 2): 3}, 3, "text", 0, NotImplemented):
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


def test_nothing_is_copied_but_what_must_be(tmp_path):
    """A checkpoint of 0.5 GB is written while training goes on, and needs no other 0.5 GB."""
    arrays = {"a": np.ones(2**20), "b": np.ones((2**10, 2**10), np.float32)}
    size = sum(array.nbytes for array in arrays.values())
    tracemalloc.start()
    try:
        save(tmp_path / "net", arrays)
        assert tracemalloc.get_traced_memory()[1] < size / 10
        back, _ = load(tmp_path / "net")
        assert tracemalloc.get_traced_memory()[1] < size * 1.1
    finally:
        tracemalloc.stop()
    assert back.keys() == arrays.keys()


def test_the_mode_is_what_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        save(tmp_path / "net", {})
    finally:
        os.umask(before)
    assert (tmp_path / "net").stat().st_mode & 0o777 == 0o640


def test_replacing(tmp_path):
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        with replacing(str(path)) as temporary:
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
        pytest.param(
            TypeError,
            "x has dtype float",
            "x",
            np.ones(2, np.longdouble),
            marks=pytest.mark.skipif(np.dtype("g").itemsize == 8, reason="none"),
        ),
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


# ------------------------------------------------------------------------------------------------------- what is damaged
SMALL = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, np.float32), "flags": np.array([True, False])}  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """(the path of a small checkpoint, which tests damage, its content)"""
    path = tmp_path_factory.mktemp("small") / "net"
    save(path, SMALL, {"epoch": 3, "classes": ["cat", "dog"]})
    return path, path.read_bytes()


def refused(path, content):
    path.write_bytes(content)
    message = fails(CheckpointError, f"^{re.escape(str(path))}", load, path)
    assert len(message) < len(str(path)) + 300
    return message


def test_every_bit_counts(tmp_path):
    path = tmp_path / "net"
    save(path, {"a": np.ones(2, np.float16), "b": np.array([True, False])}, {"c": 3})
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    with open(path, "r+b", buffering=0) as file:
        for at, bit in itertools.product(range(len(whole)), range(8)):
            os.pwrite(file.fileno(), bytes([whole[at] ^ 1 << bit]), at)
            message = fails(CheckpointError, f"^{re.escape(str(path))}", load, path)
            assert at < header or "is damaged: its checksum differs: " in message
            os.pwrite(file.fileno(), whole[at : at + 1], at)
    assert load(path)[1] == {"c": 3}


def test_every_length_but_the_right_one(small):
    path, whole = small
    for length in range(len(whole)):
        refused(path, whole[:length])
    for more in (b"\0", b" ", bytes(8), whole):
        refused(path, whole + more)
        refused(path, more + whole)


@pytest.mark.parametrize("seed", range(200))
def test_random_damage(small, seed):
    """Bytes overwritten, removed, inserted, repeated, moved: never other arrays, never another error."""
    path, whole = small
    chance = random.Random(seed)
    damaged = bytearray(whole)
    while damaged == whole:
        for _ in range(chance.choice([1, 2, 5, 20])):
            a, b = sorted(chance.randrange(len(damaged) + 1) for _ in range(2))
            b = min(b, a + chance.choice([1, 8, 64]))
            damaged[a:b] = chance.choice(
                [b"", chance.randbytes(b - a), bytes(b - a), 2 * damaged[a:b], damaged[b : 2 * b - a]]
            )
    refused(path, damaged)


@given(
    name=st.sampled_from(["weight", "bias", "flags", "__metadata__"]), field=st.sampled_from(["dtype", "shape", "data_offsets"]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([2**62, 2**63, 2**64, "F32", "I32", "BOOL"]),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2), max_leaves=5,
    ),
)  # fmt: skip
def test_headers_that_say_something_else(small, name, field, value):
    """Without a checksum as well: an error, or arrays that have the bytes of the file."""
    path, whole = small
    length = int.from_bytes(whole[:8], "little")
    header, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    assume(header[name].get(field) != value)
    header[name][field] = value
    refused(path, raw(header, body))
    header["__metadata__"] = {} if name != "__metadata__" else value
    path.write_bytes(raw(header, body))
    with contextlib.suppress(CheckpointError):
        arrays, info = load(path)
        assert info == {} and b"".join(array.tobytes() for array in arrays.values()) == body


def test_tensors_exchanged(tmp_path):
    path = tmp_path / "net"
    save(path, {"a": np.zeros(3), "b": np.ones(3)})
    whole = path.read_bytes()
    for old, new in (
        (b'"a"', b'"b"'),
        (b"F64", b"I64"),
        (bytes(24), bytes(16) + whole[-8:]),
        (b"[3]", b"[03]"),
        (b": ", b":\t"),
    ):
        at = whole.index(old)
        changed = whole[:at] + new + whole[at + len(old) :]
        if old == b'"a"':
            changed = changed.replace(b'"b": {', b'"a": {').replace(b'"a": {', b'"b": {', 1)
        refused(path, changed)
    assert "the 24 bytes of a do not fit its shape and dtype" in refused(path, whole.replace(b"F64", b"F69", 1))
    for name in (b"minicnn.version", b"minicnn.checksum", b"minicnn.sha256"):  # each says that there is a checksum
        assert "is damaged" in refused(path, whole.replace(name, b"x" * len(name)))
    refused(path, whole.replace(b"minicnn.version", b"x" * 15).replace(b"minicnn.sha256", b"x" * 14))


def test_files_of_the_first_version(tmp_path):
    """They have no checksum."""
    path = tmp_path / "old"
    path.write_bytes(raw({"__metadata__": {"info": '{"epoch": 2}'}, "a": entry()}, struct.pack("<f", 1.5)))
    arrays, info = load(path)
    assert arrays["a"].dtype == np.float32 and arrays["a"].tolist() == [1.5] and info == {"epoch": 2}


@pytest.mark.parametrize("version", [3, 10])
def test_files_of_newer_versions(tmp_path, monkeypatch, version):
    with monkeypatch.context() as patch:
        patch.setattr("minicnn.checkpoint.VERSION", version)
        save(tmp_path / "net", SMALL)
    words = f"net is a checkpoint of version {version}, and this minicnn reads those up to version 2: update minicnn$"
    fails(CheckpointError, words, load, tmp_path / "net")


@pytest.mark.parametrize("version", ["1", "-", "\x002", "9" * 10, "2 "])
def test_versions_that_there_are_not(tmp_path, version):
    header = {"__metadata__": {"minicnn.version": version}, "a": entry()}
    assert "is damaged" in refused(tmp_path / "net", raw(header, bytes(4)))


def test_what_is_written(tmp_path):
    """As the module's first lines have it, and readable for the package."""
    save(tmp_path / "net", ARRAYS, {"minicnn.sha256:": "0" * 64})
    whole = (tmp_path / "net").read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    texts = header.pop("__metadata__")
    assert texts["minicnn.version"] == "2" and length % 8 == 0 and [*header] == [*ARRAYS] and len(texts) == 3
    digits = texts["minicnn.checksum"].removeprefix("minicnn.sha256:")
    assert digits == hashlib.sha256(whole.replace(digits.encode(), b"0" * 64)).hexdigest()
    arrays = pytest.importorskip("safetensors.numpy").load_file(tmp_path / "net")
    for name, array in load(tmp_path / "net")[0].items():
        assert array.tobytes() == arrays[name].tobytes() and array.shape == arrays[name].shape
        assert array.dtype == arrays[name].dtype and array.flags.writeable


def test_what_no_file_can_hold(tmp_path, monkeypatch):
    fails(ValueError, r"no array can be saved as 'a\\ud800'", save, tmp_path / "net", {"a\ud800": np.ones(1)})
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    fails(TypeError, "^info is a dict of what JSON can hold", save, tmp_path / "net", {}, {"deep": deep})
    save(tmp_path / "net", {}, {"half": "\ud800"})
    assert load(tmp_path / "net")[1] == {"half": "\ud800"}
    length = int.from_bytes((tmp_path / "net").read_bytes()[:8], "little")
    monkeypatch.setattr("minicnn.checkpoint.LONGEST", length)
    save(tmp_path / "net", {}, {"half": "\ud800"})
    assert load(tmp_path / "net")[1] == {"half": "\ud800"}
    monkeypatch.setattr("minicnn.checkpoint.LONGEST", length - 1)
    fails(CheckpointError, "a header has at most", load, tmp_path / "net")
    fails(ValueError, "names and info of", save, tmp_path / "net", {}, {"half": "\ud800"})


HOSTILE = {
    "deep": b"[" * 100_000,
    "long number": raw(b'{"a": ' + b"1" * 6000 + b"}"),
    "header too long": struct.pack("<Q", 100_000_001) + bytes(100),
    "longer than the file": struct.pack("<Q", 3) + b"{}",
    "UTF-16": raw("{}".encode("utf-16")),
    "BOM": raw(b"\xef\xbb\xbf{}"),
    "a list": raw(b"[]"),
    "a name twice": raw(b'{"a": {}, "a": {}}'),
    "a text twice": raw(b'{"__metadata__": {"info": "{}", "info": "{}"}}'),
    "half a character": raw(b'{"a\\ud800": {"dtype": "U8", "shape": [], "data_offsets": [0, 1]}}', b"1"),
    "half a character's text": raw(b'{"__metadata__": {"a": "\\ud800"}}'),
    "no dtype": raw({"a": {"shape": [1], "data_offsets": [0, 1]}}, b"1"),
    "no texts": raw({"__metadata__": {"info": 3}}),
    "texts in a list": raw({"__metadata__": ["info"]}),
    "a shape of floats": raw({"a": {**entry(), "shape": [1.0]}}, bytes(4)),
    "a shape of booleans": raw({"a": {**entry(), "shape": [True]}}, bytes(4)),
    "negative": raw({"a": entry(shape=(-1, -1))}, bytes(4)),
    "offsets": raw({"a": {**entry(), "data_offsets": [-4, 0]}}, bytes(4)),
    "three offsets": raw({"a": {**entry(), "data_offsets": [0, 4, 8]}}, bytes(4)),
    "a gap": raw({"a": entry(), "b": {**entry(), "data_offsets": [8, 12]}}, bytes(12)),
    "overlap": raw({"a": entry(), "b": {**entry(), "data_offsets": [0, 4]}}, bytes(4)),
    "overlap by half": raw({"a": entry(), "b": {**entry(), "data_offsets": [2, 6]}}, bytes(6)),
    "no pixels of too many": raw({"a": entry(shape=(0, 2**62, 2**62), end=0)}),
    "64 axes of 2^63": raw({"a": entry(shape=(2**63,) * 64)}, bytes(4)),
    "65 axes": raw({"a": entry(shape=(1,) * 65)}, bytes(4)),
    "a million axes": raw({"a": entry(shape=(10**18,) * 1_000_000)}, bytes(4)),
    "a boolean of 2": raw({"a": entry("BOOL", end=1)}, b"\2"),
    "lines in a name": raw({"a\nb\x1b[2J\u2028": entry(shape=(2,))}, bytes(4)),
    "lines in a dtype": raw({"a": entry("F\n32")}, bytes(4)),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files(what, tmp_path):
    message = refused(tmp_path / "net", HOSTILE[what])
    assert message.isprintable()


@pytest.mark.parametrize(
    "axes", [32, pytest.param(64, marks=pytest.mark.skipif(np.__version__ < "2", reason="NumPy 1 has 32 axes"))]
)
def test_many_axes(tmp_path, axes):
    (tmp_path / "net").write_bytes(raw({"a": entry(shape=(1,) * axes)}, bytes(4)))
    assert load(tmp_path / "net")[0]["a"].ndim == axes


def test_entries_in_any_order(tmp_path):
    places = {"c": (4, 4), "b": (0, 4), "a": (0, 0), "e": (4, 8), "d": (4, 4)}
    header = {
        name: {"dtype": "I8", "shape": [end - begin], "data_offsets": [begin, end]}
        for name, (begin, end) in places.items()
    }
    (tmp_path / "net").write_bytes(raw(header, bytes(range(8))))
    arrays, _ = load(tmp_path / "net")
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "a": [],
        "b": [0, 1, 2, 3],
        "c": [],
        "d": [],
        "e": [4, 5, 6, 7],
    }
    assert [*arrays] == [*"abcde"]


def test_booleans_of_other_programs(tmp_path):
    header = {"a": entry("BOOL", (2,), 2), "b": {"dtype": "BOOL", "shape": [0], "data_offsets": [2, 2]}}
    (tmp_path / "net").write_bytes(raw(header, b"\1\0"))
    assert load(tmp_path / "net")[0]["a"].tolist() == [True, False]


def test_a_hole_of_a_terabyte(tmp_path):
    """Where there is less memory than the file would need."""
    with open(tmp_path / "net", "wb") as file:
        file.write(raw({"a": entry("U8", shape=(2**40,), end=2**40)}))
        try:
            file.truncate(file.tell() + 2**40)
        except OSError:
            pytest.skip("this file system has no files of a terabyte")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    most = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([2**36, *most]), limits[1]))
    try:
        fails(
            CheckpointError,
            "net is not a checkpoint, or not whole: Unable to allocate 1.00 TiB",
            load,
            tmp_path / "net",
        )
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_a_file_that_becomes_shorter_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "net"
    save(path, {"a": np.ones(100_000)})
    size = os.stat(path).st_size

    class Earlier:
        st_size = size

    os.truncate(path, size // 2)
    monkeypatch.setattr(os, "fstat", lambda handle: Earlier)
    fails(CheckpointError, "not whole: it ends within a$", load, path)


@pytest.mark.parametrize("path", [3, None, 1.5, b"net", ["net"]])
def test_what_is_no_path(path):
    for f, more in ((save, [{}]), (load, [])):
        fails(TypeError, f"^{f.__name__} takes the path of a file, not a {type(path).__name__}$", f, path, *more)
        fails(ValueError, rf"^{f.__name__} takes the path of a file, and none has .* as 'a.x00b'$", f, "a\0b", *more)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="Linux's own")
def test_a_file_that_the_disk_cannot_read():
    fails(OSError, r"^\[Errno 5\] .*: '/proc/self/mem'$", load, "/proc/self/mem")


def test_arrays_keep_their_order(tmp_path):
    arrays = {
        name: np.zeros(n, dtype)
        for name, n, dtype in (("z", 0, "f4"), ("b", 3, "f8"), ("d", 0, "i1"), ("a", 0, "i1"), ("c", 1, "?"))
    }
    save(tmp_path / "net", arrays)
    assert [*load(tmp_path / "net")[0]] == [*"zbdac"]


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_the_path_of_a_folder(path):
    fails(ValueError, "^save takes the path of a file, and '[./]' is that of a folder$", save, path, {})
    fails(CheckpointError, "^[./] is a folder: load reads a checkpoint file$", load, path)
