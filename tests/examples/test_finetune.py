"""train.py --from: another network's weights to begin with, a new last layer, frozen layers, and a
rate of its own for the last one."""

import json
import shutil
import unicodedata

import numpy as np
import programs
import pytest
from support import runs, start
from support.images import IMAGENET, RAW, View

import minicnn
from minicnn import nn
from minicnn.data import DataLoader
from minicnn.optim import SGD

TRUNK = {"conv1.conv.weight", "conv1.conv.bias", "fc6.fc.weight", "fc6.fc.bias"}
HEAD = {"fc8.weight", "fc8.bias"}


@pytest.fixture
def source(finished):
    """A network of ten drawn textures."""
    return finished.folder / "best.safetensors"


@pytest.fixture
def tune(run, source, photos, tmp_path):
    """tune(option, …) trains it for an epoch on photos of three classes, in tmp_path/run."""
    data = photos()

    def tuned(*options, epochs=1):
        arguments = "--from", source, "--data", data, "--batch-size", 5, "--epochs", epochs, "--out", tmp_path / "run"
        return run("train.py", *arguments, *options)

    return tuned


def weights(folder):
    """The network of a run's last epoch."""
    arrays, _ = minicnn.load(folder / "last.safetensors")
    return {name.removeprefix("model."): array for name, array in arrays.items() if name.startswith("model.")}


def same(a, b, names):
    return all(np.array_equal(a[name], b[name]) for name in names)


def differ(a, b, names):
    return not any(np.array_equal(a[name], b[name]) for name in names)


# -- what is kept, and what is new ----------------------------------------------------------------------------------


def test_other_classes_get_a_new_last_layer(tune, source, tmp_path):
    """At a rate of 0 the others are those of the file, bit for bit, and the last is as it was
    drawn."""
    result = tune("--lr", 0)
    assert result.status == 0 and not result.err
    (line,) = [line for line in result.out.splitlines() if line.startswith(f"from {source}: ")]
    assert "fc8 is new, for 3 classes instead of 10" in line and "source source" not in result.out
    assert ", pixels with the mean and scale of best.safetensors;" in result.out
    assert "mean source" not in result.out and result.out.count(str(source)) == 1
    before, after = minicnn.load(source)[0], weights(tmp_path / "run")
    assert same(before, after, TRUNK) and after["fc8.weight"].shape == (16, 3) and after["fc8.weight"].any()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["source"] == str(source) and config["classes"] == config["names"] == ["cat", "dog", "eel"]
    assert not config["freeze"] and config["head_lr"] is None


def test_the_same_classes_keep_the_last_layer_and_their_names(run, source, tmp_path):
    arrays, info = minicnn.load(source)
    words = [f"a {name}" for name in info["config"]["classes"]]
    minicnn.save(tmp_path / "words.safetensors", arrays, {"config": {**info["config"], "names": words}})
    options = "--from", tmp_path / "words.safetensors", "--lr", 0, "--epochs", 1, "--out", tmp_path / "run"
    result = run("train.py", *options)
    assert result.status == 0 and "all its layers, because the classes are the same" in result.out
    assert same(arrays, weights(tmp_path / "run"), TRUNK | HEAD)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["names"] == words


def test_as_many_classes_of_other_names_are_others(run, source, photos, tmp_path):
    arrays, info = minicnn.load(source)
    arrays |= {name: np.ascontiguousarray(arrays[name][..., :3]) for name in HEAD}
    others = ["cat", "dog", "fox"]
    config = {**info["config"], "classes": others, "names": others}
    minicnn.save(tmp_path / "net.safetensors", arrays, {"config": config})
    options = "--from", tmp_path / "net.safetensors", "--lr", 0, "--epochs", 1, "--out", tmp_path / "run"
    result = run("train.py", "--data", photos(), *options)
    assert "fc8 is new, for 3 classes instead of 3 others" in result.out
    assert json.loads((tmp_path / "run" / "config.json").read_text())["names"] == ["cat", "dog", "eel"]
    assert not np.array_equal(arrays["fc8.weight"], weights(tmp_path / "run")["fc8.weight"])


