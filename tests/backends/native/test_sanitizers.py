"""The C kernels under gcc's address and undefined-behavior sanitizers, with the widest registers, and if the environment
variable WIDTHS is "all" with those of AVX2 and SSE2, too: what they read and write is inside their arrays, and no
operation is undefined. NumPy asks malloc for exactly the bytes of a small
array, so what lies behind it is guarded.

The sanitizer of addresses must be in a process from its start, so the tests run again in one of their own.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minicnn.backends.native import compiler

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
SANITIZE = "-O1 -g1 -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all"
X86 = platform.machine().lower() in compiler.X86
WIDTHS = ["", "-mavx2 -mno-avx512f", "-march=x86-64"] if X86 and os.environ.get("WIDTHS") == "all" else [""]
OTHERS = ("compiler", "launch", "main", "sanitizers")  # tests that have no kernel of a lesson's
MISTAKES = {
    "none": ("y[i] = x[i];", None),
    "reads beyond": ("y[i] = x[i + 1];", "ERROR: AddressSanitizer"),
    "reads before": ("y[i] = x[i - 1];", "ERROR: AddressSanitizer"),
    "writes beyond": ("y[i + 1] = x[i];", "ERROR: AddressSanitizer"),
    "reads a register beyond": ("y[i] = load(x + i)[0];", "ERROR: AddressSanitizer"),
    "does what is undefined": ("y[i] = (int)x[i] << 40;", "shift exponent 40 is too large"),
    "converts what does not fit": ("y[i] = (int32_t)(x[i] + 1e30);", "outside the range of representable values"),
    "reads at an odd address": ("y[i] = *(const real *)((const char *)x + 1);", "misaligned address"),
}
SCRIPT = """if True:
    import sys
    import numpy as np
    from minicnn.backends.native import compiler, launch
    compiler.HERE = compiler.Path(sys.argv[1])
    x, y = np.ones(400, np.float32), np.ones(400, np.float32)
    launch.launch("own.f", 400, x, y, real=x.dtype)"""


@pytest.fixture
def sanitized(cc, tmp_path):
    """Runs Python with these arguments, in a process that has the sanitizers."""
    if shutil.which("gcc") is None:
        pytest.skip("the sanitizers are gcc's, which is not installed")
    asked = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    if not os.path.isabs(library := asked.stdout.strip()):
        pytest.skip("this gcc has no sanitizers")

    def run(*arguments, flags=""):
        environment = {
            "CC": "gcc", "MINICNN_CFLAGS": f"{flags} {SANITIZE}", "MINICNN_CACHE": str(tmp_path / "sanitized"),
            "LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
            "PYTHONMALLOC": "malloc", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, *arguments], env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True
        )

    return run


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_noticed(sanitized, tmp_path, mistake):
    line, complaint = MISTAKES[mistake]
    shutil.copy(compiler.HERE / "native.h", tmp_path)
    kernel = "KERNEL void f(Index first, Index last, const real *x, real *y)"
    (tmp_path / "own.c").write_text(
        f'#include "native.h"\n{kernel} {{ for (Index i = first; i < last; ++i) {line} }}\n'
    )
    done = sanitized("-c", SCRIPT, str(tmp_path))
    assert (done.returncode == 0) == (complaint is None), done.stderr
    assert complaint is None or complaint in done.stderr


@pytest.mark.parametrize("flags", WIDTHS)
def test_kernels_stay_within_their_arrays(sanitized, tmp_path, flags):
    done = sanitized(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/backends/test_agreement.py", "tests/backends/native",
        "-k", f"native and not ({' or '.join(f'test_{name}' for name in OTHERS)})", flags=flags,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "skipped" not in done.stdout
    ran = {path.name.split("-")[0] for path in (tmp_path / "sanitized").iterdir()}
    assert ran == {path.stem for path in compiler.HERE.glob("*.c")}
