"""minicnn/backends/numpy/ops.py: arithmetic, sums and products shared among threads."""

import itertools

import numpy as np
import pytest

from minicnn.backends import numpy as fast

SHAPES = [
    ((5, 4, 3), (5, 4, 3)),
    ((5, 4, 3), (3,)),
    ((3,), (5, 4, 3)),
    ((9, 1), (1, 4)),
    ((1, 40), (5, 1)),
    ((1, 40), (40,)),
]
SHAPES += [
    ((40,), ()),
    ((), (40,)),
    ((3, 2), (3, 1)),
    ((), ()),
    ((0, 9), (1, 9)),
    ((9, 1), (1, 0)),
    ((1, 2, 40), (2, 1)),
]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("shapes", SHAPES)
def test_arithmetic(threads, monkeypatch, count, shapes):
    threads(count)
    random = np.random.default_rng(0)
    for block, ufunc in itertools.product((7, fast.threads.BLOCK), (np.add, np.subtract, np.true_divide, np.maximum)):
        monkeypatch.setattr(fast.threads, "BLOCK", block)
        a, b = (random.uniform(1, 2, shape).astype(np.float32) for shape in shapes)
        for x, y in ((a, b), (np.asfortranarray(a), b[..., ::-1] if b.ndim else b)):
            before = x.copy(), y.copy()
            result = fast.ops.broadcast(x, y, ufunc)
            np.testing.assert_array_equal(result, ufunc(x, y), strict=bool(result.ndim))
            np.testing.assert_array_equal(x, before[0])
            np.testing.assert_array_equal(y, before[1])
            assert not np.shares_memory(result, x) and not np.shares_memory(result, y)
        mixed = fast.ops.broadcast(a, b.astype(np.float64), ufunc)
        np.testing.assert_array_equal(mixed, ufunc(a, b.astype(np.float64)))
        assert mixed.dtype == np.float64
    whole = [(10 * x).astype(int) for x in (a, b)]
    np.testing.assert_array_equal(fast.ops.broadcast(*whole, np.multiply), np.multiply(*whole))


