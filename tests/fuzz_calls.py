"""Wild calls of everything public: right arguments mixed with wrong ranks, dtypes, sizes, numbers and objects.

    python tests/fuzz_calls.py --calls 20000 --seed 0      each kind of failure, and how often it was seen
    python tests/fuzz_calls.py --only 1234 --seed 0        one of these calls, with its traceback

A call may work, or be refused in one line that minicnn raises itself and that names the function or the argument and
what it got. Python's own line for a wrong signature will do, and so will MemoryError. Everything else is a failure:
another exception, a crash of the interpreter, a hang, a warning, an argument that a refused call has changed, and a
result that holds no real numbers. The calls run in processes with limits of time and memory.
"""

import argparse
import ast
import collections
import contextlib
import decimal
import fractions
import functools
import inspect
import json
import os
import random
import re
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import numpy as np

PATIENCE = 20  # seconds that a call may take
ROOM = 3 << 30  # bytes that it may use beyond what the process has
BATCH = 1000  # calls in one process
HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))

import minicnn  # noqa: E402
import minicnn.functional as F  # noqa: E402
from minicnn import Tensor, data, distributed, nn, optim  # noqa: E402
from minicnn.data import transforms  # noqa: E402

PACKAGE = str(Path(minicnn.__file__).parent)


# ------------------------------------------------------------------------------------- what is given
class Hostile:
    """Every way to look at it is an error of its own."""

    def __index__(self):
        raise RuntimeError("hostile")

    __float__ = __array__ = __len__ = __bool__ = __iter__ = __index__


class Odd(nn.Module):
    def forward(self, *inputs):
        return None


def array_of(rng, shape=None, dtype=None):
    if shape is None:
        shape = tuple(rng.choice((0, 1, 1, 2, 3, 4, 5)) for _ in range(rng.randrange(6)))
    dtype = np.dtype(dtype or "f4")
    numbers = np.random.default_rng(rng.randrange(1 << 30))
    if dtype.kind in "fc":
        return np.asarray(numbers.standard_normal(shape), dtype)
    if dtype.kind in "iub":
        return np.asarray(numbers.integers(0, 3, shape), dtype)
    if dtype.kind == "O":
        return np.full(shape, None, object)
    return np.zeros(shape, dtype)


REAL = ["f2", "f4", "f8", ">f4", ">f8", ">i4", "i1", "u1", "i4", "i8", "u8", "?", "g"]
DTYPES = [*REAL, "c8", "O", "U3", "S2", "M8[s]", "m8[s]", "i4,f4"]


def wild_array(rng):
    array = array_of(rng, dtype=rng.choice(DTYPES))
    if array.dtype.kind == "f" and array.size and rng.random() < 0.3:
        array[...] = rng.choice((np.nan, np.inf, -np.inf, 0, 1e4))
    turn = rng.random()
    if turn < 0.1 and array.ndim:
        return array[::-1]
    if turn < 0.2:
        array.flags.writeable = False
        return array
    if turn < 0.3:
        return np.broadcast_to(array, (2, *array.shape))
    return array


def wild_tensor(rng):
    array = array_of(rng, dtype=rng.choice(REAL))
    return Tensor(array, requires_grad=array.dtype.kind == "f" and rng.random() < 0.5)


def wild_number(rng):
    return rng.choice(
        (
            0,
            1,
            -1,
            2,
            3,
            7,
            100,
            10**4,
            2**31,
            -(2**31),
            2**63,
            2**64,
            10**18,
            -(10**18),
            10**400,
            True,
            False,
            0.5,
            -0.5,
        )
        + (
            1.0,
            2.0,
            1e-300,
            1e308,
            -1e308,
            float("nan"),
            float("inf"),
            float("-inf"),
            1j,
            np.float64(2),
            np.float32(0.5),
        )
        + (np.int8(3), np.int64(2), np.uint64(2**63), np.bool_(True), np.float16(1), np.complex64(1), np.longdouble(1))
        + (fractions.Fraction(1, 3), decimal.Decimal("0.1"), -0.0)
    )


