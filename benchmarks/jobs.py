"""Contenders of several processes: they compute together, and wait for their turn together.

Each process connects to the benchmark by a socket of its own and sleeps there between turns: one
that waited inside MPI would keep a core busy. MPI's processes are started by mpiexec, PyTorch's as
torchrun does it, with RANK and WORLD_SIZE in the environment.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from .cable import INTERFACE, Cable
from .training import Training
from .turns import BenchmarkError, Contender, OutOfTime, Turn, WorkerError, _serve

ROOT = Path(__file__).resolve().parent.parent
STEPS = 3  # in a turn
SENT = Path(f"/sys/class/net/{INTERFACE}/statistics/tx_bytes")
PATIENCE = 120.0  # seconds for a job to start, on a busy machine


class Together(Training):
    """A Training that is one of several processes, each with its rows of a batch. `noted` is what
    it has noted of each task's steps, in seconds and bytes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.noted: dict[str, dict[str, list[float]]] = {}

    def warm_up(self, task: str, shortest: float) -> int:
        """Do a task twice; all processes have to do it equally often, whatever time it takes."""
        for _ in range(2):
            self.tasks[task]()
        self.noted.pop(task, None)
        return STEPS

    def turn(self, repeats: dict[str, int]) -> Turn:
        """Do each task as often as `repeats` says, after a step that is not timed, because the
        others' turns have emptied the caches."""
        before = self.cpu()
        self.step()
        turn = super().turn(repeats)
        return turn._replace(cpu=self.cpu() - before)

    def note(self, task: str, **numbers: float) -> None:
        for name, value in numbers.items():
            self.noted.setdefault(task, {}).setdefault(name, []).append(value)

    def notes(self) -> dict[str, dict[str, list[float]]]:
        return self.noted

    def timed(self, task: str, step: Callable[[], None]) -> None:
        """Do a step, and note what this process has sent over the cable."""
        before = sent()
        step()
        if before is not None:
            self.note(task, cable=sent() - before)  # type: ignore[operator]

    def decrease(self) -> tuple[float, float]:
        """The mean loss of this process's rows without dropout, before and after a step."""
        self.net.eval()
        losses = []
        for _ in range(2):
            with self.no_grad():
                losses.append(self.loss(self.net(self.images)).item())
            if len(losses) == 1:
                self.train_once()
        return losses[0], losses[1]


def sent() -> int | None:
    """How many bytes this host has sent over the cable, if it is on one."""
    return int(SENT.read_text()) if "BENCHMARK_CABLE" in os.environ else None


