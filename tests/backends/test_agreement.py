"""One table of agreement (kernel_table.py): each kernel's lesson computes what plain loops do, and
every backend of the CPU what the lesson does. tests/cuda/test_kernels_agreement.py asks the same of
the GPU's."""

import loops
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_table import EXACTLY, TABLE, alike, mapped, results
from numpy.testing import assert_array_equal
from reference import LAYOUTS

from minicnn import backends
from minicnn.backends import native
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
                (fast.ops, "SHORT", 0), (fast.ops, "FEW", 2), (fast.ops, "NARROW", 3),
                (fast.winograd, "FEWEST_PIXELS", 0), (fast.winograd, "FEWEST_CHANNELS", 0),
                (native.activation, "FEW", 0),
            ):  # fmt: skip
                patch.setattr(module, name, value)
        yield
    fast.threads.set_num_threads(before)


def test_every_kernel_has_a_row():
    assert sorted(TABLE) == sorted(LESSONS)


def test_every_kernel_of_a_backend_has_a_lesson():
    for backend in backends._backends.values():
        assert set(backend.kernels) <= set(LESSONS)
    assert set(loops.KERNELS) == set(LESSONS)


@st.composite
def arguments(draw, name):
    """A row's arguments twice: with every array of float64, and all of them in a drawn dtype. Each
    array lies in some layout; of an optimizer's, the gradients, which alone may have any."""
    plain, dtype = draw(TABLE[name]), draw(st.sampled_from([np.float64, np.float32]))
    layouts = st.sampled_from(sorted(LAYOUTS))

    def pair(array, layout):
        narrow = array.astype(dtype) if array.dtype == np.float64 else array
        return [LAYOUTS[layout](a) if a.ndim else a.copy() for a in (array, narrow)]

    if type(plain[0]) is list:
        both = [[pair(a, draw(layouts) if k == 1 else "C") for k, a in enumerate(one)] for one in plain[0]]
        return tuple(([tuple(a[i] for a in one) for one in both], *plain[1:]) for i in (0, 1))
    both = [pair(a, draw(layouts)) if isinstance(a, np.ndarray) else (a, a) for a in plain]
    return tuple(zip(*both, strict=True))


def read_only(args):
    """The arrays that no kernel may change: all, but of an optimizer's parameters the gradients alone."""
    if type(args[0]) is list:
        return [g for _, g, *_ in args[0]]
    return [a for a in args if isinstance(a, np.ndarray)]


def agrees(function, standard, name, arguments):
    """It has the results that the standard has in float64, leaves alone what it is given, and a second
    call has the same bits, and leaves alone what the first has returned."""
    wide, given = arguments
    before = [a.copy() for a in read_only(given)]
    with np.errstate(all="ignore"):
        expected = results(standard, mapped(wide, np.array))
        found = results(function, given)
        if type(given[0]) is not list:  # whose results are what it was given
            again = results(function, given)
            for first, second in zip(found, again, strict=True):
                assert_array_equal(first, second, strict=True)
                assert not first.size or not np.shares_memory(first, second)
    narrow = not any(a.dtype == np.float64 for a in read_only(given))
    for result, wanted in zip(found, expected, strict=True):
        dtype = np.float32 if narrow else wanted.dtype
        alike(result, wanted, dtype, 0 if name in EXACTLY else 1e-12 if dtype == np.float64 else 1e-5)
    for array, was in zip(read_only(given), before, strict=True):
        assert_array_equal(array, was)


@pytest.mark.parametrize("name", sorted(LESSONS))
@given(st.data())
def test_a_lesson_agrees_with_loops(name, data):
    with backends.use_backend("reference"):
        agrees(LESSONS[name], loops.KERNELS[name], name, data.draw(arguments(name)))


@pytest.mark.parametrize("backend, name", CPU, ids=[f"{backend.name}-{name}" for backend, name in CPU])
@given(st.data())
def test_a_backend_agrees_with_the_lesson(cut, backend, name, data):
    if (problem := backend.problem()) is not None:
        pytest.skip(f"backend {backend.name!r}: {problem}")

    def lesson(*args):
        with backends.use_backend("reference"):
            return LESSONS[name](*args)

    agrees(backend.kernels[name], lesson, name, data.draw(arguments(name)))
