"""Tensor: an array that remembers how it was computed; its operators and methods; and apply(),
through which every operation passes."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import habits, ops
from .autograd import (
    Copy,
    Function,
    backward_pass,
    is_recording,
    memory_of,
    note_leaf,
    observers,
    set_grad_enabled,
)
from .backends import devices
from .checks import RAW, flags, number, several, shown, whole

_accumulating = threading.Lock()  # backward passes in several threads may add to one leaf
Axis = int | tuple[int, ...] | None
Hook = Callable[["Tensor"], None]


class Tensor(habits.TensorHabits):
    """An array, with the gradient of a scalar with respect to it.

    Operators follow NumPy's rules of broadcasting. In an expression with a floating-point Tensor, a
    number or an array is a constant of that Tensor's dtype; two Tensors of different floating-point
    dtypes are a TypeError. A Tensor cannot be written to: optimizers and load_state_dict write to
    parameters, and a backward pass that still needs an old value is an error. x += y is x = x + y,
    and a TypeError if x is a leaf that requires a gradient.

    Args:
        data: an array, which keeps its dtype and is shared, not copied; or numbers in nested lists,
            in which floats become float32.
        requires_grad: whether backward() computes .grad for it; for floating-point dtypes only.
        device: "cpu", or "gpu" ("gpu:0"), "gpu:1" …; by default where data is.
        dtype: convert to this dtype.
    Attributes:
        data: the array.
        grad: None or a Tensor, to which backward() adds until it is set to None.
        requires_grad: whether this Tensor is, or depends on, a leaf that requires a gradient.
        grad_fn: the Function that made this Tensor; None for a leaf.
    Raises:
        TypeError: data is a Tensor, or not numbers; or requires_grad is True for integers.

    Example:
        >>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
        >>> (x * x).sum().backward()
        >>> x.grad
        Tensor([2., 4., 6.], dtype=float32)
    """

    __slots__ = "data", "grad", "grad_fn", "hooks", "requires_grad", "version"
    __array_ufunc__ = None  # so that ndarray * Tensor calls the Tensor's operator

    def __init__(self, data: Any, *, requires_grad: bool = False, device: str | None = None, dtype: Any = None) -> None:
        if isinstance(data, Tensor):
            raise TypeError("Tensor of a Tensor: use it as it is, or .detach() for one without history")
        array = devices.real_array("a Tensor holds real numbers or booleans", data)
        if dtype is None and array.dtype == np.float64 and not hasattr(data, "dtype"):
            dtype = np.float32  # Python floats
        if dtype is not None:
            array = array.astype(real_dtype("Tensor: dtype", dtype), copy=False)
        if requires_grad is not False:
            flags("Tensor", requires_grad=requires_grad)
        if requires_grad and array.dtype.kind != "f":
            raise TypeError(f"only floating-point Tensors require gradients, not {array.dtype}: add dtype=np.float32")
        self.data = array if device is None else devices.to_device(array, device)
        self.requires_grad = bool(requires_grad)
        self.grad: Tensor | None = None
        self.grad_fn: Function | None = None
        self.version = [0]  # how often it was overwritten; a list, so that views can share it
        self.hooks: dict[object, Hook] | None = None

    @staticmethod
    def wrap(array: devices.Array, grad_fn: Function | None = None) -> Tensor:
        """An array as a Tensor, unchecked and not copied.

        Args:
            array: of NumPy or of a backend.
            grad_fn: the Function whose output it is, if any.
        """
        tensor = Tensor.__new__(Tensor)
        if isinstance(array, np.generic):  # NumPy turns 0-d results into scalars
            array = np.asarray(array)
        tensor.data, tensor.grad_fn, tensor.requires_grad = array, grad_fn, grad_fn is not None
        tensor.grad = tensor.hooks = None
        tensor.version = [0]
        return tensor

    @staticmethod
    def apply(function: Function, *args: Any) -> Tensor:
        """minicnn.apply, as a method: for backward passes, in modules that do not import it.

        Args:
            function, *args: as for minicnn.apply.
        """
        return apply(function, *args)

    def plus(self, other: Tensor) -> Tensor:
        """self + other for two gradients of one Tensor, which have the same shape, dtype and
        device. If the sum is not recorded, and no GPU is in use, that is not checked, because a
        check would take as long as the sum.

        Args:
            other: the other gradient.
        """
        if is_recording() or observers or devices.opened:
            return self + other
        return Tensor.wrap(ops.broadcast(self.data, other.data, np.add))

    def times(self, other: Tensor) -> Tensor:
        """self · other for a gradient and an input that was saved for it, which have one dtype and
        device. If the product is not recorded, that is not checked, as in plus().

        Args:
            other: the input.
        """
        if is_recording() or observers or devices.opened:
            return self * other
        return Tensor.wrap(ops.broadcast(self.data, other.data, np.multiply))

    # ----------------------------------------------------------------------------------- what it is
    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def device(self) -> str:
        return devices.device_of(self.data)

    def __repr__(self) -> str:
        body = np.array2string(devices.to_device(self.data, "cpu"), separator=", ", prefix="Tensor(", threshold=100)
        notes = f", dtype={self.dtype}"
        if self.device != "cpu":
            notes += f", device={self.device!r}"
        if self.grad_fn is not None:
            notes += f", grad_fn={self.grad_fn.name}"
        elif self.requires_grad:
            notes += ", requires_grad=True"
        return f"Tensor({body}{notes})"

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in habits.TENSOR]

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("a 0-d Tensor has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(f"a Tensor of shape {self.shape} is neither true nor false: write .any() or .all()")
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.requires_grad:
            raise RuntimeError("this Tensor requires a gradient: write .detach() first, or .numpy()")
        return np.array(self.numpy(), dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        """The array's memory, not a copy, for the from_dlpack of NumPy, CuPy, PyTorch …"""
        if self.requires_grad:
            raise BufferError("this Tensor requires a gradient: write .detach() first")
        return devices.to_dlpack(self.data, options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()

    def item(self) -> Any:
        """The only element, as a Python number.

        Raises:
            ValueError: there are several elements, or none.
        """
        if self.size != 1:
            raise ValueError(f"item() is for a Tensor with one element, not for shape {self.shape}")
        return self.data.item()

    def numpy(self) -> np.ndarray:
        """The array on the host: on a CPU the array itself, from a GPU a copy."""
        return devices.to_device(self.data, "cpu")

    def detach(self) -> Tensor:
        """A constant with the same array, not a copy: no gradient flows through it."""
        tensor = Tensor.wrap(self.data)
        tensor.version = self.version
        return tensor

    def to(self, device: str) -> Tensor:
        """This Tensor on a device; itself if it is there. Gradients flow back to its own device.

        Args:
            device: "cpu", or "gpu" ("gpu:0"), "gpu:1" …
        Raises:
            DeviceError: there is no such device.
        """
        device = devices.open_device(device)
        return self if device == self.device else apply(ops.ToDevice(device), self)

    def astype(self, dtype: Any) -> Tensor:
        """A copy with another dtype. Gradients flow between floating-point dtypes; each Tensor's
        gradient has that Tensor's dtype.

        Args:
            dtype: such as np.float64.
        """
        dtype = real_dtype("astype: dtype", dtype)
        if dtype.kind == "f" == self.dtype.kind:
            return apply(ops.Cast(dtype), self)
        return self._constant(lambda array: array.astype(dtype), "astype")

    # ------------------------------------------------------------------------------------ gradients
    def backward(self, grad: Any = None, retain_graph: bool = False, create_graph: bool = False) -> None:
        """Run the backward pass from this Tensor: add to .grad of every leaf that requires a
        gradient and from which this Tensor was computed.

        Args:
            grad: dL/d(this), of its shape and dtype; by default 1, if this Tensor has one element.
            retain_graph: keep the graph for another backward pass; otherwise the pass frees it.
            create_graph: record this pass too, so that the gradients can be differentiated; this
                also retains the graph.
        Raises:
            RuntimeError: nothing was recorded, the graph was freed, a value that the pass reads has
                been overwritten, or grad is missing for several elements.
            ValueError: grad has another shape or dtype.

        Example:
            >>> x = Tensor([1.0, 2.0], requires_grad=True)
            >>> (3 * x).backward([1.0, 10.0])
            >>> x.grad
            Tensor([ 3., 30.], dtype=float32)
        """
        flags("backward", retain_graph=retain_graph, create_graph=create_graph)
        root = self, _output_gradient("backward", self, grad)

        def accumulate(leaf: Tensor, gradient: Tensor) -> None:
            with _accumulating:
                leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
            note_leaf(leaf)
            for hook in (leaf.hooks or {}).values():
                hook(leaf)

        with set_grad_enabled(create_graph), devices.on_device_of(self.data):
            backward_pass([root], accumulate, None, retain_graph or create_graph)

    def register_post_accumulate_grad_hook(self, hook: Hook) -> Callable[[], None]:
        """Call a function in each backward pass as soon as .grad of this leaf is complete, while
        the pass continues.

        Args:
            hook: called as hook(tensor).
        Returns:
            A function that removes the hook.
        Raises:
            RuntimeError: this Tensor is not a leaf that requires a gradient.

        Example:
            >>> x = Tensor(2.0, requires_grad=True)
            >>> remove = x.register_post_accumulate_grad_hook(lambda x: print(x.grad.item()))
            >>> (x * x).backward()
            4.0
        """
        if self.grad_fn is not None or not self.requires_grad:
            what = "requires no gradient" if self.grad_fn is None else f"is the result of {self.grad_fn.name}"
            raise RuntimeError(
                f"a gradient hook needs a leaf that requires a gradient; this Tensor of shape {self.shape} {what}"
            )
        if not callable(hook):
            raise TypeError(f"a gradient hook must be callable, not {shown(hook)}")
        key = object()
        self.hooks = {**(self.hooks or {}), key: hook}

        def remove() -> None:
            self.hooks = {k: h for k, h in (self.hooks or {}).items() if k is not key}

        return remove

    # ------------------------------------------------------------------------------------ operators
    __hash__ = object.__hash__

    def __add__(self, other: Any) -> Tensor:
        return apply(ops.Add(), self, other)

    def __radd__(self, other: Any) -> Tensor:
        return apply(ops.Add(), other, self)

    def __sub__(self, other: Any) -> Tensor:
        return apply(ops.Sub(), self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return apply(ops.Sub(), other, self)

    def __mul__(self, other: Any) -> Tensor:
        return apply(ops.Mul(), self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return apply(ops.Mul(), other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return apply(ops.Div(), self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return apply(ops.Div(), other, self)

    def __pow__(self, exponent: Any) -> Tensor:
        if isinstance(exponent, (int, float)):
            return apply(ops.PowScalar(exponent), self)
        return apply(ops.Pow(), self, exponent)

    def __rpow__(self, base: Any) -> Tensor:
        return apply(ops.Pow(), base, self)

    def __iadd__(self, other: Any) -> Tensor:
        self._refuse_in_place("+=")
        return self + other

    def __isub__(self, other: Any) -> Tensor:
        self._refuse_in_place("-=")
        return self - other

    def __imul__(self, other: Any) -> Tensor:
        self._refuse_in_place("*=")
        return self * other

    def __itruediv__(self, other: Any) -> Tensor:
        self._refuse_in_place("/=")
        return self / other

    def __ipow__(self, other: Any) -> Tensor:
        self._refuse_in_place("**=")
        return self**other

    def __imatmul__(self, other: Any) -> Tensor:
        self._refuse_in_place("@=")
        return self @ other

    def _refuse_in_place(self, sign: str) -> None:
        """x += y gives the name x to the new Tensor x + y. A Module that holds a leaf x would keep
        the old values.

        Raises:
            TypeError: this is a leaf that requires a gradient.
        """
        if self.requires_grad and self.grad_fn is None:
            raise TypeError(
                f"{sign} makes a new Tensor, so this leaf of shape {self.shape} that requires a gradient "
                "would stay as it is: let an optimizer write to it, such as optim.SGD, or write to its "
                f"array, p.data {sign} …, with an array such as p.grad.data on the right"
            )

    def __neg__(self) -> Tensor:
        return apply(ops.Neg(), self)

    def __matmul__(self, other: Any) -> Tensor:
        return _matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return _matmul(other, self)

    def __lt__(self, other: Any) -> Tensor:
        return self._compare(operator.lt, other)

    def __le__(self, other: Any) -> Tensor:
        return self._compare(operator.le, other)

    def __gt__(self, other: Any) -> Tensor:
        return self._compare(operator.gt, other)

    def __ge__(self, other: Any) -> Tensor:
        return self._compare(operator.ge, other)

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return self._compare(operator.eq, other)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return self._compare(operator.ne, other)

    def _compare(self, relation: Callable[[Any, Any], Any], other: Any) -> Tensor:
        """relation(self, other), elementwise; a boolean Tensor."""
        name = relation.__name__.strip("_")  # eq, and …
        if not isinstance(other, Tensor):
            other = _converted(name, other, self.dtype if self.dtype.kind == "f" else None, self.data)
        if devices.opened and self.device != other.device:
            here, there = self.device, other.device
            raise devices.DeviceError(f"{name}: {here} and {there} do not mix: move one with .to({here!r})")
        return self._constant(lambda array: relation(array, other.data), name, other)

    def _constant(self, function: Callable[[devices.Array], devices.Array], name: str, *others: Tensor) -> Tensor:
        """function(self.data), computed on this Tensor's device; no gradient flows through it.
        Where NumPy refuses it, the error has this name, and tells of the other Tensors too."""
        try:
            with devices.on_device_of(self.data):
                return Tensor.wrap(function(self.data))
        except RAW as error:
            raise _refusal(name, (self, *others), error) from error

    def __and__(self, other: Any) -> Tensor:
        return self._compare(operator.and_, other)

    def __or__(self, other: Any) -> Tensor:
        return self._compare(operator.or_, other)

    def __invert__(self) -> Tensor:
        return self._constant(operator.invert, "invert")

    def __getitem__(self, index: Any) -> Tensor:
        """Elements at integers, slices, None, …, integer or boolean arrays, as in NumPy."""
        parts = [p.data if isinstance(p, Tensor) else p for p in (index if isinstance(index, tuple) else (index,))]
        try:
            kept = tuple([devices.index_copy(p, self.data) for p in parts])  # backward reads them
        except RAW as error:
            raise _refusal(f"index {shown(index)}", (self,), error) from error
        return apply(ops.Index(kept if isinstance(index, tuple) else kept[0]), self)

    # -------------------------------------------------------------------------------------- methods
    def exp(self) -> Tensor:
        """e^x, elementwise."""
        return apply(ops.Exp(), self)

    def log(self) -> Tensor:
        """The natural logarithm, elementwise."""
        return apply(ops.Log(), self)

    def sqrt(self) -> Tensor:
        """The square root, elementwise."""
        return apply(ops.Sqrt(), self)

    def abs(self) -> Tensor:
        """The absolute value, elementwise; its derivative at 0 is 0."""
        return apply(ops.Abs(), self)

    __abs__ = abs

    def clip(self, low: float | None = None, high: float | None = None) -> Tensor:
        """Each element limited to the range from low to high; at the bounds the gradient passes.

        Args:
            low, high: the bounds; None means that there is none.

        Example:
            >>> Tensor([-2.0, 0.5, 2.0]).clip(0, 1)
            Tensor([0. , 0.5, 1. ], dtype=float32)
        """
        low = None if low is None else number("clip: low", low, finite=False)
        high = None if high is None else number("clip: high", high, finite=False)
        return apply(ops.Clip(low, high), self)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The sum over axes.

        Args:
            axis: an axis or a tuple of axes; by default all.
            keepdims: keep these axes, with length 1.
        Raises:
            ValueError: there is no such axis.

        Example:
            >>> Tensor([[1.0, 2.0], [3.0, 4.0]]).sum(axis=1, keepdims=True)
            Tensor([[3.],
                    [7.]], dtype=float32)
        """
        return apply(ops.Sum(axis, keepdims), self)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The mean over axes; NaN if there are no elements. A mean of float16 is computed in
        float32, because the sum may overflow.

        Args:
            axis, keepdims: as for sum.
        """
        if self.dtype == np.float16:
            return self.astype(np.float32).mean(axis, keepdims).astype(np.float16)
        return apply(ops.DivScalar(self._count(axis) or np.nan), self.sum(axis, keepdims))

    def var(self, axis: Axis = None, *, keepdims: bool = False, ddof: float = 0) -> Tensor:
        """The variance over axes, by default the biased one, as in NumPy; PyTorch has ddof=1.

        Args:
            axis, keepdims: as for sum.
            ddof: the denominator is count − ddof.

        Example:
            >>> Tensor([1.0, 3.0]).var().item(), Tensor([1.0, 3.0]).var(ddof=1).item()
            (1.0, 2.0)
        """
        if self.dtype == np.float16:
            return self.astype(np.float32).var(axis, keepdims=keepdims, ddof=ddof).astype(np.float16)
        ddof = number("var: ddof", ddof)
        deviation = self - self.mean(axis, keepdims=True)
        count = self._count(axis) - ddof
        return apply(ops.DivScalar(count if count > 0 else np.nan), (deviation * deviation).sum(axis, keepdims))

    def std(self, axis: Axis = None, *, keepdims: bool = False, ddof: float = 0) -> Tensor:
        """The standard deviation over axes, the square root of var.

        Args:
            axis, keepdims, ddof: as for var.
        """
        if self.dtype == np.float16:
            return self.astype(np.float32).std(axis, keepdims=keepdims, ddof=ddof).astype(np.float16)
        return self.var(axis, keepdims=keepdims, ddof=ddof).sqrt()

    def _count(self, axis: Axis) -> int:
        return int(np.prod([self.shape[a] for a in ops.normal_axes(axis, self.ndim)], dtype=int))

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The maximum over axes: one Tensor, where PyTorch returns (values, indices); argmax has
        the indices. Equal maxima share the gradient equally.

        Args:
            axis, keepdims: as for sum.
        """
        return apply(ops.Max(axis, keepdims), self)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The minimum over axes, as max is the maximum.

        Args:
            axis, keepdims: as for sum.
        """
        return apply(ops.Min(axis, keepdims), self)

    def argmax(self, axis: int | None = None) -> Tensor:
        """The index of the first maximum.

        Args:
            axis: one axis; by default the index is that of the flattened Tensor.
        Returns:
            A Tensor of integers.

        Example:
            >>> Tensor([[1.0, 5.0], [7.0, 3.0]]).argmax(axis=1).numpy()
            array([1, 0])
        """
        return self._constant(lambda array: array.argmax(_one_axis(axis)), "argmax")

    def argmin(self, axis: int | None = None) -> Tensor:
        """The index of the first minimum.

        Args:
            axis: as for argmax.
        Returns:
            A Tensor of integers.
        """
        return self._constant(lambda array: array.argmin(_one_axis(axis)), "argmin")

    def any(self, axis: Axis = None) -> Tensor:
        """Whether any element along the axes is not 0.

        Args:
            axis: as for sum.
        Returns:
            A boolean Tensor.
        """
        return self._constant(lambda array: (array != 0).any(ops.normal_axes(axis, self.ndim)), "any")

    def all(self, axis: Axis = None) -> Tensor:
        """Whether all elements along the axes are not 0.

        Args:
            axis: as for sum.
        Returns:
            A boolean Tensor.
        """
        return self._constant(lambda array: (array != 0).all(ops.normal_axes(axis, self.ndim)), "all")

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements, in row-major order, in another shape.

        Args:
            *shape: integers or a tuple; one of them may be −1, and is found from the others.
        Raises:
            ValueError: the shape has another number of elements.

        Example:
            >>> Tensor(np.zeros((2, 3, 4))).reshape(2, -1).shape
            (2, 12)
        """
        return apply(ops.Reshape(_sizes("reshape", shape)), self)

    def transpose(self, *axes: Any) -> Tensor:
        """The axes in another order, as in NumPy.

        Args:
            *axes: each axis once, as integers or a tuple; by default in reverse order.
        Raises:
            ValueError: an axis is missing, or occurs twice. Also for transpose(0, 1) of two axes,
                which would change nothing: PyTorch's method of that name swaps them.

        Example:
            >>> Tensor(np.zeros((2, 3, 4))).transpose(0, 2, 1).shape
            (2, 4, 3)
        """
        order = _sizes("transpose", axes) or tuple(reversed(range(self.ndim)))
        if len(axes) == self.ndim == 2 and order == (0, 1):
            raise ValueError(
                f"transpose(0, 1) of shape {self.shape} names the axes in the order that they have "
                "and changes nothing: to swap them write swapaxes(0, 1) or .T"
            )
        if len(order) != self.ndim or len(ops.normal_axes(order, self.ndim)) != self.ndim:
            raise ValueError(
                f"transpose{order} does not name each of {self.ndim} axes once; to swap two of them write swapaxes"
            )
        return apply(ops.Transpose(tuple([a % self.ndim for a in order])), self)

    @property
    def T(self) -> Tensor:
        """The axes in reverse order."""
        return self.transpose()

    def swapaxes(self, a: int, b: int) -> Tensor:
        """The same elements with two axes exchanged.

        Args:
            a, b: the two axes.
        Raises:
            ValueError: there is no such axis.
        """
        order = list(range(self.ndim))
        (a,), (b,) = (ops.normal_axes(whole("swapaxes: axis", axis), self.ndim) for axis in (a, b))
        order[a], order[b] = order[b], order[a]
        return apply(ops.Transpose(tuple(order)), self)

    def flatten(self) -> Tensor:
        """All elements along one axis, row by row, as in NumPy; nn.Flatten keeps the first axis."""
        return self.reshape(-1) if self.size else self.reshape(0)

    def squeeze(self, axis: Axis = None) -> Tensor:
        """The same elements without axes of length 1.

        Args:
            axis: an axis or a tuple of axes; by default all axes of length 1.
        Raises:
            ValueError: an axis is longer, or does not exist.

        Example:
            >>> Tensor(np.zeros((2, 1, 1))).squeeze(-1).shape
            (2, 1)
        """
        axes = ops.normal_axes(axis, self.ndim)
        if axis is None:
            axes = tuple([a for a in axes if self.shape[a] == 1])
        if any(self.shape[a] != 1 for a in axes):
            raise ValueError(f"squeeze({axis}) of shape {self.shape}: only axes of length 1 can be left out")
        return self.reshape(*[n for a, n in enumerate(self.shape) if a not in axes])

    def copy(self) -> Tensor:
        """A Tensor with a copy of the array, through which the gradient flows."""
        return apply(Copy(), self)

    def broadcast_to(self, *shape: Any) -> Tensor:
        """A view repeated to a larger shape by NumPy's rules of broadcasting.

        Args:
            *shape: integers or a tuple.
        Raises:
            ValueError: this Tensor's shape cannot be broadcast to it.

        Example:
            >>> Tensor([[1.0], [2.0]]).broadcast_to(2, 3)
            Tensor([[1., 1., 1.],
                    [2., 2., 2.]], dtype=float32)
        """
        return apply(ops.BroadcastTo(_sizes("broadcast_to", shape)), self)


def _sizes(name: str, sizes: Sequence[Any]) -> tuple[int, ...]:
    """f(2, 3) and f((2, 3)) mean the same."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = sizes[0]
    try:
        return tuple([operator.index(n) for n in sizes])
    except TypeError:
        raise TypeError(f"{name} takes integers or a tuple of them, not {shown(sizes)}") from None


def _one_axis(axis: Any) -> int | None:
    return None if axis is None else whole("axis", axis)


def _matmul(a: Any, b: Any) -> Tensor:
    """a @ b as in NumPy: a vector on the left is a row, one on the right is a column, and the
    result does not have that axis."""
    a, b = (
        t if isinstance(t, Tensor) else devices.real_array("matmul takes Tensors and arrays of numbers", t)
        for t in (a, b)
    )
    if not a.ndim or not b.ndim:
        raise ValueError(f"matmul: a 0-d operand in a matrix product of shapes {a.shape} and {b.shape}: use * instead")
    columns, rows = a.shape[-1], b.shape[max(b.ndim - 2, 0)]
    if columns != rows:
        raise ValueError(f"matmul of shapes {a.shape} and {b.shape}: the inner dimensions {columns} and {rows} differ")
    y = apply(ops.MatMul(), a.reshape(1, -1) if a.ndim == 1 else a, b.reshape(-1, 1) if b.ndim == 1 else b)
    y = y[..., 0, :] if a.ndim == 1 else y
    return y[..., 0] if b.ndim == 1 else y


def apply(function: Function, *args: Any) -> Tensor:
    """Compute function.forward on the arguments' arrays. Every operation is computed this way, and
    recorded for differentiation if an argument requires a gradient.

    Args:
        function: a new object of a subclass of Function.
        *args: Tensors of one device and one floating-point dtype; anything else becomes a constant.
    Returns:
        The result, whose grad_fn is the function if it was recorded.
    Raises:
        TypeError: dtypes differ, no argument is a Tensor, or function is not a Function.
        DeviceError: devices differ.
        ValueError: function.forward refuses the shapes.

    Example:
        >>> class Swish(Function):  # x · sigmoid(x)
        ...     saves = ((0,),)  # the gradient of input 0 is computed from the value of input 0
        ...     def forward(self, x):
        ...         return x / (1 + np.exp(-x))
        ...     def backward(self, dy):
        ...         x = self.saved_inputs[0]
        ...         s = 1 / (1 + (-x).exp())
        ...         return dy * (s + x * s * (1 - s))
        >>> apply(Swish(), Tensor([0.0, 1.0]))
        Tensor([0.       , 0.7310586], dtype=float32)
    """
    inputs, arrays = args, _arrays(args)
    if not arrays:
        inputs = _inputs(function, args)
        arrays = [tensor.data for tensor in inputs]
    try:
        data = devices.run_there(function.forward, arrays) if devices.opened else function.forward(*arrays)
    except RAW as error:
        _check_function(function, error)
        if isinstance(error, AttributeError):  # a mistake in forward: no input is to blame
            raise
        raise _refusal(function.name, inputs, error) from error
    if not hasattr(data, "base"):  # arrays have it, Tensors do not
        _check_function(function)
        raise TypeError(
            f"{function.name}.forward returned a {type(data).__name__}, not an array: it is handed arrays, "
            "computes with NumPy's functions and returns one array"
        )
    output = Tensor.wrap(data, function if function.record(inputs, data) else None)
    if observers:
        for observer in tuple(observers):
            observer.computed(function, inputs, output)
    # a view: overwriting the one overwrites the other
    if (data is arrays[0] or output.data.base is not None) and memory_of(output) == memory_of(inputs[0]):
        output.version = inputs[0].version
    return output


def _refusal(name: str, inputs: Sequence[Tensor], error: Exception) -> Exception:
    """The error of an operation that refuses its inputs: in one line, what it was given, and why
    not."""
    kinds: list[type[Exception]] = [ValueError, IndexError, TypeError]
    kind = next((kind for kind in kinds if isinstance(error, kind)), ValueError)
    shapes, dtypes = (" and ".join(str(getattr(t, what)) for t in inputs) for what in ("shape", "dtype"))
    given = f"shape {shapes}" + f" and dtype {dtypes}" * (kind is not ValueError)
    return kind(f"{name} of {given}: {' '.join(str(error).split())}")


def _arrays(args: tuple[Any, ...]) -> list[devices.Array]:
    """The arrays of the arguments if these are floating-point Tensors of one dtype on one device,
    so that there is nothing to convert; else an empty list. This is by far the most common case,
    and the check takes half a microsecond."""
    arrays: list[devices.Array] = []
    dtype = kind = None
    for arg in args:
        if not isinstance(arg, Tensor):
            return []
        array = arg.data
        if dtype is None:
            dtype, kind = array.dtype, type(array)
        elif array.dtype is not dtype or type(array) is not kind:
            return []
        arrays.append(array)
    if dtype is None or dtype.kind != "f" or (devices.opened and not devices.on_one_device(arrays)):
        return []
    return arrays


def _check_function(function: Any, cause: BaseException | None = None) -> None:
    """Check that apply can take this function.

    Raises:
        TypeError: it is a class of Functions, or not a Function.
    """
    if isinstance(function, type) and issubclass(function, Function):
        raise TypeError(f"apply takes a new object for each call: apply({function.__name__}(…), x)") from cause
    if not isinstance(function, Function):
        what = getattr(function, "__name__", type(function).__name__)
        raise TypeError(
            f"apply takes an object of a subclass of minicnn.Function, which knows its derivative, and then its "
            f"inputs; {what} is not one"
        ) from cause


def _inputs(function: Function, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """The arguments as Tensors of one device, and of one dtype if one of them is floating point."""
    if not isinstance(function, Function):
        _check_function(function)
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    if not tensors:
        given = " and ".join(shown(arg) for arg in args) or "nothing"
        raise TypeError(
            f"{function.name} of {given}: none of the arguments is a Tensor: wrap an array as Tensor(array)"
        )
    like = tensors[0].data
    dtypes = [t.data.dtype for t in tensors if t.data.dtype.kind == "f"]
    if not dtypes and (function.promotes_integers or any(type(arg) is float for arg in args)):
        dtypes = [np.dtype(np.float32)]
    elif not dtypes:
        arrays = [arg for arg in args if devices.kind_of(type(arg)) or isinstance(arg, Tensor)]
        dtypes = [array.dtype for array in arrays if array.dtype.kind == "f"][:1]
    if any(dtype != dtypes[0] for dtype in dtypes):
        narrow, *_, wide = sorted(dtypes, key=lambda dtype: dtype.itemsize)
        raise TypeError(
            f"{function.name}: dtypes {narrow} and {wide} do not mix: convert the {wide} one, x.astype(np.{narrow})"
        )
    here = devices.device_of(like)
    with devices.on_device(here):
        inputs = tuple([_converted(function.name, arg, dtypes[0] if dtypes else None, like) for arg in args])
    for t in inputs:
        if t.device != here:
            raise devices.DeviceError(f"{function.name}: {here} and {t.device} do not mix: move one with .to({here!r})")
    return inputs


def _converted(name: str, arg: Any, dtype: np.dtype | None, like: devices.Array) -> Tensor:
    """An argument as a Tensor: of that dtype or, for None (integers and booleans only), of the
    dtype to which NumPy would promote it. Messages begin with the name."""
    if isinstance(arg, Tensor):
        return arg if dtype is None or arg.data.dtype == dtype else Tensor.wrap(arg.data.astype(dtype))
    if dtype is None and type(arg) is int and like.dtype.kind in "iu":
        dtype = like.dtype
    array = devices.real_array(f"{name} takes numbers, arrays of numbers and Tensors", arg)
    if array.ndim or not devices.on_host(array):
        return Tensor.wrap(array.astype(dtype or array.dtype, copy=False))
    try:
        return Tensor.wrap(devices.constant(arg if type(arg) is int else array.item(), dtype or array.dtype, like))
    except OverflowError:
        raise OverflowError(f"{name}: {shown(arg)} does not fit {dtype}: convert the Tensor with .astype(…)") from None


def real_dtype(name: str, dtype: Any) -> np.dtype:
    """A user's dtype, checked: of real numbers or booleans, in this machine's order of bytes.

    Args:
        name: what a message calls it.
        dtype: such as np.float32 or "float32".
    """
    try:
        found = np.dtype(dtype).newbyteorder("=")
        if dtype is not None and found.kind in "fiub" and not found.subdtype:
            return found
    except (TypeError, ValueError, SyntaxError, DeprecationWarning):
        pass
    raise TypeError(f"{name} must be one of real numbers or booleans, such as np.float32, not {shown(dtype)}")


def _output_gradient(name: str, output: Tensor, grad: Any) -> Tensor:
    """The gradient that a backward pass starts with, checked. Messages begin with the name."""
    if not output.requires_grad:
        raise RuntimeError(
            f"{name}: nothing to differentiate: no input of this Tensor of shape {output.shape} requires a gradient, "
            "or it was computed under no_grad"
        )
    if grad is None:
        if output.size != 1:
            raise RuntimeError(f"{name} from shape {output.shape} needs a gradient of that shape")
        with devices.on_device_of(output.data):
            return Tensor.wrap(np.ones_like(output.data))
    tensor = (
        _converted(f"{name}: a gradient", grad, output.dtype, output.data) if not isinstance(grad, Tensor) else grad
    )
    if tensor.shape != output.shape or tensor.dtype != output.dtype:
        raise ValueError(
            f"{name}: a gradient of shape {tensor.shape} and dtype {tensor.dtype} "
            f"for an output of shape {output.shape} and dtype {output.dtype}"
        )
    return tensor


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> tuple[Tensor | None, ...]:
    """The gradients of the outputs with respect to the inputs; no .grad changes.

    Args:
        outputs, inputs: a Tensor or several. Inputs may be leaves or intermediate results; the pass
            visits only the nodes that their gradients need.
        grad_outputs: dL/d(output) for each output; None means 1, for an output of one element.
        create_graph: record the computation, so that the result can be differentiated.
        retain_graph: keep the graph for another pass; by default as create_graph.
    Returns:
        A tuple of the gradients, one for each input; None if no output depends on the input.
    Raises:
        RuntimeError: an input does not require a gradient, or as for Tensor.backward.
        ValueError: grad_outputs are not as many as outputs, or of another shape or dtype.

    Example:
        >>> x = Tensor(3.0, requires_grad=True)
        >>> grad(x * x, x)
        (Tensor(6., dtype=float32),)
    """
    flags("grad", create_graph=create_graph, **({} if retain_graph is None else {"retain_graph": retain_graph}))
    ys = [outputs] if isinstance(outputs, Tensor) else several("grad: outputs", outputs, Tensor)
    xs = [inputs] if isinstance(inputs, Tensor) else several("grad: inputs", inputs, Tensor)
    gs = [None] * len(ys) if grad_outputs is None else grad_outputs
    gs = [gs] if hasattr(gs, "shape") else several("grad: grad_outputs", gs)
    if not ys or not xs or len(gs) != len(ys):
        raise ValueError(f"grad of {len(ys)} outputs, {len(gs)} output gradients, with respect to {len(xs)} inputs")
    for i, x in enumerate(xs):
        if not x.requires_grad:
            raise RuntimeError(
                f"grad: input {i} does not require a gradient: create it, of shape {x.shape}, with requires_grad=True"
            )
    roots = [(y, _output_gradient("grad", y, g)) for y, g in zip(ys, gs, strict=True)]
    found: dict[Tensor, Tensor] = {}
    with set_grad_enabled(create_graph), devices.on_device_of(roots[0][0].data):
        backward_pass(roots, found.__setitem__, xs, create_graph if retain_graph is None else retain_graph)
    return tuple([found.get(x) for x in xs])
