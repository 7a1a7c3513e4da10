"""The native backend: the lessons in C, compiled by this machine's compiler for its processor. A .c
file has the name of the lesson that its kernels speed up; the .py file beside it has functions with
the names, arguments and results of the lesson's kernels. compiler.py compiles and keeps what it has
compiled, declarations.py reads what the .c files declare, launch.py is the one way to run a kernel,
launch.c the threads that run it, native.h what every .c file begins with.

It computes with float32 and float64; other arrays, and kernels that have no .c file, are left to
the NumPy backend, whose memory and number of threads it shares.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import Backend, named
from ..numpy import backend as numpy
from . import activation, conv, dropout, fused, loss, lrn, matmul, ops, optimizer, pixels, pooling, softmax, standardize
from .compiler import open_compiler
from .launch import REALS


def floats(name: str, fast: Callable[..., Any]) -> Callable[..., Any]:
    """The function for arrays of float32 and float64; for the rest, what runs without it."""

    def version(*args: Any) -> Any:
        first = args[0] if type(args[0]) is not list else args[0][0][0]
        if type(first) is np.ndarray and first.dtype in REALS:
            return fast(*args)
        return numpy.version(name)(*args)

    return version


KERNELS = named(
    activation.leak, activation.logistic, activation.rectify, activation.where_positive, conv.convolve,
    conv.convolve_transpose, conv.convolve_weight, dropout.drop, fused.add_rectify, fused.convolve_rectify,
    loss.negative_log_likelihood,
    loss.negative_log_likelihood_backward, lrn.normalize, lrn.normalize_backward, lrn.sum_window, ops.masked,
    ops.total, optimizer.adam, optimizer.sgd, pooling.gather, pooling.scatter, pooling.window_maximum,
    pooling.winners, softmax.log_probabilities, softmax.probabilities, standardize.moments,
    standardize.normalize, standardize.normalize_backward, standardize.sums,
) | {"ops.matmul": matmul.matmul}  # fmt: skip
backend = Backend(
    "native",
    device="cpu",
    default=True,
    kernels={"pixels.normalize": pixels.normalize} | {name: floats(name, fast) for name, fast in KERNELS.items()},
    otherwise=numpy,
    opens=open_compiler,
)
