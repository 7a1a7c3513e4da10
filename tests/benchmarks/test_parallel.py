"""Training on several processes beside PyTorch's: its processes and what becomes of them, its report, its program."""

import importlib.util
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from launch import launcher, needs_mpi

from benchmarks import __main__ as program
from benchmarks import cable, jobs, networks, parallel, scale_report
from benchmarks.jobs import Job, own_rows, together
from benchmarks.scale import traffic
from benchmarks.turns import BenchmarkError, OutOfTime, Turn, WorkerError, measure, running

OPEN_MPI = [  # starts nothing for root, and no more processes than cores, unless told
    ("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
    ("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe"),
]  # fmt: skip


def job(*, worker="ours:Parallel", processes=1, arguments=(networks.TINY, 4, "data")):
    return Job("a job", 1, worker, *arguments, processes=processes, mpi=True)


# --------------------------------------------------------------------------------------------- jobs
def test_rows_of_each_process():
    assert [own_rows(8, rank, 2) for rank in (0, 1)] == [slice(0, 4), slice(4, 8)]
    assert [own_rows(7, rank, 3) for rank in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 7)]


def test_a_turn_of_several_processes():
    turns = [Turn({"step": 2.0}, {"step": 3.0}, 4.0), Turn({"step": 1.5}, {"step": 1.0}, 5.0)]
    assert together(turns) == Turn({"step": 2.0}, {"step": 4.0}, 9.0)


def test_a_job_of_one_process():
    with running(job()) as (one,):
        assert one.tasks == ["step"]
        (before, after) = one.ask("decrease")
        assert after < before
        assert one.ask("warm_up", "step", 0.0) == jobs.STEPS
        turn = one.ask("turn", {"step": 2})
        assert set(turn.seconds) == {"step"} and turn.cpu > 0
        noted = one.ask("notes")["step"]
        assert set(noted) == {"received", "waited", "linear", "backward", "update"}
        assert all(len(values) == 2 for values in noted.values()) and noted["received"] == [0, 0]
        assert 0 < noted["linear"][0] < noted["backward"][0]
    assert all(process.poll() is not None for process in one.started) and not one.path("door").exists()


def test_an_error_in_a_process():
    with pytest.raises(WorkerError, match=r"(?s)a process of a job.*Nothing"), running(job(worker="ours:Nothing")):
        pass


def test_a_process_that_is_lost():
    lost = "a process of a job has ended, or did not start: it said nothing"
    with pytest.raises(BenchmarkError, match=lost), running(job()) as (one,):
        one.started[0].kill()
        one.ask("notes")


def test_a_process_that_does_not_start(monkeypatch):
    monkeypatch.setattr(jobs.sys, "executable", shutil.which("false"))
    with pytest.raises(BenchmarkError, match="did not start"), running(job()):
        pass


def test_a_job_that_takes_too_long():
    with pytest.raises(OutOfTime, match="while a job was at work"), running(job()) as (one,):
        one.until = 0.0
        one.ask("decrease")


def test_no_round_begins_too_late():
    class Contender:
        name, tasks = "a", ["step"]

        def ask(self, method, *_):
            return 1 if method == "warm_up" else Turn({"step": 1.0}, {"step": 0.0}, 1.0)

    times = iter(np.arange(0.0, 100.0, 0.5))
    found = measure(
        [Contender()], ["step"], 20, busy=lambda: None, clock=lambda: next(times), sleep=lambda _: None, until=5.0
    )
    assert 1 < len(found["seconds"]["step"]["a"]) < 10 and found["missing"] > 10


@pytest.mark.parametrize("kept, missing, words", [(2, 3, "2 undisturbed rounds in 60 s"), (3, 9, None), (2, 0, None)])
def test_too_few_rounds(kept, missing, words):
    measured = {"seconds": {"step": {"a": [1.0] * kept}, "after": {}}, "discarded": 4, "missing": missing}
    if words is None:
        assert parallel.enough(measured, 60.0) is measured
    else:
        with pytest.raises(BenchmarkError, match=f"{words}.* and 4 that other"):
            parallel.enough(measured, 60.0)


