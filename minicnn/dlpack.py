"""Memory shared with other frameworks, without a copy, by the protocol DLPack, which NumPy, CuPy, PyTorch and JAX have.

    x = minicnn.from_dlpack(t)      a Tensor on the memory of PyTorch's tensor t
    t = torch.from_dlpack(x)        the other way, by Tensor.__dlpack__

Whoever uses the memory keeps it alive, and what one side writes the other sees. minicnn writes only to parameters and
buffers; but what PyTorch writes to in place, a backward pass here may still have to read. On a GPU each side's work
waits for what the other had begun.

NumPy before 2.2 takes all that it imports to be read-only; JAX's arrays always are, so an nn.Parameter
of one is a copy. JAX 0.10 shares what it imports only if it begins at a multiple of 64 bytes, and else
copies it, silently; it makes float32 of float64, and refuses arrays that are read-only.
"""

from typing import Any

from .backends import devices
from .tensor import Tensor


def from_dlpack(x: Any) -> Tensor:
    """The Tensor on the memory of another library's array x: of its shape, dtype and device, and a constant.

    Raises TypeError if x is no array, or not of real numbers or booleans; BufferError if its library does not share it
    (a torch.Tensor that requires a gradient wants .detach() first, one that is the negative of its memory
    .resolve_neg()), or NumPy lacks its dtype, as it does bfloat16; DeviceError if its device is neither a CPU nor
    a GPU that can be used here.

    >>> import numpy as np
    >>> array = np.array([1.0, 2.0])
    >>> x = from_dlpack(array)
    >>> array[0] = 5
    >>> x
    Tensor([5., 2.], dtype=float64)
    """
    return Tensor(devices.from_dlpack(x))
