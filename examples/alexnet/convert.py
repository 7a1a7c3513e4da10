"""Convert AlexNet's weights from torchvision, Caffe or ONNX, and back. See --help.

    python examples/alexnet/convert.py FROM INTO

torchvision's alexnet is variant 2014; BVLC AlexNet, of Caffe, is variant 2012. Where they differ:

|                    | here                    | torchvision            | Caffe                   |
| ------------------ | ----------------------- | ---------------------- | ----------------------- |
| weights of conv1-5 | (KH, KW, C/groups, O)   | (O, C, KH, KW)         | (O, C/groups, KH, KW)   |
| weights of fc6-8   | (in, out)               | (out, in)              | (out, in)               |
| what fc6 sees      | (H, W, C), flattened    | (C, H, W), flattened   | (C, H, W), flattened    |
| a pixel            | red, green, blue        | red, green, blue       | blue, green, red        |
| its scale          | as the View says        | ImageNet's mean, std   | 0 to 255, less a mean   |
| what is seen       | the central square      | the central square     | all, squeezed to square |
| normalization      | α times the sum, k = 2  | none                   | α times the mean, k = 1 |
| dropout            | as config.json says     | scaled in training     | scaled in training      |

Groups have the same order in Caffe, and there too normalization comes before pooling, as in the
paper. (In CaffeNet it comes after: that is another network, though its arrays have the same names
and shapes.)

The central squares may lie one pixel apart. torchvision scales an image's long side to
int(256 · long / short), and its crop begins at round(rest / 2), halves to the even number; here
the first is rounded and the second is floored.
"""

import argparse
import os
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import support.installed  # noqa: F401 (first)

# isort: split
import numpy as np
from model import INPUT_SIZE, LRN, alexnet
from support.images import IMAGENET, RAW, View
from support.onnx_format import Found, read_onnx, write_onnx
from support.options import Parser, UsageError, command, say
from support.runs import load_network, require_sound, save_network, view_of
from support.weight_files import Arrays, float32, read, renamed, unwrapped, write

from minicnn import nn
from minicnn.checkpoint import CheckpointError
from minicnn.data.imagenet import lines

DESCRIPTION = """\
Carry AlexNet between minicnn, torchvision, Caffe and ONNX. FROM is one of

  torchvision's state dict: a .pth (or .pt, .ckpt, .bin, .pth.tar), or a
  .safetensors with the same names. It may be a checkpoint of a training, with
  the state dict under "state_dict", "model" or the like; names may begin with
  module., _orig_mod., model. or another part's name; floats may have any width

  the arrays of Caffe's BVLC AlexNet (not of CaffeNet): a .npz or .safetensors
  with the names conv1.weight, conv1.bias, ... fc8.bias, or conv1_w, conv1_b,
  ... fc8_b. In pycaffe:

    net = caffe.Net("deploy.prototxt", "bvlc_alexnet.caffemodel", caffe.TEST)
    numpy.savez("bvlc_alexnet.npz", **{
        f"{layer}.{part}": blob.data for layer, blobs in net.params.items()
        for part, blob in zip(("weight", "bias"), blobs)})

  either network as an .onnx, as the model zoo has BVLC AlexNet, or as PyTorch
  exports it; needs the package onnx

  a network that train.py has trained. It becomes torchvision's or Caffe's with
  --to, or, if INTO ends in .onnx, a graph for ONNX Runtime and other programs

Pickled files, which could run code when they are loaded, are rejected. If a
checkpoint holds other objects than arrays and numbers, load it in PyTorch and
save its state dict alone."""
EXAMPLES = """\
The program writes INTO and nothing else, and overwrites no file.

examples:
  convert.py alexnet.pth alexnet.safetensors --names synset_words.txt
  convert.py bvlc_alexnet.npz caffe.safetensors --mean 104,117,123
  convert.py runs/photos/best.safetensors alexnet.npz --to caffe
  convert.py runs/photos/best.safetensors alexnet.onnx"""

