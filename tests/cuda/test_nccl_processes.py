"""Processes with a GPU each, which NCCL connects: programs that mpiexec starts (ranks.py), on the stand-in."""

import os
import subprocess
import sys
from pathlib import Path

import host
import pytest
from launch import launcher, needs_mpi

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(bool(host.missing()), reason=str(host.missing()))


def mpiexec(size, *arguments):
    return subprocess.run(
        [*launcher(), "-n", str(size), sys.executable, "-W", "error", "tests/cuda/ranks.py", *arguments], cwd=ROOT,
        text=True, timeout=60, capture_output=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip


@needs_mpi
@pytest.mark.parametrize("on", [[], pytest.param(["cuda"], marks=pytest.mark.gpu)], ids=["stand-in", "cuda"])
@pytest.mark.parametrize("size", [2, 3])
def test_processes_compute_what_one_does(size, on):
    if on:
        cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
        if not cupy.cuda.is_available() or cupy.cuda.runtime.getDeviceCount() < size:
            pytest.skip(f"there are no {size} GPUs: two ranks cannot share one")
    done = mpiexec(size, "exchanges,gradients,training", *on)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == (f"exchanges,gradients,training by {list(range(size))}\n", "")


@needs_mpi
@pytest.mark.parametrize(("check", "rank"), [("never", 1), ("lost", 0)])
def test_a_gpu_that_waits_too_long_ends_all(check, rank):
    done = mpiexec(2, check)
    assert done.returncode and not done.stdout
    assert f"rank {rank} has waited " in done.stderr and "(the limit is 0.4 s)" in done.stderr, done.stderr


@needs_mpi
def test_a_rank_without_a_gpu():
    done = mpiexec(2, "missing")
    assert done.returncode and not done.stdout
    (line,) = [line for line in done.stderr.splitlines() if "GPU" in line]  # launchers add lines of their own
    assert line.startswith("rank 0: device 'gpu': the driver sees no GPU")
