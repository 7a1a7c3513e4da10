"""Optimizers: how parameters follow their gradients. They write to the parameters in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..backends import devices, kernel_of_many
from ..backends.devices import Array, assign, on_device_of
from ..checks import choice, number, several, shown
from ..tensor import Tensor

# of one parameter: (w, g), its value and gradient, and the state that belongs to it
Arrays = tuple[Array, ...]
# the parameters, or groups of them with settings
Params = Iterable[Tensor] | Iterable[dict[str, Any]]


@kernel_of_many
def sgd(parameters: list[Arrays], lr: float, momentum: float, weight_decay: float, nesterov: bool, paper: bool) -> None:
    """Make a step for every (w, g), or (w, g, v) with momentum."""
    for w, g, *velocity in parameters:
        step = g + weight_decay * w
        if paper:
            step = -lr * step
        for v in velocity:
            v *= momentum
            v += step
            step = step + momentum * v if nesterov else v
        if paper:
            w += step
        else:
            w -= lr * step


class AdamStep(NamedTuple):
    """The constants of one step of Adam. They hold the corrections of m and v, which so need no
    passes over arrays (Kingma and Ba 2015, end of section 2): with c₁ = 1 − β₁ᵗ and c₂ = 1 − β₂ᵗ at
    step t,

        lr · m̂ / (√v̂ + ε)  =  (lr √c₂ / c₁) · m / (√v + ε √c₂)
    """

    rate: float  # lr √c₂ / c₁
    beta1: float
    beta2: float
    eps: float  # ε √c₂
    weight_decay: float  # this times w is added to g
    keep: float  # w is multiplied by this

    @classmethod
    def of(cls, group: dict[str, Any], t: int) -> AdamStep:
        """Step t, from 1, with the settings of a group."""
        beta1, beta2 = group["betas"]
        c1, root = 1 - beta1**t, (1 - beta2**t) ** 0.5
        return cls(group["lr"] * root / c1, beta1, beta2, group["eps"] * root, group["weight_decay"], 1.0)


@kernel_of_many
def adam(parameters: list[Arrays], step: AdamStep) -> None:
    """Make a step for every (w, g, m, v)."""
    for w, g, m, v in parameters:
        g = g + step.weight_decay * w
        m *= step.beta1
        m += (1 - step.beta1) * g
        v *= step.beta2
        v += (1 - step.beta2) * g * g
        w *= step.keep
        w -= step.rate * m / (np.sqrt(v) + step.eps)


class Optimizer:
    """What all optimizers share: groups of parameters with their settings, and the named arrays
    that make up their state.

    A group is a dict of Tensors, or of one, and of settings of its own. A setting that a group does
    not name is the one given to the optimizer.

        SGD([{"params": weights}, {"params": biases, "lr": 0.02, "weight_decay": 0.0}], lr=0.01)

    A subclass lists the names of its state's arrays in `slots`, hands __init__ its settings, and
    defines update(parameters, group).

    Args:
        params: Tensors, or dicts {"params": …, "lr": …, …}.
        lr: learning rate, 0 or more.
        settings: the other settings, by the names that a subclass gives them.
    Attributes:
        param_groups: a list of dicts, each with "params", a list, and every setting. They are read
            at each step, so group["lr"] = 0.001 holds from the next step on. add_param_group adds
            one.
        params: the parameters of all groups, in that order.
        defaults: the settings given to the optimizer.
        lr: the learning rate of the first group. Setting it sets that of every group, which is an
            error where the groups' rates differ: set group["lr"] of each then.
        steps: how many steps were made.
        count: in update, how many steps those parameters have made, with this one: fewer than
            `steps`, if they were added later or had no gradient at times.
        state: for each parameter a dict of the arrays that belong to it, by their names:
            state[p]["velocity"].
        slots: the names of those arrays.
        only: a function (parameter, its arrays) -> the parts of these that step() updates, or None
            to update all (distributed.Sharded divides the work with it).
    Raises:
        ValueError: a setting is out of range, a parameter is not a contiguous leaf Tensor or is
            given twice, or none requires a gradient.

    Example:
        >>> import minicnn
        >>> class Signs(minicnn.optim.Optimizer):
        ...     def update(self, parameters, group):
        ...         for w, g in parameters:
        ...             w -= group["lr"] * np.sign(g)
        >>> w = minicnn.nn.Parameter(np.array([2.0, 3.0]))
        >>> (w * w).sum().backward()
        >>> Signs([w], lr=0.5).step()
        >>> w.data
        array([1.5, 2.5])
    """

    slots: tuple[str, ...] = ()

    def __init__(self, params: Params, lr: float, **settings: Any) -> None:
        self.defaults = {"lr": lr, **settings}
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Array]] = {}
        self.steps = self.count = 0
        self.only: Callable[[Tensor, Arrays], list[Arrays]] | None = None
        self.missed: dict[Tensor, int] = {}  # how many steps each parameter was left out of
        given = [] if isinstance(params, Tensor) else several(f"{type(self).__name__}: params", params)
        kinds = {isinstance(part, dict) for part in given}
        if len(kinds) == 2:
            raise ValueError("an optimizer takes parameters or groups of them, dicts with 'params', and not both")
        for group in given if kinds == {True} else [{"params": given}]:
            self.add_param_group(group)
        if not any(p.requires_grad for p in self.params):
            raise ValueError("an optimizer needs parameters of which at least one has requires_grad")

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Move these parameters as well.

        Args:
            group: a dict {"params": …, "lr": …, …}; settings that it does not name are the
                optimizer's.
        Raises:
            ValueError: the group does not fit. Nothing is added then.
        """
        if not isinstance(group, dict):
            raise ValueError(f"a group of parameters is a dict with 'params', not a {type(group).__name__}")
        if unknown := group.keys() - self.defaults.keys() - {"params"}:
            known = ", ".join(self.defaults)
            raise ValueError(
                f"a group of {type(self).__name__} has 'params' and {known}, not {min(unknown, key=str)!r}"
            )
        params = group.get("params", [])
        params = [params] if isinstance(params, Tensor) else several("a group's 'params'", params)
        group = {**self.defaults, **group, "params": params}
        self.check(group)
        _check_once([*self.params, *group["params"]])
        self.missed.update(dict.fromkeys(group["params"], self.steps))
        self.state.update({p: {slot: _zeros(p) for slot in self.slots_of(group)} for p in group["params"]})
        self.param_groups.append(group)

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "lr" and name in vars(self).get("defaults", ()):
            raise AttributeError(f"{type(self).__name__}.{name}: set group[{name!r}] of each of param_groups")
        super().__setattr__(name, value)

    @property
    def params(self) -> list[Tensor]:
        """The parameters of all groups."""
        return [p for group in self.param_groups for p in group["params"]]

    def __repr__(self) -> str:
        """The settings of each group."""
        groups = [
            f"{len(group['params'])} parameters, " + ", ".join(f"{name}={group[name]}" for name in self.defaults)
            for group in self.param_groups
        ]
        return f"{type(self).__name__}({'; '.join(groups)})"

    def slots_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        """The names of the arrays that belong to each parameter of a group.

        Args:
            group: one of param_groups.
        Returns:
            `slots`, or what a subclass makes of the group's settings.
        """
        return self.slots

    def check(self, group: dict[str, Any]) -> None:
        """Check a group's settings and parameters; subclasses check their own settings, too.

        Args:
            group: a dict with "params" and every setting.
        Raises:
            ValueError: a setting is out of range, or a parameter does not fit.
        """
        params = group["params"]
        if (
            not isinstance(params, list)
            or not params
            or not all(isinstance(p, Tensor) and p.grad_fn is None for p in params)
        ):
            raise ValueError(
                f"{type(self).__name__}: an optimizer needs parameters: leaf Tensors with requires_grad, as "
                f"module.parameters() gives them, not {shown(params)}"
            )
        for p in params:
            _check_contiguous(p)
        group["lr"] = number("lr", group["lr"], 0)

    @property
    def lr(self) -> float:
        """The learning rate of the first group."""
        return self.param_groups[0]["lr"]

    @lr.setter
    def lr(self, value: float) -> None:
        rates = [group["lr"] for group in self.param_groups]
        if len(set(rates)) > 1:
            raise ValueError(f"the groups' rates differ, {rates}: set group['lr'] of each of param_groups")
        for group in self.param_groups:
            group["lr"] = number("lr", value, 0)

    def update(self, parameters: list[Arrays], group: dict[str, Any]) -> None:
        """Change parameters in place; each subclass defines how. It is called once a step for each
        group that has gradients (once for each count, where the counts of its parameters differ),
        on their device.

        Args:
            parameters: for each parameter that has a gradient its arrays (w, g, *slots).
            group: one of param_groups, with the settings.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define update")

    def step(self) -> None:
        """Move every parameter that has a gradient.

        Raises:
            ValueError: a gradient does not fit, or what was changed in a group. No parameter is
                moved then.
        """
        moving = []
        for group in self.param_groups:
            if missing := self.defaults.keys() - group.keys():
                raise ValueError(f"a group in param_groups has no {min(missing)!r}: add groups by add_param_group")
            self.check(group)
            slots = self.slots_of(group)
            # those with a gradient, by how many steps they have missed
            alike: dict[int, tuple[list[Tensor], list[Arrays]]] = {}
            for p in group["params"]:
                state = self._state_of(p, slots)
                if p.grad is not None:
                    if not isinstance(p.grad, Tensor) or p.grad.shape != p.shape:
                        raise ValueError(
                            f"the gradient of a parameter of shape {p.shape} is a Tensor of that shape only"
                        )
                    arrays = p.data, p.grad.data, *[state[slot] for slot in slots]
                    if len({type(array) for array in arrays}) > 1:
                        raise ValueError(
                            f"a parameter of shape {p.shape} is on {p.device}, its gradient or the optimizer's "
                            "arrays for it are not: make the optimizer after net.to(…)"
                        )
                    params, every = alike.setdefault(self.missed[p], ([], []))
                    params.append(p)
                    every.append(arrays)
            moving += [(*part, group, missed) for missed, part in alike.items()]
        _check_once(self.params)
        self.steps += 1
        for params, every, group, missed in moving:
            self.count = self.steps - missed
            if self.only is not None:
                every = [part for p, arrays in zip(params, every, strict=True) for part in self.only(p, arrays)]
            with on_device_of(every[0][0]):
                self.update(every, group)
            for p in params:
                p.version[0] += 1
        for p in self.params:
            if p.grad is None:
                self.missed[p] += 1

    def _state_of(self, p: Tensor, slots: tuple[str, ...] = ()) -> dict[str, Array]:
        """The arrays that belong to a parameter; ValueError unless it was added and has all of
        these.
        """
        if p not in self.state:
            raise ValueError(f"a parameter of shape {p.shape} was put into param_groups: add it by add_param_group")
        state = self.state[p]
        for slot in slots:
            if slot not in state:
                raise ValueError(
                    f"a group's settings need {slot!r} for each parameter, which those that {type(self).__name__} was "
                    "made with did not: make a new optimizer"
                )
        return state

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.params:
            p.grad = None

    def state_dict(self) -> dict[str, Array]:
        """The optimizer's state as named arrays, to be saved.

        Returns:
            A dict. Each setting that is numeric, such as lr and betas, has a row for each group
            where there are several groups. `steps` counts the steps, and `missed` how many of these
            each parameter was left out of, if any was. Each parameter's own arrays are not copies;
            "velocity.0" is that of params[0].
        """
        settings = {name: _numbers([group[name] for group in self.param_groups]) for name in self.defaults}
        arrays = {f"{slot}.{i}": array for i, p in enumerate(self.params) for slot, array in self._state_of(p).items()}
        numeric = {name: rows for name, rows in settings.items() if rows is not None}
        missed = [self.missed[p] for p in self.params]
        counts = {"steps": np.array(self.steps)} | ({"missed": np.array(missed)} if any(missed) else {})
        return {**numeric, **counts, **arrays}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Copy back what state_dict returned. Settings other than lr may be missing, as they are in
        older states, and then stay as they are.

        Args:
            state: a dict that state_dict of such an optimizer returned.
        Raises:
            ValueError: names, shapes or kinds of dtype differ, or a setting or count is out of
                range. Nothing is written then.
        """
        if not isinstance(state, Mapping):
            raise ValueError(f"a state is a dict, as state_dict() returns, not a {type(state).__name__}")
        none = np.zeros(len(self.params), int)
        own = {**self.state_dict(), "missed": none}
        state = {"missed": none, **state}
        optional = self.defaults.keys() - {"lr"}
        problems = [f"{name} is missing" for name in own if name not in state and name not in optional]
        for name, value in state.items():
            # a setting may be an int, as in lr=1
            like = np.zeros(own[name].shape, int) if name in self.defaults.keys() & own.keys() else own.get(name)
            misfit = "is unexpected" if like is None else devices.misfit(value, like)
            problems += [f"{name} {misfit}"] if misfit else []
        counts = {name: np.asarray(state[name]) for name in ("steps", "missed") if not problems}
        problems += [f"{name} is {n}" for name, n in counts.items() if n.dtype.kind not in "iu" or (n < 0).any()]
        if not problems and (counts["missed"] > counts["steps"]).any():
            problems = [f"of {counts['steps']} steps {counts['missed'].max()} were missed"]
        if problems:
            raise ValueError(
                f"this is not the state of {type(self).__name__} over these parameters: {'; '.join(problems)}"
            )
        groups = []
        for i, group in enumerate(self.param_groups):
            new = {}
            for name in self.defaults.keys() & state.keys():
                value = np.asarray(state[name])[i if len(self.param_groups) > 1 else ()].tolist()
                new[name] = tuple(value) if isinstance(value, list) else value
            groups.append(new)
            self.check({**group, **new})
        for group, new in zip(self.param_groups, groups, strict=True):
            group.update(new)
        self.steps = int(state["steps"])
        self.missed = dict(zip(self.params, np.asarray(state["missed"]).tolist(), strict=True))
        for name, array in own.items():
            if "." in name:
                assign(array, state[name])


