"""minicnn/functional/loss.py: cross_entropy and mse_loss."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from limits import LOSSES, reaches_its_limits
from numpy.testing import assert_allclose
from reference import agree, arrays, differentiable, normal, refuses

import minicnn.functional as F
from minicnn import Tensor, grad, nn

REDUCTIONS = {"mean": np.mean, "sum": np.sum, "none": np.asarray}
LABELS = [0, 2, 1, 2]


def cross_entropy(logits, labels, reduction="mean"):
    return REDUCTIONS[reduction](reference.cross_entropy(logits, labels))


def squares(prediction, target, reduction="mean"):
    pairs = zip(prediction.ravel(), target.ravel(), strict=True)
    return REDUCTIONS[reduction](np.array([(p - t) ** 2 for p, t in pairs]).reshape(prediction.shape))


@given(st.data(), st.integers(1, 5), st.integers(1, 5), st.sampled_from([{}, *({"reduction": r} for r in REDUCTIONS)]))
def test_cross_entropy_is_the_equation(data, n, k, options):
    labels = data.draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    kinds = [list, np.array, lambda a: np.array(a, np.uint8), lambda a: np.array(a, np.int32)[::-1].copy()[::-1]]
    given = data.draw(st.sampled_from([*kinds, lambda a: Tensor(np.array(a))]))(labels)
    agree(
        lambda z, **options: F.cross_entropy(z, given, **options),
        lambda z, **options: cross_entropy(z, labels, **options),
        data.draw(arrays((n, k))),
        **options,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_logits(dtype):
    """Each row has its own maximum, and a probability of 0 does not become log 0."""
    z = Tensor(np.array([[1e4, 1e4 - 2], [-1e4, -1e4], [0, 5000]], dtype), requires_grad=True)
    losses = F.cross_entropy(z, [0, 1, 0], reduction="none")
    losses.sum().backward()
    a = 1 / (1 + np.exp(-2))
    assert_allclose(losses.data, [-np.log(a), np.log(2), 5000], rtol=1e-5)
    assert_allclose(z.grad.data, [[a - 1, 1 - a], [0.5, -0.5], [-1, 1]], rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_derivatives(reduction):
    differentiable(lambda z: F.cross_entropy(z, LABELS, reduction=reduction), normal(4, 3))
    differentiable(lambda a, b: F.mse_loss(a, b, reduction=reduction), normal(4, 3), normal(4, 3, seed=1))


def test_the_gradient_is_linear_in_what_flows_in():
    z = Tensor(normal(4, 3), requires_grad=True)
    dy, g = Tensor(normal(4, seed=1), requires_grad=True), normal(4, 3, seed=2)
    (dz,) = grad(F.cross_entropy(z, LABELS, reduction="none"), z, dy, create_graph=True)
    (by_dy,) = grad(dz, dy, Tensor(g))
    assert_allclose(by_dy.data, (g * (reference.softmax(z.data) - np.eye(3)[LABELS])).sum(axis=1), rtol=1e-12)


def test_an_empty_batch():
    for labels in ([], np.zeros(0, int)):
        z = Tensor(np.ones((0, 3)), requires_grad=True)
        assert np.isnan(F.cross_entropy(z, labels).item())
        assert F.cross_entropy(z, labels, reduction="none").shape == (0,)
        total = F.cross_entropy(z, labels, reduction="sum")
        total.backward()
        assert total.item() == 0 and z.grad.shape == (0, 3)
    assert F.cross_entropy(Tensor(np.ones((0, 0))), [], reduction="none").shape == (0,)
    assert np.isnan(F.mse_loss(z, np.ones((0, 3))).item())
    assert F.mse_loss(z, np.ones((0, 3)), reduction="sum").item() == 0


def test_integers_become_real_numbers():
    for z in (Tensor(np.array([[1, 3]])), Tensor(np.array([[1, 3]], np.uint8))):
        loss = F.cross_entropy(z, [0])
        assert loss.dtype == np.float32 and loss.item() == pytest.approx(np.log1p(np.exp(2)))


def test_labels_are_read_when_the_loss_is_computed():
    z, labels = Tensor(normal(4, 3), requires_grad=True), np.array(LABELS)
    loss = F.cross_entropy(z, labels)
    labels[:] = 0
    loss.backward()
    assert_allclose(z.grad.data, (reference.softmax(z.data) - np.eye(3)[LABELS]) / 4)


@pytest.mark.parametrize("lowest, highest", [(-1, 0), (0, 3), (3, 3), (-5, -1)])
def test_labels_out_of_range(lowest, highest):
    for kind in (list, np.array, lambda a: Tensor(np.array(a))):
        with refuses(ValueError, "cross_entropy", f"from {lowest} to {highest}", "3 classes"):
            F.cross_entropy(Tensor(np.ones((2, 3))), kind([lowest, highest]))
    with refuses(ValueError, "255", "3 classes"):
        F.cross_entropy(Tensor(np.ones((1, 3))), np.array([255], np.uint8))


@pytest.mark.parametrize("labels", [[0.0, 1.0], np.array([1, 2], np.float32), ["a", "b"]])
def test_labels_that_are_no_integers(labels):
    with refuses(
        TypeError,
        "cross_entropy",
        "integers",
        str(np.asarray(labels).dtype if not isinstance(labels[0], str) else labels),
    ):
        F.cross_entropy(Tensor(np.ones((2, 3))), labels)


@pytest.mark.parametrize(
    "logits, labels",
    [((2, 3), (3,)), ((2, 3), (2, 1)), ((2, 3), ()), ((2, 3), (2, 3)), ((3,), (3,)), ((2, 3, 4), (2,)), ((), ())],
)
def test_logits_and_labels_that_do_not_fit(logits, labels):
    with refuses(ValueError, "cross_entropy", "(N, K)", "(N,)", str(logits), str(labels)):
        F.cross_entropy(Tensor(np.ones(logits)), np.zeros(labels, int))


@given(
    st.data(), st.lists(st.integers(1, 4), max_size=3), st.sampled_from([{}, *({"reduction": r} for r in REDUCTIONS)])
)
def test_mse_loss_is_the_equation(data, shape, options):
    if shape:
        agree(F.mse_loss, squares, data.draw(arrays(shape)), data.draw(arrays(shape)), **options)
    else:
        agree(F.mse_loss, squares, np.array(3.0), np.array(1.0), **options)


def test_a_target_may_be_an_array():
    prediction = Tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    for target in ([3.0, 3.0], np.array([3.0, 3.0]), np.array([3, 3])):
        loss = F.mse_loss(prediction, target)
        assert loss.dtype == np.float32 and loss.item() == 2.5


@pytest.mark.parametrize("prediction, target", [((3,), (3, 1)), ((3, 1), (3,)), ((3,), ()), ((), (1,)), ((2, 3), (3,))])
def test_shapes_are_not_broadcast(prediction, target):
    for kind in (np.ones, lambda shape: np.ones(shape).tolist(), lambda shape: Tensor(np.ones(shape))):
        with refuses(ValueError, "mse_loss", str(prediction), str(target), "equal"):
            F.mse_loss(Tensor(np.ones(prediction)), kind(target))


@pytest.mark.parametrize("reduction", ["average", "", None, "Mean"])
def test_reductions_that_do_not_exist(reduction):
    with refuses(ValueError, "cross_entropy", "'mean', 'sum' or 'none'", repr(reduction)):
        F.cross_entropy(Tensor(np.ones((2, 3))), [0, 1], reduction=reduction)
    with refuses(ValueError, "mse_loss", "'mean', 'sum' or 'none'", repr(reduction)):
        F.mse_loss(Tensor(np.ones(2)), [0, 1], reduction=reduction)


def by_hand(z, labels, weight, ignored, smoothing, reduction):
    """The definition, sample by sample."""
    losses, counts = np.zeros(len(z)), np.zeros(len(z))
    for i, label in enumerate(labels):
        if label == ignored:
            continue
        costs = -reference.log_softmax(z[i]) * weight
        losses[i] = (1 - smoothing) * costs[label] + smoothing * costs.mean()
        counts[i] = weight[label]
    with np.errstate(invalid="ignore"):
        return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / counts.sum()}[reduction]


WEIGHTED = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


@WEIGHTED
@pytest.mark.parametrize("weight", [None, np.array([0.5, 2.0, 0.0, 1.5])])
@pytest.mark.parametrize("ignored", [None, -100, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_samples_that_do_not_count_alike(reduction, weight, ignored, smoothing):
    z, labels = normal(6, 4), np.array([0, 3, 2, 1, 1, 3])
    if ignored == -100:
        labels[[1, 4]] = -100
    options = dict(reduction=reduction, weight=weight, ignore_index=ignored, label_smoothing=smoothing)
    expected = by_hand(z, labels, np.ones(4) if weight is None else weight, ignored, smoothing, reduction)
    y = F.cross_entropy(Tensor(z), labels, **options)
    assert_allclose(y.data, expected, rtol=1e-12, atol=1e-12)
    assert F.cross_entropy(Tensor(z.astype(np.float32)), labels, **options).dtype == np.float32
    differentiable(lambda x: F.cross_entropy(x, labels, **options), z)


def test_booleans_are_the_classes_0_and_1():
    z = Tensor(normal(4, 2))
    labels = np.array([True, False, True, True])
    for options in ({}, {"ignore_index": 1}, {"weight": [0.5, 2.0], "label_smoothing": 0.1}):
        expected = F.cross_entropy(z, labels.astype(int), **options).item()
        for kind in (labels, labels.tolist(), Tensor(labels)):
            assert F.cross_entropy(z, kind, **options).item() == expected
    p = Tensor([0.25, 0.5, 1.0, -1.0], requires_grad=True)
    for f in (F.mse_loss, F.binary_cross_entropy_with_logits):
        assert f(p, labels).item() == f(p, labels.astype(np.float32)).item()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"weight": [1.0, 2.0, 0.5]}])
def test_rows_that_are_ignored_may_hold_anything(bad, reduction, options):
    z = normal(4, 3)
    z[1], z[3, 0] = bad, bad
    labels = np.array([2, -1, 0, -1])
    x, y = Tensor(z, requires_grad=True), Tensor(z[[0, 2]], requires_grad=True)
    loss = F.cross_entropy(x, labels, ignore_index=-1, reduction=reduction, **options)
    few = F.cross_entropy(y, labels[[0, 2]], reduction=reduction, **options)
    loss.sum().backward()
    few.sum().backward()
    assert_allclose(loss.data[[0, 2]] if reduction == "none" else loss.data, few.data)
    assert_allclose(x.grad.data[[0, 2]], y.grad.data)
    assert not x.grad.data[[1, 3]].any() and (reduction != "none" or not loss.data[[1, 3]].any())


def test_a_class_of_weight_0_does_not_count_even_if_its_loss_is_infinite():
    """As the right class, and as one that label smoothing spreads over."""
    z = Tensor(np.array([[0.0, -np.inf, 1.0], [1.0, -np.inf, 2.0]]), requires_grad=True)
    loss = F.cross_entropy(z, [1, 0], weight=[1.0, 0.0, 1.0])
    loss.backward()
    assert loss.item() == pytest.approx(np.log(1 + np.e)) and not z.grad.data[0].any()
    smooth = F.cross_entropy(z, [1, 0], weight=[1.0, 0.0, 1.0], label_smoothing=0.3)
    smooth.backward()
    without = Tensor(np.array([[0.0, 1.0], [1.0, 2.0]]))
    spread = -F.log_softmax(without).data.sum(axis=1) / 3
    assert smooth.item() == pytest.approx(0.7 * loss.item() + 0.3 * spread.sum()) and np.isfinite(z.grad.data).all()


def test_integers_become_real_numbers_with_every_option():
    z = np.array([[1, 3, 2], [0, 1, 0]])
    for options in ({"label_smoothing": 0.1}, {"ignore_index": 0}, {"weight": np.array([1, 2, 3])}):
        loss = F.cross_entropy(Tensor(z), [0, 1], **options)
        assert loss.dtype == np.float32
        assert loss.item() == pytest.approx(F.cross_entropy(Tensor(z.astype(np.float32)), [0, 1], **options).item())


def test_of_one_class_an_ignored_sample_is_none():
    z = Tensor(np.array([[1.0], [2.0]]))
    assert F.cross_entropy(z, [-1, 0], ignore_index=-1, reduction="none").data.tolist() == [0, 0]


def test_the_layer_asks_when_it_is_made():
    with refuses(ValueError, "CrossEntropyLoss: reduction is 'mean', 'sum' or 'none', not 'median'"):
        nn.CrossEntropyLoss(reduction="median")


def test_nothing_flows_into_an_ignored_sample():
    """Though its loss is infinite, and whatever the reduction."""
    z = Tensor(np.array([[0.0, -np.inf], [1.0, 2.0]]), requires_grad=True)
    for reduction in ("sum", "mean", "none"):
        z.grad = None
        with np.errstate(invalid="ignore"):
            F.cross_entropy(z, [-1, 0], ignore_index=-1, reduction=reduction).sum().backward()
        assert not z.grad.data[0].any() and z.grad.data[1].all()
    assert np.isnan(F.cross_entropy(z, [7, 7], ignore_index=7).item())  # the mean of none


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(weight=[1.0, 2.0]), r"weight of shape \(2,\), not \(3,\)"),
        (dict(label_smoothing=1.5), "label_smoothing.*1.5"),
        (dict(label_smoothing=-0.1), "label_smoothing"),
        (
            dict(label_smoothing="0.1"),
            "cross_entropy: label_smoothing, a share, must be a number from 0 to 1, not '0.1'",
        ),
        (dict(weight="heavy"), r"cross_entropy: weight is a number for each class, \(K,\), not 'heavy'$"),
        (dict(weight=[1.0, -2.0, 1.0]), r"weight, each element of it, must be a finite number from 0, not -2.0"),
        (
            dict(weight=Tensor([1.0, 2.0, np.nan])),
            r"weight, each element of it, must be a finite number from 0, not nan",
        ),
        (dict(weight=[1.0, np.inf, 1.0]), "weight, each element of it, must be a finite number from 0, not inf"),
        (dict(weight=[]), r"weight of shape \(0,\), not \(3,\)"),
        (dict(weight=[[1.0, 2.0, 3.0]]), r"weight is a number for each class.*not float64 of shape \(1, 3\)"),
        (dict(weight=["a", "b", "c"]), r"weight is a number for each class.*not \['a', 'b', 'c'\]$"),
        (dict(ignore_index=1.5), "ignore_index must be a whole number, not 1.5"),
        (dict(ignore_index=5, reduction="median"), "reduction"),
        (dict(ignore_index=0), "from -1 to 2"),
    ],
)
def test_settings_of_cross_entropy_that_do_not_fit(options, words):
    with pytest.raises(ValueError, match=words):
        F.cross_entropy(Tensor(normal(3, 3)), [0, 2, -1] if "from" in words else [0, 2, 1], **options)


@pytest.mark.torch
@WEIGHTED
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_pytorch_counts_the_same(reduction, smoothing):
    torch = pytest.importorskip("torch")
    z, labels, weight = normal(6, 4), np.array([0, 3, -100, 1, 1, 2]), np.array([0.5, 2.0, 0.25, 1.5])
    ours = F.cross_entropy(
        Tensor(z), labels, weight=weight, ignore_index=-100, label_smoothing=smoothing, reduction=reduction
    )
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(z), torch.tensor(labels), torch.tensor(weight), label_smoothing=smoothing, reduction=reduction
    )
    assert_allclose(ours.data, theirs.numpy(), rtol=1e-12)
    z, t = normal(5, 2) * 30, abs(normal(5, 2, seed=1)) % 1
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor(z), torch.tensor(t), reduction=reduction)
    assert_allclose(
        F.binary_cross_entropy_with_logits(Tensor(z), t, reduction=reduction).data, theirs.numpy(), rtol=1e-12
    )


@WEIGHTED
def test_binary_cross_entropy_is_the_equation(reduction):
    z, t = normal(5, 2), abs(normal(5, 2, seed=1)) % 1
    p = 1 / (1 + np.exp(-z))
    losses = -t * np.log(p) - (1 - t) * np.log(1 - p)
    expected = {"none": losses, "sum": losses.sum(), "mean": losses.mean()}[reduction]
    assert_allclose(F.binary_cross_entropy_with_logits(Tensor(z), t, reduction=reduction).data, expected, rtol=1e-12)


@WEIGHTED
def test_derivatives_of_binary_cross_entropy(reduction):
    """By the logits, the targets, and both; of integers it is a real number."""
    z, t = normal(3, 2), abs(normal(3, 2, seed=1)) % 1
    f = lambda z, t: F.binary_cross_entropy_with_logits(z, t, reduction=reduction)  # noqa: E731
    differentiable(f, z, t)
    differentiable(lambda t: f(Tensor(z), t), t)
    assert f(Tensor([0, 1]), np.array([0, 1])).dtype == np.float32


def test_binary_cross_entropy_far_from_0():
    """There a probability would be rounded to 0 or 1, whose logarithm is −∞ or 0."""
    z = Tensor(np.array([-1e4, 1e4, -1e4, 1e4, 0.0]), requires_grad=True)
    y = F.binary_cross_entropy_with_logits(z, np.array([0.0, 1.0, 1.0, 0.0, 0.5]), reduction="none")
    assert_allclose(y.data, [0, 0, 1e4, 1e4, np.log(2)])
    y.sum().backward()
    assert_allclose(z.grad.data, [0, 0, -1, 1, 0])
    with pytest.raises(ValueError, match=r"binary_cross_entropy_with_logits.*\(5,\).*\(5, 1\)"):
        F.binary_cross_entropy_with_logits(z, np.ones((5, 1)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_limits_are_reached(name, dtype):
    reaches_its_limits(name, dtype)
