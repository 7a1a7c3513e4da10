"""The benchmark on a GPU: its command line, what it makes of its measurements, and a whole run on the stand-in."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as program
from benchmarks import gpu, gpu_launches, gpu_report
from benchmarks.gpu_launches import Card, Launch, distinct, recording
from benchmarks.sections import BEST, COMPILED, DEFAULT, OURS
from benchmarks.turns import BenchmarkError, Turn
from minicnn import DeviceError
from minicnn.cuda import launch, products

MACHINE = {
    **{"processor": "a processor", "cores": 2, "system": "Linux x86_64", "python": "3.12", "numpy": "2.0"},
    **{"pytorch": None, "minicnn": "0.1", "threads": 2, "date": "2030-01-02"},
}
ROOT = Path(__file__).resolve().parents[2]
CARD = Card("a card", bandwidth=1e9, fp32=1e9, tf32=8e9)
standin = pytest.mark.skipif(not gpu.SUITE.joinpath("standin").is_dir(), reason="needs the stand-in of tests/cuda")


# ----------------------------------------------------------------------------------------------------- the command line
@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ("gpu --only steps,ops", "'ops' is not one of tests, launches, kernels, steps, sanitizer"),
        ("gpu --batches 0", "'0' is not a whole number"),
        ("cpu --predict", "--predict"),
    ],
)
def test_mistakes(arguments, complaint, capsys):
    assert program.main(arguments.split()) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.startswith("benchmarks: ") and said.count("\n") == 1


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
    monkeypatch.setattr(gpu, "measured", lambda options, parts: found.update(options=options, parts=parts))
    monkeypatch.setattr(gpu_report, "write", lambda results, folder: None)
    return found


def test_by_default_everything_is_measured(asked):
    assert program.main(asked["arguments"]) == 0
    options = asked["options"]
    assert asked["parts"] == ("tests", "launches", "kernels", "steps", "sanitizer")
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
        launch.launch("ops.add_rows", 12, x, y, 12, real=np.float32, C=3)
        launch.launch("linear.add_bias", 60, x, y[0], 60, real=np.float32, C=3)
        launch.launch("optimizer.sgd", 25, np.array(([60, 100],), [("end", "i8", 2)])[()], 100, real=np.float64)
        launch.launch("nothing", 0, x[:0], real=np.float32)
        products.product(x[0].T, x[0], np.zeros((3, 3), np.float32))
        products.product(x[0, :0].T, x[0, :0], np.zeros((3, 3), np.float32))
    products.product(x[0], x[0].T, None)
    assert [entry[:-1] for entry in found] == [
        ("ops.add_rows", "kernel", "4×5×3 → 4×3", 60 * 4 + 12 * 8, 60),
        ("linear.add_bias", "kernel", "4×5×3 → 3", 2 * 60 * 4 + 3 * 8, 60),  # read and written
        ("optimizer.sgd", "kernel", "100", 5 * 100 * 8, 100),
        ("product", "product", "3×5ᵀ · 5×3", (15 + 15 + 9) * 4, 2 * 3 * 5 * 3),
    ]
    assert len(ran) == 7
    for entry in found:
        entry.again()
    assert len(ran) == 11 and ran[7] == ran[0]


@pytest.fixture(scope="module")
def prediction():
    return gpu.prediction(gpu.Options(1, [128]))


@standin
def test_a_training_step_takes_few_launches_and_no_transfer_but_the_pictures_and_labels(prediction):
    entries = prediction["launches"]
    counts = {kind: sum(e["times"] for e in entries if e["kind"] == kind) for kind in ("kernel", "product", "cupy")}
    assert counts["kernel"] + counts["product"] + counts["cupy"] <= gpu_report.MOST
    assert counts["product"] == 2 * 11 + 10  # conv2, 4 and 5 have two groups; conv1 makes no gradient for the pictures
    transfers = [(e["name"], e["bytes"], e["times"]) for e in entries if e["kind"] == "transfer"]
    assert transfers == [("pinned, to the GPU", 128 * 227 * 227 * 3, 1), ("pinned, to the GPU", 128 * 8, 1)]


@standin
def test_predicted_files(prediction, tmp_path):
    totals = prediction["totals"]
    assert 0 < totals["tf32"]["seconds"] < totals["fp32"]["seconds"]
    gpu_report.write_prediction(prediction, tmp_path)
    text = (tmp_path / "gpu-predicted.md").read_text(encoding="utf-8")
    assert "| optimizer.sgd | 60,965,224 | 1 | 1,219 |" in text
    assert (
        bool(prediction["host"])
        == bool(importlib.util.find_spec("cupy"))
        == ("what Python takes to ask for a step" in text)
    )
    saved = json.loads((tmp_path / "gpu-predicted.json").read_text(encoding="utf-8"))
    assert len(saved["launches"]) == len(prediction["launches"])


# ------------------------------------------------------------------------------------------------------------ the parts
def test_a_command_ends_well_badly_or_late():
    python = [sys.executable, "-c"]
    assert gpu.command([*python, "print('no'); print('=== 3 passed ===')"], 60)["summary"] == "3 passed"
    failed = gpu.command([*python, "import sys; sys.exit('1 failed')"], 60)
    assert (failed["status"], failed["summary"]) == (1, "1 failed")
    late = gpu.command([*python, "import time; print('begun', flush=True); time.sleep(60)"], 1)
    assert (late["status"], late["summary"]) == (None, "not done after 1 s") and late["seconds"] < 30


def test_the_sanitizer_is_not_there(monkeypatch):
    monkeypatch.setattr(gpu.shutil, "which", lambda name: None)
    assert gpu.sanitizer(60) == {"summary": "compute-sanitizer is not on the path", "status": None, "seconds": 0.0}


class FakeContender:
    """Takes no time to speak of; all but minicnn have no memory for 512 pictures. `off` is how wrong it computes."""

    threads = {"asked": 1}
    tasks = ("step", "inference")

    def __init__(self, name, threads, worker, network, *settings):
        self.name, self.answers = name, {"reserved": 100.0, "waits": (1e-3, 2e-3), "warm_up": 1, "take": None}
        self.off = 0.0

    def ask(self, method, *arguments):
        if method == "attempt":
            return "OutOfMemoryError: 80 GB" if self.name != OURS and arguments[0] == 512 else None
        if method == "gradients":
            return 7.0 + self.off, {"fc8.weight": np.ones(3) + self.off}
        if method == "turn":
            return Turn(
                dict.fromkeys(arguments[0], 0.5 if self.name == OURS else 1.0), dict.fromkeys(arguments[0], 0.0), 0.0
            )
        return self.answers[method]

    def begin(self):
        pass

    check = end = begin


@pytest.fixture
def fakes(monkeypatch):
    monkeypatch.setattr(gpu, "Contender", FakeContender)
    monkeypatch.setattr(gpu, "has_tf32", lambda device: True)


def test_steps(fakes):
    results = gpu.steps(gpu.Options(1, [128, 512], 2, ("2012", "2014")))
    assert len(results["measured"]) == 2 * 2 * 2 and len(results["agreement"]) == 2 * 2 * 2
    assert results["problems"] == [
        f"{network}, {precision}, batch 512, {name}: OutOfMemoryError: 80 GB"
        for network in ("2012", "2014")
        for precision in ("fp32", "tf32")
        for name in (DEFAULT, BEST)
    ]
    by = {(m["network"], m["precision"], m["batch"]): m for m in results["measured"]}
    assert by["2012", "tf32", 128]["step"]["seconds"]["step"] == {
        OURS: [0.5] * 2, DEFAULT: [1.0] * 2, BEST: [1.0] * 2, COMPILED: [1.0] * 2,
    }  # fmt: skip
    assert list(by["2014", "fp32", 128]["waits"]) == [OURS, DEFAULT, BEST]
    assert list(by["2012", "fp32", 512]["inference"]["seconds"]["inference"]) == [OURS]


@pytest.mark.parametrize(
    "precision, off, well", [("fp32", 2e-3, False), ("tf32", 2e-3, True), ("tf32", 0.2, False), ("tf32", np.nan, False)]
)
def test_agreement(precision, off, well, fakes):
    ours, theirs = FakeContender(OURS, 1, "", "2012"), FakeContender(DEFAULT, 1, "", "2012")
    theirs.off = off
    if well:
        found = gpu.agreement([ours, theirs], "2012", precision)
        assert list(found) == [f"2012, {precision}, PyTorch"]
    else:
        with pytest.raises(BenchmarkError, match=f"the 2012, {precision} network: minicnn and PyTorch do not compute"):
            gpu.agreement([ours, theirs], "2012", precision)


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
    kernel = Launch("lrn.normalise", "kernel", "9×9", 3_000_000, 1e6)._asdict()
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
        "tests": {"summary": "9 passed", "status": 0, "seconds": 3.0},
        "sanitizer": {"summary": "ERROR SUMMARY: 1 error", "status": 9, "seconds": 3.0},
        "kernels": {"network": "2012", "batch": 128, "launches": entries,
                    "peaks": {"bandwidth": 3e12, "fp32": 5e13, "tf32": 4e14, "mark": 2e-6}},
        "launches": {"network": "2012", "batch": 128, "launches": entries},
        "steps": {
            "agreement": {"2012, fp32, PyTorch": {"loss": 1e-7, "gradient": 2e-6, "parameter": "conv1.bias"}},
            "measured": measured, "problems": ["2012, fp32, batch 512, PyTorch: no memory"],
        },
        "seconds": 400.0,
    }  # fmt: skip


def test_the_tables(tmp_path):
    gpu_report.write(made(), tmp_path)
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    for line in (
        "The tests on the GPU: passed (9 passed).",
        "compute-sanitizer on the kernels' tests: **FAILED** (ERROR SUMMARY: 1 error).",
        "**Not measured:** 2012, fp32, batch 512, PyTorch: no memory.",
        "| 2012 | fp32 | 1 | step | 1 (1 to 1) | – | – | 3 |",
        "| 2012 | tf32 | 1 | 1,000 | – | – | – | 1 / 2 | – | – | – |",
        "| product, fp32 | 2×3 · 3×4 | 2 | 2 | 4 | 100 | memory | 400 (400 to 400) | 5 GB/s | 25% |",
        "| fp32 | 1 | 0.3 |",  # a step, in ms: measured, floor
        "| tf32 | 0.6 | 0.3 |",
    ):
        assert line in text.splitlines(), line
    assert json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["seconds"] == 400
    assert (tmp_path / "gpu.png").read_bytes()[:4] == b"\x89PNG"


@standin
@pytest.mark.slow
def test_a_whole_run_on_the_stand_in(tmp_path):
    (tmp_path / "cupy.py").write_text(
        f"import sys\nsys.path.insert(0, {str(gpu.SUITE)!r})\nimport standin\n"
        "standin.kept = standin.installed()\nstandin.kept.__enter__()\n"
    )
    command = [sys.executable, "-m", "benchmarks", "gpu", "--quick", "--without-pytorch", "--rounds", "1"]
    run = subprocess.run(
        [*command, "--only", "launches,kernels,steps,sanitizer", "--output", tmp_path / "results"], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    results = json.loads((tmp_path / "results" / "gpu.json").read_text(encoding="utf-8"))
    assert results["gpu"]["name"] == "Stand-in" and results["sanitizer"]["status"] is None
    counted = {(e["name"], e["shape"]): e["times"] for e in results["launches"]["launches"] if e["shape"]}
    assert {(e["name"], e["shape"]): e["times"] for e in results["kernels"]["launches"]} == counted
    (step,) = results["steps"]["measured"]
    assert step["batch"] == 1 and len(step["step"]["seconds"]["step"][OURS]) == 1
