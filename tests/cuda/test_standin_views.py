"""Views of the stand-in's arrays are those of CuPy's, where CuPy is installed: what is one, and what is a copy."""

import numpy as np
import pytest
import standin as stand_in


# Without a GPU, its arrays can be made of the host's memory, and say what can be said without computing.
def real_array(array):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    memory = cupy.cuda.UnownedMemory(array.ctypes.data, array.nbytes, array, 0)
    return cupy, cupy.ndarray(array.shape, array.dtype, cupy.cuda.MemoryPointer(memory, 0))


VIEWS = """
    x.T  x[1:]  x[:,::2]  x[::-1]  x[...,0]  x[0]  x[0,0]  x[None]  x[:,None]  x[np.int64(1)]  x[5:]  x[:,1:1]
    x[0:1]  x.reshape(-1)  x.reshape(4,3)  x.reshape((2,6))  x.ravel()  x.swapaxes(0,1)  x.transpose()
    x.transpose(1,0)  x.view("i4")  x.view("u1")  x.squeeze()  x[...]  x[:,::3]  x[0].T
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
