"""The elementary operations: values against NumPy, first and second derivatives against central differences, over
shapes, axes, indices, memory layouts and dtypes; and what each of them keeps in memory."""

import weakref
from unittest import mock

import numpy as np
import pytest
from cases import CASES, FUNCTIONS
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import LAYOUTS

from minicnn import Tensor, grad, gradcheck, gradgradcheck, ops, use_backend
from minicnn import functional as F
from minicnn.backends import numpy as fast
from minicnn.tensor import apply

rng = np.random.default_rng(0)
seeds = st.integers(0, 2**32 - 1)


def normal(*shape):
    return rng.standard_normal(shape)


def leaves(*arrays):
    return [Tensor(array, requires_grad=True) for array in arrays]


MASK = np.array([[True, False, True], [False, False, True]])
OPS = [name for name, function in FUNCTIONS.items() if function.__module__ == "minicnn.ops"]


def made(name):
    """The function of a case of cases.py, and its inputs."""
    settings, arrays = CASES[name]
    return lambda *inputs: apply(FUNCTIONS[name](*settings), *inputs), arrays


@pytest.mark.parametrize("name", OPS)
def test_derivatives_with_one_input_and_the_others_constant(name):
    """As all of them: tests/functional/test_every_op.py."""
    f, arrays = made(name)
    for i in range(len(arrays)):
        inputs = [Tensor(array, requires_grad=i == j) for j, array in enumerate(arrays)]
        assert gradcheck(f, inputs)
        assert gradgradcheck(f, inputs)


KEEPS = {  # which of its operands an operation keeps alive, when the gradient of only the first, second, … is wanted
    "Add": ("", ""), "Sub": ("", ""), "Mul": ("b", "a"), "Div": ("b", "ab"), "Where": ("", ""), "MatMul": ("b", "a"),
    "Concatenate": ("", "", ""), "Neg": [""], "Exp": [""], "Sqrt": [""], "Sum": [""], "Cast": [""], "IndexAdd": [""],
    "Pad": [""], "Log": ["a"], "PowScalar": ["a"], "Abs": ["a"], "Max": ["a"], "Index": [""],
}  # fmt: skip


@pytest.mark.parametrize("name", KEEPS)
def test_only_what_the_backward_pass_reads_is_kept(name):
    f, arrays = made(name)
    for wanted, kept in enumerate(KEEPS[name]):
        inputs = [Tensor(array, requires_grad=i == wanted) * 1.0 for i, array in enumerate(arrays)]  # not leaves
        alive = [weakref.ref(x.data) for x in inputs]
        y = f(*inputs)
        del inputs
        assert "".join(letter for letter, ref in zip("abc", alive, strict=False) if ref() is not None) == kept
        del y
        assert not any(ref() is not None for ref in alive)


# ---------------------------------------------------------------------------------------------------------- derivatives
# -------------------------------------------------------------------------------------- values, over shapes and layouts
layouts = st.sampled_from(sorted(LAYOUTS)).map(lambda name: lambda x: LAYOUTS[name](x) if x.ndim else x.copy())
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


def check(f, reference, *arrays):
    """f agrees with NumPy in value, shape and dtype, and with differences in its gradient; the inputs stay as they
    were."""
    inputs, before = leaves(*arrays), [array.copy() for array in arrays]
    y = f(*inputs)
    np.testing.assert_allclose(y.data, reference(*arrays), rtol=1e-13, atol=1e-13, strict=True)
    y.backward(np.ones(y.shape))
    for x, array, old in zip(inputs, arrays, before, strict=True):
        assert x.grad.shape == array.shape and x.grad.dtype == np.float64
        np.testing.assert_array_equal(array, old)
    if y.size and all(array.size for array in arrays):
        gradcheck(lambda *inputs: (f(*inputs), *[x.sum() for x in inputs]), inputs)  # f alone may ignore one


BINARY = {
    "add": (lambda a, b: a + b, np.add), "sub": (lambda a, b: a - b, np.subtract), "mul": (lambda a, b: a * b, np.multiply),
    "div": (lambda a, b: a / b, np.divide), "pow": (lambda a, b: a**b, np.power),
    "maximum": (F.maximum, np.maximum), "minimum": (F.minimum, np.minimum),
}  # fmt: skip


