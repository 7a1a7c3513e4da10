"""Initializers: the values with which a weight starts. Each function here returns an initializer,
which takes a shape and returns a float32 array, drawn from the random numbers of this process.

What matters is the variance. A sum of fan_in products has fan_in times their variance, so weights
of variance 1/fan_in keep the size of a signal from layer to layer (LeCun). A ReLU removes half of
it, hence 2/fan_in (He); 2/(fan_in + fan_out) is a compromise with the same argument for the
gradients (Xavier). The AlexNet paper has a standard deviation of 0.01 everywhere, which assumes
inputs from 0 to 255, less their mean.

The last axis of a weight is its outputs: (KH, KW, C, O) or (in, out). fan_in is the number of
inputs of one output, KH·KW·C or in; fan_out is the number of outputs of one input, KH·KW·O or out.

>>> he()((3, 3, 16, 32)).shape
(3, 3, 16, 32)
"""

from collections.abc import Callable
from math import prod, sqrt

import numpy as np

from ..backends.devices import Array
from ..checks import number, sizes
from ..random import generator

__all__ = ["constant", "he", "lecun", "normal", "xavier"]

Shape = tuple[int, ...]
Initializer = Callable[[Shape], Array]


def __dir__() -> list[str]:
    return __all__  # what tab completion offers


def _fans(shape: Shape) -> tuple[int, int]:
    shape = sizes("an initializer's shape", shape)
    if len(shape) < 2:
        raise ValueError(f"a weight has at least two axes, (…, in, out), not shape {shape}")
    return prod(shape[:-1]) or 1, prod(shape[:-2]) * shape[-1] or 1


def _gaussian(shape: Shape, std: float) -> Array:
    return generator().standard_normal(sizes("an initializer's shape", shape), np.float32) * np.float32(std)


def started(initializer: Initializer | None, shape: Shape, name: str) -> Array:
    """An array of that shape by an initializer, by default he().

    Raises:
        TypeError: it is not an initializer, such as he, whose parentheses were forgotten.
        ValueError: its result has another shape.
    """
    sizes(f"{name}: the weight's shape", shape)
    try:
        array = (he() if initializer is None else initializer)(shape)
        found = array.shape
    except (TypeError, ValueError, AttributeError) as error:
        raise TypeError(
            f"{name}: weight_init takes a shape and returns an array, as nn.init.he() does (with parentheses): {error}"
        ) from error
    if found != shape:
        raise ValueError(f"{name}: weight_init made an array of shape {found}, not {shape}")
    return array


def constant(value: float) -> Initializer:
    """Every element is the same.

    Args:
        value: of each element.

    Example:
        >>> constant(1.0)((2,))
        array([1., 1.], dtype=float32)
    """
    value = number("constant: value", value, finite=False)
    return lambda shape: np.full(sizes("an initializer's shape", shape), value, np.float32)


def normal(std: float = 0.01) -> Initializer:
    """N(0, std²) (Krizhevsky et al. 2012, section 5).

    Args:
        std: the standard deviation; 0.01 in the paper.

    Example:
        >>> print(f"{normal(0.01)((100, 300)).std():.2f}")
        0.01
    """
    std = number("normal: std", std, 0)
    return lambda shape: _gaussian(shape, std)


def lecun() -> Initializer:
    """N(0, 1/fan_in) (LeCun et al. 1998, Efficient BackProp).

    Example:
        >>> print(f"{lecun()((100, 300)).std():.2f}")
        0.10
    """
    return lambda shape: _gaussian(shape, sqrt(1 / _fans(shape)[0]))


def xavier() -> Initializer:
    """N(0, 2/(fan_in + fan_out)) (Glorot and Bengio 2010).

    Example:
        >>> print(f"{xavier()((100, 300)).std():.2f}")
        0.07
    """
    return lambda shape: _gaussian(shape, sqrt(2 / sum(_fans(shape))))


def he() -> Initializer:
    """N(0, 2/fan_in), for layers that a ReLU follows (He et al. 2015).

    Example:
        >>> print(f"{he()((100, 300)).std():.2f}")
        0.14
    """
    return lambda shape: _gaussian(shape, sqrt(2 / _fans(shape)[0]))
