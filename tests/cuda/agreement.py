"""What the tests of the kernels share: inputs to draw, and the question whether a kernel agrees with its lesson."""

import contextlib
import os

import host
import numpy as np
import standin
from hypothesis import strategies as st

from minicnn.cuda import launch
from minicnn.functional.windows import Window

# Under the address sanitizer one type is enough, for each takes g++ a while.
DTYPES = (np.float32,) if host.ADDRESS in os.environ else (np.float64, np.float32)
CHANNELS = st.sampled_from([1, 3, 4, 5, 8, 12])  # in packs of 4, and not


def normal(*shape, seed=0):
    """Numbers that float32 has as well."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64)


def awkward(*shape, seed=0):
    """Whole numbers with many ties, infinities and NaN."""
    few = [np.nan, -np.inf, np.inf, -1.0, 0.0, 0.0, 1.0, 2.0, 2.0, 3.0]
    return np.random.default_rng(seed).choice(few, shape)


@st.composite
def windows(draw, pooling=False):
    """(size, window): a window that fits an image of that size."""
    size, parts = [], []
    for _ in range(2):
        kernel, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        most = kernel // 2 if pooling else 2
        before, after = draw(st.integers(0, most)), draw(st.integers(0, most))
        least = max(1, dilation * (kernel - 1) + 1 - before - after)
        size.append(draw(st.integers(least, least + 5)))
        parts.append((kernel, stride, (before, after), dilation))
    return tuple(size), Window(*zip(*parts, strict=True))


def there(gpu, array, layout="contiguous"):
    """The array on the GPU: by itself; as every second number of a larger one; or beginning beside a multiple of 16
    bytes."""
    if not isinstance(array, np.ndarray):
        return array
    if layout == "gaps" and array.ndim:
        wide = gpu.asarray(np.repeat(array, 2, axis=-1))
        return wide[..., ::2]
    if layout == "shifted":
        flat = gpu.asarray(np.concatenate([array.ravel()[:1], array.ravel()]))
        return flat[min(1, array.size) :].reshape(array.shape)
    return gpu.asarray(array)


LAYOUTS = st.sampled_from(["contiguous", "gaps", "shifted"])


@contextlib.contextmanager
def wide_index():
    """Inside, kernels count as for arrays of more than 2³¹ numbers."""
    run = launch._run

    def wide(kernel, blocks, count, args, real, types, constants):
        run(kernel, blocks, count, args, real, {**(types or {}), "Index": "unsigned long long"}, constants)

    launch._run = wide
    try:
        yield
    finally:
        launch._run = run


def agrees(gpu, kernel, lesson, *args, exactly=False, single=1e-5, layout="contiguous", wide=False):
    """kernel has the results of lesson in float64; in float32, those rounded; and the same bits in whatever order its
    threads run, and if `wide`, however they count. Floating arrays among args are given in either type. NaN equals
    NaN.

    To count in 64 bits takes another build of the kernel, and in that a GPU's compiler may contract other products and
    sums into one operation, which rounds once: on an H200, 2 of 12 numbers of LRN's gradient were 1 ulp off. g++, told
    not to contract, has no such choice, so on the stand-in these are the same bits too."""
    counting = 0 if exactly or gpu is standin.cupy else 1e-14
    with np.errstate(all="ignore"):
        expected = lesson(*args)
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=1) if expected.dtype.kind == "f" else 1
    for dtype in DTYPES:
        cast = [a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in args]

        def run(cast=cast):
            return kernel(*[there(gpu, a, layout) for a in cast]).get()

        result = run()
        if expected.dtype.kind == "f":
            assert result.dtype == dtype
        else:
            assert result.dtype == expected.dtype
        assert result.shape == expected.shape
        tolerance = 0 if exactly else 1e-12 if dtype == np.float64 else single
        wanted = expected.astype(result.dtype)
        np.testing.assert_allclose(result, wanted, rtol=tolerance, atol=tolerance * largest)
        with host.backwards():
            np.testing.assert_array_equal(run(), result)
        if wide and dtype == np.float64:
            with wide_index():
                np.testing.assert_allclose(run(), result, rtol=counting, atol=counting * largest)
