"""The command line: python -m benchmarks cpu|gpu|parallel|scale [options]."""

import argparse
import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from support.options import Parser, UsageError, natural, number

from . import cable, gpu, machine, parallel, scale_report, sections
from .command import command
from .networks import NETWORKS, TINY, YEARS
from .report import page
from .sections import BACKENDS, Result, say
from .turns import BenchmarkError

SECTIONS = ("steps", "layers", "threads", "ops", "engine")
NAMES = tuple(name for name in NETWORKS if name != TINY)


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
        epilog="example: python -m benchmarks cpu --networks 2012,lenet --only steps --threads 1,2 --avx2",
    )  # fmt: skip
    on_gpu = devices.add_parser(
        "gpu", help=on_card, description=on_card, epilog="example: python -m benchmarks gpu --only kernels,steps"
    )
    every_core, results = len(machine.cores()), Path(__file__).parent / "results"
    cpu.add_argument(
        "--threads", type=naturals, default=[every_core], metavar="N,N",
        help="compute with N threads; steps with each number, the other parts with the largest (default: one for each "
        "core)",
    )  # fmt: skip
    on_gpu.add_argument(
        "--threads", type=natural, default=every_core, metavar="N",
        help="compute with N threads (default: one for each core)",
    )  # fmt: skip
    each = "; ".join(f"{','.join(map(str, NETWORKS[name].batches))} for {name}" for name in NAMES)
    for device, names, batches, parts, alone, quick in (
        (cpu, NAMES, each, SECTIONS, "minicnn and BLAS alone", "2012, batch 2"),
        (on_gpu, YEARS, "1,32,128,512; 128 for 2014", gpu.SECTIONS, "minicnn alone", "2012, batch 1"),
    ):
        add = device.add_argument
        add(
            "--networks", type=choices(*names), metavar="NAME,NAME",
            help=f"measure these networks, of {', '.join(names)} (default: all)",
        )  # fmt: skip
        add("--batches", type=naturals, metavar="N,N", help=f"measure these batch sizes (default: {batches})")
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
    cpu.add_argument(
        "--backends", type=choices(*BACKENDS), metavar="NAME,NAME",
        help=f"measure minicnn by these, and compare with the first, of {', '.join(BACKENDS)} (default: all that can "
        "be used here)",
    )  # fmt: skip
    cpu.add_argument(
        "--avx2", action="store_true", help="hold minicnn, NumPy, BLAS and PyTorch to AVX2 on a processor with AVX-512"
    )
    cpu.add_argument("--anyway", action="store_true", help="keep rounds that other processes have disturbed")
    on_gpu.add_argument(
        "--limit", type=natural, default=gpu.LONGEST, metavar="SECONDS",
        help=f"run all parts together for at most this long, the most important ones first (default: {gpu.LONGEST})",
    )  # fmt: skip
    on_gpu.add_argument(
        "--predict", action="store_true", help="instead, compute how long an H100 will take, which needs no GPU"
    )
    add_parallel(devices, results)
    add_scale(devices, results)
    return main


def add_parallel(devices: Any, results: Path) -> None:
    ways = "Time training on several processes: minicnn's ways of dividing it, and PyTorch's DistributedDataParallel."
    add = devices.add_parser(
        "parallel", help=ways, description=ways, epilog="example: python -m benchmarks parallel --bandwidth 2.5"
    ).add_argument
    add(
        "--processes", type=naturals, metavar="N,N",
        help="measure with so many processes (default: 1,2; over a cable 2)",
    )  # fmt: skip
    add("--batch", type=natural, metavar="N", help="train with N images a step, all processes together (default: 32)")
    add(
        "--ways", type=choices(*parallel.WAYS), default=parallel.WAYS, metavar="WAY,WAY",
        help=f"measure these ways of dividing the work, of {', '.join(parallel.WAYS)} (default: all)",
    )  # fmt: skip
    add("--threads", type=natural, metavar="N", help="N threads in each process (default: the cores are divided)")
    add(
        "--bandwidth", type=number(float, 0.01, 1000, "a number from 0.01 to 1000"), metavar="GBIT",
        help="send over a cable of GBIT a second between network namespaces (as root)",
    )  # fmt: skip
    add(
        "--rounds", type=natural, metavar="N", help="repeat each measurement N times (default: as often as time allows)"
    )
    add(
        "--limit", type=natural, default=300, metavar="SECONDS",
        help="begin no round when so many seconds have passed (default: 300)",
    )  # fmt: skip
    add("--anyway", action="store_true", help="keep rounds that other processes have disturbed")
    add("--quick", action="store_true", help="try the program: a tiny network, 3 rounds; its figures mean little")
    add("--without-pytorch", action="store_true", help="measure minicnn alone")
    add_output(add, "parallel.md and parallel.json", results)


def add_output(add: Any, files: str, results: Path) -> None:
    add(
        "--output", type=Path, default=results, metavar="FOLDER",
        help=f"write {files} into this folder (default: benchmarks/results)",
    )  # fmt: skip


