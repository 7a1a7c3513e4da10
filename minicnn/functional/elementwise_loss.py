"""Elementwise losses: one for each element of the network's output, and their mean.

    mse_loss     L = (prediction − target)²             dL/dprediction = 2 (prediction − target)

    binary_cross_entropy_with_logits
                 L = −t log p − (1 − t) log(1 − p)    p = sigmoid(z), logit z, target t from 0 to 1

The second is cross-entropy with two classes, yes and no, for which one logit is enough. As
log p = z − log(1 + e^z) and log(1 − p) = −log(1 + e^z),

    L = log(1 + e^z) − t z = log(1 + e^−|z|) + |z| · (1 − t where z > 0, else t)
    dL/dz = p − t        dL/dt = −z

where the second form of L does not overflow: where z > 0, log(1 + e^z) = z + log(1 + e^−z). As the
derivative of log(1 + e^z) is e^z / (1 + e^z) = p, the first gives the derivatives. The sign of z is
the network's answer, 1 or 0, and |z| is multiplied by the distance of that answer from t: if it is
t, by 0, even if |z| is infinite.

Second derivatives follow by the product rule: if g arrives at dz = dy (p − t), then dy gets
g (p − t), t gets −g dy, and z gets g dy p (1 − p), because p is the sigmoid of z. Kept are z and,
if dz is wanted, t; p is computed again.

| where libraries differ       | mse_loss of shapes (N,) and (N, 1)   |
| ---------------------------- | ------------------------------------ |
| here, Optax 0.2, Chainer 7.8 | an error                             |
| PyTorch 2.14                 | N² elements, with a warning          |
| Paddle 3.3                   | N² elements, silently                |
| Keras 3.15                   | N elements: the axis of 1 is dropped |

>>> import minicnn, minicnn.functional as F
>>> z = minicnn.Tensor([0.0, 200.0, -200.0], requires_grad=True)
>>> loss = F.binary_cross_entropy_with_logits(z, [1.0, 1.0, 1.0], reduction="none")
>>> loss.detach()  # log 2 for an undecided answer; a right one; a wrong one costs its |z|
Tensor([  0.6931472,   0.       , 200.       ], dtype=float32)
>>> loss.sum().backward()
>>> z.grad  # p − t
Tensor([-0.5,  0. , -1. ], dtype=float32)

Try: train. A linear layer, whose bias is the weight of a third input that is always 1, learns
"and". Does it learn "exclusive or"? No line separates the two answers, so the loss stays at log 2:

>>> x = minicnn.Tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
>>> for target in ([0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]):
...     w = minicnn.Tensor([0.0, 0.0, 0.0], requires_grad=True)
...     for step in range(200):
...         loss = F.binary_cross_entropy_with_logits(x @ w, target)
...         w.data -= minicnn.grad(loss, w)[0].data
...     print(f"{loss.item():.2f}")
0.08
0.69
"""

from typing import Any

import numpy as np

from ..autograd import Function, Gradients
from ..backends import kernel
from ..backends.devices import Array, real_array
from ..checks import choice
from ..tensor import Tensor, apply
from .activation import sigmoid
from .precision import float16_in_float32

__all__ = ["binary_cross_entropy_with_logits", "mse_loss"]


class LogisticLoss(Function):
    """The loss of each element, from a logit and a target."""

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
    """log(1 + e^−|z|) + |z| · (1 − t where z > 0, else t)"""
    size = np.abs(z)
    # equivalent (comparison): 0 times either is 0 (a note for tests/mutation.py)
    distance = np.where(z > 0, 1 - t, t)  # of the answer from t
    return np.log1p(np.exp(-size)) + np.where(distance == 0, distance, size) * distance  # no ∞ · 0


@float16_in_float32
def binary_cross_entropy_with_logits(logits: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """−t log p − (1 − t) log(1 − p), where p = sigmoid(logits) is the probability of yes.

    Args:
        logits: floating point, of any shape: not yet probabilities.
        target: t, a Tensor or an array of exactly that shape, from 0 (no) to 1 (yes).
        reduction: "mean", "sum" or "none".
    Returns:
        A 0-d Tensor; with "none" the losses, of the shape of logits.
    Raises:
        ValueError: the shapes differ, or reduction is something else.
    """
    _same_shape("binary_cross_entropy_with_logits", logits, target)
    losses = apply(LogisticLoss(), logits, target)
    return reduced("binary_cross_entropy_with_logits", losses, reduction)


@float16_in_float32
def mse_loss(prediction: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """(prediction − target)², averaged over all elements.

    Args:
        prediction: floating point, of any shape.
        target: a Tensor or an array of exactly that shape.
        reduction: "mean", "sum" or "none".
    Returns:
        A 0-d Tensor; with "none" the losses, of the shape of prediction.
    Raises:
        ValueError: the shapes differ, or reduction is something else.

    Example:
        >>> mse_loss(Tensor([1.0, 2.0]), [1.0, 4.0]).item()
        2.0
    """
    _same_shape("mse_loss", prediction, target)
    return reduced("mse_loss", (prediction - target) ** 2, reduction)


def _same_shape(name: str, prediction: Tensor, target: Any) -> None:
    if not isinstance(target, Tensor):
        target = real_array(f"{name}: target is a Tensor or an array of numbers", target)
    shape = target.shape
    if prediction.shape != shape:
        raise ValueError(
            f"{name}: prediction of shape {prediction.shape} and target of shape {shape} must have equal shapes"
        )


def reduced(name: str, losses: Tensor, reduction: str) -> Tensor:
    """The losses' "mean" or "sum", or with "none" the losses themselves.

    Raises:
        ValueError: reduction is something else.
    """
    check_reduction(name, reduction)
    return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()


def check_reduction(name: str, reduction: str) -> None:
    choice(f"{name}: reduction", reduction, "mean", "sum", "none")


# There is no faster version of this kernel.
