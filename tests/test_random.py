"""minicnn/random.py: counter-based random numbers."""

import itertools

import numpy as np
import pytest
from reference import at_once, refuses

import minicnn
from minicnn.random import generator, manual_seed, random_state, set_random_state


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
    with pytest.raises(TypeError):
        manual_seed(1.5)
    assert random_state()[0] == 2**64 - 1


def test_no_two_threads_get_the_same_draw():
    draws = at_once(*[lambda: [generator().random() for _ in range(50)]] * 4)
    assert len(set(itertools.chain(*draws))) == 200
