"""train.py, evaluate.py and predict.py on a GPU: the figures that a CPU has, no waiting inside a step, and one line for
each mistake; and the loader that feeds them."""

import gc
import json
import math
import re
from types import SimpleNamespace

import evaluate
import model
import numpy as np
import programs
import pytest
from standin import TRANSFERS
from standin.devices import Stream
from support import images, options, recording, scores
from support.settings import parse

import minicnn
from minicnn import Tensor, nn
from minicnn.backends import devices
from minicnn.backends.cuda import products
from minicnn.data import DataError, DataLoader
from minicnn.data.transforms import Normalize, RandomCrop

THREADS = ["--workers", 1, "--no-processes"]  # which start sooner than processes
TRAIN = ["train.py", "--seed", 4, "--batch-size", 8, "--precision", "fp32", *THREADS]
FIGURES = ("epoch", "step", "lr", "train_loss", "train_top1", "val_loss", "val_top1", "val_top5")


def assert_same_run(a, b):
    """The figures of two runs, and the networks and velocities that they ended with."""
    for here, there in zip(programs.metrics(a), programs.metrics(b), strict=True):
        assert [there[name] for name in FIGURES] == pytest.approx([here[name] for name in FIGURES], rel=1e-4)
    for name in ("last", "best"):
        (here, info), (there, other) = (minicnn.load(folder / f"{name}.safetensors") for folder in (a, b))
        assert info.get("random") == other.get("random")
        for key in here.keys() | there.keys():
            np.testing.assert_allclose(there[key], here[key], rtol=1e-3, atol=1e-5, err_msg=key)


# -- the programs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["--freeze"], ["--head-lr", 0.01]], ids=["frozen", "two rates"])
def test_fine_tuning_is_the_same_on_both_devices(standin, run, tmp_path, options):
    assert run(*TRAIN, "--epochs", 1, "--out", tmp_path / "source").status == 0
    source = tmp_path / "source" / "last.safetensors"
    for device in ("cpu", "gpu"):
        command = *TRAIN, "--from", source, *options, "--epochs", 2, "--device", device
        assert run(*command, "--out", tmp_path / device).status == 0
    assert_same_run(tmp_path / "cpu", tmp_path / "gpu")


@pytest.mark.parametrize("recipe", [[], ["--recipe", "paper", "--resize", 72, "--lr", 1e-4]], ids=["quick", "paper"])
def test_a_run_is_the_same_on_both_devices(gpu, run, tmp_path, recipe):
    """With what loads for a GPU unless other is asked for."""
    train = [argument for argument in TRAIN if argument not in THREADS]
    for device in ("cpu", "gpu"):
        result = run(*train, *recipe, "--epochs", 3, "--device", device, "--out", tmp_path / device)
        assert result.status == 0 and not result.err
    assert_same_run(tmp_path / "cpu", tmp_path / "gpu")
    config = json.loads((tmp_path / "gpu" / "config.json").read_text())
    assert config["device"] == "gpu:0" and config["workers"] == minicnn.get_num_threads() and config["processes"]
    assert re.search(r"on gpu:0, .+, [\d.]+ GiB, with matrix products in fp32, .*cuda\n", result.out)


def test_what_capture_does_not_go_with(standin, mistake, run, tmp_path):
    mistake("--capture is for --device gpu", "train.py", "--capture", "--out", tmp_path / "a")
    for other in ("--watch", "--detect-anomaly"):
        words = f"--capture and {other} exclude each other: leave one of them out"
        mistake(words, "train.py", "--device", "gpu", "--capture", other, "--out", tmp_path / "a")
    data = programs.write_cifar10(tmp_path / "cifar")
    mistake("--capture is for --device gpu", "cuda_convnet/train.py", "--data", data, "--no-verify", "--capture")
    out = tmp_path / "run"
    assert run(*TRAIN, "--capture", "--epochs", 1, "--device", "gpu", "--out", out).status == 0
    assert run("train.py", "--resume", out / "last.safetensors", "--epochs", 2, "--device", "cpu").status == 0


