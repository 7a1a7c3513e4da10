"""Random numbers are counter-based: each draw is keyed by (seed, how many draws came before). So
they are the same for any number of threads and on every backend, and two integers are their whole
state. Those of dropout follow the row of the batch, not the process: with rows_before, processes
that share a batch drop the same elements as one that holds all of it.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np

from .checks import several, shown, whole

LAST = 2**64 - 1  # of the seeds, and of the draws


class _Random:
    def __init__(self) -> None:
        self.seed, self.draws, self.lock = 0, 0, threading.Lock()
        # how many rows come before, and how many are here, if that is known
        self.place: tuple[int, int | None] = 0, None


class _Here(threading.local):
    drawn = 0


_here = _Here()
_random = _Random()


def manual_seed(seed: int) -> None:
    """Begin the random numbers of this process again: those of initial weights and of dropout.

    Args:
        seed: an integer from 0 to 2⁶⁴ − 1.
    Raises:
        ValueError: the seed is out of that range.

    Example:
        >>> import minicnn
        >>> minicnn.manual_seed(1)
        >>> first = minicnn.nn.Linear(2, 1).weight.numpy()
        >>> minicnn.manual_seed(1)
        >>> bool((minicnn.nn.Linear(2, 1).weight.numpy() == first).all())
        True
    """
    set_random_state((seed, 0))


def random_state() -> tuple[int, int]:
    """The whole state of the random numbers, to be saved.

    Returns:
        (seed, how many draws there were); each draw is keyed by this pair.
    """
    return _random.seed, _random.draws


def set_random_state(state: tuple[int, int]) -> None:
    """Continue from a state that random_state returned.

    Args:
        state: that pair.
    Raises:
        ValueError: one of the two is not from 0 to 2⁶⁴ − 1.
    """
    try:
        seed, draws = state
    except (TypeError, ValueError):
        raise ValueError(f"set_random_state: state is a pair (seed, draws), not {shown(state)}") from None
    seed, draws = whole("seed", seed, 0, LAST), whole("number of draws", draws, 0, LAST)
    with _random.lock:
        _random.seed, _random.draws = seed, draws


def draw(count: int = 1) -> tuple[int, int]:
    """Take the next draw, or several.

    Args:
        count: how many.
    Returns:
        The key of the first: the seed, and how many draws came before.
    """
    with _random.lock:
        key = (_random.seed, _random.draws)
        _random.draws += count
    _here.drawn += count
    return key


def drawn_here() -> int:
    """How many draws this thread has taken."""
    return _here.drawn


def generator(key: tuple[int, int] | None = None, first: int = 0) -> np.random.Generator:
    """NumPy's generator of random numbers for one draw: Philox with its key.

    Args:
        key: the draw's key; by default that of the next draw.
        first: how many of the draw's float32 numbers to skip.
    Returns:
        A numpy.random.Generator.
    """
    first = whole("generator: first", first, 0, 2**128)
    pair = draw() if key is None else several("generator: key", key)
    if len(pair) != 2:
        raise ValueError(f"generator: key is a pair (seed, draw), not {shown(key)}")
    numbers_of_key = [whole("generator: a number in key", n, 0, LAST) for n in pair]
    philox = np.random.Philox(key=np.array(numbers_of_key, np.uint64))
    philox.advance(first // 8)  # a step makes 256 bits, for 8 float32 numbers of 32 bits each
    numbers = np.random.Generator(philox)
    numbers.random(first % 8, np.float32)  # thrown away
    return numbers


def rows_before(n: int, rows: int | None = None) -> AbstractContextManager[None]:
    """Say that arrays hold the rows n, n + 1, … of a larger batch, inside a with-statement.

    Processes that share a batch, each with some consecutive rows, then drop the same elements as
    one process that holds all rows, if all have the same random_state. It holds in every thread of
    the process, and for the gradient of what is computed inside, whenever that is asked for.

    Args:
        n: how many rows of the batch come before, an integer from 0. In nested statements the
            innermost counts.
        rows: how many there are here. Then a first axis that is a multiple of it has so many places
            for each row, as after a reshape from (N, T, C) to (N·T, C).
    Raises:
        ValueError: n or rows is something else.

    Example:
        >>> import minicnn, minicnn.functional as F
        >>> x = minicnn.Tensor([[1.0] * 3] * 4)
        >>> minicnn.manual_seed(1)
        >>> whole = F.dropout(x)
        >>> minicnn.manual_seed(1)
        >>> with minicnn.random.rows_before(2):
        ...     rest = F.dropout(x[2:])
        >>> bool((rest.numpy() == whole.numpy()[2:]).all())
        True
    """
    here = None if rows is None else whole("rows_before: rows", rows, 0)
    return _placed(whole("rows_before: n", n, 0), here)


@contextmanager
def _placed(n: int, rows: int | None) -> Iterator[None]:
    before, _random.place = _random.place, (n, rows)
    try:
        yield
    finally:
        _random.place = before


def first_row(length: int) -> int:
    """Which place of the whole batch's first axis is the first one of an array here; 0 outside of
    rows_before.

    Args:
        length: of the array's first axis.
    Raises:
        ValueError: the length is not a multiple of the rows that there are here.
    """
    n, rows = _random.place
    if rows is None or rows == length:
        return n
    if not rows or length % rows:
        raise ValueError(
            f"random numbers follow the rows of a batch, of which there are {rows} here, but this array "
            f"has {length}: inside rows_before(0), all processes draw the same for it"
        )
    return n * (length // rows)


def place_of_rows() -> tuple[int, int | None]:
    """What rows_before was told: how many rows come before, and how many are here, if it knows."""
    return _random.place


def _after_fork() -> None:
    """A forked child must not wait for a lock that a thread of its parent held."""
    _random.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
