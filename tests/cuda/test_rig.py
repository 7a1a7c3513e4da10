"""The real CuPy on the rig (tests/cuda/rig): that the rig is what it says, and that the programs, the
GPU's tests and the benchmark run on it without an exception or a warning. What they compute is checked
elsewhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RIG, ALEXNET = ROOT / "tests" / "cuda" / "rig", ROOT / "examples" / "alexnet"
UNUSABLE = 3  # the status with which the rig says that it cannot be built here


def on_rig(*arguments, timeout=60, **environment):
    """What a program prints on the rig, where every warning is an error. It has to end well."""
    done = subprocess.run(
        [sys.executable, "-W", "error", RIG, *map(str, arguments)], cwd=ROOT, text=True, timeout=timeout,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    if done.returncode == UNUSABLE and done.stdout.startswith("rig: "):
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


# ---------------------------------------------------------------------------------------------------- what the rig shows
def test_what_is_asked_of_the_gpu_is_counted():
    code = """
import json, cupy, rig
import numpy as np

def spent(call):
    before = rig.counts()
    call()
    return {name: count - before[name] for name, count in rig.counts().items() if count != before[name]}

x = cupy.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))
stream, event, other = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Event(), np.zeros((2, 3), np.float32)
x + 1  # compiled
calls = {
    "ufunc": lambda: x + 1, "two": lambda: (x * 2).astype(np.float64), "get": x.get,
    "set": lambda: x.set(other, stream=stream), "wait": stream.synchronize,
    "no wait": lambda: stream.wait_event(stream.record()), "event": lambda: (event.record(), event.synchronize()),
    "product": lambda: x.dot(x.T), "pinned": lambda: cupy.cuda.alloc_pinned_memory(8), "recycled": lambda: x.copy(),
}
for call in calls.values():
    call()
print(json.dumps({name: spent(call) for name, call in calls.items()}))
"""
    assert json.loads(on_rig("-c", code)) == {
        "ufunc": {"launches": 1}, "two": {"launches": 2}, "get": {"copies": 1, "waits": 1}, "set": {"copies": 1},
        "wait": {"waits": 1}, "no wait": {}, "event": {"waits": 1}, "product": {"products": 1}, "pinned": {},
        "recycled": {"launches": 1},
    }  # fmt: skip


def test_memory_comes_from_cupys_own_pools():
    code = """
import cupy, numpy as np, rig
x = cupy.asarray(np.arange(5))
assert x.get().tolist() == [0, 1, 2, 3, 4] and cupy.zeros(3).get().tolist() == [0, 0, 0]
before, address = rig.counts()["blocks"], cupy.empty(1 << 20).data.ptr
assert cupy.empty(1 << 20).data.ptr == address and rig.counts()["blocks"] == before + 1
free, total = cupy.cuda.runtime.memGetInfo()
try:
    cupy.empty(total, np.uint8)
except cupy.cuda.memory.OutOfMemoryError as error:
    print(error)
"""
    assert on_rig("-c", code).startswith("Out of memory allocating 85,899,345,920 bytes")


def test_what_cupy_and_cuda_refuse():
    code = """
import cupy, numpy as np
x, kernel = cupy.zeros(3), 'extern "C" __global__ void f(float* x) {}'
for call in (
    lambda: x + np.ones(3), lambda: x + None, lambda: cupy.cuda.Device(2).use(),
    lambda: cupy.RawModule(code="no kernel").get_function("f"),
    lambda: cupy.RawModule(code=kernel).get_function("g"),
    lambda: cupy.RawModule(code=kernel).get_function("f")((1,), (2048,), (x,)),
):
    try:
        call()
    except Exception as error:
        print(f"{type(error).__name__}: {error}".replace("\\n", " ")[:100])
