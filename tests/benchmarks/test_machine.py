"""Busy time from /proc/stat, and a description that names neither the machine nor its user."""

import getpass
import os
import platform
from types import SimpleNamespace

import pytest

from benchmarks import machine

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