@pytest.mark.parametrize("name", BINARY)
@given(
    shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=3),
    a_layout=layouts, b_layout=layouts, seed=seeds,
)  # fmt: skip
def test_arithmetic_broadcasts_as_in_numpy(name, shapes, a_layout, b_layout, seed):
    (a, b), random = shapes.input_shapes, np.random.default_rng(seed)
    numbers = 0.5 + random.permutation(int(np.prod(a)) + int(np.prod(b))) / 20  # no two are equal
    split = int(np.prod(a))
    check(*BINARY[name], a_layout(numbers[:split].reshape(a)), b_layout(numbers[split:].reshape(b)))


UNARY = {
    "exp": (lambda x: x.exp(), np.exp), "log": (lambda x: x.log(), np.log), "sqrt": (lambda x: x.sqrt(), np.sqrt),
    "abs": (abs, np.abs), "neg": (lambda x: -x, np.negative), "clip": (lambda x: x.clip(0.9, 1.3), lambda x: np.clip(x, 0.9, 1.3)),
    "square": (lambda x: x**2, np.square), "power": (lambda x: x**-0.7, lambda x: x**-0.7), "T": (lambda x: x.T, np.transpose),
    "where": (lambda x: F.where(x.data > 1, x, 0.25), lambda x: np.where(x > 1, x, 0.25)),
    "flat": (lambda x: x.reshape(x.size), np.ravel),
    "clip below": (lambda x: x.clip(0.9), lambda x: np.maximum(x, 0.9)), "clip above": (lambda x: x.clip(high=0.9), lambda x: np.minimum(x, 0.9)),
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
@given(shape=shapes, layout=layouts, seed=seeds)
def test_elementwise_functions_are_numpys(name, shape, layout, seed):
    check(*UNARY[name], layout(np.random.default_rng(seed).choice([0.6, 0.8, 1.1, 1.2, 1.5], shape)))


@st.composite
def reductions(draw, min_side=0):
    """(shape, axis, keepdims)"""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=min_side, max_side=3))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), unique=True)) if shape else []
    signed = [a - len(shape) if draw(st.booleans()) else a for a in axes]
    choices = [None, tuple(signed)] + signed[:1] + ([0, -1] if not shape else [])
    return shape, draw(st.sampled_from(choices)), draw(st.booleans())


@pytest.mark.parametrize("block", [4, fast.threads.BLOCK])
@given(reduction=reductions(), layout=layouts, seed=seeds)
def test_sum(block, reduction, layout, seed):
    shape, axis, keepdims = reduction
    with mock.patch.object(fast.threads, "BLOCK", block):  # small: every sum over the first axes goes to the threads
        x = layout(np.random.default_rng(seed).standard_normal(shape))
        check(lambda x: x.sum(axis, keepdims), lambda x: np.sum(x, axis, keepdims=keepdims), x)


@given(reduction=reductions(min_side=1), ddof=st.integers(0, 1), seed=seeds)
def test_mean_and_var(reduction, ddof, seed):
    shape, axis, keepdims = reduction
    x = np.random.default_rng(seed).standard_normal(shape)
    axis = axis if shape else None  # these two functions of NumPy want no axis there
    check(lambda x: x.mean(axis, keepdims), lambda x: np.mean(x, axis, keepdims=keepdims), x)
    entries = x.size // np.var(x, axis).size
    if entries > ddof:
        f = lambda x: x.var(axis, keepdims=keepdims, ddof=ddof)  # noqa: E731
        check(f, lambda x: np.var(x, axis, ddof=ddof, keepdims=keepdims), x)
    else:
        assert np.isnan(Tensor(x).var(axis, keepdims=keepdims, ddof=ddof).data).all()