def test_arithmetic_in_blocks_and_on_recycled_memory(threads, monkeypatch, memory):
    threads(2)
    monkeypatch.setattr(fast.threads, "BLOCK", 40)
    work, real = [], fast.ops.parallel
    monkeypatch.setattr(fast.ops, "parallel", lambda f, slices: work.append(slices) or real(f, slices))
    for shapes, expected in (
        (((100, 4), (4,)), fast.threads.slices(100, 10)),
        (((100, 1), (1, 8)), fast.threads.slices(100, 5)),
        (((5, 100), (100,)), fast.threads.slices(5, 1)),  # at least one row
        (((2, 20), (20,)), [(0, 2)]),
        (((20,), (2, 20)), [(0, 2)]),
        (((4,), (100, 4)), fast.threads.slices(100, 10)),
    ):
        fast.ops.broadcast(*map(np.ones, shapes), np.add)
        assert work == [expected]
        work.clear()
    fast.ops.broadcast(np.ones((3, 13)), np.ones(13), np.add)
    assert not work  # 39 numbers
    result = fast.ops.broadcast(np.ones((fast.memory.LARGE // 4, 4)), np.ones(4), np.add)
    assert memory.lent_bytes == result.nbytes


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    "shapes",
    [((50, 4), (4, 3)), ((3, 4), (4, 50)), ((5, 0), (0, 5)), ((0, 4), (4, 3)), ((1, 60), (60, 1)), ((2, 5, 3), (3, 4))]
    + [((50, 1), (1, 4)), ((4, 1), (1, 50)), ((7, 1), (1, 7)), ((0, 1), (1, 3)), ((3, 1), (1, 0)), ((1, 1), (1, 1))],
)
def test_matmul(threads, monkeypatch, count, shapes):
    threads(count)
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(shape).astype(np.float32) for shape in shapes)
    for block in (1, fast.threads.BLOCK):
        monkeypatch.setattr(fast.threads, "BLOCK", block)
        for left in (a, np.asfortranarray(a)):
            np.testing.assert_allclose(fast.ops.matmul(left, b), np.matmul(a, b), rtol=1e-4, atol=1e-5, strict=True)
            np.testing.assert_allclose(
                fast.ops.matmul(a, b.copy("F")), np.matmul(a, b), rtol=1e-4, atol=1e-5, strict=True
            )
        single, double = fast.ops.matmul(a, b.astype(np.float64)), np.matmul(a, b.astype(np.float64))
        np.testing.assert_allclose(single, double, rtol=1e-6, atol=1e-6, strict=True)  # the wider dtype
    ints = np.arange(6).reshape(2, 3)
    for a, b in (
        (ints, ints.T),
        (ints.reshape(6, 1), ints[:1]),
        (ints > 2, ints.T > 2),
        (ints[:, :1] > 2, ints[:1] > 0),
    ):
        np.testing.assert_array_equal(fast.ops.matmul(a, b), a @ b, strict=True)


@pytest.mark.parametrize("shape", [(9, 1, 4), (4, 1, 9)])
def test_matmul_with_one_inner_number_is_a_product_of_each_with_each(threads, monkeypatch, shape):
    threads(2)
    monkeypatch.setattr(fast.threads, "BLOCK", 1)
    shares, real = [], fast.ops.parallel
    monkeypatch.setattr(fast.ops, "parallel", lambda f, work: shares.append(work) or real(f, work))
    rows, inner, columns = shape
    a, b = np.arange(1.0, rows + 1).reshape(rows, inner), np.arange(1.0, columns + 1).reshape(inner, columns)
    a[1], b[0, 2] = np.inf, np.nan
    np.testing.assert_array_equal(fast.ops.matmul(a, b), np.multiply.outer(a[:, 0], b[0]), strict=True)
    assert shares == [[(0, 5), (5, 9)]]  # along the longer side


LONG = [((100, 4), (0,), 10), ((10, 4), (0,), 10), ((10, 10, 4), (0, 1), 10), ((5, 100), (0,), 1), ((4, 10), (0,), 4)]


@pytest.fixture
def shared(monkeypatch):
    """The pieces of the work that is shared among threads, and blocks of 40 numbers."""
    work = []
    for name in ("parallel", "parallel_sum"):
        real = getattr(fast.ops, name)
        monkeypatch.setattr(fast.ops, name, lambda f, pieces, real=real: work.append(pieces) or real(f, pieces))
    monkeypatch.setattr(fast.threads, "BLOCK", 40)
    return work


@pytest.mark.parametrize(("shape", "axes", "step"), LONG)
def test_a_long_sum_goes_to_the_threads_in_blocks(shape, axes, step, shared):
    x = np.random.default_rng(0).standard_normal(shape)
    np.testing.assert_allclose(fast.ops.total(x, axes), x.sum(axes), rtol=1e-12, atol=1e-12)
    assert shared == [fast.threads.slices(x.size // shape[-1], step)]


def test_sums_that_are_not_shared(shared):
    """Over all axes, over the last ones, over some in the middle; of few numbers, and of those that lie apart."""
    x = np.random.default_rng(0).standard_normal((10, 10, 4))
    for array, axes in (
        (x, (0, 1, 2)), (x, (2,)), (x, (1,)), (x, (1, 2)), (x, (0, 2)), (x[0, 0], (0,)), (x[:3, 0, :4], (0,)),
        (np.asfortranarray(x), (0,)), (x[::2], (0,)),
    ):  # fmt: skip
        np.testing.assert_allclose(fast.ops.total(array, axes), array.sum(axes), rtol=1e-12, atol=1e-12)
    assert not shared


@pytest.mark.parametrize(
    ("rows", "inner", "columns", "expected"),
    [
        (8, 5, 1, [(0, 4), (4, 8)]),  # of 40 products
        (1, 5, 8, [(0, 4), (4, 8)]),
        (13, 3, 1, None),  # of 39
        (3, 1, 13, None),
        (9, 1, 5, [(0, 5), (5, 9)]),  # the longer side
        (5, 1, 9, [(0, 5), (5, 9)]),
        (7, 2, 7, [(0, 4), (4, 7)]),
    ],
)
def test_which_products_are_shared(rows, inner, columns, expected, shared, threads):
    threads(2)
    a, b = np.ones((rows, inner)), np.ones((inner, columns))
    np.testing.assert_array_equal(fast.ops.matmul(a, b), np.full((rows, columns), inner))
    assert shared == ([expected] if expected else [])


def test_a_square_product_is_cut_into_rows(shared, threads, monkeypatch):
    """Which lie side by side in memory."""
    threads(2)
    cut, real = [], np.matmul
    monkeypatch.setattr(np, "matmul", lambda a, b, out: cut.append(out.shape) or real(a, b, out=out))
    fast.ops.matmul(np.ones((6, 4)), np.ones((4, 6)))
    assert cut == [(3, 6)] * 2
