"""The command line: python -m benchmarks cpu [options]."""

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from . import machine, sections
from .networks import INPUT_SIZE
from .turns import BenchmarkError

SECTIONS = ("steps", "layers", "threads", "ops", "engine")


class UsageError(ValueError):
    """A mistake on the command line."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaint is one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (--help explains the options)")


def natural(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def naturals(text: str) -> list[int]:
    return [natural(part) for part in text.split(",")]


def choices(*known: str) -> object:
    """An argparse type: one or more of these, separated by commas."""

    def parse(text: str) -> tuple[str, ...]:
        for part in text.split(","):
            if part not in known:
                raise argparse.ArgumentTypeError(f"{part!r} is not one of {', '.join(known)}")
        return tuple(text.split(","))

    return parse


def parser() -> argparse.ArgumentParser:
    main = Parser(prog="python -m benchmarks", description=sys.modules["benchmarks"].__doc__)
    cpu = main.add_subparsers(dest="device", required=True).add_parser(
        "cpu", help="minicnn, PyTorch and BLAS alone, in turn, on this machine's cores"
    )
    cpu.add_argument("--networks", type=choices(*INPUT_SIZE), metavar="YEAR,YEAR", help="2012, 2014 (default: both)")
    cpu.add_argument("--batches", type=naturals, metavar="N,N", help="(default: 1,8,32,128,256; 32 for 2014)")
    cpu.add_argument("--threads", type=natural, default=len(machine.cores()), metavar="N", help="(default: every core)")
    cpu.add_argument("--rounds", type=natural, metavar="N", help="of each measurement (default: what time allows)")
    cpu.add_argument("--only", type=choices(*SECTIONS), default=SECTIONS, metavar="PART", help=", ".join(SECTIONS))
    cpu.add_argument("--quick", action="store_true", help="2012, batch 2, 3 rounds, to try it out")
    cpu.add_argument("--without-pytorch", action="store_true", help="minicnn and BLAS alone")
    cpu.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results", metavar="FOLDER",
        help="where cpu.md, cpu.json and cpu.png go (default: benchmarks/results)",
    )  # fmt: skip
    return main


def check(given: argparse.Namespace) -> None:
    """Find out now what would end the run in a quarter of an hour."""
    if not given.without_pytorch and not importlib.util.find_spec("torch"):
        raise UsageError("there is no PyTorch here: pip install torch==2.13.0, or add --without-pytorch")
    if not importlib.util.find_spec("matplotlib"):
        raise UsageError("the chart needs matplotlib: pip install matplotlib")
    try:
        given.output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=given.output).close()
    except OSError as error:
        raise UsageError(f"--output {given.output} cannot be written: {error.strerror}") from None


def run(arguments: Sequence[str] | None) -> None:
    given = parser().parse_args(arguments)
    check(given)
    years = given.networks or tuple(INPUT_SIZE)[: 1 if given.quick else None]
    options = sections.Options(
        given.threads, given.batches, given.rounds, years, not given.without_pytorch, given.quick
    )
    results = {"machine": machine.describe(given.threads), "watched": machine.busy() is not None}
    results["agreement"] = sections.agreement(options)
    for name in SECTIONS:
        if name in given.only and (name != "threads" or given.threads > 1):
            results[name] = getattr(sections, name)(options)
    from .report import write  # the contenders' processes import this file again, and should not load matplotlib

    write(results, given.output)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 2 for a mistake on the command line, 1 if there are no honest figures, 130 if interrupted."""
    try:
        run(arguments)
        return 0
    except (UsageError, BenchmarkError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("interrupted: the files of the last run are as they were", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
