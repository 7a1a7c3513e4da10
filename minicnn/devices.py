"""Devices: where arrays are, how they get there, and every way in which a GPU can be missing. The one file that imports
CuPy, and only when a GPU is asked for.

What is asked of CuPy here: arrays, streams and their memory. What is computed with them: minicnn/cuda.
"""

import importlib
import importlib.metadata
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = Any  # a NumPy array, or a CuPy array on a machine that has one
# The wheels by their names, not an extra of minicnn's: on PyPI that name is another project's.
# The versions are those of setup.cfg.
OLDER = "'cupy-cuda12x[ctk]>=14,<15'"
INSTALL = f"pip install 'cupy-cuda13x[ctk]>=14,<15' (or {OLDER} for a driver older than 580)"
WHEELS = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")
ON_HOST, ON_GPU = (1, 3, 11), (2, 13)  # kinds of memory by their numbers in DLPack, with pinned and managed memory


class DeviceError(RuntimeError):
    """A device that was asked for is not there or has no memory left, or arrays of two devices met in one operation."""


# -------------------------------------------------------------------------------------------------------------- opening
def open_device(device: str) -> str:
    """The full name of a device that can be used: "cpu"; "gpu" is "gpu:0". Raises DeviceError with what to install or
    to write."""
    if device == "cpu":
        return device
    kind, _, index = device.partition(":") if isinstance(device, str) else ("", "", "")
    if kind != "gpu" or (index and not index.isdecimal()):
        raise DeviceError(f"unknown device {device!r}: use 'cpu', 'gpu' or 'gpu:N'")
    number = int(index or 0)
    if number not in _open:
        with _opening:
            try:
                _probe(number)
            except DeviceError as error:
                raise DeviceError(f"device {device!r}: {error}") from None
            _open.add(number)
    return f"gpu:{number}"


_open: set[int] = set()  # the GPUs that were found in order; to look takes a moment
_opening = threading.Lock()  # one thread at a time: see _import_cupy


def _probe(number: int) -> None:
    """DeviceError, saying what is wrong and what to do, unless that GPU and all that it takes to use it are there."""
    cupy = _import_cupy()
    runtime = cupy.cuda.runtime
    driver = 0
    try:
        driver = runtime.driverGetVersion()  # 0 if there is none
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise DeviceError(_what_is_missing(error, driver, runtime.runtimeGetVersion())) from None
    if number >= count:
        raise DeviceError(f"there {'is one GPU' if count == 1 else f'are {count} GPUs'}, numbered from 0")
    with cupy.cuda.Device(number):
        # CuPy looks for these libraries at their first use, which would be in the middle of a training step
        for library, use in (
            ("NVRTC", lambda: cupy.RawModule(code='extern "C" __global__ void probe() {}').get_function("probe")),
            ("cuBLAS", cupy.cuda.device.get_cublas_handle),
        ):
            try:
                use()
            except Exception as error:
                if _is_out_of_memory(error):
                    raise DeviceError("the GPU has no memory left; other programs use it (see nvidia-smi)") from None
                raise DeviceError(
                    f"CUDA's library {library} cannot be used ({_one_line(error)}): {INSTALL} brings it"
                ) from None