"""
    lines = on_rig("-c", code).splitlines()
    for line, begin in zip(
        lines,
        [
            "TypeError: Unsupported type <class 'numpy.ndarray'>",
            "TypeError: operand type(s) all returned NotImplemented from __array_ufunc__",
            "CUDARuntimeError: cudaErrorInvalidDevice",
            "CompileException: ",
            "RuntimeError: CUDA_ERROR_NOT_FOUND: no kernel g",
            "CUDARuntimeError: cudaErrorInvalidConfiguration",
        ],
        strict=True,
    ):
        assert line.startswith(begin), lines


def test_cupy_refuses_what_the_stand_in_refuses():
    """With the same words."""
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "tests/cuda/test_standin.py"]
    assert " passed" in on_rig(*tests, "-k", "test_refusals")


def test_cupy_has_what_every_op_asks_of_it():
    """And takes the arguments: NumPy's are more, and so are the stand-in's, which are NumPy's. The slow test below asks
    the same with all the tests of the GPU."""
    tests = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "rig_values",
        "-p",
        "no:cacheprovider",
        "-m",
        "gpu",
        "tests/cuda/test_every_op.py",
    ]
    assert " passed" in on_rig("--zeros", *tests)


def test_what_nccl_is_asked_for():
    """CuPy's module has these functions, takes the arguments in this order, and the numbers of dtypes are NCCL's. The
    streams' and events' methods are there, too."""
    code = """
import ctypes, importlib, rig
import numpy as np
from minicnn.backends import devices
from minicnn.backends.cuda import nccl

def key(made):
    return made or importlib.import_module("cupy.cuda.nccl").get_unique_id()

link, counts = devices.link("gpu:1", 2, 3, key), [2, 3, 1]
with devices.on_device("gpu:1"):
    x = devices.to_device(np.arange(6, dtype=np.float32), "gpu:1")
    link.all_reduce([x, x[:1]])
    assert link.reduce_scatter(x, counts).data.ptr == x[5:].data.ptr
    link.all_gather(x[:1].copy(), x, counts)
    for dtype in nccl.DTYPES:
        link.broadcast(x.astype(dtype))
    assert link.wait()() is True
    try:
        link.communicator.allReduce(1, 1, 1, 10, 0, 0)
    except link.nccl.NcclError as error:
        print(error)
print(ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(rig.loaded["nccl"], "nccl_calls"))).decode(), end="")
"""
    calls = [("allReduce", 6, 7, 0), ("allReduce", 1, 7, 0), ("reduce", 2, 7, 0), ("reduce", 3, 7, 1)]
    calls += [("reduce", 1, 7, 2), ("broadcast", 2, 7, 0), ("broadcast", 3, 7, 1), ("broadcast", 1, 7, 2)]
    calls += [("broadcast", 6, number, 0) for number in range(9)]  # int8 to float64, as nccl.h counts them
    assert on_rig("-c", code).splitlines() == [
        "NCCL_ERROR_INVALID_ARGUMENT: invalid argument",
        *[f"{name} count {n} type {number} root {root} of 3 stream group" for name, n, number, root in calls],
    ]


def test_a_kernel_of_minicnn_is_compiled_and_launched():
    code = """
import minicnn, rig
from minicnn import functional as F
x = minicnn.Tensor([[-1.0, 2.0]], requires_grad=True, device="gpu:1")
before = rig.counts()
F.relu(x)
spent = {name: count - before[name] for name, count in rig.counts().items()}
assert spent["launches"] == spent["modules"] == 1 and spent["copies"] == spent["waits"] == 0, spent
F.relu(x).sum().backward()
print(x.grad.device, x.grad.shape)
"""
    assert on_rig("-c", code) == "gpu:1 (1, 2)\n"


def test_numbers_that_are_written_down_are_cublas_own():
    """In minicnn, and in the stand-in."""
    code = """
import numpy as np
from cupy.cuda import cublas, runtime
from minicnn.backends.cuda import products
from standin import libraries
assert (products.NORMAL, products.TRANSPOSED) == (cublas.CUBLAS_OP_N, cublas.CUBLAS_OP_T)
assert products.TYPES == {np.dtype("f4"): runtime.CUDA_R_32F, np.dtype("f8"): runtime.CUDA_R_64F}
assert libraries.CONSTANTS == {name: getattr(cublas, name) for name in libraries.CONSTANTS}
"""
    folders = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(RIG.parent)])
    on_rig("-c", code, PYTHONPATH=folders)


def test_a_training_step_waits_for_nothing():
    """Nor does it copy or allocate, once it has been done twice."""
    code = """
