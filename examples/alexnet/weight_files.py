"""Files of weights: what PyTorch, NumPy and safetensors write, as arrays by their names, and back.

Nothing is read that could run code. What wraps a network's weights is taken off: a checkpoint of a
training around them, and the beginnings that PyTorch's wrappers give to names.
"""

import argparse
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from options import UsageError

import minicnn
from minicnn import from_dlpack
from minicnn.checkpoint import CheckpointError, replacing, require_safetensors

Arrays = dict[str, np.ndarray]
PYTORCH = ".pth", ".pt", ".ckpt", ".bin", ".tar"  # the last of .pth.tar
READ = ".pth (.pt, .ckpt, .bin, .pth.tar), .npz and .safetensors"
AROUND = "state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights"
COUNTS = "n_averaged", "total_ops", "total_params"  # of AveragedModel, and of a profiler
DTYPES = {  # safetensors' names for what NumPy has
    **{f"{kind.upper()}{bits}": f"<{kind}{bits // 8}" for kind in "iu" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
    "BOOL": "?",
}


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
    except BufferError as error:  # numbers that NumPy does not have
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # there are many that can come of a broken file, and of a refused pickle
        why = type(error).__name__
        if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):  # PyTorch's name for what it does not make
            why = f"with {refused[1]}"
        raise CheckpointError(f"{path} is not whole, or it could run code ({why}); --help says what is read") from None


def read_pytorch(path: str) -> Arrays:
    """The tensors of the state dict in the file, which may have other things around it or among
    them."""
    torch = require_torch()
    content = io.BytesIO(Path(path).read_bytes())  # for of half a file PyTorch raises an OSError without its name
    with torch.serialization.safe_globals([argparse.Namespace]):  # torchvision's training keeps its options in one
        state = torch.load(content, map_location="cpu", weights_only=True)
    while isinstance(state, dict) and (inner := [state[k] for k in AROUND if isinstance(state.get(k), dict)]):
        state = inner[0]
    tensors = state.items() if isinstance(state, dict) else ()
    tensors = {name: t.detach() for name, t in tensors if isinstance(name, str) and isinstance(t, torch.Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} is no state dict, as torch.save(net.state_dict(), ...) writes it")
    wide = {name: t.float() if t.dtype == torch.bfloat16 else t for name, t in tensors.items()}  # NumPy has no bfloat16
    return {name: from_dlpack(t).data for name, t in wide.items()}


def read_npz(path: str) -> Arrays:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: np.asarray(archive[name]) for name in archive.files}


def read_safetensors(path: str) -> Arrays:
    """Through the bytes: for bfloat16, the package's own arrays depend on what else has been
    imported."""
    safetensors, arrays = require_safetensors(), {}
    try:
        entries = safetensors.deserialize(Path(path).read_bytes())
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is not a .safetensors file, or not whole: {error}") from None
    for name, entry in entries:
        kind, data = entry["dtype"], entry["data"]
        if kind == "BF16":
            array = widened(np.frombuffer(data, "<u2"))
        elif kind in DTYPES:
            array = np.frombuffer(data, DTYPES[kind])
        else:
            raise CheckpointError(f"{path}: {name} holds {kind}, numbers that NumPy does not have")
        arrays[name] = array.reshape(entry["shape"])
    return arrays


def widened(halves: np.ndarray) -> np.ndarray:
    """float32 of bfloat16's bits, which are the upper half of its own."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def unwrapped(arrays: Arrays, first: tuple[str, ...]) -> Arrays:
    """The arrays by the names that their network gives them, of which one is among `first`.

    "module" is where DataParallel stands, anywhere in a name, "_orig_mod" where torch.compile does,
    and a network that is a part of another, as Lightning's are, has that one's name for it before
    all of its own: "model.", say. What only counts something, such as how many networks were
    averaged, is left out.
    """
    plain: Arrays = {}
    for name, array in arrays.items():
        parts = [part for part in name.split(".") if part not in ("module", "_orig_mod")]
        if parts and parts[-1] in COUNTS:
            continue
        if (own := ".".join(parts)) in plain:
            raise CheckpointError(f"{own} is there twice, once as {name}")
        plain[own] = array
    before = {name.removesuffix(f) for name in plain for f in first if name == f or name.endswith("." + f)}
    if len(before) > 1:
        parts = " and ".join(sorted(repr(part.rstrip(".")) for part in before))
        raise CheckpointError(f"there is more than one network in it: {parts}; save one of them alone")
    prefix = before.pop() if before else ""
    return {name.removeprefix(prefix): array for name, array in plain.items()}


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
        torch, content = require_torch(), io.BytesIO()  # for PyTorch does not say so when a disk is full
        torch.save({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}, content)
        with replacing(path) as temporary:
            temporary.write_bytes(content.getbuffer())
    else:
        raise UsageError(f"{path}: a .pth, .npz or .safetensors can be written")


def require_torch() -> Any:
    """PyTorch, or an ImportError that says how to do without."""
    try:
        import torch
    except ImportError:
        raise ImportError("a .pth takes PyTorch (pip install torch); or have its arrays as a .safetensors") from None
    if not hasattr(torch.serialization, "safe_globals"):
        raise ImportError(f"a .pth takes PyTorch 2.5 or newer, this is {torch.__version__}")
    return torch
