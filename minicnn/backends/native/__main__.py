"""Print what the compiler sees of a .c file, for float32, and how to compile it for this processor.

python -m minicnn.backends.native activation
"""

import shlex

from .. import printing
from .compiler import HERE, command_for, source_of

NAMES = sorted(path.stem for path in HERE.glob("*.c"))
HEAD = """\
// {name}.c as the compiler sees it, for float32. To compile it, and to read what has become of it:
//
//     python -m minicnn.backends.native {name} > {name}.c
//     {command} {name}.c -o {name}.so -lm
//     objdump -d {name}.so
//
"""


def text(name: str) -> str:
    return HEAD.format(name=name, command=shlex.join(command_for("float"))) + source_of(name)


def main() -> None:
    printing.main("python -m minicnn.backends.native", __doc__ or "", NAMES, text)


if __name__ == "__main__":
    main()
