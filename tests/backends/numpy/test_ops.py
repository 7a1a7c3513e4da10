"""minicnn/backends/numpy/ops.py: arithmetic, sums and products shared among threads."""

import numpy as np
import pytest

from minicnn.backends import numpy as fast


@pytest.fixture
def shared(monkeypatch):
    """The pieces of the work that is shared among threads, and blocks of 40 numbers."""
    work = []
    for name in ("parallel", "parallel_sum"):
        real = getattr(fast.ops, name)
        monkeypatch.setattr(fast.ops, name, lambda f, pieces, real=real: work.append(pieces) or real(f, pieces))
    monkeypatch.setattr(fast.threads, "BLOCK", 40)
    monkeypatch.setattr(fast.ops, "SHORT", 5)
    return work


def test_other_dtypes(shared):
    """Of two floating ones the wider counts, and integers and booleans are computed as NumPy does. One dtype is
    test_agreement.py's."""
    random = np.random.default_rng(0)
    for a, b in [((50, 4), (4, 3)), ((3, 4), (4, 50)), ((50, 1), (1, 4)), ((7, 1), (1, 7))]:
        a, b = random.uniform(1, 9, a), random.uniform(1, 9, b)
        for x, y in ((a.astype(np.float32), b), (a.astype(int), b.astype(int)), (a > 5, b > 5)):
            np.testing.assert_allclose(fast.ops.matmul(x, y), x @ y, rtol=1e-6, strict=True)
            for ufunc in (np.add, np.multiply, np.maximum):
                np.testing.assert_array_equal(fast.ops.broadcast(x, y[:1, :1], ufunc), ufunc(x, y[:1, :1]), strict=True)