def wild_object(rng):
    return rng.choice(
        (lambda: None, lambda: None, lambda: object(), lambda: np, lambda: int, lambda: Tensor, lambda: nn.ReLU)
        + (lambda: lambda x: x, lambda: "", lambda: "a", lambda: "mean", lambda: "cpu", lambda: "gpu", lambda: "gpu:9")
        + (
            lambda: "same",
            lambda: "1",
            lambda: "\0",
            lambda: "a\nb",
            lambda: b"x",
            lambda: bytearray(3),
            lambda: {"a": 1},
        )
        + (lambda: {}, lambda: {1, 2}, lambda: range(3), lambda: iter([1, 2]), lambda: slice(0, 2), lambda: ...)
        + (
            lambda: Path("a"),
            lambda: nn.ReLU(),
            lambda: Odd(),
            lambda: nn.Linear(2, 3),
            lambda: nn.Parameter(np.ones(2)),
        )
        + (lambda: np.float32, lambda: np.dtype("f2"), lambda: np.random.default_rng(0), lambda: memoryview(b"ab"))
        + (lambda: ValueError("x"), lambda: Hostile(), lambda: np.ma.masked_array([1.0, 2.0], [0, 1]), lambda: print)
        + (lambda: NotImplemented, lambda: np.newaxis, lambda: sys, lambda: optim.SGD([nn.Parameter(np.ones(2))], 0.1))
    )()


def wild_sequence(rng):
    kind = rng.choice((list, tuple))
    inner = rng.choice((wild_number, wild_number, wild_object, wild_array, wild_tensor, wild_sequence))
    return kind(inner(rng) for _ in range(rng.randrange(4)))


def wild(rng):
    """Anything at all."""
    return rng.choice((wild_number, wild_number, wild_object, wild_object, wild_array, wild_tensor, wild_sequence))(rng)


def images(rng, dtype="f4"):
    return array_of(rng, rng.choice(((2, 5, 5, 4), (1, 6, 7, 4), (0, 5, 5, 4), (2, 8, 8, 4))), dtype)


def tensor(rng):
    shape = rng.choice(((2, 5, 5, 4), (2, 5, 5, 4), (3, 4), (3, 4), (4,), (), (0, 4), (2, 3, 4), (1, 1)))
    dtype = rng.choice(("f4", "f4", "f4", "f2", "f8", "i8", "u1", "?"))
    return Tensor(array_of(rng, shape, dtype), requires_grad=dtype[0] == "f" and rng.random() < 0.5)


def parameters(rng):
    net = network(rng)
    for p in net.parameters():
        p.grad = Tensor(np.ones(p.shape, p.dtype))
    return list(net.parameters())


def network(rng):
    return rng.choice(
        (
            lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)),
            lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)),
            lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.5)),
        )
    )()


def optimizer(rng):
    params = parameters(rng)
    return rng.choice(
        (
            lambda: optim.SGD(params, 0.1),
            lambda: optim.SGD(params, 0.1, 0.9, weight_decay=1e-3),
            lambda: optim.Adam(params, 1e-3),
            lambda: optim.AdamW([{"params": params[:1], "lr": 0.1}, {"params": params[1:]}], 1e-3),
        )
    )()


def schedule(rng):
    of = optimizer(rng)
    return rng.choice(
        (lambda: optim.StepLR(of, 3), lambda: optim.CosineLR(of, 10), lambda: optim.ReduceLROnPlateau(of, patience=1))
    )()


def dataset(rng):
    return data.Arrays(array_of(rng, (5, 6, 6, 3), "u1"), np.arange(5))


def image(rng):
    return array_of(
        rng, rng.choice(((6, 6, 3), (6, 6, 3), (7, 5, 3), (6, 6, 1), (0, 6, 3))), rng.choice(("u1", "u1", "f4"))
    )


