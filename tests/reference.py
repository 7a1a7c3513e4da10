"""What the tests of functional/ measure against: each operation once more, in float64 and plain loops over pixels, as
its equation reads; the inputs they draw; and the questions they all ask."""

import threading
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from minicnn import Tensor, apply, grad, gradcheck, gradgradcheck
from minicnn.backends import numpy as fast


# ----------------------------------------------------------------------------------------------------------------------
# the operations
def both(value):
    """An int, or (height, width), as a pair."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def sides(padding):
    """((top, bottom), (left, right)) from what a user may write."""
    return tuple(both(side) for side in both(padding))


def starts(size, kernel, stride, padding, dilation=1, ceil_mode=False):
    """Along one axis, where the windows start that end inside the padded image; in ceil_mode one more, if the padded
    image goes on and the window starts before the padding at the far end."""
    before, after = padding
    reach = dilation * (kernel - 1)
    found = list(range(-before, size + after - reach, stride))
    if ceil_mode and found[-1] + reach < size + after - 1 and found[-1] + stride < size:
        found.append(found[-1] + stride)
    return found


def sights(size, kernel, stride=1, padding=0, dilation=1, ceil_mode=False):
    """((OH, OW), [(p, q, i, j, y, x), …]): tap (i, j) of output pixel (p, q) sees pixel (y, x) of the image."""
    (kh, kw), (dh, dw) = both(kernel), both(dilation)
    rows, columns = (
        starts(*axis, ceil_mode) for axis in zip(size, (kh, kw), both(stride), sides(padding), (dh, dw), strict=True)
    )
    return (len(rows), len(columns)), [
        (p, q, i, j, top + i * dh, left + j * dw)
        for p, top in enumerate(rows)
        for q, left in enumerate(columns)
        for i in range(kh)
        for j in range(kw)
        if 0 <= top + i * dh < size[0] and 0 <= left + j * dw < size[1]
    ]


def im2col(x, kernel, stride=1, padding=0, dilation=1):
    (oh, ow), seen = sights(x.shape[1:3], kernel, stride, padding, dilation)
    columns = np.zeros((x.shape[0], oh, ow, *both(kernel), x.shape[3]))
    for p, q, i, j, y, xx in seen:
        columns[:, p, q, i, j] = x[:, y, xx]
    return columns.reshape(x.shape[0] * oh * ow, np.prod(both(kernel)) * x.shape[3])


def col2im(columns, shape, kernel, stride=1, padding=0, dilation=1):
    (oh, ow), seen = sights(shape[1:3], kernel, stride, padding, dilation)
    columns = columns.reshape(shape[0], oh, ow, *both(kernel), shape[3])
    x = np.zeros(shape)
    for p, q, i, j, y, xx in seen:
        x[:, y, xx] += columns[:, p, q, i, j]
    return x


def spread(weight, groups):
    """(KH, KW, C/G, O) as the weight of one group, (KH, KW, C, O), with zeros between channels of different groups."""
    kh, kw, c, o = weight.shape
    whole = np.zeros((kh, kw, c * groups, o))
    for k in range(o):
        first = k // (o // groups) * c
        whole[:, :, first : first + c, k] = weight[..., k]
    return whole


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    size, seen = sights(x.shape[1:3], weight.shape[:2], stride, padding, dilation)
    weight = spread(weight, groups)
    y = np.zeros((len(x), *size, weight.shape[3]))
    for p, q, i, j, yy, xx in seen:
        y[:, p, q] += x[:, yy, xx] @ weight[i, j]
    return y if bias is None else y + bias


def conv_transpose2d(x, weight, bias=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """Pixel (p, q) adds its multiple of the kernel to the result at (p·s, q·s); then the padding is cut off."""
    n, h, w, _ = x.shape
    (sh, sw), (dh, dw), ((top, bottom), (left, right)) = both(stride), both(dilation), sides(padding)
    weight = spread(weight, groups)
    kh, kw, c, _ = weight.shape
    eh, ew = both(output_padding)
    y = np.zeros((n, (h - 1) * sh + dh * (kh - 1) + 1 + eh, (w - 1) * sw + dw * (kw - 1) + 1 + ew, c))
    for p in range(h):
        for q in range(w):
            for i in range(kh):
                for j in range(kw):
                    y[:, p * sh + i * dh, q * sw + j * dw] += x[:, p, q] @ weight[i, j].T
    y = y[:, top : y.shape[1] - bottom, left : y.shape[2] - right]
    return y if bias is None else y + bias


def conv2d_weight(x, dy, kernel, stride=1, padding=0, dilation=1, groups=1):
    """The gradient of conv2d's weight: each pixel that a tap sees, times what flows into that window."""
    _, seen = sights(x.shape[1:3], kernel, stride, padding, dilation)
    c, o = x.shape[3] // groups, dy.shape[3] // groups
    dw = np.zeros((*both(kernel), c, dy.shape[3]))
    for p, q, i, j, yy, xx in seen:
        for g in range(groups):
            outputs = slice(g * o, (g + 1) * o)
            dw[i, j, :, outputs] += x[:, yy, xx, g * c : (g + 1) * c].T @ dy[:, p, q, outputs]
    return dw


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, dy=None):
    """The maxima; given dy, the gradient instead: all of it to the first maximum of each window."""
    size, seen = sights(x.shape[1:3], kernel_size, stride or kernel_size, padding, dilation, ceil_mode)
    n, c = x.shape[0], x.shape[3]
    y, dx = np.full((n, *size, c), -np.inf), np.zeros(x.shape)
    winner = np.full((*y.shape, 2), -1)
    for p, q, _, _, yy, xx in seen:
        better = (x[:, yy, xx] > y[:, p, q]) | np.isnan(x[:, yy, xx])
        y[:, p, q] = np.where(better, x[:, yy, xx], y[:, p, q])
        winner[:, p, q][better] = yy, xx
    if dy is None:
        return y
    for place in np.ndindex(y.shape):
        if winner[place][0] >= 0:
            dx[(place[0], *winner[place], place[3])] += dy[place]
    return dx


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    size, seen = sights(x.shape[1:3], kernel_size, stride or kernel_size, padding, 1, ceil_mode)
    total = np.zeros((len(x), *size, x.shape[3]))
    for p, q, _, _, yy, xx in seen:
        total[:, p, q] += x[:, yy, xx]
    lengths = []
    for n, k, s, (before, after) in zip(
        x.shape[1:3], both(kernel_size), both(stride or kernel_size), sides(padding), strict=True
    ):
        low, high = (-before, n + after) if count_include_pad else (0, n)
        lengths.append([min(t + k, high) - max(t, low) for t in starts(n, k, s, (before, after), 1, ceil_mode)])
    return total / np.outer(*lengths)[:, :, None]


