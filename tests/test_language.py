"""One language in all that people read: American spelling, and the field's words. The list says what is
written instead of what; what was mended stays mended.

Looked at are the comments, docstrings and other strings of the package, the examples and the benchmarks, the
names that the package defines, its CUDA sources, and the Markdown pages.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("minicnn/**/*.py"), *ROOT.glob("examples/**/*.py"), *ROOT.glob("benchmarks/*.py")])
KERNELS = sorted([*ROOT.glob("minicnn/**/*.cu"), *ROOT.glob("minicnn/**/*.h")])
FOLDERS = "minicnn", "examples", "benchmarks", "findings"
PAGES = sorted([*ROOT.glob("*.md"), *[page for folder in FOLDERS for page in (ROOT / folder).glob("**/*.md")]])
PAGES = [page for page in PAGES if page.parent != ROOT / "benchmarks" / "results"]  # written by programs, once

STEMS = (  # of words that end in -ise, -ised, -ising, -isation
    "author|capital|character|custom|discret|emphas|factor|final|general|initial|local|material|maxim|minim|modular"
    "|normal|optim|organ|parallel|penal|quant|random|real|recogn|regular|serial|special|standard|summar|synchron"
    "|util|vector|visual"
)
RULES = [  # what is found, case aside; what is written instead
    (r"colou(r)", "color"),
    (rf"\b(un|de|re)?({STEMS})is(e|ed|er|ers|es|ing|ation|ations)\b", "-ize"),
    (r"analys(e|ed|ing)\b", "analyze"),
    (r"\bcentre|centring", "center"),
    (r"\bgrey", "gray"),
    (r"neighbour", "neighbor"),
    (r"behaviour", "behavior"),
    (r"favour", "favor"),
    (r"\b\w*(labell|modell|travell|cancell)(ed|ing)\b", "one l: labeled"),
    (r"\b(artefact|catalogue|licence|programme|judgement|ageing)s?\b", "artifact, catalog, license …"),
    (r"\bpicture", "image"),
    (r"\bthe walk\b|\bwalk(s|ed|ing)? (back|(through )?(the|a) graph)", "backward pass"),
    (r"\btape\b", "graph"),
    (r"\bfloors? (above|below|of imports)|ground floor", "layer"),
    (r"Winograd's way", "the Winograd algorithm"),
    (r"[,;:] for (it|they|he|there|then|otherwise)\b", "because"),
]
PACKAGE_RULES = [  # in the text of minicnn/ only: elsewhere entries are those of tables and folders
    (r"\bentr(y|ies)\b", "element, of an array"),
    (r"\b(PACK|neighboring|floating) numbers\b|\bthread for each number\b", "element, of an array"),
    (
        r"(?<!there )\b(is|are|was|were) no (?!more|less|longer|shorter|larger|smaller|better|worse|faster|slower)\w+",
        "is not a …",
    ),
]

EXCEPTIONS: dict[tuple[str, str], str] = {  # (file, text in the line): why
}


def strings(tree):
    """(line, text) of the strings in a syntax tree, those between the braces of f-strings among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for i, line in enumerate(node.value.split("\n")):
                yield min(node.lineno + i, node.end_lineno), line


def names(source):
    """(line, words) of the names that a module defines, taken apart at underscores and capitals."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                pass
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                pass
            case _:
                continue
        yield node.lineno, re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name)


def comments(source):
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def texts(source):
    """(line, text) of a Python source."""
    return sorted({*strings(ast.parse(source)), *comments(source)})


def found(lines, rules):
    """(line, what is written, what is written instead)"""
    return [
        (number, hit[0], instead)
        for number, line in lines
        for pattern, instead in rules
        for hit in re.finditer(pattern, line, re.IGNORECASE)
    ]


def problems(path):
    name, source = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    allowed = [text for file, text in EXCEPTIONS if file == name]
    lines = texts(source) if path.suffix == ".py" else enumerate(source.split("\n"), 1)
    lines = [(number, line) for number, line in lines if not any(text in line for text in allowed)]
    hits = found(lines, RULES)
    if name.startswith("minicnn/"):
        hits += found(lines, PACKAGE_RULES) + (found(names(source), RULES) if path.suffix == ".py" else [])
    return [f"{name}:{number}: {word!r}, written {instead!r} here" for number, word, instead in sorted(hits)]


@pytest.mark.parametrize("path", [*SOURCES, *KERNELS, *PAGES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_one_language(path):
    assert problems(path) == []


def test_every_exception_is_needed():
    assert [key for key in EXCEPTIONS if key[1] not in (ROOT / key[0]).read_text(encoding="utf-8")] == []


def test_sources_are_found():
    names = {path.relative_to(ROOT).as_posix() for path in [*SOURCES, *KERNELS, *PAGES]}
    assert names >= {"minicnn/data/loader.py", "minicnn/backends/cuda/kernels.h", "benchmarks/README.md", "README.md"}
    assert not [name for name in names if name.startswith("benchmarks/results")]


@pytest.mark.parametrize(
    "text", ["Colours", "normalised", "un-normalised", "Initialisation", "greyscale", "a_picture", "neighbouring",
             "labelled", "they walk back", "on a floor above", "the tape", "left out, for they are slow"],
)  # fmt: skip
def test_words_are_found(text):
    assert len(found([(1, text.replace("_", " "))], RULES)) == 1


@pytest.mark.parametrize(
    "text", ["noise", "otherwise", "precise", "comparison", "analysis", "exercises", "os.walk", "CancelledError",
             "promised", "programmed", "the tapestry", "the step, for this network", "np.floor", "revised", "Winograd's"],
)  # fmt: skip
def test_other_words_are_not(text):
    assert found([(1, text)], RULES) == []


@pytest.mark.parametrize(
    "text", ["an entry of x", "of no entries", "x is no array", "what are no numbers", "if there are no classes"]
)
def test_words_of_the_package(text):
    assert len(found([(1, text)], PACKAGE_RULES)) == (not text.startswith("if there"))


def test_where_words_are():
    source = '''"""First line.

A picture in the third."""

picture_size = 1  # a picture
def pictures(colour, *, entry): f"{colour[entry]} is {picture_size!r:>{tape}} grey"
class PictureFolder:
    x.tape, y = os.walk, "a\\nb colour"
'''
    assert [hit[:2] for hit in found(texts(source), RULES)] == [
        (3, "picture"), (5, "picture"), (6, "grey"), (8, "colour"),
    ]  # fmt: skip
    assert [hit[:2] for hit in found(sorted(names(source)), RULES)] == [
        (5, "picture"), (6, "colour"), (6, "picture"), (7, "Picture"), (8, "tape"),
    ]  # fmt: skip
