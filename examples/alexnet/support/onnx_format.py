"""AlexNet as an ONNX file, and its weights out of one.

Out goes the network as it predicts: images (N, 3, H, W) to logits (N, classes), opset 13. Names of
nodes and weights are those that they have here; what the network wants to see, its settings and its
classes are in the file's metadata. From these and its arrays the same network comes back, bit for
bit: so a mean image is in the file whole, and the graph cuts its middle out (Slice, Div, Sub), and
the paper's dropout, which scales what is seen in evaluation, is a node of its own (Mul).

In come graphs of the same layers, whatever names they have: a graph is followed from its logits
back to its image, by what each node takes. Some things are written in more than one way:

    a linear layer      Gemm, with its weights either way round, or MatMul and Add
    the flatten         Flatten, or Reshape
    a normalization     LRN, or as PyTorch's exporters spell it out: x / (k + α · mean of squares)^β

In both ways to write a normalization α multiplies the mean of the n squares, here their sum: α here
is theirs / n.
"""

import json
from collections.abc import Iterator
from itertools import pairwise, zip_longest
from typing import Any, NamedTuple

import numpy as np
from model import LRN, alexnet

import minicnn
from minicnn import nn
from minicnn.checkpoint import CheckpointError, replacing

from .beside import uninterrupted
from .images import View
from .options import UsageError
from .weight_files import Arrays

OPSET, IR_VERSION = 13, 7  # of 2020, which every runtime of today has
OPS: dict[type, str] = {
    nn.Conv2d: "Conv", nn.ReLU: "Relu", nn.LocalResponseNorm: "LRN", nn.MaxPool2d: "MaxPool", nn.Flatten: "Flatten",
    nn.Linear: "Gemm", nn.Dropout: "Mul",
}  # fmt: skip
# these change nothing when a network predicts, except the width of numbers
SAME = "Dropout", "Identity", "Cast"
# the settings that describe a network here
SETTINGS = "variant", "groups", "init", "lrn", "dropout", "dropout_scale"
# these may stand between the squares and the mean of a normalization
RESHAPES = "Reshape", "Squeeze", "Unsqueeze", "Pad"


def require_onnx() -> Any:
    """The package, or an ImportError that says how to get it."""
    try:
        with uninterrupted():
            import onnx
    except ImportError:
        raise ImportError("an .onnx needs the package onnx: pip install onnx") from None
    return onnx


