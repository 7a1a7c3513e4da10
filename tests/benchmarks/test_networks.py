"""The networks, the names of their layers and parameters; two networks that differ are found out."""

from collections import Counter

import numpy as np
import pytest

from benchmarks import networks, sections
from benchmarks.turns import BenchmarkError
from minicnn import Tensor, nn


@pytest.mark.parametrize("network", networks.YEARS)
def test_layers_and_parameters_have_a_short_name_each(network):
    net = networks.build(network)
    layers = networks.layers(net)
    hidden = (
        ["", "fc6 relu6 dropout6 fc7 relu7 dropout7"]
        if network == "2012"
        else ["dropout5", "fc6 relu6 dropout6 fc7 relu7"]
    )
    norms = [" lrn1", " lrn2"] if network == "2012" else ["", ""]
    assert [name for name, _ in layers] == [
        *f"conv1 relu1{norms[0]} pool1 conv2 relu2{norms[1]} pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5".split(),
        *f"flatten5 {hidden[0]} {hidden[1]} fc8".split(),
    ]
    parameters = networks.parameters(layers)
    assert list(parameters.values()) == list(net.parameters()) and net.fc8.bias.size == networks.CLASSES
    assert parameters["conv2.weight"] is net.conv2.conv.weight and parameters["fc8.bias"] is net.fc8.bias
    assert networks.sides(layers) == {"fc6.weight": 6}


@pytest.mark.parametrize(
    "network, names, sides, numbers",
    [
        ("cuda-convnet", "conv1 pool1 relu1 conv2 relu2 pool2 conv3 relu3 pool3 flatten3 fc4 relu4 fc5", {"fc4.weight": 4}, 145_578),
        ("lenet", "conv1 relu1 pool1 conv2 relu2 pool2 flatten2 fc3 relu3 fc4 relu4 dropout4 fc5", {"fc3.weight": 5}, 61_706),
        ("mlp", "fc1 relu1 fc2 relu2 fc3", {}, 669_706),
        ("vgg11", None, {"fc9.weight": 1}, 9_228_362),
    ],
)  # fmt: skip
def test_small_networks(network, names, sides, numbers):
    net = networks.build(network)
    layers = networks.layers(net)
    assert names is None or [name for name, _ in layers] == names.split()
    assert networks.sides(layers) == sides and sum(p.size for p in net.parameters()) == numbers
    x, labels = networks.pictures(network, 3)
    image, classes = networks.NETWORKS[network].image, networks.NETWORKS[network].classes
    assert net(Tensor(x)).shape == (3, classes) and x.shape == (3, *image) and labels.shape == (3,)


def test_vgg11_is_its_papers_column_a():
    layers = networks.layers(networks.vgg11())
    convolutions = [module.weight.shape for name, module in layers if name.startswith("conv")]
    assert [shape[-1] for shape in convolutions] == [64, 128, 256, 256, 512, 512, 512, 512]
    assert {shape[:2] for shape in convolutions} == {(3, 3)}
    assert [name for name, _ in layers if name.startswith("pool")] == ["pool1", "pool2", "pool4", "pool6", "pool8"]
    kinds = Counter(type(module) for _, module in layers)
    assert kinds[nn.BatchNorm2d] == kinds[nn.ReLU] == 8


def test_scales_and_biases_are_drawn_near_what_they_were():
    scale = nn.Parameter(np.ones(1000, np.float32))
    networks.draw([scale])
    assert 0.95 < scale.data.mean() < 1.05 and 0.09 < scale.data.std() < 0.11 and scale.data.dtype == np.float32


def test_pictures_and_weights_repeat():
    first, second = ([nn.Parameter(np.zeros((3, 4), np.float32)), nn.Parameter(np.zeros(4))] for _ in range(2))
    for parameters in (first, second):
        networks.draw(parameters)
    assert all((p.data == q.data).all() and p.data.all() for p, q in zip(first, second, strict=True))
    (x, labels), (y, others) = networks.pictures("2012", 3), networks.pictures("2012", 3)
    assert x.shape == (3, 227, 227, 3) and (x == y).all() and (labels == others).all()
    assert (
        x.dtype == np.float32
        and networks.pictures("mlp", 500)[1].max() == 9
        and networks.pictures("2014", 0)[0].shape[1] == 224
    )


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
