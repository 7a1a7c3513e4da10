"""The table of layers is the network that minicnn builds; two that differ are found out."""

import model
import numpy as np
import pytest

from benchmarks import networks, sections
from benchmarks.turns import BenchmarkError
from minicnn import nn
from minicnn.nn import init

KINDS = {
    **{"conv": nn.Conv2d, "relu": nn.ReLU, "lrn": nn.LocalResponseNorm, "pool": nn.MaxPool2d},
    **{"flatten": nn.Flatten, "linear": nn.Linear, "dropout": nn.Dropout},
}


@pytest.mark.parametrize("network", networks.INPUT_SIZE)
def test_the_table_is_the_examples_network(network, monkeypatch):
    for name in ("he", "normal"):
        monkeypatch.setattr(init, name, lambda *_: lambda shape: np.zeros(shape, np.float32))
    table = networks.layers(network)
    net = model.alexnet(network)
    modules = [module for _, module in net.named_modules() if not any(module.named_children())]
    assert [KINDS[layer.kind] for layer in table] == [type(module) for module in modules]
    for layer, module in zip(table, modules, strict=True):
        if layer.kind == "conv":
            assert (layer.stride, layer.padding, layer.groups) == (module.stride, module.padding, module.groups)
        if layer.kind in ("conv", "linear"):
            assert layer.weight_shape == module.weight.shape
    assert networks.INPUT_SIZE[network] == model.INPUT_SIZE[network]
    assert len({layer.name for layer in table}) == len(table)
    assert table[-1].outputs == networks.CLASSES


def test_pictures_and_weights_repeat(monkeypatch):
    monkeypatch.setattr(networks, "layers", lambda _: [networks.Layer("fc", "linear", 3, 4)])
    first, second = networks.weights("2012"), networks.weights("2012")
    assert first.keys() == {"fc.weight", "fc.bias"}
    assert all((first[name] == second[name]).all() and first[name].any() for name in first)
    (x, labels), (y, others) = networks.pictures("2012", 3), networks.pictures("2012", 3)
    assert x.shape == (3, 227, 227, 3) and (x == y).all() and (labels == others).all()


def gradients(changed=None, factor=1.0):
    made = {"conv1.weight": np.linspace(1, 2, 12), "conv1.bias": np.linspace(-1, 1, 4)}
    if changed in made:
        made[changed] = made[changed] * factor
    return 7.0 * (factor if changed == "loss" else 1), made


def test_the_same_numbers_agree():
    found = sections.agree(gradients(), gradients("conv1.bias", 1.0001), "2012", "PyTorch")
    assert found["loss"] == 0 and found["parameter"] == "conv1.bias"
    assert found["gradient"] == pytest.approx(1e-4)


@pytest.mark.parametrize(
    "name, factor", [("loss", 1.001), ("conv1.weight", 1.01), ("conv1.bias", -1), ("loss", np.nan)]
)
def test_a_perturbed_one_is_named_with_its_difference(name, factor):
    with pytest.raises(BenchmarkError, match=rf"2012 network: minicnn and PyTorch .*{name} differs by [\dn]") as info:
        sections.agree(gradients(), gradients(name, factor), "2012", "PyTorch")
    assert "\n" not in str(info.value)
