"""The stand-in for CuPy computes what NumPy computes, and refuses arrays of the host as CuPy does. Where there is a GPU,
CuPy itself has to pass these tests; what it refuses, it is also asked on the rig (test_rig.py)."""

import numpy as np
import pytest

H = np.arange(12, dtype=np.float32).reshape(3, 4)  # on the host


# ------------------------------------------------------------------------------------------------------------- refusals
REFUSED = {  # x is an array on the GPU, h one on the host
    "np.asarray(x)": (TypeError, "Implicit conversion"),
    "np.array([x, x])": (TypeError, "Implicit conversion"),
    "np.ascontiguousarray(x)": (TypeError, "Implicit conversion"),
    "np.testing.assert_array_equal(x, h)": (TypeError, "Implicit conversion"),
    "h.__setitem__(0, x[0])": (TypeError, "Implicit conversion"),
    "x + h": (TypeError, "Unsupported type"),
    "h + x": (TypeError, "Unsupported type"),
    "x + [1.0]": (TypeError, ""),
    "x + None": (TypeError, ""),
    "x + 'a'": (TypeError, ""),
    "x @ None": (TypeError, ""),
    "[1.0] + x": (TypeError, "Unsupported type"),
    "x.__iadd__([1.0])": (TypeError, "Unsupported type"),
    "x + h[0, :1].reshape(())": (TypeError, "Unsupported type"),
    "x.__iadd__(h)": (TypeError, "Unsupported type"),
    "np.add(x, h)": (TypeError, "Unsupported type"),
    "np.add(x, 1, out=h)": (TypeError, ""),
    "np.where(x > 1, x, h)": (TypeError, "Unsupported type"),
    "np.concatenate([x, h])": (TypeError, ""),
    "cupy.matmul(x, h.T)": (TypeError, ""),
    "x.__setitem__(0, h[0])": (ValueError, "non-scalar"),
    "x.__setitem__(..., h)": (ValueError, "non-scalar"),
    "x.__setitem__(slice(None), h)": (ValueError, "non-scalar"),
    "x.fill(h)": (ValueError, "non-scalar"),
    "np.add.at(x, x, x)": (IndexError, "integer or boolean"),
    "np.add.at(x, 0, h[0])": (TypeError, "Unsupported type"),
    "x.set([1])": (TypeError, "Only numpy.ndarray"),
    "x.set(x)": (TypeError, "Only numpy.ndarray"),
    "x.set(h.astype(float))": (TypeError, "float64 array cannot be set to float32 array"),
    "x.set(h[:2])": (ValueError, "Shape mismatch"),
    "x[:, 1:3].set(h[:, 1:3])": (RuntimeError, "non-contiguous"),
    "x.get(out=[1])": (TypeError, "Only numpy.ndarray"),
    "x[x]": (IndexError, "integer or boolean"),
    "x.flags.writeable": (AttributeError, "writeable"),
    "x.ctypes": (AttributeError, "ctypes"),
    "x.__array_interface__": (AttributeError, "__array_interface__"),
    "setattr(x, 'name', 1)": (AttributeError, "name"),
    "x.__dlpack__(stream=0)": (UserWarning, "Stream 0 is passed"),  # and taken for the default stream
    "x.__dlpack__(stream=-2)": (ValueError, "valid stream"),
}
STRICTER = {  # CuPy sends these to the GPU without a word
    "x[[0, 1]]": (TypeError, "an index of list"),
    "x[np.array([0, 1])]": (TypeError, "an index of ndarray"),
    "x[h > 1]": (TypeError, "an index of ndarray"),
    "x.__setitem__([0], 1)": (TypeError, "an index of list"),
    "cupy.add.at(x, [0], 1)": (TypeError, "an index of list"),
}


def refused(code, error, says, cupy, x):
    with pytest.raises(error, match=f"(?s){says}"):
        eval(code, {"np": np, "cupy": cupy, "x": x, "h": H.copy()})


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # NumPy 2.0 to 2.2, of CuPy's
@pytest.mark.parametrize("code", REFUSED)
@pytest.mark.filterwarnings("error")
def test_refusals(code, gpu):
    refused(code, *REFUSED[code], gpu, gpu.asarray(H))


@pytest.mark.parametrize("code", STRICTER)
def test_refusals_of_what_cupy_takes(code, standin):
    import cupy

    refused(code, *STRICTER[code], cupy, cupy.asarray(H))