@given(reduction=reductions(min_side=1), seed=seeds)
@pytest.mark.parametrize("name", ["max", "min"])
def test_extremes_and_their_ties(name, reduction, seed):
    shape, axis, keepdims = reduction
    random = np.random.default_rng(seed)
    array = random.integers(0, 3, shape).astype(float)
    (x,) = leaves(array)
    y = getattr(x, name)(axis, keepdims)
    np.testing.assert_array_equal(y.data, getattr(array, name)(axis, keepdims=keepdims), strict=True)
    g = random.standard_normal(y.shape)
    y.backward(g)
    axes = range(array.ndim) if axis is None else np.atleast_1d(axis) % max(array.ndim, 1)
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    expected = np.zeros(shape)
    for at in np.ndindex(*kept):
        window = tuple(slice(None) if i in axes else k for i, k in enumerate(at))
        best = array[window] == getattr(array[window], name)()
        expected[window] = best * g.reshape(kept)[at] / best.sum()
    np.testing.assert_allclose(x.grad.data, expected, rtol=1e-14)


def test_extremes_of_nothing():
    for f, reference in [(Tensor.max, np.max), (Tensor.min, np.min)]:
        with pytest.raises(ValueError, match=r"\(0, 3\)"):
            f(Tensor(np.zeros((0, 3))), axis=0)
        check(lambda x: f(x, axis=1), lambda x: reference(x, axis=1), np.zeros((0, 3)))  # noqa: B023


@st.composite
def matmul_operands(draw):
    batch = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, min_side=0, max_side=2)).input_shapes
    n, k, m = (draw(st.integers(0, 3)) for _ in range(3))
    a = draw(st.sampled_from([(k,), (n, k), (*batch[0], n, k)]))
    b = draw(st.sampled_from([(k,), (k, m), (*batch[1], k, m)]))
    return a, b


@pytest.mark.parametrize("block", [1, fast.threads.BLOCK])
@given(operands=matmul_operands(), a_layout=layouts, b_layout=layouts, seed=seeds)
def test_matmul(block, operands, a_layout, b_layout, seed):
    random = np.random.default_rng(seed)
    a, b = (random.standard_normal(shape) for shape in operands)
    with mock.patch.object(fast.threads, "BLOCK", block):
        check(lambda a, b: a @ b, np.matmul, a_layout(a), b_layout(b))


@given(data=st.data(), shape=shapes, layout=layouts, seed=seeds)
def test_transpose_and_reshape(data, shape, layout, seed):
    order, back = data.draw(st.permutations(range(len(shape)))), (*shape[::-1], 1)
    x = layout(np.random.default_rng(seed).standard_normal(shape))
    check(lambda x: x.transpose(order), lambda x: x.transpose(order), x)
    check(lambda x: x.reshape(back), lambda x: x.reshape(back), x)


@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=1, max_dims=3, min_side=0, max_side=3), seed=seeds)
def test_broadcast_to_and_unbroadcast(shapes, seed):
    (shape,), wide = shapes.input_shapes, (2, *shapes.result_shape)
    x = np.random.default_rng(seed).standard_normal(shape)
    check(lambda x: x.broadcast_to(*wide), lambda x: np.broadcast_to(x, wide), x)
    g = np.random.default_rng(seed).standard_normal(wide)
    origin = np.broadcast_to(np.arange(x.size).reshape(shape), wide)
    expected = np.bincount(origin.ravel(), g.ravel(), x.size).reshape(shape).astype(float)
    np.testing.assert_allclose(ops.unbroadcast(Tensor(g), shape).data, expected, atol=1e-14, strict=True)