def statistics(rng):
    found = data.PixelStatistics()
    for _ in range(rng.randrange(3)):
        found.add(array_of(rng, (4, 4, 3), "u1"))
    return found


def one_of(*values):
    return lambda rng: rng.choice(values)


def vector(rng):
    return Tensor(array_of(rng, (rng.choice((4, 4, 3, 6)),)))


def sum_of_squares(*tensors):
    return sum((t * t).sum() for t in tensors)


SMALL = one_of(1, 2, 3, (1, 2), (2, 2))
RIGHT = {  # by the argument's name
    "x": tensor,
    "a": tensor,
    "b": tensor,
    "weight": lambda rng: Tensor(array_of(rng, rng.choice(((3, 3, 4, 4), (1, 1, 4, 4), (4, 4), (4, 6), (3, 3, 2, 4))))),
    "bias": lambda rng: rng.choice((None, True, vector(rng))),
    "kernel_size": SMALL,
    "stride": SMALL,
    "padding": one_of(0, 1, (1, 0), "same", ((0, 1), (1, 0))),
    "dilation": one_of(1, 2),
    "groups": one_of(1, 2),
    "output_padding": one_of(0, 0, 1),
    "output_size": SMALL,
    "ceil_mode": one_of(True, False),
    "count_include_pad": one_of(True, False),
    "gamma": vector,
    "beta": lambda rng: rng.choice((0.75, vector(rng))),
    "running_mean": lambda rng: array_of(rng, (4,)),
    "running_var": lambda rng: np.ones(4, np.float32),
    "training": one_of(True, False),
    "momentum": one_of(0.1, 0.9, 0),
    "eps": one_of(1e-5, 1e-3),
    "p": one_of(0, 0.5, 1),
    "scale": one_of("training", "evaluation", 255.0),
    "negative_slope": one_of(0.01, 0),
    "n": one_of(5, 1, 2),
    "k": one_of(2.0, 1),
    "alpha": one_of(1e-4, 1e-2),
    "axis": one_of(0, -1, 1, None, (0, 1)),
    "keepdims": one_of(True, False),
    "ddof": one_of(0, 1),
    "logits": lambda rng: Tensor(array_of(rng, (3, 4))),
    "labels": lambda rng: array_of(rng, (3,), "i8"),
    "prediction": lambda rng: Tensor(array_of(rng, (3, 4))),
    "target": lambda rng: array_of(rng, (3, 4)),
    "reduction": one_of("mean", "sum", "none"),
    "ignore_index": one_of(None, -100, 1),
    "label_smoothing": one_of(0.0, 0.1),
    "tensors": lambda rng: [Tensor(array_of(rng, (2, 3))) for _ in range(rng.randrange(1, 3))],
    "condition": lambda rng: array_of(rng, (3, 4), "?"),
    "widths": one_of(((1, 1), (0, 2)), ((0, 1),), ()),
    "value": one_of(0.0, 1, -1.5),
    "data": lambda rng: rng.choice((1.0, [1.0, 2.0], array_of(rng), array_of(rng))),
    "dtype": one_of(np.float32, "float64", np.float16, np.int64, None, "f4"),
    "device": one_of("cpu", "cpu", "gpu", None),
    "requires_grad": one_of(True, False),
    "retain_graph": one_of(True, False),
    "create_graph": one_of(True, False),
    "shape": one_of(-1, 12, (3, 4), (2, 6), 4),
    "axes": one_of((0, 1), 0, 1),
    "index": one_of(0, -1, slice(0, 2), ..., None, (0, 1), [0, 1], np.array([0, 1])),
    "low": one_of(0, -1.0, None),
    "high": one_of(1, 2.5, None),
    "seed": one_of(0, 1, 7),
    "state": lambda rng: rng.choice(({}, (0, 1), network(rng).state_dict(), optimizer(rng).state_dict())),
    "name": one_of("numpy", "reference", "a"),
    "array": lambda rng: array_of(rng),
    "arrays": lambda rng: rng.choice(({"a": array_of(rng)}, statistics(rng).arrays())),
    "path": one_of("a.safetensors", "b"),
    "info": one_of(None, {}, {"a": 1}),
    "f": one_of(sum_of_squares, lambda x: x * x),
    "inputs": lambda rng: rng.choice(([Tensor(array_of(rng, (2, 3), "f8"), requires_grad=True)], tensor(rng))),
    "outputs": tensor,
    "in_channels": one_of(4, 2),
    "out_channels": one_of(4, 6),
    "in_features": one_of(4, 3),
    "out_features": one_of(4, 3),
    "num_features": one_of(4),
    "weight_init": lambda rng: rng.choice((None, nn.init.he(), nn.init.constant(0))),
    "bias_init": one_of(0.0, 1),
    "std": one_of(0.01, 1.0),
    "params": parameters,
    "parameters": parameters,
    "max_norm": one_of(1.0, float("inf")),
    "lr": one_of(0.1, 1e-3),
    "weight_decay": one_of(0, 1e-4),
    "betas": one_of((0.9, 0.999)),
    "nesterov": one_of(True, False),
    "paper_update": one_of(True, False),
    "optimizer": optimizer,
    "step_size": one_of(1, 3),
    "total_steps": one_of(10),
    "warmup_steps": one_of(0, 2),
    "min_lr": one_of(0.0, 1e-4),
    "mode": one_of("min", "max", True, False),
    "factor": one_of(0.1, 0.5),
    "patience": one_of(0, 2),
    "threshold": one_of(1e-4, 0),
    "metric": one_of(1.0, 0.5),
    "group": lambda rng: {"params": parameters(rng)},
    "module": network,
    "modules": lambda rng: rng.choice(([nn.ReLU()], nn.ReLU())),
    "hook": one_of(print, lambda *_: None),
    "input_shape": one_of((1, 5, 5, 4), (2, 4)),
    "dataset": dataset,
    "batch_size": one_of(1, 2),
    "transform": lambda rng: rng.choice((None, transforms.CenterCrop(4))),
    "normalize": lambda rng: rng.choice((None, transforms.Normalize(0.5, 0.5))),
    "num_workers": one_of(0, 1),
    "image": image,
    "images": image,
    "rng": lambda rng: np.random.default_rng(0),
    "short_side": one_of(4, 8),
    "size": one_of(4, 6, 64),
    "mean": one_of(0.5, (0.5, 0.4, 0.3)),
    "mean_image": lambda rng: array_of(rng, (6, 6, 3)),
    "eigenvalues": lambda rng: np.ones(3),
    "eigenvectors": lambda rng: np.eye(3),
    "transforms": lambda rng: [transforms.CenterCrop(4)],
    "classes": one_of(3, 10),
    "length": one_of(10, 20),
    "other": lambda rng: rng.choice((tensor(rng), 2, 0.5, statistics(rng))),
    "exponent": one_of(2, 0.5, -1),
    "key": one_of((0, 1), None),
    "first": one_of(0, 3),
    "rows": one_of(None, 2),
    "net": network,
    "workers": lambda rng: minicnn.workers.Workers(),
    "lengths": one_of([4], [5]),
    "loss": lambda rng: sum_of_squares(Tensor(np.ones(2), requires_grad=True)),
    "enabled": one_of(True, False),
}


