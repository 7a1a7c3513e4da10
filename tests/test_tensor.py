"""Tensor: what it is made from, its dtypes, operators, comparisons and conversions, and the error for each misuse."""

import copy
import operator
import re
import threading
import time
import types

import numpy as np
import pytest
from reference import fails

import minicnn
from minicnn import DeviceError, Tensor, grad, nn, no_grad, optim
from minicnn import functional as F
from minicnn.autograd import Function, is_recording
from minicnn.tensor import apply

# ----------------------------------------------------------------------------------------------------------- making one
MADE = [
    (1.5, None, np.float32), ([1.0, 2.0], None, np.float32), ([[1, 2.5]], None, np.float32), (3, None, int), ([1, 2], None, int),
    (True, None, bool), ([True, False], None, bool), (np.float64(1), None, np.float64), (np.ones(2), None, np.float64),
    (np.ones(2, np.float16), None, np.float16), (np.ones(2, np.uint8), None, np.uint8), (np.int32(3), None, np.int32),
    ([1.0, 2.0], np.float64, np.float64), ([1, 2], np.float32, np.float32), (np.ones(2), "float32", np.float32), ([1.7], int, int), ([], None, np.float32),
]  # fmt: skip


@pytest.mark.parametrize(("data", "dtype", "expected"), MADE)
def test_arrays_keep_their_dtype_and_python_floats_become_float32(data, dtype, expected):
    t = Tensor(data, dtype=dtype)
    np.testing.assert_array_equal(t.data, np.asarray(data).astype(expected), strict=True)
    assert (t.shape, t.ndim, t.size, t.dtype) == (t.data.shape, t.data.ndim, t.data.size, expected)
    assert t.device == "cpu" and t.grad is None and t.grad_fn is None and t.requires_grad is False


def test_arrays_are_shared_not_copied():
    array = np.ones((2, 3))
    assert (
        Tensor(array).data is array and Tensor(array, requires_grad=True, device="cpu", dtype=np.float64).data is array
    )
    assert Tensor(array).numpy() is array and Tensor(array).detach().data is array


def test_what_cannot_be_a_tensor():
    t = Tensor([1.0])
    fails(TypeError, "detach", Tensor, t)
    for data in ("text", None, [1j], object(), ["a", "b"]):
        fails(TypeError, "real numbers or booleans", Tensor, data)
    for data in (1, [True], np.ones(2, np.int8)):
        fails(TypeError, "floating-point.*dtype=", Tensor, data, requires_grad=True)
    assert Tensor([1, 2], requires_grad=True, dtype=np.float32).requires_grad
    for device in ("gpu", "gpu:1", "tpu", "cpu:1"):
        fails(DeviceError, device, Tensor, [1.0], device=device)


def test_detach_to_and_astype():
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    d = y.detach()
    assert not d.requires_grad and d.grad_fn is None and np.shares_memory(d.data, y.data)
    assert x.to("cpu") is x
    fails(DeviceError, "tpu", x.to, "tpu")
    assert x.astype(np.float64).requires_grad and not x.astype(int).requires_grad
    assert not np.shares_memory(x.astype(np.float32).data, x.data)
    i = Tensor([1, 0])
    assert i.astype(float).dtype == np.float64 and i.astype(bool).dtype == bool


# ------------------------------------------------------------------------------------------------------- as a container
def test_one_number():
    x = Tensor([[2.5]], requires_grad=True)
    assert x.item() == float(x) == 2.5 and int(x) == 2 and bool(x) and not Tensor(0)
    assert type(x.item()) is float and type(Tensor(3).item()) is int
    for f in (operator.methodcaller("item"), float, int, bool):
        fails(ValueError, r"\(2,\)", f, Tensor([1.0, 2.0]))


def test_length_and_iteration():
    x = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    a, b = x
    assert len(x) == 2 and b.data.tolist() == [3, 4]
    (a * b).sum().backward()
    assert x.grad.data.tolist() == [[3, 4], [1, 2]]
    fails(TypeError, "0-d", len, Tensor(1.0))
    fails(TypeError, "0-d", lambda: list(Tensor(1.0)))


def test_numpy_reads_constants_only():
    x = Tensor([1.0, 2.0], requires_grad=True)
    fails(RuntimeError, "detach", np.asarray, x)
    fails(RuntimeError, "detach", np.array, x * 2)
    d = x.detach()
    assert np.asarray(d) is d.data and np.array(d) is not d.data
    assert np.asarray(d, np.float64).dtype == np.float64 and np.array_equal(d, [1, 2])


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (Tensor([1.0, 2.0]), "Tensor([1., 2.], dtype=float32)"),
        (Tensor(np.array(3)), "Tensor(3, dtype=int64)"),
        (Tensor([1.5], requires_grad=True), "Tensor([1.5], dtype=float32, requires_grad=True)"),
        (Tensor([1.5], requires_grad=True) * 2, "Tensor([3.], dtype=float32, grad_fn=Mul)"),
    ],
)
def test_repr(tensor, text):
    assert repr(tensor) == text
    assert len(repr(Tensor(np.zeros(10**6)))) < 200


