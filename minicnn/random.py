"""Random numbers: counter-based, each draw keyed by (seed, number of the draw). So they are the same for any number of
threads and on every backend, and two integers are their whole state."""

import operator
import os
import threading

import numpy as np


class _Random:
    def __init__(self) -> None:
        self.seed, self.draws, self.lock = 0, 0, threading.Lock()


_random = _Random()


def manual_seed(seed: int) -> None:
    """Begin the random numbers of this process again, from that seed (0 to 2⁶⁴ − 1)."""
    set_random_state((seed, 0))


def random_state() -> tuple[int, int]:
    """(seed, draws so far): all there is to the state, since each draw is keyed by this pair."""
    return _random.seed, _random.draws


def set_random_state(state: tuple[int, int]) -> None:
    """Continue from a state that random_state returned."""
    seed, draws = map(operator.index, state)
    for name, value in (("seed", seed), ("number of draws", draws)):
        if not 0 <= value < 1 << 64:
            raise ValueError(f"a {name} is an integer from 0 to 2**64 - 1, not {value}")
    with _random.lock:
        _random.seed, _random.draws = seed, draws


def draw() -> tuple[int, int]:
    """The key of the next draw: the seed, and the number of the draw."""
    with _random.lock:
        key = (_random.seed, _random.draws)
        _random.draws += 1
    return key


def generator(key: tuple[int, int] | None = None) -> np.random.Generator:
    """The generator of a draw, or of the next one: Philox with that key."""
    return np.random.Generator(np.random.Philox(key=np.array(key or draw(), np.uint64)))


def _after_fork() -> None:
    """A forked child must not wait for a lock that a thread of its parent held."""
    _random.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