def local_response_norm(a, n=5, k=2.0, alpha=1e-4, beta=0.75):
    b = np.zeros(a.shape)
    for c in range(a.shape[-1]):
        window = [j for j in range(c - n // 2, c + (n - 1) // 2 + 1) if 0 <= j < a.shape[-1]]
        b[..., c] = a[..., c] / (k + alpha * sum(a[..., j] ** 2 for j in window)) ** beta
    return b


def log_softmax(x, axis=-1):
    y = np.moveaxis(x, axis, -1).copy()
    for place in np.ndindex(y.shape[:-1] if y.size else 0):
        y[place] -= y[place].max()
        y[place] -= np.log(sum(np.exp(y[place])))
    return np.moveaxis(y, -1, axis)


def softmax(x, axis=-1):
    return np.exp(log_softmax(x, axis))


def cross_entropy(logits, labels):
    """The loss of each sample."""
    return np.array([-log_softmax(row)[label] for row, label in zip(logits, labels, strict=True)])


def batch_norm(x, gamma, beta, eps=1e-5):
    """In training: (y, mean, unbiased variance)."""
    rows = x.reshape(-1, x.shape[-1])
    mean = sum(rows) / len(rows)
    squares = sum((row - mean) ** 2 for row in rows)
    y = np.array([gamma * (row - mean) / np.sqrt(squares / len(rows) + eps) + beta for row in rows])
    return y.reshape(x.shape), mean, squares / (len(rows) - 1)


# ----------------------------------------------------------------------------------------------------------------------
# inputs
def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def distinct(*shape, seed=0):
    """Numbers at least 0.1 apart, and as far from 0: no ties, no kinks."""
    size = int(np.prod(shape))
    return (np.random.default_rng(seed).permutation(size).reshape(shape) - size // 2 + 0.5) * 0.1


def _sliced(a):
    large = np.full([2 * n + 1 for n in a.shape], np.nan if a.dtype.kind == "f" else 99, a.dtype)
    view = large[tuple([slice(1, None, 2)] * a.ndim)]
    view[...] = a
    return view


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "sliced": _sliced,
    "negative strides": lambda a: np.flip(np.flip(a).copy()),
    "broadcast": lambda a: np.broadcast_to(a[-1:, ...], a.shape),  # read-only, with a stride of 0
}


DTYPES = st.sampled_from([np.float64, np.float32])


@st.composite
def arrays(draw, shape, make=normal):
    """An array from make(*shape, seed=…), float32 or float64, in any layout."""
    a = make(*shape, seed=draw(st.integers(0, 99)))
    return LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](a.astype(draw(st.shared(DTYPES, key="dtype"))))


def pairs(low, high):
    """An int, or (height, width)."""
    n = st.integers(low, high)
    return st.one_of(n, st.tuples(n, n))


def paddings(high):
    """An int, (height, width) or ((top, bottom), (left, right))."""
    side = st.tuples(st.integers(0, high), st.integers(0, high))
    return st.one_of(pairs(0, high), st.tuples(side, side))


@st.composite
def settings(draw, batch=3, pads=2):
    """An image's shape, and (kernel, stride, padding, dilation) that fit it."""
    kernel, stride, padding, dilation = (
        draw(pairs(1, 3)),
        draw(pairs(1, 3)),
        draw(paddings(pads)),
        draw(pairs(1, 2)),
    )
    least = [
        max(1, d * (k - 1) + 1 - sum(p)) for k, d, p in zip(both(kernel), both(dilation), sides(padding), strict=True)
    ]
    h, w = (n + draw(st.integers(0, 4)) for n in least)
    return (draw(st.integers(0, batch)), h, w, draw(st.integers(1, 3))), (kernel, stride, padding, dilation)


# ----------------------------------------------------------------------------------------------------------------------
# questions
def agree(f, reference, *arrays, **options):
    """f of Tensors has the values of reference of arrays, and the gradients that its differences show; dtypes stay, and
    so do the inputs."""
    tensors, before = [Tensor(a, requires_grad=True) for a in arrays], [a.copy() for a in arrays]
    wide = [a.astype(np.float64) for a in arrays]
    y, expected = f(*tensors, **options), reference(*wide, **options)
    single = arrays[0].dtype == np.float32
    assert y.dtype == arrays[0].dtype and y.shape == expected.shape
    assert_allclose(y.data, expected, rtol=1e-4 if single else 1e-9, atol=1e-5 if single else 1e-12)

    dy = normal(*y.shape, seed=1).astype(y.dtype)
    y.backward(dy)
    for i, (t, x) in enumerate(zip(tensors, wide, strict=True)):
        assert t.grad.shape == x.shape and t.grad.dtype == arrays[i].dtype
        direction = normal(*x.shape, seed=2 + i)
        up, down = (reference(*wide[:i], x + step * direction, *wide[i + 1 :], **options) for step in (1e-5, -1e-5))
        terms = t.grad.data * direction
        assert_allclose(
            terms.sum(),
            (dy * (up - down)).sum() / 2e-5,
            rtol=0,
            atol=(1e-4 if single else 1e-6) * (1 + abs(terms).sum()),
        )
    for a, b in zip(arrays, before, strict=True):
        assert_array_equal(a, b)


def differentiable(f, *arrays, **options):
    """The first derivatives are those of the numbers, and so are the second: entry by entry where they are few."""
    inputs = [Tensor(a, requires_grad=True) for a in arrays]
    assert gradcheck(lambda *args: f(*args, **options), inputs, full_jacobian=1000)
    assert gradgradcheck(lambda *args: f(*args, **options), inputs, full_jacobian=300)


def step(f, arrays, **options):
    """[output, gradients …] of one forward and backward pass."""
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    y = f(*tensors, **options)
    y.backward(normal(*y.shape, seed=3).astype(y.dtype))
    return [y.data, *(t.grad.data for t in tensors)]


@contextmanager
def cut(cache, block, threads):
    """Cut work into slices that need at most `cache` bytes, or have `block` numbers, on that many threads."""
    before, runs, run = fast.threads.get_num_threads(), [], fast.threads._threads.run
    fast.threads.set_num_threads(threads)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fast.threads, "CACHE", cache)
            patch.setattr(fast.threads, "BLOCK", block)
            patch.setattr(fast.threads._threads, "run", lambda work, count: runs.append(count) or run(work, count))
            yield
    finally:
        fast.threads.set_num_threads(before)
    assert bool(runs) == (threads > 1), "the work was not cut as was asked"


