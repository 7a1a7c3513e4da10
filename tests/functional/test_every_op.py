"""Every Function of the package goes through gradcheck and gradgradcheck: a new one without a case here fails. They run
by the backend that is the default, as the lessons are written, and by plain loops."""

import loops
import numpy as np
import pytest
from cases import CASES, FUNCTIONS
from reference import differentiable, keeps

from minicnn import Tensor, use_backend
from minicnn.tensor import apply

VIEWS = {"BroadcastTo", "Reshape", "ToDevice", "Transpose"}  # whose results are their inputs' memory


@pytest.fixture(scope="module", autouse=True)
def loops_are_there():
    with loops.registered():
        yield


def test_every_function_has_a_case():
    assert sorted(CASES) == sorted(FUNCTIONS)


@pytest.mark.parametrize("backend", [None, "reference", "loops"])
@pytest.mark.parametrize("name", CASES)
def test_derivatives(name, backend):
    settings, inputs = CASES[name]

    def f(*args):
        return apply(FUNCTIONS[name](*settings), *args)

    with use_backend(backend):
        assert type(f(*[Tensor(x, requires_grad=True) for x in inputs]).grad_fn) is FUNCTIONS[name]
        differentiable(f, *inputs)


@pytest.mark.parametrize("name", sorted(CASES.keys() - VIEWS))
def test_what_the_user_holds_stays(name):
    settings, inputs = CASES[name]
    keeps(lambda *args: apply(FUNCTIONS[name](*settings), *args), *map(np.copy, inputs))
