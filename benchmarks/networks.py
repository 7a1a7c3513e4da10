"""What all contenders compute: AlexNet as examples/alexnet/model.py builds it, its weights,
images, and whether two agree."""

from collections.abc import Iterable, Mapping
from math import prod, sqrt
from typing import NamedTuple

import numpy as np
from model import INPUT_SIZE, LRN, alexnet, block, pool

from minicnn import nn

YEARS = "2012", "2014"
TINY = "tiny"  # of the same layers as 2012, to try a program
CLASSES = 1000
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-4, 0.9, 5e-4


class Layer(NamedTuple):
    name: str
    module: nn.Module


def build(network: str, norms: int = 1) -> nn.Sequential:
    """The network of "2012" or "2014", or a tiny one. Its weights are zeros. norms: 2012 normalizes
    its channels in so many groups."""
    if network == TINY:
        return tiny()
    return alexnet(network, CLASSES, "zeros", lrn={**LRN, "groups": norms})


def tiny() -> nn.Sequential:
    """A network of 2012's kinds of layers, for images of 64 × 64."""
    return nn.Sequential(
        conv1=block(nn.Conv2d(3, 8, 5, stride=2), norm=nn.LocalResponseNorm(), pool=pool()),
        conv2=block(nn.Conv2d(8, 8, 3, padding=1, groups=2), norm=nn.LocalResponseNorm()),
        conv3=block(nn.Conv2d(8, 8, 3, padding=1), pool=pool()),
        flatten=nn.Flatten(),
        fc6=nn.Sequential(fc=nn.Linear(288, 16), relu=nn.ReLU(), dropout=nn.Dropout()),
        fc7=nn.Sequential(fc=nn.Linear(16, 16), relu=nn.ReLU(), dropout=nn.Dropout()),
        fc8=nn.Linear(16, CLASSES),
    )


def layers(net: nn.Module) -> list[Layer]:
    """The layers of the network, in order: conv1, relu1, lrn1, pool1, … flatten, fc6, … fc8."""
    found = []
    for name, module in net.named_modules():
        if not any(module.children()):
            block, _, part = name.partition(".")  # conv1.norm
            found.append(Layer(f"{'lrn' if part == 'norm' else part}{block[-1]}" if part else block, module))
    return found


def parameters(layers: Iterable[Layer]) -> dict[str, nn.Parameter]:
    """The parameters of these layers, in order: conv1.weight, conv1.bias, …"""
    return {f"{layer}.{name}": p for layer, module in layers for name, p in module.named_parameters()}


def draw(parameters: Iterable[nn.Parameter]) -> None:
    """Give them the numbers that every contender has, of a size at which every layer matters to the
    loss."""
    rng = np.random.default_rng(0)
    for p in parameters:
        scale = 0.1 if p.ndim == 1 else sqrt(2 / prod(p.shape[:-1]))
        p.data[...] = rng.standard_normal(p.shape, np.float32) * np.float32(scale)


def pictures(network: str, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise (N, H, W, 3) and random labels (N,)."""
    rng = np.random.default_rng(1)
    size = 64 if network == TINY else INPUT_SIZE[network]
    return rng.standard_normal((batch, size, size, 3), np.float32), rng.integers(0, CLASSES, batch)


Gradients = tuple[float, Mapping[str, np.ndarray]]  # the loss, and the gradient of each parameter


def differences(ours: Gradients, theirs: Gradients) -> dict[str, float]:
    """How far apart the loss and each gradient are, relative to the size (the norm) of ours."""
    apart = {"loss": abs(theirs[0] - ours[0]) / abs(ours[0])}
    for name, gradient in ours[1].items():
        apart[name] = float(np.linalg.norm(theirs[1][name] - gradient) / np.linalg.norm(gradient))
    return apart


def disagreement(apart: Mapping[str, float], gradients: float = 1e-3, loss: float = 1e-4) -> str | None:
    """One line about the first that is further apart than is allowed."""
    for name, error in apart.items():
        allowed = loss if name == "loss" else gradients
        if not error <= allowed:  # NaN is not either
            what = "the loss" if name == "loss" else f"the gradient of {name}"
            return f"{what} differs by {error:.1e} (relative; {allowed:.0e} is allowed)"
    return None
