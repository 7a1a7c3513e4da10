"""Do the tests bite? Each op's source is broken in many small ways, its mutants, and each mutant is run against that
op's tests alone, which should fail.

    python tests/teeth.py                              everything; exit status 1 if a mutant survives unexplained
    python tests/teeth.py --file conv --show           one file, every mutant with what became of it
    python tests/teeth.py --file conv --list           the mutants, without running them

Mutants come from the syntax tree: operators, signs, comparisons, conditions, constants, bounds, indices, dropped
terms, factors, calls, arguments and statements, NumPy functions mistaken for their neighbours, gradients lost or
scaled. Left alone are annotations, docstrings, decorators, the texts of error messages, zip's `strict` and the `like`
that chooses a device.

One pytest session for each file collects its tests; then, for each mutant, a forked child puts the mutated code in
place of the original's, in memory, and runs the tests that reach the changed lines (a first run of the unchanged code
has recorded which do, and how long they take), the quickest first, up to the first failure. Hypothesis is
derandomised and does not shrink. A mutant also counts as killed if it crashes, or if it takes longer than LIMIT
allows, which the table shows as "timed out".

Mutants that no test can tell from the original are listed, with the reason, in teeth_equivalent.txt.
"""

import argparse
import ast
import contextlib
import gc
import importlib
import inspect
import io
import json
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "tests" / "teeth_equivalent.txt"
TABLE = {  # module: its tests
    "minicnn.functional.windows": "tests/functional/test_windows.py",
    "minicnn.functional.conv": "tests/functional/test_conv.py",
    "minicnn.functional.pooling": "tests/functional/test_pooling.py",
    "minicnn.functional.lrn": "tests/functional/test_lrn.py",
    "minicnn.functional.activation": "tests/functional/test_activation.py",
    "minicnn.functional.dropout": "tests/functional/test_dropout.py",
    "minicnn.functional.linear": "tests/functional/test_linear.py",
    "minicnn.functional.batch_norm": "tests/functional/test_batch_norm.py",
    "minicnn.functional.loss": "tests/functional/test_loss.py",
    "minicnn.functional.shapes": "tests/functional/test_shapes.py",
    "minicnn.ops": "tests/test_ops.py",
    "minicnn.autograd": "tests/test_autograd.py",
    "minicnn.gradcheck": "tests/test_gradcheck.py",
    "minicnn.optim.optimizer": "tests/optim/test_optimizer.py",
    "minicnn.optim.schedule": "tests/optim/test_schedule.py",
}
LIMIT = 10.0, 5.0  # seconds, plus so many times what the same tests take on the unchanged code
MEMORY = 8 << 30  # bytes of address space: a mutated shape must not take the machine down
QUIET = "-q -s --assert=plain -p no:cacheprovider -p no:faulthandler --disable-warnings".split()
KILLED, BROKEN = 1, 2  # exit statuses of a child
THREADS = 2  # minicnn's: with one, a batch would often be a single slice, and wrong slice bounds would not show


# ---------------------------------------------------------------------------------------------------------------------
# making mutants
class Mutant(NamedTuple):
    function: str  # qualified name, or the class whose attribute is changed
    line: int
    kind: str
    before: str
    after: str
    lines: range  # a test that touches none of these cannot see the difference
    certain: bool  # ... except for class attributes, which are also read from elsewhere
    member: tuple[str, ...]  # the module's function, or its class and the attribute, to be replaced
    code: CodeType  # that function or class, mutated


