"""Mutation testing: do the tests notice mistakes? Each op's source is given one small mistake after
another, and each of these mutants is run against that op's tests alone, which should fail.

    python tests/mutation.py                              everything; exit status 1 if a mutant survives unexplained
    python tests/mutation.py --file conv --show           one file, and what became of every mutant
    python tests/mutation.py --file conv --list           its mutants, not run

One pytest session for each file collects its tests. A first run of the unchanged code records how long each test takes
and which lines it runs; a second one, with the code replaced by itself, must pass as well. Then for each mutant a
forked child puts the mutated function in the original's place, in memory, and runs the tests that reach the change,
the quickest first, until one fails. Hypothesis is derandomised and does not shrink. A mutant that crashes Python counts
as killed, and so does one that takes longer than LIMIT: the table has these under "timed out".

A mutant that no test could tell from the original is marked where it is, with its kind or kinds and the reason:

    while 2 * width <= n:  # equivalent (comparison, constant): the same sums with more additions

The mark stands at the end of the line, or alone in the line above. It excuses survivors of these kinds in that line,
and where there are none it is an error. The kinds are those that --list shows; in a CUDA kernel they are tokens.
"""

import argparse
import contextlib
import gc
import importlib
import inspect
import io
import json
import os
import re
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import pytest
from mutants import Mutant, mutants_of

