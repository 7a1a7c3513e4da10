"""Joining, choosing and padding: functions of Tensors that are not methods.

>>> import minicnn, minicnn.functional as F
>>> a, b = minicnn.Tensor([1.0, 5.0]), minicnn.Tensor([4.0, 2.0])
>>> F.maximum(a, b)
Tensor([4., 5.], dtype=float32)
>>> F.minimum(a, b)
Tensor([1., 2.], dtype=float32)
>>> F.stack([a, b], axis=1)
Tensor([[1., 4.],
        [5., 2.]], dtype=float32)
>>> F.pad(a, ((1, 2),))
Tensor([0., 1., 5., 0., 0.], dtype=float32)
"""

import operator
from collections.abc import Sequence
from typing import Any

from .. import ops
from ..backends.devices import on_device_of, real_array
from ..checks import real, several, shown, whole
from ..tensor import Tensor, apply
from .arguments import require_tensors

__all__ = ["concatenate", "maximum", "minimum", "pad", "stack", "where"]


def concatenate(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Join Tensors along one of their axes.

    Args:
        tensors: one Tensor or more, whose shapes agree except along that axis.
        axis: the axis.
    Returns:
        A Tensor that is as long along the axis as all of them together.
    Raises:
        ValueError: there is no Tensor, or their shapes do not agree.

    Example:
        >>> concatenate([Tensor([[1.0, 2.0]]), Tensor([[3.0]])], axis=1)
        Tensor([[1., 2., 3.]], dtype=float32)
    """
    parts = several("concatenate: tensors", tensors)
    if not parts:
        raise ValueError(f"concatenate needs at least one Tensor, not {shown(tensors)}")
    return apply(ops.Concatenate(whole("concatenate: axis", axis)), *parts)


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join Tensors of one shape along a new axis.

    Args:
        tensors: one Tensor or more, of one shape.
        axis: the place of the new axis in the result.
    Returns:
        A Tensor with one axis more.
    Raises:
        ValueError: there is no Tensor, or their shapes differ.
    """
    tensors = several("stack: tensors", tensors, Tensor)
    if not tensors or any(t.shape != tensors[0].shape for t in tensors):
        raise ValueError(f"stack needs Tensors of one shape, not {[t.shape for t in tensors]}")
    ndim = tensors[0].ndim + 1
    at = ops.normal_axes(whole("stack: axis", axis), ndim)[0]
    shape = tensors[0].shape
    return concatenate([t.reshape(*shape[:at], 1, *shape[at:]) for t in tensors], at)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """a where the condition holds, else b.

    Args:
        condition: booleans: a Tensor, an array or a list.
        a, b: Tensors, arrays or numbers, at least one of them a Tensor.
    Returns:
        A Tensor of the shape to which the three are broadcast.
    Raises:
        TypeError: the condition is not boolean.

    Example:
        >>> where([True, False], Tensor([1.0, 2.0]), 0.0)
        Tensor([1., 0.], dtype=float32)
    """
    mask = condition.data if isinstance(condition, Tensor) else real_array("where takes a boolean condition", condition)
    with on_device_of(mask):
        mask = mask.copy()  # the backward pass needs it
    if mask.dtype != bool:
        raise TypeError(f"where: the condition must be boolean, not {mask.dtype}")
    return apply(ops.Where(mask), a, b)


def maximum(a: Any, b: Any) -> Tensor:
    """The larger of a and b, elementwise. Where they are equal each gets half of the gradient.

    Args:
        a, b: Tensors, arrays or numbers, at least one of them a Tensor, which are broadcast.
    """
    return apply(ops.Maximum(), a, b)


def minimum(a: Any, b: Any) -> Tensor:
    """The smaller of a and b, elementwise. Where they are equal each gets half of the gradient.

    Args:
        a, b: Tensors, arrays or numbers, at least one of them a Tensor, which are broadcast.
    """
    return apply(ops.Minimum(), a, b)


def pad(x: Tensor, widths: Sequence[tuple[int, int]], *, value: float = 0.0) -> Tensor:
    """x with a constant around it.

    Args:
        x: of any shape.
        widths: a pair (before, after) for each axis: how many elements are added.
        value: the constant.
    Returns:
        A Tensor whose axes are longer by before + after.
    Raises:
        ValueError: widths is something else, such as PyTorch's flat list, last axis first.
    """
    require_tensors("pad", x=x)
    constant = real(value)
    if constant is None:
        raise ValueError(f"pad: value must be a number, not {shown(value)}")
    try:
        pairs = tuple([(operator.index(before), operator.index(after)) for before, after in widths])
    except (TypeError, ValueError):
        raise ValueError(
            f"pad: the widths are ((before, after), …), a pair of integers for each axis, not {shown(widths)}"
        ) from None
    if len(pairs) != x.ndim or any(min(p) < 0 for p in pairs):
        raise ValueError(f"pad: {pairs} must hold a pair of integers, 0 or more, for each of {x.ndim} axes")
    return apply(ops.Pad(pairs, constant), x)
