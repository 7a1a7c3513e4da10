"""evaluate.py: counting the best answers, ten crops, agreement with what training wrote down, and what it writes."""

import itertools
import json
import os
import re
import shutil
import unicodedata
import weakref

import crew as crews
import evaluate
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from support import runs, scores
from support.images import IMAGENET, View

import minicnn
from minicnn import Tensor, nn
from minicnn.data import DataLoader

crew = crews.crew  # a fixture


@pytest.mark.parametrize("k", [1, 2, 5, 9])
@pytest.mark.parametrize("classes", [2, 3, 5, 12])
def test_top_k_counts_labels_among_the_largest(k, classes):
    rng = np.random.default_rng(classes)
    logits = rng.permuted(np.tile(np.arange(classes, dtype=np.float32), (40, 1)), axis=1)
    labels = rng.integers(classes, size=40)
    expected = sum(sum(logit > row[label] for logit in row) < k for row, label in zip(logits, labels, strict=True))
    assert scores.top_k(logits, labels, k) == expected
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
    assert scores.top_k(logits, labels, k) == pytest.approx(sum(shares))
    assert scores.top_k(np.zeros((8, 10), np.float32), np.arange(8), k) == pytest.approx(0.8 * k)


def test_logits_that_are_no_numbers_are_wrong():
    nan, labels = np.nan, np.array([0, 1, 1, 0])
    logits = np.array([[nan, 1.0, 0.0], [1.0, nan, 0.0], [0.0, 1.0, nan], [nan] * 3])
    assert scores.top_k(logits, labels, 1) == 0 == scores.top_k(np.full((2, 3), np.nan), np.arange(2), 5)
    assert scores.top_k(logits, labels, 2) == 1  # the third: one larger at most


@pytest.mark.parametrize("batches, often, counts", [(120, 1e9, [1, 50, 50, 19]), (3, 0, [1, 1, 1]), (0, 0, [])])
def test_a_score_is_counted_now_and_then(monkeypatch, batches, often, counts):
    """At once, then every 50 batches, or when it is time; at the end nothing is left."""
    rng, given, fetched = np.random.default_rng(0), [], []
    monkeypatch.setattr(scores, "OFTEN", often)
    score, count = scores.Score(), scores.Score.count

    def noted(self):
        fetched.extend([len(self.kept)] * bool(self.kept))
        count(self)

    monkeypatch.setattr(scores.Score, "count", noted)
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


@given(st.data(), st.integers(1, 6), st.integers(0, 40))
def test_confusion_is_a_naive_count(data, classes, n):
    """In batches of any size, with many ties, of which the first counts."""
    logits = data.draw(
        st.lists(st.lists(st.integers(0, 3), min_size=classes, max_size=classes), min_size=n, max_size=n)
    )
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    cuts = sorted(data.draw(st.sets(st.integers(1, n - 1))) if n > 1 else ())
    expected = [[0] * classes for _ in range(classes)]
    for row, label in zip(logits, labels, strict=True):
        expected[label][row.index(max(row))] += 1
    score = scores.Score(classes)
    for start, stop in itertools.pairwise([0, *cuts, n]):
        batch = np.array(logits[start:stop], np.float32).reshape(-1, classes), np.array(labels[start:stop], int)
        score.add(Tensor(np.float32(0)), Tensor(batch[0]), batch[1])
    score.count()
    assert score.confusion.tolist() == expected and scores.Score().confusion.size == 0


# -- mistakes -------------------------------------------------------------------------------------------------------


def batches_of(sizes, classes=5, seed=0):
    """(logits, labels, images) of batches, and each image holds its number everywhere."""
    rng, starts = np.random.default_rng(seed), np.cumsum([0, *sizes])
    for n, start in zip(sizes, starts, strict=False):
        logits = 4 * rng.standard_normal((n, classes)).astype(np.float32)
        numbers = np.arange(start, start + n, dtype=np.float32)
        yield logits, rng.integers(classes, size=n), np.tile(numbers[:, None, None, None], (1, 2, 2, 3))


def worst_of(batches, most):
    """[(probability, label, answer, number)] of the wrong answers, in float64, the most probable first."""
    found = []
    for logits, labels, images in batches:
        for row, label, image in zip(logits.astype(float), labels, images, strict=True):
            if label != row.argmax():
                found.append((np.exp(row.max()) / np.exp(row).sum(), label, row.argmax(), image.flat[0]))
    return sorted(found, reverse=True)[:most]


