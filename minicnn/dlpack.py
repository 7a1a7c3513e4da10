"""Memory shared with other frameworks, without a copy, by the protocol DLPack, which NumPy, CuPy,
PyTorch and JAX have.

    x = minicnn.from_dlpack(t)      a Tensor on the memory of PyTorch's tensor t
    t = torch.from_dlpack(x)        the other way, by Tensor.__dlpack__

Whoever uses the memory keeps it alive, and each side sees what the other writes. minicnn writes
only to parameters and buffers; but PyTorch may write in place to an array that a backward pass here
still has to read. On a GPU each side's work waits for what the other had begun.

NumPy before 2.2 takes all that it imports to be read-only; JAX's arrays always are, so an
nn.Parameter of one is a copy. JAX 0.10 shares an array that it imports only if it begins at a
multiple of 64 bytes, and else copies it silently; it turns float64 into float32, and refuses arrays
that are read-only.
"""

from typing import Any

from .backends import devices
from .backends.devices import real_array
from .tensor import Tensor


def from_dlpack(x: Any) -> Tensor:
    """The Tensor on the memory of another library's array, of the same shape, dtype and device; it
    is a constant.

    Args:
        x: an array of real numbers or booleans, of a library that knows DLPack.
    Returns:
        A Tensor that shares the array's memory and does not require a gradient.
    Raises:
        TypeError: x is not an array, or is complex.
        BufferError: x's library does not share it (a torch.Tensor that requires a gradient wants
            .detach() first, and one that is the negative of its memory .resolve_neg()), or NumPy
            lacks its dtype, such as bfloat16.
        DeviceError: x is neither on a CPU nor on a GPU that can be used here.

    Example:
        >>> import numpy as np
        >>> array = np.array([1.0, 2.0])
        >>> x = from_dlpack(array)
        >>> array[0] = 5
        >>> x
        Tensor([5., 2.], dtype=float64)
    """
    return Tensor(real_array("from_dlpack takes real numbers or booleans", devices.from_dlpack(x)))
