"""Named arrays on disk, as safetensors files: arrays and a little text, nothing that can run
code."""

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
OTHER_KIND = "a dtype that NumPy does not have: save it as float32 or float16"


class CheckpointError(ValueError):
    """A file that is not a checkpoint, or not whole."""


def require_safetensors() -> Any:
    """The package, or an ImportError that says how to get it."""
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError("checkpoints need the package safetensors: pip install safetensors") from None
    return safetensors


@contextmanager
def replacing(path: str | os.PathLike[str], sync: bool = True) -> Iterator[Path]:
    """A temporary name beside `path` to write to; what is written there takes the name `path` only
    when all of it is on the disk.

    If anything goes wrong before, nothing of it remains, and an older file of that name stays as it
    was.

    Args:
        path: the name of the file to write.
        sync: wait until the disk has all of it. False does not, for many files that are made again
            where a power failure broke them.
    Yields:
        The temporary Path.
    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    path = Path(path)
    # The name is cut short, because it may have 255 bytes, and a character up to 4.
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


# endings by which other programs would misread the file
OTHERS = (".npz", ".npy", ".pth", ".pt", ".ckpt", ".bin", ".h5", ".onnx")


def save(path: str | os.PathLike[str], arrays: Mapping[str, Any], info: dict[str, Any] | None = None) -> None:
    """Write arrays or Tensors by their names, of any device, to a file of the safetensors format:
    whole or not at all.

    Args:
        path: the name of the file. An ending that belongs to another format, such as .npz, is
            refused.
        arrays: a dict of arrays or Tensors of booleans, integers or floats of up to 64 bits, such
            as net.state_dict().
        info: a dict of what JSON can hold, to be saved beside them.
    Raises:
        OSError: the file cannot be written.
        TypeError: arrays is not a dict, or holds something else than such arrays.
        ValueError: an array is called __metadata__, which the format keeps for itself, or the path
            has the ending of another format.
        ImportError: the package safetensors is not installed.

    Example:
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
        # save_file puts a file of its own there, which only its owner may read. A mount whose files
        # belong to somebody else refuses the change; the file is whole nevertheless.
        with suppress(OSError):
            temporary.chmod(mode)


def _contiguous(name: str, array: Any) -> np.ndarray:
    """The array on the CPU, as the format needs it."""
    if not isinstance(name, str):
        raise TypeError(f"save takes arrays by their names, which are strings, not {name!r}")
    if name == "__metadata__":
        raise ValueError(f"no array can be saved as {name}: safetensors reserves that name")
    try:
        array = array.data if isinstance(array, Tensor) else array
        array = np.asarray(to_device(array, "cpu"), order="C")
    except TypeError:
        what = type(array).__name__
        raise TypeError(f"{name} is a {what}; arrays can be saved, as a Tensor's .data is one") from None
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(
            f"{name} has dtype {array.dtype}; booleans, integers and floats of 64 bits or fewer can be saved"
        )
    return array


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file that save wrote, or that any program wrote as safetensors (see save for an
    example).

    Args:
        path: the name of the file.
    Returns:
        (arrays, info): a dict of NumPy arrays by their names, and the dict that was saved beside
        them, or {}.
    Raises:
        CheckpointError: the file is not of this format or not whole, it has a dtype that NumPy
            lacks, such as bfloat16, or the info in its metadata is another program's.
        OSError: the file cannot be read.
        ImportError: the package safetensors is not installed.
    """
    safetensors = require_safetensors()
    if Path(path).exists() and not Path(path).is_file():
        what = "a folder" if Path(path).is_dir() else "not a regular file"
        raise CheckpointError(f"{path} is {what}: load reads a checkpoint file")
    with open(path, "rb"):  # an OSError that names the file
        pass
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = file.keys()
            kinds = {name: file.get_slice(name).get_dtype() for name in names}
            others = [name for name in kinds if kinds[name] not in DTYPES]
            arrays = {} if others else {name: file.get_tensor(name) for name in kinds}
            text = (file.metadata() or {}).get("info", "{}")
    except OSError:
        raise
    # a damaged header makes the JSON reader raise ValueError, RecursionError and others
    except Exception as error:
        raise CheckpointError(f"{path} is not a checkpoint, or not whole: {error}") from None
    for name in others:
        raise CheckpointError(f"{path}: {name} holds {kinds[name]}, {OTHER_KIND}")
    try:
        info = json.loads(text)
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict):
        raise CheckpointError(
            f"{path} is not a checkpoint: its info is not a JSON object, as save writes it"
            " (safetensors.numpy.load_file reads the arrays of other programs)"
        )
    return arrays, info
