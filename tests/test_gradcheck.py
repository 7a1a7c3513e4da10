"""The gradient checks are checked: each kind of wrong derivative and each vacuous case must make them fail."""

import inspect

import numpy as np
import pytest
from reference import fails

from minicnn import GradcheckError, Tensor, gradcheck, gradgradcheck, no_grad
from minicnn import functional as F
from minicnn.autograd import Function, is_recording
from minicnn.tensor import apply

MODES = {"whole Jacobian": {}, "directions": {"full_jacobian": 0}}
modes = pytest.mark.parametrize("mode", MODES)


def leaf(*shape, seed=0):
    return Tensor(np.random.default_rng(seed).uniform(0.5, 1.5, shape), requires_grad=True)


class Given(Function):
    """A function whose two halves are given; backward(g, *inputs) returns the gradients."""

    def __init__(self, forward, backward, n=1):
        self.f, self.g, self.saves = forward, backward, (tuple(range(n)),) * n

    def forward(self, *arrays):
        return self.f(*arrays)

    def backward(self, grad):
        return self.g(grad, *self.saved_inputs)


def given(forward, backward, n=1):
    return lambda *inputs: apply(Given(forward, backward, n), *inputs)


def rejects(pattern, f, inputs, check=gradcheck, **options):
    """The check raises GradcheckError, in one line, and leaves everything as it was."""
    with pytest.raises(GradcheckError, match=pattern) as caught:
        check(f, inputs, **options)
    assert "\n" not in str(caught.value)
    for x in [inputs] if isinstance(inputs, Tensor) else inputs:
        assert x.grad is None
    assert is_recording()


# ------------------------------------------------------------------------------------------------- what is right passes
@modes
@pytest.mark.parametrize(
    "f",
    [
        lambda x: x * x,
        lambda x: x.sum(),
        lambda x: (x.exp(), x[0]),
        lambda x: x.T @ x,
        lambda x: x * 1e6,
        lambda x: F.softmax(x) * 1e-6,
        lambda x: (x, x + 1e8),
    ],
)
def test_right_derivatives_pass(f, mode):
    x = leaf(3, 3)
    x.grad = kept = Tensor(np.ones((3, 3)))
    before = x.data.copy()
    assert gradcheck(f, x, **MODES[mode]) is True
    assert gradgradcheck(f, x, **MODES[mode]) is True
    assert x.grad is kept and (kept.data == 1).all() and (x.data == before).all()


def test_checks_work_under_no_grad_and_with_inputs_of_every_kind():
    x, w, c, labels = leaf(2, 3), leaf(3, 2), Tensor(np.ones(2)), Tensor([1, 0])
    with no_grad():
        for check in (gradcheck, gradgradcheck):
            assert check(lambda x, w, c, labels: F.cross_entropy(x @ w + c, labels), [x, w, c, labels])
            assert check(lambda x, e: x * 2, (x, Tensor(np.zeros((0, 2)))))
            assert check(lambda a, b: a + b, (x * 2, leaf(3)))  # an input that is no leaf
        assert not is_recording()


def test_inputs_and_outputs_without_elements_may_stand_beside_others():
    e = Tensor(np.zeros((0, 3)), requires_grad=True)
    assert gradcheck(lambda x, e: F.concatenate([x, e]), [leaf(2, 3), e])
    for check in (gradcheck, gradgradcheck):
        assert check(lambda x: (x[:0], x * 2), leaf(3))


@modes
def test_a_steep_slope_through_0_passes(mode):
    x = Tensor(np.ones(3), requires_grad=True)
    assert gradcheck(lambda x: (x - 1.0) * 1e6, x, **MODES[mode])


def test_f_sees_copies_and_is_recorded_only_where_that_is_needed():
    x, modes = leaf(3), {"forward": set(), "backward": set()}

    def forward(array):
        assert not np.shares_memory(array, x.data)
        modes["forward"].add(is_recording())
        return np.square(array)

    def backward(g, x):
        modes["backward"].add(is_recording())
        return g * x * 2

    assert gradcheck(given(forward, backward), x)
    assert modes == {"forward": {True, False}, "backward": {False}}


def test_both_checks_have_the_same_options():
    for check in (gradcheck, gradgradcheck):
        assert check(lambda x: x * x, leaf(1))
        options = {
            name: p.default for name, p in inspect.signature(check).parameters.items() if p.default is not p.empty
        }
        assert options == {"eps": 1e-5, "rtol": 1e-6, "atol": 0.0, "full_jacobian": 10_000, "seed": 0}


