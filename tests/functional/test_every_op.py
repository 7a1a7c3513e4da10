"""Every Function of the package goes through gradcheck and gradgradcheck: a new one without a case here fails."""

import pytest
from cases import CASES, FUNCTIONS
from reference import differentiable

from minicnn import Tensor
from minicnn.tensor import apply


def test_every_function_has_a_case():
    assert sorted(CASES) == sorted(FUNCTIONS)


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name):
    settings, inputs = CASES[name]

    def f(*args):
        return apply(FUNCTIONS[name](*settings), *args)

    assert type(f(*[Tensor(x, requires_grad=True) for x in inputs]).node) is FUNCTIONS[name]
    differentiable(f, *inputs)