def test_where_mpiexec_is_missing(monkeypatch):
    monkeypatch.setattr(jobs.shutil, "which", lambda *_, **__: None)
    with pytest.raises(BenchmarkError, match="pip install mpi4py mpich"):
        jobs.mpiexec()


def test_contenders_take_turns_in_a_fixed_order(monkeypatch):
    monkeypatch.setattr(parallel, "Job", lambda name, threads, *_, processes, **__: (name, threads, processes))
    monkeypatch.setattr(parallel.machine, "cores", lambda: [0, 1])
    found = list(parallel.jobs(parallel.Options([1, 2, 4], 32, ways=("data", "columns")), None))
    assert found == [
        ("PyTorch, one process", 2, 1), ("minicnn, one process", 2, 1),
        ("PyTorch DDP, 2", 1, 2), ("PyTorch DDP best, 2", 1, 2), ("minicnn data, 2", 1, 2), ("minicnn columns, 2", 1, 2),
        ("PyTorch DDP, 4", 1, 4), ("PyTorch DDP best, 4", 1, 4), ("minicnn data, 4", 1, 4),
    ]  # fmt: skip
    alone = parallel.Options([1, 2], 32, threads=1, pytorch=False, quick=True)
    assert [name for name, *_ in parallel.jobs(alone, None)] == [
        "minicnn, one process", "minicnn data, 2", "minicnn sharded, 2", "minicnn hybrid, 2",
    ]  # fmt: skip


def test_who_computes_something_else_is_found():
    class Fake:
        def __init__(self, name, *losses):
            self.name, self.losses = name, losses

        def ask_all(self, method):
            return self.losses

    same = Fake("a", (4.0, 3.0)), Fake("b", (3.0, 2.5), (5.0, 3.5))  # the mean of two halves
    parallel.agree(list(same))
    for other in (Fake("c", (4.1, 3.1)), Fake("c", (4.0, 2.9)), Fake("c", (4.0, float("nan")))):
        with pytest.raises(BenchmarkError, match="c and a do not compute the same"):
            parallel.agree([*same, other])


# ------------------------------------------------------------------------------------------- report
RESULTS = {
    "machine": {
        **{"date": "2030-01-02", "processor": "a processor", "cores": 2, "caches": "L2 512K", "memory_gib": 24},
        **{"system": "Linux", "python": "3.11", "numpy": "2.4", "blas": "a BLAS", "minicnn": None, "pytorch": "2.13"},
    },
    **{"batch": 32, "network": "2012", "bandwidth": None, "watched": True, "discarded": 3, "missing": 0},
    "processes": {"minicnn, one process": 1, "PyTorch DDP, 2": 2, "PyTorch DDP best, 2": 2, "minicnn data, 2": 2},
    "threads": {"minicnn, one process": 2, "PyTorch DDP, 2": 1, "PyTorch DDP best, 2": 1, "minicnn data, 2": 1},
    "notes": {
        **{"minicnn, one process": {"step": {"waited": [0.0], "received": [0.0]}}},
        **{"PyTorch DDP, 2": {}, "PyTorch DDP best, 2": {}},
        "minicnn data, 2": {
            "step": {"waited": [0.01, 0.02, 0.03], "received": [244e6] * 3},
            "after": {"waited": [0.1, 0.2, 0.3], "received": [244e6] * 3},
        },
    },
    "seconds": {
        "step": {
            **{"minicnn, one process": [1.0, 1.0, 1.0], "PyTorch DDP, 2": [2.0, 4.0, 3.0]},
            **{"PyTorch DDP best, 2": [2.0, 2.0, 2.0], "minicnn data, 2": [1.0, 1.6, 1.25]},
        },
        "after": {"minicnn data, 2": [2.0, 2.0, 1.6]},
        "alone": {"PyTorch DDP, 2": [1.0, 1.0, 1.0]},
    },
}


