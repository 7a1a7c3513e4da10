"""The launcher: what does not fit a kernel's declaration is one clear line, not a wrong result."""

import re

import numpy as np
import pytest

from minicnn.backends.cuda import launch


def run(*args, kernel="activation.rectify", count=8, real=np.float32, **constants):
    launch.launch(kernel, count, *args, real=real, **constants)


@pytest.fixture
def x(gpu):
    return gpu.asarray(np.arange(8, dtype=np.float32))


def test_as_it_should_be(gpu, x):
    y = gpu.asarray(np.zeros(8, np.float32))
    run(x - 4, y, 8)
    np.testing.assert_array_equal(y.get(), np.maximum(np.arange(8) - 4, 0))


def test_mistakes(gpu, x):
    y = gpu.asarray(np.zeros(8, np.float32))
    wide = gpu.asarray(np.zeros((8, 2), np.float32))[:, 0]
    for args, error, words in [
        ((x, y), TypeError, r"activation.rectify takes 3 arguments, not 2: const real\* __restrict__ x"),
        ((x, y, 8, 9), TypeError, "takes 3 arguments, not 4"),
        ((x, y.astype(np.float64), 8), TypeError, "activation.rectify: y must be float32, not float64"),
        ((x.astype(np.int32), y, 8), TypeError, "x must be float32, not int32"),
        ((np.zeros(8, np.float32), y, 8), TypeError, "x must be an array on a GPU, not ndarray"),
        ((3.0, y, 8), TypeError, "x must be an array on a GPU, not float"),
        ((wide, y, 8), ValueError, r"x, shape \(8,\) and strides \(8,\), is not contiguous"),
        ((x, y, -1), ValueError, "count=-1 is not a valid unsigned"),
        ((x, y, 1 << 32), ValueError, "count=4294967296 is not a valid unsigned"),
        ((x, y, None), ValueError, "count=None is not a valid unsigned"),
    ]:
        with pytest.raises(error, match=words) as caught:
            run(*args)
        assert "\n" not in str(caught.value)
    assert (y.get() == 0).all()


@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.complex64])
def test_other_numbers_than_float32_and_float64(gpu, x, dtype):
    with pytest.raises(TypeError, match=f"float32 and float64 here, not in {np.dtype(dtype)}"):
        run(x, x, 8, real=dtype)


def test_a_struct(gpu, x):
    with pytest.raises(TypeError, match=r"optimizer\.sgd: all is a Parameters, not ndarray"):
        run(x, 8, 0.1, 0.9, 0.0, False, False, kernel="optimizer.sgd", MOST=24)


def test_no_other_types(gpu, x):
    """A dict of none is as good as no dict."""
    y = gpu.asarray(np.zeros(8, np.float32))
    run(x, y, 8, types={})
    np.testing.assert_array_equal(y.get(), np.arange(8))


def test_nothing_to_do(gpu, x):
    """Then nothing is looked at."""
    run(kernel="activation.rectify", count=0)


def test_rows_that_lie_apart(gpu):
    """Only where they are declared `strided`, and only if their numbers lie side by side."""
    a = gpu.asarray(np.zeros((4, 6), np.float32))
    for array, strided, fits in [
        (a, False, True), (a[:, 1:3], False, False), (a[:, 1:3], True, True), (a.T, True, False),
        (a[:, ::2], True, False), (a[:, :1], True, True), (a[0], True, True), (a[0, 0], False, True),
    ]:  # fmt: skip
        if fits:
            launch.check_array("x", array, np.float32, 0, strided)
        else:
            with pytest.raises(ValueError, match="is not contiguous"):
                launch.check_array("x", array, np.float32, 0, strided)


def test_packs(gpu):
    x = gpu.asarray(np.zeros(32, np.float32))
    for length, array, width in [(8, x, 4), (6, x, 1), (8, x[1:9], 1), (8, x[4:12], 4), (0, x, 4)]:
        assert launch.pack(length, x, array) == width
    small = gpu.asarray(np.zeros(32, np.uint8))
    assert launch.pack(8, small[4:12]) == 4 and launch.pack(8, small[2:10]) == 1
    double = gpu.asarray(np.zeros(8, np.float64))
    assert launch.pack(4, double[2:6]) == 4 and launch.pack(4, double[1:5]) == 1


def test_declarations():
    """Every kernel in every file is found, with its parameters."""
    files = sorted(path.stem for path in launch.HERE.glob("*.cu"))
    found = {file: launch.declarations(file) for file in files}
    for file in files:
        kernels = [line for line in launch._source(f"{file}.cu").split("\n") if re.match('(KERNEL|extern "C") ', line)]
        assert len(found[file]) == len(kernels)
    assert found["linear"] == {"add_bias": ["const real* x", "const real* __restrict__ bias", "real* y", "Index count"]}
    types = {"real": "double", "Index": "unsigned"}
    x, _, count, *_ = [launch.Parameter.of("im2col", text, types) for text in found["windows"]["im2col"]]
    assert x == ("const strided real* __restrict__ x", "im2col: x", "double", np.float64, True, True)
    assert count == ("Index count", "im2col: count", "unsigned", np.uint32, False, False)


def test_the_source_of_a_use():
    text = launch.source("linear", (("real", "double"), ("Index", "unsigned")), (("C", 8), ("PACK", 4)))
    head = text.split("\n")[:5]
    assert head == [
        "typedef double real;",
        "typedef unsigned Index;",
        "constexpr int BLOCK = 256;",
        "constexpr int PACK = 4;",
        "constexpr int C = 8;",
    ]
    assert "constexpr int PACK = 1;" in launch.source("linear", (), ())
    for name, begin in {"kernels.h": "// What", "linear.cu": "// The bias"}.items():
        assert f'\n#line 1 "minicnn/backends/cuda/{name}"\n{begin}' in text
