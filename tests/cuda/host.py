"""Kernels run on the CPU: RawModule has the ways of cupy.RawModule, and g++ for a compiler (see host.h).

All constants at the head of a source (`constexpr int KH = 3;`) become variables, so that g++ is asked once for all
geometries, but for those in LENGTHS. What is undefined in a kernel raises KernelError. Reading or writing beyond an array is found by the address
sanitizer, which needs a process of its own: under_address_sanitizer("-m", "pytest", …).
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minicnn.backends.cuda import launch

HEADER = Path(__file__).with_name("host.h")
LENGTHS = {"BLOCK", "MOST", "TILE"}  # of arrays, so they stay constants
CONSTANT = re.compile(r"constexpr int (\w+) = (-?\d+);")
KERNEL = re.compile(r'(?m)^(?:KERNEL|extern "C" __global__)\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\(')
COMPILE = (
    "-std=c++17 -O1 -g1 -fPIC -fvisibility=hidden -fno-exceptions -fno-strict-aliasing -ffp-contract=off "
    "-Wall -Wextra -Werror"
).split()
UNDEFINED = "-fsanitize=undefined,float-cast-overflow -fno-sanitize-recover=all".split()
LINK = ["-shared", "-Wl,--no-undefined"]  # without libubsan: host.h does its work
ADDRESS = "MINICNN_ADDRESS_SANITIZER"  # set in processes that have it


class KernelError(RuntimeError):
    """A kernel did something undefined, or was launched with what it does not declare."""


class CompileException(Exception):
    """g++ refused a source."""


def missing() -> str | None:
    """Why kernels cannot run here, or None."""
    return None if shutil.which("g++") else "kernels run on the CPU only where g++ is installed"


class _Order:
    backwards = False


_order = _Order()


@contextlib.contextmanager
def backwards() -> Iterator[None]:
    """Inside, the threads of a kernel run in the reverse order, which no result may depend on."""
    _order.backwards = True
    try:
        yield
    finally:
        _order.backwards = False


def under_address_sanitizer(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments in a process in which a kernel that leaves an array's memory ends the process.
    NumPy asks malloc for exactly the bytes of an array, and so does the stand-in: the byte after it is guarded."""
    library = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    return subprocess.run(
        [sys.executable, *arguments],
        env={
            **os.environ, ADDRESS: "1", "LD_PRELOAD": library.stdout.strip(),
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        },
        capture_output=True,
        text=True,
    )  # fmt: skip


class RawModule:
    """The kernels of a source, as cupy.RawModule."""

    def __init__(self, *, code: str, options: tuple[str, ...] = ()) -> None:
        if not isinstance(options, tuple) or not all(isinstance(option, str) for option in options):
            raise TypeError("RawModule: options is a tuple of str")
        lines = code.split("\n")
        head = next(
            (i for i, line in enumerate(lines) if not line.startswith(("typedef ", "constexpr int "))), len(lines)
        )
        self.constants: dict[str, int] = {}
        for i in range(head):
            if (found := CONSTANT.fullmatch(lines[i])) and found[1] not in LENGTHS:
                self.constants[found[1]] = int(found[2])
                lines[i] = f"[[maybe_unused]] static int {found[1]};"
        self.source = "\n".join(lines)

    def get_function(self, name: str) -> "Kernel":
        library = _library(self.source, tuple(self.constants))
        if name not in KERNEL.findall(self.source):
            raise KernelError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
        return Kernel(library, name, self.constants)


class Kernel:
    """One of them: kernel((blocks,), (256,), args)."""

    def __init__(self, library: ctypes.PyDLL, name: str, constants: dict[str, int]) -> None:
        self.name, self.library, self.run = name, library, getattr(library, f"host_run_{name}")
        self.run.restype = ctypes.c_char_p
        self.constants = (ctypes.c_int * len(constants))(*constants.values())
        out = (ctypes.c_int * 1024)()
        count = getattr(library, f"host_declared_{name}")(out)
        self.declared = [(chr(out[i]), out[i + 1], chr(out[i + 2]), out[i + 3]) for i in range(0, 4 * count, 4)]

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
        if not isinstance(grid, tuple) or not all(isinstance(n, int) and 1 <= n < 1 << 31 for n in grid):
            raise KernelError(f"{self.name}: a grid is a tuple of numbers from 1, not {grid}")
        if len(grid) != 1 or block != (launch.BLOCK,):
            raise KernelError(
                f"{self.name}: kernels.h is written for grids (n,) and blocks ({launch.BLOCK},), not {grid}, {block}"
            )
        if len(args) != len(self.declared):
            raise KernelError(f"{self.name} takes {len(self.declared)} arguments, not {len(args)}")
        values = [
            _packed(f"{self.name}: argument {i}", *pair) for i, pair in enumerate(zip(self.declared, args, strict=True))
        ]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        self.library.host_prepare(int(_order.backwards), self.constants)
        complaint = self.run(pointers, *grid, *block)
        if complaint is not None:
            raise KernelError(f"{self.name}: {complaint.decode()}")


