"""Learning-rate schedules: each changes the learning rate of every group of an optimizer's
parameters when its step() is called, after an epoch or after an update, as you choose. Groups whose
rates differ at first keep their own: each rate follows from the one that its group had when the
schedule was made.
"""

from collections.abc import Callable, Mapping
from math import cos, inf, pi
from typing import Any

import numpy as np

from ..checks import choice, number, real, shown, whole
from .optimizer import Optimizer


def count(name: str, value: Any) -> int:
    """The value, an integer from 0, also if it is a float, which JSON may have made of it."""
    number(name, value, 0, 2**53)
    return whole(name, int(value) if value == int(value) else value)


def level(name: str, value: Any) -> float:
    """The value as a float; it may be infinite."""
    number(name, value, finite=False)
    return float(value)


class Schedule:
    """What all schedules share: the optimizer, how often step() was called, and a state that is a
    few numbers.

    The state is how far the schedule has come, and base_lrs, the rates that the groups had when it
    was made; so the optimizer and its schedule may be loaded in either order. The settings are not
    part of the state: a run can be continued with others, such as more epochs.

    Args:
        optimizer: the Optimizer whose learning rates to change.
    Attributes:
        optimizer: as given.
        count: how often step() was called.
        base_lrs: for each group the learning rate that it had at first.
        progress: the names of what the state consists of, and functions that check their values.
    """

    # what the state consists of, and what that may be
    progress: Mapping[str, Callable[[str, Any], Any]] = {"count": count}

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__} takes an optimizer first, not a {type(optimizer).__name__}")
        self.optimizer, self.count = optimizer, 0
        self.base_lrs: list[float] = [group["lr"] for group in optimizer.param_groups]

    def __repr__(self) -> str:
        """How far the schedule has come, and its settings."""
        numbers = {name: value for name, value in vars(self).items() if name != "optimizer"}
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in numbers.items())})"

    def state_dict(self) -> dict[str, Any]:
        """A dict of the numbers that say how far the schedule has come, and of base_lrs."""
        return {**{name: getattr(self, name) for name in self.progress}, "base_lrs": [*self.base_lrs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what state_dict returned.

        Args:
            state: that dict. Without base_lrs the schedule stays on its own.
        Raises:
            ValueError: the names or the number of groups differ, or a value is out of range.
                Nothing is changed then.
        """
        if not isinstance(state, Mapping):
            raise ValueError(f"a state is a dict, as state_dict() returns, not a {type(state).__name__}")
        base_lrs = np.ravel(state.get("base_lrs", self.base_lrs)).tolist()
        groups = len(self.optimizer.param_groups)
        if state.keys() - {"base_lrs"} != set(self.progress) or len(base_lrs) != groups:
            raise ValueError(
                f"not a state of {type(self).__name__} over {groups} groups: {sorted(map(str, state))}, "
                f"with {len(base_lrs)} base_lrs, instead of {sorted([*self.progress, 'base_lrs'])}"
            )
        progress = {name: fits(f"{type(self).__name__}: {name}", state[name]) for name, fits in self.progress.items()}
        for lr in base_lrs:
            number(f"{type(self).__name__}: a learning rate in base_lrs", lr, 0)
        self.base_lrs = base_lrs
        vars(self).update(progress)


class _Formula(Schedule):
    """A schedule whose rates follow from the count."""

    def rate(self, base_lr: float) -> float:
        """The rate now of a group that had base_lr at first."""
        raise NotImplementedError(f"{type(self).__name__} does not define rate")

    def set_rates(self) -> None:
        """Give every group the learning rate that the count asks for.

        Raises:
            ValueError: groups were added to the optimizer after the schedule was made.
        """
        groups, count = self.optimizer.param_groups, len(self.base_lrs)
        if len(groups) != count:
            raise ValueError(f"a schedule made for {count} groups of parameters has {len(groups)} now: make a new one")
        for group, base_lr in zip(groups, self.base_lrs, strict=True):
            group["lr"] = self.rate(base_lr)

    def step(self) -> None:
        """Count one more epoch or update, and set the learning rates."""
        self.count += 1
        self.set_rates()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.set_rates()


class StepLR(_Formula):
    """Multiply the learning rate by gamma after every step_size calls: lr · gamma^⌊count /
    step_size⌋.

    Args:
        optimizer: the Optimizer whose learning rates to change.
        step_size: calls of step() between two changes, 1 or more.
        gamma: the factor, 0 or more.
    Raises:
        ValueError: a setting is out of range.

    Example:
        >>> import minicnn
        >>> optimizer = minicnn.optim.SGD([minicnn.nn.Parameter(np.zeros(2))], lr=0.8)
        >>> schedule = StepLR(optimizer, step_size=1, gamma=0.5)
        >>> schedule.step()
        >>> optimizer.lr
        0.4
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        super().__init__(optimizer)
        whole("StepLR: step_size", step_size, 1)
        number("StepLR: gamma", gamma, 0)
        self.step_size, self.gamma = step_size, gamma

    def rate(self, base_lr: float) -> float:
        """base_lr · gamma^⌊count / step_size⌋"""
        return base_lr * self.gamma ** (self.count // self.step_size)


class CosineLR(_Formula):
    """Raise the learning rate in a straight line over warmup_steps, then lower it along half a
    cosine to min_lr at total_steps (Loshchilov and Hutter 2017).

    The first update, before any call, has the rate base_lr / warmup_steps, or base_lr without a
    warm-up.

    Args:
        optimizer: the Optimizer whose learning rates to change.
        total_steps: calls of step() until min_lr is reached.
        warmup_steps: calls of step() until base_lr is reached, fewer than total_steps.
        min_lr: the last learning rate, 0 or more.
    Raises:
        ValueError: a setting is out of range.

    Example:
        >>> import minicnn
        >>> optimizer = minicnn.optim.SGD([minicnn.nn.Parameter(np.zeros(2))], lr=0.8)
        >>> schedule = CosineLR(optimizer, total_steps=4, warmup_steps=2)
        >>> optimizer.lr
        0.4
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
        """The point of the line or of the cosine at the count."""
        if self.count < self.warmup_steps:
            return base_lr * (self.count + 1) / self.warmup_steps
        done = min(1.0, (self.count - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return self.min_lr + (base_lr - self.min_lr) * (1 + cos(pi * done)) / 2


class ReduceLROnPlateau(Schedule):
    """Multiply the learning rate by factor when a metric has not improved for more than patience
    calls.

    The paper's authors did so by hand, with factor 0.1, when the validation error stopped improving
    (Krizhevsky et al. 2012, section 5).

    Args:
        optimizer: the Optimizer whose learning rates to change.
        mode: "min" if a smaller metric is better, "max" if a larger one is.
        factor: above 0 and below 1.
        patience: how many calls without an improvement are waited for.
        threshold: relative change that counts as an improvement.
        min_lr: no rate falls lower than this.
    Attributes:
        best: the best metric so far, of the opposite sign if mode is "max".
        waited: how many calls ago that was, or the rate fell last.
    Raises:
        ValueError: a setting is out of range.

    Example:
        >>> import minicnn
        >>> optimizer = minicnn.optim.SGD([minicnn.nn.Parameter(np.zeros(2))], lr=0.8)
        >>> schedule = ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        >>> schedule.step(1.0)  # the first is an improvement
        >>> schedule.step(1.0)
        >>> optimizer.lr
        0.4
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
        """Count one more epoch, and lower the learning rates if it is time.

        Args:
            metric: a float, such as the validation loss. NaN is not an improvement.
        """
        if (value := real(metric)) is None:
            raise TypeError(f"{type(self).__name__}.step: metric must be a number, not {shown(metric)}")
        value = self.sign * value
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
