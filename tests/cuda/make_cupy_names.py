"""Writes cupy_names.json: the names that an installed CuPy has, and the arguments that its functions take. The stand-in
for CuPy (standin/) has these and no others.

    python tests/cuda/make_cupy_names.py        in an environment with CuPy; no GPU is needed
"""

import functools
import importlib
import inspect
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("cupy_names.json")
MODULES = (
    "cupy", "cupy.cuda", "cupy.cuda.device", "cupy.cuda.memory", "cupy.cuda.runtime", "cupy.cuda.stream", "cupy.linalg",
    "cupy.random", "cupyx",
)  # fmt: skip
FOUND_IN_THEM = (
    "ndarray", "RawModule", "RawKernel", "cuda.Device", "cuda.Event", "cuda.MemoryPointer", "cuda.MemoryPool",
    "cuda.PinnedMemoryPointer", "cuda.Stream", "cuda.cublas",
)  # fmt: skip
METHODS = ("accumulate", "at", "outer", "reduce", "reduceat")
WITHOUT_ARGUMENTS = ("cupy.cuda.cublas", "cupy.cuda.memory", "cupy.cuda.runtime", "cupy.linalg", "cupy.random")
CONSTANTS = re.compile(r"CUBLAS_(OP|COMPUTE|GEMM|POINTER)_|CUDA_[RC]_|streamNonBlocking|memcpy[A-Z]")
OPERATORS = {name for name in dir(np.ndarray) if name.startswith("__")} - set(dir(object))
OPERATORS |= {"__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__", "__cuda_array_interface__"}


def names() -> dict[str, Any]:
    """All of it, as it is written to the file."""
    modules: dict[str, Any] = {name: importlib.import_module(name) for name in MODULES}
    cupy = modules["cupy"]
    for path in FOUND_IN_THEM:
        modules[f"cupy.{path}"] = functools.reduce(getattr, path.split("."), cupy)
    members = {name: {key: getattr(module, key) for key in _keys(module)} for name, module in modules.items()}
    return {
        "version": cupy.__version__,
        "names": {name: sorted(values) for name, values in members.items()},
        "ufuncs": {
            name: [method for method in METHODS if _has(cupy, value, method)]
            for name, value in sorted(members["cupy"].items())
            if isinstance(value, cupy.ufunc)
        },
        "arguments": {
            f"{name}.{key}": arguments
            for name, values in members.items()
            for key, value in sorted(values.items())
            if (name not in WITHOUT_ARGUMENTS or key == "gemmEx") and callable(value)
            if not isinstance(value, (type, cupy.ufunc)) and (arguments := _arguments(value)) is not None
        },
        "constants": {
            f"{name}.{key}": int(value)
            for name, values in members.items()
            for key, value in sorted(values.items())
            if CONSTANTS.match(key) and not callable(value)
        },
    }


def text(found: dict[str, Any]) -> str:
    """As JSON with lines of a sensible length."""
    return "\n".join(textwrap.wrap(json.dumps(found), 118, break_long_words=False, break_on_hyphens=False)) + "\n"


def _keys(owner: Any) -> list[str]:
    keys = dir(owner) if isinstance(owner, type) else vars(owner)
    return [key for key in keys if not key.startswith("_") or (key in OPERATORS and isinstance(owner, type))]


def _has(cupy: Any, ufunc: Any, method: str) -> bool:
    """Is ufunc.method there? Without a GPU, it gets as far as asking for one."""
    memory = np.zeros(2, np.float32)
    pointer = cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(memory.ctypes.data, memory.nbytes, memory, 0), 0)
    x, i = cupy.ndarray(2, np.float32, pointer), cupy.ndarray(1, np.int32, pointer)
    arguments = {"at": (x, i, x), "outer": (x, x), "reduceat": (x, i)}.get(method, (x,))
    try:
        getattr(ufunc, method)(*arguments)
    except NotImplementedError:
        return False
    except Exception:
        return True
    return True


def _arguments(function: Any) -> str | None:
    """The parameters, without self, as "a,axis=,*,dtype="; None if CuPy does not tell."""
    try:
        # Cython writes the signature into the docstring, with C types: "ndarray.take(self, indices, int axis=0) -> …"
        line = re.match(r"[\w.]+\((.*)\)(?: ->.*)?$", (function.__doc__ or "").replace("\\", "").partition("\n")[0])
        found = str(inspect.signature(function)) if line is None else f"({line[1]})"
    except (TypeError, ValueError):
        return None
    words, depth, word = [], 0, ""
    for c in found[1:-1].partition(") ->")[0] + ",":
        depth += (c in "([{") - (c in ")]}")
        if c == "," and not depth:
            name, default, _ = word.partition("=")
            words.append(name.partition(":")[0].split()[-1] + default if name.strip() else "")
            word = ""
        else:
            word += c
    return ",".join(word for word in words if word not in ("", "self"))


if __name__ == "__main__":
    FILE.write_text(text(names()))
    print(f"{FILE.name}: CuPy {json.loads(FILE.read_text())['version']}")