def _zeros(p: Tensor) -> Array:
    with on_device_of(p.data):
        return np.zeros_like(p.data)


def _check_contiguous(p: Tensor) -> None:
    if not p.data.flags.c_contiguous:
        raise ValueError(f"a parameter of shape {p.shape} is not contiguous: wrap its array in nn.Parameter")


def _check_once(params: list[Tensor]) -> None:
    if len(set(params)) < len(params):
        raise ValueError("an optimizer needs each parameter once, in one group")


def _numbers(values: list[Any]) -> Array | None:
    """The values as rows of an array, or a single one by itself; None if they are not all
    numeric."""
    try:
        rows = np.array(values)
    except ValueError:  # of unequal lengths
        return None
    return None if rows.dtype.kind not in "biuf" else rows if len(values) > 1 else np.asarray(rows[0])


class SGD(Optimizer):
    """Stochastic gradient descent with momentum and weight decay (with paper_update as in
    Krizhevsky et al. 2012, section 5).

        v ← momentum · v + g + weight_decay · w          w ← w − lr · v     by default, as PyTorch
        v ← momentum · v − lr · (g + weight_decay · w)   w ← w + v          paper_update

    The two agree as long as lr is constant. When it falls, the first scales what has gathered in v
    at once, and the second lets it run out.

    Args:
        params: the parameters, or groups of them with settings of their own (see Optimizer).
        lr: learning rate.
        momentum: 0.9 in the paper.
        weight_decay: 0.0005 in the paper. It and what follows are given by name, because PyTorch
            has dampening in this place.
        nesterov: look ahead: w ← w − lr · (g + weight_decay · w + momentum · v), with the new v
            (Sutskever et al. 2013).
        paper_update: the second form above.
    Raises:
        ValueError: a setting is out of range, or nesterov is used without momentum or with
            paper_update.

    Example:
        >>> import minicnn
        >>> w = minicnn.nn.Parameter(np.array([2.0, 3.0]))
        >>> (w * w).sum().backward()
        >>> SGD([w], lr=0.25, momentum=0.9).step()
        >>> w.data
        array([1. , 1.5])
    """

    slots = ("velocity",)

    def __init__(
        self,
        params: Params,
        lr: float,
        momentum: float = 0.0,
        *,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        paper_update: bool = False,
    ) -> None:
        super().__init__(
            params, lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, paper_update=paper_update
        )

    def slots_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        """The velocity v, if the group has momentum."""
        return self.slots if group["momentum"] else ()

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        for name in ("momentum", "weight_decay"):
            group[name] = number(name, group[name], 0)
        for name in ("nesterov", "paper_update"):
            choice(name, group[name], False, True)
        if group["nesterov"] and (not group["momentum"] or group["paper_update"]):
            raise ValueError(
                "nesterov needs a momentum above 0, and has no paper_update form; here "
                f"momentum={group['momentum']} and paper_update={group['paper_update']}"
            )

    def update(self, parameters: list[Arrays], group: dict[str, Any]) -> None:
        momentum, decay, nesterov = group["momentum"], group["weight_decay"], group["nesterov"]
        sgd(parameters, group["lr"], momentum, decay, nesterov, group["paper_update"])


