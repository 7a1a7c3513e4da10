"""ONNX files: AlexNet out of those that other programs write, by the logits of the same graph, and
into one, by what other programs make of it. Graphs of both frameworks, in the ways in which files
have them, are in tests/frameworks.py."""

import contextlib
import io
import itertools
import json
import os
import warnings

import convert
import frameworks
import numpy as np
import pytest
from frameworks import BVLC_LRN, CAFFE, CLASSES, PICTURES, TORCHVISION, Form, logits, weights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model import INPUT_SIZE, LRN, alexnet
from programs import run_program
from support import onnx_format
from support.images import IMAGENET, RAW, View
from support.runs import load_network, save_network

from minicnn import Tensor, no_grad

onnx = pytest.importorskip("onnx")
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx.reference.op_run import OpRun  # noqa: E402

try:
    import onnxruntime as runtime
except ImportError:
    runtime = None

MEAN_IMAGE = np.random.default_rng(0).normal(120, 20, (250, 250, 3)).astype(np.float32)
LESS_MEAN, USUAL = View(227, (0.5, 0.25, 0.75), RAW), View(224, *IMAGENET)
MEAN = np.float32([104.25, 116.5, 127.9])  # blue, green, red
LESS_IMAGE = View(227, (0.0, 0.0, 0.0), RAW, MEAN_IMAGE, 250)


@pytest.fixture(autouse=True)
def narrow(request, monkeypatch, tmp_path):
    """An empty folder, and networks of a sixteenth of their channels, except for slow tests."""
    if request.node.get_closest_marker("slow") is None:
        frameworks.narrow(monkeypatch)
    monkeypatch.chdir(tmp_path)


def normalized(self, x, alpha=None, beta=None, bias=None, size=None):
    """For onnx's own evaluator, which normalizes only as many channels as there are images."""
    return (frameworks.norm(x, size, alpha, beta, bias).astype(x.dtype),)


def ran(path, x):
    """What ONNX Runtime makes of (N, 3, H, W), or where it is not installed onnx's own
    evaluator."""
    model = onnx.load(path)
    if runtime is not None:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    else:
        session = ReferenceEvaluator(model, new_ops=[type("LRN", (OpRun,), {"_run": normalized})])
    names = {tensor.name for tensor in model.graph.initializer}
    (name,) = (value.name for value in model.graph.input if value.name not in names)
    return session.run(None, {name: np.ascontiguousarray(x, np.float32)})[0]


@no_grad()
def ours(net, x):
    """What the network makes of (N, 3, H, W)."""
    return net.eval()(Tensor(np.ascontiguousarray(x.transpose(0, 2, 3, 1), np.float32))).data


def difference(mine, theirs):
    """The largest, as a part of the largest logit."""
    assert np.abs(theirs).max() > 0.5 and theirs.min() < 0 < theirs.max()  # alive
    return abs(mine - theirs).max() / abs(theirs).max()


def seen_by(framework):
    return frameworks.torchvision_sees(PICTURES) if framework == TORCHVISION else frameworks.caffe_sees(PICTURES, MEAN)


# -------------------------------------------------------------------------------------------------------------------- in
FORMS = {
    "as it is": Form(),
    "spelled out": Form(lrn="spelled out"),
    "spelled out, AveragePool, Constant": Form(lrn="spelled out", flatten="AveragePool", constants=True),
    "Gemm": Form(linear="Gemm"),
    "MatMul": Form(linear="MatMul", flatten="Reshape"),
    "no bias": Form(bias=False),
    "MatMul, no bias": Form(bias=False, linear="MatMul"),
    "listed": Form(listed=True, opset=9),
    "Dropout": Form(dropout=True),
    "Dropout, opset 11": Form(dropout=True, opset=11),
    "shared": Form(shared=True),
    "ceil": Form(ceil_mode=1),
    "pads of a last pool": Form(last_pads=(0, 0, 1, 1)),
    "the zoo's": Form(listed=True, dropout=True, flatten="Reshape", opset=9, last_pads=(0, 0, 1, 1)),
    "newest": Form(opset=20),
    "oldest": Form(opset=3, flatten="Reshape", listed=True),
    "squares by Pow": Form(lrn="with Pow"),
    "all attributes": Form(defaults=True, linear="Gemm", flatten="AveragePool"),
    "few attributes": Form(defaults=False, linear="Gemm", flatten="AveragePool"),
    "few attributes, spelled out": Form(defaults=False, lrn="spelled out"),
    "biases added": Form(added=1.0),
    "biases added to MatMul": Form(added=1.0, linear="MatMul"),
    "half of the biases added": Form(added=0.5),
}


