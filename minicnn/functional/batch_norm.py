"""Batch normalization: give every channel mean 0 and variance 1 over the batch, then a mean and a
variance that can be learned.

    x̂ = (x − μ) / √(σ² + ε)         y = γ x̂ + β           Ioffe and Szegedy 2015, algorithm 1

In training μ and σ² are the mean and the (biased) variance of each channel over all other axes, and
running averages of them are kept:

    running = (1 − momentum) · running + momentum · batch              (with the unbiased variance)

In evaluation the running averages take the place of μ and σ², so a network's output for one image
does not depend on the other images in the batch. In training a NaN makes its whole channel NaN, and
that channel's running averages. If several processes divide a batch (minicnn/distributed.py), each
takes μ and σ² of its own rows.

In training, lesson standardize has the derivatives. In evaluation y is linear in x, γ and β, with
s = √(σ² + ε):

    dx = γ dy / s           dγ = Σ x̂ dy            dβ = Σ dy

The AlexNet paper has no batch normalization; it is here for comparison.

    C channels, the last axis   n pixels, along (N, H, W) or any axes before it

| where libraries differ | running variance | ε by default | weight of the newest batch      |
| ---------------------- | ---------------- | ------------ | ------------------------------- |
| here, PyTorch 2.14     | unbiased         | 1e-5         | momentum, by default 0.1        |
| Chainer 7.8            | unbiased         | 2e-5         | 1 − decay                       |
| Paddle 3.3             | biased           | 1e-5         | 1 − momentum                    |
| Keras 3.15             | biased           | 1e-3         | 1 − momentum, by default 0.01   |
| Flax 0.12              | biased           | 1e-5         | 1 − momentum, by default 0.01   |

>>> import numpy as np, minicnn, minicnn.functional as F
>>> x = minicnn.Tensor([[1.0], [3.0]])
>>> one, zero = minicnn.Tensor([1.0]), minicnn.Tensor([0.0])
>>> mean, var = np.zeros(1, np.float32), np.ones(1, np.float32)
>>> running = {"running_mean": mean, "running_var": var}
>>> F.batch_norm(x, gamma=one, beta=zero, **running, training=True, eps=0.0)
Tensor([[-1.],
        [ 1.]], dtype=float32)
>>> print(mean, var)
[0.2] [1.1]

Try: what changes if every x is multiplied by 10 and increased by 5? Only the running averages do:

>>> F.batch_norm(10 * x + 5, gamma=one, beta=zero, **running, training=True, eps=0.0)
Tensor([[-1.],
        [ 1.]], dtype=float32)
"""

import numpy as np

from ..autograd import Function, Gradients
from ..backends.devices import Array, on_device_of
from ..checks import flags, number
from ..tensor import Tensor, apply
from .arguments import require_tensors, require_written
from .layout import IMAGES
from .precision import float16_in_float32
from .standardize import Standardize, normalize, pixels

__all__ = ["batch_norm"]


class BatchNorm(Function):
    """y with a μ and a σ² that do not depend on x"""

    promotes_integers = True
    saves = ((1,), (0,), ())

    def __init__(self, eps: float, moments: Array):
        self.eps, self.moments = eps, moments

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:
        return normalize(x, self.moments, gamma, beta, self.eps)

    def backward(self, dy: Tensor) -> Gradients:
        (x, gamma, _), axes = self.saved_inputs, pixels(dy)[0]
        mean, s = self.moments[0], np.sqrt(self.moments[1] + self.eps)
        by_x = dy * (gamma / s) if self.needs_input_grad[0] else None
        return by_x, ((x - mean) * dy).sum(axes) / s if self.needs_input_grad[1] else None, dy.sum(axes)


@float16_in_float32
def batch_norm(
    x: Tensor,
    *,
    gamma: Tensor,
    beta: Tensor,
    running_mean: Array,
    running_var: Array,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """γ (x − μ) / √(σ² + ε) + β for each channel (Ioffe and Szegedy 2015).

    All arguments but x are keyword-only, because PyTorch has the running averages first.

    Args:
        x: (…, C), floating point, channels last.
        gamma, beta: (C,), of x's dtype.
        running_mean, running_var: arrays (C,) on x's device; training updates them in place.
        training: take μ and σ² from the batch, of at least two pixels; else the running averages.
        momentum: the weight of the newest batch in the running averages.
        eps: ε, which prevents a division by zero.
    Returns:
        (…, C), of x's dtype.
    Raises:
        TypeError: a running average is a Tensor.
        ValueError: the shapes do not fit, or a batch in training has one pixel only.
    """
    require_tensors("batch_norm", gamma=gamma, beta=beta)
    require_written("batch_norm", running_mean=running_mean, running_var=running_var)
    flags("batch_norm", training=training)
    momentum = number("batch_norm: momentum", momentum, 0, 1)
    eps = number("batch_norm: eps", eps, 0)
    shapes = [array.shape for array in (gamma, beta, running_mean, running_var)]
    if not x.ndim or any(shape != x.shape[-1:] for shape in shapes):
        channels_first = x.ndim == 4 and all(shape == x.shape[1:2] for shape in shapes)
        raise ValueError(
            f"batch_norm: x of shape {x.shape} needs gamma, beta, running_mean and running_var of {x.shape[-1:]}, "
            f"not {shapes}" + (f": {IMAGES}" if channels_first else "")
        )
    n = x.size // x.shape[-1] if x.shape[-1] else 0
    with on_device_of(x.data):
        if not training or not n:  # an empty batch has no mean
            # not in float16, which would lose ε
            running = np.stack([running_mean, running_var]).astype(gamma.dtype)
            return apply(BatchNorm(eps, running), x, gamma, beta)
        if n == 1:
            raise ValueError(
                f"batch_norm: one pixel in the whole batch has no variance, as in x of shape {x.shape}: "
                "use a larger batch, or eval()"
            )
        y = apply(function := Standardize(eps), x, gamma, beta)
        mean, var = function.moments(x.data)
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (var * (n / (n - 1)) - running_var)
    return y


# The faster versions of normalize are those of lesson standardize.
