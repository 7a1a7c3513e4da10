"""Cross-entropy on a GPU against the lesson."""

import importlib

import numpy as np
import pytest
from agreement import agrees, naive, normal

from minicnn.backends.cuda import loss as kernels

lesson = importlib.import_module("minicnn.functional.loss")
SOME = normal(3, 10).astype(np.float32)


@pytest.mark.parametrize("place", [0, 3, 255, 256, 299])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_infinities_and_NaN(gpu, place, value):
    z, labels = normal(4, 300), np.array([place, 5, 299, 0])
    z[:3, place] = value
    z[2] = value
    agrees(gpu, kernels.negative_log_likelihood, lesson.negative_log_likelihood, z, labels)
    agrees(
        gpu,
        kernels.negative_log_likelihood_backward,
        lesson.negative_log_likelihood_backward,
        normal(4, seed=1),
        z,
        labels,
    )


@pytest.mark.parametrize("label", [-1, 10, -(2**63), 2**63 - 1, 2**32])
def test_a_label_that_is_no_class(gpu, label):
    """NaN for that sample alone, and nothing is read that is not there."""
    z, labels, dy = (gpu.asarray(a) for a in (SOME, np.array([2, label, 7]), SOME[:, 0].copy()))
    bad = np.array([False, True, False])
    np.testing.assert_array_equal(np.isnan(kernels.negative_log_likelihood(z, labels).get()), bad)
    dz = kernels.negative_log_likelihood_backward(dy, z, labels).get()
    np.testing.assert_array_equal(np.isnan(dz), np.repeat(bad[:, None], 10, 1))
    assert not kernels.onehot(labels, 10).get()[1].any()


def test_nothing_is_left_of_the_sample_before(gpu):
    """Beside whose logits these would vanish."""
    z = np.float32([1e6, -1e6, 0, 1e6, -1e6])[:, None] + SOME[:1]
    args = kernels.negative_log_likelihood, lesson.negative_log_likelihood, z.astype(np.float64), np.arange(5)
    agrees(gpu, *args)
    with naive("loss.negative_log_likelihood"):
        agrees(gpu, *args)


def test_more_samples_than_a_block_has_threads(gpu):
    z, labels = normal(600, 3), np.arange(600) % 3
    args = kernels.negative_log_likelihood, lesson.negative_log_likelihood, z, labels
    agrees(gpu, *args)
    with naive("loss.negative_log_likelihood"):
        agrees(gpu, *args)


def test_no_classes(gpu):
    """Then no label is one."""
    z, labels, dy = (gpu.asarray(a) for a in (SOME[:2, :0].copy(), np.array([0, -1]), SOME[:2, 0].copy()))
    assert np.isnan(kernels.negative_log_likelihood(z, labels).get()).all()
    assert kernels.negative_log_likelihood_backward(dy, z, labels).shape == (2, 0)


def test_labels_of_another_dtype(gpu):
    with pytest.raises(TypeError, match="labels must be int64, not int32"):
        kernels.negative_log_likelihood(gpu.asarray(SOME), gpu.asarray(np.zeros(3, np.int32)))
