"""Devices: where arrays are, by name ("cpu", "gpu", "gpu:1"), and how they get there.

The host is always there, with NumPy's arrays. A backend for other hardware registers a Device,
which says how that hardware does the few things that are needed of it; the functions below are what
everything else calls.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..checks import shown

Array = Any  # a NumPy array, or an array of another device
HOST_MEMORY = (1, 3, 11)  # kinds of memory by their numbers in DLPack: plain, pinned, managed


class DeviceError(RuntimeError):
    """A device or a backend that was asked for is not there or has no memory left, or arrays of two
    devices met in one operation.
    """


class Device:
    """What minicnn asks of hardware other than the host. A subclass is registered by
    Device.register("gpu", Mine()).

    Devices of a kind are numbered from 0. Their arrays have copy(), astype(), reshape() and
    operators, and take part in NumPy's functions by NEP 13 and NEP 18, as NumPy's arrays do.

    Attributes:
        memory: its kinds of memory, by their numbers in DLPack.
    """

    memory: tuple[int, ...] = ()  # its kinds of memory, by their numbers in DLPack

    def owns(self, kind: type) -> bool:
        """Whether arrays of a type are on this kind of device. It must not import anything: before
        the device has been opened, there are no such arrays.

        Args:
            kind: a type.
        """
        raise NotImplementedError

    def open(self, number: int) -> None:
        """Make a device ready for use, and find out now what would fail later.

        Args:
            number: which one, from 0.
        Raises:
            DeviceError: it cannot be used; the message is one line that says what to do.
        """
        raise NotImplementedError

    def number(self, array: Array) -> int:
        """The number of the device that holds an array.

        Args:
            array: an array of this kind of device.
        """
        raise NotImplementedError

    def is_current(self, array: Array) -> bool:
        """Whether the device that holds an array is this thread's current one already.

        Args:
            array: an array of this kind of device.
        """
        raise NotImplementedError

    def is_full(self, error: BaseException) -> bool:
        """Whether an error means that a device's memory is used up.

        Args:
            error: what was raised.
        """
        return isinstance(error, MemoryError)

    def make_room(self) -> bool:
        """Let go of what the current device's memory holds only to save time, since it is used up.
        Returns whether there was anything."""
        return False

    def module(self) -> Any:
        """The module with NumPy's functions for the device's arrays, such as cupy."""
        raise NotImplementedError

    def current(self, number: int) -> contextlib.AbstractContextManager[Any]:
        """A context in which arrays are made and computed on a device, and its lack of memory is a
        DeviceError.

        Args:
            number: which one.
        """
        raise NotImplementedError

    def upload(self, array: np.ndarray) -> Array:
        """A copy of a host array on the current device.

        Args:
            array: an array of NumPy's.
        """
        raise NotImplementedError

    def download(self, array: Array) -> np.ndarray:
        """A copy on the host.

        Args:
            array: an array of this kind of device.
        Returns:
            An array of NumPy's.
        """
        raise NotImplementedError

    def describe(self, number: int) -> str:
        """A device's name and memory, for people.

        Args:
            number: which one.
        """
        raise NotImplementedError

    def memory_stats(self, number: int) -> dict[str, int]:
        """See memory_stats() below.

        Args:
            number: which one.
        """
        raise NotImplementedError

    def synchronize(self, number: int) -> None:
        """Wait until a device has done all that it was asked to do.

        Args:
            number: which one.
        """
        raise NotImplementedError

    def uploader(self, number: int) -> Any:
        """An object that copies batches from the host to a device while it computes with the ones
        before, with the methods of Upload in backends/cuda/devices.py.

        Args:
            number: which one.
        """
        raise NotImplementedError

    def count(self) -> int:
        """How many devices of this kind this process can see. It opens none of them.

        Raises:
            DeviceError: there is none; the message is one line that says what to do.
        """
        raise NotImplementedError

    def link(self, number: int, rank: int, size: int, decided: Callable[[Any], Any]) -> Any:
        """Connect the device with those of other processes, which call this at the same time.

        Args:
            number: which one.
            rank: this process's number among them.
            size: how many they are.
            decided: a function that returns to all what rank 0 gives it.
        Returns:
            An object with the methods of Link in backends/cuda/nccl.py.
        """
        raise NotImplementedError

    def graphs(self) -> Any:
        """Begin to capture what the current device is asked for.

        Returns:
            A function that makes a Graph (backends/cuda/graph.py) of a function, in memory that all
            graphs made by it share; None for a kind of device that has none.
        """
        return None

    @staticmethod
    def register(kind: str, device: "Device") -> None:
        """Make a kind of device known.

        Args:
            kind: its name, such as "gpu".
            device: the Device that does its work.
        """
        _kinds[kind] = device
        _owners.clear()


_kinds: dict[str, Device] = {}


def is_kind(kind: str) -> bool:
    """Whether there is such a kind of device."""
    return kind == "cpu" or kind in _kinds


def kind_of(array_type: type) -> str | None:
    """The kind of device that arrays of a type are on, "cpu" or "gpu"; None if the type is not one
    of arrays.
    """
    if issubclass(array_type, (np.ndarray, np.generic)):
        return "cpu"
    return next((kind for kind, device in _kinds.items() if device.owns(array_type)), None)


def _device_of_type(array_type: type) -> tuple[str, Device]:
    if array_type not in _owners:
        kind = kind_of(array_type)
        if kind not in _kinds:
            raise TypeError(f"{array_type.__name__} is not an array of a device that is open")
        _owners[array_type] = kind, _kinds[kind]
    return _owners[array_type]


# the kind of device that a type of arrays belongs to, and the device; found out once for each
_owners: dict[type, tuple[str, Device]] = {}


# -------------------------------------------------------------------------------------- by its name
def open_device(device: str) -> str:
    """Make a device ready for use.

    Args:
        device: "cpu", "gpu" or "gpu:N".
    Returns:
        Its full name: "gpu" is "gpu:0".
    Raises:
        DeviceError: it cannot be used; the message says what to install or to write.
    """
    if not isinstance(device, str):
        raise DeviceError(f"device must be 'cpu', 'gpu' or 'gpu:N', not {shown(device)}")
    if device == "cpu":
        return device
    kind, _, index = device.partition(":")
    if kind not in _kinds or (index and not index.isdecimal()):
        called = ": here it is called 'gpu'" if kind == "cuda" else ""
        raise DeviceError(f"unknown device {device!r}{called}: use 'cpu', 'gpu' or 'gpu:N'")
    number = int(index or 0)
    if (kind, number) not in opened:
        with _opening:
            try:
                _kinds[kind].open(number)
            except DeviceError as error:
                raise DeviceError(f"device {device!r}: {error}") from None
            opened.add((kind, number))
    return f"{kind}:{number}"


# Those that were found in order, because finding out takes a moment. As long as there are none,
# every array is on the host.
opened: set[tuple[str, int]] = set()
_opening = threading.Lock()  # one thread at a time, because libraries are imported on the way


def _opened_device(device: str) -> tuple[Device | None, int]:
    """The Device and its number; (None, 0) for the host."""
    kind, _, number = open_device(device).partition(":")
    return _kinds.get(kind), int(number or 0)


class on_device:
    """with on_device("gpu:1"): what is computed inside is computed there, and running out of its
    memory is a DeviceError. Nothing changes for "cpu".

    Args:
        device: "cpu", "gpu" or "gpu:N".
    """

    def __init__(self, device: str) -> None:
        kind, _, number = device.partition(":")
        self.inner = None if kind == "cpu" else _kinds[kind].current(int(number or 0))

    def __enter__(self) -> None:
        if self.inner is not None:
            self.inner.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self.inner is not None:
            self.inner.__exit__(*error)


def is_available(device: str = "gpu") -> bool:
    """Whether a device can be used here. If it cannot, open_device and Tensor(…, device=…) tell
    why.

    Args:
        device: "cpu", "gpu" or "gpu:N".

    Example:
        >>> is_available("cpu")
        True
    """
    try:
        open_device(device)
    except DeviceError:
        return False
    return True


def describe_device(device: str) -> str:
    """A device's name and memory, as "NVIDIA H100 80GB HBM3, 79.1 GiB"."""
    there, number = _opened_device(device)
    return "the host" if there is None else there.describe(number)