def facts(score):
    assert all(mistake.image.shape == (2, 2, 3) and np.ptp(mistake.image) == 0 for mistake in score.mistakes)
    assert all([type(value) for value in mistake[:3]] == [float, int, int] for mistake in score.mistakes)
    return [(p, label, answer, image[0, 0, 0]) for p, label, answer, image in score.mistakes]


def near(mistakes):
    return [(pytest.approx(p, rel=1e-5), *rest) for p, *rest in mistakes]


@pytest.mark.parametrize("kept", [1, 3, 50])
@pytest.mark.parametrize("most", [1, 7, 1000])
def test_the_most_probable_mistakes_are_kept(monkeypatch, most, kept):
    monkeypatch.setattr(scores, "MOST_KEPT", kept)
    monkeypatch.setattr(scores, "OFTEN", 1e9)
    score, batches = scores.Score(mistakes=most), list(batches_of([3, 1, 8, 5, 2, 9, 4]))
    for logits, labels, images in batches:
        score.add(Tensor(np.float32(0)), Tensor(logits), labels, images)
        assert len(score.mistakes) <= most
    score.result()
    assert facts(score) == near(worst_of(batches, most))
    assert min(most, 20) <= len(score.mistakes) <= min(most, 32)


def test_of_equally_probable_mistakes_the_first_is_kept():
    score, logits = scores.Score(mistakes=2), np.tile(np.array([0, 1, 0], np.float32), (40, 1))
    for start in (0, 40):
        images = np.zeros((40, 1, 1, 3), np.float32) + np.arange(start, start + 40)[:, None, None, None]
        score.add(Tensor(np.float32(0)), Tensor(logits), np.array([1, 2, 0, *[2] * 37]), images)
        score.count()
        assert [(m.label, m.answer, m.image.flat[0]) for m in score.mistakes] == [(2, 1, 1), (0, 1, 2)]


def test_answers_that_are_no_numbers_are_no_mistakes_to_show():
    score, logits = scores.Score(mistakes=5), np.array([[np.nan, 0, 0], [0, 3, 0], [0, 1, np.nan]], np.float32)
    score.add(Tensor(np.float32(0)), Tensor(logits), np.array([1, 0, 1]), np.zeros((3, 1, 1, 3), np.float32))
    (mistake,) = score.mistakes
    assert mistake[:3] == (pytest.approx(np.exp(3) / (np.exp(3) + 2)), 0, 1)


def test_mistakes_in_ten_crops():
    """The probability is that of the mean of ten answers, and the image the crop from the middle."""
    rng = np.random.default_rng(3)
    images, labels = rng.standard_normal((7, 10, 2, 2, 3)).astype(np.float32), rng.integers(4, size=7)
    net, score = linear(12, 4), scores.Score(mistakes=3)
    evaluate.evaluate(net, DataLoader(list(zip(images, labels, strict=True)), 3, num_workers=0), score)
    p = naive_crops(net, images)
    wrong = sorted((-p[i].max(), i) for i in range(7) if p[i].argmax() != labels[i])[:3]
    assert len(wrong) == len(score.mistakes) == 3
    for (probability, i), mistake in zip(wrong, score.mistakes, strict=True):
        assert mistake[:3] == (pytest.approx(-probability, rel=1e-5), labels[i], p[i].argmax())
        np.testing.assert_array_equal(mistake.image, images[i, 4])


def test_no_more_images_are_held_than_are_shown(monkeypatch):
    """Those of a batch until it is counted, which is soon if they are large."""
    monkeypatch.setattr(scores, "OFTEN", 1e9)
    monkeypatch.setattr(scores, "MOST_BYTES", 3 * 12_000)
    score, alive = scores.Score(mistakes=2), []
    for i in range(9):
        images = np.zeros((10, 10, 10, 3), np.float32)
        score.add(Tensor(np.float32(0)), Tensor(np.eye(10, dtype=np.float32) * i), np.zeros(10, np.int64), images)
        alive.append(weakref.ref(images))
        del images
        assert sum(ref() is not None for ref in alive) == len(score.kept) == [0, 1, 2, 3, 0, 1, 2, 3, 0][i]
    score.result()
    assert not any(ref() is not None for ref in alive)
    assert all(mistake.image.base is None for mistake in score.mistakes) and len(score.mistakes) == 2


def test_a_score_without_mistakes_holds_no_images():
    score, images = scores.Score(3), np.zeros((2, 4, 4, 3), np.float32)
    score.add(Tensor(np.float32(0)), Tensor(np.eye(2, 3, dtype=np.float32)), np.array([1, 1]), images)
    score.add(Tensor(np.float32(0)), Tensor(np.eye(2, 3, dtype=np.float32)), np.array([1, 1]), images)
    assert [kept[-1] for kept in score.kept] == [None]
    assert score.result()["top1"] == 50 and score.mistakes == []


