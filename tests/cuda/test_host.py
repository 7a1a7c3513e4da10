"""Kernels on the CPU: they compute what they should, and whatever a GPU would do silently wrong is said aloud."""

import re
import textwrap
from pathlib import Path

import host
import numpy as np
import pytest

HEAD = """typedef float real;
typedef unsigned Index;
constexpr int BLOCK = 256;
constexpr int STEP = %d;
#define KERNEL extern "C" __global__
#define FOR_EACH(i, n) for (Index i = blockIdx.x * BLOCK + threadIdx.x; i < (n); i += gridDim.x * BLOCK)
"""
SOURCE = """
struct Pair { const real* from; int n; };
KERNEL void scale(const real* __restrict__ x, real* y, Index n, real factor) {
    FOR_EACH(i, n) { y[i] = x[i] * factor + STEP; }
}
KERNEL void sums(const real* x, real* y, Index rows, int columns) {  // of rows, by blocks
    FOR_EACH_BLOCK(b, rows) {
        __shared__ real part[BLOCK];
        TOGETHER(t) {
            part[t] = 0;
            for (int j = t; j < columns; j += BLOCK) part[t] += x[b * columns + j];
        }
        for (int half = BLOCK / 2; half; half /= 2) TOGETHER(t) if (t < half) part[t] += part[t + half];
        TOGETHER(t) if (!t) y[b] = part[0];
    }
}
KERNEL void total(Pair pair, real* y) {
    FOR_EACH(i, 1) {
        y[i] = 0;
        for (int j = 0; j < pair.n; ++j) y[i] += pair.from[j];
    }
}
extern "C" __global__ void who(int* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 10000 * gridDim.x + 1000 * blockIdx.x + threadIdx.x;
}
KERNEL void chain(real* y, Index n) { FOR_EACH(i, n) { y[i] = i ? y[i - 1] + 1 : 0; } }  // relies on an order
KERNEL void unset(real* y, Index n) {  // part begins as whatever it was
    FOR_EACH_BLOCK(b, n) {
        __shared__ real part[BLOCK];
        TOGETHER(t) if (n > 1) part[t] = 1;
        TOGETHER(t) y[b] = part[t];
    }
}
KERNEL void flags(const bool* x, real* y) { FOR_EACH(i, 1) { y[i] = x[i] ? 1 : 2; } }
KERNEL void plus(int* y, int k) { FOR_EACH(i, 1) { y[i] += k; } }
KERNEL void minus(int* y, int k) { FOR_EACH(i, 1) { y[i] -= k; } }
KERNEL void times(int* y, int k) { FOR_EACH(i, 1) { y[i] *= k; } }
KERNEL void negative(int* y, int k) { FOR_EACH(i, 1) { y[i] = -k; } }
KERNEL void divided(int* y, int k) { FOR_EACH(i, 1) { y[i] /= k; } }
KERNEL void shifted(int* y, int k) { FOR_EACH(i, 1) { y[i] <<= k; } }
KERNEL void local(int* y, int k) { FOR_EACH(i, 1) { int four[4] = {}; y[i] = four[k]; } }
KERNEL void rounded(int* y, float k) { FOR_EACH(i, 1) { y[i] = int(k); } }
KERNEL void nowhere(int* y, int k) { FOR_EACH(i, 1) { int* z = k ? nullptr : y; *z = 1; } }
KERNEL void crooked(int* y, int k) { FOR_EACH(i, 1) { *(int*)((char*)y + k) = 1; } }
KERNEL void beyond(real* y, int k) { FOR_EACH(i, 1) { y[k] = 1; } }
KERNEL void before(const real* x, real* y, int k) { FOR_EACH(i, 1) { y[i] = x[k]; } }
KERNEL void math(real* y) {
    FOR_EACH(i, 1) {
        y[0] = max(real(NAN), real(2)), y[1] = min(3, 2u), y[2] = rsqrt(real(16)), y[3] = __umulhi(1u << 31, 6u);
        y[4] = real(__umul64hi(1ull << 63, 10ull)), y[5] = __powf(2, 3), y[6] = exp(real(0));
    }
}
"""


def kernel(name, step=1):
    return host.RawModule(code=HEAD % step + SOURCE).get_function(name)


def run(name, *args, step=1, grid=(1,), block=(256,)):
    kernel(name, step)(grid, block, args)


