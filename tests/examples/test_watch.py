"""--watch: what is recorded of each layer, that nothing of the training changes by it, and a file that any end leaves whole."""

import csv
import errno
import os

import numpy as np
import pytest
from programs import step, tiny
from support import watch as watching
from support.folders import WATCH as CSV
from support.observer import Observer
from support.options import UsageError
from support.watch import COLUMNS, Watch, due, learned

import minicnn
from minicnn import Tensor, nn
from minicnn.optim import SGD, Adam, CosineLR
from minicnn.workers import Workers

pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def all_steps(monkeypatch):
    """Each step is watched."""
    monkeypatch.setattr(watching, "due", lambda step: True)


@pytest.fixture(autouse=True)
def plain_drawing(monkeypatch, request):
    """It takes a second; the chart says how many rows it shows."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(watching, "draw_watched", lambda rows, path: path.write_text(str(len(rows))))


@pytest.fixture
def drawn():
    """The chart is drawn after all."""


def batches(n, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((4, 64, 64, 3)).astype(np.float32), rng.integers(0, 10, 4)) for _ in range(n)]


def made(optimizer=SGD, **settings):
    minicnn.manual_seed(0)
    net = tiny()
    return net, optimizer(net.parameters(), **{"lr": 0.1, **settings})


def train(net, optimizer, data, watch, schedule=None):
    for images, labels in data:
        watch.before()
        step(net, optimizer, images, labels)
        watch.after(None, None, None)
        if schedule:
            schedule.step()


def table(folder):
    with open(folder / CSV, newline="") as file:
        return list(csv.DictReader(file))


# -- what is recorded -------------------------------------------------------------------------------------------------


def test_the_powers_of_two_and_then_each_hundredth(monkeypatch):
    monkeypatch.undo()
    assert [step for step in range(1, 501) if due(step)] == [1, 2, 4, 8, 16, 32, 64, 100, 200, 300, 400, 500]


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.9, "weight_decay": 0.01},
        {"momentum": 0.9, "weight_decay": 0.01, "paper_update": True},
        {"momentum": 0.9, "nesterov": True},
        {},
        {"optimizer": Adam},
    ],
    ids=str,
)
def test_gradients_and_updates_are_those_that_were_made(tmp_path, settings):
    """Whatever the rule, the decay and the schedule, which has changed the rate by the next step."""
    net, optimizer = made(**settings)
    watch, schedule = Watch(net, optimizer, tmp_path), CosineLR(optimizer, 8, warmup_steps=2)
    expected = []
    for images, labels in batches(3):
        before = {name: layer.copy() for name, layer in net.state_dict().items()}
        train(net, optimizer, [(images, labels)], watch, schedule)
        for name in ("conv1.conv", "fc6.fc", "fc8"):
            w, moved = before[f"{name}.weight"], net.state_dict()[f"{name}.weight"] - before[f"{name}.weight"]
            (g,) = [p.grad.data for key, p in net.named_parameters() if key == f"{name}.weight"]
            expected.append([*(np.linalg.norm(a) for a in (g, w)), np.linalg.norm(moved) / np.linalg.norm(w)])
    rows = table(tmp_path)
    assert [(row["step"], row["layer"]) for row in rows] == [
        (str(n), name) for n in (1, 2, 3) for name in ("conv1", "fc6", "fc8")
    ]
    found = [[float(row[name]) for name in ("gradient_norm", "weight_norm", "update_ratio")] for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_dead_units_and_mean_activations(tmp_path):
    """A kernel is dead if it gives 0 at each place, a unit of a linear layer if it does for each image."""
    net, optimizer = made(lr=0.0)
    net.conv1.conv.bias.data[:3] = -1e6
    net.fc6.fc.bias.data[:4] = -1e6
    net.fc6.fc.weight.data[:, 4] = 0.0
    net.fc6.fc.weight.data[0, 4] = 1.0  # of a pixel that is dead: this unit has 1 for the first image alone
    outputs = {}
    net.conv1.relu.register_forward_hook(lambda module, inputs, y: outputs.__setitem__("conv1", y.data))
    net.fc6.relu.register_forward_hook(lambda module, inputs, y: outputs.__setitem__("fc6", y.data))
    net.register_forward_hook(lambda module, inputs, y: outputs.__setitem__("fc8", y.data))
    train(net, optimizer, batches(1), Watch(net, optimizer, tmp_path))
    conv1, fc6, fc8 = table(tmp_path)
    dead = [unit for unit in range(16) if not outputs["fc6"][:, unit].any()]
    assert float(conv1["dead_share"]) == pytest.approx(3 / 8) and len(dead) >= 4
    assert float(fc6["dead_share"]) == pytest.approx(len(dead) / 16) and fc8["dead_share"] == ""
    for row in (conv1, fc6, fc8):
        assert float(row["mean_activation"]) == pytest.approx(outputs[row["layer"]].mean(), rel=1e-4)
        assert float(row["update_ratio"]) == 0 and float(row["gradient_norm"]) > 0


def test_layers_that_are_frozen(tmp_path):
    net, _ = made()
    for layer in (net.conv1, net.fc6):
        for p in layer.parameters():
            p.requires_grad = False
    optimizer = SGD(net.fc8.parameters(), 0.1)
    train(net, optimizer, batches(1), Watch(net, optimizer, tmp_path))
    conv1, fc6, fc8 = table(tmp_path)
    for row in (conv1, fc6):
        assert row["gradient_norm"] == row["update_ratio"] == "" and float(row["weight_norm"]) > 0 and row["dead_share"]
    assert float(fc8["gradient_norm"]) > 0 and float(fc8["update_ratio"]) > 0


def test_what_is_not_finite_is_recorded_so(tmp_path):
    net, optimizer = made()
    watch = Watch(net, optimizer, tmp_path)
    net.fc8.weight.data[0, 0] = np.nan
    net.conv1.conv.weight.data[...] *= 1e30
    length = np.linalg.norm(net.conv1.conv.weight.data.astype(float))
    with np.errstate(all="ignore"):
        train(net, optimizer, batches(1), watch)
    conv1, _, fc8 = table(tmp_path)
    assert float(conv1["weight_norm"]) == pytest.approx(length, rel=1e-4)  # whose square is too large for float32
    assert fc8["weight_norm"] == fc8["gradient_norm"] == fc8["mean_activation"] == "nan"


def test_lengths():
    assert watching.norm([]) == 0
    assert watching.norm([np.float32([3e30]), np.float32([[0, 4e30]])]) == pytest.approx(5e30)
    assert watching.norm([np.float32([1, np.inf])]) == np.inf
    assert np.isnan(watching.norm([np.float32([1, np.nan]), np.ones(3)]))


def test_layers_of_alexnet():
    from model import VARIANTS, alexnet

    names = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    for variant in VARIANTS:
        net = alexnet(variant, 10, "zeros")
        assert list(learned(net)) == names
        assert [len(watching.weights(layer)) for layer in learned(net).values()] == [1] * 8


# -- nothing changes --------------------------------------------------------------------------------------------------


def test_training_is_the_same_bit_for_bit_and_nothing_is_kept(tmp_path):
    states = []
    for kind in ("plain", "watched"):
        net, optimizer = made(momentum=0.9, weight_decay=0.01)
        watch = Watch(net, optimizer, tmp_path) if kind == "watched" else Observer()
        train(net, optimizer, batches(3), watch)
        watch.draw(None, {})
        states.append([a.tobytes() for a in (*net.state_dict().values(), *optimizer.state_dict().values())])
        states[-1].append(minicnn.random.random_state())
    assert states[0] == states[1] and not watch.activations and not watch.former


def test_other_steps_and_evaluations_are_not_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "due", lambda step: step == 2)
    seen, original = [], watching.activation
    monkeypatch.setattr(watching, "activation", lambda y, relu: seen.append(1) or original(y, relu))
    net, optimizer = made()
    watch = Watch(net, optimizer, tmp_path)
    train(net, optimizer, batches(1), watch)
    assert not seen and not watch.former
    train(net, optimizer, batches(1), watch)
    assert len(seen) == 3
    net(Tensor(batches(1)[0][0]))
    train(net, optimizer, batches(1), watch)
    assert len(seen) == 3 and {row["step"] for row in table(tmp_path)} == {"2"}


# -- the file ---------------------------------------------------------------------------------------------------------


def resumed(tmp_path, steps):
    """A Watch of a run that goes on from after so many steps."""
    net, optimizer = made()
    train(net, optimizer, batches(steps), Observer())
    return net, optimizer, Watch(net, optimizer, tmp_path)


def test_a_run_that_goes_on_ends_with_the_same_file(tmp_path):
    """From an earlier step, with a torn line at the end, or with a line of something else."""
    net, optimizer = made()
    train(net, optimizer, batches(4), Watch(net, optimizer, tmp_path))
    whole = (tmp_path / CSV).read_bytes()
    lines = whole.splitlines(keepends=True)
    for left in (whole, b"".join(lines[:10]) + lines[10][:9], whole[:-1], whole + b"\xff\n4,x\nno,,,,,,\n"):
        (tmp_path / CSV).write_bytes(left)
        net, optimizer, watch = resumed(tmp_path, 2)
        assert (tmp_path / CSV).read_bytes() == b"".join(lines[:7])
        train(net, optimizer, batches(4)[2:], watch)
        assert (tmp_path / CSV).read_bytes() == whole
        watch.draw(None, {})
        assert (tmp_path / "watch.png").read_text() == "12" and len(os.listdir(tmp_path)) == 2


def test_a_torn_last_row_of_the_step_that_is_gone_on_from(tmp_path):
    net, optimizer = made()
    train(net, optimizer, batches(2), Watch(net, optimizer, tmp_path))
    whole = (tmp_path / CSV).read_bytes()
    (tmp_path / CSV).write_bytes(whole[:-1])
    resumed(tmp_path, 2)
    assert (tmp_path / CSV).read_bytes() == b"".join(whole.splitlines(keepends=True)[:-1])


def test_a_new_run_begins_a_new_file(tmp_path):
    (tmp_path / CSV).write_text("1,conv1,1,1,1,1,1\n")
    watch = resumed(tmp_path, 0)[2]
    assert (tmp_path / CSV).read_text() == ",".join(COLUMNS) + "\n"
    watch.draw(None, {})  # of nothing
    assert os.listdir(tmp_path) == [CSV]
    (tmp_path / CSV).unlink()
    resumed(tmp_path, 3)  # --watch was not given until now
    assert (tmp_path / CSV).read_text() == ",".join(COLUMNS) + "\n"


def test_a_disk_that_is_full_for_a_while(tmp_path, monkeypatch, capsys):
    """A line says so, once; the rows are written later, and behind nothing that is torn."""
    net, optimizer = made()
    watch, full = Watch(net, optimizer, tmp_path), []

    class Half:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            self.file.write(data[: len(data) // 2] if full else data)
            if full:
                raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(watching, "open", lambda *args: Half(open(*args)), raising=False)  # noqa: SIM115
    data = batches(4)
    train(net, optimizer, data[:1], watch)
    full.append(True)
    train(net, optimizer, data[1:3], watch)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].endswith("watch.csv is not written: No space left on device; the run continues")
    assert not (tmp_path / CSV).read_bytes().endswith(b"\n")
    full.clear()
    train(net, optimizer, data[3:], watch)
    assert [row["step"] for row in table(tmp_path)] == [str(n) for n in (1, 2, 3, 4) for _ in range(3)]
    plain = tmp_path / "plain"
    plain.mkdir()
    net, optimizer = made()
    train(net, optimizer, data, Watch(net, optimizer, plain))
    assert (plain / CSV).read_bytes() == (tmp_path / CSV).read_bytes() and not capsys.readouterr().err


# -- the chart --------------------------------------------------------------------------------------------------------


def test_the_chart(drawn, tmp_path, monkeypatch):
    """A panel for each layer and quantity, with the file's values; none of them need be finite, or be there."""
    net, optimizer = made()
    watch = Watch(net, optimizer, tmp_path)
    train(net, optimizer, batches(2), watch)
    watch.rows += [["3", name, "nan", "inf", "0", "", "-inf"] for name in ("conv1", "fc6", "fc8")]
    figures, original = [], watching.new_figure
    monkeypatch.setattr(watching, "new_figure", lambda *size: figures.append(original(*size)) or figures[-1])
    watch.draw(None, {})
    (figure,) = figures
    assert len(figure.axes) == 5 * 3 and (tmp_path / "watch.png").read_bytes()[:4] == b"\x89PNG"
    rows = table(tmp_path)
    for column, panels in zip(COLUMNS[2:], np.reshape(figure.axes, (5, 3)), strict=True):
        for axes, layer in zip(panels, ("conv1", "fc6", "fc8"), strict=True):
            (line,) = axes.get_lines()
            values = [float(row[column] or "nan") for row in rows if row["layer"] == layer]
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
            np.testing.assert_array_equal(line.get_ydata(), [*values, np.nan])
    assert [axes.get_title() for axes in figure.axes[:3]] == ["conv1", "fc6", "fc8"]
    assert figure.axes[0].get_yscale() == figure.axes[8].get_yscale() == "log" != figure.axes[14].get_yscale()


