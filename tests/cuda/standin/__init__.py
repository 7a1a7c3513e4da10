"""A stand-in for CuPy on a machine without a GPU: it computes what CuPy would, on NumPy's memory.

    with standin.installed() as machine:        import cupy now finds it
        ...
        machine.log                             every launch, transfer and wait, in order

It is there for what the real CuPy cannot show without a GPU (tests/cuda/rig): results of whole programs on a GPU's
path, with kernels by g++ (host.py); what is launched, sent and waited for; copies that come as late as they may; GPUs
that are full, or missing (absences.py). It refuses arrays of the host among those of a GPU, also where CuPy would send
them there without a word, and fresh memory is poisoned.

What CuPy has, and what arguments it takes, it does not know: it has NumPy's functions, all of them, and takes NumPy's
arguments. For that the tests of the GPU run on the rig. Nor does it show how long anything takes, or how many launches
of its own CuPy makes of one function. It computes on the default stream only.
"""

import contextlib
import sys
from collections.abc import Iterator

from . import absences, devices, functions, libraries, nccl
from .libraries import Library
from .machine import TRANSFERS, Log, Machine, RaceError, cupy, machine

__all__ = [
    "TRANSFERS", "Library", "Log", "Machine", "RaceError", "absences", "cupy", "installed", "machine", "simulated",
]  # fmt: skip

MODULES = {**devices.modules(), "cupy.cuda.cublas": libraries.cublas(), "cupy.cuda.nccl": nccl.module()}


def _assemble() -> None:
    vars(cupy).update(functions.content(), **libraries.content(), **devices.content(), cuda=MODULES["cupy.cuda"])
    cupy.__version__, cupy.__path__ = "14.2.0", []
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