def memory_stats(device: str = "gpu") -> dict[str, int]:
    """How much of a GPU's memory is in use.

    Args:
        device: "gpu" or "gpu:N".
    Returns:
        A dict of bytes: `used` by arrays of this program, `reserved` by it (kept for the next
        arrays: mostly as much as was ever used at one time), `free` for any program, and `total`.
    Raises:
        DeviceError: the device is the host, or is not there.
    """
    there, number = _opened_device(device)
    if there is None:
        raise DeviceError(f"memory_stats() is for devices other than the host: 'gpu' or 'gpu:N', not {device!r}")
    return there.memory_stats(number)


def synchronize(device: str = "gpu") -> None:
    """Wait until a device has done all that it was asked to do, as before looking at a clock. On a
    CPU there is nothing to wait for.

    Args:
        device: "cpu", "gpu" or "gpu:N".
    Raises:
        DeviceError: the device is not there.

    Example:
        >>> synchronize("cpu")
    """
    there, number = _opened_device(device)
    if there is not None:
        there.synchronize(number)


def uploader(device: str) -> Any:
    """An object that copies batches to a device while it computes; None for the host, where they
    are already.
    """
    there, number = _opened_device(device)
    return None if there is None else there.uploader(number)


def count(kind: str) -> int:
    """How many devices of a kind, such as "gpu", this process can see.

    Raises:
        DeviceError: there is none; the message says what to install or to write.
    """
    with _opening:
        try:
            return _kinds[kind].count()
        except DeviceError as error:
            raise DeviceError(f"device {kind!r}: {error}") from None


