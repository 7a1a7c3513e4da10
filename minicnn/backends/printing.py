"""The programs that print what a compiler sees of a file of kernels."""

import argparse
import os
import sys
from collections.abc import Callable, Collection

from .devices import DeviceError


def main(program: str, about: str, names: Collection[str], text: Callable[[str], str]) -> None:
    """Print the text of the name that is given on the command line.

    Args:
        program: what the program is called.
        about: what it does.
        names: those that may be given.
        text: a function of such a name.
    """
    parser = argparse.ArgumentParser(
        prog=program, description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    listed = ", ".join(names)
    parser.add_argument("name", metavar="NAME", help=f"one of {listed}")
    name = parser.parse_args().name
    if name not in names:
        sys.exit(f"there are no kernels named {name!r}: use one of {listed}")
    try:
        printed = text(name)
    except DeviceError as error:
        sys.exit(str(error))
    try:
        print(printed, end="", flush=True)
    except BrokenPipeError:  # whoever reads has stopped, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
