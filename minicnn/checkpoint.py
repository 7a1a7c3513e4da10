"""Named arrays on disk, as safetensors files: arrays and a little text, nothing that can run
code.

The format (github.com/huggingface/safetensors) is eight bytes, the length of the header; the
header, which is a JSON object and says of each array its dtype, its shape and where its bytes are;
and these bytes, without gaps. Beside the arrays the header has texts by their names. Those here are

    info               what the user wants to be kept beside the arrays, as JSON
    minicnn.version    the number of the version of what is said here; the first one had info alone
    minicnn.checksum   "minicnn.sha256:" and the SHA-256, as 64 digits, of the whole file with 64
                       zeros in their place

A file of another program has neither of the last two. For a damaged one to pass for such a file,
damage would have to hit three places: each text that begins with "minicnn." says that there must be
a checksum.
"""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from math import prod
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from .backends.devices import to_device
from .checks import escaped
from .tensor import Tensor

DTYPES = {  # safetensors' names for what NumPy has
    **{f"{kind.upper()}{bits}": f"<{kind}{bits // 8}" for kind in "iu" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
    "BOOL": "?",
}
NAMES = {np.dtype(kind): name for name, kind in DTYPES.items()}
OTHER_KIND = "a dtype that NumPy does not have: save it as float32 or float16"
LONGEST = 100_000_000  # bytes of a header, as the format has it
MOST_AXES = 64  # that an array has in NumPy
OURS = "minicnn."
VERSION = 2
# Of 0.5 GB, on two cores of an AMD EPYC: SHA-256 takes 0.25 s, BLAKE2b 0.35 s, CRC-32 0.07 s, and
# each lets other threads run. With SHA-256 such a file is written to the disk in 0.6 s, and without
# in 0.3 s; read, where the system has it in memory, in 0.31 s, with CRC-32 in 0.13 s and without in
# 0.07 s. That is little beside the one damage in four billion that CRC-32 lets pass.
SUM = f"{OURS}sha256:"
ZEROS = "0" * 64
Read = tuple[dict[str, np.ndarray], dict[str, str], dict[str, str]]


class CheckpointError(ValueError):
    """A file that is not a checkpoint, or not whole. The message is one line, which names the
    file.
    """

    def __str__(self) -> str:
        return escaped(super().__str__())


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
        open(temporary, "x").close()
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
    whole or not at all, with a checksum of all that is in it.

    In a second thread it lets the others run: it holds Python's lock for a few milliseconds, and
    takes no memory for arrays that lie contiguously on the CPU.

    Args:
        path: the name of the file. An ending that belongs to another format, such as .npz, is
            refused.
        arrays: a dict of arrays or Tensors of booleans, integers or floats of up to 64 bits, such
            as net.state_dict().
        info: a dict of what JSON can hold, to be saved beside them.
    Raises:
        OSError: the file cannot be written.
        TypeError: arrays is not a dict, or holds something else than such arrays.
        ValueError: an array is called __metadata__, which the format keeps for itself, or what no
            file can hold; the names and info are more than 100 MB; or the path has the ending of
            another format.

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
    path = _path("save", path)
    ending = path.suffix.lower()
    if ending in OTHERS:
        raise ValueError(f"{path}: save writes safetensors, not {ending} files: name it so, or give it another ending")
    if not isinstance(arrays, Mapping):
        what = type(arrays).__name__
        raise TypeError(f"save takes arrays by their names, a dict such as net.state_dict(), not a {what}")
    try:
        text = json.dumps({} if info is None else dict(info))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"info is a dict of what JSON can hold: {error}") from None
    contiguous = {name: _contiguous(name, array) for name, array in arrays.items()}
    start = _header(contiguous, text)
    with replacing(path) as temporary, open(temporary, "r+b") as file:
        digest = hashlib.sha256(start)
        file.write(start)
        for array in contiguous.values():
            digest.update(_content(array))
            file.write(_content(array))
        file.seek(start.index(ZEROS.encode()))
        file.write(digest.hexdigest().encode())


