"""Every Function on a GPU: the results and gradients that the CPU has, and derivatives that differences confirm."""

import numpy as np
import pytest
from cases import CASES, FUNCTIONS

from minicnn import Tensor, gradcheck, gradgradcheck
from minicnn.backends import devices
from minicnn.tensor import apply

RTOL = {np.float32: 1e-5, np.float64: 1e-12}


def moved(value, device, dtype):
    """An argument of a Function with the arrays in it on that device, and those of real numbers of that dtype."""
    if type(value) is tuple:
        return tuple(moved(part, device, dtype) for part in value)
    if not isinstance(value, (np.ndarray, list)):
        return value
    value = np.asarray(value)
    return devices.to_device(value.astype(dtype) if value.dtype.kind == "f" else value, device)


def function(name, device, dtype):
    settings = moved(CASES[name][0] if name != "ToDevice" else (device,), device, dtype)
    return lambda *args: apply(FUNCTIONS[name](*settings), *args)


def run(name, device, dtype):
    """The result and the gradients, on the host."""
    xs = [Tensor(x.astype(dtype), requires_grad=True, device=device) for x in CASES[name][1]]
    y = function(name, device, dtype)(*xs)
    assert y.device == devices.open_device(device) and (y.dtype == dtype or name == "Cast")
    rng = np.random.default_rng(7)
    y.backward(Tensor(rng.standard_normal(y.shape).astype(y.dtype), device=device))
    return [y.numpy(), *(x.grad.numpy() for x in xs)]


@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_cpu(name, dtype, gpu):
    for here, there in zip(run(name, "cpu", dtype), run(name, "gpu", dtype), strict=True):
        assert here.dtype == there.dtype
        np.testing.assert_allclose(there, here, rtol=RTOL[dtype], atol=RTOL[dtype] * abs(here).max(initial=1))


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name, gpu):
    """Along random directions: one by one, they are those of the CPU."""
    xs = [Tensor(x.astype(float), requires_grad=True, device="gpu") for x in CASES[name][1]]
    assert gradcheck(function(name, "gpu", float), xs, full_jacobian=0)
    assert gradgradcheck(function(name, "gpu", float), xs, full_jacobian=0)
