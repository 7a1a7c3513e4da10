"""convert.py as a program: what comes back from a round trip, names and means, and one line for each mistake."""

import itertools
import os
import pickle
import sys
from dataclasses import replace

import convert
import frameworks
import numpy as np
import pytest
from frameworks import CAFFE, CLASSES, PICTURES, TORCHVISION, weights
from model import INPUT_SIZE, LRN, alexnet
from programs import run_program
from support.images import IMAGENET, RAW, View
from support.runs import load_network, save_network

MEAN = np.float32([104.25, 116.5, 127.9])  # blue, green, red
MEAN_IMAGE = (MEAN[:, None, None] + np.random.default_rng(0).normal(0, 20, (3, 256, 256))).astype(np.float32)
USUAL, LESS_MEAN = View(224, *IMAGENET), View(227, (0.5, 0.5, 0.5), RAW)
LESS_IMAGE = View(224, *IMAGENET, np.zeros((256, 256, 3), np.float32))
KINDS = [".npz", ".safetensors", pytest.param(".pth", marks=pytest.mark.torch)]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """run("a.npz", "b.safetensors", …) -> status, out, err; in an empty folder, with narrow networks."""
    frameworks.narrow(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_program("convert.py", *arguments)


@pytest.fixture
def converted(run):
    """converted("a.npz", "b.safetensors", …): without a complaint."""

    def check(*arguments):
        result = run(*arguments)
        assert result.status == 0 and not result.err and arguments[1] in result.out, result.err

    return check


@pytest.fixture
def refused(run, tmp_path):
    """refused(words, "a.npz", "b.safetensors", …): with one line that has these words in it, and nothing is written."""

    def contents():
        return {path: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()}

    def check(words, *arguments):
        before = contents()
        result = run(*arguments)
        assert result.status == 2 and not result.out
        assert result.err.startswith("convert.py: ") and result.err.count("\n") == 1 and len(result.err) < 450
        for word in [words] if isinstance(words, str) else words:
            assert word in result.err, result.err
        assert contents() == before

    return check


def saved(path, framework=CAFFE, **changes):
    """A .npz of a framework's arrays, some of them changed, or left out (None)."""
    arrays = {**weights(framework), **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def trained(path, variant, view, groups=True):
    """A network as train.py might leave it."""
    config = {"variant": variant, "groups": groups, "init": "he", "lrn": LRN, "dropout_scale": "training"}
    names, view = [str(k) for k in range(CLASSES)], replace(view, size=INPUT_SIZE[variant])
    save_network(path, alexnet(variant, CLASSES, groups=groups), {**config, "classes": names, "names": names}, view)


# ------------------------------------------------------------------------------------------------------ what comes across
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "framework, to, more",
    [
        (TORCHVISION, "torchvision", {}),
        (CAFFE, "caffe", {"mean": MEAN, "resize": np.array([300]), "lrn": np.array([5, 1e-4, 0.75, 1])}),
        (CAFFE, "caffe", {"mean": MEAN_IMAGE, "resize": np.array([256]), "lrn": np.array([3, 3e-4, 0.6, 1.5])}),
    ],
    ids=["torchvision", "Caffe", "a mean image and other constants"],
)
def test_there_and_back_changes_no_bit(converted, tmp_path, framework, to, more, kind):
    if kind == ".pth":
        pytest.importorskip("torch")
    arrays = {**weights(framework), **more}
    files = [f"theirs{kind}", "ours.safetensors", f"back{kind}", "again.safetensors"]
    convert.write(files[0], arrays)
    for source, target in itertools.pairwise(files):
        converted(source, target, *(["--to", to] if source.startswith("ours") else []))
    back = convert.read(files[2])
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array, strict=True, err_msg=name)
    assert (tmp_path / files[1]).read_bytes() == (tmp_path / files[3]).read_bytes()


