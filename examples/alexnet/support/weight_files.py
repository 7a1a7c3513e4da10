"""Files of weights: what PyTorch, NumPy and safetensors write, as arrays by their names, and back.

Files that could run code are rejected. Wrappers are removed: the checkpoint of a training around
the weights, and the prefixes that PyTorch's wrappers add to names.
"""

import argparse
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import minicnn
from minicnn import checkpoint, from_dlpack
from minicnn.checkpoint import DTYPES, CheckpointError, replacing

from .beside import uninterrupted
from .options import UsageError

Arrays = dict[str, np.ndarray]
PYTORCH = ".pth", ".pt", ".ckpt", ".bin", ".tar"  # the last of .pth.tar
READ = ".pth (.pt, .ckpt, .bin, .pth.tar), .npz and .safetensors"
AROUND = "state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights"
COUNTS = "n_averaged", "total_ops", "total_params"  # of AveragedModel, and of a profiler


def read(path: str) -> Arrays:
    """The arrays of a file of PyTorch, or a .npz or .safetensors. CheckpointError if it holds
    anything else, or not all of it."""
    kind = Path(path).suffix.lower()
    readers = {**dict.fromkeys(PYTORCH, read_pytorch), ".npz": read_npz, ".safetensors": read_safetensors}
    if kind not in readers:
        raise UsageError(f"{path}: only {READ} are read (--help says how to make one)")
    try:
        return readers[kind](path)
    except (CheckpointError, ImportError, OSError):
        raise
    except Exception as error:  # a broken file, or a refused pickle, can raise many kinds
        why = type(error).__name__
        # the name of the object that PyTorch refuses to create
        if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
            why = f"with {refused[1]}"
        raise CheckpointError(f"{path} is not whole, or it could run code ({why}); --help says what is read") from None


def read_pytorch(path: str) -> Arrays:
    """The tensors of the state dict in the file, which may have other objects around or among
    them."""
    torch = require_torch()
    # for half a file, PyTorch raises an OSError without the name
    content = io.BytesIO(Path(path).read_bytes())
    # torchvision's training saves its options in a Namespace
    with torch.serialization.safe_globals([argparse.Namespace]):
        state = torch.load(content, map_location="cpu", weights_only=True)
    while isinstance(state, dict) and (inner := [state[k] for k in AROUND if isinstance(state.get(k), dict)]):
        state = inner[0]
    tensors = state.items() if isinstance(state, dict) else ()
    tensors = {name: t.detach() for name, t in tensors if isinstance(name, str) and isinstance(t, torch.Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} is not a state dict, as torch.save(net.state_dict(), ...) writes it")
    arrays = {}
    for name, t in tensors.items():
        try:
            arrays[name] = from_dlpack(t.float() if t.dtype == torch.bfloat16 else t).data
        except (BufferError, TypeError, minicnn.DeviceError):
            # The tensor is float8, complex, quantized, sparse, or has no data at all (meta).
            what = f"{name} is a tensor of {t.dtype}, {t.layout}, on {t.device}"
            raise CheckpointError(f"{path}: {what}, which NumPy does not have: save it dense, as float32") from None
    return arrays


def read_npz(path: str) -> Arrays:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: np.asarray(archive[name]) for name in archive.files}


def read_safetensors(path: str) -> Arrays:
    """The arrays, those of bfloat16 as float32."""
    arrays, _, kinds = checkpoint.read(path, DTYPES | {"BF16": "<u2"})
    return {name: widened(array) if kinds[name] == "BF16" else array for name, array in arrays.items()}


def widened(halves: np.ndarray) -> np.ndarray:
    """float32 of bfloat16's bits, which are the upper half of its own."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def unwrapped(arrays: Arrays, first: tuple[str, ...]) -> Arrays:
    """The arrays by the names that their network gives them, of which one is among `first`.

    "module" is where DataParallel stands, anywhere in a name, "_orig_mod" where torch.compile does,
    and a network that is a part of another, as Lightning's are, has that one's name for it before
    all of its own: "model.", say. Arrays that only count something, such as how many networks were
    averaged, are left out.
    """
    weights = {name: array for name, array in arrays.items() if name.split(".")[-1] not in COUNTS}
    plain = renamed(weights, lambda name: ".".join(p for p in name.split(".") if p not in ("module", "_orig_mod")))
    before = {name.removesuffix(f): name for name in plain for f in first if f".{name}".endswith(f".{f}")}
    if len(before) > 1:
        firsts = ", ".join([*before.values()][:3])
        raise CheckpointError(
            f"more than one of its arrays may be AlexNet's first: {firsts}; this is another network, or the file has"
            " several networks: save one of them alone"
        )
    prefix, *_ = *before, ""
    return renamed(plain, lambda name: name.removeprefix(prefix))


def renamed(arrays: Arrays, own: Callable[[str], str]) -> Arrays:
    """The arrays by other names. CheckpointError if two get the same."""
    origins: dict[str, str] = {}
    for name in arrays:
        if (other := origins.setdefault(own(name), name)) != name:
            raise CheckpointError(f"{own(name)} occurs twice, as {other} and as {name}")
    return {new: arrays[name] for new, name in origins.items()}


def float32(arrays: Arrays) -> Arrays:
    """The arrays with floats of another width, or byte order, as float32."""
    return {name: a.astype(np.float32, copy=False) if a.dtype.kind == "f" else a for name, a in arrays.items()}


def write(path: str, arrays: Arrays) -> None:
    """The arrays as a .pth, .npz or .safetensors file: whole or not at all."""
    kind = Path(path).suffix
    if kind == ".safetensors":
        minicnn.save(path, arrays)
    elif kind == ".npz":
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)
    elif kind == ".pth":
        # written to memory first, because torch.save reports no full disk
        torch, content = require_torch(), io.BytesIO()
        torch.save({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}, content)
        with replacing(path) as temporary:
            temporary.write_bytes(content.getbuffer())
    else:
        raise UsageError(f"{path}: only .pth, .npz and .safetensors files can be written")


def require_torch() -> Any:
    """PyTorch, or an ImportError that says how to do without."""
    try:
        with uninterrupted():
            import torch
    except ImportError:
        raise ImportError(
            "a .pth needs PyTorch (pip install torch); a .safetensors with the same arrays does not"
        ) from None
    if not hasattr(torch.serialization, "safe_globals"):
        raise ImportError(f"a .pth needs PyTorch 2.5 or newer, this is {torch.__version__}")
    return torch
