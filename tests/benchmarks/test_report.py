"""A small made-up result of a CPU becomes Markdown, JSON and a chart; an interrupted one leaves the files of the last."""

import json
import math

import pytest

from benchmarks import cpu_report, report
from benchmarks.sections import BEST, COMPILED, DEFAULT, FLOOR, OURS, by

MACHINE = {
    **{"processor": "a processor", "cores": 2, "caches": "L2 512K", "memory_gib": 8.0, "system": "Linux x86_64"},
    **{"python": "3.12", "numpy": "2.0", "blas": "a BLAS", "pytorch": "2.13", "minicnn": "0.1", "threads": 2},
    **{"date": "2030-01-02", "backend": "native (gcc 12.2.0, AVX2)"},
}


def played(tasks, discarded=0, missing=0):
    faults = {task: {name: 5.0 for name in times} for task, times in tasks.items()}
    return {"seconds": tasks, "faults": faults, "discarded": discarded, "missing": missing}


def made(names=(OURS, DEFAULT, BEST, FLOOR)):
    def times(scale=1.0):
        return {name: [scale * (i + 1) * t for t in (0.1, 0.2, 0.4)] for i, name in enumerate(names)}

    memory = {"before": dict.fromkeys(names, 50.0), "peak": dict.fromkeys(names, 1000.0)}
    step = played({"step": times()}, 2)
    products = {f"{layer} {way}": times() for layer in ("conv1", "fc6") for way in ("forward", "backward")}
    others = {
        task: {n: t for n, t in times(0.01).items() if n != FLOOR}
        for task in ("relu1 forward", "relu1 backward", "sgd")
    }
    pair = {name: values for name, values in times(1e-3).items() if name in (OURS, DEFAULT)}
    chains = {"add": pair, "numpy add": {OURS: [1e-5] * 3}}
    return {
        "machine": MACHINE,
        "watched": True,
        "agreement": {"2012, PyTorch": {"loss": 1e-7, "gradient": 2e-6, "parameter": "conv1.bias"}},
        "steps": [
            {
                "network": "2012",
                "batch": b,
                "threads": 2,
                "step": step,
                "inference": played({"inference": times(0.3)}),
                "memory": memory,
            }
            for b in (1, 32)
        ],
        "layers": [{"network": "2012", "batch": 32, **played({**products, **others})}],
        "threads": {
            "network": "2012",
            "batch": 32,
            **played({"step": {"1 thread": [0.4] * 3, "2 threads": [0.2] * 3}}),
        },
        "ops": {
            "cases": [{"name": "add 1000", "work": 12e-6, "unit": "GB/s"}],
            **played({f"add 1000 {way}": pair for way in ("forward", "backward")}),
        },
        "engine": {"chain": 1000, "numpy calls": {"add": (1, 0)}, "nodes": 30, "step": step, **played(chains)},
    }


def test_the_tables():
    lines = cpu_report.markdown(made()).splitlines()
    assert "| 2012 | 32 | 2 | step | 2 (2 to 2) | 3 (3 to 3) | 4 (4 to 4) | 3 (2) |" in lines
    assert any(
        line.startswith("| 2012 | 32 | 2 | step | 200 (100 to 400) | 400 (200 to 800) |") and "| 160 | 80 |" in line
        for line in lines
    )
    assert "| 2012 | 1 | 2 | 1,000 (50) | 1,000 (50) | 1,000 (50) | 1,000 (50) | 5 | 5 | 5 | 5 |" in lines
    assert "| conv1 | 200 | 400 | 600 | 800 | 200 | 400 | 600 | 800 |" in lines
    assert "| relu1 | 2 | 4 | 6 | – | 2 | 4 | 6 | – |" in lines
    assert "| sgd | – | – | – | – | 2 | 4 | 6 | – |" in lines
    assert "| sum | 402 | 804 | 1,206 | 1,600 | 404 | 808 | 1,212 | 1,600 |" in lines
    text = " ".join(cpu_report.markdown(made()).split())
    assert "400 ms with 1 thread, 200 ms with 2 threads, 2 (2 to 2) times as fast" in text
    assert "| add 1000 | 200 | 200 | 400 | 400 | 0.06 | 0.03 | GB/s |" in lines
    assert "| add | 0.2 | 0.4 | 0.01 | 0.19 |" in lines
    assert "30 nodes. At 0.19 µs each they are 0.00%" in text


