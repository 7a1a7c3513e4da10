"""Products of matrices on a GPU, read and written where they are."""

import numpy as np
import pytest
from agreement import DTYPES, normal
from hypothesis import given
from hypothesis import strategies as st

from minicnn.backends.cuda import products as kernels

LAYOUTS = {
    "rows": lambda gpu, x: gpu.asarray(x),
    "columns": lambda gpu, x: gpu.asarray(np.ascontiguousarray(x.T)).T,
    "some columns": lambda gpu, x: gpu.asarray(np.pad(x, ((0, 0), (2, 3))))[:, 2 : 2 + x.shape[1]],
    "some rows of columns": lambda gpu, x: gpu.asarray(np.pad(x.T, ((0, 0), (1, 2))))[:, 1 : 1 + x.shape[0]].T,
    "every second": lambda gpu, x: gpu.asarray(np.repeat(np.repeat(x, 2, 0), 2, 1))[::2, ::2],
    "backwards": lambda gpu, x: gpu.asarray(np.ascontiguousarray(x[::-1, ::-1]))[::-1, ::-1],
    "one row": lambda gpu, x: gpu.broadcast_to(gpu.asarray(x[:1]), x.shape),
}
SIZES = st.integers(0, 5)


@given(SIZES, SIZES, SIZES, st.sampled_from(sorted(LAYOUTS)), st.sampled_from(sorted(LAYOUTS)), st.booleans())
def test_product(gpu, m, k, n, of_a, of_b, cut):
    for dtype in DTYPES:
        a = LAYOUTS[of_a](gpu, normal(m, k).astype(dtype))
        b = LAYOUTS[of_b](gpu, normal(k, n, seed=1).astype(dtype))
        whole = gpu.asarray(np.full((m, n + 3), 7.0, dtype))
        out = whole[:, 1 : 1 + n] if cut else gpu.asarray(np.full((m, n), np.nan, dtype))
        assert kernels.product(a, b, out) is out
        tolerance = 1e-12 if dtype == np.float64 else 1e-5
        np.testing.assert_allclose(out.get(), a.get() @ b.get(), rtol=tolerance, atol=tolerance)
        if cut:
            assert (whole.get()[:, [0, -2, -1]] == 7).all()


@given(st.sampled_from([(), (3,), (2, 3), (2, 1), (0, 3)]), st.sampled_from([(), (3,), (2, 3), (1, 3), (0, 3)]))
def test_stacks(gpu, outer_a, outer_b):
    try:
        np.broadcast_shapes(outer_a, outer_b)
    except ValueError:
        return
    a, b = normal(*outer_a, 4, 5), normal(*outer_b, 5, 2)
    y = kernels.matmul(gpu.asarray(a), gpu.asarray(b)).get()
    assert y.shape == (a @ b).shape
    np.testing.assert_allclose(y, a @ b, rtol=1e-12, atol=1e-12)


STACKS = {  # of an array (G, rows, columns)
    "one after another": lambda gpu, x: gpu.asarray(x),
    "side by side": lambda gpu, x: gpu.asarray(x.swapaxes(0, 1).copy()).swapaxes(0, 1),
    "by columns": lambda gpu, x: gpu.asarray(x.swapaxes(1, 2).copy()).swapaxes(1, 2),
    "one for all": lambda gpu, x: gpu.broadcast_to(gpu.asarray(x[:1]), x.shape),
    "every second": lambda gpu, x: gpu.asarray(np.repeat(x, 2, 2))[:, :, ::2],
}


@given(
    st.integers(0, 3), SIZES, SIZES, SIZES, *[st.sampled_from(sorted(STACKS))] * 2,
    st.sampled_from(["one after another", "side by side"]),
)  # fmt: skip
def test_stacks_are_read_and_written_where_they_are(gpu, count, m, k, n, of_a, of_b, of_out):
    for dtype in DTYPES:
        a = STACKS[of_a](gpu, normal(count, m, k).astype(dtype))
        b = STACKS[of_b](gpu, normal(count, k, n, seed=1).astype(dtype))
        out = STACKS[of_out](gpu, np.full((count, m, n), np.nan, dtype))
        assert kernels.product(a, b, out) is out
        tolerance = 1e-12 if dtype == np.float64 else 1e-5
        np.testing.assert_allclose(out.get(), a.get() @ b.get(), rtol=tolerance, atol=tolerance)


def test_a_stack_is_one_launch(standin):
    import cupy

    a, b = (cupy.asarray(normal(*shape)) for shape in ((2, 3, 4, 5), (3, 5, 2)))
    standin.log.clear()
    kernels.matmul(a, b)
    assert [entry.name for entry in standin.log if entry.kind == "product"] == ["gemm 2x4x5 3 times"] * 2


def test_precision(gpu):
    """TF32 drops what is beyond 10 bits; float64 does not know it."""
    x = np.full((64, 64), 1 + 2.0**-13, np.float32)
    y = {}
    for precision in ("fp32", "tf32"):
        kernels.set_matmul_precision(precision)
        for dtype in DTYPES:
            a = gpu.asarray(x.astype(dtype))
            y[precision, dtype] = kernels.matmul(a, a).get()[0, 0]
    kernels.set_matmul_precision("fp32")
    exact = 64 * (1 + 2.0**-13) ** 2
    assert y["fp32", np.float64] == y["tf32", np.float64] == pytest.approx(exact, rel=1e-12)
    assert y["fp32", np.float32] == pytest.approx(exact, rel=1e-6)
    with pytest.raises(ValueError, match="'fp32' or 'tf32', not 'bf16'"):
        kernels.set_matmul_precision("bf16")
    assert y["tf32", np.float32] in (64, y["fp32", np.float32])  # the latter on a card that has none


def test_mistakes(gpu):
    x, y = gpu.asarray(np.ones((3, 4), np.float32)), gpu.asarray(np.ones((4, 2), np.float32))
    out = gpu.asarray(np.zeros((3, 2), np.float32))
    for a, b, to, error, words in [
        (x, x, out, ValueError, r"\(3, 4\) and \(3, 4\) into \(3, 2\): the shapes do not fit"),
        (x, y, out.T, ValueError, "the shapes do not fit"),
        (x, y.astype(np.float64), out, TypeError, "float32 @ float64 into float32"),
        (x.astype(np.int64), y.astype(np.int64), out, TypeError, "is of float32 or of float64"),
        (x, y, gpu.asarray(np.zeros((2, 3), np.float32)).T, ValueError, "written to rows"),
        (x[None], y, out, ValueError, "the shapes do not fit"),
        (x[None], y[None], out, ValueError, "do not fit"),
        (x[None], gpu.stack([y, y]), out[None], ValueError, "the shapes do not fit"),
    ]:
        with pytest.raises(error, match=words) as caught:
            kernels.product(a, b, to)
        assert "\n" not in str(caught.value)
