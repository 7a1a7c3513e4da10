"""Dropout: leave out half of the neurons, other ones each time, so that none can rely on another (Krizhevsky et al.
2012, section 4.2).

    training      y = x · m / (1 − p)        m is 0 with probability p, else 1, drawn anew for each number and each call
    evaluation    y = x

so that y has the expectation x in both. The derivative is dx = dy · m / (1 − p): the gradient passes where the number
did.

| where texts differ | training       | evaluation    |
| ------------------ | -------------- | ------------- |
| here and PyTorch   | x · m/(1 − p)  | x             |
| the paper          | x · m          | x · (1 − p)   |

The two differ by a constant factor, in training and in evaluation alike.

>>> import minicnn, minicnn.functional as F
>>> _ = minicnn.manual_seed(1)
>>> F.dropout(minicnn.Tensor([1.0] * 8), p=0.5)
Tensor([0., 0., 2., 2., 0., 0., 0., 0.], dtype=float32)
"""

import numpy as np

from ..autograd import Function
from ..backend import Array, device_kernel, draw, elementwise, empty, empty_like, generator
from ..tensor import Tensor, apply


@device_kernel
def drop(x: Array, p: float, key: tuple[int, int]) -> Array:
    """x · m / (1 − p), with the m of that key"""
    m = empty(x.shape, np.float32)
    generator(key).random(dtype=np.float32, out=m)
    scale = 1 / (1 - p) if p < 1 else 0.0
    y = empty_like(x)
    elementwise(lambda x, m, y: np.multiply(x, np.greater_equal(m, p), out=y), x, m, y)
    y *= x.dtype.type(scale)
    return y


class Dropout(Function):
    """Linear in x, and its own transpose. The mask is not kept: its key is enough to draw it again."""

    floating = True

    def __init__(self, p: float, key: tuple[int, int]):
        self.p, self.key = p, key

    def forward(self, x):
        return drop(x, self.p, self.key)

    def backward(self, dy):
        return apply(Dropout(self.p, self.key), dy)


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Set each number to 0 with probability p and divide the others by 1 − p; x itself if not training or p is 0.

    Args:
        x: floating, of any shape.
        p: from 0 to 1; 0.5 in Krizhevsky et al. 2012, section 4.2.
        training: as in Module.train() and .eval().

    The numbers are keyed by manual_seed and the count of draws: the same for any number of threads, and on a GPU.
        Raises ValueError for another p.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is a probability from 0 to 1, not {p}")
    if not training or p == 0:
        return x
    return apply(Dropout(p, draw()), x)
