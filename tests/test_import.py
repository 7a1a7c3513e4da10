"""What importing minicnn does and does not do, and which file may import which: the floors of the house."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import threadpoolctl

import minicnn

PACKAGE = Path(minicnn.__file__).parent
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
FLOORS = [  # from the ground up; a file imports from lower floors, and from its own room
    ["devices"],
    ["backend"],
    ["cuda"],
    ["data", "products"],
    ["autograd"],
    ["ops"],
    ["tensor"],
    ["dlpack", "gradcheck"],
    ["functional"],
    ["nn"],
    ["optim"],
    ["checkpoint", "distributed"],
    ["__init__"],
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
EXTRAS = {"PIL", "safetensors", "cupy", "mpi4py"}  # optional packages, imported where they are needed

ISOLATED = """
import socket, sys, threading
sys.path[:0] = sys.argv[1:]
import numpy, threadpoolctl

class Only:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names | {"minicnn", "numpy", "threadpoolctl"}:
            raise AssertionError(f"imports {name}")

def offline(*args, **kwargs):
    raise AssertionError("uses the network")

sys.meta_path.insert(0, Only())
socket.socket.connect = socket.create_connection = socket.getaddrinfo = offline
import minicnn
assert threading.active_count() == 1, "starts threads"
x = minicnn.Tensor([[1.0, 2.0]], requires_grad=True)
minicnn.nn.Linear(2, 1)(x).sum().backward()
print("done")
"""


def test_importing_needs_numpy_and_threadpoolctl_only_and_no_network():
    folders = PACKAGE.parent, Path(numpy.__file__).parents[1], Path(threadpoolctl.__file__).parent
    command = [sys.executable, "-W", "error", "-c", ISOLATED, *map(str, folders)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("done\n", "")


def room(path):
    return path.parts[0].removesuffix(".py")


def imported(path):
    """(node, dotted name) for each import in a file; names inside the package begin with minicnn."""
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node, node.module
        elif isinstance(node, ast.ImportFrom):
            folder = ("minicnn", *path.parts[: len(path.parts) - node.level])
            module = (*folder, *(node.module or "").split("."))
            yield from ((node, ".".join(filter(None, (*module, alias.name)))) for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_from_lower_floors_only(path):
    for node, name in imported(path):
        package, _, rest = name.partition(".")
        target, where = rest.partition(".")[0], f"line {node.lineno}: {name}"
        if package != "minicnn":
            assert package in sys.stdlib_module_names | {"numpy", "threadpoolctl"} | EXTRAS, where
        elif target != room(path):
            assert LEVEL[target] < LEVEL[room(path)], where
            assert room(path) != "data" or target == "backend", where  # arrays in, arrays out, no Tensor
            assert target != "devices" or room(path) == "backend", where  # which hands it on
        at_top = node.col_offset == 0
        assert at_top is (package not in EXTRAS), where  # what is optional is imported where it is needed
        assert package != "cupy" or room(path) == "devices", where


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_has_a_docstring_and_an_end(path):
    text = (PACKAGE / path).read_text()
    assert ast.get_docstring(ast.parse(text)), "no docstring"
    assert len(text.splitlines()) <= (300 if room(path) == "functional" else 500)


def test_the_parser_sees_the_imports():
    edges = {
        (room(path), name.split(".")[1]) for path in FILES for _, name in imported(path) if name.startswith("minicnn.")
    }
    assert {("tensor", "ops"), ("ops", "autograd"), ("nn", "functional"), ("__init__", "nn")} <= edges


def test_nothing_is_patched_onto_a_class_and_globals_change_in_the_backend_only():
    for path in FILES:
        for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
            where = f"{path}, line {getattr(node, 'lineno', 0)}"
            for target in node.targets if isinstance(node, ast.Assign) else []:
                owner = getattr(getattr(target, "value", None), "id", "")
                assert not (isinstance(target, ast.Attribute) and owner[:1].isupper()), where
            assert not isinstance(node, ast.Global) or room(path) == "backend", where


def test_no_message_installs_what_others_have_named_minicnn():
    """On PyPI that name is another project's: messages name the packages that help."""
    files = [
        path for folder in ("minicnn", "examples", "benchmarks") for path in (PACKAGE.parent / folder).rglob("*.py")
    ]
    assert not [path.name for path in files if re.search(r"install ['\"]?minicnn", path.read_text(encoding="utf-8"))]
