"""minicnn/functional/arguments.py: what the lessons are given."""

import numpy as np
import pytest
from reference import fails

import minicnn.functional as F
from minicnn import Tensor
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


def test_arrays_that_are_written_to():
    require_written("f", a=ARRAY)
    fails(
        TypeError, "^f: a is an array, which it updates: write .data of a Tensor$", require_written, "f", a=Tensor(1.0)
    )
    for given in (np.ones(2, int), [1.0], None, np.float64(1)):
        fails(TypeError, "^f: a must be an array of floats, not ", require_written, "f", a=given)
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


def test_weights_and_biases():
    weights = {"linear": VECTOR, "conv2d": IMAGE, "conv_transpose2d": IMAGE}
    for name, weight in weights.items():
        for given in ("a", [1.0], None):
            fails(TypeError, f"^{name}: weight must be a Tensor or an array, not ", getattr(F, name), IMAGE, given)
        fails(TypeError, f"^{name}: bias must be a Tensor or an array, not 1$", getattr(F, name), IMAGE, weight, 1)
    for groups in (1.5, "1", None):
        fails(ValueError, "^conv2d: groups must be a whole number, not ", F.conv2d, IMAGE, IMAGE, groups=groups)


def test_flags_and_numbers_of_the_lessons():
    for name in ("max_pool2d", "avg_pool2d"):
        fails(ValueError, f"^{name}: ceil_mode is False or True, not 2$", getattr(F, name), IMAGE, 2, ceil_mode=2)
    fails(ValueError, "^avg_pool2d: count_include_pad is", F.avg_pool2d, IMAGE, 2, count_include_pad="no")
    fails(ValueError, "^dropout: training is False or True, not 'no'$", F.dropout, IMAGE, training="no")
    fails(ValueError, "^leaky_relu: negative_slope must be a finite number, not nan$", F.leaky_relu, IMAGE, np.nan)
    fails(ValueError, "^softmax: axis must be a whole number, not 1.5$", F.softmax, IMAGE, 1.5)
    fails(ValueError, "^pad: value must be a number, not None$", F.pad, VECTOR, ((1, 1),), value=None)
    for name in ("adaptive_avg_pool2d",):
        assert F.adaptive_avg_pool2d(Tensor(np.ones((1, 1, 1, 1))), (1 << 4, 1)).shape == (1, 16, 1, 1)
        words = rf"^{name}: output_size must be at most 1,048,576, not \(1, 1048577\)$"
        fails(ValueError, words, F.adaptive_avg_pool2d, IMAGE, (1, (1 << 20) + 1))


def test_batch_norm_that_is_refused_changes_nothing():
    running = {"running_mean": np.zeros(2, np.float32), "running_var": np.ones(2, np.float32)}
    x, gamma = (
        Tensor(np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)),
        Tensor(np.ones(2, np.float32)),
    )
    for change, error in (
        ({"beta": Tensor(np.ones(2))}, TypeError), ({"momentum": 1.5}, ValueError), ({"momentum": "1"}, ValueError),
        ({"eps": -1e-9}, ValueError), ({"training": 2}, ValueError), ({"running_var": np.ones(2, int)}, TypeError),
        ({"gamma": "a"}, TypeError), ({"beta": [1.0, 1.0]}, TypeError),
    ):  # fmt: skip
        name = next(iter(change)) if "beta" not in change or isinstance(change["beta"], list) else "float32 and float64"
        given = {"gamma": gamma, "beta": gamma, "training": True, **running, **change}
        fails(error, name, F.batch_norm, x, **given)
    assert running["running_mean"].tolist() == [0, 0] and running["running_var"].tolist() == [1, 1]


def test_lists_of_tensors():
    fails(TypeError, "^concatenate: tensors must be a list, not 3$", F.concatenate, 3)
    fails(ValueError, r"^concatenate needs at least one Tensor, not \(\)$", F.concatenate, ())
    fails(ValueError, "^concatenate: axis must be a whole number, not None$", F.concatenate, [VECTOR], None)
    fails(TypeError, "^concatenate|^Concatenate of 1 and 2: none of the arguments is a Tensor", F.concatenate, [1, 2])
    fails(TypeError, "^stack: tensors must be a list of Tensors, not with 3$", F.stack, [VECTOR, 3])
    for given in ("a", [[1], [2, 3]], {}):
        fails(TypeError, "^where takes a boolean condition, not ", F.where, given, VECTOR, VECTOR)