@pytest.mark.parametrize("resumed", [False, True])
def test_captured_steps_train_the_same_network(standin, run, tmp_path, resumed):
    """Bit for bit; a run goes on as it began."""
    found, graphs = [], []
    for name, *more in ("plain",), ("captured", "--capture"):
        standin.log.clear()
        out = tmp_path / name
        assert run(*TRAIN, *more, "--epochs", 1 if resumed else 3, "--device", "gpu", "--out", out).status == 0
        if resumed:
            assert run("train.py", "--resume", out / "last.safetensors", "--epochs", 3, *THREADS).status == 0
        graphs.append(sum(entry.kind == "graph" for entry in standin.log))
        found.append((minicnn.load(out / "last.safetensors")[0], [row["train_loss"] for row in programs.metrics(out)]))
    assert graphs[0] == 0 < graphs[1]
    assert found[0][1] == found[1][1]
    for key in found[0][0].keys() | found[1][0].keys():
        np.testing.assert_array_equal(found[0][0][key], found[1][0][key], err_msg=key)


@pytest.mark.parametrize("cores, workers", [(3, 3), (64, 24)])
def test_each_core_loads_for_a_gpu(gpu, monkeypatch, cores, workers):
    """Unless so many are told, or none."""
    monkeypatch.setattr(minicnn, "get_num_threads", lambda: cores)
    for given, expected in (
        ([], (workers, True)),
        (["--workers", "0"], (0, False)),
        (["--no-processes"], (workers, False)),
    ):
        settings, _ = parse(["--device", "gpu", *given])
        options.use_machine(settings)
        assert (settings.workers, settings.processes) == expected


@pytest.mark.parametrize("devices", [("cpu", "gpu"), ("gpu", "cpu")])
def test_a_run_goes_on_on_the_other_device(gpu, run, tmp_path, devices):
    for folder, (first, second) in {"expected": ("cpu", "cpu"), "moved": devices}.items():
        assert run(*TRAIN, "--epochs", 1, "--device", first, "--out", tmp_path / folder).status == 0
        again = ["--resume", tmp_path / folder / "last.safetensors", "--epochs", 2, "--device", second]
        result = run("train.py", *again, "--precision", "fp32", *THREADS)
        assert result.status == 0 and f"on {second}" in result.out, result.err
    assert_same_run(tmp_path / "expected", tmp_path / "moved")


def test_evaluate_and_predict_agree_with_the_cpu(gpu, run, tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)).save(
        tmp_path / "photo.png"
    )
    assert run(*TRAIN, "--epochs", 1, "--out", tmp_path / "run").status == 0
    for program, *arguments in (["evaluate.py", "--batch-size", 7], ["predict.py", tmp_path / "photo.png"]):
        for crops in (1, 10):
            options = ["--checkpoint", tmp_path / "run" / "best.safetensors", "--precision", "fp32", "--crops", crops]
            here, there = (run(program, *arguments, *options, "--device", device) for device in ("cpu", "gpu"))
            assert here.status == there.status == 0 and here.out == there.out and not there.err


def test_the_precision_is_the_cards_best_and_said(standin, run, mistake, monkeypatch, tmp_path):
    seen, measure = [], evaluate.evaluate
    monkeypatch.setattr(evaluate, "evaluate", lambda *args: seen.append(products.matmul_precision()) or measure(*args))
    for capability, precision in {"75": "fp32", "80": "tf32", "90": "tf32"}.items():
        standin.capability = capability
        result = run("train.py", *THREADS, "--epochs", 1, "--device", "gpu", "--out", tmp_path / capability)
        assert result.status == 0 and f"with matrix products in {precision}, " in result.out
        assert json.loads((tmp_path / capability / "config.json").read_text())["precision"] == seen.pop() == precision
    standin.capability = "75"
    mistake("gpu:0", "train.py", "--device", "gpu", "--precision", "tf32", "--out", tmp_path / "none")
    mistake("2020", "train.py", "--resume", tmp_path / "80" / "last.safetensors", "--epochs", 2)
    again = ["--resume", tmp_path / "80" / "last.safetensors", "--epochs", 2, "--precision", "fp32"]
    assert "with matrix products in fp32" in run("train.py", *again).out


def test_out_of_memory_is_one_line(standin, run, mistake, tmp_path):
    """While the network is moved there, while images arrive, and in the middle of a step."""
    arguments = ["train.py", *THREADS, "--epochs", 1, "--batch-size", 16, "--device", "gpu", "--out"]
    assert run(*arguments, tmp_path / "enough").status == 0
    most = standin.gpus[0].most
    for share in (0.001, 0.1, 0.5, 0.9, 0.99):
        gc.collect()
        standin.reset(memory=int(most * share))
        mistake("use smaller batches (--batch-size)", *arguments, tmp_path / str(share))


