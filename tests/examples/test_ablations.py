"""ablations/run.py: that each run changes one thing, and that nothing which was done is done again."""

import dataclasses
import itertools
import json
import os
import re
import sys
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import report as ablation_report
import run as ablations
from programs import write_cifar10

from minicnn import Tensor, nn
from minicnn.data import CIFAR10

RATE = 0.125
CHANGES = {name: setting for idea in ablations.IDEAS.values() for name, setting in idea.items()}


def changed(setting, baseline):
    """The fields in which they differ."""
    names = [field.name for field in dataclasses.fields(setting)]
    return [name for name in names if getattr(setting, name) != getattr(baseline, name)]


# -- one thing at a time --------------------------------------------------------------------------------------------


def test_each_change_is_of_one_thing():
    fields = [changed(dataclasses.replace(setting, rate=0.02), ablations.BASELINE) for setting in CHANGES.values()]
    slower = {name: setting.rate for name, setting in CHANGES.items() if setting.rate != 0.02}
    assert ablations.BASELINE.rate == 0.02 and slower == {"no normalization": 0.01, "N(0, 0.01)": 0.002}
    assert all(len(each) == 1 for each in fields)
    expected = ["norm", "norm", "pool", "dropout", "crop", "flip", "color", "init"]
    assert list(itertools.chain(*fields)) == expected and len(set(CHANGES.values())) == len(expected)


def test_the_race_is_without_regularization_and_between_activations():
    jobs = ablations.plan(["relu"], 2, ablations.SIZES)
    assert [job.name for job in jobs] == list(ablations.RACES) * 2 and all(len(set(job.rates)) > 1 for job in jobs)
    relu, *others = (job.setting for job in jobs[:5])
    assert [changed(setting, relu) for setting in others] == [
        ["activation"], ["activation"], ["init"], ["activation", "init"],
    ]  # fmt: skip
    assert (relu.norm, relu.dropout, relu.decay) == ("none", 0, 0) and not (relu.crop or relu.flip or relu.color)


def kinds(setting):
    net = ablations.network(setting)
    assert net(Tensor(np.zeros((2, 24, 24, 3), np.float32))).shape == (2, 10)
    return [type(module) for _, module in net.named_modules() if not any(module.named_children())], net


def test_what_each_setting_builds():
    """Beside the baseline's layers: two norms left out or replaced, other activations, windows or weights."""
    usual, net = kinds(ablations.BASELINE)
    norm, act = nn.LocalResponseNorm, nn.ReLU
    block = [nn.Conv2d, act, nn.MaxPool2d]
    normed = [nn.Conv2d, act, norm, nn.MaxPool2d]  # section 3.5
    assert usual == [*normed, *normed, *block, nn.Flatten, nn.Dropout, nn.Linear]
    assert kinds(CHANGES["no normalization"])[0] == [kind for kind in usual if kind is not norm]
    assert kinds(CHANGES["batch norm"])[0] == [nn.BatchNorm2d if kind is norm else kind for kind in usual]
    for name, other in (("tanh", nn.Tanh), ("sigmoid", nn.Sigmoid)):
        setting = dataclasses.replace(ablations.BASELINE, activation=name)
        assert kinds(setting)[0] == [other if kind is act else kind for kind in usual]
    for setting, size in ((ablations.BASELINE, 3), (CHANGES["pooling without overlap"], 2)):
        pools = [m for _, m in kinds(setting)[1].named_modules() if isinstance(m, nn.MaxPool2d)]
        assert [(pool.kernel_size, pool.stride) for pool in pools] == [(size, 2)] * 3
    assert net.dropout.p == 0.5 and kinds(CHANGES["no dropout"])[1].dropout.p == 0
    for setting, std, alpha in (
        (ablations.BASELINE, np.sqrt(2 / 800), 1e-4 * 63**2),
        (CHANGES["N(0, 0.01)"], 0.01, 1e-4),  # section 3.3
    ):
        net = kinds(setting)[1]
        assert net.conv2.conv.weight.data.std() == pytest.approx(std, rel=0.05)
        for norm in (net.conv1.norm, net.conv2.norm):
            assert (norm.n, norm.k, norm.alpha, norm.beta) == (5, 2.0, alpha, 0.75)


@pytest.fixture
def data(tmp_path):
    return write_cifar10(tmp_path / "data", 12)


