"""The kernels once more in plain loops, as a backend: what a backend of one's own takes.

    with loops.registered(), minicnn.use_backend("loops"): …

Those of windows are in reference.py. All of them compute in float64 and round at the end.
"""

import contextlib
import functools
import math

import numpy as np
import reference

from minicnn.backends import Backend
from minicnn.random import generator


def each(function, *arrays):
    """function of each place's numbers, in arrays broadcast against each other"""
    arrays = np.broadcast_arrays(*arrays)
    y = np.zeros(arrays[0].shape)
    for place in np.ndindex(y.shape):
        y[place] = function(*(array[place] for array in arrays))
    return y


def pixels(x):
    """The numbers of each pixel, (C,), as a list"""
    return [x[place].astype(float) for place in np.ndindex(x.shape[:-1])]


def moments(x):
    mean = sum(pixels(x)) / len(pixels(x))
    return np.array([mean, sum((pixel - mean) ** 2 for pixel in pixels(x)) / len(pixels(x))])


def standardized(x, moments, eps):
    """x̂ of each pixel"""
    return [(pixel - moments[0]) / np.sqrt(moments[1].astype(float) + eps) for pixel in pixels(x)]


def standardize(x, moments, gamma, beta, eps):
    return np.array([gamma * pixel + beta for pixel in standardized(x, moments, eps)]).reshape(x.shape)


def standardize_sums(dy, x, moments, eps):
    pairs = zip(pixels(dy), standardized(x, moments, eps), strict=True)
    return np.array([sum(g * pixel for g, pixel in pairs), sum(pixels(dy))])


def standardize_backward(dy, x, moments, gamma, sums, eps):
    s, n = np.sqrt(moments[1].astype(float) + eps), len(pixels(x))
    pairs = zip(pixels(dy), standardized(x, moments, eps), strict=True)
    return np.array([gamma * (g - (sums[1] + pixel * sums[0]) / n) / s for g, pixel in pairs]).reshape(x.shape)


def drop(x, p, key, first, s):
    kept = generator(key).random(first + x.size, dtype=np.float32)[first:].reshape(x.shape)
    return each(lambda x, u: x * s if u >= p else 0.0, x, kept)


def negative_log_likelihood(z, labels):
    losses = np.full(len(z), np.nan)
    for i, label in enumerate(labels):
        if 0 <= label < z.shape[1]:
            losses[i : i + 1] = reference.cross_entropy(z[i : i + 1], labels[i : i + 1])
    return losses


def negative_log_likelihood_backward(dy, z, labels):
    dz = np.full(z.shape, np.nan)
    for i, label in enumerate(labels):
        if 0 <= label < z.shape[1]:
            dz[i] = dy[i] * reference.softmax(z[i])
            dz[i, label] -= dy[i]
    return dz


def onehot(labels, classes):
    return np.array([[k == label for k in range(classes)] for label in labels], bool).reshape(-1, classes)


def sum_window(x, window):
    y = np.zeros(x.shape)
    for c in range(x.shape[-1]):
        for j in range(max(0, c - window[0]), min(x.shape[-1], c + window[1] + 1)):
            y[..., c] += x[..., j]
    return y


def normalize_backward(g, a, norm):
    before, after = norm.n // 2, (norm.n - 1) // 2
    d = norm.k + norm.alpha * sum_window(a.astype(float) ** 2, (before, after))
    da = g * d**-norm.beta
    for c in range(a.shape[-1]):  # what flows into channel c goes to every i that it sees
        for i in range(max(0, c - before), min(a.shape[-1], c + after + 1)):
            da[..., i] -= g[..., c] * a[..., c] * norm.beta * d[..., c] ** (-norm.beta - 1) * 2 * norm.alpha * a[..., i]
    return da


def broadcast(a, b, ufunc):
    return each(ufunc, a, b).astype(ufunc(np.ones(1, a.dtype), np.ones(1, b.dtype)).dtype)


def matmul(a, b):
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (np.broadcast_to(array, (*stack, *array.shape[-2:])) for array in (a, b))
    y = np.zeros((*stack, a.shape[-2], b.shape[-1]), np.result_type(a, b))
    for *outer, i, j in np.ndindex(y.shape):
        y[(*outer, i, j)] = sum(a[(*outer, i, k)] * b[(*outer, k, j)] for k in range(a.shape[-1]))
    return y


def total(x, axes):
    y = np.zeros([n for axis, n in enumerate(x.shape) if axis not in axes], x.sum(axis=axes).dtype)
    for place in np.ndindex(x.shape):
        y[tuple(i for axis, i in enumerate(place) if axis not in axes)] += x[place]
    return y


def sgd(parameters, lr, momentum, weight_decay, nesterov, paper):
    for w, g, *velocity in parameters:
        for place in np.ndindex(w.shape):
            step = g[place] + weight_decay * w[place]
            if velocity and not paper:
                velocity[0][place] = momentum * velocity[0][place] + step
                step = step + momentum * velocity[0][place] if nesterov else velocity[0][place]
            if velocity and paper:
                velocity[0][place] = momentum * velocity[0][place] - lr * step
                w[place] += velocity[0][place]
            else:
                w[place] -= lr * step


def adam(parameters, step):
    for w, g, m, v in parameters:
        for place in np.ndindex(w.shape):
            gradient = g[place] + step.weight_decay * w[place]
            m[place] = step.beta1 * m[place] + (1 - step.beta1) * gradient
            v[place] = step.beta2 * v[place] + (1 - step.beta2) * gradient**2
            w[place] = step.keep * w[place] - step.rate * m[place] / (np.sqrt(v[place]) + step.eps)


