"""What all contenders compute: networks, most of them as the examples build them, their weights,
images, and whether two agree."""

import runpy
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import inf, isqrt, prod, sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
from model import LRN, alexnet, block, pool

from minicnn import nn

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
YEARS = "2012", "2014"  # of AlexNet
TINY = "tiny"  # of the same layers as 2012, to try a program
CLASSES = 1000  # of AlexNet
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-4, 0.9, 5e-4


class Network(NamedTuple):
    """How a network is built, what one image is, how many classes there are, and the batches that
    are measured."""

    build: Callable[..., nn.Sequential]
    image: tuple[int, ...]
    classes: int
    batches: list[int]


class Layer(NamedTuple):
    name: str
    module: nn.Module


def build(network: str, **options: int) -> nn.Sequential:
    """The network of this name in NETWORKS; draw() gives it its weights. norms: AlexNet of 2012
    normalizes its channels in so many groups."""
    return NETWORKS[network].build(**options)


def of_year(year: str, norms: int = 1) -> nn.Sequential:
    """AlexNet, whose weights are zeros."""
    return alexnet(year, CLASSES, "zeros", lrn={**LRN, "groups": norms})


def example(path: str, function: str, *arguments: str) -> nn.Sequential:
    """What a function of one of the examples builds."""
    return runpy.run_path(str(EXAMPLES / path))[function](*arguments)


def vgg11() -> nn.Sequential:
    """VGG-11 (Simonyan and Zisserman 2015, column A) with batch norm, as it is used for images of
    32 × 32: one linear layer is left of its three. The convolutions have no bias, which batch norm
    would subtract again."""
    found, channels = list[nn.Module](), 3
    for outputs in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0):  # 0: the image is halved
        if outputs == 0:
            found.append(nn.MaxPool2d(2))
        else:
            conv = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
            found += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
            channels = outputs
    return nn.Sequential(*found, nn.Flatten(), nn.Linear(512, 10))


def mlp() -> nn.Sequential:
    """A multilayer perceptron for images of 28 × 28, given as rows of numbers."""
    return nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )  # fmt: skip


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


NETWORKS = {
    "2012": Network(partial(of_year, "2012"), (227, 227, 3), CLASSES, [1, 8, 32, 128, 256]),
    "2014": Network(partial(of_year, "2014"), (224, 224, 3), CLASSES, [32]),
    # its 26% network
    "cuda-convnet": Network(partial(example, "cuda_convnet/train.py", "network", "80sec"), (32, 32, 3), 10, [128]),
    "lenet": Network(partial(example, "digits.py", "lenet"), (28, 28, 1), 10, [64]),
    "vgg11": Network(vgg11, (32, 32, 3), 10, [64]),
    "mlp": Network(mlp, (784,), 10, [128]),
    TINY: Network(tiny, (64, 64, 3), CLASSES, [2]),
}
KINDS: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv", nn.Linear: "fc", nn.BatchNorm2d: "norm", nn.LocalResponseNorm: "lrn", nn.ReLU: "relu",
    nn.MaxPool2d: "pool", nn.AvgPool2d: "pool", nn.Dropout: "dropout", nn.Flatten: "flatten",
}  # fmt: skip


def layers(net: nn.Module) -> list[Layer]:
    """The layers of the network, in order: conv1, relu1, lrn1, pool1, … flatten5, fc6, … fc8. What
    comes after a convolution or a linear layer has its number."""
    found, number = [], 0
    for _, module in net.named_modules():
        if not any(module.children()):
            number += isinstance(module, (nn.Conv2d, nn.Linear))
            found.append(Layer(f"{KINDS[type(module)]}{number}", module))
    return found


def parameters(layers: Iterable[Layer]) -> dict[str, nn.Parameter]:
    """The parameters of these layers, in order: conv1.weight, conv1.bias, …"""
    return {f"{layer}.{name}": p for layer, module in layers for name, p in module.named_parameters()}


def sides(layers: Iterable[Layer]) -> dict[str, int]:
    """How wide the image is that a linear layer sees flattened, by the name of its weight:
    {"fc6.weight": 6}."""
    found, channels = {}, 0
    for name, module in layers:
        if isinstance(module, nn.Conv2d):
            channels = module.weight.shape[-1]
        elif isinstance(module, nn.Linear) and channels:
            found[f"{name}.weight"], channels = isqrt(module.weight.shape[0] // channels), 0
    return found


def draw(parameters: Iterable[nn.Parameter]) -> None:
    """Give them the numbers that every contender has, of a size at which every layer matters to the
    loss. Biases, and what scales a batch norm's channels, are near what they were."""
    rng = np.random.default_rng(0)
    for p in parameters:
        numbers = rng.standard_normal(p.shape, np.float32)
        p.data[...] = p.data + 0.1 * numbers if p.ndim == 1 else sqrt(2 / prod(p.shape[:-1])) * numbers


def pictures(network: str, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise (N, H, W, C) or (N, K), and random labels (N,)."""
    rng, (_, image, classes, _) = np.random.default_rng(1), NETWORKS[network]
    return rng.standard_normal((batch, *image), np.float32), rng.integers(0, classes, batch)


Gradients = tuple[float, Mapping[str, np.ndarray]]  # the loss, and the gradient of each parameter


def differences(ours: Gradients, theirs: Gradients) -> dict[str, float]:
    """How far apart the loss and each gradient are, relative to the size (the norm) of ours."""
    apart = {"loss": _relative(abs(theirs[0] - ours[0]), abs(ours[0]))}
    for name, gradient in ours[1].items():
        apart[name] = _relative(float(np.linalg.norm(theirs[1][name] - gradient)), float(np.linalg.norm(gradient)))
    return apart


def _relative(apart: float, size: float) -> float:
    """Nothing is far from itself, and from 0 all else is infinitely far."""
    return 0.0 if apart == 0 else apart / size if size else inf


def disagreement(apart: Mapping[str, float], gradients: float = 1e-3, loss: float = 1e-4) -> str | None:
    """One line about the first that is further apart than is allowed."""
    for name, error in apart.items():
        allowed = loss if name == "loss" else gradients
        if not error <= allowed:  # NaN is not either
            what = "the loss" if name == "loss" else f"the gradient of {name}"
            return f"{what} differs by {error:.1e} (relative; {allowed:.0e} is allowed)"
    return None