Network = tuple[nn.Module, dict[str, Any], View]  # with its settings, and how it sees an image
LAYERS = {  # here: in torchvision, in Caffe
    "conv1.conv": ("features.0", "conv1"),
    "conv2.conv": ("features.3", "conv2"),
    "conv3.conv": ("features.6", "conv3"),
    "conv4.conv": ("features.8", "conv4"),
    "conv5.conv": ("features.10", "conv5"),
    "fc6.fc": ("classifier.1", "fc6"),
    "fc7.fc": ("classifier.4", "fc7"),
    "fc8": ("classifier.6", "fc8"),
}
OURS = {layer: layer for layer in LAYERS}
TORCHVISION, CAFFE = ({layer: names[i] for layer, names in LAYERS.items()} for i in (0, 1))
FIRST = "features.0.weight", "conv1.weight", "conv1_w"  # in torchvision, in Caffe, in Caffe2
AFTER_DROPOUT = {"2012": ("fc7.fc", "fc8"), "2014": ("fc6.fc", "fc7.fc"), "tutorial": ("fc7.fc", "fc8")}
BVLC_LRN = np.array([5, 1e-4, 0.75, 1])  # local_size; alpha, which Caffe divides by it; beta; k
# of ImageNet's pixels, from 0 to 255: blue, green, red
BVLC_MEAN = np.array([104.007, 116.669, 122.679], np.float32)


# ---------------------------------------------------------------------------------- axes and layers
def channels_last(parameter: np.ndarray, side: int = 1) -> np.ndarray:
    """(O, C, KH, KW) -> (KH, KW, C, O).

    A linear layer is a convolution whose kernel covers all the side × side pixels that it sees:
    (O, C·side·side) -> (side·side·C, O). A bias (O,) stays as it is.
    """
    if parameter.ndim == 2:
        kernels = parameter.reshape(len(parameter), -1, side, side)
        return channels_last(kernels).reshape(parameter.shape[::-1])
    return parameter.transpose(2, 3, 1, 0) if parameter.ndim == 4 else parameter


def channels_first(parameter: np.ndarray, side: int = 1) -> np.ndarray:
    """The way back: (KH, KW, C, O) -> (O, C, KH, KW), and (side·side·C, O) -> (O, C·side·side)."""
    if parameter.ndim == 2:
        kernels = parameter.reshape(side, side, -1, parameter.shape[1])
        return channels_first(kernels).reshape(parameter.shape[::-1])
    return parameter.transpose(3, 2, 0, 1) if parameter.ndim == 4 else parameter


def side_seen(name: str) -> int:
    """How many pixels wide the image is that a layer of AlexNet, or the layer of a parameter, sees
    flattened: fc6 sees 6 × 6, and the layers after it none."""
    return 6 if name.startswith("fc6") else 1


def inwards(arrays: Arrays, names: dict[str, str]) -> Arrays:
    """alexnet's state dict, from arrays under the names of TORCHVISION or CAFFE."""
    return {ours: channels_last(arrays[theirs], side_seen(ours)) for ours, theirs in _parameters(names)}


def outwards(state: Arrays, names: dict[str, str]) -> Arrays:
    """Arrays under the names of TORCHVISION or CAFFE, from alexnet's state dict."""
    return {theirs: channels_first(state[ours], side_seen(ours)) for ours, theirs in _parameters(names)}


def _parameters(names: dict[str, str]) -> list[tuple[str, str]]:
    """The names of all parameters: (here, there)."""
    parts = "weight", "bias"
    return [(f"{layer}.{part}", f"{name}.{part}") for layer, name in names.items() for part in parts]


def other_colors(arrays: Arrays, conv1: str = "conv1") -> Arrays:
    """Caffe's arrays with conv1 for red, green and blue in place of blue, green and red; and the
    way back."""
    return {**arrays, f"{conv1}.weight": arrays[f"{conv1}.weight"][:, ::-1]}


def usual_dropout(net: nn.Module, config: dict[str, Any]) -> Arrays:
    """The state dict of the same network with dropout that rescales in training. If its own dropout
    rescales in evaluation, as in the paper, the weights after it are multiplied by 1 - p: halving
    them does not round."""
    state = net.state_dict()
    if config["dropout_scale"] == "evaluation":
        kept = np.float32(1 - config.get("dropout", 0.5))
        for layer in AFTER_DROPOUT[config["variant"]]:
            state[f"{layer}.weight"] = state[f"{layer}.weight"] * kept
    return state


def check(arrays: Arrays, expected: Arrays) -> None:
    """CheckpointError unless the arrays have the names and shapes of those expected, and are
    float32."""
    problems = [f"{name} is missing" for name in expected if name not in arrays]
    for name, array in arrays.items():
        if name not in expected:
            problems.append(f"{name} is unexpected")
        elif array.shape != expected[name].shape or array.dtype != np.float32:
            problems.append(f"{name} is {array.dtype} {array.shape}, not float32 {expected[name].shape}")
    if problems:
        more = f"; and so on, {len(problems)} in all" if len(problems) > 3 else ""
        raise CheckpointError("another network: " + "; ".join(problems[:3]) + more)


