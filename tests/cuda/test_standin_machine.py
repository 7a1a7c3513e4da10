"""The machine of the stand-in for CuPy: its memory, devices, streams and libraries, and the log of their use."""

import sys
import threading

import host
import numpy as np
import pytest
import standin as stand_in

H = np.arange(12, dtype=np.float32).reshape(3, 4)  # on the host


# ---------------------------------------------------------------------------------------------------- memory and counts
def test_fresh_memory_is_poisoned(standin):
    import cupy
    import cupyx

    for fresh in (
        cupy.empty((2, 3), np.float32),
        cupy.empty_like(cupy.zeros(3)),
        np.empty_like(cupy.zeros(3), shape=5),
    ):
        assert np.isnan(fresh.get()).all()
    assert (cupy.empty(3, np.uint8).get() == 85).all() and (cupyx.empty_pinned(3, np.uint8) == 85).all()


LOGGED = [  # (an expression of x, an array of 48 bytes on the GPU, and what is asked of the machine)
    ("cupy.asarray(H)", [("to the GPU", "pageable", 48)]),
    ("x * 2 + x", [("cupy", "multiply", 96), ("cupy", "add", 144)]),
    ("x.__setitem__(0, 1)", [("cupy", "setitem", 48)]),
    ("x.sum(axis=0)", [("cupy", "sum", 64)]),
    ("x.T.copy()", [("cupy", "copy", 96)]),
    ("x.T.reshape(-1)", [("cupy", "reshape", 96)]),
    ("x @ x.T", [("cupy", "matmul", 132)]),
    ("x[cupy.asarray([0])]", [("to the GPU", "pageable", 8), ("cupy", "take", 72)]),
    ("cupy.zeros(3)", [("cupy", "zeros", 24)]),
    ("cupy.empty(3)", []),
    ("x[0].nonzero()", [("cupy", "nonzero", 40), ("wait", "nonzero", 0)]),
    ("x.get()", [("to the host", "pageable", 48), ("wait", "get", 0)]),
    ("x.T.get()", [("cupy", "get", 48), ("to the host", "pageable", 48), ("wait", "get", 0)]),
    ("x[0, 0].item()", [("to the host", "pageable", 4), ("wait", "get", 0)]),
    ("x[x > 3]", [("cupy", "greater", 60), ("wait", "getitem by a mask", 0), ("cupy", "take", 92)]),
    ("x.set(H)", [("to the GPU", "pageable", 48), ("wait", "set", 0)]),
    ("cupy.cuda.Device().synchronize()", [("wait", "Device.synchronize", 0)]),
]


@pytest.mark.parametrize("code, asked", LOGGED, ids=[code for code, _ in LOGGED])
def test_everything_asked_for_is_logged(code, asked, standin):
    import cupy

    x = cupy.asarray(H)
    standin.log.clear()
    result = eval(code, {"cupy": cupy, "x": x, "H": H})  # noqa: F841  held until it is logged
    assert [entry[:3] for entry in standin.log] == asked
    assert standin.log.transfers == [entry for entry in standin.log if " " in entry.kind]
    assert standin.log.waits == [entry for entry in standin.log if entry.kind == "wait"]


LOOKS = """float(s)  int(s)  bool(s)  complex(s)  s.item()  s.tolist()  repr(s)  str(s)  f'{s:.1f}'  s.tobytes()
    s.get()""".split()


@pytest.mark.parametrize("code", LOOKS)
def test_a_look_at_a_number_waits(code, standin):
    import cupy

    s = cupy.asarray(H).sum()
    standin.log.clear()
    eval(code, {"s": s})
    assert [entry.kind for entry in standin.log] == ["to the host", "wait"]


def test_the_pool_counts_bytes(standin):
    import cupy

    pool = cupy.get_default_memory_pool()
    x = cupy.empty(1000, np.uint8)
    y, view = x + 1, x[3:]
    assert pool.used_bytes() == pool.total_bytes() == 2048 and standin.gpus[0].most == 2048
    del x
    assert pool.used_bytes() == 2048  # for a view holds the memory
    del view
    assert (pool.used_bytes(), pool.total_bytes()) == (1024, 2048)
    assert cupy.cuda.runtime.memGetInfo() == ((80 << 30) - 2048, 80 << 30)
    with cupy.cuda.Device(1):
        assert pool.used_bytes() == 0
    del y
    assert pool.used_bytes() == 0


def test_memory_ends(standin):
    import cupy

    pool = cupy.get_default_memory_pool()
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError, match=r"Out of memory allocating 1,099,511,628,776 bytes"):
        cupy.empty((1 << 40) + 1000, np.uint8)
    standin.reset(memory=1 << 20)
    x = cupy.zeros(1 << 19, np.uint8)
    x + x[:1]
    with pytest.raises(MemoryError):
        np.concatenate([x, x, x])
    assert pool.used_bytes() == 1 << 19