@pytest.mark.parametrize("crops", [(), (10,)])
def test_mistakes_are_those_that_the_host_finds(standin, crops):
    """Only images that are kept are fetched, one crop of each."""
    here, there = (scores.Score(mistakes=4) for _ in range(2))
    for n in (9, 8, 7):
        logits, labels = RNG.standard_normal((n, 6)).astype(np.float32), RNG.integers(6, size=n)
        pixels = RNG.random((n, *crops, 4, 4, 3), np.float32)
        for score, device in ((here, "cpu"), (there, "gpu")):
            arrays = [Tensor(x, device=device) for x in (np.float32(n), logits)]
            score.add(*arrays, *(devices.to_device(x, device) for x in (labels, pixels)))
            score.count()
    fetched = [entry.nbytes for entry in standin.log if entry.kind == "to the host"]
    assert there.result() == here.result() and len(here.mistakes) == 4 <= fetched.count(4 * 4 * 3 * 4) <= 12
    assert max(fetched) < 9 * 4 * 4 * 3 * 4
    for found, expected in zip(there.mistakes, here.mistakes, strict=True):
        assert found[:3] == (pytest.approx(expected.probability), *expected[1:3])
        assert isinstance(found.image, np.ndarray)
        np.testing.assert_array_equal(found.image, expected.image)


# -- what a step asks of the GPU ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept, counts", [(50, [1, 5]), (3, [1, 3, 2])])
def test_a_step_sends_pictures_and_labels_and_fetches_nothing(standin, run, monkeypatch, tmp_path, kept, counts):
    monkeypatch.setattr(scores, "MOST_KEPT", kept)
    monkeypatch.setattr(scores, "OFTEN", math.inf)
    places, count = [], scores.Score.count

    def noted(score):
        if score.kept:
            places.append((len(standin.log), len(score.kept)))
            count(score)
            places[-1] += (len(standin.log),)

    monkeypatch.setattr(scores.Score, "count", noted)
    options = [*THREADS, "--device", "gpu", "--epochs", 1, "--batch-size", 5, "--out", tmp_path]
    assert run("train.py", *options).status == 0
    assert [batches for _, batches, _ in places][: len(counts)] == counts  # training: six batches of five images
    parameters = len(minicnn.load(tmp_path / "best.safetensors")[0])
    *_, last = places[: len(counts)]
    between = [entry for i, entry in enumerate(standin.log[: last[2]]) if not any(a <= i < b for a, _, b in places)]
    sent = [(entry.name, entry.nbytes) for entry in between if entry.kind in TRANSFERS]
    assert sent[parameters:] == [("pinned", 5 * 64 * 64 * 3), ("pinned", 5 * 8)] * 6
    assert not [entry for entry in between if entry.kind == "to the host"]
    # it waits only for copies that it is two batches ahead of, and at the end for the last two
    waits = [entry.name for entry in between if entry.kind == "wait"]
    assert waits.count("Event.synchronize") == 6 and set(waits[-6:]) == {"Event.synchronize"}
    for begin, _, end in places[: len(counts)]:
        fetched = [entry for entry in standin.log[begin:end] if entry.kind == "to the host"]
        assert len(fetched) == 2 and sum(entry.nbytes for entry in fetched) < 50 * 8


@pytest.mark.parametrize(
    "hidden, parameters", [(64, "2,928,778"), pytest.param(4096, "56,909,194", marks=pytest.mark.slow)]
)
def test_the_2012_network_trains_and_evaluates(standin, monkeypatch, tmp_path, hidden, parameters):
    """At full size, or with fewer of its 4096 hidden units: the very programs, with a step of two images. Weights repeat
    themselves, nothing is drawn, and the optimizer is not saved, which takes half the time."""

    def linear(*sizes, **more):
        return nn.Linear(*(hidden if size == 4096 else size for size in sizes), **more)

    monkeypatch.setattr(model, "nn", SimpleNamespace(**{**vars(nn), "Linear": linear}))
    for name in ("draw_curves", "draw_filters", "write_report"):
        monkeypatch.setattr(recording, name, lambda *_, **__: None)
    some = np.random.default_rng(0).standard_normal(99_991, np.float32)
    monkeypatch.setattr(nn.init, "_gaussian", lambda shape, std: np.resize(some, shape) * np.float32(std))
    monkeypatch.setattr(images, "SYNTHETIC", {"train": 2, "val": 1})
    monkeypatch.setattr(recording, "minicnn", SimpleNamespace(**{**vars(minicnn), "save": lambda *_: None}))
    options, rows = ["--batch-size", 2, "--precision", "fp32"], []
    for device, save in {"cpu": lambda *_: None, "gpu": recording.save_state}.items():
        monkeypatch.setattr(recording, "save_state", save)
        monkeypatch.setattr(recording, "write_report", lambda *_, **__: None)
        out = tmp_path / device
        result = programs.run_program("train.py", *options, "--epochs", 1, "--device", device, "--out", out)
        assert result.status == 0, result.err
        rows += programs.metrics(out)
    assert f"{parameters} parameters, on gpu:0" in result.out
    assert [rows[1][name] for name in FIGURES] == pytest.approx([rows[0][name] for name in FIGURES], rel=1e-4)
    result = programs.run_program("evaluate.py", *options, "--device", "gpu", "--checkpoint", out / "best.safetensors")
    assert result.status == 0 and f"loss {rows[1]['val_loss']:.4f}" in result.out
    for checkpoint in out.glob("*.safetensors"):
        checkpoint.unlink()  # 500 MB


