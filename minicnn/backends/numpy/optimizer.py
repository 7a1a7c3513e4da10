"""The optimizers' steps (optim/optimizer.py) on all threads, in blocks that stay in a core's cache:
this takes a fifth of the time of a step of SGD with temporaries as large as the parameters.
"""

from typing import Any

import numpy as np

from .memory import scratch
from .threads import Array, elementwise


def sgd(
    parameters: list[tuple[Array, ...]], lr: float, momentum: float, weight_decay: float, nesterov: bool, paper: bool
) -> None:
    """Make a step for every (w, g), or (w, g, v) with momentum."""

    def block(w: Array, g: Array, *velocity: Array) -> None:
        step = scratch("step", w.shape, like=w)
        if weight_decay:
            np.multiply(w, weight_decay, out=step)
            step += g  # g + λw
        else:
            step[...] = g
        if paper:
            step *= -lr
        for v in velocity:
            v *= momentum
            v += step
            if not nesterov:
                step = v
            else:
                step += np.multiply(v, momentum, out=scratch("ahead", w.shape, like=w))
        if paper:
            w += step
        else:
            w -= np.multiply(step, lr, out=scratch("scaled", w.shape, like=w))

    for arrays in parameters:
        elementwise(block, *arrays)


def adam(parameters: list[tuple[Array, ...]], step: Any) -> None:
    """Make a step for every (w, g, m, v)."""

    def block(w: Array, g: Array, m: Array, v: Array) -> None:
        other = scratch("other", w.shape, like=w)
        if step.weight_decay:
            gradient = np.multiply(w, step.weight_decay, out=scratch("step", w.shape, like=w))
            gradient += g
            g = gradient
        np.multiply(g, 1 - step.beta1, out=other)
        m *= step.beta1
        m += other
        np.multiply(g, g, out=other)
        other *= 1 - step.beta2
        v *= step.beta2
        v += other
        np.sqrt(v, out=other)
        other += step.eps
        np.divide(m, other, out=other)
        other *= step.rate
        w *= step.keep
        w -= other

    for arrays in parameters:
        elementwise(block, *arrays)
