"""What functions tend to where x goes to −∞ and to +∞, and their derivatives there."""

import numpy as np

import minicnn.functional as F
from minicnn import Tensor, use_backend

INF = np.inf


def logistic_loss(target):
    return lambda x: F.binary_cross_entropy_with_logits(
        x, Tensor(np.full(x.shape, target, x.dtype), device=x.device), reduction="none"
    )


ACTIVATIONS = {  # name: (function, its values at (−∞, ∞), its derivatives there)
    "relu": (F.relu, [0, INF], [0, 1]),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.5), [-INF, INF], [0.5, 1]),
    "leaky_relu, slope 0": (lambda x: F.leaky_relu(x, 0), [0, INF], [0, 1]),
    "sigmoid": (F.sigmoid, [0, 1], [0, 0]),
    "tanh": (F.tanh, [-1, 1], [0, 0]),
    "gelu": (F.gelu, [0, INF], [0, 1]),
    "abs": (abs, [INF, INF], [-1, 1]),
}
LOSSES = {
    "binary_cross_entropy, no": (logistic_loss(0.0), [0, INF], [0, 1]),
    "binary_cross_entropy, yes": (logistic_loss(1.0), [INF, 0], [-1, 0]),
    "binary_cross_entropy, perhaps": (logistic_loss(0.25), [INF, INF], [-0.25, 0.75]),
}
AT_INFINITY = {**ACTIVATIONS, **LOSSES}


def reaches_its_limits(name, dtype):
    """In either backend, at ±∞ and at the largest finite numbers: not 0 · ∞."""
    function, values, gradients = AT_INFINITY[name]
    largest = [np.finfo(dtype).min, np.finfo(dtype).max]
    finite = np.isfinite(values)
    for backend in ("numpy", "reference"):
        with use_backend(backend):
            x, far = (Tensor(np.array(ends, dtype), requires_grad=True) for ends in ([-INF, INF], largest))
            y, z = function(x), function(far)
            y.backward(np.ones(2))
            z.backward(np.ones(2))
        np.testing.assert_array_equal(y.numpy(), values)
        np.testing.assert_array_equal(z.numpy()[finite], np.array(values)[finite])
        np.testing.assert_array_equal(np.sign(z.numpy()[~finite]), np.sign(values)[~finite])
        np.testing.assert_array_equal((x.grad.numpy(), far.grad.numpy()), (gradients, gradients))
