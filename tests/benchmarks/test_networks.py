"""The names of the layers and of their parameters; two networks that differ are found out."""

import numpy as np
import pytest

from benchmarks import networks, sections
from benchmarks.turns import BenchmarkError
from minicnn import nn


@pytest.mark.parametrize("network", networks.YEARS)
def test_layers_and_parameters_have_a_short_name_each(network):
    net = networks.build(network)
    layers = networks.layers(net)
    hidden = "fc{} relu{} dropout{}" if network == "2012" else "dropout{} fc{} relu{}"
    norms = [" lrn1", " lrn2"] if network == "2012" else ["", ""]
    assert [name for name, _ in layers] == [
        *f"conv1 relu1{norms[0]} pool1 conv2 relu2{norms[1]} pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5".split(),
        *f"flatten {hidden.format(6, 6, 6)} {hidden.format(7, 7, 7)} fc8".split(),
    ]
    parameters = networks.parameters(layers)
    assert list(parameters.values()) == list(net.parameters()) and net.fc8.bias.size == networks.CLASSES
    assert parameters["conv2.weight"] is net.conv2.conv.weight and parameters["fc8.bias"] is net.fc8.bias


def test_pictures_and_weights_repeat():
    first, second = ([nn.Parameter(np.zeros((3, 4), np.float32)), nn.Parameter(np.zeros(4))] for _ in range(2))
    for parameters in (first, second):
        networks.draw(parameters)
    assert all((p.data == q.data).all() and p.data.all() for p, q in zip(first, second, strict=True))
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
