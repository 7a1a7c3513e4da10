"""cuda_convnet/train.py: the two networks beside the numbers of cuda-convnet's files, and the program that trains them."""

import json
import math

import numpy as np
import pytest
from programs import load_program, write_cifar10
from support import scores

import minicnn
from minicnn import Tensor, nn
from minicnn.data import CIFAR10

convnet = load_program("cuda_convnet/train.py")

# From example-layers: of layers-*.cfg filters or outputs, filterSize, padding and initW; of layer-params-*.cfg wc.
SOURCE = {
    "80sec": {
        "conv1": (32, 5, 2, 0.0001, 0.004),
        "conv2": (32, 5, 2, 0.01, 0.004),
        "conv3": (64, 5, 2, 0.01, 0.004),
        "fc64": (64, None, None, 0.1, 0.03),
        "fc10": (10, None, None, 0.1, 0.03),
    },
    "18pct": {
        "conv1": (32, 5, 2, 0.0001, 0.004),
        "conv2": (32, 5, 2, 0.01, 0.004),
        "conv3": (64, 5, 2, 0.01, 0.004),
        "fc10": (10, None, None, 0.01, 1.0),
    },
}
EPS_W, EPS_B, MOMENTUM = 0.001, 0.002, 0.9  # of every layer


def learned(net):
    """name -> convolution or linear layer, by the names of the source."""
    return {
        name.split(".")[0]: module for name, module in net.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))
    }


@pytest.mark.parametrize("name", SOURCE)
def test_layers_are_the_sources(name):
    layers = learned(convnet.network(name))
    assert list(layers) == list(SOURCE[name])
    for layer, (outputs, size, padding, std, _) in zip(layers.values(), SOURCE[name].values(), strict=True):
        weight = layer.weight.data
        assert weight.shape[-1] == outputs and (layer.bias.data == 0).all()
        if size:
            assert weight.shape[:2] == (size, size) and (layer.padding, layer.stride, layer.groups) == (padding, 1, 1)
        error = 4 / math.sqrt(2 * weight.size)  # of the standard deviation of so many numbers
        assert weight.std() == pytest.approx(std, rel=error) and abs(weight.mean()) < 4 * std / math.sqrt(weight.size)


@pytest.mark.parametrize("name", SOURCE)
def test_maps(name):
    """32 pixels, 16, 8 and 4; which layers there are, and in which order."""
    net, seen = convnet.network(name), []
    for part, module in net.named_modules():
        if not any(module.named_children()):
            module.register_forward_hook(lambda m, _, y, part=part: seen.append((part, type(m).__name__, y.shape[1:])))
    net(Tensor(np.zeros((1, 32, 32, 3), np.float32)))
    norm = [("norm", "MapResponseNorm")] * (name == "18pct")
    expected = [
        ("conv1", [("conv", "Conv2d"), ("pool", "MaxPool2d"), ("relu", "ReLU"), *norm], (16, 16, 32)),
        ("conv2", [("conv", "Conv2d"), ("relu", "ReLU"), ("pool", "AvgPool2d"), *norm], (8, 8, 32)),
        ("conv3", [("conv", "Conv2d"), ("relu", "ReLU"), ("pool", "AvgPool2d")], (4, 4, 64)),
    ]
    for block, layers, shape in expected:
        own = [(part.split(".")[1], kind, size) for part, kind, size in seen if part.startswith(block)]
        assert [(part, kind) for part, kind, _ in own] == layers and own[-1][2] == shape
    pools = [module for _, module in net.named_modules() if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d))]
    assert [(pool.kernel_size, pool.stride) for pool in pools] == [(3, 2)] * 3
    assert sum(p.size for p in net.parameters()) == {"80sec": 145_578, "18pct": 89_578}[name]


def test_windows_that_overhang_average_what_they_see():
    x = np.arange(36, dtype=np.float32).reshape(1, 6, 6, 1) * np.ones(32, np.float32)
    y = convnet.network("80sec").conv2.pool(Tensor(x)).data[0, :, :, 0]
    pixels = x[0, :, :, 0]
    assert y == pytest.approx(np.array([[pixels[i : i + 3, j : j + 3].mean() for j in (0, 2, 4)] for i in (0, 2, 4)]))


def test_normalization_is_within_a_map():
    """Against the formula of cuda-convnet's rnorm, pixel by pixel: scale 0.00005 over 3 · 3, pow 0.75."""
    x = np.random.default_rng(0).normal(0, 300, (2, 4, 5, 3)).astype(np.float32)
    expected = np.empty(x.shape)
    for n, i, j, c in np.ndindex(x.shape):
        near = x[n, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2, c].astype(np.float64)
        expected[n, i, j, c] = x[n, i, j, c] / (1 + 0.00005 / 9 * (near**2).sum()) ** 0.75
    assert np.abs(expected - x).max() > 10  # or there would be nothing to see
    np.testing.assert_allclose(convnet.MapResponseNorm()(Tensor(x)).data, expected, rtol=1e-5)


