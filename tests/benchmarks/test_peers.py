"""The comparison with other NumPy frameworks: its check, its table, its mistakes, and minicnn as a peer of itself."""

import sys

import numpy as np
import pytest
from frameworks import BLOCKS, CAFFE, TORCHVISION, narrow

from benchmarks import networks, peer_worker, peers

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
    kernel, first, second = (rng.standard_normal(s, np.float32) for s in ((5, 5, 2, 7), (9216, 40), (40, 9)))
    turned = peers.theirs("conv2.weight", kernel)
    assert turned.shape == (7, 2, 5, 5) and turned[3, 1, 0, 4] == kernel[0, 4, 1, 3] and turned.flags.c_contiguous
    rows = peers.theirs("fc6.weight", first)
    expected, found = x.reshape(2, -1) @ first, x.transpose(0, 3, 1, 2).reshape(2, -1) @ rows
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert rows.flags.c_contiguous and (peers.theirs("fc7.weight", second) == second).all()


@pytest.mark.parametrize("network, framework", [("2012", CAFFE), ("2014", TORCHVISION)])
def test_the_network_is_described_as_other_frameworks_have_it(network, framework):
    found = peers.described(networks.layers(networks.build(network)))
    assert found["convs"] == [block._asdict() for block in BLOCKS[framework]]
    assert found["linear"] == [[256 * 36, 4096], [4096, 4096], [4096, networks.CLASSES]]


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


@pytest.fixture
def prepared(monkeypatch, tmp_path):
    """A folder with a narrow network and an image."""
    with monkeypatch.context() as patch:
        narrow(patch)
        net = networks.build("tutorial")
    monkeypatch.setattr(networks, "build", lambda _: net)
    peers.prepare(str(tmp_path), "tutorial", 1)
    return str(tmp_path)


def test_a_worker_is_given_what_was_prepared(prepared):
    last, first = (peer_worker.Given(prepared, layout) for layout in ("last", "first"))
    assert first.network == "tutorial" and first.convs == last.convs and first.convs[1].inputs == 6
    assert first.measured[0].shape == (1, 3, 224, 224) and first.checked[0].shape == (2, 3, 224, 224)
    for given in (first.measured, last.measured), (first.checked, last.checked):
        (x, labels), (y, others) = given
        assert (x.transpose(0, 2, 3, 1) == y).all() and (labels == others).all() and x.flags.c_contiguous
    names = networks.parameters(networks.layers(networks.build("tutorial")))
    for name, theirs, ours in zip(names, first.values, last.values, strict=True):
        np.testing.assert_array_equal(theirs, peers.theirs(name, ours), strict=True)


def test_a_peer_that_is_not_installed_is_said_in_one_line(prepared):
    contender = peers.Contender("dezero", sys.executable, prepared)
    try:
        with pytest.raises(peers.BenchmarkError, match=r"^dezero's process ended .exit code 1.: .*[Nn]o module.*$"):
            contender.ask("check")
    finally:
        contender.end()


@pytest.mark.slow
def test_a_pair_is_checked_and_takes_turns(tmp_path):
    row = None
    peers.prepare(str(tmp_path), "tutorial", 1)
    contender = peers.Contender("minicnn", sys.executable, str(tmp_path))
    try:
        row = contender.ask("check")
        turn = contender.ask("turn", {task: contender.ask("warm_up", task, 0.01) for task in contender.tasks})
        assert set(turn.seconds) == {"step", "inference"} and turn.cpu > 0 and contender.ask("peak") > 500
    finally:
        contender.end()
    assert row["gradients"] == ["float32"] and len(row["logits"]) == 2000 and len(row["moved"]) == 16
