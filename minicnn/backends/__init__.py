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
import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, cast

from threadpoolctl import ThreadpoolController

from .devices import DeviceError, is_kind, kind_of, open_device

Call = TypeVar("Call", bound=Callable[..., Any])
REFERENCE = "reference"


# ------------------------------------------------------------------------------------------------- kernels and backends
class Backend:
    """Functions that take the place of kernels, by the kernels' names ("conv.convolve"), for the
    arrays of a kind of device ("cpu" or "gpu"). To make one is to register it: as the `default` for
    that device, or for use_backend() to name.

    Raises ValueError if its name is taken or there is no such kind of device.
    """

    def __init__(
        self, name: str, device: str, kernels: Mapping[str, Callable[..., Any]], default: bool = False
    ) -> None:
        if name == REFERENCE or name in _backends:
            raise ValueError(f"there is a backend {name!r} already")
        if not is_kind(device):
            raise ValueError(f"backend {name!r}: there is no kind of device {device!r}: 'cpu' or 'gpu'")
        self.name, self.device, self.default = name, device, default
        self.kernels = MappingProxyType(dict(kernels))
        _changed(lambda: _backends.__setitem__(name, self))

    def remove(self) -> None:
        """Forget it, if it is registered."""
        if _backends.get(self.name) is self:
            _changed(lambda: _backends.pop(self.name))

    def check(self) -> None:
        """Raise ValueError if it has a function for a kernel that does not exist."""
        if unknown := sorted(self.kernels.keys() - _lessons.keys()):
            raise ValueError(f"backend {self.name!r} has {unknown[0]!r}, which is no kernel: minicnn.backends.table()")


_backends: dict[str, Backend] = {}
_lessons: dict[str, Callable[..., Any]] = {}  # every kernel as its lesson is written, by name
_lock = threading.RLock()  # for these two and for what is remembered of them


def _changed(change: Callable[[], Any]) -> None:
    """Make a change to what is registered, and forget what was found out before."""
    with _lock:
        change()
        for versions in list(_remembering):
            versions.clear()


class _Kernels(dict[str, Callable[..., Any]]):
    """The functions that run for the kernels' names: a backend's, and where it has none the lesson's."""

    def __missing__(self, name: str) -> Callable[..., Any]:
        self[name] = _lessons[name]
        return self[name]


class _Versions(dict[type, _Kernels]):
    """By type of array, what runs; found once for each type."""

    def __init__(self, chosen: Backend | None = None, plain: bool = False) -> None:
        self.chosen, self.plain = chosen, plain
        _remembering.add(self)

    __hash__ = object.__hash__  # type: ignore[assignment]  # by identity

    def __missing__(self, kind: type) -> _Kernels:
        with _lock:
            device, chosen = kind_of(kind), self.chosen
            fast = [backend for backend in _backends.values() if backend.device == device and backend.default]
            if chosen is not None and chosen.device == device and _backends.get(chosen.name) is chosen:
                fast = [chosen]
            for backend in fast[-1:]:
                backend.check()
            self[kind] = _Kernels(fast[-1].kernels if fast and not self.plain else {})
            return self[kind]


_remembering: weakref.WeakSet[_Versions] = weakref.WeakSet()
_fastest = _Versions()


class _InUse(threading.local):
    name: str | None = None
    versions = _fastest

    def __init__(self) -> None:
        self.left: list[Any] = []  # for each with-statement that was entered, what there was before


_in_use = _InUse()


def kernel(function: Call) -> Call:
    """Decorate a lesson's array function, of which backends may have faster versions. Its name is
    that of its file and its own: "conv.convolve"; the type of its first argument, an array, decides
    which version runs. Arguments are given by position. To look the version up takes 0.1 µs.

    Raises ValueError if another file has a kernel of that name.
    """
    name = _registered(function)

    @functools.wraps(function)
    def dispatch(*args: Any) -> Any:  # to name the first would take as long as the rest
        return _in_use.versions[type(args[0])][name](*args)

    return cast(Call, dispatch)


