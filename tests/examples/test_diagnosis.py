"""What is said of a loss that stays at ln(classes), and of one that is NaN or infinite."""

from argparse import Namespace

import numpy as np
import pytest
from programs import step, tiny
from support import diagnosis
from support.diagnosis import Layer, Plateau, advice, divergence, look, table
from support.watch import learned

import minicnn
from minicnn import Tensor, nn
from minicnn import functional as F
from minicnn.optim import SGD

SETTINGS = Namespace(init="he", scale="unit", lr=0.01)
PAPER = Namespace(init="paper", scale="unit", lr=0.01)
LN10 = float(np.log(10))


def batch(seed=0, n=6):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 64, 64, 3)).astype(np.float32), rng.integers(0, 10, n)


def made(lr=0.01, **settings):
    minicnn.manual_seed(0)
    net = tiny()
    return net, SGD(net.parameters(), lr, **settings)


# -- the plateau ------------------------------------------------------------------------------------------------------


@pytest.fixture
def plateau():
    """plateau(updates, …): one of a network that does not change; and a function that feeds it losses."""

    def make(updates=1000, **options):
        net, optimizer = made()
        found = Plateau(net, optimizer, SETTINGS, 10, updates, **options)

        def feed(*losses):
            lines = []
            for loss in losses:
                optimizer.steps += 1
                lines += [(optimizer.steps, line) for line in found.noticed(np.array(loss, np.float32), *batch())]
            return lines

        return found, feed

    return make


@pytest.mark.parametrize(
    "updates, patience, window",
    [(1, 150, 37), (280, 150, 37), (1000, 200, 50), (15640, 3128, 100), (900_810, 5000, 100)],
)
def test_when_it_looks(plateau, updates, patience, window):
    """Small runs, cifar10 and ImageNet in batches of 128."""
    found, _ = plateau(updates)
    assert (found.patience, found.window) == (patience, window)


def test_a_loss_that_stays_at_ln_of_the_classes(plateau):
    _, feed = plateau()
    lines = feed(*[2.31, 2.29] * 100)
    assert {number for number, _ in lines} == {200}
    first, second, titles, *rows, what, how = [line for _, line in lines]
    assert f"{first} {second}" == (
        "after 200 updates the loss is 2.3000 (the mean of the last 50), that of a network which gives every image "
        "the same answer: ln(10) = 2.3026"
    )
    assert titles.split("  ")[0] == "layer" and [row.split()[0] for row in rows] == ["conv1", "fc6", "fc8"]
    # this network has had no updates
    assert what.startswith("An update changes") and how.endswith("give a higher --lr (this run has 0.01).")
    assert all(len(line) <= 100 for _, line in lines)
    assert not feed(*[2.3] * 500)  # once


@pytest.mark.parametrize("loss", [LN10 * 0.985, LN10 * 1.015, 0.1, np.nan, np.inf])
def test_a_loss_that_does_not(plateau, loss):
    _, feed = plateau()
    assert not feed(*[2.3] * 150, *[loss] * 450)


def test_a_loss_that_has_left_it_when_it_looks_and_comes_back(plateau):
    """As when a step was too large: it is only later that all ReLUs are dead."""
    _, feed = plateau()
    assert not feed(*[2.3] * 150, *[2.0] * 100)
    assert feed(*[LN10] * 50)[0][0] == 300


def test_a_run_that_goes_on_needs_losses_of_its_own(plateau):
    found, feed = plateau()
    found.optimizer.steps = 700
    assert {number for number, _ in feed(*[LN10] * 100)} == {750}


def test_without_evidence(plateau, monkeypatch):
    _, feed = plateau(alone=False)
    assert [line for _, line in feed(*[LN10] * 400)][2:] == ["a run in one process would say here what each layer does"]

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(diagnosis, "look", full)
    _, feed = plateau()
    lines = [line for _, line in feed(*[LN10] * 400)]
    assert lines[0].startswith("after 200 updates") and lines[2].startswith("there is no memory to look")


# -- evidence ---------------------------------------------------------------------------------------------------------


