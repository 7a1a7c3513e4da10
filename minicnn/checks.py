"""Settings that do not fit are refused in one line: which setting it is, what it may be, and what
was given.
"""

import operator
from math import inf
from typing import Any


def number(
    name: str, value: Any, least: float = -inf, most: float = inf, *, below: float = inf, finite: bool = True
) -> None:
    """Check a setting that is a number. NaN never fits, and ∞ only if it need not be finite.

    Args:
        name: what the message calls the setting.
        value: what was given.
        least: the smallest that fits.
        most: the largest that fits.
        below: only smaller ones fit.
        finite: whether ∞ does not fit.
    Raises:
        ValueError: the value does not fit.
    """
    try:
        fits = bool(least <= value <= most and (-inf < value < below or not finite))
    except (TypeError, ValueError):  # not a number, or several
        fits = False
    if not fits:
        high = f" to {most}" if most < inf else f", below {below}" if below < inf else ""
        limits = f" from {least}{high}" if -inf < least else ""
        raise ValueError(f"{name} must be a {'finite ' * (not high and finite)}number{limits}, not {value!r}")


def whole(name: str, value: Any, least: int | None = None) -> int:
    """Check a setting that is an integer.

    Args:
        name: what the message calls the setting.
        value: what was given.
        least: the smallest that fits; by default any does.
    Returns:
        The value as an int.
    Raises:
        ValueError: the value does not fit.
    """
    try:
        found = operator.index(value)
        if least is None or found >= least:
            return found
    except TypeError:
        pass
    raise ValueError(f"{name} must be a whole number{'' if least is None else f' from {least}'}, not {value!r}")


def choice(name: str, value: Any, *choices: Any) -> None:
    """Check a setting that is one of a few.

    Args:
        name: what the message calls the setting.
        value: what was given.
        choices: those that fit.
    Raises:
        ValueError: the value does not fit.
    """
    try:
        fits = value in choices
    except ValueError:  # an array
        fits = False
    if not fits:
        *others, last = map(repr, choices)
        raise ValueError(f"{name} is {', '.join(others)} or {last}, not {value!r}")
