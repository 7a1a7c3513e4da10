"""minicnn/functional/arguments.py: what the lessons are given."""

from types import SimpleNamespace

import numpy as np
import pytest
from reference import fails

import minicnn.functional as F
from minicnn import Tensor
from minicnn.functional import arguments
from minicnn.functional.arguments import (
    require_constants,
    require_floating,
    require_images,
    require_tensors,
    require_written,
)

ARRAY = np.ones((2, 3))
GIVEN = [  # (not a Tensor, how a message ends)
    (ARRAY, r"an array of shape \(2, 3\) and dtype float64: wrap an array as Tensor\(array\)"),
    ([1.0], r"\[1.0\]: wrap an array as Tensor\(array\)"),
    (2.5, r"2.5: wrap an array as Tensor\(array\)"),
    ("photo", "'photo'"),
    (None, "None"),
]


@pytest.mark.parametrize(("given", "end"), GIVEN)
def test_what_has_to_be_a_tensor(given, end):
    fails(TypeError, f"^f: b must be a Tensor, not {end}$", require_tensors, "f", a=Tensor(1.0), b=given)
    for check in (require_images, require_floating):
        fails(TypeError, f"^f: x must be a Tensor, not {end}$", check, "f", given)
    require_tensors("f", a=Tensor(1.0), b=Tensor([1, 2]))


@pytest.mark.parametrize("given", ["photo", None, 2.5, [1.0], np.float64(2)])
def test_what_may_be_an_array(given):
    require_constants("f", a=ARRAY, b=Tensor(1.0))
    fails(TypeError, "^f: b must be a Tensor or an array, not ", require_constants, "f", a=ARRAY, b=given)


def test_images():
    require_images("f", Tensor(np.ones((1, 2, 2, 1))), ceil_mode=True)
    fails(ValueError, r"^f needs x of \(N, H, W, C\), not \(2, 3\)$", require_images, "f", Tensor(ARRAY))
    fails(ValueError, "^f: a is False or True, not 'a'$", require_images, "f", Tensor(np.ones((1, 2, 2, 1))), a="a")


def test_floats():
    x = Tensor([1.0])
    assert require_floating("f", x) is x
    fails(TypeError, "^f needs a floating-point Tensor, not int64$", require_floating, "f", Tensor([1]))


def test_arrays_that_are_written_to(monkeypatch):
    require_written("f", a=ARRAY)
    fails(
        TypeError, "^f: a is an array, which it updates: write .data of a Tensor$", require_written, "f", a=Tensor(1.0)
    )
    for given in (np.ones(2, int), [1.0], None, np.float64(1)):
        fails(TypeError, "^f: a must be an array of floats, not ", require_written, "f", a=given)
    foreign = SimpleNamespace(dtype=ARRAY.dtype, flags=SimpleNamespace())  # another device's flags may not tell
    monkeypatch.setattr(arguments, "is_array", lambda _: True)
    require_written("f", a=foreign)
    locked = np.ones(2)
    locked.flags.writeable = False
    fails(ValueError, r"^f: a, which it updates, is a read-only array of shape \(2,\)$", require_written, "f", a=locked)


IMAGE, VECTOR = Tensor(np.ones((1, 4, 4, 2))), Tensor(np.ones(2))
ONE_TENSOR = {
    "relu": {}, "leaky_relu": {}, "sigmoid": {}, "tanh": {}, "gelu": {}, "softmax": {}, "log_softmax": {}, "dropout": {},
    "local_response_norm": {}, "max_pool2d": {"kernel_size": 2}, "avg_pool2d": {"kernel_size": 2},
    "adaptive_avg_pool2d": {"output_size": 1}, "linear": {"weight": Tensor(np.eye(2))}, "pad": {"widths": ()},
    "conv2d": {"weight": Tensor(np.ones((1, 1, 2, 2)))}, "conv_transpose2d": {"weight": Tensor(np.ones((1, 1, 2, 2)))},
    "batch_norm": {"gamma": VECTOR, "beta": VECTOR, "running_mean": np.ones(2), "running_var": np.ones(2)},
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_TENSOR)
def test_every_lesson_names_an_input_that_is_no_tensor(name):
    for given in (np.ones((1, 4, 4, 2)), 3, None, "x", [IMAGE]):
        fails(TypeError, f"^{name}: x must be a Tensor, not ", getattr(F, name), given, **ONE_TENSOR[name])


@pytest.mark.parametrize("name", ["mse_loss", "binary_cross_entropy_with_logits", "cross_entropy"])
def test_every_loss_names_an_input_that_is_no_tensor(name):
    first = "prediction" if name == "mse_loss" else "logits"
    fails(TypeError, f"^{name}: {first} must be a Tensor, not an array", getattr(F, name), np.ones((2, 2)), [0, 1])
    what = (
        "labels are class numbers, integers" if name == "cross_entropy" else "target is a Tensor or an array of numbers"
    )
    for given in ([[1.0], [2.0, 3.0]], "a", None, {}):
        fails(TypeError, f"^{name}: {what}, not ", getattr(F, name), Tensor(np.ones((2, 2))), given)
