"""The three networks: their sizes, the paper's table of feature maps, and where their weights start."""

import math

import model
import numpy as np
import pytest

from minicnn import Tensor, nn
from minicnn.nn import init

CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")


@pytest.fixture
def unwritten(monkeypatch):
    """Weights are zeros that the operating system has not handed out yet: 60 million cost nothing."""
    for name in ("he", "normal", "lecun", "xavier"):
        monkeypatch.setattr(init, name, lambda *_: lambda shape: np.zeros(shape, np.float32))


def table(net, size):
    """summary's rows: name -> (output shape, parameters, FLOPs)."""
    rows = {}
    for line in net.summary((1, size, size, 3)).splitlines()[1:-1]:
        name, _, rest = line.split(maxsplit=2)
        *shape, parameters, flops = rest.replace(" × ", "×").replace(",", "").split()
        rows[name] = tuple(map(int, shape[0].split("×"))), int(parameters), int(flops)
    return rows


@pytest.mark.parametrize(
    "settings, count",
    [
        (("2012", 1000), 60_965_224),
        (("2012", 1000, "paper"), 60_965_224),
        (("2012", 10), 56_909_194),
        (("2012", 1000, "he", False), 62_378_344),
        (("2014", 1000), 61_100_840),
        (("tutorial", 1000), 62_378_344),
        (("tutorial", 1000, "he", False), 62_378_344),
    ],
)
def test_parameters(unwritten, settings, count):
    assert sum(p.size for p in model.alexnet(*settings).parameters()) == count


def test_the_papers_feature_maps_parameters_and_flops(unwritten):
    rows = table(model.alexnet("2012"), 227)
    maps = {"conv1": (55, 55, 96), "conv2": (27, 27, 256), "conv3": (13, 13, 384), "conv4": (13, 13, 384)}
    for name, shape in {**maps, "conv5": (13, 13, 256)}.items():
        assert rows[f"{name}.conv"][0] == (1, *shape)
    for name, shape in {"conv1": (27, 27, 96), "conv2": (13, 13, 256), "conv5": (6, 6, 256)}.items():
        assert rows[f"{name}.pool"][0] == (1, *shape)
    assert [rows[name][0] for name in ("fc6.fc", "fc7.fc", "fc8")] == [(1, 4096), (1, 4096), (1, 1000)]
    learned = {name.split(".")[0]: row[1:] for name, row in rows.items() if row[1]}
    assert learned == {  # parameters, twice the multiplications
        "conv1": (34_944, 2 * 105_415_200),
        "conv2": (307_456, 2 * 223_948_800),
        "conv3": (885_120, 2 * 149_520_384),
        "conv4": (663_936, 2 * 112_140_288),
        "conv5": (442_624, 2 * 74_760_192),
        "fc6": (37_752_832, 2 * 37_748_736),
        "fc7": (16_781_312, 2 * 16_777_216),
        "fc8": (4_097_000, 2 * 4_096_000),
    }
    assert all(row[2] == 0 for row in rows.values() if not row[1])


@pytest.mark.parametrize(
    "variant, channels", [("2014", (64, 192, 384, 256, 256)), ("tutorial", (96, 256, 384, 384, 256))]
)
def test_the_later_variants_fit_their_input(unwritten, variant, channels):
    rows = table(model.alexnet(variant, 7), model.INPUT_SIZE[variant])
    for name, side, c in zip(CONVOLUTIONS, (55, 27, 13, 13, 13), channels, strict=True):
        assert rows[f"{name}.conv"][0] == (1, side, side, c)
    assert rows["conv5.pool"][0] == (1, 6, 6, 256) and rows["fc8"][0] == (1, 7)


def layers(net):
    return [(name, module) for name, module in net.named_modules() if not any(module.named_children())]


NORM, POOL = nn.LocalResponseNorm, nn.MaxPool2d


@pytest.mark.parametrize(
    "variant, normalized, hidden",
    [
        ("2012", [NORM], [nn.Linear, nn.ReLU, nn.Dropout]),  # section 3.5
        ("2014", [], [nn.Dropout, nn.Linear, nn.ReLU]),
        ("tutorial", [], [nn.Linear, nn.ReLU, nn.Dropout]),
    ],
)
def test_the_order_of_layers(unwritten, variant, normalized, hidden):
    kinds = [type(module) for _, module in layers(model.alexnet(variant))]
    plain = [nn.Conv2d, nn.ReLU]
    assert kinds == [*[*plain, *normalized, POOL] * 2, *plain * 3, POOL, nn.Flatten, *hidden * 2, nn.Linear]


