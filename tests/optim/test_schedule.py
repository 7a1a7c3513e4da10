"""The values of the learning-rate schedules, and continuing from a state."""

from math import cos, pi

import numpy as np
import pytest

from minicnn import Tensor, nn, optim
from minicnn.optim.schedule import _Formula


def optimizer(lr=0.8):
    return optim.SGD([nn.Parameter(np.ones(1))], lr)


def fails(error, pattern, f, *args, **kwargs):
    with pytest.raises(error, match=pattern) as caught:
        f(*args, **kwargs)
    assert "\n" not in str(caught.value)


def rates(opt, schedule, n, *metrics):
    """The rate before each of n calls of step(), and after the last."""
    found = [opt.lr]
    for i in range(n):
        schedule.step(*[m[i] for m in metrics])
        found.append(opt.lr)
    return found


def test_step():
    opt = optimizer()
    np.testing.assert_allclose(rates(opt, optim.StepLR(opt, 2), 5), [0.8, 0.8, 0.08, 0.08, 0.008, 0.008])
    opt = optimizer()
    np.testing.assert_allclose(rates(opt, optim.StepLR(opt, 1, gamma=0.5), 3), [0.8, 0.4, 0.2, 0.1])


def test_cosine():
    opt = optimizer()
    expected = [0.8 * (1 + cos(pi * t / 10)) / 2 for t in range(11)] + [0] * 3
    np.testing.assert_allclose(rates(opt, optim.CosineLR(opt, 10), 13), expected, atol=1e-15)
    opt = optimizer()
    half = [0.2 + 0.6 * (1 + cos(pi * t / 4)) / 2 for t in range(5)]
    np.testing.assert_allclose(rates(opt, optim.CosineLR(opt, 4, min_lr=0.2), 6), [*half, 0.2, 0.2])


def test_cosine_with_warm_up():
    opt = optimizer()
    down = [0.1 + 0.7 * (1 + cos(pi * t / 6)) / 2 for t in range(7)]
    np.testing.assert_allclose(
        rates(opt, optim.CosineLR(opt, 10, warmup_steps=4, min_lr=0.1), 11), [0.2, 0.4, 0.6, 0.8, *down, 0.1]
    )
    opt = optimizer()
    assert rates(opt, optim.CosineLR(opt, 2, warmup_steps=1), 2) == pytest.approx([0.8, 0.8, 0.0])


def test_plateau():
    """More than `patience` calls without an improvement divide the rate; then the waiting begins anew."""
    opt = optimizer()
    schedule = optim.ReduceLROnPlateau(opt, factor=0.5, patience=1)
    losses = [3, 2, 2, 2, 2, 2, 1, 1, 1]
    np.testing.assert_allclose(rates(opt, schedule, 9, losses), [0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.2, 0.1])
    opt = optimizer()
    schedule = optim.ReduceLROnPlateau(opt, "max", patience=0)
    np.testing.assert_allclose(rates(opt, schedule, 4, [50, 60, 60, 59]), [0.8, 0.8, 0.8, 0.08, 0.008])
    opt = optimizer()
    schedule = optim.ReduceLROnPlateau(opt, patience=0, min_lr=0.05)
    np.testing.assert_allclose(rates(opt, schedule, 3, [1, 1, 1]), [0.8, 0.8, 0.08, 0.05])
    opt.lr = 0.03  # by hand
    np.testing.assert_allclose(rates(opt, schedule, 1, [1]), [0.03, 0.03])


def test_a_loss_that_is_infinite_is_no_improvement():
    opt = optimizer()
    rates(opt, optim.ReduceLROnPlateau(opt, patience=1), 2, [np.inf, np.inf])
    assert opt.lr == pytest.approx(0.08)


def test_the_state_of_a_plateau():
    schedule = optim.ReduceLROnPlateau(optimizer(), "min", patience=5)
    assert schedule.state_dict() == {"count": 0, "best": np.inf, "waited": 0, "base_lrs": [0.8]}
    rates(schedule.optimizer, schedule, 4, [3.0, 2.0, 2.5, 4.0])
    assert schedule.state_dict() == {"count": 4, "best": 2.0, "waited": 2, "base_lrs": [0.8]}
    schedule = optim.ReduceLROnPlateau(optimizer(), "max")
    schedule.step(60.0)
    assert abs(schedule.best) == 60