# -------------------------------------------------------------------------------------- torchvision
def from_torchvision(arrays: Arrays) -> Network:
    """The network, settings and view of torchvision's state dict."""
    config = {"variant": "2014", "groups": True, "init": "he", "lrn": LRN, "dropout_scale": "training"}
    arrays = float32(arrays)
    net = alexnet("2014", np.size(arrays.get("classifier.6.bias", ())) or 1, "zeros")
    check(arrays, outwards(net.state_dict(), TORCHVISION))
    net.load_state_dict(inwards(arrays, TORCHVISION))
    return net, config, View(INPUT_SIZE["2014"], *IMAGENET)


def to_torchvision(net: nn.Module, config: dict[str, Any], view: View) -> Arrays:
    """torchvision's state dict. UsageError if this is another network."""
    if config["variant"] != "2014":
        raise UsageError(f"torchvision's alexnet is variant 2014, this network is {config['variant']}")
    mean, std = IMAGENET
    if view.mean_image is not None or tuple(view.mean) != mean or tuple(view.std) != std:
        raise UsageError(
            f"torchvision's alexnet sees pixels less {mean}, divided by {std}; this network sees them "
            f"less {tuple(view.mean) if view.mean_image is None else 'a mean image'}, divided by {tuple(view.std)}"
        )
    return outwards(usual_dropout(net, config), TORCHVISION)


# -------------------------------------------------------------------------------------------- Caffe
def from_caffe(arrays: Arrays, mean: np.ndarray | None = None) -> Network:
    """The network, settings and view of BVLC AlexNet's arrays.

    mean, or "mean" among the arrays: blue, green and red, from 0 to 255, of all pixels (3,) or of
    each (3, S, S). "resize" among them: the size to which the short side is scaled, 256 if it is
    missing; a mean image has that size itself.
    "lrn" among them, if the constants are not BVLC's: local_size, alpha, beta and k of lrn_param.
    """
    endings = {"_w": ".weight", "_b": ".bias"}  # as Caffe2 has them
    arrays = renamed(arrays, lambda name: name[:-2] + endings.get(name[-2:], name[-2:]))
    found, lrn = arrays.pop("mean", BVLC_MEAN), arrays.pop("lrn", BVLC_LRN)
    resize = arrays.pop("resize", np.array([View.resize]))
    numbers = lrn.shape == (4,) and lrn.dtype.kind == "f" and np.isfinite(lrn).all()
    if not numbers or lrn[0] not in range(1, 97) or lrn[1] < 0 or lrn[3] <= 0:
        raise CheckpointError(f"lrn is local_size, alpha, beta and k, not {lrn.dtype} {lrn.tolist()}")
    size, alpha, beta, k = lrn.tolist()
    config: dict[str, Any] = {"variant": "2012", "groups": True, "init": "paper", "dropout_scale": "training"}
    config["lrn"] = {"n": int(size), "k": k, "alpha": alpha / size, "beta": beta}
    arrays = float32(arrays)
    net = alexnet("2012", np.size(arrays.get("fc8.bias", ())) or 1, "zeros", lrn=config["lrn"])
    check(arrays, outwards(net.state_dict(), CAFFE))
    net.load_state_dict(inwards(other_colors(arrays), CAFFE))
    return net, config, raw_view(found if mean is None else mean, resize)


def to_caffe(net: nn.Module, config: dict[str, Any], view: View) -> Arrays:
    """The arrays that from_caffe takes. UsageError if this is another network than BVLC AlexNet."""
    if config["variant"] != "2012" or not config["groups"]:
        groups = "" if config["groups"] else " without"
        raise UsageError(f"BVLC AlexNet is variant 2012 with groups, this network is {config['variant']}{groups}")
    if tuple(view.std) != RAW:
        raise UsageError(
            "BVLC AlexNet sees pixels from 0 to 255, less their mean; this network sees them from 0 to 1, divided by "
            f"{tuple(view.std)}: train one with --scale raw"
        )
    lrn, image = config["lrn"], view.mean_image
    # (3, H, W)
    mean = np.array(view.mean)[::-1] * 255 if image is None else image.transpose(2, 0, 1)[::-1]
    return {
        **other_colors(outwards(usual_dropout(net, config), CAFFE)),
        "mean": mean.astype(np.float32),
        "resize": np.array([view.resize]),
        "lrn": np.array([lrn["n"], lrn["alpha"] * lrn["n"], lrn["beta"], lrn["k"]]),
    }


