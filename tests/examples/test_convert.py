"""Weights from torchvision and Caffe, and back: axes, rows, colors and constants, by the logits of each framework's own
network (tests/frameworks.py). The program and its files are in test_convert_program.py."""

import convert
import frameworks
import numpy as np
import pytest
from frameworks import CAFFE, CLASSES, PICTURES, TORCHVISION, caffe_sees, conv, logits, torchvision_sees, weights
from hypothesis import given
from hypothesis import strategies as st
from model import LRN, alexnet
from programs import run_program
from support.images import IMAGENET, RAW, View
from support.runs import load_network

from minicnn import Tensor, no_grad
from minicnn import functional as F

MEAN = np.float32([104.25, 116.5, 122.75])  # blue, green, red
MEAN_IMAGE = (MEAN[:, None, None] + np.random.default_rng(0).normal(0, 20, (3, 256, 256))).astype(np.float32)
RAW_VIEW = View(227, (122.75 / 255, 116.5 / 255, 104.25 / 255), RAW)
MEAN_IMAGE_VIEW = View(227, (0, 0, 0), RAW, np.ascontiguousarray(MEAN_IMAGE.transpose(1, 2, 0)[..., ::-1]))
USUAL_VIEW = View(224, *IMAGENET)


@pytest.fixture
def narrow(monkeypatch):
    frameworks.narrow(monkeypatch)


def of_ours(variant, **others):
    """A network as train.py might leave it, and its settings."""
    options = {"lrn": LRN, "dropout": 0.5, "dropout_scale": "training", **others}
    config = {"variant": variant, "groups": True, **options}
    net, rng = alexnet(variant, CLASSES, **options), np.random.default_rng(1)
    for p in net.parameters():
        scale = np.sqrt(2 / np.prod(p.shape[:-1])) if p.ndim > 1 else 0.3 if variant == "2014" else 10
        p.data[...] = rng.standard_normal(p.shape, np.float32) * np.float32(scale)
    return net, config


@no_grad()
def our_logits(net, view):
    """Of PICTURES, as they are: without the View's resizing."""
    if view.mean_image is None:
        border = (227 - view.size) // 2
        x = PICTURES[:, border : border + view.size, border : border + view.size] / 255
        x = (x - np.array(view.mean)) / np.array(view.std)
    else:
        x = PICTURES - view.mean_image[14:241, 14:241].astype(float)
    return net.eval()(Tensor(x.astype(np.float32))).data


def difference(ours, theirs):
    """The largest, as a part of the largest logit."""
    assert np.abs(theirs).max() > 1 and theirs.min() < 0 < theirs.max()  # alive
    return abs(ours - theirs).max() / abs(theirs).max()


# ---------------------------------------------------------------------------------------------------------------- logits
def test_from_torchvision(narrow):
    arrays = weights(TORCHVISION)
    net, config, view = convert.from_torchvision(arrays)
    assert config["variant"] == "2014" and view.numbers() == USUAL_VIEW.numbers()
    assert difference(our_logits(net, view), logits(TORCHVISION, arrays, torchvision_sees(PICTURES))) < 1e-5


def test_to_torchvision(narrow):
    net, config = of_ours("2014")
    arrays = convert.to_torchvision(net, config, USUAL_VIEW)
    assert [(name, array.shape) for name, array in arrays.items()] == [
        (name, array.shape) for name, array in weights(TORCHVISION).items()
    ]
    assert difference(our_logits(net, USUAL_VIEW), logits(TORCHVISION, arrays, torchvision_sees(PICTURES))) < 1e-5


@pytest.mark.parametrize("mean", [MEAN, MEAN_IMAGE], ids=["a mean", "a mean image"])
def test_from_caffe(narrow, mean):
    arrays = weights(CAFFE)
    net, config, view = convert.from_caffe(arrays, mean)
    assert config["lrn"] == {"n": 5, "k": 1, "alpha": 2e-5, "beta": 0.75}
    assert difference(our_logits(net, view), logits(CAFFE, arrays, caffe_sees(PICTURES, mean))) < 1e-5


@pytest.mark.parametrize("view", [RAW_VIEW, MEAN_IMAGE_VIEW], ids=["a mean", "a mean image"])
@pytest.mark.parametrize("lrn", [LRN, {"n": 3, "k": 1.5, "alpha": 3e-4, "beta": 0.6}], ids=["the paper's", "others"])
def test_to_caffe(narrow, lrn, view):
    net, config = of_ours("2012", lrn=lrn)
    arrays = convert.to_caffe(net, config, view)
    size, alpha, beta, k = arrays["lrn"].tolist()
    x, constants = caffe_sees(PICTURES, arrays["mean"]), {"local_size": int(size), "alpha": alpha, "beta": beta, "k": k}
    assert difference(our_logits(net, view), logits(CAFFE, arrays, x, constants)) < 1e-5


