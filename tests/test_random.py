"""minicnn/random.py: counter-based random numbers."""

import contextlib
import itertools
import threading
from unittest.mock import MagicMock

import numpy as np
import pytest
from reference import at_once, refuses

import minicnn
from minicnn.random import first_row, generator, manual_seed, random_state, rows_before, set_random_state


def test_each_draw_has_its_own_numbers_and_a_seed_repeats_them():
    manual_seed(5)
    first = [generator().random(4) for _ in range(3)]
    manual_seed(5)
    again = [generator().random(4) for _ in range(3)]
    minicnn.manual_seed(6)
    other = [generator().random(4) for _ in range(3)]
    np.testing.assert_array_equal(first, again)
    assert len({x.tobytes() for x in first + other}) == 6


def test_the_state_is_two_integers():
    manual_seed(7)
    assert random_state() == (7, 0)
    generator()
    generator().random(1000)  # how much is drawn does not matter
    state = random_state()
    assert state == (7, 2)
    x = generator().random(3)
    set_random_state(state)
    assert random_state() == state
    np.testing.assert_array_equal(generator().random(3), x)
    set_random_state([np.int64(7), np.uint64(2)])
    np.testing.assert_array_equal(generator().random(3), x)


def test_seeds_are_from_0_to_2_to_the_64():
    for seed in (0, 2**64 - 1):
        manual_seed(seed)
        generator().random()
    for seed in (-1, 2**64):
        with refuses(ValueError, str(seed)):
            manual_seed(seed)
    with refuses(ValueError, "-1"):
        set_random_state((3, -1))
    for seed in (1.5, "1", None, [1, 2]):
        with refuses(ValueError, f"seed must be a whole number from 0 to {2**64 - 1}, not {seed!r}"):
            manual_seed(seed)
    for state in (3, (1, 2, 3), "ab"):
        with refuses(ValueError, "state" if state != "ab" else "seed", repr(state if state != "ab" else "a")):
            set_random_state(state)
    set_random_state((3, 2**64 - 1))
    with refuses(ValueError, f"number of draws must be a whole number from 0 to {2**64 - 1}, not {2**64}"):
        set_random_state((3, 2**64))
    set_random_state((2**64 - 1, 0))
    generator((2**64 - 1, 2**64 - 1), 2**128)
    for key, first in (
        (3, 0),
        ((0, 2**64), 0),
        ((0, 1), 2**128 + 1),
        ((1,), 0),
        ((1, -1), 0),
        ((0, 1), -1),
        ((0, 1), 1.0),
    ):
        with refuses(TypeError if key == 3 else ValueError, "generator: "):
            generator(key, first)
    assert random_state()[0] == 2**64 - 1


def test_no_two_threads_get_the_same_draw():
    draws = at_once(*[lambda: [generator().random() for _ in range(50)]] * 4)
    assert len(set(itertools.chain(*draws))) == 200


def test_a_process_begins_with_zeros():
    begun = minicnn.random._Random()
    assert (begun.seed, begun.draws, begun.place) == (0, 0, (0, None))


def test_the_state_is_read_and_written_under_its_lock(monkeypatch):
    lock = MagicMock()
    monkeypatch.setattr(minicnn.random._random, "lock", lock)
    for calls, function in enumerate((generator, lambda: manual_seed(1)), 1):
        function()
        assert lock.__enter__.call_count == calls


def test_a_forked_child_has_a_lock_of_its_own(monkeypatch):
    random = minicnn.random._random
    monkeypatch.setattr(random, "lock", threading.Lock())
    with random.lock:
        minicnn.random._after_fork()
        assert not random.lock.locked()


def test_a_generator_can_begin_anywhere():
    whole = generator((3, 5)).random(80, np.float32)
    for first in range(50):
        np.testing.assert_array_equal(generator((3, 5), first).random(30, np.float32), whole[first : first + 30])
    far = np.random.Generator(np.random.Philox(key=np.array([3, 5], np.uint64), counter=2**77))  # 8 numbers a step
    np.testing.assert_array_equal(generator((3, 5), 2**80 + 5).random(9, np.float32), far.random(14, np.float32)[5:])
    state = random_state()
    generator(first=9)
    assert random_state() == (state[0], state[1] + 1)  # skipping is no draw


def test_rows_before_holds_inside_the_statement_and_in_all_threads():
    manual_seed(7)
    assert first_row(5) == 0
    with rows_before(3):
        assert at_once(lambda: first_row(5), lambda: first_row(5)) == [3, 3]
        with rows_before(np.int64(2)):  # the innermost counts
            assert first_row(5) == 2 and type(first_row(5)) is int
            manual_seed(7)
            assert first_row(5) == 2 and random_state() == (7, 0)
        assert first_row(5) == 3
        with contextlib.suppress(KeyError), rows_before(0):
            assert first_row(5) == 0
            raise KeyError
        assert first_row(5) == 3
    assert first_row(5) == 0


def test_several_places_for_each_row():
    """As after a reshape from (N, T, C) to (N·T, C); what has no rows says so."""
    with rows_before(3, 2):
        assert [first_row(length) for length in (2, 4, 10)] == [3, 6, 15] and first_row(0) == 0
        with refuses(ValueError, "of which there are 2 here", "this array has 5", "rows_before(0)"):
            first_row(5)
        with rows_before(0):
            assert first_row(5) == 0
    with rows_before(3, 0):
        assert first_row(0) == 3
        with refuses(ValueError, "of which there are 0 here", "this array has 5"):
            first_row(5)
    with refuses(ValueError, "rows_before: rows", "a whole number from 0", "-1"), rows_before(3, -1):
        pass
    assert first_row(5) == 0


@pytest.mark.parametrize("n", [-1, 1.5, 2.0, None, "3", np.float32(1)])
def test_what_is_no_number_of_rows(n):
    with rows_before(4):
        with refuses(ValueError, "rows_before", "a whole number from 0", repr(n)), rows_before(n):
            pass
        assert first_row(5) == 4


def test_each_thread_knows_what_it_has_drawn():
    before, seen = minicnn.random.drawn_here(), []

    def draws():
        seen.append(minicnn.random.drawn_here())
        minicnn.random.draw(5)
        seen.append(minicnn.random.drawn_here())

    assert minicnn.random.draw()[1] + 1 == minicnn.random.draw(3)[1] == minicnn.random.random_state()[1] - 3
    thread = threading.Thread(target=draws)
    thread.start()
    thread.join()
    assert minicnn.random.drawn_here() == before + 4 and seen == [0, 5]
