"""The ways in which a GPU can be missing, each as a program meets it in CuPy 14.

    with standin.simulated("no driver"): …

Each entry of ABSENCES takes a machine that is whole and returns a context in which it is not.
"""

import contextlib
import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .machine import Machine, OutOfMemoryError

RULE = "=" * 64
NOT_FOUND = """Failure finding "lib{0}.so.13 or lib{0}.so.12": No such file: lib{0}.so.13 or lib{0}.so.12
  listdir("site-packages/nvidia/cu13/lib"):
    libcudart.so.13"""


class _Import:
    """A finder that lets the import of cupy fail."""

    def __init__(self, error: ImportError) -> None:
        self.error = error

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "cupy":
            raise self.error


@contextlib.contextmanager
def _import_fails(error: ImportError) -> Iterator[None]:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("cupy", "cupyx")]:
        del sys.modules[name]  # standin.installed() puts back what was there before it
    finder: Any = _Import(error)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def no_cupy(machine: Machine) -> Any:
    return _import_fails(ModuleNotFoundError("No module named 'cupy'", name="cupy"))


def broken_cupy(machine: Machine) -> Any:
    """As cupy/__init__.py says it."""
    lines = [
        RULE, "Failed to import CuPy.", "",
        "If you installed CuPy via wheels (cupy-cudaXXX or cupy-rocm-X-X), make sure that the package matches with the "
        "version of CUDA or ROCm installed.", "", "Original error:",
        "  ImportError: libstdc++.so.6: version `GLIBCXX_3.4.29' not found", RULE,
    ]  # fmt: skip
    return _import_fails(ImportError("\n" + "\n".join(lines) + "\n"))


def incomplete_cupy(machine: Machine) -> Any:
    """A package that CuPy needs is not there."""
    return _import_fails(ModuleNotFoundError("No module named 'cuda.pathfinder'", name="cuda.pathfinder"))


@contextlib.contextmanager
def two_wheels(machine: Machine) -> Iterator[None]:
    """Both cupy-cuda12x and cupy-cuda13x are installed; what is imported is a mixture."""
    with tempfile.TemporaryDirectory() as folder:
        for cuda in ("12", "13"):
            wheel = Path(folder) / f"cupy_cuda{cuda}x-14.2.0.dist-info"
            wheel.mkdir()
            (wheel / "METADATA").write_text(f"Metadata-Version: 2.1\nName: cupy-cuda{cuda}x\nVersion: 14.2.0\n")
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(folder)


def _broken(**attributes: Any) -> Callable[[Machine], Any]:
    """The machine with these attributes instead of its own."""

    def apply(machine: Machine) -> Any:
        for name, value in attributes.items():
            setattr(machine, name, value)
        return contextlib.nullcontext()

    return apply


def too_little_memory(machine: Machine) -> Any:
    """A GPU of 4 MiB: it opens, and is full soon."""
    machine.reset(memory=4 << 20)
    return contextlib.nullcontext()


ABSENCES: dict[str, Callable[[Machine], Any]] = {
    "no CuPy": no_cupy,
    "broken CuPy": broken_cupy,
    "incomplete CuPy": incomplete_cupy,
    "two wheels": two_wheels,
    "no driver": _broken(status=35, driver=0),
    "driver too old": _broken(status=35, driver=12040),
    "no GPU": _broken(status=100),
    "driver mismatch": _broken(status=803),
    "no NVRTC": _broken(libraries={"NVRTC": RuntimeError(NOT_FOUND.format("nvrtc"))}),
    "no cuBLAS": _broken(libraries={"cuBLAS": ImportError(NOT_FOUND.format("cublas"))}),
    "no memory left": _broken(libraries={"cuBLAS": OutOfMemoryError("Out of memory allocating 8,388,608 bytes.")}),
    "too little memory": too_little_memory,
}