def test_what_is_known_of_a_network_from_elsewhere(converted):
    saved("a.npz")
    converted("a.npz", "a.safetensors")
    net, config, view = load_network("a.safetensors")
    assert config["classes"] == config["names"] == [str(k) for k in range(CLASSES)]
    assert net.fc8.weight.shape == (256, CLASSES) and (view.size, view.resize, view.std) == (227, 256, list(RAW))
    assert [255 * x for x in view.mean] == pytest.approx([122.679, 116.669, 104.007])  # ImageNet's, red first


def test_caffe2s_names(converted, tmp_path):
    saved("a.npz")
    arrays = weights(CAFFE)
    short = {name.replace(".weight", "_w").replace(".bias", "_b"): array for name, array in arrays.items()}
    np.savez("b.npz", **short)
    for name in "ab":
        converted(f"{name}.npz", f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("mean", [MEAN, MEAN_IMAGE, MEAN_IMAGE.astype(float)], ids=["(3,)", "image", "float64"])
def test_a_mean_comes_with_the_arrays_or_by_its_option(converted, tmp_path, mean):
    np.save("mean.npy", mean)
    saved("a.npz", mean=mean)
    saved("b.npz", mean=np.float32([1, 2, 3]))
    saved("c.npz")
    for name, options in {"a": [], "b": ["--mean", "mean.npy"], "c": ["--mean", "104.25,116.5,127.9"]}.items():
        converted(f"{name}.npz", f"{name}.safetensors", *options)
    written = [(tmp_path / f"{name}.safetensors").read_bytes() for name in "abc"]
    assert written[0] == written[1] and (mean.ndim == 3 or written[1] == written[2])


@pytest.mark.parametrize("side", [227, 320])
def test_a_mean_image_may_have_another_size(converted, side):
    image = np.random.default_rng(0).normal(100, 20, (3, side, side)).astype(np.float32)
    saved("a.npz", mean=image)
    converted("a.npz", "a.safetensors")
    view = load_network("a.safetensors")[2]
    assert view.resize == side
    np.testing.assert_array_equal(view.mean_image, image[::-1].transpose(1, 2, 0))
    picture = np.random.default_rng(1).integers(0, 256, (side, side + 9, 3), dtype=np.uint8)
    assert view.evaluation()(picture, np.random.default_rng()).shape == (227, 227, 3)
    converted("a.safetensors", "b.npz", "--to", "caffe")
    np.testing.assert_array_equal(convert.read("b.npz")["mean"], image)


@pytest.mark.parametrize("resize", [253, 256])
@pytest.mark.parametrize(
    "to, variant, mean, std", [("torchvision", "2014", *IMAGENET), ("caffe", "2012", (0.5,) * 3, RAW)]
)
def test_an_unusual_resize_is_said(run, to, variant, mean, std, resize):
    trained("a.safetensors", variant, View(224, mean, std, resize=resize))
    said = "the short side of its images is scaled to 253 pixels, not to 256\n"
    assert (said in run("a.safetensors", "b.npz", "--to", to).out) == (resize == 253)


SYNSETS = [f"n{10000000 + 7 * k} word {k}, another" for k in range(CLASSES)]
PLAIN = [f"great {k}" for k in range(CLASSES)]


@pytest.mark.parametrize(
    "text, classes, names",
    [
        ("\n".join(SYNSETS), [line[:9] for line in SYNSETS], [line[10:] for line in SYNSETS]),  # synset_words.txt
        ("\n".join(line[:9] for line in SYNSETS), *[[line[:9] for line in SYNSETS]] * 2),
        ("  \r\n\n".join(PLAIN), PLAIN, PLAIN),
        (
            "\ufeff" + SYNSETS[0].replace(" ", "\t", 1) + "\n" + "\n".join(SYNSETS[1:]),
            [line[:9] for line in SYNSETS],
            [line[10:] for line in SYNSETS],
        ),
        ("\n".join(["cr\u2028ane"] * 2 + PLAIN[2:]), [str(k) for k in range(CLASSES)], ["cr\u2028ane"] * 2 + PLAIN[2:]),
    ],
)
def test_names(converted, tmp_path, text, classes, names):
    saved("a.npz", TORCHVISION)
    (tmp_path / "names.txt").write_text(text)
    converted("a.npz", "a.safetensors", "--names", "names.txt")
    config = load_network("a.safetensors")[1]
    assert (config["classes"], config["names"]) == (classes, names)


def test_predict_takes_it(converted, tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(PICTURES[0]).save("photo.png")
    (tmp_path / "names.txt").write_text("\n".join(PLAIN))
    for framework in (TORCHVISION, CAFFE):
        saved("theirs.npz", framework)
        converted("theirs.npz", f"{len(framework[0])}.safetensors", "--names", "names.txt")
        result = run_program("predict.py", "photo.png", "--checkpoint", f"{len(framework[0])}.safetensors")
        assert result.status == 0 and "great" in result.out, result.err


# -------------------------------------------------------------------------------------------------------- what is refused
CHANGES = [  # of Caffe's arrays, and what is said of them
    ({"fc6.weight": None}, "fc6.weight is missing"),
    ({"fc8.bias": None}, "fc8.bias is missing"),
    ({"fc8.bias": np.zeros(0, np.float32)}, "fc8.bias is float32 (0,), not float32 (1,)"),
    ({f"{name}.bias": None for name in CAFFE[3:7]}, "; and so on, 4 in all"),
    ({"fc9.weight": np.zeros(3, np.float32)}, "fc9.weight is unexpected"),
    ({"conv2.bias": np.zeros(16, int)}, "conv2.bias is int64 (16,), not float32 (16,)"),
    ({"conv2.weight": np.zeros((16, 6, 5, 5), np.float32)}, "(16, 6, 5, 5), not float32 (16, 3, 5, 5)"),  # no groups
    ({"conv1.weight": np.zeros((11, 11, 3, 6), np.float32)}, "(11, 11, 3, 6), not float32 (6, 3, 11, 11)"),
    ({"conv1.weight": np.zeros(3, np.float32)}, "conv1.weight is float32 (3,)"),
    ({"lrn": np.ones(3)}, "local_size, alpha, beta and k"),
    ({"lrn": np.zeros(4)}, "local_size, alpha, beta and k"),
    ({"lrn": np.array([5, 1e-4, 0.75, 0])}, "local_size, alpha, beta and k"),
    ({"lrn": np.array([5, -1e-4, 0.75, 1])}, "local_size, alpha, beta and k"),
    ({"lrn": np.array([5.5, 1e-4, 0.75, 1])}, "local_size, alpha, beta and k"),
    ({"lrn": np.array([5, 1e-4, np.nan, 1])}, "local_size, alpha, beta and k"),
    ({"mean": np.array([1, np.inf, 3])}, "NaN or infinity"),
    ({"lrn": np.array(["a", "b", "c", "d"])}, "local_size, alpha, beta and k"),
    ({"mean": np.ones(4)}, "(3,) or (3, S, S)"),
    ({"mean": np.ones(())}, "not float64 ()"),
    ({"mean": np.ones((256, 256, 3))}, "(3,) or (3, S, S)"),
    ({"mean": np.ones((3, 256, 300))}, "not float64 (3, 256, 300)"),
    ({"mean": np.ones((3, 226, 226))}, "(3, S, S) numbers, where S is at least 227, not float64 (3, 226, 226)"),
    ({"mean": np.array(["a", "b", "c"])}, "(3,) or (3, S, S) numbers"),
    ({"resize": np.array(226)}, "resize is a whole number of at least 227 pixels, not 226"),
    ({"resize": np.array([256, 256])}, "resize is a whole number of at least 227 pixels, not [256, 256]"),
    ({"resize": np.array(256.0)}, "resize is a whole number of at least 227 pixels, not 256.0"),
]


@pytest.mark.parametrize("changes, words", CHANGES, ids=[words for _, words in CHANGES])
def test_arrays_of_another_network(refused, changes, words):
    saved("a.npz", **changes)
    refused(["a.npz: ", words], "a.npz", "b.safetensors")


NONE = "its arrays have neither torchvision's nor Caffe's names, but {0}, {1}, {2} ..."
OTHER_NAMES = {  # for torchvision's, and what is said of them
    lambda name: name.replace(".weight", ".weight_orig"): NONE,  # PyTorch's pruning
    lambda name: name.replace(".weight", ".parametrizations.weight.original0"): NONE,  # its weight norm
    lambda name: f"model/{name}": NONE,
    lambda name: name.replace(".", "_"): NONE,
    lambda name: name.upper(): NONE,
    lambda name: name.replace("features.", "backbone.features.").replace("6.bias", "6.b"): "classifier.6.bias is miss",
}


def test_arrays_of_no_alexnet(refused):
    saved("a.npz", TORCHVISION, **{"features.3.weight": np.zeros((12, 4, 3, 3), np.float32)})
    refused("features.3.weight is float32 (12, 4, 3, 3), not float32 (12, 4, 5, 5)", "a.npz", "b.safetensors")
    for names, words in OTHER_NAMES.items():
        own = {names(name): array for name, array in weights(TORCHVISION).items()}
        np.savez("a.npz", **own)
        refused(["a.npz: ", words.format(*own)], "a.npz", "b.safetensors")
    np.savez("a.npz")
    refused("neither torchvision's nor Caffe's names, but none ...", "a.npz", "b.safetensors")
    for more, words in {
        "conv1.weight": "another network: conv1.weight is unexpected",
        "classifier.7.bias": "another network: classifier.7.bias is unexpected",
        "module.classifier.6.bias": "occurs twice, as classifier.6.bias and as module.classifier.6.bias",
    }.items():
        saved("a.npz", TORCHVISION, **{more: np.zeros(2, np.float32)})
        refused(["a.npz: ", words], "a.npz", "b.safetensors")
    saved("a.npz", conv1_w=weights(CAFFE)["conv1.weight"])
    refused("conv1.weight occurs twice, as conv1.weight and as conv1_w", "a.npz", "b.safetensors")
    trained("ours.safetensors", "2014", USUAL)
    refused("--to torchvision or --to caffe", "ours.safetensors", "b.safetensors")
    saved("theirs.npz", TORCHVISION)
    refused("theirs.npz", "theirs.npz", "b.npz", "--to", "torchvision")


class Trap:
    """Read as a pickle, it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_files_that_could_run_code_or_are_not_whole(refused, tmp_path):
    saved("whole.npz")
    whole = (tmp_path / "whole.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    np.savez("object.npz", **{"conv1.weight": np.array([Trap()], object)}, allow_pickle=True)
    np.save("dictionary.npy", {"conv1": np.zeros(2)}, allow_pickle=True)
    for content in (
        *(pickle.dumps({"conv1.weight": Trap()}, protocol) for protocol in (0, 2, 4)),
        *((tmp_path / name).read_bytes() for name in ("object.npz", "dictionary.npy")),
        *(whole[:n] for n in (0, 3, 100, len(whole) // 2, len(whole) - 1)),
        bytes(flipped),
        b"text",
    ):
        (tmp_path / "a.npz").write_bytes(content)
        refused(["a.npz is not whole", "could run code"], "a.npz", "b.safetensors")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.torch
def test_files_of_pytorch_as_programs_write_them(converted, tmp_path):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array).half().requires_grad_() for name, array in weights(TORCHVISION).items()}
    parallel = {name.replace("features.", "features.module."): tensor for name, tensor in state.items()}
    files = {
        "plain": {name: tensor.float() for name, tensor in state.items()},
        "half": state,
        "checkpoint": {"epoch": 3, "arch": "alexnet", "state_dict": state, "optimizer": {"state": {}}},
        "parallel": {f"module.{name}": tensor for name, tensor in state.items()},
        "example": {"epoch": 3, "best_acc1": torch.tensor(50.0), "state_dict": parallel},
    }
    for name, content in files.items():
        torch.save(content, f"{name}.pth")
        converted(f"{name}.pth", f"{name}.safetensors")
    assert len({(tmp_path / f"{name}.safetensors").read_bytes() for name in files}) == 1
    numbers = {name: tensor.detach().bfloat16() for name, tensor in state.items()}
    torch.save(numbers, "bfloat16.pth")
    for name, array in convert.read("bfloat16.pth").items():
        np.testing.assert_array_equal(array, numbers[name].float().numpy(), strict=True)


@pytest.mark.torch
def test_files_of_pytorch_that_are_no_state_dict(refused, tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"features.0.weight": torch.ones(2000)}, "whole.pth")
    torch.save({"features.0.weight": Trap()}, "trap.pth")
    for other in (torch.ones(3), {"state_dict": {}}, {"a": 1}):
        torch.save(other, "a.pth")
        refused("a.pth is not a state dict", "a.pth", "b.safetensors")
    for tensor, words in {
        torch.ones(2).to(torch.float8_e4m3fn): "torch.float8_e4m3fn, torch.strided, on cpu",
        torch.ones(2).to(torch.complex64): "torch.complex64, torch.strided, on cpu",
        torch.ones(2, device="meta"): "torch.float32, torch.strided, on meta",
    }.items():
        torch.save({"a": torch.ones(2), "b": tensor}, "a.pth")
        refused(f"a.pth: b is a tensor of {words}, which NumPy does not have: save it dense", "a.pth", "b.safetensors")
    torch.save(torch.nn.Linear(2, 2), "module.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    cut = (whole[:length] for length in range(0, len(whole), 500))
    broken = *cut, b"text", pickle.dumps(Trap(), 2)
    for content in (*broken, *((tmp_path / f"{name}.pth").read_bytes() for name in ("trap", "module"))):
        (tmp_path / "a.pth").write_bytes(content)
        refused(["a.pth is not whole", "could run code"], "a.pth", "b.safetensors")
    assert not (tmp_path / "sprung").exists()
    refused("features.0.bias is missing", "whole.pth", "b.safetensors")


def test_command_lines(refused, tmp_path):
    saved("a.npz")
    saved("torchvision.npz", TORCHVISION)
    (tmp_path / "there.safetensors").write_text("precious")
    (tmp_path / "two.txt").write_text("cat\ndog\n")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    refused("there.safetensors exists already", "a.npz", "there.safetensors")
    refused("a.npz exists already", "a.npz", "a.npz")
    refused("b.npz: minicnn's networks are .safetensors", "a.npz", "b.npz")
    for name in ("a.npy", "a.caffemodel", "a.pkl", "a"):
        refused([f"{name}: ", ".pth.tar), .npz and .safetensors", "--help"], name, "b.safetensors")
    for name in ("missing.npz", "missing.safetensors"):
        refused(name, name, "b.safetensors")
    refused("no/b.safetensors", "a.npz", "no/b.safetensors")
    refused("INTO", "a.npz")
    refused("keras", "a.npz", "b.npz", "--to", "keras")
    for options in ([], ["--to", "torchvision"]):
        refused("a.npz", "a.npz", "b.onnx", *options)
    for options in (["--names", "two.txt"], ["--mean", "1,2,3"]):
        refused("--names and --mean", "a.npz", "b.npz", "--to", "caffe", *options)
    refused(["two.txt", "2 names", "10 classes"], "a.npz", "b.safetensors", "--names", "two.txt")
    refused("binary.txt: the file is not UTF-8 text", "a.npz", "b.safetensors", "--names", "binary.txt")
    (tmp_path / "notepad.txt").write_text("\n".join(PLAIN), encoding="utf-16")  # as PowerShell's > writes it
    refused("notepad.txt: the file is not UTF-8 text", "a.npz", "b.safetensors", "--names", "notepad.txt")
    (tmp_path / "twice.txt").write_text("\n".join([SYNSETS[0], *SYNSETS[:-1]]))
    refused(["twice.txt", "more than once"], "a.npz", "b.safetensors", "--names", "twice.txt")
    refused("nothing.txt", "a.npz", "b.safetensors", "--names", "nothing.txt")
    refused("--mean is for Caffe's", "torchvision.npz", "b.safetensors", "--mean", "1,2,3")


def test_means(refused, tmp_path):
    saved("a.npz")
    np.save("object.npy", np.array([None]), allow_pickle=True)
    np.savez("archive.npz", MEAN)
    for name, content in {"text": b"text", "zip": b"PK\x03\x04" + bytes(50), "empty": b""}.items():
        (tmp_path / f"{name}.npy").write_bytes(content)
    for mean in ("a,b,c", "1,,2", "object.npy", "archive.npz", "text.npy", "zip.npy", "empty.npy"):
        refused([f"--mean {mean}: ", "three numbers"], "a.npz", "b.safetensors", "--mean", mean)
    refused("(3,) or (3, S, S)", "a.npz", "b.safetensors", "--mean", "1,2")
    refused("nothing.npy", "a.npz", "b.safetensors", "--mean", "nothing.npy")


OTHERS = [  # what another framework cannot have: variant, view, groups, where it goes, what is said
    ("2012", LESS_MEAN, True, "torchvision", "variant 2014, this network is 2012"),
    ("tutorial", USUAL, True, "torchvision", "variant 2014, this network is tutorial"),
    (
        "2014",
        View(224, (0.5, 0.5, 0.5), IMAGENET[1]),
        True,
        "torchvision",
        "sees them less (0.5, 0.5, 0.5), divided by",
    ),
    ("2014", View(224, IMAGENET[0], RAW), True, "torchvision", "less (0.485, 0.456, 0.406), divided by (0.00392"),
    ("2014", LESS_IMAGE, True, "torchvision", "less a mean image"),
    ("2014", USUAL, True, "caffe", "variant 2012 with groups, this network is 2014"),
    ("tutorial", USUAL, True, "caffe", "variant 2012 with groups, this network is tutorial"),
    ("2012", LESS_MEAN, False, "caffe", "variant 2012 with groups, this network is 2012 without"),
    ("2012", USUAL, True, "caffe", "divided by (0.229, 0.224, 0.225)"),
]


@pytest.mark.parametrize("variant, view, groups, to, words", OTHERS, ids=[f"{o[3]} {o[4]}" for o in OTHERS])
def test_networks_that_another_framework_has_not(refused, variant, view, groups, to, words):
    trained("a.safetensors", variant, view, groups)
    refused(words, "a.safetensors", "b.npz", "--to", to)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_write_leaves_nothing(refused, monkeypatch, kind):
    if kind == ".pth":
        pytest.importorskip("torch")
    trained("a.safetensors", "2014", USUAL)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused([f"b{kind}", "No space left"], "a.safetensors", f"b{kind}", "--to", "torchvision")


def test_what_is_not_installed_or_cannot_be_written(refused, monkeypatch):
    trained("a.safetensors", "2014", USUAL)
    refused("b.npy: only .pth, .npz and .safetensors", "a.safetensors", "b.npy", "--to", "torchvision")
    monkeypatch.setitem(sys.modules, "torch", None)
    refused(["pip install torch", ".safetensors"], "a.pth", "b.safetensors")
    refused(["pip install torch", ".safetensors"], "a.safetensors", "b.pth", "--to", "torchvision")
    monkeypatch.setitem(sys.modules, "onnx", None)
    refused("pip install onnx", "a.onnx", "b.safetensors")
    refused("pip install onnx", "a.safetensors", "b.onnx")
