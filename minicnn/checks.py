"""Settings that do not fit, refused in one line: which it is, what it may be, and what was given."""

import operator
from math import inf
from typing import Any


def number(
    name: str, value: Any, least: float = -inf, most: float = inf, *, below: float = inf, finite: bool = True
) -> None:
    """ValueError unless the value is a number from `least` to `most`, and smaller than `below`, if that is given.
    NaN is none, and ∞ only if it need not be finite."""
    try:
        fits = bool(least <= value <= most and (-inf < value < below or not finite))
    except (TypeError, ValueError):  # no number, or several
        fits = False
    if not fits:
        high = f" to {most}" if most < inf else f", below {below}" if below < inf else ""
        limits = f" from {least}{high}" if -inf < least else ""
        raise ValueError(f"{name} must be a {'finite ' * (not high and finite)}number{limits}, not {value!r}")


def whole(name: str, value: Any, least: int | None = None) -> int:
    """The value as an int; ValueError unless it is a whole number, `least` or more."""
    try:
        found = operator.index(value)
        if least is None or found >= least:
            return found
    except TypeError:
        pass
    raise ValueError(f"{name} must be a whole number{'' if least is None else f' from {least}'}, not {value!r}")


def choice(name: str, value: Any, *choices: Any) -> None:
    """ValueError unless the value is one of the choices."""
    try:
        fits = value in choices
    except ValueError:  # an array
        fits = False
    if not fits:
        *others, last = map(repr, choices)
        raise ValueError(f"{name} is {', '.join(others)} or {last}, not {value!r}")
