"""The NumPy backend: the lessons for NumPy's arrays on all of a CPU's cores. What it adds to them
is threads (threads.py), recycled memory (memory.py), slices that fit the cache, and where it pays a
second algorithm (winograd.py).
"""

from .. import Backend
from . import activation, conv, dropout, loss, lrn, ops, optimizer, pixels, pooling, standardize, windows

backend = Backend(
    "numpy",
    device="cpu",
    default=True,
    kernels={
        "activation.rectify": activation.rectify,
        "activation.where_positive": activation.where_positive,
        "conv.convolve": conv.convolve,
        "conv.convolve_transpose": conv.convolve_transpose,
        "conv.convolve_weight": conv.convolve_weight,
        "dropout.drop": dropout.drop,
        "loss.negative_log_likelihood": loss.negative_log_likelihood,
        "loss.negative_log_likelihood_backward": loss.negative_log_likelihood_backward,
        "lrn.normalize": lrn.normalize,
        "lrn.normalize_backward": lrn.normalize_backward,
        "lrn.sum_window": lrn.sum_window,
        "ops.broadcast": ops.broadcast,
        "ops.masked": ops.masked,
        "ops.matmul": ops.matmul,
        "ops.total": ops.total,
        "optimizer.adam": optimizer.adam,
        "optimizer.sgd": optimizer.sgd,
        "pixels.normalize": pixels.normalize,
        "pooling.gather": pooling.gather,
        "pooling.scatter": pooling.scatter,
        "pooling.window_maximum": pooling.window_maximum,
        "pooling.winners": pooling.winners,
        "standardize.moments": standardize.moments,
        "standardize.normalize": standardize.normalize,
        "standardize.normalize_backward": standardize.normalize_backward,
        "standardize.sums": standardize.sums,
        "windows.col2im": windows.col2im,
        "windows.im2col": windows.im2col,
    },
)
