"""The rig: CuPy's real wheel on a machine that has no NVIDIA driver.

    python tests/cuda/rig examples/alexnet/train.py --device gpu      any program, with arguments
    python tests/cuda/rig --zeros examples/alexnet/train.py …         what nobody has written is 0
    python tests/cuda/rig --zeros -m pytest -p rig_values -m gpu …    (rig_values.py says what for)

CuPy's compiled modules find each other's C functions in tables, `__pyx_capi__`. Before a program
imports cupy, install() replaces those that would call the driver by the functions of driver.c, and
loads a libcublas in which every function returns 0, and a libnccl that notes its calls (nccl.c).
All that lies above then runs as on a GPU: ufuncs, reductions, memory pools, streams, events, DLPack,
NVRTC (for sm_90) and the kernel cache, and in minicnn all of backends/cuda.

What it shows: errors, warnings, what is asked of a GPU, and what that costs the host.
What it does not show: any value that a kernel or a product computes, for they do nothing; whether
the order of streams and events is right, for everything is done at once; how long a GPU takes;
whether a kernel stays inside its arrays. For these there is the stand-in (tests/cuda/standin),
which computes, and in the end only a GPU. CUB and Thrust, with which CuPy adds up and sorts, bring
kernels of their own, past these tables: here they do nothing, and are not counted.
"""

import ctypes
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ZEROS = "MINICNN_RIG_ZEROS"  # set where fresh arrays are to be 0
CUPY = (14, 2), (15, 0)  # from this version on, before that one
WHEELS = ("cupy-cuda12x", "cupy-cuda13x")
BACKENDS = "cupy_backends.cuda."
# A function of driver.c: what it returns, whose place it takes, its parameters.
FUNCTION = re.compile(r"^(\w[\w ]*?) ?(\**)(runtime|driver)_(\w+)\(([^)]*)\) \{", re.MULTILINE)
COUNTER = re.compile(r"\bcount_(\w+)")
TYPES = {
    "int": ctypes.c_int, "unsigned int": ctypes.c_uint, "size_t": ctypes.c_size_t, "float": ctypes.c_float,
    "intptr_t": ctypes.c_ssize_t, "PyObject *": ctypes.py_object,
}  # fmt: skip
# The functions of cuBLAS that give something back: a handle, a setting or a version.
GETTERS = re.compile(r"cublas(Create|Get)\w*")


class Unusable(RuntimeError):
    """The rig cannot be built here, or does not fit this CuPy; one line says why."""


# ------------------------------------------------------------------------------------------ to build
def build() -> Path:
    """The folder with the libraries, for this Python and this CuPy; compiled at first use. Raises
    Unusable."""
    if not sys.platform.startswith("linux"):
        raise Unusable("it needs Linux, whose loader takes the place of a library")
    cublas = _cublas_module()
    try:
        importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("nvrtc")
    except (ImportError, RuntimeError) as error:
        raise Unusable(f"NVRTC is not installed: {str(error).splitlines()[0]}") from None
    key = hashlib.sha256(repr((sys.version, sys.prefix, os.fspath(cublas), cublas.stat().st_mtime)).encode())
    for source in (HERE / "driver.c", HERE / "nccl.c", Path(__file__)):
        key.update(source.read_bytes())
    folder = cache() / key.hexdigest()[:16]
    if folder.is_dir():
        with suppress(OSError):
            os.utime(folder)  # it is in use: see _remove_old
    else:
        try:
            cache().mkdir(parents=True, exist_ok=True)
            _remove_old()
            _compile_all(folder, cublas)
        except OSError as error:
            raise Unusable(f"{error.filename or cache()} cannot be written: {error.strerror}") from None
    return folder