def test_looking_changes_nothing(monkeypatch):
    """Training is the same, bit for bit, with the message and without it, dropout too."""
    monkeypatch.setattr(diagnosis, "PATIENCE", (4, 0.0, 4))
    states = []
    for watched in (False, True):
        net, optimizer = made(1e-6, momentum=0.9)
        net.fc8.weight.data[...] = 0
        net.conv1.eval()
        found, lines = Plateau(net, optimizer, SETTINGS, 10, 0), []
        for seed in range(6):
            loss = step(net, optimizer, *batch(seed))
            before = {p: (p.grad, p.grad.numpy().copy()) for p in net.parameters()}
            if watched:
                lines += found.noticed(loss.data, *batch(seed))
            for p, (grad, values) in before.items():
                assert p.grad is grad and (grad.numpy() == values).all()
        assert bool(lines) == watched
        assert [m.training for m in (net, net.conv1, net.conv1.relu, net.fc6.dropout)] == [True, False, False, True]
        assert not any(module._hooks for _, module in net.named_modules())
        states.append([a.tobytes() for a in (*net.state_dict().values(), *optimizer.state_dict().values())])
        states[-1].append(minicnn.random.random_state())
    assert states[0] == states[1]


def test_what_is_found_is_what_the_layers_do():
    net, optimizer = made(0.1, momentum=0.9, weight_decay=0.01)
    net.conv1.conv.bias.data[:2] = -1e6
    former = {name: layer.copy() for name, layer in net.state_dict().items()}
    step(net, optimizer, *batch())
    found = look(net, optimizer, *batch())
    net.eval()
    images, labels = batch()
    conv1 = net.conv1.relu(net.conv1.conv(Tensor(images)))
    fc6 = net.fc6.relu(net.fc6.fc(net.flatten(net.conv1.pool(conv1))))
    logits = net.fc8(fc6)
    net.zero_grad()
    F.cross_entropy(logits, labels).backward()
    assert list(found) == ["conv1", "fc6", "fc8"] and found["conv1"].dead == 2 / 8 and found["fc8"].dead is None
    assert found["fc6"].dead == pytest.approx(1 - fc6.numpy().any(axis=0).mean())
    for name, y, layer in (("conv1", conv1, net.conv1.conv), ("fc6", fc6, net.fc6.fc), ("fc8", logits, net.fc8)):
        here = found[name]
        assert here.size == pytest.approx(abs(y.numpy()).mean(), rel=1e-4)
        assert here.spread == pytest.approx(y.numpy().std(axis=0).mean(), rel=1e-4)
        assert here.gradient == pytest.approx(np.linalg.norm(layer.weight.grad.numpy()), rel=1e-4)
        w = former[next(key for key, p in net.named_parameters() if p is layer.weight)]
        assert here.update == pytest.approx(np.linalg.norm(layer.weight.data - w) / np.linalg.norm(w), rel=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.9, "weight_decay": 0.5},
        {"momentum": 0.9, "weight_decay": 0.5, "paper_update": True},
        {"weight_decay": 0.5},
        {"weight_decay": 0.5, "paper_update": True},
    ],
    ids=str,
)
def test_the_last_update_is_the_one_that_was_made(settings):
    """Of both rules, with and without momentum, and with a rate of its own for the last layer."""
    minicnn.manual_seed(0)
    net = tiny()
    head = list(net.fc8.parameters())
    rest = [p for p in net.parameters() if p not in set(head)]
    optimizer = SGD([{"params": rest}, {"params": head, "lr": 0.3}], 0.1, **settings)
    for seed in range(3):
        former = {name: w.copy() for name, w in net.state_dict().items()}
        step(net, optimizer, *batch(seed))
    for name, layer in (("conv1.conv", net.conv1.conv), ("fc6.fc", net.fc6.fc), ("fc8", net.fc8)):
        w = former[f"{name}.weight"]
        moved = np.linalg.norm(layer.weight.data - w) / np.linalg.norm(w)
        assert diagnosis.last_update(optimizer, [layer.weight]) == pytest.approx(moved, rel=1e-3)


def test_layers_that_are_frozen_and_updates_that_were_not_made():
    net, _ = made()
    for p in net.conv1.parameters():
        p.requires_grad = False
    optimizer = SGD([*net.fc6.parameters(), *net.fc8.parameters()], 0.1)
    found = look(net, optimizer, *batch())
    assert found["conv1"].gradient is found["conv1"].update is None and found["conv1"].dead is not None
    assert found["fc8"].gradient > 0 and found["fc8"].update == 0
    assert table(found)[1].split() == ["conv1", *table(found)[1].split()[1:]] and len(table(found)[1].split()) == 4


