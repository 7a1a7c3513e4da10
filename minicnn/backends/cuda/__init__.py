"""The CUDA backend: the lessons for CuPy's arrays, on NVIDIA GPUs. A .cu file has the name of
the lesson that its kernels speed up, channels last like everything else; lessons that are made of
others and of NumPy's functions, as softmax is, have none. The .py file beside it has functions with
the names, arguments and results of the lesson's kernels. launch.py is the one way to run kernels,
products.py the way to cuBLAS, devices.py the way to a GPU; kept.py keeps what a pass forward has
made for the pass backward; graph.py captures launches as a CUDA graph, and cublas.py products in
it.

To read the kernels, begin with kernels.h and activation.cu, then matmul.cu. All that the compiler
sees of lrn.cu, and how to compile it, is printed by

    python -m minicnn.backends.cuda lrn

Nothing here imports CuPy before a GPU is asked for: arrays bring it along.
"""

from .. import Backend, named
from . import activation, conv, devices, dropout, fused, loss, lrn, ops, optimizer, pixels, pooling, products, windows

devices.Device.register("gpu", devices.GPU())
backend = Backend(
    "cuda",
    device="gpu",
    default=True,
    kernels=named(
        activation.rectify, activation.where_positive, conv.convolve, conv.convolve_transpose,
        conv.convolve_weight, dropout.drop, fused.add_rectify, fused.convolve_rectify,
        loss.negative_log_likelihood,
        loss.negative_log_likelihood_backward, loss.onehot, lrn.normalize, lrn.normalize_backward,
        lrn.sum_window, ops.total, optimizer.adam, optimizer.sgd, pixels.normalize, pooling.gather,
        pooling.scatter, pooling.window_maximum, pooling.winners, windows.col2im, windows.im2col,
    ) | {"ops.matmul": products.matmul},
)  # fmt: skip