# ------------------------------------------------------------------------------------ what is called
def instances():
    """(a function that makes an object, the names of its methods)"""
    operators = "add radd sub rsub mul rmul truediv rtruediv pow rpow matmul rmatmul lt le gt ge eq ne and or getitem"
    operators += " iadd isub imul itruediv ipow imatmul invert neg abs bool float int len iter"
    internal = ("wrap", "plus", "times")  # which say that they check nothing
    tensors = [
        n for n, m in vars(Tensor).items() if not n.startswith("_") and inspect.isfunction(m) and n not in internal
    ]
    yield tensor, [*tensors, *(f"__{n}__" for n in operators.split())] * 2
    yield network, [n for n in dir(nn.Module) if not n.startswith("_") and callable(getattr(nn.Module, n))]
    yield network, "insert append extend pop __getitem__ __setitem__ __delitem__ __call__ __call__".split()
    yield optimizer, ["step", "zero_grad", "state_dict", "load_state_dict", "load_state_dict", "add_param_group"]
    yield schedule, ["step", "state_dict", "load_state_dict"]
    yield statistics, ["add", "merge", "color_pca", "arrays", "of"]
    yield dataset, ["__getitem__", "__len__"]


def functions():
    """Public functions and classes."""
    for module in (minicnn, F, nn, nn.init, optim, data, transforms):
        for name in module.__all__:
            thing = getattr(module, name)
            if callable(thing) and not (inspect.isclass(thing) and issubclass(thing, BaseException)):
                yield thing
    r = minicnn.random
    yield from (r.manual_seed, r.set_random_state, r.generator, r.rows_before)
    yield from (distributed.start, distributed.DataParallel, minicnn.autograd.set_grad_enabled)


