"""What a training step on a GPU costs the host, measured without one: minicnn and CuPy's own arrays as they are, but
their memory is an address at which nobody looks, and launches do nothing."""

import importlib
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from minicnn import Tensor
from minicnn.backends.cuda import devices

from . import networks, ours


class Device:
    """In the place of cupy.cuda.Device."""

    id = 0

    def __init__(self, number: int = 0) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: Any) -> None:
        pass


class Host(ours.Network):
    """A training step, asked for and not done."""

    def __init__(self, threads: int, network: str, batch: int) -> None:
        super().__init__(threads, network, 1)
        self.cupy = importlib.import_module("cupy")
        self.pretend()
        self.net.to("gpu")
        self.optimizer = ours.sgd(self.net.parameters())
        size = networks.INPUT_SIZE[network]
        self.images = Tensor.wrap(self.cupy.empty((batch, size, size, 3), np.float32))
        self.labels = Tensor.wrap(self.cupy.empty(batch, np.int64))

    def pretend(self) -> None:
        """That there is a GPU."""
        cupy, cuda = self.cupy, self.cupy.cuda
        memory = cuda.UnownedMemory(1 << 40, 1 << 40, self, 0)
        cuda.set_allocator(lambda size: cuda.MemoryPointer(memory, 0))
        cuda.Device, cuda.runtime.getDevice, cuda.device.get_cublas_handle = Device, lambda: 0, lambda: 0
        # the library itself need not be installed
        numbers = ("CUBLAS_COMPUTE_32F", "CUBLAS_COMPUTE_32F_FAST_TF32", "CUBLAS_COMPUTE_64F", "CUBLAS_GEMM_DEFAULT")
        cuda.cublas = SimpleNamespace(gemmEx=lambda *_: None, **dict.fromkeys(numbers, 0))
        cupy.RawModule = lambda **_: SimpleNamespace(get_function=lambda name: lambda *_: None)
        devices._probe = lambda number: None
        cupy.asarray = lambda array: cupy.empty(array.shape, array.dtype)
        cupy.full = lambda shape, number, dtype: cupy.empty(shape, dtype)
        cupy.zeros_like = cupy.ones_like = lambda array: cupy.empty(array.shape, array.dtype)
        for name in ("add", "multiply", "divide", "true_divide"):
            setattr(cupy, name, self.result)

    def result(self, *arrays: Any) -> Any:
        """In the place of CuPy's own arithmetic."""
        arrays = tuple([array for array in arrays if isinstance(array, self.cupy.ndarray)])
        return self.cupy.empty(np.broadcast_shapes(*[array.shape for array in arrays]), arrays[0].dtype)

    def seconds(self, count: int) -> float:
        """What a step takes, the fastest of so many: whatever else the processor does can only make it slower."""
        times = []
        for _ in range(count):
            begin = time.process_time()
            self.step()
            times.append(time.process_time() - begin)
        return min(times)
