"""Infinities behind masks, long sums in float32, and float16: where what is computed in the obvious way
is wrong without a word."""

import numpy as np
import pytest

import minicnn.functional as F
from minicnn import Tensor

INF = np.float32(np.inf)
BACKENDS = pytest.mark.parametrize("backend", ["numpy", "reference"])


@pytest.fixture(autouse=True)
def chosen(request):
    from minicnn import use_backend

    use_backend(request.getfixturevalue("backend") if "backend" in request.fixturenames else None)


X, ROOM = [-1.0, 4.0, 0.5], np.float32([2.0, 2.0, 2.0])
MASKED = {  # (function of x, its gradient for dy = 1 in float32, where dy is infinite)
    "relu": (F.relu, [0, INF, INF]),
    "clip": (lambda x: x.clip(0.0, 2.0), [0, 0, INF]),
    "maximum": (lambda x: F.maximum(x, ROOM), [0, INF, 0]),
    "minimum": (lambda x: F.minimum(x, ROOM), [INF, 0, INF]),
    "where": (lambda x: F.where(np.array([True, False, True]), x, ROOM), [INF, 0, INF]),
    "where not": (lambda x: F.where(np.array([True, False, True]), ROOM, x), [0, INF, 0]),
    "max": (lambda x: x.max(), [0, INF, 0]),
    "min of an axis": (lambda x: x.min(0, keepdims=True), [INF, 0, 0]),
    "max_pool2d": (lambda x: F.max_pool2d(x.reshape(1, 1, 3, 1), (1, 3)), [0, INF, 0]),
    "dropout": (None, None),
    "power 0": (lambda x: x**0, [0, 0, 0]),
    "exponent of what is not positive": (lambda x: Tensor(X) ** x, [0, INF, -INF]),
    "index": (lambda x: x[1:], [0, INF, INF]),
}


@BACKENDS
@pytest.mark.parametrize("name", MASKED)
def test_an_infinite_gradient_of_what_was_masked_is_0(name, backend):
    """0 · ∞ would be NaN."""
    function, expected = MASKED[name]
    x = Tensor(X, requires_grad=True)
    if function is None:
        x = Tensor(np.ones(100, np.float32), requires_grad=True)
        y = F.dropout(x, 0.5, True)
        expected = np.where(y.data > 0, INF, 0)
        assert 0 < (y.data > 0).sum() < 100
    else:
        y = function(x)
    y.backward(np.full(y.shape, INF))
    np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_the_root_of_a_relu_that_is_0_has_the_gradient_0():
    for f, expected in ((F.relu, 0.25), (lambda x: x.clip(0.0, None), 0.25)):
        x = Tensor([-1.0, 4.0], requires_grad=True)
        with np.errstate(divide="ignore"):
            f(x).sqrt().sum().backward()
        assert x.grad.numpy().tolist() == [0, expected]


@BACKENDS
@pytest.mark.parametrize(
    "shape, axis",
    [((1, 3_000_000, 2), 1), ((3_000_000, 2), 0), ((2, 3_000_000), 1), ((3_000_000, 1, 2), (0, 1)), ((300, 10_000, 2), (0, 1)),
     ((2, 1000, 3000), (0, 2)), ((1000, 2, 3000), (0, 2)), ((40_000, 96), 0)],
)  # fmt: skip
def test_float32_sums_do_not_drift(shape, axis, backend):
    """Of a tenth, whose sum one by one is off in the third digit, whatever the axes."""
    x = Tensor(np.full(shape, 0.1, np.float32))
    np.testing.assert_allclose(x.mean(axis).numpy(), 0.1, rtol=1e-6)
    np.testing.assert_allclose(Tensor(x.data[::-1]).mean(axis).numpy(), 0.1, rtol=1e-6)


@BACKENDS
@pytest.mark.parametrize("shape", [(1, 300_000, 1, 2), (2, 1, 100_000, 3), (1, 300, 1000, 17)])
def test_means_of_large_windows_do_not_drift(shape, backend):
    x = Tensor(np.full(shape, 0.1, np.float32))
    np.testing.assert_allclose(F.adaptive_avg_pool2d(x, 1).numpy(), 0.1, rtol=3e-6)
    np.testing.assert_allclose(F.adaptive_avg_pool2d(x, (1, 3)).numpy(), 0.1, rtol=3e-6)


