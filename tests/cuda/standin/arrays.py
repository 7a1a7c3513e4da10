"""cupy.ndarray: memory of a GPU that nothing on the host can read by accident."""

import operator
import types
import warnings
from typing import Any

import numpy as np

from .devices import Device, Stream, later
from .machine import Memory, RaceError, cupy, machine, poisoned, root

# What may return a view, on whichever device is current; all else works on the current one.
VIEWS = {
    "array_split", "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_arrays", "broadcast_to", "diagonal",
    "expand_dims", "flip", "moveaxis", "ravel", "reshape", "rollaxis", "split", "squeeze",
    "swapaxes", "transpose", "view",
}  # fmt: skip
WAITS = {"argwhere", "flatnonzero", "nonzero", "unique", "compress", "extract"}  # their size has to be known
LOOKS = "__bool__ __float__ __int__ __complex__ __repr__ __str__ __format__ item tolist tobytes".split()  # wait for it
SCALARS = (bool, int, float, complex, np.bool_, np.number)
AS_IT_IS = {"astype", "copy"}  # all others return C-contiguous results, whatever the operands' order


class MemoryPointer:
    """cupy.cuda.MemoryPointer: where an array begins."""

    def __init__(self, array: "ndarray") -> None:
        self.array, self.device_id = array._array, array._memory.gpu.index

    @property
    def ptr(self) -> int:
        return self.array.ctypes.data if self.array.size else 0


class Capsule:
    """In the place of a PyCapsule: an array on its way to another library."""

    def __init__(self, array: "ndarray") -> None:
        self.array: ndarray | None = array

    def opened(self) -> "ndarray":
        """An array on the same memory; once."""
        source, self.array = self.array, None
        if source is None:
            raise ValueError("A DLPack tensor object cannot be consumed multiple times")
        array = object.__new__(ndarray)
        array._array, array._memory, array.base = source._array, source._memory, None
        return array


class Flags:
    """The three that CuPy has."""

    def __init__(self, array: np.ndarray, owndata: bool) -> None:
        self.c_contiguous, self.f_contiguous = array.flags.c_contiguous, array.flags.f_contiguous
        self.owndata = owndata

    def __getitem__(self, name: str) -> bool:
        return getattr(self, {"C": "c_contiguous", "F": "f_contiguous"}.get(name, name.lower()))