# ------------------------------------------------------------------------------------------------------------ computing
COMPUTED = """
    x+y  x-1  2*x  x/y  x//2  x%3  x**2  2**x  -x  abs(x)  x@y.T  x>y  x==3  x!=y  ~(x>1)  (x>1)&(y>2)
    divmod(x,2)[1]  np.add(x,y)  np.multiply(x,2,dtype="f8")  np.exp(x)  np.sign(x)  np.maximum(x,3)
    np.where(x>3,x,0)  np.clip(x,2,None)  np.square(x)  np.sum(x,axis=0)  x.sum()  x.sum(axis=(0,1),keepdims=True)
    x.max(axis=1)  x.argmax(axis=1)  x.mean()  x.var(axis=0)  x.any()  np.concatenate([x,y],1)  np.stack([x,y])
    np.pad(x,((1,0),(0,2)),constant_values=7)  np.zeros_like(x)  np.full_like(x,3)  np.zeros_like(x,shape=(2,2))
    x.astype("i8")  x.copy()  x.T.copy()  x.T+1  x.reshape(4,3).T.ravel()  x[i]  x[i,1]  x[:,i]  x[x>3]
    x[i[:,None],i]  np.add.outer(i,i)  np.equal.outer(i,i)  np.add.reduce(x)  np.multiply.reduce(x,axis=1)
    x.dot(y.T)  np.sqrt(x)  np.log(x)  np.matmul(x,y.T)  np.tensordot(x,y,2)  np.array_equal(x,y)  np.cumsum(x,1)
    x.take(i,axis=1)  np.sort(-x,axis=1)  np.isnan(x/0-x/0)  x*np.float32(2)  np.float64(2)*x  x.astype(bool)
    np.count_nonzero(x)  np.power(x,np.float32(0.5))  np.empty_like(x,shape=(0,3))
""".split()


@pytest.mark.parametrize("code", COMPUTED)
def test_results_are_numpys(code, gpu):
    x, y, i = H, H[::-1] * 0.5 + 1, np.array([2, 0, 1])
    with np.errstate(all="ignore"):
        expected = eval(code, {"np": np, "x": x, "y": y, "i": i})
    if type(expected) is int:
        pytest.skip("before NumPy 2.3, count_nonzero makes an int of everything")
    result = eval(code, {"np": np, "x": gpu.asarray(x), "y": gpu.asarray(y), "i": gpu.asarray(i)})
    assert isinstance(result, gpu.ndarray)
    assert result.dtype == np.asarray(expected).dtype and result.shape == np.shape(expected)
    np.testing.assert_allclose(result.get(), expected, rtol=1e-5)
    if ".T" not in code:
        assert result.flags.c_contiguous


def test_writing(gpu):
    x, h = gpu.asarray(H), H.copy()
    for a in (x, h):
        a += 1
        a *= 2.0
        a[0] = 5
        a[1:, ::2] = a[:2, 1::2]
        a[..., 3] = 7
        np.add(a, 1, out=a)
        a[:2].fill(3)
    i, k = gpu.asarray([0, 0, 2]), np.array([0, 0, 2])
    np.add.at(x, i, 1)
    np.add.at(h, k, 1)
    gpu.add.at(x, (i, gpu.asarray([1, 1, 1])), 2)
    np.add.at(h, (k, 1), 2)
    x[x > 8] = 0
    h[h > 8] = 0
    np.testing.assert_array_equal(x.get(), h)
    view = x[1]
    view[...] = 9
    assert x[1, 2].item() == 9  # as a view, also of one number


def test_indices_beyond_the_end_wrap_around(gpu):
    x = gpu.asarray(H)
    i = gpu.asarray([3, -4, 7])
    np.testing.assert_array_equal(x[i].get(), H[[0, 2, 1]])
    np.testing.assert_array_equal(x[..., i].get(), H[:, [3, 0, 3]])


def test_nothing_warns(gpu):
    x = gpu.asarray(H)
    assert np.isnan(((x / 0) * 0).get()).all() and np.isinf(np.exp(x * 1000)[2].get()).all()


def test_what_the_host_may_ask(standin):
    import cupy

    x = cupy.asarray(H)
    standin.log.clear()
    assert np.shape(x) == (3, 4) and np.ndim(x) == 2 and np.size(x) == 12 and np.result_type(x, x) == np.float32
    assert np.can_cast(x.dtype, "f8") and np.shares_memory(x, x[1]) and not np.iscomplexobj(x)
    assert not standin.log
