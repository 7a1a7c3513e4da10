"""The same weights and the same data give the same numbers in PyTorch, where it is installed: the operations, and all
variants of AlexNet."""

import importlib

import numpy as np
import pytest
from convert import channels_first, side_seen
from model import INPUT_SIZE, alexnet

import minicnn.functional as F
from benchmarks import networks
from minicnn import Tensor, get_num_threads, nn

torch = pytest.importorskip("torch")
pytorch = importlib.import_module("benchmarks.pytorch")
pytestmark = pytest.mark.torch
TF = torch.nn.functional


def relative(ours, theirs):
    theirs = theirs.detach().numpy()
    return float(abs(ours - theirs).max() / abs(theirs).max())


def first(x):
    """(N, H, W, C) -> (N, C, H, W)"""
    return x.permute(0, 3, 1, 2)


def last(x):
    return x.permute(0, 2, 3, 1)


WEIGHTS = {"conv2d": (3, 2, 2, 6), "conv_transpose2d": (3, 2, 2, 6)}
OPERATIONS = [
    ("conv2d", dict(stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)),
    ("conv_transpose2d", dict(stride=(3, 2), padding=(1, 2), output_padding=(2, 1), dilation=(1, 2), groups=2)),
    ("conv_transpose2d", dict(stride=1, output_padding=1, dilation=2, groups=2)),
    ("max_pool2d", dict(kernel_size=3, stride=2, ceil_mode=True)),
    ("max_pool2d", dict(kernel_size=(3, 2), stride=(2, 3), padding=1, dilation=(1, 2), ceil_mode=True)),
    ("max_pool2d", dict(kernel_size=(2, 3), stride=(4, 3), padding=1, ceil_mode=False)),
    ("avg_pool2d", dict(kernel_size=3)),
    ("avg_pool2d", dict(kernel_size=(2, 3), stride=(4, 3), padding=1, ceil_mode=True)),
    ("avg_pool2d", dict(kernel_size=3, stride=2, padding=1, ceil_mode=True, count_include_pad=False)),
    ("local_response_norm", dict(n=5, k=2.0, alpha=0.9, beta=0.75)),
    ("local_response_norm", dict(n=4, k=1.0, alpha=0.9, beta=0.6)),
]


@pytest.mark.parametrize("name, options", OPERATIONS)
def test_operations(name, options):
    rng = np.random.default_rng(0)
    channels = 6 if name == "conv_transpose2d" else 4
    shapes = [(2, 9, 8, channels)] + ([WEIGHTS[name], (6 if name == "conv2d" else 4,)] if name in WEIGHTS else [])
    tensors = [Tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes]
    x, *parameters = others = [torch.tensor(t.data, requires_grad=True) for t in tensors]
    if parameters:
        theirs = getattr(TF, name)(first(x), parameters[0].permute(3, 2, 0, 1), parameters[1], **options)
    elif name == "local_response_norm":
        n, k, alpha, beta = options.values()
        theirs = TF.local_response_norm(first(x), n, alpha * n, beta, k)
    else:
        theirs = getattr(TF, name)(first(x), **options)
    ours = getattr(F, name)(*tensors, **options)
    assert relative(ours.data, last(theirs)) < 1e-12

    dy = rng.standard_normal(ours.shape)
    ours.backward(dy)
    last(theirs).backward(torch.tensor(dy))
    for t, other in zip(tensors, others, strict=True):
        assert relative(t.grad.data, other.grad) < 1e-12


def test_batch_norm_and_cross_entropy():
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal((5, 2, 3, 4)), rng.standard_normal(4), rng.standard_normal(4)
    for training in (True, False):
        tensors = [Tensor(a, requires_grad=True) for a in arrays]
        others = [torch.tensor(a, requires_grad=True) for a in arrays]
        running, statistics = [(np.ones(4), np.full(4, 2.0)) for _ in range(2)]
        statistics = [torch.tensor(s) for s in statistics]
        ours = zip(("gamma", "beta", "running_mean", "running_var"), (*tensors[1:], *running), strict=True)
        y = F.batch_norm(tensors[0], **dict(ours), training=training)
        x, gamma, beta = others
        theirs = last(TF.batch_norm(first(x), *statistics, gamma, beta, training))
        labels = rng.integers(0, 24, 5)
        loss = F.cross_entropy(y.reshape(5, 24), labels)
        other = TF.cross_entropy(theirs.reshape(5, 24), torch.tensor(labels))
        loss.backward()
        other.backward()
        assert relative(loss.data, other) < 1e-12
        for ours, other in zip(running, statistics, strict=True):
            assert relative(ours, other) < 1e-12
        for t, other in zip(tensors, others, strict=True):
            assert relative(t.grad.data, other.grad) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("variant, groups", [("2012", True), ("2012", False), ("2014", False), ("tutorial", False)])
