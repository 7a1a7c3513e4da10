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
FLOORS = [  # from the ground up; a room imports from lower floors, and from itself
    ["checks", "habits"],
    ["backends/devices"],
    ["random"],
    ["backends"],  # its __init__.py: the registry
    ["backends/numpy", "backends/cuda"],
    ["backends/native"],  # it shares the NumPy backend's threads and memory
    ["workers"],
    ["mpi", "autograd"],
    ["ops"],
    ["tensor"],
    ["dlpack", "gradcheck"],
    ["functional"],
    ["data"],
    ["nn"],
    ["optim", "anomaly"],
    ["captured", "checkpoint", "distributed"],
    ["__init__"],
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
EXTRAS = {"PIL", "cupy", "mpi4py"}  # optional packages, imported where they are needed

ISOLATED = """
import socket, sys, threading
sys.path[:0] = sys.argv[1:]
import numpy, threadpoolctl

class Only:
    def find_spec(self, name, path=None, target=None):
        if name == "org":  # Jython's, which copy.py of Python 3.10 asks for
            return None
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


def room(name):
    """Of a module's dotted name: "backends.numpy.conv" is in backends/numpy, "functional.conv" in functional."""
    first, *rest = name.split(".")
    if first != "backends" or not rest or f"backends/{rest[0]}" not in LEVEL:
        return first
    return f"backends/{rest[0]}"


def room_of(path):
    return room(".".join(path.with_suffix("").parts))


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
        where = f"line {node.lineno}: {name}"
        if package != "minicnn":
            assert package in sys.stdlib_module_names | {"numpy", "threadpoolctl"} | EXTRAS, where
        elif room(rest) != room_of(path):
            assert LEVEL[room(rest)] < LEVEL[room_of(path)], where
            assert room_of(path) != "data" or rest.startswith(("backends", "checks")), where  # arrays, no Tensor
        at_top = node.col_offset == 0
        assert at_top is (package not in EXTRAS), where  # the optional are imported where they are needed
        assert package != "cupy" or path == Path("backends/cuda/devices.py"), where


def test_the_backends_do_not_know_the_lessons_or_each_other():
    """The fast version of a lesson is found by the lesson's name."""
    for path in FILES:
        mine = room_of(path)
        for node, name in imported(path) if mine in ("backends/numpy", "backends/cuda") else ():
            if name.startswith("minicnn."):
                assert room(name.partition(".")[2]) in (mine, "backends", "backends/devices", "random", "checks"), (
                    path,
                    node.lineno,
                )


def test_the_registry_knows_no_backend():
    names = {name for _, name in imported(Path("backends/__init__.py")) if name.startswith("minicnn.")}
    assert {room(name.partition(".")[2]) for name in names} == {"backends/devices", "checks"}


def test_the_lessons_name_no_backend():
    """They ask the registry, which finds the version for an array."""
    for path in FILES:
        names = [name for _, name in imported(path) if room_of(path) in ("functional", "ops", "tensor", "autograd")]
        assert not [name for name in names if name.startswith(("minicnn.backends.numpy", "minicnn.backends.cuda"))], (
            path
        )


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_has_a_docstring(path):
    assert ast.get_docstring(ast.parse((PACKAGE / path).read_text())), "no docstring"


def test_the_parser_sees_the_imports():
    edges = {
        (room_of(path), room(name.partition(".")[2]))
        for path in FILES
        for _, name in imported(path)
        if name.startswith("minicnn.")
    }
    assert {
        ("tensor", "ops"), ("ops", "autograd"), ("nn", "functional"), ("__init__", "nn"), ("functional", "backends"),
        ("backends/numpy", "backends"), ("backends", "backends/devices"), ("__init__", "backends/cuda"),
    } <= edges  # fmt: skip


def test_nothing_is_patched_onto_a_class():
    for path in FILES:
        for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
            for target in node.targets if isinstance(node, ast.Assign) else []:
                owner = getattr(getattr(target, "value", None), "id", "")
                patched = isinstance(target, ast.Attribute) and owner[:1].isupper()
                assert not patched, f"{path}, line {node.lineno}"


def test_no_message_installs_what_others_have_named_minicnn():
    """On PyPI that name is another project's: messages name the packages that help."""
    files = [
        path for folder in ("minicnn", "examples", "benchmarks") for path in (PACKAGE.parent / folder).rglob("*.py")
    ]
    assert not [path.name for path in files if re.search(r"install ['\"]?minicnn", path.read_text(encoding="utf-8"))]


def test_what_tab_completion_offers():
    for module in (minicnn.nn.init, minicnn.data.transforms):
        assert dir(module) == sorted(module.__all__) and all(hasattr(module, name) for name in module.__all__)
        public = {name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
        assert set(module.__all__) <= public
    assert "he" in dir(minicnn.nn.init) and "Resize" in dir(minicnn.data.transforms)
    for module in (minicnn, minicnn.nn, minicnn.data, minicnn.optim):
        assert set(module.__all__) <= set(dir(module))
    assert minicnn.CheckpointError is minicnn.checkpoint.CheckpointError