def use(thing, rng):
    """What is done with an object that a call has made: (callable, more words that name it)"""
    name = type(thing).__name__
    if isinstance(thing, nn.Module):
        return thing.__call__, inspect.signature(thing.forward), (name,)
    if type(thing).__module__ == transforms.__name__:
        return thing.__call__, inspect.signature(thing.__call__), (name,)
    if isinstance(thing, (optim.Optimizer, optim.Schedule)):
        if name in ("Optimizer", "Schedule"):  # which do not define a step
            return None
        return thing.step, inspect.signature(thing.step), (name, "step")
    if getattr(thing, "__module__", "") == nn.init.__name__:
        return thing, inspect.signature(thing), ("shape", "init", "weight")
    if hasattr(type(thing), "__getitem__") and type(thing).__module__.startswith("minicnn.data"):
        return thing.__getitem__, inspect.signature(thing.__getitem__), (name, "index")
    return None


SYMBOLS = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "pow": "**", "matmul": "@", "lt": "<", "le": "<=", "gt": ">",
    "ge": ">=", "eq": "==", "ne": "!=", "and": "&", "or": "|", "invert": "~", "neg": "-",
    "getitem": "index", "setitem": "index", "delitem": "index", "float": "item", "int": "item", "iter": "length",
}  # fmt: skip
ALSO = {  # what messages call these, besides their names
    "truediv": ["Div"], "rtruediv": ["Div"], "itruediv": ["Div"], "pow": ["PowScalar"], "ipow": ["PowScalar"],
    "DataLoader": ["dataset"], "BCEWithLogitsLoss": ["binary_cross_entropy_with_logits"], "BatchNorm2d": ["batch_norm"],
    "load_state_dict": ["state"], "swapaxes": ["axis"], "transpose": ["axis"], "plus": ["Add"], "times": ["Mul"],
    **{name: ["linear", "conv2d", "batch_norm", "input", "relu", "tanh"] for name in ("Sequential", "summary", "forward")},
    "Resize": ["pixels"],
    **{name: ["folder", "batches"] for name in ("ImageFolder", "ImageNet", "CIFAR10")},
    **{name: ["item"] for name in ("gradcheck", "gradgradcheck")},  # of a wild f
    "Parameter": ["Tensor"], "set_random_state": ["seed", "draws"],
}  # fmt: skip


def words_for(thing, signature):
    """What a message may call this function and its arguments."""
    name = getattr(thing, "__name__", type(thing).__name__)
    plain = re.sub(r"^__i?r?(?=\w+__$)|__", "", name)
    words = {name, plain, SYMBOLS.get(plain, name), *signature.parameters}
    for bare in [name.strip("_")]:
        for cut in (0, 1):
            words.add(SYMBOLS.get(bare[cut:], name))
            words.add(bare[cut:] if bare[cut:] in SYMBOLS else name)
    if hasattr(thing, "__self__"):
        words.add(type(thing.__self__).__name__)
    words |= {also for word in list(words) for also in ALSO.get(word, ())}
    words |= {word[:-1] for word in words if word.endswith("s")}
    return {word for word in words if word} - {"self", "args", "options"}