def test_what_counts_as_an_improvement():
    """A relative change beyond the threshold, also of negative numbers; NaN is none."""
    for mode, first, second, better in [
        ("min", 100, 98.9, True), ("min", 100, 99.1, False), ("max", 100, 101.1, True), ("max", 100, 100.9, False),
        ("min", -100, -101.1, True), ("min", -100, -100.9, False), ("max", -100, -98.9, True), ("max", -100, -99.1, False),
        ("min", 0, -1e-9, True), ("min", 0, 0, False), ("min", 1, np.nan, False), ("max", 1, np.nan, False),
    ]:  # fmt: skip
        opt = optimizer()
        schedule = optim.ReduceLROnPlateau(opt, mode, patience=0, threshold=0.01)
        schedule.step(first)
        schedule.step(second)
        assert (opt.lr == 0.8) is better, (mode, first, second)
    opt = optimizer()
    schedule = optim.ReduceLROnPlateau(opt)
    assert rates(opt, schedule, 12, [1.0] * 12)[-2:] == pytest.approx([0.8, 0.08])  # by default after ten in vain
    for loss, rate in [(0.99985, 0.8), (0.99995, 0.08)]:  # by default 1e-4 is an improvement
        opt = optimizer()
        assert rates(opt, optim.ReduceLROnPlateau(opt, patience=0), 2, [1.0, loss])[-1] == pytest.approx(rate)


SCHEDULES = [
    lambda opt: optim.StepLR(opt, 3, 0.5),
    lambda opt: optim.CosineLR(opt, 12, warmup_steps=3, min_lr=0.01),
    lambda opt: optim.ReduceLROnPlateau(opt, "max", 0.5, 1),
]


@pytest.mark.parametrize("make", SCHEDULES)
def test_it_does_not_matter_which_is_loaded_first(make):
    """The rates that a schedule begins with are part of its state: the optimizer's may have fallen."""
    first = optimizer()
    one = make(first)
    for _ in range(7):
        one.step(*[1.0] * ("Plateau" in type(one).__name__))
    second = optimizer()
    second.load_state_dict(first.state_dict())
    two = make(second)
    two.load_state_dict(one.state_dict())
    second.load_state_dict(first.state_dict())
    assert second.lr == first.lr != 0.8 and two.base_lrs == one.base_lrs == [0.8]
    for bad in ({"count": -1}, {"base_lrs": [np.nan]}, {"base_lrs": [0.1, 0.2]}):
        with pytest.raises(ValueError):
            two.load_state_dict({**one.state_dict(), **bad})
    assert two.state_dict() == one.state_dict()


@pytest.mark.parametrize("make", SCHEDULES)
def test_a_run_continues_from_a_state(make):
    metrics = [5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 8]
    args = (lambda i: (metrics[i],)) if "Plateau" in type(make(optimizer())).__name__ else lambda i: ()
    whole = optimizer()
    schedule = make(whole)
    expected = []
    for i in range(12):
        schedule.step(*args(i))
        expected.append(whole.lr)
    for stop in (0, 1, 5, 11):
        first, second = optimizer(), optimizer()
        one, two = make(first), make(second)
        for i in range(stop):
            one.step(*args(i))
        # as JSON may hold them
        state = {name: v if name == "base_lrs" else float(v) for name, v in one.state_dict().items()}
        two.load_state_dict(state)
        if "Plateau" in type(two).__name__:
            second.load_state_dict(first.state_dict())
        assert second.lr == first.lr and two.state_dict()["count"] == stop  # where the rate follows from the count
        found = []
        for i in range(stop, 12):
            two.step(*args(i))
            found.append(second.lr)
        assert found == expected[stop:]
        assert two.state_dict() == schedule.state_dict()


@pytest.mark.parametrize("make", SCHEDULES)
def test_each_group_is_scaled_from_its_own_rate(make):
    """As if each had an optimizer and a schedule of its own, also when it goes on from a state."""
    metrics = [5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 8]
    rates = [0.8, 0.05, 0.3]
    alone = [optimizer(rate) for rate in rates]
    whole = optim.SGD([{"params": [nn.Parameter(np.ones(1))], "lr": rate} for rate in rates], lr=0)
    schedules = [make(opt) for opt in (whole, *alone)]
    for i in range(12):
        for schedule in schedules:
            schedule.step(*((metrics[i],) if isinstance(schedule, optim.ReduceLROnPlateau) else ()))
        found = [group["lr"] for group in whole.param_groups]
        assert found == [opt.lr for opt in alone]
        if i == 7:
            assert len(set(found)) == 3
            for group, rate in zip(whole.param_groups, rates, strict=True):
                group["lr"] = rate
            again = make(whole)
            again.load_state_dict(schedules[0].state_dict())
            for group, rate in zip(whole.param_groups, found, strict=True):
                assert group["lr"] == rate or isinstance(again, optim.ReduceLROnPlateau)
                group["lr"] = rate
            schedules[0] = again


