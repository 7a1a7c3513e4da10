"""The stand-in for CuPy beside CuPy itself, where it is installed: names, arguments, views."""

import sys
import types

import make_cupy_names
import numpy as np
import pytest
import standin as stand_in
from standin import names


# ---------------------------------------------------------------------------------------------------------------- names
def test_the_names_are_those_of_the_installed_cupy():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if cupy.__version__ != names.VERSION:
        pytest.skip(f"cupy_names.json is of CuPy {names.VERSION}, {cupy.__version__} is installed")
    try:
        found = make_cupy_names.names()
    except ImportError as error:
        pytest.skip(f"CuPy is installed without one of CUDA's libraries: {str(error).splitlines()[0]}")
    assert make_cupy_names.FILE.read_text() == make_cupy_names.text(found), "run python tests/cuda/make_cupy_names.py"


@pytest.mark.parametrize("name", ["cupy", *stand_in.MODULES])
def test_modules_have_the_names_of_cupys_and_no_others(name, standin):
    module = sys.modules[name]
    public = {key for key in vars(module) if not key.startswith("_")} - {
        "device",
        "memory",
        "runtime",
        "stream",
        "cublas",
    }
    assert public | set(names.members(name)) == set(names.members(name))
    with pytest.raises(AttributeError):
        module.nonsense  # noqa: B018


def test_methods_have_the_arguments_of_cupys(standin):
    import cupy

    own = {
        "cupy": cupy, "cupy.ndarray": cupy.ndarray, "cupy.cuda.Device": cupy.cuda.Device,
        "cupy.cuda.Event": cupy.cuda.Event, "cupy.cuda.MemoryPool": cupy.cuda.MemoryPool,
        "cupy.cuda.Stream": cupy.cuda.Stream, "cupy.cuda": cupy.cuda,
        "cupy.cuda.cublas": cupy.cuda.cublas, "cupyx": sys.modules["cupyx"],
    }  # fmt: skip
    different, count = [], 0
    for function, expected in names.ARGUMENTS.items():
        owner, _, name = function.rpartition(".")
        found = vars(own[owner]).get(name) if owner in own else None
        made_here = isinstance(found, types.FunctionType) and found.__name__ == name  # one by one, not from the names
        if made_here and not name.startswith("__"):
            code = found.__code__
            arguments = [arg for arg in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if arg != "self"]
            wanted = [word.strip("=") for word in expected.split(",") if word.strip("/") and not word.startswith("*")]
            count += 1
            if arguments != wanted:
                different.append((function, arguments, wanted))
    assert not different and count > 25


def test_what_is_not_simulated_says_so(standin):
    import cupy

    for use in (
        lambda: cupy.ElementwiseKernel("", "", ""),
        lambda: cupy.random.rand(3),
        lambda: cupy.cuda.malloc_async(3),
    ):
        with pytest.raises(NotImplementedError, match="the stand-in for CuPy has no cupy"):
            use()


# ---------------------------------------------------------------------------------------------------------- CuPy itself
# Without a GPU, its arrays can be made of the host's memory, and say what can be said without computing. What CuPy
# refuses, it is asked on the rig (test_rig.py).
def real_array(array):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    memory = cupy.cuda.UnownedMemory(array.ctypes.data, array.nbytes, array, 0)
    return cupy, cupy.ndarray(array.shape, array.dtype, cupy.cuda.MemoryPointer(memory, 0))


VIEWS = """
    x.T  x[1:]  x[:,::2]  x[::-1]  x[...,0]  x[0]  x[0,0]  x[None]  x[:,None]  x[np.int64(1)]  x[5:]  x[:,1:1]
    x[0:1]  x.reshape(-1)  x.reshape(4,3)  x.reshape((2,6))  x.ravel()  x.swapaxes(0,1)  x.transpose()
    x.transpose(1,0)  x.view("i4")  x.view("u1")  x.squeeze()  x.real  x.mT  x[...]  x[:,::3]  x[0].T
    x[1:].reshape(-1)  x[1:][:1]  np.broadcast_to(x,(5,3,4))  np.expand_dims(x,1)  np.moveaxis(x,0,-1)
    np.squeeze(x[:1])  np.transpose(x)  np.flip(x,0)  np.reshape(x,(2,6))  np.swapaxes(x,0,1)
    x.T.reshape(3,4,order="F")  x.astype(x.dtype,copy=False)
""".split()


def described(code, x):
    y = eval(code, {"np": np, "x": x})
    flags = [getattr(y.flags, flag) for flag in ("c_contiguous", "f_contiguous", "owndata")]
    return y.shape, y.strides, y.dtype, y.size, y.nbytes, y.ndim, y.base is x, y is x, *flags


@pytest.mark.parametrize("shape", [(3, 4), (3, 1, 4), (0, 4), (3, 4, 5)])
def test_views_are_those_of_cupy(shape):
    """And take no launch."""
    array = np.ones(shape, np.float32)
    _, real = real_array(array)
    for code in VIEWS:
        try:
            expected = described(code, real)
        except (ValueError, IndexError) as error:  # it has other axes
            expected = error
        with stand_in.installed() as machine:
            x = stand_in.cupy.asarray(array)
            machine.log.clear()
            if isinstance(expected, Exception):
                with pytest.raises((ValueError, IndexError)):
                    described(code, x)
            else:
                assert described(code, x) == expected, code
            assert not machine.log
