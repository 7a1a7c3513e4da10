"""Workers on several hosts with addresses of their own: network namespaces on a bridge, where the system allows it."""

import os
import subprocess
import sys

import pytest
from launch import TESTS, YIELDING, checks_of, launcher, needs_mpi
from support.options import UsageError

import minicnn
from benchmarks import cable

OF_ONE_MACHINE = ["check_who_is_here", "check_threads_are_divided"]
SENT = "/sys/class/net/eth0/statistics/tx_bytes"


@pytest.fixture
def hosts():
    try:
        cable.check()
        with cable.cable(1.0, 3) as connected:
            yield connected
    except UsageError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@needs_mpi
@pytest.mark.parametrize("size", [2, 3])
def test_training_on_several_hosts(hosts, tmp_path, size):
    """All that holds on one machine; and the sums do cross the cable."""
    if len(launcher()) > 1:
        pytest.skip("the agent in place of ssh is written for MPICH's mpiexec")
    folders = os.pathsep.join([os.path.dirname(os.path.dirname(minicnn.__file__)), str(TESTS)])
    environment = {**os.environ, **YIELDING, "PYTHONPATH": folders, "UCX_TLS": "tcp,self"}
    program = [sys.executable, str(TESTS / "mpi" / "training.py"), *OF_ONE_MACHINE]
    command = hosts.under(launcher()[0], program, size, tmp_path / "agent")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    expected = [f"passed: {name}" for name in checks_of("training.py") if name not in OF_ONE_MACHINE]
    assert done.stdout.splitlines() == expected, done.stderr
    for host in range(size):
        sent = subprocess.run(hosts.on(host, ["cat", SENT]), capture_output=True, text=True, check=True)
        assert int(sent.stdout) > 1e6
