"""The prediction for many workers: its arithmetic by hand, its bytes against what is counted, its program."""

import json

import pytest

from benchmarks import __main__ as program
from benchmarks import networks, scale_report
from benchmarks.scale import Costs, Layer, Link, speedups, step_time, stops, traffic

CONV = Layer("conv1", input=100, output=40, weights=1000, work=30, linear=False, sees_all=False)
LINEAR = Layer("fc6", input=40, output=8, weights=4000, work=10, linear=True, sees_all=True)
NET = [CONV, LINEAR]
# The linear layer takes 1.5 × 0.4 = 0.6 s, 0.2 of them for any batch; the convolution 3.4 s.
COSTS = Costs(rows=10, step=4.0, fixed=0.2, linear=0.4, optimizer=0.5)
LINK = Link(bandwidth=5000.0, latency=0.01)


@pytest.mark.parametrize(
    "way, n, conv, linear",
    [
        ("data", 1, (0, 0), (0, 0)),
        ("columns", 1, (0, 0), (0, 0)),
        ("data", 2, (0, 1000), (0, 4000)),
        ("data", 4, (0, 1500), (0, 6000)),
        ("hybrid", 2, (0, 1000), (240, 240)),  # half of 10 × 40 inputs and 10 × 8 outputs
        ("hybrid", 4, (0, 1500), (360, 360)),
        ("columns", 2, (0, 0), (240, 240)),
        ("columns", 4, (0, 500), (120, 2120)),  # of 5 rows; and half of the weights, summed by two
    ],
)
def test_bytes_by_hand(way, n, conv, linear):
    assert [(t.forward, t.backward) for t in traffic(NET, way, n, 10)] == [conv, linear]


@pytest.mark.parametrize(
    "way, n, overlap, cores, seconds",
    [
        ("data", 1, True, 9, 4.5),
        ("hybrid", 1, False, 9, 4.5),
        ("columns", 1, True, 9, 4.5),
        # 1.7 for the convolution, 0.2 + 0.2 for the linear layer, sums of 0.22 and 0.82, 0.5
        ("data", 2, False, 9, 1.7 + 0.4 + 0.22 + 0.82 + 0.5),
        ("data", 2, True, 9, 1.7 + 0.4 + 0.22 + 0.5),  # 0.82 is hidden by 1.13 of the convolution
        ("data", 2, False, 1, 2 * (1.7 + 0.4) + 0.22 + 0.82 + 2 * 0.5),
        # half of the linear layer's weights; activations, twice 2 × 0.01 + 240 / 5000
        ("hybrid", 2, True, 9, 1.7 + 0.3 + 2 * 0.068 + 0.22 + 0.1 + 0.2),
        ("hybrid", 2, False, 2, 1.7 + 0.3 + 2 * 0.068 + 0.22 + 0.1 + 0.2),
        ("columns", 2, True, 9, 1.7 + 0.3 + 2 * 0.068 + 0.25),
    ],
)
def test_times_by_hand(way, n, overlap, cores, seconds):
    assert step_time(NET, COSTS, LINK, way, n, 10, overlap, cores) == pytest.approx(seconds)


def test_a_slow_link_hides_only_what_is_computed_beside_it():
    """The sums of the linear layer end after the backward pass, those of the convolution follow."""
    slow = Link(1000.0, 0.0)
    forward, linear = (1.7 + 0.4) / 3, 0.4 * 2 / 3
    assert step_time(NET, COSTS, slow, "data", 2, 10, True) == pytest.approx(forward + linear + 4.0 + 1.0 + 0.5)


def test_costs_that_are_mostly_fixed():
    """What does not depend on the batch is at most all of the linear layer's time."""
    costs = COSTS._replace(fixed=1.0)
    assert step_time(NET, costs, LINK, "data", 1, 10, True) == pytest.approx(4.5)
    assert step_time(NET, costs, LINK, "data", 1, 20, True) == pytest.approx(7.5)


def test_speedups_and_where_they_end():
    assert speedups(lambda n: 8 / n, 5, weak=False) == {1: 1, 2: 2, 4: 4}
    assert speedups(lambda n: 8.0, 8, weak=True) == {1: 1, 2: 2, 4: 4, 8: 8}
    assert stops({1: 1, 2: 2, 4: 4}) == "pays up to 4 workers"
    assert stops({1: 1, 2: 1.0, 4: 4}) == "stops paying at 2 workers, which are no faster than 1"
    assert stops({1: 1, 2: 1.9, 4: 2.0, 8: 3.9}) == "stops paying at 8 workers, with an efficiency of 49%"


def test_layers_of_the_2012_network():
    layers = scale_report.of_network("2012")
    assert [layer.name for layer in layers] == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    assert sum(layer.weights for layer in layers) == 4 * 60_965_224
    assert [layer.name for layer in layers if layer.sees_all] == ["conv3", "fc6", "fc7", "fc8"]
    assert [layer.name for layer in layers if layer.linear] == ["fc6", "fc7", "fc8"]
    conv2 = layers[1]
    assert conv2.input == 4 * 27 * 27 * 96 and conv2.output == 4 * 13 * 13 * 256
    assert conv2.work == 27 * 27 * 256 * 5 * 5 * 48 and layers[-1].work == 4096 * 1000


