"""What is found of a network on a GPU is what is found on a CPU; and no step waits for it before its time."""

from argparse import Namespace

import numpy as np
import pytest
from programs import step, tiny
from support import diagnosis

import minicnn
from minicnn import Tensor
from minicnn.optim import SGD


def trained(device):
    """A network after a step, its optimizer, and the batch."""
    minicnn.manual_seed(0)
    net = tiny(dropout=0.0).to(device)
    optimizer = SGD(net.parameters(), 0.01, momentum=0.9)
    images = Tensor(np.random.default_rng(0).standard_normal((4, 64, 64, 3)).astype(np.float32), device=device).data
    step(net, optimizer, images, np.arange(4))
    return net, optimizer, images, np.arange(4)


@pytest.mark.parametrize("device", ["gpu", "gpu:1"])
def test_layers_and_the_first_that_went_wrong(standin, device):
    here, there = (diagnosis.look(*trained(name)) for name in ("cpu", device))
    for a, b in zip(here.values(), there.values(), strict=True):
        assert [x for x in b if x is not None] == pytest.approx([x for x in a if x is not None], rel=1e-3)
    net, _, images, labels = trained(device)
    net.fc6.fc.load_state_dict({"weight": np.full((72, 16), 3e38, np.float32)}, strict=False)
    with np.errstate(all="ignore"):
        line, _ = diagnosis.divergence(net, images, labels, 2)
    assert line.endswith("the first that went wrong is the output of fc6, in step 2")


def test_losses_are_read_together(standin):
    net, optimizer, images, labels = trained("gpu")
    plateau = diagnosis.Plateau(net, optimizer, Namespace(init="he", scale="unit", lr=0.01), 10, 1000)
    optimizer.steps, losses = 200, [Tensor(np.float32(2.3), device="gpu") for _ in range(50)]
    standin.log.clear()
    assert not any(plateau.noticed(loss.data, images, labels) for loss in losses[:49]) and not standin.log
    assert plateau.noticed(losses[49].data, images, labels)[0].startswith("after 200 updates the loss is 2.3000")
