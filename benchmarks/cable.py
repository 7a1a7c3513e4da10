"""A cable between hosts, on one machine: a network namespace for each process, all on a bridge, and
a limit on what each sends. It takes root, and the programs ip and tc of Linux."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.options import UsageError

INTERFACE = "eth0"
NAMES = Path("/etc/netns")


class Cable:
    """Hosts, which cable() has set up."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self.hosts = hosts

    def on(self, host: int, command: Sequence[str]) -> list[str]:
        """A command that runs on one of them."""
        name = self.hosts[host]
        return ["ip", "netns", "exec", name, "unshare", "-u", "sh", "-c", f'hostname {name}; exec "$@"', "sh", *command]

    def under(self, mpiexec: str, program: Sequence[str], processes: int, agent: Path) -> list[str]:
        """A command that starts one process of a program on each host. Writes the agent, which
        mpiexec takes for ssh."""
        agent.write_text(
            '#!/bin/sh\nwhile case "$1" in -*) true;; *) false;; esac; do shift; done\nhost=$1; shift\n'
            f'exec ip netns exec "$host" unshare -u sh -c "hostname $host; cd {shlex.quote(os.getcwd())}; $*"\n'
        )
        agent.chmod(0o755)
        hosts = ",".join(self.hosts[:processes])
        launch = [mpiexec, "-launcher", "ssh", "-launcher-exec", str(agent), "-hosts", hosts, "-n", str(processes)]
        return self.on(0, [*launch, *program])


def check() -> None:
    """Raises UsageError where there can be no cable."""
    missing = [name for name in ("ip", "tc", "unshare") if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        reason = f"there is no {missing[0]} here" if missing else "you are not root"
        raise UsageError(f"--bandwidth needs network namespaces of Linux, as root, with ip and tc: {reason}")


@contextmanager
def cable(gbit: float, count: int) -> Iterator[Cable]:
    """So many hosts, each of which sends at most so many Gbit/s. Nothing of them is left after."""
    tag = f"bench{os.getpid()}"
    hosts, switch = [f"{tag}h{i + 1}" for i in range(count)], f"{tag}s"
    address = [f"10.77.0.{i + 1}" for i in range(count)]
    names = "127.0.0.1 localhost\n" + "".join(f"{a} {h}\n" for a, h in zip(address, hosts, strict=True))
    try:
        _run(f"ip netns add {switch}")
        _run(f"ip -n {switch} link add br0 type bridge")
        _run(f"ip -n {switch} link set br0 up")
        for i, host in enumerate(hosts):
            _run(f"ip netns add {host}")
            _run(f"ip link add {INTERFACE} netns {host} type veth peer name p{i} netns {switch}")
            _run(f"ip -n {switch} link set p{i} master br0 up")
            _run(f"ip -n {host} addr add {address[i]}/24 dev {INTERFACE}")
            _run(f"ip -n {host} link set lo up")
            _run(f"ip -n {host} link set {INTERFACE} up")
            (NAMES / host).mkdir(parents=True)
            (NAMES / host / "hosts").write_text(names)
            limit = f"rate {gbit * 1000:.0f}mbit burst 2mb latency 100ms"
            _run(f"ip netns exec {host} tc qdisc replace dev {INTERFACE} root tbf {limit}")
        yield Cable(hosts)
    finally:
        for host in [*hosts, switch]:
            subprocess.run(["ip", "netns", "del", host], capture_output=True)
            shutil.rmtree(NAMES / host, ignore_errors=True)


def _run(command: str) -> None:
    done = subprocess.run(command.split(), capture_output=True, text=True)
    if done.returncode:
        raise UsageError(f"--bandwidth: `{command}` does not work here: {done.stderr.strip()}")
