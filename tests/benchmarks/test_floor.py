"""The floor's products are those of the network, no more and no less, and its slices cover them."""

from math import prod

import numpy as np
import pytest

from benchmarks import floor


def flops(network, batch, direction=None):
    return sum(p.flops for p in floor.products(network, batch) if direction in (None, p.direction))


def test_the_papers_multiplications():
    """As in the table of the 2012 network's layers: twice the multiplications, forward."""
    forward = {p.layer: p.flops for p in floor.products("2012", 1) if p.direction == "forward"}
    assert forward == {
        **{"conv1": 2 * 105_415_200, "conv2": 2 * 223_948_800, "conv3": 2 * 149_520_384, "conv4": 2 * 112_140_288},
        **{"conv5": 2 * 74_760_192, "fc6": 2 * 37_748_736, "fc7": 2 * 16_777_216, "fc8": 2 * 4_096_000},
    }


def test_the_multiplications_of_small_networks():
    forward = [(p.layer, p.rows, p.inner, p.columns) for p in floor.products("lenet", 2) if p.direction == "forward"]
    assert forward == [
        ("conv1", 2 * 28 * 28, 25, 6), ("conv2", 2 * 10 * 10, 150, 16),
        ("fc3", 2, 400, 120), ("fc4", 2, 120, 84), ("fc5", 2, 84, 10),
    ]  # fmt: skip
    pixels = [p.rows for p in floor.products("cuda-convnet", 1) if p.direction == "forward"]
    assert pixels == [32 * 32, 16 * 16, 8 * 8, 1, 1]
    assert flops("mlp", 3, "forward") == 6 * (784 * 512 + 512 * 512 + 512 * 10)


@pytest.mark.parametrize("network", ["2012", "2014", "vgg11", "mlp"])
def test_backward_is_twice_forward_but_for_the_images_gradient(network):
    (first, *_) = floor.products(network, 4)
    assert flops(network, 4, "backward") == 2 * flops(network, 4, "forward") - first.flops
    assert flops(network, 4) == 4 * flops(network, 1)


@pytest.mark.parametrize("network, batch, threads", [("2012", 1, 2), ("2012", 32, 2), ("2014", 3, 1), ("2014", 7, 3)])
def test_slices_cover_each_product_for_every_thread(network, batch, threads):
    for product in floor.products(network, batch):
        found = floor.slices(product, threads)
        assert sum(2 * prod(sides) for sides in found) == product.flops
        assert len(found) >= min(threads, getattr(product, product.cut)) * product.groups
        if product.layer.startswith("conv"):
            rows, inner, columns = found[0]
            assert 4 * min(max(rows * inner, inner * columns), max(rows * inner, rows * columns)) <= floor.CACHE * 1.01


def test_operands_fit_their_slices():
    product = floor.Product("conv2", "backward", 50, 1000, 8, "inner", groups=2)
    shares = floor.operands(product, 2)
    assert sorted(a.shape + b.shape[1:] for share in shares for a, b, _ in share) == sorted(floor.slices(product, 2))
    for share in shares:
        floor._multiply(share)
        for a, b, out in share:
            np.testing.assert_allclose(out, a @ b)


def test_it_does_what_it_says_for_each_task(monkeypatch):
    monkeypatch.setattr(floor, "products", lambda *_: [
        floor.Product("conv1", "forward", 30, 4, 5, "rows"), floor.Product("conv1", "backward", 4, 30, 5, "inner"),
        floor.Product("fc8", "forward", 2, 6, 8, "columns"),
    ])  # fmt: skip
    monkeypatch.setattr(floor.ThreadpoolController, "limit", lambda *_, **__: None)  # this process's BLAS is not its
    done = []
    network = floor.Network(2, "2012", 1)
    monkeypatch.setattr(
        floor, "_multiply", lambda share: done.extend(2 * prod((*a.shape, b.shape[1])) for a, b, _ in share)
    )
    amounts = {}
    for task, call in network.tasks.items():
        done.clear()
        call()
        amounts[task] = sum(done)
    assert amounts == {
        **{"step": 2400 + 192, "inference": 1200 + 192},
        **{"conv1 forward": 1200, "conv1 backward": 1200, "fc8 forward": 192},
    }
