"""Networks that are divided among ranks compute what the whole one does, and exchange what they should: python
divided.py, with smaller images and linear layers than AlexNet has, or with a number of classes, at its own size."""

import itertools
import sys
from argparse import Namespace
from functools import cache
from types import SimpleNamespace

import numpy as np
import small  # it has the path to the others
from checking import all_checks
from numpy.testing import assert_array_equal
from programs import SIZE

# isort: split
import columns
import model
from model import LRN, alexnet
from support import parallel
from support.parallel import WAYS
from support.start import freeze
from train import sgd

import minicnn
from minicnn import Tensor, nn
from minicnn import functional as F
from minicnn.autograd import Function
from minicnn.tensor import apply
from minicnn.workers import Workers

BATCH = 4
ROWS = {2: [[3, 1], [0, 4]], 3: [[0, 3, 1], [4, 0, 0]]}  # of each rank
CLASSES = int(sys.argv[1]) if len(sys.argv) > 1 else 10
FULL = CLASSES > 10
INPUTS = {"2012": 227 if FULL else 99, "2014": 224, "small": SIZE}
THIRD, LAST = (13, 6) if FULL else (5, 2)  # sides of what goes into conv3 and out of conv5, in the network of 2012
HIDDEN = 4096 if FULL else 128


def narrow(layer):
    """A kind of linear layer, with the numbers of inputs and outputs that go with those sizes."""
    sizes = {4096: HIDDEN, 9216: LAST * LAST * 256}
    return lambda inputs, outputs, *more, **options: layer(
        sizes.get(inputs, inputs), sizes.get(outputs, outputs), *more, **options
    )


model.nn = SimpleNamespace(**{**vars(nn), "Linear": narrow(nn.Linear)})
columns.DividedLinear = narrow(columns.DividedLinear)


def network(variant):
    minicnn.manual_seed(0)
    lrn = {**LRN, "alpha": 0.33, "groups": 2}  # as the columns have it
    make = small.small if variant == "small" else alexnet
    return make(variant, CLASSES, "he", True, lrn).astype(np.float64)


def data(size, classes=CLASSES):
    rng = np.random.default_rng(0)
    return rng.standard_normal((BATCH, size, size, 3)), rng.integers(0, classes, BATCH)


@cache
def reference(variant):
    """A whole network, and the logits, loss and gradients of one process, with dropout."""
    net, (images, labels) = network(variant), data(INPUTS[variant])
    minicnn.random.set_random_state((5, 0))
    logits = net(Tensor(images))
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    gradients = {name: p.grad.data for name, p in net.named_parameters()}
    net.zero_grad()
    return net, logits.data, loss.item(), gradients