import numpy as np, programs, rig
from minicnn import Tensor, functional as F, optim
net = programs.tiny().to("gpu")
update = optim.SGD(net.parameters(), 0.1, momentum=0.9)
images, labels = Tensor(np.zeros((2, 64, 64, 3), "f4"), device="gpu"), Tensor(np.zeros(2, "i8"), device="gpu")
seen = []
for _ in range(4):
    before = rig.counts()
    loss = F.cross_entropy(net(images), labels)
    update.zero_grad()
    loss.backward()
    update.step()
    seen.append({name: count - before[name] for name, count in rig.counts().items()})
assert seen[2] == seen[3] and seen[3].pop("launches") > 20 and seen[3].pop("products") == 8, seen
assert not any(seen[3].values()), seen
"""
    folders = [str(ROOT), str(ROOT / "tests"), str(ALEXNET)]
    on_rig("-c", code, PYTHONPATH=os.pathsep.join(folders))


def test_a_captured_step_is_one_graph():
    """The real CuPy lets it be captured; what the host asks for then, and what it may not ask for inside."""
    code = """
import cupy, numpy as np, programs, rig
from minicnn import Captured, Tensor, functional as F, nn, optim
net = nn.Sequential(programs.tiny(), nn.Dropout(0.1)).to("gpu")
images, labels = Tensor(np.zeros((2, 64, 64, 3), "f4"), device="gpu"), Tensor(np.zeros(2, "i8"), device="gpu")
def passes(images, labels):
    loss = F.cross_entropy(net(images), labels)
    loss.backward()
    return loss
captured, seen = Captured(passes, net), []
for _ in range(4):
    before = rig.counts()
    captured(images, labels)
    seen.append({name: count - before[name] for name, count in rig.counts().items() if count != before[name]})
assert seen[1]["captured"] > 20 and seen[1]["products"] == 8 and seen[1]["graphs"] == 1, seen
assert seen[3] == {"graphs": 1, "launches": 2, "copies": 2}, seen  # fill, and a copy of the loss
for forbidden in (
    lambda y: y.item(), lambda y: y * Tensor(np.ones(2, "f4"), device="gpu"), lambda y: cupy.cuda.Device(0).synchronize()
):
    refused = Captured(lambda x: (forbidden(x.sum()), x)[1], net)
    refused(images)
    try:
        refused(images)
    except RuntimeError as error:
        print(error)
captured(images, labels)
"""
    folders = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ALEXNET)])
    said = on_rig("-c", code, PYTHONPATH=folders).splitlines()
    assert len(said) == 3 and all(line.startswith("this cannot be captured: ") for line in said), said


def test_kernels_are_compiled_with_the_options_of_test_nvrtc(tmp_path):
    code = """
import minicnn, nvrtc
from cupy.cuda import compiler
from minicnn.backends.cuda import launch
given, compile = [], compiler._NVRTCProgram.compile
compiler._NVRTCProgram.compile = lambda self, options=(), log=None: given.append(options) or compile(self, options, log)
minicnn.functional.relu(minicnn.Tensor([1.0], device="gpu"))
(options,) = [[o for o in options if not o.startswith("-I")] for options in given if "-arch=sm_90" in options][1:]
assert sorted(options) == sorted([*launch.OPTIONS, *nvrtc.CUPYS, "-arch=sm_90"]), options
"""
    folders = os.pathsep.join([str(ROOT), str(RIG.parent)])
    on_rig("-c", code, CUPY_CACHE_DIR=str(tmp_path), PYTHONPATH=folders)


def test_processes_of_the_program_are_on_the_rig_too(tmp_path):
    (tmp_path / "program.py").write_text("""
import multiprocessing
import cupy

def there(n):
    import rig
    return int(cupy.zeros(n).size), rig.counts()["blocks"] > 0

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(*pool.map(there, [3, 4]))
        pool.close()
        pool.join()
""")
    assert on_rig(tmp_path / "program.py") == "(3, True) (4, True)\n"


def rig_says(words, **environment):
    """The rig cannot be built, and says so in one line with these words."""
    on_rig("-c", "")  # where it cannot be built at all, this skips
    done = subprocess.run(
        [sys.executable, RIG, "-c", ""], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )
    assert done.returncode == UNUSABLE, done.stderr
    assert words in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_cache_that_cannot_be_written(tmp_path):
    """It is one line, for `benchmarks gpu --predict` too, which then goes without the host's time."""
    (tmp_path / "file").touch()
    rig_says("file/minicnn-rig cannot be written", XDG_CACHE_HOME=str(tmp_path / "file"))
    code = "from benchmarks.gpu_host import Host; print(Host(1, 'Network', '2012', 2).seconds(1))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "file"), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == "None\n" and done.stderr.count("\n") == 1, done.stderr


