"""Contenders that wait for their turn: one process for each, rounds of turns, and what is made of
their times.

A round gives every contender one turn, one after the other, while the rest sleep. A round in which
somebody else used the machine is thrown away.
"""

import importlib
import math
import multiprocessing
import resource
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from threadpoolctl import threadpool_info

from . import machine

# seconds: the system counts in hundredths, so a turn repeats a short task until it is this long
SHORTEST = 0.2
PAUSE = 0.03  # seconds between turns: PyTorch's threads spin for a moment after they have worked
FOREIGN = 0.05  # of the cores' time may go to other processes


class BenchmarkError(RuntimeError):
    """The figures would not mean what they say."""


class WorkerError(RuntimeError):
    """What went wrong in another process, with its traceback."""


class OutOfTime(BenchmarkError):
    """A part of a benchmark has used up its time."""


class Turn(NamedTuple):
    seconds: dict[str, float]  # for each task, once
    faults: dict[str, float]  # minor page faults, the same
    cpu: float  # seconds of all threads


class Worker:
    """What a contender does in its own process: named tasks, each a call without arguments."""

    tasks: dict[str, Callable[[], Any]]

    def threads(self) -> dict[str, int]:
        """How many threads each library in this process uses."""
        return {f"{pool['prefix']} ({pool['user_api']})": pool["num_threads"] for pool in threadpool_info()}

    def warm_up(self, task: str, shortest: float) -> int:
        """Do a task at least twice. Returns how often to do it to last `shortest` seconds."""
        self.tasks[task]()
        repeats = 1
        while (seconds := self.turn({task: repeats}).seconds[task]) * repeats < shortest:
            repeats = max(repeats + 1, math.ceil(1.1 * shortest / seconds))
        return repeats

    def turn(self, repeats: dict[str, int]) -> Turn:
        """Do each task as often as `repeats` says."""
        turn = Turn({}, {}, -self.cpu())
        for task, count in repeats.items():
            call, faults, start = self.tasks[task], _faults(), time.perf_counter()
            for _ in range(count):
                call()
            turn.seconds[task] = (time.perf_counter() - start) / count
            turn.faults[task] = (_faults() - faults) / count
        return turn._replace(cpu=turn.cpu + self.cpu())

    def cpu(self) -> float:
        """Seconds that the cores have worked for it."""
        return time.process_time()

    def peak(self) -> float:
        """The most memory this process has had so far, in MiB, libraries included."""
        # Linux's ru_maxrss begins with that of the process that has started this one
        with suppress(OSError, IndexError):
            return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


class Contender:
    """A Worker in a process of its own: `worker` is the name of its class as "module:class", in
    this package, and it is made with the number of threads, the arguments and the options."""

    def __init__(self, name: str, threads: int, worker: str, *arguments: Any, **options: Any) -> None:
        self.name, self.asked = name, threads
        self.tasks: Sequence[str] = ()
        self.threads: dict[str, int] = {}
        self.until = math.inf  # on the clock of time.monotonic: no answer is waited for any longer
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, worker, (threads, *arguments), options))
        self._process.start()
        theirs.close()  # so that its end is noticed

    def ask(self, method: str, *arguments: Any) -> Any:
        """The result of a method of the Worker."""
        with suppress(BrokenPipeError):  # what became of the other end shows in a moment
            self._pipe.send((method, arguments))
        return self._answer()

    def begin(self) -> None:
        """Wait until it is ready."""
        self.tasks = self._answer()
        self.threads = self.ask("threads")
        if self.threads["asked"] != self.asked:
            raise BenchmarkError(f"{self.name} uses {self.threads['asked']} threads where {self.asked} were asked for")

    def changed(self) -> str | None:
        """What is wrong, if it no longer has the threads it began with."""
        now = self.ask("threads")
        return (
            None if now == self.threads else f"{self.name} began with the threads {self.threads} and ended with {now}"
        )

    def end(self) -> None:
        self._pipe.close()  # at which it ends, unless it is at work
        self._process.join(2)
        self._process.kill()
        self._process.join()

    def _answer(self) -> Any:
        left = None if self.until == math.inf else max(0.0, self.until - time.monotonic())
        if not self._pipe.poll(left):
            raise OutOfTime(f"out of time while {self.name} was at work")
        try:
            answer, error = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise BenchmarkError(
                f"{self.name}'s process ended (exit code {self._process.exitcode}; -9: killed, most often because "
                "memory ran out): try smaller --batches"
            ) from None
        if error:
            raise WorkerError(f"in {self.name}'s process:\n{error}")
        return answer