@pytest.mark.parametrize("dropout, error", [(0.5, 0), (0.25, 1e-5)])
@pytest.mark.parametrize("variant, view", [("2012", RAW_VIEW), ("2014", USUAL_VIEW)])
def test_the_papers_dropout_goes_into_the_weights(narrow, variant, view, dropout, error):
    net, config = of_ours(variant, dropout_scale="evaluation", dropout=dropout)
    if variant == "2012":
        other, settings, _ = convert.from_caffe(convert.to_caffe(net, config, view))
    else:
        other, settings, _ = convert.from_torchvision(convert.to_torchvision(net, config, view))
    assert settings["dropout_scale"] == "training"
    assert difference(our_logits(other, view), our_logits(net, view)) <= error


SHARES = [16, pytest.param(1, marks=pytest.mark.slow)]  # of the channels: a sixteenth, all of them


@pytest.mark.torch
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(
    "framework, to", [(TORCHVISION, "torchvision"), (CAFFE, "caffe")], ids=["torchvision", "Caffe"]
)
def test_logits_are_pytorchs_both_ways(monkeypatch, tmp_path, framework, to, share):
    """In float32, by the files that people have. The largest differences found were 1.9e-6 and 2.4e-6."""
    torch = pytest.importorskip("torch")
    frameworks.narrow(monkeypatch, share)
    theirs, ours = frameworks.network(framework, share), tmp_path / "ours.safetensors"
    x = torchvision_sees(PICTURES) if framework == TORCHVISION else caffe_sees(PICTURES, MEAN)
    files = [tmp_path / f"{name}{'.pth' if framework == TORCHVISION else '.npz'}" for name in ("theirs", "back")]

    @torch.no_grad()
    def pytorchs():
        return theirs(torch.from_numpy(x.astype(np.float32))).numpy()

    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in weights(framework, share).items()})
    if framework == TORCHVISION:
        torch.save(theirs.state_dict(), files[0])
    else:
        np.savez(files[0], **{name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    options = ["--mean", ",".join(map(str, MEAN))] if framework == CAFFE else []
    assert run_program("convert.py", files[0], ours, *options).status == 0
    net, _, view = load_network(str(ours))
    assert difference(our_logits(net, view), pytorchs()) < 1e-5

    for p in theirs.parameters():
        torch.nn.init.zeros_(p)
    assert run_program("convert.py", ours, files[1], "--to", to).status == 0
    arrays = convert.read(str(files[1]))
    theirs.load_state_dict(
        {name: torch.from_numpy(a) for name, a in arrays.items() if name not in ("mean", "resize", "lrn")}
    )
    assert difference(our_logits(net, view), pytorchs()) < 1e-5


# ---------------------------------------------------------------------------------------------------------------- layout
sizes = st.integers(1, 4)


@given(sizes, sizes, sizes, sizes)
def test_axes_of_a_convolution(out, channels, kh, kw):
    theirs = np.arange(out * channels * kh * kw).reshape(out, channels, kh, kw)
    ours = convert.channels_last(theirs)
    assert ours.shape == (kh, kw, channels, out)
    for o, c, i, j in np.ndindex(theirs.shape):
        assert ours[i, j, c, o] == theirs[o, c, i, j]
    np.testing.assert_array_equal(convert.channels_first(ours), theirs, strict=True)


@given(sizes, sizes, sizes)
def test_rows_of_a_linear_layer(out, channels, side):
    theirs = np.arange(out * channels * side * side).reshape(out, channels * side * side)
    ours = convert.channels_last(theirs, side)
    assert ours.shape == theirs.shape[::-1]
    for o, c, y, x in np.ndindex(out, channels, side, side):
        assert ours[(y * side + x) * channels + c, o] == theirs[o, (c * side + y) * side + x]
    np.testing.assert_array_equal(convert.channels_first(ours, side), theirs, strict=True)


@given(groups=st.integers(1, 3), channels=sizes, out=sizes, hidden=sizes, k=sizes, side=sizes)
def test_a_convolution_and_the_linear_layer_that_sees_it(groups, channels, out, hidden, k, side):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, groups * channels, side + k - 1, side + k - 1))
    kernels = rng.standard_normal((groups * out, channels, k, k))
    rows = rng.standard_normal((hidden, groups * out * side * side))
    theirs = conv(x, kernels, np.zeros(groups * out)).reshape(2, -1) @ rows.T
    y = F.conv2d(Tensor(x.transpose(0, 2, 3, 1)), Tensor(convert.channels_last(kernels)), groups=groups)
    ours = F.linear(y.reshape(2, -1), Tensor(convert.channels_last(rows, side)))
    np.testing.assert_allclose(ours.data, theirs, atol=1e-9)
