"""Numerical derivatives against autograd's.

A derivative written by hand is a claim; here it is put to the test. Central differences (f(x + εd)
− f(x − εd)) / 2ε are correct to O(ε²) and to the rounding of f over ε, about 1e-10 in float64. The
checks are made so that they can fail: the gradient that flows in is random (a gradient of ones
hides every error that cancels in a sum), all elements are compared, and it is an error if there is
nothing to compare.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .autograd import no_grad, set_grad_enabled
from .checks import number, shown, whole
from .tensor import Tensor, grad

Outputs = tuple[Tensor, ...]

# the error that rounding may make in f, relative to f: a few units
ROUNDING = 16 * float(np.finfo(np.float64).eps)
LEAST = 1e-12  # of eps: with a smaller one, the rounding error allowed would hide any mistake
DIRECTIONS = 4  # this many are tried where the whole Jacobian is too large


class GradcheckError(AssertionError):
    """The derivatives do not agree, or there was nothing to compare."""


class _Settings(NamedTuple):
    eps: float
    rtol: float
    atol: float
    full_jacobian: int
    rng: np.random.Generator

    @classmethod
    def of(cls, name: str, f: Any, eps: Any, rtol: Any, atol: Any, full_jacobian: Any, seed: Any) -> "_Settings":
        """The settings of the function of that name, checked."""
        if not callable(f):
            raise TypeError(f"{name}: f must be callable, not {shown(f)}")
        return cls(
            number(f"{name}: eps", eps, LEAST),
            number(f"{name}: rtol", rtol, 0),
            number(f"{name}: atol", atol, 0),
            whole(f"{name}: full_jacobian", full_jacobian, 0),
            np.random.default_rng(whole(f"{name}: seed", seed, 0)),
        )


def gradcheck(
    f: Callable[..., Any],
    inputs: Tensor | Sequence[Tensor],
    *,
    eps: float = 1e-5,
    rtol: float = 1e-6,
    atol: float = 0.0,
    full_jacobian: int = 10_000,
    seed: int = 0,
) -> bool:
    """Check the gradient of f at the inputs against central differences.

    Args:
        f: a function of Tensors that returns a Tensor or a tuple of them, the same each time it is
            called.
        inputs: float64 Tensors. Those with requires_grad are checked, the others are constants. f
            sees copies: .grad stays as it is. Inputs that are not Tensors, such as a kernel_size,
            are passed to f unchanged, and not counted where an error names an input by its place.
        eps: half the step of the differences. Keep kinks (a ReLU at 0, a tie in a maximum) farther
            away than that.
        rtol: |analytic − numeric| may be rtol · max|numeric|, besides atol and what rounding makes
            of max|f| / eps.
        atol: see rtol.
        full_jacobian: the whole Jacobian is compared if it has at most this many elements,
            otherwise DIRECTIONS random directions are.
        seed: of the random gradients and directions.
    Returns:
        True
    Raises:
        GradcheckError: the gradients differ (the message names the input and the element that is
            worst), or nothing is checked: no input requires a gradient, an input receives none, the
            outputs do not change with an input, or a value is not finite.

    Example:
        >>> import minicnn
        >>> minicnn.gradcheck(lambda x: x * x, Tensor(np.array([1.0, 2.0]), requires_grad=True))
        True
    """
    settings = _Settings.of("gradcheck", f, eps, rtol, atol, full_jacobian, seed)
    check = _Check(*_tensors_alone(f, inputs), settings)
    check.every_input_matters()
    check.compare()
    return True


def gradgradcheck(
    f: Callable[..., Any],
    inputs: Tensor | Sequence[Tensor],
    *,
    eps: float = 1e-5,
    rtol: float = 1e-6,
    atol: float = 0.0,
    full_jacobian: int = 10_000,
    seed: int = 0,
) -> bool:
    """Check the second derivatives of f: its gradient, as a function of the inputs and of the
    gradient that flows in, is compared as gradcheck compares f.

    Where autograd says that a gradient does not depend on an input, that counts as zero, and the
    differences must agree.

    Args:
        f, inputs, eps, rtol, atol, full_jacobian, seed: as for gradcheck.
    Returns:
        True
    Raises:
        GradcheckError: the second derivatives differ, or nothing is checked.

    Example:
        >>> import minicnn
        >>> minicnn.gradgradcheck(lambda x: x * x, Tensor(np.array([1.0, 2.0]), requires_grad=True))
        True
    """
    settings = _Settings.of("gradgradcheck", f, eps, rtol, atol, full_jacobian, seed)
    f, inputs = _tensors_alone(f, inputs)
    first = _Check(f, inputs, settings)
    flowing_in = [
        Tensor(settings.rng.standard_normal(y.shape), requires_grad=True, device=y.device) for y in first.outputs
    ]

    def gradient(*args: Tensor) -> Outputs:
        xs, gs = args[: len(first.inputs)], args[len(first.inputs) :]
        gradients = _gradients(f, xs, gs, create_graph=True)
        if any(g is None for g in gradients.values()):
            raise GradcheckError("an input receives no first gradient: run gradcheck")
        return tuple(g for g in gradients.values() if g is not None)

    _Check(gradient, (*first.inputs, *flowing_in), settings).compare()
    return True


def _tensors_alone(f: Callable[..., Any], inputs: Any) -> tuple[Callable[..., Any], list[Tensor]]:
    """f as a function of the Tensors among its inputs, and these."""
    arguments = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    places = [i for i, x in enumerate(arguments) if isinstance(x, Tensor)]

    def of_tensors(*tensors: Tensor) -> Any:
        every = list(arguments)
        for i, x in zip(places, tensors, strict=True):
            every[i] = x
        return f(*every)

    return of_tensors, [arguments[i] for i in places]


def _tuple(outputs: Any) -> Outputs:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _gradients(
    f: Callable[..., Any], xs: Sequence[Tensor], gs: Sequence[Tensor], create_graph: bool = False
) -> dict[int, Tensor | None]:
    """Autograd's gradient of f for each input that requires one, where gs are the gradients of the
    outputs."""
    active = [i for i, x in enumerate(xs) if x.requires_grad]
    with set_grad_enabled(True):
        pairs = [(y, g) for y, g in zip(_tuple(f(*xs)), gs, strict=True) if y.requires_grad]
        if not pairs:
            return dict.fromkeys(active)
        ys, flowing_in = zip(*pairs, strict=True)
        found = grad(ys, [xs[i] for i in active], flowing_in, create_graph=create_graph)
    return dict(zip(active, found, strict=True))


def _element(k: int, x: Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(k, x.shape))


class _Check:
    """f at a point, and its derivatives there by autograd and by differences."""

    def __init__(self, f: Callable[..., Any], inputs: Sequence[Tensor], settings: _Settings) -> None:
        self.f, self.settings, self.rng = f, settings, settings.rng
        self.inputs = [Tensor(x.data.copy(), requires_grad=x.requires_grad) for x in inputs]
        self.active = [i for i, x in enumerate(self.inputs) if x.requires_grad]
        if not any(self.inputs[i].size for i in self.active):
            raise GradcheckError("nothing to check: no input with any elements has requires_grad=True")
        for i, x in enumerate(self.inputs):
            if x.dtype.kind == "f" and x.dtype != np.float64:
                raise GradcheckError(f"input {i} is {x.dtype}; differences of it are mostly rounding: use float64")
        self.outputs = self.evaluate(self.inputs)
        again = self.evaluate(self.inputs)
        if any(not np.array_equal(a.numpy(), b.numpy()) for a, b in zip(self.outputs, again, strict=True)):
            raise GradcheckError("f does not return the same each time: fix its random numbers")
        largest = max(float(np.abs(y.numpy()).max(initial=0)) for y in self.outputs)
        self.rounding = ROUNDING * largest / settings.eps

    def evaluate(self, inputs: Sequence[Tensor]) -> Outputs:
        outputs = _tuple(self.f(*inputs))
        for i, y in enumerate(outputs):
            if not isinstance(y, Tensor) or y.dtype != np.float64:
                raise GradcheckError(f"output {i} is {getattr(y, 'dtype', type(y).__name__)}, not a float64 Tensor")
            if not np.isfinite(y.numpy()).all():
                raise GradcheckError(f"output {i} is not finite")
        if not sum(y.size for y in outputs):
            raise GradcheckError("nothing to check: the outputs have no elements")
        return outputs

    def difference(self, i: int, direction: np.ndarray) -> np.ndarray:
        """The derivative of all outputs, in one row, along a direction of input i."""
        eps = self.settings.eps

        def at(step: float) -> np.ndarray:
            moved = list(self.inputs)
            x = self.inputs[i]
            moved[i] = Tensor(x.numpy() + step * direction, requires_grad=True, device=x.device)
            return np.concatenate([y.numpy().ravel() for y in self.evaluate(moved)])

        with no_grad():
            return (at(eps) - at(-eps)) / (2 * eps)

    def analytic(self, row: np.ndarray) -> dict[int, np.ndarray | None]:
        """Autograd's gradient of each active input, for the outputs' gradients in one row."""
        ends = np.cumsum([y.size for y in self.outputs])[:-1]
        parts = zip(np.split(row, ends), self.outputs, strict=True)
        gs = [Tensor(part.reshape(y.shape), device=y.device) for part, y in parts]
        found = _gradients(self.f, self.inputs, gs)
        for i, g in found.items():
            if g is not None and not np.isfinite(g.numpy()).all():
                raise GradcheckError(f"the gradient of input {i} is not finite")
        return {i: None if g is None else g.numpy() for i, g in found.items()}

    def every_input_matters(self) -> None:
        """Each active input gets a gradient, and moving it moves the outputs."""
        for i, g in self.analytic(self.mixture()).items():
            x = self.inputs[i]
            if g is None:
                raise GradcheckError(
                    f"input {i} receives no gradient: declare it constant with requires_grad=False if that is right"
                )
            if x.size and not self.difference(i, self.rng.standard_normal(x.shape)).any():
                raise GradcheckError(f"the outputs do not change with input {i}: nothing is checked there")

    def mixture(self) -> np.ndarray:
        """A random gradient for all outputs, in one row."""
        return self.rng.standard_normal(sum(y.size for y in self.outputs))

    def compare(self) -> None:
        """Compare the gradients of every active input: in full where that is small enough, else
        along random directions."""
        m = sum(y.size for y in self.outputs)
        for i in self.active:
            if 0 < m * self.inputs[i].size <= self.settings.full_jacobian:
                self.compare_jacobian(i)
            elif self.inputs[i].size:
                self.compare_directions(i)

    def compare_jacobian(self, i: int) -> None:
        x = self.inputs[i]
        numeric = np.stack([self.difference(i, unit.reshape(x.shape)) for unit in np.eye(x.size)], axis=1)
        analytic = np.empty_like(numeric)
        for row, unit in enumerate(np.eye(len(numeric))):
            g = self.analytic(unit)[i]
            analytic[row] = 0 if g is None else g.ravel()
        self.judge(i, analytic, numeric, lambda at: f"d output[{at[0]}] / d input{_element(at[1], x)}")
        # several outputs at once: f must not take for granted that a unit vector flows in
        mixture = self.mixture()
        g = self.analytic(mixture)[i]
        self.judge(
            i, np.zeros(x.size) if g is None else g.ravel(), mixture @ numeric, lambda at: f"{_element(at[0], x)}"
        )

    def compare_directions(self, i: int) -> None:
        analytic, numeric = np.zeros((2, DIRECTIONS))
        for k, direction in enumerate(self.rng.standard_normal((DIRECTIONS, *self.inputs[i].shape))):
            mixture = self.mixture()
            # equivalent (statement): the derivative is linear in the direction, whatever its length
            direction /= np.linalg.norm(direction)
            g = self.analytic(mixture)[i]
            analytic[k] = 0 if g is None else (g * direction).sum()
            numeric[k] = (mixture * self.difference(i, direction)).sum()
        self.judge(i, analytic, numeric, lambda at: f"direction {at[0]}")

    def judge(
        self, i: int, analytic: np.ndarray, numeric: np.ndarray, describe: Callable[[tuple[int, ...]], str]
    ) -> None:
        error = np.abs(analytic - numeric)
        allowed = self.settings.rtol * np.abs(numeric).max() + self.settings.atol + self.rounding
        if not error.max() <= allowed:
            at = tuple(int(k) for k in np.unravel_index(error.argmax(), error.shape))
            raise GradcheckError(
                f"the gradient of input {i}, shape {self.inputs[i].shape}, is wrong: worst at {describe(at)}: "
                f"{analytic[at]:.9g} by autograd, {numeric[at]:.9g} by differences "
                f"({int((error > allowed).sum())} of {error.size} elements differ)"
            )