def _compile_all(folder: Path, cublas: Path) -> None:
    """The folder is whole or not there, for others may be at it as well."""
    compiler, headers = shutil.which("cc"), sysconfig.get_paths()["include"]
    if compiler is None:
        raise Unusable("there is no C compiler (cc)")
    if not Path(headers, "Python.h").is_file():
        raise Unusable(f"there are no headers of Python to compile with: {headers}/Python.h")
    fresh = Path(tempfile.mkdtemp(dir=cache()))
    try:
        _compile(compiler, fresh / "driver.so", HERE / "driver.c", f"-I{headers}")
        _compile_cublas(compiler, fresh, cublas.read_bytes())
        _compile(compiler, fresh / "nccl.so", HERE / "nccl.c", "-Wl,-soname,libnccl.so.2")
        try:
            os.rename(fresh, folder)
        except OSError:
            if not folder.is_dir():  # nobody else has made it
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _remove_old() -> None:
    """What no Python has used for a month; CuPy's kernels are CuPy's own business."""
    for old in cache().iterdir():
        with suppress(OSError):  # others may be removing it, or renaming what they have made
            if old.name != "kernels" and old.stat().st_mtime < time.time() - 30 * 86400:
                shutil.rmtree(old)


def cache() -> Path:
    """Where the rig keeps what it has compiled, and CuPy the kernels that it compiles on the rig."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minicnn-rig"


def _cublas_module() -> Path:
    """CuPy's module that asks for libcublas. Raises Unusable without a CuPy that the rig knows."""
    for wheel in WHEELS:
        try:
            version = importlib.metadata.version(wheel)
        except importlib.metadata.PackageNotFoundError:
            continue
        if not CUPY[0] <= tuple(int(part) for part in version.split(".")[:2]) < CUPY[1]:
            raise Unusable(f"it is made for CuPy 14.2 and later 14s, not for {wheel} {version}")
        spec = importlib.util.find_spec("cupy_backends")
        assert spec is not None and spec.submodule_search_locations is not None
        return next(Path(spec.submodule_search_locations[0]).glob("cuda/libs/cublas.*.so"))
    raise Unusable(f"no wheel of CuPy is installed ({' or '.join(WHEELS)})")


def _compile(compiler: str, library: Path, *arguments: Any) -> None:
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", library, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        said = next((line for line in lines if "error" in line), lines[-1])
        raise Unusable(f"{shlex.join(map(str, command))}: {said}")


def _compile_cublas(compiler: str, folder: Path, module: bytes) -> None:
    """cublas.so, which the loader takes for the libcublas that this module of CuPy asks for: it has
    that soname, and each function by that version. Products are counted."""
    found = re.search(rb"libcublas\.so\.\d+", module)
    assert found is not None
    soname = found[0].decode()
    lines = ["long count_products;"]
    asked = {name.decode() for name in re.findall(rb"(?<=\0)cublas[A-Z]\w+(?=\0)", module)}
    for name in sorted(asked | {"cublasSetWorkspace_v2"}):  # which minicnn calls past CuPy
        if GETTERS.fullmatch(name):
            given = "void **result" if "Create" in name else "void *handle, int *result"
            lines.append(f"int {name}({given}) {{ *result = {'result' if 'Create' in name else 0}; return 0; }}")
        else:
            counting = "++count_products; " if "gemm" in name.lower() else ""
            lines.append(f"int {name}(void) {{ {counting}return 0; }}")
    (folder / "cublas.c").write_text("\n".join(lines) + "\n")
    (folder / "versions").write_text(f"{soname} {{ global: *; }};\n")
    linking = [f"-Wl,-soname,{soname}", f"-Wl,--version-script={folder / 'versions'}"]
    _compile(compiler, folder / "cublas.so", folder / "cublas.c", *linking)
    (folder / "empty.c").touch()  # CuPy looks for the library below it, too, which need only be there
    lower = soname.replace("cublas", "cublasLt")
    _compile(compiler, folder / "cublasLt.so", folder / "empty.c", f"-Wl,-soname,{lower}")


