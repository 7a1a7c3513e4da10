"""The functions of the module cupy: those of NumPy, as far as CuPy has them, on arrays of the stand-in."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .arrays import ndarray, run, scalar, wrap
from .devices import Device
from .machine import cupy, machine, poisoned

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

    def __call__(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        if out is None:
            return run(self.name, self.numpy, *map(scalar, args), **kwargs)
        return run(self.name, self.numpy, *map(scalar, args), out=(out,), **kwargs)[0]

    def at(self, a: ndarray, indices: Any, b: Any) -> None:
        a._at(self.numpy, indices, b)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        """reduce, outer and so on"""
        return partial(run, f"{self.name}.{method}", getattr(self.numpy, method))


def _as_numpy(name: str) -> Callable[..., Any]:
    """cupy's function of that name, by NumPy's."""
    numpy = getattr(np, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        if name in ON_THE_HOST:
            return numpy(*[_hosts(arg) for arg in args], **kwargs)
        result = run(name, numpy, *args, **kwargs)
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
        return _made(name, getattr(np, name)(*args, **kwargs))

    return create


def _made(name: str, content: np.ndarray) -> ndarray:
    """A new array with this content."""
    array = wrap(poisoned(content.shape, content.dtype), [])
    target = array._array
    machine.do("cupy", name, [array._memory], array.nbytes, lambda: np.copyto(target, content))
    return array


def _like(name: str) -> Callable[..., ndarray]:
    """empty_like and the others: like an array of the GPU or the host, on the current device."""

    def create(prototype: Any, *args: Any, **kwargs: Any) -> ndarray:
        if not kwargs.get("shape", True):
            del kwargs["shape"]  # for CuPy () is not a shape but none
        array = getattr(np, name)(_hosts(prototype), *args, **kwargs)
        if name == "empty_like":
            return wrap(poisoned(array.shape, array.dtype), [])
        return _made(name, array)

    return create


def array(obj: Any, dtype: Any = None, copy: bool = True, order: str = "K") -> ndarray:
    if isinstance(obj, ndarray):
        if obj._memory.gpu.index != machine.current:
            obj = obj.copy(order)
        return obj.astype(dtype or obj.dtype, order, copy=bool(copy))
    if isinstance(obj, (list, tuple)) and any(isinstance(part, ndarray) for part in obj):
        return cupy.stack([asarray(part, dtype) for part in obj])
    host = np.array(obj, dtype, order=order)
    if host.ndim:
        machine.note("to the GPU", "pageable", host.nbytes)  # by a pinned buffer of CuPy's, without waiting
        return wrap(host, [])
    return _made("array", host)


def asarray(a: Any, dtype: Any = None, order: str = "K") -> ndarray:
    return array(a, dtype, False, order)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    a = asarray(a, dtype)
    return a if a.flags.c_contiguous else a.copy()


def from_dlpack(array: Any) -> ndarray:
    with Device(array.__dlpack_device__()[1]):
        return array.__dlpack__(stream=1, max_version=(1, 0), copy=None).opened()


def content() -> dict[str, Any]:
    """All of the module cupy that is simulated here: what NumPy has."""
    found: dict[str, Any] = {}
    for name in np.__all__:
        numpy = getattr(np, name)
        if isinstance(numpy, np.ufunc):
            found[name] = Ufunc(name)
        elif isinstance(numpy, (type, float)) or numpy is None:
            found[name] = numpy  # dtypes, constants, newaxis
        elif callable(numpy):
            found[name] = _as_numpy(name)
    for name in ("arange", "eye", "full", "identity", "linspace", "ones", "tri", "zeros"):
        found[name] = _filled(name)
    for name in ("empty_like", "full_like", "ones_like", "zeros_like"):
        found[name] = _like(name)
    return found | {
        "array": array, "asanyarray": asarray, "asarray": asarray, "ascontiguousarray": ascontiguousarray,
        "empty": empty, "from_dlpack": from_dlpack, "ndarray": ndarray,
    }  # fmt: skip
