"""Print what the compiler sees of a .c file, for float32, and how to compile it for this processor.

python -m minicnn.backends.native activation
"""

import argparse
import os
import shlex
import sys

from ..devices import DeviceError
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


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m minicnn.backends.native",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(NAMES)
    parser.add_argument("name", metavar="NAME", help=f"one of {names}")
    name = parser.parse_args().name
    if name not in NAMES:
        sys.exit(f"there are no kernels named {name!r}: use one of {names}")
    try:
        text = HEAD.format(name=name, command=shlex.join(command_for("float"))) + source_of(name)
    except DeviceError as error:
        sys.exit(str(error))
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # whoever reads has stopped, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
