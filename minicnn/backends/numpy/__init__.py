"""The NumPy backend: the lessons for NumPy's arrays on all of a CPU's cores. What it adds to them
is threads (threads.py), recycled memory (memory.py), slices that fit the cache, and where it pays a
second algorithm (winograd.py).
"""

from .. import Backend, named
from . import activation, conv, dropout, fused, loss, lrn, ops, optimizer, pixels, pooling, standardize, windows

backend = Backend(
    "numpy",
    device="cpu",
    default=True,
    kernels=named(
        activation.rectify, activation.where_positive, conv.convolve, conv.convolve_transpose,
        conv.convolve_weight, dropout.drop, fused.convolve_rectify, loss.negative_log_likelihood,
        loss.negative_log_likelihood_backward, lrn.normalize, lrn.normalize_backward, lrn.sum_window,
        ops.broadcast, ops.masked, ops.matmul, ops.total, optimizer.adam, optimizer.sgd, pixels.normalize,
        pooling.gather, pooling.scatter, pooling.window_maximum, pooling.winners, standardize.moments,
        standardize.normalize, standardize.normalize_backward, standardize.sums, windows.col2im,
        windows.im2col,
    ),
)  # fmt: skip
