"""One case for every Function of the package: how to make it, and inputs that stay away from its corners."""

import importlib
import pkgutil

import numpy as np
from crew import Together
from reference import distinct, normal

import minicnn
from minicnn.autograd import Function
from minicnn.functional.lrn import Constants
from minicnn.functional.windows import Window


def subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


for _, module, _ in pkgutil.walk_packages(minicnn.__path__, "minicnn."):
    importlib.import_module(module)
FUNCTIONS = {
    f.__name__: f
    for f in subclasses(Function)
    if f.__module__.startswith("minicnn.") and not f.__name__.startswith("_")
}

WINDOW = Window.of((3, 2), (2, 1), ((1, 0), (0, 1)), (1, 2))  # sees an image of 5 × 4 as one of 2 × 3
X, Y = normal(2, 5, 4, 4), normal(2, 2, 3, 6, seed=1)
WEIGHT = normal(3, 2, 2, 6, seed=2)  # of two groups
WINNER = np.random.default_rng(3).integers(0, 6, Y.shape).astype(np.uint8)
A, B, FAR, POSITIVE = normal(2, 3), normal(3, seed=1), distinct(2, 3), abs(normal(2, 3, seed=2)) + 0.5
NORM = Constants(4, 1.0, 0.9, 0.75)

CASES = {  # name: (what it is made of, its inputs)
    "Abs": ((), [FAR]),
    "Add": ((), [A, B]),
    "AddReLU": ((), [FAR, 0.01 * B]),
    "AllGather": ((Together(2), -1), [A]),
    "AllReduce": ((Together(2),), [A]),
    "Standardize": ((0.1,), [normal(3, 2, 2), normal(2, seed=1), normal(2, seed=2)]),
    "StandardizeBackward": ((0.1,), [normal(3, 2, 2, seed=1), normal(3, 2, 2), normal(2, seed=2)]),
    "BatchNorm": ((0.1, abs(normal(2, 2))), [normal(3, 2, 2), normal(2, seed=1), normal(2, seed=2)]),
    "StandardizeSums": ((0.1,), [normal(3, 2, 2, seed=1), normal(3, 2, 2)]),
    "BinMeans": ((2, 3), [X]),
    "BinSpread": ((1, 7), [X]),
    "BroadcastTo": (((4, 2, 3),), [normal(2, 1)]),
    "Cast": ((np.dtype(np.float64),), [A]),
    "Clip": ((-0.12, 0.12), [FAR]),
    "Concatenate": ((1,), [A, normal(2, 1, seed=1), A]),
    "Conv2d": ((WINDOW, 2, (5, 4)), [X, WEIGHT, normal(6)]),
    "Conv2dReLU": ((WINDOW, 2, (5, 4)), [X, WEIGHT, normal(6)]),
    "Conv2dTranspose": ((WINDOW, 2, (5, 4)), [Y, WEIGHT]),
    "Conv2dWeight": ((WINDOW, 2, (5, 4)), [X, Y]),
    "Copy": ((), [A]),
    "CrossEntropy": ((np.array([2, 0]),), [A]),
    "CrossEntropyBackward": ((np.array([2, 0]),), [normal(2), A]),
    "Div": ((), [A, POSITIVE]),
    "DivScalar": ((3,), [A]),
    "Dropout": ((0.4, (5, 0), 3, 1.5), [A]),
    "Exp": ((), [A]),
    "GELU": ((), [3 * A]),
    "Gather": ((WINNER, WINDOW), [normal(2, 5, 4, 6)]),
    "Index": (((slice(None), np.array([2, 0, 2])),), [A]),
    "LocalResponseNorm": ((NORM,), [normal(2, 5)]),
    "LocalResponseNormBackward": ((NORM,), [normal(2, 5), normal(2, 5, seed=1)]),
    "LeakyReLU": ((0.1,), [FAR]),
    "LogisticLoss": ((), [A, normal(2, 3, seed=1)]),
    "Log": ((), [POSITIVE]),
    "LogSoftmax": ((0,), [A]),
    "MatMul": ((), [normal(2, 1, 3, 4), normal(2, 4, 2, seed=1)]),
    "Masked": ((np.array([True, False, True]),), [A]),
    "Max": ((1, False), [FAR]),
    "MaxPool2d": ((WINDOW,), [distinct(2, 5, 4, 2)]),
    "Maximum": ((), [FAR, distinct(3, seed=1) + 0.03]),
    "Min": (((0, 1), True), [FAR]),
    "Minimum": ((), [FAR, distinct(3, seed=1) + 0.03]),
    "Mul": ((), [A, B]),
    "Neg": ((), [A]),
    "Pad": ((((1, 0), (0, 2)), 3.0), [A]),
    "Pow": ((), [POSITIVE, B]),
    "PowScalar": ((-1.5,), [POSITIVE]),
    "ReLU": ((), [FAR]),
    "ReduceScatter": ((Together(2), (2, 2), -1), [normal(2, 4)]),
    "Reshape": (((3, 2),), [A]),
    "Scatter": ((WINNER, WINDOW, (5, 4)), [Y]),
    "Sigmoid": ((), [A]),
    "Softmax": ((1,), [A]),
    "Sqrt": ((), [POSITIVE]),
    "Sub": ((), [A, B]),
    "Sum": ((0, False), [A]),
    "Tanh": ((), [A]),
    "ToDevice": (("cpu",), [A]),
    "Transpose": (((2, 0, 1),), [normal(2, 3, 4)]),
    "IndexAdd": (([2, 0, 2], (4, 3), False), [normal(3, 3)]),
    "Where": ((np.array([True, False, True]),), [B, normal(2, 1)]),
    "WherePositive": ((FAR,), [A]),
    "WindowSum": (((2, 1),), [normal(2, 5)]),
}