def layers(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(dotted name, layer) for all that does something where the network predicts, in order."""
    known = ((name, layer) for name, layer in net.named_modules() if type(layer) in OPS)
    return ((name, layer) for name, layer in known if getattr(layer, "scale", "evaluation") == "evaluation")


def attributes(layer: Any) -> dict[str, Any]:
    """The attributes of a layer's node."""
    kind = OPS[type(layer)]
    if kind == "Conv":
        kernel, strides, pads = list(layer.weight.shape[:2]), [layer.stride] * 2, [layer.padding] * 4
        return {"kernel_shape": kernel, "strides": strides, "pads": pads, "group": layer.groups}
    if kind == "MaxPool":
        return {"kernel_shape": [layer.kernel_size] * 2, "strides": [layer.stride] * 2}
    if kind == "LRN":
        constants = {"size": layer.n, "alpha": layer.alpha * layer.n, "beta": layer.beta, "bias": layer.k}
        return {name: n if name == "size" else decimal(n) for name, n in constants.items()}
    if kind == "Mul":
        return {"factor": decimal(1 - layer.p)}
    return {"transB": 1} if kind == "Gemm" else {}


# ---------------------------------------------------------------------------------------------- out
def write_onnx(path: str, net: nn.Module, arrays: Arrays, config: dict[str, Any], view: View) -> None:
    """The network as an ONNX file: whole or not at all.

    arrays: its parameters by the names that they have here, with channels first, see convert.py's
    outwards. config, view: as load_network returns them.
    """
    onnx = require_onnx()
    nodes, value, node = [], "input", onnx.helper.make_node
    if view.mean_image is not None:  # its middle, on the scale of the images' numbers
        top = (view.resize - view.size) // 2
        arrays = {
            **{"mean_image": view.mean_image.transpose(2, 0, 1), "top_left": np.array([top, top])},
            **{"bottom_right": np.array([top + view.size] * 2), "height_width": np.array([1, 2])},
            **{"scale": np.float32(255 * np.array(view.std)).reshape(3, 1, 1), **arrays},
        }
        nodes = [
            node("Slice", ["mean_image", "top_left", "bottom_right", "height_width"], ["middle"], "middle"),
            node("Div", ["middle", "scale"], ["mean"], "mean"),
            node("Sub", ["input", "mean"], ["centered"], "centered"),
        ]
        value = "centered"
    *_, (last, _) = layers(net)
    for name, layer in layers(net):
        if isinstance(layer, nn.LocalResponseNorm) and layer.n % 2 == 0:
            raise UsageError(f"{name} is over n = {layer.n} channels, and ONNX Runtime accepts only an odd n")
        found = attributes(layer)
        if "factor" in found:  # which a node takes as an input
            arrays = {**arrays, f"{name}.factor": np.float32(found.pop("factor"))}
        inputs = [value, *(own for part in ("weight", "bias", "factor") if (own := f"{name}.{part}") in arrays)]
        value = "logits" if name == last else name
        nodes.append(node(OPS[type(layer)], inputs, [value], name, **found))
    ends = {"input": ["N", 3, view.size, view.size], "logits": ["N", len(config["classes"])]}
    ends = {name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ends[name]) for name in ends}
    weights = [onnx.numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph(nodes, "alexnet", [ends["input"]], [ends["logits"]], weights)
    made_by = {"producer_name": "minicnn", "producer_version": minicnn.__version__}
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, **made_by)
    seen = {**view.numbers(), "colors": "RGB", "pixels": "(x / 255 - mean) / std"}
    told = {"preprocessing": seen, "network": {name: config[name] for name in SETTINGS}}
    told |= {"classes": config["classes"], "names": config["names"]}
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in told.items()})
    onnx.checker.check_model(model, full_check=True)
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


# ----------------------------------------------------------------------------------------------- in
class Step(NamedTuple):
    """A layer of a graph: its op, its attributes as `attributes` has them, and its weights, (out,
    …) in both kinds of layers that have some."""

    op: str
    attributes: dict[str, Any]
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None

    def kind(self) -> "Kind":
        return self.op, self.attributes, None if self.weight is None else self.weight.shape


# op, attributes and the shape of the weights
Kind = tuple[str, dict[str, Any], tuple[int, ...] | None]


class Found(NamedTuple):
    """The content of a file: settings of alexnet; its parameters, with channels first; the width of
    the images that the graph is for, if that is fixed; and, if write_onnx wrote it, its metadata
    and the mean image (3, H, W) that it may have."""

    config: dict[str, Any]
    arrays: Arrays
    side: int | None
    told: dict[str, Any]
    mean_image: np.ndarray | None = None


def read_onnx(path: str) -> Found:
    """AlexNet out of a file. CheckpointError if it has another network."""
    onnx = require_onnx()
    with open(path, "rb"):  # an OSError that names the file
        pass
    try:
        model = onnx.load(path)
        told = {p.key: json.loads(p.value) for p in model.metadata_props} if model.producer_name == "minicnn" else {}
        graph, mean_image = Graph(onnx, model.graph), None
        steps = graph.steps()
        if told and steps and steps[0].op == "Sub":
            steps, mean_image = steps[1:], graph.constant("mean_image")
            if mean_image is None:
                raise CheckpointError("its mean image is missing: a program that simplifies graphs may have removed it")
        config, arrays = recognized(steps, (told.get("network") or {}) if told else None)
    except (CheckpointError, onnx.checker.ValidationError) as error:
        # onnx raises the second if the weights are in a file beside this one.
        raise CheckpointError(f"{path}: {str(error).splitlines()[0]}") from None
    except OSError:
        raise
    except Exception as error:  # there are many that can come of a broken file
        raise CheckpointError(f"{path} is not an ONNX file, or not whole ({type(error).__name__})") from None
    return Found(config, arrays, graph.side, told, mean_image)