@pytest.mark.parametrize("size", [2, 3])
def test_of_several_workers_each_has_what_all_have_counted(crew, size):
    """The first one has no image in the last batch."""
    batches = list(batches_of([8, 9, 8]))

    def work(workers):
        score = scores.Score(5, workers, mistakes=6)
        for i, batch in enumerate(batches):
            rank = workers.rank - 1 if i == 2 else workers.rank
            logits, labels, images = (x[rank::size] if rank >= 0 else x[:0] for x in batch)
            score.add(Tensor(np.float32(0)), Tensor(logits), labels, images)
        return score.result(), score.confusion.tolist(), score.seen, facts(score)

    alone = scores.Score(5, mistakes=6)
    for i, (logits, labels, images) in enumerate(batches):
        some = np.flatnonzero(np.arange(len(labels)) % size < size - (i == 2))
        alone.add(Tensor(np.float32(0)), Tensor(logits[some]), labels[some], images[some])
    expected = alone.result(), alone.confusion.tolist(), alone.seen, near(facts(alone))
    assert crew(size, work) == [expected] * size


def test_evaluate_averages_over_pictures_not_batches():
    """Five images in batches of two: loss and accuracies as computed by hand over all five."""
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


# -- ten crops ------------------------------------------------------------------------------------------------------


def linear(features, classes):
    net = nn.Sequential(flatten=nn.Flatten(), fc=nn.Linear(features, classes))
    net.fc.weight.data[...] = np.random.default_rng(1).standard_normal((features, classes))
    return net


def naive_crops(net, pictures):
    """The mean of the softmax outputs of each image's crops (N, 10, H, W, 3), in float64, one after the other."""
    means = np.zeros((len(pictures), net.fc.bias.size))
    for mean, crops in zip(means, pictures, strict=True):
        for crop in crops:
            logits = crop.ravel().astype(float) @ net.fc.weight.data + net.fc.bias.data
            mean += np.exp(logits) / np.exp(logits).sum() / 10
    return means


def test_ten_crops_are_averaged_over_their_softmax_outputs():
    pictures, labels = np.random.default_rng(0).standard_normal((7, 10, 2, 2, 3)).astype(np.float32), np.arange(7)
    net, score = linear(12, 8), scores.Score(8)
    p = naive_crops(net, pictures)
    result = evaluate.evaluate(net, DataLoader(list(zip(pictures, labels, strict=True)), 3, num_workers=0), score)
    rank = (p > p[labels, labels][:, None]).sum(axis=1)
    expected = {
        "loss": -np.log(p[labels, labels]).mean(), "top1": 100 * (rank < 1).mean(), "top5": 100 * (rank < 5).mean(),
    }  # fmt: skip
    assert result == pytest.approx(expected, rel=1e-5) and 0 < result["top1"] < result["top5"] < 100
    assert np.argwhere(score.confusion).tolist() == [[label, p[label].argmax()] for label in labels]
    logits = evaluate.outputs(net, pictures).numpy()
    np.testing.assert_allclose(np.exp(logits), p, rtol=1e-4)


def test_crops_of_no_images():
    """Of a small batch, another process may have all."""
    score, none = scores.Score(4), np.zeros((0, 10, 2, 2, 3), np.float32)
    logits = evaluate.outputs(linear(12, 4), none)
    assert logits.shape == (0, 4)
    score.add(logits.sum(), logits, np.zeros(0, np.int64))
    assert not score.kept


def test_one_crop_gives_the_networks_own_logits():
    pictures, net = np.random.default_rng(0).standard_normal((5, 2, 2, 3)).astype(np.float32), linear(12, 4)
    np.testing.assert_array_equal(evaluate.outputs(net, pictures).numpy(), net(Tensor(pictures)).numpy())


def test_a_class_that_is_improbable_in_all_ten_crops_has_a_loss_all_the_same():
    """e^-300 is 0 in float32, and log 0 is no loss."""
    net = linear(12, 3)
    net.fc.bias.data[...] = 300, 0, 0
    logits = evaluate.outputs(net, np.zeros((2, 10, 2, 2, 3), np.float32)).numpy()
    np.testing.assert_allclose(logits, [[0, -300, -300]] * 2)


