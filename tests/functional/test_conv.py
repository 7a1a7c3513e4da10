"""minicnn/functional/conv.py and conv_transpose.py: convolution, its transpose, and the gradients of both."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference import agree, arrays, differentiable, normal, paddings, pairs, refuses

import minicnn.functional as F
from minicnn import Tensor, grad
from minicnn.functional import conv

EVERYTHING = dict(stride=(2, 1), padding=((1, 0), (2, 1)), dilation=(1, 2), groups=2)
X, WEIGHT, BIAS, Y = (2, 4, 2, 4), (3, 2, 2, 6), (6,), (2, 2, 3, 6)  # fit EVERYTHING


def axes(kernel, options):
    """(kernel, stride, padding, dilation) along the height and along the width"""
    settings = zip((reference.both, reference.sides, reference.both), ("stride", "padding", "dilation"), strict=True)
    return list(zip(kernel, *[read(options[name]) for read, name in settings], strict=True))


@st.composite
def cases(draw, transposed=False):
    """([x, weight, perhaps a bias], keyword arguments) for conv2d or conv_transpose2d"""
    groups = draw(st.integers(1, 3))
    c, o = (groups * draw(st.integers(1, 2)) for _ in range(2))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    options = dict(stride=draw(pairs(1, 3)), padding=draw(paddings(2)), dilation=draw(pairs(1, 2)), groups=groups)
    n, h, w = draw(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)))
    if transposed:  # so many pixels that the padding leaves something
        h, w = (
            m + max(1, -((d * (k - 1) - sum(p)) // s) + 1)
            for m, (k, s, p, d) in zip((h, w), axes(kernel, options), strict=True)
        )
        extra = draw(st.tuples(*[st.integers(0, max(s, d) - 1) for _, s, _, d in axes(kernel, options)]))
        options["output_padding"] = draw(st.sampled_from([extra, min(extra)]))
    else:  # so many pixels that the window fits
        h, w = (
            m + max(1, d * (k - 1) + 1 - sum(p)) for m, (k, _, p, d) in zip((h, w), axes(kernel, options), strict=True)
        )
    x = draw(arrays((n, h, w, o if transposed else c)))
    weight = draw(arrays((*kernel, c // groups, o)))
    biases = draw(st.lists(arrays((c if transposed else o,)), max_size=1))
    return [x, weight, *biases], options


@given(cases())
def test_conv2d_is_the_equation(case):
    args, options = case
    agree(F.conv2d, reference.conv2d, *args, **options)


@given(cases(transposed=True))
def test_conv_transpose2d_scatters_kernels(case):
    args, options = case
    agree(F.conv_transpose2d, reference.conv_transpose2d, *args, **options)


@pytest.mark.parametrize(
    "dilation, stride, extra",
    [(2, 1, 1), (2, 1, (1, 0)), (2, 1, (0, 1)), (3, 2, 2), ((3, 1), (1, 2), (2, 1))],
)
def test_output_padding_below_the_dilation_only(dilation, stride, extra):
    """Then conv2d of the result has more pixels than x had; the transpose adds none of them."""
    args, options = [normal(2, 3, 4, 2), normal(3, 2, 2, 2, seed=1)], dict(stride=stride, dilation=dilation)
    options["output_padding"] = extra
    agree(F.conv_transpose2d, reference.conv_transpose2d, *args, **options)
    differentiable(F.conv_transpose2d, *args, **options)


def test_output_padding_may_be_all_there_is():
    """(1 − 1)·3 − 2·1 + (1 − 1) + 2 + 1 = 1 pixel, which the kernel does not reach; nor does it with more padding."""
    args = normal(1, 1, 1, 1), normal(1, 1, 1, 1, seed=1)
    for padding in (1, ((2, 0), (2, 0))):
        options = dict(stride=3, padding=padding, output_padding=2)
        agree(F.conv_transpose2d, reference.conv_transpose2d, *args, **options)


@given(cases())
def test_the_two_are_adjoint(case):
    """⟨conv2d(x), v⟩ = ⟨x, conv_transpose2d(v)⟩, where output_padding says which of the possible sizes x has."""
    (x, weight, *_), options = case
    x, weight = (Tensor(a.astype(np.float64)) for a in (x, weight))
    y = F.conv2d(x, weight, **options)
    v = Tensor(normal(*y.shape))
    smallest = [
        (m - 1) * s - sum(p) + d * (k - 1) + 1
        for m, (k, s, p, d) in zip(y.shape[1:3], axes(weight.shape[:2], options), strict=True)
    ]
    back = F.conv_transpose2d(
        v, weight, output_padding=[n - m for n, m in zip(x.shape[1:3], smallest, strict=True)], **options
    )
    assert back.shape == x.shape
    assert_allclose((y * v).sum().item(), (x * back).sum().item(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", [dict(padding=1), EVERYTHING])
def test_derivatives(options):
    x, weight, v = normal(*X)[:1], normal(3, 2, 4 // options.get("groups", 1), 6, seed=1), normal(*Y)[:1]
    differentiable(F.conv2d, x, weight, normal(6, seed=2), **options)
    differentiable(F.conv_transpose2d, v, weight, normal(4, seed=2), **options)


def watched(monkeypatch, shapes, wanted):
    """(Tensors of those shapes, of which only the bits in `wanted` require a gradient; which of the maps ran)"""
    ran = []
    for name in ("convolve", "convolve_transpose", "convolve_weight"):
        real = getattr(conv, name)
        monkeypatch.setattr(conv, name, lambda *args, name=name, real=real: ran.append(name) or real(*args))
    return [Tensor(normal(*s, seed=i), requires_grad=bool(wanted >> i & 1)) for i, s in enumerate(shapes)], ran


@pytest.mark.parametrize("wanted", range(1, 8))
def test_only_the_wanted_gradients_are_computed(wanted, monkeypatch):
    (x, weight, bias), ran = watched(monkeypatch, (X, WEIGHT, BIAS), wanted)
    y = F.conv2d(x, weight, bias, **EVERYTHING)
    assert [isinstance(t, Tensor) for t in y.grad_fn.saved_inputs] == [
        weight.requires_grad,
        x.requires_grad,
        False,
    ]  # what is read
    y.backward(np.ones(Y))
    assert ran == ["convolve"] + ["convolve_transpose"] * x.requires_grad + ["convolve_weight"] * weight.requires_grad
    for i, (t, every) in enumerate(zip((x, weight, bias), step_of_ones(x, weight, bias), strict=True)):
        assert (t.grad is None) == (not wanted >> i & 1)
        if t.grad is not None:
            assert_array_equal(t.grad.data, every)


def step_of_ones(*tensors):
    tensors = [Tensor(t.data, requires_grad=True) for t in tensors]
    F.conv2d(*tensors, **EVERYTHING).backward(np.ones(Y))
    return [t.grad.data for t in tensors]


@pytest.mark.parametrize("wanted", range(1, 4))
def test_only_the_wanted_second_gradients_are_computed(wanted, monkeypatch):
    (v, weight), ran = watched(monkeypatch, (Y, WEIGHT), wanted)
    F.conv_transpose2d(v, weight, **EVERYTHING).sum().backward()
    maps = ["convolve_transpose", "convolve", "convolve_weight"]
    assert ran == maps[:1] + [name for i, name in enumerate(maps[1:]) if wanted >> i & 1]

    (x, v), ran = watched(monkeypatch, (X, Y), wanted)
    weight.requires_grad = True
    (dw,) = grad(F.conv2d(x, weight, **EVERYTHING), weight, v, create_graph=True)
    ran.clear()
    gradients = grad(dw, [t for t in (x, v) if t.requires_grad], dw.detach())
    assert ran == [name for i, name in enumerate(["convolve_transpose", "convolve"]) if wanted >> i & 1]
    assert [g.shape for g in gradients] == [t.shape for t in (x, v) if t.requires_grad]


def test_by_hand():
    """A pixel is the sum of what its window sees: no turning around, zeros outside, rows before columns."""
    x = Tensor(np.arange(6.0).reshape(1, 2, 3, 1))
    weight = Tensor(np.array([1.0, 10.0, 100.0, 1000.0]).reshape(2, 2, 1, 1))
    assert_array_equal(F.conv2d(x, weight).data.ravel(), [0 + 10 + 300 + 4000, 1 + 20 + 400 + 5000])
    assert_array_equal(F.conv2d(x, weight, padding=((1, 0), (0, 0))).data.ravel()[:2], [1000, 100 + 2000])
    pixel = Tensor(np.ones((1, 1, 1, 1)))
    assert_array_equal(F.conv_transpose2d(pixel, weight).data.ravel(), [1, 10, 100, 1000])


@pytest.mark.parametrize("function", [F.conv2d, F.conv_transpose2d])
def test_a_constant_array_serves_as_weight(function):
    x, weight = Tensor(normal(2, 4, 4, 3).astype(np.float32), requires_grad=True), normal(2, 2, 3, 3)
    y = function(x, weight, np.ones(3))
    assert y.dtype == np.float32
    y.sum().backward()
    assert x.grad.dtype == np.float32


def _tensors(*shapes):
    return [Tensor(np.ones(shape)) for shape in shapes]


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
@pytest.mark.parametrize(
    "x, weight, bias, options, words",
    [
        ((5, 5, 4), (2, 2, 4, 4), (), {}, ["(N, H, W, C)", "(5, 5, 4)"]),
        ((1, 1, 5, 5, 4), (2, 2, 4, 4), (), {}, ["(N, H, W, C)", "(1, 1, 5, 5, 4)"]),
        ((), (2, 2, 4, 4), (), {}, ["(N, H, W, C)", "()"]),
        ((1, 5, 5, 4), (2, 4, 4), (), {}, ["(KH, KW, C/groups, O)", "(2, 4, 4)"]),
        ((1, 5, 5, 4), (), (), {}, ["(KH, KW, C/groups, O)", "()"]),
        ((1, 5, 5, 3), (2, 2, 4, 4), (), {}, ["(1, 5, 5, 3)", "(2, 2, 4, 4)", "3 channels", "needs 4"]),
        ((1, 5, 5, 4), (2, 2, 2, 4), (), dict(groups=3), ["groups=3"]),
        ((1, 5, 5, 4), (2, 2, 2, 4), (), dict(groups=0), ["groups=0"]),
        ((1, 5, 5, 4), (2, 2, 4, 4), (), dict(groups=-1), ["groups=-1"]),
        ((1, 5, 5, 4), (2, 2, 4, 4), (5,), {}, ["bias", "(5,)", "(4,)"]),
        ((1, 5, 5, 4), (2, 2, 4, 4), (4, 1), {}, ["bias", "(4, 1)", "(4,)"]),
        ((1, 5, 5, 4), (2, 2, 4, 4), (), dict(padding=-1), ["padding", "at least 0"]),
    ],
)
def test_what_does_not_fit(name, x, weight, bias, options, words):
    if words[0] in ("bias", "groups=3", "groups=0", "groups=-1") or "channels" in str(words):
        words = [name, *words]
    if name == "conv_transpose2d" and "3 channels" in words:
        weight = weight[:2] + weight[:1:-1]
    with refuses(ValueError, *words):
        getattr(F, name)(*_tensors(x, weight), *_tensors(*[bias] * bool(bias)), **options)


def test_groups_must_divide_the_input_channels_too():
    with refuses(ValueError, "conv2d", "groups=2", "5 channels", "needs 4"):
        F.conv2d(*_tensors((1, 3, 3, 5), (1, 1, 2, 4)), groups=2)


def test_conv_transpose2d_sizes():
    x, weight = _tensors((1, 2, 3, 1), (2, 2, 1, 1))
    assert F.conv_transpose2d(x, weight, padding=1).shape == (1, 1, 2, 1)
    assert F.conv_transpose2d(x, weight, padding=((2, 0), (1, 2))).shape == (1, 1, 1, 1)
    for padding in (((2, 1), (0, 0)), ((0, 0), (2, 2))):
        with refuses(ValueError, "conv_transpose2d", "padding"):
            F.conv_transpose2d(x, weight, padding=padding)
    assert F.conv_transpose2d(x, weight, stride=(2, 3), output_padding=(1, 2)).shape == (1, 5, 10, 1)
    for extra in ((1, 0), (0, 1)):
        assert F.conv_transpose2d(x, weight, stride=2, output_padding=extra).shape == (1, 4 + extra[0], 6 + extra[1], 1)
    for extra, options in (
        (1, {}),
        ((0, 2), dict(stride=2)),
        ((2, 0), dict(stride=2)),
        (3, dict(stride=2, dilation=3)),
    ):
        with refuses(ValueError, "conv_transpose2d", "output_padding", str(extra)):
            F.conv_transpose2d(x, weight, output_padding=extra, **options)
    with refuses(ValueError, "output_padding", "at least 0"):
        F.conv_transpose2d(x, weight, output_padding=-1)


@pytest.mark.parametrize("function", [F.conv2d, F.conv_transpose2d])
def test_dtypes_do_not_mix(function):
    x, weight = _tensors((1, 3, 3, 1), (2, 2, 1, 1))
    with refuses(TypeError, "float32 and float64", "the float64 one, x.astype(np.float32)"):
        function(x, weight.astype(np.float32))
