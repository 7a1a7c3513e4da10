"""One row for every kernel: the arguments it is compared with, drawn at small sizes. The arrays are of float64, hold
numbers that float32 has as well, and lie plainly in memory: whoever compares casts them and lays them out."""

import numpy as np
import reference
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minicnn.functional.lrn import Constants
from minicnn.functional.windows import Window
from minicnn.optim.optimizer import AdamStep

CHANNELS = st.sampled_from([1, 3, 4, 5, 8, 12])  # in packs of 4, and not
BATCH, SEED = st.integers(0, 3), st.integers(0, 99)
SHAPE = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def normal(*shape, seed=0):
    """Numbers that float32 has as well."""
    return np.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), np.float64)


def awkward(*shape, seed=0):
    """Whole numbers with many ties, infinities and NaN."""
    few = [np.nan, -np.inf, np.inf, -1.0, 0.0, 0.0, 1.0, 2.0, 2.0, 3.0]
    return np.asarray(np.random.default_rng(seed).choice(few, shape))


@st.composite
def windows(draw, pooling=False, sliding=False):
    """(size, window): a window that fits an image of that size, which may have no pixels but padding. If `sliding`, one
    of 3 × 3 in steps of 1."""
    size, parts = [], []
    for _ in range(2):
        kernel, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        if sliding:
            kernel, stride, dilation = 3, 1, 1
        most = kernel // 2 if pooling else 2
        before, after = draw(st.integers(0, most)), draw(st.integers(0, most))
        least = max(0, dilation * (kernel - 1) + 1 - before - after)
        size.append(draw(st.integers(least, least + 5)))
        parts.append((kernel, stride, (before, after), dilation))
    return tuple(size), Window(*zip(*parts, strict=True))


@st.composite
def activation(draw, what):
    shape, seed = draw(SHAPE), draw(SEED)
    x, dy = awkward(*shape, seed=seed), draw(st.sampled_from([normal, awkward]))(*shape, seed=seed + 1)
    return {
        "rectify": (x,), "where_positive": (dy, x), "logistic": (x,), "leak": (dy, x > 0, draw(st.sampled_from([0.01, 0.5, 2.0]))),
    }[what]  # fmt: skip


@st.composite
def standardize(draw, what):
    some = st.integers(1, 5) if what != "normalize" else st.integers(0, 5)
    shape, seed = (*draw(st.lists(some, max_size=3)), draw(st.sampled_from([0, 1, 2, 3, 5, 8, 16, 33]))), draw(SEED)
    x = draw(st.sampled_from([normal, awkward]))(*shape, seed=seed) + draw(st.sampled_from([0.0, 4.0]))
    dy, (gamma, beta, *more) = normal(*shape, seed=seed + 1), normal(6, shape[-1], seed=seed + 2)
    moments, sums, eps = abs(np.array(more[:2])), np.array(more[2:]), draw(st.sampled_from([0.1, 1.0]))
    return {
        "moments": (x,),
        "normalize": (x, moments, gamma, beta, eps),
        "sums": (dy, x, moments, eps),
        "normalize_backward": (dy, x, moments, gamma, sums, eps),
    }[what]


@st.composite
def convolution(draw, what):
    groups = draw(st.integers(1, 3))
    c, o = groups * draw(st.integers(0, 4)), groups * draw(st.integers(1, 4))
    size, window = draw(windows(sliding=draw(st.booleans())))
    n, seed = draw(BATCH), draw(SEED)
    x, dy = normal(n, *size, c, seed=seed), normal(n, *window.output_size(*size), o, seed=seed + 1)
    weight = normal(*window.kernel_size, c // groups, o, seed=seed + 2)
    bias = draw(st.sampled_from([None, normal(o, seed=seed + 3)]))
    return {
        "convolve": (x, weight, bias, window, groups),
        "convolve_rectify": (x, weight, bias, window, groups),
        "convolve_transpose": (dy, weight, window, groups, size),
        "convolve_weight": (x, dy, window, groups),
    }[what]


@st.composite
def add_rectify(draw):
    shape, seed = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4)), draw(SEED)
    return draw(st.sampled_from([normal, awkward]))(*shape, seed=seed), awkward(shape[-1], seed=seed + 1)


@st.composite
def pooling(draw, what):
    (size, window), seed = draw(windows(pooling=True)), draw(SEED)
    n, channels = draw(BATCH), draw(CHANNELS)
    x = draw(st.sampled_from([normal, awkward]))(n, *size, channels, seed=seed)
    shape = (n, *window.output_size(*size), channels)
    dy = draw(st.sampled_from([normal, awkward]))(*shape, seed=seed + 1)
    winner = np.random.default_rng(seed).integers(0, np.prod(window.kernel_size) + 1, shape).astype(np.uint8)
    some = draw(st.sampled_from([winner, None]))
    y = reference.max_pool2d(x, *window)
    return {
        "window_maximum": (x, window),
        "winners": (x, y, window),
        "gather": (x, some, window),
        "scatter": (dy, some, window, size),
    }[what]


