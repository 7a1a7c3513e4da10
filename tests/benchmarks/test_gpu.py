"""The benchmark on a GPU: its command line, and what it makes of its measurements. A whole run: tests/cuda/test_rig.py."""

import importlib.util
import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import __main__ as program
from benchmarks import gpu, gpu_launches, gpu_report
from benchmarks.gpu_launches import Card, Launch, distinct, recording
from benchmarks.instructions import Issued
from benchmarks.sections import BEST, CAPTURED, COMPILED, DEFAULT, OURS
from benchmarks.turns import BenchmarkError, Contender, OutOfTime, Turn, running
from minicnn import DeviceError
from minicnn.backends.cuda import launch, products

MACHINE = {
    **{"processor": "a processor", "cores": 2, "caches": "L2 512K", "memory_gib": 8.0, "system": "Linux x86_64"},
    **{
        "python": "3.12",
        "numpy": "2.0",
        "blas": "a BLAS",
        "pytorch": None,
        "minicnn": "0.1",
        "threads": 2,
        "date": "2030-01-02",
    },
}
ROOT = Path(__file__).resolve().parents[2]
CARD = Card("a card", bandwidth=1e9, fp32=1e9, tf32=8e9)
standin = pytest.mark.skipif(not gpu.SUITE.joinpath("standin").is_dir(), reason="needs the stand-in of tests/cuda")


