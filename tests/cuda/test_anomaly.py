"""detect_anomaly on a GPU: the same words as on a CPU, on whichever of several."""

import numpy as np
import pytest

from minicnn import AnomalyError, Tensor, detect_anomaly, nn
from minicnn import functional as F

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


class Root(nn.Module):
    def forward(self, x):
        return x.sqrt()


def message(function):
    found = ""
    try:
        with detect_anomaly():
            function()
    except AnomalyError as error:
        found = str(error)
    assert found  # and not pytest.raises, because nothing is computed on the rig
    return found


def messages(device):
    net = nn.Sequential(fc=nn.Linear(3, 2, weight_init=nn.init.constant(0.0)), root=Root()).to(device)
    x = Tensor(np.ones((4, 3), np.float32), device=device)
    found = [message(lambda: net(x).sum().backward()), message(lambda: net.fc(x).log())]
    net.fc.load_state_dict({**net.fc.state_dict(), "bias": np.float32([0, np.nan])})
    return [*found, message(lambda: net(x))]


def test_the_words_are_those_of_a_cpu(gpu):
    here = messages("cpu")
    assert messages("gpu") == here
    assert here[0].startswith("root (Root) of Sequential: backward pass: Sqrt's gradient of shape (4, 2)")
    assert "is from" not in here[0] and here[1].endswith("its input 0, of shape (4, 2), is 0")
    assert here[2].endswith("the parameter fc.bias, of shape (2,), has 1 of 2 elements NaN")


def test_on_another_gpu_than_the_current_one(standin):
    assert messages("gpu:1") == messages("cpu")


def test_labels_out_of_range(gpu):
    """On a GPU they are not an error, but give NaN: here is where it comes from."""
    x = Tensor(np.ones((2, 3), np.float32), requires_grad=True, device="gpu")
    text = message(lambda: F.cross_entropy(x, Tensor(np.array([0, 3]), device="gpu")))
    assert text.startswith("forward pass: the output of CrossEntropy")
