"""cuBLAS inside a CUDA graph. CuPy's functions refuse to be captured ("calling cuBLAS API during
stream capture is currently unsupported", CuPy 14.2), although cuBLAS can be: so the library that
CuPy has loaded is called directly.
"""

import ctypes
import functools
import os
import sys
from typing import Any

WORKSPACE = 32 << 20  # bytes, what cuBLAS recommends for Hopper


class CapturedCublas:
    """cuBLAS for what one stream captures, with the functions of cupy.cuda.cublas by which
    products.py multiplies. Their arguments are numbers.

    Args:
        stream: the address of that stream, which must be the current one.
    """

    def __init__(self, stream: int) -> None:
        cupy = sys.modules["cupy"]
        self.library = library(cupy.cuda.runtime.runtimeGetVersion() // 1000)
        self.handle: int | None = None  # which was made ready
        # With a workspace of its own, cuBLAS need not allocate one in the graph for each product.
        # CuPy sets the stream at its next call, by which cuBLAS goes back to its own workspace.
        self.stream, self.workspace = stream, cupy.empty(WORKSPACE, "uint8")

    def gemmEx(self, *arguments: Any) -> None:
        """As CuPy's; RuntimeError if cuBLAS refuses the arguments."""
        self._call(self.library.cublasGemmEx, GEMM, arguments)

    def gemmStridedBatchedEx(self, *arguments: Any) -> None:
        """As CuPy's; RuntimeError if cuBLAS refuses the arguments."""
        self._call(self.library.cublasGemmStridedBatchedEx, GEMM_STRIDED, arguments)

    def _call(self, function: Any, kinds: tuple[Any, ...], arguments: tuple[Any, ...]) -> None:
        handle = arguments[0]
        if handle != self.handle:
            _check(self.library.cublasSetStream_v2(ctypes.c_void_p(handle), ctypes.c_void_p(self.stream)))
            workspace = ctypes.c_void_p(self.workspace.data.ptr), ctypes.c_size_t(WORKSPACE)
            _check(self.library.cublasSetWorkspace_v2(ctypes.c_void_p(handle), *workspace))
            self.handle = handle
        _check(function(*[kind(argument) for kind, argument in zip(kinds, arguments, strict=True)]))


POINTER, INT, STEP = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
SIZES = POINTER, INT, INT, INT, INT, INT  # the handle; how A and B; m, n, k
MATRIX = POINTER, INT, INT  # an address, the type, from one column to the next
HOW = INT, INT  # how to compute, by which algorithm
GEMM = *SIZES, POINTER, *MATRIX, *MATRIX, POINTER, *MATRIX, *HOW
GEMM_STRIDED = *SIZES, POINTER, *MATRIX, STEP, *MATRIX, STEP, POINTER, *MATRIX, STEP, INT, *HOW


@functools.cache
def library(version: int) -> Any:
    """The cuBLAS of that version of CUDA, as CuPy has loaded it: by its name it is found again."""
    return ctypes.CDLL(f"cublas64_{version}.dll" if os.name == "nt" else f"libcublas.so.{version}")


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"cuBLAS returned status {status}")
