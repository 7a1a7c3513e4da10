"""Backends: the lessons' array functions once more, faster, and the devices that arrays are on.

A lesson's array work is a plain NumPy function, marked as a kernel:

    @kernel
    def rectify(x):
        return np.maximum(x, 0)

As written it runs on NumPy's arrays, and through NumPy's dispatch on any arrays that take part in it, such as CuPy's. It
is the reference. A backend is a set of functions with the same names and arguments that compute the same faster, for
the arrays of one device:

    numpy = Backend("numpy", device="cpu")

    @numpy.kernel("activation.rectify")
    def rectify(x): ...

That is all a backend for the CPU must provide: any of the kernels that table() lists. What it lacks runs as the lesson
is written. A backend with a device of its own also provides a Device: how arrays get there and back, and what else can
be asked of it (the class below lists nine methods).

Which version runs is decided here and nowhere else, at each call, by the type of the first array: the backend that was
registered last for its device, unless use_backend() has named another one in this thread. The folders beside this file
register themselves when minicnn is imported: numpy, for any CPU, and cuda, for NVIDIA GPUs.

>>> import numpy as np
>>> from minicnn.backends import use_backend
>>> from minicnn.functional.activation import rectify
>>> with use_backend("reference"):  # as the lesson is written
...     rectify(np.array([-1.0, 2.0]))
array([0., 2.])
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numpy as np

Array = Any  # a NumPy array, or an array of a backend's device
Call = TypeVar("Call", bound=Callable[..., Any])
REFERENCE = "reference"


class DeviceError(RuntimeError):
    """A device or a backend that was asked for is not there or has no memory left, or arrays of two devices met in one
    operation."""


# ------------------------------------------------------------------------------------------------- kernels and backends
class Backend:
    """Functions that take the place of kernels, by the kernels' names, for the arrays of a device ("cpu" or "gpu")."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        if name == REFERENCE or name in _backends:
            raise ValueError(f"there is a backend {name!r} already")
        self.name, self.device = name, device
        self.kernels: dict[str, Callable[..., Any]] = {}
        _backends[name] = self
        _default.clear()

    def kernel(self, name: str) -> Callable[[Call], Call]:
        """Decorate the function that takes the place of the kernel of that name, as "conv.convolve"."""

        def register(function: Call) -> Call:
            self.kernels[name] = function
            return function

        return register

    def remove(self) -> None:
        """Forget this backend."""
        del _backends[self.name]
        _default.clear()


_backends: dict[str, Backend] = {}
_lessons: dict[str, Callable[..., Any]] = {}  # every kernel as its lesson is written, by name


class _Versions(dict[type, Mapping[str, Callable[..., Any]]]):
    """By type of array, the functions that take the place of kernels; found once for each type."""

    def __init__(self, chosen: Backend | None = None, plain: bool = False) -> None:
        self.chosen, self.plain = chosen, plain

    def __missing__(self, kind: type) -> Mapping[str, Callable[..., Any]]:
        device = "cpu" if issubclass(kind, (np.ndarray, np.generic)) else _device_of_type(kind)
        if self.plain or device is None:
            return {}
        fast = [backend for backend in _backends.values() if backend.device == device]
        if self.chosen is not None and self.chosen.device == device:
            fast = [self.chosen]
        self[kind] = fast[-1].kernels if fast else {}
        return self[kind]


_default = _Versions()


class _InUse(threading.local):
    name: str | None = None
    versions = _default


_in_use = _InUse()


def kernel(function: Call) -> Call:
    """Decorate a lesson's array function, of which backends may have faster versions. Its first argument is an array,
    or a list of tuples of arrays, which decides which version runs. Its name is that of its file and its own:
    "conv.convolve". To look the version up takes 0.3 µs."""
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
    _lessons[name] = function

    @functools.wraps(function)
    def dispatch(array: Any, *args: Any, **options: Any) -> Any:
        kind = type(array) if type(array) is not list else type(array[0][0])
        return _in_use.versions[kind].get(name, function)(array, *args, **options)

    return cast(Call, dispatch)


class use_backend(contextlib.ContextDecorator):
    """Compute by that backend, in this thread: from now on, or inside a with-statement. "reference" runs every kernel
    as its lesson is written; the others are for the arrays of their device, and arrays elsewhere go on as before. None
    is the default: the fastest that each device has.

    Raises DeviceError, in one line, if there is no such backend or its device is not there.
    """

    def __init__(self, name: str | None) -> None:
        backend = _backends.get(name) if name is not None else None
        if backend is None and name not in (None, REFERENCE):
            there = ", ".join(repr(known) for known in (REFERENCE, *_backends))
            raise DeviceError(f"there is no backend {name!r}: use one of {there}")
        if backend is not None:
            open_device(backend.device)
        self.before = _in_use.name, _in_use.versions
        self.name = name
        _in_use.name = name
        _in_use.versions = _default if name is None else _Versions(backend, plain=name == REFERENCE)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        _in_use.name, _in_use.versions = self.before

    def _recreate_cm(self) -> "use_backend":
        return use_backend(self.name)


def backend_in_use() -> str | None:
    """The name that use_backend() was told in this thread; None: the fastest that each device has."""
    return _in_use.name


def table() -> str:
    """Which kernel has which versions, as a table of Markdown: every kernel has the lesson's."""
    names = list(_backends)
    rows = [["kernel", REFERENCE, *names], ["---"] * (2 + len(names))]
    for name in sorted(_lessons):
        rows.append([name, "yes", *("yes" if name in _backends[b].kernels else "" for b in names)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