# ----------------------------------------------------------------------------------------------------- devices, streams
def test_arrays_are_used_where_they_are(standin):
    import cupy

    x = cupy.asarray(H)
    with cupy.cuda.Device(1) as device:
        assert device == cupy.cuda.Device() and int(device) == cupy.cuda.runtime.getDevice() == 1
        y = cupy.asarray(H)
        assert y.device == device and x.device.id == 0 and x.data.device_id == 0
        for use in (
            lambda: x + 1, lambda: x + y, lambda: y.__setitem__(0, x[0]), lambda: x.sum(),
            lambda: np.concatenate([x, y]), lambda: x.fill(0), lambda: x.T.reshape(-1), lambda: x[y > 1],
        ):  # fmt: skip
            with pytest.raises(ValueError, match=r"array device = 0 while current = 1"):
                use()
        assert x[1:].T.shape == (4, 2)  # views can be made anywhere
        standin.log.clear()
        there = cupy.asarray(x)
        assert there.device == device and standin.log[0].kind == "between GPUs"
        np.testing.assert_array_equal(x.get(), H)
        assert standin.log[1].device == 0
        x.set(H)
    with pytest.raises(ValueError, match=r"array device = 1 while current = 0"):
        y * 2
    with pytest.raises(RuntimeError, match="cudaErrorInvalidDevice"), cupy.cuda.Device(2):
        pass
    assert cupy.cuda.runtime.getDeviceCount() == 2 and cupy.cuda.Device().id == 0


def test_each_thread_has_its_current_device(standin):
    import cupy

    seen = []
    with cupy.cuda.Device(1):
        thread = threading.Thread(target=lambda: seen.append(cupy.cuda.Device().id))
        thread.start()
        thread.join()
        assert seen == [0] and cupy.cuda.Device().id == 1


def upload(cupy, waits):
    """A copy by a stream of its own, of pinned memory, and what is computed from it; leaving out some of the waits."""
    import cupyx

    stream, x = cupy.cuda.Stream(non_blocking=True), cupy.zeros(4, np.float32)
    pinned = cupyx.empty_pinned(4, np.float32)
    pinned[...] = 3
    before = cupy.cuda.get_current_stream().record()
    if "before" in waits:
        stream.wait_event(before)
    x.set(pinned, stream=stream)
    copied = stream.record()
    if "overwritten" in waits:
        pinned[...] = 4  # before the copy is done
    if "freed" in waits:
        del pinned
    if "after" in waits:
        cupy.cuda.get_current_stream().wait_event(copied)
    if "host" in waits:
        copied.synchronize()
    if "stream" in waits:
        stream.synchronize()
    if "device" in waits:
        cupy.cuda.Device().synchronize()
    return (x + 1).get()


@pytest.mark.parametrize("wait", ["after", "host", "stream", "device"])
def test_a_copy_that_is_waited_for_has_happened(wait, gpu):
    np.testing.assert_array_equal(upload(gpu, ["before", wait]), 4)


def test_a_copy_that_nobody_waits_for_is_late(standin):
    import cupy

    assert np.isnan(upload(cupy, ["before"])).all()
    for early in ("overwritten", "freed"):
        with pytest.raises(stand_in.RaceError, match=r"was (written to|let go of) before a copy"):
            upload(cupy, ["before", early, "after"])
    with pytest.raises(stand_in.RaceError, match="wait_event"):
        upload(cupy, ["after"])
    assert [entry.kind for entry in standin.log if entry.name == "pinned"] == ["to the GPU"] * 3


def test_a_late_copy_to_the_host(standin):
    import cupy
    import cupyx

    stream, x, out = cupy.cuda.Stream(non_blocking=True), cupy.asarray(H), cupyx.empty_pinned((3, 4), np.float32)
    y = x + 1
    with pytest.raises(stand_in.RaceError):
        y.get(stream=stream, out=out, blocking=False)
    stream.wait_event(cupy.cuda.Stream.null.record())
    assert y.get(stream=stream, out=out, blocking=False) is out and np.isnan(out).all() and not stream.done
    stream.synchronize()
    np.testing.assert_array_equal(out, H + 1)
    assert stream.done
    y.get(stream=stream)  # nothing has touched y since
    for which in ("y", "out"):
        held = {"y": x + 1, "out": cupyx.empty_pinned((3, 4), np.float32)}
        stream.wait_event(cupy.cuda.Stream.null.record())
        held["y"].get(stream=stream, out=held["out"], blocking=False)
        del held[which]
        with pytest.raises(stand_in.RaceError, match="let go of"):
            stream.synchronize()


