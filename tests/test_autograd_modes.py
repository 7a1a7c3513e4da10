"""Recording or not: no_grad and set_grad_enabled, nested, as decorators, and per thread."""

import threading

import numpy as np
import pytest

from minicnn import Tensor, grad, no_grad
from minicnn.autograd import is_recording, reached_leaves, set_grad_enabled


def in_threads(*functions):
    threads = [threading.Thread(target=f) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def test_no_grad_nests_survives_exceptions_and_is_per_thread():
    x, switch, modes = Tensor([1.0], requires_grad=True), no_grad(), []
    with no_grad():
        with set_grad_enabled(True):
            assert (x * 2).requires_grad
            with switch, switch:
                assert not is_recording()
            assert is_recording()
        with pytest.raises(KeyError), no_grad():
            raise KeyError
        in_threads(lambda: modes.append(is_recording()), lambda: no_grad().__enter__())
        assert not is_recording() and not (x * 2).requires_grad
    assert is_recording() and (x * 2).requires_grad and modes == [True]


def test_no_grad_decorates_functions_also_recursive_ones():
    @no_grad()
    def countdown(n):
        """Down to nothing."""
        if n:
            countdown(n - 1)
        assert not is_recording()

    countdown(3)
    assert is_recording() and countdown.__doc__ == "Down to nothing."


def test_a_decorated_function_in_two_threads_at_once():
    """The first records, the second does not; whoever leaves first finds its own mode again."""
    inside, after = [threading.Event() for _ in range(2)], {}
    left = threading.Event()

    @no_grad()
    def work(first):
        inside[not first].set()
        inside[first].wait(10)
        if not first:
            left.wait(10)

    def run(first):
        with set_grad_enabled(first):
            if not first:
                inside[0].wait(10)  # the first is inside already
            work(first)
            after[first] = is_recording()
            left.set()

    in_threads(lambda: run(True), lambda: run(False))
    assert after == {True: True, False: False}


def test_recording_is_on_or_off():
    for enabled in ("yes", 2, None, []):
        with pytest.raises(ValueError, match="set_grad_enabled: enabled"):
            set_grad_enabled(enabled)
    with set_grad_enabled(np.bool_(False)):
        assert not is_recording()


def test_leaves_that_backward_has_reached():
    a, b = (Tensor(np.ones(2), requires_grad=True) for _ in range(2))
    with reached_leaves() as outer:
        (a * 2).sum().backward()
        with reached_leaves() as inner:
            b.sum().backward()
        (a * b.detach()).sum().backward()
        grad((a * 2).sum(), a)  # which adds to no .grad
    a.sum().backward()
    assert [leaf is a for leaf in outer] == [True, True] and [leaf is b for leaf in inner] == [True]
