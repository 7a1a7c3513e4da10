"""The table of agreement (kernel_table.py) for the CUDA backend: each of its kernels computes what the lesson does."""

import pytest
from agreement import LAYOUTS, agrees, naive
from hypothesis import given
from hypothesis import strategies as st
from kernel_table import EXACTLY, TABLE

from minicnn import backends
from minicnn.backends.cuda import backend, launch, ops

# these have only the index types that they need
NARROW = ("activation", "dropout", "loss", "optimizer", "pixels", "conv", "ops.matmul")


@pytest.mark.parametrize("name", sorted(backend.kernels))
@given(st.data(), LAYOUTS, st.sampled_from(["contiguous", "shifted"]))
def test_a_kernel_agrees_with_the_lesson(gpu, name, data, layout, in_place):
    options = {"exactly": name in EXACTLY, "wide": not name.startswith(NARROW)}
    kernel, lesson = backend.kernels[name], backends._lessons[name]
    agrees(gpu, kernel, lesson, *data.draw(TABLE[name]), **options, layout=layout, in_place=in_place)


# Kernels with a naive version; but for these, which have tests of their own: matmul and sgd_naive
NAIVE = [
    f"{path.stem}.{name.removesuffix('_naive')}"
    for path in sorted(launch.HERE.glob("*.cu"))
    for name in launch.declarations(path.stem)
    if name.endswith("_naive") and name not in ("matmul_naive", "sgd_naive")
]


@pytest.mark.parametrize("kernel", NAIVE)
def test_a_naive_kernel_agrees_with_the_lesson(gpu, monkeypatch, kernel):
    monkeypatch.setattr(launch, "BLOCK", 7)  # small arrays take several blocks, and some threads are to spare
    monkeypatch.setattr(ops, "FEW", 1 << 31)  # sums of all rows in one launch
    name = {"ops.column_sums": "ops.total"}.get(kernel, kernel)

    @given(st.data(), LAYOUTS)
    def draw(data, layout):
        agrees(gpu, backend.kernels[name], backends._lessons[name], *data.draw(TABLE[name]), layout=layout)

    with naive(kernel) as launched:
        draw()
    assert launched


@pytest.mark.parametrize("name", sorted(backends._lessons))
@given(st.data(), st.sampled_from(["contiguous", "gaps"]))
def test_a_lesson_runs_there_as_it_is_written(gpu, name, data, layout):
    """By NumPy's dispatch, where no kernel takes its place."""
    lesson = backends._lessons[name]

    def as_written(*args):
        with backends.use_backend("reference"):
            return lesson(*args)

    as_written.__module__ = lesson.__module__
    agrees(gpu, as_written, lesson, *data.draw(TABLE[name]), layout=layout)
