"""The one way to run a kernel: read its source, check each argument against its declaration,
launch it.

CuPy passes arguments on as they are: an array of another dtype, a view with gaps or a number of
another size would be read as something else, without a word. So every argument is held against
the declaration in the .cu file, such as

    KERNEL void add(const real* x, real* y, int n, real factor)

A kernel whose name ends in _naive is not used in training. It makes one result with each thread,
and stands at the head of a .cu file to be read first; it is tested like the others.
"""

import functools
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..devices import Array

BLOCK = 256  # threads to a block
OPTIONS = ("-std=c++17", "-lineinfo")  # the lines, for profilers and compute-sanitizer
MOST_BLOCKS = 1 << 16  # with more, threads take several turns, which those of a naive kernel cannot
HERE = Path(__file__).parent
NAMES = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
DTYPES = {
    name: np.dtype(dtype)
    for name, dtype in {
        "float": np.float32, "double": np.float64, "int": np.int32, "long long": np.int64, "unsigned": np.uint32,
        "unsigned long long": np.uint64, "unsigned char": np.uint8, "bool": np.bool_,
    }.items()
}  # fmt: skip
DECLARATION = re.compile(r'(?:KERNEL|extern "C" __global__) void (\w+)\(([^)]*)\)')


def launch(kernel: str, count: int, *args: Any, real: Any, types: Any = None, **constants: int) -> None:
    """Run "file.kernel" for `count` results, each thread making one at a time.

    Args:
        kernel: the name of the .cu file and of a kernel in it.
        count: how many results there are; nothing happens if there are none.
        args: what the kernel declares. Arrays: of the declared dtype, all on one device, and
            contiguous (if declared `strided`, only along the last axis). Numbers: converted to the
            declared type.
        real: the dtype that `real` stands for, float32 or float64.
        types: a dict of what other type names in the source stand for.
        constants: the integers that the source leaves open.

    Raises:
        TypeError, ValueError: an argument does not fit.
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
    cupy = sys.modules["cupy"]
    here, largest = cupy.cuda.runtime.getDevice(), count
    for arg in args:
        if (size := getattr(arg, "size", 1)) > largest:
            largest = size
    use = _use(
        cupy, here, kernel, np.dtype(real), largest >= 1 << 31,
        tuple(types.items()) if types else None, tuple(constants), tuple(constants.values()),
    )  # fmt: skip
    if len(args) != len(use.parameters):
        declared = ", ".join([parameter.text for parameter in use.parameters])
        raise TypeError(f"{kernel} takes {len(use.parameters)} arguments, not {len(args)}: {declared}")
    checked = [
        check_array(parameter.what, arg, parameter.dtype, here, parameter.strided)
        if parameter.pointer
        else parameter.value(arg)
        for parameter, arg in zip(use.parameters, args, strict=True)
    ]
    use.compiled((min(int(blocks), use.most_blocks),), (BLOCK,), tuple(checked))


def check_array(what: str, array: Array, dtype: Any, here: int, strided: bool = False) -> Array:
    """The array; TypeError or ValueError unless a kernel can read it that is launched on the GPU of
    that number."""
    if not isinstance(array, sys.modules["cupy"].ndarray):
        raise TypeError(f"{what} must be an array on a GPU, not {type(array).__name__}")
    if array.dtype != dtype:
        raise TypeError(f"{what} must be {np.dtype(dtype)}, not {array.dtype}")
    if not array.flags.c_contiguous:
        side_by_side = array.ndim < 2 or array.strides[-1] == array.itemsize or array.shape[-1] < 2
        if not (strided and side_by_side):
            raise ValueError(f"{what}, shape {array.shape} and strides {array.strides}, is not contiguous")
    if (there := array.data.device_id) != here:
        raise ValueError(f"{what} is on gpu:{there}, and the kernel runs on gpu:{here}")
    return array


def pack(length: int, *arrays: Array) -> int:
    """PACK for arrays with rows of that length: how many neighboring elements a thread can take at
    once, 4 or 1."""
    if length % 4:
        return 1
    for array in arrays:  # a loop, because launches are many, and a generator takes twice as long
        if array.data.ptr % min(16, 4 * array.itemsize):
            return 1
    return 4


def empty(shape: Iterable[int], dtype: Any) -> Array:
    """An uninitialized array on the current GPU."""
    return sys.modules["cupy"].ndarray(tuple(shape), dtype)


def empty_like(array: Array) -> Array:
    """An uninitialized contiguous array of the same shape and dtype."""
    return sys.modules["cupy"].ndarray(array.shape, array.dtype)


def contiguous(array: Array) -> Array:
    """The array itself, or a copy without gaps."""
    return array if array.flags.c_contiguous else array.copy()


@functools.cache
def _source(file: str) -> str:
    return (HERE / file).read_text()


class Parameter(NamedTuple):
    """One of a kernel's parameters, such as `const strided real* x`, where it is known what
    `real` is."""

    text: str
    what: str  # "windows.im2col: x", for a complaint to begin with
    type: str
    dtype: np.dtype[Any] | None  # None for a struct, which is passed by value
    pointer: bool
    strided: bool

    @classmethod
    def of(cls, kernel: str, text: str, types: dict[str, str]) -> "Parameter":
        *words, name = text.replace("*", " * ").replace("__restrict__", "").split()
        declared = " ".join([word for word in words if word not in ("const", "strided", "*")])
        meaning = types.get(declared, declared)
        return cls(text, f"{kernel}: {name}", meaning, DTYPES.get(meaning), "*" in words, "strided" in words)

    def value(self, arg: Any) -> Any:
        """The number or struct that is to be passed for an argument that is not an array."""
        if self.dtype is None:
            if not isinstance(arg, np.ndarray) or arg.ndim or not arg.dtype.names:
                raise TypeError(f"{self.what} is a {self.type}, not {type(arg).__name__}")
            return arg
        try:
            return self.dtype.type(arg)
        except (OverflowError, TypeError, ValueError):
            raise ValueError(f"{self.what}={arg!r} is not a valid {self.type}") from None


def declarations(file: str) -> dict[str, list[str]]:
    """The declared parameters of each kernel in a file."""
    return {
        name: [" ".join(text.split()) for text in parameters.split(",")]
        for name, parameters in DECLARATION.findall(_source(f"{file}.cu"))
    }


def source(file: str, types: tuple[tuple[str, str], ...], constants: tuple[tuple[str, int], ...]) -> str:
    """All of the source for one use of a file: types, constants, kernels.h, the file itself.
    Compilers and profilers are told which line is from where."""
    lines = [f"typedef {meaning} {name};" for name, meaning in types]
    numbers = {"BLOCK": BLOCK, "PACK": 1, **dict(constants)}
    lines += [f"constexpr int {name} = {int(value)};" for name, value in numbers.items()]
    for name in ("kernels.h", f"{file}.cu"):
        lines += [f'#line 1 "minicnn/backends/cuda/{name}"', _source(name)]
    return "\n".join(lines)


class Use(NamedTuple):
    """A kernel for certain types and constants, loaded on a device."""

    compiled: Any
    parameters: list[Parameter]
    most_blocks: int


@functools.cache
def _use(
    cupy: Any,
    device: int,
    kernel: str,
    real: np.dtype[Any],
    wide: bool,
    types: tuple[tuple[str, str], ...] | None,
    constants: tuple[str, ...],
    values: tuple[int, ...],
) -> Use:
    """The kernel, compiled once; CuPy keeps the result on the disk, too, for the next run of the
    program. `wide` tells whether an array has 2³¹ elements or more. The names of the constants are
    apart from their values, because pairs take twice as long to look up."""
    if real not in NAMES:
        raise TypeError(f"{kernel}: a GPU computes in float32 and float64 here, not in {real}")
    file, _, name = kernel.partition(".")
    names = {"real": NAMES[real], "Index": "unsigned long long" if wide else "unsigned", **dict(types or ())}
    parameters = [Parameter.of(kernel, text, names) for text in declarations(file)[name]]
    code = source(file, tuple(names.items()), tuple(zip(constants, values, strict=True)))
    module = cupy.RawModule(code=code, options=OPTIONS)
    most_blocks = (1 << 31) - 1 if name.endswith("_naive") else MOST_BLOCKS
    return Use(module.get_function(name), parameters, most_blocks)