def test_hashing_is_by_identity():
    a, b = Tensor([1.0]), Tensor([1.0])
    assert len({a, b, a}) == 2 and {a: 1}.get(b) is None and hash(a) != hash(b)


def test_deep_copies_are_independent():
    x = Tensor([1.0, 2.0], requires_grad=True)
    x.sum().backward()
    y = copy.deepcopy(x)
    assert y.requires_grad and not np.shares_memory(x.data, y.data) and not np.shares_memory(x.grad.data, y.grad.data)


# ------------------------------------------------------------------------------------------------------------ operators
@pytest.mark.parametrize("op", [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne])
def test_comparisons_give_boolean_tensors(op):
    array, other = np.array([[1.0, 2.0, 3.0]]), np.array([[2.0], [3.0]])
    x = Tensor(array, requires_grad=True)
    for right, plain in [
        (2, 2),
        (2.0, 2.0),
        (np.float32(2), 2),
        (other, other),
        (Tensor(other), other),
        (Tensor([2, 2, 3]), [2, 2, 3]),
    ]:
        y = op(x, right)
        assert type(y) is Tensor and not y.requires_grad
        np.testing.assert_array_equal(y.data, op(array, plain), strict=True)
    for left, plain in [(2, 2), (other, other), (np.float64(2), 2)]:
        y = op(left, x)
        assert type(y) is Tensor
        np.testing.assert_array_equal(y.data, op(plain, array), strict=True)


def test_booleans_combine():
    a, b = np.array([True, True, False]), np.array([True, False, False])
    for right in (b, Tensor(b)):
        for y, expected in [(Tensor(a) & right, a & b), (Tensor(a) | right, a | b), (~Tensor(a), ~a)]:
            assert type(y) is Tensor
            np.testing.assert_array_equal(y.data, expected, strict=True)
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    assert ((x > 1) & (x < 3)).data.tolist() == [False, True, False]


def test_numbers_are_formatted_as_numbers():
    assert f"{Tensor([2.0]):.3f}" == "2.000" and f"{Tensor(3)}" == repr(Tensor(3))
    fails(ValueError, r"\(2,\)", format, Tensor([1.0, 2.0]), ".2f")


def test_float32_is_compared_as_float32():
    assert (Tensor([0.1]) == 0.1).item() and not (Tensor([0.1]) < 0.1).item()


REFLECTED = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.matmul]


@pytest.mark.parametrize("op", REFLECTED)
def test_constants_on_either_side(op):
    array = np.array([[1.0, 2.0], [3.0, 4.0]])
    x = Tensor(array, requires_grad=True)
    others = [array + 1, (array + 1).tolist()] + (
        [2, 2.0, np.float32(2), np.array(2.0), True] if op is not operator.matmul else []
    )
    for other in others:
        for y, expected in [(op(x, other), op(array, np.asarray(other))), (op(other, x), op(np.asarray(other), array))]:
            assert type(y) is Tensor and y.requires_grad and y.dtype == np.float64
            np.testing.assert_allclose(y.data, expected, rtol=1e-6)


def test_gradients_flow_through_reflected_operators():
    for f, slope in [
        (lambda x: 5 - x, -1), (lambda x: 8 / x, -2), (lambda x: 3 * x, 3), (lambda x: 3 + x, 1), (lambda x: 2**x, 4 * np.log(2)),
        (lambda x: np.array([[3.0]]) @ x.reshape(1, 1), 3), (lambda x: x - 5, 1), (lambda x: -x, -1), (lambda x: abs(-x), 1),
    ]:  # fmt: skip
        x = Tensor(np.array([2.0]), requires_grad=True)
        f(x).sum().backward()
        np.testing.assert_allclose(x.grad.data, [slope], rtol=1e-14)


def test_tensors_have_no_operators_in_place():
    x = y = Tensor([1.0, 2.0])
    y += 1
    y *= 2
    assert x.data.tolist() == [1, 2] and y.data.tolist() == [4, 6]
    with pytest.raises(TypeError):
        x[0] = 1.0


@pytest.mark.parametrize("bad", ["text", None, 1j, [1j], {}, object()])
def test_operands_that_are_not_numbers(bad):
    x = Tensor([1.0, 2.0])
    for op in (operator.add, operator.mul, operator.truediv, operator.pow):
        fails(TypeError, ".", op, x, bad)


def test_integers_that_do_not_fit():
    """As in NumPy, an integer that a Tensor's dtype cannot hold does not wrap around in silence."""
    for number in (300, -1):
        with pytest.raises(OverflowError):
            Tensor(np.array([1], np.uint8)) + number