class Adam(Optimizer):
    """Adam: steps of about lr in every coordinate, whatever the size of the gradient (Kingma and Ba
    2015, algorithm 1).

        m ← β₁ m + (1 − β₁) g     v ← β₂ v + (1 − β₂) g²     w ← w − lr · m̂ / (√v̂ + ε)

    with m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ) at step t; weight_decay · w is added to g first. In
    float32 the square of a gradient beyond 1e19 is infinite, and that weight never moves again, as
    in PyTorch; clip_grad_norm keeps gradients from that.

    Args:
        params: the parameters, or groups of them with settings of their own (see Optimizer).
        lr: learning rate.
        betas: (β₁, β₂), from 0 to below 1.
        eps: ε, 0 or more.
        weight_decay: 0 or more.
    Raises:
        ValueError: a setting is out of range.

    Example:
        >>> import minicnn
        >>> w = minicnn.nn.Parameter(np.array([2.0, 3.0]))
        >>> (w * w).sum().backward()
        >>> Adam([w], lr=0.5).step()
        >>> w.data.round(6)
        array([1.5, 2.5])
    """

    slots = ("mean", "square")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"betas must be two numbers from 0 to 1, not {shown(betas)}")
        group["betas"] = tuple([number(f"betas[{i}]", beta, 0, below=1) for i, beta in enumerate(betas)])
        for name in ("eps", "weight_decay"):
            group[name] = number(name, group[name], 0)

    def update(self, parameters: list[Arrays], group: dict[str, Any]) -> None:
        adam(parameters, AdamStep.of(group, self.count))


class AdamW(Adam):
    """Adam whose weight decay is not part of the gradient: w ← w − lr · weight_decay · w comes
    first, and then Adam's step without it (Loshchilov and Hutter 2019).

    Args:
        params: the parameters, or groups of them with settings of their own (see Optimizer).
        lr: learning rate.
        betas: (β₁, β₂), from 0 to below 1.
        eps: ε, 0 or more.
        weight_decay: 0 or more; by default 0.01, where Adam has 0.
    Raises:
        ValueError: a setting is out of range.

    Example:
        >>> import minicnn
        >>> w = minicnn.nn.Parameter(np.array([2.0, 3.0]))
        >>> (0 * w).sum().backward()  # only the decay moves w
        >>> AdamW([w], lr=0.5, weight_decay=0.1).step()
        >>> w.data
        array([1.9 , 2.85])
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def update(self, parameters: list[Arrays], group: dict[str, Any]) -> None:
        step = AdamStep.of(group, self.count)
        adam(parameters, step._replace(weight_decay=0.0, keep=1 - group["lr"] * group["weight_decay"]))
