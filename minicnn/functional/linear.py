"""The linear layer: every output is a weighted sum of every input.

    y = x W + b         x (N, in)   W (in, out)   b (out,)   y (N, out)

Backward, for dy = dL/dy:

    dx = dy Wᵀ          dW = xᵀ dy          db = Σ dy    over the batch

Written out, y_nk = Σ_j x_nj W_jk + b_k. W_jk is in y_nk of each sample n, with the factor x_nj, so
dW_jk = Σ_n x_nj dy_nk, which is (xᵀ dy)_jk. Likewise x_nj is in y_nk of each k, with the factor
W_jk, and b_k in each row, with the factor 1. Autograd finds them, because the code consists of `@`
and `+`. The product keeps W if dx is wanted, and x if dW is; the sum keeps nothing.

Second derivatives: dx and dW are matrix products too. If g arrives at dx, dy gets g W and W gets
gᵀ dy; if g arrives at dW, dy gets x g and x gets dy gᵀ. For an empty batch the sums over n are 0.

A linear layer is a convolution whose window is the whole image (lesson conv): there the same line
reads y = im2col(x) W + b.

    N batch (any number of axes)   in, out features

| where libraries differ | here, Paddle 3.3, Keras 3.15, Flax 0.12 | PyTorch 2.14, Chainer 7.8 |
| ---------------------- | --------------------------------------- | ------------------------- |
| weight                 | (in, out)                               | (out, in)                 |

>>> import minicnn, minicnn.functional as F
>>> weight = minicnn.Tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
>>> F.linear(minicnn.Tensor([[1.0, 2.0, 3.0]]), weight, bias=minicnn.Tensor([0.5, 0.5]))
Tensor([[4.5, 7.5]], dtype=float32)

Try: a batch has one sample, and one of its features is 0. What is dW? Each of its elements is an
input times a gradient, so the weights of that feature learn nothing:

>>> weight.requires_grad = True
>>> F.linear(minicnn.Tensor([[1.0, 0.0, 3.0]]), weight).backward([[1.0, 10.0]])
>>> weight.grad
Tensor([[ 1., 10.],
        [ 0.,  0.],
        [ 3., 30.]], dtype=float32)
"""

from math import prod

from ..tensor import Tensor
from .arguments import require_constants, require_tensors

__all__ = ["linear"]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight + bias, over the last axis of x.

    Args:
        x: (…, in), floating point.
        weight: (in, out), of x's dtype.
        bias: (out,) or None.
    Returns:
        (…, out), of x's dtype.
    Raises:
        ValueError: the shapes do not fit.
    """
    check_linear(x, weight, bias)
    if x.ndim != 2:
        rows = x.reshape(prod(x.shape[:-1]), x.shape[-1])  # (N, in)
        return linear(rows, weight, bias).reshape(*x.shape[:-1], weight.shape[1])  # (…, out)
    y = x @ weight  # (N, out)
    return y if bias is None else y + bias


def check_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Check that the arguments of linear fit together.

    Raises:
        ValueError: they do not.
    """
    require_tensors("linear", x=x)
    require_constants("linear", weight=weight)
    if bias is not None:
        require_constants("linear", bias=bias)
    if not x.ndim or weight.ndim != 2 or x.shape[-1] != weight.shape[0]:
        turned = x.ndim and weight.ndim == 2 and x.shape[-1] == weight.shape[1]
        raise ValueError(
            f"linear: x of shape {x.shape} does not fit a weight of shape {weight.shape}: "
            "x is (…, in), the weight (in, out)" + (": weight.T?" if turned else "")
        )
    if bias is not None and bias.shape != weight.shape[1:]:
        raise ValueError(f"linear: bias of shape {bias.shape}, expected ({weight.shape[1]},)")


# The faster versions are those of the matrix product, ops.matmul: backends/numpy/ops.py,
# backends/native/matmul.c, backends/cuda/products.py.