def test_integer_tensors_keep_their_dtype_with_python_integers():
    for dtype in (np.uint8, np.int32, np.int64):
        assert (Tensor(np.array([1, 2], dtype)) + 1).dtype == dtype
    assert Tensor([2**53 + 1]).clip(0).item() == 2**53 + 1
    assert (Tensor([True]) + 1).dtype == int and (Tensor([1]) + np.array([1.5], np.float32)).dtype == np.float32
    assert (Tensor(np.array([1], np.int8)) + Tensor(np.array([1], np.int32))).dtype == np.int32


MIXTURES = [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b, lambda a, b: a**b, lambda a, b: a @ b,
            F.maximum, F.minimum, lambda a, b: F.concatenate([a, b]), lambda a, b: F.stack([a, b]), lambda a, b: F.where(True, a, b)]  # fmt: skip


@pytest.mark.parametrize("number", range(len(MIXTURES)))
def test_two_floating_dtypes_do_not_mix(number):
    a, b = (Tensor(np.ones((2, 2), dtype)) for dtype in (np.float32, np.float64))
    for pair in ((a, b), (b, a)):
        fails(TypeError, r"^[A-Z]\w+: .*float(32|64) and float(32|64).*astype", MIXTURES[number], *pair)


def test_shapes_that_do_not_fit():
    a, b = Tensor(np.ones((2, 3))), Tensor(np.ones((4, 5)))
    for op, name in [
        (operator.add, "Add"),
        (operator.sub, "Sub"),
        (operator.mul, "Mul"),
        (operator.truediv, "Div"),
        (operator.pow, "Pow"),
    ]:
        fails(ValueError, rf"{name}.*\(2, 3\).*\(4, 5\)", op, a, b)
    fails(ValueError, r"\(2, 3\) and \(4, 5\): the inner dimensions 3 and 4 differ", operator.matmul, a, b)
    fails(
        ValueError, r"\(2, 3\) and \(2,\): the inner dimensions 3 and 2 differ", operator.matmul, a, Tensor(np.ones(2))
    )
    fails(ValueError, r"\(3,\).*\(2, 3\)", operator.matmul, Tensor(np.ones(3)), a)
    fails(ValueError, ".", operator.matmul, Tensor(np.ones((2, 3, 4))), Tensor(np.ones((3, 4, 5))))
    for scalar in (2.0, Tensor(2.0)):
        fails(ValueError, "0-d", operator.matmul, a, scalar)
        fails(ValueError, "0-d", operator.matmul, scalar, a)


def test_arguments_of_methods_that_do_not_fit():
    x = Tensor(np.ones((2, 3)))
    fails(ValueError, r"Reshape.*\(2, 3\)", x.reshape, 4, 2)
    fails(ValueError, r"BroadcastTo.*\(2, 3\)", x.broadcast_to, 2, 4)
    for axes in [(0,), (0, 0), (0, 3), (0, 1, 2), (-3, 1), (1, 2)]:
        fails(ValueError, "transpose|axis", x.transpose, *axes)
    for method in (x.sum, x.mean, x.var, x.max, x.min):
        for axis in (2, -3, (0, -2)):
            fails(ValueError, "axis", method, axis)
    fails((ValueError, IndexError), "ax(i|e)s", x.swapaxes, 0, 3)
    for sizes in [(2.5,), ("a",), (None,)]:
        fails(TypeError, ".", x.reshape, *sizes)
    for index in (2, (0, 0, 0), [5], 1.5, "a"):
        with pytest.raises(IndexError):
            x[index]


def test_sizes_and_axes_may_come_in_one_tuple_or_several_arguments():
    x = Tensor(np.arange(6.0).reshape(2, 3))
    assert x.reshape(3, 2).shape == x.reshape((3, 2)).shape == x.reshape([3, -1]).shape == (3, 2) and x.reshape(
        -1
    ).shape == (6,)
    assert (
        x.transpose(1, 0).shape
        == x.transpose((1, 0)).shape
        == x.transpose().shape
        == x.T.shape
        == x.transpose(-1, -2).shape
        == (3, 2)
    )
    assert x.broadcast_to(1, 2, 3).shape == x.broadcast_to((1, 2, 3)).shape == (1, 2, 3)
    assert Tensor(1.0).transpose().shape == Tensor(1.0).reshape(()).shape == Tensor([[1.0]]).reshape(()).shape == ()
    assert Tensor(np.ones((2, 3, 4))).swapaxes(0, -1).shape == (4, 3, 2)
    for axes in ((None, 0), (0, (1,)), (1.0, 0)):
        fails(ValueError, "^swapaxes: axis must be a whole number, not ", Tensor(np.ones((2, 3, 4))).swapaxes, *axes)