@pytest.fixture
def pictures(data):
    return ablations.Images(Namespace(data=data, verify=False, workers=0, device="cpu"), {"train": 30, "test": 5})


def seen(pictures, setting, epochs=4):
    """What the network gets of the first images, in several epochs: (epochs, N, 24, 24, 3)."""
    loader = pictures.training(setting, seed=0)
    loader.shuffle = False
    return np.stack([np.concatenate([images for images, _ in loader]) for _ in range(epochs)])


def test_what_each_setting_does_to_pictures(pictures):
    """Without crops, flips and color all epochs are alike and as in the test; each of the three changes what it should."""
    off = dataclasses.replace(ablations.BASELINE, crop=False, flip=False, color=False)
    plain = seen(pictures, off)[0]
    assert (seen(pictures, off) == plain).all() and plain.shape == (30, 24, 24, 3)
    inner = np.stack([image[4:28, 4:28] for image, _ in pictures.train]).astype(np.float64)
    everything = np.stack([image for image, _ in pictures.train]).astype(np.float64).reshape(-1, 3)
    np.testing.assert_allclose(plain, (inner - everything.mean(0)) / everything.std(0), atol=1e-4)

    flips = seen(pictures, dataclasses.replace(off, flip=True))
    mirrored = (flips == plain[:, :, ::-1]).all((2, 3, 4))
    assert ((flips == plain).all((2, 3, 4)) != mirrored).all() and 0.3 < mirrored.mean() < 0.7
    crops = seen(pictures, dataclasses.replace(off, crop=True))
    assert 0.9 < (crops != plain).any((2, 3, 4)).mean() < 1.01
    assert {image.tobytes() for image in crops[:, 0]} <= {
        pictures.normalize(off)(np.ascontiguousarray(pictures.train[0][0][i : i + 24, j : j + 24])).tobytes()
        for i in range(9)
        for j in range(9)
    }
    colors = seen(pictures, dataclasses.replace(off, color=True)) - plain
    assert np.ptp(colors, axis=(2, 3)).max() < 1e-5 and colors.std() > 0.01  # one shift for all pixels
    assert (seen(pictures, ablations.BASELINE) != seen(pictures, CHANGES["no color shift"])).any()


def test_the_order_follows_from_the_seed_and_tests_have_none(pictures):
    setting = dataclasses.replace(ablations.BASELINE, crop=False, flip=False, color=False)
    first, again, other = (next(iter(pictures.training(setting, seed)))[0] for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()
    for _ in range(2):
        tested = np.concatenate([images for images, _ in pictures.testing(setting)])
        inner = np.stack([pictures.normalize(setting)(image)[4:28, 4:28] for image, _ in pictures.test])
        np.testing.assert_array_equal(tested, inner)


def test_pixels_and_colors_are_of_the_scale_that_suits_the_weights(pictures, monkeypatch):
    """Of unit variance for He's, 0 to 255 less the mean for the paper's; the shift is Σ pᵢ λᵢ αᵢ on the scale of 0 to 1,
    times what a step of 1 is there, with the principal components of the training pixels."""
    made = []
    monkeypatch.setattr(ablations, "PCAColor", lambda *color, scale: made.append((*color, scale)) or (lambda x, _: x))
    pixels = np.stack([image for image, _ in pictures.train]).reshape(-1, 3) / 255
    plain = dataclasses.replace(ablations.BASELINE, crop=False, flip=False)
    he, paper = (seen(pictures, dataclasses.replace(plain, init=init), 1) for init in ("he", "paper"))
    np.testing.assert_allclose(paper, he * 255 * pixels.std(axis=0), rtol=1e-3, atol=1e-2)
    for (values, vectors, scale), expected in zip(made, (1 / pixels.std(axis=0), 255), strict=True):
        np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, np.cov(pixels.T, bias=True), atol=1e-9)
        np.testing.assert_allclose(scale, expected)


def test_a_part_of_the_pictures_is_from_all_over_the_set(data):
    whole = CIFAR10(data, True, verify=False)  # 60
    for n, expected in ((20, range(0, 60, 3)), (60, range(60)), (1000, range(60))):
        part = ablations.evenly(whole, n)
        assert len(part) == len(expected)
        assert all(
            (whole[i][0] == image).all() and whole[i][1] == label
            for i, (image, label) in zip(expected, part, strict=True)
        )


# -- a run ----------------------------------------------------------------------------------------------------------