@pytest.mark.parametrize("framework", [TORCHVISION, CAFFE], ids=["torchvision", "Caffe"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms_of_a_graph(form, framework):
    arrays = weights(framework)
    if not form.bias:
        arrays = {name: array * name.endswith("weight") for name, array in arrays.items()}
    if form.shared:
        for name in framework[5:7]:
            arrays[f"{name}.bias"] = np.float32([0.25] * 256)
    model, x = frameworks.onnx_model(framework, arrays, form), seen_by(framework)
    if form.lrn != Form().lrn:
        x = x[:1]  # onnx's own evaluator takes half a second for what is spelled out
    onnx.checker.check_model(model)
    onnx.save(model, "a.onnx")
    expected = logits(framework, arrays, x)
    if form.opset >= 7:  # which runtimes take
        assert difference(ran("a.onnx", x), expected) < 1e-5  # it is the network that it is said to be
    found = onnx_format.read_onnx("a.onnx")
    net, config, view = convert.from_onnx(found)
    assert config["variant"] == ("2014" if framework == TORCHVISION else "2012") and config["groups"]
    assert found.side == view.size and view.std == (RAW if framework == CAFFE else IMAGENET[1])
    if framework == CAFFE:
        assert config["lrn"] == {"n": 5, "k": 1.0, "alpha": 2e-5, "beta": 0.75}
        x = x[:, ::-1]  # red first, as minicnn's images are
    assert difference(ours(net, x), expected) < 1e-5
    if form.shared:
        assert len(model.graph.initializer) == 15


def test_pictures_whose_size_is_not_said():
    model = frameworks.onnx_model(TORCHVISION, weights(TORCHVISION))
    kind = model.graph.input[0].type.tensor_type
    for side in ("H", None):
        if side is None:
            kind.ClearField("shape")
        else:
            kind.shape.dim[2].dim_param = kind.shape.dim[3].dim_param = side
        onnx.save(model, "a.onnx")
        assert onnx_format.read_onnx("a.onnx").side is None


def test_softmax_goes():
    arrays = weights(TORCHVISION)
    onnx.save(frameworks.onnx_model(TORCHVISION, arrays, Form(softmax=True)), "a.onnx")
    x = seen_by(TORCHVISION)
    mine = ours(convert.from_onnx(onnx_format.read_onnx("a.onnx"))[0], x)
    shares = np.exp(mine - mine.max(1, keepdims=True))
    np.testing.assert_allclose(shares / shares.sum(1, keepdims=True), ran("a.onnx", x), atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("count", ["N", 2])
@pytest.mark.parametrize("dynamo", [False, True], ids=["the older exporter", "the newer exporter"])
@pytest.mark.parametrize("framework", [TORCHVISION, CAFFE], ids=["torchvision", "Caffe"])
def test_files_of_pytorchs_exporters(framework, dynamo, count, training):
    torch = pytest.importorskip("torch")
    if dynamo:
        pytest.importorskip("onnxscript")
    theirs, arrays, x = frameworks.network(framework), weights(framework), seen_by(framework).astype(np.float32)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    free = {"dynamic_shapes": ({0: torch.export.Dim("N")},)} if dynamo else {"dynamic_axes": {"x": {0: "N"}}}
    mode = torch.onnx.TrainingMode.TRAINING if training else torch.onnx.TrainingMode.EVAL
    options = {"verbose": False} if dynamo else {"training": mode, "do_constant_folding": not training}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of what in PyTorch will change
        torch.onnx.export(
            theirs.train(training), (torch.from_numpy(x),), "a.onnx", dynamo=dynamo, input_names=["x"], **options,
            **(free if count == "N" else {}),
        )  # fmt: skip
    net, config, _ = convert.from_onnx(onnx_format.read_onnx("a.onnx"))
    assert config["variant"] == ("2012" if framework == CAFFE else "2014")
    mine = ours(net, x[:, ::-1] if framework == CAFFE else x)
    assert difference(mine, logits(framework, arrays, x)) < 1e-5


@pytest.mark.parametrize("spelled", ["op", "spelled out"])
@pytest.mark.parametrize("lrn", [{"local_size": 3, "alpha": 3e-4, "beta": 0.6, "k": 1.5}, BVLC_LRN])
def test_constants_of_normalization(lrn, spelled):
    arrays, x = weights(CAFFE), seen_by(CAFFE)
    onnx.save(frameworks.onnx_model(CAFFE, arrays, Form(lrn=spelled), lrn), "a.onnx")
    net, config, _ = convert.from_onnx(onnx_format.read_onnx("a.onnx"))
    n = lrn["local_size"]
    assert config["lrn"] == {"n": n, "k": lrn["k"], "alpha": lrn["alpha"] / n, "beta": lrn["beta"]}
    assert difference(ours(net, x[:, ::-1]), logits(CAFFE, arrays, x, lrn)) < 1e-5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype):
    """Weights of another width are widened; the numbers are those of that width."""
    arrays = {name: array.astype(np.float16) for name, array in weights(TORCHVISION).items()}
    if dtype == "bfloat16":
        bits = {name: array.astype(np.float32).view(np.uint32) >> 16 << 16 for name, array in arrays.items()}
        arrays = {name: array.view(np.float32) for name, array in bits.items()}
    model = frameworks.onnx_model(TORCHVISION, {n: a.astype(np.float32) for n, a in arrays.items()}, Form(dtype=dtype))
    onnx.save(model, "a.onnx")
    found = onnx_format.read_onnx("a.onnx").arrays
    back = convert.outwards(convert.inwards(found, convert.OURS), convert.TORCHVISION)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array.astype(np.float32), strict=True)


def test_the_program_brings_a_file_in():
    onnx.save(frameworks.onnx_model(CAFFE, weights(CAFFE), Form(side=224, last_pads=(0, 0, 1, 1))), "zoo.onnx")
    np.savez("a.npz", **weights(CAFFE))
    for name, options in {
        "zoo.onnx": ["--mean", "104.25,116.5,127.9"],
        "a.npz": ["--mean", "104.25,116.5,127.9"],
    }.items():
        result = run_program("convert.py", name, f"{name[0]}.safetensors", *options)
        assert result.status == 0 and not result.err, result.err
        told = ["blue, green and red", "224 pixels wide, this network for 227"]
        assert all((words in result.out) == (name == "zoo.onnx") for words in told)
    (one, *ones), (other, *others) = (load_network(f"{name}.safetensors") for name in "za")
    assert ones[0] == others[0] and ones[1].numbers() == others[1].numbers()
    for name, array in one.state_dict().items():
        np.testing.assert_array_equal(array, other.state_dict()[name], strict=True)
    onnx.save(frameworks.onnx_model(TORCHVISION, weights(TORCHVISION)), "t.onnx")
    result = run_program("convert.py", "t.onnx", "t.safetensors")
    assert "red, green and blue" in result.out and "pixels wide" not in result.out
    result = run_program("convert.py", "t.onnx", "u.safetensors", "--mean", "1,2,3")
    assert result.status == 2 and "t.onnx: --mean is for Caffe's network" in result.err


# ------------------------------------------------------------------------------------------------------------------- out
NETWORKS = {
    "2012": ("2012", {}, LESS_MEAN),
    "2012, without groups": ("2012", {"groups": False}, View(227, *IMAGENET)),
    "2012, other constants": ("2012", {"lrn": {"n": 3, "k": 1.5, "alpha": 3e-4, "beta": 0.6}}, LESS_MEAN),
    "2014": ("2014", {}, USUAL),
    "tutorial": ("tutorial", {}, USUAL),
    "the paper's dropout": ("2012", {"dropout_scale": "evaluation"}, LESS_MEAN),
    "the paper's dropout, tutorial": ("tutorial", {"dropout_scale": "evaluation"}, USUAL),
    "another dropout": ("2014", {"dropout_scale": "evaluation", "dropout": 0.3}, USUAL),
    "no dropout": ("2014", {"dropout_scale": "evaluation", "dropout": 0.0}, USUAL),
    "the paper's recipe": ("2012", {"dropout_scale": "evaluation", "init": "paper"}, LESS_IMAGE),
}
NAMES = [f"great {k}, ñ" for k in range(CLASSES)]


def trained(path, variant, options, view, names=NAMES):
    """A network as train.py might leave it."""
    config = {"variant": variant, "groups": True, "init": "he", "lrn": LRN, "dropout_scale": "training", **options}
    net, rng = (
        alexnet(variant, CLASSES, **{name: v for name, v in config.items() if name not in ("variant", "init")}),
        np.random.default_rng(1),
    )
    for p in net.parameters():
        scale = np.sqrt(2 / np.prod(p.shape[:-1])) if p.ndim > 1 else 10 if view.std == RAW else 0.3
        p.data[...] = rng.standard_normal(p.shape, np.float32) * np.float32(scale)
    save_network(path, net, {**config, "classes": [f"n{k}" for k in range(CLASSES)], "names": names}, view)
    return net


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS)
def written(request):
    """A network, its view and its ONNX file."""
    variant, options, view = request.param
    net = trained("net.safetensors", variant, options, view)
    result = run_program("convert.py", "net.safetensors", "net.onnx")
    assert result.status == 0 and not result.err and "net.onnx: AlexNet for onnx, 10 classes" in result.out, result.err
    return net, view, onnx.load("net.onnx")


