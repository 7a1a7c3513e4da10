"""Habits from PyTorch and torchvision: where their order of arguments would mean something else, it is an error."""

import numpy as np
import pytest
from reference import fails

import minicnn
import minicnn.functional as F
from minicnn import Tensor, habits, nn
from minicnn.data import CIFAR10, DataLoader, ImageFolder, ImageNet

X = Tensor(np.ones((2, 4, 4, 2)))
HABITS = [  # (what, their arguments by position, of which the last is …)
    (Tensor, (2, 3)),  # torch.Tensor(2, 3) has that shape
    (X.var, (0, True)),  # unbiased
    (minicnn.grad, (X.sum(), X, None, True)),  # retain_graph
    (F.conv_transpose2d, (X, Tensor(np.ones((3, 3, 1, 2))), None, 1, 0, 0, 2)),  # groups
    (F.local_response_norm, (X, 5, 1e-4, 0.75, 2.0)),  # size, alpha, beta, k
    (F.batch_norm, (X, np.zeros(2), np.ones(2), Tensor(np.ones(2)), Tensor(np.zeros(2)))),  # the averages first
    (F.dropout, (X, 0.5, True, True)),  # inplace
    (F.cross_entropy, (X, [0, 1], "sum")),  # weight
    (F.mse_loss, (X, X, "sum")),  # size_average
    (F.binary_cross_entropy_with_logits, (X, X, None)),  # weight
    (F.pad, (X, ((1, 1),) * 4, "constant")),  # mode
    (nn.LocalResponseNorm, (5, 1e-4, 0.75, 2.0)),  # size, alpha, beta, k
    (nn.MaxPool2d, (3, 2, 0, 1, False)),  # return_indices
    (nn.Dropout, (0.5, True)),  # inplace
    (nn.ReLU, (True,)),  # inplace
    (nn.Linear, (2, 3, True, "cpu")),  # device
    (nn.Conv2d, (2, 3, 3, 1, 0, 1, 1, True, "zeros")),  # padding_mode
    (nn.ConvTranspose2d, (2, 3, 3, 1, 0, 0, 1)),  # groups, bias, dilation
    (nn.MSELoss, (None,)),  # size_average
    (nn.BCEWithLogitsLoss, (None,)),  # weight
    (nn.BatchNorm2d, (3, 1e-5, 0.1, True)),  # affine
    (nn.CrossEntropyLoss, ([1.0, 2.0],)),  # weight
    (nn.Flatten, (1,)),  # start_dim
    (nn.ReLU().named_modules, (set(),)),  # memo
    (DataLoader, ([(X.data[0], 0)], 2, True)),  # shuffle
    (ImageFolder, ("data", lambda image: image)),  # transform
    (ImageNet, ("data", "val")),  # split
    (CIFAR10, ("data", True, lambda image: image)),  # transform
]


@pytest.mark.parametrize("what, arguments", HABITS, ids=[getattr(what, "__qualname__", what) for what, _ in HABITS])
def test_their_order_of_arguments_is_an_error(what, arguments):
    fails(TypeError, "positional|takes no arguments", what, *arguments)


@pytest.mark.parametrize("name", habits.TENSOR)
def test_a_tensor_says_what_to_write_instead(name):
    """By an AttributeError, so that whoever asks whether it has such a method is told that it has not."""
    x = Tensor([[4.0, 1.0]])
    message = fails(AttributeError, f"^a Tensor has no {name}: write ", getattr, x, name)
    assert not hasattr(x, name) and not hasattr(Tensor, name) and name not in dir(x)
    instead = message.partition(": write ")[2]
    names = {"x": x, "y": Tensor([[1.0], [3.0]]), "np": np, "minicnn": minicnn, "low": 0, "high": 1, "axis": 1}
    if not any(sign in instead for sign in ("…", " = ", "[x]", "gpu")):  # what is an expression can be computed
        eval(instead, names | {"mask": x > 2, "value": 0.0})


def test_the_names_a_tensor_has():
    x = Tensor([1.0])
    assert {"reshape", "data", "grad", "T", "__add__"} <= set(dir(x)) and not set(habits.TENSOR) & set(dir(x))
    with pytest.raises(AttributeError, match=r"^'Tensor' object has no attribute 'reshap'$") as caught:
        x.reshap  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("reshap", x)  # from which Python guesses what was meant
    with pytest.raises(AttributeError) as caught:
        x.view  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("view", None)  # there is nothing to guess
