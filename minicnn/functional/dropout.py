"""Dropout: set a random half of the neurons to 0 each time, so that no neuron can rely on another
(Krizhevsky et al. 2012, section 4.2).

    training      y = x · s where m, else 0    m is false with probability p, drawn anew each time
    evaluation    y = x · (1 − p) · s          the expectation of the above

The derivative is dx = dy · s where m, else 0: the gradient of each kept element is kept. A dropped
element is 0 even if it was infinite or NaN, for which x · 0 would be NaN. The derivative is the
same linear map, applied to dy, and so is every further derivative. It needs the same mask, which is
not kept but drawn again, from its key: the seed, and the number of draws before this one.

Processes that share a batch have the same key, and each holds some of the rows. Each begins its
mask at the place of its first element in the whole batch: they drop what one process would.

| where texts differ                | s           | training         | evaluation  |
| --------------------------------- | ----------- | ---------------- | ----------- |
| scale="training", as PyTorch 2.14 | 1 / (1 − p) | x / (1 − p) or 0 | x           |
| scale="evaluation", the paper     | 1           | x or 0           | x · (1 − p) |

The two differ by the factor 1 − p, both in training and in evaluation: a network trained with one
can be used with the other if the weights of the next layer are scaled. Training itself differs,
because a learning rate and a weight decay are chosen for one scale of weights.

>>> import numpy as np, minicnn, minicnn.functional as F
>>> _ = minicnn.manual_seed(1)
>>> F.dropout(minicnn.Tensor([1.0] * 8), p=0.5)
Tensor([0., 0., 2., 2., 0., 0., 0., 0.], dtype=float32)
>>> F.dropout(minicnn.Tensor([1.0] * 8), p=0.5, training=False, scale="evaluation")
Tensor([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], dtype=float32)

Try: what is the mean of the elements that are kept, and the mean of all?

>>> y = F.dropout(minicnn.Tensor(np.ones(100_000)), p=0.2).numpy()
>>> print(f"{y[y > 0].mean():.2f} {y.mean():.2f}")
1.25 1.00
"""

import math

import numpy as np

from ..autograd import Function, Gradients
from ..backends import kernel
from ..backends.devices import Array, device_of, to_device
from ..checks import choice, flags, number
from ..random import draw, first_row, generator
from ..tensor import Tensor, apply
from .arguments import require_tensors

__all__ = ["dropout"]


@kernel
def drop(x: Array, p: float, key: tuple[int, int], first: int, s: float) -> Array:
    """x · s where m is true, else 0; m is drawn with the key, from its number `first` on"""
    m = np.asarray(generator(key, first).random(x.shape, dtype=np.float32) >= p)
    return np.where(to_device(m, device_of(x)), x, x.dtype.type(0)) * s


class Dropout(Function):
    """A map linear in x, and its own transpose. It keeps what draws the mask, not the mask."""

    promotes_integers = True

    def __init__(self, p: float, key: tuple[int, int], first: int, s: float):
        self.p, self.key, self.first, self.s = p, key, first, s

    def forward(self, x: Array) -> Array:
        return drop(x, self.p, self.key, self.first, self.s)

    def backward(self, dy: Tensor) -> Gradients:
        return apply(Dropout(self.p, self.key, self.first, self.s), dy)


def dropout(x: Tensor, p: float = 0.5, training: bool = True, *, scale: str = "training") -> Tensor:
    """Each element is set to 0 with probability p (Krizhevsky et al. 2012, section 4.2).

    The random numbers depend on manual_seed, the count of draws and the element's place in the
    batch only: they are the same for any number of threads, on a GPU, and in processes that share a
    batch (see minicnn.random.rows_before).

    Args:
        x: floating point, of any shape.
        p: from 0 to 1; 0.5 in the paper.
        training: False in evaluation; a Module passes its own (see Module.train and .eval).
        scale: when to compensate. With "training", the kept elements are divided by 1 − p, and
            evaluation returns x itself; with "evaluation", as in the paper, evaluation multiplies
            all elements by 1 − p. Keyword-only, because PyTorch's fourth argument is inplace.
    Returns:
        A Tensor of x's shape and dtype.
    Raises:
        ValueError: p or scale is something else, or x has not the rows that rows_before names.
    """
    require_tensors("dropout", x=x)
    flags("dropout", training=training)
    p = check_dropout("dropout", p, scale)
    if p == 0:
        return x
    inverted = scale == "training" and p < 1  # with p = 1 there is nothing left to scale
    if training:
        first = first_row(len(x)) * math.prod(x.shape[1:]) if x.ndim else 0  # a number has no rows
        return apply(Dropout(p, draw(), first, 1 / (1 - p) if inverted else 1.0), x)
    return x if scale == "training" else x * (1.0 - p)


def check_dropout(name: str, p: float, scale: str) -> float:
    choice(f"{name}: scale", scale, "training", "evaluation")
    return number(f"{name}: p, a probability,", p, 0, 1)


# Faster versions of the functions marked @kernel, which run in their place:
# backends/numpy/dropout.py, backends/native/dropout.c, backends/cuda/dropout.cu.