# -------------------------------------------------------------------------------------------------- what is wrong fails
ONE = np.zeros((3, 3))
ONE[1, 2] = 1
WRONG = {  # for the square, whose gradient is 2gx
    "scaled": lambda g, x: g * x * 2.0001,
    "scaled by a half": lambda g, x: g * x,
    "zeroed": lambda g, x: g * 0.0,
    "sign flipped": lambda g, x: -g * x * 2,
    "shifted": lambda g, x: (g * x * 2)[[2, 0, 1]],
    "transposed": lambda g, x: (g * x * 2).T,
    "a little too large": lambda g, x: g * x * 2 + 1e-4,
    "one entry": lambda g, x: g * x * 2 * (1 + 0.01 * ONE),
    "one entry dropped": lambda g, x: g * x * 2 * (1 - ONE),
    "what flows in is taken for its mean": lambda g, x: g.mean() * x * 2,
    "what flows in is taken for 1": lambda g, x: g * 0.0 + x * 2,
    "right for unit vectors": lambda g, x: x * 2 * (g.data != 0),
    "right where positive numbers flow in": lambda g, x: abs(g) * x * 2,
    "right for numbers up to 1": lambda g, x: g.clip(-1, 1) * x * 2,
}


@modes
@pytest.mark.parametrize("what", WRONG)
def test_wrong_gradients_fail(what, mode):
    rejects("gradient of input 0", given(np.square, WRONG[what]), leaf(3, 3), **MODES[mode])


@modes
def test_a_jacobian_wrong_off_its_diagonal_fails(mode):
    matrix = np.arange(9.0).reshape(3, 3)
    for wrong in (matrix.T, np.diag(np.diag(matrix)), matrix + 1e-4 * ONE, matrix - 2 * matrix * ONE):
        rejects("input 0", given(lambda x: matrix @ x, lambda g, x, wrong=wrong: wrong.T @ g), leaf(3), **MODES[mode])


@modes
def test_one_wrong_input_or_output_among_several_fails(mode):
    wrong = given(lambda a, b: a * b, lambda g, a, b: (g * b, g * a * 1.001), n=2)
    rejects("input 1", wrong, [leaf(3), leaf(3, seed=1)], **MODES[mode])
    assert gradcheck(wrong, [leaf(3), leaf(3, seed=1).detach()], **MODES[mode])
    square = given(np.square, lambda g, x: g * x * 2.001)
    rejects("input 0", lambda x: (x.exp(), square(x), x.sum()), leaf(3), **MODES[mode])
    rejects("input 0", lambda x: (x * 10).sum() + square(x)[0], leaf(3), **MODES[mode])


@modes
def test_a_large_value_does_not_hide_a_wrong_slope(mode):
    """Differences of numbers near 1e8 are still good to 1e-3."""
    for offset in (1e3, 1e8, -1e8):
        shifted = lambda backward, offset=offset: given(lambda x: x + offset, backward)  # noqa: E731
        assert gradcheck(shifted(lambda g, x: g * 1.0), leaf(3), **MODES[mode])
        rejects("input 0", shifted(lambda g, x: g * 0.5), leaf(3), **MODES[mode])


def test_one_wrong_entry_of_many_fails_by_directions():
    scale = np.ones(20_000)
    scale[1234] = 0
    rejects("input 0", given(np.square, lambda g, x: g * x * 2 * scale), leaf(20_000))
    assert gradcheck(lambda x: (3 * x).exp(), leaf(20_000))  # so many small steps make no large one


def test_the_report_names_the_input_and_the_worst_entry():
    slope = np.array([[2.0, 2.0, 2.0], [2.0, 2.0, 7.0]])
    wrong = given(lambda a, b: a * 1.0 + b * 2.0, lambda g, a, b: (g * 1.0, g * slope), n=2)
    rejects(
        r"input 1, shape \(2, 3\).*output\[5\].*\(1, 2\).*7\.?0* by autograd, (2|1\.99999).* by differences.*1 of 36",
        wrong, [leaf(2, 3), leaf(2, 3)],
    )  # fmt: skip


