"""The mutation check itself, on small sources and on a small module with its tests."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import mutation
import mutation_kernels
import pytest
from mutants import mutants_of

BODIES = {  # (line of a function, the text that is looked at) -> what becomes of it
    "return a + b": {"return a - b", "return a", "return b"},
    "return a - b": {"return a + b", "return a", "return -b"},
    "return a * b": {"return a / b", "return a", "return b"},
    "return a // b": {"return a * b", "return a"},
    "return a ** b": {"return a"},
    "return a @ b": {"return b @ a"},
    "return -a": {"return a"},
    "return ~a": {"return a"},
    "return a < b": {"return a <= b", "return a > b"},
    "return a == b": {"return a != b"},
    "return a is b": {"return a is not b"},
    "return a in b": {"return a not in b"},
    "return a and b": {"return a or b", "return a", "return b"},
    "return not a": {"return a"},
    "return a if b else c": {"return a if not b else c"},
    "return 0": {"return 1"},
    "return 3": {"return 4"},
    "return 0.0": {"return 1.0"},
    "return 0.5": {"return 1.0"},
    "return f(a, keepdims=True)": {"return f(a, keepdims=False)"},
    "return f(a, axis=b)": {"return f(a)"},
    "return f(a, like=b, strict=True)": set(),
    "return f(a, out=b[0])": {"return f(a, out=b[1])"},
    "return a[b:c]": {"return a[b + 1:c]", "return a[b:c - 1]"},
    "return a[:2]": {"return a[:3]"},
    "return a[::-1]": {"return a[::1]", "return a[::-2]"},
    "return a[b]": {"return a[b + 1]"},
    "return range(a)": {"return range(a - 1)"},
    "return a.T": {"return a"},
    "return a.reshape(-1)": {"return a", "return a.reshape(1)"},
    "return np.maximum(a, b)": {"return np.minimum(a, b)"},
    "return a.sum()": {"return a.mean()", "return a"},
    "return max(a, b)": {"return min(a, b)", "return a", "return b"},
    "return unbroadcast(a, b)": {"return a"},
    "return [i for i in a if i]": {"return [i for i in a if not i]"},
    "a += b": {"a -= b", "pass"},
    "a[b] = c": {"a[b + 1] = c", "pass"},
    "a = f(a)": {"pass"},
    "b = f(a)": set(),
    "np.copyto(a, b)": {"pass"},
    "raise ValueError(f'{a + 1} is ' + 'wrong')": {"pass"},
    "return f'{a + 1}'": set(),
    "b: int | None = c": set(),
}


def changes(source: str) -> list[tuple[str, str, str]]:
    return [(m.function, m.before, m.after) for m in mutants_of(textwrap.dedent(source), "toy.py")]


@pytest.mark.parametrize("line", BODIES)
def test_kinds_of_mistakes(line):
    found = changes(f"def function(a, b, c):\n    {line}\n")
    assert all(function == "function" and before == line for function, before, _ in found)
    assert {after for _, _, after in found} == BODIES[line]


def test_conditions_and_blocks():
    source = """
        def function(a, b):
            if a:
                return b
            while a < b:
                continue
            with no_grad():
                return a
            with on_device_of(b[0]):  # of a device there is but one here
                return a
    """
    assert {(before, after) for _, before, after in changes(source)} == {
        ("if a:", "if not a:"),
        ("while a < b:", "while not a < b:"),
        ("while a < b:", "while a <= b:"),
        ("continue", "break"),
        ("with no_grad():", "if True:"),
    }


def test_lost_gradients():
    source = """
        class Op:
            def forward(self, x):
                return x
            def backward(self, g):
                return f(g), (g if x else None)
    """
    whole = "return (f(g), g if x else None)"
    assert {after for name, before, after in changes(source) if before == whole} == {
        f"return ({first}, {second} if {test} else None)"
        for first, second, test in [
            ("None", "g", "x"), ("f(g) * 0.0", "g", "x"), ("f(g) * 2.0", "g", "x"),
            ("f(g)", "None", "x"), ("f(g)", "g * 0.0", "x"), ("f(g)", "g * 2.0", "x"), ("f(g)", "g", "not x"),
        ]
    }  # fmt: skip
    assert {name for name, _, _ in changes(source)} == {"Op.backward"}


def test_what_is_left_alone_and_what_a_class_holds():
    source = '''
        """Docstring 1."""
        LIMIT = 1 + 1

        class Op:
            """Docstring 2."""
            reads: "1 + 1" = (0,)
            @decorated(1)
            def forward(self, x: "1 + 1", n=5, *, k=-1.0) -> "1 + 1":
                """Docstring 3."""
                return x
    '''
    assert sorted(changes(source)) == [
        ("Op", "reads: '1 + 1' = (0,)", "reads: '1 + 1' = (1,)"),
        ("Op.forward", "k=-1.0", "k=-2.0"),
        ("Op.forward", "k=-1.0", "k=1.0"),
        ("Op.forward", "n=5", "n=6"),
    ]


def test_equal_bytecode_is_no_mutant():
    found = changes("def function(a):\n    return (1 << 0) * a")
    assert ("function", "return (1 << 0) * a", "return (2 << 0) * a") in found
    assert ("function", "return (1 << 0) * a", "return (1 << 1) * a") not in found  # 2 once more
    assert ("function", "return (1 << 0) * a", "return (1 >> 0) * a") not in found  # no change


def test_marks_of_equivalent_mutants():
    source = """
        f(a)  # equivalent (sign, a term): why
            // equivalent (<): because
            if (a < b)
        # not equivalent (sign): a note
    """
    assert mutation.read_marks(source) == {(2, "sign"): "why", (2, "a term"): "why", (4, "<"): "because"}


TOY = """
import functools

