"""The optimizers' steps (optim/optimizer.py), by the kernels of optimizer.c, one launch for all
parameters of a dtype."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from ..numpy import optimizer as numpy
from .launch import PLAIN, REALS, Array, Declared, address, contiguous, launch

Arrays = tuple[Array, ...]  # (w, g), or with one or two arrays of state
MOST = 4  # of these


def sgd(parameters: list[Arrays], lr: float, momentum: float, weight_decay: float, nesterov: bool, paper: bool) -> None:
    """Make a step for every (w, g), or (w, g, v) with momentum."""
    numbers = lr, momentum, weight_decay, nesterov, paper
    _step("optimizer.sgd", parameters, numbers, lambda rest: numpy.sgd(rest, *numbers))


def adam(parameters: list[Arrays], step: Any) -> None:
    """Make a step for every (w, g, m, v)."""
    betas = step.beta1, 1 - step.beta1, step.beta2, 1 - step.beta2
    numbers = step.rate, *betas, step.eps, step.weight_decay, step.keep
    _step("optimizer.adam", parameters, numbers, lambda rest: numpy.adam(rest, step))


def _step(
    kernel: str, parameters: list[Arrays], numbers: tuple[float, ...], otherwise: Callable[[list[Arrays]], None]
) -> None:
    """Launch a kernel for the parameters of each dtype. Where a parameter has arrays that C cannot
    take, such as a gradient of another dtype, otherwise(parameters) makes its step."""
    alike: defaultdict[Any, list[Arrays]] = defaultdict(list)
    for arrays in parameters:
        alike[arrays[0].dtype if _fit(*arrays) else None].append(arrays)
    if rest := alike.pop(None, None):
        otherwise(rest)
    for dtype, some in alike.items():
        some = [(w, contiguous(g), *state) for w, g, *state in some]
        declared, at, ends = Declared(kernel, dtype, PLAIN), [], [0]
        for arrays in some:
            at += [address(array, declared) for array in arrays] + [0] * (MOST - len(arrays))
            ends.append(ends[-1] + arrays[0].size)
        tables = np.array(at, np.uint64), np.array(ends, np.intp)
        launch(kernel, ends[-1], len(some), *tables, *numbers, real=dtype)


def _fit(w: Array, g: Array, *state: Array) -> bool:
    """Whether a parameter's arrays are of one dtype, float32 or float64, and one shape, and those
    that a step changes can be written to and lie plainly in memory."""
    shape, dtype = w.shape, w.dtype
    for array in (w, *state):
        if array.dtype != dtype or array.shape != shape or not array.flags.carray:
            return False
    return dtype in REALS and g.dtype == dtype and g.shape == shape