def test_a_chart_that_cannot_be_drawn_ends_no_run(drawn, tmp_path, monkeypatch, capsys):
    net, optimizer = made()
    watch = Watch(net, optimizer, tmp_path)
    train(net, optimizer, batches(1), watch)
    monkeypatch.setattr(watching, "new_figure", lambda *_: 1 / 0)
    watch.draw(None, {})
    assert capsys.readouterr().err.endswith("watch.png is not drawn: division by zero; the run continues\n")
    assert os.listdir(tmp_path) == [CSV]


# -- several processes ------------------------------------------------------------------------------------------------


def test_who_watches(tmp_path):
    net, optimizer = made()
    workers = [Workers() for _ in range(3)]
    workers[1].size, workers[2].size, workers[2].rank = 2, 2, 1
    how = (("data", 0), ("hybrid", 0), ("data", 1), ("data", 2))
    kinds = [type(watching.watching(way, workers[i], net, optimizer, tmp_path)) for way, i in how]
    assert kinds == [Watch, Watch, Watch, Observer]
    for way in ("sharded", "hybrid", "columns"):
        with pytest.raises(UsageError, match=f"--watch shows .* --parallel {way}: leave out --watch"):
            watching.watching(way, workers[2], net, optimizer, tmp_path)


def test_layers_without_weights_are_left_out():
    net = nn.Sequential(bn=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU())
    assert list(learned(net)) == ["conv"]
