"""The checkpoints that people have: how the names in them begin, how wide their floats are, what
stands around them, and how the files are called. All of them hold the same few numbers, which
floats of any width have."""

import argparse
import itertools
import json
import os
import struct

import numpy as np
import pytest
from convert import FIRST
from support.weight_files import float32, read, unwrapped

import minicnn
from minicnn.checkpoint import CheckpointError

FRAMEWORKS = (  # names of a first and a last array
    ("features.0.weight", "classifier.6.bias"),
    ("conv1.weight", "fc8.bias"),
    ("conv1_w", "fc8_b"),
)
NUMBERS = np.arange(-12, 12, dtype=np.float32).reshape(2, 3, 4) / 8, np.float32([0.5, -3])
BEGINNINGS = (
    "", "module.", "_orig_mod.", "model.", "net.", "network.alexnet.", "_orig_mod.module.", "module._orig_mod.",
    "model._orig_mod.", "module.model.", "model.module.", "_orig_mod.model.module.",
)  # fmt: skip
WIDTHS = "float16", "float32", "float64", "bfloat16"
ENDINGS = ".pth", ".pt", ".ckpt", ".bin", ".pth.tar", ".PTH"
AROUND = {
    "nothing": lambda state: state,
    "counts": lambda state: {"n_averaged": 3, **state, "epoch": 3, "features.0.total_ops": 4},
    "PyTorch's example": lambda state: {"epoch": 3, "arch": "alexnet", "state_dict": state, "optimizer": {"state": {}}},
    "torchvision's training": lambda state: {"model": state, "epoch": 89, "args": argparse.Namespace(lr=0.1, data="/")},
    "the mean beside it": lambda state: {"model": state, "model_ema": {f"module.{k}": state[k] for k in state}},
    "its class beside it": lambda state: {"model": "alexnet", "model_state": state},
    "PyTorch's tutorial": lambda state: {"epoch": 5, "model_state_dict": state, "loss": 0.25},
    "a best network": lambda state: {"net": state, "acc": 91.5, "epoch": 3},
    "two of them": lambda state: {"model": {"state_dict": state}, "iteration": 2},
    "params": lambda state: {"params": state},
}


def named(beginning, framework):
    return {beginning + name: numbers for name, numbers in zip(framework, NUMBERS, strict=True)}


def holds(path, framework):
    """Whether these numbers and no others are read, as float32."""
    found = float32(unwrapped(read(str(path)), FIRST))
    assert set(found) == set(framework), path
    for name, numbers in zip(framework, NUMBERS, strict=True):
        np.testing.assert_array_equal(found[name], numbers, strict=True, err_msg=str(path))


def bfloat16(numbers):
    """The upper halves of the bits of float32."""
    return (np.asarray(numbers, np.float32).view(np.uint32) >> 16).astype("<u2")