@st.composite
def indexings(draw):
    """(shape, index): slices of any step, integers, None, …, integer arrays with repeats, masks, and mixtures."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4))
    numbers = [st.integers(-n, n - 1) for n in shape]
    arrays = [hnp.arrays(int, st.sampled_from([(3,), (2, 1), ()]), elements=number) for number in numbers]
    each = [st.slices(n) | number | array for n, number, array in zip(shape, numbers, arrays, strict=True)]
    mixed = st.tuples(*each[: draw(st.integers(1, len(shape)))])
    return shape, draw(hnp.basic_indices(shape, allow_newaxis=True) | hnp.arrays(bool, shape) | mixed | mixed)


@given(indexing=indexings(), layout=layouts, seed=seeds)
def test_indexing(indexing, layout, seed):
    shape, index = indexing
    random = np.random.default_rng(seed)
    x = layout(random.standard_normal(shape))
    check(lambda x: x[index], lambda x: x[index], x)
    (leaf,) = leaves(x)
    y = leaf[index]
    g = random.standard_normal(y.shape)
    y.backward(g)
    origin = np.arange(x.size).reshape(shape)[index]  # which entry each came from
    np.testing.assert_allclose(leaf.grad.data.ravel(), np.bincount(np.ravel(origin), g.ravel(), x.size), atol=1e-14)


INDICES = [[0, 0, 1], [True, False, True], np.int64(1), True, (slice(None), [1, 1]), (None, Ellipsis, -1), Tensor([2, 2]),
           Tensor([True, False, True]), (Tensor([0, 0]), 1), (), Ellipsis, (0, 1), np.array(2), np.array([], int)]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_other_kinds_of_index(index):
    parts = index if isinstance(index, tuple) else (index,)
    plain = tuple(part.data if isinstance(part, Tensor) else part for part in parts)
    check(lambda x: x[index], lambda x: x[plain], normal(3, 2))


@given(axis=st.integers(-2, 1), sizes=st.lists(st.integers(0, 2), min_size=1, max_size=3), seed=seeds)
def test_concatenate(axis, sizes, seed):
    random = np.random.default_rng(seed)
    parts = [random.standard_normal((size, 2) if axis % 2 == 0 else (2, size)) for size in sizes]
    check(lambda *parts: F.concatenate(parts, axis), lambda *parts: np.concatenate(parts, axis), *parts)


@given(data=st.data(), shape=hnp.array_shapes(min_side=0, max_side=3), value=st.sampled_from([0.0, -1.5]), seed=seeds)
def test_pad(data, shape, value, seed):
    widths = tuple(data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in shape)
    x = np.random.default_rng(seed).standard_normal(shape)
    check(lambda x: F.pad(x, widths, value=value), lambda x: np.pad(x, widths, constant_values=value), x)


# ------------------------------------------------------------------------------ points where the mathematics needs care
def derivatives(f, *points):
    """f's gradient at the points, with what flows in being 1."""
    inputs = leaves(*[np.array(point, dtype=float) for point in points])
    return [None if g is None else g.data for g in grad(f(*inputs).sum(), inputs)]


def test_equal_operands_share_the_gradient():
    for f in (F.maximum, F.minimum):
        for g in derivatives(f, [1.0, -2.0, 0.0], [1.0, -2.0, -0.0]):
            np.testing.assert_array_equal(g, 0.5)


POINTS = [  # (function, where, its slope there)
    (lambda x: F.maximum(x, 0.0), [0, 1, -1], [0.5, 1, 0]), (lambda x: F.minimum(0.0, x), [0, 1, -1], [0.5, 0, 1]),
    (lambda x: x.max(), [3, 1, 3, 3, 3], [0.25, 0, 0.25, 0.25, 0.25]), (lambda x: x.min(), [3, 3, 4, 5], [0.5, 0.5, 0, 0]),
    (lambda x: x.clip(-1, 2), [-1.1, -1, 0, 2, 2.1], [0, 1, 1, 1, 0]), (lambda x: x.clip(), [-1e300, 1e300], [1, 1]),
    (abs, [0, -2, 3], [0, -1, 1]),
]  # fmt: skip


@pytest.mark.parametrize(("f", "points", "slopes"), POINTS)
def test_slopes_at_corners(f, points, slopes):
    np.testing.assert_array_equal(derivatives(f, points)[0], slopes)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 4, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("form", ["number", "constant array", "tensor"])
def test_powers_at_0_and_of_negative_numbers(exponent, form):
    base = np.array([0.0, -2.0, 3.0, -0.0])
    (x,) = leaves(base)
    array = np.full(4, exponent)
    y = x ** {"number": exponent, "constant array": array, "tensor": Tensor(array.astype(float))}[form]
    for n in range(3):  # the n-th derivative
        factor = np.prod([exponent - i for i in range(n)])
        np.testing.assert_allclose(y.data, factor * base ** max(exponent - n, 0), atol=1e-14)
        (y,) = grad((y + 0 * x).sum(), x, create_graph=True)  # + 0x: what is constant has a derivative, too