@pytest.fixture
def y(standin):
    return there([1, 2, 3])


def there(numbers, dtype=np.float32):
    import cupy

    return cupy.asarray(np.array(numbers, dtype))


# ------------------------------------------------------------------------------------------------------------ computing
@pytest.mark.parametrize("step", [1, 7, -2])
def test_constants_are_those_of_the_launch(y, step):
    run("scale", there([4, 5, 6]), y, np.uint32(2), np.float32(2), step=step)
    np.testing.assert_array_equal(y.get(), [8 + step, 10 + step, 3])


def test_one_compilation_serves_all_constants(standin, monkeypatch):
    kernel("scale", 1)
    compiled = []
    monkeypatch.setattr(host, "_gxx", lambda *arguments: compiled.append(arguments))
    kernel("scale", 123)
    assert not compiled


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_a_kernel_runs_once_for_each_thread_of_the_grid(standin, blocks):
    y = there([-1] * 600, np.int32)
    run("who", y, np.int32(600), grid=(blocks,))
    block, thread = np.divmod(np.arange(600), 256)
    np.testing.assert_array_equal(y.get(), np.where(block < blocks, 10000 * blocks + 1000 * block + thread, -1))


def test_blocks_work_together(standin):
    x, y = np.random.default_rng(0).standard_normal((3, 300)).astype(np.float32), there([0, 0, 0])
    run("sums", there(x), y, np.uint32(3), np.int32(300))
    np.testing.assert_allclose(y.get(), x.sum(axis=1), rtol=1e-5)


def test_a_struct_goes_by_value(y):
    pair = np.zeros(1, [("from", np.uint64), ("n", np.int32), ("", np.int32)])[0]
    pair["from"], pair["n"] = y.data.ptr, 3
    total = there([0])
    run("total", pair, total)
    assert total.item() == 6


def test_functions_of_cuda(standin):
    y = there([0] * 7)
    run("math", y)
    np.testing.assert_array_equal(y.get(), [2, 2, 0.25, 3, 5, 8, 1])


def test_an_order_that_matters_shows_backwards(y):
    run("chain", y, np.uint32(3))
    forwards = y.get()
    with host.backwards():
        y.fill(9)
        run("chain", y, np.uint32(3))
        assert not np.array_equal(forwards, y.get())
    run("chain", y, np.uint32(3))
    np.testing.assert_array_equal(forwards, y.get())


def test_shared_memory_is_not_zero_by_chance(y):
    run("unset", y, np.uint32(2))
    np.testing.assert_array_equal(y.get(), [1, 1, 3])
    run("unset", y, np.uint32(1))
    if int(host._gxx(["-dumpversion"]).partition(".")[0]) >= 12:
        assert y[0].get().tobytes() == b"\xfe" * 4


# ------------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    "name, start, number",
    [
        ("plus", 2**31 - 2, np.int32(2)),
        ("minus", -(2**31), np.int32(1)),
        ("times", 1 << 20, np.int32(1 << 12)),
        ("negative", 0, np.int32(-(2**31))),
        ("divided", 1, np.int32(0)),
        ("shifted", 1, np.int32(32)),
        ("local", 0, np.int32(4)),
        ("rounded", 0, np.float32(1e10)),
        ("nowhere", 0, np.int32(1)),
        ("crooked", 0, np.int32(1)),
    ],
)
def test_what_is_undefined_is_an_error(name, start, number, standin):
    y = there([start], np.int32)
    with pytest.raises(host.KernelError, match=rf"^{name}: kernel source:\d+:\d+: "):
        run(name, y, number)
    run(name, there([1], np.int32), np.int32(1) if name not in ("nowhere", "crooked", "rounded") else type(number)(0))


def test_a_bool_of_85_is_an_error(y):
    import cupy

    with pytest.raises(host.KernelError, match="a bool of 85"):
        run("flags", cupy.empty(1, bool), y)
    run("flags", there([True], bool), y)