def job(setting=ablations.BASELINE, epochs=7, rates=()):
    return ablations.Job("name", setting, 0, epochs, rates)


@pytest.fixture
def rates(monkeypatch):
    """The training error of each epoch is what the list for the rate says; returns how it was trained."""

    def install(errors):
        calls = []

        def train_epoch(net, loader, optimizer, title):
            if "epoch 1/" in title:
                calls.append([])
            calls[-1].append((optimizer.lr, optimizer.param_groups[0]["weight_decay"], title))
            rate = float(re.search(r"rate (\S+),", title).group(1))
            return errors[rate][len(calls[-1]) - 1]

        monkeypatch.setattr(ablations, "train_epoch", train_epoch)
        monkeypatch.setattr(ablations, "evaluate", lambda *_: {"top1": 55.0})
        return calls

    return install


def test_a_run_is_tested_now_and_then_and_its_rate_falls(pictures, rates, monkeypatch):
    asked = []
    monkeypatch.setattr(pictures, "testing", asked.append)
    monkeypatch.setattr(ablations, "TEST_EVERY", 5)
    calls = rates({RATE: [80, 70, 60, 50, 40, 30, 20]})
    setting = dataclasses.replace(ablations.BASELINE, rate=RATE)
    result = ablations.run(job(setting), pictures)
    assert result.pop("seconds") > 0 and asked == [setting] * 2
    assert result == {"train_error": [80, 70, 60, 50, 40, 30, 20], "test_error": [[5, 45.0], [7, 45.0]], "epochs": 7}
    expected = [RATE * (1 + np.cos(np.pi * i / 7)) / 2 for i in range(7)]
    assert [lr for lr, _, _ in calls[0]] == pytest.approx(expected) and calls[0][0][1] == 5e-4


@pytest.mark.parametrize(
    "errors, rate, lengths",
    [
        ({0.1: [60, 40, 30, 25, 9], 0.2: [60, 30, 24, 9, 9], 0.3: [60, 30, 25, 9, 9]}, 0.2, [4, 3, 2]),
        ({0.1: [60, 40, 24, 9, 9], 0.2: [60, 30, 9, 9, 9]}, 0.1, [3, 2]),
        ({0.1: [60, 50, 40, 35, 30], 0.2: [60, 50, 40, 30, 27], 0.3: [90] * 5}, 0.2, [5, 5, 5]),
        ({0.1: [60, 50, 40, 35, 26], 0.2: [60, 50, 40, 30, 25], 0.3: [20] * 5}, 0.3, [5, 5, 1]),
        ({0.1: [20] * 5, 0.2: [10] * 5}, 0.2, [1, 1]),
    ],
)
def test_a_race_is_won_by_the_best_rate(pictures, rates, errors, rate, lengths):
    """Each rate stays as it is, ends at the goal, and has an epoch less than the best so far."""
    calls = rates(errors)
    result = ablations.run(job(ablations.BARE, 5, tuple(errors)), pictures)
    assert [len(call) for call in calls] == lengths and result["epochs"] == sum(lengths)
    won = list(errors).index(rate)
    assert (
        result["rate"] == rate
        and result["rates"] == list(errors)
        and result["train_error"] == errors[rate][: lengths[won]]
    )
    assert all(lr == r and decay == 0 for call, r in zip(calls, errors, strict=True) for lr, decay, _ in call)


def test_the_same_seed_the_same_run(pictures):
    one, other = (ablations.measure(job(epochs=2), pictures) for _ in range(2))
    assert one == other and len(one["train_error"]) == 2
    later = ablations.measure(dataclasses.replace(job(epochs=2), seed=1), pictures)
    assert later != one


def test_how_a_network_is_trained(pictures, monkeypatch):
    """With the weights of the seed, by SGD with momentum 0.9."""
    made = []

    class Noted(ablations.SGD):
        def __init__(self, params, lr, **options):
            super().__init__(params, lr, **options)
            made.append((self.params[0].data.copy(), options))

    monkeypatch.setattr(ablations, "SGD", Noted)
    for seed in (0, 1):
        next(ablations.training(dataclasses.replace(job(), seed=seed), 0.1, 1, pictures))
    (first, options), (other, _) = made
    assert options == {"momentum": 0.9, "weight_decay": 5e-4} and (first != other).any()


