"""What all contenders compute: AlexNet's layers as a table, its weights, pictures, and whether two agree."""

from collections.abc import Mapping
from math import prod, sqrt
from typing import NamedTuple

import numpy as np

INPUT_SIZE = {"2012": 227, "2014": 224}
CLASSES = 1000
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-4, 0.9, 5e-4


class Layer(NamedTuple):
    """kind is conv, relu, lrn, pool, flatten, linear or dropout. `size` is the height and width that come in, `inputs`
    and `outputs` count channels."""

    name: str
    kind: str
    inputs: int
    outputs: int
    size: int = 1
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @property
    def output_size(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def weight_shape(self) -> tuple[int, ...]:
        shape = self.inputs // self.groups, self.outputs
        return (self.kernel, self.kernel, *shape) if self.kind == "conv" else shape


def layers(network: str) -> list[Layer]:
    """The layers of "2012" or "2014", in order."""
    original = network == "2012"
    table: list[Layer] = []
    size, channels = INPUT_SIZE[network], 3

    def add(name: str, kind: str, outputs: int | None = None, **window: int) -> None:
        nonlocal size, channels
        table.append(Layer(name, kind, channels, outputs or channels, size, **window))
        size, channels = table[-1].output_size, table[-1].outputs

    outputs = (96, 256, 384, 384, 256) if original else (64, 192, 384, 256, 256)
    windows = ((11, 4, 0 if original else 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
    for i, (kernel, stride, padding) in enumerate(windows, 1):
        groups = 2 if original and i in (2, 4, 5) else 1
        add(f"conv{i}", "conv", outputs[i - 1], kernel=kernel, stride=stride, padding=padding, groups=groups)
        add(f"relu{i}", "relu")
        if original and i in (1, 2):
            add(f"lrn{i}", "lrn")
        if i in (1, 2, 5):
            add(f"pool{i}", "pool", kernel=3, stride=2)
    add("flatten", "flatten")
    size, channels = 1, channels * size * size
    for i in (6, 7):
        if not original:  # drops out what goes into the layer
            add(f"dropout{i}", "dropout")
        add(f"fc{i}", "linear", 4096)
        add(f"relu{i}", "relu")
        if original:
            add(f"dropout{i}", "dropout")
    add("fc8", "linear", CLASSES)
    return table


def weights(network: str) -> dict[str, np.ndarray]:
    """The same for every contender, channels last: {"conv1.weight": (KH, KW, C/G, O), "conv1.bias": (O,), …}. Of a size
    at which every layer matters to the loss."""
    rng = np.random.default_rng(0)
    arrays = {}
    for layer in layers(network):
        if layer.kind in ("conv", "linear"):
            scale = np.float32(sqrt(2 / prod(layer.weight_shape[:-1])))
            arrays[f"{layer.name}.weight"] = rng.standard_normal(layer.weight_shape, np.float32) * scale
            arrays[f"{layer.name}.bias"] = rng.standard_normal(layer.outputs, np.float32) * np.float32(0.1)
    return arrays


def pictures(network: str, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise (N, H, W, 3) and random labels (N,)."""
    rng = np.random.default_rng(1)
    size = INPUT_SIZE[network]
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