ROOT = Path(__file__).resolve().parent.parent
AGREE = "tests/backends/test_agreement.py -k"  # its rows for one file's kernels, with the file's own tests
FAST = "tests/backends/numpy/test_"
EXTREMES = "tests/test_extremes.py"
LESSONS = [path.stem.removeprefix("test_") for path in sorted((ROOT / "tests/functional").glob("test_*.py"))]
TABLE = {  # module: its tests, in one file or several; a lesson's are in the file of its name if nothing else is said
    **{f"minicnn.functional.{name}": f"tests/functional/test_{name}.py" for name in LESSONS if name != "every_op"},
    "minicnn.functional.batch_norm": "tests/functional/test_batch_norm.py tests/functional/test_layout.py",
    "minicnn.functional.standardize": f"tests/functional/test_standardize.py tests/functional/test_every_op.py {AGREE} standardize",
    "minicnn.functional.linear": "tests/functional/test_linear.py tests/functional/test_layout.py",
    "minicnn.functional.layout": "tests/functional/test_layout.py tests/functional/test_conv.py",
    "minicnn.functional.windows": f"tests/functional/test_windows.py {AGREE} windows",
    "minicnn.functional.conv": f"tests/functional/test_conv.py {AGREE} conv",
    "minicnn.functional.conv_transpose": "tests/functional/test_conv.py",
    "minicnn.functional.pooling": f"tests/functional/test_pooling.py {AGREE} pooling",
    "minicnn.functional.lrn": f"tests/functional/test_lrn.py {AGREE} lrn",
    "minicnn.functional.activation": f"tests/functional/test_activation.py {AGREE} activation",
    "minicnn.functional.dropout": f"tests/functional/test_dropout.py {AGREE} dropout",
    "minicnn.functional.softmax": f"tests/functional/test_activation.py {AGREE} softmax",
    "minicnn.functional.loss": f"tests/functional/test_loss.py {AGREE} loss",
    "minicnn.functional.targets": "tests/functional/test_loss.py tests/nn/test_layers.py",
    "minicnn.functional.elementwise_loss": f"tests/functional/test_loss.py {AGREE} loss",
    "minicnn.functional.adaptive_pooling": f"tests/functional/test_adaptive_pooling.py {EXTREMES}",
    "minicnn.functional.average_pooling": f"tests/functional/test_pooling.py {EXTREMES}",
    "minicnn.data.pixels": f"tests/data/test_pixels.py {AGREE} pixels",
    "minicnn.backends.numpy.windows": f"{FAST}windows.py {AGREE} windows",
    "minicnn.backends.numpy.conv": f"{FAST}conv.py {AGREE} conv",
    "minicnn.backends.numpy.winograd": f"{FAST}winograd.py",
    "minicnn.backends.numpy.pooling": f"{FAST}pooling.py {AGREE} pooling",
    "minicnn.backends.numpy.lrn": f"{FAST}lrn.py {AGREE} lrn",
    "minicnn.backends.numpy.activation": f"tests/functional/test_activation.py {AGREE} activation",
    "minicnn.backends.numpy.dropout": f"tests/functional/test_dropout.py {AGREE} dropout",
    "minicnn.backends.numpy.masks": f"{FAST}masks.py",
    "minicnn.backends.numpy.ops": f"{FAST}ops.py {AGREE} ops.",
    "minicnn.backends.numpy.optimizer": f"tests/optim/test_optimizer.py {AGREE} optimizer",
    "minicnn.backends.native.compiler": "tests/backends/native/test_compiler.py",
    "minicnn.backends.native.launch": "tests/backends/native/test_launch.py",
    "minicnn.backends.cuda.nccl": "tests/cuda/test_nccl.py",
    "minicnn.backends.cuda.graph": "tests/cuda/test_graph.py tests/cuda/test_kernels_dropout.py",
    "minicnn.backends.cuda.cublas": "tests/cuda/test_cublas.py",
    "minicnn.ops": f"tests/test_ops.py {AGREE} ops.",
    "minicnn.autograd": "tests/test_autograd.py tests/test_autograd_modes.py tests/test_anomaly.py",
    "minicnn.gradcheck": "tests/test_gradcheck.py",
    "minicnn.anomaly": "tests/test_anomaly.py",
    "minicnn.captured": "tests/test_captured.py tests/cuda/test_graph.py",
    "minicnn.optim.optimizer": f"tests/optim/test_optimizer.py {AGREE} optimizer",
    "minicnn.optim.schedule": "tests/optim/test_schedule.py",
    "minicnn.checks": "tests/test_checks.py",
    "minicnn.checkpoint": "tests/test_checkpoint.py",
    "minicnn.random": "tests/test_random.py",
    "minicnn.workers": "tests/test_workers.py",
    "minicnn.mpi": "tests/test_mpi.py tests/cuda/test_nccl.py -k not(mpiexec)",
    "minicnn.distributed": "tests/test_distributed.py -k not(mpiexec)",
}
# these take minutes each, since each mutant is compiled anew, or starts threads: only if --file asks for them
LONG = {
    "minicnn.backends.native.compiler", "minicnn.backends.native.launch", "minicnn.mpi", "pooling.cu", "lrn.cu"
}  # fmt: skip
MARK = re.compile(r"(.*?)\s*(?:#|//) equivalent \((.+?)\): (.+)")  # code, kinds, reason
LIMIT = 10.0, 5.0  # seconds of CPU time, plus so many times what the same tests take on the unchanged code
PATIENCE = 10  # ... and so many times that of waiting: for a deadlock, which takes no CPU time
MEMORY = 4 << 30  # bytes of address space: a shape gone wrong must not take the machine down
THREADS = 2  # minicnn's: with one, a batch would often be a single slice, and wrong slice bounds would not show
KILLED, BROKEN = 1, 2  # exit statuses of a child
PYTEST = ["-q", "-s", "--assert=plain", "--disable-warnings", "-p", "no:cacheprovider", "-p", "no:faulthandler"]

Marks = dict[tuple[int, str], str]  # line, kind: why such mutants are equivalent