def kernel_of_many(function: Call) -> Call:
    """The same for a function whose first argument is a list of tuples of arrays, not empty."""
    name = _registered(function)

    @functools.wraps(function)
    def dispatch(*args: Any) -> Any:
        return _in_use.versions[type(args[0][0][0])][name](*args)

    return cast(Call, dispatch)


def _registered(function: Callable[..., Any]) -> str:
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
    if name in _lessons and _lessons[name].__module__ != function.__module__:
        raise ValueError(f"{_lessons[name].__module__} has a kernel {name!r}: give this one another name")
    _changed(lambda: _lessons.__setitem__(name, function))
    return name


class use_backend:
    """Compute by that backend, in this thread: from now on, or inside a with-statement or a decorated
    function. "reference" runs every kernel as its lesson is written, and limits BLAS to one thread, in
    the whole process, as long as it holds; the others are for the arrays of their device, and arrays elsewhere go on as
    before. None is the default of each device.

    Raises DeviceError, in one line, if there is no such backend or its device is not there, ValueError
    if it has functions for kernels that do not exist.
    """

    def __init__(self, name: str | None) -> None:
        backend = _backends.get(name) if name is not None else None
        if backend is None and name not in (None, REFERENCE):
            there = ", ".join(repr(known) for known in (REFERENCE, *_backends))
            raise DeviceError(f"there is no backend {name!r}: use one of {there}")
        if backend is not None:
            open_device(backend.device)
            backend.check()
        self.chosen = name, _fastest if name is None else _Versions(backend, plain=name == REFERENCE)
        self.began = threading.get_ident(), _state()  # in this thread; a with-statement here ends that
        self._begin()

    def _begin(self) -> Any:
        """Compute so from now on. Returns what limits BLAS, if anything does."""
        _set_state(self.chosen)
        return _blas().limit(limits=1, user_api="blas") if self.chosen[0] == REFERENCE else None

    def __enter__(self) -> None:
        thread, before = self.began
        if thread != threading.get_ident():  # another with-statement than the first, or another thread
            before = _state()
        self.began = 0, before
        _in_use.left.append((before, self._begin()))

    def __exit__(self, *error: object) -> None:
        before, limiter = _in_use.left.pop()
        _set_state(before)
        if limiter is not None:
            limiter.restore_original_limits()

    def __call__(self, function: Call) -> Call:
        """Decorate a function, inside which this holds."""
        name, _ = self.chosen
        thread, before = self.began
        if thread == threading.get_ident():
            _set_state(before)
            self.began = 0, before

        @functools.wraps(function)
        def inside(*args: Any, **options: Any) -> Any:
            with use_backend(name):
                return function(*args, **options)

        return cast(Call, inside)


@functools.cache
def _blas() -> ThreadpoolController:
    """The libraries of threads that are loaded; to look for them takes a millisecond."""
    return ThreadpoolController()


def _state() -> tuple[str | None, _Versions]:
    return _in_use.name, _in_use.versions


def _set_state(state: tuple[str | None, _Versions]) -> None:
    _in_use.name, _in_use.versions = state


def chosen_backend() -> str | None:
    """The name that use_backend() was told in this thread, if there still is such a backend."""
    return _in_use.name if _in_use.name in (REFERENCE, *_backends) else None


def backend_of(device: str) -> str:
    """The name of the backend that computes in this thread with the arrays of a device."""
    kind, name = device.partition(":")[0], chosen_backend()
    if name is not None and (name == REFERENCE or _backends[name].device == kind):
        return name
    defaults = [name for name, backend in _backends.items() if backend.default and backend.device == kind]
    return defaults[-1] if defaults else REFERENCE


def table() -> str:
    """Which kernel has which versions, as a table of Markdown: every kernel has the lesson's."""
    names = list(_backends)
    rows = [["kernel", REFERENCE, *names], ["---"] * (2 + len(names))]
    for name in sorted(_lessons):
        rows.append([name, "yes", *("yes" if name in _backends[b].kernels else "" for b in names)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