# -- the program ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [20, 7])
def test_agrees_with_the_last_row_of_metrics(run, finished, look, batch):
    result = run("evaluate.py", "--checkpoint", finished.folder / "last.safetensors", "--batch-size", batch)
    assert result.status == 0 and not result.err
    row = look.metrics(finished.folder)[-1]
    loss, top1, top5 = map(float, re.search(r"loss (\S+), top-1 (\S+)%, top-5 (\S+)%", result.out).groups())
    assert loss == pytest.approx(row["val_loss"], abs=2e-4)
    assert (top1, top5) == pytest.approx((row["val_top1"], row["val_top5"]), abs=0.006)
    assert "20 images" in result.out and "synthetic" in result.out


def test_best_agrees_with_the_best_row(run, finished, look):
    result = run("evaluate.py", "--checkpoint", finished.folder / "best.safetensors")
    best = max(row["val_top1"] for row in look.metrics(finished.folder))
    assert result.status == 0 and f"top-1 {best:.2f}%" in result.out


def test_the_five_best_of_five_classes_are_not_news():
    result = {"top1": 12.345, "top5": 67.8, "val_top1": 1.0, "val_top5": 2.0}
    assert evaluate.in_words(result, 6) == "top-1 12.3%  top-5 67.8%"
    assert evaluate.in_words(result, 6, digits=2, between=", ") == "top-1 12.35%, top-5 67.80%"
    assert evaluate.in_words(result, 5) == "top-1 12.3%" and evaluate.in_words(result, 5, prefix="val_") == "top-1 1.0%"


def test_the_newest_run_answers_and_says_so(run, mistake, monkeypatch, look, tmp_path):
    """By the time of its last epoch, whatever it is called; what is no run of AlexNet's does not
    count."""
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("PIL.Image").new("RGB", (80, 80)).save("photo.png")
    programs = {"evaluate.py": ["--json", "-"], "predict.py": ["photo.png", "--json"]}
    for program, arguments in programs.items():
        mistake(["no run in runs/", "--checkpoint FILE"], program, *arguments)
    for i, name in enumerate(("b", "a", "c")):
        assert run("train.py", "--epochs", 1, "--seed", i, "--out", f"runs/{name}").status == 0
        os.utime(f"runs/{name}/last.safetensors", (i, 10 + i))
    (tmp_path / "runs/other").mkdir()
    for name, text in {"last.safetensors": "text", "config.json": '{"network": "80sec"}'}.items():
        (tmp_path / "runs/other" / name).write_text(text)
    for newest, best in (("c", True), ("c", False), ("a", True)):
        path = f"runs/{newest}/{'best' if best else 'last'}.safetensors"
        if not best:
            (tmp_path / "runs/c/best.safetensors").unlink()
        elif newest == "a":
            (tmp_path / "runs/c/config.json").write_text("{")
        for program, arguments in programs.items():
            found, named = run(program, *arguments), run(program, "--checkpoint", path, *arguments)
            assert found.status == named.status == 0 and found.out == named.out and not named.err
            assert found.err == f"{program}: using the network of the newest run, {path}, trained on synthetic\n"


@pytest.mark.parametrize("program", ["evaluate.py", "predict.py"])
def test_a_newest_run_that_is_damaged_hides_no_other(run, mistake, finished, monkeypatch, tmp_path, program):
    """A line for each file that is skipped; of a run whose last network is damaged the best answers."""
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("PIL.Image").new("RGB", (80, 80)).save("photo.png")
    arguments = ["photo.png"] * (program == "predict.py")
    for i, name in enumerate("abc"):
        shutil.copytree(finished.folder, f"runs/{name}")
        os.utime(f"runs/{name}/last.safetensors", (i, 10 + i))
    whole = (tmp_path / "runs/c/best.safetensors").read_bytes()
    (tmp_path / "runs/c/last.safetensors").write_bytes(b"")
    os.utime("runs/c/last.safetensors", (9, 19))
    answered = "evaluate.py: using the network of the newest run, runs/{}.safetensors, trained on synthetic"
    answered = answered.replace("evaluate.py", program)
    assert run(program, *arguments).err.splitlines() == [answered.format("c/best")]
    (tmp_path / "runs/c/best.safetensors").unlink()
    assert run(program, *arguments).err.splitlines()[1:] == [answered.format("c/previous")]
    (tmp_path / "runs/c/previous.safetensors").unlink()
    (tmp_path / "runs/b/best.safetensors").write_bytes(whole[:-9])
    result = run(program, *arguments)
    assert result.status == 0
    *skipped, last = result.err.splitlines()
    assert last == answered.format("b/last")
    assert [line.partition(" is not a checkpoint, or not whole: ")[0] for line in skipped] == [
        f"{program}: runs/c/last.safetensors",
        f"{program}: runs/b/best.safetensors",
    ]
    assert all(line.endswith("; skipped") for line in skipped)
    shutil.rmtree("runs/a")
    (tmp_path / "runs/b/last.safetensors").write_text("text")
    (tmp_path / "runs/b/previous.safetensors").unlink()
    os.utime("runs/b/last.safetensors", (1, 11))
    result = run(program, *arguments)
    assert result.status == 2 and len(result.err.splitlines()) == 4 and "no run in runs/" in result.err