@pytest.mark.parametrize("variant", model.VARIANTS)
def test_settings_of_layers(unwritten, variant):
    net = model.alexnet(variant)
    convolutions = [module for _, module in layers(net) if isinstance(module, nn.Conv2d)]
    assert [c.groups for c in convolutions] == ([1, 2, 1, 2, 2] if variant == "2012" else [1] * 5)
    assert all(c.groups == 1 for _, c in layers(model.alexnet(variant, groups=False)) if isinstance(c, nn.Conv2d))
    assert [c.weight.shape[:2] for c in convolutions] == [(11, 11), (5, 5), (3, 3), (3, 3), (3, 3)]
    pools = [module for _, module in layers(net) if isinstance(module, nn.MaxPool2d)]
    assert [(pool.kernel_size, pool.stride) for pool in pools] == [(3, 2)] * 3  # overlapping
    norms = [vars(module) for _, module in layers(net) if isinstance(module, nn.LocalResponseNorm)]
    assert norms == [{"n": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75}] * (2 if variant == "2012" else 0)
    kinds = [type(module) for _, module in layers(net)]
    dropped = [i for i, kind in enumerate(kinds) if kind is nn.Dropout]
    assert [layers(net)[i][1].p for i in dropped] == [0.5, 0.5]
    assert all((kinds[i + 1] if variant == "2014" else kinds[i - 2]) is nn.Linear for i in dropped)


def test_other_constants_of_normalization(unwritten):
    constants = {"n": 3, "k": 1.0, "alpha": 2e-5, "beta": 0.5}
    modules = [module for _, module in layers(model.alexnet("2012", lrn=constants))]
    assert [vars(module) for module in modules if isinstance(module, nn.LocalResponseNorm)] == [constants] * 2


def sample(parameter):
    """At most 200,000 of a parameter's numbers, from all over it."""
    return parameter.data.ravel()[:: 1 + parameter.size // 100_000].astype(np.float64)


def test_the_papers_initialization():
    """Section 5: weights N(0, 0.01); biases 1 in conv2, conv4, conv5 and the hidden linear layers, 0 elsewhere."""
    for name, p in model.alexnet("2012", 10, "paper").named_parameters():
        if name.endswith("bias"):
            assert (p.data == (name[:5] in ("conv2", "conv4", "conv5") or name[:3] in ("fc6", "fc7"))).all(), name
        else:
            assert sample(p).std() == pytest.approx(0.01, rel=0.02), name
            assert abs(sample(p).mean()) < 5 * 0.01 / math.sqrt(len(sample(p))), name


def test_he_initialization():
    """N(0, 2/fan_in), fan_in being what one group sees, between the pixels and the logits, where it is the paper's; no
    biases."""
    for name, p in model.alexnet("2012", 10, "he").named_parameters():
        if name.endswith("bias"):
            assert not p.data.any(), name
        else:
            ends = name[:3] == "fc8" or name[:5] == "conv1"
            he = math.sqrt(2 / math.prod(p.shape[:-1]))
            assert sample(p).std() == pytest.approx(0.01 if ends else he, rel=0.02), name


@pytest.mark.parametrize("settings", [{"variant": "2013"}, {"variant": 2012}, {"weight_init": "xavier"}])
def test_unknown_variants_and_initializations(settings):
    with pytest.raises(ValueError, match=r"2012.*2014.*tutorial.*he.*paper") as info:
        model.alexnet(**settings)
    assert repr(*settings.values()) in str(info.value)


def test_groups_of_normalization():
    """Each half of the channels as if it were alone, also of a worker that has no rows of a batch."""
    images = np.random.default_rng(0).standard_normal((2, 3, 3, 12)).astype(np.float32)
    halves = [nn.LocalResponseNorm(alpha=2.0)(Tensor(half)).data for half in np.split(images, 2, axis=-1)]
    grouped = model.normalization(2, alpha=2.0)
    np.testing.assert_array_equal(grouped(Tensor(images)).data, np.concatenate(halves, axis=-1))
    assert grouped(Tensor(images[:0])).shape == (0, 3, 3, 12)
    assert isinstance(model.normalization(1), nn.LocalResponseNorm)
