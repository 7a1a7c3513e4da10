"""minicnn/checks.py: settings that fit, and what is said of those that do not."""

import types
from fractions import Fraction

import numpy as np
import pytest
from reference import fails

from minicnn import Tensor
from minicnn.checks import LARGEST, choice, escaped, flags, number, numbers, place, real, several, shown, sizes, whole

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


def test_a_tensor_is_no_choice():
    fails(ValueError, "^mode is 'min' or 'max', not Tensor", choice, "mode", Tensor(1.0), "min", "max")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        ("a", "'a'"),
        (None, "None"),
        (np.float32(2), "np.float32(2.0)"),
        (np.array(2), "array(2)"),
        (types.SimpleNamespace(shape=(1,)), "namespace(shape=(1,))"),
        (types.SimpleNamespace(shape=[1], dtype=1), "namespace(shape=[1], dtype=1)"),
        (np.ones((2, 3)), "an array of shape (2, 3) and dtype float64"),
        (Tensor([1, 2]), "a Tensor of shape (2,) and dtype int64"),
        ([1] * 40, "a list of 40"),
        ("x" * 98, repr("x" * 98)),  # 100 characters
        ("x" * 99, "a str of 99"),
        (Tensor(np.ones((1, 1, 0))), "a Tensor of shape (1, 1, 0) and dtype float64"),
        (np.dtype("f4"), "dtype('float32')"),
        (object, "<class 'object'>"),
        (object(), "a object"),
        ([np.zeros((2, 2))], "a list of 1"),  # its text has two lines
        ({1: np.zeros((2, 2))}, "a dict of 1"),
    ],
)
def test_what_a_message_says_of_a_value(value, text):
    assert shown(value) == text


def test_real_numbers():
    for value, expected in ((True, 1), (3, 3), (np.int8(3), 3), (np.array(3), 3), (-(2**1022), -(2**1022))):
        assert real(value) == expected and type(real(value)) is int
    for value, expected in ((1.5, 1.5), (np.float32(1.5), 1.5), (Tensor(1.5), 1.5), (Fraction(1, 4), 0.25), (INF, INF)):
        assert real(value) == expected and type(real(value)) is float
    assert np.isnan(real(np.float32(NAN)))
    for value in ("1", b"1", 1j, None, [1.0], np.ones(1), Tensor([1.0]), np.dtype("f4"), 2**1023, -(10**400), {}):
        assert real(value) is None


def test_a_number_becomes_pythons():
    assert type(number("x", np.float32(0.5))) is float and type(number("x", np.int64(2))) is int
    assert number("x", 2**53 + 1, 0) == 2**53 + 1
    fails(
        ValueError,
        r"^x must be a number from 0 to 9007199254740992, not 9007199254740993$",
        number,
        "x",
        2**53 + 1,
        0,
        2**53,
    )
    fails(ValueError, "^x must be a finite number, not a int$", number, "x", 10**400)


def test_several_settings():
    assert numbers("Layer", a=1, b=np.float64(0.5)) == [1, 0.5]
    fails(ValueError, "^Layer: b must be a finite number, not 'c'$", numbers, "Layer", a=1, b="c")
    flags("Layer", a=True, b=False, c=np.True_, d=0)
    fails(ValueError, "^Layer: b is False or True, not 'yes'$", flags, "Layer", a=True, b="yes")


def test_limits_of_whole_numbers():
    assert type(whole("n", True)) is int
    assert whole("n", LARGEST) == LARGEST == 2**63 - 1 and whole("n", -LARGEST) == -LARGEST
    assert whole("n", 2**64, 0, 2**64) == 2**64 and whole("n", 4, 0, 4) == 4
    for value in (2**63, -(2**63)):
        assert fails(ValueError, "n", whole, "n", value) == f"n must be a whole number, not {value}"
    assert fails(ValueError, "n", whole, "n", 5, 1, 4) == "n must be a whole number from 1 to 4, not 5"


def test_places():
    assert [place("i", i, 3) for i in (0, 2, -1, -3, np.int64(1))] == [0, 2, 2, 0, 1]
    for i in (3, -4):
        assert fails(IndexError, "i", place, "i", i, 3) == f"i {i} is out of range: there are 3, 0 to 2"
    for i in (1.0, "1", None, [1]):
        assert fails(TypeError, "i", place, "i", i, 3) == f"i must be an integer, not {i!r}"


def test_sizes_of_arrays():
    assert sizes("shape", (2, 0)) == (2, 0) and sizes("shape", [3]) == sizes("shape", np.int64(3)) == (3,)
    assert sizes("shape", ()) == () and sizes("shape", np.array([1, 2])) == (1, 2)
    assert sizes("shape", (2**48,)) == (2**48,) and sizes("shape", (1,) * 32) == (1,) * 32
    for shape in ((2**48 + 1,), (2**40, 2**9), (2**49, 0), (1,) * 33):
        fails(ValueError, "^shape must be one that memory can hold, in 32 axes at most, not ", sizes, "shape", shape)
    for shape in ((2, -1), (1.5,), (None,), -1):
        fails(ValueError, "^shape: each number must be a whole number from 0, not ", sizes, "shape", shape)
    for shape in ("ab", None, 1.5):
        fails(TypeError, f"^shape must be a list, not {shape!r}$", sizes, "shape", shape)


def test_lists():
    assert several("x", (1, "a")) == [1, "a"] and several("x", range(2), int) == [0, 1] == several("x", iter([0, 1]))
    assert several("x", ["a"], str) == ["a"]
    fails(TypeError, "^x must be a list, not 3$", several, "x", 3)
    for text in ("ab", b"ab", bytearray(b"ab")):
        fails(TypeError, "^x must be a list, not ", several, "x", text)
    fails(TypeError, "^x must be a list of Tensors, not with 'a'$", several, "x", [Tensor(1.0), "a"], Tensor)
    fails(TypeError, "^x must be a list of strings, not with 1$", several, "x", ["a", 1], str)
    fails(TypeError, "^x must be a list of ints, not None$", several, "x", None, int)


def test_text_in_one_line():
    for text, line in {
        "a\nb\x1b\x9b": r"a\nb\x1b\x9b",
        "\u2028\udcff": r"\u2028\udcff",
        "été \\n 猫": "été \\n 猫",
    }.items():
        assert escaped(text) == line


def test_a_whole_number_that_no_array_can_hold():
    fails(
        ValueError, r"^n must be a whole number from 1 to 2\*\*63 - 1, not 9223372036854775808$", whole, "n", 2**63, 1
    )
    assert whole("n", 2**63 - 1, 1) == 2**63 - 1
