"""NVRTC, CUDA's compiler, which needs no GPU: logs(jobs) compiles sources in two processes of their own, for one
process compiles one source at a time, and in this one the stand-in may be in CuPy's place."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

PROCESSES = 2
# What CuPy adds (cupy/cuda/compiler.py; test_rig.py looks): and folders to include from, which no source here does.
CUPYS = ("-ftz=true", "--device-as-default-execution-space")


class Missing(Exception):
    """NVRTC is not installed."""


def logs(jobs: list[tuple[str, int]], *options: str) -> list[str]:
    """For each (source, architecture), such as 90 for sm_90, what NVRTC and ptxas say of it: registers, spills, or a
    line that begins with "failed". Raises Missing."""
    parts = [[(*job, *options) for job in jobs[i::PROCESSES]] for i in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        done = list(pool.map(_process, parts))
    return [done[i % PROCESSES][i // PROCESSES] for i in range(len(jobs))]


def _process(jobs: list[tuple[Any, ...]]) -> list[str]:
    command = [sys.executable, str(Path(__file__).resolve())]
    done = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True)
    if done.returncode:
        raise Missing(done.stderr.strip().split("\n")[-1])
    return json.loads(done.stdout)


def _log(nvrtc, source: str, architecture: int, *options: str) -> str:
    program = nvrtc.createProgram(source, "kernels.cu", (), ())
    try:
        nvrtc.compileProgram(program, (*options, *CUPYS, f"-arch=sm_{architecture}", "--ptxas-options=-v"))
        return nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError as error:
        return f"failed: {error}\n{nvrtc.getProgramLog(program)}"
    finally:
        nvrtc.destroyProgram(program)


def _main() -> None:
    try:
        import cupy  # noqa: F401  # which knows where the library is
        from cupy_backends.cuda.libs import nvrtc

        nvrtc.getVersion()
    except (ImportError, RuntimeError) as error:
        sys.exit(f"NVRTC is not installed: {error}")
    print(json.dumps([_log(nvrtc, *job) for job in json.load(sys.stdin)]))


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose names are not meant for CuPy
    _main()
