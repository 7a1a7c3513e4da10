"""How processes divide a network and its optimizer; see tests/mpi/divided.py. Training: test_train_mpi.py."""

import launch
import pytest
from support.options import PARALLEL
from support.parallel import WAYS


@launch.needs_mpi
@pytest.mark.parametrize("size", [2, 3])
def test_states_of_the_whole(size):
    launch.passes(size, "divided.py", "check_states_of_the_whole")


def test_each_way_has_its_option():
    assert set(WAYS) == set(PARALLEL)
