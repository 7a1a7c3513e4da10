"""minicnn/backends/numpy/lrn.py: blocks of pixels, and sums of neighbors in one long row."""

import numpy as np
import pytest
import reference
from numpy.testing import assert_array_equal
from reference import cut, normal

import minicnn.functional as F
from minicnn import Tensor
from minicnn.backends import numpy as fast
from minicnn.backends.numpy import lrn


@pytest.mark.parametrize("rubbish", [3e38, np.nan, -np.inf])
def test_what_lay_in_the_buffers_before_does_not_matter(rubbish):
    """Not even for the sums that are cut off: none of them overflows, which would be a warning."""
    a = normal(5, 3).astype(np.float32)
    with cut(1 << 40, 1 << 40, 1):
        expected = reference.step(F.local_response_norm, [a], n=4, alpha=1.0)
        for name in ("squares", "t", "x", "d 2", "d 4", "s 2", "s 4"):
            fast.memory.scratch(name, (1000,), like=a)[...] = rubbish
        for result, before in zip(reference.step(F.local_response_norm, [a], n=4, alpha=1.0), expected, strict=True):
            assert_array_equal(result, before)


def test_blocks_of_pixels_hold_a_block_of_numbers(monkeypatch):
    done, real = [], lrn.parallel
    monkeypatch.setattr(lrn, "parallel", lambda function, work: done.append(work) or real(function, work))
    for block, step in ((60, 10), (65, 10), (66, 11), (5, 1)):
        with cut(1, block, 2):
            F.local_response_norm(Tensor(normal(3, 7, 6)))
        assert done == [fast.threads.slices(21, step)]
        done.clear()
