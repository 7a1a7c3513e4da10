"""The paper's recipe, each piece beside the formula or the words of its section (Krizhevsky, Sutskever and Hinton 2012);
and what sets the other two apart."""

import importlib

import model
import numpy as np
import programs
import pytest
import train
from evaluate import evaluate
from model import INPUT_SIZE
from support import options
from support.images import IMAGENET, View, pixel_statistics, training, validation
from support.recipes import RECIPES, TABLE
from support.settings import parse
from support.start import Start

from minicnn import Tensor, manual_seed, nn
from minicnn.data import SyntheticImages
from minicnn.optim import CosineLR, ReduceLROnPlateau, StepLR

dropout = importlib.import_module("minicnn.functional.dropout")


def settings_of(recipe, *arguments):
    settings, _ = parse(["--recipe", recipe, *map(str, arguments)])
    options.use_machine(settings)
    return settings


@pytest.fixture
def paper():
    return settings_of("paper", "--resize", 72, "--workers", 0, "--batch-size", 4)


@pytest.fixture
def photos():
    """Squares of 80 × 72 pixels, to be cut to 72 × 72."""
    return [
        (np.pad(image, ((4, 4), (0, 0), (0, 0))), label)
        for image, label in map(SyntheticImages(6, size=72).__getitem__, range(6))
    ]


@pytest.fixture
def small_network(monkeypatch):
    """A network with the dropout of the recipe after its linear layer."""

    def small(variant, classes, *_, dropout, dropout_scale):
        linear = nn.Linear(64 * 64 * 3, classes, weight_init=nn.init.normal(1e-4))
        return nn.Sequential(flatten=nn.Flatten(), fc=linear, dropout=nn.Dropout(dropout, scale=dropout_scale))

    monkeypatch.setattr(train, "alexnet", small)


def squares(photos):
    return np.stack([image[4:76] for image, _ in photos]).astype(np.float64)  # (N, 72, 72, 3)


# -- images -------------------------------------------------------------------------------------------------------


def test_each_pixel_less_its_mean_over_the_training_set(photos, paper):
    """Section 2: the short side scaled, the central square, "subtracting the mean activity over the training set from
    each pixel", and nothing else."""
    statistics = pixel_statistics(photos, paper)
    view, mean = View.of(64, paper, statistics), squares(photos).mean(axis=0)
    ((images, labels), _) = validation(photos, view, paper)
    assert images.dtype == np.float32 and labels.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(images, (squares(photos) - mean)[:4, 4:68, 4:68], atol=1e-4)


def test_crops_flips_and_colors(photos, paper):
    """Section 4.1: random crops and their horizontal reflections; to each pixel of an image Σᵢ pᵢ·λᵢ·αᵢ, with the
    eigenvectors and eigenvalues of the RGB values' covariance and α ~ N(0, 0.1), drawn once for an image and use."""
    statistics = pixel_statistics(photos, paper)
    loader = training(photos, View.of(64, paper, statistics), paper, statistics)
    eigenvalues, eigenvectors = np.linalg.eigh(np.cov(squares(photos).reshape(-1, 3).T / 255, bias=True))
    wholes, draws = squares(photos) - squares(photos).mean(axis=0), []
    for image, label in [pair for _ in range(5) for batch in loader for pair in zip(*batch, strict=True)]:
        found = []
        for top, left, mirrored in np.ndindex(9, 9, 2):
            crop = wholes[label, top : top + 64, left : left + 64]
            shifts = image[::8, ::8] - (crop[:, ::-1] if mirrored else crop)[::8, ::8]
            if np.ptp(shifts, axis=(0, 1)).max() < 1e-3:  # the same for all pixels
                found.append((top, left, mirrored, *(eigenvectors.T @ shifts[0, 0] / 255 / eigenvalues)))
        draws += found
        assert len(found) == 1
    tops, lefts, mirrored, *alphas = np.array(draws).T  # (30,) each
    assert len(set(tops)) > 6 and len(set(lefts)) > 6 and 8 < mirrored.sum() < 22
    for alpha in alphas:
        assert 0.06 < alpha.std() < 0.14 and abs(alpha.mean()) < 0.06 and len(set(alpha)) == 30


