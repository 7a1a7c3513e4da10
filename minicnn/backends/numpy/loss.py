"""Cross-entropy (functional/loss.py), which looks up each sample's label instead of comparing it
with every class: this takes half of the time for a thousand classes.
"""

import numpy as np

from .threads import Array


def negative_log_likelihood(z: Array, labels: Array) -> Array:
    """log Σ e^z − z_label for each sample; NaN for a label that is not a class"""
    z = z - z.max(axis=1, keepdims=True)
    classes, rows = (labels >= 0) & (labels < z.shape[1]), np.arange(len(z))
    right = z[rows, np.where(classes, labels, 0)]
    losses = np.log(np.exp(z, out=z).sum(axis=1)) - right
    losses[~classes] = np.nan
    return losses


def negative_log_likelihood_backward(dy: Array, z: Array, labels: Array) -> Array:
    """(p − onehot(label)) dy; NaN for a label that is not a class"""
    dz = z - z.max(axis=1, keepdims=True)
    np.exp(dz, out=dz)
    dz *= (dy / dz.sum(axis=1)).reshape(-1, 1)
    classes, rows = (labels >= 0) & (labels < z.shape[1]), np.arange(len(z))
    dz[rows, np.where(classes, labels, 0)] -= dy
    dz[~classes] = np.nan
    return dz
