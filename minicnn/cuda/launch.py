"""The one way to run a kernel: read its source, check each argument against its declaration, launch it.

CuPy passes arguments on as they are: an array of another dtype, a view with gaps or a number of another size would be
read as something else, without a word. So every argument is held against the declaration in the .cu file, such as

    KERNEL void add(const real* x, real* y, int n, real factor)
"""

import functools
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array

BLOCK = 256  # threads; the same number as in kernels.h
MOST_BLOCKS = 1 << 16  # beyond, threads take several turns
HERE = Path(__file__).parent
NAMES = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
DTYPES = {
    name: np.dtype(dtype)
    for name, dtype in {
        "float": np.float32, "double": np.float64, "int": np.int32, "long long": np.int64, "unsigned": np.uint32,
        "unsigned long long": np.uint64, "unsigned char": np.uint8, "bool": np.bool_,
    }.items()
}  # fmt: skip
DECLARATION = re.compile(r"KERNEL void (\w+)\(([^)]*)\)")


def launch(kernel: str, count: int, *args: Any, real: Any, types: Any = None, **constants: int) -> None:
    """Run "file.kernel" for `count` results, each thread making one at a time.

    Args:
        kernel: the name of the .cu file and of a kernel in it.
        count: how many results there are; nothing happens if there are none.
        args: what the kernel declares. Arrays: of the declared dtype, contiguous (or declared `strided`, with numbers
            side by side only along the last axis), all on one device. Numbers: converted to the declared type.
        real: the dtype that `real` stands for, float32 or float64.
        types: a dict of what other type names in the source stand for.
        constants: the integers that the source leaves open.

    Raises TypeError or ValueError, in one line, for an argument that does not fit.
    """
    _run(kernel, -(-count // BLOCK), count, args, real, types, constants)


def launch_blocks(kernel: str, count: int, *args: Any, real: Any, types: Any = None, **constants: int) -> None:
    """The same for a kernel whose blocks work together, each on one of `count` results."""
    _run(kernel, count, count, args, real, types, constants)


def _run(
    kernel: str, blocks: int, count: int, args: tuple[Any, ...], real: Any, types: Any, constants: dict[str, int]
) -> None:
    if not count:
        return
    file, _, name = kernel.partition(".")
    if np.dtype(real) not in NAMES:
        raise TypeError(f"{kernel}: a GPU computes in float32 and float64 here, not in {np.dtype(real)}")
    numbers = max([count, *(array.size for array in args if hasattr(array, "size"))])
    names = {
        "real": NAMES[np.dtype(real)],
        "Index": "unsigned" if numbers < 1 << 31 else "unsigned long long",
        **(types or {}),
    }
    parameters = _parameters(file)[name]
    if len(args) != len(parameters):
        raise TypeError(
            f"{kernel} takes {len(parameters)} arguments, not {len(args)}: {', '.join(p.text for p in parameters)}"
        )
    checked = [_checked(kernel, *pair, names) for pair in zip(parameters, args, strict=True)]
    cupy = sys.modules["cupy"]
    device = cupy.cuda.runtime.getDevice()
    for array in checked:
        if hasattr(array, "device") and not isinstance(array, (np.ndarray, np.generic)) and array.device.id != device:
            raise ValueError(f"{kernel}: an array is on gpu:{array.device.id}, and the kernel runs on gpu:{device}")
    compiled = _compiled(cupy, device, file, name, tuple(names.items()), tuple(constants.items()))
    compiled((min(int(blocks), MOST_BLOCKS),), (BLOCK,), tuple(checked))


def _checked(kernel: str, declared: "Parameter", arg: Any, names: dict[str, str]) -> Any:
    """The argument as it is to be passed."""
    type_name = names.get(declared.type, declared.type)
    if type_name not in DTYPES:  # a struct, by value
        if not isinstance(arg, np.ndarray) or arg.ndim or not arg.dtype.names:
            raise TypeError(f"{kernel}: {declared.name} is a {type_name}, not {type(arg).__name__}")
        return arg
    dtype = DTYPES[type_name]
    if not declared.pointer:
        try:
            return dtype.type(arg)
        except (OverflowError, TypeError, ValueError):
            raise ValueError(f"{kernel}: {declared.name}={arg!r} is no {type_name}") from None
    check_array(f"{kernel}: {declared.name}", arg, dtype, declared.strided)
    return arg


def check_array(what: str, array: Array, dtype: Any, strided: bool = False) -> None:
    """TypeError or ValueError unless a kernel can read this array."""
    if not hasattr(array, "__cuda_array_interface__"):
        raise TypeError(f"{what} must be an array on a GPU, not {type(array).__name__}")
    if array.dtype != dtype:
        raise TypeError(f"{what} must be {np.dtype(dtype)}, not {array.dtype}")
    side_by_side = array.ndim < 2 or array.strides[-1] == array.itemsize or array.shape[-1] < 2
    if not (array.flags.c_contiguous or (strided and side_by_side)):
        raise ValueError(f"{what}, shape {array.shape} and strides {array.strides}, is not contiguous")


def pack(length: int, *arrays: Array) -> int:
    """PACK for arrays with rows of that length: how many neighbouring numbers a thread can take at once, 4 or 1."""
    fits = length % 4 == 0 and all(array.data.ptr % min(16, 4 * array.itemsize) == 0 for array in arrays)
    return 4 if fits else 1


def contiguous(array: Array) -> Array:
    """The array itself, or a copy without gaps."""
    return array if array.flags.c_contiguous else array.copy()


@functools.cache
def _source(file: str) -> str:
    return (HERE / file).read_text()


class Parameter(NamedTuple):
    """One of a kernel's parameters, such as `const strided real* x`."""

    text: str
    name: str
    type: str
    pointer: bool
    strided: bool

    @classmethod
    def of(cls, text: str) -> "Parameter":
        text = " ".join(text.split())
        *words, name = text.replace("*", " * ").replace("__restrict__", "").split()
        type_name = " ".join([word for word in words if word not in ("const", "strided", "*")])
        return cls(text, name, type_name, "*" in words, "strided" in words)


@functools.cache
def _parameters(file: str) -> dict[str, list[Parameter]]:
    """The declared parameters of each kernel in a file; read once, for to read takes as long as ten launches."""
    return {
        name: [Parameter.of(text) for text in parameters.split(",")]
        for name, parameters in DECLARATION.findall(_source(f"{file}.cu"))
    }


def source(file: str, types: tuple[tuple[str, str], ...], constants: tuple[tuple[str, int], ...]) -> str:
    """All of the source for one use of a file: types, constants, kernels.h, the file itself."""
    lines = [f"typedef {meaning} {name};" for name, meaning in types]
    lines += [f"constexpr int {name} = {int(value)};" for name, value in {"PACK": 1, **dict(constants)}.items()]
    return "\n".join([*lines, _source("kernels.h"), _source(f"{file}.cu")])


@functools.cache
def _compiled(
    cupy: Any,
    device: int,
    file: str,
    name: str,
    types: tuple[tuple[str, str], ...],
    constants: tuple[tuple[str, int], ...],
) -> Any:
    """The kernel, loaded on a device. CuPy keeps what it has compiled on the disk, for the next time."""
    return cupy.RawModule(code=source(file, types, constants), options=("-std=c++17",)).get_function(name)
