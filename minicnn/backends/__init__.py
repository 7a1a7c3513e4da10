"""Backends: faster versions of the lessons' array functions, and the devices that arrays are on.

A lesson's array work is a plain NumPy function, marked as a kernel:

    @kernel
    def rectify(x):
        return np.maximum(x, 0)

As written it runs on NumPy's arrays, and through NumPy's dispatch on any arrays that take part in
it, such as CuPy's. It is the reference. A backend is a set of functions with the same names and
arguments that compute the same faster, for the arrays of one device:

    Backend("mine", device="cpu", kernels={"activation.rectify": rectify, …})

That is all a backend for the CPU must provide: any of the kernels that table() lists. Where it has
no version of a kernel, that of another backend runs which it names, or the lesson's. A backend with
a device of its own also provides a Device: how arrays get there and back, and what else can be
asked of it (see devices.py).

Which version runs is decided here and nowhere else, at each call, by the type of the first array:
the version of its device's default backend, unless use_backend() has named another one in this
thread. The folders beside this file register themselves when minicnn is imported: numpy, for any
CPU, native, for a CPU with a C compiler, and cuda, for NVIDIA GPUs.

>>> import numpy as np
>>> from minicnn.backends import use_backend
>>> from minicnn.functional.activation import rectify
>>> with use_backend("reference"):  # as the lesson is written
...     rectify(np.array([-1.0, 2.0]))
array([0., 2.])
"""

import functools
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, cast

from threadpoolctl import ThreadpoolController

from ..checks import shown
from .devices import DeviceError, is_kind, kind_of, open_device

Call = TypeVar("Call", bound=Callable[..., Any])
REFERENCE = "reference"


# ----------------------------------------------------------------------------- kernels and backends
class Backend:
    """Functions that take the place of kernels for the arrays of one kind of device. Making one
    registers it.

    Args:
        name: what use_backend() calls it.
        device: "cpu" or "gpu".
        kernels: a dict of functions by the names of the kernels that they replace, such as
            "conv.convolve".
        default: whether it is used on that device unless use_backend() names another. Of several,
            the last one that was made and can be used.
        otherwise: the backend whose kernels run where this one has none; without it the lesson's.
            Some are of two layers at once (lesson fused) and run in the place of one's own for the
            first of them.
        opens: a function that raises DeviceError, with one line that says what to do, if the
            backend cannot be used here. It is called once, before the first use.
    Attributes:
        name: as given.
        device: as given.
        kernels: as given, read-only.
        default: as given.
        otherwise: as given.
    Raises:
        ValueError: there is a backend of that name already, or there is no such kind of device.

    Example:
        >>> import numpy as np
        >>> from minicnn.functional.activation import rectify
        >>> mine = Backend("mine", "cpu", {"activation.rectify": lambda x: 0.5 * (x + abs(x))})
        >>> with use_backend("mine"):
        ...     rectify(np.array([-1.0, 2.0]))
        array([0., 2.])
        >>> mine.remove()
    """

    def __init__(
        self,
        name: str,
        device: str,
        kernels: Mapping[str, Callable[..., Any]],
        default: bool = False,
        *,
        otherwise: "Backend | None" = None,
        opens: Callable[[], Any] = lambda: None,
    ) -> None:
        if name == REFERENCE or name in _backends:
            raise ValueError(f"there is a backend {name!r} already")
        if not is_kind(device):
            raise ValueError(f"backend {name!r}: there is no kind of device {device!r}: 'cpu' or 'gpu'")
        self.name, self.device, self.default = name, device, default
        self.kernels, self.otherwise = MappingProxyType(dict(kernels)), otherwise
        self.problem = functools.cache(lambda: _problem(opens))
        _changed(lambda: _backends.__setitem__(name, self))

    def remove(self) -> None:
        """Remove the backend from those that are registered, if it is one of them."""
        if _backends.get(self.name) is self:
            _changed(lambda: _backends.pop(self.name))

    def version(self, name: str) -> Callable[..., Any]:
        """The function that runs for a kernel if this backend is in use.

        Args:
            name: the kernel's.
        """
        if name in self.kernels:
            return self.kernels[name]
        return _lessons[name] if self.otherwise is None else self.otherwise.version(name)

    def open(self) -> None:
        """Make the backend ready for use.

        Raises:
            DeviceError: it cannot be used here.
            ValueError: it has a function for a kernel that does not exist.
        """
        if (problem := self.problem()) is not None:
            raise DeviceError(f"backend {self.name!r}: {problem}")
        self.check()

    def check(self) -> None:
        """Check that every function replaces a kernel that exists.

        Raises:
            ValueError: one does not.
        """
        if unknown := sorted(self.kernels.keys() - _lessons.keys()):
            raise ValueError(f"backend {self.name!r} has {unknown[0]!r}, which is not a kernel: see backends.table()")


