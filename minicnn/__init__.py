"""minicnn: a small deep learning framework on NumPy and CuPy, written to be read."""

from . import data, functional, nn, optim
from .autograd import no_grad
from .backend import (
    DeviceError,
    get_num_threads,
    manual_seed,
    memory_stats,
    set_matmul_precision,
    set_num_threads,
    synchronize,
)
from .checkpoint import load, save
from .dlpack import from_dlpack
from .gradcheck import GradcheckError, gradcheck, gradgradcheck
from .tensor import Tensor, grad

__version__ = "0.1.0"
__all__ = [
    "DeviceError", "GradcheckError", "Tensor", "data", "from_dlpack", "functional", "get_num_threads", "grad",
    "gradcheck", "gradgradcheck", "load", "manual_seed", "memory_stats", "nn", "no_grad", "optim", "save",
    "set_matmul_precision", "set_num_threads", "synchronize",
]  # fmt: skip
