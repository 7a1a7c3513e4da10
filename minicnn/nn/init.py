"""Initializers: where a weight starts. Each takes a shape and returns a float32 array drawn from this process's random
numbers.

What matters is the variance. A sum of fan_in products has fan_in times their variance, so weights of variance 1/fan_in
keep the size of a signal from layer to layer (LeCun); half of it is lost in a ReLU, hence 2/fan_in (He); 2/(fan_in +
fan_out) is the compromise with the gradients' way back (Xavier). AlexNet's paper has N(0, 0.01) everywhere, which
suits inputs of 0 to 255 less their mean and no others.

A weight's last axis is its outputs: (KH, KW, C, O) or (in, out). fan_in is how many numbers make one output, KH·KW·C
or in; fan_out how many outputs one number goes to, KH·KW·O or out.
"""

from collections.abc import Callable
from math import prod, sqrt

import numpy as np

from ..backends.devices import Array
from ..random import generator

__all__ = ["constant", "he", "lecun", "normal", "xavier"]

Shape = tuple[int, ...]
Initializer = Callable[[Shape], Array]


def __dir__() -> list[str]:
    return __all__  # what tab completion offers


def _fans(shape: Shape) -> tuple[int, int]:
    if len(shape) < 2:
        raise ValueError(f"a weight has at least two axes, (…, in, out), not shape {shape}")
    return prod(shape[:-1]), prod(shape[:-2]) * shape[-1]


def _gaussian(shape: Shape, std: float) -> Array:
    return generator().standard_normal(shape, np.float32) * np.float32(std)


def started(initializer: Initializer | None, shape: Shape, name: str) -> Array:
    """An array of that shape by an initializer, or by he() if there is none. TypeError if it is no
    initializer, such as he, whose brackets were forgotten; ValueError for another result."""
    try:
        array = (initializer or he())(shape)
        found = array.shape
    except (TypeError, AttributeError) as error:
        raise TypeError(
            f"{name}: weight_init takes a shape and returns an array, as nn.init.he() does (with the brackets): {error}"
        ) from error
    if found != shape:
        raise ValueError(f"{name}: weight_init made an array of shape {found}, not {shape}")
    return array


def constant(value: float) -> Initializer:
    """Every number the same."""
    return lambda shape: np.full(shape, value, np.float32)


def normal(std: float = 0.01) -> Initializer:
    """N(0, std²), std being 0.01 in Krizhevsky et al. 2012, section 5."""
    return lambda shape: _gaussian(shape, std)


def lecun() -> Initializer:
    """N(0, 1/fan_in): LeCun et al. 1998, Efficient BackProp."""
    return lambda shape: _gaussian(shape, sqrt(1 / _fans(shape)[0]))


def xavier() -> Initializer:
    """N(0, 2/(fan_in + fan_out)): Glorot and Bengio 2010."""
    return lambda shape: _gaussian(shape, sqrt(2 / sum(_fans(shape))))


def he() -> Initializer:
    """N(0, 2/fan_in): He et al. 2015, for layers followed by a ReLU."""
    return lambda shape: _gaussian(shape, sqrt(2 / _fans(shape)[0]))