# ---------------------------------------------------------------------------------------- to install
def install() -> None:
    """Put the rig's functions in the place of CuPy's, in this process. Raises Unusable."""
    folder = build()
    for name in ("cublasLt", "cublas", "nccl"):
        loaded[name] = ctypes.CDLL(os.fspath(folder / f"{name}.so"), ctypes.RTLD_GLOBAL)
    loaded["driver"] = library = ctypes.PyDLL(os.fspath(folder / "driver.so"))
    modules = {name: importlib.import_module(f"{BACKENDS}api.{name}") for name in ("runtime", "driver")}
    raising = modules["runtime"].__pyx_capi__["check_status"]
    _known("runtime.check_status", raising, "PyObject *(int, int)")
    ctypes.c_void_p.in_dll(library, "check_status").value = _pointer(raising, _name(raising))
    for result, stars, owner, name, parameters in FUNCTION.findall((HERE / "driver.c").read_text()):
        result = f"{result} {stars}".strip()
        types = [_type(parameter) for parameter in parameters.replace("\n", " ").split(",")]
        table, function = modules[owner].__pyx_capi__, getattr(library, f"{owner}_{name}")
        old = table.get(name)
        _known(f"{owner}.{name}", old, f"{result}({', '.join(types)})")
        kept.append(old)  # with its name, which the new one shares
        table[name] = _capsule(ctypes.cast(function, ctypes.c_void_p).value, _name(old), None)
        if types[-1] == "int":  # what Python calls, but for the last argument, which only Cython passes
            function.restype, function.argtypes = TYPES[result], [TYPES[kind] for kind in types]
            setattr(modules[owner], name, lambda *args, function=function: function(*args, 0))


def start() -> None:
    """Import cupy on the rig, in a process that was not started on it and has no cupy yet. Raises Unusable."""
    os.environ.setdefault("CUPY_CACHE_DIR", str(cache() / "kernels"))
    install()
    finish(importlib.import_module("cupy"))


def finish(cupy: Any) -> None:
    """What is left to do when cupy has been imported."""
    for name in ("argsort", "lexsort", "sort"):
        setattr(cupy.cuda.thrust, name, lambda *args: None)
    if os.environ.get(ZEROS):
        pool = cupy.get_default_memory_pool()

        def zeroed(size: int) -> Any:
            memory = pool.malloc(size)
            ctypes.memset(memory.ptr, 0, size)
            return memory

        cupy.cuda.set_allocator(zeroed)


def counts() -> dict[str, int]:
    """How often this process has asked the rig for: launches, products, copies, waits, blocks of memory
    on the GPU and of pinned memory, modules."""
    names = dict.fromkeys(COUNTER.findall((HERE / "driver.c").read_text()))
    found = {name: ctypes.c_long.in_dll(loaded["driver"], f"count_{name}").value for name in names}
    return {**found, "products": ctypes.c_long.in_dll(loaded["cublas"], "count_products").value}


loaded: dict[str, Any] = {}
kept: list[Any] = []
_name = ctypes.pythonapi.PyCapsule_GetName
_name.restype, _name.argtypes = ctypes.c_void_p, [ctypes.py_object]
_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = ctypes.py_object, [ctypes.c_void_p] * 3
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_void_p]


def _type(parameter: str) -> str:
    """Of a declared parameter, such as "PyObject *image"."""
    kind, star, _ = parameter.strip().partition("*")
    return f"{kind.strip()} *" if star else kind if kind == "void" else kind.rpartition(" ")[0]


def _known(what: str, entry: Any, declared: str) -> None:
    """Raises Unusable unless CuPy has that entry, declared as driver.c declares it."""
    if entry is None:
        raise Unusable(f"this CuPy has no {what}, which driver.c replaces")
    theirs = ctypes.string_at(_name(entry)).decode().replace(" __pyx_skip_dispatch", "")
    theirs = re.sub(r"struct __pyx_opt_args_\w+ \*__pyx_optional_args", "void *", theirs)
    theirs = re.sub(r"struct __pyx_obj_\w+ \*", "PyObject *", theirs)
    if theirs.replace(" ", "") != declared.replace(" ", ""):
        raise Unusable(f"this CuPy declares {what} as {theirs}, and driver.c as {declared}")
