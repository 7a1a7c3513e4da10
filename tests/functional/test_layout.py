"""minicnn/functional/layout.py: images and weights in another library's layout."""

import numpy as np
import pytest
from reference import fails, refuses

import minicnn.functional as F
from minicnn import Tensor

IMAGES, KERNELS = "x.transpose(0, 2, 3, 1)?", "weight.transpose(2, 3, 1, 0)?"


def ones(shape):
    return None if shape is None else Tensor(np.ones(shape))


def as_told(x, weight, hints):
    """Images and weight, turned as the hints say."""
    x, weight = ones(x), ones(weight)
    return (
        x.transpose(0, 2, 3, 1) if IMAGES in hints else x,
        weight.transpose(2, 3, 1, 0) if KERNELS in hints else weight,
    )


@pytest.mark.parametrize(
    "x, weight, bias, groups, hints",
    [
        ((1, 3, 32, 32), (5, 5, 3, 8), None, 1, [IMAGES]),
        ((1, 32, 32, 3), (8, 3, 5, 5), None, 1, [KERNELS]),
        ((1, 32, 32, 3), (8, 3, 3, 3), (8,), 1, [KERNELS]),  # only the bias tells
        ((1, 3, 32, 32), (8, 3, 5, 5), (8,), 1, [IMAGES, KERNELS]),
        ((1, 4, 32, 32), (5, 5, 2, 8), None, 2, [IMAGES]),
        ((1, 32, 32, 4), (8, 2, 5, 5), None, 2, [KERNELS]),  # 5 is not divisible by 2
        ((1, 7, 32, 32), (5, 5, 3, 8), None, 1, []),
        ((1, 3, 32, 32), (5, 5, 3, 8), (7,), 1, []),
        ((1, 32, 32, 3), (5, 5, 3, 8), (7,), 1, []),
        ((1, 4, 32, 32), (5, 5, 2, 7), None, 2, []),
    ],
)
def test_the_hint_is_what_would_fit(x, weight, bias, groups, hints):
    with pytest.raises(ValueError, match=r"^conv2d: ") as caught:
        F.conv2d(ones(x), ones(weight), ones(bias), groups=groups)
    message = str(caught.value)
    assert [hint for hint in (IMAGES, KERNELS) if hint in message] == hints and "\n" not in message
    if hints:
        F.conv2d(*as_told(x, weight, hints), ones(bias), groups=groups)


@pytest.mark.parametrize(
    "x, weight, bias, hints",
    [
        ((1, 8, 5, 5), (3, 3, 2, 8), (2,), [IMAGES]),
        ((1, 5, 5, 8), (8, 2, 3, 3), (2,), [KERNELS]),  # PyTorch: (in, out, KH, KW)
        ((1, 8, 5, 5), (8, 2, 3, 3), None, [IMAGES, KERNELS]),
    ],
)
def test_the_transpose_has_its_own_channels(x, weight, bias, hints):
    with refuses(ValueError, "conv_transpose2d", *hints):
        F.conv_transpose2d(ones(x), ones(weight), ones(bias))
    y = F.conv_transpose2d(*as_told(x, weight, hints), ones(bias))
    assert y.shape == (1, 7, 7, 2)


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_what_a_convolution_does_not_take(name):
    convolve, x = getattr(F, name), ones((1, 4, 4, 2))
    fails(TypeError, f"^{name}: x must be a Tensor, not an array", convolve, x.data, x)
    for weight in ("a", [1.0], None):
        fails(TypeError, f"^{name}: weight must be a Tensor or an array, not ", convolve, x, weight)
    fails(TypeError, f"^{name}: bias must be a Tensor or an array, not 1$", convolve, x, ones((1, 1, 2, 2)), 1)
    for groups in (1.5, "1", None):
        fails(
            ValueError, f"^{name}: groups must be a whole number, not ", convolve, x, ones((1, 1, 2, 2)), groups=groups
        )