def keeps(f, *arrays):
    """Inputs, output and gradients that a user holds share no memory, and stay as they are while ten more steps run.
    Recycled memory is used for all sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast.memory, "LARGE", 1)
        held = [*arrays, *step(f, arrays)]
        copies = [a.copy() for a in held]
        for i in range(10):
            step(f, [np.roll(a, i, 0) for a in arrays])
    for i, (a, copy) in enumerate(zip(held, copies, strict=True)):
        assert_array_equal(a, copy)
        assert not any(np.may_share_memory(a, other) for other in held[:i])


@contextmanager
def refuses(error, *words):
    """Raises that error, with one line that holds the words."""
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def fails(error, pattern, f, *args, **kwargs):
    """f raises this error, in one line, which it returns."""
    with pytest.raises(error, match=pattern) as caught:
        f(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Foreign:
    """Another library's array, which notes what it is asked: it is where `device` says, as DLPack numbers them."""

    def __init__(self, array, device=None):
        self.array, self.device, self.asked = array, device or array.__dlpack_device__(), []

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **options):
        self.asked.append(options)
        return self.array.__dlpack__(**options)


def at_once(*functions):
    """Run functions in threads of their own, at the same time; their results."""
    results, start = [None] * len(functions), threading.Barrier(len(functions))

    def run(i, f):
        start.wait(30)
        results[i] = f()

    running = [threading.Thread(target=run, args=(i, f)) for i, f in enumerate(functions)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
        assert not thread.is_alive(), "it hangs"
    return results


def gradients_alone(function, shapes, wanted):
    """A Function, made by function(), keeps what those of its gradients need that are asked for, and computes them as
    if all were."""
    arrays = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]

    def gradients(flags):
        inputs = [Tensor(array, requires_grad=flag) for array, flag in zip(arrays, flags, strict=True)]
        y = apply(function(), *inputs)
        return grad((y * normal(*y.shape, seed=9)).sum(), [t for t in inputs if t.requires_grad])

    expected = [g for g, flag in zip(gradients([True] * len(shapes)), wanted, strict=True) if flag]
    for found, right in zip(gradients(wanted), expected, strict=True):
        np.testing.assert_array_equal(found.data, right.data)