def link(device: str, rank: int, size: int, decided: Callable[[Any], Any]) -> Any:
    """Connect a device with those of other processes; see Device.link."""
    there, number = _opened_device(device)
    assert there is not None, "the host's arrays are MPI's"
    return there.link(number, rank, size, decided)


def graphs(device: str) -> Any:
    """A function that captures what a device is asked for; None for the host. See Device.graphs."""
    there, number = _opened_device(device)
    if there is None:
        return None
    with there.current(number):
        return there.graphs()


# -------------------------------------------------------------------------------------- by an array
def real_array(accepted: str, data: Any) -> Array:
    """What a user gave, as an array of real numbers or booleans.

    Args:
        accepted: how a message begins that says what is accepted.
        data: an array, a number, or numbers in nested lists.
    Raises:
        TypeError: it is something else.
    """
    try:
        array = as_array(data)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # ragged lists, say
        raise TypeError(f"{accepted}, not {shown(data)}: {error}") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{accepted}, not {shown(data) if kind_of(type(data)) is None else array.dtype}")
    return array


def as_array(data: Any) -> Array:
    """An array as it is, on whatever device, which is opened; anything else, such as a list, as
    NumPy's. Its elements have this machine's byte order, which those in a file of HDF5 or NumPy may
    not have.
    """
    if kind_of(type(data)) in (None, "cpu"):
        array = np.asarray(data)
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    open_device(device_of(data))
    return data


def on_host(array: Array) -> bool:
    """Whether an array is on the host, where reading its elements does not have to wait."""
    return isinstance(array, (np.ndarray, np.generic))


def is_array(value: Any) -> bool:
    """Whether a value is an array of any device, and not one of NumPy's scalars."""
    return kind_of(type(value)) is not None and not isinstance(value, np.generic)


def on_one_device(arrays: Sequence[Array]) -> bool:
    """Whether these arrays, all of one type, are on one device."""
    kind = type(arrays[0])
    if len(arrays) == 1 or kind is np.ndarray:
        return True
    _, device = _device_of_type(kind)
    return len({device.number(array) for array in arrays}) == 1


def device_of(array: Array) -> str:
    """The name of the device that holds an array."""
    if isinstance(array, np.ndarray):
        return "cpu"
    kind, device = _device_of_type(type(array))
    return f"{kind}:{device.number(array)}"


def on_device_of(array: Array) -> on_device:
    """on_device, for the device that holds an array."""
    return on_device(device_of(array))


def run_there(function: Callable[..., Array], arrays: Sequence[Array]) -> Array:
    """function(*arrays), on the device of the first of them; once more, if its memory is used up,
    since it may have made room."""
    if type(arrays[0]) is np.ndarray:
        return function(*arrays)
    _, device = _device_of_type(type(arrays[0]))
    if device.is_current(arrays[0]):  # to enter a context takes 2 µs, and a step has 70 operations
        try:
            return function(*arrays)
        except Exception as error:
            if not device.is_full(error):
                raise
            device.make_room()
    with on_device_of(arrays[0]):  # which turns a lack of memory into a DeviceError
        try:
            return function(*arrays)
        except Exception as error:
            if not device.is_full(error) or not device.make_room():
                raise
        return function(*arrays)


def array_module(array: Array) -> Any:
    """The module with NumPy's functions for an array: numpy itself, or cupy."""
    return np if isinstance(array, np.ndarray) else _device_of_type(type(array))[1].module()