def raw_view(mean: np.ndarray, resize: np.ndarray) -> View:
    """Pixels from 0 to 255 less a mean, after a resize, both as from_caffe takes them."""
    size, side, numbers = INPUT_SIZE["2012"], mean.shape[-1:], mean.dtype.kind in "fiu"
    if resize.size != 1 or resize.dtype.kind not in "iu" or resize.item() < size:
        raise CheckpointError(f"resize is a whole number of at least {size} pixels, not {resize.tolist()}")
    if numbers and not np.isfinite(mean).all():
        raise CheckpointError("the mean contains NaN or infinity")
    if numbers and mean.shape == (3,):
        return View(size, tuple((mean[::-1].astype(float) / 255).tolist()), RAW, resize=resize.item())
    if numbers and mean.shape == (3, *side, *side) and side[0] >= size:
        image = mean[::-1].transpose(1, 2, 0).astype(np.float32, order="C")  # (H, W, 3)
        return View(size, (0.0, 0.0, 0.0), RAW, image, *side)
    raise CheckpointError(
        f"a mean is of (3,) or (3, S, S) numbers, where S is at least {size}, not {mean.dtype} {mean.shape}"
    )


# --------------------------------------------------------------------------------------------- ONNX
def from_onnx(found: Found, mean: np.ndarray | None = None) -> Network:
    """The network, settings and view of a graph. If the file does not say which pixels the network
    sees, they are assumed to be Caffe's for a network with normalization, and torchvision's
    otherwise."""
    arrays, config = found.arrays, dict(found.config)
    if mean is not None and (found.told or config["variant"] != "2012"):
        raise UsageError("--mean is for Caffe's network, this is another")
    net = alexnet(
        config["variant"], len(arrays["fc8.bias"]), "zeros", config["groups"], config["lrn"],
        config["dropout_scale"], config["dropout"],
    )  # fmt: skip
    if told := found.told:
        try:
            seen = {name: told["preprocessing"][name] for name in View.NUMBERS}
            config |= {"classes": told["classes"], "names": told["names"], "view": seen}
            image, side = found.mean_image, seen["resize"]
            images = {} if image is None else {"view.mean_image": image.transpose(1, 2, 0).reshape(side, side, 3)}
        except (KeyError, TypeError, ValueError):
            raise CheckpointError("its metadata are not as they were written") from None
        require_sound("its metadata", {"config": config})
        if len(config["classes"]) != net.fc8.bias.size:
            raise CheckpointError(f"its metadata name {len(config['classes'])} of its {net.fc8.bias.size} classes")
        view = view_of("its metadata", config, images)
    elif config["variant"] == "2012":
        arrays = other_colors(arrays, "conv1.conv")
        view = raw_view(BVLC_MEAN if mean is None else mean, np.array([View.resize]))
    else:
        view = View(INPUT_SIZE[config["variant"]], *IMAGENET)
    net.load_state_dict(inwards(arrays, OURS))
    return net, config, view


# ------------------------------------------------------------------------------------------ program
def read_mean(text: str) -> np.ndarray:
    """An argument of --mean: three numbers, or the name of a .npy."""
    try:
        if "," in text:
            return np.array([float(number) for number in text.split(",")], np.float32)
        with open(text, "rb") as file:
            return np.asarray(np.load(file, allow_pickle=False), np.float32)
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile):
        raise UsageError(f"--mean {text}: it takes three numbers, as in 104,117,123, or a .npy, not pickled") from None


def read_names(path: str, count: int) -> tuple[list[str], list[str]]:
    """(classes, their names) from a file with a line for each. A line of synset_words.txt is an id
    and words."""
    names = [line for _, line in lines(path, errors="replace")]
    if any("\0" in name for name in names):
        raise UsageError(f"--names {path}: the file is not UTF-8 text: save it as UTF-8")
    if len(names) != count:
        raise UsageError(f"--names {path}: it has {len(names)} names, and the network {count} classes")
    if all(re.match(r"n\d{8}\s", name) for name in names):
        classes, names = map(list, zip(*(name.split(None, 1) for name in names), strict=True))
    else:  # plain words may name two classes, as crane does
        classes = names if len(set(names)) == count else [str(k) for k in range(count)]
    if len(set(classes)) < count:
        raise UsageError(f"--names {path}: it has an id more than once")
    return classes, names


