"""The elementary operations: arithmetic, reductions, shapes, indexing.

Each is a Function: `forward` computes with arrays, and `backward` computes, with Tensors, the
gradient of each input from dy = dL/dy, the gradient of the output y. It uses the operators and
methods of dy, so it is differentiable in turn, and this file does not import Tensor.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .autograd import Function, Gradients
from .backends import kernel
from .backends.devices import Array, array_module, device_of, to_device
from .checks import flags, whole

Tensor = Any  # minicnn.tensor.Tensor, not imported here to avoid a cycle
Shape = tuple[int, ...]


def unbroadcast(gradient: Tensor, shape: Shape) -> Tensor:
    """Sum a gradient over the axes along which an input of that shape was repeated: the transpose
    of broadcasting."""
    if gradient.data.shape == shape:
        return gradient
    lead = gradient.ndim - len(shape)
    repeated = [i + lead for i, size in enumerate(shape) if size == 1 != gradient.shape[i + lead]]
    if not repeated:
        return gradient.sum(axis=tuple(range(lead)))
    return gradient.sum(axis=(*range(lead), *repeated)).reshape(shape)


@kernel
def broadcast(a: Array, b: Array, ufunc: Callable[..., Array]) -> Array:
    """ufunc(a, b), such as np.add, of two arrays that are broadcast against each other."""
    return ufunc(a, b)


@kernel
def matmul(a: Array, b: Array) -> Array:
    """a @ b for matrices or stacks of matrices."""
    return np.matmul(a, b)


class _Broadcasting(Function):
    """Two inputs, broadcast against each other; each gradient is summed to its input's shape."""

    ufunc: Any
    # partials(dy): the two gradients, before they are summed
    partials: Callable[..., tuple[Tensor | None, Tensor | None]]

    def forward(self, a: Array, b: Array) -> Array:
        self.shapes = a.shape, b.shape
        return broadcast(a, b, self.ufunc)

    def backward(self, dy: Tensor) -> Gradients:
        (a, b), (da, db) = self.shapes, self.partials(dy)
        if a == b:
            return da, db  # nothing was broadcast
        a_needed, b_needed = self.needs_input_grad
        return unbroadcast(da, a) if a_needed else None, unbroadcast(db, b) if b_needed else None


