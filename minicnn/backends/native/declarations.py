"""What the .c files declare, and the wrappers through which their kernels are called.

    KERNEL void rectify(Index first, Index last, const real *x, real *y)

The threads of launch.c know nothing of x and y. They call a kernel's wrapper, which finds all
arguments after the first two where launch.py has put them, 8 bytes for each:

    EXPORTED void wrapped_rectify(Index first, Index last, const char *given, uint8_t *room) {
        rectify(first, last, GIVEN(const real *, 0), GIVEN(real *, 1));
    }
"""

import re
from typing import NamedTuple

import numpy as np

DECLARATION = re.compile(r"^KERNEL void (\w+)\(([^)]*)\)", re.MULTILINE)
WRAPPER = """
EXPORTED void wrapped_{name}(Index first, Index last, const char *given, uint8_t *room) {{
    (void)room;  // not all have any
    {name}({passed});
}}
"""
GIVEN = "\n#define GIVEN(type, place) (*(type const *)(given + 8 * (place)))\n"
ROOM = "room"  # the argument that is the thread's working memory
# The types by their names in C: the dtype of an array, and how the module struct writes a number
# into 8 bytes. Real numbers of both kinds are given as double.
TYPES = {
    "float": (np.float32, "d"),
    "double": (np.float64, "d"),
    "Index": (np.intp, "q"),
    "int64_t": (np.int64, "q"),
    "uint8_t": (np.uint8, "B7x"),
    "uint32_t": (np.uint32, "I4x"),
    "uint64_t": (np.uint64, "Q"),
}


class Argument(NamedTuple):
    """What a kernel declares after first and last."""

    name: str
    kind: str  # one of TYPES, or "real"
    is_array: bool
    is_const: bool
    is_strided: bool

    def given(self) -> str:
        """The type in which it is given, in C."""
        if self.is_array:
            return "const " * self.is_const + self.kind + " *"
        return "double" if self.kind in ("real", "float") else self.kind


def declared(source: str) -> dict[str, list[Argument]]:
    """The arguments of each kernel of a source, after first and last."""
    return {name: [_argument(text) for text in texts.split(",")[2:]] for name, texts in DECLARATION.findall(source)}


def _argument(text: str) -> Argument:
    words = text.replace("*", " * ").split()
    (kind,) = {*words[:-1]} - {"const", "strided", "restrict", "*"}
    return Argument(words[-1], kind, "*" in words, "const" in words, "strided" in words)


def wrappers(source: str) -> str:
    """The wrappers of all kernels of a source, in C."""
    kernels = declared(source)
    text = GIVEN if kernels else ""
    for name, arguments in kernels.items():
        given = [
            ROOM if argument.name == ROOM else f"GIVEN({argument.given()}, {place})"
            for place, argument in enumerate(arguments)
        ]
        text += WRAPPER.format(name=name, passed=", ".join(["first", "last", *given]))
    return text
