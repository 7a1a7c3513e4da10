"""A layer and its ReLU on a GPU: the bits of the two one after the other, in one launch less."""

import numpy as np
import pytest
from agreement import normal, there

from benchmarks.gpu_launches import recording
from minicnn import Tensor, nn

NETWORKS = {
    "convolution": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, groups=1), nn.ReLU()), (2, 5, 6, 3)),
    "no bias": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.ReLU()), (2, 5, 6, 4)),
    "linear": (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU()), (7, 6)),
    "images": (lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU()), (2, 3, 3, 4)),
    "empty": (lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU()), (0, 4)),
}


def bits(array):
    """Its bytes, where a NaN has no sign."""
    return np.where(np.isnan(array), np.nan, array).tobytes()


def step(gpu, net, x):
    x = Tensor(there(gpu, x), requires_grad=True)
    y = net(x)
    y.backward(Tensor(there(gpu, normal(*y.shape, seed=1).astype(np.float32))))
    return y.grad_fn.name, [
        bits(array.get()) for array in (y.data, x.grad.data, *(p.grad.data for p in net.parameters()))
    ]


@pytest.mark.parametrize("number", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_bits_of_the_two_layers(gpu, name, number):
    make, shape = NETWORKS[name]
    net, x = make(), normal(*shape).astype(np.float32)
    x[:1] = number
    net = net.to("gpu")
    with np.errstate(all="ignore"):
        fused, found = step(gpu, net, x)
        net[1].register_forward_hook(lambda *_: None)
        net.zero_grad()
        plain, wanted = step(gpu, net, x)
    assert found == wanted and plain == "ReLU" and fused.endswith("ReLU")


@pytest.mark.parametrize("name", ["convolution", "linear"])
def test_the_bias_and_the_maximum_are_one_launch(standin, name):
    make, shape = NETWORKS[name]
    net, x = make().to("gpu"), Tensor(normal(*shape).astype(np.float32), device="gpu")
    with recording() as launched:
        net(x)
    assert [launch.name for launch in launched][-2:] == ["product", "linear.add_bias"]
