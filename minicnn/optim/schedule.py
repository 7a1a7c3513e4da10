"""Learning-rate schedules: each changes the rate of every group of an optimizer's parameters when its
step() is called, after an epoch or after an update, as you choose. Groups whose rates differ at first keep
their own: each rate follows from the one that its group had when the schedule was made."""

from collections.abc import Callable, Mapping
from math import cos, inf, pi
from typing import Any

import numpy as np

from ..checks import choice, number, whole
from .optimizer import Optimizer


def count(name: str, value: Any) -> int:
    """A whole number from 0, also as a float, which JSON may have made of it."""
    number(name, value, 0, 2**53)
    return whole(name, int(value) if value == int(value) else value)


def level(name: str, value: Any) -> float:
    """Any number, also an infinite one."""
    number(name, value, finite=False)
    return float(value)


class Schedule:
    """What all schedules share: the optimizer, how often step() was called, and a state that is a few numbers.

    The state is how far it has come, and base_lrs, the rates that the groups had when it was made; so it
    does not matter which of the two, the optimizer or its schedule, is loaded first. The settings are those
    it was made with: a run can be continued with others, for more epochs, say.
    """

    progress: Mapping[str, Callable[[str, Any], Any]] = {"count": count}  # what it consists of, and what that may be

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__} takes an optimizer first, not a {type(optimizer).__name__}")
        self.optimizer, self.count = optimizer, 0
        self.base_lrs: list[float] = [group["lr"] for group in optimizer.param_groups]

    def __repr__(self) -> str:
        """How far it has come, and its settings."""
        numbers = {name: value for name, value in vars(self).items() if name != "optimizer"}
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in numbers.items())})"

    def state_dict(self) -> dict[str, Any]:
        """The numbers that say how far it has come, and base_lrs."""
        return {**{name: getattr(self, name) for name in self.progress}, "base_lrs": [*self.base_lrs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what state_dict returned. Without base_lrs it stays on its own. Raises ValueError,
        having changed nothing, if the names or the number of groups are others, or a number is out of range."""
        if not isinstance(state, Mapping):
            raise ValueError(f"a state is a dict, as state_dict() returns, not a {type(state).__name__}")
        base_lrs = np.ravel(state.get("base_lrs", self.base_lrs)).tolist()
        groups = len(self.optimizer.param_groups)
        if state.keys() - {"base_lrs"} != set(self.progress) or len(base_lrs) != groups:
            raise ValueError(
                f"this is no state of {type(self).__name__} over {groups} groups: {sorted(map(str, state))}, "
                f"with {len(base_lrs)} base_lrs, not {sorted([*self.progress, 'base_lrs'])}"
            )
        progress = {name: fits(f"{type(self).__name__}: {name}", state[name]) for name, fits in self.progress.items()}
        for lr in base_lrs:
            number(f"{type(self).__name__}: a rate of base_lrs", lr, 0)
        self.base_lrs = base_lrs
        vars(self).update(progress)


class _Formula(Schedule):
    """A schedule whose rates follow from the count."""

    def rate(self, base_lr: float) -> float:
        """The rate now of a group that had base_lr at first."""
        raise NotImplementedError(f"{type(self).__name__} does not define rate")

    def set_rates(self) -> None:
        groups, count = self.optimizer.param_groups, len(self.base_lrs)
        if len(groups) != count:
            raise ValueError(f"a schedule made for {count} groups of parameters has {len(groups)} now: make a new one")
        for group, base_lr in zip(groups, self.base_lrs, strict=True):
            group["lr"] = self.rate(base_lr)

    def step(self) -> None:
        self.count += 1
        self.set_rates()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.set_rates()


class StepLR(_Formula):
    """lr · gamma^⌊count / step_size⌋: divided by 10 after every step_size calls, if gamma is 0.1."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        super().__init__(optimizer)
        whole("StepLR: step_size", step_size, 1)
        number("StepLR: gamma", gamma, 0)
        self.step_size, self.gamma = step_size, gamma

    def rate(self, base_lr: float) -> float:
        return base_lr * self.gamma ** (self.count // self.step_size)


class CosineLR(_Formula):
    """Up in a straight line over warmup_steps, then down along half a cosine to min_lr at total_steps (Loshchilov and
    Hutter 2017).

    The first update, before any call, has the rate base_lr/warmup_steps, or base_lr without a warm-up.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, *, warmup_steps: int = 0, min_lr: float = 0.0) -> None:
        super().__init__(optimizer)
        whole("CosineLR: total_steps", total_steps)
        whole("CosineLR: warmup_steps", warmup_steps)
        number("CosineLR: min_lr", min_lr, 0)
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(f"CosineLR needs 0 ≤ warmup_steps < total_steps, not {warmup_steps} and {total_steps}")
        self.total_steps, self.warmup_steps, self.min_lr = total_steps, warmup_steps, min_lr
        self.set_rates()

    def rate(self, base_lr: float) -> float:
        if self.count < self.warmup_steps:
            return base_lr * (self.count + 1) / self.warmup_steps
        done = min(1.0, (self.count - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return self.min_lr + (base_lr - self.min_lr) * (1 + cos(pi * done)) / 2


class ReduceLROnPlateau(Schedule):
    """Multiply lr by factor when a quantity has not improved for more than `patience` calls: what the paper's authors
    did by hand, with factor 0.1, when the validation error stopped improving (Krizhevsky et al. 2012, section 5).

    Args:
        optimizer: whose rates to change.
        mode: "min" if smaller is better, "max" if larger is.
        factor, patience: as above.
        threshold: relative change that counts as an improvement.
        min_lr: no rate falls lower than this.
    """

    progress = {"count": count, "best": level, "waited": count}

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        *,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(optimizer)
        choice("ReduceLROnPlateau: mode", mode, "min", "max")
        number("ReduceLROnPlateau: factor", factor, 5e-324, below=1)  # the smallest number above 0
        whole("ReduceLROnPlateau: patience", patience, 0)
        number("ReduceLROnPlateau: threshold", threshold, 0)
        number("ReduceLROnPlateau: min_lr", min_lr, 0)
        self.sign = 1 if mode == "min" else -1
        self.factor, self.patience, self.threshold, self.min_lr = factor, patience, threshold, min_lr
        self.best, self.waited = inf, 0

    def step(self, metric: float) -> None:
        value = self.sign * float(metric)
        self.count += 1
        if value < self.best - self.threshold * abs(self.best) or (self.best == inf and value < inf):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if self.waited > self.patience:
            for group in self.optimizer.param_groups:
                lr = group["lr"]  # perhaps set by hand, below min_lr
                group["lr"] = min(lr, max(lr * self.factor, self.min_lr))
            self.waited = 0
