"""ReLU on a GPU against the lesson."""

import importlib

import numpy as np
from agreement import LAYOUTS, agrees, awkward, normal
from hypothesis import given
from hypothesis import strategies as st

from minicnn.backends.cuda import activation as kernels

lesson = importlib.import_module("minicnn.functional.activation")
SHAPES = st.lists(st.integers(0, 6), max_size=3)


@given(SHAPES, st.integers(0, 99), LAYOUTS)
def test_rectify(gpu, shape, seed, layout):
    agrees(gpu, kernels.rectify, lesson.rectify, awkward(*shape, seed=seed), exactly=True, layout=layout)


@given(SHAPES, st.integers(0, 99), LAYOUTS)
def test_where_positive(gpu, shape, seed, layout):
    dy, y = normal(*shape, seed=seed), awkward(*shape, seed=seed)
    agrees(gpu, kernels.where_positive, lesson.where_positive, dy, y, exactly=True, layout=layout)


def test_a_large_array(gpu):
    """More packs than one block has threads, and every number its own."""
    x = np.arange(-3000.0, 3000.0) / 4
    agrees(gpu, kernels.rectify, lesson.rectify, x, exactly=True)
    agrees(gpu, kernels.where_positive, lesson.where_positive, x[::-1].copy(), x, exactly=True)