def test_logits_are_the_same_in_other_programs(written):
    net, view, _ = written
    pixels = PICTURES[:, : view.size, : view.size] / 255
    x, seen = ((pixels - mean) / np.array(view.std) for mean in (view.mean, middle(view)))
    x, seen = x.transpose(0, 3, 1, 2), seen.transpose(0, 3, 1, 2)
    for count in (1, 2):  # N is any number
        assert difference(ran("net.onnx", x[:count]), ours(net, seen[:count])) < 1e-5


def middle(view):
    """The mean of each pixel that the network sees, from 0 to 1."""
    top = (view.resize - view.size) // 2
    return view.mean if view.mean_image is None else view.mean_image[top:, top:][: view.size, : view.size] / 255


@pytest.mark.slow
@pytest.mark.parametrize("name", ["2012", "2014"])
def test_logits_of_whole_networks(name):
    """The largest differences found were 1.3e-6 and 1.2e-6."""
    if runtime is None:
        pytest.skip("ONNX Runtime is not installed")
    variant, options, view = NETWORKS[name]
    net = trained("net.safetensors", variant, options, view)
    assert run_program("convert.py", "net.safetensors", "net.onnx").status == 0
    x = PICTURES[:, : view.size, : view.size].transpose(0, 3, 1, 2) / 255
    x = (x - np.array(view.mean)[:, None, None]) / np.array(view.std)[:, None, None]
    assert difference(ran("net.onnx", x), ours(net, x)) < 1e-5
    assert run_program("convert.py", "net.onnx", "back.safetensors").status == 0
    for name, array in load_network("back.safetensors")[0].state_dict().items():
        np.testing.assert_array_equal(array, net.state_dict()[name], strict=True)


