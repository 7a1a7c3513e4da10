"""The command line: its mistakes in one line, what ends a run, and a whole run without PyTorch."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from benchmarks import __main__ as program
from benchmarks import sections
from benchmarks.command import command
from benchmarks.turns import BenchmarkError


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ("", "device"),
        ("tpu", "'tpu'"),
        ("cpu --batches 1,0", "'0' is not a whole number"),
        ("cpu --batches 1,,2", "'' is not a whole number"),
        ("cpu --rounds -1", "rounds"),
        ("cpu --threads two", "'two' is not a whole number"),
        ("cpu --networks 2012,2013", "'2013' is not one of 2012, 2014"),
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
    for name in program.SECTIONS:
        monkeypatch.setattr(sections, name, lambda options, name=name: asked.setdefault(name, []))
    monkeypatch.setattr(sections, "cannot_compile", lambda options: None)
    monkeypatch.setattr(
        "benchmarks.cpu_report.write", lambda results, folder: asked.update(results=results, folder=folder)
    )
    asked["arguments"] = ["cpu", "--without-pytorch", "--output", str(tmp_path)]
    return asked


def test_by_default_everything_is_measured(unmeasured):
    assert program.main([*unmeasured["arguments"], "--threads", "2"]) == 0
    options = unmeasured["options"]
    assert options.networks == ("2012", "2014") and options.rounds is None and not options.pytorch
    assert options.batches_of("2012") == [1, 8, 32, 128, 256] and options.batches_of("2014") == [32]
    assert set(unmeasured["results"]) == {"machine", "watched", "problems", "agreement", *program.SECTIONS}
    assert options.compiled and unmeasured["results"]["problems"] == []


def test_options_reach_the_parts(unmeasured):
    given = "--batches 4,16 --rounds 3 --threads 1 --networks 2014 --only threads,ops".split()
    assert program.main([*unmeasured["arguments"], *given]) == 0
    options = unmeasured["options"]
    assert (options.threads, options.rounds, options.networks) == (1, 3, ("2014",))
    assert options.batches_of("2014") == [4, 16]
    # one thread against one is nothing
    assert set(unmeasured["results"]) == {"machine", "watched", "problems", "agreement", "ops"}


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
    monkeypatch.setattr(sections, "Contender", lambda name, threads, worker, *rest: (name, worker, *rest))
    both = [("minicnn", "ours:Layers", "2012", 2), ("PyTorch", "pytorch:Layers", "2012", 2, False)]
    both.append(("PyTorch best", "pytorch:Layers", "2012", 2, True))
    assert sections.Options(1).contenders("Layers", "2012", 2) == both
    names = ["minicnn", "PyTorch", "PyTorch best", "PyTorch compiled"]
    found = sections.Options(1).contenders("Network", "2012", 2)
    assert [name for name, *_ in found] == names and found[-1][2:] == ("2012", 2, True, True)
    assert len(sections.Options(1, compiled=False).contenders("Network", "2012", 2)) == 3
    assert len(sections.Options(1, pytorch=False).contenders("Network", "2012", 2)) == 1


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
    assert 25 < results["engine"]["nodes"] < 60
    layers = results["layers"][0]["seconds"]
    assert {"conv1 forward", "lrn2 backward", "dropout7 forward", "fc8 backward", "loss backward", "sgd"} <= set(layers)
    assert "flatten forward" not in layers and set(layers["relu1 forward"]) == {"minicnn"}
    assert set(layers["conv1 forward"]) == {"minicnn", "floor"}
    assert "## The engine" in (tmp_path / "cpu.md").read_text(encoding="utf-8")