def close(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    if expected.dtype == bool:
        return assert_array_equal(found, expected)
    error, scale = largest(found - expected), largest(expected)
    assert error <= 1e-12 * scale, (error, scale)


def largest(array):
    """The largest absolute value, without a second array of 300 MB."""
    return max(array.max(initial=0), -array.min(initial=0))


def part(array, workers):
    """Of the last axis, what this rank has of a layer that is divided."""
    n, (rank, size) = array.shape[-1], workers.part
    return array[..., n * rank // size : n * (rank + 1) // size]


def is_divided(kind, name):
    return name.startswith({"columns": ("conv", "fc"), "hybrid": "fc"}[kind])


def compare(workers, kind, variant, all_rows):
    """A step of the divided network, where each rank has so many rows, is that of one process."""
    net, logits, loss, gradients = reference(variant)
    images, labels = data(INPUTS[variant])
    way = WAYS[kind](workers)
    own = way.divide(net)
    way.begin(own)
    assert [name for name, _ in own.named_parameters()] == list(gradients)
    for rows in all_rows:
        first = sum(rows[: workers.rank]) if kind == "hybrid" else 0
        n = rows[workers.rank] if kind == "hybrid" else BATCH
        mine = slice(first, first + n)
        minicnn.random.set_random_state((5, 0))
        with way.step(n) as step:
            own_logits = own(Tensor(images[mine]))
            own_loss = F.cross_entropy(own_logits, labels[mine])
            own.zero_grad()
            step.backward(own_loss)
        close(own_logits.data, logits[mine])
        losses = workers.gather(own_loss.item() * n / BATCH if n else 0.0)
        total = sum(losses) if kind == "hybrid" else losses[0]
        assert abs(total - loss) <= 1e-12 * loss
        for name, p in own.named_parameters():
            close(p.grad.data, part(gradients[name], workers) if is_divided(kind, name) else gradients[name])
        assert minicnn.random.random_state() == (5, 2)  # as many draws as in one process
    return own, way


class Mark(Function):
    """The identity, which notes how much has been received when the forward and the backward pass come through."""

    def __init__(self, workers, forward, backward):
        self.workers, self.notes = workers, (forward, backward)

    def forward(self, x):
        self.notes[0].append(self.workers.received)
        return x

    def backward(self, dy):
        self.notes[1].append(self.workers.received)
        return (dy,)


class Marked(nn.Module):
    """A layer that notes how many bytes it receives, forward and backward."""

    def __init__(self, layer, workers):
        self.layer, self.workers = layer, workers
        self.notes = [], []

    def forward(self, x):
        y = self.layer(apply(Mark(self.workers, *self.notes), x))
        return apply(Mark(self.workers, *self.notes), y)

    def received(self):
        return tuple(end - begin for begin, end in self.notes)


def received(workers, own, way, images, labels):
    """What each layer receives in a step: name -> bytes of the forward pass, and of the backward pass."""
    layers = dict(own.named_children())
    for name, layer in layers.items():
        setattr(own, name, Marked(layer, workers))
    with way.step(len(images)) as step:
        loss = F.cross_entropy(own(Tensor(images, requires_grad=True)), labels)
        own.zero_grad()
        step.backward(loss)
    found = {name: getattr(own, name).received() for name in layers}
    for name, layer in layers.items():
        setattr(own, name, layer)
    return found


def check_columns(workers):
    """The figure: they cross into conv3 and into the linear layers."""
    if workers.size != 2:
        return
    images, labels = data(INPUTS["2012"])
    own, way = compare(workers, "columns", "2012", [[BATCH]] * 2)
    half = 8 * BATCH / 2  # bytes of the other's half of so many float64
    crossed = {
        "cross3": THIRD * THIRD * 256, "cross6": LAST * LAST * 256, "fc6": HIDDEN, "fc7": HIDDEN, "fc8": CLASSES,
    }  # fmt: skip
    found = received(workers, own, way, images, labels)
    assert list(found) == "conv1 conv2 cross3 conv3 conv4 conv5 cross6 flatten fc6 fc7 fc8".split()
    for name, (forward, backward) in found.items():
        assert forward == backward == crossed.get(name, 0) * half, (name, forward, backward)


def check_hybrid(workers):
    """Features and logits are exchanged, and the gradients of kernels."""
    variant = "2012" if workers.size == 2 else "2014" if FULL else "small"
    images, labels = data(INPUTS[variant])
    own, way = compare(workers, "hybrid", variant, ROWS[workers.size])

    rows = ROWS[workers.size][0]
    mine = slice(sum(rows[: workers.rank]), sum(rows[: workers.rank + 1]))
    found = received(workers, own, way, images[mine], labels[mine])
    others = (workers.size - 1) / workers.size * 8  # bytes of the others' share of so many float64
    features, *outputs = (own.fc6.fc.weight.shape[0], own.fc7.fc.weight.shape[0], own.fc8.weight.shape[0], CLASSES)
    if variant != "small":
        assert (features, *outputs) == (LAST * LAST * 256, HIDDEN, HIDDEN, CLASSES)
    for name, length in zip(("fc6", "fc7", "fc8"), outputs, strict=True):
        assert np.allclose(found[name], length * BATCH * others, rtol=1e-12), (name, found[name])
    convolutions = {name: moved for name, moved in found.items() if name.startswith("conv")}
    assert len(convolutions) == (3 if variant == "small" else 5)
    assert all(forward == 0 for forward, _ in convolutions.values())
    weights = sum(p.size for name, p in own.named_parameters() if name.startswith("conv"))
    # The features come between conv5 and flatten. The gradients of kernels come beside the backward pass, the last
    # after it.
    before = workers.received
    received(workers, own, way, images[mine], labels[mine])
    linear = BATCH * (features + sum(outputs))
    used = 2 * len(convolutions)  # a number for each parameter: whether it has a gradient
    expected = (2 * linear + 2 * weights + 2 * used) * others
    assert abs(workers.received - before - expected) <= 1e-9 * expected


class Training:
    """Of a small network, as train.py makes it, all or none of whose rows are this rank's."""

    def __init__(self, way, seed, freezes=False, **options):
        usual = {"lr": 0.05, "head_lr": None, "momentum": 0.9, "weight_decay": 0.01, "update": "pytorch"}
        minicnn.manual_seed(seed)
        self.way = way
        self.net = way.divide(small.small(lrn={**LRN, "groups": 2}).astype(np.float64))
        if freezes:
            freeze(self.net)
        self.optimizer = sgd(self.net, Namespace(**usual | options))
        way.begin(self.net)

    def step(self):
        images, labels = data(SIZE, 10)
        mine = slice(*(BATCH * r // self.way.rows.size for r in (self.way.rows.rank, self.way.rows.rank + 1)))
        minicnn.random.set_random_state((5, self.optimizer.steps))
        with self.way.step(mine.stop - mine.start) as step:
            loss = F.cross_entropy(self.net(Tensor(images[mine])), labels[mine])
            self.net.zero_grad()
            step.backward(loss)
        self.way.update(self.optimizer)

    def states(self):
        return [self.way.whole(thing).state_dict() for thing in (self.net, self.optimizer)]

    def load(self, states):
        for thing, state in zip((self.net, self.optimizer), states, strict=True):
            self.way.whole(thing).load_state_dict(state)


def same_states(found, expected, compare):
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        for name, value in other.items():
            compare(*map(np.asarray, (one[name], value)))


def check_states_of_the_whole(workers):
    """Of networks and optimizers: those of one process after some steps, which can be loaded anywhere."""
    parallel.column = small.small_column
    kinds = ["data", "sharded", "hybrid"] + ["columns"] * (workers.size == 2)
    for kind, options in itertools.product(kinds, ({}, {"head_lr": 0.2}, {"freezes": True}, {"update": "paper"})):
        alone = Training(WAYS["data"](Workers()), 1, **options)
        first, later = (Training(WAYS[kind](workers), seed, **options) for seed in (1, 2))
        alone.step()
        alone.step()
        first.step()
        first.step()
        states = alone.states()
        same_states(first.states(), states, close)
        assert len(states[1]) > 4  # momentum
        later.load(states)
        same_states(later.states(), states, assert_array_equal)
        alone.step()
        later.step()
        first.step()
        same_states(later.states(), alone.states(), close)
        same_states(first.states(), alone.states(), close)


if __name__ == "__main__":
    all_checks()
