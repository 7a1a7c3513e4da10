"""minicnn/backends/numpy/conv.py: how convolution's work is cut, and which way it goes. That it is right is in
test_agreement.py."""

import pytest
from reference import cut, normal

import minicnn.functional as F
from minicnn import Tensor
from minicnn.backends.numpy import conv, winograd
from minicnn.backends.numpy.threads import slices
from minicnn.backends.numpy.windows import groups_of


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
