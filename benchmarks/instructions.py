"""How many machine instructions a launch of one of minicnn's kernels issues, and how long an H100
takes to issue them, without one: NVRTC compiles the kernel for sm_90 just as the launch does, and
nvdisasm lists what comes out, loops and all.

A warp is taken to go the longest way through each turn of a loop: of two branches it takes the
longer one, and what it may skip it does not skip. So the count is rather too high, but for a warp
whose threads part ways and take both branches."""

import functools
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from minicnn.backends.cuda.launch import BLOCK, OPTIONS

from .gpu_launches import Launch
from .turns import Worker

WARP = 32
# H100 SXM: 132 multiprocessors. The 67 TFLOP/s of its data sheet take 1.98 GHz; that it issues as
# many instructions as 1.755 allow is assumed. With that, im2col of conv1 in commit c004f91 takes
# 389 µs; an H200, which has as many, took 410.
PROCESSORS, CLOCK = 132, 1.755e9
# Warps' instructions that a multiprocessor begins in a clock: four of any kind, and of some kinds
# fewer, because they have fewer lanes. By the CUDA C++ Programming Guide (throughput of native
# arithmetic instructions, compute capability 9.0), which has results for each thread: 128 for
# floats, 64 for integers, comparisons and doubles, 16 for special functions. Those of one line
# share lanes: they are the pipes FMA heavy, ALU, XU and FP64 of Nsight Compute.
ISSUED = 4.0
LANES = {
    re.compile(r"IMAD|IDP"): 2.0,
    re.compile(r"V?I(ADD|MNMX|ABS)|ISETP|LEA|LOP|SHF|PRMT|SEL|MOV|BMSK|SGXT|F(SETP|SEL|MNMX)|P(LOP|2R)|I2FP"): 2.0,
    re.compile(r"MUFU|I2F(?!P)|F2[FI]|I2I|FRND|POPC|FLO|BREV"): 0.5,
    re.compile(r"D(ADD|MUL|FMA|SETP|MNMX)"): 2.0,
}
TWICE = re.compile(r"IMAD\.(WIDE|HI)")  # products of 64 bits, assumed to take their lanes twice


