"""minicnn/functional/shapes.py: concatenate, stack, where, maximum, minimum, pad."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import agree, arrays, fails, normal, refuses

import minicnn.functional as F
from minicnn import Tensor

SHAPES = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple)


def stack(*parts, axis=0):
    y = np.zeros((len(parts), *parts[0].shape))
    for i, part in enumerate(parts):
        y[i] = part
    return np.moveaxis(y, 0, axis)


@given(st.data(), SHAPES, st.integers(1, 3))
def test_stack(data, shape, count):
    axis = data.draw(st.integers(-len(shape) - 1, len(shape)))
    parts = [data.draw(arrays(shape)) for _ in range(count)]
    agree(lambda *parts, **options: F.stack(parts, **options), stack, *parts, axis=axis)
    if axis == 0:
        agree(lambda *parts: F.stack(parts), stack, *parts)


@st.composite
def broadcast(draw, count):
    """Shapes that are broadcast against each other."""
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    found = []
    for _ in range(count):
        ones = [1 if draw(st.booleans()) else n for n in shape]
        found.append(tuple(ones[draw(st.integers(0, len(ones))) :]))
    return found


def inputs(data, shapes, make=normal):
    """Arrays of those shapes; one with no axes has one layout only."""
    dtype = data.draw(st.sampled_from([np.float64, np.float32]))
    return [
        data.draw(arrays(s, make)).astype(dtype) if s else make(1, seed=i)[0].astype(dtype)
        for i, s in enumerate(shapes)
    ]


@given(st.data(), broadcast(3))
def test_where(data, shapes):
    a, b = inputs(data, shapes[:2])
    mask = np.asarray(normal(*shapes[2], seed=9) > 0)
    for condition in (mask, Tensor(mask), mask.tolist() if mask.size else mask):
        agree(lambda a, b, c=condition: F.where(c, a, b), lambda a, b: mask * a + (1 - mask) * b, a, b)


def test_constants_take_the_dtype():
    x = Tensor(np.ones(2, np.float32), requires_grad=True)
    for y in (
        F.concatenate([np.zeros(1), x]),
        F.where([True, False], x, 2.0),
        F.where([True, False], np.zeros(2), x),
        F.maximum(x, 0.5),
        F.minimum(np.zeros(2), x),
        F.pad(x, [(1, 1)], value=np.float64(3)),
    ):
        assert y.dtype == np.float32
        (y * y).sum().backward()
        assert x.grad.dtype == np.float32


def test_pad_of_nothing():
    x = Tensor(np.array(3.0))
    assert F.pad(x, ()).item() == 3
    assert F.pad(Tensor([1.0]), [(1, 0)]).data.tolist() == [0, 1]
    assert F.pad(Tensor(np.ones(2)), [[np.int64(1), 0]]).shape == (3,)


def ones(*shapes):
    return [Tensor(np.ones(shape)) for shape in shapes]


def test_what_cannot_be_joined():
    with refuses(ValueError, "concatenate", "at least one"):
        F.concatenate([])
    for parts, axis in ((ones((2, 3), (2, 4)), 0), (ones((2, 3), (2,)), 1), (ones((2, 3)), 2), (ones((2,), (2,)), -2)):
        with refuses(ValueError, "Concatenate"):
            F.concatenate(parts, axis)
    with refuses(ValueError, "Concatenate"):
        F.concatenate(ones((), ()))
    for parts in ([], ones((2, 3), (3, 2)), ones((2,), (2, 1))):
        with refuses(ValueError, "stack", "one shape", str([p.shape for p in parts])):
            F.stack(parts)
    for axis in (3, -4):
        with refuses(ValueError, f"axis {axis}"):
            F.stack(ones((2, 3), (2, 3)), axis)


def test_what_cannot_be_chosen():
    for condition in ([1, 0], np.ones(2), Tensor([1.0, 0.0])):
        with refuses(TypeError, "where", "boolean"):
            F.where(condition, *ones((2,), (2,)))
    for f in (F.maximum, F.minimum, lambda a, b: F.where([True], a, b)):
        with refuses(ValueError, "(2,)", "(3,)"):
            f(*ones((2,), (3,)))
        with refuses(TypeError, "float32", "float64"):
            f(Tensor([1.0]), Tensor(np.ones(1)))
        with refuses(TypeError, "none of the arguments is a Tensor"):
            f(np.ones(2), 1.0)


@pytest.mark.parametrize(
    "widths", [3, (1, 2), ((1,), (2, 3)), ((1, 2, 3), (0, 0)), ((0.5, 1), (0, 0)), (("a", 1), (0, 0))]
)
def test_widths_that_are_none(widths):
    with refuses(ValueError, "pad", "((before, after), …)"):
        F.pad(*ones((2, 3)), widths)


@pytest.mark.parametrize("widths", [(), ((1, 1),), ((1, 1), (1, 1), (1, 1)), ((0, -1), (0, 0)), ((0, 0), (-1, 0))])
def test_widths_that_do_not_fit(widths):
    with refuses(ValueError, "pad", "2 axes", str(widths)):
        F.pad(*ones((2, 3)), widths)


def test_the_condition_may_change_afterwards():
    condition, x = np.array([True, False]), Tensor([1.0, 2.0], requires_grad=True)
    y = F.where(condition, x, 0.0)
    condition[:] = False
    y.sum().backward()
    assert x.grad.data.tolist() == [1, 0]


def test_what_is_no_list_of_tensors():
    vector = Tensor(np.ones(2))
    fails(TypeError, "^concatenate: tensors must be a list, not 3$", F.concatenate, 3)
    fails(ValueError, r"^concatenate needs at least one Tensor, not \(\)$", F.concatenate, ())
    fails(ValueError, "^concatenate: axis must be a whole number, not None$", F.concatenate, [vector], None)
    fails(TypeError, "^concatenate|^Concatenate of 1 and 2: none of the arguments is a Tensor", F.concatenate, [1, 2])
    fails(TypeError, "^stack: tensors must be a list of Tensors, not with 3$", F.stack, [vector, 3])
    for axis in (None, 1.5, (), (0, 1)):
        fails(ValueError, "^stack: axis must be a whole number, not ", F.stack, [vector], axis)
    for condition in ("a", [[1], [2, 3]], {}):
        fails(TypeError, "^where takes a boolean condition, not ", F.where, condition, vector, vector)
    for value in (None, "a", 1j):
        fails(ValueError, "^pad: value must be a number, not ", F.pad, vector, ((1, 1),), value=value)
    fails(TypeError, "^pad: x must be a Tensor, not an array", F.pad, vector.data, ((1, 1),))
    assert F.pad(vector, ((1, 0),), value=-np.inf).numpy()[0] == -np.inf
    assert np.isnan(F.pad(vector, ((1, 0),), value=np.nan).numpy()[0])