class Graph:
    """A graph, to be followed from its logits back to its image."""

    def __init__(self, onnx: Any, graph: Any) -> None:
        self.onnx = onnx
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        # old files list weights as inputs too
        inputs = [value for value in graph.input if value.name not in self.tensors]
        if len(inputs) != 1 or not graph.output:
            raise CheckpointError(f"a graph of {len(inputs)} inputs and {len(graph.output)} outputs is not an AlexNet")
        self.image, self.logits = inputs[0].name, graph.output[0].name
        sides = [dimension.dim_value for dimension in inputs[0].type.tensor_type.shape.dim[2:]]
        self.side = sides[0] if sides and sides[0] else None
        self.made_by: dict[str, Any] = {}
        known = {"", self.image, *self.tensors}  # "" is an input that is left out
        for node in graph.node:
            if not known.issuperset(node.input) or not known.isdisjoint(filter(None, node.output)):
                raise CheckpointError(
                    f"{node.name or node.op_type} reads a value that no earlier node computes, or computes one again"
                )
            known.update(node.output)
            self.made_by.update(dict.fromkeys(node.output, node))

    def steps(self) -> list[Step]:
        """The layers, in the order in which they run."""
        value, steps, added = self.logits, [], None
        while value in self.made_by:
            node = self.made_by[value]
            op, value = node.op_type, node.input[0] if node.input else ""
            if op in SAME or (op.endswith("Softmax") and not steps) or self.is_mean_of_one(node):
                continue
            if op == "Add" and added is None:
                value, added = self.parted(node)
            elif op in ("Conv", "Gemm", "MatMul"):
                steps.append(self.weighted(node, added))
                added = None
            elif added is not None:
                raise CheckpointError(f"something is added to what {node.name or op} makes, which is {op}")
            elif op == "LRN":
                steps.append(self.normalization(node))
            elif op == "Div":
                steps.append(self.spelled_out(node))
            elif op == "MaxPool":
                steps.append(self.pooling(node))
            elif op == "Mul":
                value, factor = self.parted(node)
                steps.append(Step("Mul", {"factor": decimal(factor)}))
            else:
                steps.append(Step("Flatten" if op == "Reshape" else op, {}))
        if value != self.image or added is not None:
            raise CheckpointError(f"{self.logits} is not computed from {self.image} by the layers of AlexNet")
        return steps[::-1]

    # ------------------------------------------------------------------------------- parts of nodes
    def attributes_of(self, node: Any) -> dict[str, Any]:
        found = {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}

    def constant(self, name: str) -> np.ndarray | None:
        """A value that is in the file; None if it is computed."""
        node = self.made_by.get(name)
        if name in self.tensors:
            array = self.onnx.numpy_helper.to_array(self.tensors[name])
        elif node is not None and node.op_type == "Constant":
            ((kind, array),) = self.attributes_of(node).items()
            array = self.onnx.numpy_helper.to_array(array) if kind == "value" else np.asarray(array)
        else:
            return self.constant(node.input[0]) if node is not None and node.op_type in SAME else None
        # bfloat16 is not one of NumPy's kinds
        return array if array.dtype.kind in "biu" else array.astype(np.float32)

    def parted(self, node: Any) -> tuple[str, np.ndarray]:
        """(the name of the input that is computed, the other input's array) of a node that has one
        constant input."""
        constants = [self.constant(name) for name in node.input]
        found = [constant for constant in constants if constant is not None]
        if len(found) != 1:
            raise CheckpointError(
                f"{node.name or node.op_type} is {node.op_type}, but not of one computed value and one constant"
            )
        return node.input[0 if constants[0] is None else 1], found[0]

    def is_mean_of_one(self, node: Any) -> bool:
        """Whether it is a mean over single pixels, as PyTorch's exporters write the adaptive
        pooling."""
        found = self.attributes_of(node)
        kernel, strides = ({*found.get(name, [1])} for name in ("kernel_shape", "strides"))
        return node.op_type == "AveragePool" and kernel == strides == {1} and not any(found.get("pads", []))

    # --------------------------------------------------------------------------------------- layers
    def weighted(self, node: Any, added: np.ndarray | None) -> Step:
        """A convolution or a linear layer, and what is added after it."""
        found = self.attributes_of(node)
        weight, *biases = (self.constant(name) for name in node.input[1:] if name)
        if weight is None or any(bias is None for bias in biases):
            raise CheckpointError(f"the weights of {node.name or node.op_type} are not in the file")
        if node.op_type == "Conv":
            usual = {"kernel_shape": [*weight.shape[2:]], "strides": [1, 1], "pads": [0, 0, 0, 0], "group": 1}
            step = Step("Conv", usual | without(found, auto_pad=["NOTSET", "VALID"], dilations=[[1, 1]]), weight)
        else:
            weight = weight if found.get("transB", 0) else weight.T
            others = without(found, transA=[0], transB=[0], alpha=[1.0], beta=[1.0], broadcast=[1])
            step = Step("Gemm", {"transB": 1} | others, weight)
        bias = np.zeros(len(weight), np.float32)
        for more in biases if added is None else [*biases, added]:
            if more.size != bias.size:
                raise CheckpointError(f"{node.name or node.op_type} has {bias.size} outputs, and a bias {more.shape}")
            bias = bias + more.reshape(-1)
        return step._replace(bias=bias)

    def pooling(self, node: Any) -> Step:
        """Padding on the right and below, and ceil_mode, only matter if a last window overhangs the
        border: in AlexNet the windows fit, so they change nothing."""
        found = self.attributes_of(node)
        harmless = {"ceil_mode": [0, 1], "storage_order": [0], "dilations": [[1, 1]], "auto_pad": ["NOTSET", "VALID"]}
        harmless["pads"] = [[0, 0, bottom, right] for bottom in (0, 1) for right in (0, 1)]
        return Step("MaxPool", {"strides": [1, 1]} | without(found, **harmless))

    def normalization(self, node: Any) -> Step:
        found = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0} | self.attributes_of(node)
        if found["size"] % 2 == 0:  # of which ONNX and PyTorch have different ones in the middle
            raise CheckpointError(f"{node.name or 'LRN'} is over {found['size']} channels, an even number")
        return Step("LRN", {name: n if name == "size" else decimal(n) for name, n in found.items()})

    def spelled_out(self, node: Any) -> Step:
        """x / (k + α · mean)^β, where the mean is of the squares of n neighbors."""
        base, beta = self.parted(self.back_to(node.input[1], "Pow"))
        total, k = self.parted(self.back_to(base, "Add"))
        mean, alpha = self.parted(self.back_to(total, "Mul"))
        pool = self.back_to(mean, "AveragePool")
        found = self.attributes_of(pool)
        n, *others = found["kernel_shape"]  # channels, height, width
        squares = self.back_to(pool.input[0], "Mul", "Pow")
        two = self.constant(squares.input[1]) if squares.op_type == "Pow" else None
        a_square = two == 2 if two is not None else squares.input[0] == squares.input[1]
        usual = others == [1, 1] and {*found.get("strides", [1])} == {1} and not any(found.get("pads", []))
        if squares.input[0] != node.input[0] or not a_square or not usual:
            raise CheckpointError(f"{node.name or 'Div'} is not a division as in AlexNet's normalization")
        return Step("LRN", {"size": n, "alpha": decimal(alpha), "beta": decimal(beta), "bias": decimal(k)})

    def back_to(self, value: str, *ops: str) -> Any:
        """The node of one of these ops that made a value, before it got another shape."""
        node = self.made_by.get(value)
        if node is not None and node.op_type == "If":  # does a value lose an axis, or none?
            inner = (name for a in node.attribute for branch in a.g.node for name in branch.input)
            return self.back_to(next((name for name in inner if name in self.made_by), ""), *ops)
        if node is not None and node.op_type in (*SAME, *RESHAPES):
            return self.back_to(node.input[0], *ops)
        if node is None or node.op_type not in ops:
            raise CheckpointError(f"a quotient that is not a normalization: {value} is not made by {' or '.join(ops)}")
        return node