def test_another_folder_of_the_same_classes(run, photos, tmp_path):
    trained = run("train.py", "--data", photos(), "--epochs", 1, "--out", tmp_path / "run")
    assert trained.status == 0, trained.err
    (tmp_path / "photos").rename(tmp_path / "moved")
    result = run("evaluate.py", "--checkpoint", tmp_path / "run" / "best.safetensors", "--data", tmp_path / "moved")
    assert result.status == 0 and re.search(r"^6 images .*, top-1 \d+\.\d\d%$", result.out, re.MULTILINE)


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_whose_accents_are_written_otherwise(run, photos, tmp_path, forms):
    """As after a copy from another system, where they sort otherwise too: the classes are the same,
    for what measures a network, goes on with it, or begins with it."""
    folder, last = photos(), tmp_path / "run" / "last.safetensors"

    def call(part, form):
        for before, after in {"cat": "bz", "dog": "b\u00e4"}.items():
            known = (tmp_path / "photos" / part / unicodedata.normalize(f, n) for f in forms for n in (before, after))
            (found,) = {path for path in known if path.exists()}
            found.rename(found.with_name(unicodedata.normalize(form, after)))

    call("train", forms[0])
    call("val", forms[1])
    trained = run("train.py", "--data", folder, "--epochs", 1, "--out", last.parent)
    assert trained.status == 0, trained.err
    classes = minicnn.load(last)[1]["config"]["classes"]
    assert classes == sorted(unicodedata.normalize(forms[0], name) for name in ("bz", "b\u00e4", "eel"))
    before = run("evaluate.py", "--checkpoint", last)
    call("train", forms[1])
    assert before.status == 0 and run("evaluate.py", "--checkpoint", last).out == before.out
    begun = run("train.py", "--from", last, "--data", folder, "--epochs", 1, "--out", tmp_path / "other")
    assert begun.status == 0 and "all its layers, because the classes are the same" in begun.out, begun.err
    for path in (last, tmp_path / "other" / "last.safetensors"):
        result = run("train.py", "--resume", path, "--epochs", 2)
        assert result.status == 0 and minicnn.load(path)[1]["config"]["classes"] == classes, result.err
    shutil.rmtree(folder / "train")
    assert run("evaluate.py", "--checkpoint", last).status == 0


def test_pictures_that_lack_some_of_the_classes(run, mistake, photos, tmp_path):
    """A validation set may, as long as the classes are known: of train/, or of the network."""
    folder, last = photos(), tmp_path / "run" / "last.safetensors"
    shutil.rmtree(folder / "val" / "cat")
    assert run("train.py", "--data", folder, "--epochs", 1, "--out", last.parent).status == 0
    result = run("evaluate.py", "--checkpoint", last)
    assert result.status == 0 and "4 images" in result.out and re.search(r"^cat +0 ", result.out, re.MULTILINE)
    (folder / "train").rename(tmp_path / "elsewhere")
    assert run("evaluate.py", "--checkpoint", last).out == result.out
    (folder / "val" / "dog").rename(folder / "val" / "gnu")
    mistake("knows 3 classes", "evaluate.py", "--checkpoint", last)
    (tmp_path / "elsewhere").rename(folder / "train")
    shutil.rmtree(folder / "val" / "gnu")
    shutil.rmtree(folder / "train" / "cat")  # other data, of two classes
    fewer = run("evaluate.py", "--checkpoint", last)
    assert fewer.status == 0 and "has no images of 2 of 3 classes: cat, dog" in fewer.err
    begun = run("train.py", "--from", last, "--data", folder, "--epochs", 1, "--out", tmp_path / "two")
    assert begun.status == 0 and "fc8 is new, for 2 classes instead of 3" in begun.out, begun.err


