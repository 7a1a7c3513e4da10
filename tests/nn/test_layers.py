"""The layers: each hands its settings and parameters to its function, and says so in its repr."""

import numpy as np
import pytest
from reference import fails

from minicnn import Tensor, nn
from minicnn import functional as F
from minicnn.functional import activation


def image(*shape, dtype=np.float32):
    return Tensor(np.random.default_rng(0).standard_normal(shape).astype(dtype), requires_grad=True)


LAYERS = [  # (layer, the same function, input shape, repr)
    (nn.Conv2d(4, 6, 3), lambda m, x: F.conv2d(x, m.weight, m.bias), (2, 7, 7, 4), "Conv2d(4, 6, kernel_size=3)  # 222 parameters"),
    (nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), 2, groups=2, bias=False),
     lambda m, x: F.conv2d(x, m.weight, None, (2, 1), (1, 0), 2, 2), (2, 9, 8, 4),
     "Conv2d(4, 6, kernel_size=(3, 2), stride=(2, 1), padding=(1, 0), dilation=2, groups=2, bias=False)  # 72 parameters"),
    (nn.Linear(5, 3), lambda m, x: F.linear(x, m.weight, m.bias), (2, 4, 5), "Linear(5, 3)  # 18 parameters"),
    (nn.Linear(5, 3, bias=False), lambda m, x: x @ m.weight, (2, 5), "Linear(5, 3, bias=False)  # 15 parameters"),
    (nn.MaxPool2d(3, 2), lambda m, x: F.max_pool2d(x, 3, 2), (2, 7, 7, 3), "MaxPool2d(kernel_size=3, stride=2)"),
    (nn.MaxPool2d(2), lambda m, x: F.max_pool2d(x, 2), (2, 7, 7, 3), "MaxPool2d(kernel_size=2, stride=2)"),
    (nn.MaxPool2d((3, 2), 2, 1, (1, 2), ceil_mode=True), lambda m, x: F.max_pool2d(x, (3, 2), 2, 1, (1, 2), True), (2, 8, 8, 3), None),
    (nn.AvgPool2d(2), lambda m, x: F.avg_pool2d(x, 2), (2, 7, 7, 3), "AvgPool2d(kernel_size=2, stride=2)"),
    (nn.AvgPool2d(3, 2, 1, True, False), lambda m, x: F.avg_pool2d(x, 3, 2, 1, True, False), (2, 8, 8, 3), None),
    (nn.AdaptiveAvgPool2d((2, 3)), lambda m, x: F.adaptive_avg_pool2d(x, (2, 3)), (2, 5, 4, 2), "AdaptiveAvgPool2d(output_size=(2, 3))"),
    (nn.LocalResponseNorm(), lambda m, x: F.local_response_norm(x, 5, k=2.0, alpha=1e-4, beta=0.75), (2, 3, 3, 8),
     "LocalResponseNorm(n=5, k=2.0, alpha=0.0001, beta=0.75)"),
    (nn.LocalResponseNorm(3, k=1.0, alpha=0.5, beta=0.6), lambda m, x: F.local_response_norm(x, 3, k=1.0, alpha=0.5, beta=0.6), (2, 8), None),
    (nn.Flatten(), lambda m, x: x.reshape(2, 24), (2, 3, 4, 2), "Flatten()"),
    (nn.Flatten(), lambda m, x: x.reshape(0, 24), (0, 3, 4, 2), "Flatten()"),
    *[(getattr(nn, name)(), lambda m, x: getattr(F, type(m).__name__.lower())(x), (3, 4), f"{name}()")
      for name in nn.__all__ if hasattr(activation, name)],
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_a_layer_is_its_function(number):
    layer, function, shape, text = LAYERS[number]
    x = image(*shape)
    if getattr(layer, "bias", None) is not None:
        layer.bias.data[:] = np.arange(layer.bias.size)
    gradients = []
    for f in (layer, lambda x: function(layer, x)):
        layer.zero_grad()
        x.grad = None
        y = f(x)
        (y * y).sum().backward()
        gradients.append([y.data, x.grad.data, *[p.grad.data for p in layer.parameters()]])
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)
    if text:
        assert repr(layer) == text


