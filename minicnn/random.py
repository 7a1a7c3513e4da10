"""Random numbers are counter-based: each draw is keyed by (seed, how many draws came before). So
they are the same for any number of threads and on every backend, and two integers are their whole
state.
"""

import operator
import os
import threading

import numpy as np


class _Random:
    def __init__(self) -> None:
        self.seed, self.draws, self.lock = 0, 0, threading.Lock()


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
    seed, draws = map(operator.index, state)
    for name, value in (("seed", seed), ("number of draws", draws)):
        if not 0 <= value < 1 << 64:
            raise ValueError(f"a {name} is an integer from 0 to 2**64 - 1, not {value}")
    with _random.lock:
        _random.seed, _random.draws = seed, draws


def draw() -> tuple[int, int]:
    """Take the next draw.

    Returns:
        Its key: the seed, and how many draws came before.
    """
    with _random.lock:
        key = (_random.seed, _random.draws)
        _random.draws += 1
    return key


def generator(key: tuple[int, int] | None = None) -> np.random.Generator:
    """NumPy's generator of random numbers for one draw: Philox with its key.

    Args:
        key: the draw's key; by default that of the next draw.
    Returns:
        A numpy.random.Generator.
    """
    return np.random.Generator(np.random.Philox(key=np.array(key or draw(), np.uint64)))


def _after_fork() -> None:
    """A forked child must not wait for a lock that a thread of its parent held."""
    _random.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