def test_arguments_and_states_that_do_not_fit():
    opt = optimizer()
    fails(ValueError, "step_size.*0", optim.StepLR, opt, 0)
    for total, warmup in [(0, 0), (5, 5), (5, -1), (-1, 0)]:
        fails(ValueError, f"{warmup} and {total}", optim.CosineLR, opt, total, warmup_steps=warmup)
    fails(ValueError, "'best'", optim.ReduceLROnPlateau, opt, "best")
    nan, inf = np.nan, np.inf
    for make, name, bad_ones in (
        (lambda step_size: optim.StepLR(opt, step_size), "step_size", (-1, 2.5, "2", None)),
        (lambda gamma: optim.StepLR(opt, 1, gamma), "gamma", (-0.1, nan, inf, "0.1")),
        (lambda total_steps: optim.CosineLR(opt, total_steps), "total_steps", (10.0, "10", None)),
        (lambda warmup_steps: optim.CosineLR(opt, 9, warmup_steps=warmup_steps), "warmup_steps", (0.5, "1")),
        (lambda min_lr: optim.CosineLR(opt, 9, min_lr=min_lr), "min_lr", (-0.1, nan, "0")),
        (lambda **o: optim.ReduceLROnPlateau(opt, **o), "mode", ("lower", None, 1)),
        (lambda **o: optim.ReduceLROnPlateau(opt, **o), "factor", (nan, "0.1", None)),
        (lambda **o: optim.ReduceLROnPlateau(opt, **o), "patience", (-1, 0.5, "3")),
        (lambda **o: optim.ReduceLROnPlateau(opt, **o), "threshold", (-1e-4, nan, "0")),
        (lambda **o: optim.ReduceLROnPlateau(opt, **o), "min_lr", (-1e-4, inf, "0")),
    ):
        for bad in bad_ones:
            fails(ValueError, rf"^\w+: {name} .* not ", make, **{name: bad})
    for factor in (0, 1, 1.5, -0.1):
        fails(ValueError, f"factor.*{factor}", optim.ReduceLROnPlateau, opt, factor=factor)
    step, plateau = optim.StepLR(opt, 2), optim.ReduceLROnPlateau(opt)
    for schedule, state in [(step, plateau.state_dict()), (plateau, step.state_dict()), (step, {})]:
        fails(ValueError, type(schedule).__name__, schedule.load_state_dict, state)
    fails(NotImplementedError, "_Formula does not define rate", _Formula(opt).step)


@pytest.mark.parametrize("make", SCHEDULES)
@pytest.mark.parametrize(
    "bad, words",
    [
        ({"count": 1.5}, "count must be a whole number, not 1.5"),
        ({"count": "3"}, "count must be a number from 0 to .* not '3'"),
        ({"count": -1}, "count .* not -1"),
        ({"count": np.nan}, "count .* not nan"),
        ({"count": 1e30}, "count .* not 1e"),
        ({"count": None}, "count .* not None"),
        ({"best": np.nan}, "best must be a number.* not nan"),
        ({"best": "2.0"}, "best must be a number.* not '2.0'"),
        ({"waited": -5}, "waited .* not -5"),
        ({"waited": 0.5}, "waited must be a whole number, not 0.5"),
        ({"base_lrs": "abc"}, "base_lrs .* not 'abc'"),
        ({"base_lrs": None}, "base_lrs .* not None"),
        ({"base_lrs": []}, r"over 1 groups: .*, with 0 base_lrs, instead of \["),
        ({"extra": 1}, "not a state of .*'extra'"),
        ({7: 1}, "not a state of .*'7'"),
    ],
)
def test_states_that_do_not_fit_change_nothing(make, bad, words):
    opt = optimizer()
    schedule = make(opt)
    plateau = isinstance(schedule, optim.ReduceLROnPlateau)
    for _ in range(4):
        schedule.step(*[1.0] * plateau)
    before, lr = schedule.state_dict(), opt.lr
    state = make(optimizer()).state_dict()
    if not plateau and bad.keys() & {"best", "waited"}:
        words = "not a state of"
    fails(ValueError, words, schedule.load_state_dict, {**state, **bad})
    assert schedule.state_dict() == before and opt.lr == lr