def test_tolerances_steps_and_seeds_are_the_callers():
    nearly = given(np.square, lambda g, x: g * x * 2.0001)
    assert gradcheck(nearly, leaf(3), rtol=1e-3) and gradcheck(nearly, leaf(3), atol=1e-2)
    rejects("input 0", lambda x: x**3, leaf(3), eps=1e-1)  # ε² is not small
    for full_jacobian, size, directional in [(16, 4, False), (15, 4, True), (0, 1, True), (1, 1, False)]:
        rows = []
        f = given(np.square, lambda g, x, rows=rows: rows.append(g.data.copy()) or g * x * 2)
        assert gradcheck(f, leaf(size), full_jacobian=full_jacobian)
        assert any(np.array_equal(row, np.eye(size)[0]) for row in rows) is not directional
    flows = []
    for seed in (0, 0, 1):
        rows = []
        gradcheck(given(np.square, lambda g, x, rows=rows: rows.append(g.data.copy()) or g * x * 2), leaf(3), seed=seed)
        flows.append(np.array(rows))
    assert np.array_equal(flows[0], flows[1]) and not np.array_equal(flows[0], flows[2])


# ---------------------------------------------------------------------------------------------- what says nothing fails
@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_vacuous_checks_fail(check):
    x = leaf(3)
    rejects("nothing to check.*requires_grad", lambda x: x * 2, x.detach(), check)
    rejects("nothing to check.*requires_grad", lambda: Tensor(np.ones(1)), [], check)
    rejects("nothing to check", lambda e: e.sum(), Tensor(np.zeros((0, 2)), requires_grad=True), check)
    rejects("nothing to check", lambda x: x[:0], x, check)
    rejects("nothing to check", lambda x: (), x, check)
    rejects("receives no", lambda x: Tensor(np.ones(3)), x, check)
    rejects("input 0 receives no gradient|receives no first", lambda x: x.detach() * 2, x, check)
    rejects("input 1 receives no gradient|receives no first", lambda x, y: x * 2, [x, leaf(3)], check)
    rejects("input 1 receives no gradient|receives no first", lambda x, y: x * y.detach(), [x, leaf(3)], check)


@modes
def test_outputs_that_do_not_change_fail(mode):
    rejects("do not change with input 0", lambda x: x * 0.0, leaf(3), **MODES[mode])
    rejects("do not change with input 1", lambda x, y: x + (y > 0.0) * y * 0.0, [leaf(3), leaf(3)], **MODES[mode])
    rejects("do not change with input 0", given(np.ones_like, lambda g, x: g * 0.0), leaf(3), **MODES[mode])
    rejects("do not change with input 0", given(np.ones_like, lambda g, x: g * 2.0), leaf(3), **MODES[mode])


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_a_backward_pass_that_returns_nothing_fails(check):
    with pytest.raises((GradcheckError, RuntimeError), match="no gradient for input 0"):
        check(given(np.square, lambda g, x: None), leaf(3))


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_precision_and_outputs_are_float64(check):
    rejects("input 0 is float32.*float64", lambda x: x * 2, Tensor([1.0], requires_grad=True), check)
    rejects("input 1 is float16", lambda x, c: x * 2, [leaf(3), Tensor(np.ones(1, np.float16))], check)
    rejects("output 0 is float32", lambda x: x.astype(np.float32), leaf(3), check)
    rejects("output 1 is int64", lambda x: (x * 2, x.argmax()), leaf(3), check)
    rejects("output 0 is ndarray|output 0 is float64", lambda x: x.data * 2, leaf(3), check)
    rejects("output 0 is list", lambda x: [x * 2], leaf(3), check)


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_numbers_that_are_not_finite_fail(check):
    with np.errstate(all="ignore"):
        for bad in (np.inf, -np.inf, np.nan):
            rejects("output 0 is not finite", lambda x, bad=bad: x * bad, leaf(3), check)
            rejects("output 1 is not finite", lambda x, bad=bad: (x, x + np.array([bad, 0, 0])), leaf(3), check)
            rejects("not finite", given(np.square, lambda g, x, bad=bad: g * x * np.array([2, bad, 2])), leaf(3), check)
        rejects(
            "not finite|wrong", Tensor.log, Tensor(np.array([1e-6]), requires_grad=True), check
        )  # a step leads below 0


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_a_function_that_changes_from_call_to_call_fails(check):
    rejects("each time", lambda x: F.dropout(x), leaf(3, 3), check)
    rejects("each time", lambda x: (x * 2, F.dropout(x)), leaf(3, 3), check)