def test_the_report():
    text = parallel.markdown(RESULTS)
    assert parallel.best_ddp(RESULTS, 2) == "PyTorch DDP best, 2" and parallel.best_ddp(RESULTS, 4) is None
    # each round's ratio to the better of PyTorch's: 2 / 1, 2 / 1.6, 2 / 1.25
    assert "| minicnn data, 2 | 1 | 1,250 (1,000 to 1,600) | 25.6 | 1.6 (1.25 to 2) | 20 | 244 | – |" in text
    assert (
        "data, 2, gradients sent after the backward pass | 1 | 2,000 (1,600 to 2,000) | 16 | 1 (1 to 1.25) | 200"
        in text
    )
    assert (
        "| PyTorch DDP, 2, nothing sent (no_sync) | 1 | 1,000 (1,000 to 1,000) | 32 | 2 (2 to 2) | – | – | – |" in text
    )
    assert "| minicnn, one process | 2 | 1,000 (1,000 to 1,000) | 32 | 2 (2 to 2) | – | – | – |" in text
    assert "thrown away (3)" in text and "this machine's memory" in text and "PyTorch 2.13" in text


def test_the_report_of_a_disturbed_run_over_a_cable(tmp_path, capsys):
    notes = {**RESULTS["notes"], "PyTorch DDP, 2": {"step": {"cable": [250e6]}}}
    parallel.write({**RESULTS, "watched": False, "bandwidth": 2.5, "notes": notes}, tmp_path)
    text = (tmp_path / "parallel-cable.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == text and "were **kept**" in text and "a cable of 2.5 Gbit/s" in text
    assert "| PyTorch DDP, 2 | 1 | 3,000 (2,000 to 4,000) | 10.7 | 0.667 (0.5 to 1) | – | – | 250 |" in text
    assert json.loads((tmp_path / "parallel-cable.json").read_text(encoding="utf-8"))["bandwidth"] == 2.5


# ------------------------------------------------------------------------------------------ program
@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ("--processes 1,0", "'0' is not a whole number"),
        ("--processes 3", "--batch 32 cannot be divided equally among 3 processes"),
        ("--ways data,rows", "'rows' is not one of data, sharded, hybrid, columns"),
        ("--bandwidth fast", "'fast' is not a number from 0.01 to 1000"),
        ("--limit soon", "'soon' is not a whole number"),
    ],
)
def test_mistakes(arguments, complaint, capsys, tmp_path):
    given = ["parallel", "--without-pytorch", *arguments.split(), "--output", str(tmp_path)]
    assert program.main(given) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.startswith("benchmarks: ") and said.count("\n") == 1


