"""The C kernels under gcc's address and undefined-behavior sanitizers, with the widest registers, and if the environment
variable WIDTHS is "all" with those of AVX2 and SSE2, too: what they read and write is inside their arrays, and no
operation is undefined. NumPy asks malloc for exactly the bytes of a small array, so what lies behind it is guarded.
Their threads under the sanitizer of races: what one writes, another reads only after it has waited.

A sanitizer must be in a process from its start, so the tests run again in one of their own.
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
RACES = "-O1 -g1 -fsanitize=thread"
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
RACING = {  # what is left out of launch.c
    "none": "",
    "the caller does not wait": "if (late < wanted && !(late && atomic_fetch_sub(&work.busy, late) == late)) await(&done);",
}
THREADS = """if True:
    import sys
    import threading
    import numpy as np
    import minicnn
    from minicnn.backends.native import compiler, launch
    compiler.HERE = compiler.Path(sys.argv[1])
    minicnn.set_num_threads(4)
    def many():
        x = np.random.default_rng(0).standard_normal(1 << 16, np.float32)
        for _ in range(200):
            launch.launch("activation.rectify", x.size, x, y := np.empty_like(x), real=x.dtype)
            assert np.array_equal(y, np.maximum(x, 0))
        print("right")
    callers = [threading.Thread(target=many) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()"""


@pytest.fixture
def sanitized(cc, tmp_path):
    """Runs Python with these arguments, in a process that has the sanitizers."""
    if shutil.which("gcc") is None:
        pytest.skip("the sanitizers are gcc's, which is not installed")

    def run(*arguments, flags=SANITIZE, library="libasan.so"):
        asked = subprocess.run(["gcc", f"-print-file-name={library}"], capture_output=True, text=True, check=True)
        if not os.path.isabs(found := asked.stdout.strip()):
            pytest.skip("this gcc has no sanitizers")
        environment = {
            "CC": "gcc", "MINICNN_CFLAGS": flags, "MINICNN_CACHE": str(tmp_path / "sanitized"),
            "LD_PRELOAD": found, "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
            "PYTHONMALLOC": "malloc", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=900,
        )

    return run


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_noticed(sanitized, tmp_path, mistake):
    line, complaint = MISTAKES[mistake]
    for name in ("native.h", "launch.c"):
        shutil.copy(compiler.HERE / name, tmp_path)
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
        "-k", f"native and not ({' or '.join(f'test_{name}' for name in OTHERS)})", flags=f"{flags} {SANITIZE}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "skipped" not in done.stdout
    ran = {path.name.split("-")[0] for path in (tmp_path / "sanitized").iterdir()}
    assert ran == {path.stem for path in compiler.HERE.glob("*.c")}


@pytest.mark.parametrize("mistake", RACING)
def test_threads_do_not_race(sanitized, tmp_path, mistake):
    for path in compiler.HERE.glob("*.[ch]"):
        shutil.copy(path, tmp_path)
    text = (compiler.HERE / "launch.c").read_text("utf-8")
    assert RACING[mistake] in text
    (tmp_path / "launch.c").write_text(text.replace(RACING[mistake], ""), "utf-8")
    done = sanitized("-c", THREADS, str(tmp_path), flags=RACES, library="libtsan.so")
    if mistake == "none":
        assert (done.returncode, done.stdout, done.stderr) == (0, "right\n" * 3, "")
    else:
        assert done.returncode and "data race" in done.stderr