def test_folders_called_by_numbers_have_the_labels_of_the_network(run, photos, look, tmp_path, monkeypatch):
    """They sort otherwise: 0, 1, 10, 11, 2. All layers are kept, and a network that takes everything
    for class 10 has the five images of that folder right, of sixteen; also when the run goes on."""
    look.small_world(monkeypatch)
    picture = photos(classes=1, train=1, val=1) / "val" / "cat" / "0.jpg"
    for k in range(12):
        for part in ("train", "val"):
            (tmp_path / "numbers" / part / str(k)).mkdir(parents=True)
            for i in range(5 if k == 10 else 1):
                shutil.copyfile(picture, tmp_path / "numbers" / part / str(k) / f"{i}.jpg")
    net, names = look.tiny("2014", 12), [str(k) for k in range(12)]
    net.fc8.bias.data[10] = 1e3
    config = {"variant": "2014", "groups": True, "init": "he", "classes": names, "names": [f"a {k}" for k in names]}
    runs.save_network(tmp_path / "net.safetensors", net, config, View(look.SIZE, *IMAGENET, resize=70))
    options = "--from", tmp_path / "net.safetensors", "--data", tmp_path / "numbers", "--lr", 0, "--weight-decay", 0
    result = run("train.py", *options, "--epochs", 1, "--out", tmp_path / "run")
    assert result.status == 0 and "all its layers, because the classes are the same" in result.out, result.err
    last = tmp_path / "run" / "last.safetensors"
    assert run("train.py", "--resume", last, "--epochs", 2).status == 0
    config = minicnn.load(last)[1]["config"]
    assert config["classes"] == names and config["names"][10] == "a 10"
    for row in look.metrics(tmp_path / "run"):
        assert row["val_top1"] == row["train_top1"] == 31.25


def test_accents_that_are_encoded_otherwise_name_the_same_classes(run, photos, tmp_path):
    """As folders that come from a Mac do."""
    data, last = photos(classes=2), tmp_path / "run" / "last.safetensors"
    for form, other in (("NFC", "NFD"), ("NFD", "NFC")):
        for part in ("train", "val"):
            before, name = (data / part / unicodedata.normalize(f, "été") for f in (other, form))
            (before if before.exists() else data / part / "cat").rename(name)
        if form == "NFC":
            assert run("train.py", "--data", data, "--epochs", 1, "--out", last.parent).status == 0
    result = run("train.py", "--data", data, "--epochs", 1, "--from", last, "--out", tmp_path / "tuned")
    assert result.status == 0 and "the classes are the same" in result.out
    for result in (run("train.py", "--resume", last, "--epochs", 2), run("evaluate.py", "--checkpoint", last)):
        assert result.status == 0, result.err


@pytest.mark.parametrize("name", ["best", "last"])
def test_frozen_layers_stay_bit_for_bit(tune, source, tmp_path, name):
    """And are of no concern to the optimizer."""
    result = tune("--freeze", "--from", source.with_name(f"{name}.safetensors"), epochs=2)
    assert result.status == 0 and not result.err
    arrays, after = minicnn.load(source.with_name(f"{name}.safetensors"))[0], weights(tmp_path / "run")
    prefix = "model." if name == "last" else ""
    assert same({n.removeprefix(prefix): array for n, array in arrays.items()}, after, TRUNK)
    saved, _ = minicnn.load(tmp_path / "run" / "last.safetensors")
    velocities = {n: array.shape for n, array in saved.items() if n.startswith("optimizer.velocity")}
    assert velocities == {"optimizer.velocity.0": (16, 3), "optimizer.velocity.1": (3,)}
    assert saved["optimizer.velocity.0"].any()  # it has learned


def test_what_is_not_frozen_learns(tune, source, tmp_path):
    assert tune().status == 0
    assert differ(minicnn.load(source)[0], weights(tmp_path / "run"), TRUNK)


def test_frozen_layers_work_as_in_evaluation():
    """Batch norm keeps its statistics and uses them, dropout passes everything; layers without
    parameters go with the rest of the network."""
    rng = np.random.default_rng(0)
    net = nn.Sequential(
        norm=nn.Sequential(norm=nn.BatchNorm2d(3), drop=nn.Dropout(0.9)), drop=nn.Dropout(0.5), flatten=nn.Flatten(),
        fc=nn.Linear(12, 2),
    )  # fmt: skip
    start.freeze(net)
    start.training_mode(net)
    before = {name: array.copy() for name, array in net.state_dict().items()}
    dataset = [(rng.random((2, 2, 3), np.float32) + 3, i % 2) for i in range(6)]
    learned = [parameter for parameter in net.parameters() if parameter.requires_grad]
    for images, labels in DataLoader(dataset, 2, num_workers=0):
        programs.step(net, SGD(learned, 0.1), images, labels)
    assert len(learned) == 2 and not net.norm.norm.training and not net.norm.drop.training and net.drop.training
    after = net.state_dict()
    assert same(before, after, [name for name in before if name.startswith("norm")])
    assert differ(before, after, ["fc.weight", "fc.bias"])


