"""SGD and Adam on a GPU: the functions of optim/optimizer.py, for all parameters at once, by the
kernels of optimizer.cu."""

import sys
from collections import defaultdict
from typing import Any

import numpy as np

from ..devices import Array
from .graph import refuse_capture
from .launch import check_array, contiguous, launch, pack

MOST = 24  # parameters to a launch
PARAMETERS = np.dtype([(name, np.uint64, MOST) for name in ("w", "g", "a", "b")] + [("end", np.int64, MOST)])
Arrays = tuple[Array, ...]  # (w, g), or with one or two arrays of state


def sgd(
    every: list[Arrays], lr: float, momentum: float, weight_decay: float, nesterov: bool, paper_update: bool
) -> None:
    _launch("optimizer.sgd", every, 3 if momentum else 2, lr, momentum, weight_decay, nesterov, paper_update)


def adam(every: list[Arrays], step: Any) -> None:
    betas = step.beta1, 1 - step.beta1, step.beta2, 1 - step.beta2
    _launch("optimizer.adam", every, 4, step.rate, *betas, step.eps, step.weight_decay, step.keep)


def _launch(kernel: str, every: list[Arrays], arity: int, *numbers: Any) -> None:
    """One launch for MOST parameters of a dtype whose elements come in packs, and others for those
    that do not."""
    refuse_capture("an update of parameters would have this step's learning rate for ever")
    here = sys.modules["cupy"].cuda.runtime.getDevice()
    alike: defaultdict[tuple[Any, int], list[Arrays]] = defaultdict(list)
    for w, g, *state in every:
        arrays = (w, contiguous(g), *state)
        if len(arrays) != arity:
            raise ValueError(f"{kernel} takes {arity} arrays for each parameter, not {len(arrays)}")
        shape, dtype = w.shape, w.dtype
        what = f"{kernel}: an array of a parameter of shape {shape}"
        for array in arrays:
            check_array(what, array, dtype, here)
            if array.shape != shape:
                raise ValueError(f"{what} has shape {array.shape}")
        alike[dtype, pack(w.size, *arrays)].append(arrays)
    for (dtype, width), parameters in alike.items():
        parameters.sort(key=lambda arrays: -arrays[0].size)
        for first in range(0, len(parameters), MOST):
            some = parameters[first : first + MOST]
            table = np.zeros((), PARAMETERS)
            # all w, then all g, …
            for name, arrays in zip("wgab", zip(*some, strict=True), strict=False):
                table[name][: len(some)] = [array.data.ptr for array in arrays]
            ends = np.cumsum([arrays[0].size for arrays in some])
            table["end"][: len(some)] = ends
            launch(kernel, ends[-1] // width, table, ends[-1], *numbers, real=dtype, MOST=MOST, PACK=width)