def to_device(array: Array, device: str) -> Array:
    """The array on that device: the array itself if it is there already, otherwise a copy."""
    device = open_device(device)
    here = device_of(array)
    if here == device:
        return array
    if here != "cpu":
        array = _device_of_type(type(array))[1].download(array)
    there, _ = _opened_device(device)
    if there is None:
        return array
    with on_device(device):
        return there.upload(array)


def misfit(value: Array, array: Array) -> str | None:
    """What keeps the value from being copied over the array: its shape, or its kind of dtype
    (integers are not the weights of a network); None if nothing does.
    """
    try:
        value = as_array(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # lists of unequal lengths, say
        return f"is {shown(value)}, not an array"
    if value.shape != array.shape:
        return f"has shape {value.shape}, not {array.shape}"
    if value.dtype.kind not in ("f" if array.dtype.kind == "f" else "fiub"):
        return f"is {value.dtype}, not {array.dtype if array.dtype.kind == 'f' else 'a kind of number'}"
    if not np.can_cast(value.dtype, array.dtype):
        with on_device_of(value), np.errstate(all="ignore"):
            lost = np.isfinite(value) & ~np.isfinite(value.astype(array.dtype))
            if lost.any():
                return f"holds {value[lost][0]}, which is infinite in {array.dtype}"
    return None


def assign(array: Array, value: Array) -> None:
    """array[...] = value, whatever devices they are on and whatever dtype value has."""
    value = to_device(as_array(value), device_of(array))
    with on_device_of(array):
        array[...] = value


def constant(number: Any, dtype: Any, like: Array) -> Array:
    """A number as an array without axes on the device of `like`. On a GPU it is filled in, without
    a copy from the host.
    """
    if isinstance(like, np.ndarray):
        return np.asarray(number, dtype)
    with on_device_of(like):
        return array_module(like).full((), number, dtype)


def index_copy(part: Any, like: Array) -> Any:
    """A copy, where `like` is, of an array or list that is to be an index; an index of another type
    as it is.
    """
    if not hasattr(part, "copy") or isinstance(part, np.generic):
        return part
    return to_device(np.array(part) if isinstance(part, (np.ndarray, list)) else part.copy(), device_of(like))


# ------------------------------------------------------------------------------------------- DLPack
def to_dlpack(array: Array, options: dict[str, Any]) -> Any:
    """array.__dlpack__(**options): another library takes the array from it, and keeps it alive with
    it.
    """
    if any(stride < 0 for stride in array.strides):
        raise BufferError("an array that runs backwards, such as x[::-1], would crash PyTorch: share a copy of it")
    with on_device_of(array):
        return array.__dlpack__(**options)


def from_dlpack(x: Any) -> Array:
    """Another library's array as NumPy's or the device's, on the same memory."""
    if not hasattr(x, "__dlpack_device__"):
        raise TypeError(f"from_dlpack takes an array of a library that knows DLPack, not {type(x).__name__}")
    try:
        memory, number = x.__dlpack_device__()
    except ValueError as error:  # a tensor of PyTorch's device "meta", which has no memory
        raise DeviceError(f"from_dlpack: {one_line(error)}") from None
    # PyTorch 2.14 exports the memory of such a view, without the sign
    if getattr(x, "is_neg", bool)():
        raise BufferError("from_dlpack: this tensor is the negative of its memory: share x.resolve_neg()")
    kind = next((kind for kind, device in _kinds.items() if memory in device.memory), None)
    if kind is None and memory not in HOST_MEMORY:
        raise DeviceError(
            f"from_dlpack: this memory (DLPack's kind {int(memory)}) is on neither a CPU nor an NVIDIA GPU"
        )
    there = None if kind is None else _opened_device(f"{kind}:{number}")[0]
    try:
        return (np if there is None else there.module()).from_dlpack(x)
    # NumPy, or CuPy, has no such dtype; or the array must not be shared
    except (RuntimeError, TypeError, ValueError, AttributeError, BufferError) as error:
        raise BufferError(f"from_dlpack of {getattr(x, 'dtype', type(x).__name__)}: {one_line(error)}") from None


def one_line(error: BaseException) -> str:
    """The line of a longer error message that says what is wrong: of CuPy's own, what follows
    "Original error:".
    """
    lines = [line.strip() for line in str(error).partition("Original error:")[2].splitlines() if line.strip()]
    lines += [line.strip() for line in str(error).splitlines() if line.strip("= ")]
    return lines[0] if lines else type(error).__name__
