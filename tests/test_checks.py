"""minicnn/checks.py: settings that fit, and what is said of those that do not."""

from fractions import Fraction

import numpy as np
import pytest
from reference import fails

from minicnn.checks import choice, number, whole

INF, NAN = float("inf"), float("nan")
FIT = [  # (value, limits)
    (1.5, {}),
    (-3, {}),
    (np.float16(0.5), {"least": 0, "most": 1}),
    (np.float32(3e38), {"least": 0}),
    (np.array(2), {"most": 2}),
    (Fraction(1, 3), {"least": 0, "below": 1}),
    (0, {"least": 0, "most": 1}),
    (1, {"least": 0, "most": 1}),
    (0, {"least": 0, "below": 1}),
    (INF, {"finite": False}),
    (-INF, {"finite": False}),
]
UNFIT = [  # (value, limits, what is accepted)
    (INF, {}, "a finite number"),
    (-INF, {}, "a finite number"),
    (NAN, {}, "a finite number"),
    (NAN, {"finite": False}, "a number"),
    (None, {}, "a finite number"),
    ("1", {}, "a finite number"),
    (1j, {}, "a finite number"),
    ([1.0], {"least": 0}, "a finite number from 0"),
    (-1e-9, {"least": 0}, "a finite number from 0"),
    (INF, {"least": 0}, "a finite number from 0"),
    (-0.1, {"least": 0, "most": 1}, "a number from 0 to 1"),
    (1.1, {"least": 0, "most": 1}, "a number from 0 to 1"),
    (1.0, {"least": 0, "below": 1}, "a number from 0, below 1"),
    (-1, {"least": 0, "below": 1}, "a number from 0, below 1"),
    (INF, {"least": 0, "below": 1, "finite": True}, "a number from 0, below 1"),
]


@pytest.mark.parametrize(("value", "limits"), FIT)
def test_numbers_that_fit(value, limits):
    number("x", value, **limits)


@pytest.mark.parametrize(("value", "limits", "accepted"), UNFIT)
def test_numbers_that_do_not_fit(value, limits, accepted):
    assert fails(ValueError, "not", number, "x", value, **limits) == f"x must be {accepted}, not {value!r}"


def test_several_numbers_are_none():
    fails(
        ValueError,
        r"x must be a finite number, not an array of shape \(2,\) and dtype float64",
        number,
        "x",
        np.ones(2),
    )


def test_whole_numbers():
    assert type(whole("n", np.int64(3))) is int and whole("n", 3, 3) == whole("n", True, 1) + 2 == 3
    assert whole("n", -5) == -5 and whole("n", 0, 0) == 0
    for bad in (2.0, "2", None, [2], np.float32(2)):
        assert fails(ValueError, "not", whole, "n", bad) == f"n must be a whole number, not {bad!r}"
    for bad in (0, -1, 1.0):
        assert fails(ValueError, "not", whole, "n", bad, 1) == f"n must be a whole number from 1, not {bad!r}"


def test_choices():
    choice("mode", "min", "min", "max")
    choice("flag", np.True_, False, True)
    choice("flag", 0, False, True)
    for bad in ("mean", None, 0.5, ["min"]):
        message = fails(ValueError, "not", choice, "mode", bad, "min", "max", "none")
        assert message == f"mode is 'min', 'max' or 'none', not {bad!r}"
    fails(ValueError, "^flag is False or True, not an array of shape", choice, "flag", np.ones(2), False, True)