def without(found: dict[str, Any], **harmless: list[Any]) -> dict[str, Any]:
    """The attributes, except those with a value that changes nothing."""
    return {name: value for name, value in found.items() if value not in harmless.get(name, [])}


def decimal(number: Any) -> float:
    """The shortest decimal number that is this one in float32, as a file has it."""
    if np.size(number) != 1:
        raise CheckpointError(f"there are numbers of shape {np.shape(number)} where AlexNet has one number")
    return float(str(np.float32(np.asarray(number).item())))


def recognized(steps: list[Step], told: dict[str, Any] | None = None) -> tuple[dict[str, Any], Arrays]:
    """The settings of this AlexNet, and its parameters by their names here. CheckpointError if it
    is not an AlexNet, or not the one that the file says."""
    found = [step.kind() for step in steps]
    if ("MaxPool", "LRN") in pairwise(step.op for step in steps):
        raise CheckpointError("it pools before it normalizes, as CaffeNet does, and AlexNet does not: another network")
    norm = next((step.attributes for step in steps if step.op == "LRN"), None)
    lrn, variants = LRN, [("2014", True), ("tutorial", True)]
    if norm is not None:
        n, k, alpha, beta = (norm[name] for name in ("size", "bias", "alpha", "beta"))
        lrn, variants = {"n": n, "k": k, "alpha": alpha / n, "beta": beta}, [("2012", True), ("2012", False)]
    usual = {"init": "he" if norm is None else "paper", "lrn": lrn, "dropout": 0.5, "dropout_scale": "training"}
    configs = (
        [told]
        if told is not None
        else [{"variant": variant, "groups": groups, **usual} for variant, groups in variants]
    )
    classes, differences = 1 if not steps or steps[-1].bias is None else len(steps[-1].bias), []
    for config in configs:
        try:
            variant, groups, _, lrn, dropout, scale = (config[name] for name in SETTINGS)
            known = list(layers(alexnet(variant, classes, "zeros", groups, lrn, scale, dropout)))
        except (KeyError, TypeError, ValueError):  # of what is told
            raise CheckpointError("its metadata are not as they were written") from None
        pairs = zip_longest(found, (kind_of(layer) for _, layer in known))
        different = next(((i, *pair, variant) for i, pair in enumerate(pairs, 1) if pair[0] != pair[1]), None)
        if different is None:
            return config, parameters([name for name, _ in known], steps)
        differences.append(different)
    i, theirs, ours, variant = max(differences, key=lambda difference: difference[0])
    raise CheckpointError(f"another network: its layer {i} is {said(theirs)}, AlexNet {variant}'s {said(ours)}")


def parameters(names: list[str], steps: list[Step]) -> Arrays:
    """The weights and biases of these steps, by the names of their layers."""
    pairs = [(name, step) for name, step in zip(names, steps, strict=True) if step.weight is not None]
    return {f"{name}.{part}": getattr(step, part) for name, step in pairs for part in ("weight", "bias")}


def kind_of(layer: Any) -> Kind:
    """The kind of one of minicnn's layers, in the form of Step.kind."""
    shape = layer.weight.shape if hasattr(layer, "weight") else None
    return OPS[type(layer)], attributes(layer), shape and (*shape[:-3:-1], *shape[:-2])


def said(kind: Kind | None) -> str:
    """A kind in words, in one line."""
    if kind is None:
        return "nothing"
    op, found, shape = kind
    return " ".join(
        [op, *(f"{name}={value}" for name, value in found.items()), *([f"weights {shape}"] if shape else [])]
    )