class Link(NamedTuple):
    """One step down the syntax tree: `node` is parent.field, or parent.field[index]."""

    parent: ast.AST
    field: str
    index: int | None
    node: Any

    def put(self, node: Any) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd, ast.LShift: ast.RShift,
}  # fmt: skip
COMPARISONS = {  # the first moves the boundary or negates, the others turn it around
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
FUNCTIONS = {
    "maximum": "minimum", "minimum": "maximum", "max": "min", "min": "max", "sum": "mean", "mean": "sum", "any": "all",
    "all": "any", "add": "subtract", "subtract": "add", "multiply": "divide", "divide": "multiply", "sqrt": "square",
    "square": "sqrt", "exp": "log", "log": "exp", "tanh": "sinh", "cos": "sin", "argmax": "argmin",
    "zeros_like": "ones_like", "ones": "zeros", "equal": "not_equal",
}  # fmt: skip
LEFT_OUT = "copy", "astype", "reshape", "swapaxes", "transpose", "broadcast_to", "sum", "exp", "log", "sqrt", "detach"
UNWRAPPED = "unbroadcast", "max", "min", "abs", "sorted", "reversed", "sqrt", "ascontiguousarray", "sign"
KEPT_ARGUMENTS = "strict", "like"
SKIPPED_FIELDS = "annotation", "returns", "decorator_list", "bases", "keywords of a class", "ctx", "op", "ops"


def mutants_of(source: str, filename: str) -> Iterator[Mutant]:
    """Every mutant of the functions and classes of a source text, each once."""
    for top in ast.parse(source).body:
        if not isinstance(top, (ast.FunctionDef, ast.ClassDef)):
            continue
        module = ast.Module([top], [])
        seen = {_fingerprint(compile(module, filename, "exec"))}
        for path in _paths((Link(module, "body", 0, top),)):
            for kind, new in _variants(path):
                before, around = _text(path)
                path[-1].put(new)
                after = _unparse(new if around is path[-1].node else around)
                code = compile(ast.fix_missing_locations(module), filename, "exec")
                path[-1].put(path[-1].node)
                if (print_ := _fingerprint(code)) not in seen:
                    seen.add(print_)
                    line = next(link.node.lineno for link in reversed(path) if hasattr(link.node, "lineno"))
                    yield Mutant(_function(path), line, kind, before, after, *_reach(path), _member(path), code)


def _fingerprint(code: CodeType) -> tuple:
    """What a code object does, without the places in the source."""
    constants = [_fingerprint(c) if isinstance(c, CodeType) else (type(c), repr(c)) for c in code.co_consts]
    return code.co_name, code.co_code, code.co_names, code.co_varnames, code.co_freevars, tuple(constants)


def _paths(path: tuple[Link, ...]) -> Iterator[tuple[Link, ...]]:
    """The path to each node below, and to this one."""
    node = path[-1].node
    yield path
    if isinstance(node, (ast.Raise, ast.JoinedStr)) or (isinstance(node, ast.keyword) and node.arg in KEPT_ARGUMENTS):
        return
    for field, value in ast.iter_fields(node):
        if field in SKIPPED_FIELDS or (field == "keywords" and isinstance(node, ast.ClassDef)):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield from _paths((*path, Link(node, field, index, child)))


def _variants(path: tuple[Link, ...]) -> Iterator[tuple[str, ast.AST]]:
    """(kind, what to put in the place of the path's last node)"""
    link = path[-1]
    node, parent = link.node, link.parent
    is_test = link.field in ("test", "ifs")
    if is_test:
        yield "condition", ast.UnaryOp(ast.Not(), node)
    match node:
        case ast.BinOp(left, op, right):
            if type(op) in OPERATORS:
                yield "operator", ast.BinOp(left, OPERATORS[type(op)](), right)
            if isinstance(op, ast.MatMult):
                yield "operator", ast.BinOp(right, op, left)
            else:
                yield "term", left
            if isinstance(op, (ast.Add, ast.Mult, ast.BitAnd, ast.BitOr)):
                yield "term", right
            if isinstance(op, ast.Sub):
                yield "term", ast.UnaryOp(ast.USub(), right)
        case ast.UnaryOp(op, operand) if not (is_test and isinstance(op, ast.Not)):
            yield "sign", operand
        case ast.BoolOp(op, values):
            yield "logic", ast.BoolOp(ast.And() if isinstance(op, ast.Or) else ast.Or(), values)
            for i in range(len(values)):
                rest = [*values[:i], *values[i + 1 :]]
                yield "term", rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
        case ast.Compare(left, ops, comparators):
            for i, op in enumerate(ops):
                turned = COMPARISONS[type(op)]
                if is_test and len(ops) == 1:  # the negated condition is there already
                    turned = turned[:1] if len(turned) == 2 else ()
                for other in turned:
                    yield "comparison", ast.Compare(left, [*ops[:i], other(), *ops[i + 1 :]], comparators)
        case ast.Constant(bool(value)):
            yield "constant", ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield "constant", ast.Constant(value + 1 if isinstance(value, int) or value == 0 else value * 2)
        case ast.Slice(lower, upper, step):
            if _shifts(lower):
                yield "bound", ast.Slice(_plus(lower, 1), upper, step)
            if _shifts(upper):
                yield "bound", ast.Slice(lower, _plus(upper, -1), step)
        case ast.Subscript(value, index, context) if _shifts(index):
            yield "index", ast.Subscript(value, _plus(index, 1), context)
        case ast.Attribute(value, "T", context):
            yield "function", value
        case ast.Attribute(value, name, context) if name in FUNCTIONS and isinstance(context, ast.Load):
            yield "function", ast.Attribute(value, FUNCTIONS[name], context)
        case ast.Name("max" | "min" | "any" | "all" as name, context) if link.field == "func":
            yield "function", ast.Name(FUNCTIONS[name], context)
        case ast.Call():
            yield from _calls(node)
        case ast.AugAssign(target, op, value):
            if type(op) in OPERATORS:
                yield "operator", ast.AugAssign(target, OPERATORS[type(op)](), value)
            yield "statement", ast.Pass()
        case ast.Expr(ast.Call()) | ast.Raise() | ast.Delete():
            yield "statement", ast.Pass()
        case ast.Assign([ast.Subscript() | ast.Attribute()]):
            yield "statement", ast.Pass()
        case ast.Assign([ast.Name(name)], value) if any(getattr(n, "id", 0) == name for n in ast.walk(value)):
            yield "statement", ast.Pass()
        case ast.Continue():
            yield "statement", ast.Break()
        case ast.With(_, body):
            yield "statement", ast.If(ast.Constant(True), body, [])
    if _is_gradient(path):
        yield "gradient", ast.Constant(None)
        for factor in 0.0, 2.0:
            yield "gradient", ast.BinOp(node, ast.Mult(), ast.Constant(factor))


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    match node.func:
        case ast.Attribute(ast.Name("np" | "math"), name) | ast.Name(name):
            if name in UNWRAPPED:
                for arg in node.args if name in ("max", "min") else node.args[:1]:
                    if not isinstance(arg, (ast.Starred, ast.GeneratorExp)):
                        yield "call", arg
            elif name == "range" and _shifts(node.args[-1]):
                yield "bound", ast.Call(node.func, [*node.args[:-1], _plus(node.args[-1], -1)], [])
        case ast.Attribute(value, name) if name in LEFT_OUT:
            yield "call", value
    for i, keyword in enumerate(node.keywords):
        if keyword.arg not in KEPT_ARGUMENTS and not isinstance(getattr(keyword.value, "value", None), bool):
            yield "argument", ast.Call(node.func, node.args, [*node.keywords[:i], *node.keywords[i + 1 :]])


def _shifts(index: ast.AST | None) -> bool:
    """Is this an index or a bound that its own constants do not shift already?"""
    return isinstance(index, (ast.Name, ast.Attribute, ast.Call, ast.BinOp, ast.Subscript))


def _plus(node: Any, n: int) -> ast.BinOp:
    return ast.BinOp(node, ast.Add() if n > 0 else ast.Sub(), ast.Constant(abs(n)))


def _is_gradient(path: tuple[Link, ...]) -> bool:
    """Is the path's end what a backward function returns, or one element of that?"""
    names = [link.node.name for link in path if isinstance(link.node, ast.FunctionDef)]
    if not names or not (names[-1] in ("backward", "partials") or names[-1].endswith("_backward")):
        return False
    links = list(path)
    end = links.pop()
    if isinstance(end.node, (ast.Tuple, ast.IfExp)) or getattr(end.node, "value", 0) is None:
        return False
    while isinstance(end.parent, (ast.Tuple, ast.IfExp)) and end.field in ("elts", "body"):
        end = links.pop()
    return isinstance(end.parent, ast.Return)


def _unparse(node: ast.AST) -> str:
    """The text of an expression or a simple statement, or the head of a compound one."""
    if isinstance(node, ast.arguments):
        return "def (" + ast.unparse(node) + ")"
    return next(line for line in ast.unparse(node).split("\n") if not line.startswith("@"))


def _text(path: tuple[Link, ...]) -> tuple[str, ast.AST]:
    """Text enough around the path's end to recognise it by, and the node with that text."""
    for link in reversed(path):
        text = _unparse(link.node)
        if len(text) >= 25 or isinstance(link.node, (ast.stmt, ast.arguments)):
            break
    return text, link.node


def _function(path: tuple[Link, ...]) -> str:
    return ".".join(link.node.name for link in path if isinstance(link.node, (ast.FunctionDef, ast.ClassDef)))


def _reach(path: tuple[Link, ...]) -> tuple[range, bool]:
    """The lines that a test must touch to see the change: the statement's; for a default, all of its function's."""
    for link in reversed(path):
        if isinstance(link.node, (ast.stmt, ast.ExceptHandler)):
            statement: Any = link.node
            break
    if isinstance(statement, ast.FunctionDef):
        return range(statement.body[0].lineno, statement.end_lineno + 1), True
    if not any(isinstance(link.node, ast.FunctionDef) for link in path):
        return range(path[0].node.lineno, path[0].node.end_lineno + 1), False
    body = getattr(statement, "body", None)
    return range(statement.lineno, body[0].lineno if body else statement.end_lineno + 1), True


def _member(path: tuple[Link, ...]) -> tuple[str, ...]:
    names = [path[0].node.name]
    if isinstance(path[0].node, ast.ClassDef):
        member = path[1].node
        targets = getattr(member, "targets", [getattr(member, "target", None)])
        names.append(getattr(member, "name", None) or targets[0].id)
    return tuple(names)


# ---------------------------------------------------------------------------------------------------------------------
# running them
def graft(module: ModuleType, member: tuple[str, ...], new: Any) -> None:
    """Put the mutated code where the original's is, so that whoever has imported the function or class has it too."""
    holder: Any = module
    if len(member) == 2:
        holder, new = vars(module)[member[0]], vars(new)[member[1]]
    name = member[-1]
    f, g = _bare(vars(holder)[name]), _bare(new)
    if f is None or g is None:
        setattr(holder, name, new)
    elif f.__code__.co_freevars == g.__code__.co_freevars:
        f.__code__, f.__defaults__, f.__kwdefaults__ = g.__code__, g.__defaults__, g.__kwdefaults__
    else:  # a call of super() was dropped
        cells = dict(zip(f.__code__.co_freevars, f.__closure__ or (), strict=True))
        closure = tuple(cells[free] for free in g.__code__.co_freevars)
        setattr(holder, name, FunctionType(g.__code__, f.__globals__, name, g.__defaults__, closure))


def _bare(thing: Any) -> FunctionType | None:
    """The function inside a property, a classmethod or a decorated function."""
    thing = inspect.unwrap(getattr(thing, "fget", None) or getattr(thing, "__func__", thing))
    return thing if isinstance(thing, FunctionType) else None


class Bites:
    """A pytest plugin that, once the tests are collected, runs them against mutants instead of once."""

    def __init__(self, module: ModuleType, mutants: list[Mutant], jobs: int, tell: Callable[[Mutant, str], None]):
        self.module, self.mutants, self.jobs, self.tell = module, mutants, jobs, tell
        self.trouble: list[str] = []

    def pytest_configure(self) -> None:
        hypothesis.settings.register_profile(
            "teeth", hypothesis.settings.get_profile("default"), derandomize=True, database=None, deadline=None,
            phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        hypothesis.settings.load_profile("teeth")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.trouble.append(f"{report.nodeid}: {report.longrepr}")

    def pytest_collectreport(self, report: Any) -> None:
        self.pytest_runtest_logreport(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if not self.trouble:
            tests = self.survey(session)
        if self.trouble:
            return True
        gc.freeze()  # what is shared with the children stays shared
        running: dict[int, Mutant] = {}
        for mutant in self.mutants:
            touching = sorted((seconds, i) for i, (seconds, lines) in tests.items() if lines & set(mutant.lines))
            others = [] if mutant.certain else sorted((s, i) for i, (s, _) in tests.items() if (s, i) not in touching)
            chosen = touching + others
            if not chosen:
                self.tell(mutant, "survived: no test reaches it")
                continue
            limit = LIMIT[0] + LIMIT[1] * sum(seconds for seconds, _ in chosen)
            items = [session.items[i] for _, i in chosen]
            running[_fork(lambda m=mutant, items=items: self.bite(session, m, items), limit)] = mutant
            if len(running) >= self.jobs:
                self.reap(running)
        while running:
            self.reap(running)
        return True

    def survey(self, session: pytest.Session) -> dict[int, tuple[float, set[int]]]:
        """Run every test on the unchanged code: for each, its seconds and the lines of the module that it touches."""
        reading, writing = os.pipe()

        def run() -> int:
            found = []
            for item in session.items:
                lines: set[int] = set()
                trace = _tracer(self.module.__file__, lines)
                begin = time.perf_counter()
                threading.settrace(trace)
                sys.settrace(trace)
                _run(item)
                sys.settrace(None)
                found.append((time.perf_counter() - begin, sorted(lines)))
            with open(writing, "w") as file:
                json.dump([found, self.trouble], file)
            return 0

        pid = _fork(run)
        os.close(writing)
        with open(reading) as file:
            text = file.read()
        _, status = os.waitpid(pid, 0)
        if status or not text:
            self.trouble.append(f"the tests end Python, with status {status}")
            return {}
        found, self.trouble = json.loads(text)
        return {i: (seconds, set(lines)) for i, (seconds, lines) in enumerate(found)}

    def bite(self, session: pytest.Session, mutant: Mutant, items: list[pytest.Item]) -> int:
        try:
            namespace = {**vars(self.module)}
            exec(mutant.code, namespace)
        except Exception:  # the module cannot be imported any more
            return KILLED
        graft(self.module, mutant.member, namespace[mutant.member[0]])
        try:
            for item in items:
                _run(item)
                if self.trouble:
                    return KILLED
        except BaseException:  # it has broken pytest itself
            return KILLED
        return 0

    def reap(self, running: dict[int, Mutant]) -> None:
        pid, status = os.wait()
        mutant, code = running.pop(pid), os.waitstatus_to_exitcode(status)
        if code not in (0, KILLED) and code >= 0:
            raise RuntimeError(f"the run of {mutant.function}: {mutant.before} → {mutant.after} failed, status {code}")
        self.tell(mutant, "survived" if not code else "timed out" if code == -signal.SIGALRM else "killed")


def _run(item: pytest.Item) -> None:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


def _fork(work: Callable[[], int], limit: float = 0.0) -> int:
    """Call work() in a forked child, silently; its result is the exit status."""
    pid = os.fork()
    if pid:
        return pid
    status = BROKEN
    try:
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in 0, 1, 2:
            os.dup2(silence, stream)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.setitimer(signal.ITIMER_REAL, limit)  # ends in SIGALRM
        status = work()
    finally:
        os._exit(status)


def _tracer(filename: str | None, lines: set[int]) -> Callable:
    def trace(frame: Any, event: str, _: Any) -> Callable | None:
        if frame.f_code.co_filename != filename:
            return None
        if event == "line":
            lines.add(frame.f_lineno)
        return trace

    return trace


# ---------------------------------------------------------------------------------------------------------------------
# telling
class Report:
    """What became of one file's mutants."""

    def __init__(self, file: str, mutants: int, equivalent: dict[tuple[str, ...], str], show: bool) -> None:
        self.file, self.mutants, self.equivalent, self.show = file, mutants, equivalent, show
        self.counts: Counter[str] = Counter()
        self.survivors: list[str] = []
        self.excused: set[tuple[str, ...]] = set()
        self.killed: set[tuple[str, ...]] = set()
        self.begin = time.perf_counter()

    def tell(self, mutant: Mutant, outcome: str) -> None:
        key = (Path(self.file).name, mutant.function, mutant.before, mutant.after)
        word, _, note = outcome.partition(": ")
        if word == "survived" and key in self.equivalent:
            word = "equivalent"
            self.excused.add(key)
        elif word == "survived":
            self.survivors.append(f"{self.where(mutant)}{note and f'  ({note})'}")
        else:
            self.killed.add(key)
        self.counts[word] += 1
        if self.show:
            print(f"{word:<10}  {self.where(mutant)}", file=sys.__stdout__, flush=True)

    def where(self, mutant: Mutant) -> str:
        return f"{self.file}:{mutant.line}  {mutant.function}  [{mutant.kind}]  {mutant.before}  →  {mutant.after}"

    def row(self) -> str:
        numbers = [self.counts[word] for word in ("killed", "timed out", "equivalent", "survived")]
        cells = "".join(f"{n:>11}" for n in (self.mutants, *numbers))
        return f"{self.file:<38}{cells}{time.perf_counter() - self.begin:>9.1f} s"


def read_equivalent(path: Path) -> dict[tuple[str, ...], str]:
    """(file, function, before, after): reason. A block of the list is "file function", pairs of a line "- before" and
    a line "+ after", and the reason."""
    entries: dict[tuple[str, ...], str] = {}
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines:
            head, reason = lines[0].split(), " ".join(line for line in lines[1:] if line[:2] not in ("- ", "+ "))
            texts = [line[2:] for line in lines if line[:2] in ("- ", "+ ")]
            if len(head) != 2 or not reason or not texts or len(texts) % 2:
                raise SystemExit(f"{path}: cannot read the block that begins {lines[0]!r}")
            entries |= {(*head, before, after): reason for before, after in zip(texts[::2], texts[1::2], strict=True)}
    return entries


def check(name: str, tests: str, options: argparse.Namespace, equivalent: dict[tuple[str, ...], str]) -> Report:
    """One file's mutants against its tests."""
    module = importlib.import_module(name)
    source = Path(module.__file__ or "")
    mutants = list(mutants_of(source.read_text(encoding="utf-8"), str(source)))
    if options.sample and options.sample < len(mutants):
        mutants = [mutants[i * len(mutants) // options.sample] for i in range(options.sample)]
    report = Report(name.replace(".", "/") + ".py", len(mutants), equivalent, options.show)
    if options.list:
        print("\n".join(map(report.where, mutants)))
        return report
    bites = Bites(module, mutants, options.jobs, report.tell)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = pytest.main([tests, "-m", "not slow", *QUIET], plugins=[bites])
    if status or bites.trouble:
        raise SystemExit("\n".join([*bites.trouble, said.getvalue()]) + f"\nteeth: {tests} must pass before its bite is tried")
    return report


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Break the ops in many small ways: do their tests notice?")
    parser.add_argument("--file", action="append", help="only files whose path contains this (may be repeated)")
    parser.add_argument("--sample", type=int, metavar="N", help="at most N mutants of each file, evenly spread")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at a time (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="list the mutants and run none")
    parser.add_argument("--show", action="store_true", help="tell what became of every mutant")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported
    sys.path.insert(0, str(ROOT))
    importlib.import_module("minicnn").set_num_threads(THREADS)

    equivalent = read_equivalent(EQUIVALENT)
    names = [name for name in TABLE if not options.file or any(part in TABLE[name] for part in options.file)]
    columns = "".join(f"{word:>11}" for word in ("mutants", "killed", "timed out", "equivalent", "survived"))
    print(f"{'file':<38}{columns}{'time':>11}", flush=True)
    reports = []
    for name in names:
        reports.append(check(name, TABLE[name], options, equivalent))
        if not options.list:
            print(reports[-1].row(), flush=True)
    if options.list:
        return 0
    survivors = [survivor for report in reports for survivor in report.survivors]
    excused = {key for report in reports for key in report.excused}
    killed = {key for report in reports for key in report.killed}
    files = {Path(report.file).name for report in reports}
    stale = [k for k in equivalent if k[0] in files and (k in killed or (k not in excused and not options.sample))]
    total = sum((report.counts for report in reports), Counter())
    print(f"{total.total()} mutants: " + ", ".join(f"{n} {word}" for word, n in total.items()))
    for title, lines in (
        ("Equivalent", [f"{file} {f}: {a}  →  {b}\n    {equivalent[file, f, a, b]}" for file, f, a, b in sorted(excused)]),
        ("Listed as equivalent, but killed or gone", [" ".join(key) for key in stale]),
        ("Survived", survivors),
    ):
        if lines:
            print(f"\n{title}:", *lines, sep="\n")
    return 1 if survivors or stale else 0


if __name__ == "__main__":
    sys.exit(main())