def write_safetensors(path, arrays, kind):
    """By hand, for the package writes no bfloat16 of NumPy's."""
    header, data = {"__metadata__": {"format": "pt", "info": "no JSON"}}, b""
    for name, array in arrays.items():
        content = (bfloat16(array) if kind == "bfloat16" else array.astype(kind)).tobytes()
        letter = {"bfloat16": "BF16"}.get(kind, kind.upper().replace("FLOAT", "F"))
        header[name] = {"dtype": letter, "shape": array.shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


PLAIN = list(itertools.product(FRAMEWORKS, BEGINNINGS, WIDTHS))


def test_names_and_widths_in_safetensors(tmp_path):
    for framework, beginning, kind in PLAIN:
        write_safetensors(tmp_path / "a.safetensors", named(beginning, framework), kind)
        holds(tmp_path / "a.safetensors", framework)
    assert len(PLAIN) == 144


def test_names_and_widths_in_npz(tmp_path):
    for framework, beginning, kind in itertools.product(FRAMEWORKS, BEGINNINGS, (*WIDTHS[:3], ">f4", ">f8")):
        np.savez(tmp_path / "a.npz", **{name: a.astype(kind) for name, a in named(beginning, framework).items()})
        holds(tmp_path / "a.npz", framework)


@pytest.mark.torch
@pytest.mark.parametrize("around", AROUND)
def test_names_widths_and_endings_in_files_of_pytorch(tmp_path, around):
    torch = pytest.importorskip("torch")
    cases = list(itertools.product(FRAMEWORKS, (*BEGINNINGS, "features.module."), WIDTHS))
    for (framework, beginning, kind), ending in zip(cases, itertools.cycle(ENDINGS), strict=False):
        state = {name: torch.from_numpy(a).to(getattr(torch, kind)) for name, a in named(beginning, framework).items()}
        if beginning == "features.module.":
            state = {f"module.{name.replace('.0', '.module.0')}": state[beginning + name] for name in framework}
        torch.save(AROUND[around](state), tmp_path / f"a{ending}")
        holds(tmp_path / f"a{ending}", framework)
    assert len(cases) * len(AROUND) == 1560 and len(cases) % len(ENDINGS) == 0


@pytest.mark.torch
def test_tensors_as_pytorch_has_them(tmp_path):
    """Parameters, in another order in memory, and files of the older format."""
    torch = pytest.importorskip("torch")
    state = {
        name: torch.from_numpy(np.asfortranarray(a)).requires_grad_() for name, a in named("", FRAMEWORKS[0]).items()
    }
    for new in (True, False):
        torch.save({**state, "n_averaged": torch.tensor(7)}, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
        holds(tmp_path / "a.pth", FRAMEWORKS[0])


# --------------------------------------------------------------------------------------------------------------- numbers
def test_bfloat16_is_widened_bit_by_bit(tmp_path):
    """Each of the 65,536: every number, both infinities, and numbers that are none."""
    every = np.arange(65536, dtype=np.uint32)
    write_safetensors(tmp_path / "a.safetensors", {"a": (every << 16).view(np.float32)}, "bfloat16")
    found = read(str(tmp_path / "a.safetensors"))["a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32) >> 16, every)
    np.testing.assert_array_equal(found.view(np.uint32) & 0xFFFF, 0)


def test_float64_is_rounded_and_what_is_no_float_stays():
    arrays = {"a": np.array([0.1, 1e-50, -2.5]), "b": np.arange(3), "c": np.float16([1]), "d": np.array([True])}
    found = float32(arrays)
    assert [a.dtype.name for a in found.values()] == ["float32", "int64", "float32", "bool"]
    assert found["a"].tolist() == [np.float32(0.1), 0, -2.5]


def test_safetensors_with_other_kinds_of_numbers(tmp_path):
    package = pytest.importorskip("safetensors.numpy")
    arrays = {
        np.dtype(kind).name: np.arange(6).reshape(2, 3).astype(kind)
        for kind in ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
    }
    arrays |= {"a number": np.array(2.5), "nothing": np.zeros((0, 3), np.float32)}
    package.save_file(arrays, tmp_path / "a.safetensors")
    found = read(str(tmp_path / "a.safetensors"))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


# -------------------------------------------------------------------------------------------------------- what is refused
def fails(words, path, content=None):
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read(str(path))
    assert words in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_safetensors_that_are_not_whole_or_hold_other_numbers(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, named("", FRAMEWORKS[0]), "float32")
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:7], whole[:20], whole[:-1], whole + b"x"):
        fails("is not a checkpoint, or not whole", path, content)
    fails("features.0.weight holds F8_E4M3, a dtype that NumPy does not have: save it as", path, float8(whole))


def test_a_damaged_checkpoint(tmp_path):
    """It has a checksum."""
    path = tmp_path / "a.safetensors"
    minicnn.save(path, named("", FRAMEWORKS[0]))
    assert read(str(path)).keys() == named("", FRAMEWORKS[0]).keys()
    whole = path.read_bytes()
    fails("is damaged: its checksum differs", path, whole[:-1] + bytes([whole[-1] ^ 1]))


def float8(whole):
    """The same file with one array said to be of 8 bits."""
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + length])
    header["features.0.weight"] |= {"dtype": "F8_E4M3", "shape": [96]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + whole[8 + length :]


@pytest.mark.parametrize(
    "names, words",
    [
        (
            ["features.0.weight", "module.features.0.weight"],
            "occurs twice, as features.0.weight and as module.features",
        ),
        (["model.conv1.weight", "model.fc8.bias", "fc8.bias"], "occurs twice, as model.fc8.bias and as fc8.bias"),
        (["student.features.0.weight", "teacher.features.0.weight"], "first: student.features.0.weight, teacher.feat"),
        (
            ["conv1.weight", "model.conv1.weight"],
            "may be AlexNet's first: conv1.weight, model.conv1.weight; this is an",
        ),
        (["conv1.weight", "layer1.0.conv1.weight", "layer1.1.conv1.weight"], "layer1.0.conv1.weight, layer1.1.conv1."),
    ],
)
def test_names_of_which_there_are_too_many(names, words):
    with pytest.raises(CheckpointError, match=words):
        unwrapped({name: np.zeros(2) for name in names}, FIRST)


def test_names_that_belong_to_no_network_stay():
    """So that they are said to be unexpected."""
    arrays = {name: np.zeros(2) for name in ("model.conv1.weight", "loss.weight", "", "mean")}
    assert list(unwrapped(arrays, FIRST)) == ["conv1.weight", "loss.weight", "", "mean"]
    arrays = {name: np.zeros(2) for name in ("module", "n_averaged", "myconv1.weight", "conv1.weight.total_ops")}
    assert list(unwrapped(arrays, FIRST)) == ["", "myconv1.weight"]
    assert unwrapped({}, FIRST) == {}


@pytest.mark.torch
def test_checkpoints_with_objects_of_other_programs(tmp_path):
    torch = pytest.importorskip("torch")
    path, state = tmp_path / "a.pth", {"features.0.weight": torch.ones(2)}
    for other, name in ((np.float64(91.5), "multiarray.scalar"), (Counter(), "Counter"), (os.getcwd, "getcwd")):
        torch.save({"state_dict": state, "best": other}, path)
        fails("is not whole, or it could run code (with ", path)
        fails(f".{name}); --help says", path)
    for nothing in ({"model": {}}, {"state_dict": {"epoch": 3}}, {0: torch.ones(2)}, [state], "text"):
        torch.save(nothing, path)
        fails("is not a state dict", path)


class Counter:
    """Something of a program's own."""


@pytest.mark.torch
def test_an_old_pytorch_is_said(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.delattr(torch.serialization, "safe_globals")
    with pytest.raises(ImportError, match=r"takes PyTorch 2.5 or newer, this is \d"):
        read(str(tmp_path / "a.pth"))