def test_dropout_works_in_training_only():
    layer, x = nn.Dropout(0.25), Tensor(np.ones((100, 100), np.float32))
    y = layer(x).data
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)} and abs((y == 0).mean() - 0.25) < 0.02
    assert (layer(x).data != y).any()
    assert layer.eval()(x) is x
    assert repr(layer) == "Dropout(p=0.25)" and nn.Dropout().p == 0.5


def test_dropout_as_in_the_paper():
    layer, x = nn.Dropout(0.25, scale="evaluation"), Tensor(np.ones((100, 100), np.float32))
    assert set(np.unique(layer(x).data)) == {0, 1} and (layer.eval()(x).data == 0.75).all()
    assert repr(layer) == "Dropout(p=0.25, scale='evaluation')"


def test_batch_norm_keeps_running_statistics():
    layer = nn.BatchNorm2d(3, eps=1e-3, momentum=0.25)
    assert [a.tolist() for a in layer.state_dict().values()] == [[1] * 3, [0] * 3, [0] * 3, [1] * 3]
    assert list(layer.state_dict()) == ["gamma", "beta", "running_mean", "running_var"]
    assert repr(layer) == "BatchNorm2d(3, eps=0.001, momentum=0.25)  # 6 parameters"
    x = image(4, 5, 5, 3)
    layer.gamma.data[:], layer.beta.data[:] = 2, 1
    mean, var = np.zeros(3, np.float32), np.ones(3, np.float32)
    settings = dict(gamma=layer.gamma, beta=layer.beta, running_mean=mean, running_var=var, eps=1e-3, momentum=0.25)
    for training in (True, False):  # the function changes its statistics as well
        layer.train(training)
        np.testing.assert_array_equal(layer(x).data, F.batch_norm(x, **settings, training=training).data)
        np.testing.assert_array_equal((layer.running_mean, layer.running_var), (mean, var))
    assert mean.any() and layer.running_mean.dtype == np.float32


def test_loss():
    logits, labels = image(4, 3), np.array([0, 2, 1, 1])
    for reduction in ("mean", "sum", "none"):
        loss = nn.CrossEntropyLoss(reduction=reduction)(logits, labels)
        np.testing.assert_array_equal(loss.data, F.cross_entropy(logits, labels, reduction=reduction).data)
    assert nn.CrossEntropyLoss()(logits, labels).shape == ()


def test_where_weights_and_biases_start():
    conv = nn.Conv2d(
        4, 6, (3, 5), groups=2, weight_init=lambda shape: np.full(shape, len(shape), np.float32), bias_init=1.5
    )
    assert conv.weight.shape == (3, 5, 2, 6) and (conv.weight.data == 4).all()
    assert (
        conv.bias.shape == (6,) and (conv.bias.data == 1.5).all() and conv.bias.dtype == conv.weight.dtype == np.float32
    )
    linear = nn.Linear(4, 6, weight_init=nn.init.constant(2.0), bias_init=-1)
    assert linear.weight.shape == (4, 6) and (linear.weight.data == 2).all() and (linear.bias.data == -1).all()
    assert not nn.Conv2d(1, 1, 1).bias.data.any() and nn.Linear(1, 1, bias=False).bias is None
    # He's by default: variance 2 / fan_in
    for layer, fan_in in [(nn.Conv2d(64, 128, 5, groups=2), 5 * 5 * 32), (nn.Linear(500, 200), 500)]:
        np.testing.assert_allclose(layer.weight.data.var(), 2 / fan_in, rtol=0.05)


def test_settings_that_do_not_fit():
    for channels in ((3, 4), (4, 3)):
        fails(ValueError, "groups=2.*3", nn.Conv2d, *channels, 3, groups=2)
    fails(ValueError, "groups", nn.Conv2d, 4, 4, 3, groups=0)
    for kernel in (0, (3, 0), (1, 2, 3), "3"):
        fails((ValueError, TypeError), "kernel_size", nn.Conv2d, 4, 4, kernel)