def test_what_crosses_is_what_the_figure_shows():
    """Columns exchange nothing in conv2, conv4 and conv5, and hybrid no weight of a linear layer."""
    layers = scale_report.of_network("2012")
    columns = scale_report.bytes_by_layer(layers, "columns", 128)
    for name in ("conv1", "conv2", "conv4", "conv5"):
        assert columns[name] == [0, 0]
    assert columns["conv3"] == [128 * 13 * 13 * 256 * 4 / 2] * 2
    assert columns["fc8"] == [128 * (4096 + 1000) * 4 / 2] * 2
    hybrid = scale_report.bytes_by_layer(layers, "hybrid", 128)
    assert hybrid["conv2"] == [0, layers[1].weights] and hybrid["fc6"] == [128 * 9216 * 4 / 2] * 2


GIVEN = "--step 1900 --fixed 100 --linear 200 --optimizer 140".split()


def test_a_prediction(tmp_path, capsys):
    assert program.main(["scale", *GIVEN, "--batch", "4", "--most", "16", "--output", str(tmp_path)]) == 0
    text = (tmp_path / "scale.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == text
    results = json.loads((tmp_path / "scale.json").read_text(encoding="utf-8"))
    assert [list(found[0]) for found in results["strong"].values()] == [
        ["1", "2", "4"], ["1", "2", "4"], ["1", "2", "4", "8"],
    ]  # fmt: skip
    assert list(results["weak"]["data"][1]) == ["1", "2", "4", "8", "16"]
    without, overlapped = results["weak"]["data"]
    assert without["16"] < overlapped["16"] <= 16
    assert "| conv2 | – | 1.23 | – | 1.23 | – | – |" in text and "| 8 | – | – |" in text


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ("--step 1900", "belong together"),
        ("--step 300 --fixed 100 --linear 200 --optimizer 140", "--step is the whole"),
        ("--bandwidth 0", "'0' is not a number above 0"),
        ("--latency -1", "--latency"),
        ("--batch none", "'none' is not a whole number"),
    ],
)
def test_mistakes(arguments, complaint, capsys, tmp_path):
    assert program.main(["scale", *arguments.split(), "--output", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.startswith("benchmarks: ") and said.count("\n") == 1


def measured(threads=1, ways=("data", "hybrid")):
    """Results of `parallel`: two processes took two thirds of the time of one."""
    names = {"minicnn, one process": 1, **{f"minicnn {way}, 2": 2 for way in ways}, "PyTorch DDP, 2": 2}
    times = {name: [3.0 if n == 1 else 2.0] for name, n in names.items()}
    notes = {name: {"step": {"update": [0.1], "linear": [0.4], "received": [1e6]}} for name in times}
    if "data" in ways:
        notes["minicnn data, 2"]["after"] = {"received": [1e6], "waited": [0.5]}
    return {
        "network": networks.TINY, "batch": 8, "machine": {"cores": 2}, "processes": names,
        "threads": dict.fromkeys(names, threads), "notes": notes,
        "seconds": {"step": times, "after": {"minicnn data, 2": [2.5]} if "data" in ways else {}},
    }  # fmt: skip


def test_beside_what_was_measured():
    found = scale_report.compare(Costs(32, 2.0, 0.1, 0.2, 0.1), measured())
    assert [(f["way"], f["workers"], f["overlap"]) for f in found] == [
        ("data", 2, True), ("data", 2, False), ("hybrid", 2, True),
    ]  # fmt: skip
    assert [f["measured"] for f in found] == [1.5, 1.2, 1.5] and {f["megabytes"] for f in found} == {1.0}
    layers = scale_report.of_network(networks.TINY)
    costs, link = Costs(8, 2.9, 0.1 / 2.0 * 2.9, 0.4, 0.1), Link(2e6, 0.0)
    assert found[1]["predicted"] == pytest.approx(3.0 / step_time(layers, costs, link, "data", 2, 8, False, 2))
    assert found[0]["computed"] == sum(layer.weights for layer in layers) / 1e6


@pytest.mark.parametrize(
    "results, complaint",
    [
        (None, "FileNotFoundError"),
        ("{", "JSONDecodeError"),
        ({"threads": {}}, "KeyError: 'seconds'"),
        (measured(threads=2), "add --threads 1"),
        (measured(ways=["hybrid"]), "no data parallel training on 2"),
    ],
)
def test_results_that_do_not_serve(results, complaint, capsys, tmp_path):
    path = tmp_path / "parallel.json"
    if results is not None:
        path.write_text(results if isinstance(results, str) else json.dumps(results))
    assert program.main(["scale", *GIVEN, "--measured", str(path), "--output", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1


@pytest.mark.slow
def test_one_worker_is_measured():
    costs = scale_report.measure()
    assert costs.rows == 32 and costs.fixed >= 0 and 0 < costs.linear < costs.step and 0 < costs.optimizer < costs.step