class Add(_Broadcasting):
    ufunc = np.add

    def partials(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return dy, dy


class Sub(_Broadcasting):
    ufunc = np.subtract

    def partials(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return dy, -dy if self.needs_input_grad[1] else None


class Mul(_Broadcasting):
    ufunc = np.multiply
    saves = ((1,), (0,))

    def partials(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = self.saved_inputs
        return dy.times(b) if self.needs_input_grad[0] else None, dy.times(a) if self.needs_input_grad[1] else None


class Div(_Broadcasting):
    ufunc = np.true_divide
    promotes_integers = True
    saves = ((1,), (0, 1))

    def partials(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = self.saved_inputs
        da = dy / b
        return da, -da * (a / b) if self.needs_input_grad[1] else None  # d(a/b)/db = −a/b²


class DivScalar(Function):
    """x / n for a number n."""

    promotes_integers = True

    def __init__(self, number: float):
        self.number = number

    def forward(self, x: Array) -> Array:
        return broadcast(x, x.dtype.type(self.number), np.true_divide)

    def backward(self, dy: Tensor) -> Gradients:
        return dy.apply(DivScalar(self.number), dy)


class Pow(_Broadcasting):
    """aᵇ for Tensors a and b; the derivative with respect to b is taken as 0 where a ≤ 0."""

    ufunc = np.power
    promotes_integers = True
    saves = ((0, 1), (0, 1))

    def partials(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = self.saved_inputs
        da = db = None
        if self.needs_input_grad[0]:
            both_zero = (a.data == 0) & (b.data == 0)  # a⁰ is 1 everywhere, also at 0
            da = dy * b * a ** (b - 1 + both_zero)
        if self.needs_input_grad[1]:
            positive = a.data > 0
            base = a * positive + ~positive  # 1, whose logarithm is 0, where a is not positive
            db = dy.apply(Masked(positive), dy) * (base**b * base.log())
        return da, db


class _Extreme(_Broadcasting):
    """maximum and minimum: where the two are equal, each takes half of the gradient."""

    saves = ((0, 1), (0, 1))

    def partials(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = (t.data for t in self.saved_inputs)
        y = self.ufunc(a, b)
        dy = dy * (1 - 0.5 * (a == b))
        return dy.apply(Masked(a == y), dy), dy.apply(Masked(b == y), dy)


class Maximum(_Extreme):
    ufunc = np.maximum


class Minimum(_Extreme):
    ufunc = np.minimum


class Neg(Function):
    def forward(self, x: Array) -> Array:
        return np.negative(x)

    def backward(self, dy: Tensor) -> Gradients:
        return -dy


class PowScalar(Function):
    """xᵖ for a number p."""

    promotes_integers = True
    saves = ((0,),)

    def __init__(self, exponent: float):
        self.exponent = exponent

    def forward(self, x: Array) -> Array:
        return np.square(x) if self.exponent == 2 else np.power(x, x.dtype.type(self.exponent))

    def backward(self, dy: Tensor) -> Gradients:
        if self.exponent == 0:  # x⁰ is 1 everywhere, also at 0
            # equivalent (gradient): zeros times anything
            return dy.apply(Masked(np.bool_(False)), dy)
        return dy * (self.exponent * self.saved_inputs[0] ** (self.exponent - 1))


class Exp(Function):
    promotes_integers = True

    def forward(self, x: Array) -> Array:
        self.y = np.exp(x)
        return self.y

    def backward(self, dy: Tensor) -> Gradients:
        return dy * self.saved_output(dy)


class Log(Function):
    promotes_integers = True
    saves = ((0,),)

    def forward(self, x: Array) -> Array:
        return np.log(x)

    def backward(self, dy: Tensor) -> Gradients:
        return dy / self.saved_inputs[0]


class Sqrt(Function):
    promotes_integers = True

    def forward(self, x: Array) -> Array:
        self.y = np.sqrt(x)
        return self.y

    def backward(self, dy: Tensor) -> Gradients:
        return dy / (2.0 * self.saved_output(dy))


class Abs(Function):
    saves = ((0,),)

    def forward(self, x: Array) -> Array:
        return np.abs(x)

    def backward(self, dy: Tensor) -> Gradients:
        return dy * np.sign(self.saved_inputs[0].data)


class Clip(Function):
    """x limited to the range from low to high; the gradient passes at the bounds themselves."""

    saves = ((0,),)

    def __init__(self, low: float | None, high: float | None):
        self.low, self.high = low, high
        self.promotes_integers = isinstance(low, float) or isinstance(high, float)

    def forward(self, x: Array) -> Array:
        if self.low is None and self.high is None:
            return x.copy()
        y = np.clip(x, self.low, self.high)
        return y if y.dtype == x.dtype else y.astype(x.dtype)

    def backward(self, dy: Tensor) -> Gradients:
        x = self.saved_inputs[0].data
        return dy.apply(Masked(x == self.forward(x)), dy)


class Where(Function):
    """a where the condition (a boolean array) holds, else b."""

    def __init__(self, condition: Array):
        self.condition = condition

    def forward(self, a: Array, b: Array) -> Array:
        self.shapes = a.shape, b.shape
        return np.where(self.condition, a, b)

    def backward(self, dy: Tensor) -> Gradients:
        a, b = self.shapes
        return (
            unbroadcast(dy.apply(Masked(self.condition), dy), a) if self.needs_input_grad[0] else None,
            unbroadcast(dy.apply(Masked(~self.condition), dy), b) if self.needs_input_grad[1] else None,
        )


@kernel
def masked(x: Array, mask: Array) -> Array:
    """x where the mask holds, else 0; the mask is broadcast against x"""
    return np.where(mask, x, x.dtype.type(0))


class Masked(Function):
    """x where the mask holds, else 0. (x times the mask would be NaN where x is infinite.) Masked
    is linear in x, and its own transpose."""

    def __init__(self, mask: Array):
        self.mask = mask

    def forward(self, x: Array) -> Array:
        return masked(x, self.mask)

    def backward(self, dy: Tensor) -> Gradients:
        return dy.apply(Masked(self.mask), dy)


class Cast(Function):
    def __init__(self, dtype: np.dtype):
        self.to = dtype

    def forward(self, x: Array) -> Array:
        self.was = x.dtype
        return x.astype(self.to)

    def backward(self, dy: Tensor) -> Gradients:
        return dy.astype(self.was)


# --------------------------------------------------------------------------------------- reductions
def normal_axes(axis: int | tuple[int, ...] | None, ndim: int) -> Shape:
    """The axes as a sorted tuple of non-negative integers; None means all of them. A 0-d array
    accepts 0 and −1, as in NumPy."""
    # equivalent (comparison, sign): the rest says the same, in 1.2 µs where this takes 0.2
    if type(axis) is int and -ndim <= axis < ndim:
        return (axis % ndim,)
    if axis is None:
        return tuple(range(ndim))
    axes = [whole("axis", a) for a in (axis if isinstance(axis, (tuple, list)) else (axis,))]
    room = max(ndim, 1)
    if any(not -room <= a < room for a in axes) or len({a % room for a in axes}) != len(axes):
        raise ValueError(f"axis {axis} does not fit an array of {ndim} dimensions")
    return tuple(sorted(a % room for a in axes)) if ndim else ()


class _Reduction(Function):
    def __init__(self, axis: int | tuple[int, ...] | None, keepdims: bool):
        if type(keepdims) is not bool:
            flags(self.name, keepdims=keepdims)
        self.axis, self.keepdims = axis, bool(keepdims)

    def reduced(self, x: Array) -> tuple[Shape, Shape]:
        """(the axes summed over, x's shape with a 1 in their place)"""
        axes = normal_axes(self.axis, x.ndim)
        return axes, tuple([1 if i in axes else n for i, n in enumerate(x.shape)])


@kernel
def total(x: Array, axes: Shape) -> Array:
    """The sum over some axes. Floats are summed in float64 and rounded once: summed one by one in
    float32, 20 million ones are 16,777,216."""
    if x.dtype.kind != "f":
        return x.sum(axis=axes)
    return x.sum(axis=axes, dtype=np.promote_types(x.dtype, np.float64)).astype(x.dtype)


class Sum(_Reduction):
    def forward(self, x: Array) -> Array:
        self.was = x.shape
        axes, self.kept = self.reduced(x)
        y = total(x, axes)
        return y.reshape(self.kept) if self.keepdims else y

    def backward(self, dy: Tensor) -> Gradients:
        return dy.reshape(self.kept).broadcast_to(self.was)


class _ExtremeOf(_Reduction):
    """The largest or smallest elements; equal ones share the gradient equally."""

    saves = ((0,),)
    extreme: Callable[..., Any]  # an array's method max or min

    def forward(self, x: Array) -> Array:
        axes, self.kept = self.reduced(x)
        self.y = self.extreme(x, axis=axes, keepdims=self.keepdims)
        return self.y

    def backward(self, dy: Tensor) -> Gradients:
        x = self.saved_inputs[0].data
        ties = x == np.reshape(self.y, self.kept)
        axes, _ = self.reduced(x)
        share = dy.reshape(self.kept) / np.maximum(ties.sum(axis=axes, keepdims=True), 1)
        return dy.apply(Masked(ties), share.broadcast_to(x.shape))


class Max(_ExtremeOf):
    def extreme(self, x: Array, **options: Any) -> Array:
        return x.max(**options)


class Min(_ExtremeOf):
    def extreme(self, x: Array, **options: Any) -> Array:
        return x.min(**options)


class MatMul(Function):
    """a @ b for matrices, or stacks of matrices that are broadcast against each other."""

    saves = ((1,), (0,))

    def forward(self, a: Array, b: Array) -> Array:
        self.shapes = a.shape, b.shape
        return matmul(a, b)

    def backward(self, dy: Tensor) -> Gradients:
        a, b = self.saved_inputs
        return (
            unbroadcast(dy @ b.swapaxes(-1, -2), self.shapes[0]) if self.needs_input_grad[0] else None,
            unbroadcast(a.swapaxes(-1, -2) @ dy, self.shapes[1]) if self.needs_input_grad[1] else None,
        )


# ------------------------------------------------------------------------------------------- shapes
class Reshape(Function):
    def __init__(self, shape: Shape):
        self.to = shape

    def forward(self, x: Array) -> Array:
        self.was = x.shape
        return x.reshape(self.to)

    def backward(self, dy: Tensor) -> Gradients:
        return dy.reshape(self.was)


class Transpose(Function):
    def __init__(self, axes: Shape):
        self.axes = axes

    def forward(self, x: Array) -> Array:
        return x.transpose(self.axes)

    def backward(self, dy: Tensor) -> Gradients:
        inverse = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return dy.transpose(inverse)


class BroadcastTo(Function):
    def __init__(self, shape: Shape):
        self.to = shape

    def forward(self, x: Array) -> Array:
        self.was = x.shape
        return np.broadcast_to(x, self.to)

    def backward(self, dy: Tensor) -> Gradients:
        return unbroadcast(dy, self.was)


class Index(Function):
    """x[index] for slices and integers as well as for integer and boolean arrays, but not lists."""

    def __init__(self, index: Any):
        self.index = index
        parts = index if isinstance(index, tuple) else (index,)
        # slices and integers select no element twice
        self.once = not any(getattr(p, "shape", ()) for p in parts)

    def forward(self, x: Array) -> Array:
        self.was = x.shape
        return x[self.index]

    def backward(self, dy: Tensor) -> Gradients:
        return dy.apply(IndexAdd(self.index, self.was, self.once), dy)


class IndexAdd(Function):
    """Zeros of a given shape, with x added at an index: the transpose of Index."""

    def __init__(self, index: Any, shape: Shape, once: bool):
        self.index, self.to, self.once = index, shape, once

    def forward(self, x: Array) -> Array:
        array = array_module(x)
        if self.once:
            y = array.zeros(self.to, x.dtype)  # CuPy's zeros_like ignores the shape ()
            y[self.index] = x
            return y
        # not in float16, whose distance is 2 from 2,048 on
        y = array.zeros(self.to, np.promote_types(x.dtype, np.float32))
        array.add.at(y, self.index, x)
        return y if y.dtype == x.dtype else y.astype(x.dtype)

    def backward(self, dy: Tensor) -> Gradients:
        return dy[self.index]


class Concatenate(Function):
    def __init__(self, axis: int):
        self.axis = axis

    def forward(self, *arrays: Array) -> Array:
        y = np.concatenate(arrays, self.axis)
        self.sizes = [array.shape[self.axis] for array in arrays]
        return y

    def backward(self, dy: Tensor) -> Gradients:
        lead = (slice(None),) * (self.axis % dy.ndim)
        ends = np.cumsum(self.sizes).tolist()
        return tuple([dy[lead + (slice(end - n, end),)] for end, n in zip(ends, self.sizes, strict=True)])


class Pad(Function):
    """x with `value` around it: ((before, after), …) for each axis."""

    def __init__(self, widths: tuple[tuple[int, int], ...], value: float):
        self.widths, self.value = widths, value

    def forward(self, x: Array) -> Array:
        return np.pad(x, self.widths, constant_values=self.value) if self.widths else x.copy()

    def backward(self, dy: Tensor) -> Gradients:
        return dy[tuple([slice(before, n - after) for (before, after), n in zip(self.widths, dy.shape, strict=True)])]


class ToDevice(Function):
    def __init__(self, device: str):
        self.device = device

    def forward(self, x: Array) -> Array:
        self.was = device_of(x)
        return to_device(x, self.device)

    def backward(self, dy: Tensor) -> Gradients:
        return dy.to(self.was)