@st.composite
def columns(draw, what):
    (size, window), seed = draw(windows()), draw(SEED)
    shape = (draw(BATCH), *size, draw(CHANNELS))
    oh, ow = window.output_size(*size)
    laid_out = normal(shape[0] * oh * ow, np.prod(window.kernel_size) * shape[3], seed=seed)
    return (normal(*shape, seed=seed), window) if what == "im2col" else (laid_out, shape, window)


@st.composite
def lrn(draw, arrays):
    shape = (*draw(st.lists(st.integers(0, 4), max_size=3)), draw(st.sampled_from([0, 1, 2, 3, 4, 7, 8, 12, 20])))
    norm = Constants(
        draw(st.integers(1, 14)), draw(st.sampled_from([0.5, 1.0, 2.0])), draw(st.sampled_from([1e-4, 0.3, 2.0])),
        draw(st.sampled_from([0.75, 0.5, 1.0, 1.5])),
    )  # fmt: skip
    seed = draw(SEED)
    return *[3 * normal(*shape, seed=seed + i) for i in range(arrays)], norm


@st.composite
def sum_window(draw):
    (x, _), side = draw(lrn(1)), st.integers(0, 6)
    return x, (draw(side), draw(side))


@st.composite
def dropout(draw):
    shape, word = draw(SHAPE), st.integers(0, 2**64 - 1)
    x = np.arange(1.0, 1 + np.prod(shape, dtype=int)).reshape(shape)
    x = draw(st.sampled_from([x, awkward(*shape)]))
    first, s = draw(st.sampled_from([0, 1, 7, 8, 12, 13, 64, 99])), draw(st.sampled_from([1.0, 2.0, 1.25]))
    return x, draw(st.floats(0, 1)), (draw(word), draw(word)), first, s


@st.composite
def loss(draw, what):
    n, classes = draw(st.integers(0, 5)), draw(st.sampled_from([1, 2, 3, 10, 255, 256, 257, 700]))
    z = np.float32(draw(st.sampled_from([0.1, 3.0, 1e4])) * normal(n, classes)).astype(np.float64)
    beyond = draw(st.integers(0, 1))  # of labels that are no class
    labels = np.random.default_rng(draw(SEED)).integers(-beyond, classes + beyond, n)
    dy = normal(n, seed=1)
    return {"forward": (z, labels), "backward": (dy, z, labels), "onehot": (labels, classes)}[what]


@st.composite
def logistic_loss(draw):
    shape, seed = draw(SHAPE), draw(SEED)
    z = np.asarray(np.float32(draw(st.sampled_from([1.0, 20.0, 1e4])) * normal(*shape, seed=seed)), np.float64)
    return z, np.asarray(abs(normal(*shape, seed=seed + 1)))


@st.composite
def softmax(draw):
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    x = np.float32(draw(st.sampled_from([1.0, 100.0, 1e4])) * normal(*shape, seed=draw(SEED))).astype(np.float64)
    return x, draw(st.integers(-len(shape), len(shape) - 1))


@st.composite
def bins(draw):
    x = normal(*draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)), seed=draw(SEED))
    return x, draw(st.integers(0, x.ndim - 1)), draw(st.integers(1, 9))


@st.composite
def broadcast(draw):
    shapes = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=9)).input_shapes
    ufunc = draw(st.sampled_from([np.add, np.subtract, np.multiply, np.true_divide, np.maximum, np.minimum]))
    a, b = (np.asarray(0.5 + abs(normal(*shape, seed=i))) for i, shape in enumerate(shapes))
    return a, b, ufunc


@st.composite
def masked(draw):
    x = awkward(*draw(SHAPE), seed=draw(SEED))
    shape = [draw(st.sampled_from([1, n])) for n in x.shape[draw(st.integers(0, x.ndim)) :]]
    return x, np.random.default_rng(draw(SEED)).random(shape) < 0.5


@st.composite
def matmul(draw):
    outer = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, min_side=0, max_side=2)).input_shapes
    m, k, n = (draw(st.integers(0, 9)) for _ in range(3))
    return normal(*outer[0], m, k), normal(*outer[1], k, n, seed=1)


@st.composite
def total(draw):
    shape = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
    x = normal(*shape, seed=draw(SEED))
    first = tuple(range(draw(st.integers(1, len(shape)))))
    some = tuple(sorted(draw(st.sets(st.integers(0, len(shape) - 1)))))
    return x, draw(st.sampled_from([first, some]))