@pytest.mark.parametrize("package, words", [("torch", "--without-pytorch"), ("mpi4py", "pip install mpi4py mpich")])
def test_packages_that_are_missing(package, words, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else object())
    assert program.main(["parallel", "--output", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_options_reach_the_measurement(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(parallel, "run", lambda options: asked.append(options) or RESULTS)
    monkeypatch.setattr(cable, "check", lambda: None)
    for arguments in ("", "--bandwidth 2.5 --anyway", "--quick --processes 4,2,1 --ways data --threads 1 --rounds 4"):
        assert program.main(["parallel", "--output", str(tmp_path), *arguments.split()]) == 0
    usual, over_a_cable, quick = asked
    assert usual == parallel.Options([1, 2], 32, parallel.WAYS) and usual.watched and usual.network == "2012"
    assert over_a_cable.processes == [2] and over_a_cable.bandwidth == 2.5 and not over_a_cable.watched
    assert quick == parallel.Options([1, 2, 4], 12, ("data",), 1, 4, quick=True, watched=False)
    assert quick.network == networks.TINY


@needs_mpi
def test_a_run_and_the_bytes_that_it_counts(tmp_path, capsys, monkeypatch):
    """As many bytes are received as are computed from the layers."""
    for setting in OPEN_MPI:
        monkeypatch.setenv(*setting)
    arguments = "--quick --without-pytorch --threads 1 --rounds 1 --ways data,hybrid".split()
    assert program.main(["parallel", *arguments, "--output", str(tmp_path)]) == 0, capsys.readouterr().err
    results = json.loads((tmp_path / "parallel.json").read_text(encoding="utf-8"))
    assert set(results["processes"]) == {"minicnn, one process", "minicnn data, 2", "minicnn hybrid, 2"}
    layers = scale_report.of_network(networks.TINY)
    for way in ("data", "hybrid"):
        computed = sum(t.forward + t.backward for t in traffic(layers, way, 2, results["batch"]))
        counted = results["notes"][f"minicnn {way}, 2"]["step"]["received"]
        assert counted == pytest.approx([computed] * jobs.STEPS, rel=0.002)
    given = "--step 1900 --fixed 100 --linear 200 --optimizer 140 --most 2".split()
    measured = ["--measured", str(tmp_path / "parallel.json")]
    assert program.main(["scale", *given, *measured, "--output", str(tmp_path)]) == 0
    assert "## Predicted and measured" in (tmp_path / "scale.md").read_text(encoding="utf-8")


@needs_mpi
@pytest.mark.torch
@pytest.mark.slow
def test_a_run_beside_pytorch(tmp_path):
    pytest.importorskip("torch")
    arguments = ["--quick", "--processes", "2", "--rounds", "1", "--output", str(tmp_path)]
    assert program.main(["parallel", *arguments]) == 0
    results = json.loads((tmp_path / "parallel.json").read_text(encoding="utf-8"))
    assert {"PyTorch DDP, 2", "PyTorch DDP best, 2"} < set(results["seconds"]["step"])
    assert set(results["seconds"]["alone"]) == {"PyTorch DDP, 2"}


# -------------------------------------------------------------------------------------------- cable
def test_commands_on_hosts(tmp_path):
    hosts = cable.Cable(["left", "right"])
    assert hosts.on(1, ["program", "a b"]) == [
        "ip", "netns", "exec", "right", "unshare", "-u", "sh", "-c", 'hostname right; exec "$@"', "sh", "program", "a b",
    ]  # fmt: skip
    agent = tmp_path / "agent"
    launched = hosts.under("mpiexec", ["program"], 2, agent)
    assert launched[3] == "left" and launched[-6:] == [str(agent), "-hosts", "left,right", "-n", "2", "program"]
    assert os.access(agent, os.X_OK) and 'ip netns exec "$host"' in agent.read_text()


@pytest.mark.parametrize("there, user, words", [(False, 0, "there is no ip here"), (True, 1000, "you are not root")])
def test_where_there_can_be_no_cable(there, user, words, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cable.shutil, "which", lambda name: name if there else None)
    monkeypatch.setattr(cable.os, "geteuid", lambda: user)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert program.main(["parallel", "--bandwidth", "2.5", "--output", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_a_cable_that_cannot_be_made_leaves_nothing(monkeypatch, tmp_path):
    commands = []

    def run(command, **_):
        commands.append(" ".join(command))
        failed = "tbf" in commands[-1]
        return subprocess.CompletedProcess(command, failed, "", "no such discipline" if failed else "")

    monkeypatch.setattr(cable, "NAMES", tmp_path)
    monkeypatch.setattr(cable.subprocess, "run", run)
    with pytest.raises(cable.UsageError, match=r"tbf .* does not work here: no such discipline"), cable.cable(2.5, 2):
        pass
    assert any("rate 2500mbit" in command for command in commands)
    made = [command.split()[-1] for command in commands if command.startswith("ip netns add")]
    deleted = [command.split()[-1] for command in commands if command.startswith("ip netns del")]
    assert len(made) == 2 and set(made) < set(deleted) and len(deleted) == 3 and not list(tmp_path.iterdir())


@needs_mpi
@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "geteuid")
    or os.geteuid() != 0
    or not (shutil.which("ip") and shutil.which("tc"))
    or len(launcher()) != 1,
    reason="network namespaces take root, ip and tc, and the launcher MPICH's",
)
def test_over_a_cable(tmp_path):
    """What is counted is what goes over it, and its hosts are gone afterwards."""
    arguments = "--quick --without-pytorch --rounds 1 --ways data --bandwidth 2.5".split()
    assert program.main(["parallel", *arguments, "--output", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "parallel-cable.json").read_text(encoding="utf-8"))
    noted = results["notes"]["minicnn data, 2"]["step"]
    assert noted["cable"] == pytest.approx(noted["received"], rel=0.1)
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    assert f"bench{os.getpid()}" not in listed
