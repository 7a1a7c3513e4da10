"""Arguments that do not fit are refused in one line: which one it is, what it may be, and what was
given.
"""

import operator
import unicodedata
from math import inf, nan, prod
from numbers import Real
from typing import Any

LARGEST = 2**63 - 1  # of the integers that an array can hold
# what Python and NumPy raise where an argument does not fit
RAW = (TypeError, ValueError, AttributeError, LookupError, OverflowError, ZeroDivisionError)


def shown(value: Any) -> str:
    """What a message says of a value: how Python writes it if that is short, else what it is.

    Args:
        value: anything.
    """
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape and hasattr(value, "dtype"):
        kind = type(value).__name__  # NumPy's arrays and CuPy's are both called so
        return f"{'an array' if kind == 'ndarray' else f'a {kind}'} of shape {shape} and dtype {value.dtype}"
    text = repr(value)
    if len(text) <= 100 and text.isprintable() and " at 0x" not in text:
        return text
    length = f" of {len(value)}" if isinstance(value, (list, tuple, dict, set, str, bytes)) else ""
    return f"a {type(value).__name__}{length}"


def escaped(text: str) -> str:
    """The text in one line that any file can hold: as escape sequences what else would end a line,
    move a cursor, or stand for bytes that are not UTF-8.

    Args:
        text: such as a message that has the name of a file in it.
    """
    controls = {c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    return text.translate({ord(c): c.encode("unicode_escape").decode() for c in controls})


def real(value: Any) -> float | None:
    """A real number as Python's int or float, if the value is one, or an array or Tensor without
    axes that holds one; else None.

    Args:
        value: anything.
    """
    if type(value) is float:  # as most settings are
        return value
    plain = value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
    if isinstance(plain, int):
        return int(plain) if abs(plain) < 2**1023 else None  # a float can hold it
    return float(plain) if isinstance(plain, Real) else None


def number(
    name: str, value: Any, least: float = -inf, most: float = inf, *, below: float = inf, finite: bool = True
) -> float:
    """Check a setting that is a number. NaN never fits, and ∞ only if it need not be finite.

    Args:
        name: what the message calls the setting.
        value: what was given.
        least: the smallest that fits.
        most: the largest that fits.
        below: only smaller ones fit.
        finite: whether ∞ does not fit.
    Returns:
        The value as a Python number, an int if it is one.
    Raises:
        ValueError: the value does not fit.
    """
    found = nan if (plain := real(value)) is None else plain
    if not (least <= found <= most and (-inf < found < below or not finite)):
        high = f" to {most}" if most < inf else f", below {below}" if below < inf else ""
        limits = f" from {least}{high}" if -inf < least else ""
        raise ValueError(f"{name} must be a {'finite ' * (not high and finite)}number{limits}, not {shown(value)}")
    return found


def numbers(of: str, **settings: Any) -> list[float]:
    """Check several settings that are finite numbers.

    Args:
        of: what they are settings of, for the message.
        **settings: what was given, by the settings' names.
    Returns:
        The values as Python numbers.
    Raises:
        ValueError: a value does not fit.
    """
    return [number(f"{of}: {name}", value) for name, value in settings.items()]


def flags(of: str, **settings: Any) -> None:
    """Check several settings that are True or False.

    Args:
        of: what they are settings of, for the message.
        **settings: what was given, by the settings' names.
    Raises:
        ValueError: a value is something else.
    """
    for name, value in settings.items():
        choice(f"{of}: {name}", value, False, True)


def whole(name: str, value: Any, least: int | None = None, most: int = LARGEST) -> int:
    """Check a setting that is an integer.

    Args:
        name: what the message calls the setting.
        value: what was given.
        least: the smallest that fits; by default that of the integers that an array can hold.
        most: the largest that fits; by default that of those integers.
    Returns:
        The value as an int.
    Raises:
        ValueError: the value does not fit.
    """
    try:
        found = int(operator.index(value))  # which leaves True as it is
        if (-LARGEST if least is None else least) <= found <= most:
            return found
    except TypeError:
        found = 0  # equivalent (constant): not above the most
    # equivalent (comparison): the most itself fits
    high = f" to {most}" if most != LARGEST else " to 2**63 - 1" * (found > most)
    limits = "" if least is None else f" from {least}{high}"
    raise ValueError(f"{name} must be a whole number{limits}, not {shown(value)}")


def place(name: str, index: Any, count: int) -> int:
    """Check an index that counts from the end if it is negative.

    Args:
        name: what the message calls it.
        index: what was given.
        count: how many places there are.
    Returns:
        The index as an int from 0.
    Raises:
        TypeError: it is not an integer.
        IndexError: there is no such place.
    """
    try:
        found = operator.index(index)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {shown(index)}") from None
    if not -count <= found < count:
        raise IndexError(f"{name} {found} is out of range: there are {count}, 0 to {count - 1}")
    return found % count


def sizes(name: str, shape: Any) -> tuple[int, ...]:
    """Check the shape of an array that is to be made.

    Args:
        name: what the message calls the shape.
        shape: what was given: integers from 0, or one.
    Returns:
        The shape as a tuple.
    Raises:
        TypeError, ValueError: the shape does not fit, or no memory can hold such an array.
    """
    one = hasattr(shape, "__index__") and not hasattr(shape, "__iter__")
    found = tuple([whole(f"{name}: each number", n, 0) for n in ([shape] if one else several(name, shape))])
    if len(found) > 32 or prod(n for n in found if n) > 1 << 48:
        raise ValueError(f"{name} must be one that memory can hold, in 32 axes at most, not {shown(shape)}")
    return found


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
    except (TypeError, ValueError):  # an array or a Tensor
        fits = False
    if not fits:
        *others, last = map(repr, choices)
        raise ValueError(f"{name} is {', '.join(others)} or {last}, not {shown(value)}")


def several(name: str, value: Any, kind: type = object) -> list[Any]:
    """Check an argument that is several objects, perhaps all of one kind.

    Args:
        name: what the message calls the argument.
        value: what was given.
        kind: the class of each object.
    Returns:
        A list of them.
    Raises:
        TypeError: it is something else.
    """
    try:
        found = list(value)
        wrong = [part for part in found if not isinstance(part, kind)]
    except TypeError:  # it cannot be iterated over
        wrong = [value]
    if isinstance(value, (str, bytes, bytearray)):
        wrong = [value]
    if wrong:
        what = "" if kind is object else f" of {'string' if kind is str else kind.__name__}s"
        raise TypeError(f"{name} must be a list{what}, not {'with ' * (wrong[0] is not value)}{shown(wrong[0])}")
    return found