def test_what_a_reader_must_know_is_said():
    results = made()
    text = " ".join(cpu_report.markdown(results).split())
    assert "a processor" in text and "| 2012, PyTorch | 1e-07 | 2e-06 | conv1.bias |" in text
    assert "were thrown away: 6 in" in text and "fewer rounds than planned" not in text
    results["steps"][0]["step"] = played(results["steps"][0]["step"]["seconds"], 20, 3)
    results["watched"], results["problems"] = False, ["PyTorch compiled is left out"]
    text = " ".join(cpu_report.markdown(results).split())
    assert "1 of them ended with fewer rounds than planned" in text and "does not tell" in text
    assert "**PyTorch compiled is left out.**" in text and "AVX2**" not in text
    assert "**minicnn** through its public API by the backend native (gcc 12.2.0, AVX2). **PyTorch** as it" in text
    results = made((OURS, by("numpy"), by("reference"), FLOOR)) | {"avx2": True, "anyway": True, "watched": False}
    text = " ".join(cpu_report.markdown(results).split())
    assert "AVX2), **minicnn numpy** by the NumPy backend, **minicnn reference** by the lessons as they" in text
    assert "**All of them are held to AVX2**" in text and "OPENBLAS_CORETYPE='Haswell'" in text
    assert "worked were **kept**." in text and "does not tell" not in text


def test_the_chart_compares_with_minicnn_for_the_largest_number_of_threads():
    results = made()
    results["steps"] += [{**r, "threads": 1} for r in results["steps"]]
    results = {key: results[key] for key in ("machine", "steps")}
    step, inference = cpu_report.draw(results).axes
    assert step.get_ylabel() == "images a second, where minicnn's are 1 (higher is better)"
    assert [label.get_text() for label in step.get_xticklabels()] == ["1\n2012", "32\n2012"]
    heights = [bar.get_height() for bars in step.containers for bar in bars]
    assert heights == pytest.approx([1, 1, 1 / 2, 1 / 2, 1 / 3, 1 / 3]) and len(inference.containers) == 3


def test_the_layers_of_a_network_without_convolutions():
    results = made()
    results["layers"][0]["seconds"] = {"fc1 forward": {OURS: [0.001] * 3}, "fc1 backward": {OURS: [0.002] * 3}}
    text = cpu_report.markdown(results)
    assert "| fc1 | 1 | 2 |" in text and "fc1 makes no gradient for the" in text


def test_json_comes_back_to_five_digits():
    results = made()
    results["steps"][0]["step"]["seconds"]["step"][OURS] = [0.123456789, math.nan]
    text = report.to_json(results)
    again = json.loads(text)
    assert again["steps"][0]["step"]["seconds"]["step"][OURS] == [0.12346, None]
    assert again["machine"] == MACHINE and again["threads"] == results["threads"]
    assert '"PyTorch": [ 0.2, 0.4, 0.8 ]' in text


@pytest.mark.parametrize("kept", [(), ("steps",), ("layers",), ("threads", "ops", "engine")])
@pytest.mark.parametrize("names", [(OURS, DEFAULT, BEST, COMPILED, FLOOR), (OURS, FLOOR)])
def test_any_part_by_itself_and_without_pytorch(kept, names, tmp_path):
    results = {key: value for key, value in made(names).items() if key in ("machine", "watched", "agreement", *kept)}
    cpu_report.write(results, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cpu.json", "cpu.md", "cpu.png"]
    assert (tmp_path / "cpu.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "cpu.md").read_text(encoding="utf-8").startswith("# minicnn on a CPU\n")


def test_measurements_that_a_busy_machine_prevented(tmp_path):
    results = made()
    for r in results["steps"]:
        r["step"] = played({"step": {name: [] for name in (OURS, DEFAULT, BEST, FLOOR)}}, 20, 3)
    cpu_report.write(results, tmp_path)
    assert "| 2012 | 32 | 2 | step | – | – | – | 0 (20) |" in (tmp_path / "cpu.md").read_text(encoding="utf-8")


def test_a_report_that_fails_leaves_the_last(tmp_path, monkeypatch):
    cpu_report.write(made(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    results = made()
    results["machine"] = {**MACHINE, "processor": "another"}
    monkeypatch.setattr(cpu_report, "draw", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cpu_report.write(results, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_page_has_short_lines():
    """But for tables, headings and what stands as it is."""
    words, row = " ".join(["word"] * 60), f"| {'cell ' * 30}|"
    paragraph, *others = report.page([words, row, f"- {words}\n- b", f"# {words}"]).rstrip("\n").split("\n\n")
    assert max(map(len, paragraph.split("\n"))) == 99 and " ".join(paragraph.split("\n")) == words
    assert others == [row, f"- {words}\n- b", f"# {words}"]
