"""ReLU on a GPU: what test_kernels_agreement.py does not draw."""

import importlib

import numpy as np
from agreement import agrees
from hypothesis import strategies as st

from minicnn.backends.cuda import activation as kernels

lesson = importlib.import_module("minicnn.functional.activation")
SHAPES = st.lists(st.integers(0, 6), max_size=3)


def test_a_large_array(gpu):
    """More packs than one block has threads, and every number its own."""
    x = np.arange(-3000.0, 3000.0) / 4
    agrees(gpu, kernels.rectify, lesson.rectify, x, exactly=True)
    agrees(gpu, kernels.where_positive, lesson.where_positive, x[::-1].copy(), x, exactly=True)