def bring(source: str, target: str, names: str | None, mean: str | None) -> None:
    """Convert a network of another framework for train.py, evaluate.py and predict.py."""
    if Path(target).suffix != ".safetensors":
        raise UsageError(f"{target}: minicnn's networks are .safetensors and .onnx (--to is for others)")
    theirs = read_onnx(source) if is_onnx(source) else read(source)
    try:
        of = from_onnx if isinstance(theirs, Found) else from_arrays
        net, config, view = of(theirs, read_mean(mean) if mean else None)
    except (CheckpointError, UsageError) as error:
        raise type(error)(f"{source}: {error}") from None
    numbers = [str(k) for k in range(net.fc8.bias.size)]
    config = {"classes": numbers, "names": numbers, **config}
    if names:
        config["classes"], config["names"] = read_names(names, len(numbers))
    save_network(target, net, config, view)
    known = ", known by their numbers (--names gives them names)" if config["names"] == numbers else ""
    say(f"{target}: AlexNet {config['variant']}, {len(numbers)} classes{known}")
    if isinstance(theirs, Found) and not theirs.told:
        caffes = "blue, green and red, from 0 to 255, less a mean, as Caffe's"
        sees = (
            caffes
            if config["variant"] == "2012"
            else "red, green and blue, by ImageNet's mean and std, as torchvision's"
        )
        say(f"the file does not say what pixels its weights are for; assumed are pixels in {sees} are")
        if theirs.side not in (None, view.size):
            say(
                f"its graph is for images {theirs.side} pixels wide, this network for {view.size}: its logits will "
                "differ"
            )


def from_arrays(arrays: Arrays, mean: np.ndarray | None) -> Network:
    """The network, settings and view of the arrays in a file."""
    if any(name.endswith("conv1.conv.weight") for name in arrays):
        raise UsageError(
            "this is a network of minicnn already: give --to torchvision or --to caffe, or an INTO that ends in .onnx"
        )
    arrays = unwrapped(arrays, FIRST)
    if "features.0.weight" in arrays:
        if mean is not None:
            raise UsageError("--mean is for Caffe's network, this is torchvision's")
        return from_torchvision(arrays)
    if "conv1.weight" in arrays or "conv1_w" in arrays:
        return from_caffe(arrays, mean)
    names = ", ".join(list(arrays)[:3]) or "none"
    raise CheckpointError(f"its arrays have neither torchvision's nor Caffe's names, but {names} ...")


def is_onnx(path: str) -> bool:
    return Path(path).suffix.lower() == ".onnx"


def take(source: str, target: str, framework: str) -> None:
    """Convert a network of train.py for another framework."""
    net, config, view = load_network(source)
    if "groups" in config["lrn"]:
        raise UsageError(
            f"{source} was trained with --parallel columns: each half of its channels is normalized by itself, which "
            "other frameworks' AlexNet does not do"
        )
    if framework == "onnx":
        write_onnx(target, net, outwards(net.state_dict(), OURS), config, view)
    else:
        write(target, (to_caffe if framework == "caffe" else to_torchvision)(net, config, view))
    say(f"{target}: AlexNet for {framework}, {len(config['classes'])} classes")
    if view.resize != View.resize:
        say(f"the short side of its images is scaled to {view.resize} pixels, not to {View.resize}")
    if framework == "caffe":
        n, k, alpha, beta = (config["lrn"][name] for name in ("n", "k", "alpha", "beta"))
        say(f"norm1 and norm2: lrn_param {{ local_size: {n} alpha: {alpha * n:g} beta: {beta:g} k: {k:g} }}")


def main() -> None:
    parser = Parser(
        prog="convert.py", description=DESCRIPTION, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("source", metavar="FROM", help="the file to read: .pth, .npz, .onnx or .safetensors, as above")
    parser.add_argument(
        "target", metavar="INTO", help="the file to write: .safetensors or .onnx; with --to also .pth or .npz"
    )
    parser.add_argument(
        "--to", choices=("torchvision", "caffe"), help="write this framework's arrays (default: minicnn's)"
    )
    parser.add_argument(
        "--names",
        metavar="FILE",
        help="a file with the name of each class in a line, such as synset_words.txt (default: classes are numbered)",
    )
    parser.add_argument(
        "--mean",
        metavar="MEAN",
        help="the mean that is subtracted from the pixels of Caffe's network, in the order blue, green, red: three "
        "numbers, as in 104,117,123, or a .npy "
        'like ilsvrc_2012_mean.npy (default: "mean" among the arrays, or ImageNet\'s three numbers)',
    )
    settings = parser.parse_args()
    if os.path.exists(settings.target):
        raise UsageError(f"{settings.target} exists already: move it away, or give another name")
    to = settings.to or ("onnx" if is_onnx(settings.target) else None)
    if to is None:
        bring(settings.source, settings.target, settings.names, settings.mean)
    elif settings.names or settings.mean:
        raise UsageError(f"--names and --mean are for a network that comes in, not for one that goes to {to}")
    else:
        take(settings.source, settings.target, to)


if __name__ == "__main__":
    sys.exit(command(main))
