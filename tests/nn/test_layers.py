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
    (nn.ConvTranspose2d(4, 6, 3), lambda m, x: F.conv_transpose2d(x, m.weight, m.bias), (2, 5, 5, 4),
     "ConvTranspose2d(4, 6, kernel_size=3)  # 222 parameters"),
    (nn.ConvTranspose2d(4, 6, (3, 2), (2, 1), 1, (1, 0), dilation=2, groups=2, bias=False),
     lambda m, x: F.conv_transpose2d(x, m.weight, None, (2, 1), 1, (1, 0), dilation=2, groups=2), (2, 5, 6, 4),
     "ConvTranspose2d(4, 6, kernel_size=(3, 2), stride=(2, 1), padding=1, output_padding=(1, 0), dilation=2, groups=2, bias=False)"
     "  # 72 parameters"),
    (nn.LeakyReLU(0.2), lambda m, x: F.leaky_relu(x, 0.2), (2, 5), "LeakyReLU(negative_slope=0.2)"),
    (nn.Identity(), lambda m, x: x, (2, 5), "Identity()"),
    (nn.Softmax(), lambda m, x: F.softmax(x), (2, 5), "Softmax(axis=-1)"),
    (nn.LogSoftmax(0), lambda m, x: F.log_softmax(x, 0), (2, 5), "LogSoftmax(axis=0)"),
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
      for name in nn.__all__ if hasattr(activation, name) and name != "LeakyReLU"],
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
        loss, target = nn.MSELoss(reduction=reduction)(logits, np.ones((4, 3))), Tensor(np.ones((4, 3), np.float32))
        np.testing.assert_array_equal(loss.data, F.mse_loss(logits, target, reduction=reduction).data)
    assert nn.CrossEntropyLoss()(logits, labels).shape == nn.MSELoss()(logits, logits.data).shape == ()


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
    transposed = nn.ConvTranspose2d(64, 128, 5, groups=2)
    assert transposed.weight.shape == (5, 5, 64, 64)
    for layer, fan_in in [
        (nn.Conv2d(64, 128, 5, groups=2), 5 * 5 * 32), (transposed, 5 * 5 * 32), (nn.Linear(500, 200), 500)
    ]:  # fmt: skip
        np.testing.assert_allclose(layer.weight.data.var(), 2 / fan_in, rtol=0.05)