def test_a_disk_that_is_full(tmp_path):
    """Then there is no folder, and that is said."""
    code = f"""
import os, sys
sys.path.insert(0, {str(RIG)!r})
os.environ["XDG_CACHE_HOME"] = {str(tmp_path)!r}
import rig
def full(*_):
    raise OSError(28, "No space left on device", "there")
os.rename = full
try:
    rig.build()
except rig.Unusable as error:
    print(error)
"""
    assert on_rig("-c", code) == "there cannot be written: No space left on device\n"
    assert not list((tmp_path / "minicnn-rig").iterdir())


def compiler(folder, script):
    """A PATH on which cc is this script."""
    folder.mkdir()
    (folder / "cc").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "cc").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_a_compiler_that_fails(tmp_path):
    path = compiler(tmp_path / "bin", "echo 'In file included' >&2; echo 'x.c: error: no' >&2; echo more >&2; exit 1")
    rig_says("x.c: error: no", PATH=path, XDG_CACHE_HOME=str(tmp_path))
    assert not list((tmp_path / "minicnn-rig").iterdir())


def test_what_is_compiled_is_used_again_without_a_compiler(tmp_path):
    """What nobody has used for a month goes when something else is compiled."""
    old, recent = (tmp_path / "minicnn-rig" / name for name in ("old", "recent"))
    for folder in (old, recent):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    on_rig("-c", "", XDG_CACHE_HOME=str(tmp_path))
    assert not old.exists() and recent.exists()
    nowhere = {"XDG_CACHE_HOME": str(tmp_path), "PATH": str(tmp_path)}
    assert on_rig("-c", "print(2)", **nowhere) == "2\n"
    (built,) = (path for path in (tmp_path / "minicnn-rig").iterdir() if path.name not in ("recent", "kernels"))
    built.rename(tmp_path / "elsewhere")
    rig_says("there is no C compiler", **nowhere)


def test_an_entry_that_another_cupy_lacks_is_named(tmp_path):
    """So is one that it declares in another way."""
    code = f"""
import sys
sys.path.insert(0, {str(RIG)!r})
import rig
from pathlib import Path
def run(old, new):
    text = (Path({str(RIG)!r}) / "driver.c").read_text()
    assert old in text
    real, rig.HERE = rig.HERE, Path({str(tmp_path)!r})
    (rig.HERE / "driver.c").write_text(text.replace(old, new))
    (rig.HERE / "nccl.c").write_bytes((real / "nccl.c").read_bytes())
    try:
        rig.install()
    except rig.Unusable as error:
        print(error)
    rig.HERE = real
run("runtime_setDevice(int device,", "runtime_setDevice(size_t device,")
run("driver_moduleUnload", "driver_moduleVanish")
"""
    assert on_rig("-c", code).splitlines() == [
        "this CuPy declares runtime.setDevice as PyObject *(int, int), and driver.c as PyObject *(size_t, int)",
        "this CuPy has no driver.moduleVanish, which driver.c replaces",
    ]


def test_what_fails_where_values_do_not_matter(tmp_path):
    """rig_values.py lets pass what is about values, and nothing else."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "test_these.py").write_text("""
import warnings
import numpy as np, pytest
from hypothesis import given, strategies as st

def test_passes_at_an_assert(): assert np.ones(3).sum() == 4
def test_passes_with_other_numbers(): np.testing.assert_allclose(np.ones(3), np.zeros(3))
@given(st.integers())
def test_passes_in_an_example(i): assert i < 0
def test_fails_raising(): None + 1
def test_fails_with_a_warning(): warnings.warn("careful")
def test_fails_with_other_shapes(): np.testing.assert_array_equal(np.ones(3), np.zeros(2))
@given(st.integers())
def test_fails_in_an_example(i): 1 / (i - i)
def test_fails_where_nothing_is_raised():
    with pytest.raises(ValueError): pass
def test_fails_where_something_else_is_said():
    with pytest.raises(ValueError, match="this"): raise ValueError("that")
""")
    code = f"""