def _header(arrays: dict[str, np.ndarray], info: str) -> bytes:
    """The beginning of a file of these arrays: the header and its length, with a checksum of
    zeros. They stand before info, which may be anything."""
    texts = {f"{OURS}version": str(VERSION), f"{OURS}checksum": SUM + ZEROS, "info": info}
    header: dict[str, Any] = {"__metadata__": texts}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": NAMES[array.dtype], "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LONGEST:
        raise ValueError(f"names and info of {len(text):,} bytes cannot be saved: safetensors allows {LONGEST:,}")
    return len(text).to_bytes(8, "little") + text


def _content(array: np.ndarray) -> memoryview:
    """The bytes of an array, not copied."""
    return array.reshape(-1).view(np.uint8).data


def _path(function: str, path: Any) -> Path:
    """The path that one of these functions was given."""
    try:
        path = Path(path)
    except TypeError:
        raise TypeError(f"{function} takes the path of a file, not a {type(path).__name__}") from None
    if "\0" in str(path):
        raise ValueError(f"{function} takes the path of a file, and none has the character \\0 in it, as {str(path)!a}")
    if function == "save" and not path.name:
        raise ValueError(f"save takes the path of a file, and {str(path)!r} is that of a folder")
    return path


def _contiguous(name: str, array: Any) -> np.ndarray:
    """The array on the CPU, as the format needs it: contiguous and little-endian."""
    if not isinstance(name, str):
        raise TypeError(f"save takes arrays by their names, which are strings, not {name!r}")
    if name == "__metadata__":
        raise ValueError(f"no array can be saved as {name}: safetensors reserves that name")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"no array can be saved as {name!a}: UTF-8 has no half of a character") from None
    try:
        array = array.data if isinstance(array, Tensor) else array
        array = np.asarray(to_device(array, "cpu"), order="C")
    except TypeError:
        what = type(array).__name__
        raise TypeError(f"{name} is a {what}; arrays can be saved, as a Tensor's .data is one") from None
    little = array.dtype.newbyteorder("<")
    if little not in NAMES:
        raise TypeError(
            f"{name} has dtype {array.dtype}; booleans, integers and floats of 64 bits or fewer can be saved"
        )
    return array.astype(little, copy=False)


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file that save wrote, or that any program wrote as safetensors (see save for an
    example).

    Args:
        path: the name of the file.
    Returns:
        (arrays, info): a dict of NumPy arrays by their names, and the dict that was saved beside
        them, or {}.
    Raises:
        CheckpointError: the file is not of this format or not whole, its checksum differs, a newer
            minicnn wrote it, it has a dtype that NumPy lacks, such as bfloat16, or an array that
            does not fit into memory, or the info in its metadata is another program's. Files of
            other programs, and those of minicnn's first version, have no checksum.
        OSError: the file cannot be read.
    """
    arrays, texts, _ = read(path)
    try:
        info = json.loads(texts.get("info", "{}"))
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict):
        raise CheckpointError(
            f"{path} is not a checkpoint: its info is not a JSON object, as save writes it"
            " (safetensors.numpy.load_file reads the arrays of other programs)"
        )
    return arrays, info


def read(path: str | os.PathLike[str], dtypes: Mapping[str, str] = DTYPES) -> Read:
    """What a file in the safetensors format has, of whatever program: load without info.

    Args:
        path: the name of the file.
        dtypes: NumPy's dtypes by the names of the format.
    Returns:
        (arrays, texts, kinds), each a dict: of the arrays and of the names of their dtypes in the
        format, both by the arrays' names, and of the texts by theirs.
    Raises:
        CheckpointError: as load, or a dtype that is not among `dtypes`.
        OSError: the file cannot be read.
    """
    path = _path("load", path)
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "not a regular file"
        raise CheckpointError(f"{path} is {what}: load reads a checkpoint file")
    # The package safetensors maps the file into memory, where Python cannot catch an error of
    # reading. It also holds Python's lock while it copies, and for 0.5 GB takes
    # 0.95 GB, and 0.22 s without a checksum.
    with open(path, "rb") as file:
        try:
            return _read(file, dtypes)
        except CheckpointError:
            raise
        except OSError as error:  # of reading, which does not name the file
            raise OSError(error.errno, error.strerror, str(path)) from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise CheckpointError(f"{path} is not a checkpoint, or not whole: {error}") from None


def _read(file: BufferedReader, dtypes: Mapping[str, str]) -> Read:
    """What read returns. CheckpointErrors name the file; another ValueError says why it is not of
    this format, or not whole."""
    start, texts, places = _parse(file)
    ours = any(text.startswith(OURS) for text in (*texts, *texts.values()))
    version = texts.get(f"{OURS}version", "")
    if re.fullmatch("[0-9]{1,9}", version) and int(version) > VERSION:
        raise CheckpointError(
            f"{file.name} is a checkpoint of version {version}, and this minicnn reads those up to version {VERSION}:"
            " update minicnn"
        )
    at = 0
    for begin, end, name, kind, shape in places:
        if kind not in dtypes and not ours:
            raise CheckpointError(f"{file.name}: {name:.60} holds {kind:.20}, {OTHER_KIND}")
        if kind not in dtypes or begin != at or end - begin != prod(shape) * np.dtype(dtypes[kind]).itemsize:
            raise ValueError(f"the {end - begin} bytes of {name:.60} do not fit its shape and dtype")
        at = end
    if (size := os.fstat(file.fileno()).st_size) != len(start) + at:
        raise ValueError(f"it has {size} bytes instead of {len(start) + at}")
    told = texts.get(f"{OURS}checksum", "")
    digits = told.removeprefix(SUM).encode()
    # equivalent (constant): no text can hold the checksum of a file that holds the text
    digest = hashlib.sha256(start.replace(digits, ZEROS.encode(), 1))
    arrays = {}
    for *_, name, kind, shape in places:
        array = arrays[name] = np.empty(shape, dtypes[kind])
        if file.readinto(_content(array)) < array.nbytes:  # it has become shorter
            raise ValueError(f"it ends within {name:.60}")
        if ours:
            digest.update(_content(array))
        elif kind == "BOOL" and np.any(array.view(np.uint8) > 1):
            raise ValueError(f"{name:.60} has booleans that are neither 0 nor 1")
    if ours and told != SUM + digest.hexdigest():
        raise CheckpointError(
            f"{file.name} is damaged: its checksum differs: {told.removeprefix(SUM)[:16]!a} is written in it, and its"
            f" content has {digest.hexdigest()[:16]!a}: use another copy, or an earlier checkpoint"
        )
    return arrays, texts, {name: kind for *_, name, kind, _ in places}


def _parse(file: BufferedReader) -> tuple[bytes, dict[str, str], list[tuple[int, int, str, str, list[int]]]]:
    """(the length and the header as they are, the texts, the begin, end, name, dtype and shape of
    each array, by where they are). A ValueError says what is wrong."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if length > LONGEST:
        raise ValueError(f"a header has at most {LONGEST:,} bytes")
    start += file.read(length)
    if len(start) < 8 + length:
        raise ValueError("it ends within its header")
    header = json.loads(start[8:].decode(), object_pairs_hook=_unique)
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    texts = header.pop("__metadata__", {})
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("its metadata are not texts by their names")
    places = []
    for name, entry in header.items():
        match entry:
            case {"dtype": str(kind), "shape": [*shape], "data_offsets": [begin, end]} if len(
                shape
            ) <= MOST_AXES and all(type(n) is int for n in (begin, end, *shape)):
                places.append((begin, end, name, kind, shape))
            case _:
                raise ValueError(f"{name:.60} is not described by dtype, shape and data_offsets")
    return start, texts, sorted(places, key=itemgetter(0, 1))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. A ValueError if a name occurs twice, or a name or a text has half a
    character."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice in its header")
    "".join(text for pair in pairs for text in pair if isinstance(text, str)).encode()
    return found