@pytest.mark.parametrize("lr, head_lr, moved, still", [(0, 0.1, HEAD, TRUNK), (0.1, 0, TRUNK, HEAD)])
def test_the_last_layer_has_a_rate_of_its_own(tune, run, tmp_path, lr, head_lr, moved, still):
    assert tune("--lr", 0).status == 0  # a network of these classes, which keeps its last layer
    first = tmp_path / "run" / "last.safetensors"
    options = "--from", first, "--lr", lr, "--head-lr", head_lr, "--out", tmp_path / "own"
    assert tune(*options).status == 0
    before, after = weights(tmp_path / "run"), weights(tmp_path / "own")
    assert differ(before, after, moved) and same(before, after, still)


def test_both_rates_follow_the_schedule(tune, tmp_path):
    assert tune("--lr", 0.01, "--head-lr", 0.04, "--schedule", "cosine", epochs=2).status == 0
    saved, _ = minicnn.load(tmp_path / "run" / "last.safetensors")
    assert saved["optimizer.lr"].shape == (2,) and saved["schedule.base_lrs"].tolist() == [0.01, 0.04]


# -- how it sees images -------------------------------------------------------------------------------------------


@pytest.fixture
def other_view(look, tmp_path, monkeypatch):
    """A network with a mean image, raw pixels, another normalization and few settings, as
    convert.py writes them."""
    look.small_world(monkeypatch)
    image = np.random.default_rng(0).random((70, 70, 3), np.float32)
    config = {
        "variant": "2014", "groups": True, "init": "paper", "classes": ["a", "b"], "dropout_scale": "evaluation",
        "lrn": {"n": 3, "k": 1.0, "alpha": 0.5, "beta": 0.75},
    }  # fmt: skip
    path, view = tmp_path / "other.safetensors", View(look.SIZE, (0.0, 0.0, 0.0), RAW, image, resize=70)
    runs.save_network(path, look.tiny("2014", 2), config, view)
    return path


def test_the_network_and_its_view_are_the_sources(tune, other_view, tmp_path):
    assert tune("--from", other_view).status == 0
    net, config, view = runs.load_network(str(tmp_path / "run" / "best.safetensors"))
    (_, before, seen) = runs.load_network(str(other_view))
    for name in ("variant", "groups", "init", "lrn", "dropout_scale"):
        assert config[name] == before[name]
    assert net.fc6.dropout.scale == "evaluation" and config["lrn_alpha"] == 0.5
    np.testing.assert_array_equal(view.mean_image, seen.mean_image)
    assert view.numbers() == seen.numbers()
    assert (config["mean"], config["scale"], config["resize"]) == ("source", "source", 70)
    assert config["crop"] == "random"  # of which the file says nothing


def test_what_was_given_wins(tune, other_view, source, look, tmp_path):
    (mean, std), none, side = IMAGENET, (0.0, 0.0, 0.0), look.SIZE
    table = [  # the source, what was given, and the view: mean, std, resize, has it a mean image?
        (other_view, ("--scale", "unit"), (none, std, 70, True)),
        (other_view, ("--mean", "imagenet", "--resize", 66), (mean, RAW, 66, False)),
        (source, ("--resize", 68), (mean, std, 68, False)),
        (source, ("--mean", "image"), (none, std, side, True)),
        (source, ("--scale", "raw"), (mean, RAW, side, False)),
    ]
    for i, (path, given, expected) in enumerate(table):
        assert tune("--from", path, *given, "--out", tmp_path / str(i)).status == 0
        view = runs.load_network(str(tmp_path / str(i) / "best.safetensors"))[2]
        assert (tuple(view.mean), tuple(view.std), view.resize, view.mean_image is not None) == expected


def test_dropout_is_the_sources(tune, run, tmp_path):
    assert tune("--dropout", 0.25).status == 0
    source = tmp_path / "run" / "best.safetensors"
    for out, options, share in (("as", (), 0.25), ("given", ("--dropout", 0.1), 0.1)):
        assert tune("--from", source, *options, "--out", tmp_path / out).status == 0
        net, config, _ = runs.load_network(str(tmp_path / out / "best.safetensors"))
        assert config["dropout"] == net.fc6.dropout.p == share


def test_the_crop_is_the_sources(tune, source, tmp_path):
    """Drawn textures are not cropped at random, photos are."""
    for out, options in {"as": (), "given": ("--crop", "random")}.items():
        assert tune(*options, "--out", tmp_path / out).status == 0
    crops = [json.loads((tmp_path / out / "config.json").read_text())["crop"] for out in ("as", "given")]
    assert crops == ["center", "random"]