# -- the loader -------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
DATASET = [(RNG.integers(0, 256, (12, 15, 3), dtype=np.uint8), i) for i in range(11)]
NORMALIZE = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.1))


@pytest.mark.parametrize("num_workers", [0, 3])
@pytest.mark.parametrize("normalize", [None, NORMALIZE])
def test_a_loader_hands_out_the_same_batches_on_both_devices(gpu, num_workers, normalize):
    """Of the caller's own: they are compared when all have come."""
    options = {"shuffle": True, "seed": 5, "num_workers": num_workers, "normalize": normalize}
    here, there = (list(DataLoader(DATASET, 4, transform=RandomCrop(10), device=d, **options)) for d in ("cpu", "gpu"))
    assert len(here) == 3
    for (a, a_labels), (b, b_labels) in zip(here, there, strict=True):
        assert (b.dtype, b.shape, b_labels.dtype) == (a.dtype, a.shape, np.int64)
        assert devices.device_of(b) == devices.device_of(b_labels) == "gpu:0"
        np.testing.assert_allclose(b.get(), a, rtol=0, atol=0 if normalize is None else 1e-6)
        np.testing.assert_array_equal(b_labels.get(), a_labels)


@pytest.mark.parametrize(
    "options",
    [{"num_workers": 0}, {"num_workers": 2}, {"num_workers": 1, "processes": True}],
    ids=["none", "threads", "processes"],
)
@pytest.mark.parametrize("normalize", [None, NORMALIZE])
def test_parts_of_batches_on_both_devices(gpu, options, normalize):
    """Also the part that has none of the last batch's rows."""
    options = {"part": (0, 4), "normalize": normalize, **options}
    here, there = (list(DataLoader(DATASET, 4, device=d, **options)) for d in ("cpu", "gpu"))
    assert [len(labels) for _, labels in here] == [1, 1, 0]
    for (a, a_labels), (b, b_labels) in zip(here, there, strict=True):
        assert (b.dtype, b.shape, b_labels.dtype, b_labels.shape) == (a.dtype, a.shape, np.int64, a_labels.shape)
        assert devices.device_of(b) == devices.device_of(b_labels) == "gpu:0"
        np.testing.assert_allclose(b.get(), a, rtol=0, atol=0 if normalize is None else 1e-6)
        np.testing.assert_array_equal(b_labels.get(), a_labels)


@pytest.mark.parametrize(
    "options", [{"num_workers": 2}, {"num_workers": 1, "processes": True}], ids=["threads", "processes"]
)
def test_targets_of_a_loader(gpu, options):
    """Of any shape, floating or not."""
    for targets in (RNG.random((11, 5)), RNG.random(11), RNG.integers(0, 9, (11, 40, 2))):
        dataset = [(image, target) for (image, _), target in zip(DATASET, targets, strict=True)]
        found = [labels for _, labels in DataLoader(dataset, 4, device="gpu", **options)]
        assert all(devices.device_of(labels) == "gpu:0" for labels in found)
        found = np.concatenate([labels.get() for labels in found])
        assert found.dtype == (np.float32 if targets.dtype.kind == "f" else np.int64)
        np.testing.assert_array_equal(found, targets.astype(found.dtype))