def test_the_table():
    layers = {"conv1": Layer(0.01234, 1e-5, 0.256, 3.21e-7, 12.3), "fc8": Layer(1.0, 2.0, None, None, None)}
    assert table(layers) == [
        "layer  mean |activation|  std over images  dead ReLUs  gradient  update / weight",
        "conv1              0.012            1e-05         26%   3.2e-07               12",
        "  fc8                  1                2",
    ]


# -- advice -----------------------------------------------------------------------------------------------------------

HEALTHY = {  # what was measured of the 2012 network with He's weights, after a step
    "conv1": Layer(0.079, 0.1, 0.0, 1.3, 0.0061),
    "fc6": Layer(0.087, 0.027, 0.36, 1.9, 0.00016),
    "fc7": Layer(0.086, 0.026, 0.34, 1.2, 0.0001),
    "fc8": Layer(0.048, 0.02, None, 2.6, 0.01),
}
PAPERS = {  # and of the paper's, on pixels from 0 to 255
    "conv1": Layer(5.2, 6.8, 0.0, 0.71, 0.0022),
    "conv2": Layer(1.7, 1.1, 0.0, 1.1, 0.001),
    "fc7": Layer(1.1, 0.016, 0.15, 24.0, 0.0027),
    "fc8": Layer(3.9, 0.013, None, 37.0, 0.08),
}


def change(layers, **changes):
    """The layers with, of each that is named, some numbers changed; each= changes those of all."""
    return {
        name: layer._replace(**{**changes.get("each", {}), **changes.get(name, {})}) for name, layer in layers.items()
    }


@pytest.mark.parametrize(
    "layers, settings, words",
    [
        (HEALTHY, SETTINGS, ["it may be the data", "predict.py --draw", "lower --lr (this run has 0.01)"]),
        (PAPERS, PAPER, ["it may be the data"]),
        (
            change(HEALTHY, fc6={"dead": 0.995, "size": 0.0}, fc7={"dead": 1.0, "size": 0.0, "spread": 0.0}),
            SETTINGS,
            ["100% of the ReLUs of fc6 give 0 for every image", "begin again with a lower --lr"],
        ),
        (
            change(HEALTHY, fc7={"size": 0.00025, "spread": 0.0001}),
            PAPER,
            [
                "The activations shrink from layer to layer, from 0.079 in conv1 to 0.00025 in fc7",
                "--init he --scale unit",
            ],
        ),
        (
            change(PAPERS, fc7={"spread": 0.0003}),
            PAPER,
            [
                "Images hardly differ any more",
                "by 0.00027 of a unit's size in fc7",
                "has --init paper and --scale unit",
            ],
        ),
        (
            change(HEALTHY, fc7={"size": 1e-4}),
            SETTINGS,
            ["With --init he they do not begin so", "again with a lower --lr"],
        ),
        (
            change(HEALTHY, each={"update": 0.4}),
            SETTINGS,
            ["half of the layers by more than 0.4 of their size", "a lower --lr"],
        ),
        (change(HEALTHY, each={"update": 2e-6}), SETTINGS, ["by less than 2e-06", "give a higher --lr"]),
        (change(HEALTHY, conv1={"update": None}, fc8={"update": 5.0}), SETTINGS, ["it may be the data"]),
    ],
    ids=["healthy", "paper", "dead", "shrinks", "alike", "he's", "wild", "still", "frozen"],
)
def test_advice(layers, settings, words):
    text = advice(layers, settings)
    for word in words:
        assert word in text


# -- divergence -------------------------------------------------------------------------------------------------------


@pytest.fixture
def training():
    """A network after a step."""
    net, optimizer = made(momentum=0.9)
    step(net, optimizer, *batch())
    return net


def test_an_output_that_went_wrong(training):
    net = training
    net.fc6.fc.weight.data[...] = 3e38
    net.fc8.weight.data[3, 3] = -7.0
    line, (where, largest) = divergence(net, *batch(), 2)
    assert line == "the loss of step 2 is NaN or infinite: the first that went wrong is the output of fc6, in step 2"
    assert where.startswith("fc6.fc (Linear) of Sequential: forward pass: the output of MatMul, of shape (6, 16), has")
    conv1 = abs(net.conv1.conv.weight.data).max()
    assert largest == f"the largest weight of each layer: conv1 {conv1:.2g}, fc6 3e+38, fc8 7"


