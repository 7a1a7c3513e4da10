"""minicnn/functional/standardize.py: the three maps. What they compute is asked by the tests of batch normalization,
of every op and of the table of agreement."""

from itertools import product

import numpy as np
import pytest
from reference import gradients_alone

from minicnn import Tensor, apply
from minicnn.functional import standardize

MAPS = {
    "Standardize": [(5, 3), (3,), (3,)],
    "StandardizeSums": [(5, 3)] * 2,
    "StandardizeBackward": [(5, 3), (5, 3), (3,)],
}


@pytest.mark.parametrize("name, wanted", [
    (name, flags) for name, shapes in MAPS.items() for flags in product([False, True], repeat=len(shapes)) if any(flags)
])  # fmt: skip
def test_any_of_the_gradients_alone(name, wanted):
    gradients_alone(lambda: getattr(standardize, name)(1e-3), MAPS[name], wanted)


def test_integers_become_float32():
    arrays = np.array([[1], [3], [8]]), np.ones(1, int), np.zeros(1, int)
    y = apply(standardize.Standardize(1e-3), *[Tensor(array) for array in arrays])
    assert y.dtype == np.float32 and abs(y.data.std() - 1) < 1e-3