def test_events_wait_for_what_was_before_them(standin):
    import cupy
    import cupyx

    one, two = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    x, y, h = cupy.empty(3, np.float32), cupy.empty(3, np.float32), cupyx.empty_pinned(3, np.float32)
    h[:] = 0
    x.set(h, stream=one)
    first = one.record()
    y.set(h, stream=one)
    assert not first.done
    first.synchronize()
    assert first.done and not one.done
    assert (x._array == 0).all() and np.isnan(y._array).all()
    two.wait_event(one.record())
    two.synchronize()
    assert one.done and (y._array == 0).all()


def test_a_stream_belongs_to_its_device(standin):
    import cupy

    with cupy.cuda.Device(1):
        stream = cupy.cuda.Stream(non_blocking=True)
    with pytest.raises(RuntimeError, match="invalid resource handle"):
        cupy.asarray(H).set(H, stream=stream)
    with pytest.raises(RuntimeError, match="invalid resource handle"):
        stream.record()
    with pytest.raises(NotImplementedError, match="default stream only"), stream:
        cupy.zeros(3)


# ------------------------------------------------------------------------------------------------------------ libraries
def product(cupy, a, b, c, alpha=1.0, beta=0.0, compute="32F", columns=None, **changes):
    """c = alpha a b + beta c for row-major matrices, whose transposes cuBLAS sees."""
    cublas = cupy.cuda.cublas
    (m, k), n = a.shape, b.shape[1]
    kind = int(compute == "64F")  # CUDA_R_64F or CUDA_R_32F
    number = np.float64 if compute == "64F" else np.float32
    scale, keep = np.array(alpha, number), np.array(beta, number)
    args = {
        "handle": cupy.cuda.device.get_cublas_handle(), "transa": 0, "transb": 0,
        "m": n, "n": m, "k": k, "alpha": scale.ctypes.data,
        "A": b.data.ptr, "Atype": kind, "lda": b.strides[0] // b.itemsize,
        "B": a.data.ptr, "Btype": kind, "ldb": a.strides[0] // a.itemsize, "beta": keep.ctypes.data, "C": c.data.ptr,
        "Ctype": kind, "ldc": c.strides[0] // c.itemsize, "computeType": getattr(cublas, f"CUBLAS_COMPUTE_{compute}"),
        "algo": cublas.CUBLAS_GEMM_DEFAULT, **changes,
    }  # fmt: skip
    cublas.gemmEx(*args.values())


@pytest.mark.parametrize("compute", ["32F", "64F", "32F_FAST_TF32"])
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_products_from_pointers(compute, beta, gpu):
    dtype = np.float64 if compute == "64F" else np.float32
    rng = np.random.default_rng(1)
    a, b, c = (rng.standard_normal(shape).astype(dtype) for shape in ((5, 9), (7, 4), (5, 9)))
    expected = c.copy()
    expected[:, 2:6] = 2 * (a[:, 1:8] @ b) + beta * c[:, 2:6]
    tolerance = 1e-2 if "TF32" in compute else 1e-5
    x, y, t = gpu.asarray(a), gpu.asarray(b), gpu.asarray(b.T.copy())
    for changes in ({}, {"transa": 1, "A": t.data.ptr, "lda": 7}):  # cuBLAS's A is our b
        z = gpu.asarray(c)
        product(gpu, x[:, 1:8], y, z[:, 2:6], 2.0, beta, compute, **changes)  # rows that lie 9 numbers apart
        np.testing.assert_allclose(z.get(), expected, rtol=tolerance, atol=tolerance)


def test_tf32_rounds_the_factors(standin):
    import cupy

    x = np.float32(1 + 2**-10 + 2**-12)
    a, c = cupy.asarray([[x]]), cupy.empty((1, 1), np.float32)
    product(cupy, a, a, c, compute="32F_FAST_TF32")
    assert c.item() == np.float32(1 + 2**-10) ** 2
    product(cupy, a, a, c)
    assert c.item() == x * x
    np.testing.assert_array_equal(stand_in.libraries.tf32(np.array([np.inf, np.nan, -3], "f4")), [np.inf, np.nan, -3])