def decorated(function):
    return functools.wraps(function)(lambda *args: function(*args))

@decorated
def double(x, by=2):
    return x * by

def until(n):
    while n > 0:
        n -= 1
    return n

class Base:
    def __init__(self):
        self.ready = True

class Op(Base):
    size = 3
    def __init__(self):
        super().__init__()
    @property
    def area(self):
        return self.size * self.size
    @classmethod
    def two(cls):
        return [cls(), cls()][:2]

def untested(x):
    return -x
"""
TOY_TESTS = """
from toy import Op, double, until  # names imported beforehand see the mutants, too

def test_double():
    assert double(3) == 6

def test_until():
    assert until(3) == 0

def test_op():
    assert Op().ready and Op().area == 9 and len(Op.two()) == 2
"""
SMALL = "def double(x):\n    return x + x\n\n\ndef negative(x):\n    return -x\n"
SMALL_TESTS = "from toy import double\n\n\ndef test_double():\n    assert double(3) == 6\n"
MARKED = SMALL.replace("return -x", "return -x  # equivalent (sign): nothing calls it")


@pytest.fixture
def mutation_of(tmp_path):
    """Run the check on a module of its own."""
    if not hasattr(os, "fork"):
        pytest.skip("mutants run in forked children")
    root = Path(mutation.__file__).resolve().parent
    setup = f"mutation.ROOT = pathlib.Path({str(tmp_path)!r}); mutation.TABLE = {{'toy': 'tests/test_toy.py'}}"
    script = f"import pathlib, sys, mutation; {setup}; mutation.LIMIT = 1.0, 20.0; sys.exit(mutation.main())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root.parent)])}

    def run(source, tests):
        (tmp_path / "tests").mkdir()
        (tmp_path / "toy.py").write_text(source)
        (tmp_path / "tests" / "test_toy.py").write_text(tests)
        command = [sys.executable, "-c", script, "--show", "--jobs", "2"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")

    return run


def test_killed_timed_out_and_survived(mutation_of):
    result = mutation_of(TOY, TOY_TESTS)
    assert result.returncode == 1, result.stdout + result.stderr
    told, _, survivors = result.stdout.partition("\nSurvived:\n")
    assert sorted(survivors.splitlines()) == [
        "toy.py:29  Op.two, constant:  return [cls(), cls()][:2]  →  return [cls(), cls()][:3]",
        "toy.py:32  untested, sign:  return -x  →  return x  (no test reaches it)",
    ]
    outcomes = dict(line.split(maxsplit=1)[::-1] for line in told.replace("timed out", "timed-out").splitlines())
    for line, function, kind, change, outcome in [
        (8, "double", "constant", "by=2  →  by=3", "killed"),
        (9, "double", "operator", "return x * by  →  return x / by", "killed"),
        (12, "until", "comparison", "while n > 0:  →  while n >= 0:", "killed"),
        (13, "until", "operator", "n -= 1  →  n += 1", "timed-out"),
        (18, "Base.__init__", "statement", "self.ready = True  →  pass", "killed"),
        (21, "Op", "constant", "size = 3  →  size = 4", "killed"),
        (23, "Op.__init__", "statement", "super().__init__()  →  pass", "killed"),
        (26, "Op.area", "operator", "return self.size * self.size  →  return self.size / self.size", "killed"),
    ]:
        assert outcomes[f"toy.py:{line}  {function}, {kind}:  {change}"] == outcome


def test_survivors_that_are_marked_with_a_reason(mutation_of):
    result = mutation_of(MARKED, SMALL_TESTS)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "nothing calls it" in result.stdout and "Survived" not in result.stdout


def test_a_mark_excuses_its_kinds_in_its_line_alone_and_none_is_left_over(mutation_of):
    killed = MARKED.replace("x + x", "x + x  # equivalent (operator, sign): somebody thought so")
    moved = killed.replace("return -x  ", "return -x\n\n\n")
    result = mutation_of(moved, SMALL_TESTS)
    assert result.returncode == 1
    _, _, told = result.stdout.partition("\nMarked as equivalent, but none survives:\n")
    unused, _, survived = told.partition("\nSurvived:\n")
    assert unused == "toy.py:2  operator\ntoy.py:2  sign\ntoy.py:10  sign\n"
    assert survived.startswith("toy.py:6  negative, sign:  return -x  →  return x")


@pytest.mark.parametrize("tests", ["def test_toy():\n    assert 0\n", "import nothing\n", ""])
def test_tests_that_fail_anyway(mutation_of, tests):
    result = mutation_of(SMALL, tests)
    assert result.returncode == 1 and "test_toy.py" in result.stderr and "Traceback" not in result.stderr
    assert "must pass before" in result.stderr or "no tests ran" in result.stderr


def test_each_mark_in_the_package_names_a_mutant_of_today():
    loaded = [*map(mutation.lesson, mutation.TABLE), *map(mutation_kernels.kernels, mutation_kernels.KERNELS)]
    mutants = {(file, m.line, m.kind) for _, file, every in loaded for m in every}
    files = [path for path in sorted((mutation.ROOT / "minicnn").rglob("*")) if path.suffix in (".py", ".cu", ".h")]
    assert files
    for path in files:
        file = path.relative_to(mutation.ROOT).as_posix()
        for line, kind in mutation.read_marks(path.read_text(encoding="utf-8")):
            assert (file, line, kind) in mutants