@pytest.mark.parametrize("name", SOURCE)
def test_each_parameter_learns_at_its_own_rate(name):
    """Two updates at the rates of the source, against its rule: inc ← mom · inc − wc · eps · w − eps · grad; w ← w + inc.
    (The second with a tenth of the rate: what has gathered is not scaled.)"""
    net = convnet.network(name)
    optimizer = convnet.sgd(net, name)
    rng, expected = np.random.default_rng(0), {}
    for p in net.parameters():
        p.data += rng.standard_normal(p.shape, np.float32)  # biases begin at 0, which would not decay
    inc = {key: 0.0 for key, _ in net.named_parameters()}
    for factor in (1, 0.1):
        for key, p in net.named_parameters():
            p.grad = Tensor(rng.standard_normal(p.shape, np.float32))
            bias = key.endswith("bias")
            eps, wc = (EPS_B, 0.0) if bias else (EPS_W, SOURCE[name][key.split(".")[0]][4])
            w = p.data.astype(np.float64)
            inc[key] = MOMENTUM * inc[key] - wc * eps * factor * w - eps * factor * p.grad.data
            expected[key] = w + inc[key]
        for group, rate in zip(optimizer.param_groups, convnet.RATES.values(), strict=True):
            group["lr"] = rate * factor
        optimizer.step()
        for key, p in net.named_parameters():
            np.testing.assert_allclose(p.data, expected[key], rtol=1e-6, atol=1e-8, err_msg=key)


def test_the_schedule():
    """In tenths: 80sec after 8 of 10 epochs, 18pct after 120 and 130 of 140; both for any number of epochs."""

    def tenths(name, epochs):
        return [round(-math.log10(convnet.slowdown(name, epoch, epochs))) for epoch in range(1, epochs + 1)]

    assert tenths("80sec", 10) == [0] * 8 + [1] * 2
    assert tenths("80sec", 5) == [0] * 4 + [1]
    assert tenths("80sec", 7) == [0] * 5 + [1] * 2
    assert tenths("18pct", 140) == [0] * 120 + [1] * 10 + [2] * 10
    assert tenths("18pct", 14) == [0] * 12 + [1] + [2]
    assert convnet.EPOCHS == {"80sec": 10, "18pct": 140}


# -- the program ----------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    return write_cifar10(tmp_path / "data")


def train(run, data, *options):
    return run("cuda_convnet/train.py", "--data", data, "--no-verify", *options)


@pytest.mark.parametrize("name", SOURCE)
def test_a_run(run, data, look, tmp_path, name):
    result = train(run, data, "--network", name, "--epochs", 5, "--out", tmp_path / "run")
    assert result.status == 0 and not result.err
    assert look.files(tmp_path / "run") == look.UNFINISHED  # finished.json is of AlexNet
    config, rows = json.loads((tmp_path / "run" / "config.json").read_text()), look.metrics(tmp_path / "run")
    assert config["network"] == name and config["epochs"] == 5 and len(config["classes"]) == 10
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5] == [row["step"] for row in rows]  # a batch each
    rates = [0.001 * 0.1**n for n in ({"80sec": [0, 0, 0, 0, 1], "18pct": [0, 0, 0, 0, 2]}[name])]
    assert [row["lr"] for row in rows] == pytest.approx(rates)
    lines = result.out.splitlines()
    for row, line in zip(rows, lines, strict=False):
        assert line.startswith(f"epoch {row['epoch']:.0f}/5 ")
        for share in (f"training error {100 - row['train_top1']:.2f}%", f"test error {100 - row['val_top1']:.2f}%"):
            assert share in line
    assert lines[-1].endswith(str(tmp_path / "run"))