def test_data_that_do_not_fit(mistake, finished, changed, photos, tmp_path):
    best = finished.folder / "best.safetensors"
    words = ["knows 10 classes", "photos has 3", "horizontal and cat"]
    mistake(words, "evaluate.py", "--checkpoint", best, "--data", photos())
    mistake("nowhere", "evaluate.py", "--checkpoint", best, "--data", tmp_path / "nowhere")
    said = ["nowhere", "was trained on it: if it has moved, give --data"]
    mistake(said, "evaluate.py", "--checkpoint", changed(data=str(tmp_path / "nowhere")))
    (tmp_path / "photos" / "val" / "eel").rename(tmp_path / "photos" / "val" / "ape")
    mistake("missing: eel; unknown: ape", "evaluate.py", "--checkpoint", best, "--data", tmp_path / "photos")


def test_classes_that_are_mere_numbers_are_of_no_other_names(mistake, changed, photos):
    """As convert.py calls them, unless it is told their names."""
    checkpoint = changed(classes=[str(i) for i in range(10)])
    words = "differ are 0 and horizontal; it knows its classes by numbers alone", "convert.py --names"
    mistake(words, "evaluate.py", "--checkpoint", checkpoint)
    mistake("knows 10 classes", "evaluate.py", "--checkpoint", checkpoint, "--data", photos())


@pytest.mark.parametrize("with_train", [False, True])
def test_folders_that_are_called_by_numbers(run, look, photos, tmp_path, monkeypatch, with_train):
    """They sort otherwise: 0, 1, 10, 11, 2. A network that takes everything for class 10 has the
    five images of that folder right, of sixteen."""
    look.small_world(monkeypatch)
    picture = photos(classes=1, train=1, val=1) / "val" / "cat" / "0.jpg"
    for k in range(12):
        for part in ("train", "val") if with_train else ("val",):
            (tmp_path / "numbers" / part / str(k)).mkdir(parents=True)
            for i in range(5 if k == 10 else 1):
                shutil.copyfile(picture, tmp_path / "numbers" / part / str(k) / f"{i}.jpg")
    net, names = look.tiny("2014", 12), [str(k) for k in range(12)]
    net.fc8.bias.data[10] = 1e3
    config = {"variant": "2014", "groups": True, "init": "he", "classes": names}
    runs.save_network(tmp_path / "net.safetensors", net, config, View(look.SIZE, *IMAGENET, resize=70))
    arguments = "--checkpoint", tmp_path / "net.safetensors", "--data", tmp_path / "numbers", "--json", "-"
    result = run("evaluate.py", *arguments)
    assert result.status == 0, result.err
    report = json.loads(result.out)
    assert report["top1"] == 31.25 and report["classes"][10]["recall"] == 100 and report["classes"][2]["images"] == 1


@pytest.fixture
def knows_five(run, photos, tmp_path):
    """(checkpoint, its data): a network of five classes."""
    data = photos(classes=5)
    assert run("train.py", "--data", data, "--epochs", 1, "--out", tmp_path / "run").status == 0
    return tmp_path / "run" / "best.safetensors", data


@pytest.mark.parametrize("prefix", ["", "imagenet:"])
@pytest.mark.parametrize("gone", ["train/cat val/cat train/eel val/eel train/fox val/fox", "val/cat val/eel val/fox"])
def test_data_of_some_of_the_classes(run, knows_five, prefix, gone):
    """Are measured by their names, and a line says which are missing: the figures of those that are
    there are what they were."""
    checkpoint, data = knows_five
    arguments = "evaluate.py", "--checkpoint", checkpoint, "--json", "-", "--data"
    whole = json.loads(run(*arguments, data).out)
    for name in gone.split():
        shutil.rmtree(data / name)
    result = run(*arguments, f"{prefix}{data}")
    line = f"evaluate.py: {prefix}{data} (val) has no images of 3 of 5 classes: cat, eel, fox\n"
    assert result.status == 0 and result.err == line, result.err
    report = json.loads(result.out)
    for k, name in enumerate(("cat", "dog", "eel", "fox", "gnu")):
        assert report["confusion"][k] == (whole["confusion"][k] if name in ("dog", "gnu") else [0] * 5)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("classes", [["gnu"], ["dog", "gnu"], ["cat", "dog", "eel", "fox", "gnu"]])
def test_a_folder_that_has_one_part_alone(run, knows_five, split, classes):
    """Of as few classes as there are."""
    checkpoint, data = knows_five
    shutil.rmtree(data / ("train" if split == "val" else "val"))
    for name in ("cat", "dog", "eel", "fox", "gnu"):
        if name not in classes:
            shutil.rmtree(data / split / name)
    result = run("evaluate.py", "--checkpoint", checkpoint, "--split", split, "--json", "-")
    assert result.status == 0 and ("no images of" in result.err) == (len(classes) < 5), result.err
    rows = json.loads(result.out)["classes"]
    assert [row["class"] for row in rows if row["images"]] == classes