# --------------------------------------------------------------------------------------------------- second derivatives
SECOND = {  # the square again: each first derivative is right, each second derivative is not
    "dependence on the input dropped": lambda g, x: g * x.detach() * 2,
    "dependence on what flows in dropped": lambda g, x: g.detach() * x * 2,
    "both dropped": lambda g, x: (g * x * 2).detach(),
    "scaled": lambda g, x: given(lambda g, x: 2 * g * x, lambda h, g, x: (h * x * 2, h * g * 2.001), n=2)(g, x),
    "sign flipped": lambda g, x: given(lambda g, x: 2 * g * x, lambda h, g, x: (h * x * 2, -h * g * 2), n=2)(g, x),
    "what flows in": lambda g, x: given(lambda g, x: 2 * g * x, lambda h, g, x: (h * x * -2, h * g * 2), n=2)(g, x),
}


@modes
@pytest.mark.parametrize("what", SECOND)
def test_wrong_second_derivatives_fail(what, mode):
    f = given(np.square, SECOND[what])
    assert gradcheck(f, leaf(3), **MODES[mode])
    rejects("gradient of input [01]", f, leaf(3), gradgradcheck, **MODES[mode])


def test_second_derivatives_between_inputs_are_compared():
    wrong = given(lambda a, b: a * a * b, lambda g, a, b: (g * a * b.detach() * 2, g * a * a), n=2)
    assert gradcheck(wrong, [leaf(3), leaf(3, seed=1)])
    rejects("gradient of input 1", wrong, [leaf(3), leaf(3, seed=1)], gradgradcheck)
    assert gradgradcheck(wrong, [leaf(3), leaf(3, seed=1).detach()])


def test_constant_outputs_beside_others_are_no_obstacle():
    for check in (gradcheck, gradgradcheck):
        assert check(lambda x: (x * x, Tensor(np.ones(2))), leaf(3))


def test_options_reach_the_second_derivatives():
    wrong = given(np.square, SECOND["scaled"])
    assert gradgradcheck(wrong, leaf(3), rtol=1e-2)
    rejects("direction", wrong, leaf(3), gradgradcheck, full_jacobian=0)
    flows = []
    for seed in (0, 0, 7):
        rows = []
        gradgradcheck(
            given(np.square, lambda g, x, rows=rows: rows.append(g.data.copy()) or g * x * 2), leaf(3), seed=seed
        )
        flows.append(rows[0])
    assert np.array_equal(flows[0], flows[1]) and not np.array_equal(flows[0], flows[2])


def test_the_rounding_of_the_largest_output_is_allowed():
    assert gradcheck(lambda x: (x + 1e8, x * 2), leaf(3)) and gradcheck(lambda x: (x * 2, x + 1e8), leaf(3))


def test_no_more_than_rounding_is_allowed_to_small_numbers():
    rejects("input 0", given(lambda x: x * 1e-12, lambda g, x: g * 7e-12), leaf(3))


def test_an_exact_derivative_is_right_where_nothing_is_allowed():
    assert gradcheck(lambda x: x * 1, Tensor(np.zeros(2), requires_grad=True), rtol=0.0)  # of 0, nothing is rounded


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_settings_that_do_not_fit(check):
    x, name = Tensor(np.ones(2), requires_grad=True), check.__name__
    fails(TypeError, f"^{name}: f must be callable, not 3$", check, 3, x)
    for setting, values in (
        ("eps", (0, -1, np.nan, "1")), ("rtol", (-1, np.inf, None)), ("atol", (-1, np.nan)), ("full_jacobian", (-1, 1.5)),
        ("seed", (-1, 1.5, "a", None)),
    ):  # fmt: skip
        for value in values:
            fails(ValueError, f"^{name}: {setting} must be a .*, not ", check, lambda x: x * x, x, **{setting: value})
    words = f"^{name}: eps must be a finite number from 1e-12, not 9e-13$"
    fails(ValueError, words, check, lambda x: x * x * x, x, eps=9e-13)
    assert check(lambda x: x * x * x, x, eps=1e-12)
    assert check(lambda x: x * x * x, x, rtol=0, atol=1e-3, full_jacobian=0, seed=np.int64(3))
