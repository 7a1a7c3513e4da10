"""Backends: the lessons' array functions once more, faster, and the devices that arrays are on.

A lesson's array work is a plain NumPy function, marked as a kernel:

    @kernel
    def rectify(x):
        return np.maximum(x, 0)

As written it runs on NumPy's arrays, and through NumPy's dispatch on any arrays that take part in
it, such as CuPy's. It is the reference. A backend is a set of functions with the same names and
arguments that compute the same faster, for the arrays of one device:

    Backend("mine", device="cpu", kernels={"activation.rectify": rectify, …})

That is all a backend for the CPU must provide: any of the kernels that table() lists. What it lacks
runs as the lesson is written. A backend with a device of its own also provides a Device: how arrays
get there and back, and what else can be asked of it (devices.py has the list).

Which version runs is decided here and nowhere else, at each call, by the type of the first array:
the version of its device's default backend, unless use_backend() has named another one in this
thread. The folders beside this file register themselves when minicnn is imported: numpy, for any
CPU, and cuda, for NVIDIA GPUs.

>>> import numpy as np
>>> from minicnn.backends import use_backend
>>> from minicnn.functional.activation import rectify
>>> with use_backend("reference"):  # as the lesson is written
...     rectify(np.array([-1.0, 2.0]))
array([0., 2.])
"""

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from .devices import DeviceError, kind_of, open_device

Call = TypeVar("Call", bound=Callable[..., Any])
REFERENCE = "reference"


# ------------------------------------------------------------------------------------------------- kernels and backends
class Backend:
    """Functions that take the place of kernels, by the kernels' names ("conv.convolve"), for the
    arrays of a kind of device ("cpu" or "gpu"). To make one is to register it: as the `default` for
    that device, or for use_backend() to name."""

    def __init__(
        self, name: str, device: str, kernels: Mapping[str, Callable[..., Any]], default: bool = False
    ) -> None:
        if name == REFERENCE or name in _backends:
            raise ValueError(f"there is a backend {name!r} already")
        self.name, self.device, self.kernels, self.default = name, device, dict(kernels), default
        _backends[name] = self
        _fastest.clear()

    def remove(self) -> None:
        """Forget it."""
        del _backends[self.name]
        _fastest.clear()


_backends: dict[str, Backend] = {}
_lessons: dict[str, Callable[..., Any]] = {}  # every kernel as its lesson is written, by name


class _Kernels(dict[str, Callable[..., Any]]):
    """The functions that run for the kernels' names: a backend's, and where it has none the lesson's."""

    def __missing__(self, name: str) -> Callable[..., Any]:
        self[name] = _lessons[name]
        return self[name]


class _Versions(dict[type, _Kernels]):
    """By type of array, what runs; found once for each type."""

    def __init__(self, chosen: Backend | None = None, plain: bool = False) -> None:
        self.chosen, self.plain = chosen, plain

    def __missing__(self, kind: type) -> _Kernels:
        device = kind_of(kind)
        fast = [backend for backend in _backends.values() if backend.device == device and backend.default]
        if self.chosen is not None and self.chosen.device == device:
            fast = [self.chosen]
        self[kind] = _Kernels(fast[-1].kernels if fast and not self.plain else {})
        return self[kind]


_fastest = _Versions()


class _InUse(threading.local):
    name: str | None = None
    versions = _fastest


_in_use = _InUse()


def kernel(function: Call) -> Call:
    """Decorate a lesson's array function, of which backends may have faster versions. Its name is
    that of its file and its own: "conv.convolve"; the type of its first argument, an array, decides
    which version runs. To look that up takes 0.3 µs."""
    name = _registered(function)

    @functools.wraps(function)
    def dispatch(array: Any, *args: Any) -> Any:
        return _in_use.versions[type(array)][name](array, *args)

    return cast(Call, dispatch)


def kernel_of_many(function: Call) -> Call:
    """The same for a function whose first argument is a list of tuples of arrays, not empty."""
    name = _registered(function)

    @functools.wraps(function)
    def dispatch(arrays: Any, *args: Any) -> Any:
        return _in_use.versions[type(arrays[0][0])][name](arrays, *args)

    return cast(Call, dispatch)


def _registered(function: Callable[..., Any]) -> str:
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
    _lessons[name] = function
    return name


class use_backend:
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
        _in_use.name = name
        _in_use.versions = _fastest if name is None else _Versions(backend, plain=name == REFERENCE)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        _in_use.name, _in_use.versions = self.before


def chosen_backend() -> str | None:
    """The name that use_backend() was told in this thread."""
    return _in_use.name


def backend_of(device: str) -> str:
    """The name of the backend that computes in this thread with the arrays of a device."""
    kind = device.partition(":")[0]
    named = _backends.get(_in_use.name or "")
    if _in_use.name == REFERENCE or (named is not None and named.device == kind):
        return _in_use.name or REFERENCE
    defaults = [name for name, backend in _backends.items() if backend.default and backend.device == kind]
    return defaults[-1] if defaults else REFERENCE


def table() -> str:
    """Which kernel has which versions, as a table of Markdown: every kernel has the lesson's."""
    names = list(_backends)
    rows = [["kernel", REFERENCE, *names], ["---"] * (2 + len(names))]
    for name in sorted(_lessons):
        rows.append([name, "yes", *("yes" if name in _backends[b].kernels else "" for b in names)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
