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


class Captured:
    """cuBLAS for what one stream captures.

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

    def gemmEx(self, handle: int, *arguments: Any) -> None:
        """As CuPy's: all arguments are numbers.

        Raises:
            RuntimeError: cuBLAS refuses them.
        """
        if handle != self.handle:
            _check(self.library.cublasSetStream_v2(ctypes.c_void_p(handle), ctypes.c_void_p(self.stream)))
            workspace = ctypes.c_void_p(self.workspace.data.ptr), ctypes.c_size_t(WORKSPACE)
            _check(self.library.cublasSetWorkspace_v2(ctypes.c_void_p(handle), *workspace))
            self.handle = handle
        _check(self.library.cublasGemmEx(*[kind(x) for kind, x in zip(GEMM_EX, (handle, *arguments), strict=True)]))


POINTER, INT = ctypes.c_void_p, ctypes.c_int
# (handle; how A and B; m, n, k), (alpha, A, its type, lda), (B, …), (beta, C, …), (how; algorithm)
GEMM_EX = (
    *(POINTER, INT, INT, INT, INT, INT), *(POINTER, POINTER, INT, INT), *(POINTER, INT, INT),
    *(POINTER, POINTER, INT, INT), *(INT, INT),
)  # fmt: skip


@functools.cache
def library(version: int) -> Any:
    """The cuBLAS of that version of CUDA, as CuPy has loaded it: by its name it is found again."""
    return ctypes.CDLL(f"cublas64_{version}.dll" if os.name == "nt" else f"libcublas.so.{version}")


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"cuBLAS returned status {status}")
