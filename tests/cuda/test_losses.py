"""Losses whose samples do not all count alike, and gradient clipping: on a GPU as on a CPU, on whichever of several."""

import numpy as np
import pytest
from limits import AT_INFINITY

import minicnn.functional as F
from minicnn import DeviceError, Tensor, nn, optim

LABELS = np.array([0, 2, 1, 1, 2])
OPTIONS = [
    {"weight": np.array([0.5, 2.0, 1.5])},
    {"ignore_index": 1},
    {"label_smoothing": 0.1},
    {"weight": [0.5, 2.0, 1.5], "ignore_index": 2, "label_smoothing": 0.2, "reduction": "none"},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("there", [False, True])
def test_cross_entropy(gpu, options, there):
    """With labels on the host, and with those that are where the logits are."""
    z = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    results = []
    for device in ("cpu", "gpu"):
        x = Tensor(z, requires_grad=True, device=device)
        labels = Tensor(LABELS, device=device) if there else LABELS
        loss = F.cross_entropy(x, labels, **options)
        loss.sum().backward()
        assert loss.device == x.grad.device == x.device
        results.append((loss.numpy(), x.grad.numpy()))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_an_ignored_row_may_hold_anything(gpu):
    z = np.array([[np.inf, 1.0, np.nan], [0.0, 1.0, 2.0]], np.float32)
    for options in ({}, {"label_smoothing": 0.1}, {"weight": [0.5, 2.0, 1.5]}):
        x = Tensor(z, requires_grad=True, device="gpu")
        loss = F.cross_entropy(x, [-1, 2], ignore_index=-1, **options)
        loss.backward()
        assert loss.item() == pytest.approx(F.cross_entropy(Tensor(z[1:]), [2], **options).item())
        assert not x.grad.numpy()[0].any() and x.grad.numpy()[1].all()


def test_on_another_gpu_than_the_current_one(standin):
    x = Tensor(np.ones((5, 3), np.float32), requires_grad=True, device="gpu:1")
    for options in OPTIONS:
        x.grad = None
        F.cross_entropy(x, Tensor(LABELS, device="gpu:1"), **options).sum().backward()
        assert x.grad.device == "gpu:1"
    p = nn.Parameter(x.data)
    p.grad = Tensor(np.full((5, 3), 2.0, np.float32), device="gpu:1")
    assert optim.clip_grad_norm([p], 1.0) == pytest.approx(60**0.5) and p.grad.device == "gpu:1"
    np.testing.assert_allclose(p.grad.numpy(), 60**-0.5 * 2, rtol=1e-6)


def test_binary_cross_entropy_and_float16(gpu):
    x = Tensor(np.array([-3.0, 0.0, 2.0], np.float32), requires_grad=True, device="gpu")
    F.binary_cross_entropy_with_logits(x, Tensor([0.0, 1.0, 0.5], device="gpu")).backward()
    np.testing.assert_allclose(x.grad.numpy(), (1 / (1 + np.exp([3.0, 0, -2])) - [0, 1, 0.5]) / 3, rtol=1e-5)
    half = Tensor(np.full((1, 4, 4, 8), 300.0, np.float16), device="gpu")
    assert F.avg_pool2d(half, 2).numpy().tolist() == np.full((1, 2, 2, 8), 300.0).tolist()
    assert half.mean().item() == 300 and half.var().item() == 0


@pytest.mark.parametrize("name", AT_INFINITY)
def test_limits_are_reached(name, gpu):
    function, values, gradients = AT_INFINITY[name]
    x = Tensor(np.array([-np.inf, np.inf], np.float32), requires_grad=True, device="gpu")
    y = function(x)
    y.backward(Tensor(np.ones(2, np.float32), device="gpu"))
    np.testing.assert_array_equal(y.numpy(), values)
    np.testing.assert_array_equal(x.grad.numpy(), gradients)


def test_methods_without_a_gradient_on_another_gpu(standin):
    array = np.array([[1.0, -2.0], [0.0, 3.0]], np.float32)
    x = Tensor(array, device="gpu:1")
    for f, expected in (
        (lambda x: x.argmax(), 3), (lambda x: x.argmin(1), [1, 0]), (lambda x: x.any(0), [True, True]),
        (lambda x: x.all(), False), (lambda x: ~(x > 0), array <= 0), (lambda x: x.astype(np.int64), array.astype(int)),
        (lambda x: F.where(x > 0, x, 0.0), np.maximum(array, 0)),
    ):  # fmt: skip
        y = f(x)
        assert y.device == "gpu:1"
        np.testing.assert_array_equal(y.numpy(), expected)
    with pytest.raises(DeviceError, match="gpu:1 and cpu do not mix"):
        x == Tensor(array)  # noqa: B015
    with pytest.raises(DeviceError, match="gpu:1 and gpu:0 do not mix"):
        x < Tensor(array, device="gpu")  # noqa: B015


def test_an_optimizer_that_was_made_before_its_network_moved(gpu):
    net = nn.Linear(2, 2)
    optimizer = optim.Adam(net.parameters())
    net.to("gpu")
    net(Tensor(np.ones((1, 2), np.float32), device="gpu")).sum().backward()
    with pytest.raises(ValueError, match=r"on gpu:0.*make the optimizer after net.to"):
        optimizer.step()