def test_products_that_cublas_refuses(standin):
    import cupy

    a, c = cupy.asarray(H[:, :3].copy()), cupy.empty((3, 3), np.float32)
    error = cupy.cuda.cublas.CUBLASError
    for changes in ({"lda": 2}, {"ldb": 2}, {"ldc": 1}, {"m": -1}, {"transa": 7}):
        with pytest.raises(error, match="INVALID_VALUE"):
            product(cupy, a, a, c, **changes)
    for changes in ({"Atype": 1}, {"Ctype": 2}, {"computeType": 64}):
        with pytest.raises(error, match="NOT_SUPPORTED"):
            product(cupy, a, a, c, **changes)
    with pytest.raises(error, match="NOT_INITIALIZED"):
        product(cupy, a, a, c, handle=2)
    for changes in (
        {"k": 4, "lda": 4, "ldb": 4},
        {"ldc": 4},
        {"A": a.data.ptr + 4},
        {"C": c.data.ptr - 4},
        {"B": 1234},
        {"B": 0},
    ):
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="illegal memory access"):
            product(cupy, a, a, c, **changes)
    with cupy.cuda.Device(1), pytest.raises(ValueError, match="array device = 0"):
        product(cupy, a, a, c)
    c.fill(7)
    product(cupy, a[:, :0], a[:0], c, A=0, B=0)  # a sum of nothing
    assert (c.get() == 0).all()


CODE = """typedef float real;
typedef unsigned Index;
constexpr int K = 1;
#define KERNEL extern "C" __global__
struct Two { unsigned long long x, y; };
KERNEL void twice(const real* x, real* y, Index n) { if (Index i = blockIdx.x * blockDim.x + threadIdx.x; i < n) { y[i] = K * x[i]; } }
KERNEL void both(Two two, Index n) { if (Index i = blockIdx.x * blockDim.x + threadIdx.x; i < n) { ((real*)two.y)[i] = 2 * ((const real*)two.x)[i]; } }
"""


def code(k):
    return CODE.replace("K = 1", f"K = {k}")


def test_kernels_are_launched_and_logged(standin):
    import cupy

    x, y = cupy.asarray(H), cupy.empty((3, 4), np.float32)

    def kernel_of(source, name):
        return cupy.RawModule(code=source, options=("-std=c++17",)).get_function(name)

    kernel = kernel_of(code(2), "twice")
    standin.log.clear()
    kernel((1,), (256,), (x, y, np.uint32(12)))
    assert standin.log == [("kernel", "twice", 96, 0)]
    np.testing.assert_array_equal(y.get(), 2 * H)
    kernel_of(code(5), "twice")((1,), (256,), (x, y, np.uint32(12)))
    np.testing.assert_array_equal(y.get(), 5 * H)
    two = np.zeros(1, [("x", np.uint64), ("y", np.uint64)])[0]
    two["x"], two["y"] = x.data.ptr, y.data.ptr
    kernel_of(code(5), "both")((1,), (256,), (two, np.uint32(12)))
    np.testing.assert_array_equal(y.get(), 2 * H)
    two["y"] = 4096
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="illegal memory access"):
        kernel_of(code(5), "both")((1,), (256,), (two, np.uint32(12)))
    with cupy.cuda.Device(1), pytest.raises(ValueError, match="array device = 0 while current = 1"):
        kernel((1,), (256,), (x, y, np.uint32(12)))
    with pytest.raises(host.KernelError, match="takes an array on the device"):
        kernel((1,), (256,), (H, y, np.uint32(12)))


# ------------------------------------------------------------------------------------------------------------- absences
def test_the_stand_in_leaves_nothing_behind(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy.of_old", sys)
    before = {name for name in sys.modules if name.partition(".")[0] in ("cupy", "cupyx")}
    for absence in stand_in.absences.ABSENCES:
        path, finders = list(sys.path), list(sys.meta_path)
        with stand_in.simulated(absence):
            pass
        assert {name for name in sys.modules if name.partition(".")[0] in ("cupy", "cupyx")} == before
        assert sys.path == path and sys.meta_path == finders


@pytest.mark.parametrize(
    "absence, status", [("no driver", 35), ("driver too old", 35), ("no GPU", 100), ("driver mismatch", 803)]
)
def test_every_use_of_a_gpu_that_is_not_there_fails(absence, status, standin):
    import cupy

    array = cupy.asarray(H)
    runtime = cupy.cuda.runtime
    with stand_in.absences.ABSENCES[absence](standin):
        for use in (
            runtime.getDeviceCount, runtime.memGetInfo, lambda: runtime.getDeviceProperties(0),
            lambda: cupy.empty(3), lambda: cupy.asarray(H), lambda: array + 1, array.get,
            cupy.cuda.Stream, cupy.cuda.Event, lambda: sys.modules["cupyx"].empty_pinned(3),
            cupy.cuda.Device().synchronize, lambda: cupy.cuda.Device(0).compute_capability,
            cupy.cuda.device.get_cublas_handle, lambda: cupy.RawModule(code=code(1)).get_function("twice"),
        ):  # fmt: skip
            with pytest.raises(runtime.CUDARuntimeError) as caught:
                use()
            assert caught.value.status == status
        assert (runtime.driverGetVersion() == 0) == (absence == "no driver") and runtime.runtimeGetVersion() == 13020
