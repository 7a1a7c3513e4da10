"""Busy time from /proc/stat, and a description that names neither the machine nor its user."""

import getpass
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from benchmarks import machine, ours
from minicnn.backends.devices import DeviceError

STAT = """cpu  900 0 0 0 0 0 0 0 0 0
cpu0 10 20 30 4000 5000 1 2 3 600 700
cpu1 100 0 0 0 0 0 0 0 0 0
cpu10 7777 0 0 0 0 0 0 0 0 0
intr 5
"""


def test_the_work_of_another_process(tmp_path):
    ticks = os.sysconf("SC_CLK_TCK")
    (tmp_path / "12").mkdir()
    fields = ["12", "(a (b) c)", "S", *["0"] * 10, str(3 * ticks), str(ticks), *["7"] * 30]
    (tmp_path / "12" / "stat").write_text(" ".join(fields))
    assert machine.cpu_of(SimpleNamespace(pid=12), tmp_path) == 4
    assert machine.cpu_of(SimpleNamespace(pid=13), tmp_path) == 0


def test_busy_counts_our_cores_and_what_the_host_took_but_not_waiting(tmp_path, monkeypatch):
    path = tmp_path / "stat"
    path.write_text(STAT)
    tick = os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr(machine, "cores", lambda: [0])
    assert machine.busy(path) == pytest.approx((10 + 20 + 30 + 1 + 2 + 3) / tick)
    monkeypatch.setattr(machine, "cores", lambda: [0, 1])
    assert machine.busy(path) == pytest.approx(166 / tick)


def test_a_system_that_does_not_tell(tmp_path):
    assert machine.busy(tmp_path / "stat") is None


def test_the_description_is_complete_and_discreet():
    found = machine.describe(2)
    assert found["cores"] >= 1 and found["threads"] == 2 and found["memory_gib"] > 0
    assert all(found[name] for name in ("processor", "caches", "system", "python", "numpy", "blas", "date"))
    text = str(found)
    assert platform.node() not in text or len(platform.node()) < 4
    assert os.getcwd() not in text and (getpass.getuser() not in text or len(getpass.getuser()) < 5)


def test_the_compiler_is_named_without_its_folder(monkeypatch):
    asked = []
    macros = '#define __VERSION__ "12.2.0"\n#define __AVX2__ 1\n'
    monkeypatch.setattr(ours, "command_for", lambda real: ("/somewhere/gcc-12", "-mavx2"))
    monkeypatch.setattr(subprocess, "run", lambda command, **_: asked.append(command) or SimpleNamespace(stdout=macros))
    assert ours.compiled_by() == "gcc-12 12.2.0, AVX2" and asked[0][:3] == ["/somewhere/gcc-12", "-mavx2", "-dM"]
    macros += "#define __AVX512F__ 1"
    assert ours.compiled_by() == "gcc-12 12.2.0, AVX-512"


PROBE = """
from numpy._core._multiarray_umath import __cpu_features__
from benchmarks import ours
from minicnn.backends.native.compiler import open_compiler
print(any(__cpu_features__.get(name) for name in ("X86_V4", "AVX512_SKX")), ours.compiled_by())
open_compiler()
"""


def test_avx2_holds_numpy_and_the_compiler():
    """On a processor that has AVX-512, or has not."""
    try:
        compiled_by = ours.compiled_by()
    except DeviceError as problem:
        pytest.skip(str(problem))
    if "AVX" not in compiled_by:
        pytest.skip("this processor has no AVX2")
    environment = {**os.environ, **machine.AVX2}
    run = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("False ") and run.stdout.endswith(", AVX2\n")
