"""Mutants of CUDA kernels: what mutation.py asks of the tests of the lessons, asked of those of the .cu files. A mutant is
the file with one token changed, or one assignment left out; the tests run it on the CPU, so g++ is needed."""

import importlib
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from mutation import ROOT, Mutation, main, run

EVERY = "tests/cuda/test_kernels_agreement.py"  # has rows for all of them
KERNELS = {
    "kernels.h": f"{EVERY} tests/cuda/test_kernels_windows.py tests/cuda/test_kernels_pooling.py"
    " tests/cuda/test_kernels_matmul.py"
} | {  # file: its tests
    f"{name}.cu": f"tests/cuda/test_kernels_{name}.py {EVERY} -k {name}"
    for name in (
        "windows",
        "pooling",
        "lrn",
        "activation",
        "conv",
        "dropout",
        "linear",
        "loss",
        "matmul",
        "ops",
        "optimizer",
        "pixels",
    )
}
SWAPS = {
    "+": "-", "-": "+", "*": "/", "/": "*", "%": "/", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=",
    "!=": "==", "&&": "||", "||": "&&", "+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=", ">>": "<<", "<<": ">>",
    "^": "&", "|": "&", "&": "|", "max": "min", "min": "max", "sqrt": "rsqrt", "rsqrt": "sqrt", "exp": "log",
    "log": "exp", "true": "false", "false": "true",
}  # fmt: skip
POINTER = r"\b(?:real|char|int|long|bool|unsigned|Index|place|void)\s*\*+"
TOKEN = re.compile(
    rf"{POINTER}|\w+<\w+>|\w+&(?= )|->|\+\+|--|<=|>=|==|!=|&&|\|\||<<|>>|[-+*/]=|[-+*/%<>^|&]|\b\d+(?:\.\d+)?(?:e-?\d+)?[uUlLfF]*\b|\b0x\w+\b|\b\w+\b"
)
ASSIGNMENT = re.compile(r"^\s*[\w.]+(?:\[.*?\])?\s*[-+*/|&^]?=[^=].*;\s*$")


class KernelMutant(NamedTuple):
    function: str  # the kernel, or device function
    line: int
    kind: str  # the token that is changed, or "statement", left out
    before: str  # the line
    after: str
    text: str  # the whole file


def mutants_of(text: str) -> Iterator[KernelMutant]:
    """Every mutant of a .cu file. Left alone: comments, directives, declarations of kernels, templates."""
    lines, function, declaring = text.split("\n"), "", False
    for number, line in enumerate(lines):
        code = line.partition("//")[0]
        if number and lines[number - 1].endswith("\\"):  # of a directive, as a rule
            continue
        begins = re.match(r'(?:KERNEL|__device__|extern "C").*?(\w+)\(', code)
        if begins:
            function, declaring = begins[1], True
        if declaring or code.lstrip().startswith(("#", "template", "UNROLL")) or not code.strip():
            declaring = declaring and "{" not in code
            continue
        for kind, new in _variants(code):
            after = "\n".join([*lines[:number], new, *lines[number + 1 :]])
            yield KernelMutant(function, number + 1, kind, code.strip(), new.strip(), after)


def _variants(code: str) -> Iterator[tuple[str, str]]:
    if ASSIGNMENT.match(code):
        yield "statement", code[: len(code) - len(code.lstrip())] + ";"
    for token in TOKEN.finditer(code):
        word, (start, end) = token[0], token.span()
        if word in SWAPS:
            yield word, code[:start] + SWAPS[word] + code[end:]
        elif re.fullmatch(r"\d+", word):
            yield word, code[:start] + str(int(word) + 1) + code[end:]
        elif re.fullmatch(r"\d+u?", word):
            yield word, code[:start] + str(int(word[:-1]) + 1) + "u" + code[end:]


class KernelMutation(Mutation):
    """A pytest plugin that runs the collected tests against mutants of one .cu file."""

    def __init__(self, file: str, mutants: list[Any], jobs: int, tell: Callable[[Any, str], None]) -> None:
        super().__init__(ModuleType(file), mutants, jobs, tell)
        self.file = file

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if self.failures:
            return True
        host = importlib.import_module("host")
        host.COMPILE = [word.replace("-O1", "-O0") for word in host.COMPILE]  # g++ is most of what a mutant costs
        seconds = self.times(session.items)
        if self.failures:
            return True
        host._library("", ())  # so that what g++ makes of host.h is there for every child
        items = [item for _, item in sorted(zip(seconds, session.items, strict=True), key=lambda pair: pair[0])]
        for mutant in self.mutants:
            self.start(mutant, lambda mutant=mutant: self.run_kernels_mutant(mutant.text, items), sum(seconds))
        while self.running:
            self.reap()
        return True

    def times(self, items: list[pytest.Item]) -> list[float]:
        """How long each test takes."""

        def first_run() -> list[float]:
            seconds = []
            for item in items:
                begin = time.process_time()
                run(item)
                seconds.append(time.process_time() - begin)
            return seconds

        return self.in_a_child(first_run)

    def run_kernels_mutant(self, text: str, items: list[pytest.Item]) -> int:
        """In a child: let the launcher read the mutant, compile it where it is thrown away afterwards, and run the
        tests up to the first failure."""
        launch, host = importlib.import_module("minicnn.backends.cuda.launch"), importlib.import_module("host")
        original = launch._source
        with tempfile.TemporaryDirectory() as folder:
            launch._source = lambda file: text if file == self.file else original(file)
            host._cache = lambda: Path(folder)
            return self.run_mutant(compile("", "nothing", "exec"), [], items)


def kernels(name: str) -> tuple[str, str, list[KernelMutant]]:
    """A file of kernels, its path, and its mutants."""
    file = f"minicnn/backends/cuda/{name}"
    return name, file, list(mutants_of((ROOT / file).read_text(encoding="utf-8")))


if __name__ == "__main__":
    if shutil.which("g++"):
        sys.exit(main(KERNELS, kernels, KernelMutation))
    print("the kernels' mutants need g++, which is not installed: none was tried")
