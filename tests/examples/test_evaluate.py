"""evaluate.py: counting the best answers, and agreement with what training wrote down."""

import itertools
import re

import evaluate
import numpy as np
import pytest

from minicnn import Tensor, nn
from minicnn.data import DataLoader


@pytest.mark.parametrize("k", [1, 2, 5, 9])
@pytest.mark.parametrize("classes", [2, 3, 5, 12])
def test_top_k_counts_labels_among_the_largest(k, classes):
    rng = np.random.default_rng(classes)
    logits = rng.permuted(np.tile(np.arange(classes, dtype=np.float32), (40, 1)), axis=1)
    labels = rng.integers(classes, size=40)
    expected = sum(sum(logit > row[label] for logit in row) < k for row, label in zip(logits, labels, strict=True))
    assert evaluate.top_k(logits, labels, k) == expected
    assert k < classes or expected == 40


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_ties_count_as_if_lots_were_drawn(k):
    """Against the mean over all orders in which equal logits can come."""
    rng = np.random.default_rng(k)
    logits, labels = rng.integers(0, 3, (30, 4)).astype(np.float32), rng.integers(4, size=30)
    shares = []
    for row, label in zip(logits, labels, strict=True):
        orders = list(itertools.permutations(range(4)))
        shares.append(np.mean([label in sorted(order, key=lambda i: -row[i])[:k] for order in orders]))
    assert evaluate.top_k(logits, labels, k) == pytest.approx(sum(shares))
    assert evaluate.top_k(np.zeros((8, 10), np.float32), np.arange(8), k) == pytest.approx(0.8 * k)


def test_logits_that_are_no_numbers_are_wrong():
    nan, labels = np.nan, np.array([0, 1, 1, 0])
    logits = np.array([[nan, 1.0, 0.0], [1.0, nan, 0.0], [0.0, 1.0, nan], [nan] * 3])
    assert evaluate.top_k(logits, labels, 1) == 0
    assert evaluate.top_k(logits, labels, 2) == 1  # the third: one larger at most


@pytest.mark.parametrize("batches, often, counts", [(120, 1e9, [1, 50, 50, 19]), (3, 0, [1, 1, 1]), (0, 0, [])])
def test_a_score_is_counted_now_and_then(monkeypatch, batches, often, counts):
    """At once, then every 50 batches, or when it is time; at the end nothing is left."""
    rng, given, fetched = np.random.default_rng(0), [], []
    monkeypatch.setattr(evaluate, "OFTEN", often)
    score, count = evaluate.Score(), evaluate.Score.count

    def noted(self):
        fetched.extend([len(self.kept)] * bool(self.kept))
        count(self)

    monkeypatch.setattr(evaluate.Score, "count", noted)
    for i in range(batches):
        n = 1 + i % 3
        logits, labels = rng.standard_normal((n, 7)), rng.integers(7, size=n)
        score.add(Tensor(np.float32(i)), Tensor(logits), labels)
        given.append((n, i, (logits > logits[np.arange(n), labels][:, None]).sum(axis=1)))
    if not batches:
        return
    result, seen = score.result(), sum(n for n, _, _ in given)
    assert fetched == counts and score.seen == seen
    assert result["loss"] == pytest.approx(sum(n * i for n, i, _ in given) / seen)
    for k in (1, 5):
        assert result[f"top{k}"] == pytest.approx(100 * sum((above < k).sum() for _, _, above in given) / seen)


def test_evaluate_averages_over_pictures_not_batches():
    """Five pictures in batches of two: loss and accuracies as computed by hand over all five."""
    rng = np.random.default_rng(0)
    dataset = [(rng.random((1, 1, 6), np.float32), label) for label in (0, 3, 5, 5, 1)]
    net = nn.Sequential(flatten=nn.Flatten(), dropout=nn.Dropout(0.5), fc=nn.Linear(6, 6)).train()
    result = evaluate.evaluate(net, DataLoader(dataset, 2, num_workers=0))
    x, labels = np.stack([image.ravel() for image, _ in dataset]), np.array([label for _, label in dataset])
    logits = (x @ net.fc.weight.data + net.fc.bias.data).astype(np.float64)
    loss = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), labels]
    rank = (logits > logits[np.arange(5), labels][:, None]).sum(axis=1)
    expected = {"loss": loss.mean(), "top1": 100 * (rank < 1).mean(), "top5": 100 * (rank < 5).mean()}
    assert result == pytest.approx(expected, rel=1e-5)
    assert net.training and net.dropout.training  # as it was
    assert net.fc.weight.grad is None


@pytest.mark.parametrize("batch", [20, 7])
def test_agrees_with_the_last_row_of_metrics(run, finished, look, batch):
    result = run("evaluate.py", "--checkpoint", finished.folder / "last.safetensors", "--batch-size", batch)
    assert result.status == 0 and not result.err
    row = look.metrics(finished.folder)[-1]
    loss, top1, top5 = map(float, re.search(r"loss (\S+), top-1 (\S+)%, top-5 (\S+)%", result.out).groups())
    assert loss == pytest.approx(row["val_loss"], abs=2e-4)
    assert (top1, top5) == pytest.approx((row["val_top1"], row["val_top5"]), abs=0.006)
    assert "20 pictures" in result.out and "synthetic" in result.out


def test_best_agrees_with_the_best_row(run, finished, look):
    result = run("evaluate.py", "--checkpoint", finished.folder / "best.safetensors")
    best = max(row["val_top1"] for row in look.metrics(finished.folder))
    assert result.status == 0 and f"top-1 {best:.2f}%" in result.out


def test_another_folder_of_the_same_classes(run, photos, tmp_path):
    trained = run("train.py", "--data", photos(), "--epochs", 1, "--out", tmp_path / "run")
    assert trained.status == 0, trained.err
    (tmp_path / "photos").rename(tmp_path / "moved")
    result = run("evaluate.py", "--checkpoint", tmp_path / "run" / "best.safetensors", "--data", tmp_path / "moved")
    assert result.status == 0 and "6 pictures" in result.out and "top-5 100.00%" in result.out


def test_data_that_do_not_fit(mistake, finished, photos, tmp_path):
    best = finished.folder / "best.safetensors"
    mistake(["classes", "photos", "eel", "rings"], "evaluate.py", "--checkpoint", best, "--data", photos())
    mistake("nowhere", "evaluate.py", "--checkpoint", best, "--data", tmp_path / "nowhere")
    (tmp_path / "photos" / "val" / "eel").rename(tmp_path / "eel")
    mistake("eel", "evaluate.py", "--checkpoint", best, "--data", tmp_path / "photos")
