"""The fuzzer of what reads files: that it finds what is planted, and nothing in the readers."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("resource")

import fuzz_readers
from fuzz_readers import fuzz

from minicnn.data import CIFAR10

INPUTS = {"checkpoint": 2500, "images": 500, "folders": 500, "cifar10": 2000}  # about 15 s in all


class Refused(ValueError):
    pass


class Planted(fuzz_readers.Reader):
    """It fails where an input begins with its words, in their order."""

    refusals = (Refused,)
    traced = (__file__,)
    words = (b"one", b"two", b"three")

    def seeds(self):
        return [b"words", b"one", b"two"]

    def read(self, data, at):
        if data.startswith(b"one"):
            data = data[3:]
            if data.startswith(b"two"):
                data = data[3:]
                if data.startswith(b"three"):
                    self.found()
        return b""

    def found(self):
        raise RuntimeError("here")

    def check(self, data, at, result):
        assert result == b""


def planted(monkeypatch, read, **more):
    """The kinds of failures of a reader that reads like this, by what is said of them."""
    monkeypatch.setitem(fuzz_readers.READERS, "planted", type("Reader", (Planted,), {"read": read}))
    summary = fuzz("planted", most=20, limit=1)
    assert summary.inputs == 20 == sum(count for count, *_ in summary.failures.values())
    assert summary.read == summary.refused == 0
    return {kind.partition(":")[0]: said for kind, (_, said, _) in summary.failures.items()}


def raised(message):
    def read(self, data, at):
        raise Refused(message.replace("file", str(at / "input")))

    return read


def test_what_lies_deep_is_found_step_by_step(monkeypatch):
    monkeypatch.setitem(fuzz_readers.READERS, "planted", Planted)
    summary = fuzz("planted", most=4000)
    assert summary.inputs == 4000 and summary.kept >= 3
    ((kind, (count, said, data)),) = summary.failures.items()
    assert kind.startswith("error: ") and count > 1 and "RuntimeError: here" in said and data.startswith(b"onetwothree")
    assert str(summary).startswith(f"planted: 4,000 inputs, {summary.arcs} arcs, {summary.kept} kept, ")
    assert str(summary).endswith(f" {count:,} failures of 1 kinds")


@pytest.mark.slow
def test_a_crash_and_a_hang_are_noticed(monkeypatch):
    assert planted(monkeypatch, lambda self, data, at: os.abort()) == {"crash": "exit status -6\n"}
    monkeypatch.setattr(fuzz_readers.Server, "ask", asked_once(fuzz_readers.Server.ask))
    assert planted(monkeypatch, lambda self, data, at: time.sleep(100)) == {"hang": "longer than 1 s\n"}


def asked_once(ask):
    """So that one wait will do."""
    answers = []

    def first(server, data):
        answers.extend([] if answers else [ask(server, data)])
        return answers[0]

    return first


def test_too_much_memory_is_noticed(monkeypatch):
    assert "MemoryError" in planted(monkeypatch, lambda self, data, at: bytes(7 << 30))["error"]


def test_what_a_refusal_says(monkeypatch):
    for message in ("no name", "file\nin two lines", "file \x1b[2J", "file" + 2000 * "a"):
        assert planted(monkeypatch, raised(message)).keys() == {"badly refused"}
    monkeypatch.setitem(
        fuzz_readers.READERS, "planted", type("Reader", (Planted,), {"read": raised("file is damaged")})
    )
    summary = fuzz("planted", most=20)
    assert summary.refused == 20 and not summary.failures


def test_checkpoints_that_are_read_without_their_checksum_are_noticed(monkeypatch):
    monkeypatch.setattr("minicnn.checkpoint.OURS", "no such word")
    summary = fuzz("checkpoint", most=300)
    assert {kind.partition(":")[0] for kind in summary.failures} == {"wrongly read"}


def test_wrong_labels_and_colors_are_noticed(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(CIFAR10, "__getitem__", lambda dataset, i: (dataset.images[i], 0))
        assert fuzz("cifar10", most=50).failures
    reads = fuzz_readers.read_image
    monkeypatch.setattr(fuzz_readers, "read_image", lambda path, least: reads(path, least)[::-1])
    pytest.importorskip("PIL")
    assert {kind.partition(":")[0] for kind in fuzz("images", most=80).failures} == {"wrongly read"}


@pytest.mark.parametrize("name", fuzz_readers.READERS)
def test_the_seeds_are_read(name, tmp_path):
    """And a seed and a number say what a run is."""
    if name == "images":
        pytest.importorskip("PIL")
    reader = fuzz_readers.READERS[name]()
    seeds = reader.seeds()
    results = [fuzz_readers.attempt(reader, data, tmp_path)[:2] for data in seeds]
    assert {what for what, _ in results} <= {"read", "refused"} and sum(what == "read" for what, _ in results) > len(
        seeds
    ) / 3
    assert fuzz(name, seed=1, most=len(seeds) + 20) == fuzz(name, seed=1, most=len(seeds) + 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz_readers.READERS)
def test_nothing_is_wrongly_read_or_badly_refused(name):
    if name == "images":
        pytest.importorskip("PIL")
    summary = fuzz(name, most=INPUTS[name])
    assert summary.inputs == INPUTS[name] and summary.failures == {}
    assert summary.read > 10 and summary.refused > 10 and summary.kept


def test_the_command(tmp_path):
    def run(*arguments):
        command = [sys.executable, fuzz_readers.__file__, "--reader", "cifar10", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        return result.returncode, result.stdout

    status, out = run("--inputs", "30", "--seed", "3")
    assert status == 0 and out.startswith("cifar10: 30 inputs, ") and out.endswith(" 0 failures of 0 kinds\n")
    path = Path(tmp_path, "input")
    path.write_bytes(fuzz_readers.Cifar().seeds()[0])
    assert run("--replay", str(path)) == (0, "read:\n")
    assert not (tmp_path / "fuzz-failures").exists()


def test_inputs_that_fail_are_saved_and_can_be_read_again(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(fuzz_readers.READERS, "cifar10", Planted)
    monkeypatch.setattr(
        sys, "argv", ["fuzz_readers.py", "--reader", "cifar10", "--inputs", "4000", "--output", str(tmp_path)]
    )
    assert fuzz_readers.main() == 1
    out = capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    assert path.read_bytes().startswith(b"onetwothree") and f"{path}: " in out and "RuntimeError: here" in out
    monkeypatch.setattr(sys, "argv", ["fuzz_readers.py", "--reader", "cifar10", "--replay", str(path)])
    assert fuzz_readers.main() == 1 and "RuntimeError: here" in capsys.readouterr().out