def own_rows(batch: int, rank: int, size: int) -> slice:
    """The rows of a batch that are this process's."""
    return slice(batch * rank // size, batch * (rank + 1) // size)


def mpiexec() -> str:
    """The launcher that belongs to this Python, or the first on the path."""
    found = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
    if not found:
        raise BenchmarkError("there is no mpiexec beside this Python: pip install mpi4py mpich")
    return found


class Job(Contender):
    """A Together in each of several processes. A turn takes as long as the slowest, and the cores
    have worked for all of them.

    Args:
        name, threads, worker, arguments: as of Contender; threads is for each process.
        processes: how many.
        mpi: whether they speak MPI.
        cable: what they are connected by, if not by this machine's memory.
    """

    def __init__(
        self,
        name: str,
        threads: int,
        worker: str,
        *arguments: Any,
        processes: int,
        mpi: bool,
        cable: Cable | None = None,
    ) -> None:
        self.name, self.asked, self.processes = name, threads, processes
        self.tasks, self.threads, self.until = (), {}, float("inf")
        self.pipes: list[Connection] = []
        self.started: list[subprocess.Popen[bytes]] = []
        self.folder = tempfile.TemporaryDirectory(prefix="jobs-")
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind(str(self.path("door")))
        self.door.listen(processes)
        self.door.settimeout(0.2)
        program = [sys.executable, "-m", "benchmarks.jobs", str(self.path("door")), worker]
        program += [json.dumps([threads, *arguments])]
        if not mpi:
            for rank in range(processes):
                place = {"RANK": str(rank), "WORLD_SIZE": str(processes), "BENCHMARK_STORE": str(self.path("store"))}
                place["GLOO_SOCKET_IFNAME"] = INTERFACE if cable else "lo"
                self.start(cable.on(rank, program) if cable else program, place, cable)
        elif processes == 1:
            self.start(program, {}, cable)
        elif cable:
            self.start(cable.under(mpiexec(), program, processes, self.path("agent")), {"UCX_TLS": "tcp,self"}, cable)
        else:
            self.start([mpiexec(), "-n", str(processes), *program], {}, cable)

    def path(self, name: str) -> Path:
        return Path(self.folder.name) / name

    def start(self, command: Sequence[str], environment: Mapping[str, str], cable: Cable | None) -> None:
        marked = {"BENCHMARK_CABLE": "1"} if cable else {}
        with open(self.path("output"), "ab") as output:
            self.started.append(subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **environment, **marked}, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            ))  # fmt: skip

    def begin(self) -> None:
        patience = time.monotonic() + PATIENCE
        while len(self.pipes) < self.processes:
            with suppress(TimeoutError):
                self.pipes.append(Connection(self.door.accept()[0].detach()))
                continue
            if any(process.poll() is not None for process in self.started) or time.monotonic() > patience:
                raise self.lost()
        super().begin()

    def ask_all(self, method: str, *arguments: Any) -> list[Any]:
        """The results of a method in all processes, which run it at the same time."""
        for pipe in self.pipes:
            with suppress(BrokenPipeError):  # what became of the other end shows in a moment
                pipe.send((method, arguments))
        return self.answers()

    def ask(self, method: str, *arguments: Any) -> Any:
        """The result of a method: a Turn of all processes, or what one of them says."""
        answers = self.ask_all(method, *arguments)
        return together(answers) if method == "turn" else answers[0]

    def _answer(self) -> Any:
        return self.answers()[0]

    def answers(self) -> list[Any]:
        waiting, found = list(self.pipes), {}
        while waiting:
            left = None if self.until == float("inf") else max(0.0, self.until - time.monotonic())
            ready = wait(waiting, left)
            if not ready:
                raise OutOfTime(f"out of time while {self.name} was at work")
            for pipe in ready:
                assert isinstance(pipe, Connection)
                try:
                    found[pipe], error = pipe.recv()
                except (EOFError, ConnectionError):
                    raise self.lost() from None
                if error:
                    raise WorkerError(f"in a process of {self.name}:\n{error}")
                waiting.remove(pipe)
        return [found[pipe] for pipe in self.pipes]

    def lost(self) -> BenchmarkError:
        time.sleep(0.3)  # until it has said why
        output = self.path("output").read_text(errors="replace").strip().splitlines()
        why = output[-1] if output else "it said nothing; memory may have run out: try a smaller --batch"
        return BenchmarkError(f"a process of {self.name} has ended, or did not start: {why}")

    def end(self) -> None:
        for pipe in self.pipes:
            pipe.close()  # at which they end, unless they are at work
        for process in self.started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(3)
            process.kill()  # mpiexec takes its processes with it
            process.wait()
        self.door.close()
        self.folder.cleanup()


def together(turns: Sequence[Turn]) -> Turn:
    """The turn of processes that had theirs at the same time."""
    tasks = turns[0].seconds
    return Turn(
        {task: max(turn.seconds[task] for turn in turns) for task in tasks},
        {task: sum(turn.faults[task] for turn in turns) for task in tasks},
        sum(turn.cpu for turn in turns),
    )


def main(door: str, worker: str, arguments: str) -> None:
    """What each process of a job runs."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(door)
        pipe = Connection(line.detach())
    _serve(pipe, worker, tuple(json.loads(arguments)), {})
    pipe.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
