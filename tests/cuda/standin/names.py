"""What CuPy has, by cupy_names.json, and what its functions take. The stand-in has no more.

`cupy` is the stand-in's module, which the other files here fill: they find each other's functions in it, as CuPy does.
"""

import functools
import inspect
import json
import types
from pathlib import Path
from typing import Any

_FILE = json.loads(Path(__file__).parent.with_name("cupy_names.json").read_text())
VERSION: str = _FILE["version"]
ARGUMENTS: dict[str, str] = _FILE["arguments"]
UFUNCS: dict[str, list[str]] = _FILE["ufuncs"]  # the methods that work, such as reduce
CONSTANTS: dict[str, int] = _FILE["constants"]
cupy: Any = types.ModuleType("cupy")
_NAMES = {owner: set(names) for owner, names in _FILE["names"].items()}


def has(owner: str, name: str) -> bool:
    """Is there "cupy.ndarray" "sum"?"""
    return name in _NAMES[owner]


def members(owner: str) -> list[str]:
    return sorted(_NAMES[owner])


def constants(owner: str) -> dict[str, int]:
    """The numbers with a name in a module."""
    return {name.rpartition(".")[2]: value for name, value in CONSTANTS.items() if name.rpartition(".")[0] == owner}


def check_arguments(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """TypeError unless "cupy.sum" can be called like this."""
    if complaint := _complaint(function, len(args), tuple(kwargs)):
        raise TypeError(f"{function}: {complaint} (NumPy may, CuPy {VERSION} does not)")


@functools.cache
def _complaint(function: str, count: int, keywords: tuple[str, ...]) -> str | None:
    signature = _signature(function)
    if signature is None:
        return None
    try:
        signature.bind(*[None] * count, **dict.fromkeys(keywords))
    except TypeError as error:
        return str(error)
    return None


def _signature(function: str) -> inspect.Signature | None:
    if function not in ARGUMENTS:
        return None
    parameters: list[inspect.Parameter] = []
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    for word in ARGUMENTS[function].split(","):
        name, default = word.strip("*="), None if word.endswith("=") else inspect.Parameter.empty
        if word == "/":
            parameters = [parameter.replace(kind=inspect.Parameter.POSITIONAL_ONLY) for parameter in parameters]
        elif word.startswith("**"):
            parameters.append(inspect.Parameter(name, inspect.Parameter.VAR_KEYWORD))
        elif word.startswith("*"):
            kind = inspect.Parameter.KEYWORD_ONLY
            if name:
                parameters.append(inspect.Parameter(name, inspect.Parameter.VAR_POSITIONAL))
        elif word:
            parameters.append(inspect.Parameter(name, kind, default=default))
    return inspect.Signature(parameters)


class NotSimulated:
    """In the place of what CuPy has and the stand-in has not."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"the stand-in for CuPy has no {self.name}")

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(f"the stand-in for CuPy has no {self.name}.{name}")


def fill(module: types.ModuleType, owner: str, content: dict[str, Any]) -> types.ModuleType:
    """Give a module these things, and a NotSimulated in place of all others that CuPy's module has."""
    if surplus := [name for name in content if not has(owner, name)]:
        raise AttributeError(f"CuPy {VERSION} has no {owner}.{surplus[0]}")
    for name in members(owner):
        setattr(module, name, content.get(name, NotSimulated(f"{owner}.{name}")))
    return module
