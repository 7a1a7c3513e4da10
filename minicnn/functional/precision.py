"""Half precision: the largest float16 is 65,504, and from 2,048 on their distance is 2 or more. So
a sum of many elements overflows, or stops growing, even if their mean is an ordinary number.
Functions with sums are computed in float32 and rounded once, at the end; so are their gradients."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from ..tensor import Tensor
from .arguments import require_tensors

Call = TypeVar("Call", bound=Callable[..., Tensor])


def float16_in_float32(function: Call) -> Call:
    """Decorate a function whose first argument is a Tensor: if its dtype is float16, the function
    gets all of its Tensors in float32, and its result is converted to float16."""

    first = next(iter(inspect.signature(function).parameters))

    def wide(value: Any) -> Any:
        return value.astype(np.float32) if isinstance(value, Tensor) and value.dtype == np.float16 else value

    @functools.wraps(function)
    def widened(x: Tensor, *args: Any, **options: Any) -> Tensor:
        if not isinstance(x, Tensor):
            require_tensors(function.__name__, **{first: x})
        if x.dtype != np.float16:
            return function(x, *args, **options)
        named = {name: wide(value) for name, value in options.items()}
        return function(wide(x), *map(wide, args), **named).astype(np.float16)

    return cast(Call, widened)
