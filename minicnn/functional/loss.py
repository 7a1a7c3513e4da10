"""Losses: one number that says how wrong the network is.

    cross_entropy   L = −log p_label,   p = softmax(z)                 of K logits z, for each sample
    mse_loss        L = (prediction − target)²                         for each number

and their mean over the batch. The gradient of cross-entropy is as simple as a gradient can be. With log p_label =
z_label − log Σ e^z,

    dL/dz = p − onehot(label)

the probabilities, less 1 at the right answer. Softmax and logarithm are therefore one operation here: apart, the
logarithm of a probability that has been rounded to 0 would be −∞.

    N samples   K classes

| where libraries differ | cross_entropy takes             | mse_loss of (N,) and (N, 1)          |
| ---------------------- | ------------------------------- | ------------------------------------ |
| here                   | logits and class numbers        | an error, as in Optax and Chainer    |
| PyTorch 2.14           | the same                        | N² numbers, with a warning           |
| Paddle 3.3             | the same                        | N² numbers, silently                 |
| Keras 3.15             | probabilities, unless told else | N numbers: the axis of 1 is left out |

>>> import minicnn, minicnn.functional as F
>>> z = minicnn.Tensor([[0.0, 0.0], [0.0, 0.0]], requires_grad=True)
>>> loss = F.cross_entropy(z, [0, 1])
>>> print(f"{loss.item():.4f}")  # log 2: it does not know
0.6931
>>> loss.backward()
>>> z.grad  # (p − onehot) / N
Tensor([[-0.25,  0.25],
        [ 0.25, -0.25]], dtype=float32)
"""

from typing import Any

import numpy as np

from ..autograd import Function, Gradients
from ..backends import kernel
from ..backends.devices import Array, array_module, on_host, to_device
from ..tensor import Tensor, apply
from .precision import float16_in_float32
from .softmax import softmax

__all__ = ["cross_entropy", "mse_loss"]


@kernel
def negative_log_likelihood(z: Array, labels: Array) -> Array:
    """log Σ e^z − z_label for each sample: (N, K), (N,) -> (N,); NaN for a label that is no class"""
    z, right = z - z.max(axis=1, keepdims=True), onehot(labels, z.shape[1])
    losses = np.log(np.exp(z).sum(axis=1)) - np.where(right, z, 0).sum(axis=1)
    losses[~right.any(axis=1)] = np.nan
    return losses


@kernel
def negative_log_likelihood_backward(dy: Array, z: Array, labels: Array) -> Array:
    """dz = (p − onehot(label)) dy: (N,), (N, K), (N,) -> (N, K); NaN for a label that is no class"""
    e, right = np.exp(z - z.max(axis=1, keepdims=True)), onehot(labels, z.shape[1])
    dz = (e / e.sum(axis=1, keepdims=True) - right) * dy.reshape(-1, 1)
    dz[~right.any(axis=1)] = np.nan
    return dz


@kernel
def onehot(labels: Array, classes: int) -> Array:
    """(N,) -> (N, K): True at the label, False elsewhere"""
    return labels[:, None] == array_module(labels).arange(classes)


class CrossEntropy(Function):
    """The loss of each sample."""

    promotes_integers = True
    saves = ((0,),)

    def __init__(self, labels: Array):
        self.labels = labels

    def forward(self, z: Array) -> Array:
        return negative_log_likelihood(z, self.labels)

    def backward(self, dy: Tensor) -> Gradients:
        return apply(CrossEntropyBackward(self.labels), dy, self.saved_inputs[0])


class CrossEntropyBackward(Function):
    saves = ((1,), (0, 1))

    def __init__(self, labels: Array):
        self.labels = labels

    def forward(self, dy: Array, z: Array) -> Array:
        return negative_log_likelihood_backward(dy, z, self.labels)

    def backward(self, g: Tensor) -> Gradients:
        dy, z = self.saved_inputs
        p = softmax(z)
        by_dy = (g * (p - onehot(self.labels, z.shape[1]))).sum(axis=1)
        if not self.needs_input_grad[1]:
            return by_dy, None
        return by_dy, p * (g - (g * p).sum(axis=1, keepdims=True)) * dy.reshape(-1, 1)


@float16_in_float32
def cross_entropy(logits: Tensor, labels: Any, *, reduction: str = "mean") -> Tensor:
    """−log softmax(logits) at the right class: the multinomial logistic regression objective of Krizhevsky et al.
    2012, section 3.5.

    Args:
        logits: (N, K), floating: not yet probabilities.
        labels: (N,) integers from 0 to K − 1: an array, a list or an integer Tensor.
        reduction: "mean" over the batch (NaN for an empty one), "sum", or "none" for the N losses; by
            name, for PyTorch's third argument is a weight for each class.

    Raises TypeError for labels that are not integers, ValueError if shapes do not fit or a label is out of range. (For
        labels on a GPU nobody waits to see: one out of range makes the loss NaN.)
    """
    numbers = labels.data if isinstance(labels, Tensor) else np.asarray(labels)
    if logits.ndim != 2 or numbers.shape != logits.shape[:1]:
        raise ValueError(f"cross_entropy needs logits (N, K) and labels (N,), not {logits.shape} and {numbers.shape}")
    if numbers.dtype.kind not in "iu" and numbers.size:
        raise TypeError(f"cross_entropy: labels are class numbers, integers; these are {numbers.dtype}")
    classes = logits.shape[1]
    if on_host(numbers) and numbers.size and not 0 <= numbers.min() <= numbers.max() < classes:
        raise ValueError(
            f"cross_entropy: labels run from {numbers.min()} to {numbers.max()}, but there are {classes} classes"
        )
    if not classes:  # then there are no samples either, and no largest logit
        return _reduced("cross_entropy", logits.sum(axis=1), reduction)
    # a copy, for the gradient needs it later; but labels on a GPU belong to a batch and are not written to again
    numbers = numbers.astype(np.int64, copy=on_host(numbers))
    return _reduced("cross_entropy", apply(CrossEntropy(to_device(numbers, logits.device)), logits), reduction)


def mse_loss(prediction: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """(prediction − target)², averaged over all numbers.

    Args:
        prediction: floating, of any shape.
        target: a Tensor or an array of exactly that shape.
        reduction: "mean", "sum" or "none"; by name.
    """
    shape = np.shape(target.data if isinstance(target, Tensor) else target)
    if prediction.shape != shape:
        raise ValueError(
            f"mse_loss: prediction of shape {prediction.shape} and target of shape {shape} must have equal shapes"
        )
    return _reduced("mse_loss", (prediction - target) ** 2, reduction)


def _reduced(name: str, losses: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction != "none":
        raise ValueError(f"{name}: reduction is 'mean', 'sum' or 'none', not {reduction!r}")
    return losses


# Faster versions: backends/cuda/loss.cu.