def test_the_mean_and_the_variance_of_nothing_are_nan():
    x = Tensor(np.zeros((2, 0)))
    for y in (x.mean(1), x.var(1), x.mean((0, 1), keepdims=True), Tensor([[1.0], [2.0]]).var(1, ddof=1)):
        assert y.size and np.isnan(y.data).all()
    assert np.isnan(Tensor([1.0]).var(ddof=2).item())


def test_argmax():
    array = np.array([[1.0, 5.0, 5.0], [7.0, 2.0, 7.0]])
    x = Tensor(array, requires_grad=True)
    for axis in (None, 0, 1, -1):
        y = x.argmax(axis)
        assert type(y) is Tensor and not y.requires_grad and y.dtype.kind == "i"
        np.testing.assert_array_equal(y.data, array.argmax(axis))


# ---------------------------------------------------------------------------------------------------------------- apply
class Twice(Function):
    def forward(self, x, *others):
        return x * 2

    def backward(self, grad):
        return (grad * 2,) + (None,) * (len(self.needs_input_grad) - 1)


def test_apply_records_only_what_leads_to_a_leaf():
    x, c = Tensor([1.0], requires_grad=True), Tensor([1.0])
    assert apply(Twice(), c).grad_fn is None and not apply(Twice(), c).requires_grad
    assert isinstance(apply(Twice(), x).grad_fn, Twice) and apply(Twice(), x, c, 2).requires_grad
    with no_grad():
        assert apply(Twice(), x).grad_fn is None
    assert isinstance(x.apply(Twice(), x).grad_fn, Twice)
    fails(TypeError, "Twice.*Tensor", apply, Twice(), np.ones(2))


# ------------------------------------------------------------------------------------------------------------ gradients
def test_backward_of_what_cannot_be_differentiated():
    x = Tensor([1.0, 2.0], requires_grad=True)
    with no_grad():
        y = x * 2
    for t in (y, Tensor([1.0]), x.detach(), x > 1, x.argmax(), x.astype(int)):
        fails(RuntimeError, "nothing to differentiate", t.backward)
    fails(RuntimeError, "input 1 does not require a gradient", grad, (x * 2).sum(), [x, Tensor([1.0])])
    for output, inputs, gradients in [([], x, None), (x, [], None), (x, x, [None, None])]:
        fails(ValueError, "outputs", grad, output, inputs, gradients)


def test_output_gradients():
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    fails(RuntimeError, r"shape \(2,\)", (x * 2).backward)
    fails(RuntimeError, r"shape \(2,\)", grad, x * 2, x)
    for bad in (np.ones(3), np.ones((2, 1)), 1.0, Tensor(np.ones(2, np.float32)), Tensor([1, 1]), Tensor(np.ones(1))):
        fails(ValueError, r"shape \(2,\) and dtype float64", (x * 2).backward, bad)
        fails(ValueError, r"shape \(2,\) and dtype float64", grad, x * 2, x, [bad])
    (x * 2).backward(np.ones(2, np.float32))  # a constant takes the output's dtype
    x.sum().backward(3)
    np.testing.assert_array_equal(x.grad.data, [5.0, 5.0], strict=True)


def test_hooks_see_the_accumulated_gradient_of_each_pass_and_are_removed_one_by_one():
    a, b, x = [], [], Tensor([1.0], requires_grad=True)
    hook = lambda t: a.append(t.grad.item())  # noqa: E731
    removers = [x.register_post_accumulate_grad_hook(hook) for _ in range(2)]
    x.register_post_accumulate_grad_hook(lambda t: b.append(t.grad.item()))
    (x * 2).backward()
    grad(x * 2, x)  # touches no .grad, so no hook
    removers[0]()
    removers[0]()
    (x * 3 + x).backward()
    assert a == [2, 2, 6] and b == [2, 6]
    for t in (x * 2, Tensor([1.0])):
        fails(RuntimeError, "leaf", t.register_post_accumulate_grad_hook, hook)


def test_hooks_run_unrecorded_and_may_take_the_gradient_away():
    modes, x = [], Tensor([1.0], requires_grad=True)

    def hook(t):
        modes.append(is_recording())
        t.grad = None

    x.register_post_accumulate_grad_hook(hook)
    (x * 2).backward()
    assert modes == [False] and x.grad is None


VIEWS = {
    "itself": lambda w: w, "reshape": lambda w: w.reshape(4), "transpose": lambda w: w.transpose(1, 0), "T": lambda w: w.T,
    "swapaxes": lambda w: w.swapaxes(0, 1), "row": lambda w: w[0], "NumPy integer": lambda w: w[np.int64(0)],
    "slice": lambda w: w[:, ::-1], "new axis": lambda w: w[None], "iteration": lambda w: list(w)[1],
    "broadcast_to": lambda w: w.broadcast_to(3, 2, 2), "view of a view": lambda w: w.T[1:].reshape(2), "detach": lambda w: w.detach(),
}  # fmt: skip


def step(optimizer):
    def write(w):
        w.grad = Tensor(np.ones((2, 2)))
        optimizer([w], 0.1).step()

    return write


