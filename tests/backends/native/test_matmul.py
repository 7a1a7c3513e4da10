"""minicnn/backends/native/matmul.py: each way to cut a product, for matrices that lie in any way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnn.backends.native import matmul as native
from minicnn.backends.native.matmul import matmul
from minicnn.backends.numpy import ops

SIDES = st.one_of(st.integers(0, 40), st.sampled_from([63, 64, 65, 127, 128, 129, 255, 256, 257, 300, 513]))
LAYOUTS = {
    "rows": lambda x: x,
    "columns": np.asfortranarray,
    "parts of rows": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "every other row": lambda x: np.repeat(x, 3, axis=0)[::3],
    "backwards": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
}


@pytest.fixture(params=["few", "many"])
def always(request, monkeypatch):
    """The kernel computes all products, cut as those of few or of many multiplications are."""
    for name, value in {"LEAST": 0, "SHORTEST": 0, "FEW": 1 << 40, "MANY": 0, "SHORT": 1 << 40}.items():
        monkeypatch.setattr(native, name, value)
    if request.param == "many":
        monkeypatch.setattr(native, "FEW", -1)
    monkeypatch.setattr(ops, "matmul", None)


def numbers(shape, dtype, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_the_product(always, threads, number, dtype):
    threads(number)

    @given(SIDES, SIDES, SIDES, st.sampled_from(sorted(LAYOUTS)), st.sampled_from(sorted(LAYOUTS)))
    def check(height, depth, width, left, right):
        a, b = numbers((height, depth), dtype, 0), numbers((depth, width), dtype, 1)
        y = matmul(LAYOUTS[left](a), LAYOUTS[right](b))
        assert y.dtype == dtype and y.flags.c_contiguous
        expected = a.astype(np.longdouble) @ b.astype(np.longdouble)
        most = np.abs(a) @ np.abs(b)  # what rounding is a part of
        assert y.shape == expected.shape and (np.abs(y - expected) <= 8 * np.finfo(dtype).eps * most).all()

    check()


def test_two_threads_or_more_give_the_same_bits(always, threads):
    a, b = numbers((300, 700), np.float32, 0), numbers((700, 200), np.float32, 1)
    products = []
    for number in (2, 3, 7):
        threads(number)
        products += [matmul(a, b), matmul(a, np.asfortranarray(b))]
    for other in products[2:]:
        assert any(np.array_equal(other, known) for known in products[:2])


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_no_finite_number_goes_through(always, value):
    a, b = numbers((70, 300), np.float32, 0), numbers((300, 130), np.float32, 1)
    a[7, 299] = value
    y = matmul(a, b)
    with np.errstate(invalid="ignore"):
        expected = a[7] @ b
    assert np.array_equal(np.isnan(y[7]), np.isnan(expected)) and not np.isfinite(y[7]).any()
    assert np.array_equal(np.signbit(y[7]), np.signbit(expected)) or np.isnan(value)
    assert np.isfinite(np.delete(y, 7, axis=0)).all()


def test_which_products_are_left_to_the_numpy_backend(monkeypatch, threads):
    left = []
    monkeypatch.setattr(ops, "matmul", lambda a, b: left.append((a.shape, b.shape)) or a @ b)

    def is_left(a, b):
        left.clear()
        matmul(a, b)
        return bool(left)

    def zeros(*shape, dtype=np.float32):
        return np.zeros(shape, dtype)

    odd = np.zeros(4 * 64 * 64 + 1, np.uint8)[1:].view(np.float32).reshape(64, 64)
    for height, depth, width, by_one, by_two in (
        (64, 64, 64, True, False), (64, 64, 63, True, True), (8, 1 << 8, 1 << 7, True, False),
        (7, 1 << 8, 1 << 9, True, True), (1 << 8, 1 << 7, 8, True, False), (1 << 9, 1 << 8, 7, True, True),
        (1 << 9, 1, 1 << 9, True, False), (0, 5, 5, True, True),
        (1 << 9, 1 << 9, 1 << 8, True, False), (1 << 9, 1 << 9, (1 << 8) + 1, True, True),
        (64, 1 << 9, 1 << 9, False, False), (64, 1 << 9, (1 << 9) - 1, True, False),
        (64, 1 << 10, (1 << 10) + 1, False, False), (65, 1 << 10, 1 << 10, True, True),
        (8, 1 << 12, (1 << 11) + 1, False, False), (7, 1 << 12, 1 << 12, True, True),
        ((1 << 10) + 1, 1 << 10, 64, False, False), (1 << 10, 64, (1 << 10) + 1, False, False),
    ):  # fmt: skip
        for number, found in ((1, by_one), (2, by_two)):
            threads(number)
            assert is_left(zeros(height, depth), zeros(depth, width)) == found, (height, depth, width, number)
    assert is_left(odd, zeros(64, 64)) and is_left(zeros(64, 64), odd)
    assert is_left(zeros(64, 64), zeros(64, 64, dtype=np.float64))
    assert is_left(zeros(1, 64, 64), zeros(64, 64)) and is_left(zeros(64, 64), zeros(64)[None].T.repeat(64, 1)[None])
    with pytest.raises(ValueError, match="mismatch"):
        matmul(zeros(64, 64), zeros(65, 64))