def add_scale(devices: Any, results: Path) -> None:
    predicted = "Predict how much faster 1 to 1024 workers train, for the three ways of dividing the work."
    add = devices.add_parser(
        "scale", help=predicted, description=predicted,
        epilog="example: python -m benchmarks scale --step 1900 --fixed 120 --linear 230 --optimizer 140",
    ).add_argument  # fmt: skip
    milliseconds = number(float, 0, 1e9, "a number of at least 0")
    positive = number(float, 1e-6, 1e9, "a number above 0")
    for name, words in {
        "step": "a worker's forward and backward pass of a batch takes MS milliseconds",
        "fixed": "of it, MS do not depend on the batch: what the linear layers do with each weight",
        "linear": "of it, the backward pass of the linear layers takes MS",
        "optimizer": "the optimizer's step takes MS",
    }.items():
        add(f"--{name}", type=milliseconds, metavar="MS", help=f"{words} (default: measured; all four or none)")
    add("--bandwidth", type=positive, default=25.0, metavar="GBIT", help="a link carries GBIT a second (default: 25)")
    add("--latency", type=milliseconds, default=0.03, metavar="MS", help="a message takes MS more (default: 0.03)")
    add("--batch", type=natural, default=128, metavar="N", help="strong scaling: N images a step (default: 128)")
    add("--each", type=natural, default=32, metavar="N", help="weak scaling: N images for each worker (default: 32)")
    add("--most", type=natural, default=1024, metavar="N", help="predict for 1, 2, 4, … N workers (default: 1024)")
    add("--measured", type=Path, metavar="FILE", help="compare with what `parallel` has written: parallel.json")
    add_output(add, "scale.md and scale.json", results)


def check(given: argparse.Namespace) -> None:
    """Find out now what would end the run in a quarter of an hour."""
    if given.device == "parallel":
        check_parallel(given)
    if given.device == "scale":
        check_scale(given)
    if given.device == "gpu":
        given.without_pytorch |= not importlib.util.find_spec("torch")
    if not getattr(given, "without_pytorch", True) and not importlib.util.find_spec("torch"):
        raise UsageError("PyTorch is not installed: pip install torch==2.13.0, or add --without-pytorch")
    if given.device in ("cpu", "gpu") and not importlib.util.find_spec("matplotlib"):
        raise UsageError("the chart needs matplotlib: pip install matplotlib")
    try:
        given.output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=given.output).close()
    except OSError as error:
        raise UsageError(f"--output {given.output} cannot be written: {error.strerror}") from None


def run(arguments: Sequence[str] | None) -> None:
    given = parser().parse_args(arguments)
    check(given)
    if given.device == "parallel":
        return run_parallel(given)
    if given.device == "scale":
        return run_scale(given)
    names = given.networks or (NAMES if given.device == "cpu" else YEARS)[: 1 if given.quick else None]
    settings = given.batches, given.rounds, names, not given.without_pytorch, given.quick
    (run_gpu if given.device == "gpu" else run_cpu)(given, settings)


def check_parallel(given: argparse.Namespace) -> None:
    given.processes = sorted(set(given.processes or ([2] if given.bandwidth else [1, 2])))
    given.batch = given.batch or (12 if given.quick else 32)
    for n in given.processes:
        if given.batch % n:
            raise UsageError(f"--batch {given.batch} cannot be divided equally among {n} processes")
    if max(given.processes) > 1 and not importlib.util.find_spec("mpi4py"):
        raise UsageError("mpi4py is not installed: pip install mpi4py mpich")
    if given.bandwidth:
        cable.check()


def check_scale(given: argparse.Namespace) -> None:
    times = given.step, given.fixed, given.linear, given.optimizer
    if any(time is None for time in times) and any(time is not None for time in times):
        raise UsageError("--step, --fixed, --linear and --optimizer belong together: give all four, or none")
    if given.step is not None and given.step <= given.fixed + given.linear:
        raise UsageError("--step is the whole of the forward and backward pass: more than --fixed and --linear")


def run_parallel(given: argparse.Namespace) -> None:
    options = parallel.Options(
        given.processes, given.batch, given.ways, given.threads, given.rounds, given.limit,
        not given.without_pytorch, given.quick, given.bandwidth, not (given.anyway or given.quick),
    )  # fmt: skip
    parallel.write(parallel.run(options), given.output)


def run_scale(given: argparse.Namespace) -> None:
    scale_report.write(scale_report.run(given), given.output)


def run_cpu(given: argparse.Namespace, settings: tuple[Any, ...]) -> None:
    if given.avx2:
        os.environ.update(machine.AVX2)  # for the contenders' processes
    backends, problems = sections.usable_backends(given.backends)
    options = sections.Options(
        max(given.threads), *settings, compiled=not given.without_compile, backends=backends, watched=not given.anyway
    )
    if problem := sections.cannot_compile(options):
        problems.append(problem)
        options = options._replace(compiled=False)
    for problem in problems:
        say(problem)
    results: Result = {
        "machine": sections.describe(options), "problems": problems,
        "avx2": given.avx2, "anyway": given.anyway,
        "watched": options.watched and machine.busy() is not None, "agreement": sections.agreement(options),
    }  # fmt: skip
    for name in SECTIONS:
        if name == "steps" and name in given.only:
            results[name] = [r for n in sorted(set(given.threads)) for r in sections.steps(options._replace(threads=n))]
        elif name in given.only and (name != "threads" or options.threads > 1):
            results[name] = getattr(sections, name)(options)
    # Imported here, because the contenders' processes import this file and need no matplotlib.
    from .cpu_report import write

    write(results, given.output)


def run_gpu(given: argparse.Namespace, settings: tuple[Any, ...]) -> None:
    options = gpu.Options(given.threads, *settings)
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