def test_what_is_in_the_file(written):
    net, view, model = written
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 13)] and model.ir_version <= 8
    names = [name for name, _ in onnx_format.layers(net)]
    first = [] if view.mean_image is None else ["middle", "mean", "centered"]
    assert [node.name for node in graph.node] == first + names and names[0] == "conv1.conv" and names[-1] == "fc8"
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    factors = {f"{name}.factor": layer.p for name, layer in net.named_modules() if name.endswith(".dropout")}
    usual = load_network("net.safetensors")[1]["dropout_scale"] == "training"
    assert all(tensors.pop(name) == np.float32(1 - factors[name]) for name in factors if not usual)
    more = {"mean_image", "top_left", "bottom_right", "height_width", "scale"} if first else set()
    assert tensors.keys() - more == {name for name, _ in net.named_parameters()} and more <= tensors.keys()
    assert not {"Dropout", "Transpose", "Softmax"} & {node.op_type for node in graph.node}
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {"input": ["N", 3, view.size, view.size], "logits": ["N", CLASSES]}
    told = {p.key: json.loads(p.value) for p in model.metadata_props}
    assert told["names"] == NAMES and told["classes"] == [f"n{k}" for k in range(CLASSES)]
    assert told["preprocessing"]["colors"] == "RGB" and told["preprocessing"]["size"] == view.size
    assert told["preprocessing"]["mean"] == list(view.mean) and told["preprocessing"]["std"] == list(view.std)


SETTINGS = (*onnx_format.SETTINGS, "classes", "names", "view")


