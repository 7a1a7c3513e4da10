"""Optimizers: how parameters follow their gradients. They write to the parameters in place."""

from collections.abc import Iterable

import numpy as np

from ..backends import kernel_of_many
from ..backends.devices import Array, assign, on_device_of
from ..tensor import Tensor

Arrays = tuple[Array, ...]  # of one parameter: (w, g), its value and gradient, and the state that belongs to it


@kernel_of_many
def sgd(parameters: list[Arrays], lr: float, momentum: float, weight_decay: float, nesterov: bool, paper: bool) -> None:
    """A step for every (w, g), or (w, g, v) with momentum."""
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


@kernel_of_many
def adam(
    parameters: list[Arrays],
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    steps: int,
) -> None:
    """Step number `steps`, from 1, for every (w, g, m, v)."""
    for w, g, m, v in parameters:
        if decoupled:
            w *= 1 - lr * weight_decay
        else:
            g = g + weight_decay * w
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * g * g
        w -= lr * (m / (1 - beta1**steps)) / (np.sqrt(v / (1 - beta2**steps)) + eps)


class Optimizer:
    """What all optimizers share: the parameters, the learning rate `lr`, and the named arrays that make up their state.

    A subclass lists in `slots` the names of its arrays for each parameter and defines update(parameters), which changes
    each parameter and its arrays in place, given (w, g, *slots) for each that has a gradient: on whatever device they
    are.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        self.params = list(params)
        if not self.params or not all(isinstance(p, Tensor) and p.grad_fn is None for p in self.params):
            raise ValueError("an optimizer needs parameters: leaf Tensors with requires_grad, as module.parameters()")
        if not any(p.requires_grad for p in self.params):
            raise ValueError("an optimizer needs parameters of which at least one has requires_grad")
        if len(set(self.params)) < len(self.params):
            raise ValueError("an optimizer needs each parameter once")
        for p in self.params:
            _check_contiguous(p)
        self.lr = _at_least_0("lr", lr)
        self.steps = 0
        self.state: dict[str, list[Array]] = {slot: [_zeros(p) for p in self.params] for slot in self.slots}

    def update(self, parameters: list[Arrays]) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not define update")

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        self.steps += 1
        every = []
        for i, p in enumerate(self.params):
            if p.grad is not None:
                _check_contiguous(p)
                if not isinstance(p.grad, Tensor) or p.grad.shape != p.shape:
                    raise ValueError(f"the gradient of a parameter of shape {p.shape} is a Tensor of that shape only")
                every.append((p.data, p.grad.data, *(self.state[slot][i] for slot in self.slots)))
                p.version[0] += 1
        if every:
            with on_device_of(every[0][0]):
                self.update(every)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.params:
            p.grad = None

    def state_dict(self) -> dict[str, Array]:
        """Named arrays, live: lr, steps, and each parameter's own as "<name>.<number of the parameter>"."""
        arrays = {f"{slot}.{i}": array for slot in self.slots for i, array in enumerate(self.state[slot])}
        return {"lr": np.array(self.lr), "steps": np.array(self.steps), **arrays}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Copy back what state_dict returned. Raises ValueError, having written nothing, if the names or shapes are
        not the same."""
        own = self.state_dict()
        if {k: np.shape(v) for k, v in own.items()} != {k: np.shape(v) for k, v in state.items()}:
            raise ValueError(
                f"this is not the state of {type(self).__name__} over these parameters: names or shapes differ"
            )
        self.lr, self.steps = float(state["lr"]), int(state["steps"])
        for name, array in own.items():
            if "." in name:
                assign(array, state[name])


def _zeros(p: Tensor) -> Array:
    with on_device_of(p.data):
        return np.zeros_like(p.data)


def _check_contiguous(p: Tensor) -> None:
    if not p.data.flags.c_contiguous:
        raise ValueError(f"a parameter of shape {p.shape} is not contiguous: wrap its array in nn.Parameter")


def _at_least_0(name: str, value: float) -> float:
    if not value >= 0:
        raise ValueError(f"{name} must be 0 or more, not {value}")
    return value


class SGD(Optimizer):
    """Stochastic gradient descent with momentum and weight decay.

        v ← momentum · v + g + weight_decay · w          w ← w − lr · v     by default, as PyTorch
        v ← momentum · v − lr · (g + weight_decay · w)   w ← w + v          paper_update

    The two agree as long as lr is constant; when it falls, the first scales what has gathered in v at once, the second
    lets it run out.

    Args:
        params: the parameters.
        lr: learning rate.
        momentum: 0.9 in the paper.
        weight_decay: 0.0005 in the paper. It and what follows by name: PyTorch has dampening here.
        nesterov: look ahead: w ← w − lr · (g + weight_decay · w + momentum · v), with the new v (Sutskever et al.
            2013).
        paper_update: the second form above.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.0,
        *,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        paper_update: bool = False,
    ) -> None:
        self.momentum, self.weight_decay = _at_least_0("momentum", momentum), _at_least_0("weight_decay", weight_decay)
        if nesterov and (not momentum or paper_update):
            raise ValueError("nesterov needs a momentum above 0, and has no paper_update form")
        self.nesterov, self.paper_update = nesterov, paper_update
        self.slots = ("velocity",) if momentum else ()
        super().__init__(params, lr)

    def update(self, parameters: list[Arrays]) -> None:
        sgd(parameters, self.lr, self.momentum, self.weight_decay, self.nesterov, self.paper_update)


class Adam(Optimizer):
    """Adam: steps of about lr in every coordinate, whatever the size of the gradient (Kingma and Ba 2015, algorithm 1).

        m ← β₁ m + (1 − β₁) g     v ← β₂ v + (1 − β₂) g²     w ← w − lr · m̂ / (√v̂ + ε)

    with m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ) at step t; weight_decay · w is added to g first.
    """

    slots = ("mean", "square")

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be from 0 to 1, without 1, not {betas}")
        self.betas, self.eps, self.weight_decay = (
            betas,
            _at_least_0("eps", eps),
            _at_least_0("weight_decay", weight_decay),
        )
        super().__init__(params, lr)

    def update(self, parameters: list[Arrays]) -> None:
        adam(parameters, self.lr, *self.betas, self.eps, self.weight_decay, False, self.steps)


class AdamW(Adam):
    """Adam whose weight decay is not part of the gradient: w ← w − lr · weight_decay · w, and then Adam's step without
    it (Loshchilov and Hutter 2019). weight_decay is 0.01 by default."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def update(self, parameters: list[Arrays]) -> None:
        adam(parameters, self.lr, *self.betas, self.eps, self.weight_decay, True, self.steps)
