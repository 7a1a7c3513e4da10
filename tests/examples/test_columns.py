"""The paper's two columns; the checks are in tests/mpi/divided.py, which two ranks run."""

import launch
import pytest
from columns import Cross, DividedLinear, column, own_part
from model import alexnet
from support.options import UsageError
from support.parallel import Columns

from minicnn import nn
from minicnn.workers import Workers


class Second(Workers):
    rank, size = 1, 2


@launch.needs_mpi
def test_logits_gradients_and_what_crosses():
    launch.passes(2, "check_columns")


@launch.needs_mpi
@pytest.mark.slow
def test_a_thousand_classes():
    result = launch.mpiexec(2, "divided.py", 1000)
    assert set(launch.checks_of("divided.py")) == {line.removeprefix("passed: ") for line in result.out.splitlines()}


def test_a_column_has_half_of_the_whole():
    own = column(Second(), 10, nn.ReLU, nn.Dropout)
    whole = dict(alexnet("2012", 10, "zeros").named_parameters())
    assert list(whole) == [name for name, _ in own.named_parameters()]
    for name, p in own.named_parameters():
        assert (*p.shape[:-1], 2 * p.shape[-1]) == whole[name].shape, name
    names = [name for name, layer in own.named_modules() if isinstance(layer, (Cross, DividedLinear))]
    assert names == ["cross3", "cross6", "fc6.fc", "fc7.fc", "fc8"]


def test_parts_are_disjoint_and_complete():
    class Third(Workers):
        size = 3

    parts = []
    for Third.rank in range(3):
        parts.append(own_part(10, Third()))
    assert parts == [slice(0, 3), slice(3, 6), slice(6, 10)]


def test_two_processes():
    class Three(Workers):
        size = 3

    with pytest.raises(UsageError, match=r"mpiexec -n 2, not 3; --parallel data or hybrid takes any number"):
        Columns(Three())


def test_a_network_without_columns(run, tmp_path):
    """A process that is alone says so too."""
    for options in (["--variant", "2014"], ["--no-groups"]):
        result = run("train.py", "--parallel", "columns", *options, "--out", tmp_path / "run")
        assert result.status == 2 and len(result.err.splitlines()) == 1
        assert "train.py: --parallel columns trains the 2012 network in two columns from its beginning" in result.err
    assert not any(tmp_path.iterdir())
