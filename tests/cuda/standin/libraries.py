"""cuBLAS and NVRTC: products from raw pointers, and kernels by host.RawModule."""

import ctypes
import types
from collections.abc import Callable
from typing import Any

import host
import numpy as np

from .arrays import ndarray
from .machine import machine

CONSTANTS = {
    "CUBLAS_COMPUTE_32F": 68, "CUBLAS_COMPUTE_64F": 70, "CUBLAS_COMPUTE_32F_FAST_TF32": 77, "CUBLAS_GEMM_DEFAULT": -1,
}  # fmt: skip
DTYPES = {0: np.float32, 1: np.float64}  # by CUDA_R_32F and CUDA_R_64F


class CUBLASError(RuntimeError):
    """An error of cuBLAS."""


def gemmEx(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: int, Atype: int, lda: int, B: int,
    Btype: int, ldb: int, beta: int, C: int, Ctype: int, ldc: int, computeType: int, algo: int,
) -> None:  # fmt: skip
    """C = alpha op(A) op(B) + beta C for matrices whose columns are contiguous, ld numbers apart: op(A) is m × k, op(B)
    k × n, C m × n. alpha and beta are addresses on the host; C is not read if beta is 0."""
    _not_captured()
    _gemm(
        handle, transa, transb, m, n, k, alpha, A, Atype, lda, 0, B, Btype, ldb, 0, beta, C, Ctype, ldc, 0, 1,
        computeType, algo,
    )  # fmt: skip


def gemmStridedBatchedEx(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: int, Atype: int, lda: int,
    strideA: int, B: int, Btype: int, ldb: int, strideB: int, beta: int, C: int, Ctype: int, ldc: int, strideC: int,
    batchCount: int, computeType: int, algo: int,
) -> None:  # fmt: skip
    """The same for batchCount of each, which lie so many numbers apart."""
    _not_captured()
    _gemm(
        handle, transa, transb, m, n, k, alpha, A, Atype, lda, strideA, B, Btype, ldb, strideB, beta, C, Ctype, ldc,
        strideC, batchCount, computeType, algo,
    )  # fmt: skip


def _not_captured() -> None:
    if machine.graph is not None:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")


def _gemm(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: int, Atype: int, lda: int,
    strideA: int, B: int, Btype: int, ldb: int, strideB: int, beta: int, C: int, Ctype: int, ldc: int, strideC: int,
    batchCount: int, computeType: int, algo: int,
) -> None:  # fmt: skip
    if handle != machine.current + 1:
        raise CUBLASError("CUBLAS_STATUS_NOT_INITIALIZED: this handle is not the current device's")
    double = computeType == CONSTANTS["CUBLAS_COMPUTE_64F"]
    fast = computeType == CONSTANTS["CUBLAS_COMPUTE_32F_FAST_TF32"]
    dtype = np.dtype(np.float64 if double else np.float32)
    known = double or fast or computeType == CONSTANTS["CUBLAS_COMPUTE_32F"]
    if not known or any(DTYPES.get(t) != dtype for t in (Atype, Btype, Ctype)):
        raise CUBLASError("CUBLAS_STATUS_NOT_SUPPORTED: the stand-in multiplies float32 or float64, all of one kind")
    if transa not in (0, 1) or transb not in (0, 1) or min(m, n, k, batchCount) < 0:
        raise CUBLASError("CUBLAS_STATUS_INVALID_VALUE: a transpose or a size")
    sizes = [(k, m) if transa else (m, k), (n, k) if transb else (k, n), (m, n)]
    if any(ld < max(1, rows) for ld, (rows, _) in zip((lda, ldb, ldc), sizes, strict=True)):
        raise CUBLASError("CUBLAS_STATUS_INVALID_VALUE: a leading dimension smaller than its matrix")
    if not (m and n and batchCount):
        return
    stacks, memories = [], []
    places = zip((A, B, C), sizes, (lda, ldb, ldc), (strideA, strideB, strideC), strict=True)
    for ptr, (rows, columns), ld, step in places:
        shape = batchCount, rows, columns
        if rows * columns:
            nbytes = ((batchCount - 1) * step + (columns - 1) * ld + rows) * dtype.itemsize
            memories.append(machine.block(ptr, nbytes))
            memory = (ctypes.c_byte * nbytes).from_address(ptr)
            strides = step * dtype.itemsize, dtype.itemsize, ld * dtype.itemsize
            stacks.append(np.ndarray(shape, dtype, memory, strides=strides))
        else:
            stacks.append(np.zeros(shape, dtype))
    number = ctypes.c_double if double else ctypes.c_float
    scale, keep = number.from_address(alpha).value, number.from_address(beta).value
    a, b, c = stacks
    a, b = a.swapaxes(1, 2) if transa else a, b.swapaxes(1, 2) if transb else b

    def multiply() -> None:
        with np.errstate(all="ignore"):
            y = dtype.type(scale) * ((tf32(a) @ tf32(b)) if fast else a @ b)
            c[...] = y + dtype.type(keep) * c if keep else y

    batch = f" {batchCount} times" if batchCount > 1 else ""
    machine.do("product", f"gemm {m}x{n}x{k}{batch}", memories, a.nbytes + b.nbytes + c.nbytes, multiply)