def test_pictures_lose_their_mean_and_no_more(run, data, monkeypatch, tmp_path):
    """Of 0 to 255, the training set's mean image; the test set loses it as well."""
    seen = {True: [], False: []}
    forward = nn.Sequential.forward

    def watched(self, x):
        if hasattr(self, "conv3"):
            seen[self.training].append(x.data.copy())
        return forward(self, x)

    monkeypatch.setattr(nn.Sequential, "forward", watched)
    for seed in (0, 1):
        assert train(run, data, "--epochs", 2, "--seed", seed, "--out", tmp_path / str(seed)).status == 0
    images = [CIFAR10(data, part, verify=False).images.astype(np.float64) for part in (True, False)]
    mean = images[0].mean(axis=0)
    for part, expected in zip((True, False), images, strict=True):
        first, second, *other_seed = seen[part]
        for batch in (first, second, *other_seed):
            np.testing.assert_allclose(
                sorted(batch.sum((1, 2, 3))), sorted((expected - mean).sum((1, 2, 3))), rtol=1e-3
            )
            by_sum = [np.argsort(x.sum((1, 2, 3))) for x in (batch, expected)]
            np.testing.assert_allclose(batch[by_sum[0]], (expected - mean)[by_sum[1]], atol=1e-3)
        assert np.array_equal(first, second) != part  # another order each epoch, but not to test
        assert np.array_equal(first, other_seed[0]) != part


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(run, data, at_epoch, look, tmp_path):
    options = ["--network", "18pct", "--epochs", 7, "--seed", 3]  # with all three rates
    assert train(run, data, *options, "--out", tmp_path / "whole").status == 0

    at_epoch(3)
    folder = tmp_path / "run"
    assert train(run, data, *options, "--out", folder).status == 130
    assert len(look.metrics(folder)) == 2
    result = run("cuda_convnet/train.py", "--resume", folder / "last.safetensors")
    assert result.status == 0 and "epoch 3/7" in result.out and "epoch 2/7" not in result.out, result.err
    assert look.state(folder) == look.state(tmp_path / "whole")
    seconds = [row["seconds"] for row in look.metrics(folder)]
    assert seconds == sorted(seconds)


def test_a_checkpoint_with_three_optimizers_goes_on(run, data, look, tmp_path):
    """As they were written before an optimizer had groups of parameters."""
    whole, last = tmp_path / "whole", tmp_path / "run" / "last.safetensors"
    assert train(run, data, "--epochs", 2, "--out", whole).status == 0
    assert train(run, data, "--epochs", 1, "--out", last.parent).status == 0
    arrays, info = minicnn.load(last)
    new = {name: arrays.pop(name) for name in list(arrays) if name.startswith("optimizer.")}
    sizes, first = {"conv": 3, "fc": 2, "bias": 5}, 0
    for (kind, size), lr in zip(sizes.items(), new["optimizer.lr"], strict=True):
        arrays |= {f"{kind}.velocity.{i}": new[f"optimizer.velocity.{first + i}"] for i in range(size)}
        arrays |= {f"{kind}.lr": np.array(lr), f"{kind}.steps": new["optimizer.steps"]}
        first += size
    minicnn.save(last, arrays, info)
    result = run("cuda_convnet/train.py", "--resume", last, "--epochs", 2)
    assert result.status == 0, result.err
    there = minicnn.load(whole / "last.safetensors")[0]
    for name, array in minicnn.load(last)[0].items():
        if name.startswith("optimizer.velocity"):
            assert array.any() and array.shape == there[name].shape
    assert sum(name.startswith("optimizer.velocity") for name in new) == 10
    assert look.metrics(last.parent)[-1]["step"] == look.metrics(whole)[-1]["step"]


@pytest.mark.parametrize(
    "damage, word", [({"seed": "x"}, "seed 'x'"), ({"classes": [1]}, "classes"), ({"rows": [{}]}, "rows")]
)
def test_a_checkpoint_that_is_damaged(run, mistake, data, tmp_path, damage, word):
    last = tmp_path / "last.safetensors"
    assert train(run, data, "--epochs", 1, "--out", tmp_path).status == 0
    arrays, info = minicnn.load(last)
    rows = {name: damage.pop(name) for name in ("rows",) if name in damage}
    minicnn.save(last, arrays, {**info, **rows, "config": {**info["config"], **damage}})
    mistake([str(last), "is damaged", word], "cuda_convnet/train.py", "--resume", last, "--epochs", 2)


def test_a_checkpoint_that_is_torn_and_the_one_before(run, data, tmp_path):
    """The one before is used, and a line says so."""
    folder = tmp_path / "run"
    assert train(run, data, "--epochs", 2, "--out", folder).status == 0
    last, previous = folder / "last.safetensors", folder / "previous.safetensors"
    expected = minicnn.load(last)[0]
    last.write_bytes(last.read_bytes()[:-1])
    result = run("cuda_convnet/train.py", "--resume", last)
    assert result.status == 0 and len(result.err.splitlines()) == 1
    assert f"going on with {previous}, which was written before it" in result.err
    arrays = minicnn.load(last)[0]
    assert all(np.array_equal(arrays[name], array) for name, array in expected.items())


@pytest.mark.parametrize("image", [np.zeros((32, 32, 3, 2)), np.zeros(0), np.full((32, 32, 3), np.nan)])
def test_a_mean_image_that_is_damaged(run, mistake, data, tmp_path, image):
    assert (
        run("cuda_convnet/train.py", "--data", data, "--no-verify", "--epochs", 1, "--out", tmp_path / "run").status
        == 0
    )
    last = tmp_path / "run" / "last.safetensors"
    arrays, info = minicnn.load(last)
    minicnn.save(last, {**arrays, "view.mean_image": image}, info)
    mistake([str(last), "is damaged", "mean_image"], "cuda_convnet/train.py", "--resume", last, "--epochs", 2)


