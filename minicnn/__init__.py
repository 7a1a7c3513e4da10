"""minicnn: a small deep learning framework on NumPy and CuPy, written to be read.

The lessons are listed in `minicnn.functional`, in the order to read them. Beside the names below
there are `minicnn.autograd`, `minicnn.tensor` and `minicnn.ops`, which hold the engine, and
`minicnn.backends`, which makes the lessons fast.
"""

from . import data, functional, nn, optim
from .anomaly import AnomalyError, detect_anomaly
from .autograd import Function, no_grad
from .backends import cuda as _cuda  # noqa: F401  # registers itself, and so do the next two
from .backends import native as _native  # noqa: F401
from .backends import numpy as _numpy  # noqa: F401
from .backends import use_backend
from .backends.cuda.products import set_matmul_precision
from .backends.devices import DeviceError, is_available, memory_stats, synchronize
from .backends.numpy.threads import get_num_threads, set_num_threads
from .captured import Captured
from .checkpoint import CheckpointError, load, save
from .dlpack import from_dlpack
from .gradcheck import GradcheckError, gradcheck, gradgradcheck
from .random import manual_seed
from .tensor import Tensor, apply, grad

__version__ = "0.1.0"
__all__ = [
    "AnomalyError", "Captured", "CheckpointError", "DeviceError", "Function", "GradcheckError", "Tensor", "apply",
    "data", "detect_anomaly", "from_dlpack",
    "functional", "get_num_threads", "grad", "gradcheck", "gradgradcheck", "is_available", "load", "manual_seed",
    "memory_stats", "nn", "no_grad", "optim", "save", "set_matmul_precision", "set_num_threads", "synchronize",
    "use_backend",
]  # fmt: skip
