"""minicnn/backends/native/optimizer.py: one launch for many parameters."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from minicnn.backends import native
from minicnn.backends.native import launch
from minicnn.optim import optimizer as lesson
from minicnn.optim.optimizer import AdamStep

pytestmark = pytest.mark.skipif(native.backend.problem() is not None, reason=str(native.backend.problem()))
STEP = AdamStep(0.1, 0.9, 0.99, 1e-3, 0.01, 0.99)
STEPS = {
    "sgd": (2, (0.1, 0.0, 0.01, False, False)),
    "momentum": (3, (0.1, 0.9, 0.01, False, False)),
    "nesterov": (3, (0.1, 0.9, 0.01, True, False)),
    "paper": (3, (0.1, 0.9, 0.01, False, True)),
    "paper without momentum": (2, (0.1, 0.0, 0.01, False, True)),
    "adam": (4, (STEP,)),
}


def parameters(arrays, dtype=np.float32):
    """More of them than registers are wide, and fewer, and none."""
    shapes = [(), (3, 5), (0, 2), (70,), (1,), (200, 3), (17,)]
    rng = np.random.default_rng(0)
    return [tuple(np.asarray(abs(rng.standard_normal(shape)), dtype) for _ in range(arrays)) for shape in shapes]


def step(backend, name, parameters, numbers):
    getattr(backend, "adam" if name == "adam" else "sgd")(parameters, *numbers)
    return parameters


@pytest.mark.parametrize("grain", [1, 40, 1 << 15])
@pytest.mark.parametrize("name", STEPS)
def test_pieces_of_parameters(monkeypatch, threads, name, grain):
    """Wherever the work is cut, each element is stepped once, by the same arithmetic."""
    arrays, numbers = STEPS[name]
    whole = step(native.optimizer, name, parameters(arrays), numbers)
    threads(3)
    monkeypatch.setattr(launch, "GRAIN", grain)
    cut = step(native.optimizer, name, parameters(arrays), numbers)
    expected = step(lesson, name, parameters(arrays), numbers)
    for one, other, right in zip(whole, cut, expected, strict=True):
        for a, b, c in zip(one, other, right, strict=True):
            assert_array_equal(a, b)
            assert_allclose(a, c, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", STEPS)
def test_parameters_of_several_dtypes(name):
    """In one group: float16 and gradients of another dtype are left to NumPy."""
    arrays, numbers = STEPS[name]

    def mixed():
        w, g, *state = parameters(arrays)[5]
        other = (w, g.astype(np.float64), *state)
        return [*parameters(arrays), *parameters(arrays, np.float64), *parameters(arrays, np.float16), other]

    expected = step(lesson, name, mixed(), numbers)
    for one, right in zip(step(native.optimizer, name, mixed(), numbers), expected, strict=True):
        for a, b in zip(one, right, strict=True):
            tolerance = {"float16": 4e-3, "float32": 1e-6, "float64": 1e-14}[a.dtype.name]
            assert a.dtype == b.dtype
            assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", STEPS)
def test_what_cannot_be_written_to_is_refused(name):
    arrays, numbers = STEPS[name]
    for which in (0, *range(2, arrays)):
        given = parameters(arrays)[3]
        given[which].flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            step(native.optimizer, name, [given], numbers)
        assert_array_equal(given[0], parameters(arrays)[3][0])


@pytest.mark.parametrize("name", STEPS)
def test_a_step_writes_to_parts_of_arrays(name):
    """As distributed.Sharded gives them: strips that begin anywhere, and no element beside them."""
    arrays, numbers = STEPS[name]
    given = parameters(arrays)[3]
    expected = [array.copy() for array in given]
    step(lesson, name, [tuple(array[3:41] for array in expected)], numbers)
    step(native.optimizer, name, [tuple(array[3:41] for array in given)], numbers)
    for a, b in zip(given, expected, strict=True):
        assert_allclose(a, b, rtol=1e-6, atol=1e-7)
        assert_array_equal((a[:3], a[41:44]), (b[:3], b[41:44]))
