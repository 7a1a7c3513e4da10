"""minicnn/backends/numpy/conv.py: how convolution's work is cut, and which way it goes. That it is right is in
test_agreement.py."""

import numpy as np
import pytest
import reference
from numpy.testing import assert_allclose, assert_array_equal
from reference import cut, normal, same_in_slices

import minicnn.functional as F
from minicnn import Tensor
from minicnn.backends import numpy as fast
from minicnn.backends.numpy import conv, winograd
from minicnn.backends.numpy.threads import slices
from minicnn.backends.numpy.windows import groups_of

EVERYTHING = dict(stride=(2, 1), padding=((1, 0), (2, 1)), dilation=(1, 2), groups=2)
X, WEIGHT, Y = (2, 4, 2, 4), (3, 2, 2, 6), (2, 2, 3, 6)  # fit EVERYTHING


def test_slices():
    x, weight, v = normal(7, *X[1:]), normal(*WEIGHT, seed=1), normal(7, *Y[1:])
    same_in_slices(F.conv2d, x, weight, normal(6, seed=2), **EVERYTHING)
    same_in_slices(F.conv_transpose2d, v, weight, normal(4, seed=2), **EVERYTHING)


@pytest.mark.parametrize("options", [EVERYTHING, dict(padding=((4, 1), (0, 3)), groups=2), dict(stride=3)])
def test_a_single_image_on_several_threads(options):
    """It is cut into rows or channels, and gives what it gives as one of a batch."""
    x, weight, bias = normal(4, 11, 7, 4), normal(3, 2, 4 // options.get("groups", 1), 6, seed=1), normal(6, seed=2)
    with cut(1 << 40, 64, 1):
        y, *_ = reference.step(F.conv2d, (x, weight, bias), **options)
        dx = [reference.step(F.conv2d, (x[i : i + 1], weight, bias), **options)[1:] for i in range(4)]
        v = normal(*y.shape, seed=4)
        back = F.conv_transpose2d(Tensor(v), Tensor(weight), **options).data
    for threads in (2, 3, 4):
        with cut(1 << 40, 64, threads):
            for i in range(4):
                single, *gradients = reference.step(F.conv2d, (x[i : i + 1], weight, bias), **options)
                assert_allclose(single[0], y[i], rtol=1e-12, atol=1e-12)
                for a, b in zip(gradients, dx[i], strict=True):
                    assert_allclose(a, b, rtol=1e-12, atol=1e-12)
                transposed = F.conv_transpose2d(Tensor(v[i : i + 1]), Tensor(weight), **options).data
                assert_allclose(transposed[0], back[i], rtol=1e-12, atol=1e-12)


def test_what_the_choice_of_a_way_depends_on(monkeypatch):
    """Output pixels, and the smaller number of a group's channels, each time."""
    asked = []
    monkeypatch.setattr(winograd, "suits", lambda *args: asked.append(args[2:]))
    for channels, outputs, groups, least in ((10, 6, 2, 3), (6, 10, 2, 3), (6, 9, 3, 2), (7, 5, 1, 5)):
        x = Tensor(normal(3, 7, 6, channels), requires_grad=True)
        F.conv2d(
            x, Tensor(normal(3, 2, channels // groups, outputs), requires_grad=True), groups=groups
        ).sum().backward()
        assert asked == [(3 * 5 * 5, least)] * 3
        asked.clear()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_empty_batch(threads):
    before = fast.threads.get_num_threads()
    fast.threads.set_num_threads(threads)
    try:
        for options in (EVERYTHING, dict(stride=3)):
            x, weight = normal(0, *X[1:]), normal(3, 2, 4 // options.get("groups", 1), 6)
            y, dx, dw, db = reference.step(F.conv2d, (x, weight, normal(6)), **options)
            assert len(y) == 0 and y.shape[3] == 6 and dx.shape == x.shape
            assert_array_equal(dw, np.zeros(weight.shape))
            assert_array_equal(db, np.zeros(6))
    finally:
        fast.threads.set_num_threads(before)


@pytest.mark.parametrize("threads", [2, 3])
def test_a_single_image_has_work_for_all_threads(threads, monkeypatch):
    done = []
    for name in ("parallel", "parallel_sum"):
        real = getattr(conv, name)
        monkeypatch.setattr(conv, name, lambda f, work, real=real: done.append(len(work)) or real(f, work))
    x, weight = Tensor(normal(1, 8, 7, 6), requires_grad=True), Tensor(normal(3, 2, 6, 6), requires_grad=True)
    with cut(1 << 40, 64, threads):
        F.conv2d(x, weight).sum().backward()
    assert done == [threads] * 3


@pytest.mark.parametrize("groups", [1, 2])
def test_the_columns_of_a_slice_fill_the_cache(groups, monkeypatch):
    """All three maps take as many images at a time as have columns that fit, or less than one of them: rows of its
    output, except where pixels belong to several of these."""
    x, weight = Tensor(normal(7, 6, 4, 4), requires_grad=True), Tensor(normal(3, 2, 4 // groups, 6), requires_grad=True)
    done = []

    def spy(run):
        return lambda function, work: done.append(work) or run(function, work)

    for name in ("parallel", "parallel_sum"):
        monkeypatch.setattr(conv, name, spy(getattr(conv, name)))
    one = 4 * 3 * (3 * 2 * 4 // groups) * 8  # OH OW KH KW C/G, bytes
    for cache, images, rows in (
        (3 * one, 3, 4),
        (3 * one - 1, 2, 4),
        (one, 1, 4),
        (one - 1, 1, 2),
        (one // 4, 1, 1),
        (100 * one, 7, 4),
    ):
        with cut(cache, 1 << 40, 1):
            F.conv2d(x, weight, groups=groups).sum().backward()
        by_rows = [(slice(*i), slice(*r)) for i in slices(7, images) for r in slices(4, rows)]
        by_groups = [(slice(*i), *group) for i in slices(7, images) for group in groups_of(groups, 4, 6)]
        assert done[0] == by_rows and by_rows in done[1:] and by_groups in done[1:] and len(done) == 3
        done.clear()
