"""The machine: what it is made of, and how busy it has been."""

import importlib.metadata
import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

# The environment in which each library's code is held to AVX2, whatever the processor has.
AVX2 = {
    "MINICNN_CFLAGS": "-mno-avx512f",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "TORCHINDUCTOR_CPP_MARCH": "x86-64-v3",
}


def cores() -> list[int]:
    """The cores that this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def busy(stat: Path = Path("/proc/stat")) -> float | None:
    """Seconds that our cores have worked since the machine started, for anybody; None where the
    system does not tell.

    Time that a virtual machine's host took away (steal) counts as well.
    """
    if not stat.exists():
        return None
    ours = {f"cpu{core}" for core in cores()}
    rows = [line.split() for line in stat.read_text().splitlines()]
    # user, nice, system, idle, iowait, irq, softirq, steal; what follows is contained in user and
    # nice
    ticks = [list(map(int, row[1:9])) for row in rows if row and row[0] in ours]
    return sum(sum(row) - row[3] - row[4] for row in ticks) / os.sysconf("SC_CLK_TCK")


def cpu_of(process: Any, proc: Path = Path("/proc")) -> float:
    """Seconds that the cores have worked for another process; 0 where the system does not tell."""
    stat = proc / str(process.pid) / "stat"
    if not stat.exists():
        return 0.0
    # after its name, which may have blanks
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def describe(threads: int) -> dict[str, Any]:
    """What a reader needs to know to judge the figures; nothing that names the machine or its
    user."""
    blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return {
        "processor": _processor(),
        "cores": len(cores()),
        "caches": _caches(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": ", ".join(f"{p['internal_api']} {p['version']} ({p.get('architecture', 'unknown')})" for p in blas),
        "pytorch": _version("torch"),
        "minicnn": _version("minicnn"),
        "threads": threads,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    if "model name" not in named:
        return platform.processor() or platform.machine()
    return f"{named['model name']} (family {named.get('cpu family')}, model {named.get('model')})"


def _caches() -> str:
    """As "L1d 32K, L2 512K, L3 32768K", of one core."""
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found.append(f"L{level}{'d' if kind == 'Data' else ''} {size}")
    return ", ".join(found) or "unknown"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
