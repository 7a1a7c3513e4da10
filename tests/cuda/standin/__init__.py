"""A stand-in for CuPy 14 on a machine without a GPU: its names, its refusals and its results, on NumPy's memory.

    with standin.installed() as machine:        import cupy now finds it
        ...
        print(machine.log.table())              every launch, transfer and wait, in order or counted

It has the names that CuPy has (cupy_names.json) and takes the arguments that CuPy takes; it refuses arrays of the host
where CuPy does, and also where CuPy would send them to the GPU without a word. Fresh memory is poisoned. machine.py
says what is logged, devices.py how late a copy can be, absences.py in how many ways a GPU can be missing.

What it does not show: how long anything takes; kernels that run side by side; that CuPy adds up in another order, has
fewer types for some ufuncs, and makes several launches of what is composed of several, such as pad or var (here each
function is one). It computes on the default stream only, and of CuPy's random numbers, Fourier transforms, linear
algebra and ElementwiseKernel has but the names.
"""

import contextlib
import sys
from collections.abc import Iterator

from . import absences, devices, functions, libraries, names
from .machine import LAUNCHES, TRANSFERS, Log, Machine, RaceError, machine

__all__ = [
    "LAUNCHES", "TRANSFERS", "Log", "Machine", "RaceError", "absences", "cupy", "installed", "machine", "simulated",
]  # fmt: skip

cupy = names.cupy
MODULES = {**devices.modules(), "cupy.cuda.cublas": libraries.cublas()}


def _assemble() -> None:
    names.fill(
        cupy, "cupy", {**functions.content(), **libraries.content(), **devices.content(), "cuda": MODULES["cupy.cuda"]}
    )
    cupy.__version__, cupy.__path__ = names.VERSION, []
    for name, module in MODULES.items():
        owner, _, child = name.rpartition(".")
        if owner:
            setattr(MODULES.get(owner, cupy), child, module)


_assemble()


@contextlib.contextmanager
def installed() -> Iterator[Machine]:
    """Inside, `import cupy` and `import cupyx` find the stand-in, on a machine as good as new."""
    modules = {"cupy": cupy, **MODULES}
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ("cupy", "cupyx")}
    for name in before:
        del sys.modules[name]
    sys.modules.update(modules)
    machine.reset()
    try:
        yield machine
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("cupy", "cupyx")]:
            del sys.modules[name]
        sys.modules.update(before)


@contextlib.contextmanager
def simulated(absence: str) -> Iterator[Machine]:
    """Inside, the GPU is missing in that way: one of absences.ABSENCES."""
    with installed() as whole, absences.ABSENCES[absence](whole):
        yield whole
