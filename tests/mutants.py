"""Mutants of a source text: each has one small mistake of the kinds that people make.

They come from the syntax tree: operators, signs, comparisons and conditions, constants, bounds and indices; a term, a
factor, a call, an argument or a statement left out; NumPy functions mistaken for their neighbors; gradients lost or
scaled. Left alone are the module's own statements, annotations, docstrings, decorators, the texts of error messages,
zip's `strict`, and what chooses a device: `like`, `device` and `with on_device_of(…)`. What compiles to the same
bytecode counts once.
"""

import ast
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd, ast.LShift: ast.RShift,
}  # fmt: skip
COMPARISONS = {  # the first moves the boundary or negates, the second turns it around
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
METHODS_LEFT_OUT = {"copy", "astype", "reshape", "swapaxes", "transpose", "broadcast_to", "sum", "exp", "log", "sqrt"}
CALLS_LEFT_OUT = {"unbroadcast", "max", "min", "abs", "sorted", "reversed", "sqrt", "ascontiguousarray", "sign", "cos"}
SKIPPED_ARGUMENTS = {"strict", "like", "device"}
SKIPPED_FIELDS = {"annotation", "returns", "decorator_list", "bases", "ctx", "op", "ops"}


class Mutant(NamedTuple):
    function: str  # its qualified name; or of the class, where a class attribute is changed
    line: int
    kind: str
    before: str
    after: str
    lines: range  # the change cannot be felt without running one of these ...
    elsewhere: bool  # ... except that of a class attribute, which may be read from elsewhere
    member: tuple[str, ...]  # what to replace: the module's function, or its class and the attribute
    code: CodeType  # defines that function or class, mutated


class Link(NamedTuple):
    """One step down the tree: `node` is parent.field, or parent.field[index]."""

    parent: Any
    field: str
    index: int | None
    node: Any

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


Path = tuple[Link, ...]  # from a function or class of the module down to a node


def mutants_of(source: str, filename: str) -> Iterator[Mutant]:
    """Every mutant of a source text."""
    for top in ast.parse(source).body:
        if not isinstance(top, (ast.FunctionDef, ast.ClassDef)):
            continue
        module = ast.Module([top], [])
        seen = [_behavior(compile(module, filename, "exec"))]
        for path in _paths((Link(module, "body", 0, top),)):
            link = path[-1]
            for kind, new in [*_variants(path), *_lost_gradients(path)]:
                prefix, around = _context(path)
                before = prefix + _text(around)
                link.put(new)
                if not hasattr(new, "lineno"):
                    ast.copy_location(new, link.node)
                ast.fix_missing_locations(new)  # of the whole it would take most of the time
                after = prefix + _text(new if around is link.node else around)
                code = compile(module, filename, "exec")
                link.put(link.node)
                if (behavior := _behavior(code)) not in seen:
                    seen.append(behavior)
                    yield Mutant(_name(path), _line(path), kind, before, after, *_reach(path), _member(path), code)


def _paths(path: Path) -> Iterator[Path]:
    """The path to this node and to each below it that may be mutated."""
    yield path
    node = path[-1].node
    if isinstance(node, (ast.Raise, ast.JoinedStr)) or getattr(node, "arg", None) in SKIPPED_ARGUMENTS:
        return
    if _chooses_device(node):
        return
    if isinstance(node, ast.UnaryOp) and getattr(getattr(path[-1].parent, "func", None), "attr", "") == "reshape":
        return  # to NumPy any negative length is "the rest"
    for field, value in ast.iter_fields(node):
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and field not in SKIPPED_FIELDS:
                yield from _paths((*path, Link(node, field, index, child)))


def _variants(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """(kind of mistake, what to put in the place of the path's end)"""
    node, is_test = path[-1].node, path[-1].field in ("test", "ifs")
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
            yield "operator", ast.BoolOp(ast.And() if isinstance(op, ast.Or) else ast.Or(), values)
            for i in range(len(values)):
                rest = [*values[:i], *values[i + 1 :]]
                yield "term", ast.BoolOp(op, rest) if len(rest) > 1 else rest[0]
        case ast.Compare(left, ops, comparators):
            for i, op in enumerate(ops):
                others = COMPARISONS[type(op)]
                if is_test and len(ops) == 1:
                    others = others[:-1]  # the last is the whole condition negated
                for other in others:
                    yield "comparison", ast.Compare(left, [*ops[:i], other(), *ops[i + 1 :]], comparators)
        case ast.Constant(bool(value)):
            yield "constant", ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield "constant", ast.Constant(2 * value if value and isinstance(value, float) else value + 1)
        case ast.Slice(lower, upper, step):
            if _is_computed(lower):
                yield "bound", ast.Slice(_plus(lower, 1), upper, step)
            if _is_computed(upper):
                yield "bound", ast.Slice(lower, _plus(upper, -1), step)
        case ast.Subscript(value, index, context) if _is_computed(index):
            yield "index", ast.Subscript(value, _plus(index, 1), context)
        case ast.Attribute(value, "T"):
            yield "call", value
        case ast.Attribute(value, name, ast.Load() as context) if name in FUNCTIONS:
            yield "function", ast.Attribute(value, FUNCTIONS[name], context)
        case ast.Name("max" | "min" | "any" | "all" as name, context):
            yield "function", ast.Name(FUNCTIONS[name], context)
        case ast.Call():
            yield from _calls(node)
        case ast.AugAssign(target, op, value):
            yield "operator", ast.AugAssign(target, OPERATORS[type(op)](), value)
            yield "statement", ast.Pass()
        case ast.Expr(ast.Call()) | ast.Raise() | ast.Delete() | ast.Assign([ast.Subscript() | ast.Attribute()]):
            yield "statement", ast.Pass()
        case ast.Assign([ast.Name(name)], value) if any(getattr(n, "id", "") == name for n in ast.walk(value)):
            yield "statement", ast.Pass()
        case ast.Continue():
            yield "statement", ast.Break()
        case ast.With(items, body) if not all(map(_chooses_device, items)):
            yield "statement", ast.If(ast.Constant(True), body, [])


def _chooses_device(node: ast.AST) -> bool:
    match node:
        case ast.withitem(ast.Call(ast.Name("on_device_of"))):
            return True
    return False


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    match node.func:
        case ast.Name("range") if _is_computed(node.args[-1]):
            yield "bound", ast.Call(node.func, [*node.args[:-1], _plus(node.args[-1], -1)], [])
        case ast.Name(name) | ast.Attribute(ast.Name("np"), name):
            if name in CALLS_LEFT_OUT and not isinstance(node.args[0], ast.GeneratorExp):
                for arg in node.args if name in ("max", "min") else node.args[:1]:
                    yield "call", arg.value if isinstance(arg, ast.Starred) else arg
        case ast.Attribute(value, name) if name in METHODS_LEFT_OUT:
            yield "call", value
    for i, keyword in enumerate(node.keywords):  # `out` saves memory, or else makes up a statement, which is left out
        if keyword.arg not in {*SKIPPED_ARGUMENTS, "out"} and not isinstance(getattr(keyword.value, "value", 0), bool):
            yield "argument", ast.Call(node.func, node.args, [*node.keywords[:i], *node.keywords[i + 1 :]])


def _lost_gradients(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """None, 0 and twice the value for what a backward function returns, or for each element of it."""
    function = _name(path).rpartition(".")[2]
    end = path[-1].node
    if isinstance(end, (ast.Tuple, ast.IfExp)) or not (function == "partials" or function.endswith("backward")):
        return
    for link in reversed(path):
        if isinstance(link.parent, ast.Return):
            yield "gradient", ast.Constant(None)
            for factor in 0.0, 2.0:
                yield "gradient", ast.BinOp(end, ast.Mult(), ast.Constant(factor))
        if not isinstance(link.parent, (ast.Tuple, ast.IfExp)) or link.field not in ("elts", "body"):
            return


def _is_computed(index: ast.AST | None) -> bool:
    """Is this an index or a bound without constants, which would be changed by themselves?"""
    return isinstance(index, (ast.Name, ast.Attribute, ast.Call, ast.BinOp, ast.Subscript))


def _plus(node: Any, n: int) -> ast.BinOp:
    return ast.BinOp(node, ast.Add() if n > 0 else ast.Sub(), ast.Constant(abs(n)))


def _behavior(code: CodeType) -> tuple:
    """All that a code object does, without the places in the source."""
    constants = tuple([_behavior(c) if isinstance(c, CodeType) else (type(c), repr(c)) for c in code.co_consts])
    return code.co_name, code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants


def _context(path: Path) -> tuple[str, ast.AST]:
    """The node around the path's end whose text is enough to recognize the place by; for a default, "name=" and it."""
    for link in reversed(path):
        if isinstance(link.parent, ast.arguments):
            names = link.parent.kwonlyargs if link.field == "kw_defaults" else link.parent.args
            return names[link.index - len(getattr(link.parent, link.field))].arg + "=", link.node
        if isinstance(link.node, ast.stmt) or len(_text(link.node)) >= 25:
            break
    return "", link.node


def _text(node: ast.AST) -> str:
    """An expression or a simple statement, or the head of a compound one, on one line."""
    return next(line for line in ast.unparse(node).split("\n") if not line.startswith("@")).strip()


def _name(path: Path) -> str:
    return ".".join(link.node.name for link in path if isinstance(link.node, (ast.FunctionDef, ast.ClassDef)))


def _line(path: Path) -> int:
    return next(link.node.lineno for link in reversed(path) if hasattr(link.node, "lineno"))


def _reach(path: Path) -> tuple[range, bool]:
    """The lines of the statement, or the head of it; for a default, its function; for a class attribute, the class."""
    statement = next(link.node for link in reversed(path) if isinstance(link.node, ast.stmt))
    if isinstance(statement, ast.FunctionDef):
        return range(statement.body[0].lineno, statement.end_lineno + 1), False
    if not any(isinstance(link.node, ast.FunctionDef) for link in path):
        return range(path[0].node.lineno, path[0].node.end_lineno + 1), True
    body = getattr(statement, "body", None)
    return range(statement.lineno, body[0].lineno if body else statement.end_lineno + 1), False


def _member(path: Path) -> tuple[str, ...]:
    top = path[0].node
    if isinstance(top, ast.FunctionDef):
        return (top.name,)
    member = path[1].node
    targets = getattr(member, "targets", None) or [getattr(member, "target", None)]
    return top.name, getattr(member, "name", None) or targets[0].id
