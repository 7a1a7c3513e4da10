"""Rounds of turns with contenders, a clock and a counter of busy time that the test controls; real processes where only
those will do."""

import math
import time

import numpy as np
import pytest

from benchmarks import machine
from benchmarks.turns import BenchmarkError, Contender, Spread, Turn, Worker, enough, measure, ratios, running, spread


class World:
    """A clock, and how busy the cores have been: by the contenders, who say so, and by others, who do not."""

    def __init__(self, others=()):
        self.now = self.worked = 0.0
        self.others = iter(others)  # seconds that others work during each turn
        self.order = []

    def contender(self, name, seconds, tasks=("step",)):
        return FakeContender(self, name, seconds, tasks)

    def measure(self, contenders, tasks=("step",), **options):
        hands = {"busy": lambda: self.worked, "clock": lambda: self.now, "sleep": lambda _: None}
        return measure(contenders, list(tasks), **{**hands, **options})


class FakeContender:
    def __init__(self, world, name, seconds, tasks):
        self.world, self.name, self.seconds, self.tasks = world, name, seconds, tasks

    def ask(self, method, *arguments):
        if method == "warm_up":
            return 3
        self.world.order.append(self.name)
        repeats = arguments[0]
        spent = self.seconds * sum(repeats.values())
        self.world.now += spent
        self.world.worked += spent * len(machine.cores()) + next(self.world.others, 0.0)
        times = {task: self.seconds for task in repeats}
        return Turn(times, {task: 7.0 for task in repeats}, spent * len(machine.cores()))


def test_contenders_take_turns_and_all_that_they_did_is_there():
    world = World()
    result = world.measure([world.contender("a", 1.0), world.contender("b", 2.0)], rounds=2)
    assert world.order == ["a", "b", "a", "b"]
    assert result == {
        "seconds": {"step": {"a": [1.0, 1.0], "b": [2.0, 2.0]}},
        "faults": {"step": {"a": 7.0, "b": 7.0}},
        "discarded": 0,
        "missing": 0,
    }


def test_a_contender_takes_part_only_in_tasks_it_has():
    world = World()
    contenders = [world.contender("a", 1.0, ("conv", "relu")), world.contender("b", 2.0, ("conv",))]
    seconds = world.measure(contenders, ("conv", "relu"), rounds=1)["seconds"]
    assert seconds == {"conv": {"a": [1.0], "b": [2.0]}, "relu": {"a": [1.0]}}


def test_rounds_in_which_others_worked_are_thrown_away():
    a_tenth = 0.1 * 3 * len(machine.cores())  # of the first turn, which lasts 3 seconds; a 20th is allowed
    world = World([0, 0, a_tenth, 0, 0.4 * a_tenth])
    result = world.measure([world.contender("a", 1.0)], rounds=3)
    assert (result["discarded"], result["missing"], len(result["seconds"]["step"]["a"])) == (1, 0, 3)


def test_what_a_waiting_contender_does_counts_as_others_work():
    """Its processor time is not in the turn's report: only what the one whose turn it is used is taken off."""
    world = World([0.0, 5.0])
    assert world.measure([world.contender("a", 1.0), world.contender("b", 1.0)], rounds=1)["discarded"] == 1


def test_a_machine_that_is_never_quiet_ends_the_measurement():
    world = World([100.0] * 1000)
    result = world.measure([world.contender("a", 1.0)], rounds=3)
    assert result["seconds"] == {"step": {"a": []}} and result["missing"] == 3
    assert 3 < result["discarded"] < 20 and math.isnan(result["faults"]["step"]["a"])


@pytest.mark.parametrize("kept, missing, good", [(3, 9, True), (2, 0, True), (2, 1, False), (0, 1, False)])
def test_too_few_rounds_are_no_result(kept, missing, good):
    measured = {"seconds": {"step": {"a": [1.0] * kept}}, "missing": missing, "discarded": 8}
    if good:
        assert enough(measured) is measured
    else:
        with pytest.raises(BenchmarkError, match="took the machine in 8 rounds"):
            enough(measured)