def load(w):
    module = nn.Module()
    module.w = w
    module.load_state_dict({"w": np.zeros((2, 2))})


@pytest.mark.parametrize("write", [step(optim.SGD), step(optim.Adam), load])
@pytest.mark.parametrize("view", VIEWS)
def test_a_backward_pass_notices_that_a_parameter_was_overwritten(view, write):
    w, x = nn.Parameter(np.arange(4.0).reshape(2, 2)), Tensor(np.ones(1), requires_grad=True)
    v = VIEWS[view](w)
    y, z = (v * x).sum(), (v * x).sum()
    write(w)
    fails(RuntimeError, "Mul.*overwritten", y.backward)
    fails(RuntimeError, "Mul.*overwritten", lambda: grad(z, x))
    (VIEWS[view](w) * x).sum().backward()  # the new value is fine


def test_the_public_names():
    for name in minicnn.__all__:
        assert getattr(minicnn, name) is not None
    for package, kind in ((minicnn.functional, types.FunctionType), (minicnn.nn, type)):
        there = {name: getattr(package, name) for name in package.__all__ if name != "init"}
        assert {"relu", "conv2d"} <= set(there) or {"ReLU", "Conv2d", "Sequential"} <= set(there)
        for name, thing in there.items():
            assert isinstance(thing, kind) and thing.__name__ == name and thing.__doc__
            assert thing.__module__.startswith(package.__name__ + ".")


@pytest.mark.parametrize("name", "iadd isub imul itruediv ipow imatmul".split())
def test_in_place_operators_make_new_tensors_and_refuse_leaves(name):
    operate, plain = getattr(operator, name), getattr(operator, name[1:])
    leaf, constant, other = Tensor(np.ones((2, 2)), requires_grad=True), Tensor(np.ones((2, 2))), np.full((2, 2), 3.0)
    sign = {"imatmul": "@=", "ipow": "**=", "itruediv": "/=", "iadd": "+=", "isub": "-=", "imul": "*="}[name]
    for held in (leaf, nn.Parameter(np.ones((2, 2)))):
        fails(
            TypeError,
            rf"^{re.escape(sign)} makes a new Tensor.*\(2, 2\).*p.data {re.escape(sign)} ",
            operate,
            held,
            other,
        )
        with no_grad():
            fails(TypeError, "optim.SGD", operate, held, other)
    np.testing.assert_array_equal(leaf.data, np.ones((2, 2)))
    for x in (constant, leaf * 1.0):
        y = operate(x, other)
        assert y is not x and y.requires_grad == x.requires_grad
        np.testing.assert_array_equal(y.data, plain(x, other).data)


def test_habits_of_pytorch():
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    fails(ValueError, r"transpose\(0, 1\) of shape \(2, 3\).*swapaxes\(0, 1\) or \.T", x.transpose, 0, 1)
    assert x.transpose((0, 1)).shape == (2, 3) and x.reshape(2, 3, 1).transpose(0, 1, 2).shape == (2, 3, 1)
    fails(ValueError, "swapaxes", x.reshape(2, 3, 1).transpose, 0, 1)


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i4"])
def test_numbers_of_another_byte_order_are_turned_at_the_door(dtype):
    """As files of HDF5 have them. What comes in as an operand, too."""
    big = np.arange(1.0, 4.0).astype(dtype)
    x = Tensor(big)
    assert x.dtype.isnative and x.dtype == big.dtype.newbyteorder("=") and x.data.tolist() == [1, 2, 3]
    w = Tensor(big.astype(float).astype(">f8"), requires_grad=True)
    (w * big.astype(">f8")).sum().backward()
    assert (Tensor(np.arange(3)) + big.astype(">i4")).dtype.isnative
    assert Tensor([1.0], dtype=dtype).dtype.isnative and x.astype(dtype).dtype.isnative
    assert w.grad.data.tolist() == [1, 2, 3] and w.grad.dtype.isnative


def test_no_gradient_is_lost_between_threads(monkeypatch):
    """That add to one leaf at the same time."""
    add = Tensor.__add__
    monkeypatch.setattr(Tensor, "__add__", lambda a, b: (add(a, b), time.sleep(1e-5))[0])  # others may go on now
    w = Tensor(np.zeros(1000, np.float32), requires_grad=True)

    def work():
        for _ in range(50):
            (w * 1.0).sum().backward()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (w.grad.data == 200).all()