# -- going on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--freeze",), ("--head-lr", 0.02), ("--schedule", "plateau")])
def test_it_goes_on_without_the_file_it_began_with(tune, run, at_epoch, look, other_view, tmp_path, options):
    """Bit for bit."""
    options = "--from", other_view, *options
    assert tune(*options, "--out", tmp_path / "whole", epochs=3).status == 0

    def interrupt():
        raise KeyboardInterrupt

    at_epoch(2, interrupt)
    assert tune(*options, epochs=3).status == 130
    other_view.unlink()
    result = run("train.py", "--resume", tmp_path / "run" / "last.safetensors")
    assert result.status == 0, result.err
    assert look.state(tmp_path / "run") == look.state(tmp_path / "whole")


def test_what_is_given_anew_is_for_both_groups(tune, run, tmp_path):
    assert tune("--head-lr", 0.04).status == 0
    last = tmp_path / "run" / "last.safetensors"
    assert run("train.py", "--resume", last, "--epochs", 2, "--weight-decay", 0.25).status == 0
    assert minicnn.load(last)[0]["optimizer.weight_decay"].tolist() == [0.25, 0.25]


def test_a_rate_by_hand_of_one_of_the_two(tune, run, tmp_path):
    """With a plateau, whose rates are the optimizer's."""
    options = "--schedule", "plateau", "--patience", 9, "--lr", 0.01, "--head-lr", 0.04
    assert tune(*options).status == 0
    last, rates = tmp_path / "run" / "last.safetensors", []
    for epoch, given in enumerate((("--lr", 0.002), ("--head-lr", 0.03)), 2):
        assert run("train.py", "--resume", last, "--epochs", epoch, *given).status == 0
        rates.append(minicnn.load(last)[0]["optimizer.lr"].tolist())
    assert rates == [[0.002, 0.04], [0.002, 0.03]]


# -- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, words",
    [
        (["--from", "SOURCE", "--resume", "SOURCE"], ["--from", "--resume", "one of them"]),
        (["--freeze"], ["--freeze", "--from"]),
        (["--head-lr", 0.1], ["--head-lr", "--from"]),
        (["--from", "SOURCE", "--freeze", "--head-lr", 0.1], ["--freeze", "leave out --head-lr"]),
        (["--from", "SOURCE", "--head-lr", -1], ["--head-lr", "-1"]),
        (["--from", ""], ["must not be empty"]),
        (["--from", "nowhere.safetensors"], ["nowhere.safetensors"]),
        (["--from", "SOURCE", "--variant", "2014"], ["SOURCE", "variant 2012, not 2014", "leave the option out"]),
        (["--from", "SOURCE", "--lrn-alpha", 0.5], ["SOURCE", "lrn_alpha 0.0001, not 0.5"]),
        (["--from", "SOURCE", "--dropout-scale", "evaluation"], ["SOURCE", "dropout_scale training"]),
        (["--from", "OTHER", "--resize", 66], ["--resize 66", "mean image", "70 pixels", "--mean"]),
        (["--from", "SOURCE", "--resize", 20], ["--resize 20", "64 pixels"]),
    ],
)
def test_mistakes(mistake, source, other_view, tmp_path, options, words):
    names = {"SOURCE": str(source), "OTHER": str(other_view)}
    options, words = ([names.get(word, word) for word in given] for given in (options, words))
    mistake(words, "train.py", *options, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["missing", "more", "shape", "view", "mean"])
def test_networks_that_do_not_fit(mistake, source, tmp_path, kind):
    arrays, info = minicnn.load(source)
    if kind == "missing":
        del arrays["fc6.fc.bias"]
    elif kind == "more":
        arrays["fc9.bias"] = np.zeros(3, np.float32)
    elif kind == "shape":
        arrays["conv1.conv.weight"] = np.zeros((3, 3, 3, 8), np.float32)
    elif kind == "view":
        info["config"]["view"] = {"width": 3}
    else:
        info["config"]["view"]["mean"] = [0.5, 0.5]
    minicnn.save(tmp_path / "net.safetensors", arrays, info)
    found = mistake(str(tmp_path / "net.safetensors"), "train.py", "--from", tmp_path / "net.safetensors")
    words = {
        "missing": "fc6.fc.bias",
        "more": "fc9.bias",
        "shape": "conv1.conv.weight",
        "view": "width",
        "mean": "view",
    }
    assert words[kind] in found.err


@pytest.mark.parametrize("option, words", [("--freeze", "freeze False"), ("--head-lr", "head_lr None")])
def test_what_a_run_did_not_begin_with(mistake, finished, option, words):
    """Its optimizer has no place for it."""
    last = finished.folder / "last.safetensors"
    value = [0.1] if option == "--head-lr" else []
    mistake([str(last), words], "train.py", "--resume", last, "--epochs", 4, option, *value)
