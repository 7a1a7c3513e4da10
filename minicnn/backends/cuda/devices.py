"""NVIDIA GPUs as a Device, by CuPy: every way in which one can be missing, its streams and
memory, and the transfer of batches beside the computation. This is the one file that imports CuPy,
and it does so only when a GPU is asked for.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..devices import Array, Device, DeviceError, on_device, one_line, open_device
from .graph import Graph, Memory, pools
from .kept import kept
from .nccl import Link

# The wheels by their names, not an extra of minicnn's: on PyPI that name is another project's.
# The versions are those of pyproject.toml.
OLDER = "'cupy-cuda12x[ctk]>=14,<15'"
INSTALL = f"pip install 'cupy-cuda13x[ctk]>=14,<15' (or {OLDER} for a driver older than 580)"
WHEELS = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")


class GPU(Device):
    """CuPy's arrays."""

    memory = (2, 13)  # plain and managed

    def owns(self, kind: type) -> bool:
        return kind.__module__.partition(".")[0] == "cupy" or hasattr(kind, "__cuda_array_interface__")

    def open(self, number: int) -> None:
        _probe(number)

    def number(self, array: Array) -> int:
        return array.device.id

    def is_current(self, array: Array) -> bool:
        return array.data.device_id == sys.modules["cupy"].cuda.runtime.getDevice()

    def is_full(self, error: BaseException) -> bool:
        return _is_out_of_memory(error)

    def make_room(self) -> bool:
        return kept.give_up()

    def module(self) -> Any:
        return sys.modules["cupy"]

    def current(self, number: int) -> "_Current":
        return _Current(number)

    def upload(self, array: np.ndarray) -> Array:
        return sys.modules["cupy"].asarray(array)

    def download(self, array: Array) -> np.ndarray:
        return array.get()

    def describe(self, number: int) -> str:
        name = sys.modules["cupy"].cuda.runtime.getDeviceProperties(number)["name"].decode()
        return f"{name}, {self.memory_stats(number)['total'] / 2**30:.1f} GiB"

    def memory_stats(self, number: int) -> dict[str, int]:
        cupy = sys.modules["cupy"]
        with cupy.cuda.Device(number):
            every = [cupy.get_default_memory_pool(), *pools()]
            free, total = cupy.cuda.runtime.memGetInfo()
            used, reserved = sum(pool.used_bytes() for pool in every), sum(pool.total_bytes() for pool in every)
            return {"used": used, "reserved": reserved, "free": free, "total": total}

    def uploader(self, number: int) -> "Upload":
        return Upload(f"gpu:{number}")

    def graphs(self) -> Any:
        return functools.partial(Graph, memory=Memory())

    def synchronize(self, number: int) -> None:
        sys.modules["cupy"].cuda.Device(number).synchronize()

    def count(self) -> int:
        return _count()

    def link(self, number: int, rank: int, size: int, decided: Callable[[Any], Any]) -> Any:
        return Link(sys.modules["cupy"], number, rank, size, decided)


class _Current:
    """Inside, CuPy computes on that GPU, and running out of its memory is a DeviceError."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.gpu = sys.modules["cupy"].cuda.Device(number)

    def __enter__(self) -> None:
        self.gpu.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.gpu.__exit__(kind, error, trace)
        if error is not None and _is_out_of_memory(error):
            stats = GPU().memory_stats(self.number)
            raise DeviceError(
                f"gpu:{self.number} is out of memory: {stats['used'] / 2**30:.1f} of its {stats['total'] / 2**30:.1f} "
                "GiB hold arrays of this program: use smaller batches (--batch-size)"
            ) from error


# ------------------------------------------------------------------------------------------ opening
def _probe(number: int) -> None:
    """Find out whether that GPU is there, and all that it takes to use it.

    Raises:
        DeviceError: it is not; the message says what is wrong and what to do.
    """
    count = _count()
    cupy = sys.modules["cupy"]
    if number >= count:
        raise DeviceError(f"there {'is one GPU' if count == 1 else f'are {count} GPUs'}, numbered from 0")
    with cupy.cuda.Device(number):
        # CuPy looks for these libraries at their first use, which would be in the middle of a
        # training step
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
                    f"CUDA's library {library} cannot be used ({one_line(error)}): {INSTALL} brings it"
                ) from None


def _count() -> int:
    """How many GPUs there are. It uses none of them, which would take half a GiB of its memory."""
    runtime = _import_cupy().cuda.runtime
    driver = 0
    try:
        driver = runtime.driverGetVersion()  # 0 if there is none
        return runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise DeviceError(_what_is_missing(error, driver, runtime.runtimeGetVersion())) from None


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
            raise DeviceError(f"CuPy is not whole ({one_line(error)}): {INSTALL}") from None
        raise DeviceError(f"it needs CuPy, which is not installed: {INSTALL}, or use device 'cpu'") from None
    except ImportError as error:
        raise DeviceError(f"CuPy cannot be imported ({one_line(error)}): install it again, {INSTALL}") from None


def _installed(distribution: str) -> bool:
    # imported here, because it takes a fifth of the time of import minicnn
    metadata = importlib.import_module("importlib.metadata")
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _what_is_missing(error: Any, driver: int, wanted: int) -> str:
    """What is missing, in one line, from a CUDARuntimeError's status and the versions of the driver
    and of CUDA."""
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
    return one_line(error)


def _is_out_of_memory(error: BaseException) -> bool:
    """CuPy's allocator raises a MemoryError; CUDA's runtime and cuBLAS have errors of their own."""
    return isinstance(error, MemoryError) or (
        type(error).__name__ in ("CUDARuntimeError", "CUDADriverError", "CUBLASError")
        and any(words in str(error) for words in ("MemoryAllocation", "OUT_OF_MEMORY", "ALLOC_FAILED"))
    )


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


# ---------------------------------------------------------------------------------------- transfers
class Upload:
    """Carries batches to a GPU while it computes with the ones before.

        images = upload.empty(shape, np.uint8)   memory that the GPU itself can fetch from; fill it
        ticket = upload.send(images, labels)     begins to copy, and returns at once
        on_gpu = upload.receive(ticket)          the arrays there, for what is computed next

    There are two sets of buffers on the GPU, used in turn: what receive returns is overwritten by
    the next send but one. The copies run on a stream of their own: the streams wait for each
    other, and the program for neither, except that send waits for the copy before the last, so
    that it never runs more than two batches ahead.
    """

    def __init__(self, device: str) -> None:
        self.device = open_device(device)
        self.cuda = sys.modules["cupy"].cuda
        # looked up here and not in empty(), which several threads call: see _import_cupy
        self.empty_pinned = importlib.import_module("cupyx").empty_pinned
        with on_device(self.device):
            self.stream = self.cuda.Stream(non_blocking=True)
        self.buffers: list[list[Array]] = [[], []]
        # the last two copies: their ends, what they copy from
        self.sent: list[tuple[Any, Sequence[np.ndarray]]] = []
        self.turn = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialized array in pinned host memory; from any thread."""
        with on_device(self.device):
            try:
                return self.empty_pinned(shape, dtype)
            except self.cuda.runtime.CUDARuntimeError as error:
                raise DeviceError(
                    f"no host memory that {self.device} can read for an array of shape {shape} ({one_line(error)}): "
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
        """Wait for the older copy, and only then drop the arrays that it copies from: with the last
        reference to them, their memory is used again."""
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
