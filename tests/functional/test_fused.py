"""minicnn/functional/fused.py: a layer and its ReLU at once, which are the two one after the other, bit for bit."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from kernel_table import cast, convolution
from numpy.testing import assert_array_equal
from reference import agree, arrays, differentiable, normal, refuses

import minicnn.functional as F
from minicnn import Tensor, backends, grad, use_backend
from minicnn.functional import conv

BACKENDS = ["reference", *(name for name, b in backends._backends.items() if b.device == "cpu" and not b.problem())]


EVERYTHING = dict(stride=(2, 1), padding=((1, 0), (2, 1)), dilation=(1, 2), groups=2)


@st.composite
def convolutions(draw):
    """([x, weight, perhaps a bias], keyword arguments)"""
    x, weight, bias, window, groups = draw(convolution("convolve_rectify"))
    _, stride, padding, dilation = window
    args = cast([x, weight, *([] if bias is None else [bias])], draw(st.sampled_from([np.float32, np.float64])))
    return args, dict(stride=stride, padding=padding, dilation=dilation, groups=groups)


@st.composite
def linear_cases(draw):
    """([x, weight, perhaps a bias], no keyword arguments)"""
    lead, n, m = draw(st.lists(st.integers(0, 3), max_size=3)), draw(st.integers(0, 4)), draw(st.integers(1, 4))
    biases = draw(st.lists(arrays((m,)), max_size=1))
    return [draw(arrays((*lead, n))), draw(arrays((n, m))), *biases], {}


LAYERS = {F.conv2d_relu: (F.conv2d, convolutions()), F.linear_relu: (F.linear, linear_cases())}
EACH = pytest.mark.parametrize("fused", LAYERS, ids=lambda f: f.__name__)


@given(convolutions())
def test_conv2d_relu_is_the_equation(case):
    args, options = case
    agree(F.conv2d_relu, lambda *args, **options: np.maximum(reference.conv2d(*args, **options), 0), *args, **options)


@given(linear_cases())
def test_linear_relu_is_the_equation(case):
    def equation(x, weight, bias=0.0):
        return np.maximum(np.einsum("...i,io->...o", x, weight) + bias, 0)

    agree(F.linear_relu, equation, *case[0])


@pytest.mark.parametrize("options", [dict(padding=1), EVERYTHING])
def test_derivatives_of_a_convolution(options):
    x, weight = normal(1, 4, 2, 4), normal(3, 2, 4 // options.get("groups", 1), 6, seed=1)
    differentiable(F.conv2d_relu, x, weight, normal(6, seed=2), **options)
    differentiable(F.conv2d_relu, x, weight, **options)


def test_derivatives_of_a_linear_layer():
    differentiable(F.linear_relu, normal(2, 2, 3), normal(3, 4, seed=1), normal(4, seed=2))
    differentiable(F.linear_relu, normal(2, 3), normal(3, 4, seed=1))


def bits(array):
    """Its bytes, where a NaN has no sign: of two that are added, either one's may be the sum's."""
    return np.where(np.isnan(array), np.nan, array).tobytes()


def twice(f, args, options):
    """The bits of f of the arguments, of its gradients, and of the gradients of a sum of those."""
    tensors = [Tensor(a, requires_grad=True) for a in args]
    y = f(*tensors, **options)
    dy = Tensor(normal(*y.shape, seed=9).astype(y.dtype), requires_grad=True)
    first = grad(y, tensors, dy, create_graph=True)
    second = grad(sum((g * g).sum() for g in first), [dy, *tensors])
    reached = [a for a in (y, *first, *second) if a is not None]
    return [(a.shape, a.dtype, bits(a.data)) for a in reached]


def same_bits(fused, args, options):
    plain, _ = LAYERS[fused]
    assert twice(fused, args, options) == twice(lambda *args, **options: F.relu(plain(*args, **options)), args, options)


@pytest.mark.parametrize("backend", BACKENDS)
@EACH
@given(st.data())
def test_the_bits_of_the_two_layers(fused, backend, data):
    """Their NaN, infinities and signs of zero too."""
    args, options = data.draw(LAYERS[fused][1])
    for i, a in enumerate(args):
        few = data.draw(st.sampled_from([[], [np.nan], [np.inf, -np.inf], [0.0, -0.0]]))[: a.size]
        if few:
            args[i] = np.append(a.dtype.type(few), a.ravel()[len(few) :]).reshape(a.shape)
    with use_backend(backend), np.errstate(all="ignore"):
        same_bits(fused, args, options)


# as large as it takes to go through tiles, threads and the Winograd algorithm
LARGE = [
    (F.conv2d_relu, (3, 35, 35, 3), (11, 11, 3, 96), dict(stride=4)),
    (F.conv2d_relu, (13, 13, 13, 64), (3, 3, 64, 64), dict(padding=1)),
    (F.conv2d_relu, (13, 13, 13, 96), (5, 5, 48, 96), dict(padding=2, groups=2)),
    (F.conv2d_relu, (2, 5, 5, 300), (3, 3, 300, 20), {}),
    (F.linear_relu, (64, 300), (300, 500), {}),
    (F.linear_relu, (4, 100, 20), (20, 30), {}),
]


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fused, x, weight, options", LARGE)
def test_the_bits_of_large_layers(fused, x, weight, options, dtype, backend):
    args = [normal(*shape, seed=i).astype(dtype) for i, shape in enumerate((x, weight, weight[-1:]))]
    args[0][0] = 0
    with use_backend(backend):
        for some in (args, args[:2]):
            tensors = [Tensor(a, requires_grad=True) for a in some]
            plain, _ = LAYERS[fused]
            found = []
            for f in (fused, lambda *args, plain=plain: F.relu(plain(*args, **options))):
                y = f(*tensors, **options) if f is fused else f(*tensors)
                gradients = grad(y, tensors, Tensor(normal(*y.shape, seed=9).astype(dtype)))
                found.append([bits(a.data) for a in (y, *gradients)])
            assert found[0] == found[1]


@pytest.mark.parametrize("wanted", range(1, 8))
@EACH
def test_only_the_wanted_gradients_are_computed(fused, wanted, monkeypatch):
    shapes = ((2, 4, 2, 4), (3, 2, 2, 6), (6,)) if fused is F.conv2d_relu else ((5, 3), (3, 6), (6,))
    options = EVERYTHING if fused is F.conv2d_relu else {}
    tensors = [Tensor(normal(*s, seed=i), requires_grad=bool(wanted >> i & 1)) for i, s in enumerate(shapes)]
    y, ran = fused(*tensors, **options), []
    for name in ("convolve_transpose", "convolve_weight"):
        real = getattr(conv, name)
        monkeypatch.setattr(conv, name, lambda *args, name=name, real=real: ran.append(name) or real(*args))
    y.sum().backward()
    assert [t.grad is not None for t in tensors] == [t.requires_grad for t in tensors]
    if fused is F.conv2d_relu:
        x, weight, _ = tensors
        assert ran == ["convolve_transpose"] * x.requires_grad + ["convolve_weight"] * weight.requires_grad


@EACH
def test_what_does_not_fit_is_said_by_the_layer(fused):
    name = LAYERS[fused][0].__name__
    shapes = ((1, 4, 4, 3), (3, 3, 2, 5)) if fused is F.conv2d_relu else ((4, 3), (2, 5))
    with refuses(ValueError, f"{name}: x of shape {shapes[0]}", str(shapes[1])):
        fused(*[Tensor(np.ones(shape)) for shape in shapes])
    with refuses(TypeError, f"{name}: x must be a Tensor"):
        fused(np.ones((4, 2)), Tensor(np.ones((2, 5))))


@pytest.mark.parametrize("bias", [(), (3,), (1,), (4, 5)])
def test_a_bias_that_does_not_fit(bias):
    with refuses(ValueError, f"linear: bias of shape {bias}, expected (5,)"):
        F.linear_relu(Tensor(np.ones((4, 2))), Tensor(np.ones((2, 5))), Tensor(np.ones(bias)))


def test_a_relu_is_of_floats():
    ones = [Tensor(np.ones(shape, np.int64)) for shape in ((4, 2), (2, 5), (5,))]
    for args in (ones, ones[:2]):
        with refuses(TypeError, "relu needs a floating-point Tensor, not int64"):
            F.linear_relu(*args)


def test_nothing_is_kept_but_the_output_and_what_the_layer_keeps():
    x, weight, bias = (Tensor(normal(*s), requires_grad=True) for s in ((4, 3), (3, 6), (6,)))
    y = F.linear_relu(x, weight, bias)
    assert y.grad_fn.y is y.data and y.grad_fn.parents[1] is bias
    assert_array_equal([isinstance(t, Tensor) for t in y.grad_fn.saved_inputs], [False, False])
