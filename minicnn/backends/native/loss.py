"""Cross-entropy (functional/loss.py), by the kernels of loss.c."""

import numpy as np

from .launch import Array, contiguous, empty_like, launch


def negative_log_likelihood(z: Array, labels: Array) -> Array:
    """log Σ e^z − z_label for each sample; NaN for a label that is not a class"""
    z, labels = contiguous(z), contiguous(labels.astype(np.int64, copy=False))
    losses, classes = np.empty(len(z), z.dtype), z.shape[1]
    work = classes, z, labels, losses
    launch("loss.negative_log_likelihood", len(z), *work, real=z.dtype, each=classes)
    return losses


def negative_log_likelihood_backward(dy: Array, z: Array, labels: Array) -> Array:
    """(p − onehot(label)) dy; NaN for a label that is not a class"""
    dy, z, labels = contiguous(dy), contiguous(z), contiguous(labels.astype(np.int64, copy=False))
    dz, classes = empty_like(z), z.shape[1]
    work = classes, dy, z, labels, dz
    launch("loss.negative_log_likelihood_backward", len(z), *work, real=z.dtype, each=classes)
    return dz