@pytest.mark.parametrize("gone", [["train"], []])
def test_a_folder_without_any_class(mistake, knows_five, gone):
    checkpoint, data = knows_five
    for name in ("val", *gone):
        shutil.rmtree(data / name)
    (data / "val").mkdir()
    words = ["val", "no class folders"] if gone else ["val", "missing: cat, dog, eel, fox, gnu; unknown: none"]
    mistake(words, "evaluate.py", "--checkpoint", checkpoint)
    (data / "val" / "dog").mkdir()
    mistake(["val/dog", "no images"], "evaluate.py", "--checkpoint", checkpoint)


@pytest.fixture
def changed(finished, tmp_path):
    """changed(without, arrays, name=setting, …) -> a best.safetensors like that of `finished`, but for these."""

    def write(without=(), arrays=None, **settings):
        before, info = minicnn.load(finished.folder / "best.safetensors")
        config = {name: value for name, value in {**info["config"], **settings}.items() if name not in without}
        minicnn.save(tmp_path / "changed.safetensors", {**before, **(arrays or {})}, {"config": config})
        return tmp_path / "changed.safetensors"

    return write


def test_one_class_more_or_in_another_order(mistake, run, photos, tmp_path):
    run("train.py", "--data", photos(), "--epochs", 1, "--out", tmp_path / "run")
    arguments = ["evaluate.py", "--checkpoint", tmp_path / "run" / "best.safetensors", "--data", tmp_path / "photos"]
    for part in ("train", "val"):
        (tmp_path / "photos" / part / "eel").rename(tmp_path / "photos" / part / "bee")
    mistake("cat and bee", *arguments)
    for part in ("train", "val"):
        (tmp_path / "photos" / part / "bee").rename(tmp_path / "photos" / part / "eel")
        (tmp_path / "photos" / part / "yak").mkdir()
        (tmp_path / "photos" / part / "cat" / "0.jpg").rename(tmp_path / "photos" / part / "yak" / "0.jpg")
    mistake("none and yak", *arguments)


def test_large_photos_are_decoded_only_as_large_as_they_are_needed(run, photos, decoded, tmp_path):
    """By train.py as well, to train on and to validate."""
    image, folder = pytest.importorskip("PIL.Image"), photos()
    for part in ("train", "val"):
        image.new("RGB", (640, 672)).save(folder / part / "cat" / "0.jpg")
    assert run("train.py", "--data", folder, "--resize", 64, "--epochs", 1, "--out", tmp_path / "run").status == 0
    assert decoded.count((80, 84)) == 2  # an eighth
    assert run("evaluate.py", "--checkpoint", tmp_path / "run" / "best.safetensors").status == 0
    assert decoded.count((80, 84)) == 3


def test_a_network_that_diverged(mistake, changed):
    path = changed(arrays={"fc8.bias": np.full(10, np.nan, np.float32)})
    result = mistake(
        ["NaN or infinite", str(path)], "evaluate.py", "--checkpoint", path, "--json", path.with_suffix(".json")
    )
    assert not result.out and not path.with_suffix(".json").exists()


def test_a_checkpoint_that_does_not_say_what_it_was_trained_on(run, mistake, changed):
    path = changed(without=["data", "seed", "verify"])
    mistake("--data", "evaluate.py", "--checkpoint", path)
    assert "20 images" in run("evaluate.py", "--checkpoint", path, "--data", "synthetic").out


def test_the_report(run, finished, look, tmp_path):
    """In a file and on the standard output it is the same; and it agrees with itself and with what is printed."""
    arguments = ["evaluate.py", "--checkpoint", finished.folder / "best.safetensors", "--json"]
    printed, alone = run(*arguments, tmp_path / "report.json"), run(*arguments, "-")
    assert printed.status == alone.status == 0 and not alone.err and alone.out.count("\n") == 1
    report, same = json.loads((tmp_path / "report.json").read_text()), json.loads(alone.out)
    assert report["settings"].pop("json") == str(tmp_path / "report.json") and same["settings"].pop("json") == "-"
    assert report == same and look.files(tmp_path) == {"report.json"}
    settings = {"checkpoint": str(arguments[2]), "data": "synthetic", "split": "val", "crops": 1, "device": "cpu"}
    assert settings.items() <= report["settings"].items() and report["config"]["epochs"] == 3
    assert (report["images"], len(report["classes"]), len(report["confusion"])) == (20, 10, 10)

    confusion, rows = np.array(report["confusion"]), report["classes"]
    assert [row["images"] for row in rows] == confusion.sum(axis=1).tolist() == [2] * 10
    assert [row["right"] for row in rows] == confusion.diagonal().tolist()
    assert report["top1"] == pytest.approx(100 * confusion.trace() / 20)
    numbers = f"loss {report['loss']:.4f}, top-1 {report['top1']:.2f}%, top-5 {report['top5']:.2f}%"
    head, _, title, *lines, wrote = printed.out.splitlines()
    assert wrote == f"wrote {tmp_path / 'report.json'}"
    assert head == f"20 images of synthetic (val): {numbers}" and title.split()[:2] == ["class", "images"]
    for line, row in zip(lines, rows, strict=False):
        assert line.split()[:3] == [row["class"], "2", f"{row['recall']:.1f}%"]
    for k, line in enumerate(lines[-10:]):
        assert line.split() == [str(k + 1), rows[k]["class"], *(str(n or ".") for n in confusion[k])]