def test_ten_crops(photos, paper, small_network):
    """Section 4.1: four corners, the center and "their horizontal reflections (hence ten patches in all)", "averaging
    the predictions made by the network's softmax layer"."""
    view = View.of(64, paper, pixel_statistics(photos, paper))
    net = train.network(paper, 6, model.LRN)
    result = evaluate(net, validation(photos, view, paper, crops=10))
    images, losses = squares(photos) - squares(photos).mean(axis=0), []
    for image, (_, label) in zip(images, photos, strict=True):
        p = []
        for top, left in ((0, 0), (0, 8), (8, 0), (8, 8), (4, 4)):
            for crop in (image[top : top + 64, left : left + 64], image[top : top + 64, left : left + 64][:, ::-1]):
                logits = 0.5 * (crop.reshape(-1) @ net.fc.weight.data + net.fc.bias.data)  # section 4.2
                p.append(np.exp(logits) / np.exp(logits).sum())
        losses.append(-np.log(np.mean(p, axis=0)[label]))
    assert result["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


# -- the network ----------------------------------------------------------------------------------------------------


def test_dropout_halves_in_evaluation(paper, small_network):
    """Section 4.2: the output of each hidden neuron set to zero with probability 0.5; at test time all, times 0.5."""
    net, x = (
        train.network(paper, 5, model.LRN),
        np.random.default_rng(0).standard_normal((7, 64 * 64 * 3)).astype(np.float32),
    )
    outputs = x @ net.fc.weight.data + net.fc.bias.data
    manual_seed(3)
    kept = dropout.drop(np.ones((7, 5), np.float32), 0.5, (3, 0), 0, 1.0)
    np.testing.assert_allclose(net(Tensor(x)).data, outputs * kept, rtol=1e-5)
    np.testing.assert_allclose(net.eval()(Tensor(x)).data, outputs * 0.5, rtol=1e-5)
    assert 0 < kept.sum() < 35


def test_the_network_is_the_papers(monkeypatch):
    """Which test_model.py looks at, beside sections 3 and 5."""
    asked = {}
    monkeypatch.setattr(
        train, "alexnet", lambda *args, **options: asked.update(args=args, **options) or nn.Linear(1, 1)
    )
    settings = settings_of("paper")
    train.network(settings, 1000, Start().lrn(settings))
    assert asked == {"args": ("2012", 1000, "paper", True, model.LRN), "dropout": 0.5, "dropout_scale": "evaluation"}
    settings = settings_of("quick", "--lrn-alpha", 0.33)
    train.network(settings, 10, Start().lrn(settings))
    assert asked["args"][4] == {**model.LRN, "alpha": 0.33}
    assert INPUT_SIZE["2012"] == 227 and model.LRN == {"n": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75}


# -- training -------------------------------------------------------------------------------------------------------


def test_the_update_rule():
    """Section 5: v ← 0.9·v − 0.0005·ε·w − ε·⟨g⟩, w ← w + v, also when ε falls."""
    settings, rng = settings_of("paper"), np.random.default_rng(0)
    net = nn.Linear(3, 2)
    optimizer = train.sgd(net, settings)
    w, v = net.weight.data.astype(np.float64), np.zeros((3, 2))
    for lr in (0.01, 0.01, 0.001, 0.001):
        x, labels = rng.standard_normal((4, 3)).astype(np.float32), rng.integers(2, size=4)
        optimizer.lr = lr
        programs.step(net, optimizer, x, labels)
        v = 0.9 * v - 0.0005 * lr * w - lr * net.weight.grad.data
        w = w + v
        np.testing.assert_allclose(net.weight.data, w, rtol=1e-6)


def test_the_rate_falls_when_the_validation_error_no_longer_does():
    """Section 5: 0.01 at first, "reduced three times prior to termination", by 10 each time."""
    settings = settings_of("paper")
    optimizer = train.sgd(nn.Linear(3, 2), settings)
    schedule = train.schedule_for(optimizer, settings, updates=90)
    errors, rates = [60, 50, 50.1, 49, *[49] * 80], []
    for error in errors:
        rates.append(optimizer.lr)
        schedule.step(error)
    falls = [i for i in range(1, len(rates)) if rates[i] < rates[i - 1]]
    assert falls == [10, 16, 22]  # six epochs after the last improvement, and so on
    np.testing.assert_allclose([rates[0], *(rates[i] for i in falls)], [1e-2, 1e-3, 1e-4, 1e-5])


def test_the_numbers_of_section_5():
    """ "a batch size of 128 examples", "momentum of 0.9, and weight decay of 0.0005", "roughly 90 cycles"."""
    settings = settings_of("paper")
    assert (settings.batch_size, settings.epochs, settings.lr) == (128, 90, 0.01)
    assert (settings.momentum, settings.weight_decay, settings.resize, settings.scale) == (0.9, 0.0005, 256, "raw")


# -- the other recipes ----------------------------------------------------------------------------------------------


def test_the_tutorials_pictures(photos):
    """The central square, less ImageNet's mean and divided by its standard deviation, in training as in evaluation."""
    settings = settings_of("tutorial", "--resize", 72, "--workers", 0)
    view = View.of(64, settings, pixel_statistics(photos, settings))
    mean, std = map(np.array, IMAGENET)
    expected = ((squares(photos)[:, 4:68, 4:68] / 255) - mean) / std
    for loader in (training(photos, view, settings), validation(photos, view, settings)):
        for images, labels in loader:
            np.testing.assert_allclose(images, expected[labels], atol=1e-5)
    assert settings_of("tutorial").resize == 256 and settings.batch_size == 32


@pytest.mark.parametrize(
    "recipe, kind, paper_update",
    [("quick", CosineLR, False), ("tutorial", StepLR, False), ("paper", ReduceLROnPlateau, True)],
)
def test_optimizers_and_schedules(recipe, kind, paper_update):
    settings = settings_of(recipe)
    optimizer = train.sgd(nn.Linear(3, 2), settings)
    schedule = train.schedule_for(optimizer, settings, updates=50)
    assert type(schedule) is kind and optimizer.param_groups[0]["paper_update"] == paper_update
    (group,) = optimizer.param_groups
    assert (group["momentum"], group["weight_decay"]) == (0.9, settings.weight_decay)
    if recipe == "tutorial":
        for _ in range(60):
            schedule.step()
        assert optimizer.lr == 0.01 and settings.weight_decay == 0


def test_the_tables_columns_differ():
    for name, values in TABLE.items():
        assert len(values) == len(RECIPES), name
    assert len({tuple(values[i] for values in TABLE.values()) for i in range(3)}) == 3
