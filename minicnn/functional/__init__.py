"""The functions a network is made of. Each file is a lesson: the equation, the derivation of its
gradient, and the code.

Read them in this order: linear, activation, loss, windows, conv, pooling, lrn, dropout, batch_norm.
A public function takes and returns Tensors; the functions beside it that take arrays, marked
@kernel, do the work. Faster versions of those are in minicnn/backends.
"""

from .activation import log_softmax, relu, sigmoid, softmax, tanh
from .batch_norm import batch_norm
from .conv import conv2d
from .conv_transpose import conv_transpose2d
from .dropout import dropout
from .linear import linear
from .loss import cross_entropy, mse_loss
from .lrn import local_response_norm
from .pooling import avg_pool2d, max_pool2d
from .shapes import concatenate, maximum, minimum, pad, stack, where

__all__ = [
    "avg_pool2d", "batch_norm", "concatenate", "conv2d", "conv_transpose2d", "cross_entropy", "dropout", "linear",
    "local_response_norm", "log_softmax", "max_pool2d", "maximum", "minimum", "mse_loss", "pad", "relu", "sigmoid",
    "softmax", "stack", "tanh", "where",
]  # fmt: skip
