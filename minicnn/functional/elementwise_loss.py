"""Losses of single numbers: one for each number that the network says, and their mean.

    mse_loss     L = (prediction − target)²

    binary_cross_entropy_with_logits
                 L = −t log p − (1 − t) log(1 − p),   p = sigmoid(z) of one logit z and a target t, 0 … 1

The second is cross-entropy with two answers, yes and no, for which one logit is enough. As
log p = z − log(1 + e^z) and log(1 − p) = −log(1 + e^z),

    L = log(1 + e^z) − t z = max(z, 0) + log(1 + e^−|z|) − t z         dL/dz = p − t

of which the second form does not overflow.

| where libraries differ       | mse_loss of shapes (N,) and (N, 1)   |
| ---------------------------- | ------------------------------------ |
| here, Optax 0.2, Chainer 7.8 | an error                             |
| PyTorch 2.14                 | N² numbers, with a warning           |
| Paddle 3.3                   | N² numbers, silently                 |
| Keras 3.15                   | N numbers: the axis of 1 is left out |

>>> import minicnn, minicnn.functional as F
>>> z = minicnn.Tensor([0.0, 100.0, -100.0], requires_grad=True)
>>> loss = F.binary_cross_entropy_with_logits(z, [1.0, 1.0, 1.0], reduction="none")
>>> loss.detach()  # log 2, as it does not know; right; and as wrong as its logit is large
Tensor([  0.6931472,   0.       , 100.       ], dtype=float32)
>>> loss.sum().backward()
>>> z.grad  # p − t
Tensor([-0.5,  0. , -1. ], dtype=float32)
"""

from typing import Any

import numpy as np

from ..autograd import Function, Gradients
from ..backends import kernel
from ..backends.devices import Array
from ..tensor import Tensor, apply
from .activation import sigmoid

__all__ = ["binary_cross_entropy_with_logits", "mse_loss"]


class LogisticLoss(Function):
    """The loss of each number, of a logit and a target."""

    promotes_integers = True
    saves = ((0, 1), (0,))

    def forward(self, z: Array, t: Array) -> Array:
        return logistic_loss(z, t)

    def backward(self, dy: Tensor) -> Gradients:
        z, t = self.saved_inputs
        by_z = dy * (sigmoid(z) - t) if self.needs_input_grad[0] else None
        return by_z, -dy * z if self.needs_input_grad[1] else None


@kernel
def logistic_loss(z: Array, t: Array) -> Array:
    """log(1 + e^z) − t z"""
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - t * z


def binary_cross_entropy_with_logits(logits: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """−t log p − (1 − t) log(1 − p) for p = sigmoid(logits), the probability that the answer is yes.

    Args:
        logits: floating point, of any shape: not yet probabilities.
        target: t, a Tensor or an array of exactly that shape, from 0 (no) to 1 (yes).
        reduction: "mean", "sum" or "none"; by name.

    Raises ValueError if the shapes differ.
    """
    _same_shape("binary_cross_entropy_with_logits", logits, target)
    losses = apply(LogisticLoss(), logits, target)
    return reduced("binary_cross_entropy_with_logits", losses, reduction)


def mse_loss(prediction: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """(prediction − target)², averaged over all numbers.

    Args:
        prediction: floating point, of any shape.
        target: a Tensor or an array of exactly that shape.
        reduction: "mean", "sum" or "none"; by name.
    """
    _same_shape("mse_loss", prediction, target)
    return reduced("mse_loss", (prediction - target) ** 2, reduction)


def _same_shape(name: str, prediction: Tensor, target: Any) -> None:
    shape = np.shape(target.data if isinstance(target, Tensor) else target)
    if prediction.shape != shape:
        raise ValueError(
            f"{name}: prediction of shape {prediction.shape} and target of shape {shape} must have equal shapes"
        )


def reduced(name: str, losses: Tensor, reduction: str) -> Tensor:
    """The losses' "mean" or "sum", or with "none" the losses; ValueError for another reduction."""
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction != "none":
        raise ValueError(f"{name}: reduction is 'mean', 'sum' or 'none', not {reduction!r}")
    return losses