def test_numpys_small_methods():
    array = np.random.default_rng(0).standard_normal((2, 1, 3))
    x = Tensor(array, requires_grad=True)
    for f in (
        lambda a: a.flatten(), lambda a: a.squeeze(), lambda a: a.squeeze(1), lambda a: a.squeeze(-2), lambda a: a.copy(),
        lambda a: a.std(), lambda a: a.std(0, keepdims=True, ddof=1), lambda a: a.std((0, 2)), lambda a: a.argmin(), lambda a: a.argmin(2),
        lambda a: (a > 0).any(), lambda a: (a > 0).all(0), lambda a: a.any((0, 1)), lambda a: a.all(-1),
    ):  # fmt: skip
        ours, theirs = f(x), np.asarray(f(array))
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-12)
        assert ours.shape == theirs.shape and (ours.dtype == bool) == (theirs.dtype == bool)
    for f in (lambda a: a.flatten() * a.squeeze().flatten(), lambda a: a.copy() * a, lambda a: a.std(2)):
        assert minicnn.gradcheck(f, x) and minicnn.gradgradcheck(f, x)
    assert x.copy().data is not x.data and Tensor(np.ones((0, 3))).flatten().shape == (0,)
    fails(ValueError, r"squeeze\(0\) of shape \(2, 1, 3\)", x.squeeze, 0)


class Swish(minicnn.Function):
    saves = ((0,),)

    def forward(self, x):
        return x / (1 + np.exp(-x))

    def backward(self, dy):
        (x,) = self.saved_inputs
        s = F.sigmoid(x)
        return dy * (s + x * s * (1 - s))


def test_an_operation_of_ones_own():
    x = Tensor(np.random.default_rng(0).standard_normal(4), requires_grad=True)
    f = lambda x: minicnn.apply(Swish(), x)  # noqa: E731
    assert minicnn.gradcheck(f, x) and minicnn.gradgradcheck(f, x)


def test_what_is_forgotten_in_an_operation_of_ones_own():
    x = Tensor([1.0, 2.0], requires_grad=True)

    class Unsaved(Swish):
        saves = ()

    class Unsaved2(Unsaved):
        def backward(self, dy):
            return dy * self.saved_inputs[0]

    class Silent(Swish):
        def forward(self, x):
            x * 2

    class Wrapped(Swish):
        def forward(self, x):
            return Tensor(x)

    fails(TypeError, "Wrapped.forward returned a Tensor, not an array", minicnn.apply, Wrapped(), x)
    for use in (lambda x: 2 * x, lambda x: -x, lambda x: x > 0, lambda x: x**2, lambda x: x @ x, lambda x: x[0], abs):
        Unsaved2.backward = lambda self, dy, use=use: use(self.saved_inputs[0])
        y = minicnn.apply(Unsaved2(), x).sum()
        fails(AttributeError, "not kept for the backward pass.*`saves`", y.backward)
    Unsaved2.backward = lambda self, dy: dy * self.saved_inputs[0]
    for broken in (Unsaved, Unsaved2):
        fails(TypeError, "not kept for the backward pass.*`saves`", minicnn.apply(broken(), x).sum().backward)
    fails(TypeError, r"Silent.forward returned a NoneType, not an array", minicnn.apply, Silent(), x)
    fails(TypeError, r"new object for each call: apply\(Swish\(…\), x\)", minicnn.apply, Swish, x)
    fails(TypeError, r"minicnn.apply\(Swish\(…\), x\)", Swish.apply, x)


@pytest.mark.parametrize(
    "function", [np.exp, lambda a: a, None, "exp", nn.ReLU(), nn.Linear(1, 1), Tensor([1.0]), nn.ReLU]
)
def test_apply_takes_functions_of_its_own_kind(function):
    x = Tensor([[1.0]], requires_grad=True)
    what = getattr(function, "__name__", type(function).__name__)
    words = f"apply takes an object of a subclass of minicnn.Function, .*; {what} is not one$"
    for arguments in ((x,), (x, 2.0), (np.exp,), ()):
        fails(TypeError, words, minicnn.apply, function, *arguments)
    fails(TypeError, words, x.apply, function)


class OfAnotherLibrary:
    """An array that NumPy can read, whose dtype and device are not NumPy's, such as PyTorch's."""

    dtype, device = "theirs.float32", "theirs:0"

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array

    def __getattr__(self, name):
        return getattr(self.array, name)


def test_arrays_of_another_library_are_read():
    theirs = OfAnotherLibrary(np.array([1.0, 2.0], np.float32))
    assert (Tensor([3.0, 4.0]) * theirs).data.tolist() == [3, 8]
    assert (Tensor([3, 4]) * theirs).data.tolist() == [3, 8]
    x = Tensor([1.0, 1.0], requires_grad=True)
    x.backward(theirs)
    assert x.grad.data.tolist() == [1, 2]
    layer = nn.Linear(1, 2)
    layer.load_state_dict({"weight": OfAnotherLibrary(np.ones((1, 2), np.float32)), "bias": theirs})
    assert layer.bias.data.tolist() == [1, 2]


def test_what_is_said_of_a_vector_that_is_asked_whether_it_is_true():
    fails(ValueError, r"shape \(2,\) is neither true nor false: write .any\(\) or .all\(\)", bool, Tensor([1.0, 0.0]))
    assert Tensor([[1.0]]) and not Tensor(0)