def _packed(what: str, declared: tuple[str, int, str, int], arg: Any) -> np.ndarray:
    """The bytes that CuPy would pass for an argument, as an array; KernelError if they are not what is declared."""
    kind, size, to, to_size = declared
    if kind == "p":
        if not hasattr(getattr(arg, "data", None), "ptr"):
            raise KernelError(f"{what} is a pointer: it takes an array on the device, not {type(arg).__name__}")
        if to != "V" and (arg.dtype.kind, arg.itemsize) != (to, to_size):
            raise KernelError(f"{what} points to {to}{to_size}, not to {arg.dtype}")
        return np.array(arg.data.ptr, np.uintp)
    if type(arg) in (bool, int, float):  # as CuPy does it
        arg = {bool: np.bool_, int: np.int64, float: np.float64}[type(arg)](arg)
    if isinstance(arg, np.ndarray) and arg.size == 1 and arg.dtype.names:  # a struct, by value
        arg = arg.reshape(())[()]
    if not isinstance(arg, np.generic):
        raise KernelError(f"{what} is a number or a struct: it takes a NumPy scalar, not {type(arg).__name__}")
    if (arg.dtype.kind, arg.itemsize) != (kind, size):
        raise KernelError(f"{what} takes {kind}{size}, not {arg.dtype} of {arg.itemsize} bytes")
    return np.array(arg)


@functools.cache
def _library(source: str, constants: tuple[str, ...]) -> ctypes.PyDLL:
    """The source, compiled. PyDLL keeps the interpreter lock, for the constants belong to all threads."""
    values = " ".join(f"{name} = values[{i}];" for i, name in enumerate(constants))
    names = dict.fromkeys(KERNEL.findall(source))
    text = "\n".join([
        '#include "host.h"', '#line 1 "kernel source"', source, "",
        'EXPORTED void host_prepare(int backwards, [[maybe_unused]] const int* values) {',
        f"    host::backwards = backwards; {values}", "}",
        *(f'EXPORTED const char* host_run_{name}(void** args, unsigned blocks, unsigned threads)'
          f" {{ return host::run({name}, args, blocks, threads); }}" for name in names),
        *(f'EXPORTED int host_declared_{name}(int* out) {{ return host::declared({name}, out); }}' for name in names),
    ])  # fmt: skip
    version = _gxx(["-dumpversion"])
    address = ["-fsanitize=address"] if ADDRESS in os.environ else []
    compile, link = [*COMPILE, *(address or UNDEFINED)], [*LINK, *address]  # both take twice as long to compile
    if int(version.partition(".")[0]) >= 12:
        compile.append("-ftrivial-auto-var-init=pattern")  # what is not initialized is not 0 by chance
    key = hashlib.sha256("\0".join([text, HEADER.read_text(), version, *compile, *link]).encode()).hexdigest()[:24]
    folder = _cache()
    library = folder / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            compiled, linked = f"{work}/kernels.o", f"{work}/kernels.so"
            _gxx([*compile, f"-I{_precompiled(tuple(compile), version)}", "-x", "c++", "-c", "-", "-o", compiled], text)
            _gxx([*link, compiled, "-o", linked, "-lm"])
            os.replace(linked, library)  # at once, for other processes may look for it
    return ctypes.PyDLL(str(library))


@functools.cache
def _precompiled(compile: tuple[str, ...], version: str) -> Path:
    """A folder with host.h, and beside it what g++ has made of it, which is half of its work for a kernel."""
    key = hashlib.sha256("\0".join([HEADER.read_text(), version, *compile]).encode()).hexdigest()[:24]
    folder = _cache() / key
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=_cache(), ignore_cleanup_errors=True) as work:
            header = shutil.copy(HEADER, work)
            _gxx([*compile, "-x", "c++-header", header, "-o", f"{header}.gch"])
            with contextlib.suppress(OSError):  # another process was quicker
                os.rename(work, folder)
    return folder


def _gxx(arguments: list[str], text: str = "") -> str:
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # not for the compiler
    done = subprocess.run(["g++", *arguments], input=text, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise CompileException(done.stderr)
    return done.stdout


def _cache() -> Path:
    """A folder of this user's for compiled kernels, between one run of the tests and the next."""
    folder = Path(tempfile.gettempdir()) / f"minicnn-kernels-{os.getuid() if hasattr(os, 'getuid') else ''}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder
