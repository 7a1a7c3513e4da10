"""How much faster many workers train, predicted from the times of one, for three ways of dividing
the work; and how many bytes each worker receives.

A step is simulated layer by layer. The forward pass takes a third of the time, the backward pass
two. Convolutions take time for each multiplication; linear layers as well, and so much for each
weight, whatever the batch. n workers sum `bytes` in a ring, in 2 (n − 1) messages, so that takes

    2 (n − 1) latency + 2 (n − 1) / n × bytes / bandwidth

and an all-gather or reduce-scatter half of it. With overlap, the sum of a layer's gradients begins
when the layer's backward pass has ended and the sums before it have; without, when the backward
pass has ended. Activations are waited for in any case.
"""

from collections.abc import Callable
from math import inf, prod
from typing import NamedTuple

import numpy as np

from minicnn import Tensor, nn, no_grad

WAYS = "data", "hybrid", "columns"
POORLY = 0.5  # the efficiency below which a way no longer pays


class Layer(NamedTuple):
    """Bytes of an image's input and output, before and after all that belongs to the layer, and of
    the weights; multiplications for an image; whether it is linear, and sees all channels."""

    name: str
    input: int
    output: int
    weights: int
    work: int
    linear: bool
    sees_all: bool


def layers_of(net: nn.Sequential, image: tuple[int, ...]) -> list[Layer]:
    """The layers with weights, in order, of a network for images (H, W, C)."""
    found, x, before = [], Tensor(np.zeros((1, *image), np.float32)), None
    with no_grad():
        for name, block in net.named_children():
            learned = next((m for _, m in block.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))), None)
            if learned is None:
                x = block(x)
                continue
            work = learned(x).data[0].size * prod(learned.weight.shape[:-1])
            y, weights = block(x), sum(p.data.nbytes for p in block.parameters())
            linear = isinstance(learned, nn.Linear)
            sees_all = before is not None and (linear or learned.groups == 1)
            found.append(Layer(name, x.data.nbytes, y.data.nbytes, weights, work, linear, sees_all))
            before, x = learned, y
    return found


# ------------------------------------------------------------------------------------------- bytes
class Traffic(NamedTuple):
    """What all workers of a ring exchange of a layer in a step: bytes, and among how many."""

    inputs: float = 0.0  # gathered forward, and their gradients scattered backward
    outputs: float = 0.0  # the same, of the last layer's
    weights: float = 0.0  # gradients that are summed
    around: int = 1  # workers that exchange activations
    among: int = 1  # workers that sum gradients

    @property
    def forward(self) -> float:
        """What each worker receives in the forward pass."""
        return (self.inputs + self.outputs) * (self.around - 1) / self.around

    @property
    def backward(self) -> float:
        return self.forward + 2 * self.weights * (self.among - 1) / self.among


def traffic(layers: list[Layer], way: str, n: int, batch: float) -> list[Traffic]:
    """By layer, for a batch of so many images for all of n workers."""
    found = []
    for layer in layers:
        last = layer is layers[-1]
        if n == 1 or way == "data":
            found.append(Traffic(weights=layer.weights, among=n))
        elif way == "hybrid":
            if layer.linear:
                found.append(Traffic(batch * layer.input, batch * layer.output * last, around=n))
            else:
                found.append(Traffic(weights=layer.weights, among=n))
        else:  # n / 2 pairs, each with its rows of the batch; half of the network is in each of two
            rows = batch / (n // 2)
            crossing = rows * layer.input * layer.sees_all, rows * layer.output * last
            found.append(Traffic(*crossing, layer.weights / 2, around=2, among=n // 2))
    return found


# -------------------------------------------------------------------------------------------- times
class Costs(NamedTuple):
    """Seconds of one worker, for a batch of `rows` images: the forward and backward pass; of it
    what does not depend on the batch, and the backward pass of the linear layers; the optimizer."""

    rows: int
    step: float
    fixed: float
    linear: float
    optimizer: float


class Link(NamedTuple):
    bandwidth: float  # bytes a second
    latency: float  # seconds

    def seconds(self, nbytes: float, n: int, messages: int) -> float:
        """To send around a ring what each of n workers receives."""
        return messages * (n - 1) * self.latency + nbytes / self.bandwidth if n > 1 else 0.0


def step_time(
    layers: list[Layer], costs: Costs, link: Link, way: str, n: int, batch: float, overlap: bool, cores: float = inf
) -> float:  # fmt: skip
    """Seconds of a training step on n workers, of which `cores` compute at a time."""
    slower = max(1.0, n / cores)
    linear_weights = sum(layer.weights for layer in layers if layer.linear)
    all_weights = sum(layer.weights for layer in layers)
    work = {kind: sum(layer.work for layer in layers if layer.linear == kind) for kind in (True, False)}
    linear = max(costs.fixed, 1.5 * costs.linear)  # for the backward pass is two thirds
    per_work = {True: (linear - costs.fixed) / work[True], False: (costs.step - linear) / work[False]}
    now = wire = optimizer = 0.0
    done = []  # by layer: seconds of the backward pass, of exchanged activations, and of sums
    for layer, t in zip(layers, traffic(layers, way, n, batch), strict=True):
        # among how many its weights are divided
        divided = {"data": 1, "hybrid": n if layer.linear else 1, "columns": min(n, 2)}[way]
        seconds = per_work[layer.linear] * layer.work * batch / n / costs.rows
        if layer.linear:
            seconds += costs.fixed * layer.weights / linear_weights / divided
        optimizer += slower * costs.optimizer * layer.weights / all_weights / divided
        exchange = link.seconds(t.forward, t.around, bool(t.inputs) + bool(t.outputs))
        now += slower * seconds / 3 + exchange
        done.append((slower * seconds * 2 / 3, exchange, link.seconds(t.backward - t.forward, t.among, 2)))
    for seconds, exchange, sums in reversed(done):
        now += seconds + exchange
        if overlap:
            wire = max(wire, now) + sums
    if not overlap:
        wire = now + sum(sums for _, _, sums in done)
    return max(now, wire) + optimizer


def speedups(time: Callable[[int], float], most: int, weak: bool) -> dict[int, float]:
    """By the number of workers, how many times as many images a second as one worker."""
    return {n: time(1) / time(n) * (n if weak else 1) for n in (2**i for i in range(most.bit_length()))}


def stops(found: dict[int, float]) -> str:
    """Where a way of dividing stops paying."""
    for n, speedup in list(found.items())[1:]:
        if speedup <= found[n // 2]:
            return f"stops paying at {n} workers, which are no faster than {n // 2}"
        if speedup < POORLY * n:
            return f"stops paying at {n} workers, with an efficiency of {100 * speedup / n:.0f}%"
    return f"pays up to {max(found)} workers"