def _rows(numbers: dict[str, int]) -> list[float]:
    # A thread adds up every (BLOCK / WIDE)th row. The compiler has written four turns out, and
    # before them is a loop for what is left.
    rows = -(-min(numbers["chunk"], numbers["rows"]) // (BLOCK // numbers["WIDE"]))
    return [rows % 4, rows // 4]


def _windows(numbers: dict[str, int]) -> list[float]:
    # How many windows see a pixel in the mean, downwards; along the line likewise, but four turns
    # are written out, and before the loop is, three times, what is left.
    n = numbers
    down = (p * n["SH"] + k * n["DH"] - n["TOP"] for p in range(n["OH"]) for k in range(n["KH"]))
    along = (q * n["SW"] + j * n["DW"] - n["LEFT"] for q in range(n["OW"]) for j in range(n["KW"]))
    return [sum(0 <= h < n["H"] for h in down) / n["H"], sum(0 <= w < n["W"] for w in along) / n["W"] // 4]


# How often the loops inside FOR_EACH are run each time, in the order of the code. Those of other
# kernels have been written out.
INNER: dict[str, Callable[[dict[str, int]], list[float]]] = {
    "ops.column_sums": _rows,
    "windows.col2im": _windows,
    # Four turns are written out, which most threads take; the last ones of a block, 1000 being
    # less than 4 · BLOCK, three of these loops.
    "loss.negative_log_likelihood": lambda numbers: [3, 3],
    "loss.negative_log_likelihood_backward": lambda numbers: [3, 3, 3],
    # Which parameter an element is of: fc6 has 62% of AlexNet's elements, fc7, the next, 28%.
    "optimizer.sgd": lambda numbers: [1.5],
}


class Instruction(NamedTuple):
    name: str  # such as IMAD.WIDE.U32
    conditional: bool
    target: int | None = None  # the number of the instruction that it jumps to


class Issued(NamedTuple):
    instructions: float  # by all warps together
    seconds: float


LINE = re.compile(r"^(\.L\w+):|/\*[0-9a-f]{4,}\*/\s+(@\S+\s+)?([A-Z][\w.]*)([^;]*);", re.MULTILINE)


def read(listing: str, kernel: str) -> list[Instruction]:
    """The instructions of a kernel, from what nvdisasm writes."""
    labels: dict[str, int] = {}
    found: list[tuple[str, bool, str]] = []
    section = listing.partition(f".text.{kernel},")[2].partition(".section\t")[0]
    for label, predicate, name, operands in LINE.findall(section):
        if label:
            labels[label] = len(found)
        else:
            found.append((name, bool(predicate), operands.partition("`(")[2].rstrip(") ")))
    return [
        Instruction(name, conditional, labels[to] if name.startswith("BRA") else None)
        for name, conditional, to in found
    ]


def way(instructions: list[Instruction], turns: float, inner: list[float]) -> list[tuple[str, float]]:
    """The names of the instructions that a warp issues, and how often each. The outermost loop is
    run `turns` times, those inside it, in the order of the code, `inner` times each time.
    ValueError if there are others."""
    ends: dict[int, int] = {}  # a loop ends with the last jump back to its beginning
    for i, instruction in enumerate(instructions):
        if instruction.target is not None and instruction.target < i:
            ends[instruction.target] = i
    loops, behind = sorted(ends.items()), len(instructions)
    if len(loops) != 1 + len(inner) or max(ends.values()) > loops[0][1]:
        raise ValueError(f"its machine code has {len(loops)} loops, not one with {len(inner)} inside")
    times = [1.0] * behind
    for (begin, end), often in zip(loops, [turns, *inner], strict=True):
        times[begin : end + 1] = [often * so_far for so_far in times[begin : end + 1]]
    # From the end on, what is still to come if the longest way is taken, and where that goes.
    left, following = [0.0] * (behind + 1), [0] * behind
    for i in reversed(range(behind)):
        name, conditional, target = instructions[i]
        ways = [i + 1]
        if target is not None and target > i:
            ways = [target, i + 1] if conditional else [target]
        elif name.startswith(("EXIT", "RET")) and not conditional:
            ways = [behind]
        following[i] = max(ways, key=left.__getitem__)
        left[i] = times[i] + left[following[i]]
    i, found = 0, []
    while i < behind:
        found.append((instructions[i].name, times[i]))
        i = following[i]
    return found


def clocks(gone: list[tuple[str, float]]) -> float:
    """The clocks of a multiprocessor that these instructions take at the least."""
    takes = [sum(times for _, times in gone) / ISSUED]
    for kind, rate in LANES.items():
        takes.append(sum(times * (2 if TWICE.match(name) else 1) for name, times in gone if kind.match(name)) / rate)
    return max(takes)


def issued(listing: str, launch: Launch) -> Issued:
    """What a launch issues, by the listing of its machine code. ValueError if that has loops of
    which it is not known how often they are run."""
    kernel, code = launch.name.partition(".")[2], launch.code
    assert code is not None
    inner = INNER[launch.name](dict(code.numbers)) if launch.name in INNER else []
    warps = code.blocks * (BLOCK // WARP)
    try:
        gone = way(read(listing, kernel), code.turns / warps, inner)
    except ValueError as reason:
        raise ValueError(f"{launch.name}: {reason}") from None
    seconds = warps * clocks(gone) / min(code.blocks, PROCESSORS) / CLOCK
    return Issued(warps * sum(times for _, times in gone), seconds)


class Machine(Worker):
    """Compiles, in a process of its own: where the tests run, CuPy may be their stand-in."""

    def __init__(self, threads: int) -> None:
        self.tasks, self.asked = {}, threads

    def threads(self) -> dict[str, int]:
        return {"asked": self.asked}

    def issued(self, launches: list[Launch]) -> list[Issued] | str:
        """What each of them issues, or why that cannot be told."""
        try:
            return [issued(listing(launch.code.source), launch) for launch in launches if launch.code]
        except (ImportError, RuntimeError, ValueError) as error:
            return " ".join(str(error).split())


@functools.cache
def listing(source: str) -> str:
    """The machine code of a source for sm_90. ImportError or RuntimeError without what it takes."""
    spec = importlib.util.find_spec("nvidia")  # the folder of NVIDIA's packages for Python
    folders = (spec and spec.submodule_search_locations) or ()
    beside = [path for folder in folders for path in Path(folder).glob("*/bin/nvdisasm")]
    tool = shutil.which("nvdisasm") or next(iter(beside), None)
    if tool is None:
        raise ImportError("nvdisasm is missing, which comes with CUDA, and for Python as nvidia-cuda-nvdisasm")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled(source))
        file.flush()
        done = subprocess.run([tool, "-c", file.name], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"nvdisasm: {done.stderr.strip()}")
    return done.stdout


def compiled(source: str) -> bytes:
    """As CuPy compiles it; ImportError or RuntimeError without CuPy or NVRTC."""
    import cupy  # noqa: F401  # which knows where the library is
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram(source, "kernels.cu", (), ())
    try:
        # The same options are added by cupy/cuda/compiler.py. CuPy's getCUBIN cuts off the last
        # byte, as if it ended a text; it is 0.
        nvrtc.compileProgram(program, (*OPTIONS, "-ftz=true", "--device-as-default-execution-space", "-arch=sm_90"))
        return nvrtc.getCUBIN(program) + bytes(1)
    finally:
        nvrtc.destroyProgram(program)