def draw_arguments(signature, rng):
    """Some arguments, positional and named: right ones, wild ones, too few, too many."""
    given, named, p_wild = [], {}, rng.choice((0, 0.1, 0.3, 0.3, 0.6))
    positional = True
    for name, parameter in signature.parameters.items():
        optional = parameter.default is not parameter.empty
        if (optional and rng.random() < 0.5) or (not optional and rng.random() < 0.005):
            positional = False
            continue
        make = RIGHT.get(name, wild)
        count = rng.randrange(4) if parameter.kind is parameter.VAR_POSITIONAL else 1
        for _ in range(count):
            value = wild(rng) if rng.random() < p_wild else make(rng)
            if parameter.kind is parameter.VAR_KEYWORD:
                named[rng.choice(("a", "b1", "lr"))] = value
            elif positional and parameter.kind is not parameter.KEYWORD_ONLY:
                given.append(value)
            elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.kind is not parameter.POSITIONAL_ONLY:
                named[name] = value
        positional = positional and parameter.kind is not parameter.KEYWORD_ONLY
    if rng.random() < 0.01:
        given.append(wild(rng))
    if rng.random() < 0.01:
        named["colour"] = wild(rng)
    return given, named


# ------------------------------------------------------------------------------------------ judgment
def picture(value, depth=0):
    """What must stay as it is in a call that is refused."""
    if isinstance(value, Tensor):
        return "Tensor", id(value), picture(value.data), value.requires_grad, picture(value.grad)
    if isinstance(value, np.ndarray):
        content = repr(value.tolist()) if value.dtype.hasobject else value.tobytes()
        return value.shape, str(value.dtype), value.strides, content
    if depth > 4:
        return id(value)
    if isinstance(value, nn.Module):
        kept = {name: part for name, part in vars(value).items() if name not in ("training", "_hooks")}
        return value.training, len(value._hooks), picture(kept, depth)
    if isinstance(value, (list, tuple)):
        return type(value), [picture(part, depth + 1) for part in value]
    if isinstance(value, dict):
        parts = [
            (key, part) for key, part in value.items() if not (isinstance(key, str) and key == "_hooks" and not part)
        ]
        return [(key if isinstance(key, str) else id(key), picture(part, depth + 1)) for key, part in parts]
    if type(value).__module__.startswith("minicnn.") and hasattr(value, "__dict__"):
        return picture(vars(value), depth + 1)
    return id(value)


@functools.cache
def raises(path):
    """The lines of a file on which it raises something."""
    nodes = [node for node in ast.walk(ast.parse(Path(path).read_text())) if isinstance(node, ast.Raise)]
    return {line for node in nodes for line in range(node.lineno, node.end_lineno + 1)}


def descriptions(value, depth=0):
    """Some of the ways to say what a value is."""
    yield from (type(value).__name__, type(value).__qualname__)
    try:
        yield from (repr(value), str(value))
    except Exception:
        return
    if isinstance(value, (np.ndarray, np.generic, Tensor)):
        yield from (str(value.shape), str(value.dtype), str(value.ndim), f"{value.ndim} axes", f"{value.ndim} dim")
        if value.size == 1 and value.dtype.kind in "fiub":
            yield from (str(value.item()), repr(value.data))
        yield from map(str, value.shape)
    if isinstance(value, (list, tuple, dict, set)) and depth < 2:
        yield from (str(len(value)), str(list(value)))
        for part in [*value, *(value.values() if isinstance(value, dict) else ())]:
            yield from descriptions(part, depth + 1)
    if callable(value) or inspect.ismodule(value):
        yield getattr(value, "__name__", "")
    if hasattr(value, "__next__"):
        yield from ("[1, 2]", "1", "int")  # what wild_object's held
    if isinstance(value, bytes):
        yield from descriptions(value.decode(), depth)
    if isinstance(value, str):
        yield value.encode("unicode_escape").decode()
    with contextlib.suppress(Exception):
        yield str(list(value))
        yield from (text for part in [*value][:5] for text in (str(part), type(part).__name__, str(np.shape(part))))
    with contextlib.suppress(Exception):
        yield from (str(np.asarray(value).shape), str(np.asarray(value).dtype))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError, ValueError):
            yield from ("()", str(int(value)), str(float(value)))


