"""The command line: python -m benchmarks cpu|gpu [options]."""

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from support.options import Parser, UsageError, natural

from . import gpu, machine, sections
from .command import command
from .networks import YEARS
from .report import page
from .sections import Result, say
from .turns import BenchmarkError

SECTIONS = ("steps", "layers", "threads", "ops", "engine")


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
    devices = main.add_subparsers(dest="device", required=True)
    on_cpu = "Time minicnn, PyTorch and BLAS alone on this machine's cores: training steps, layers, operations."
    on_card = "On an NVIDIA GPU, run the tests, and time each kernel, and training steps of minicnn and PyTorch."
    cpu = devices.add_parser(
        "cpu", help=on_cpu, description=on_cpu,
        epilog="example: python -m benchmarks cpu --networks 2012 --batches 1,32",
    )  # fmt: skip
    on_gpu = devices.add_parser(
        "gpu", help=on_card, description=on_card, epilog="example: python -m benchmarks gpu --only kernels,steps"
    )
    every_core, results = len(machine.cores()), Path(__file__).parent / "results"
    for device, batches, parts, alone, quick in (
        (cpu, "1,8,32,128,256; 32 for 2014", SECTIONS, "minicnn and BLAS alone", "2012, batch 2"),
        (on_gpu, "1,32,128,512; 128 for 2014", gpu.SECTIONS, "minicnn alone", "2012, batch 1"),
    ):
        add = device.add_argument
        add(
            "--networks",
            type=choices(*YEARS),
            metavar="YEAR,YEAR",
            help="measure AlexNet of 2012, 2014 (default: both)",
        )
        add("--batches", type=naturals, metavar="N,N", help=f"measure these batch sizes (default: {batches})")
        add(
            "--threads",
            type=natural,
            default=every_core,
            metavar="N",
            help="compute with N threads (default: one for each core)",
        )
        add(
            "--rounds",
            type=natural,
            metavar="N",
            help="repeat each measurement N times (default: as often as time allows)",
        )
        add(
            "--only",
            type=choices(*parts),
            default=parts,
            metavar="PART,PART",
            help=f"run only these parts, of {', '.join(parts)} (default: all)",
        )
        add("--quick", action="store_true", help=f"try the program: {quick}, 3 rounds; its figures mean little")
        add("--without-pytorch", action="store_true", help=f"measure {alone}")
        add(
            "--output", type=Path, default=results, metavar="FOLDER",
            help=f"write {device.prog.split()[-1]}.md, .json, .png and so on into this folder (default: "
            "benchmarks/results)",
        )  # fmt: skip
    cpu.add_argument(
        "--without-compile", action="store_true",
        help="leave torch.compile out, which takes half a minute or more for each network and batch",
    )  # fmt: skip
    on_gpu.add_argument(
        "--limit", type=natural, default=gpu.LONGEST, metavar="SECONDS",
        help=f"run all parts together for at most this long, the most important ones first (default: {gpu.LONGEST})",
    )  # fmt: skip
    on_gpu.add_argument(
        "--predict", action="store_true", help="instead, compute how long an H100 will take, which needs no GPU"
    )
    return main


def check(given: argparse.Namespace) -> None:
    """Find out now what would end the run in a quarter of an hour."""
    if given.device == "gpu":
        given.without_pytorch |= not importlib.util.find_spec("torch")
    if not given.without_pytorch and not importlib.util.find_spec("torch"):
        raise UsageError("PyTorch is not installed: pip install torch==2.13.0, or add --without-pytorch")
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
    years = given.networks or YEARS[: 1 if given.quick else None]
    settings = given.threads, given.batches, given.rounds, years, not given.without_pytorch, given.quick
    (run_gpu if given.device == "gpu" else run_cpu)(given, settings)


def run_cpu(given: argparse.Namespace, settings: tuple[Any, ...]) -> None:
    options = sections.Options(*settings, compiled=not given.without_compile)
    results: Result = {"machine": machine.describe(given.threads), "watched": machine.busy() is not None}
    if problem := sections.cannot_compile(options):
        say(problem)
        options = options._replace(compiled=False)
    results["problems"] = [problem] if problem else []
    results["agreement"] = sections.agreement(options)
    for name in SECTIONS:
        if name in given.only and (name != "threads" or given.threads > 1):
            results[name] = getattr(sections, name)(options)
    # Imported here, because the contenders' processes import this file and need no matplotlib.
    from .cpu_report import write

    write(results, given.output)


def run_gpu(given: argparse.Namespace, settings: tuple[Any, ...]) -> None:
    options = gpu.Options(*settings)
    from . import gpu_report  # as above

    if given.predict:
        gpu_report.write_prediction(gpu.prediction(options), given.output)
    elif given.only == ("launches",):  # which takes no GPU
        print(page(gpu_report.launches(gpu.launches(options))), end="")
    else:
        save = partial(gpu_report.write, folder=given.output)
        if wrong := gpu.failures(gpu.measured(options, given.only, given.limit, save)):
            raise BenchmarkError(f"{len(wrong)} things went wrong, see {given.output / 'gpu.md'}")


def main(arguments: Sequence[str] | None = None) -> int:
    return command("benchmarks", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