def test_alexnet(variant, groups):
    """Logits and every gradient, dropout off, in float64, of the network that the benchmarks measure
    beside minicnn's. The largest relative error found was 2e-14."""
    net = alexnet(variant, classes=10, groups=groups).astype(np.float64).eval()
    rng = np.random.default_rng(0)
    for p in net.parameters():
        # the classifier starts near 0 and biases at 0, which would hide mistakes
        p.data[...] = rng.standard_normal(p.shape) * np.sqrt(2 / np.prod(p.shape[:-1]))
    theirs = pytorch.twin(networks.layers(net)).eval()
    x, labels = rng.standard_normal((2, INPUT_SIZE[variant], INPUT_SIZE[variant], 3)), np.array([3, 7])
    images, pixels = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    ours, other = net(images), theirs(first(pixels))
    F.cross_entropy(ours, labels).backward()
    TF.cross_entropy(other, torch.tensor(labels)).backward()

    errors = {"logits": relative(ours.data, other), "images": relative(images.grad.data, pixels.grad)}
    for (name, p), q in zip(net.named_parameters(), theirs.parameters(), strict=True):
        converted = channels_first(p.grad.data, side_seen(name))
        assert converted.shape == q.grad.shape
        errors[name] = relative(converted, q.grad)
    assert max(errors.values()) < 1e-9, errors


def test_layers_of_the_benchmarks_have_the_settings_of_ours():
    norm = pytorch.TWINS[nn.LocalResponseNorm](nn.LocalResponseNorm(3, k=1.5, alpha=0.2, beta=0.6))
    assert (norm.size, norm.k, norm.alpha, norm.beta) == (3, 1.5, pytest.approx(0.6), 0.6)
    conv = pytorch.TWINS[nn.Conv2d](nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, dilation=2, groups=2))
    assert (conv.in_channels, conv.out_channels, conv.groups, conv.weight.shape) == (4, 6, 2, (6, 2, 3, 2))
    assert (conv.stride, conv.padding, conv.dilation) == ((2, 2), (1, 1), (2, 2))
    assert pytorch.TWINS[nn.Dropout](nn.Dropout(0.3)).p == 0.3
    linear, pool = pytorch.TWINS[nn.Linear](nn.Linear(4, 6)), pytorch.TWINS[nn.MaxPool2d](nn.MaxPool2d(3, 2))
    assert (linear.in_features, linear.out_features, pool.kernel_size, pool.stride) == (4, 6, 3, 2)
    assert pytorch.TWINS[nn.Conv2d](nn.Conv2d(4, 6, 3, bias=False)).bias is None and conv.bias is not None
    pool = pytorch.TWINS[nn.MaxPool2d](nn.MaxPool2d(3, 2, 1, 2, ceil_mode=True))
    assert (pool.padding, pool.dilation, pool.ceil_mode) == (1, 2, True)
    pool = pytorch.TWINS[nn.AvgPool2d](nn.AvgPool2d(3, 2, 1, True))
    assert (pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, pool.count_include_pad) == (
        3,
        2,
        1,
        True,
        True,
    )
    norm = pytorch.TWINS[nn.BatchNorm2d](nn.BatchNorm2d(5, eps=0.1, momentum=0.2))
    assert (norm.num_features, norm.eps, norm.momentum) == (5, 0.1, 0.2)


@pytest.mark.parametrize("network", ["cuda-convnet", "lenet", "vgg11", "mlp"])
def test_the_benchmarks_small_networks(network):
    """As they are checked before they are timed; here, with the numbers of threads that there are."""
    contender = importlib.import_module("benchmarks.ours").Network
    ours = contender(get_num_threads(), network, 3).gradients()
    theirs = pytorch.Network(torch.get_num_threads(), network, 3, best=True).gradients()
    assert networks.disagreement(networks.differences(ours, theirs), 1e-4, 1e-5) is None
