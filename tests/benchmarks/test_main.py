"""The command line: its mistakes in one line, what ends a run, and a whole run without PyTorch."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import nullcontext

import pytest

from benchmarks import __main__ as program
from benchmarks import machine, sections
from benchmarks.command import command
from benchmarks.turns import BenchmarkError
from minicnn import DeviceError


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ("", "device"),
        ("tpu", "'tpu'"),
        ("cpu --batches 1,0", "'0' is not a whole number"),
        ("cpu --batches 1,,2", "'' is not a whole number"),
        ("cpu --rounds -1", "rounds"),
        ("cpu --threads two", "'two' is not a whole number"),
        ("cpu --networks 2012,2013", "'2013' is not one of 2012, 2014, cuda-convnet, lenet, vgg11, mlp"),
        ("cpu --threads 1,0", "'0' is not a whole number"),
        ("cpu --backends numpy,cuda", "'cuda' is not one of native, numpy, reference"),
        ("gpu --networks lenet", "'lenet' is not one of 2012, 2014"),
        ("gpu --threads 1,2", "'1,2' is not a whole number"),
        ("cpu --only steps,layer", "'layer' is not one of steps, layers, threads, ops, engine"),
        ("cpu --fast", "--fast"),
        ("cpu --predict", "--predict"),
        ("gpu --only steps,ops", "'ops' is not one of tests, kernels, steps, training, launches"),
        ("gpu --limit soon", "'soon' is not a whole number"),
        ("gpu --batches 0", "'0' is not a whole number"),
    ],
)
def test_mistakes(arguments, complaint, capsys):
    assert program.main(arguments.split()) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.startswith("benchmarks: ") and said.count("\n") == 1


@pytest.mark.parametrize("package, words", [("torch", "--without-pytorch"), ("matplotlib", "pip install matplotlib")])
def test_packages_that_are_missing(package, words, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else object())
    assert program.main(["cpu", "--output", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_a_folder_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert program.main(["cpu", "--without-pytorch", "--output", str(tmp_path / "file" / "results")]) == 2
    said = capsys.readouterr().err
    assert "cannot be written" in said and said.count("\n") == 1


@pytest.fixture
def unmeasured(monkeypatch, tmp_path):
    """A run of which no part measures anything; what it was asked for."""
    asked = {}
    monkeypatch.setattr(sections, "agreement", lambda options: asked.setdefault("options", options) and {})
    monkeypatch.setattr(sections, "describe", lambda options: {"threads": options.threads})
    monkeypatch.setattr(sections, "usable_backends", lambda given: (given or ["native", "numpy"], []))
    monkeypatch.setattr(machine, "busy", lambda: 0.0)
    for name in program.SECTIONS:
        monkeypatch.setattr(sections, name, lambda options, name=name: [(name, options.threads)])
    monkeypatch.setattr(sections, "cannot_compile", lambda options: None)
    monkeypatch.setattr(
        "benchmarks.cpu_report.write", lambda results, folder: asked.update(results=results, folder=folder)
    )
    asked["arguments"] = ["cpu", "--without-pytorch", "--output", str(tmp_path)]
    return asked


ALWAYS = "machine", "watched", "anyway", "avx2", "problems", "agreement"


def test_by_default_everything_is_measured(unmeasured):
    assert program.main([*unmeasured["arguments"], "--threads", "2"]) == 0
    options = unmeasured["options"]
    assert options.networks == ("2012", "2014", "cuda-convnet", "lenet", "vgg11", "mlp")
    assert options.rounds is None and not options.pytorch
    batches = [options.batches_of(name) for name in options.networks]
    assert batches == [[1, 8, 32, 128, 256], [32], [128], [64], [64], [128]]
    assert [options.batch_of(name) for name in options.networks] == [32, 32, 128, 64, 64, 128]
    results = unmeasured["results"]
    assert set(results) == {*ALWAYS, *program.SECTIONS} and results["steps"] == [("steps", 2)]
    assert options.compiled and results["problems"] == [] and options.backends == ["native", "numpy"]
    assert options.watched and results["watched"] and not results["anyway"] and not results["avx2"]


def test_options_reach_the_parts(unmeasured):
    given = "--batches 4,16 --rounds 3 --threads 1 --networks 2014 --only threads,ops".split()
    assert program.main([*unmeasured["arguments"], *given]) == 0
    options = unmeasured["options"]
    assert (options.threads, options.rounds, options.networks) == (1, 3, ("2014",))
    assert options.batches_of("2014") == [4, 16]
    # one thread against one is nothing
    assert set(unmeasured["results"]) == {*ALWAYS, "ops"}


def test_steps_with_several_numbers_of_threads(unmeasured):
    """The rest is measured with the largest."""
    given = "--threads 2,1,2 --only steps,threads,layers --backends numpy --anyway".split()
    assert program.main([*unmeasured["arguments"], *given]) == 0
    results = unmeasured["results"]
    assert results["steps"] == [("steps", 1), ("steps", 2)] and results["layers"] == [("layers", 2)]
    assert results["machine"] == {"threads": 2} and "threads" in results
    assert unmeasured["options"].backends == ("numpy",) and results["anyway"] and not results["watched"]
    assert not unmeasured["options"].watched


def test_a_processor_is_held_to_avx2(unmeasured, monkeypatch):
    for name in machine.AVX2:
        monkeypatch.setenv(name, "before")
    seen = {}
    monkeypatch.setattr(sections, "usable_backends", lambda given: (["numpy"], [seen.update(os.environ) or "none"]))
    assert program.main([*unmeasured["arguments"], "--avx2"]) == 0
    assert {name: seen[name] for name in machine.AVX2} == machine.AVX2 and unmeasured["results"]["avx2"]
    assert unmeasured["results"]["problems"] == ["none"]


def test_backends_that_can_be_used(monkeypatch):
    """One that cannot is left out, and an error if it was asked for."""
    assert sections.usable_backends(["reference", "numpy", "reference"]) == (["reference", "numpy"], [])

    def missing(name):
        raise DeviceError(f"there is no {name}")

    monkeypatch.setattr(sections, "use_backend", lambda name: missing(name) if name == "native" else nullcontext())
    assert sections.usable_backends() == (["numpy", "reference"], ["minicnn native is left out: there is no native"])
    with pytest.raises(DeviceError, match="no native"):
        sections.usable_backends(["native"])


def test_a_machine_without_a_compiler(unmeasured, monkeypatch, capsys):
    """torch.compile is left out, which is said on the terminal and in the report."""
    monkeypatch.setattr(sections, "cannot_compile", lambda options: "no compiler" if options.compiled else None)
    assert program.main([*unmeasured["arguments"], "--threads", "1"]) == 0
    assert capsys.readouterr().err == "no compiler\n" and not unmeasured["options"].compiled
    assert unmeasured["results"]["problems"] == ["no compiler"]
    unmeasured.pop("options")
    assert program.main([*unmeasured["arguments"], "--without-compile"]) == 0
    assert not capsys.readouterr().err and not unmeasured["options"].compiled


@pytest.mark.torch
@pytest.mark.slow
def test_torch_compile_without_a_compiler(monkeypatch, tmp_path):
    pytest.importorskip("torch")
    monkeypatch.setenv("CXX", str(tmp_path / "g++"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    problem = sections.cannot_compile(sections.Options(1))
    assert re.fullmatch(r"PyTorch compiled is left out: torch.compile does not work here \(.*compiler.*\)", problem)
    assert sections.cannot_compile(sections.Options(1, compiled=False)) is None


def test_who_takes_part(monkeypatch):
    """torch.compile only where whole networks are compared, and without PyTorch nothing of it."""
    monkeypatch.setattr(
        sections, "Contender", lambda name, threads, worker, *rest, backend=None: (name, worker, *rest, backend)
    )
    layers = ("Layers", "2012", 2)
    both = [("minicnn", "ours:Layers", "2012", 2, "numpy"), ("PyTorch", "pytorch:Layers", "2012", 2, False, None)]
    both.append(("PyTorch best", "pytorch:Layers", "2012", 2, True, None))
    options = sections.Options(1)
    assert options.contenders(*layers) == both
    names = ["minicnn", "minicnn reference", "PyTorch", "PyTorch best", "PyTorch compiled"]
    found = options.contenders("Network", "2012", 2)
    assert [name for name, *_ in found] == names and found[-1][2:] == ("2012", 2, True, True, None)
    assert [name for name, *_ in options.contenders("Network", "2012", 33)] == [names[0], *names[2:]]
    assert len(options._replace(compiled=False).contenders("Network", "mlp", 33)) == 4
    ours = options._replace(pytorch=False, backends=["native", "numpy"])
    assert [contender[0] for contender in ours.contenders(*layers)] == ["minicnn", "minicnn numpy"]
    assert [contender[-1] for contender in ours.contenders(*layers)] == ["native", "numpy"]
    assert ours.pair("Chains") == [("minicnn", "ours:Chains", "native")]
    assert options.pair("Chains")[1] == ("PyTorch", "pytorch:Chains", None)


def test_rounds_that_others_disturbed_are_kept_if_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(
        sections, "measure", lambda *arguments: {"seconds": {}, "discarded": 0, "missing": arguments[-1]()}
    )
    monkeypatch.setattr(sections.Options, "busy", staticmethod(lambda: 7.0))
    for watched, seen in ((True, 7.0), (False, None)):
        assert sections.Options(1, watched=watched).play([], [], "", 1.0)["missing"] == seen


def test_quick(unmeasured):
    assert program.main([*unmeasured["arguments"], "--quick"]) == 0
    options = unmeasured["options"]
    assert options.quick and options.networks == ("2012",) and options.batches_of("2012") == [2]


@pytest.mark.parametrize(
    "error, status, words", [(BenchmarkError("apart"), 1, "apart"), (KeyboardInterrupt(), 130, "as they were")]
)
def test_what_ends_a_run(error, status, words, unmeasured, monkeypatch, capsys):
    def stop(_):
        raise error

    monkeypatch.setattr(sections, "steps", stop)
    assert program.main(unmeasured["arguments"]) == status
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert "results" not in unmeasured


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_batch_systems_and_closed_terminals_interrupt(number, monkeypatch):
    handler = signal.signal(number, signal.SIG_DFL)
    try:
        assert command("program", lambda: os.kill(os.getpid(), number)) == 130
    finally:
        signal.signal(number, handler)


def test_a_terminal_that_is_closed(monkeypatch):
    """What is said of the end then goes nowhere."""

    def interrupted():
        sections.say("something")
        raise KeyboardInterrupt

    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert command("program", interrupted) == 130
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()


@pytest.mark.slow
def test_a_whole_run_without_pytorch(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "cpu", "--quick", "--without-pytorch", "--rounds", "1"]
    run = subprocess.run([*command, "--output", tmp_path], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    results = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))
    assert set(results) >= {"steps", "layers", "ops", "engine"}
    assert 20 < results["engine"]["nodes"] < 60
    layers = results["layers"][0]["seconds"]
    assert {"conv1 forward", "lrn2 backward", "dropout7 forward", "fc8 backward", "loss backward", "sgd"} <= set(layers)
    assert "flatten5 forward" not in layers and "floor" not in layers["relu1 forward"]
    assert {"minicnn", "floor"} <= set(layers["conv1 forward"]) <= {"minicnn", "minicnn numpy", "floor"}
    assert results["machine"]["backend"].split()[0] in ("native", "numpy") and results["machine"]["threads"] >= 1
    assert results["agreement"]["2012, minicnn reference, 2 images"]["gradient"] < 1e-3
    assert "## The engine" in (tmp_path / "cpu.md").read_text(encoding="utf-8")
