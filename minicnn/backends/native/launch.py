"""The one way to run a kernel: compile its file, check each argument against its declaration, and
call it on all threads, without the interpreter lock.

C takes arguments as they come: an array of another dtype or with gaps would be read as something
else. So each is held against the declaration in the .c file, such as

    KERNEL void rectify(Index first, Index last, const real *x, real *y)
"""

import ctypes
import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ...checks import shown
from ..numpy import threads
from ..numpy.memory import empty, empty_like, scratch
from ..numpy.threads import Array
from .compiler import library, source_of

__all__ = ["Array", "added", "contiguous", "empty", "empty_like", "launch", "truths"]

# Elements that a thread should have at least. Handing work to another thread takes 20 µs, in which
# a core moves some 50,000 numbers.
GRAIN = 1 << 15
ALIGNED = 64  # bytes: a line of the cache
BYTES = np.empty(0, np.uint8)
REALS = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
TYPES: dict[str, tuple[Any, Any]] = {  # by their names in C: an array's dtype, and a number
    "float": (np.float32, ctypes.c_float),
    "double": (np.float64, ctypes.c_double),
    "Index": (np.intp, ctypes.c_ssize_t),
    "int64_t": (np.int64, ctypes.c_int64),
    "uint8_t": (np.uint8, ctypes.c_uint8),
    "uint32_t": (np.uint32, ctypes.c_uint32),
    "uint64_t": (np.uint64, ctypes.c_uint64),
}
DECLARATION = re.compile(r"KERNEL void (\w+)\(([^)]*)\)")


def contiguous(array: Array) -> Array:
    """The array, or a copy of it whose elements lie one after another in C's order, at addresses
    that are multiples of their size."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.array(array, order="C")


def truths(mask: Any) -> Array:
    """A mask as C takes it: a byte, 0 or 1, for each element."""
    return contiguous(np.asarray(mask, bool)).view(np.uint8)


def added(shares: Array, total: Array) -> Array:
    """The sum of the shares of two threads or more, in their order, written to `total`."""
    so_far = shares[0]
    for share in shares[1:]:
        threads.elementwise(lambda a, b, out: np.add(a, b, out=out), so_far, share, total)
        so_far = total
    return total


def launch(kernel: str, count: int, *args: Any, real: Any, each: int = 1, room: int = 0, keep: Any = None) -> None:
    """Run "file.kernel" for the units 0 … count − 1, on all threads.

    Args:
        kernel: the name of the .c file and of a kernel in it.
        count: how many units of work there are; nothing happens if there are none.
        args: what the kernel declares after first and last. Arrays: of the declared dtype,
            contiguous unless the kernel declares them strided, and writable unless it declares them
            const; None is a null pointer. Numbers: converted to the declared type.
        real: the dtype that `real` stands for, float32 or float64.
        each: about how many elements a unit touches, which decides how the work is cut.
        room: how many bytes of working memory each thread needs. If there are any, the kernel's
            last argument, `uint8_t *room`, is where they begin, at a multiple of 64.
        keep: arrays whose addresses are among the numbers, which must outlive the call.
    Raises:
        TypeError: an array does not fit, or there are more or fewer arguments.
        ctypes.ArgumentError: a number does not fit.
        DeviceError: the file cannot be compiled.
    """
    if count <= 0:
        return
    function, kinds = _kernel(kernel, REALS[real])
    kinds = kinds[:-1] if room else kinds
    if len(args) != len(kinds):
        raise TypeError(f"{kernel} takes {len(kinds)} arguments, not {len(args)}")
    plain = [arg if kind is None else address(arg, *kind) for arg, kind in zip(args, kinds, strict=True)]

    # A thread may still be at work when the caller is interrupted: it keeps the arrays.
    def some(first: int, last: int, held: Any = (args, keep)) -> None:
        if room:
            begin = scratch("native", (room + ALIGNED,), like=BYTES).ctypes.data
            function(first, last, *plain, -(-begin // ALIGNED) * ALIGNED)
        else:
            function(first, last, *plain)

    if count * each < 2 * GRAIN:
        some(0, count)
    else:
        step = max(1, GRAIN // each, -(-count // (4 * threads.usable_threads())))
        threads.parallel(some, threads.slices(count, step))


def address(
    array: Array | None, dtype: np.dtype, kernel: str, written: bool = False, strided: bool = False
) -> int | None:
    """Where an array's elements begin. The caller keeps the array.

    Args:
        array: an array, or None, whose address is that too.
        dtype: the dtype that the kernel declares.
        kernel: its name, for the message.
        written: whether the kernel writes to the array.
        strided: whether it may lie in any way.
    Raises:
        TypeError: the array does not fit.
    """
    if array is None:
        return None
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        raise TypeError(f"{kernel} takes an array of {dtype}, not {shown(array)}")
    flags = array.flags
    if not (flags.aligned and (flags.c_contiguous or strided) and (flags.writeable or not written)):
        what = ("an aligned array" if strided else "a contiguous array") + " that it may write to" * written
        raise TypeError(f"{kernel} takes {what}, not {shown(array)} with strides {array.strides}")
    memory: Any = array
    try:  # 0.2 µs, where array.ctypes takes 0.8
        return ctypes.addressof(ctypes.c_char.from_buffer(memory))
    except (TypeError, ValueError):  # it is read-only, has gaps, or no elements
        return array.ctypes.data


@functools.cache
def _kernel(kernel: str, real: str) -> tuple[Callable[..., None], list[Any]]:
    """The compiled function, and for each of its arguments but the first two what address() asks of
    an array, or None for a number."""
    file, name = kernel.split(".")
    declared = dict(DECLARATION.findall(source_of(file)))[name]
    types: list[Any] = []
    kinds: list[Any] = []
    for argument in declared.split(","):
        words = argument.replace("*", " * ").split()
        written, strided = "const" not in words, "strided" in words
        dtype, number = TYPES[words[strided + (not written)].replace("real", real)]
        types.append(ctypes.c_void_p if "*" in words else number)
        kinds.append((np.dtype(dtype), kernel, written, strided) if "*" in words else None)
    function = getattr(library(file, real), name)
    function.restype, function.argtypes = None, types
    return function, kinds[2:]