def _import_cupy() -> Any:
    found = [name for name in WHEELS if _installed(name)]
    if len(found) > 1:
        raise DeviceError(
            f"{' and '.join(found)} are installed over each other: pip uninstall {' '.join(found)}, then {INSTALL}"
        )
    try:
        cupy = importlib.import_module("cupy")
        # import cupy leaves cupyx to be loaded at the first look into it, and with Python 3.10 to
        # 3.12.2 (gh-114763) threads that look at the same time find it half made: look here, once
        _ = importlib.import_module("cupyx").empty_pinned
        return cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise DeviceError(f"CuPy is not whole ({_one_line(error)}): {INSTALL}") from None
        raise DeviceError(f"it needs CuPy, which is not installed: {INSTALL}, or use device 'cpu'") from None
    except ImportError as error:
        raise DeviceError(f"CuPy cannot be imported ({_one_line(error)}): install it again, {INSTALL}") from None


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _what_is_missing(error: Any, driver: int, wanted: int) -> str:
    """One line for a CUDARuntimeError, from its status and the versions of the driver and of CUDA."""
    if error.status == 35 and not driver:
        return "this machine has no NVIDIA driver (libcuda.so.1 was not found): install one, or use device 'cpu'"
    if error.status == 35:
        older = f", or pip uninstall cupy-cuda{wanted // 1000}x, then pip install {OLDER}"
        return (
            f"the NVIDIA driver is for CUDA {_version(driver)}, but the installed CuPy needs {_version(wanted)}: "
            f"update the driver{older if driver // 1000 == 12 < wanted // 1000 else ''}"
        )
    if error.status == 100:
        return "the driver sees no GPU: look at nvidia-smi, CUDA_VISIBLE_DEVICES, or a container's --gpus"
    if error.status == 803:
        return "the NVIDIA driver and its library are of different versions: restart the machine after an update"
    return _one_line(error)


def _is_out_of_memory(error: BaseException) -> bool:
    """CuPy's allocator raises a MemoryError; CUDA's runtime and cuBLAS have errors of their own."""
    return isinstance(error, MemoryError) or (
        type(error).__name__ in ("CUDARuntimeError", "CUDADriverError", "CUBLASError")
        and any(words in str(error) for words in ("MemoryAllocation", "OUT_OF_MEMORY", "ALLOC_FAILED"))
    )


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _one_line(error: BaseException) -> str:
    """What is wrong, of a message of many lines: of CuPy's own, what follows "Original error:"."""
    lines = [line.strip() for line in str(error).partition("Original error:")[2].splitlines() if line.strip()]
    lines += [line.strip() for line in str(error).splitlines() if line.strip("= ")]
    return lines[0] if lines else type(error).__name__


# --------------------------------------------------------------------------------------------------------------- arrays
def array_module(array: Array) -> Any:
    """The module that an array belongs to: numpy or cupy."""
    return np if isinstance(array, np.ndarray) else sys.modules["cupy"]


def device_of(array: Array) -> str:
    """The name of the device that holds an array."""
    return "cpu" if isinstance(array, np.ndarray) else f"gpu:{array.device.id}"


def to_device(array: Array, device: str) -> Array:
    """The array on that device: the array itself if it is there already, else a copy."""
    device = open_device(device)
    if device_of(array) == device:
        return array
    if device == "cpu":
        return array.get()
    with on_device(device):
        return sys.modules["cupy"].asarray(array)


def to_dlpack(array: Array, options: dict[str, Any]) -> Any:
    """array.__dlpack__(**options): what another library takes the array from, and keeps it alive with."""
    if any(stride < 0 for stride in array.strides):
        raise BufferError("an array that runs backwards, such as x[::-1], would crash PyTorch: share a copy of it")
    with on_device_of(array):
        return array.__dlpack__(**options)


def from_dlpack(x: Any) -> Array:
    """Another library's array as NumPy's or CuPy's, on the same memory."""
    if not hasattr(x, "__dlpack_device__"):
        raise TypeError(f"from_dlpack takes an array of a library that knows DLPack, not {type(x).__name__}")
    kind, number = x.__dlpack_device__()
    if kind not in ON_HOST + ON_GPU:
        raise DeviceError(f"from_dlpack: this memory (DLPack's kind {int(kind)}) is no CPU's and no NVIDIA GPU's")
    if kind in ON_GPU:
        open_device(f"gpu:{number}")
    try:
        return (np if kind in ON_HOST else sys.modules["cupy"]).from_dlpack(x)
    except (RuntimeError, TypeError) as error:  # NumPy, or CuPy, has no such dtype
        raise BufferError(f"from_dlpack of {getattr(x, 'dtype', type(x).__name__)}: {_one_line(error)}") from None


