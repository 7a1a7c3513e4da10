"""The first ten updates of `train.py --recipe paper` and PyTorch's, in float64: the same weights to begin with, the same
crops, the same dropout masks."""

import importlib

import convert
import frameworks
import numpy as np
import programs
import pytest
import train
from model import INPUT_SIZE, LRN
from support import images, options
from support.settings import parse

import minicnn
from minicnn import manual_seed

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch
TF = torch.nn.functional
dropout = importlib.import_module("minicnn.functional.dropout")


def transposed(name, array):
    """A parameter in PyTorch's layout."""
    return convert.channels_first(array, convert.side_seen(name))


def logits(x, parameters, masks):
    """The paper's network (N, 3, 227, 227) -> (N, K), from sections 3 and 4.2: written once more, so
    that the network is tested too, and not only its training."""
    (w1, b1), (w2, b2), (w3, b3), (w4, b4), (w5, b5), *hidden, (w8, b8) = zip(*[iter(parameters)] * 2, strict=True)

    def pool(x):
        return TF.max_pool2d(x, 3, 2)

    def normalized(x):
        return TF.local_response_norm(x, 5, alpha=5 * 1e-4, beta=0.75, k=2.0)  # where alpha is divided by 5

    x = pool(normalized(TF.conv2d(x, w1, b1, stride=4).relu()))
    x = pool(normalized(TF.conv2d(x, w2, b2, padding=2, groups=2).relu()))
    x = TF.conv2d(x, w3, b3, padding=1).relu()
    x = TF.conv2d(x, w4, b4, padding=1, groups=2).relu()
    x = pool(TF.conv2d(x, w5, b5, padding=1, groups=2).relu()).flatten(1)
    for (weight, bias), mask in zip(hidden, masks, strict=True):
        x = TF.linear(x, weight, bias).relu() * mask
    return TF.linear(x, w8, b8)


@pytest.mark.parametrize("share, batch", [(16, 4), pytest.param(1, 16, marks=pytest.mark.slow)])
def test_ten_updates(monkeypatch, share, batch):
    """With a sixteenth of the channels, and with all; the rate falls once. Found: 5e-13 of a weight's movement at most."""
    frameworks.narrow(monkeypatch, share)
    monkeypatch.setattr(images, "SYNTHETIC", {"train": 4 * batch, "val": batch})
    settings, _ = parse(["--recipe", "paper", "--batch-size", str(batch), "--patience", "0"])
    options.use_machine(settings)
    manual_seed(settings.seed)
    size = INPUT_SIZE[settings.variant]
    dataset, _ = images.datasets(settings.data, settings.seed, size)
    statistics = images.pixel_statistics(dataset, settings)
    loader = images.training(dataset, images.View.of(size, settings, statistics), settings, statistics)
    net = train.network(settings, 10, LRN).train().astype(np.float64)
    optimizer = train.sgd(net, settings)
    schedule = train.schedule_for(optimizer, settings, settings.epochs * len(loader))

    names = [name for name, _ in net.named_parameters()]
    assert names == [f"{layer}.{part}" for layer in convert.LAYERS for part in ("weight", "bias")]
    first = {name: transposed(name, p.data).copy() for name, p in net.named_parameters()}
    theirs = [torch.tensor(first[name], requires_grad=True) for name in names]
    sgd = torch.optim.SGD(theirs, lr=0.01, momentum=0.9, weight_decay=0.0005)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd, patience=0)

    rates, losses = [], []
    batches = (batch for _ in range(3) for batch in [*loader, None])  # None: an epoch is over
    while len(losses) < 10:
        batch = next(batches)
        if batch is None:
            schedule.step(50.0)
            before = sgd.param_groups[0]["lr"]
            plateau.step(50.0)
            for p in theirs:  # PyTorch's new rate scales all of the momentum, the paper's only what is added to it
                sgd.state[p]["momentum_buffer"] *= before / sgd.param_groups[0]["lr"]
            continue
        x, labels = batch[0].astype(np.float64), batch[1]
        seed, draws = minicnn.random.random_state()
        hidden = net.fc6.fc.bias.size
        masks = [dropout.drop(np.ones((len(labels), hidden)), 0.5, (seed, draws + i), 0, 1.0) for i in range(2)]
        loss = programs.step(net, optimizer, x, labels)
        assert minicnn.random.random_state() == (seed, draws + 2)

        other = TF.cross_entropy(
            logits(torch.tensor(x).permute(0, 3, 1, 2), theirs, list(map(torch.tensor, masks))),
            torch.tensor(labels),
        )
        sgd.zero_grad()
        other.backward()
        sgd.step()
        losses.append(other.item())
        rates.append(sgd.param_groups[0]["lr"])
        assert loss.item() == pytest.approx(losses[-1], rel=1e-12)
        assert optimizer.lr == pytest.approx(rates[-1], rel=1e-12)

    assert rates == pytest.approx([0.01] * 8 + [0.001] * 2)
    errors = {}
    for name, ours, other in zip(names, net.parameters(), theirs, strict=True):
        other = other.detach().numpy()
        assert ours.dtype == np.float64
        errors[name] = abs(frameworks.channels_first(ours.data) - other).max() / abs(other - first[name]).max()
    assert max(errors.values()) < 1e-9, errors
    print(f"largest difference: {max(errors.values()):.1e} of a parameter's movement; losses {losses}")