def normalize_pixels(images, scale, shift, out=None):
    y = np.zeros(images.shape, np.float32) if out is None else out
    for place in np.ndindex(y.shape):
        y[place] = images[place] * scale[place[-1]] - shift[place[-1]]
    return y


def winners(x, y, window):
    (kh, kw), seen = window.kernel_size, reference.sights(x.shape[1:3], *window)[1]
    winner = np.full(y.shape, kh * kw)
    for p, q, i, j, yy, xx in seen:
        first = (x[:, yy, xx] == y[:, p, q]) & (winner[:, p, q] == kh * kw)
        winner[:, p, q][first] = i * kw + j
    return winner


def scatter(dy, winner, window, size):
    dx = np.zeros((len(dy), *size, dy.shape[3]))
    for p, q, i, j, y, x in reference.sights(size, *window)[1]:
        won = True if winner is None else winner[:, p, q] == i * window.kernel_size[1] + j
        dx[:, y, x] += np.where(won, dy[:, p, q], 0)
    return dx


def gather(x, winner, window):
    (oh, ow), seen = reference.sights(x.shape[1:3], *window)
    y = np.zeros((len(x), oh, ow, x.shape[3]))
    for p, q, i, j, yy, xx in seen:
        won = True if winner is None else winner[:, p, q] == i * window.kernel_size[1] + j
        y[:, p, q] += np.where(won, x[:, yy, xx], 0)
    return y


def convolve_transpose(dy, weight, window, groups, size):
    kernel, stride, padding, dilation = window
    dx = np.zeros((len(dy), *size, weight.shape[2] * groups))
    weight = reference.spread(weight, groups)
    for p, q, i, j, y, x in reference.sights(size, kernel, stride, padding, dilation)[1]:
        dx[:, y, x] += dy[:, p, q] @ weight[i, j].T
    return dx


def shares(size, count):
    """(count, size): what part of each bin's mean every pixel of an axis is."""
    y = np.zeros((count, size))
    for p in range(count):
        pixels = range(math.floor(p * size / count), math.ceil((p + 1) * size / count))
        y[p, pixels] = 1 / len(pixels)
    return y


def bin_means(x, axis, count):
    return np.apply_along_axis(lambda line: shares(len(line), count) @ line, axis, x)


def bin_spread(dy, axis, size):
    return np.apply_along_axis(lambda line: shares(size, len(line)).T @ line, axis, dy)


def convolve_rectify(x, weight, bias, window, groups):
    return rectify(reference.conv2d(x, weight, bias, *window[1:], groups))


def rectify(x):
    return each(lambda x: x if x > 0 or np.isnan(x) else 0.0, x)


# -------------------------------------------------------------------------------------- registration
FLOATING = {  # what is rounded to the dtype of the first array
    "activation.leak": lambda x, positive, slope: each(lambda x, p: x if p else slope * x, x, positive),
    "activation.logistic": lambda x: each(lambda x: 1 / (1 + np.exp(-x)), x),
    "activation.rectify": rectify,
    "activation.where_positive": lambda dy, y: each(lambda dy, y: dy if y > 0 else 0.0, dy, y),
    "adaptive_pooling.bin_means": bin_means,
    "adaptive_pooling.bin_spread": bin_spread,
    "standardize.moments": moments,
    "standardize.normalize": standardize,
    "standardize.normalize_backward": standardize_backward,
    "standardize.sums": standardize_sums,
    "conv.convolve": lambda x, w, b, window, groups: reference.conv2d(x, w, b, *window[1:], groups),
    "conv.convolve_transpose": convolve_transpose,
    "conv.convolve_weight": lambda x, dy, window, groups: reference.conv2d_weight(x, dy, *window, groups),
    "dropout.drop": drop,
    "ops.masked": lambda x, mask: each(lambda x, mask: x if mask else 0.0, x, mask),
    "elementwise_loss.logistic_loss": lambda z, t: each(
        lambda z, t: np.log1p(np.exp(z)) - t * z if z < 30 else z - t * z, z, t
    ),
    "fused.add_rectify": lambda x, bias: rectify(x + bias),
    "fused.convolve_rectify": convolve_rectify,
    "loss.negative_log_likelihood": negative_log_likelihood,
    "loss.negative_log_likelihood_backward": negative_log_likelihood_backward,
    "lrn.normalize": lambda a, norm: reference.local_response_norm(a.astype(float), *norm),
    "lrn.normalize_backward": normalize_backward,
    "lrn.sum_window": sum_window,
    "pooling.gather": gather,
    "pooling.scatter": scatter,
    "pooling.window_maximum": lambda x, window: reference.max_pool2d(x, *window),
    "softmax.log_probabilities": reference.log_softmax,
    "softmax.probabilities": reference.softmax,
    "windows.col2im": lambda columns, shape, window: reference.col2im(columns, shape, *window),
    "windows.im2col": lambda x, window: reference.im2col(x, *window),
}


def rounded(function):
    @functools.wraps(function)
    def rounding(array, *args):
        return function(array, *args).astype(array.dtype)

    return rounding


KERNELS = {
    **{name: rounded(function) for name, function in FLOATING.items()},
    "loss.onehot": onehot,
    "ops.broadcast": broadcast,
    "ops.matmul": matmul,
    "ops.total": total,
    "optimizer.adam": adam,
    "optimizer.sgd": sgd,
    "pixels.normalize": normalize_pixels,
    "pooling.winners": winners,
}


@contextlib.contextmanager
def registered():
    """Inside, use_backend("loops") finds them."""
    backend = Backend("loops", device="cpu", kernels=KERNELS)
    try:
        yield backend
    finally:
        backend.remove()