def test_without_a_counter_every_round_is_kept():
    world = World([100.0] * 1000)
    result = world.measure([world.contender("a", 1.0)], rounds=3, busy=lambda: None)
    assert (result["discarded"], result["missing"]) == (0, 0)


@pytest.mark.parametrize("seconds, rounds", [(0.001, 15), (1.0, 10), (100.0, 4)])
def test_the_budget_decides_on_the_rounds(seconds, rounds):
    world = World()
    result = world.measure([world.contender("a", seconds)], budget=30.0, fewest=4)
    assert len(result["seconds"]["step"]["a"]) == rounds


def test_spread():
    assert spread([]) is None
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0)


def test_ratios_are_taken_within_each_round():
    """The medians' ratio would be 3."""
    assert ratios({"a": [1.0, 2.0, 10.0], "b": [2.0, 6.0, 10.0]}, "b", "a") == Spread(2.0, 1.0, 3.0)


class Sleeper(Worker):
    def __init__(self, seconds):
        self.calls = 0
        self.tasks = {"sleep": self.sleep}
        self.seconds = seconds

    def sleep(self):
        self.calls += 1
        time.sleep(self.seconds)


def test_a_worker_repeats_what_is_short_and_warms_up_twice():
    worker = Sleeper(0.002)
    assert worker.warm_up("sleep", 0.02) <= 11
    long = Sleeper(0.02)
    assert long.warm_up("sleep", 0.01) == 1 and long.calls == 2


def test_a_turn_is_for_one_repetition():
    turn = Sleeper(0.005).turn({"sleep": 4})
    assert 0.005 <= turn.seconds["sleep"] < 0.02 and turn.faults["sleep"] >= 0
    assert turn.cpu < 0.02  # sleeping is not working


# ----------------------------------------------------------------------------------------------------- real processes
def test_a_process_reports_its_tasks_threads_and_memory():
    much = np.ones(500 << 17)  # of the process that starts it: this is not its memory
    del much
    with running(Contender("minicnn", 1, "ours:Chains")) as (contender,):
        assert {"add", "mul", "relu", "numpy add"} <= set(contender.tasks)
        assert contender.threads["asked"] == 1
        assert all(n == 1 for pool, n in contender.threads.items() if "blas" in pool)
        assert 10 < contender.ask("peak") < 300
        turn = contender.ask("turn", {"add": 1})
        assert turn.seconds["add"] > 0
    assert not contender._process.is_alive()


def test_a_process_has_its_backend_and_describes_itself():
    with running(Contender("minicnn", 1, "ours:Chains", backend="reference")) as (contender,):
        found = contender.ask("describe")
    assert found["backend"] == "reference" and found["threads"] == 1 and found["processor"]


def test_threads_that_are_not_those_asked_for_are_an_error():
    contender = Contender("minicnn", 1, "ours:Chains")
    contender.asked = 2
    with pytest.raises(BenchmarkError, match="minicnn uses 1 threads where 2 were asked for"), running(contender):
        pass


def test_threads_that_change_are_an_error():
    contender = Contender("minicnn", 1, "ours:Chains")
    with pytest.raises(BenchmarkError, match="ended with"), running(contender):
        contender.threads = contender.threads | {"asked": 3}


def test_a_process_that_dies_and_one_that_errs():
    with (
        pytest.raises(BenchmarkError, match=r"minicnn's process ended.*-9"),
        running(Contender("minicnn", 1, "ours:Chains")) as (c,),
    ):
        c._process.kill()
        c._process.join()
        c.ask("peak")
    with pytest.raises(RuntimeError, match="KeyError: 'fly'"), running(Contender("minicnn", 1, "ours:Chains")) as (c,):
        c.ask("turn", {"fly": 1})