def test_whether_a_device_is_there():
    assert minicnn.is_available("cpu") and not minicnn.is_available("cuda") and not minicnn.is_available("gpu:99")


def test_what_no_tensor_is_made_of():
    for given in ("text", None, 1j, [[1.0], [2.0, 3.0]], {}, object(), 10**400, Tensor):
        fails(TypeError, "^a Tensor holds real numbers or booleans, not ", Tensor, given)
    fails(TypeError, "not complex128$", Tensor, np.ones(2, complex))
    fails(TypeError, r"not \['a'\]$", Tensor, ["a"])
    for dtype in ("float33", complex, object, "U3", "a", 3, [], (np.float32, (2,)), "i4,f4", None):
        if dtype is not None:
            fails(
                TypeError, "^Tensor: dtype must be one of real numbers or booleans, such as", Tensor, 1.0, dtype=dtype
            )
        fails(TypeError, "^astype: dtype must be one of real numbers", Tensor(1.0).astype, dtype)
    for flag in ("yes", 2, np.ones(2)):
        fails(ValueError, "^Tensor: requires_grad is False or True, not ", Tensor, 1.0, requires_grad=flag)
    for device in (3, None, ["cpu"], np.ones(2), Tensor(1.0)):
        fails(DeviceError, "^device must be 'cpu', 'gpu' or 'gpu:N', not ", Tensor(1.0).to, device)


def test_operands_that_do_not_fit():
    """What NumPy says of them comes behind the operation's name and what it was given."""
    x, floats = Tensor(np.ones((2, 3))), Tensor([1.0])
    for op, name in ((operator.lt, "lt"), (operator.eq, "eq"), (operator.and_, "and")):
        other, tensors = (Tensor([True, False]), x > 0) if name == "and" else (Tensor(np.ones(2)), x)
        message = fails(ValueError, "could not be broadcast", op, tensors, other)
        assert message.startswith(f"{name} of shape (2, 3) and (2,): ")
        fails(TypeError, f"^{name} takes numbers, arrays of numbers and Tensors, not 'a'$", op, x, "a")
    fails(
        TypeError,
        r"^and of shape \(1,\) and \(1,\) and dtype float32 and float32: ufunc",
        operator.and_,
        floats,
        floats,
    )
    fails(TypeError, r"^invert of shape \(1,\) and dtype float32: ufunc", operator.invert, floats)
    fails(ValueError, r"^Add of shape \(2, 3\) and \(2,\): operands", operator.add, x, Tensor(np.ones(2)))
    fails(TypeError, r"^Neg of shape \(\) and dtype bool: ", operator.neg, Tensor(np.array(True)))
    fails(TypeError, "^matmul takes Tensors and arrays of numbers, not 'a'$", operator.matmul, x, "a")
    fails(ValueError, r"^matmul: a 0-d operand in a matrix product of shapes \(2, 3\) and \(\)", operator.matmul, x, 2)
    bytes_ = Tensor(np.array([1], np.uint8))
    assert fails(OverflowError, ".", operator.add, bytes_, 300) == (
        "Add: 300 does not fit uint8: convert the Tensor with .astype(…)"
    )
    fails(OverflowError, "^eq: -1 does not fit uint8", operator.eq, bytes_, -1)
    nothing = r"^Where of 1 and \[2.0\]: none of the arguments is a Tensor: wrap an array as Tensor\(array\)$"
    fails(TypeError, nothing, F.where, [True], 1, [2.0])


def test_indices_that_do_not_fit():
    x = Tensor(np.ones((2, 3)))
    for index in (5, (0, 0, 0), 1.5, "a", {}, slice("a"), [[1], [2, 3]], np.ones(2)):
        with pytest.raises(
            (IndexError, TypeError, ValueError), match=r"^(Index of|index .*of) shape \(2, 3\)"
        ) as caught:
            x[index]
        assert caught.value.__cause__ is not None and "\n" not in str(caught.value)
    with pytest.raises(IndexError, match=r"^Index of shape .* and dtype float64: index 5 is out of bounds"):
        x[5]


