"""Gradient clipping: no update is longer than it may be (Pascanu, Mikolov and Bengio 2013,
algorithm 1)."""

from collections.abc import Iterable

import numpy as np

from ..autograd import no_grad
from ..checks import number, several, shown
from ..tensor import Tensor


@no_grad()
def clip_grad_norm(parameters: Tensor | Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients by one factor, so that together, as one vector, they are at most max_norm
    long.

    Each .grad that is scaled is a new Tensor; parameters without a gradient do not count.

    Args:
        parameters: a Tensor or several, such as net.parameters().
        max_norm: the longest that is allowed, above 0.
    Returns:
        How long they were, a float.
    Raises:
        ValueError: max_norm is not above 0, no parameter has a gradient, or a gradient is not
            finite. The gradients stay as they are.
        TypeError: parameters are something else.

    Example:
        >>> import minicnn
        >>> p = minicnn.nn.Parameter(np.zeros(2))
        >>> (p * np.array([3.0, 4.0])).sum().backward()
        >>> clip_grad_norm([p], 1.0)
        5.0
        >>> p.grad
        Tensor([0.6, 0.8], dtype=float64)
    """
    most = number("clip_grad_norm: max_norm", max_norm, finite=False)
    if not most > 0:
        raise ValueError(f"clip_grad_norm: max_norm must be above 0, not {shown(max_norm)}")
    given = [parameters] if isinstance(parameters, Tensor) else parameters
    params = several("clip_grad_norm: parameters, as net.parameters() gives them,", given, Tensor)
    gradients = [(p, p.grad) for p in params if p.grad is not None]
    if not gradients:
        raise ValueError(
            f"clip_grad_norm: no parameter of {len(params)} has a gradient: call it after backward(), with the "
            "parameters themselves (a generator, such as net.parameters(), can be used once)"
        )
    # float16 becomes float32, in which sums of squares do not overflow and small factors are not
    # rounded away
    gradients = [(p, g.astype(np.float32) if g.dtype == np.float16 else g) for p, g in gradients]
    # divided by the largest element (NaN, if one is), or squares of float32 might overflow
    largest = float(np.max([abs(g).max().item() for _, g in gradients if g.size], initial=0))
    squares = [((g / largest) ** 2).sum().item() for _, g in gradients] if 0 < largest < np.inf else [1.0]
    norm = largest * float(np.sqrt(sum(squares)))
    if not np.isfinite(norm):
        raise ValueError(f"clip_grad_norm: the gradients' norm is {norm}")
    if norm > most:
        for p, g in gradients:
            scaled = g * (most / norm)
            p.grad = scaled if scaled.dtype == p.dtype else scaled.astype(p.dtype)
    return norm
