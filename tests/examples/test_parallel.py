"""How processes divide a network and its optimizer; see tests/mpi/divided.py. Training: test_train_mpi.py."""

import launch
import pytest
from support.parallel import WAYS
from support.settings import PARALLEL


@launch.needs_mpi
@pytest.mark.parametrize("size", [2, 3])
def test_states_of_the_whole(size):
    launch.passes(size, "check_states_of_the_whole")


def test_one_process_says_what_it_does_not_divide(run, tmp_path):
    """If that was asked for; and that columns are another network, also when the run goes on."""

    def said(*arguments):
        result = run("train.py", *arguments)
        assert result.status == 0, result.err
        return [line for line in result.out.splitlines() if line.startswith("in one process")]

    columns = "in one process, which has both columns: each normalizes its own channels; mpiexec -n 2 divides them"
    for way in PARALLEL:
        nothing = f"in one process, where --parallel {way} divides nothing; mpiexec -n N starts several"
        first = {"data": [], "columns": [columns]}.get(way, [nothing])
        assert said("--parallel", way, "--epochs", 1, "--out", tmp_path / way) == first
        again = [columns] if way == "columns" else []
        assert said("--resume", tmp_path / way / "last.safetensors", "--epochs", 2) == again
    assert said("--epochs", 1, "--out", tmp_path / "none") == []


def test_each_way_has_its_option():
    assert set(WAYS) == set(PARALLEL)
