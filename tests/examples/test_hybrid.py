"""One weird trick; the checks are in tests/mpi/divided.py, which two and three ranks run."""

from types import SimpleNamespace

import hybrid
import launch
import model
import numpy as np
import pytest
from columns import DividedLinear
from model import alexnet

from minicnn import Tensor, nn
from minicnn.workers import Workers


@launch.needs_mpi
@pytest.mark.parametrize("size", [2, 3])
def test_logits_gradients_and_what_is_exchanged(size):
    launch.passes(size, "check_hybrid")


@launch.needs_mpi
@pytest.mark.slow
def test_a_thousand_classes():
    result = launch.mpiexec(3, "divided.py", 1000)
    assert set(launch.checks_of("divided.py")) == {line.removeprefix("passed: ") for line in result.out.splitlines()}


@pytest.mark.parametrize("variant", ["2012", "2014", "tutorial"])
def test_layers_of_each_variant(variant):
    """Only linear layers are other ones; a process that is alone has all of them."""
    whole = alexnet(variant, 10, "zeros")
    own = hybrid.Hybrid(whole, Workers())
    modules = zip(whole.named_modules(), own.named_modules(), strict=True)
    for (name, layer), (own_name, own_layer) in list(modules)[1:]:
        assert name == own_name
        assert isinstance(own_layer, DividedLinear) == isinstance(layer, nn.Linear)
        assert isinstance(layer, (nn.Linear, nn.Sequential)) or layer is own_layer
    shapes = [{name: p.shape for name, p in net.named_parameters()} for net in (whole, own)]
    assert shapes[0] == shapes[1]
    assert [*dict(own.convolutions().named_children())] == ["conv1", "conv2", "conv3", "conv4", "conv5"]


def test_alone_it_computes_what_the_network_does(monkeypatch):
    def linear(*sizes, **options):
        return nn.Linear(*(64 if size == 4096 else size for size in sizes), **options)

    monkeypatch.setattr(model, "nn", SimpleNamespace(**{**vars(nn), "Linear": linear}))  # soon made
    whole = alexnet("2014", 3)
    own = hybrid.Hybrid(whole, Workers())
    own.load_state_dict(whole.state_dict())
    images = np.random.default_rng(0).standard_normal((2, 224, 224, 3)).astype(np.float32)
    np.testing.assert_array_equal(own.eval()(Tensor(images)).data, whole.eval()(Tensor(images)).data)