def test_the_loss_itself():
    net, _ = made()
    net.register_forward_hook(lambda module, inputs, y: y.data.__setitem__(slice(None), -np.inf))
    net.fc8.weight.data[...] = 0
    line, _ = divergence(net, *batch(), 1)
    assert line.endswith("the first that went wrong is the output of the loss, in step 1")


def test_a_gradient_that_went_wrong_in_this_step(training):
    """The loss is finite if it is computed again, but its gradient is not."""
    net = training

    class Root(nn.Module):
        def forward(self, x):
            return (x * 0).sqrt()

    net.fc6.relu = Root()
    line, (where, _) = divergence(net, *batch(), 2)
    assert line.endswith("the first that went wrong is the gradient of fc6, in step 2")
    assert where.startswith("fc6.relu (Root) of Sequential: backward pass: Sqrt's gradient")


def test_weights_that_went_wrong_in_the_step_before(training):
    """A gradient spreads from the loss to the first layer, so the nearest to the loss is the first."""
    net = training
    net.conv1.conv.weight.data[0, 0, 0, 0] = np.nan
    net.fc6.fc.bias.data[3] = np.inf
    line, evidence = divergence(net, *batch(), 8)
    assert line == (
        "the loss of step 8 is NaN or infinite: the first that went wrong is the gradient of fc6, in step 7: of the "
        "layers whose weights that step has made NaN or infinite it is the nearest to the loss"
    )
    assert evidence == ["weights that are NaN or infinite: conv1, fc6", "weights that are finite: fc8"]


def test_weights_that_are_all_wrong(training):
    net = training
    for layer in learned(net).values():
        next(layer.parameters()).data[...] = np.nan
    line, _ = divergence(net, *batch(), 8)
    assert line.startswith("the loss of step 8 is NaN or infinite, and so are weights of every layer")
    assert "--detect-anomaly" in line


def test_pixels(training):
    images, labels = batch()
    images[0, 0, 0, 0] = np.nan
    assert divergence(training, images, labels, 2) == (
        "the loss of step 2 is NaN or infinite, because pixels of the batch are",
        [],
    )


def test_what_cannot_be_computed_again(training):
    net = training
    line, evidence = divergence(net, *batch(), 2)
    assert line.endswith("but not if it is computed again with the weights before it") and len(evidence) == 1
    net.fc6.fc.weight.data[...] = 3e38
    line, _ = divergence(net, *batch(), 2, alone=False)
    assert line.endswith("while all weights are finite: it went wrong in step 2 itself")


# -- the real network -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_papers_weights_without_biases_on_pixels_of_unit_scale(monkeypatch):
    """And a rate of 10: what users of AlexNet meet."""
    from model import alexnet

    monkeypatch.setattr(diagnosis, "PATIENCE", (4, 0.0, 4))
    minicnn.manual_seed(0)
    net = alexnet("2012", 10, "paper")
    for name, p in net.named_parameters():
        if name.endswith("bias"):
            p.data[...] = 0
    optimizer = SGD(net.parameters(), 0.01, 0.9, weight_decay=0.0005, paper_update=True)
    found, lines = Plateau(net, optimizer, PAPER, 10, 0), []
    rng = np.random.default_rng(0)
    images = rng.standard_normal((4, 227, 227, 3)).astype(np.float32)
    for _ in range(4):
        lines += found.noticed(step(net, optimizer, images, np.arange(4)).data, images, np.arange(4))
    assert "The activations shrink from layer to layer, from 0." in " ".join(lines)

    net = alexnet("2012", 10, "he")
    optimizer = SGD(net.parameters(), 10.0, 0.9)
    with np.errstate(all="ignore"):
        while np.isfinite(F.cross_entropy(net(Tensor(images)), np.arange(4)).item()):
            step(net, optimizer, images, np.arange(4))
    number = optimizer.steps + 1
    line, evidence = divergence(net, images, np.arange(4), number)
    assert f"the loss of step {number} is NaN or infinite: the first that went wrong is the output of " in line
    assert "forward pass: the output of " in evidence[0] and number <= 3