def assign(array: Array, value: Array) -> None:
    """array[...] = value, whatever devices they are on and whatever dtype value has."""
    value = to_device(np.asarray(value) if isinstance(value, np.generic) else value, device_of(array))
    with on_device_of(array):
        array[...] = value


def constant(number: Any, dtype: Any, like: Array) -> Array:
    """A number as an array without axes on the device of `like`. On a GPU it is filled in: no copy."""
    if isinstance(like, np.ndarray):
        return np.asarray(number, dtype)
    with on_device_of(like):
        return array_module(like).full((), number, dtype)


def index_copy(part: Any, like: Array) -> Any:
    """A copy, where `like` is, of an array or list that is to be an index; whatever else may be an index, as it is."""
    if not hasattr(part, "copy"):
        return part
    if isinstance(like, np.ndarray):
        return part.copy()
    return to_device(np.array(part), device_of(like)) if isinstance(part, (np.ndarray, list)) else part.copy()


class _Here(threading.local):
    gpus = 0  # how many on_device(a GPU) this thread is inside of


_here = _Here()


def computing_on_gpu() -> bool:
    """Is this thread inside on_device for a GPU?"""
    return _here.gpus > 0


class on_device:
    """with on_device("gpu:1"): what is computed inside is computed there. Running out of its memory is a DeviceError.
    Nothing happens for "cpu"."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.gpu: Any = None

    def __enter__(self) -> None:
        if self.device != "cpu":
            self.gpu = sys.modules["cupy"].cuda.Device(int(self.device.partition(":")[2]))
            self.gpu.__enter__()
            _here.gpus += 1

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.gpu is None:
            return
        _here.gpus -= 1
        self.gpu.__exit__(kind, error, trace)
        if error is not None and _is_out_of_memory(error):
            stats = memory_stats(self.device)
            raise DeviceError(
                f"{self.device} is out of memory: {stats['used'] / 2**30:.1f} of its {stats['total'] / 2**30:.1f} GiB "
                "hold arrays of this program: use smaller batches (--batch-size)"
            ) from None


def on_device_of(array: Array) -> on_device:
    """on_device, for the device that holds an array."""
    return on_device(device_of(array))


def run_there(function: Callable[..., Array], arrays: Sequence[Array]) -> Array:
    """function(*arrays), on the device of the first of them."""
    if _here.gpus and arrays[0].data.device_id == sys.modules["cupy"].cuda.runtime.getDevice():
        return function(*arrays)  # inside on_device for that GPU already, as in a backward pass
    with on_device_of(arrays[0]):
        return function(*arrays)


# --------------------------------------------------------------------------------------------------- what a GPU is like
def describe_device(device: str) -> str:
    """A GPU's name and memory, as "NVIDIA H100 80GB HBM3, 79.1 GiB"."""
    device = open_device(device)
    runtime = sys.modules["cupy"].cuda.runtime
    name = runtime.getDeviceProperties(int(device.partition(":")[2]))["name"].decode()
    return f"{name}, {memory_stats(device)['total'] / 2**30:.1f} GiB"


def memory_stats(device: str = "gpu") -> dict[str, int]:
    """Bytes of a GPU's memory: `used` by arrays of this program, `reserved` by it (kept for the next arrays: mostly
    as much as was ever used at one time), `free` for anybody, and `total`."""
    device = open_device(device)
    cupy = sys.modules["cupy"]
    with cupy.cuda.Device(int(device.partition(":")[2])):
        pool = cupy.get_default_memory_pool()
        free, total = cupy.cuda.runtime.memGetInfo()
        return {"used": pool.used_bytes(), "reserved": pool.total_bytes(), "free": free, "total": total}


def synchronize(device: str = "gpu") -> None:
    """Wait until a device has done all that it was asked to, as before looking at a clock. A CPU is never behind."""
    device = open_device(device)
    if device != "cpu":
        sys.modules["cupy"].cuda.Device(int(device.partition(":")[2])).synchronize()