@BACKENDS
def test_windows_are_added_up_by_rows_and_columns(backend):
    x = Tensor(np.full((1, 200, 201, 2), 0.1, np.float32))
    for window in ((200, 201), 150):
        np.testing.assert_allclose(F.avg_pool2d(x, window).numpy(), 0.1, rtol=1e-5)
    np.testing.assert_allclose(F.avg_pool2d(x, 200, 1, 100).numpy()[0, 100, 100], 0.1, rtol=1e-5)


C = 24  # squares of 300 overflow, and so do 300 sums of 300


@BACKENDS
def test_other_sums_of_float32_do_not_drift(backend):
    x = Tensor(np.zeros((3_000_000, 2), np.float32))
    np.testing.assert_allclose(F.softmax(x, 0).numpy(), 1 / 3e6, rtol=1e-5)
    np.testing.assert_allclose(F.log_softmax(x, 0).numpy(), -np.log(3e6), rtol=1e-6)


def test_float16_counts_further_than_2048_in_the_gradient_of_an_index():
    x = Tensor(np.ones(2, np.float16), requires_grad=True)
    x[np.zeros(5000, int)].sum().backward()
    assert x.grad.dtype == np.float16 and x.grad.numpy().tolist() == [5000, 0]


def test_the_eps_of_batch_norm_is_added_in_float32():
    """In float16, which the averages may be of, 1e-8 is 0."""
    x, one = Tensor(np.full((1, 1), 0.5, np.float16)), Tensor(np.ones(1, np.float16))
    y = F.batch_norm(
        x, gamma=one, beta=one, running_mean=np.zeros(1, np.float16), running_var=np.zeros(1, np.float16), eps=1e-8
    )
    assert y.item() == 5000


HALF = {
    "mean": lambda x: x.mean((0, 1, 2)),
    "std": lambda x: (x * 8).std((0, 1)),
    "mse_loss": lambda x: F.mse_loss(x, np.full(x.shape, 100.0)),
    "mse_loss of a Tensor": lambda x: F.mse_loss(x, Tensor(np.full(x.shape, 100, x.dtype))),
    "binary_cross_entropy": lambda x: F.binary_cross_entropy_with_logits(x, np.zeros(x.shape)),
    "var": lambda x: x.var((0, 1)),
    "avg_pool2d": lambda x: F.avg_pool2d(x, (30, 20)),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 1),
    "local_response_norm": F.local_response_norm,
    "softmax": lambda x: F.softmax(x.reshape(-1, 1) * 0, 0),
    "log_softmax": lambda x: F.log_softmax(x.reshape(-1, 1) * 0, 0),
    "cross_entropy": lambda x: F.cross_entropy(x.reshape(60, -1), np.arange(60)),
    "batch_norm": lambda x: F.batch_norm(
        x, gamma=Tensor(np.ones(C, x.dtype)), beta=Tensor(np.zeros(C, x.dtype)),
        running_mean=np.zeros(C, x.dtype), running_var=np.ones(C, x.dtype), training=True,
    ),
}  # fmt: skip


@BACKENDS
@pytest.mark.parametrize("name", HALF)
def test_float16_is_summed_in_float32(name, backend):
    """As the same in float32 of the same numbers, but for the last rounding; the gradient too."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(200, 400, (2, 30, 20, C)).astype(np.float16)
    results = []
    for dtype in (np.float16, np.float32):
        x = Tensor(numbers.astype(dtype), requires_grad=True)
        y = HALF[name](x)
        y.backward(np.random.default_rng(1).standard_normal(y.shape).astype(np.float16).astype(dtype))
        assert y.dtype == x.grad.dtype == dtype
        results.append((y.numpy(), x.grad.numpy()))
    for narrow, wide in zip(*results, strict=True):
        np.testing.assert_allclose(narrow, wide.astype(np.float16), rtol=4e-3, atol=2e-3 * abs(wide).max())
