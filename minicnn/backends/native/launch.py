"""The one way to run a kernel: compile its file, check each argument against its declaration, and
have the threads of launch.c call it, without the interpreter lock.

C takes arguments as they come: an array of another dtype or with gaps would be read as something
else. So each is held against the declaration in the .c file.
"""

import ctypes
import functools
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np

from ...checks import shown
from ..numpy.memory import empty, empty_like, scratch
from ..numpy.threads import Array, elementwise, usable_threads
from .compiler import library, source_of
from .declarations import ROOM, TYPES, declared

__all__ = ["Array", "added", "contiguous", "empty", "empty_like", "launch", "truths"]

# Elements that a thread should have at least. A core moves them in 2 µs or more, which is how long
# it takes to hand work to another thread.
GRAIN = 1 << 13
ALIGNED = 64  # bytes: a line of the cache
BYTES = np.empty(0, np.uint8)
# bits of an array's flags.num, as NumPy's C interface defines them
CONTIGUOUS, ALIGNED_DATA, WRITEABLE = 0x1, 0x100, 0x400
PLAIN = CONTIGUOUS | ALIGNED_DATA
REALS = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}


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
        elementwise(lambda a, b, out: np.add(a, b, out=out), so_far, share, total)
        so_far = total
    return total


def launch(kernel: str, count: int, *args: Any, real: Any, each: int = 1, room: int = 0) -> None:
    """Run "file.kernel" for the units 0 … count − 1, on all threads.

    Args:
        kernel: the name of the .c file and of a kernel in it.
        count: how many units of work there are; nothing happens if there are none.
        args: what the kernel declares after first and last. Arrays: of the declared dtype,
            contiguous unless the kernel declares them strided, and writable unless it declares them
            const; None is a null pointer. Numbers: of the declared type.
        real: the dtype that `real` stands for, float32 or float64.
        each: about how many elements a unit touches, which decides how the work is cut.
        room: how many bytes of working memory each thread needs. If there are any, the kernel's
            last argument, `uint8_t *room`, is where they begin, at a multiple of 64.
    Raises:
        TypeError: an array or a number does not fit, or there are more or fewer arguments.
        DeviceError: the file cannot be compiled.
    """
    if count <= 0:
        return
    wrapper, pack, kinds, has_room = _kernel(kernel, REALS[real])
    if len(args) != len(kinds) or (room > 0) != has_room:
        raise TypeError(f"{kernel} takes {len(kinds) + has_room} arguments, not {len(args) + (room > 0)}")
    plain = [arg if kind is None else address(arg, kind) for arg, kind in zip(args, kinds, strict=True)]
    threads = 1 if count * each < 2 * GRAIN else usable_threads()
    # equivalent (call): there is one thread where each is 0
    step = count if threads == 1 else max(1, GRAIN // max(each, 1), -(-count // (4 * threads)))
    begin = 0
    if room:
        room = -(-room // ALIGNED) * ALIGNED  # so that each thread's begins where it should
        # held here: as Python ends, a thread's buffers go before it does
        memory = scratch("native", (threads * room + ALIGNED,), like=BYTES)
        begin = -(-memory.ctypes.data // ALIGNED) * ALIGNED
    try:
        call = pack(wrapper, count, step, begin, room, threads, *plain)
    except (struct.error, TypeError, OverflowError) as error:
        raise TypeError(f"a number does not fit {kernel}: {error}") from None
    _share()(call)


class Declared(NamedTuple):
    """What a kernel, whose name is for messages, declares of an array: its dtype, and which of the
    flags above it must have."""

    kernel: str
    dtype: np.dtype
    flags: int


def address(array: Array | None, declared: Declared) -> int:
    """Where an array's elements begin. The caller keeps the array.

    Args:
        array: an array, or None, whose address is 0.
        declared: what the kernel declares.
    Raises:
        TypeError: the array does not fit.
    """
    if array is None:
        return 0
    kernel, dtype, flags = declared
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        raise TypeError(f"{kernel} takes an array of {dtype}, not {shown(array)}")
    if flags & ~array.flags.num:
        what = "a contiguous array" if flags & CONTIGUOUS else "an aligned array"
        what += " that it may write to" * bool(flags & WRITEABLE)
        raise TypeError(f"{kernel} takes {what}, not {shown(array)} with strides {array.strides}")
    try:  # 0.15 µs, where array.ctypes takes 0.8
        return _address_of(_first_byte(array))
    except (TypeError, ValueError):  # it is read-only, has gaps, or no elements
        return array.ctypes.data


_address_of, _first_byte = ctypes.addressof, cast(Any, ctypes.c_char.from_buffer)


@functools.cache
def _kernel(kernel: str, real: str) -> tuple[int, Callable[..., bytes], list[Any], bool]:
    """Where the kernel's wrapper is; what packs a Call of it (see launch.c); for each of its
    arguments what it declares of an array, or None for a number; and whether it has room."""
    file, name = kernel.split(".")
    wrapper = ctypes.cast(getattr(library(file, real), f"wrapped_{name}"), ctypes.c_void_p).value
    kinds: list[Any] = []
    codes, arguments = "=QqqQqq", declared(source_of(file))[name]  # "=": without gaps
    for argument in arguments:
        if argument.name != ROOM:
            dtype, code = TYPES[argument.kind.replace("real", real)]
            flags = (ALIGNED_DATA if argument.is_strided else PLAIN) | (0 if argument.is_const else WRITEABLE)
            kinds.append(Declared(kernel, np.dtype(dtype), flags) if argument.is_array else None)
            codes += "Q" if argument.is_array else code
    return cast(int, wrapper), struct.Struct(codes).pack, kinds, len(kinds) < len(arguments)


@functools.cache
def _share() -> Callable[..., None]:
    """The function of launch.c."""
    share = library("launch", "float").share
    share.restype, share.argtypes = None, [ctypes.c_char_p]
    return share