def came_back(path, back):
    """Whether two networks are the same, bit for bit: their arrays, and all settings that they
    have."""
    (net, config, view), (other, settings, seen) = load_network(path), load_network(back)
    assert {name: config[name] for name in SETTINGS} == {name: settings[name] for name in SETTINGS}
    assert net.state_dict().keys() == other.state_dict().keys()
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(array, net.state_dict()[name], strict=True)
    assert (view.mean_image is None) == (seen.mean_image is None)
    if view.mean_image is not None:
        np.testing.assert_array_equal(seen.mean_image, view.mean_image, strict=True)


def test_it_comes_back(written, tmp_path):
    """And what goes out again is the same file."""
    for source, target in itertools.pairwise(["net.onnx", "back.safetensors", "again.onnx"]):
        result = run_program("convert.py", source, target)
        assert result.status == 0 and "taken for" not in result.out, result.err
    came_back("net.safetensors", "back.safetensors")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "net.onnx").read_bytes()
    assert run_program("convert.py", "net.onnx", "more.safetensors", "--mean", "1,2,3").status == 2


SHARES = st.floats(0, 0.999) | st.sampled_from([0.5, 0.3, 0.0])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    variant=st.sampled_from([("2012", True), ("2012", False), ("2014", True), ("tutorial", True)]),
    dropout=st.tuples(SHARES, st.sampled_from(["training", "evaluation"])),
    lrn=st.tuples(st.sampled_from([1, 3, 5, 7]), *[st.floats(1e-5, 3)] * 3),
    init=st.sampled_from(["he", "paper"]),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    std=st.just(RAW) | st.tuples(*[st.floats(0.01, 1)] * 3),
    image=st.booleans(),
    resize=st.integers(227, 300),
    words=st.text(),
)
def test_whatever_its_settings_it_comes_back(variant, dropout, lrn, init, mean, std, image, resize, words):
    for name in ("net.onnx", "back.safetensors"):
        if os.path.exists(name):
            os.remove(name)
    image = np.random.default_rng(0).normal(120, 20, (resize, resize, 3)).astype(np.float32) if image else None
    options = {
        "groups": variant[1], "init": init, "lrn": dict(zip(LRN, lrn, strict=True)), "dropout": dropout[0],
        "dropout_scale": dropout[1],
    }  # fmt: skip
    view = View(INPUT_SIZE[variant[0]], (0.0, 0.0, 0.0) if image is not None else mean, std, image, resize)
    trained("net.safetensors", variant[0], options, view, [words, *NAMES[1:]])
    for source, target in itertools.pairwise(["net.safetensors", "net.onnx", "back.safetensors"]):
        result = run_program("convert.py", source, target)
        assert result.status == 0, result.err
    came_back("net.safetensors", "back.safetensors")


def test_a_mean_image_is_in_the_graph():
    """The graph subtracts its middle, and it comes back whole."""
    image = np.random.default_rng(0).normal(120, 20, (256, 256, 3)).astype(np.float32)
    for std in (RAW, IMAGENET[1]):
        view = View(227, (0.0, 0.0, 0.0), std, image)
        net = trained("net.safetensors", "2012", {"dropout_scale": "evaluation"}, view)
        for source, target in itertools.pairwise(["net.safetensors", f"{std[0]}.onnx", f"{std[0]}.safetensors"]):
            assert run_program("convert.py", source, target).status == 0
        picture = np.random.default_rng(1).integers(0, 256, (256, 256, 3), dtype=np.uint8)
        mine = ours(net, view.evaluation()(picture, np.random.default_rng())[None].transpose(0, 3, 1, 2))
        crop = picture[14:241, 14:241].transpose(2, 0, 1)[None] / 255 / np.array(std)[:, None, None]
        assert difference(ran(f"{std[0]}.onnx", crop), mine) < 1e-5
        came_back("net.safetensors", f"{std[0]}.safetensors")