class ndarray:
    """The stand-in's array. `_array` is the same memory as NumPy sees it."""

    __slots__ = "__weakref__", "_array", "_memory", "base"
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape: Any, dtype: Any = float, order: str = "C") -> None:
        machine.gpu().need(np.prod(shape, dtype=int) * np.dtype(dtype).itemsize)
        self._array = poisoned(shape, dtype, order or "C")
        self._memory = Memory(self._array)
        self.base = None

    # -------------------------------------------------------------------------------------------------- what it is like
    shape = property(lambda self: self._array.shape)
    dtype = property(lambda self: self._array.dtype)
    strides = property(lambda self: self._array.strides)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    itemsize = property(lambda self: self._array.itemsize)
    nbytes = property(lambda self: self._array.nbytes)
    flags = property(lambda self: Flags(self._array, self.base is None))
    device = property(lambda self: Device(self._memory.gpu.index))
    T = property(lambda self: self if self.ndim < 2 else self.transpose())
    data = property(MemoryPointer)
    __cuda_array_interface__ = property(lambda self: {"data": (self.data.ptr, False), "shape": self.shape})

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return len(self._array)

    def __iter__(self) -> Any:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    # --------------------------------------------------------------------------------------------- from and to the host
    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        if out is not None:
            _fits(self, out, "Only numpy.ndarray can be obtained from cupy.ndarray")
        result = np.empty(self.shape, self.dtype, order) if out is None else out
        block = machine.pinned_block(result)
        stream = stream or Stream.null
        with self.device:
            if not (self.flags.f_contiguous if order == "F" else self.flags.c_contiguous):
                _launch("get", [self])  # side by side, first
            stream.uses(self._memory)
            machine.note("to the host", "pageable" if block is None else "pinned", self.nbytes)
            if stream.late:
                result[...] = poisoned(self.shape, self.dtype)
            source, target = self._array, unowned(result)
            later(stream, lambda: np.copyto(target, source), self._memory, *([] if block is None else [block]))
            if blocking or block is None:
                stream.finish("get")
        return result

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        _fits(self, arr, "Only numpy.ndarray can be set to cupy.ndarray")
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        content, target = arr.copy(), self._array
        block = machine.pinned_block(arr) if arr.flags.c_contiguous else None
        read = content if block is None else unowned(arr)  # what is not pinned goes through a buffer of the driver's
        stream = stream or Stream.null

        def copy() -> None:
            if read.tobytes() != content.tobytes():
                raise RaceError("pinned memory was written to before a copy from it, on a stream of its own, was done")
            np.copyto(target, content)

        with self.device:
            stream.uses(self._memory)
            machine.note("to the GPU", "pageable" if block is None else "pinned", self.nbytes)
            if stream.late:
                target[...] = poisoned(self.shape, self.dtype)  # until somebody waits for the copy
            later(stream, copy, self._memory, *([] if block is None else [block]))
            if not stream.late:
                machine.wait("set")

    def __dlpack_device__(self) -> tuple[int, int]:
        machine.call()
        return 2, self.device.id

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> "Capsule":
        if stream is not None and stream < -1:
            raise ValueError("On CUDA, the valid stream for the DLPack protocol is -1, 1, 2, or any larger value")
        if stream == 0:
            warnings.warn(
                "Stream 0 is passed from a library that you are converting to; CuPy assumes 0 as a legacy default "
                "stream. Please report this problem to the library as this violates the DLPack protocol.",
                stacklevel=2,
            )
        if stream not in (None, -1, 0, 1) or dl_device not in (None, self.__dlpack_device__()) or copy:
            raise NotImplementedError("the stand-in exports no copies, and to the default stream only")
        machine.check([self._memory])  # CuPy would let the stream of another GPU wait, without a word
        return Capsule(self)

    # --------------------------------------------------------------------------------------------------------- indexing
    def __getitem__(self, index: Any) -> "ndarray":
        parts, sort, arrays = _index(self, index)
        if sort == "basic":
            return wrap(self._array[parts if ... in parts else (*parts, ...)], [self])  # a view also of a single number
        if sort == "mask":
            machine.wait("getitem by a mask")
        return run("take", lambda array, *_: array[parts], self, *arrays)

    def __setitem__(self, index: Any, value: Any) -> None:
        parts, _, arrays = _index(self, index)
        run("setitem", lambda array, value, *_: array.__setitem__(parts, value), self, _filling(value), *arrays)

    def fill(self, value: Any) -> None:
        run("fill", lambda array, value: array.fill(value), self, _filling(value))

    def _at(self, ufunc: np.ufunc, index: Any, value: Any) -> None:
        """ufunc.at(self, index, value)"""
        parts, _, arrays = _index(self, index)
        name = f"{ufunc.__name__}.at"
        run(name, lambda array, value, *_: ufunc.at(array, parts, value), self, scalar(value), *arrays)

    # ------------------------------------------------------------------------------------------------------- operations
    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if "out" in kwargs:
            (kwargs["out"],) = kwargs["out"]
        called = getattr(cupy, ufunc.__name__)
        return (called if method == "__call__" else getattr(called, method))(*inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func.__module__ != "numpy" or any(t not in (ndarray, np.ndarray) for t in types):
            return NotImplemented
        return getattr(cupy, func.__name__)(*args, **kwargs)

    def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> "ndarray":
        if not copy and self.dtype == np.dtype(dtype):
            return self
        return run("astype", lambda array: array.astype(dtype, order), self)

    def copy(self, order: str = "C") -> "ndarray":
        if self._memory.gpu.index == machine.current:
            return run("copy", lambda array: array.copy(order), self)
        machine.note("between GPUs", "copy", self.nbytes)
        return wrap(self._array.copy(order), [])

    def __getattr__(self, name: str) -> Any:
        """All the other methods of NumPy's array; but not ctypes or __array_interface__, which would let the host read."""
        if name.startswith("_") or not callable(getattr(np.ndarray, name, None)):
            raise AttributeError(f"'ndarray' object has no attribute {name!r}")
        return lambda *args, **kwargs: run(
            name, lambda array, *a, **k: getattr(array, name)(*a, **k), self, *args, **kwargs
        )


def _operators() -> None:
    """x + y and the others: ufuncs, for which the other operand is asked first if it does not want them."""
    ufuncs = {
        "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
        "mod": "remainder", "pow": "power", "lshift": "left_shift", "rshift": "right_shift", "and": "bitwise_and",
        "or": "bitwise_or", "xor": "bitwise_xor", "matmul": "matmul", "divmod": "divmod", "lt": "less",
        "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
    }  # fmt: skip

    def operator_of(ufunc: str, prefix: str) -> Any:
        def apply(self: ndarray, other: Any) -> Any:
            if getattr(other, "__array_ufunc__", True) is None:
                return NotImplemented
            operands = (other, self) if prefix == "r" else (self, other)
            return getattr(cupy, ufunc)(*operands, **({"out": self} if prefix == "i" else {}))

        return apply

    for name, ufunc in ufuncs.items():
        for prefix in ("", "r", "i"):
            if hasattr(np.ndarray, f"__{prefix}{name}__"):
                setattr(ndarray, f"__{prefix}{name}__", operator_of(ufunc, prefix))
    for name, ufunc in {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}.items():
        setattr(ndarray, f"__{name}__", lambda self, ufunc=ufunc: getattr(cupy, ufunc)(self))
    for name in LOOKS:
        setattr(ndarray, name, lambda self, *args, name=name: getattr(self.get(), name)(*args))


_operators()


# ----------------------------------------------------------------------------------------------------------- in general
def run(name: str, call: Any, *args: Any, **kwargs: Any) -> Any:
    """call(*args, **kwargs) with NumPy's views of the arrays in them, as one launch, unless what comes back is but a
    view."""
    arrays: list[ndarray] = []
    opened = [_open(arg, arrays) for arg in args]
    options = {key: _open(value, arrays) for key, value in kwargs.items()}
    if name not in VIEWS:
        machine.check(array._memory for array in arrays)
        if machine.graph is not None:
            return _capture(name, lambda: call(*opened, **options), arrays, kwargs.get("out"))
    with np.errstate(all="ignore"):  # a GPU says nothing about overflow or invalid values
        result = call(*opened, **options)
    if isinstance(result, np.ndarray) and name not in VIEWS | AS_IT_IS and kwargs.get("out") is None:
        result = np.asarray(result, order="C")
    wrapped = kwargs["out"] if kwargs.get("out") is not None else wrap(result, arrays)
    if name == "squeeze" and wrapped.shape == arrays[0].shape and wrapped.dtype == arrays[0].dtype:
        return arrays[0]
    made = [
        array for array in (wrapped if isinstance(wrapped, (list, tuple)) else [wrapped]) if isinstance(array, ndarray)
    ]
    if name not in VIEWS or any(array.base is None for array in made):
        _launch(name, [*arrays, *made])
    if name in WAITS:
        machine.wait(name)
    return wrapped


def _capture(name: str, call: Any, arrays: list[ndarray], out: Any) -> Any:
    """The same for the graph that is being captured, which will compute it. Now it is computed only to see its shape
    and dtype, unless it is written to an array that is there."""
    in_place = name in {"setitem", "fill"} or name.endswith(".at")
    result, made = out, list(out or [])
    with np.errstate(all="ignore"):
        if not in_place and out is None:
            arrays_made = np.asarray(call(), order=None if name in AS_IT_IS else "C")
            result = wrap(poisoned(arrays_made.shape, arrays_made.dtype), [])
            made = [result]
    target = made[0]._array if made and out is None else None

    def act() -> None:
        with np.errstate(all="ignore"):
            value = call()
        if target is not None:
            np.copyto(target, value)

    different = list({id(array): array for array in [*arrays, *made]}.values())
    nbytes = sum(array.nbytes for array in different)
    machine.do("cupy", name, [array._memory for array in different], nbytes, act)
    if name in WAITS:
        machine.wait(name)
    return result


def _launch(name: str, arrays: list[ndarray]) -> None:
    different = {id(array): array for array in arrays}.values()
    machine.launch("cupy", name, [array._memory for array in different], sum(array.nbytes for array in different))


def _open(arg: Any, arrays: list[ndarray]) -> Any:
    """The argument as NumPy can take it; TypeError for an array of the host."""
    if isinstance(arg, ndarray):
        arrays.append(arg)
        return arg._array
    if isinstance(arg, np.ndarray):
        raise TypeError(f"Unsupported type {type(arg)}: an array of the host among those of a GPU")
    if isinstance(arg, (list, tuple)):
        return type(arg)([_open(part, arrays) for part in arg])
    return arg


def wrap(result: Any, arrays: list[ndarray]) -> Any:
    """What NumPy has returned, as an array on the GPU: a view of one of these arrays if it lies in its memory."""
    if isinstance(result, (list, tuple)):
        return type(result)([wrap(part, arrays) for part in result])
    if not isinstance(result, (np.ndarray, np.generic)):
        return result
    array = np.asarray(result)
    owner = next((a for a in arrays if a._memory.root is root(array)), None)
    if owner is None and not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = array.copy()
    wrapped = object.__new__(ndarray)
    wrapped._array, wrapped._memory = array, Memory(array) if owner is None else owner._memory
    wrapped.base = None if owner is None else owner if owner.base is None else owner.base
    return wrapped


def unowned(array: np.ndarray) -> np.ndarray:
    """An array on the same memory, which does not keep it alive."""
    return np.asarray(types.SimpleNamespace(__array_interface__=array.__array_interface__))


def _filling(value: Any) -> Any:
    """A value to be stored: an array on the GPU or a number."""
    if isinstance(value, np.ndarray):
        if value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        return value.item()
    return scalar(value)


def scalar(value: Any) -> Any:
    """The operand itself, if CuPy takes it."""
    if not isinstance(value, (ndarray, *SCALARS)):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def _fits(array: ndarray, host: Any, wrong: str) -> None:
    if not isinstance(host, np.ndarray):
        raise TypeError(wrong)
    if array.dtype != host.dtype:
        raise TypeError(f"{host.dtype} array cannot be set to {array.dtype} array")
    if array.shape != host.shape:
        raise ValueError(f"Shape mismatch. Old shape: {array.shape}, new shape: {host.shape}")


def _index(array: ndarray, index: Any) -> tuple[tuple[Any, ...], str, list[ndarray]]:
    """The index as NumPy takes it, its sort ("basic", "integers" or "mask"), and the arrays in it. Numbers beyond the
    end of an axis wrap around, as in CuPy, which does not look at them."""
    parts, sort, arrays = list(index) if isinstance(index, tuple) else [index], "basic", []
    used = [0 if p is None or p is ... else p.ndim if _is_mask(p) else 1 for p in parts]  # axes
    axis = 0
    for i, part in enumerate(parts):
        if isinstance(part, (list, np.ndarray)):
            raise TypeError(f"an index of {type(part).__name__}: CuPy would send it to the GPU, without a word")
        if isinstance(part, ndarray):
            arrays.append(part)
            parts[i] = part._array
            if _is_mask(part):
                sort = "mask"
            elif part.dtype.kind not in "iu":
                raise IndexError(
                    f"arrays used as indices must be of integer or boolean type. (actual: {part.dtype.type})"
                )
            else:
                sort = "integers" if sort == "basic" else sort
                parts[i] = parts[i] % max(array.shape[axis], 1)
        elif part is not None and part is not ... and not isinstance(part, slice):
            parts[i] = operator.index(part)
        axis += array.ndim - sum(used) if part is ... else used[i]
    return tuple(parts), sort, arrays


def _is_mask(part: Any) -> bool:
    return isinstance(part, ndarray) and part.dtype == bool