def test_axes_and_settings_of_methods():
    x = Tensor(np.ones((2, 3)))
    for name in ("sum", "mean", "var", "std", "max", "min", "argmax", "argmin", "any", "all", "squeeze"):
        for axis in (1.5, "0", {}, np.ones(2), 2**70):
            fails(ValueError, "axis must be a whole number, not ", getattr(x, name), axis)
        if name != "squeeze":
            fails(ValueError, "axis.* 2 ", getattr(x, name), 2)
    for name in ("sum", "mean", "max", "min"):
        fails(ValueError, "keepdims is False or True, not 'yes'$", getattr(x, name), 0, "yes")
        assert getattr(x, name)(0, np.True_).shape == (1, 3) and getattr(x, name)(0, 1).shape == (1, 3)
    for name in ("var", "std"):
        fails(ValueError, "^var: ddof must be a finite number, not 'a'$", getattr(x, name), ddof="a")
    for bound in ("low", "high"):
        for value in ("a", 1j, [1.0], np.nan):
            fails(ValueError, f"^clip: {bound} must be a number, not ", x.clip, **{bound: value})
        assert x.clip(**{bound: np.float64(1)}).dtype == x.dtype
    assert Tensor([1, 5]).clip(0, np.float32(1.5)).numpy().tolist() == [1, 1.5]
    assert x.any((0, 1)).item() and x.all(-1).shape == (2,) and x.argmax(-2).shape == (3,)
    for name in ("reshape", "transpose", "broadcast_to"):
        fails(TypeError, rf"^{name} takes integers or a tuple of them, not \(1.5, 2\)$", getattr(x, name), 1.5, 2)
    fails(ValueError, r"^Reshape of shape \(2, 3\): ", x.reshape, 2**70)
    fails(ValueError, "does not name each of 0 axes once", Tensor(1.0).transpose, 0)
    fails(ValueError, "names the axes in the order that they have", x.transpose, np.int64(0), 1)
    assert x.transpose((0, 1)).shape == (2, 3)


def test_passes_that_are_asked_for_wrongly():
    x = Tensor([1.0, 2.0], requires_grad=True)
    for name in ("retain_graph", "create_graph"):
        fails(ValueError, f"^backward: {name} is False or True, not 'yes'$", (x * x).sum().backward, **{name: "yes"})
        fails(ValueError, f"^grad: {name} is False or True, not 2$", grad, (x * x).sum(), x, **{name: 2})
    fails(TypeError, "^grad: outputs must be a list of Tensors, not 3$", grad, 3, x)
    fails(TypeError, "^grad: inputs must be a list of Tensors, not with 3$", grad, x.sum(), [x, 3])
    fails(TypeError, "^grad: grad_outputs must be a list, not 3$", grad, x.sum(), x, 3)
    fails(
        TypeError, "^grad: a gradient takes numbers, arrays of numbers and Tensors, not 'a'$", grad, x.sum(), x, ["a"]
    )
    fails(TypeError, "^backward: a gradient takes numbers, .*, not 'a'$", x.sum().backward, "a")
    fails(ValueError, r"^backward: a gradient of shape \(3,\)", (x * x).backward, np.ones(3))
    fails(RuntimeError, r"^grad from shape \(2,\) needs a gradient", grad, x * x, x)
    fails(
        RuntimeError,
        r"^backward: nothing to differentiate: no input of this Tensor of shape \(\)",
        Tensor(1.0).backward,
    )
    fails(TypeError, "^a gradient hook must be callable, not 3$", x.register_post_accumulate_grad_hook, 3)
    for other, why in ((Tensor(1.0), r"of shape \(\) requires no gradient$"), (x * x, r"\(2,\) is the result of Mul$")):
        fails(RuntimeError, f"needs a leaf.*{why}", other.register_post_accumulate_grad_hook, print)


@pytest.mark.parametrize("error", [ValueError, IndexError, KeyError, ZeroDivisionError, OverflowError, TypeError])
def test_an_error_in_forward(error):
    """It keeps its cause, with the line of the operation's author; what is no error of arguments stays as it is."""

    class Broken(Function):
        def forward(self, x):
            raise error("two\nlines")

    kinds = {KeyError: ValueError, ZeroDivisionError: ValueError, OverflowError: ValueError}
    with pytest.raises(kinds.get(error, error), match=r"^Broken of shape \(2,\).*: '?two.*lines'?$") as caught:
        minicnn.apply(Broken(), Tensor([1.0, 2.0]))
    assert type(caught.value.__cause__) is error
    assert ("and dtype float32" in str(caught.value)) == (error in (IndexError, TypeError))


@pytest.mark.parametrize("name, sign", [("plus", operator.add), ("times", operator.mul)])
def test_sums_and_products_of_a_backward_pass(name, sign):
    """They are recorded and observed like all others, where someone records or looks."""
    a, b = Tensor(np.array([2.0, np.inf]), requires_grad=True), Tensor(np.array([3.0, 4.0]))
    with no_grad():
        y = getattr(a, name)(b)
        assert y.data.tolist() == sign(a, b).data.tolist() and y.grad_fn is None and not y.requires_grad
        scalar = getattr(Tensor(np.array(2.0)), name)(Tensor(np.array(3.0)))
        assert isinstance(scalar.data, np.ndarray) and scalar.shape == ()
    assert getattr(a, name)(b).grad_fn.name == sign(a, b).grad_fn.name
    with (
        minicnn.detect_anomaly(),
        no_grad(),
        pytest.raises(ArithmeticError, match=f"the output of {sign.__name__.title()}, of"),
    ):
        getattr(a, name)(b)
