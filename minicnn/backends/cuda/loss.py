"""Cross-entropy on a GPU: the lesson functional/loss.py, by the kernels of loss.cu."""

import numpy as np

from ..devices import Array
from .launch import contiguous, empty, empty_like, launch, launch_blocks


def negative_log_likelihood(z: Array, labels: Array) -> Array:
    losses = empty(labels.shape, z.dtype)
    arrays = contiguous(z), contiguous(labels), losses
    launch_blocks("loss.negative_log_likelihood", len(z), *arrays, len(z), real=z.dtype, K=z.shape[1])
    return losses


def negative_log_likelihood_backward(dy: Array, z: Array, labels: Array) -> Array:
    dz = empty_like(z)
    arrays = dy, dy.strides[0] // dy.itemsize, contiguous(z), contiguous(labels), dz
    launch_blocks("loss.negative_log_likelihood_backward", len(z), *arrays, len(z), real=z.dtype, K=z.shape[1])
    return dz


def onehot(labels: Array, classes: int) -> Array:
    out = empty((len(labels), classes), np.bool_)
    launch("loss.onehot", out.size, contiguous(labels), out, out.size, real=np.float32, K=classes)
    return out