def test_the_exponents_gradient_is_0_where_the_base_is_not_positive():
    base, exponent = leaves(np.array([0.0, -2.0, 2.0, 0.0]), np.array([2.0, 3.0, 3.0, 0.0]))
    (g,) = grad((base**exponent).sum(), exponent)
    np.testing.assert_allclose(g.data, [0, 0, 8 * np.log(2), 0])


def test_mixed_derivatives_of_a_power_with_exponent_0():
    """∂²(aᵇ)/∂a∂b = aᵇ⁻¹ (1 + b log a), which is 1/a at b = 0, whichever comes first."""
    a, b = leaves(np.array([2.0, 0.5]), np.zeros(2))
    for first, second in ((a, b), (b, a)):
        (g,) = grad((a**b).sum(), first, create_graph=True)
        np.testing.assert_allclose(grad(g.sum(), second)[0].data, [0.5, 2.0])


def test_nan_goes_through():
    x = Tensor(np.array([1.0, np.nan]))
    for y in (x.max(), x.min(), F.maximum(x, 0.0)[1], F.minimum(x, 0.0)[1], x.sum(), x.clip(0, 1)[1]):
        assert np.isnan(y.item())


def test_normal_axes():
    assert ops.normal_axes(None, 3) == (0, 1, 2) == ops.normal_axes((2, 0, -2), 3)
    assert ops.normal_axes(-1, 3) == (2,) and ops.normal_axes([1], 3) == (1,)
    assert all(ops.normal_axes(axis, ndim) == () for axis, ndim in [((), 3), (None, 0), (0, 0), (-1, 0)])
    for axis, ndim in [(3, 3), (-4, 3), ((0, -3), 3), ((1, 1), 3), (1, 0), (-2, 0)]:
        with pytest.raises(ValueError, match=rf"axis .* {ndim} dimensions$"):
            ops.normal_axes(axis, ndim)