def test_a_run_goes_on_for_more_epochs(run, data, look, tmp_path):
    """At the rates of a schedule for all of them."""
    assert train(run, data, "--epochs", 2, "--out", tmp_path / "run").status == 0
    result = run("cuda_convnet/train.py", "--resume", tmp_path / "run" / "last.safetensors", "--epochs", 5)
    assert result.status == 0
    rates = [row["lr"] for row in look.metrics(tmp_path / "run")]
    assert rates == pytest.approx([0.001, 0.0001, 0.001, 0.001, 0.0001])


def test_a_run_goes_on_with_what_it_began_with(run, mistake, data, look, tmp_path):
    """Its mean image and its machine, though one of the files is another now; but not with other classes."""
    last = tmp_path / "run" / "last.safetensors"
    threads = minicnn.get_num_threads()
    assert train(run, data, "--epochs", 1, "--threads", threads, "--out", last.parent).status == 0
    began, _ = minicnn.load(last)
    (data / "data_batch_1.bin").write_bytes((data / "test_batch.bin").read_bytes())
    result = run("cuda_convnet/train.py", "--resume", last, "--epochs", 2)
    assert result.status == 0, result.err
    assert np.array_equal(minicnn.load(last)[0]["view.mean_image"], began["view.mean_image"])
    assert json.loads((last.parent / "config.json").read_text())["threads"] == threads
    (data / "batches.meta.txt").write_text("\n".join(["zebra", *CIFAR10(data, verify=False).classes[1:]]))
    mistake(["airplane", "zebra"], "cuda_convnet/train.py", "--resume", last, "--epochs", 3)


def test_training_that_diverges(mistake, data, monkeypatch, tmp_path):
    """Its rates are no option."""
    diverged = {"train_loss": float("nan"), "train_top1": 10.0, "images_per_s": 1.0}
    monkeypatch.setattr(scores.Score, "trained", lambda score: diverged)
    result = mistake(
        "diverged in epoch 1", "cuda_convnet/train.py", "--data", data, "--no-verify", "--out", tmp_path / "run"
    )
    assert "--lr" not in result.err and not (tmp_path / "run").exists()


def test_mistakes(run, mistake, data, finished, tmp_path):
    folder = tmp_path / "run"
    mistake(["--data", "DIR"], "cuda_convnet/train.py", "--out", folder)
    mistake("nowhere", "cuda_convnet/train.py", "--data", tmp_path / "nowhere", "--out", folder)
    mistake([str(data / "data_batch_1.bin"), "MD5", "verify"], "cuda_convnet/train.py", "--data", data, "--out", folder)
    mistake("20pct", "cuda_convnet/train.py", "--data", data, "--network", "20pct", "--out", folder)
    mistake("--epoch", "cuda_convnet/train.py", "--data", data, "--epoch", 3, "--out", folder)
    mistake("0", "cuda_convnet/train.py", "--data", data, "--epochs", 0, "--out", folder)
    assert not folder.exists()
    assert train(run, data, "--epochs", 1, "--out", folder).status == 0
    last = folder / "last.safetensors"
    before = last.read_bytes()
    mistake([str(folder), "--out", "--resume"], "cuda_convnet/train.py", "--data", data, "--out", folder)
    mistake("network 80sec, not 18pct", "cuda_convnet/train.py", "--resume", last, "--network", "18pct")
    mistake("seed 0, not 7", "cuda_convnet/train.py", "--resume", last, "--seed", 7)
    other = finished.folder
    mistake([f"--out {other}", "holds a run"], "cuda_convnet/train.py", "--resume", last, "--epochs", 2, "--out", other)
    mistake("has a network of cuda_convnet", "evaluate.py", "--checkpoint", folder / "best.safetensors")
    assert "--epochs with a larger number" in run("cuda_convnet/train.py", "--resume", last).out
    for other in (folder / "best.safetensors", finished.folder / "last.safetensors"):
        mistake([str(other), "is not a last.safetensors"], "cuda_convnet/train.py", "--resume", other)
    for config in ([], {"network": "80sec"}):
        minicnn.save(tmp_path / "other.safetensors", {}, {"config": config, "rows": []})
        mistake("is not a last.safetensors", "cuda_convnet/train.py", "--resume", tmp_path / "other.safetensors")
    mistake("missing.safetensors", "cuda_convnet/train.py", "--resume", folder / "missing.safetensors")
    assert last.read_bytes() == before
