"""minicnn/functional/shapes.py: concatenate, stack, where, maximum, minimum, pad."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from reference import agree, arrays, differentiable, distinct, keeps, normal, refuses

import minicnn.functional as F
from minicnn import Tensor

SHAPES = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple)


def concatenate(*parts, axis=0):
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    y, start = np.zeros(shape), 0
    for part in parts:
        for i in range(part.shape[axis]):
            np.moveaxis(y, axis, 0)[start] = np.moveaxis(part, axis, 0)[i]
            start += 1
    return y


def stack(*parts, axis=0):
    y = np.zeros((len(parts), *parts[0].shape))
    for i, part in enumerate(parts):
        y[i] = part
    return np.moveaxis(y, 0, axis)


def pad(x, widths, value=0.0):
    y = np.full([before + n + after for n, (before, after) in zip(x.shape, widths, strict=True)], value)
    for place in np.ndindex(*x.shape):
        y[tuple(i + before for i, (before, _) in zip(place, widths, strict=True))] = x[place]
    return y


@given(st.data(), SHAPES, st.integers(1, 3))
def test_concatenate(data, shape, count):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    parts = []
    for _ in range(count):
        size = list(shape)
        size[axis] = data.draw(st.integers(0, 3))
        parts.append(data.draw(arrays(size)))
    agree(lambda *parts, **options: F.concatenate(parts, **options), concatenate, *parts, axis=axis)
    if axis == 0:
        agree(lambda *parts: F.concatenate(parts), concatenate, *parts)


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


@given(st.data(), broadcast(2))
def test_maximum_and_minimum(data, shapes):
    a, b = inputs(data, shapes, lambda *shape, seed: 0.1 * np.random.default_rng(seed).integers(-9, 9, shape))
    b = b + b.dtype.type(0.05)  # no ties
    agree(F.maximum, lambda a, b: (a > b) * a + (a <= b) * b, a, b)
    agree(F.minimum, lambda a, b: (a < b) * a + (a >= b) * b, a, b)


@pytest.mark.parametrize("f", [F.maximum, F.minimum])
def test_equal_ones_share_the_gradient(f):
    a, b = (Tensor(np.array(numbers), requires_grad=True) for numbers in ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]))
    f(a, b).backward(np.array([6.0, 8.0, 10.0]))
    first, last = (0, 10) if f is F.maximum else (6, 0)
    assert_array_equal(a.grad.data, [first, 4, last])
    assert_array_equal(b.grad.data, [6 - first, 4, 10 - last])


@pytest.mark.parametrize("f", [F.maximum, F.minimum])
def test_nan_propagates(f):
    y = f(Tensor([np.nan, 1.0, np.nan]), Tensor([1.0, np.nan, np.nan]))
    assert np.isnan(y.data).all()


@given(st.data(), SHAPES, st.sampled_from([{}, dict(value=2.5), dict(value=-np.inf)]))
def test_pad(data, shape, options):
    widths = data.draw(st.lists(st.tuples(*[st.integers(0, 2)] * 2), min_size=len(shape), max_size=len(shape)))
    x = data.draw(arrays(shape))
    if options.get("value") == -np.inf:  # whose differences are NaN
        assert_array_equal(F.pad(Tensor(x), widths, **options).data, pad(x, widths, **options).astype(x.dtype))
    else:
        agree(F.pad, pad, x, widths=widths, **options)


def test_derivatives():
    a, b, mask = distinct(2, 3), distinct(2, 3, seed=1) + 0.03, np.array([True, False, True])
    differentiable(lambda a, b: F.concatenate([a, b, a], axis=1), a, b)
    differentiable(lambda a, b: F.stack([a, b, a], axis=-1), a, b)
    differentiable(lambda a, b: F.where(mask, a, b * b), a, b)
    for f in (F.maximum, F.minimum):
        differentiable(f, a, b)
        differentiable(f, a, b[0])
    differentiable(lambda a: F.pad(a * a, ((1, 0), (0, 2)), value=3.0), a)


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
    assert F.pad(Tensor(np.ones(2)), [[np.int64(1), 0]]).shape == (3,)


@pytest.mark.parametrize("f", ["concatenate", "stack", "where", "maximum", "minimum", "pad"])
def test_what_the_user_holds_stays(f):
    call = {
        "concatenate": lambda a, b: F.concatenate([a, b], 1),
        "stack": lambda a, b: F.stack([a, b]),
        "where": lambda a, b: F.where(np.array([True, False, True]), a, b),
        "pad": lambda a, b: F.pad(a, ((0, 1), (2, 0))) + F.pad(b, ((1, 0), (0, 2))),
    }.get(f, getattr(F, f))
    keeps(call, lambda n, seed: [normal(n, 3, seed=seed), normal(n, 3, seed=seed + 50)])


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


def test_pytorchs_arguments_of_pad_are_an_error():
    with refuses(TypeError, "pad", "positional"):
        F.pad(Tensor(np.ones((2, 3))), ((1, 1), (1, 1)), "constant")  # mode
    with refuses(ValueError, "pad", "a pair of integers for each axis", "(1, 1)"):
        F.pad(Tensor(np.ones((2, 3))), (1, 1))  # the last axis alone
