"""Numerical derivatives against the tape's.

A derivative written by hand is a claim; here it is put to the test. Central differences (f(x + εd) − f(x − εd)) / 2ε
are correct to O(ε²) and to the rounding of f over ε, about 1e-10 in float64. The checks are made so that they can
fail: the gradient that flows in is random (a gradient of ones hides every error that cancels in a sum), all entries
are compared, and whatever would pass for want of anything to compare is an error.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .autograd import no_grad, set_grad_enabled
from .tensor import Tensor, grad

Outputs = tuple[Tensor, ...]


class GradcheckError(AssertionError):
    """The derivatives do not agree, or there was nothing to compare."""


def gradcheck(
    f: Callable[..., Any],
    inputs: Tensor | Sequence[Tensor],
    eps: float = 1e-5,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    full_jacobian: int = 10_000,
    seed: int = 0,
) -> bool:
    """Check the gradient of f at the inputs: returns True, or raises GradcheckError with the input and the entry that
    is worst.

    Args:
        f: a function of Tensors that returns a Tensor or a tuple of them, the same each time it is called.
        inputs: float64 Tensors; those with requires_grad are checked, the others declared constant. f sees copies:
            .grad stays as it is.
        eps: half the step of the differences. Keep kinks (a ReLU at 0, a tie in a maximum) farther away than that.
        rtol, atol: |analytic − numeric| may be atol·scale + rtol·max|numeric|, scale being max(1, max|f|).
        full_jacobian: up to so many entries the whole Jacobian is compared, beyond it random directions.
        seed: of the random gradients and directions.

    Raises GradcheckError also when nothing is checked: no input requires a gradient, an input receives none, the
    outputs do not change with an input, or something is not finite.
    """
    check = _Check(f, inputs, eps, rtol, atol, full_jacobian, seed)
    check.every_input_matters()
    check.compare()
    return True


def gradgradcheck(f: Callable[..., Any], inputs: Tensor | Sequence[Tensor], **options: Any) -> bool:
    """Check the second derivatives of f: its gradient, as a function of the inputs and of the gradient that flows in,
    goes through gradcheck.

    An input whose gradient does not depend on some other input counts as zero there, and the numbers must say so too.
    """
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    first = _Check(f, inputs, **{**_defaults(), **options})
    rng = np.random.default_rng(first.seed + 1)
    flowing_in = [Tensor(rng.standard_normal(y.shape), requires_grad=True) for y in first.evaluate(first.inputs)]

    def gradient(*args: Tensor) -> Outputs:
        xs, gs = args[: len(inputs)], args[len(inputs) :]
        active = [x if x.requires_grad else x.detach() for x in xs]
        with set_grad_enabled(True):
            variables = [
                active[i] if active[i].requires_grad else Tensor(active[i].data, requires_grad=True)
                for i in first.active
            ]
            for i, x in zip(first.active, variables, strict=True):
                active[i] = x
            gradients = grad(_tuple(f(*active)), variables, gs, create_graph=True)
        if any(g is None for g in gradients):
            raise GradcheckError("gradgradcheck: an input receives no first gradient: run gradcheck")
        return tuple(g for g in gradients if g is not None)

    _Check(gradient, (*first.inputs, *flowing_in), **{**_defaults(), **options}).compare()
    return True


def _defaults() -> dict[str, Any]:
    values = gradcheck.__defaults__ or ()
    return dict(zip(("eps", "rtol", "atol", "full_jacobian", "seed"), values, strict=True))


def _tuple(outputs: Any) -> Outputs:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _entry(k: int, x: Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(k, x.shape))


class _Check:
    """f at a point, its derivatives there by the tape and by differences."""

    def __init__(
        self,
        f: Callable[..., Any],
        inputs: Tensor | Sequence[Tensor],
        eps: float,
        rtol: float,
        atol: float,
        full_jacobian: int,
        seed: int,
    ) -> None:
        inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
        self.f, self.eps, self.rtol, self.atol, self.full_jacobian, self.seed = f, eps, rtol, atol, full_jacobian, seed
        self.inputs = [Tensor(x.data.copy(), requires_grad=x.requires_grad) for x in inputs]
        self.active = [i for i, x in enumerate(self.inputs) if x.requires_grad]
        if not any(self.inputs[i].size for i in self.active):
            raise GradcheckError("nothing to check: no input with any entries has requires_grad=True")
        for i, x in enumerate(self.inputs):
            if x.dtype.kind == "f" and x.dtype != np.float64:
                raise GradcheckError(f"input {i} is {x.dtype}; differences of it are mostly rounding: use float64")
        self.rng = np.random.default_rng(seed)
        self.outputs = self.evaluate(self.inputs)
        again = self.evaluate(self.inputs)
        if any(not np.array_equal(a.data, b.data) for a, b in zip(self.outputs, again, strict=True)):
            raise GradcheckError("f returns something else each time: fix its random numbers")
        self.scale = max(1.0, *(float(np.abs(y.data).max(initial=0)) for y in self.outputs))

    def evaluate(self, inputs: Sequence[Tensor]) -> Outputs:
        outputs = _tuple(self.f(*inputs))
        for i, y in enumerate(outputs):
            if not isinstance(y, Tensor) or y.dtype != np.float64:
                raise GradcheckError(f"output {i} is {getattr(y, 'dtype', type(y).__name__)}, not a float64 Tensor")
            if not np.isfinite(y.data).all():
                raise GradcheckError(f"output {i} is not finite")
        if not sum(y.size for y in outputs):
            raise GradcheckError("nothing to check: the outputs have no entries")
        return outputs

    def difference(self, i: int, direction: np.ndarray) -> np.ndarray:
        """The derivative of all outputs, in one row, along a direction of input i."""

        def at(step: float) -> np.ndarray:
            moved = list(self.inputs)
            moved[i] = Tensor(self.inputs[i].data + step * direction, requires_grad=True)
            return np.concatenate([y.data.ravel() for y in self.evaluate(moved)])

        with no_grad():
            return (at(self.eps) - at(-self.eps)) / (2 * self.eps)

    def gradients(self, flowing_in: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        """By the tape: the gradient of each active input, for those gradients of the outputs."""
        with set_grad_enabled(True):
            outputs = self.evaluate(self.inputs)
            pairs = [(y, Tensor(g)) for y, g in zip(outputs, flowing_in, strict=True) if y.requires_grad]
            if not pairs:
                return [None] * len(self.active)
            ys, gs = zip(*pairs, strict=True)
            found = grad(ys, [self.inputs[i] for i in self.active], gs)
        for i, g in zip(self.active, found, strict=True):
            if g is not None and not np.isfinite(g.data).all():
                raise GradcheckError(f"the gradient of input {i} is not finite")
        return [None if g is None else g.data for g in found]

    def every_input_matters(self) -> None:
        """Each active input gets a gradient, and moving it moves the outputs."""
        found = self.gradients([self.rng.standard_normal(y.shape) for y in self.outputs])
        for i, g in zip(self.active, found, strict=True):
            if g is None:
                raise GradcheckError(
                    f"input {i} receives no gradient: declare it constant with requires_grad=False if that is right"
                )
            x = self.inputs[i]
            if x.size and not self.difference(i, self.rng.standard_normal(x.shape)).any():
                raise GradcheckError(f"the outputs do not change with input {i}: nothing is checked there")

    def compare(self) -> None:
        """Every pair of an output and an active input: in full where that is small enough, else along random
        directions."""
        m = sum(y.size for y in self.outputs)
        for position, i in enumerate(self.active):
            x = self.inputs[i]
            if 0 < m * x.size <= self.full_jacobian:
                self.whole(position, i, m)
            elif x.size:
                self.directional(position, i)

    def whole(self, position: int, i: int, m: int) -> None:
        x = self.inputs[i]
        numeric = np.stack([self.difference(i, unit.reshape(x.shape)) for unit in np.eye(x.size)], axis=1)  # (m, n)
        analytic = np.zeros_like(numeric)
        for row, unit in enumerate(np.eye(m)):
            g = self.gradients(self.split(unit))[position]
            analytic[row] = 0 if g is None else g.ravel()
        self.judge(i, analytic, numeric, lambda at: f"d output[{at[0]}] / d input[{_entry(at[1], x)}]")
        mixture = self.rng.standard_normal(
            m
        )  # several outputs at once: what flows in must not be taken for a unit vector
        g = self.gradients(self.split(mixture))[position]
        self.judge(
            i, np.zeros(x.size) if g is None else g.ravel(), mixture @ numeric, lambda at: f"entry {_entry(at[0], x)}"
        )

    def directional(self, position: int, i: int) -> None:
        x = self.inputs[i]
        analytic, numeric = np.zeros((2, 4))
        for k in range(4):
            mixture = self.rng.standard_normal(sum(y.size for y in self.outputs))
            direction = self.rng.standard_normal(x.shape)
            direction /= np.sqrt((direction**2).sum())
            g = self.gradients(self.split(mixture))[position]
            analytic[k] = 0 if g is None else (g * direction).sum()
            numeric[k] = mixture @ self.difference(i, direction)
        self.judge(i, analytic, numeric, lambda at: f"direction {at[0]}")

    def split(self, row: np.ndarray) -> list[np.ndarray]:
        """One row of numbers, as arrays of the outputs' shapes."""
        ends = np.cumsum([y.size for y in self.outputs])[:-1]
        return [part.reshape(y.shape) for part, y in zip(np.split(row, ends), self.outputs, strict=True)]

    def judge(
        self, i: int, analytic: np.ndarray, numeric: np.ndarray, describe: Callable[[tuple[int, ...]], str]
    ) -> None:
        error = np.abs(analytic - numeric)
        allowed = self.atol * self.scale + self.rtol * np.abs(numeric).max()
        if not error.max() <= allowed:
            at = tuple(int(k) for k in np.unravel_index(error.argmax(), error.shape))
            raise GradcheckError(
                f"the gradient of input {i}, shape {self.inputs[i].shape}, is wrong: worst at {describe(at)}: "
                f"{analytic[at]:.9g} by the tape, {numeric[at]:.9g} by differences "
                f"({int((error > allowed).sum())} of {error.size} entries differ)"
            )