import sys, pytest
sys.exit(0 if pytest.main(["-p", "rig_values", "-p", "no:cacheprovider", "-rA", {str(tmp_path)!r}]) == 1 else 1)
"""
    said = on_rig("-c", code)
    for line in (tmp_path / "test_these.py").read_text().splitlines():
        if line.startswith("def test_"):
            name = line[4:].partition("(")[0]
            assert re.search(f"(PASSED|FAILED) .*::{name}\\b", said)[1][:4].lower() == name[5:9], said
    assert "rig: 2 tests ended at an assert about values" in said


# ------------------------------------------------------------------------------- what several threads are the first to do
THREADS = """
import sys, threading
from minicnn.backends.cuda.devices import Upload
sys.setswitchinterval(1e-5)  # seconds: often enough for one to see what another has half done

def together(call):
    errors, begin = [], threading.Barrier(8)
    def run():
        begin.wait()
        try:
            call()
        except Exception as error:
            errors.append(repr(error))
    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(len(errors), *errors[:1])
"""


@pytest.mark.parametrize(
    "code",
    [
        "upload = Upload('gpu'); together(lambda: upload.empty((4, 4), 'u1'))",
        "together(lambda: Upload('gpu').empty((4, 4), 'u1'))",
        "import numpy as np, minicnn\n"
        "together(lambda: (minicnn.Tensor(np.ones(3, 'f4'), device='gpu') + 1).sum().item())",
        "import numpy as np, minicnn; from minicnn import functional as F\n"
        "x = minicnn.Tensor(np.ones((2, 5, 5, 4), 'f4'), device='gpu')\n"
        "together(lambda: F.max_pool2d(F.local_response_norm(F.relu(x)), 2))",
    ],
    ids=["memory of one upload", "several uploads", "the first arrays", "the first kernels"],
)
def test_threads_that_are_the_first(code):
    """With Python 3.10 to 3.12.2 threads that look into cupyx for the first time together find it half made; and so is
    in sys.modules what another thread imports."""
    assert on_rig("-c", THREADS + code) == "0\n"


# ----------------------------------------------------------------------------------------------------------- whole programs
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["--processes", "--no-processes"])
def test_the_programs(kind, tmp_path):
    """train.py for two epochs, once more from its checkpoint, evaluate.py and predict.py."""
    out, photo = tmp_path / "run", ALEXNET / "caltech10.png"
    said = on_rig(
        "--zeros", ALEXNET / "train.py", "--device", "gpu", "--epochs", 2, "--workers", 3, kind, "--out", out,
        timeout=300,
    )  # fmt: skip
    assert "on gpu:0, rig, no GPU, 80.0 GiB" in said and "epoch 2/2" in said
    checkpoint = out / "last.safetensors"
    assert "epoch 3/3" in on_rig("--zeros", ALEXNET / "train.py", "--resume", checkpoint, "--epochs", 3, timeout=300)
    there = ["--checkpoint", checkpoint, "--device", "gpu"]
    assert "200 images" in on_rig("--zeros", ALEXNET / "evaluate.py", *there, timeout=300)
    assert "caltech10.png" in on_rig("--zeros", ALEXNET / "predict.py", photo, *there)


@pytest.mark.slow
def test_the_tests_of_the_gpu():
    """All of them, but for the values: see rig_values.py."""
    arguments = ["-m", "pytest", "-q", "-p", "rig_values", "-p", "no:cacheprovider", "-m", "gpu", "tests/cuda"]
    said = on_rig("--zeros", *arguments, timeout=900)
    assert " passed" in said and "rig: " in said, said


@pytest.mark.slow
def test_the_benchmark(tmp_path):
    """Every part, by its command line. What a step launches is what the stand-in has counted."""
    pytest.importorskip("matplotlib")
    options = ["--quick", "--without-pytorch", "--output", tmp_path]
    tests = "-p rig_values -p no:cacheprovider"  # for the part that runs the tests of the GPU
    on_rig("--zeros", "-m", "benchmarks", "gpu", *options, timeout=900, PYTEST_ADDOPTS=tests)
    assert (tmp_path / "gpu.md").stat().st_size
    results = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert [part["part"] for part in results["parts"] if part["problem"] is not None] == []
    counted, measured = (
        {(e["name"], e["shape"]): e["times"] for e in results[part]["launches"] if e["shape"]}
        for part in ("launches", "kernels")
    )
    assert counted == measured
