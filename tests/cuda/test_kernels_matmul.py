"""The lesson on products: both kernels multiply, and as cuBLAS does."""

import numpy as np
import pytest
from agreement import agrees, awkward, normal
from hypothesis import given
from hypothesis import strategies as st

from minicnn.backends.cuda import matmul as kernels
from minicnn.backends.cuda import products

KERNELS = pytest.mark.parametrize("kernel", [kernels.matmul_naive, kernels.matmul_tiled])
SIZES = st.sampled_from([0, 1, 3, 15, 16, 17, 33])  # beside one tile, and two


@KERNELS
@given(SIZES, SIZES, SIZES, st.sampled_from(["contiguous", "gaps", "shifted"]))
def test_products(gpu, kernel, m, k, n, layout):
    agrees(gpu, kernel, np.matmul, normal(m, k), normal(k, n, seed=1), layout=layout, wide=True)


@KERNELS
def test_infinities_and_NaN(gpu, kernel):
    """They reach their own rows and columns, and no zeros beside them."""
    for m, k, n in [(3, 17, 20), (17, 3, 16)]:
        agrees(gpu, kernel, np.matmul, awkward(m, k), awkward(k, n, seed=1))


@KERNELS
def test_as_cublas_multiplies(gpu, kernel):
    """In float32, but for the order in which it adds up; and for more tiles than a block has threads."""
    a, b = (gpu.asarray(normal(*shape).astype(np.float32)) for shape in [(70, 50), (50, 1000)])
    wanted = products.matmul(a, b).get()
    np.testing.assert_allclose(kernel(a, b).get(), wanted, rtol=0, atol=1e-5 * abs(wanted).max())
