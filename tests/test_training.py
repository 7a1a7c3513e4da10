"""Training as a whole: a network memorises a batch, and its memory does not grow."""

import gc
import sys

import model
import numpy as np
import pytest
from networks import train

from minicnn import nn
from minicnn.optim import SGD


def small_alexnet(classes=5):
    """All of AlexNet's kinds of layers, for images of 32×32."""
    return nn.Sequential(
        conv1=nn.Conv2d(3, 16, 5, stride=2),  # 14 × 14
        relu1=nn.ReLU(),
        norm=nn.LocalResponseNorm(n=5, k=2.0, alpha=1e-4, beta=0.75),
        pool=nn.MaxPool2d(3, 2),  # 6 × 6
        conv2=nn.Conv2d(16, 32, 3, padding=1, groups=2),
        relu2=nn.ReLU(),
        flatten=nn.Flatten(),
        fc=nn.Linear(6 * 6 * 32, 64),
        relu3=nn.ReLU(),
        dropout=nn.Dropout(0.5),
        out=nn.Linear(64, classes),
    )


def steps_to_memorise(net, lr, images, labels):
    """How many steps it takes, with dropout off, until the loss of one batch is below 1e-3."""
    net.eval()
    optimizer = SGD(net.parameters(), lr=lr, momentum=0.9)
    for steps in range(1, 301):
        if train(net, optimizer, images, labels, 1)[0] < 1e-3:
            return steps
    raise AssertionError("the loss is above 1e-3 after 300 steps")


def test_a_small_network_memorises_a_batch():
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((16, 32, 32, 3), np.float32), rng.integers(5, size=16)
    assert steps_to_memorise(small_alexnet(), 0.02, images, labels) > 5  # it has to be learned


@pytest.mark.slow
def test_alexnet_memorises_a_batch():
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((4, 227, 227, 3), np.float32), np.array([3, 1, 4, 1])
    assert steps_to_memorise(model.alexnet("2012", 10), 0.01, images, labels) > 5


def test_memory_does_not_grow_over_200_steps():
    """Counting alone frees each step's graph: the garbage collector, off until then, finds nothing to free, and there
    are as many objects as before, but for what other threads of the process made in the meantime: the least of three
    runs counts, since a leak shows in each."""
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((4, 32, 32, 3), np.float32), rng.integers(5, size=4)
    net = small_alexnet()
    optimizer = SGD(net.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4)

    def objects_after(steps):
        train(net, optimizer, images, labels, steps)
        return gc.collect(), sys.getallocatedblocks()

    gc.disable()
    try:
        counts = [objects_after(steps) for steps in (20, 200, 200, 200)]
    finally:
        gc.enable()
    garbage, blocks = zip(*counts, strict=True)
    assert max(garbage[1:]) < 100 and min(np.diff(blocks)) < 100  # not one in two steps