def has_tf32(device: str) -> bool:
    """Can that GPU multiply in TF32? (Ampere, 2020, and later.)"""
    device = open_device(device)
    return int(sys.modules["cupy"].cuda.Device(int(device.partition(":")[2])).compute_capability) >= 80


class _Precision:
    products = "fp32"


_precision = _Precision()


def set_matmul_precision(precision: str) -> None:
    """How a GPU multiplies float32 matrices: "fp32" (the default), or "tf32", which rounds the factors to 10 bits and
    is several times as fast where the GPU has it. Sums are float32 in both. Nothing else is affected."""
    if precision not in ("fp32", "tf32"):
        raise ValueError(f"the precision of products is 'fp32' or 'tf32', not {precision!r}")
    _precision.products = precision


def matmul_precision() -> str:
    """What set_matmul_precision was told."""
    return _precision.products


# ------------------------------------------------------------------------------------------------------------ transfers
class Upload:
    """Carries batches to a GPU while it computes with the ones before.

        images = upload.empty(shape, np.uint8)      memory that the GPU can fetch from by itself; fill it
        ticket = upload.send(images, labels)        begins to copy, and returns at once
        on_gpu = upload.receive(ticket)             the arrays there, for what is computed from now on

    There are two sets of buffers on the GPU, used in turn: what receive returns is overwritten by the next send but
    one. The copies run on a stream of their own: the streams wait for each other, and the program for neither, except
    that send waits for the copy before the last, so that it never runs more than two batches ahead.
    """

    def __init__(self, device: str) -> None:
        self.device = open_device(device)
        self.cuda = sys.modules["cupy"].cuda
        # looked up here and not in empty(), which several threads call: see _import_cupy
        self.empty_pinned = importlib.import_module("cupyx").empty_pinned
        with on_device(self.device):
            self.stream = self.cuda.Stream(non_blocking=True)
        self.buffers: list[list[Array]] = [[], []]
        self.sent: list[tuple[Any, Sequence[np.ndarray]]] = []  # the last two copies: their ends, what they copy from
        self.turn = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised array in pinned host memory; from any thread."""
        with on_device(self.device):
            try:
                return self.empty_pinned(shape, dtype)
            except self.cuda.runtime.CUDARuntimeError as error:
                raise DeviceError(
                    f"no host memory that {self.device} can read for an array of shape {shape} ({_one_line(error)}): "
                    "use smaller batches (--batch-size) or fewer --workers"
                ) from None

    def send(self, *arrays: np.ndarray) -> tuple[Any, list[Array]]:
        """Begin to copy these arrays, which nobody changes from now on."""
        if len(self.sent) == 2:
            self._wait()
        buffers = self.buffers[self.turn]
        self.turn = 1 - self.turn
        with on_device(self.device):
            while len(buffers) < len(arrays):
                buffers.append(_bytes(0))
            there = []
            for i, array in enumerate(arrays):
                if buffers[i].size < array.nbytes:
                    buffers[i] = _bytes(array.nbytes)
                there.append(buffers[i][: array.nbytes].view(array.dtype).reshape(array.shape))
            # whatever still reads these buffers has been launched by now
            self.stream.wait_event(self.cuda.get_current_stream().record())
            for target, array in zip(there, arrays, strict=True):
                target.set(array, stream=self.stream)
            copied = self.stream.record()
        self.sent.append((copied, arrays))
        return copied, there

    def close(self) -> None:
        """Wait for copies under way."""
        while self.sent:
            self._wait()

    def _wait(self) -> None:
        """For the older copy. Only then may go what it copies from: with the last reference, its memory is used
        again."""
        self.sent[0][0].synchronize()
        del self.sent[0]

    def receive(self, ticket: tuple[Any, list[Array]]) -> tuple[Array, ...]:
        """The arrays on the GPU."""
        copied, there = ticket
        with on_device(self.device):
            self.cuda.get_current_stream().wait_event(copied)
        return tuple(there)


def _bytes(n: int) -> Array:
    return sys.modules["cupy"].empty(n, np.uint8)