# ---------------------------------------------------------------------------------------------------------------------
# running
class Mutation:
    """A pytest plugin that runs the collected tests against mutants."""

    def __init__(self, module: ModuleType, mutants: list[Mutant], jobs: int, tell: Callable[[Mutant, str], None]):
        self.module, self.mutants, self.jobs, self.tell = module, mutants, jobs, tell
        self.failures: list[str] = []
        self.running: dict[int, Mutant] = {}

    def pytest_configure(self) -> None:
        hypothesis = importlib.import_module("hypothesis")  # not before pytest, whose hypothesis plugin would mind
        hypothesis.settings.register_profile(
            "mutation", hypothesis.settings.get_profile("default"), derandomize=True, database=None, deadline=None,
            phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        hypothesis.settings.load_profile("mutation")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failures.append(f"{report.nodeid}: {report.longreprtext.strip().splitlines()[-1]}")

    pytest_collectreport = pytest_runtest_logreport

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if self.failures:
            return True
        tests = self.survey(session.items)
        if self.failures:
            return True
        gc.freeze()  # so that the collector does not write to memory shared with the children
        for mutant in self.mutants:
            near = [i for i, (_, lines) in enumerate(tests) if not lines.isdisjoint(mutant.lines)]
            far = [i for i in range(len(tests)) if i not in near] if mutant.elsewhere else []
            order = [*sorted(near, key=lambda i: tests[i][0]), *sorted(far, key=lambda i: tests[i][0])]
            if not order:
                self.tell(mutant, "survived: no test reaches it")
                continue
            items, seconds = [session.items[i] for i in order], sum(tests[i][0] for i in order)
            work = partial(self.run_mutant, mutant.code, [mutant.member], items)
            self.start(mutant, work, seconds)
        while self.running:
            self.reap()
        return True

    def survey(self, items: list[pytest.Item]) -> list[tuple[float, set[int]]]:
        """For each test, its seconds and the lines of the module that it runs."""

        def first_and_second_run() -> list[tuple[float, list[int]]]:
            traces = []
            for item in items:
                lines: set[int] = set()
                begin = time.process_time()
                with tracing(str(self.module.__file__), lines):
                    run(item)
                traces.append((time.process_time() - begin, sorted(lines)))
            source = Path(str(self.module.__file__)).read_text(encoding="utf-8")
            code = compile(source, str(self.module.__file__), "exec")
            if not self.failures and self.run_mutant(code, {mutant.member for mutant in self.mutants}, items):
                self.failures.append("(that was the second run, with the code replaced by itself)")
            return traces

        return [(seconds, set(lines)) for seconds, lines in self.in_a_child(first_and_second_run)]

    def in_a_child(self, first_run: Callable[[], Any]) -> Any:
        """What first_run returns, which JSON can hold; in a child, so that nothing is left of it here but failures."""
        reading, writing = os.pipe()

        def told() -> int:
            result = first_run()
            with open(writing, "w") as file:
                json.dump([result, self.failures], file)
            return 0

        child = fork(told)
        os.close(writing)
        with open(reading) as file:
            text = file.read()
        _, status = os.waitpid(child, 0)
        if status:
            raise RuntimeError(f"the first run of {self.module.__name__}'s tests ended with status {status}")
        result, self.failures = json.loads(text)
        return result

    def start(self, mutant: Any, work: Callable[[], int], seconds: float) -> None:
        """Run tests that take so many seconds on the unchanged code, in a child, when it is its turn."""
        self.running[fork(work, LIMIT[0] + LIMIT[1] * seconds)] = mutant
        if len(self.running) == self.jobs:
            self.reap()

    def run_mutant(self, code: CodeType, members: Iterable[tuple[str, ...]], items: list[pytest.Item]) -> int:
        """In a child: put what the code defines in the original's place, and run the tests up to the first failure."""
        namespace, registry = {**vars(self.module)}, importlib.import_module("minicnn.backends")
        lessons = dict(registry._lessons)
        try:
            exec(code, namespace)
        except Exception:  # the module could not even be imported
            return KILLED
        finally:  # the kernels are those of the module, to which the mutant's code goes, not the namespace's
            registry._changed(lambda: registry._lessons.update(lessons))
        for member in members:
            graft(self.module, member, namespace[member[0]])
        try:
            for item in items:
                run(item)
                if self.failures:
                    return KILLED
        except BaseException:  # pytest itself is broken
            return KILLED
        return 0

    def reap(self) -> None:
        pid, status = os.wait()
        mutant, code = self.running.pop(pid), os.waitstatus_to_exitcode(status)
        if code == BROKEN:
            raise RuntimeError(f"could not run {mutant.function}: {mutant.before}  →  {mutant.after}")
        late = code in (-signal.SIGPROF, -signal.SIGALRM)
        self.tell(mutant, "timed out" if late else "killed" if code else "survived")


def run(item: pytest.Item) -> None:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


def fork(work: Callable[[], int], limit: float = 0.0) -> int:
    """Call work() in a forked child, silently, for at most about `limit` seconds; its result is the exit status."""
    pid = os.fork()
    if pid:
        return pid
    status = BROKEN
    try:
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in 0, 1, 2:
            os.dup2(silence, stream)
        with contextlib.suppress(ValueError):  # some systems do not know this limit
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.setitimer(signal.ITIMER_PROF, limit)  # at its end SIGPROF, which ends the process
        signal.setitimer(signal.ITIMER_REAL, limit * PATIENCE)  # SIGALRM
        status = work()
    finally:
        os._exit(status)


@contextlib.contextmanager
def tracing(filename: str, lines: set[int]) -> Iterator[None]:
    """Note the lines of a file that run."""

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != filename:
            return None
        if event == "line":
            lines.add(frame.f_lineno)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    yield
    sys.settrace(None)
    threading.settrace(None)


def graft(module: ModuleType, member: tuple[str, ...], new: Any) -> None:
    """Replace a function of a module, or a member of one of its classes, by the new one's code: whoever has imported
    it has the new code, too."""
    holder: Any = module
    if len(member) == 2:
        holder, new = vars(module)[member[0]], vars(new)[member[1]]
    if isinstance(new, property) and new.fset:  # the mutant may be in either function
        vars(holder)[member[-1]].fset.__code__ = new.fset.__code__
    old, fresh = bare(vars(holder)[member[-1]]), bare(new)
    if old is None or fresh is None:
        setattr(holder, member[-1], new)
    elif old.__code__.co_freevars == fresh.__code__.co_freevars:
        old.__code__, old.__defaults__, old.__kwdefaults__ = fresh.__code__, fresh.__defaults__, fresh.__kwdefaults__
    else:  # it has lost its super()
        cells = dict(zip(old.__code__.co_freevars, old.__closure__ or (), strict=True))
        closure = tuple([cells[name] for name in fresh.__code__.co_freevars])
        setattr(holder, member[-1], FunctionType(fresh.__code__, old.__globals__, None, fresh.__defaults__, closure))


def bare(thing: Any) -> FunctionType | None:
    """The function inside a property, a class method or a decorated function."""
    thing = inspect.unwrap(getattr(thing, "fget", None) or getattr(thing, "__func__", thing))
    return thing if isinstance(thing, FunctionType) else None


# ---------------------------------------------------------------------------------------------------------------------
# telling
WORDS = "killed", "timed out", "equivalent", "survived"


class Report:
    """What becomes of one file's mutants: `told` has a word, a line and a note about each."""

    def __init__(self, file: str, marks: Marks, show: bool) -> None:
        self.file, self.marks, self.show = file, marks, show
        self.told: list[tuple[str, str, str]] = []
        self.unused = set(marks)

    def tell(self, mutant: Mutant, outcome: str) -> None:
        word, _, note = outcome.partition(": ")
        mark = mutant.line, mutant.kind
        if word == "survived" and mark in self.marks:
            word, note = "equivalent", self.marks[mark]
            self.unused.discard(mark)
        self.told.append((word, self.line(mutant), note))
        if self.show:
            print(f"{word:<12}{self.line(mutant)}", file=sys.__stdout__, flush=True)

    def line(self, mutant: Mutant) -> str:
        return f"{self.file}:{mutant.line}  {mutant.function}, {mutant.kind}:  {mutant.before}  →  {mutant.after}"


def row(name: str, reports: Iterable[Report], seconds: float) -> str:
    counts = Counter(word for report in reports for word, *_ in report.told)
    return (
        f"{name:<36}"
        + "".join(f"{n:>11}" for n in (counts.total(), *(counts[word] for word in WORDS)))
        + f"{seconds:>9.1f} s"
    )


def read_marks(source: str) -> Marks:
    """The marks of equivalent mutants in a source text."""
    marks = {}
    for number, line in enumerate(source.split("\n"), 1):
        if found := MARK.fullmatch(line):
            code, kinds, reason = found.groups()
            marks.update({(number if code else number + 1, kind): reason for kind in kinds.split(", ")})
    return marks


def collect_and_run(mutation: Mutation, tests: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = pytest.main([*tests.split(), "-m", "not slow and not gpu", *PYTEST], plugins=[mutation])
    if mutation.failures:
        raise SystemExit("\n".join([f"{tests} must pass before mutants are tried:", *mutation.failures]))
    if status:
        raise SystemExit(f"{tests}: pytest ends with status {int(status)}:\n{said.getvalue()}")


def lesson(name: str) -> tuple[ModuleType, str, list[Mutant]]:
    """A module, its file, and its mutants."""
    module = importlib.import_module(name)
    source = Path(str(module.__file__))
    return module, name.replace(".", "/") + ".py", list(mutants_of(source.read_text(encoding="utf-8"), str(source)))


def main(
    table: dict[str, str] | None = None,
    load: Callable[[str], tuple[Any, str, list[Any]]] = lesson,
    plugin: Callable[..., Mutation] = Mutation,
) -> int:
    """What `load` finds under the names in the table (by default TABLE), against their tests, by that plugin."""
    table = TABLE if table is None else table
    parser = argparse.ArgumentParser(description="Give the ops one small mistake after another: do their tests notice?")
    parser.add_argument("--file", action="append", help="only tests whose path contains this; may be repeated")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at a time (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="list the mutants, run none")
    parser.add_argument("--show", action="store_true", help="say what became of each mutant")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is imported
    sys.path.insert(0, str(ROOT))
    importlib.import_module("minicnn").set_num_threads(THREADS)

    reports, begin = [], time.perf_counter()
    print(f"{'':<36}" + "".join(f"{word:>11}" for word in ("mutants", *WORDS)), flush=True)
    for name, tests in table.items():
        if not any(part in tests for part in options.file) if options.file else name in LONG:
            continue
        start = time.perf_counter()
        subject, file, mutants = load(name)
        report = Report(file, read_marks((ROOT / file).read_text(encoding="utf-8")), options.show)
        reports.append(report)
        if options.list:
            print(*map(report.line, mutants), sep="\n")
        else:
            collect_and_run(plugin(subject, mutants, options.jobs, report.tell), tests)
            print(row(report.file, [report], time.perf_counter() - start), flush=True)
    if options.list:
        return 0

    print(row("all", reports, time.perf_counter() - begin))
    told = [entry for report in reports for entry in report.told]
    survivors = [line + (f"  ({note})" if note else "") for word, line, note in told if word == "survived"]
    unused = [f"{report.file}:{line}  {kind}" for report in reports for line, kind in sorted(report.unused)]
    for title, lines in (
        ("Equivalent", [f"{line}\n    {note}" for word, line, note in told if word == "equivalent"]),
        ("Marked as equivalent, but none survives", unused),
        ("Survived", survivors),
    ):
        if lines:
            print(f"\n{title}:", *lines, sep="\n")
    return 1 if survivors or unused else 0


if __name__ == "__main__":
    sys.exit(main())