# ----------------------------------------------------------------------------------------------------- the command line
def test_without_a_gpu(monkeypatch, capsys, tmp_path):
    def missing(device):
        raise DeviceError(f"device {device!r}: there is none")

    monkeypatch.setattr(gpu, "open_device", missing)
    assert program.main(["gpu", "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "benchmarks: device 'gpu': there is none\n"
    assert not list(tmp_path.iterdir())


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What a run was asked for, of which no part does anything."""
    found = {"arguments": ["gpu", "--output", str(tmp_path)]}

    def measured(options, chosen, longest, save):
        found.update(options=options, parts=chosen, limit=longest)
        return {"parts": []}

    monkeypatch.setattr(gpu, "measured", measured)
    return found


def test_by_default_everything_is_measured(asked):
    assert program.main(asked["arguments"]) == 0
    options = asked["options"]
    assert asked["parts"] == ("tests", "kernels", "steps", "training", "launches") and asked["limit"] < 480
    assert options.batches_of("2012") == [1, 32, 128, 512] and options.batches_of("2014") == [128]
    assert options.batch == 128 and options.networks == ("2012", "2014")
    assert options.pytorch == bool(importlib.util.find_spec("torch"))


def test_options(asked):
    assert program.main([*asked["arguments"], *"--batches 8,16 --only kernels --quick --without-pytorch".split()]) == 0
    options = asked["options"]
    assert asked["parts"] == ("kernels",) and options.batch == 16 and options.quick and not options.pytorch


# ------------------------------------------------------------------------------------------------------------- launches
@pytest.mark.parametrize(
    "kind, nbytes, operations, precision, seconds, bound",
    [
        ("kernel", 2e9, 1e9, "fp32", 2.0, "memory"),
        ("product", 2e9, 8e9, "fp32", 8.0, "arithmetic"),
        ("product", 2e9, 8e9, "tf32", 2.0, "memory"),
        ("kernel", 2e9, 8e9, "tf32", 8.0, "arithmetic"),  # only products are made in TF32
        ("cupy", 8, 0, "tf32", 0.5, "launching"),
    ],
)
def test_the_least_that_a_launch_takes(kind, nbytes, operations, precision, seconds, bound):
    card = CARD._replace(shortest=0.5)
    assert card.least(kind, nbytes, operations, precision) == {"seconds": seconds, "bound": bound}
    assert card.least(kind, nbytes, operations, precision, 0.4)["bound"] == bound
    assert card.least(kind, nbytes, operations, precision, 8.5) == {"seconds": 8.5, "bound": "instructions"}


def test_a_card_is_expected_to_reach_a_part_of_its_rates():
    card = gpu_launches.expected(CARD)
    assert card.shortest > 0
    for rate in ("bandwidth", "fp32", "tf32"):
        assert 0.3 * getattr(CARD, rate) < getattr(card, rate) < getattr(CARD, rate)


def test_launches_that_are_the_same_are_counted():
    a, b = Launch("a", "kernel", "3", 12, 3.0, print), Launch("a", "kernel", "4", 16, 4.0, print)
    assert distinct([a, b, a._replace(again=int), b, a]) == [(a, 3), (b, 2)]


def test_recording(monkeypatch):
    ran = []
    monkeypatch.setattr(launch, "_run", lambda *args: ran.append(args))
    monkeypatch.setattr(products, "product", lambda a, b, out: ran.append((a, b)))
    x, y = np.zeros((4, 5, 3), np.float32), np.zeros((4, 3), np.float64)
    with recording() as found:
        launch.launch("activation.rectify", 12, x, y, 12, real=np.float32)
        launch.launch("linear.add_bias", 60, x, y[0], x, 60, real=np.float32, C=3)
        table = np.array(([60, 100],), [("end", "i8", 2)])[()]
        launch.launch("optimizer.sgd", 25, table, 100, 0.1, 0.9, 0.0, False, False, real=np.float64)
        launch.launch("nothing", 0, x[:0], real=np.float32)
        products.product(x[0].T, x[0], np.zeros((3, 3), np.float32))
        products.product(x[0, :0].T, x[0, :0], np.zeros((3, 3), np.float32))
    products.product(x[0], x[0].T, None)
    assert [entry[:5] for entry in found] == [
        ("activation.rectify", "kernel", "4×5×3 → 4×3", 60 * 4 + 12 * 8, 60),
        ("linear.add_bias", "kernel", "4×5×3 → 3", 2 * 60 * 4 + 3 * 8, 60),  # read and written
        ("optimizer.sgd", "kernel", "100", 5 * 100 * 8, 100),
        ("product", "product", "3×5ᵀ · 5×3", (15 + 15 + 9) * 4, 2 * 3 * 5 * 3),
    ]
    assert len(ran) == 7
    for entry in found:
        entry.again()
    assert len(ran) == 11 and ran[7] == ran[0]


def test_the_code_of_what_is_recorded(monkeypatch):
    """The source is the one that a launch compiles; a kernel whose blocks work together is run by all of their warps;
    what a launch counts is known, but not its seeds, of which each launch has others."""
    monkeypatch.setattr(launch, "_run", lambda *args: None)
    x = np.zeros((2**20, 32), np.float32)
    with recording() as found:
        launch.launch("activation.rectify", x.size, x, x, x.size, real=np.float32)
        launch.launch("dropout.drop", 33, x, x, 264, 0.5, 2.0, 7, 8, x, 9, real=np.float64, PACK=4)
        launch.launch_blocks("ops.column_sums", 3, x, x, 3, 1, 50, 4, 25, real=np.float32, WIDE=4)
        launch.launch("pooling.gather", 9, x, x, x, 9, real=np.float32, types={"place": "unsigned char"}, PADDED=True)
        large = SimpleNamespace(shape=(1 << 31,), size=1 << 31, nbytes=1 << 33)
        launch.launch("activation.rectify", 9, large, x, 9, real=np.float32)
    codes = [entry.code for entry in found]
    for code, real in zip(codes, ["float", "double", "float", "float", "float"], strict=True):
        assert code.source.startswith(f"typedef {real} real;\n") and "#define FOR_EACH" in code.source
    assert [code[1:] for code in codes] == [
        (1 << 16, 1 << 20, (("count", 1 << 25),)),
        (1, 2, (("PACK", 4), ("count", 264))),
        (3, 24, (("WIDE", 4), ("count", 3), ("across", 1), ("rows", 50), ("columns", 4), ("chunk", 25))),
        (1, 1, (("PADDED", 1), ("count", 9))),
        (1, 1, (("count", 9),)),
    ]
    assert ["unsigned long long Index;" in code.source for code in codes] == [False] * 4 + [True]
    assert "typedef unsigned char place;" in codes[3].source and "constexpr int WIDE = 4;" in codes[2].source


@pytest.fixture(scope="module")
def prediction():
    return gpu.prediction(gpu.Options(1, [128]))


@standin
def test_a_training_step_takes_few_launches_and_no_transfer_but_the_pictures_and_labels(prediction):
    entries = prediction["launches"]
    counts = {kind: sum(e["times"] for e in entries if e["kind"] == kind) for kind in ("kernel", "product", "cupy")}
    assert counts["kernel"] + counts["product"] + counts["cupy"] <= gpu_report.MOST
    # one for both groups of conv2, 4 and 5, but for the images; conv1 makes no gradient for its images
    assert counts["product"] == 2 * 8 + 10
    transfers = [(e["name"], e["bytes"], e["times"]) for e in entries if e["kind"] == "transfer"]
    assert transfers == [("pinned, to the GPU", 128 * 227 * 227 * 3, 1), ("pinned, to the GPU", 128 * 8, 1)]


def said(path):
    """On one line."""
    return " ".join(path.read_text(encoding="utf-8").split())


@standin
def test_predicted_files(prediction, tmp_path):
    totals = prediction["totals"]
    assert 0 < totals["tf32"]["seconds"] < totals["fp32"]["seconds"]
    gpu_report.write_prediction(prediction, tmp_path)
    text = said(tmp_path / "gpu-predicted.md")
    assert "| optimizer.sgd | 60,965,224 | 1 | 1,219 |" in text
    with_host = "what Python takes to ask for a step" in text  # not without the rig
    assert bool(prediction["host"]) == with_host == ("measured but the host" in text)
    assert (prediction["captured"] is not None) == with_host and (
        not with_host or prediction["captured"] < prediction["host"]
    )
    gpu_report.write_prediction({**prediction, "host": None, "captured": None}, tmp_path)
    text = said(tmp_path / "gpu-predicted.md")
    assert "Nothing here was measured. " in text and "Xeon" not in text
    saved = json.loads((tmp_path / "gpu-predicted.json").read_text(encoding="utf-8"))
    assert len(saved["launches"]) == len(prediction["launches"])


@standin
def test_predicted_files_with_instructions_and_without(monkeypatch, tmp_path):
    """Without them, one line says why; with them, the slower of two bounds counts."""
    monkeypatch.setattr(gpu, "host", lambda *_: None)

    def predicted(issued):
        monkeypatch.setattr(gpu, "issued", issued)
        gpu_report.write_prediction(gpu.prediction(gpu.Options(1, [128])), tmp_path)
        return said(tmp_path / "gpu-predicted.md")

    text = predicted(lambda options, launches: "nvdisasm is missing")
    assert "**Without the machine instructions of minicnn's kernels: nvdisasm is missing.**" in text
    assert "instructions, µs" not in text and "(roughly, for kernels), and 3 µs" in text
    assert "| optimizer.sgd | 60,965,224 | 1 | 1,219 | 0.061 | 428 (memory) | 428 (memory) |" in text

    def half_of_sgd(options, launches):
        return [Issued(1e6, 214e-6 if launch.name == "optimizer.sgd" else 1e-7) for launch in launches]

    text = predicted(half_of_sgd)
    assert "(roughly, for kernels), the instructions of minicnn's kernels, and 3 µs" in text
    assert "| optimizer.sgd | 60,965,224 | 1 | 1,219 | 0.061 | 214 | 428 (memory) | 428 (memory) |" in text
    assert "No launch is bound by them. Of those that memory holds up, optimizer.sgd (60,965,224) is the " in text
    assert "with 50% of its time" in text and "| Event.synchronize | wait | 1 | 0 | – | – | – | – |" in text

    def twice_as_slow(options, launches):
        return [Issued(4 * count.instructions, 4 * count.seconds) for count in half_of_sgd(options, launches)]

    text = predicted(twice_as_slow)
    assert "Bound by them: optimizer.sgd. Of those that memory holds up, " in text
    assert "| optimizer.sgd | 60,965,224 | 1 | 1,219 | 0.061 | 856 | 856 (instructions) | 856 (instructions) |" in text


# ------------------------------------------------------------------------------------------------------------ the parts
def plan_of(monkeypatch, *parts):
    """Parts of these names, wishes for time, and what they do."""
    made = [gpu.Part(name, f"part {name}", seconds, measure) for name, seconds, measure in parts]
    monkeypatch.setattr(gpu, "plan", lambda options: made)
    monkeypatch.setattr(gpu, "open_device", lambda device: device)
    properties = {"name": b"A card"}
    runtime = SimpleNamespace(
        getDeviceProperties=lambda n: properties, driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 13020
    )
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(__version__="14.2", cuda=SimpleNamespace(runtime=runtime)))
    monkeypatch.setattr(gpu, "describe_device", lambda device: "A card, 80.0 GiB")
    return [name for name, _, _ in parts]


def test_a_part_that_fails_and_one_that_runs_late_leave_the_others_alone(monkeypatch, tmp_path):
    """And the files are written after each part, so that nothing measured is lost."""
    saved = []

    def well(options, found, until):
        found["limit"] = until - time.monotonic()

    def fails(options, found, until):
        found["begun"] = True
        raise ZeroDivisionError("by zero\nin a long text")

    names = plan_of(
        monkeypatch, ("a", 10, well), ("b", 10, fails), ("c", 1, lambda o, f, until: slow(until)), ("d", 20, well)
    )
    results = gpu.measured(gpu.Options(1), names, 41, lambda results: saved.append(json.dumps(results)))
    assert [entry["problem"] for entry in results["parts"]] == [
        None, "ZeroDivisionError: by zero", "out of time while sleeper was at work", None,
    ]  # fmt: skip
    assert results["b"] == {"begun": True} and 9 < results["a"]["limit"] <= 10
    assert results["d"]["limit"] > 30  # what the others have left
    assert [len(json.loads(text)["parts"]) for text in saved] == [1, 2, 3, 4]
    assert gpu.failures(results) == [
        "part b: ZeroDivisionError: by zero",
        "part c: out of time while sleeper was at work",
    ]


def slow(until):
    """Waits for a process that never answers."""
    contender = Contender("sleeper", 1, "ours:Chains")
    with running(contender, until=time.monotonic() + 60):
        contender.until = time.monotonic() + 0.1
        contender.ask("warm_up", "add", 100.0)


def test_a_run_that_is_interrupted_keeps_what_it_has(monkeypatch):
    def interrupted(options, found, until):
        found["some"] = 1
        raise KeyboardInterrupt

    saved = []
    names = plan_of(monkeypatch, ("a", 1, interrupted), ("b", 1, interrupted))
    with pytest.raises(KeyboardInterrupt, match="in the files"):
        gpu.measured(gpu.Options(1), names, 10, lambda results: saved.append(json.dumps(results)))
    assert json.loads(saved[-1])["a"] == {"some": 1} and "interrupted" in saved[-1]


def test_an_interrupt_says_what_was_saved(monkeypatch):
    """Another one, while it is being saved, waits; and one in a part that has ended is not lost."""

    def interrupted(options, found, until):
        raise KeyboardInterrupt

    def full(results):
        raise OSError("no space")

    def save(results):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        saved.append(len(results["parts"]))

    saved = []
    for part, saving, words in (
        (interrupted, full, "not all that had been measured is in the files: OSError: no space"),
        (interrupted, save, "^what had been measured is in the files"),
        (lambda *_: None, save, "^what had been measured is in the files"),
    ):
        names = plan_of(monkeypatch, ("a", 1, part), ("b", 1, part))
        with pytest.raises(KeyboardInterrupt, match=words):
            gpu.measured(gpu.Options(1), names, 10, saving)
    assert saved == [1, 1]


@pytest.mark.parametrize("status", [1, None])
def test_a_part_whose_programs_fail_is_not_done(status, monkeypatch):
    def tests(options, found, until):
        found["sanitizer"] = {"memcheck a": {"summary": "no error", "status": 0}}
        found["pytest"] = {"summary": "1 failed", "status": status}

    def training(options, found, until):
        found |= {"summary": "no memory", "status": status}

    names = plan_of(monkeypatch, ("tests", 1, tests), ("training", 1, training))
    results = gpu.measured(gpu.Options(1), names, 10, lambda results: None)
    assert [entry["problem"] for entry in results["parts"]] == ["pytest: 1 failed", "no memory"]
    assert gpu.failures(results) == ["part tests: pytest: 1 failed", "part training: no memory"]


def test_files_that_cannot_be_written_end_nothing_but_are_said(monkeypatch):
    def full(results):
        if len(results["parts"]) in failing:
            raise OSError("no space")

    names = plan_of(monkeypatch, ("a", 1, lambda *_: None), ("b", 1, lambda *_: None))
    failing = [1]
    assert len(gpu.measured(gpu.Options(1), names, 10, full)["parts"]) == 2
    failing = [2]
    with pytest.raises(BenchmarkError, match="could not be saved: OSError: no space"):
        gpu.measured(gpu.Options(1), names, 10, full)


def test_the_parts_that_say_most_come_first():
    plan = gpu.plan(gpu.Options(1, pytorch=True))
    assert [part.what for part in plan[2:]] == [
        "training and inference, 2012, batch 128", "examples/alexnet/train.py",
        "training and inference, 2012, batch 128 compiled", "training and inference, 2014, batch 128",
        "training and inference, 2012, batch 1, 32, 512", "what a training step launches",
    ]  # fmt: skip
    assert {part.section for part in plan} == set(gpu.SECTIONS)
    assert not any("compiled" in part.what for part in gpu.plan(gpu.Options(1, pytorch=False)))


@pytest.mark.slow
def test_a_program_ends_well_badly_late_or_not_at_all(monkeypatch):
    monkeypatch.setattr(gpu, "LAST_WORDS", 3.0)
    python = [sys.executable, "-c"]
    with gpu.Programs() as programs:

        def run(code, seconds=60.0):
            return programs.run([*python, code], time.monotonic() + seconds)

        assert run("print('no'); print('=== 3 passed ===')")["summary"] == "3 passed"
        failed = run("import sys; sys.exit('1 failed')")
        assert (failed["status"], failed["summary"]) == (1, "1 failed")
        code = "import sys\nprint('begun', flush=True)\ntry: import time; time.sleep(60)\nexcept: "
        late = run(f"{code}print('5 of 9'); sys.exit(130)", 4)
        assert late["status"] is None and late["summary"] == "not done after 1 s: 5 of 9"
        deaf = run(
            "import signal, time; signal.signal(2, signal.SIG_IGN); print('begun', flush=True); time.sleep(60)", 4
        )
        assert deaf["status"] is None and deaf["summary"].endswith("begun") and deaf["seconds"] < 10
        assert run(f"{code}print('9 of 9')", 4)["status"] == 0  # it has only just ended
        assert run("", 2)["summary"].startswith("not begun")
        monkeypatch.setattr(gpu, "PLACES", {"/here": ".", "/there": "python"})
        said = run("for place in ('/here/tests', '/heres', '/there/lib'): print(place)")["output"].splitlines()
        assert said == ["./tests", "/heres", "python/lib"]
        gone = programs.run(["/nowhere/compute-sanitizer"], time.monotonic() + 60)
        assert gone["status"] is None and gone["summary"].startswith("not begun: FileNotFoundError")


@pytest.mark.slow
@pytest.mark.parametrize("session", [False, True])
def test_what_a_program_has_started_ends_with_it(session, monkeypatch, tmp_path):
    """And if it cannot be ended, being in another session, it is not waited for."""
    monkeypatch.setattr(gpu, "LAST_WORDS", 2.0)
    started = "import os, signal, sys, time; signal.signal(2, signal.SIG_IGN); open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"""
import os, subprocess, sys, time
name = sys.argv[1]
subprocess.Popen([sys.executable, "-c", {started!r}, name], start_new_session={session})
while not os.path.exists(name) or not os.path.getsize(name): time.sleep(0.01)
print("done", flush=True)
"""
    with gpu.Programs() as programs:
        begun = time.monotonic()
        run = programs.run([sys.executable, "-c", code, str(tmp_path / "pid")], begun + 6)
    assert (run["status"], run["summary"]) == (0, "done") and time.monotonic() - begun < 8
    process = int((tmp_path / "pid").read_text())
    if session:
        os.kill(process, signal.SIGKILL)
    else:
        for _ in range(500):
            if not Path(f"/proc/{process}").exists() or "zombie" in Path(f"/proc/{process}/status").read_text():
                break
            time.sleep(0.01)
        else:
            raise AssertionError("it goes on")


def test_no_program_outlives_the_benchmark():
    """Nor does what it has started."""
    with gpu.Programs() as programs:
        code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
        thread = threading.Thread(target=programs.run, args=([sys.executable, "-c", code], time.monotonic() + 60))
        thread.start()
        while not programs.running:
            time.sleep(0.01)
        (process,) = programs.running
    thread.join(10)
    assert not thread.is_alive() and process.returncode == -signal.SIGKILL
    assert programs.run([sys.executable, "-c", ""], time.monotonic() + 60)["summary"].startswith("not begun")


def test_the_sanitizer_is_not_there(monkeypatch):
    monkeypatch.setattr(gpu.shutil, "which", lambda name: None)
    monkeypatch.setattr(gpu.Programs, "run", lambda self, words, until: {"words": words})
    found = {}
    gpu.tests(gpu.Options(1), found, 0.0)
    assert found["sanitizer"] == {} and str(gpu.SUITE) in found["pytest"]["words"]


def test_what_has_been_tested_is_kept_when_the_rest_is_interrupted(monkeypatch):
    """One sanitizer fails to start, which is no reason to lose the others either."""
    monkeypatch.setattr(gpu, "sanitizers", lambda tool: {"memcheck a": ["done"], "memcheck b": ["slow"]})
    monkeypatch.setattr(gpu.shutil, "which", lambda name: name)
    ended = threading.Event()

    class Programs(gpu.Programs):
        def run(self, words, until, **environment):
            if words == ["slow"]:
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
                ended.wait(10)
            return {"summary": words[-1], "status": 0}

        def __exit__(self, *error):
            super().__exit__(*error)
            ended.set()

    monkeypatch.setattr(gpu, "Programs", Programs)
    found = {}
    with pytest.raises(KeyboardInterrupt):
        gpu.tests(gpu.Options(1), found, math.inf)
    assert set(found["sanitizer"]) == {"memcheck a", "memcheck b"} and found["pytest"]["status"] == 0


@standin
def test_a_sanitizer_for_each_file_of_kernels():
    runs = gpu.sanitizers("tool")
    kernels = {path.stem for path in launch.HERE.glob("*.cu")}
    assert {f"memcheck {name}" for name in kernels} <= set(runs)
    shared = {path.stem for path in launch.HERE.glob("*.cu") if "__shared__" in path.read_text()}
    assert {f"racecheck {name}" for name in shared} == {name for name in runs if name.startswith("racecheck")}


class FakeContender:
    """Takes no time to speak of; all but minicnn have no memory for 512 images. `off` is how wrong it computes."""

    threads = {"asked": 1}
    tasks = ("step", "inference")

    def __init__(self, name, threads, worker, network, *settings):
        self.name, self.answers = name, {"reserved": 100.0, "waits": (1e-3, 2e-3), "warm_up": 1, "take": None}
        self.precision = "fp32"

    off = rounding = 0.0

    def ask(self, method, *arguments):
        if method == "attempt":
            return "OutOfMemoryError: 80 GB" if self.name != OURS and arguments[0] == 512 else None
        if method == "take":
            self.precision = arguments[1]
        if method == "gradients":
            return 7.0, {"fc8.weight": np.ones(3) + self.off + self.rounding * (self.precision == "tf32")}
        if method == "turn":
            return Turn(
                dict.fromkeys(arguments[0], 0.5 if self.name == OURS else 1.0), dict.fromkeys(arguments[0], 0.0), 0.0
            )
        return self.answers[method]

    def begin(self):
        pass

    end = begin

    def changed(self):
        return "the threads have changed" if self.off else None


@pytest.fixture
def fakes(monkeypatch):
    monkeypatch.setattr(gpu, "Contender", FakeContender)
    monkeypatch.setattr(gpu, "has_tf32", lambda device: True)


def test_steps(fakes):
    options, found = gpu.Options(1, [128, 512], 2, ("2012", "2014")), {}
    for network in options.networks:
        gpu.steps(network, options.batches, False, options, found, math.inf)
    gpu.steps("2012", [128], True, options, found, math.inf)
    assert len(found["measured"]) == 2 * 2 * 2 + 2 and len(found["agreement"]) == 2 * 2 * 3
    assert found["problems"] == [
        f"Not measured: {network}, {precision}, batch 512, {name}: OutOfMemoryError: 80 GB"
        for network in ("2012", "2014")
        for precision in ("tf32", "fp32")
        for name in (CAPTURED, DEFAULT, BEST)
    ]
    by = {(m["network"], m["precision"], m["batch"]): m for m in found["measured"][:-2]}
    assert by["2012", "tf32", 128]["step"]["seconds"]["step"] == {
        OURS: [0.5] * 2, **dict.fromkeys((CAPTURED, DEFAULT, BEST), [1.0] * 2),
    }  # fmt: skip
    assert list(by["2014", "fp32", 128]["waits"]) == [OURS, CAPTURED, DEFAULT, BEST]
    assert list(by["2012", "fp32", 512]["inference"]["seconds"]["inference"]) == [OURS]
    assert list(found["measured"][-1]["waits"]) == [OURS, CAPTURED, COMPILED]


@pytest.mark.parametrize(
    "precision, rounding, off, well",
    [
        ("fp32", 0.0, 2e-3, False), ("tf32", 0.0, 2e-3, True), ("tf32", 0.0, 0.1, False), ("tf32", 0.0, np.nan, False),
        ("tf32", 0.05, 0.1, True), ("tf32", 0.05, 0.3, False),
    ],
)  # fmt: skip
def test_agreement(precision, rounding, off, well, fakes):
    """In TF32, with as much as rounding explains: what minicnn's own gradient moves by."""
    ours, theirs = FakeContender(OURS, 1, "", "2012"), FakeContender(DEFAULT, 1, "", "2012")
    ours.rounding, theirs.off = rounding, off
    found = {}
    gpu.agreement([ours, theirs], "2012", ("fp32", "tf32"), found)
    assert list(found) == ["2012, fp32, PyTorch", "2012, tf32, PyTorch"]
    apart = found[f"2012, {precision}, PyTorch"]
    assert (not apart["wrong"]) == well and set(apart["wrong"]) <= {"fc8.weight"}


def test_agreement_that_was_cut_off_is_tried_again(fakes):
    options, found = gpu.Options(1, [128], 2), {"agreement": {"2012, fp32, PyTorch": {}}}
    gpu.steps("2012", [128], False, options, found, math.inf)
    names = CAPTURED, DEFAULT, BEST
    assert set(found["agreement"]) == {f"2012, {p}, {name}" for p in gpu.PRECISIONS for name in names}


def test_steps_that_run_late_keep_what_they_have(fakes, monkeypatch):
    class Late(FakeContender):
        def ask(self, method, *arguments):
            if method == "reserved":
                raise OutOfTime("out of time")
            return super().ask(method, *arguments)

    monkeypatch.setattr(gpu, "Contender", Late)
    found = {}
    with pytest.raises(OutOfTime):
        gpu.steps("2014", [128], False, gpu.Options(1, None, 2), found, math.inf)
    (figure,) = found["measured"]
    assert set(figure) == {"network", "precision", "batch", "step", "inference"}


class FakeKernels:
    """Fails when asked for the third launch; its threads change."""

    def __init__(self, *arguments):
        self.until = None

    def ask(self, method, *arguments):
        if method == "peaks":
            return {"bandwidth": 1e9, "fp32": 1e9, "tf32": 1e9, "mark": 1e-6}
        if method == "launches":
            return [(Launch(name, "kernel", "3", 12, 3.0), 1) for name in FakeKernels.names]
        if arguments == (2,):
            raise OutOfTime("out of time")
        return {"fp32": [1e-3]}

    names = "abc"

    def begin(self):
        pass

    end = begin

    def changed(self):
        return "the threads have changed"


def test_kernels_that_run_late_keep_what_they_have(fakes, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "Contender", FakeKernels)
    monkeypatch.setattr(gpu, "describe_device", lambda device: "A card")
    found = {}
    with pytest.raises(OutOfTime):
        gpu.kernels(gpu.Options(1), found, math.inf)
    assert [entry["name"] for entry in found["launches"]] == ["a", "b"] and found["peaks"]["fp32"] == 1e9
    text = gpu_report.markdown({**made(), "kernels": found})
    assert "**Of 3 that differ only the first 2 were measured: the sums lack the others.**" in text
    assert "None was measured." in gpu_report.markdown({**made(), "kernels": {"launches": []}})


def test_kernels_whose_threads_change_are_kept(fakes, monkeypatch):
    monkeypatch.setattr(gpu, "Contender", FakeKernels)
    monkeypatch.setattr(gpu, "describe_device", lambda device: "A card")
    monkeypatch.setattr(FakeKernels, "names", "ab")
    found = {}
    gpu.kernels(gpu.Options(1), found, math.inf)
    assert len(found["launches"]) == 2
    text = gpu_report.markdown({**made(), "kernels": found})
    assert "**the threads have changed.**" in text


@pytest.mark.slow
def test_what_has_changed_in_a_process_is_reported(fakes, monkeypatch):
    monkeypatch.setattr(FakeContender, "off", 1e-9)
    found = {}
    gpu.steps("2014", [128], True, gpu.Options(1), found, math.inf)
    assert found["problems"] == ["the threads have changed"] * 3 and len(found["measured"]) == 2


# ----------------------------------------------------------------------------------------------------------- the report
def made():
    def played(task, names):
        return {"seconds": {task: {name: [0.1, 0.2, 0.4] for name in names}}, "discarded": 0, "missing": 0}

    names = {(128, "fp32"): [OURS, DEFAULT, BEST, COMPILED], (1, "fp32"): [OURS, DEFAULT], (1, "tf32"): [OURS]}
    measured = [
        {
            "network": "2012", "precision": precision, "batch": batch, "step": played("step", some),
            "inference": played("inference", some), "reserved": dict.fromkeys(some, 1000.0),
            "waits": dict.fromkeys(some, (0.001, 0.002)),
        }
        for (batch, precision), some in names.items()
    ]  # fmt: skip
    floor = {"seconds": 1e-4, "bound": "memory"}
    product = Launch("product", "product", "2×3 · 3×4", 2_000_000, 4e9)._asdict()
    kernel = Launch("lrn.normalize", "kernel", "9×9", 3_000_000, 1e6)._asdict()
    entries = [
        {
            **product,
            "times": 2,
            "floor": {p: floor for p in ("fp32", "tf32")},
            "measured": {"fp32": [4e-4] * 3, "tf32": [2e-4] * 3},
        },
        {**kernel, "times": 1, "floor": {"fp32": floor}, "measured": {"fp32": [2e-4] * 3}},
    ]
    return {
        "machine": MACHINE,
        "gpu": {"name": "A card", "described": "A card, 80.0 GiB", "driver": 13020, "cuda": 13010, "cupy": "14.2"},
        "parts": [
            {"part": "the tests", "allowed": 99.6, "seconds": 3.2, "problem": "memcheck lrn: 1 error | 2 more"},
            {"part": "launches", "allowed": 7.0, "seconds": 7.1, "problem": "out of time"},
        ],
        "tests": {
            "pytest": {"summary": "9 passed", "status": 0, "seconds": 3.0, "output": "9 passed"},
            "sanitizer": {
                "memcheck lrn": {"summary": "1 error | 2 more", "status": 9, "seconds": 3.0, "output": "FAILED lrn\n1 error"}
            },
        },
        "training": {"summary": "9 s", "status": 0, "seconds": 9.5, "output": "epoch 1/1\r100%\n9 s\n"},
        "kernels": {"network": "2012", "batch": 128, "launches": entries,
                    "peaks": {"bandwidth": 3e12, "fp32": 5e13, "tf32": 4e14, "mark": 2e-6}},
        "launches": {"network": "2012", "batch": 128, "launches": entries},
        "steps": {
            "agreement": {"2012, fp32, PyTorch": {"loss": 1e-7, "gradient": 2e-6, "parameter": "conv1.bias",
                                                 "rounding": 0.0, "wrong": []}},
            "measured": measured, "problems": ["Not measured: 2012, fp32, batch 512, PyTorch: no memory"],
        },
        "seconds": 400.0,
    }  # fmt: skip


def test_the_tables(tmp_path):
    gpu_report.write(made(), tmp_path)
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    for line in (
        "- the tests: memcheck lrn: 1 error | 2 more",
        "- launches: out of time",
        "| the tests | 100 | 3 | **memcheck lrn: 1 error \\| 2 more** |",
        "| launches | 7 | 7 | **out of time** |",
        "| pytest -m gpu | passed | 3 | 9 passed |",
        "| compute-sanitizer, memcheck lrn | **FAILED** | 3 | 1 error \\| 2 more |",
        "FAILED lrn",
        "100%",
        "| 2012, fp32, PyTorch | 1e-07 | 2e-06 | conv1.bias | 0e+00 | the same |",
        "**Not measured: 2012, fp32, batch 512, PyTorch: no memory.**",
        "| 2012 | fp32 | 1 | step | 1 (1 to 1) | – | – | 3 (0) |",
        "| 2012 | tf32 | 1 | 1,000 | – | – | – | 1 / 2 | – | – | – |",
        "| product, fp32 | 2×3 · 3×4 | 2 | 2 | 4 | 100 | memory | 400 (400 to 400) | 5 GB/s | 25% |",
        "| fp32 | 1 | 0.3 |",  # a step, in ms: measured, floor
        "| tf32 | 0.6 | 0.3 |",
    ):
        assert line in text.splitlines(), line
    saved = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert saved["seconds"] == 400 and "output" not in saved["tests"]["pytest"]
    assert (tmp_path / "gpu-sanitizer.txt").read_text() == "== memcheck lrn\nFAILED lrn\n1 error" and len(
        list(tmp_path.iterdir())
    ) <= 8
    assert (tmp_path / "gpu.png").read_bytes()[:4] == b"\x89PNG"


def test_a_report_of_what_little_there_is(tmp_path):
    """As after the first part, or when all others have failed."""
    results = {**made(), "tests": {}, "training": {}, "kernels": {}, "launches": {}}
    results["steps"] = {"agreement": {}, "measured": [], "problems": []}
    for name in ("gpu-tests.txt", "gpu-sanitizer.txt", "gpu-training.txt"):  # an earlier run's
        (tmp_path / name).touch()
    gpu_report.write(results, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu.json", "gpu.md", "gpu.png"]


def test_a_report_of_what_ran_late(tmp_path):
    """Of a step nothing but its name, then a part of it."""
    results = made()
    late = results["steps"]["measured"]
    late[0].pop("inference")
    for name in ("reserved", "waits"):
        late[0].pop(name)
    results["steps"]["measured"] = [*late, {"network": "2014", "precision": "fp32", "batch": 64}]
    gpu_report.write(results, tmp_path)
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "| 2012 | fp32 | 128 | step |" in text and "| 2012 | fp32 | 128 | inference |" not in text
    assert "| 2014 |" not in text and (tmp_path / "gpu.png").exists()


@pytest.mark.parametrize("name", ["draw", "markdown"])
def test_what_cannot_be_written_is_named_and_the_rest_is_there(name, monkeypatch, tmp_path):
    def full(*_):
        raise OSError("no space")

    monkeypatch.setattr(gpu_report, name, full)
    missing = {"draw": "gpu.png", "markdown": "gpu.md"}[name]
    with pytest.raises(BenchmarkError, match=rf"^{missing} was not written \(OSError: no space\)$"):
        gpu_report.write(made(), tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert missing not in written and {"gpu.json", "gpu-tests.txt", "gpu-training.txt"} <= written
    assert len(written) == 5
