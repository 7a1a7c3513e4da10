"""One table of agreement (kernel_table.py): each kernel's lesson computes what plain loops do, and every backend of the
CPU what the lesson does; tests/cuda/test_agreement.py asks the same of the GPU's."""

import kernel_table
import loops
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference import LAYOUTS

from minicnn import backends
from minicnn.backends import numpy as fast

LESSONS = backends._lessons
CPU = [
    (backend, kernel)
    for backend in backends._backends.values()
    if backend.device == "cpu"
    for kernel in backend.kernels
]


@pytest.fixture(scope="module", params=["in one piece", "in small pieces"])
def cut(request):
    """The NumPy backend's constants as they are; then small ones, so that small arrays go through all of its code."""
    before = fast.threads.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "in small pieces":
            fast.threads.set_num_threads(3)
            for module, name, value in (
                (fast.threads, "CACHE", 400), (fast.threads, "BLOCK", 20), (fast.memory, "LARGE", 100),
                (fast.winograd, "FEWEST_PIXELS", 0), (fast.winograd, "FEWEST_CHANNELS", 0),
            ):  # fmt: skip
                patch.setattr(module, name, value)
        yield
    fast.threads.set_num_threads(before)


def test_every_kernel_has_a_row():
    assert sorted(kernel_table.TABLE) == sorted(LESSONS)


def test_every_kernel_of_a_backend_has_a_lesson():
    for backend in (*backends._backends.values(), loops):
        assert set(getattr(backend, "kernels", loops.KERNELS)) <= set(LESSONS)
    assert set(loops.KERNELS) == set(LESSONS)


@st.composite
def arguments(draw, name):
    """A row's arguments with every array in some layout; of an optimizer's, the gradients, which alone may have any."""

    def lay_out(array):
        return LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](array) if array.ndim else array

    args = draw(kernel_table.TABLE[name])
    if type(args[0]) is list and name.startswith("optimizer"):
        return [(w, lay_out(g), *state) for w, g, *state in args[0]], *args[1:]
    return kernel_table.mapped(tuple(args), lay_out)


def laid_out_as(array, like):
    """The same numbers, with the strides of `like`."""
    if 0 in like.strides and array.size:
        return np.broadcast_to(np.ascontiguousarray(array[-1:]), array.shape)
    room = np.empty_like(like, dtype=array.dtype)
    room[...] = array
    return room


def agrees(function, standard, name, args, dtype):
    """In that dtype it has the results of the standard in float64. What is not written to stays as it is."""
    with np.errstate(all="ignore"):
        expected = kernel_table.results(standard, kernel_table.mapped(args, np.array))
        given = cast(args, dtype)
        before = kernel_table.mapped(given, np.array)
        found = kernel_table.results(function, given)
    assert len(found) == len(expected)
    for result, wanted in zip(found, expected, strict=True):
        assert result.shape == wanted.shape
        if wanted.dtype.kind != "f":
            assert result.dtype.kind == wanted.dtype.kind or {result.dtype.kind, wanted.dtype.kind} <= set("iu")
            assert_array_equal(result, wanted)
            continue
        assert result.dtype == (wanted.dtype if wanted.dtype == np.float32 else dtype)
        largest = np.abs(wanted[np.isfinite(wanted)]).max(initial=1)
        tolerance = 0 if name in kernel_table.EXACTLY else 1e-12 if result.dtype == np.float64 else 1e-5
        assert_allclose(result, wanted.astype(result.dtype), rtol=tolerance, atol=tolerance * largest)
    kept = [g for _, g, *_ in given[0]] if type(given[0]) is list else [a for a in given if isinstance(a, np.ndarray)]
    old = [g for _, g, *_ in before[0]] if type(before[0]) is list else [a for a in before if isinstance(a, np.ndarray)]
    for array, was in zip(kept, old, strict=True):
        assert_array_equal(array, was)


def cast(args, dtype):
    """Floating arrays in that dtype, laid out as they were."""
    return kernel_table.mapped(args, lambda a: view_as(a, dtype) if a.dtype == np.float64 else a)


def view_as(a, dtype):
    return laid_out_as(a.astype(dtype), a)


DTYPES = st.sampled_from([np.float64, np.float32])


@pytest.mark.parametrize("name", sorted(LESSONS))
@given(st.data(), DTYPES)
def test_a_lesson_agrees_with_loops(name, data, dtype):
    with backends.use_backend("reference"):
        agrees(LESSONS[name], loops.KERNELS[name], name, data.draw(arguments(name)), dtype)


@pytest.mark.parametrize("backend, name", CPU, ids=[f"{backend.name}-{name}" for backend, name in CPU])
@given(st.data(), DTYPES)
def test_a_backend_agrees_with_the_lesson(cut, backend, name, data, dtype):
    def lesson(*args):
        with backends.use_backend("reference"):
            return LESSONS[name](*args)

    agrees(backend.kernels[name], lesson, name, data.draw(arguments(name)), dtype)