@pytest.mark.parametrize("kernel, dilation", [(3, 1), ((4, 2), 1), ((1, 5), (3, 2))])
def test_padding_that_keeps_the_size(kernel, dilation):
    """The odd zero is on the far side, as in PyTorch."""
    layer, x = nn.Conv2d(3, 2, kernel, padding="same", dilation=dilation), image(2, 9, 7, 3)
    (kh, kw), (dh, dw) = (pair if isinstance(pair, tuple) else (pair, pair) for pair in (kernel, dilation))
    spans = dh * (kh - 1), dw * (kw - 1)
    widths = [(span // 2, span - span // 2) for span in spans]
    padded = np.pad(x.data, ((0, 0), *widths, (0, 0)))
    y = layer(x)
    assert y.shape == (2, 9, 7, 2)
    np.testing.assert_array_equal(y.data, F.conv2d(Tensor(padded), layer.weight, layer.bias, dilation=dilation).data)


def test_a_transposed_convolution_takes_as_many_operations_as_the_convolution():
    conv, back = nn.Conv2d(4, 6, 3, 2, groups=2), nn.ConvTranspose2d(6, 4, 3, 2, groups=2)
    x, y = (2, 9, 7, 4), (2, 4, 3, 6)
    assert conv(image(*x)).shape == y and back(image(*y)).shape == x
    assert back.flops(y, x) == conv.flops(x, y) > 0


def test_settings_that_do_not_fit():
    for channels in ((3, 4), (4, 3)):
        for layer in (nn.Conv2d, nn.ConvTranspose2d):
            fails(ValueError, f"{layer.__name__}: groups=2.*3", layer, *channels, 3, groups=2)
    for groups in (0, -1, 1.0, "2", None):
        for layer in (nn.Conv2d, nn.ConvTranspose2d):
            fails(
                ValueError,
                f"{layer.__name__}: groups must be a whole number.*not {groups!r}",
                layer,
                4,
                4,
                3,
                groups=groups,
            )
    for kernel in (0, (3, 0), (1, 2, 3), "3"):
        fails((ValueError, TypeError), "kernel_size", nn.Conv2d, 4, 4, kernel)
    fails(ValueError, 'padding="same" needs a stride of 1, not 2', nn.Conv2d, 3, 8, 3, 2, padding="same")
    for make in (
        nn.MaxPool2d,
        nn.AvgPool2d,
        lambda k, *a: nn.Conv2d(3, 8, k, *a),
        lambda k, *a: nn.ConvTranspose2d(3, 8, k, *a),
    ):
        for arguments, words in (
            ((0,), "kernel_size"),
            ((3, 0), "stride"),
            ((3, 1, -1), "padding"),
            ((3, 1, "valid"), "padding.*'valid'"),
        ):
            fails(ValueError, words, make, *arguments)
    for layer in (nn.MaxPool2d, nn.AvgPool2d):
        for kernel, padding in ((3, 2), ((4, 2), (1, 2)), (2, ((0, 2), 0))):
            fails(
                ValueError, f"^{layer.__name__}: padding .* is more than half of the window", layer, kernel, 1, padding
            )
    for stride, dilation, extra in (
        (1, 1, 1),
        (2, 1, 2),
        ((2, 3), 1, (2, 0)),
        (1, 2, 2),
        (2, 1, -1),
        (2, 1, 0.5),
        (2, 1, "1"),
    ):
        fails(
            ValueError,
            "^ConvTranspose2d: output_padding",
            nn.ConvTranspose2d,
            3,
            8,
            3,
            stride,
            0,
            extra,
            dilation=dilation,
        )
    fails(ValueError, "output_size", nn.AdaptiveAvgPool2d, 0)
    for make in (
        lambda **o: nn.Linear(4, 2, **o),
        lambda **o: nn.Conv2d(4, 2, 1, **o),
        lambda **o: nn.ConvTranspose2d(4, 2, 1, **o),
    ):
        for wrong in (nn.init.xavier, nn.init.normal):  # without brackets
            fails(TypeError, "weight_init takes a shape.*parentheses", make, weight_init=wrong)
        fails(ValueError, r"weight_init made an array of shape \(1,\)", make, weight_init=lambda shape: np.ones(1))
    for make in (
        lambda: nn.Linear(0, 2),
        lambda: nn.Linear(2, 0),
        lambda: nn.Conv2d(0, 2, 1),
        lambda: nn.Conv2d(2, 0, 1),
    ):
        fails(ValueError, "(in|out)_(channels|features) must be a whole number from 1, not 0", make)


def test_what_a_pooling_layer_says_of_itself():
    for layer, text in (
        (nn.MaxPool2d(3, 2, 1), "MaxPool2d(kernel_size=3, stride=2, padding=1)"),
        (nn.MaxPool2d(3, 2, 1, 2, ceil_mode=True), "MaxPool2d(kernel_size=3, stride=2, padding=1, dilation=2, ceil_mode=True)"),
        (nn.AvgPool2d(2, 2, 0, True, False), "AvgPool2d(kernel_size=2, stride=2, ceil_mode=True, count_include_pad=False)"),
    ):  # fmt: skip
        assert repr(layer) == text


def test_sizes_that_are_no_whole_numbers():
    for layer, arguments in ((nn.Linear, ()), (nn.Conv2d, (3,)), (nn.ConvTranspose2d, (3,))):
        for bad in (2.0, "2", None, -3, (2,)):
            for sizes in ((bad, 1), (1, bad)):
                words = (
                    rf"^{layer.__name__}: {'in' if sizes[0] is bad else 'out'}_\w+ must be a whole number from 1, not "
                )
                assert fails(ValueError, words, layer, *sizes, *arguments).endswith(repr(bad))
    net = nn.Sequential(fc=nn.Linear(2, 1))
    words = r"^fc \(Linear\): .*dtypes float32 and float64 do not mix: convert the float64 one, x.astype\(np.float32\)$"
    fails(TypeError, words, net, Tensor(np.ones((1, 2))))


def test_settings_that_no_batch_would_fit():
    """They are refused when the layer is made, not at its first batch."""
    nan, inf = float("nan"), float("inf")
    weights = {"negative": [1.0, -1.0], "infinite": [inf, 1.0], "NaN": [1.0, nan]}
    for make, name, bad_ones in (
        (nn.Dropout, "p", (1.5, -0.1, nan, "0.5", None, (0.5, 0.5))),
        (nn.Dropout, "scale", ("inference", None, 1.0)),
        (nn.LocalResponseNorm, "n", (0, -1, 5.0, "5")),
        *((nn.LocalResponseNorm, name, (nan, inf, "2")) for name in ("k", "alpha", "beta")),
        (nn.BatchNorm2d, "num_features", (0, -1, 3.0, "3")),
        (lambda eps: nn.BatchNorm2d(3, eps), "eps", (-1.0, nan, inf, "0", None)),
        (lambda momentum: nn.BatchNorm2d(3, momentum=momentum), "momentum", (-0.1, 1.1, nan, None, "0.1")),
        (nn.LeakyReLU, "negative_slope", (nan, -inf, "0.1", None, [0.1])),
        (nn.AdaptiveAvgPool2d, "output_size", (0, -1, 1.5, (1, 2, 3), None)),
        (nn.Softmax, "axis", (None, 1.0, "last")),
        (nn.LogSoftmax, "axis", (None, (0, 1))),
        (nn.MSELoss, "reduction", ("average", None, 1)),
        (nn.BCEWithLogitsLoss, "reduction", ("Mean", np.ones(2))),
        (nn.CrossEntropyLoss, "reduction", ("median", None)),
        (nn.CrossEntropyLoss, "label_smoothing", (1.1, -0.1, nan, "0.1", None)),
        (nn.CrossEntropyLoss, "ignore_index", (0.5, "0", [1, 2])),
        (nn.CrossEntropyLoss, "weight", (1.0, "heavy", ["a", "b"], [[1.0]], [True, False], [None, 1.0], *weights.values())),
    ):  # fmt: skip
        for bad in bad_ones:
            fails(ValueError, f"^\\w+: {name}\\b.* not ", make, **{name: bad})
    for bad in weights.values():
        fails(
            ValueError,
            "weight, each element of it, must be a finite number from 0, not (-1.0|nan|inf)",
            nn.CrossEntropyLoss,
            weight=bad,
        )
    (
        nn.Dropout(0),
        nn.Dropout(1),
        nn.BatchNorm2d(1, 0, 1),
        nn.BatchNorm2d(1, momentum=0),
        nn.LeakyReLU(-1),
        nn.MaxPool2d(2, 1, 1),
    )
    (
        nn.CrossEntropyLoss(weight=[0, 1], label_smoothing=1, ignore_index=np.int64(-100)),
        nn.ConvTranspose2d(1, 1, 3, 2, 0, 1),
    )


def test_flags_and_numbers_of_layers():
    for make in (
        lambda **options: nn.Linear(2, 3, **options),
        lambda **options: nn.Conv2d(2, 4, 3, **options),
        lambda **options: nn.ConvTranspose2d(2, 4, 3, **options),
    ):
        for bias in ("no", 2, Tensor(np.ones(3)), None):
            fails(ValueError, r"^(Linear|Conv2d|ConvTranspose2d): bias is False or True, not ", make, bias=bias)
        for value in ("a", None, np.nan, np.ones(3)):
            fails(
                ValueError, "^(Linear|Conv2d|ConvTranspose2d): bias_init must be a number, not ", make, bias_init=value
            )
        assert make(bias=np.False_).bias is None and make(bias=1).bias is not None
    for make, flag in ((nn.MaxPool2d, "ceil_mode"), (nn.AvgPool2d, "ceil_mode"), (nn.AvgPool2d, "count_include_pad")):
        fails(ValueError, f"^{make.__name__}: {flag} is False or True, not 'a'$", make, 2, **{flag: "a"})
    fails(ValueError, "^Linear: the weight's shape must be one that memory can hold", nn.Linear, 10**18, 10**18)
    fails(ValueError, "^BatchNorm2d: num_features must be one that memory can hold", nn.BatchNorm2d, 10**18)
    fails(ValueError, "^AdaptiveAvgPool2d: output_size must be at most 1,048,576, not ", nn.AdaptiveAvgPool2d, 10**9)
    fails(ValueError, r"^Flatten needs x of \(N, …\), not a number$", nn.Flatten().forward, Tensor(1.0))
    fails(TypeError, "^Flatten: x must be a Tensor, not 3$", nn.Flatten().forward, 3)


def test_settings_become_pythons_numbers():
    """A float64 or a 0-d array does not change a layer's dtype, nor what it shows."""
    assert repr(nn.LeakyReLU(np.float64(0.5))) == "LeakyReLU(negative_slope=0.5)"
    assert repr(nn.Dropout(np.float32(0.5))) == "Dropout(p=0.5)"
    assert (
        repr(nn.LocalResponseNorm(np.int64(3), k=np.array(1.0)))
        == "LocalResponseNorm(n=3, k=1.0, alpha=0.0001, beta=0.75)"
    )
    assert "eps=0.5, momentum=0.25" in repr(nn.BatchNorm2d(2, np.float64(0.5), np.float64(0.25)))