def _problem(opens: Callable[[], Any]) -> str | None:
    """Why a backend cannot be used, or None."""
    try:
        opens()
    except DeviceError as error:
        return str(error)
    return None


_backends: dict[str, Backend] = {}
_lessons: dict[str, Callable[..., Any]] = {}  # every kernel as its lesson is written, by name
_lock = threading.RLock()  # for these two and for what is remembered of them


def _after_fork() -> None:
    """A forked child must not wait for a lock that a thread of its parent held, which may have been
    compiling."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _changed(change: Callable[[], Any]) -> None:
    """Make a change to what is registered, and forget what was found out before."""
    with _lock:
        change()
        for versions in list(_remembering):
            versions.clear()


class _Kernels(dict[str, Callable[..., Any]]):
    """The functions that run for the kernels' names with a backend, or without one."""

    def __init__(self, backend: Backend | None):
        self.backend = backend

    def __missing__(self, name: str) -> Callable[..., Any]:
        self[name] = _lessons[name] if self.backend is None else self.backend.version(name)
        return self[name]


class _Versions(dict[type, _Kernels]):
    """What runs for each type of array; it is looked up once for each type."""

    def __init__(self, chosen: Backend | None = None, plain: bool = False) -> None:
        self.chosen, self.plain = chosen, plain
        _remembering.add(self)

    __hash__ = object.__hash__  # type: ignore[assignment]  # by identity

    def __missing__(self, kind: type) -> _Kernels:
        with _lock:
            device, backend = kind_of(kind), self.chosen
            if backend is None or backend.device != device or _backends.get(backend.name) is not backend:
                backend = None if self.plain else _default(device)
            if backend is not None:
                backend.check()
            self[kind] = _Kernels(backend)
            return self[kind]


def _defaults(device: str | None) -> list[Backend]:
    """The backends that a kind of device has unless another is named, the last one first."""
    return [backend for backend in reversed(_backends.values()) if backend.device == device and backend.default]


def _default(device: str | None) -> Backend | None:
    """The first of them that can be used."""
    return next((backend for backend in _defaults(device) if backend.problem() is None), None)


_remembering: weakref.WeakSet[_Versions] = weakref.WeakSet()
_fastest = _Versions()


class _InUse(threading.local):
    name: str | None = None
    versions = _fastest

    def __init__(self) -> None:
        self.left: list[Any] = []  # for each with-statement that was entered, what there was before


_in_use = _InUse()


def kernel(function: Call) -> Call:
    """Mark a lesson's array function as a kernel, of which backends may have faster versions.

    The type of the first argument, an array, decides which version runs; the lookup takes 0.1 µs.
    Arguments are given by position.

    Args:
        function: it is called by the name of its file and its own, "conv.convolve".
    Returns:
        A function that calls the version for its first argument.
    Raises:
        ValueError: another file has a kernel of that name.
    """
    name = _registered(function)

    @functools.wraps(function)
    def dispatch(*args: Any) -> Any:  # to name the first would take as long as the rest
        return _in_use.versions[type(args[0])][name](*args)

    return cast(Call, dispatch)


def kernel_of_many(function: Call) -> Call:
    """The same as `kernel`, for a function whose first argument is a list of tuples of arrays, not
    empty.

    Args:
        function: the lesson's array function.
    Returns:
        A function that calls the version for the first of the arrays.
    Raises:
        ValueError: another file has a kernel of that name.
    """
    name = _registered(function)

    @functools.wraps(function)
    def dispatch(*args: Any) -> Any:
        return _in_use.versions[type(args[0][0][0])][name](*args)

    return cast(Call, dispatch)