@st.composite
def parameters(draw, state):
    """[(w, g, …), …], with that many arrays of state"""
    shape = st.sampled_from([(), (1,), (3,), (4,), (2, 3), (8,), (40, 7), (0,), (16, 16)])
    shapes, seed = draw(st.lists(shape, min_size=1, max_size=4)), draw(SEED)
    arrays = [[normal(*shape, seed=seed + 10 * i + k) for k in range(2 + state)] for i, shape in enumerate(shapes)]
    return [(w, g, *(np.asarray(abs(array)) for array in others)) for w, g, *others in arrays]


RATE, DECAY = st.sampled_from([0.0, 0.1]), st.sampled_from([0.0, 0.05])


@st.composite
def sgd(draw):
    momentum = draw(st.sampled_from([0.0, 0.5, 1.0]))
    nesterov, paper = draw(st.sampled_from([(False, False), (False, True), (momentum > 0, False)]))
    return draw(parameters(int(momentum > 0))), draw(RATE), momentum, draw(DECAY), nesterov, paper


@st.composite
def adam(draw):
    betas, eps = draw(st.sampled_from([(0.9, 0.999), (0.5, 0.75), (0.0, 0.0)])), draw(st.sampled_from([1e-3, 0.1]))
    return draw(parameters(2)), AdamStep(draw(RATE), *betas, eps, draw(DECAY), draw(st.sampled_from([1.0, 0.9])))


@st.composite
def pictures(draw):
    channels = draw(st.sampled_from([3, 1]))
    shape = (*draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)), channels)
    images = np.random.default_rng(draw(SEED)).integers(0, 256, shape, dtype=np.uint8)
    return images, np.float32([0.1, 0.02, 0.003])[:channels], np.float32([1.5, -2.0, 0.25])[:channels]


TABLE = {
    "activation.leak": activation("leak"),
    "activation.logistic": activation("logistic"),
    "activation.rectify": activation("rectify"),
    "activation.where_positive": activation("where_positive"),
    "adaptive_pooling.bin_means": bins(),
    "adaptive_pooling.bin_spread": bins(),
    "standardize.moments": standardize("moments"),
    "standardize.normalize": standardize("normalize"),
    "standardize.normalize_backward": standardize("normalize_backward"),
    "standardize.sums": standardize("sums"),
    "conv.convolve": convolution("convolve"),
    "conv.convolve_transpose": convolution("convolve_transpose"),
    "conv.convolve_weight": convolution("convolve_weight"),
    "dropout.drop": dropout(),
    "elementwise_loss.logistic_loss": logistic_loss(),
    "fused.add_rectify": add_rectify(),
    "fused.convolve_rectify": convolution("convolve_rectify"),
    "loss.negative_log_likelihood": loss("forward"),
    "loss.negative_log_likelihood_backward": loss("backward"),
    "loss.onehot": loss("onehot"),
    "lrn.normalize": lrn(1),
    "lrn.normalize_backward": lrn(2),
    "lrn.sum_window": sum_window(),
    "ops.broadcast": broadcast(),
    "ops.masked": masked(),
    "ops.matmul": matmul(),
    "ops.total": total(),
    "optimizer.adam": adam(),
    "optimizer.sgd": sgd(),
    "pixels.normalize": pictures(),
    "pooling.gather": pooling("gather"),
    "pooling.scatter": pooling("scatter"),
    "pooling.window_maximum": pooling("window_maximum"),
    "pooling.winners": pooling("winners"),
    "softmax.log_probabilities": softmax(),
    "softmax.probabilities": softmax(),
    "windows.col2im": columns("col2im"),
    "windows.im2col": columns("im2col"),
}
EXACTLY = {"activation.rectify", "activation.where_positive", "loss.onehot", "pooling.window_maximum",
           "pooling.winners", "windows.im2col"}  # fmt: skip


def mapped(value, f):
    """f of every array in nested lists and tuples; everything else as it is."""
    if type(value) in (list, tuple):
        return type(value)(mapped(part, f) for part in value)
    return f(value) if isinstance(value, np.ndarray) else value


def cast(args, dtype):
    return mapped(args, lambda a: a.astype(dtype if a.dtype == np.float64 else a.dtype))


def alike(result, wanted, dtype, tolerance):
    """The result is what is wanted: the very numbers, if these are whole, else numbers of that dtype, near to them by
    the size of the largest."""
    assert result.shape == wanted.shape
    if wanted.dtype.kind != "f":
        assert {result.dtype.kind, wanted.dtype.kind} in ({"b"}, {"i"}, {"u"}, {"i", "u"})
        np.testing.assert_array_equal(result, wanted)
        return
    assert result.dtype == dtype
    largest = np.abs(wanted[np.isfinite(wanted)]).max(initial=1)
    np.testing.assert_allclose(result, wanted.astype(dtype), rtol=tolerance, atol=tolerance * largest)


def results(function, args):
    """The arrays that it returns, or if it returns none, those that it has changed."""
    result = function(*args)
    return [result] if result is not None else [array for arrays in args[0] for array in arrays]
