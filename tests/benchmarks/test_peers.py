"""The comparison with other NumPy frameworks: its check, its table, its mistakes, and minicnn as a peer of itself."""

import sys

import numpy as np
import pytest

from benchmarks import peer_worker, peers

ROW = {
    **{"network": "tutorial", "peer": "dezero", "batch": 8, "date": "2030-01-02", "versions": ["1 (a)", "2 (b)"]},
    **{"gradients": ["float32"], "apart": {"logits": 1e-6, "change": 2e-5, "moved": 3e-5}, "discarded": 4},
    "seconds": {
        "step": {"minicnn": [1.0, 2.0, 4.0], "dezero": [4.0, 4.0, 8.0]},
        "inference": {"minicnn": [0.5] * 3, "dezero": [1.0] * 3},
    },
    "peak": {"minicnn": 100.0, "dezero": 250.0},
}
WHERE = {"processor": "a processor", "cores": 2, "memory_gib": 24, "system": "Linux"}


def test_the_table_gives_medians_and_ratios_taken_within_each_round():
    text = peers.markdown(WHERE, [ROW])
    row = "| tutorial | DeZero | 8 | 2.0 | 4.0 | **2.00** (2.00 to 4.00) | 8.0 | 16.0 | **2.00** (2.00 to 2.00) | 250 | 100 |"
    assert row in text.splitlines()
    assert "a processor, 2 cores" in text and "3 rounds, 4 thrown away" in text and "Lacks LRN, groups" in text


@pytest.mark.parametrize("key, index", [("logits", 0), ("change", 1), ("moved", 2)])
def test_a_difference_anywhere_is_seen(key, index):
    ours = {"logits": [1.0, -2.0], "change": [0.1, -0.2], "moved": [3.0, 1e-4, 5.0]}
    theirs = {name: list(values) for name, values in ours.items()}
    assert set(peers.apart(ours, theirs).values()) == {0.0}
    theirs[key][-1 if key != "moved" else 1] *= 1.5
    assert peers.apart(ours, theirs)[key] == pytest.approx(0.5)


def test_kernels_and_the_rows_after_flattening_are_turned_for_channels_first():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 6, 256), np.float32)  # what the first linear layer reads
    shapes = [(5, 5, 2, 7), (7,), *((n, o) for n, o in peer_worker.LINEAR for _ in range(2))]
    arrays = [rng.standard_normal(shape, np.float32) if i in (0, 2) else np.empty(0) for i, shape in enumerate(shapes)]
    turned = peer_worker.channels_first(arrays)
    assert turned[0].shape == (7, 2, 5, 5) and turned[0][3, 1, 0, 4] == arrays[0][0, 4, 1, 3]
    expected, found = x.reshape(2, -1) @ arrays[2], x.transpose(0, 3, 1, 2).reshape(2, -1) @ turned[2]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "--python"),
        (["--python", f"torch={sys.executable}"], "'torch="),
        (["--python", "dezero=no/such/python"], "one of chainer, chainer-ideep, dezero, pydynet, mygrad"),
        (["--python", f"dezero={sys.executable}", "--network", "2012"], "dezero lacks LRN, groups"),
        (["--python", f"dezero={sys.executable}", "--batch", "0"], "at least 1"),
    ],
)
def test_a_mistake_is_one_line(arguments, said, capsys):
    assert peers.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("benchmarks.peers: ") and said in error and error.count("\n") == 1


def test_a_peer_that_is_not_installed_is_said_in_one_line():
    contender = peers.Contender("dezero", sys.executable, "tutorial", 1)
    try:
        with pytest.raises(peers.BenchmarkError, match=r"^dezero's process ended .exit code 1.: .*[Nn]o module.*$"):
            contender.ask("check")
    finally:
        contender.end()


@pytest.mark.slow
def test_a_pair_is_checked_and_takes_turns():
    row = None
    contender = peers.Contender("minicnn", sys.executable, "tutorial", 1)
    try:
        row = contender.ask("check")
        turn = contender.ask("turn", {task: contender.ask("warm_up", task, 0.01) for task in contender.tasks})
        assert set(turn.seconds) == {"step", "inference"} and turn.cpu > 0 and contender.ask("peak") > 500
    finally:
        contender.end()
    assert row["gradients"] == ["float32"] and len(row["logits"]) == 2000 and len(row["moved"]) == 16