# --------------------------------------------------------------------------------------------------------------- dtypes
EXPRESSIONS = [
    lambda x: x + 1, lambda x: 1.5 - x, lambda x: x * np.float64(2), lambda x: np.float64(2) * x, lambda x: x * np.float32(2),
    lambda x: np.ones(3) * x, lambda x: x - np.ones(3), lambda x: x * np.array(2.0), lambda x: x / 3, lambda x: 3 / x, lambda x: x + True,
    lambda x: x**2, lambda x: x**2.5, lambda x: x ** np.float64(0.5), lambda x: x ** np.full(3, 2.0), lambda x: 2.0**x, lambda x: 2**x,
    lambda x: x**x, lambda x: -x, lambda x: x.exp(), lambda x: x.log(), lambda x: x.sqrt(), lambda x: abs(x), lambda x: x.clip(0.7, np.float64(1)),
    lambda x: x.sum(), lambda x: x.mean(), lambda x: x.mean(0), lambda x: x.var(1, ddof=1), lambda x: x.max(), lambda x: x.min(0),
    lambda x: x @ np.ones((3, 2)), lambda x: np.ones(2) @ x, lambda x: x @ x.T, lambda x: x @ np.ones((3, 2), int),
    lambda x: F.maximum(x, 0.7), lambda x: F.minimum(np.float64(1), x), lambda x: F.maximum(x, Tensor([1, 2, 3])),
    lambda x: F.where(MASK, x, 0.5), lambda x: F.where(MASK, np.ones(3), x), lambda x: F.pad(x, ((1, 0), (0, 1)), value=np.float64(0.1)),
    lambda x: F.concatenate([x, np.ones((1, 3))]), lambda x: F.stack([x, x]), lambda x: x[0], lambda x: x[0, 0], lambda x: x[:, [0, 0]],
    lambda x: x * Tensor([1, 2, 3]), lambda x: x.reshape(6), lambda x: x.T, lambda x: x.broadcast_to(2, 2, 3), lambda x: x * MASK,
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("number", range(len(EXPRESSIONS)))
def test_a_floating_dtype_stays_in_values_and_gradients(number, dtype):
    x = Tensor(np.array([[0.5, 0.75, 1.5], [2.0, 1.25, 0.8]], dtype), requires_grad=True)
    y = EXPRESSIONS[number](x)
    (first,) = grad(y.sum(), x, create_graph=True)
    (second,) = grad((first * first + x).sum(), x)
    assert y.dtype == first.dtype == second.dtype == dtype


def test_casts_carry_gradients_each_in_its_own_dtype():
    (x,) = leaves(np.array([1.0, 2.0], np.float32))
    y = x.astype(np.float64)
    assert y.dtype == np.float64 and not np.shares_memory(y.data, x.data)
    (y * np.array([1 / 3, 2.0])).sum().backward()
    np.testing.assert_array_equal(x.grad.data, np.array([1 / 3, 2.0], np.float32), strict=True)


INTEGERS = [(lambda x: x + 1, int), (lambda x: x * x, int), (lambda x: x / 2, np.float32), (lambda x: x**2, np.float32),
            (lambda x: x**x, np.float32), (lambda x: x.exp(), np.float32), (lambda x: x.log(), np.float32), (lambda x: x.sqrt(), np.float32),
            (lambda x: x.sum(), int), (lambda x: x.mean(), np.float32), (lambda x: x.max(), int), (lambda x: x.clip(1, 2), int),
            (lambda x: x.clip(1.5), np.float32), (lambda x: x.clip(high=1.5), np.float32), (lambda x: x.clip(0, 2.5), np.float32),
            (lambda x: abs(-x), int), (lambda x: x @ x, int), (lambda x: x * 0.5, np.float32), (lambda x: x > 1, bool)]  # fmt: skip


@pytest.mark.parametrize("number", range(len(INTEGERS)))
def test_integers(number):
    f, dtype = INTEGERS[number]
    y = f(Tensor([1, 2, 3]))
    assert y.dtype == dtype and not y.requires_grad
    np.testing.assert_allclose(y.data, f(Tensor([1.0, 2.0, 3.0])).data, rtol=1e-6)


# --------------------------------------------------------------------------------------------------------------- memory
def test_views_are_views():
    x = Tensor(np.arange(6.0).reshape(2, 3))
    for y in (x.reshape(6), x.T, x[1], x[:, ::-1], x.broadcast_to(4, 2, 3), x[None, ..., 0]):
        assert np.shares_memory(y.data, x.data)
    for y in (x[[0, 1]], x.clip(), x.astype(np.float64), x.sum(()), F.concatenate([x])):
        assert not np.shares_memory(y.data, x.data)
    x = Tensor(np.array(1.0))
    assert not np.shares_memory(F.pad(x, ()).data, x.data)


def test_the_lesson_adds_in_float64_and_rounds_once():
    """Whole numbers are added as whole numbers."""
    with use_backend("reference"):
        for x in (np.full((300_000, 2), 0.1, np.float32), np.full((30_000, 1), 0.1, np.float16)):
            y = Tensor(x).sum(0)
            assert y.dtype == x.dtype and y.shape == x.shape[1:]
            np.testing.assert_array_equal(y.data, x.astype(np.float64).sum(0).astype(x.dtype))
        y = Tensor(np.full((3, 2), 2**53 + 1)).sum(0)
        assert y.data.tolist() == [3 * (2**53 + 1)] * 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_gradient_of_an_index_that_repeats_keeps_its_dtype(dtype):
    """float16 is added up in float32, for it counts to 2,048 only."""
    x = Tensor(np.ones(2, dtype), requires_grad=True)
    x[np.zeros(5000, int)].sum().backward()
    assert x.grad.dtype == dtype and x.grad.data.tolist() == [5000, 0]


def test_what_is_clipped_keeps_its_dtype():
    """Booleans too, which NumPy makes integers."""
    for x in ([True, False], np.array([1, 2], np.int8), np.array([1, 2], np.float16)):
        assert Tensor(x).clip(0, 1).dtype == np.asarray(x).dtype


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_keepdims_is_true_or_false(name):
    for keepdims in (2, "yes", None):
        with pytest.raises(ValueError, match="keepdims"):
            getattr(Tensor(np.ones((2, 3))), name)(0, keepdims=keepdims)
    assert getattr(Tensor(np.ones((2, 3))), name)(0, keepdims=np.bool_(True)).shape == (1, 3)