def test_a_mean_image_that_is_no_longer_there():
    """As after programs that compute beforehand what does not depend on the image; or is none of
    this size."""
    trained("net.safetensors", "2012", {}, View(227, (0.0,) * 3, RAW, np.ones((256, 256, 3), np.float32)))
    assert run_program("convert.py", "net.safetensors", "net.onnx").status == 0
    model = onnx.load("net.onnx")
    (whole,) = (tensor for tensor in model.graph.initializer if tensor.name == "mean_image")
    for side, words in ((227, "its metadata are not as they were written"), (None, "its mean image is missing")):
        if side:
            whole.CopyFrom(onnx.numpy_helper.from_array(np.ones((3, side, side), np.float32), "mean_image"))
        else:
            whole.name = "another"
            model.graph.node[0].input[0] = "another"
        onnx.save(model, "a.onnx")
        result = run_program("convert.py", "a.onnx", "back.safetensors")
        assert result.status == 2 and words in result.err and result.err.count("\n") == 1, result.err
    model.producer_name = "another"  # of whose networks nothing is known
    onnx.save(model, "a.onnx")
    result = run_program("convert.py", "a.onnx", "back.safetensors")
    assert result.status == 2 and "its layer 1 is Sub, AlexNet 2012's Conv" in result.err, result.err


def test_what_has_no_onnx_form():
    trained("net.safetensors", "2012", {"lrn": {**LRN, "n": 4}}, LESS_MEAN)
    result = run_program("convert.py", "net.safetensors", "net.onnx")
    assert result.status == 2 and "conv1.norm is over n = 4 channels" in result.err
    result = run_program("convert.py", "net.safetensors", "net.onnx", "--to", "caffe")
    assert result.status == 2 and "net.onnx" in result.err


# -------------------------------------------------------------------------------------------------------- what is refused
def changed(change, form):
    """What is said of a graph that was changed before it was saved."""
    model = frameworks.onnx_model(CAFFE, weights(CAFFE), form)
    graph = model.graph
    change(
        graph, {op: [node for node in graph.node if node.op_type == op] for op in {node.op_type for node in graph.node}}
    )
    onnx.save(model, "a.onnx")
    result = run_program("convert.py", "a.onnx", "b.safetensors")
    assert result.status == 2 and result.err.startswith("convert.py: a.onnx"), result.err
    assert result.err.count("\n") == 1 and len(result.err) < 450
    return result.err


def setting(op, i, **attributes):
    def change(graph, nodes):
        for name, value in attributes.items():
            node = nodes[op][i]
            for attribute in [a for a in node.attribute if a.name == name]:
                node.attribute.remove(attribute)
            node.attribute.append(onnx.helper.make_attribute(name, value))

    return change


def skipping(op, i):
    def change(graph, nodes):
        gone = nodes[op][i]
        graph.node.remove(gone)
        if graph.output[0].name == gone.output[0]:
            graph.output[0].name = gone.input[0]
        for node in graph.node:
            node.input[:] = [gone.input[0] if name == gone.output[0] else name for name in node.input]

    return change


def replacing(op, i, other):
    return lambda graph, nodes: setattr(nodes[op][i], "op_type", other)


def taking(op, i, place, name):
    return lambda graph, nodes: nodes[op][i].input.__setitem__(place, name(nodes) if callable(name) else name)


def stepless(graph, nodes):
    """Without its strides."""
    pool = nodes["MaxPool"][0]
    pool.attribute.remove(next(attribute for attribute in pool.attribute if attribute.name == "strides"))


def twice(graph, nodes):
    """Something is added to a sum."""
    nodes["Relu"][0].op_type = "Add"
    nodes["Relu"][0].input.append(nodes["Conv"][0].input[1])


def adding(graph, nodes):
    """Something is added to the image."""
    conv = nodes["Conv"][0]
    graph.node.insert(0, onnx.helper.make_node("Add", ["x", conv.input[2]], ["more"]))
    nodes["Conv"][0].input[0] = "more"