SIGNATURE = re.compile(
    r"missing \d|takes (no|from|\d|exactly|at most)|unexpected keyword|multiple values|takes at least|required (argument|positional)|positional-only"
)
NO_VALUES = ("clip_grad_norm: no parameter", "arrays X of images", "batches.meta.txt", "these arrays are not")
NUMERICAL = ("encountered in", "Degrees of freedom", "Mean of empty slice")


def fault_of(error, words, values):
    """Why this exception is a failure; None if it is a proper refusal."""
    text = str(error)
    if isinstance(error, Warning):
        return None if any(part in text for part in NUMERICAL) else "a warning"
    if isinstance(error, MemoryError | minicnn.GradcheckError):  # the latter is an answer
        return None
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    if text.endswith("hostile") or (isinstance(error, OSError) and error.filename is not None):
        return None
    if isinstance(error, TypeError) and SIGNATURE.search(text) and "(" in text and len(frames) <= 4:
        return None
    if not last.filename.startswith(PACKAGE):
        return "not raised by minicnn" if last.filename != str(HERE) else "raised at the call"
    if last.lineno not in raises(last.filename):
        return "not raised by minicnn"
    if "\n" in text.partition("\n\nthe layers before it")[0] and not any(
        isinstance(v, str) and "\n" in v for v in values
    ):
        return "several lines"
    plain = text.lower().replace("_", "")
    if not any(re.search(rf"(?<!\w){re.escape(word.lower().replace('_', ''))}s?(?!\w)", plain) for word in words):
        return "names neither the function nor an argument"
    if "" in [value for value in values if isinstance(value, str)]:  # nothing that a message could repeat
        return None
    if (
        values
        and not text.startswith(NO_VALUES)
        and not any(len(d) and d in text for value in [*values, tuple(values)] for d in descriptions(value))
    ):
        return "does not say what it got"
    return None


def fault_in(result):
    """Why this result is one that there must not be; None if it is fine."""
    for part in result if isinstance(result, (tuple, list)) else [result]:
        if isinstance(part, Tensor) and (not isinstance(part.data, np.ndarray) or part.dtype.kind not in "fiub"):
            return f"a Tensor of {getattr(part.data, 'dtype', type(part.data).__name__)}"
        if isinstance(part, Tensor) and not part.dtype.isnative:
            return "a Tensor in another machine's order of bytes"
    return None


