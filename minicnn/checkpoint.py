"""Named arrays on disk, as safetensors files: arrays and a little text, nothing that can run code."""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from .backends.devices import to_device
from .tensor import Tensor

DTYPES = {  # safetensors' names for what NumPy has
    **{f"{kind.upper()}{bits}": f"<{kind}{bits // 8}" for kind in "iu" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
    "BOOL": "?",
}
OTHER_KIND = "numbers that NumPy does not have: save them as float32 or float16"


class CheckpointError(ValueError):
    """A file that is no checkpoint, or not whole."""


def require_safetensors() -> Any:
    """The package, or an ImportError that says how to get it."""
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError("checkpoints need the package safetensors: pip install safetensors") from None
    return safetensors


@contextmanager
def replacing(path: str | os.PathLike[str], sync: bool = True) -> Iterator[Path]:
    """A temporary name beside `path` to write to; what is written there takes the name `path` only when all of it is on
    the disk.

    If anything goes wrong before, nothing of it remains, and an older file of that name stays as it was. An OSError
    names `path`. sync=False does not wait for the disk, for many files that are made again where a power failure broke
    them.
    """
    path = Path(path)
    # cut short, for a name may have 255 bytes, and a character up to 4
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        if sync:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


OTHERS = (".npz", ".npy", ".pth", ".pt", ".ckpt", ".bin", ".h5", ".onnx")  # which other programs would misread


def save(path: str | os.PathLike[str], arrays: Mapping[str, Any], info: dict[str, Any] | None = None) -> None:
    """Write arrays or Tensors by their names, of any device, and info that JSON can hold, to a file of the
    safetensors format: whole or not at all.

    Raises OSError if it cannot be written, TypeError for what is no array of booleans, whole numbers or floats of up to
    64 bits, ValueError for the name __metadata__, which the format keeps for itself, and for a path whose ending is
    another format's.

    >>> import minicnn, numpy as np, os, tempfile
    >>> net = minicnn.nn.Linear(2, 1)
    >>> path = os.path.join(tempfile.mkdtemp(), "net.safetensors")
    >>> minicnn.save(path, net.state_dict(), {"epoch": 3})
    >>> arrays, info = minicnn.load(path)
    >>> net.load_state_dict(arrays)
    >>> info
    {'epoch': 3}
    """
    if isinstance(path, Mapping):
        raise TypeError("save takes the path first: save(path, arrays)")
    ending = Path(path).suffix.lower()
    if ending in OTHERS:
        raise ValueError(f"{path}: save writes safetensors, not {ending} files: name it so, or give it another ending")
    if not isinstance(arrays, Mapping):
        what = type(arrays).__name__
        raise TypeError(f"save takes arrays by their names, a dict such as net.state_dict(), not a {what}")
    try:
        text = json.dumps(dict(info or {}))
    except (TypeError, ValueError) as error:
        raise TypeError(f"info is a dict of what JSON can hold: {error}") from None
    safetensors = require_safetensors()
    contiguous = {name: _contiguous(name, array) for name, array in arrays.items()}
    with replacing(path) as temporary:
        mode = temporary.stat().st_mode
        try:
            safetensors.numpy.save_file(contiguous, temporary, {"info": text})
        except safetensors.SafetensorError as error:
            raise OSError(None, str(error)) from None
        with suppress(OSError):  # a mount whose files belong to somebody else refuses that; the file is whole
            temporary.chmod(mode)  # for save_file puts a file of its own there, which only its owner may read


def _contiguous(name: str, array: Any) -> np.ndarray:
    """On the CPU, as save needs it."""
    if not isinstance(name, str):
        raise TypeError(f"save takes arrays by their names, which are strings, not {name!r}")
    if name == "__metadata__":
        raise ValueError(f"no array can be saved as {name}: the format has that name for itself")
    try:
        array = array.data if isinstance(array, Tensor) else array
        array = np.asarray(to_device(array, "cpu"), order="C")
    except TypeError:
        what = type(array).__name__
        raise TypeError(f"{name} is a {what}; arrays can be saved, as a Tensor's .data is one") from None
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(
            f"{name} has dtype {array.dtype}; booleans, whole numbers and floats of 64 bits or fewer can be saved"
        )
    return array


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, info) of a file that save wrote, or that any program wrote as safetensors.

    Raises CheckpointError if it is not such a file or not whole, if it holds numbers that NumPy does not have, or if an
    info in its metadata is another program's; OSError if it cannot be read.
    """
    safetensors = require_safetensors()
    if Path(path).exists() and not Path(path).is_file():
        what = "a folder" if Path(path).is_dir() else "no ordinary file"
        raise CheckpointError(f"{path} is {what}, not a checkpoint file")
    with open(path, "rb"):  # an OSError that names the file
        pass
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (not a dict)
            others = [name for name in kinds if kinds[name] not in DTYPES]
            arrays = {} if others else {name: file.get_tensor(name) for name in kinds}
            text = (file.metadata() or {}).get("info", "{}")
    except OSError:
        raise
    except Exception as error:  # a damaged header makes the JSON reader raise ValueError, RecursionError and others
        raise CheckpointError(f"{path} is not a checkpoint, or not whole: {error}") from None
    for name in others:
        raise CheckpointError(f"{path}: {name} holds {kinds[name]}, {OTHER_KIND}")
    try:
        info = json.loads(text)
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict):
        raise CheckpointError(
            f"{path} is not a checkpoint: its info is no table of names in JSON, as save writes it"
            " (safetensors.numpy.load_file reads the arrays of other programs)"
        )
    return arrays, info
