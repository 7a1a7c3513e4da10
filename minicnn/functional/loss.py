"""Cross-entropy: a scalar that says how wrong the network is about classes.

    N samples   K classes   z the K logits of a sample   p = softmax(z)
    L = −log p_label = log Σ e^z − z_label     for each sample, and its mean over the batch
    dL/dz = p − onehot(label)                  as the derivative of log Σ e^z is e^z / Σ e^z = p

Softmax and logarithm are one operation here: as two, the logarithm of a probability that was
rounded to 0 would be −∞. (PyTorch 2.14 and Paddle 3.3 take logits too; Keras 3.15, probabilities.)

Second derivatives, with ⟨u, w⟩ = Σ_k u_k w_k: if g arrives at dz = dy (p − onehot), where dy is
the sample's scalar, dy gets ⟨g, p − onehot⟩, and p gets dy g, from which z gets
p (dy g − ⟨dy g, p⟩), as in lesson softmax. Only z and the labels are kept: p is computed again.

>>> import minicnn, minicnn.functional as F
>>> z = minicnn.Tensor([[0.0, 0.0], [0.0, 0.0]], requires_grad=True)
>>> loss = F.cross_entropy(z, [0, 1])
>>> print(f"{loss.item():.4f}")  # log 2: the network is undecided
0.6931
>>> loss.backward()
>>> z.grad  # (p − onehot) / N
Tensor([[-0.25,  0.25],
        [ 0.25, -0.25]], dtype=float32)

Try: what is the loss of a network that is wrong, and sure of it?

>>> F.cross_entropy(minicnn.Tensor([[100.0, 0.0]]), [1]).item()
100.0
"""

from typing import Any

import numpy as np

from ..autograd import Function, Gradients
from ..backends import kernel
from ..backends.devices import Array, array_module, on_device_of, to_device
from ..ops import Masked
from ..tensor import Tensor, apply
from .elementwise_loss import reduced
from .precision import float16_in_float32
from .softmax import log_softmax, softmax
from .targets import checked_options, class_numbers

__all__ = ["cross_entropy"]


@kernel
def negative_log_likelihood(z: Array, labels: Array) -> Array:
    """log Σ e^z − z_label for each sample: (N, K), (N,) -> (N,); NaN for a label out of range"""
    # z − max z has the same p and the same loss, and its exponentials do not overflow
    z, right = z - z.max(axis=1, keepdims=True), onehot(labels, z.shape[1])
    losses = np.log(np.exp(z).sum(axis=1)) - np.where(right, z, 0).sum(axis=1)
    losses[~right.any(axis=1)] = np.nan
    return losses


@kernel
def negative_log_likelihood_backward(dy: Array, z: Array, labels: Array) -> Array:
    """dz = (p − onehot(label)) dy: (N,), (N, K), (N,) -> (N, K); NaN for a label out of range"""
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
def cross_entropy(
    logits: Tensor,
    labels: Any,
    *,
    reduction: str = "mean",
    weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """−log softmax(logits) at the right class (Krizhevsky et al. 2012, section 3.5).

    Args:
        logits: (N, K), floating point: not yet probabilities.
        labels: (N,) integers from 0 to K − 1, or booleans: an array, a list or a Tensor.
        reduction: "mean" (NaN if no sample counts), "sum", or "none" for the N losses.
        weight: (K,), w_k ≥ 0, how much a sample of class k counts; the mean divides by Σ w_label.
        ignore_index: samples with this label do not count, nor in the mean; PyTorch has −100 here.
        label_smoothing: a share ε of the target, from 0 to 1, goes to all classes equally: the loss
            is (1 − ε) w_label L − ε · mean w_k log p_k (Szegedy et al. 2016, section 7).
    Returns:
        A 0-d Tensor; with "none" the losses, (N,).
    Raises:
        TypeError: the labels are not integers.
        ValueError: shapes or settings do not fit, or a label is out of range (on a GPU, where that
            is not checked, it makes the loss NaN).
    """
    weight = checked_options("cross_entropy", reduction, weight, ignore_index, label_smoothing)
    numbers, kept = class_numbers(labels, logits, ignore_index)
    if not logits.shape[1]:  # without classes no label is valid, so N is 0; and there is no maximum
        return reduced("cross_entropy", logits.reshape(-1), reduction)
    logits = logits if logits.dtype.kind == "f" else logits.astype(np.float32)
    if kept is not None:  # selected, not multiplied by 0: an ignored row may hold ∞
        logits = apply(Masked(kept.reshape(-1, 1)), logits)
    losses = apply(CrossEntropy(numbers), logits)
    if weight is None and kept is None and not label_smoothing:
        return reduced("cross_entropy", losses, reduction)
    weight = to_device(np.ones(logits.shape[1]) if weight is None else weight, logits.device)
    if weight.shape != logits.shape[1:]:
        raise ValueError(f"cross_entropy: weight of shape {weight.shape}, not {logits.shape[1:]}: one for each class")
    with on_device_of(logits.data):
        counts = weight[numbers]  # how much each sample counts, (N,)
        if kept is not None:
            counts = counts * kept
        all_counts = np.where(counts.any(), counts.sum(), np.nan)
        counting, weighing = Masked(counts != 0), Masked(weight != 0)  # a loss may be ∞ too
    losses = apply(counting, losses) * counts
    if label_smoothing:
        spread = -(apply(weighing, log_softmax(logits)) * weight).mean(axis=1)
        losses = (1 - label_smoothing) * losses + label_smoothing * (spread if kept is None else spread * kept)
    return losses.sum() / all_counts if reduction == "mean" else reduced("cross_entropy", losses, reduction)


# Faster versions of the @kernel functions: backends/numpy/loss.py, backends/native/loss.c,
# backends/cuda/loss.cu.