class Library:
    """libcublas itself, whose functions are called past CuPy."""

    def __init__(self) -> None:
        self.streams: dict[int, int] = {}
        self.workspaces: dict[int, int] = {}
        self.status, self.set = 0, 0  # what all functions return; how often a stream was set

    def cublasSetStream_v2(self, handle: Any, stream: Any) -> int:
        self.set += 1
        self.streams[handle.value] = stream.value or 0
        self.workspaces.pop(handle.value, None)
        return self.status

    def cublasSetWorkspace_v2(self, handle: Any, workspace: Any, size: Any) -> int:
        machine.block(workspace.value, size.value)
        self.workspaces[handle.value] = workspace.value
        return 0

    def cublasGemmEx(self, *arguments: Any) -> int:
        sizes, a, b, c, how = arguments[:7], arguments[7:10], arguments[10:13], arguments[13:17], arguments[17:]
        none, one = ctypes.c_longlong(0), ctypes.c_int(1)
        return self.cublasGemmStridedBatchedEx(*sizes, *a, none, *b, none, *c, none, one, *how)

    def cublasGemmStridedBatchedEx(self, *arguments: Any) -> int:
        numbers = [argument.value or 0 for argument in arguments]
        stream = getattr(machine.local, "stream", None)
        if self.streams.get(numbers[0]) != (stream.ptr if stream else 0) or numbers[0] not in self.workspaces:
            return 14  # CUBLAS_STATUS_INTERNAL_ERROR: on another stream than the one that is captured
        _gemm(*numbers)
        return 0


def tf32(x: np.ndarray) -> np.ndarray:
    """Rounded to the 10 bits of mantissa that TF32 has."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x1000) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(x), rounded, x)


class RawModule:
    """cupy.RawModule."""

    def __init__(self, *, code: str, options: tuple[str, ...] = ()) -> None:
        self.module = host.RawModule(code=code, options=options)

    def get_function(self, name: str) -> Callable[..., None]:
        machine.library("NVRTC")
        kernel = self.module.get_function(name)

        def launch(grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
            memories = [memory for arg in args for memory in _memories(arg)]
            arrays = [arg for arg in args if isinstance(arg, ndarray)]
            nbytes = sum(array.nbytes for array in arrays) or sum(memory.nbytes for memory in memories)
            there = tuple([_address(arg) for arg in args])
            machine.do("kernel", name, memories, nbytes, lambda: kernel(grid, block, there))

        return launch


def _address(arg: Any) -> Any:
    """The argument; of an array only what a kernel sees of it."""
    if not isinstance(arg, ndarray):
        return arg
    data = types.SimpleNamespace(ptr=arg.data.ptr)
    return types.SimpleNamespace(data=data, dtype=arg.dtype, itemsize=arg.itemsize)


def _memories(arg: Any) -> list[Any]:
    """The blocks of memory that a kernel is handed: an array's, or those of the addresses in a struct, which are its
    unsigned 64-bit numbers."""
    if isinstance(arg, ndarray):
        return [arg._memory]
    if not isinstance(arg, (np.void, np.ndarray)) or not arg.dtype.names:
        return []
    addresses = [np.ravel(arg[name]) for name in arg.dtype.names if arg.dtype[name].base == np.uint64]
    return [machine.block(int(address), 1) for field in addresses for address in field if address]


def content() -> dict[str, Any]:
    return {"RawModule": RawModule}


def cublas() -> types.ModuleType:
    """cupy.cuda.cublas"""
    module = types.ModuleType("cupy.cuda.cublas")
    vars(module).update(CONSTANTS, gemmEx=gemmEx, gemmStridedBatchedEx=gemmStridedBatchedEx, CUBLASError=CUBLASError)
    return module