@pytest.mark.parametrize("make", SCHEDULES)
def test_what_is_no_state(make):
    for state in ([("count", 1)], ("count",), None, 3):
        words = rf"^a state is a dict, as state_dict\(\) returns, not a {type(state).__name__}$"
        fails(ValueError, words, make(optimizer()).load_state_dict, state)


def test_the_largest_count_and_the_smallest_factor():
    schedule = optim.ReduceLROnPlateau(optimizer(), factor=5e-324)
    state = schedule.state_dict()
    schedule.load_state_dict({**state, "count": 2**53})  # up to which a float counts in steps of 1
    assert schedule.count == 2**53
    fails(ValueError, "count", schedule.load_state_dict, {**state, "count": 2**53 + 1})


def test_a_state_for_groups_that_came_later_changes_nothing():
    opt = optimizer()
    schedule = optim.StepLR(opt, 1)
    opt.add_param_group({"params": [nn.Parameter(np.ones(1))]})
    for state in ({"count": 3}, {"count": 3, "base_lrs": [0.5]}):
        fails(ValueError, "over 2 groups", schedule.load_state_dict, state)
    assert schedule.state_dict() == {"count": 0, "base_lrs": [0.8]}


def test_pytorchs_order_of_arguments_is_an_error():
    opt = optimizer()
    fails(TypeError, "positional", optim.ReduceLROnPlateau, opt, "min", 0.1, 10, 1e-4, "rel")  # threshold_mode
    fails(TypeError, "positional", optim.CosineLR, opt, 10, 1e-5)  # eta_min


@pytest.mark.parametrize("make", [optim.StepLR, optim.CosineLR, optim.ReduceLROnPlateau])
def test_what_is_no_optimizer(make):
    fails(TypeError, f"^{make.__name__} takes an optimizer first, not a int$", make, 3, 9)


def test_a_group_that_is_added_later_wants_a_new_schedule():
    opt = optimizer()
    schedule = optim.StepLR(opt, 1)
    opt.add_param_group({"params": [nn.Parameter(np.ones(1))]})
    fails(ValueError, "made for 1 groups of parameters has 2 now: make a new one", schedule.step)


def test_rates_of_a_state():
    """Each of them has to be a rate; 0 is one."""
    groups = [{"params": nn.Parameter(np.ones(1)), "lr": lr} for lr in (0.5, 0.25)]
    schedule = optim.StepLR(optim.SGD(groups, 0.1), 1)
    for bad in ([0.1, -0.1], [np.inf, 0.1], [0.1, np.nan]):
        with pytest.raises(ValueError, match="StepLR: a learning rate in base_lrs must be a finite number from 0, not"):
            schedule.load_state_dict({"count": 0, "base_lrs": bad})
    assert schedule.base_lrs == [0.5, 0.25]
    schedule.load_state_dict({"count": 0, "base_lrs": [0, 0.5]})
    assert [group["lr"] for group in schedule.optimizer.param_groups] == [0, 0.5]


def test_what_a_schedule_prints():
    sgd = optimizer(0.1)
    for schedule, text in (
        (optim.StepLR(sgd, 3), "StepLR(count=0, base_lrs=[0.1], step_size=3, gamma=0.1)"),
        (
            optim.CosineLR(sgd, 9, warmup_steps=2),
            "CosineLR(count=0, base_lrs=[0.1], total_steps=9, warmup_steps=2, min_lr=0.0)",
        ),
    ):
        assert repr(schedule) == text
    schedule.step()
    assert repr(schedule).startswith("CosineLR(count=1, ")
    assert repr(optim.ReduceLROnPlateau(sgd)) == (
        "ReduceLROnPlateau(count=0, base_lrs=[0.1], sign=1, factor=0.1, patience=10, threshold=0.0001, min_lr=0.0, "
        "best=inf, waited=0)"
    )


def test_a_metric_that_is_no_number():
    schedule = optim.ReduceLROnPlateau(optim.SGD([nn.Parameter(np.ones(1))], 0.5), "max", patience=0)
    for metric in ("1", None, [1.0], np.ones(2), 1j, 10**400):
        with pytest.raises(TypeError, match=r"^ReduceLROnPlateau.step: metric must be a number, not "):
            schedule.step(metric)
    assert schedule.state_dict()["count"] == 0
    for metric in (np.float32(1), 2, Tensor(3.0)):
        schedule.step(metric)
    assert (schedule.count, schedule.best, schedule.waited) == (3, -3, 0)