# -- the program ----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_charts(monkeypatch):
    blank = SimpleNamespace(savefig=lambda path, format: path.write_bytes(b""))
    for name in ("draw_idea", "draw_races", "draw_differences"):
        monkeypatch.setattr(ablation_report, name, lambda *_: blank)


@pytest.fixture
def program(data, no_charts, monkeypatch, tmp_path):
    """program("--seeds", 2, …) with runs that only note their job; returns the keys of those done. Names in `fail` end
    the program."""
    fail = set()

    def call(*arguments):
        done = []

        def run(job, pictures):
            if job.key in fail:
                raise KeyboardInterrupt
            if call.each:
                call.each(job.key)
            done.append(job.key)
            goal = [[job.epochs, 30.0 + len(job.name) + job.seed]]
            return {
                "train_error": [90.0] * (job.epochs - 1) + [20.0],
                "test_error": goal,
                "rate": 0.1,
                "rates": [0.1, 0.2],
                "epochs": job.epochs,
                "seconds": 1.0,
            }

        monkeypatch.setattr(ablations, "run", run)  # the latest call's, also for one that it interrupts
        monkeypatch.setattr(ablations.Results, "seconds_per_epoch", lambda *_: 60.0)
        arguments = ["--quick", "--data", data, "--no-verify", "--out", tmp_path / "out", *arguments]
        monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
        return ablations.command(ablations.main), done

    call.fail, call.folder, call.each = fail, tmp_path / "out", None
    return call


def test_the_plan():
    """All of one seed, then all of the next; the baseline wherever something is compared with it."""
    sizes = {"epochs": 3, "limit": 9}
    keys = [job.key for job in ablations.plan(["flips", "relu"], 2, sizes)]
    assert keys == [f"{name}, seed {seed}" for seed in (0, 1) for name in (*ablations.RACES, "baseline", "no flips")]
    everything = ablations.plan(["relu", *ablations.IDEAS], 3, sizes)
    assert len(everything) == len({job.key for job in everything}) == 3 * (5 + 1 + len(CHANGES))
    assert all(job.epochs == (9 if job.rates else 3) for job in everything)
    assert [job.name for job in ablations.plan(["relu"], 1, sizes)] == list(ablations.RACES)


def test_what_is_done_is_not_done_again(program):
    """Interrupted, gone on with, with more seeds and with other ideas: in the end as if done at once."""
    program.fail.add("no flips, seed 1")
    status, done = program("--only", "flips", "--seeds", 2)
    assert status == 130 and done == ["baseline, seed 0", "no flips, seed 0", "baseline, seed 1"]
    assert os.listdir(program.folder) == ["runs"]
    assert set(os.listdir(program.folder / "runs")) == {f"{key}.json" for key in done}
    program.fail.clear()
    assert program("--only", "flips", "--seeds", 2) == (0, ["no flips, seed 1"])
    assert program("--only", "flips", "--seeds", 2) == (0, [])
    status, done = program("--only", "pooling", "flips", "--seeds", 3)
    assert status == 0 and done == [
        "pooling without overlap, seed 0", "pooling without overlap, seed 1",
        "baseline, seed 2", "pooling without overlap, seed 2", "no flips, seed 2",
    ]  # fmt: skip
    rows = {row["name"]: row for row in json.loads((program.folder / "table.json").read_text())["arms"]}
    assert list(rows) == ["baseline", "pooling without overlap", "no flips"]
    assert rows["no flips"]["seeds"] == 3 and rows["no flips"]["test_error"] == pytest.approx(30 + len("no flips") + 1)
    assert set(os.listdir(program.folder)) == {
        "runs", "table.md", "table.json", "flips.png", "pooling.png", "differences.png",
    }  # fmt: skip


def test_two_programs_in_one_folder(program):
    """What another has done since this one began is not done again, nor lost."""
    other: list[tuple[int, list[str]]] = []

    def meanwhile(key):
        if key == "baseline, seed 0" and not other:
            other.append((0, []))
            program.each = None
            other[0] = program("--only", "flips", "pooling", "--seeds", 1)

    program.each = meanwhile
    assert program("--only", "flips", "--seeds", 1) == (0, ["baseline, seed 0"])
    assert other == [(0, ["baseline, seed 0", "no flips, seed 0", "pooling without overlap, seed 0"])]
    rows = json.loads((program.folder / "table.json").read_text())["arms"]
    assert [row["name"] for row in rows] == ["baseline", "pooling without overlap", "no flips"]