def one_call(seed, number, loud=False):
    """('works' | 'refused' | the kind of failure, function, text)"""
    rng = random.Random(f"{seed} {number}")
    things = list(functions())
    receiver = None
    if rng.random() < 0.5:
        choices = [(make, name) for make, names in instances() for name in names]
        make, name = rng.choice(choices)
        receiver = make(rng)
        thing = getattr(receiver, name, None)
        thing = thing if callable(thing) else nn.ReLU().forward
    else:
        thing = rng.choice(things)
    title = getattr(thing, "__qualname__", type(thing).__name__)
    steps, words = 0, set()
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        signature = inspect.signature(lambda *args: None)
    more = ()
    while True:
        steps += 1
        given, named = draw_arguments(signature, rng)
        words |= words_for(thing, signature) | set(more)
        values = [*given, *named.values()]
        before = picture([receiver, values])
        if loud:
            print(f"{title}(*{given!r}, **{named!r})"[:3000])
        if title in ("Tensor.__format__", "print"):
            given = given[:1]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.filterwarnings("ignore", category=RuntimeWarning, message=".*encountered in")
                with minicnn.use_backend(None):
                    result = thing(*given, **named)
                    if inspect.isgenerator(result) or title.endswith("__iter__"):
                        result = [next(result, None)]
        except BaseException as error:
            if loud:
                traceback.print_exc()
            said = [*values, *([receiver] if receiver is not None else [])]
            fault = fault_of(error, words, said)
            if fault is None and not isinstance(error, MemoryError) and picture([receiver, values]) != before:
                fault = "refused, but changed an argument"
            where = traceback.extract_tb(error.__traceback__)
            inside = next((f for f in reversed(where) if f.filename.startswith(PACKAGE)), where[-1])
            place = f"{Path(inside.filename).name}:{inside.lineno}"
            if fault is None:
                return "MemoryError" if isinstance(error, MemoryError) else "refused", title, str(error)
            return fault, title, f"{type(error).__name__} {place} {str(error)[:300]}"
        fault = fault_in(result)
        if fault is not None:
            return f"wrong result: {fault}", title, ""
        used = use(result, rng) if (steps == 1 and inspect.isclass(thing)) or title.endswith("init") else None
        if used is None:
            return "works", title, ""
        thing, signature, more = used
        receiver = result
        title += "()"


# ------------------------------------------------------------------------------------------ processes
def worker(seed, start, stop):
    """Make the calls start to stop − 1; a line of JSON before and after each."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # print is among the arguments
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    minicnn.set_num_threads(2)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + ROOM, pages + ROOM))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for number in range(start, stop):
            print(json.dumps([number]), file=out)
            minicnn.set_num_threads(2)
            minicnn.manual_seed(0)
            print(json.dumps([number, *one_call(seed, number)]), file=out)
        os.chdir("/")


def supervise(seed, calls, begin=0):
    """Yield (number, kind, function, text) for each call, in processes that end with crashes and hangs."""
    at, end = begin, begin + calls
    while at < end:
        stop = min(at + BATCH, end)
        command = [sys.executable, str(HERE), "--seed", str(seed), "--worker", str(at), str(stop)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            events = selectors.DefaultSelector()
            events.register(process.stdout, selectors.EVENT_READ)
            running, hung = at, False
            while True:
                if not events.select(PATIENCE):
                    hung = True
                    process.kill()
                line = process.stdout.readline()
                if not line:
                    break
                number, *outcome = json.loads(line)
                running = number
                if outcome:
                    at = number + 1
                    yield number, *outcome
            process.wait()
        if at < stop:  # the process ended before its time
            how = "hang" if hung else f"crash, status {process.returncode}"
            if process.returncode in (-signal.SIGINT, 1) and running == at and not hung:
                how = "crash of the worker, status 1"
            yield running, how, "", ""
            at = running + 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--begin", type=int, default=0, help="the number of the first call")
    parser.add_argument("--only", type=int, help="the number of one call to make here, with all that it says")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--all", action="store_true", help="write every call that fails, not one of each kind")
    options = parser.parse_args()
    if options.worker:
        worker(options.seed, *options.worker)
        return 0
    if options.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            print(*one_call(options.seed, options.only, loud=True))
        return 0
    totals, kinds = collections.Counter(), collections.defaultdict(list)
    for number, kind, function, text in supervise(options.seed, options.calls, options.begin):
        totals[kind] += 1
        if kind not in ("works", "refused", "MemoryError"):
            plain = re.sub(r"0x[0-9a-f]+|\d+", "#", text)[:90]
            kinds[kind, function if options.all else plain].append((number, function, text))
    for (kind, _), found in sorted(kinds.items(), key=lambda item: -len(item[1])):
        number, function, text = found[0]
        print(f"{len(found):5} × {kind}: {function}, call {number}: {text}")
    print(", ".join(f"{kind} {count}" for kind, count in totals.most_common()))
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
