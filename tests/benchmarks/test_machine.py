"""Busy time from /proc/stat, and a description that names neither the machine nor its user."""

import getpass
import os
import platform

import pytest

from benchmarks import machine

STAT = """cpu  900 0 0 0 0 0 0 0 0 0
cpu0 10 20 30 4000 5000 1 2 3 600 700
cpu1 100 0 0 0 0 0 0 0 0 0
cpu10 7777 0 0 0 0 0 0 0 0 0
intr 5
"""


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