def test_the_time_that_is_left(program, capsys):
    """A minute an epoch: two runs of 2 epochs, then one."""
    program("--only", "flips", "--seeds", 1)
    out = capsys.readouterr().out
    assert "2 runs, 2 of them to be done" in out and "about 4 minutes to go; now baseline, seed 0" in out
    assert "about 2 minutes to go; now no flips, seed 0" in out and "| no flips |" in out


def test_seconds_per_epoch(pictures, monkeypatch, tmp_path):
    results = ablations.Results(tmp_path, {})
    monkeypatch.setattr(ablations, "BATCH", 1)
    monkeypatch.setattr(ablations, "run", lambda job, few: {"seconds": len(few.train) + 100 * len(few.test)})
    assert results.seconds_per_epoch(pictures) == pytest.approx((10 + 100) * 30 / 10)
    results.runs = {"a": {"seconds": 30.0, "epochs": 5}, "b": {"seconds": 10.0, "epochs": 3}}
    assert results.seconds_per_epoch(pictures) == 5
    assert len(pictures.train) == 30


@pytest.mark.parametrize(
    "content",
    ["", "these are words", "[]", '{"job": {}}', '{"job": [], "result": {}}', '{"job": {}, "result": 3}',
     '{"job": {}, "result": {"train_error": [1.0]}}', "\ufeff\x00"],
)  # fmt: skip
def test_results_that_are_no_results(program, capsys, content):
    path = program.folder / "runs" / "baseline, seed 0.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    status, done = program("--only", "flips")
    err = capsys.readouterr().err
    assert (status, done, err.count("\n")) == (2, [], 1) and str(path) in err and "remove it" in err
    assert path.read_text() == content


def flipped_bit(monkeypatch, data):
    records = bytearray((data / "test_batch.bin").read_bytes())
    records[1] ^= 1
    (data / "test_batch.bin").write_bytes(records)


def other_baseline(monkeypatch, data):
    monkeypatch.setattr(ablations, "BASELINE", dataclasses.replace(ablations.BASELINE, rate=0.5))


@pytest.mark.parametrize(
    "change, options, words",
    [
        (flipped_bit, [], ["'checksum'"]),  # of one pixel
        (other_baseline, [], ["'rate': 0.5"]),
        (None, ["--epochs", 5], ["'epochs': 2", "'epochs': 5", "--out"]),
        (None, ["--images", 17], ["'train': 17"]),
    ],
)
def test_results_of_other_runs(program, data, monkeypatch, capsys, change, options, words):
    assert program("--only", "flips", "--seeds", 1)[0] == 0
    path = program.folder / "runs" / "baseline, seed 0.json"
    before = path.read_bytes()
    if change:
        change(monkeypatch, data)
    assert program("--only", "flips", "--seeds", 2, *options) == (2, [])
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and all(word in err for word in words) and path.read_bytes() == before


def test_mistakes(mistake, data, tmp_path):
    out = ["--out", tmp_path / "out"]
    mistake("--data", "ablations/run.py", *out)
    mistake("nowhere", "ablations/run.py", "--data", tmp_path / "nowhere", *out)
    mistake([str(data / "data_batch_1.bin"), "MD5"], "ablations/run.py", "--data", data, *out)
    for option, value in (
        ("--only", "luck"),
        ("--seeds", "0"),
        ("--epochs", "-1"),
        ("--epoch", "3"),
        ("--device", "x"),
    ):
        mistake(value if option != "--epoch" else option, "ablations/run.py", "--data", data, *out, option, value)
    assert not (tmp_path / "out").exists()


def test_the_whole_of_it_on_a_few_pictures(run, no_charts, tmp_path):
    data, out = write_cifar10(tmp_path / "data"), tmp_path / "a" / "b"
    result = run(
        "ablations/run.py",
        "--quick",
        "--data",
        data,
        "--no-verify",
        "--only",
        "relu",
        "dropout",
        "--seeds",
        1,
        "--out",
        out,
    )
    assert result.status == 0 and not result.err
    names = [f"{name}, seed 0" for name in (*ablations.RACES, "baseline", "no dropout")]
    runs = [json.loads((out / "runs" / f"{name}.json").read_text())["result"] for name in names]
    assert len(os.listdir(out / "runs")) == len(names)
    assert all(0 <= error <= 100 for each in runs for error in each["train_error"])
    assert (out / "table.md").read_text() in result.out
