"""Docstrings have one form, Google's, as `pdoc --docformat google` parses it, so that the API pages are
complete: what a name computes, its Args, Returns and Raises."""

import ast
import importlib
import inspect
import io
import pkgutil
import re
import tokenize
from pathlib import Path

import pytest

import minicnn

# the modules, or packages, whose public names have this form
MODULES = [
    "minicnn.functional", "minicnn.nn", "minicnn.tensor", "minicnn.ops", "minicnn.autograd", "minicnn.data", "minicnn.optim",
    "minicnn.anomaly", "minicnn.checkpoint", "minicnn.gradcheck", "minicnn.dlpack", "minicnn.random", "minicnn.backends",
]  # fmt: skip

SECTIONS = {"Args", "Returns", "Yields", "Raises", "Attributes", "Example"}
ONE_ARGUMENT = {"relu", "sigmoid", "tanh", "gelu"}  # their first sentence says what x is mapped to
PACKAGES = [minicnn, minicnn.functional, minicnn.nn, minicnn.nn.init, minicnn.optim, minicnn.data]
ALL_MODULES = ["minicnn"] + [name for _, name, _ in pkgutil.walk_packages(minicnn.__path__, "minicnn.")]
ROOT = Path(__file__).parents[1]
PROGRAMS = sorted([*ROOT.glob("examples/**/*.py"), *ROOT.glob("benchmarks/*.py")])
WIDTH = 100


def is_in(module, name):
    return f"{name}.".startswith(f"{module}.")


def public(module):
    """{name: callable} of what the packages export and this module, or a module in it, defines."""
    names = {f"{package.__name__}.{name}": getattr(package, name) for package in PACKAGES for name in package.__all__}
    return {name: thing for name, thing in names.items() if callable(thing) and is_in(module, thing.__module__)}


def methods(kind):
    """{name: function} of the public methods that a class itself defines."""
    found = {name: getattr(value, "__func__", value) for name, value in vars(kind).items() if name[0] != "_"}
    return {name: value for name, value in found.items() if inspect.isfunction(value)}


def headings(text):
    """The lines that a parser of Google's form takes for the heading of a section: letters and blanks
    that end in a colon, followed by an indented block."""
    return re.findall(r"^([A-Z][A-Za-z ]+):\n(?=\n*[ \t]+\S)", inspect.cleandoc(text), re.MULTILINE)


def section(text, name):
    """The indented text under a heading; None if there is no such heading."""
    found = re.search(rf"^{name}:\n((?:\n|[ \t]+.*\n?)+)", inspect.cleandoc(text), re.MULTILINE)
    return found and inspect.cleandoc("\n" + found[1])


def arguments(text):
    """The names in the Args section; None if there is none."""
    args = section(text, "Args")
    if args is None:
        return None
    items = re.findall(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*): ", args, re.MULTILINE)
    return [name.lstrip("*") for item in items for name in item.split(", ")]


def parameters(function):
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def problems(thing, name, complete=True):
    """What is wrong with the docstring of a function or a class, as text. A class may describe its
    arguments in __init__. If not `complete`, an Args section may be missing, but not be wrong."""
    text = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    if not text:
        return [f"{name} has no docstring"]
    found = [f"{name}: the section {heading} is unknown" for heading in headings(text) if heading not in SECTIONS]
    if re.search(r"\bRaises \w", text):
        found.append(f"{name}: what it raises belongs in a section")
    if isinstance(thing, type) and issubclass(thing, BaseException):
        return found
    described = arguments(text)
    if described is None and inspect.isclass(thing):
        described = arguments(thing.__init__.__doc__ or "")
    wanted = parameters(thing)
    if described is None and (not complete or not wanted or name.rpartition(".")[2] in ONE_ARGUMENT):
        return found
    if sorted(described or []) != sorted(wanted):
        found.append(f"{name}: the Args are {described}, the parameters {wanted}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_public_names_describe_their_arguments(module):
    things = public(module)
    assert things or module == "minicnn.ops"  # which has no public names
    assert [line for name, thing in things.items() for line in problems(thing, name)] == []


@pytest.mark.parametrize("module", MODULES)
def test_public_methods_describe_their_arguments_rightly(module):
    classes = {name: thing for name, thing in public(module).items() if inspect.isclass(thing)}
    pairs = [(f"{name}.{method}", f) for name, kind in classes.items() for method, f in methods(kind).items()]
    undocumented = {
        "forward",
        "backward",
        "flops",
        "extra_repr",
        "parameters",
        "check",
        "update",
    }  # documented in the base class
    found = [
        line
        for name, function in pairs
        if function.__doc__ or name.rpartition(".")[2] not in undocumented
        for line in problems(function, name, complete=False)
    ]
    assert found == []


def docstrings(source):
    """(line number, line) of all docstrings in the source of a module."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            first = node.body[0]
            yield from ((i + 1, lines[i]) for i in range(first.lineno - 1, first.end_lineno))


@pytest.mark.parametrize("name", ALL_MODULES)
def test_no_sentence_is_taken_for_a_section(name):
    source = Path(importlib.import_module(name).__file__).read_text(encoding="utf-8")
    nodes = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
    ]
    texts = [ast.get_docstring(node) or "" for node in nodes]
    assert [heading for text in texts for heading in headings(text) if heading not in SECTIONS] == []


def wide(source):
    """(line number, line) of the docstrings and comments that are too wide."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [(t.start[0], t.line.rstrip()) for t in tokens if t.type == tokenize.COMMENT and "fmt:" not in t.string]
    return [(number, line) for number, line in [*docstrings(source), *comments] if len(line) > WIDTH]


@pytest.mark.parametrize("name", [name for name in ALL_MODULES if any(is_in(module, name) for module in MODULES)])
def test_text_is_at_most_100_columns_wide(name):
    assert wide(Path(importlib.import_module(name).__file__).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_text_of_programs_is_at_most_100_columns_wide(path):
    assert wide(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ROOT.glob("minicnn/**/*")) if path.suffix in (".c", ".cu", ".h")],
    ids=lambda p: p.name,
)
def test_text_of_kernels_is_at_most_100_columns_wide(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.lstrip().startswith("//") and len(line) > WIDTH] == []


def test_annotations_of_tensor_mean_the_builtin_types():
    """Tools evaluate them among the names of the class, which has no float or int of its own."""
    assert not {"bool", "float", "int", "type"} & set(vars(minicnn.Tensor))
    assert inspect.getdoc(vars(minicnn.habits.TensorHabits)["float"]) == "@private"


def test_the_checks_find_what_is_wrong():
    def f(x, stride=1, *rest):
        """One sentence.

        Args:
            x: (N, C): a colon
                stride: not an item.
        This is not one:
            text
        """

    def g(x):
        """One sentence. Raises ValueError if x is odd.

        Args:
            x, y: two.
        """

    def h(x, **options):
        """One sentence.

        Args:
            x: with a
                second line.
            **options: the rest.
        Returns:
            x.
        """

    assert problems(f, "f") == [
        "f: the section This is not one is unknown",
        "f: the Args are ['x'], the parameters ['x', 'stride', 'rest']",
    ]
    assert problems(g, "g") == [
        "g: what it raises belongs in a section",
        "g: the Args are ['x', 'y'], the parameters ['x']",
    ]
    assert problems(h, "h") == []
    assert problems(lambda: 0, "l") == ["l has no docstring"]
    assert wide(f'"""{"x" * 97}\n\n{"x" * 101}"""\ny = "{"x" * 101}"\nz = 0  # {"x" * 92}') == [
        (3, "x" * 101 + '"""'),
        (5, "z = 0  # " + "x" * 92),
    ]