def named(*functions: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Functions by the names of the kernels that they replace, if each has the name of its kernel,
    and its file that of the kernel's file.

    Args:
        functions: such as the function rectify of a file activation.py.
    Returns:
        A dict for Backend: {"activation.rectify": rectify, …}.
    """
    return {_name(function): function for function in functions}


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}"


def _registered(function: Callable[..., Any]) -> str:
    name = _name(function)
    if name in _lessons and _lessons[name].__module__ != function.__module__:
        raise ValueError(f"{_lessons[name].__module__} has a kernel {name!r}: give this one another name")
    _changed(lambda: _lessons.__setitem__(name, function))
    return name


class use_backend:
    """Compute by one backend in this thread: from now on, or inside a with-statement or a decorated
    function.

    Args:
        name: a backend for the arrays of its device, such as "numpy" or "cuda"; arrays on other
            devices are computed as before. "reference" runs every kernel as its lesson is written,
            and limits BLAS to one thread in the whole process until it ends. None is the default of
            each device.
    Raises:
        DeviceError: there is no such backend, or its device is not there.
        ValueError: the backend has a function for a kernel that does not exist.

    Example:
        >>> import minicnn
        >>> @minicnn.use_backend("reference")
        ... def rectified():
        ...     return minicnn.functional.relu(minicnn.Tensor([-1.0, 2.0]))
        >>> rectified()
        Tensor([0., 2.], dtype=float32)
    """

    def __init__(self, name: str | None) -> None:
        backend = _backends.get(name) if isinstance(name, str) else None
        if backend is None and not (name is None or (isinstance(name, str) and name == REFERENCE)):
            there = ", ".join(repr(known) for known in (REFERENCE, *_backends))
            raise DeviceError(f"use_backend: there is no backend {shown(name)}: use one of {there}")
        if backend is not None:
            open_device(backend.device)
            backend.open()
        self.chosen = name, _fastest if name is None else _Versions(backend, plain=name == REFERENCE)
        # in this thread, until a with-statement takes over
        self.began = threading.get_ident(), _state()
        self._begin()

    def _begin(self) -> Any:
        """Compute so from now on. What is returned limits BLAS, or is None."""
        _set_state(self.chosen)
        return _blas().limit(limits=1, user_api="blas") if self.chosen[0] == REFERENCE else None

    def __enter__(self) -> None:
        thread, before = self.began
        # another with-statement than the first, or another thread
        if thread != threading.get_ident():
            before = _state()
        self.began = 0, before
        _in_use.left.append((before, self._begin()))

    def __exit__(self, *error: object) -> None:
        before, limiter = _in_use.left.pop()
        _set_state(before)
        if limiter is not None:
            limiter.restore_original_limits()

    def __call__(self, function: Call) -> Call:
        """Decorate a function, inside which this backend computes."""
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
    """The thread libraries that are loaded; finding them takes a millisecond."""
    return ThreadpoolController()


def _state() -> tuple[str | None, _Versions]:
    return _in_use.name, _in_use.versions


def _set_state(state: tuple[str | None, _Versions]) -> None:
    _in_use.name, _in_use.versions = state


def chosen_backend() -> str | None:
    """The backend that use_backend() has chosen in this thread.

    Returns:
        Its name, or None if there is none, or it has been removed.
    """
    return _in_use.name if _in_use.name in (REFERENCE, *_backends) else None


def backend_of(device: str) -> str:
    """The backend that computes in this thread with the arrays of a device.

    Args:
        device: "cpu", "gpu" or "gpu:N".
    Returns:
        Its name.

    Example:
        >>> with use_backend("numpy"):
        ...     backend_of("cpu")
        'numpy'
    """
    kind, name = device.partition(":")[0], chosen_backend()
    if name is not None and (name == REFERENCE or _backends[name].device == kind):
        return name
    default = _default(kind)
    return REFERENCE if default is None else default.name


def missed(device: str) -> str | None:
    """Why a device does not have its fastest backend.

    Args:
        device: "cpu", "gpu" or "gpu:N".
    Returns:
        One line, which also says what computes instead; or None if it has.
    """
    kind = device.partition(":")[0]
    for backend in _defaults(kind)[:1]:
        if (problem := backend.problem()) is not None:
            return f"{problem}; without the {backend.name} backend, {backend_of(kind)} computes, slower"
    return None


def table() -> str:
    """Which backend has a version of which kernel; every kernel has the lesson's.

    Returns:
        A table in Markdown.

    Example:
        >>> table().splitlines()[0]
        '| kernel | reference | numpy | cuda | native |'
    """
    names = list(_backends)
    rows = [["kernel", REFERENCE, *names], ["---"] * (2 + len(names))]
    for name in sorted(_lessons):
        rows.append([name, "yes", *("yes" if name in _backends[b].kernels else "" for b in names)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