def test_the_training_pictures(run, finished):
    result = run("evaluate.py", "--checkpoint", finished.folder / "best.safetensors", "--split", "train")
    assert result.status == 0 and result.out.startswith("30 images of synthetic (train): ")


def test_words_stand_for_classes(run, changed):
    path = changed(names=[f"thing {i}" for i in range(10)])
    result = run("evaluate.py", "--checkpoint", path, "--worst", 3, "--json", path.with_suffix(".json"))
    assert result.status == 0 and "zigzag" not in result.out and " 9 thing 8 " in result.out
    rows = json.loads(path.with_suffix(".json").read_text())["classes"]
    assert [row["class"] for row in rows][:2] == ["horizontal", "vertical"] and rows[8]["name"] == "thing 8"
    lowest = sorted(row["recall"] for row in rows)[:3]
    *_, title, a, b, c = result.out.partition("\n\n")[2].partition("\n\n")[0].splitlines()
    assert title.startswith("class ") and [line.split()[3] for line in (a, b, c)] == [f"{r:.1f}%" for r in lowest]


def test_the_drawing(run, finished, tmp_path):
    image = pytest.importorskip("PIL.Image")
    arguments = "evaluate.py", "--checkpoint", finished.folder / "best.safetensors", "--draw", tmp_path / "matrix.png"
    result = run(*arguments)
    assert result.status == 0 and not result.err and result.out.endswith(f"\nwrote {tmp_path / 'matrix.png'}\n")
    assert "wrote" not in run(*arguments, "--json", "-").out
    with image.open(tmp_path / "matrix.png") as picture:
        assert picture.format == "PNG" and picture.width > 500 and picture.height > 500


@pytest.mark.parametrize("crops", [1, 10])
def test_the_page(run, finished, tmp_path, crops):
    """With the results that are printed, the filters, the confusion, and as many mistakes as there are, up to 24."""
    path = tmp_path / "results.html"
    arguments = "evaluate.py", "--checkpoint", finished.folder / "best.safetensors", "--report", path, "--crops", crops
    result = run(*arguments)
    assert result.status == 0 and not result.err and result.out.endswith(f"\nwrote {path}\n")
    page = path.read_text()
    top1 = float(re.search(r"top-1 (\S+)%", result.out)[1])
    assert f"<b>{top1:.1f}%</b>top-1" in page and "AlexNet 2012 on drawn textures" in page
    assert page.count("data:image/jpeg") == round(20 * (1 - top1 / 100)) > 0 and page.count("data:image/png") == 2
    assert f"evaluate.py --checkpoint {finished.folder / 'best.safetensors'}" in page
    assert "wrote" not in run(*arguments, "--json", "-").out and path.read_text() == page


@pytest.mark.parametrize(
    "option, value, word",
    [
        ("--report", "results.pdf", ".html"),
        ("--crops", "5", "5"),
        ("--crops", "ten", "ten"),
        ("--split", "test", "test"),
        ("--worst", "0", "0"),
        ("--json", "nowhere/report.json", "folder that does not exist"),
        ("--json", "/dev/null", "not a file"),
        ("--json", ".", "not a file"),
        ("--draw", "matrix.pdf", ".png"),
        ("--draw", "nowhere/matrix.png", "folder that does not exist"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(mistake, finished, monkeypatch, tmp_path, option, value, word):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("support.runs.load_network", lambda *_: pytest.fail("it has begun"))
    mistake([option, value, word], "evaluate.py", "--checkpoint", finished.folder / "best.safetensors", option, value)
    assert not list(tmp_path.iterdir())