SPELLED, MEAN_OF_ONE = Form(lrn="spelled out"), Form(flatten="AveragePool")
CHANGES = [
    (skipping("Relu", 0), "size=5, AlexNet 2012's Relu", Form()),
    (skipping("MaxPool", 2), "its layer 15 is Flatten, AlexNet 2012's MaxPool kernel_shape=[3, 3]", Form()),
    (skipping("LRN", 1), "its layer 7 is MaxPool", Form()),
    (skipping("Relu", 6), "layer 20", Form()),
    (setting("Conv", 0, pads=[2, 2, 2, 2]), "its layer 1 is Conv", Form()),
    (setting("Conv", 1, group=1), "group=1", Form()),
    (setting("Conv", 2, dilations=[2, 2]), "dilations=[2, 2]", Form()),
    (setting("Conv", 2, auto_pad="SAME_UPPER"), "auto_pad=SAME_UPPER", Form()),
    (setting("Gemm", 0, transA=1), "transA=1", Form()),
    (setting("Gemm", 1, alpha=0.5), "alpha=0.5", Form()),
    (setting("Gemm", 2, transB=0), "Gemm has 256 outputs, and a bias (10,)", Form()),
    (setting("MaxPool", 0, pads=[1, 1, 1, 1]), "pads=[1, 1, 1, 1]", Form()),
    (setting("MaxPool", 0, kernel_shape=[2, 2]), "kernel_shape=[2, 2]", Form()),
    (setting("LRN", 1, alpha=2e-4), "alpha=0.0002", Form()),
    (setting("LRN", 1, size=4), "LRN is over 4 channels, an even number", Form()),
    (replacing("Relu", 3, "Sigmoid"), "is Sigmoid, AlexNet 2012's Relu", Form()),
    (replacing("MaxPool", 1, "AveragePool"), "AveragePool", Form()),
    (replacing("Flatten", 0, "Softmax"), "is Softmax, AlexNet 2012's Flatten", Form()),
    (taking("Conv", 1, 1, "x"), "the weights of Conv are not in the file", Form()),
    (taking("Conv", 1, 2, "x"), "the weights of Conv are not in the file", Form()),
    (setting("AveragePool", 0, strides=[2, 2]), "its layer 16 is AveragePool", MEAN_OF_ONE),
    (setting("AveragePool", 0, kernel_shape=[2, 2]), "its layer 16 is AveragePool", MEAN_OF_ONE),
    (setting("AveragePool", 0, pads=[1, 1, 1, 1]), "its layer 16 is AveragePool", MEAN_OF_ONE),
    (setting("Gemm", 1, beta=0.5), "beta=0.5", Form()),
    (
        taking("Pow", 0, 1, lambda nodes: nodes["Pow"][1].input[1]),
        "is not a division as in AlexNet's normalization",
        Form(lrn="with Pow"),
    ),
    (taking("Conv", 1, 0, "x"), "its layer 1 is Conv", Form()),
    (taking("Conv", 1, 0, "nobody"), "reads a value that no earlier node computes", Form()),
    (
        taking("Conv", 1, 0, lambda nodes: nodes["Gemm"][0].output[0]),
        "reads a value that no earlier node computes",
        Form(),
    ),
    (taking("Div", 0, 1, "x"), "a quotient that is not a normalization", SPELLED),
    (taking("Div", 0, 0, "x"), "is not a division as in AlexNet's normalization", SPELLED),
    (taking("Mul", 0, 1, "x"), "is not a division as in AlexNet's normalization", SPELLED),
    (taking("Mul", 1, 1, "x"), "Mul is Mul, but not of one computed value and one constant", SPELLED),
    (setting("AveragePool", 0, strides=[2, 1, 1]), "is not a division as in AlexNet's normalization", SPELLED),
    (setting("AveragePool", 0, kernel_shape=[3, 3, 1]), "is not a division as in AlexNet's normalization", SPELLED),
    (setting("AveragePool", 0, kernel_shape=[5, 1]), "is not a division as in AlexNet's normalization", SPELLED),
    (setting("AveragePool", 0, pads=[1, 0, 0, 1, 0, 0]), "is not a division as in AlexNet's normalization", SPELLED),
    (replacing("Pow", 0, "Mul"), "not made by Pow", SPELLED),
    (replacing("Add", 0, "Sub"), "not made by Add", SPELLED),
    (replacing("Mul", 0, "Add"), "not made by Mul or Pow", SPELLED),
    (setting("AveragePool", 1, kernel_shape=[3, 1, 1]), "LRN size=3", SPELLED),
    (replacing("MatMul", 1, "Relu"), "something is added to what Relu makes", Form(linear="MatMul")),
    (skipping("Gemm", 2), "its layer 21 is nothing, AlexNet 2012's Gemm", Form()),
    (stepless, "its layer 4 is MaxPool strides=[1, 1] kernel_shape=[3, 3], AlexNet", Form()),
    (taking("Conv", 0, 0, lambda nodes: nodes["Conv"][0].input[1]), "is not computed from x by the layers", Form()),
    (adding, "is not computed from x by the layers", Form()),
    (twice, "something is added to what Add makes", Form(added=1.0)),
    (lambda graph, nodes: graph.node.append(nodes["Gemm"][2]), "or computes one again", Form()),
    (lambda graph, nodes: graph.output.pop(), "1 inputs and 0 outputs", Form()),
    (lambda graph, nodes: graph.input.pop(), "0 inputs and 1 outputs", Form()),
    (lambda graph, nodes: setattr(graph.output[0], "name", "x"), "its layer 1 is nothing", Form()),
    (lambda graph, nodes: nodes["Relu"][0].output.__setitem__(0, "x"), "or computes one again", Form()),
]


