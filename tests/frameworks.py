"""torchvision's alexnet and Caffe's BVLC AlexNet, once more: what they see of an image, and what
they make of it, in NumPy with channels first, in PyTorch, and as ONNX graphs. The names and shapes
of their weights, and numbers for these with which a signal neither dies nor explodes. Their layers
are written here as those frameworks have them, and not taken from examples/alexnet/model.py, which
is tested by them."""

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from support.images import IMAGENET

from minicnn import nn
from minicnn.data import SyntheticImages

CLASSES = 10
TORCHVISION = (
    "features.0",
    "features.3",
    "features.6",
    "features.8",
    "features.10",
    "classifier.1",
    "classifier.4",
    "classifier.6",
)
CAFFE = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


class Block(NamedTuple):
    """A convolution and a ReLU, and whether normalization and pooling (3 × 3, stride 2) follow."""

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    norm: bool = False
    pool: bool = False


BLOCKS = {
    TORCHVISION: (
        Block(3, 64, 11, stride=4, padding=2, pool=True),
        Block(64, 192, 5, padding=2, pool=True),
        Block(192, 384, 3, padding=1),
        Block(384, 256, 3, padding=1),
        Block(256, 256, 3, padding=1, pool=True),
    ),
    CAFFE: (
        Block(3, 96, 11, stride=4, norm=True, pool=True),
        Block(96, 256, 5, padding=2, groups=2, norm=True, pool=True),
        Block(256, 384, 3, padding=1),
        Block(384, 384, 3, padding=1, groups=2),
        Block(384, 256, 3, padding=1, groups=2, pool=True),
    ),
}
LINEAR = (256 * 36, 4096), (4096, 4096), (4096, CLASSES)  # after the flatten, with a ReLU between them
BVLC_LRN = {"local_size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0}
PICTURES = np.stack([SyntheticImages(2, seed=3, size=227)[i][0] for i in range(2)])  # (2, 227, 227, 3)


def narrow(patch: Any, share: int = 16) -> None:
    """From now on, alexnet has that share of its channels: 6 for 96."""
    conv, linear = nn.Conv2d, nn.Linear
    patch.setattr(nn, "Conv2d", lambda c, o, *args, **named: conv(c // share or c, o // share, *args, **named))
    patch.setattr(nn, "Linear", lambda i, o, **named: linear(i // share, o // share if o == 4096 else o, **named))


def narrowed(framework: tuple[str, ...], share: int) -> tuple[list[Block], list[tuple[int, int]]]:
    """The framework's layers as narrow() leaves them."""
    blocks = [b._replace(inputs=b.inputs // share or b.inputs, outputs=b.outputs // share) for b in BLOCKS[framework]]
    return blocks, [(i // share, o // share if o == 4096 else o) for i, o in LINEAR]


def weights(framework: tuple[str, ...], share: int = 16) -> dict[str, np.ndarray]:
    """Random numbers for all of its weights, and for biases that count on the scale of its
    pixels."""
    blocks, linear = narrowed(framework, share)
    scale = 0.3 if framework == TORCHVISION else 10
    shapes = [(b.outputs, b.inputs // b.groups, b.kernel, b.kernel) for b in blocks]
    shapes += [(outputs, inputs) for inputs, outputs in linear]
    rng, arrays = np.random.default_rng(0), {}
    for name, shape in zip(framework, shapes, strict=True):
        he = np.sqrt(2 / np.prod(shape[1:]))
        arrays[f"{name}.weight"] = rng.standard_normal(shape, np.float32) * np.float32(he)
        arrays[f"{name}.bias"] = rng.standard_normal(shape[0], np.float32) * np.float32(scale)
    return arrays


def channels_first(array: np.ndarray) -> np.ndarray:
    """A parameter of minicnn's AlexNet, or its gradient, in PyTorch's layout."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)  # (KH, KW, C, O) -> (O, C, KH, KW)
    if array.ndim == 2 and len(array) % 36 == 0:  # after the flatten: rows (H, W, C) -> (C, H, W)
        array = array.reshape(6, 6, -1, array.shape[1]).transpose(2, 0, 1, 3).reshape(array.shape)
    return array.T


# ------------------------------------------------------------------------------------------------------- what they see
def torchvision_sees(pictures: np.ndarray) -> np.ndarray:
    """(N, 227, 227, 3) -> (N, 3, 224, 224), by ToTensor() and Normalize()"""
    mean, std = (np.array(numbers)[:, None, None] for numbers in IMAGENET)
    return (pictures[:, 1:225, 1:225].transpose(0, 3, 1, 2) / 255 - mean) / std


def caffe_sees(pictures: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(N, 227, 227, 3) -> (N, 3, 227, 227): blue, green and red, less a mean (3,), or the middle of
    one (3, 256, 256)"""
    mean = mean[:, None, None] if mean.ndim == 1 else mean[:, 14:241, 14:241]
    return pictures.transpose(0, 3, 1, 2)[:, ::-1] - mean.astype(float)


# ------------------------------------------------------------------------------------------------------------- in NumPy
def windows(x: np.ndarray, size: int, stride: int) -> np.ndarray:
    """(N, C, H, W) -> (N, C, OH, OW, size, size)"""
    return sliding_window_view(x, (size, size), (2, 3))[:, :, ::stride, ::stride]


def conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1, padding: int = 0) -> np.ndarray:
    """There are as many groups as the channels of the weight make of those of x."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    groups = x.shape[1] // weight.shape[1]
    seen = np.split(windows(x, weight.shape[2], stride), groups, axis=1)
    parts = [np.tensordot(s, w, ((1, 4, 5), (1, 2, 3))) for s, w in zip(seen, np.split(weight, groups), strict=True)]
    return np.concatenate(parts, axis=3).transpose(0, 3, 1, 2) + bias[:, None, None]


def norm(x: np.ndarray, local_size: int, alpha: float, beta: float, k: float) -> np.ndarray:
    """Caffe's, with its way to use alpha."""
    half = local_size // 2
    squares = np.pad(x * x, ((0, 0), (half, half), (0, 0), (0, 0)))
    total = sum(squares[:, i : i + x.shape[1]] for i in range(local_size))
    return x / (k + alpha / local_size * total) ** beta


def logits(framework: tuple[str, ...], arrays: dict[str, np.ndarray], x: np.ndarray, lrn: Any = BVLC_LRN) -> np.ndarray:
    """What the framework's network makes of what it sees, in float64."""
    layers = [(arrays[f"{name}.weight"].astype(float), arrays[f"{name}.bias"].astype(float)) for name in framework]

    for block, parameters in zip(BLOCKS[framework], layers, strict=False):  # the linear layers follow
        x = np.maximum(conv(x, *parameters, block.stride, block.padding), 0)
        x = norm(x, **lrn) if block.norm else x
        x = windows(x, 3, 2).max((4, 5)) if block.pool else x
    x = x.reshape(len(x), -1)
    for weight, bias in layers[5:7]:
        x = np.maximum(x @ weight.T + bias, 0)
    return x @ layers[7][0].T + layers[7][1]


# ----------------------------------------------------------------------------------------------------------- in PyTorch
def network(framework: tuple[str, ...], share: int = 16) -> Any:
    """The framework's network, with its names, in evaluation mode."""
    from torch import nn

    blocks, linear = narrowed(framework, share)
    parts: dict[str, Any] = {}
    for i, b in enumerate(blocks, 1):
        parts[f"conv{i}"] = nn.Conv2d(b.inputs, b.outputs, b.kernel, b.stride, b.padding, groups=b.groups)
        parts[f"relu{i}"] = nn.ReLU()
        if b.norm:
            parts[f"norm{i}"] = nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)
        if b.pool:
            parts[f"pool{i}"] = nn.MaxPool2d(3, 2)
    fc6, fc7, fc8 = (nn.Linear(*sizes) for sizes in linear)
    if framework == TORCHVISION:
        classifier = nn.Dropout(), fc6, nn.ReLU(), nn.Dropout(), fc7, nn.ReLU(), fc8
        features = nn.Sequential(*parts.values())
        parts = {"features": features, "flatten": nn.Flatten(), "classifier": nn.Sequential(*classifier)}
    else:
        parts |= {"flatten": nn.Flatten(), "fc6": fc6, "relu6": nn.ReLU(), "drop6": nn.Dropout()}
        parts |= {"fc7": fc7, "relu7": nn.ReLU(), "drop7": nn.Dropout(), "fc8": fc8}
    return nn.Sequential(OrderedDict(parts)).eval()


# --------------------------------------------------------------------------------------------------------------- as ONNX
class Form(NamedTuple):
    """One of the ways in which files have these networks."""

    lrn: str = "op"  # or "spelled out", as PyTorch's exporters do, or that "with Pow" for its squares
    flatten: str = "Flatten"  # or "Reshape", or "AveragePool" over single pixels, and Reshape
    linear: str = "transB"  # or "Gemm", or "MatMul" and Add
    bias: bool = True  # or none, in convolutions and linear layers
    listed: bool = False  # are weights among the graph's inputs, as old files have them?
    dropout: bool = False  # with its mask as another output, here and there
    shared: bool = False  # is there one of equal weights?
    softmax: bool = False
    side: int | None = None  # of the images, if not N × 3 × 227 or 224
    last_pads: tuple[int, ...] = (0, 0, 0, 0)  # of the pooling of conv5
    ceil_mode: int | None = None
    constants: bool = False  # are weights in nodes of their own?
    added: float = 0.0  # the share of the biases that is added by nodes of their own
    defaults: bool | None = None  # are attributes written that are as they are by default? None: as it comes
    pool_first: bool = False  # as in CaffeNet
    dtype: str = "float32"
    opset: int = 13


AS_IT_IS = Form()
PLACES = {"strides": [1, 1], "pads": [0, 0, 0, 0], "auto_pad": "NOTSET"}
DEFAULTS: dict[str, dict[str, Any]] = {
    "Conv": {"dilations": [1, 1], "group": 1, **PLACES},
    "MaxPool": {"dilations": [1, 1], "storage_order": 0, "ceil_mode": 0, **PLACES},
    "AveragePool": {"ceil_mode": 0, "count_include_pad": 0, "auto_pad": "NOTSET"},
    "Gemm": {"transA": 0, "transB": 0, "alpha": 1.0, "beta": 1.0},
    "LRN": {"alpha": 1e-4, "beta": 0.75, "bias": 1.0},
    "Flatten": {"axis": 1},
}


def onnx_model(
    framework: tuple[str, ...], arrays: dict[str, np.ndarray], form: Form = AS_IT_IS, lrn: Any = BVLC_LRN
) -> Any:
    """A graph of the framework's network, by names that say nothing."""
    import onnx
    from onnx import helper, numpy_helper

    side = form.side or (224 if framework == TORCHVISION else 227)
    nodes: list[Any] = []
    tensors: dict[str, Any] = {}
    float_type = getattr(
        onnx.TensorProto, {"float32": "FLOAT", "float16": "FLOAT16", "bfloat16": "BFLOAT16"}[form.dtype]
    )

    def node(op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        made = [f"{len(nodes) + 7}_{i}" if i else str(len(nodes) + 7) for i in range(outputs)]
        usual = DEFAULTS.get(op, {})
        if form.defaults:
            attributes = {**usual, **attributes}
        elif form.defaults is not None:
            ones = [1] * len(attributes.get("strides", ()))
            attributes = {n: v for n, v in attributes.items() if v != (ones if n == "strides" else usual.get(n))}
        if form.opset < 5 and op == "Reshape":
            inputs, attributes = inputs[:1], {"shape": [0, -1]}
        if form.opset < 7 and op == "Gemm":
            attributes["broadcast"] = 1
        nodes.append(helper.make_node(op, inputs, made, **attributes))
        return made[0]

    def constant(array: Any, dtype: Any = np.float32) -> str:
        array = np.asarray(array, dtype)
        if array.dtype == np.float32 and form.dtype != "float32" and array.ndim:
            values = array.astype(np.float64).ravel().tolist()
            tensor = helper.make_tensor("", float_type, array.shape, values)
        else:
            tensor = numpy_helper.from_array(np.array(array, order="C"))
        same = (name for name, other in tensors.items() if form.shared and other.raw_data == tensor.raw_data)
        if form.constants:
            return node("Identity", node("Constant", value=tensor))
        name = next(same, f"w{len(tensors)}")
        tensor.name = name
        tensors[name] = tensor
        return name

    def biases(name: str) -> list[str]:
        return [constant(arrays[f"{name}.bias"] * (1 - form.added))] if form.bias and form.added < 1 else []

    def biased(x: str, name: str, *axes: int) -> str:
        bias = arrays[f"{name}.bias"].reshape(1, -1, *axes) * form.added
        return node("Add", constant(bias), x) if form.added else x

    def normed(x: str) -> str:
        n, alpha, beta, k = (lrn[name] for name in ("local_size", "alpha", "beta", "k"))
        if form.lrn == "op":
            return node("LRN", x, size=n, alpha=alpha, beta=beta, bias=k)
        squares = node("Pow", x, constant(2)) if form.lrn == "with Pow" else node("Mul", x, x)
        squares = node("Unsqueeze", squares, constant([1], np.int64))  # (N, 1, C, H, W)
        pads = [0, 0, n // 2, 0, 0, 0, 0, (n - 1) // 2, 0, 0]
        padded = node("Pad", squares, constant(pads, np.int64))
        mean = node("AveragePool", padded, kernel_shape=[n, 1, 1], strides=[1, 1, 1])
        mean = node("Squeeze", mean, constant([1], np.int64))
        total = node("Add", constant(k), node("Mul", mean, constant(alpha)))
        return node("Div", x, node("Pow", total, constant(beta)))

    def pooled(x: str, pads: tuple[int, ...]) -> str:
        ceil = {} if form.ceil_mode is None else {"ceil_mode": form.ceil_mode}
        return node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=pads, **ceil)

    def linear(x: str, name: str) -> str:
        weight = arrays[f"{name}.weight"]
        if form.linear == "MatMul":
            y = node("MatMul", x, constant(weight.T))
            return node("Add", y, *biases(name)) if form.bias and not form.added else biased(y, name)
        if form.linear == "Gemm":
            return biased(node("Gemm", x, constant(weight.T), *biases(name)), name)
        return biased(node("Gemm", x, constant(weight), *biases(name), transB=1), name)

    def dropped(x: str) -> str:
        return node("Dropout", x, outputs=2) if form.dropout else x

    x = "x"
    for name, b in zip(framework, BLOCKS[framework], strict=False):
        weight = constant(arrays[f"{name}.weight"])
        x = node("Conv", x, weight, *biases(name), strides=[b.stride] * 2, pads=[b.padding] * 4, group=b.groups)
        x = node("Relu", biased(x, name, 1, 1))
        ends = form.last_pads if name == framework[4] else (0, 0, 0, 0)
        steps = [normed] * b.norm + [lambda x, ends=ends: pooled(x, ends)] * b.pool
        for step in reversed(steps) if form.pool_first else steps:
            x = step(x)
    x = dropped(x)
    if form.flatten == "AveragePool":
        x = node("AveragePool", x, kernel_shape=[1, 1], strides=[1, 1])
    x = node("Flatten", x) if form.flatten == "Flatten" else node("Reshape", x, constant([0, -1], np.int64))
    for name in framework[5:7]:
        x = dropped(node("Relu", linear(x, name)))
    x = linear(x, framework[7])
    if form.softmax:
        x = node("Softmax", x)
    ends = [
        helper.make_tensor_value_info(n, float_type, s) for n, s in (("x", ["N", 3, side, side]), (x, ["N", CLASSES]))
    ]
    inputs = [ends[0]]
    if form.listed:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors.values()]
    graph = helper.make_graph(nodes, "g", inputs, [ends[1]], list(tensors.values()))
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", form.opset)], ir_version=3 if form.listed else 8
    )