def test_arithmetic_in_blocks_and_on_recycled_memory(threads, memory, shared):
    threads(2)
    for shapes, expected in (
        (((100, 4), (4,)), fast.threads.slices(100, 10)),
        (((100, 1), (1, 8)), fast.threads.slices(100, 5)),
        (((5, 100), (100,)), fast.threads.slices(5, 1)),  # at least one row
        (((2, 20), (20,)), [(0, 2)]),
        (((20,), (2, 20)), [(0, 2)]),
        (((4,), (100, 4)), fast.threads.slices(100, 10)),
    ):
        fast.ops.broadcast(*map(np.ones, shapes), np.add)
        assert shared == [expected]
        shared.clear()
    fast.ops.broadcast(np.ones((3, 13)), np.ones(13), np.add)
    assert not shared  # 39 numbers
    assert fast.ops.broadcast(np.ones((1, 50)), np.ones((0, 1)), np.add).shape == (0, 50)
    result = fast.ops.broadcast(np.ones((fast.memory.LARGE // 4, 4)), np.ones(4), np.add)
    assert memory.lent_bytes == result.nbytes


@pytest.mark.parametrize("shape", [(9, 1, 5), (5, 1, 9)])
def test_matmul_with_one_inner_number_is_a_product_of_each_with_each(threads, shared, shape):
    threads(2)
    rows, inner, columns = shape
    a, b = np.arange(1.0, rows + 1).reshape(rows, inner), np.arange(1.0, columns + 1).reshape(inner, columns)
    a[1], b[0, 2] = np.inf, np.nan
    np.testing.assert_array_equal(fast.ops.matmul(a, b), np.multiply.outer(a[:, 0], b[0]), strict=True)
    assert shared == [[(0, 5), (5, 9)]]  # along the longer side


LONG = [
    ((100, 4), (0,), 10), ((10, 4), (0,), 10), ((10, 10, 4), (0, 1), 10), ((5, 100), (0,), 1), ((4, 10), (0,), 4),
    ((2, 5, 3, 4), (0, 2), 2), ((1, 10, 4), (1,), 10),
    ((2, 5, 3, 4), (1, 3), 6),
]  # fmt: skip
STACKS = [
    ((3, 10, 4), (1,), 1),
    ((2, 30, 4), (1,), 1),
    ((6, 5, 3, 4), (2,), 3),
    ((2, 3, 5, 2, 20), (2, 3), 1),
    ((50, 2, 1), (1,), 20),
    ((9, 3, 17), (1,), 1),
]


@pytest.mark.parametrize(("shape", "axes", "step"), LONG)
def test_a_long_sum_goes_to_the_threads_in_blocks(shape, axes, step, shared):
    x = np.random.default_rng(0).standard_normal(shape)
    np.testing.assert_allclose(fast.ops.total(x, axes), x.sum(axes), rtol=1e-12, atol=1e-12)
    assert shared == [fast.threads.slices(int(np.prod([shape[axis] for axis in axes])), step)]


@pytest.mark.parametrize(("shape", "axes", "step"), STACKS)
def test_a_long_sum_behind_other_axes_goes_to_the_threads_stack_by_stack(shape, axes, step, shared):
    x = np.random.default_rng(0).standard_normal(shape)
    for array in (x, x[..., ::-1]):
        np.testing.assert_allclose(fast.ops.total(array, axes), array.sum(axes), rtol=1e-12, atol=1e-12)
    assert shared == [fast.threads.slices(int(np.prod(shape[: axes[0]])), step)] * 2


@pytest.mark.parametrize("columns", [2, 15, 16, 17, 96])
@pytest.mark.parametrize("axes", [(0,), (1,)])
def test_sums_of_many_rows_do_not_drift(columns, axes):
    """Of float32, and of float16, of which each sum is a number of float16; whole numbers stay whole."""
    x = np.full((2, 30_000, columns)[1 - axes[0] :], 0.1, np.float32)
    rtol = 1e-6 if columns % 16 == 0 else 5e-6  # BLAS adds the last columns otherwise
    np.testing.assert_allclose(fast.ops.total(x, axes), 3000, rtol=rtol)
    backwards = np.ascontiguousarray(x[..., ::-1, :])[..., ::-1, :]
    np.testing.assert_allclose(fast.ops.total(backwards, axes), 3000, rtol=rtol)
    with_gaps, repeated = np.repeat(x, 2, axis=-1)[..., ::2], np.broadcast_to(x[..., :1, :], x.shape)
    lying = np.asfortranarray(x)  # of which the axis with the shortest steps is another
    for other in (with_gaps, repeated, lying):
        np.testing.assert_allclose(fast.ops.total(other, axes), 3000, rtol=rtol)
    y = fast.ops.total(x.astype(np.float16), axes)
    assert y.dtype == np.float16 and y.shape == (2, columns)[1 - axes[0] :]
    np.testing.assert_allclose(y, 3000, rtol=1e-3)
    y = fast.ops.total(np.ones(x.shape, np.int32), axes)
    assert y.dtype.kind == "i" and (y == 30_000).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_sums_along_the_last_axis_do_not_drift_whatever_the_layout(dtype):
    x = np.full((2, 2**17), 0.1, dtype, order="F")
    np.testing.assert_array_equal(fast.ops.total(x, (1,)), fast.ops.total(np.ascontiguousarray(x), (1,)))
    one_by_one = np.broadcast_to(np.float16(2**-11), (2**26 + 2, 2))  # in float32 they stop to grow at 2¹³
    np.testing.assert_array_equal(fast.ops.total(one_by_one, (0,)), 2**15)


def test_sums_that_are_not_shared(shared):
    """Over all axes or the last ones, which NumPy adds pairwise; of whole numbers; and of few numbers."""
    x = np.random.default_rng(0).standard_normal((10, 10, 4))
    for array, axes in (
        (x, (0, 1, 2)), (x, (2,)), (x, (1, 2)), (x[0, 0], (0,)), (x[:2, 0, :2], (0,)), (np.ones((20, 20), int), (0,)),
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