@pytest.mark.parametrize("change, words, form", CHANGES, ids=range(len(CHANGES)))
def test_graphs_of_another_network(change, words, form):
    assert words in changed(change, form=form)


def test_caffenet():
    said = changed(lambda *_: None, form=Form(pool_first=True))
    assert "it pools before it normalizes, as CaffeNet does, and AlexNet does not" in said


def test_files_that_are_not_whole_or_none():
    model = frameworks.onnx_model(TORCHVISION, weights(TORCHVISION))
    onnx.save(model, "whole.onnx", save_as_external_data=True, location="whole.data", size_threshold=0)
    with open("whole.onnx", "rb") as file:
        whole = file.read()
    assert convert.from_onnx(onnx_format.read_onnx("whole.onnx"))[1]["variant"] == "2014"
    contents = [b"", b"text", *(whole[:length] for length in range(1, len(whole), 97))]
    for content in contents:
        with open("a.onnx", "wb") as file:
            file.write(content)
        result = run_program("convert.py", "a.onnx", "b.safetensors")
        assert result.status == 2 and "a.onnx" in result.err and result.err.count("\n") == 1, result.err
    with open("whole.data", "r+b") as file:
        file.truncate(1000)
    for name in ("whole.onnx", "missing.onnx"):
        result = run_program("convert.py", name, "b.safetensors")
        assert result.status == 2 and name in result.err and result.err.count("\n") == 1, result.err
    os.remove("whole.data")
    result = run_program("convert.py", "whole.onnx", "b.safetensors")
    assert result.status == 2 and "whole.data" in result.err and result.err.count("\n") == 1, result.err


def test_bytes_that_have_changed():
    """Of a graph whose weights are in a file beside it: either a line comes of it, or a network."""
    model = frameworks.onnx_model(CAFFE, weights(CAFFE), Form(lrn="spelled out"))
    onnx.save(model, "whole.onnx", save_as_external_data=True, location="data", size_threshold=100)
    with open("whole.onnx", "rb") as file:
        whole = bytearray(file.read())
    rng, lines = np.random.default_rng(0), []
    for _ in range(300):
        content = whole.copy()
        content[rng.integers(len(whole))] = rng.integers(256)
        with open("a.onnx", "wb") as file:
            file.write(content)
        try:
            assert onnx_format.read_onnx("a.onnx").config["variant"] == "2012"
        except convert.CheckpointError as error:
            lines.append(str(error))
    assert all(line.startswith("a.onnx") and "\n" not in line for line in lines)
    assert len(lines) < 300 and len({line[:60] for line in lines}) > 20


def test_metadata_that_have_changed():
    """Of each change either a line comes, or a network that can be used."""
    trained("net.safetensors", "2014", {}, USUAL)
    assert run_program("convert.py", "net.safetensors", "net.onnx").status == 0
    model, refused = onnx.load("net.onnx"), []
    assert [prop.key for prop in model.metadata_props] == ["preprocessing", "network", "classes", "names"]
    for prop in model.metadata_props:
        whole, others = json.loads(prop.value), (None, "text", -1, [], {}, ["a"], [None] * CLASSES)
        changes = [*map(json.dumps, others), "{"]
        if isinstance(whole, dict):
            changes += [json.dumps({**whole, name: other}) for name in whole for other in others]
            changes += [json.dumps({n: whole[n] for n in whole if n != name}) for name in whole]
        for prop.value in changes:
            onnx.save(model, "a.onnx")
            result = run_program("convert.py", "a.onnx", "b.safetensors")
            if result.status == 0:
                assert all(json.loads(prop.value)[name] == whole[name] for name in View.NUMBERS), prop.value
                came_back("net.safetensors", "b.safetensors")
                os.remove("b.safetensors")
            else:
                assert result.status == 2 and "a.onnx" in result.err and result.err.count("\n") == 1, result.err
                refused.append((prop.key, prop.value))
        prop.value = json.dumps(whole)
    assert len(refused) > 80 and not os.path.exists("b.safetensors"), len(refused)
