"""Programs that mpiexec starts: those in tests/mpi."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

import minicnn

TESTS = Path(__file__).parent
SIZES = [1, 2, 3, pytest.param(4, marks=pytest.mark.slow)]  # ranks; what holds for 2 and 3 holds for 4
PATIENCE = 60  # seconds that a program may take
# MPICH's ranks look for messages without a pause: more ranks than cores take twice as long unless they let others run
YIELDING = {"MPIR_CVAR_ENABLE_HEAVY_YIELD": "1", "MPIR_CVAR_POLLS_BEFORE_YIELD": "20", "PYTHONWARNINGS": "error"}


@cache
def launcher():
    """The command that starts several processes, with the options that it needs here; or a text: why there is none."""
    if not find_spec("mpi4py"):
        return "mpi4py is not installed"
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        return "there is no mpiexec: pip install mpich"
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    if "Open MPI" in version or "OpenRTE" in version:
        return [found, "--allow-run-as-root", "--oversubscribe"]
    return [found]


def needs_mpi(test):
    """Mark a test that starts several processes."""
    return pytest.mark.mpi(pytest.mark.skipif(isinstance(launcher(), str), reason=str(launcher()))(test))


def start(size, program, *arguments, **options):
    """The running mpiexec of so many ranks of a program in tests/mpi."""
    folders = [str(Path(minicnn.__file__).parents[1]), str(TESTS), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, **YIELDING, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    command = [*launcher(), "-n", str(size), sys.executable, str(TESTS / "mpi" / program), *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def mpiexec(size, program, *arguments):
    """status, out, err and seconds of a program in tests/mpi with so many ranks. After PATIENCE it is killed, and
    fails."""
    begin = time.perf_counter()
    running = start(size, program, *arguments)
    try:
        out, err = running.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGKILL)
        out, err = running.communicate()
        pytest.fail(f"{program} has not ended after {PATIENCE} s:\n{out}\n{err}")
    return SimpleNamespace(status=running.returncode, out=out, err=err, seconds=time.perf_counter() - begin)


@cache
def checked(size):
    """The output of all checks with so many ranks, which are started once."""
    return mpiexec(size, "checking.py", "exchanges", "training", *["divided"] * (size in (2, 3)))


def passes(size, name):
    result = checked(size)
    assert f"passed: {name}\n" in result.out, f"{size} ranks:\n{result.out}\n{result.err}"


def checks_of(program) -> Iterable[str]:
    """The names of the checks in a program."""
    lines = (TESTS / "mpi" / program).read_text(encoding="utf-8").splitlines()
    return [line[4:].partition("(")[0] for line in lines if line.startswith("def check_")]