def _refuse(problem: str) -> None:
    raise BenchmarkError(problem)


@contextmanager
def running(
    *contenders: Contender, until: float = math.inf, report: Callable[[str], None] = _refuse
) -> Iterator[list[Contender]]:
    """The contenders, ready; whether their threads have changed is checked at the end (and
    reported: by default, as a BenchmarkError), and their processes ended. Raises OutOfTime when
    time.monotonic() passes `until`."""
    try:
        for c in contenders:
            c.until = until
            c.begin()
        yield list(contenders)
        for c in contenders:
            if problem := c.changed():
                report(problem)
    finally:
        for c in contenders:
            c.end()


def _serve(pipe: Any, worker: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    try:
        module, _, name = worker.partition(":")
        served = getattr(importlib.import_module(f"benchmarks.{module}"), name)(*arguments, **options)
        pipe.send((list(served.tasks), None))
        while True:
            method, given = pipe.recv()
            pipe.send((getattr(served, method)(*given), None))
    except (EOFError, ConnectionError):  # the parent has gone, or has closed its end
        return
    except Exception:
        with suppress(BrokenPipeError):
            pipe.send((None, traceback.format_exc()))


def measure(
    contenders: Sequence[Any],
    tasks: Sequence[str],
    rounds: int | None = None,
    budget: float = 40.0,
    fewest: int = 5,
    shortest: float = SHORTEST,
    busy: Callable[[], float | None] = machine.busy,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    until: float = math.inf,
) -> dict[str, Any]:
    """Let every contender do its part of the tasks once in each of so many rounds (as many as fit
    into the budget of seconds, unless told), having warmed up. No round begins when clock() has
    passed `until`.

    Returns {"seconds": {task: {name: [one for each round]}}, "faults": {task: {name: page faults}},
    "discarded": rounds that others disturbed, "missing": rounds that were given up because there
    were too many of those}.
    """
    shortest /= min(len(tasks), 10)
    repeats = {c.name: {t: c.ask("warm_up", t, shortest) for t in tasks if t in c.tasks} for c in contenders}
    kept: list[dict[str, Turn]] = []
    discarded, began = 0, clock()
    while rounds is None or (len(kept) < rounds and clock() < until):
        turns, foreign, spent = {}, 0.0, 0.0
        for c in contenders:
            sleep(PAUSE)
            start, before = clock(), busy()
            turns[c.name] = c.ask("turn", repeats[c.name])
            after, end = busy(), clock()
            spent += end - start
            if before is not None and after is not None:
                foreign += after - before - turns[c.name].cpu
        if rounds is None:
            rounds = min(15, max(fewest, int(budget / (clock() - began))))
        if foreign <= FOREIGN * len(machine.cores()) * spent:
            kept.append(turns)
        else:
            discarded += 1
            if discarded > 2 * rounds + 5:
                break
            sleep(1)  # whoever it was may be done by then
    having = {task: [c.name for c in contenders if task in repeats[c.name]] for task in tasks}
    return {
        "seconds": {t: {n: [turns[n].seconds[t] for turns in kept] for n in names} for t, names in having.items()},
        "faults": {t: {n: mean([turns[n].faults[t] for turns in kept]) for n in names} for t, names in having.items()},
        "discarded": discarded,
        "missing": rounds - len(kept),
    }


def enough(measured: dict[str, Any]) -> dict[str, Any]:
    """What measure has returned. Raises BenchmarkError if it kept fewer than three rounds, or fewer
    than it was asked for."""
    kept = min(len(seconds) for task in measured["seconds"].values() for seconds in task.values())
    if kept < min(3, kept + measured["missing"]):
        raise BenchmarkError(f"other processes took the machine in {measured['discarded']} rounds; end them first")
    return measured


def mean(numbers: Sequence[float]) -> float:
    return statistics.mean(numbers) if numbers else math.nan


class Spread(NamedTuple):
    """A median with the quartiles beside it (the extremes, of fewer than five numbers)."""

    median: float
    low: float
    high: float


def spread(numbers: Sequence[float]) -> Spread | None:
    """The spread of these numbers, or None if there are none."""
    if not numbers:
        return None
    if len(numbers) < 5:
        return Spread(statistics.median(numbers), min(numbers), max(numbers))
    low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return Spread(median, low, high)


def ratios(seconds: Mapping[str, Sequence[float]], name: str, reference: str) -> Spread | None:
    """How many times as long as the reference the other took, compared within each round."""
    return spread([a / b for a, b in zip(seconds[name], seconds[reference], strict=True)])
