"""Half precision: float16 ends at 65,504 and counts no further than 2,048 in steps of 1, so sums over
many of its numbers overflow, or stop growing, where their mean is an ordinary number. Functions that
add up are therefore computed in float32 and rounded once, at the end; so are their gradients."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from ..tensor import Tensor

Call = TypeVar("Call", bound=Callable[..., Tensor])


def float16_in_float32(function: Call) -> Call:
    """Decorate a function whose first argument is a Tensor: if that is of float16, it gets all of its
    Tensors in float32, and its result becomes float16."""

    def wide(value: Any) -> Any:
        return value.astype(np.float32) if isinstance(value, Tensor) and value.dtype == np.float16 else value

    @functools.wraps(function)
    def widened(x: Tensor, *args: Any, **options: Any) -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError(
                f"{function.__name__} takes a Tensor, not a {type(x).__name__}: wrap an array as Tensor(array)"
            )
        if x.dtype != np.float16:
            return function(x, *args, **options)
        named = {name: wide(value) for name, value in options.items()}
        return function(wide(x), *map(wide, args), **named).astype(np.float16)

    return cast(Call, widened)
