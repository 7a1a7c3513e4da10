"""The functions of the module cupy: those of NumPy, as far as CuPy has them, on arrays of the stand-in."""

from collections.abc import Callable
from typing import Any

import numpy as np

from . import names
from .arrays import kind_of, ndarray, run, scalar, wrap
from .devices import Device
from .machine import machine, poisoned
from .names import cupy

# What CuPy answers without the GPU: from shapes, dtypes and addresses.
ON_THE_HOST = {
    "broadcast_shapes", "can_cast", "iscomplexobj", "isrealobj", "isscalar", "may_share_memory", "ndim",
    "promote_types", "result_type", "shape", "shares_memory", "size",
}  # fmt: skip
# NumPy answers with a bool, CuPy with an array on the GPU.
ANSWERS = {"allclose", "array_equal", "array_equiv"}


class Ufunc:
    """cupy.add and its like."""

    def __init__(self, name: str) -> None:
        self.name, self.numpy = name, getattr(np, name)
        self.nin, self.nout = self.numpy.nin, self.numpy.nout

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if surplus := kwargs.keys() - {"out", "dtype", "casting"}:
            raise TypeError(f"Wrong arguments { {name: kwargs[name] for name in surplus} }")
        args, out = args[: self.nin], args[self.nin :] or kwargs.pop("out", None)
        if out is not None:
            kwargs["out"] = out if isinstance(out, tuple) else (out,)
        for arg in args:
            scalar(arg)
        result = run("elementwise", self.name, self.numpy, *args, **kwargs)
        return result[0] if isinstance(result, tuple) and self.nout == 1 else result

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method not in ("accumulate", "at", "outer", "reduce", "reduceat"):
            raise AttributeError(method)
        if method not in names.UFUNCS[self.name]:
            raise NotImplementedError(f"`cupy_{self.name}.{method}` is not supported yet")
        kind = {"outer": "elementwise", "at": "index"}.get(method, "reduction")

        def call(*args: Any, **kwargs: Any) -> Any:
            if method == "at" and isinstance(args[0], ndarray):
                return args[0]._at(self.numpy, *args[1:])
            if surplus := kwargs.keys() - {"axis", "dtype", "out", "keepdims"}:
                raise TypeError(f"{method}() got an unexpected keyword argument {surplus.pop()!r}")
            return run(kind, f"{self.name}.{method}", getattr(self.numpy, method), *args, **kwargs)

        return call


def _as_numpy(name: str) -> Callable[..., Any]:
    """cupy's function of that name, by NumPy's."""
    numpy = getattr(np, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        names.check_arguments(f"cupy.{name}", args, kwargs)
        if name in ON_THE_HOST:
            return numpy(*[_hosts(arg) for arg in args], **kwargs)
        result = run(kind_of(name), name, numpy, *args, **kwargs)
        return wrap(np.bool_(result), []) if name in ANSWERS else result

    return call


def _hosts(arg: Any) -> Any:
    return arg._array if isinstance(arg, ndarray) else arg


# ------------------------------------------------------------------------------------------------------------- creation
def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return ndarray(shape, dtype, order=order)


def _filled(name: str) -> Callable[..., ndarray]:
    """zeros, ones, full: as NumPy's, but what they fill is on the GPU."""

    def create(*args: Any, **kwargs: Any) -> ndarray:
        names.check_arguments(f"cupy.{name}", args, kwargs)
        array = wrap(getattr(np, name)(*args, **kwargs), [])
        machine.launch("fill", name, [array._memory], array.nbytes)
        return array

    return create


def _like(name: str) -> Callable[..., ndarray]:
    """empty_like and the others: like an array of the GPU or the host, on the current device."""

    def create(prototype: Any, *args: Any, **kwargs: Any) -> ndarray:
        names.check_arguments(f"cupy.{name}", (prototype, *args), kwargs)
        if not kwargs.get("shape", True):
            del kwargs["shape"]  # for CuPy () is not a shape but none
        array = getattr(np, name)(_hosts(prototype), *args, **kwargs)
        if name == "empty_like":
            array[...] = poisoned(array.shape, array.dtype)
        array = wrap(array, [])
        if name != "empty_like":
            machine.launch("fill", name, [array._memory], array.nbytes)
        return array

    return create


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> ndarray:
    if subok or ndmin:
        raise NotImplementedError("the stand-in's array() takes neither subok nor ndmin")
    if isinstance(obj, ndarray):
        if obj._memory.gpu.index != machine.current:
            obj = obj.copy(order)
        return obj.astype(dtype or obj.dtype, order, copy=bool(copy))
    if isinstance(obj, (list, tuple)) and any(isinstance(part, ndarray) for part in obj):
        return cupy.stack([asarray(part, dtype) for part in obj])
    host = np.array(obj, dtype, order=order)
    if not host.ndim:
        result = wrap(host, [])
        machine.launch("fill", "array", [result._memory], host.nbytes)
        return result
    machine.note("to the GPU", "pageable", host.nbytes)  # by a pinned buffer of CuPy's, without waiting
    if blocking:
        machine.wait("array")
    return wrap(host, [])


def asarray(a: Any, dtype: Any = None, order: str = "K", *, copy: Any = None, blocking: bool = False) -> ndarray:
    return array(a, dtype, bool(copy), order, blocking=blocking)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    a = asarray(a, dtype)
    return a if a.flags.c_contiguous else a.copy()


def from_dlpack(array: Any, *, device: Any = None, copy: Any = None) -> ndarray:
    if device is not None:
        raise NotImplementedError("from_dlpack() does not support device yet.")
    kind, number = array.__dlpack_device__()
    if kind != 2:
        raise TypeError("CPU arrays cannot be directly imported to CuPy")
    with Device(number):
        return array.__dlpack__(stream=1, max_version=(1, 0), copy=copy).opened()


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> np.ndarray:
    if isinstance(a, ndarray):
        return a.get(stream, order, out, blocking)
    return np.asarray(a, order=order)


def get_array_module(*args: Any) -> Any:
    return cupy if any(isinstance(arg, ndarray) for arg in args) else np


def content() -> dict[str, Any]:
    """All of the module cupy that is simulated here."""
    found: dict[str, Any] = {}
    for name in names.members("cupy"):
        numpy = getattr(np, name, None)
        if name in names.UFUNCS:
            if isinstance(numpy, np.ufunc):
                found[name] = Ufunc(name)
        elif isinstance(numpy, (type, float)) or (numpy is None and hasattr(np, name)):
            found[name] = numpy  # dtypes, constants, newaxis
        elif callable(numpy):
            found[name] = _as_numpy(name)
    for name in ("arange", "eye", "full", "identity", "linspace", "ones", "tri", "zeros"):
        found[name] = _filled(name)
    for name in ("empty_like", "full_like", "ones_like", "zeros_like"):
        found[name] = _like(name)
    return found | {
        "array": array, "asanyarray": asarray, "asarray": asarray, "ascontiguousarray": ascontiguousarray,
        "asnumpy": asnumpy, "empty": empty, "from_dlpack": from_dlpack, "get_array_module": get_array_module,
        "ndarray": ndarray, "ufunc": Ufunc,
    }  # fmt: skip