@pytest.mark.parametrize(
    "position, wrong, says",
    [
        (0, np.zeros(3, np.float32), "argument 0 is a pointer: it takes an array on the device, not ndarray"),
        (0, 94000000000, "argument 0 is a pointer: .* not int"),
        (0, None, "argument 0 is a pointer: .* not NoneType"),
        (1, "doubles", "argument 1 points to f4, not to float64"),
        (1, "integers", "argument 1 points to f4, not to int32"),
        (2, 3, "argument 2 takes u4, not int64 of 8 bytes"),
        (2, np.int32(3), "argument 2 takes u4, not int32"),
        (2, np.array(3, np.uint32), "argument 2 is a number or a struct: .* not ndarray"),
        (3, 2.0, "argument 3 takes f4, not float64"),
        (3, np.int32(2), "argument 3 takes f4, not int32"),
        (3, "doubles", "argument 3 is a number or a struct: .* not ndarray"),
    ],
)
def test_arguments_are_what_is_declared(position, wrong, says, y):
    arrays = {"doubles": there([1, 2, 3], np.float64), "integers": there([1, 2, 3], np.int32)}
    args = [y, there([0, 0, 0]), np.uint32(3), np.float32(2)]
    run("scale", *args)
    args[position] = arrays[wrong] if isinstance(wrong, str) else wrong
    with pytest.raises(host.KernelError, match=f"^scale: {says}"):
        run("scale", *args)


def test_a_struct_of_another_size_is_refused(y):
    with pytest.raises(host.KernelError, match=r"argument 0 takes V16, not .* of 8 bytes"):
        run("total", np.zeros(1, [("from", np.uint64)])[0], y)


def test_the_number_of_arguments_and_the_grid_are_checked(y):
    args = (y, y, np.uint32(3), np.float32(2))
    run("scale", *args, grid=(65536,))
    for wrong in (args[:3], (*args, np.int32(1))):
        with pytest.raises(host.KernelError, match=f"scale takes 4 arguments, not {len(wrong)}"):
            run("scale", *wrong)
    for grid, block in [((0,), (256,)), ((1.0,), (256,)), (1, (256,)), ((1, 2), (256,)), ((1,), (128,)), ((1,), 256)]:
        with pytest.raises(host.KernelError, match="grid"):
            run("scale", *args, grid=grid, block=block)


def test_errors_of_the_source(standin):
    with pytest.raises(host.CompileException, match=r"kernel source:7.* error"):
        host.RawModule(code=HEAD % 1 + "KERNEL void f() { nonsense; }").get_function("f")
    with pytest.raises(host.CompileException, match="unused"):  # warnings count
        host.RawModule(code=HEAD % 1 + "KERNEL void f() { int unused; }").get_function("f")
    with pytest.raises(host.CompileException, match="undefined"):
        host.RawModule(code=HEAD % 1 + "void g(); KERNEL void f() { g(); }").get_function("f")
    with pytest.raises(host.KernelError, match=r"CUDA_ERROR_NOT_FOUND.*: missing"):
        kernel("missing")
    with pytest.raises(TypeError, match="tuple of str"):
        host.RawModule(code="", options="-std=c++17")


def test_the_cache_is_nobody_elses(monkeypatch, tmp_path):
    monkeypatch.setattr(host.tempfile, "gettempdir", lambda: str(tmp_path))
    assert host._cache().stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(host.os, "getuid", lambda: 12345, raising=False)
    folder = tmp_path / "minicnn-kernels-12345"
    folder.mkdir()
    if folder.stat().st_uid != 12345:
        with pytest.raises(PermissionError, match="belongs to somebody else"):
            host._cache()


# ---------------------------------------------------------------------------------------------------- address sanitizer
@pytest.mark.parametrize("name, k, outside", [("beyond", 2, False), ("beyond", 3, True), ("before", -1, True)])
def test_memory_beyond_an_array_is_guarded(name, k, outside):
    if host.missing():
        pytest.skip(host.missing())
    script = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import numpy as np, standin, test_host
        with standin.installed():
            y = test_host.there([1, 2, 3])
            test_host.run({name!r}, *[y] * {1 if name == "beyond" else 2}, np.int32({k}))
            print("done")
    """
    ended = host.under_address_sanitizer("-c", textwrap.dedent(script))
    assert (ended.returncode != 0) == outside and ended.stdout == ("" if outside else "done\n"), ended.stderr
    assert bool(re.search(rf"heap-buffer-overflow(?s:.)* in {name}", ended.stderr)) == outside, ended.stderr


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(host.shutil, "which", lambda name: None)
    assert "g++" in host.missing()