@pytest.mark.parametrize(
    "options",
    [{"num_workers": 0}, {"num_workers": 2}, {"num_workers": 1, "processes": True}],
    ids=["none", "threads", "processes"],
)
def test_what_is_left_out_on_a_gpu_as_on_a_cpu(gpu, options):
    """Told when the batch is handed out, though it was sent before; in the middle of an epoch, with a batch of which
    nothing is left."""
    dataset = [(None, 0) if i in (3, 8, 9, 10, 11) else pair for i, pair in enumerate([*DATASET, *DATASET[:4]])]
    events = {"cpu": [], "gpu": []}
    for device, found in events.items():
        loader = DataLoader(
            dataset, 4, normalize=NORMALIZE, device=device, **options,
            on_bad=lambda name, error, found=found: found.append((name, str(error))),
        )  # fmt: skip
        for batch in (0, 1):
            loader.set_epoch(0, batch)
            for x, labels in loader:
                assert devices.device_of(x) == devices.device_of(labels) == loader.device
                found.append((x.shape, x.dtype, Tensor(labels).numpy().tolist()))
    assert events["gpu"] == events["cpu"]
    names = [event[0] for event in events["gpu"]]
    side = (12, 15, 3)
    left_out = [f"sample {i}" for i in (8, 9, 10, 11)]
    later = [(4, *side), *left_out, (0, *side), (3, *side)]
    assert names == ["sample 3", (3, *side), *later, *later]


def test_a_loader_for_a_second_gpu(gpu):
    if gpu.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("this machine has one GPU")
    for x, labels in DataLoader(DATASET, 4, normalize=NORMALIZE, device="gpu:1"):
        assert Tensor(x).device == Tensor(labels).device == "gpu:1"
        score = scores.Score()
        score.add(Tensor(x).mean(), Tensor(x).reshape(len(labels), -1), labels)
        assert np.isfinite(score.result()["loss"]) and score.seen == len(labels)


def test_a_batch_is_sent_before_the_one_ahead_of_it_is_handed_out(standin):
    for i, _ in enumerate(DataLoader(DATASET, 3, device="gpu", num_workers=0)):
        sent = [entry.nbytes for entry in standin.log.transfers]
        assert sent == [n * size for n in (3, 3, 3, 2)[: i + 2] for size in (12 * 15 * 3, 8)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_may_be_left_in_the_middle_of_a_copy(standin, num_workers):
    """What is computed next may get the memory that the copy goes to, so it comes after it."""
    iterator = iter(DataLoader(DATASET, 4, normalize=NORMALIZE, device="gpu", num_workers=num_workers))
    next(iterator)
    (stream,) = Stream.all
    assert not stream.done
    del iterator
    assert stream.done


@pytest.mark.parametrize("num_workers", [0, 2])
def test_errors_of_a_sample_arrive_as_on_a_cpu(gpu, num_workers):
    dataset = [*DATASET[:4], (np.zeros((12, 15, 3), np.float32), 0)]
    loader = DataLoader(dataset, 2, normalize=NORMALIZE, device="gpu", num_workers=num_workers)
    labels = []
    with pytest.raises(DataError, match=r"^sample 4: Normalize.* takes uint8 images"):
        for _, batch in loader:
            labels += batch.get().tolist()
    assert labels == [0, 1]  # the next batch was on its way when the one after it failed


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_counts_there_as_here(gpu, k):
    logits, labels = RNG.integers(0, 4, (40, 6)).astype(np.float32), RNG.integers(6, size=40)
    logits[3, labels[3]] = logits[5, 0] = np.nan
    there = scores.top_k(devices.to_device(logits, "gpu"), devices.to_device(labels, "gpu"), k)
    assert there.shape == () and float(there) == pytest.approx(float(scores.top_k(logits, labels, k)))


def test_ten_crops_are_averaged_there_as_here(gpu):
    images = RNG.standard_normal((3, 10, 2, 2, 3)).astype(np.float32)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    here, there = evaluate.outputs(net, images), evaluate.outputs(net.to("gpu"), devices.to_device(images, "gpu"))
    assert there.device == "gpu:0"
    np.testing.assert_allclose(there.numpy(), here.numpy(), rtol=1e-5)


def test_confusion_is_counted_there_as_here_and_fetched_with_the_rest(standin, monkeypatch):
    monkeypatch.setattr(scores, "OFTEN", math.inf)
    here, there, fetched = scores.Score(6), scores.Score(6), []
    for n in (3, 5, 1, 2):
        logits, labels = RNG.integers(0, 4, (n, 6)).astype(np.float32), RNG.integers(6, size=n)  # with ties
        for score, device in ((here, "cpu"), (there, "gpu")):
            loss, logits_there = (Tensor(x, device=device) for x in (np.float32(n), logits))
            score.add(loss, logits_there, devices.to_device(labels, device))
        fetched.append(sum(entry.nbytes for entry in standin.log if entry.kind == "to the host"))
    assert fetched == [4 + 2 * 8 + 2 * 3 * 8] * 4  # of the first batch: its loss, top-1 and top-5, labels and answers
    assert there.result() == here.result() and (there.confusion == here.confusion).all()
