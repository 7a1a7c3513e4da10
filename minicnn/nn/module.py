"""Module: a part of a network, which owns parameters and other modules. Parameter: a Tensor that is
learned. Sequential: a chain of modules. ModuleList: a list of modules.

A module's attributes are its contents: every Parameter and every Module assigned to it counts, in
the order of assignment, under the name of the attribute. Nothing is registered, except buffers
(arrays that belong to the state but are not learned). Whatever would be lost silently is an error:
modules or parameters in a plain container or in the class, a Tensor that requires a gradient but is
not a Parameter, and a parameter or module that is replaced by something else.
"""

from collections import UserDict, UserList, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, overload

import numpy as np

from ..autograd import no_grad, observers
from ..backends import devices
from ..backends.devices import Array
from ..checks import flags, place, several, shown, sizes, whole
from ..tensor import Tensor, real_dtype

Self = TypeVar("Self", bound="Module")
Numbered = TypeVar("Numbered", bound="_Numbered")
Hook = Callable[["Module", tuple[Any, ...], Any], None]


class Parameter(Tensor):
    """A leaf Tensor that requires a gradient. Its array is contiguous, so that optimizers can
    update it in place, block by block.

    Args:
        data: an array of floats, which is copied only if it is not contiguous or not writeable.
    Raises:
        TypeError: data is a Tensor, or not of floats.

    Example:
        >>> Parameter(np.zeros(2))
        Tensor([0., 0.], dtype=float64, requires_grad=True)
    """

    __slots__ = ()

    def __init__(self, data: Any) -> None:
        if isinstance(data, Tensor):
            raise TypeError(f"a Parameter is made of an array, not {shown(data)}: write nn.Parameter(tensor.data)")
        super().__init__(data, requires_grad=True)
        flags = self.data.flags
        if not flags.c_contiguous or not getattr(flags, "writeable", True):  # JAX's arrays are not
            with devices.on_device_of(self.data):
                self.data = self.data.copy(order="C")

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute.

        Raises:
            TypeError: `data` would become something other than an array of its shape and dtype,
                which neither the optimizer nor the layer could work with.
        """
        if name == "data" and hasattr(self, "data"):
            if isinstance(value, np.generic):  # NumPy turns 0-d results into scalars
                value = np.asarray(value)
            if not _is_array(value) or (value.shape, value.dtype) != (self.shape, self.dtype):
                raise TypeError(
                    f"a Parameter of shape {self.shape} and dtype {self.dtype} cannot become {_described(value)}: "
                    "write p.data[...] = … for new values, net.astype(…) for another dtype, or assign "
                    "an nn.Parameter(…) to the module (then make the optimizer again)"
                )
            self.version[0] += 1
        object.__setattr__(self, name, value)


def _is_array(value: Any) -> bool:
    return not isinstance(value, (np.generic, Tensor)) and devices.kind_of(type(value)) is not None


def _described(value: Any) -> str:
    if _is_array(value):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return f"a {type(value).__name__}"


# these can hold modules that would not be found; so can an array whose dtype is object
CONTAINERS: Any = (
    list, tuple, set, frozenset, dict, deque, UserDict, UserList, MappingProxyType,
    type({}.keys()), type({}.values()), type({}.items()),
)  # fmt: skip


def _part_in(value: Any) -> str | None:
    """The kind of part of a network that a value is or, if it is a container, holds at any depth;
    None if there is none."""
    stack: list[Any] = [value]
    seen: dict[int, Any] = {}
    while stack:
        value = stack.pop()
        if isinstance(value, Module):
            return "Module"
        if isinstance(value, Tensor):
            if isinstance(value, Parameter):
                return "Parameter"
            if value.requires_grad and value.grad_fn is None:
                return "Tensor that requires a gradient"
        elif id(value) in seen:  # a list that holds itself
            continue
        elif isinstance(value, CONTAINERS):
            seen[id(value)] = value  # kept alive, because otherwise another could get its id
            stack.extend(value.values() if isinstance(value, Mapping) else value)
        elif str(getattr(value, "dtype", "")) == "object":
            stack.extend(value.ravel().tolist())
    return None


def _refuse_lost(owner: str, name: str, value: Any) -> None:
    """Refuse an attribute that is, or holds, modules or parameters that would not be found.

    Raises:
        TypeError: it is such an attribute.
    """
    part = None if isinstance(value, Parameter) else _part_in(value)
    if part is None:
        return
    what = f"a {part}" if isinstance(value, Tensor) else f"a {type(value).__name__} that holds a {part}"
    if isinstance(value, Tensor):
        instead = "write nn.Parameter(array), or give its .detach() if it is not to be trained"
    elif part != "Module":
        instead = "give each nn.Parameter an attribute of its own, or to a Module in an nn.ModuleList"
    elif isinstance(value, Mapping):
        instead = "write nn.Sequential(**modules), or give each module an attribute of its own"
    else:
        instead = "wrap the modules in nn.ModuleList([…])"
    raise TypeError(
        f"{owner}.{name} is {what}: only a Parameter or Module that is itself an attribute is "
        f"trained, saved and moved: {instead}"
    )


def _buffer(owner: str, name: str, value: Any) -> Array:
    """The value of a buffer, checked."""
    if isinstance(value, np.generic):  # NumPy turns 0-d results into scalars
        return np.asarray(value)
    if not _is_array(value):
        what = type(value).__name__
        raise TypeError(f"{owner}: the buffer {name!r} is a {what}; a buffer is an array, such as a Tensor's .data")
    return value


class Module:
    """Part of a network. A subclass assigns its parameters and submodules in __init__ and defines
    forward(*inputs). Calling a module calls its forward.

    Attributes:
        training: whether this module is in training mode (see train and eval).

    Example:
        >>> from minicnn import Tensor, nn
        >>> class Twice(nn.Module):
        ...     def __init__(self):
        ...         self.inner = nn.Linear(3, 3)
        ...     def forward(self, x):
        ...         return self.inner(self.inner(x))
        >>> net = Twice()
        >>> [name for name, _ in net.named_parameters()]
        ['inner.weight', 'inner.bias']
        >>> net(Tensor([[1.0, 2.0, 3.0]])).shape
        (1, 3)
    """

    training = True
    _buffers: tuple[str, ...] = ()
    _hooks: dict[object, Hook] = {}
    # {(forward, the next module's forward): what a Sequential may call in the place of both}
    _fused: Mapping[Any, Callable[..., Any]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        """Check the attributes of the class.

        Raises:
            TypeError: a module or parameter belongs to the class, where all its objects would share
                it and none would find it.
        """
        super().__init_subclass__(**options)
        for name, value in vars(cls).items():
            if (part := _part_in(value)) is not None:
                raise TypeError(
                    f"{cls.__name__}.{name} is or holds a {part} and belongs to the class: assign it "
                    f"in __init__, self.{name} = …, so that it is trained, saved and moved"
                )

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute.

        Raises:
            TypeError: something would be lost: the value is a plain container of modules or
                parameters, or a Tensor that requires a gradient, was not computed and is not a
                Parameter; or it would replace a Parameter or a Module by something other than these
                or None, or a buffer by something other than an array. Or the value is this module,
                or contains it.
        """
        before, owner = vars(self).get(name), type(self).__name__
        if name in self._buffers:
            value = _buffer(owner, name, value)
        elif isinstance(value, Module):
            self._refuse_around(value)
        elif not isinstance(value, Parameter):
            if isinstance(before, (Parameter, Module)) and value is not None:
                instead = "assign a Module, or None to do without it"
                if isinstance(before, Parameter):
                    instead = (
                        f"write {name}.data[...] = … for new values, or assign "
                        "nn.Parameter(…) for a new parameter (then make the optimizer again)"
                    )
                raise TypeError(
                    f"{owner}.{name} is a {'Parameter' if isinstance(before, Parameter) else 'Module'} and would be "
                    f"lost, replaced by a {type(value).__name__}: {instead}"
                )
            _refuse_lost(owner, name, value)
        object.__setattr__(self, name, value)

    def _refuse_around(self, part: "Module") -> None:
        """Refuse a part that contains this module.

        Raises:
            TypeError: it does, so that walking through the modules would never end.
        """
        if any(module is self for _, module in part.named_modules()):
            raise TypeError(
                f"a {type(self).__name__} cannot have as its part a {type(part).__name__} that it is a "
                "part of itself: keep a weakref.ref of a module around it"
            )

    def forward(self, *inputs: Any) -> Any:
        """Compute the outputs from the inputs; each subclass defines it. Call the module itself,
        not this method: module(x) also calls the hooks and says in an error where it happened."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        try:
            output = self.forward(*inputs, **options)
        except (AttributeError, TypeError, ValueError) as error:
            self._explain(error, inputs)
            raise
        for hook in self._hooks.values():
            if hook(self, inputs, output) is not None:
                raise TypeError("a forward hook returned something: it can look at the output and not replace it")
        return output

    _call = __call__  # as it is here, whatever a profiler may put in its place

    def _fused_with(self, following: "Module") -> Callable[..., Any] | None:
        """What computes this module and then the following one, if something does and nobody looks
        at what is between: no hook, no detect_anomaly, and no forward or __call__ of their own."""
        if not self._fused:
            return None
        fused = self._fused.get((type(self).forward, type(following).forward))
        if fused is None or observers or self._hooks or following._hooks:
            return None
        own = {"forward"} & (vars(self).keys() | vars(following).keys())
        called = type(self).__call__ is type(following).__call__ is Module._call
        return fused if called and not own else None

    def _explain(self, error: AttributeError | TypeError | ValueError, inputs: tuple[Any, ...]) -> None:
        """Say in an error of this module's forward where it happened.

        Raises:
            TypeError: the error was that the input has no attribute that a Tensor has.
        """
        if not isinstance(error, AttributeError):
            self._say_where(error)
        # as None has no shape
        elif inputs and error.obj is inputs[0] and not isinstance(error.obj, Tensor):
            other = TypeError(f"the input is a {type(error.obj).__name__}, not a Tensor: {error}")
            self._say_where(other)
            raise other from error

    def _say_where(self, error: TypeError | ValueError) -> None:
        """Put the name of the layer that raised an error before its message, "features.conv1
        (Conv2d): …". Each module through which the error passes adds its part of the name."""
        raised: Any = error
        if len(error.args) != 1 or not isinstance(error.args[0], str):  # it is not one of ours
            return
        inner, path, text = getattr(raised, "place", (self, "", f"({type(self).__name__}): {error}"))
        if inner is not self:
            name = next((name for name, module in self.named_modules() if module is inner), "")
            path = f"{name}.{path}" if path else name
            error.args = (f"{path} {text}",)
        raised.place = self, path, text

    def register_forward_hook(self, hook: Hook) -> Callable[[], None]:
        """Call a function after each forward pass of this module.

        Args:
            hook: called as hook(module, inputs, output); it must return None.
        Returns:
            A function that removes the hook.

        Example:
            >>> from minicnn import nn
            >>> layer = nn.Linear(3, 2)
            >>> remove = layer.register_forward_hook(lambda module, inputs, y: print(y.shape))
            >>> _ = layer(Tensor([[1.0, 2.0, 3.0]]))
            (1, 2)
        """
        if not callable(hook):
            raise TypeError(f"register_forward_hook: hook must be callable, not {shown(hook)}")
        key = object()
        vars(self)["_hooks"] = {**self._hooks, key: hook}  # a Module can be a hook

        def remove() -> None:
            vars(self)["_hooks"] = {k: h for k, h in self._hooks.items() if k is not key}

        return remove

    # ------------------------------------------------------------------------------------- contents
    def register_buffer(self, name: str, array: Array) -> None:
        """Set an attribute to an array that is part of the state but not learned (a running mean).

        Args:
            name: of the attribute.
            array: on any device.
        Raises:
            TypeError: it is not an array, for example a Tensor.
        """
        if not isinstance(name, str):
            raise TypeError(f"register_buffer: name must be a string, not {shown(name)}")
        setattr(self, name, _buffer(type(self).__name__, name, array))
        self._buffers = (*self._buffers, name)

    def children(self) -> Iterator["Module"]:
        """The modules directly inside, in the order of assignment; one with two names, twice."""
        return (module for _, module in self.named_children())

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """(name, module) of the modules directly inside, in the order of assignment."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif name != "_hooks":
                _refuse_lost(type(self).__name__, name, value)  # it was empty when it was assigned

    def named_modules(self, *, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """(dotted name, module) of this module and of all modules in it, outer before inner.

        Args:
            prefix: the name of this module.
        """
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(prefix=f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter) of each parameter, once, in the order of assignment."""
        seen = set()
        for name, value in self._entries():
            if isinstance(value, Parameter) and value not in seen:
                seen.add(value)
                yield name, value

    def parameters(self) -> Iterator[Parameter]:
        """Each parameter, once, in the order of assignment: what an optimizer takes."""
        return (parameter for _, parameter in self.named_parameters())

    def _entries(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """(dotted name, parameter or buffer array) in the order of assignment."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter) or name in self._buffers:
                yield prefix + name, value
            elif isinstance(value, Module):
                yield from value._entries(f"{prefix}{name}.")
            elif name != "_hooks":
                _refuse_lost(type(self).__name__, name, value)  # it was empty when it was assigned

    def zero_grad(self) -> None:
        """Set .grad of all parameters to None."""
        for parameter in self.parameters():
            parameter.grad = None

    # ---------------------------------------------------------------------------------------- modes
    def train(self: Self, mode: bool = True) -> Self:
        """Switch this module, and all modules in it, to training mode or to evaluation mode, in
        which dropout and batch normalization behave differently.

        Args:
            mode: False for evaluation mode.
        Returns:
            This module.
        """
        flags("train", mode=mode)
        for _, module in self.named_modules():
            if module.training != mode:  # to set an attribute of a Module takes 3 µs
                module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Switch to evaluation mode: train(False)."""
        return self.train(False)

    def to(self: Self, device: str) -> Self:
        """Move all parameters and buffers to a device, in place.

        Args:
            device: "cpu", or "gpu" ("gpu:0"), "gpu:1" …
        Returns:
            This module.
        Raises:
            DeviceError: there is no such device.
        """
        return self._convert(lambda array: devices.to_device(array, device))

    def astype(self: Self, dtype: Any) -> Self:
        """Convert all floating-point parameters and buffers to a dtype, in place.

        Args:
            dtype: such as np.float64.
        Returns:
            This module.
        """
        new = real_dtype("astype: dtype", dtype)
        if new.kind != "f":
            raise TypeError(f"astype: dtype must be a floating-point one for parameters, not {shown(dtype)}")
        return self._convert(lambda array: array.astype(new, copy=False) if array.dtype.kind == "f" else array)

    def _convert(self: Self, function: Callable[[Array], Array]) -> Self:
        for _, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    # not through Parameter's check, because the dtype may change
                    object.__setattr__(value, "data", function(value.data))
                    value.version[0] += 1
                    if value.grad is not None:
                        value.grad = Tensor(function(value.grad.data))
                elif name in module._buffers:
                    setattr(module, name, function(value))
        return self

    # ---------------------------------------------------------------------------------------- state
    def state_dict(self) -> dict[str, Array]:
        """All parameters and buffers by dotted name: the arrays themselves, not copies.

        Example:
            >>> from minicnn import nn
            >>> {name: array.shape for name, array in nn.Linear(4, 3).state_dict().items()}
            {'weight': (4, 3), 'bias': (3,)}
        """
        return {name: value.data if isinstance(value, Parameter) else value for name, value in self._entries()}

    def load_state_dict(self, state: dict[str, Array], strict: bool = True) -> None:
        """Copy arrays into the parameters and buffers of the same names.

        Args:
            state: {dotted name: array}, as state_dict returns it.
            strict: refuse missing and unexpected names.
        Raises:
            ValueError: a shape or a kind of dtype differs, or, if strict, names are missing or
                unexpected; the message lists them all. Nothing has been written then.
            TypeError: state is not a mapping.
        """
        if not isinstance(state, Mapping):
            what = type(state).__name__
            raise TypeError(
                f"load_state_dict takes arrays by name, not a {what}; minicnn.load returns a pair, (arrays, info)"
            )
        flags("load_state_dict", strict=strict)
        entries = dict(self._entries())
        own = self.state_dict()
        misfits = {name: devices.misfit(state[name], own[name]) for name in own if name in state}
        problems = [f"{name} {misfit}" for name, misfit in misfits.items() if misfit]
        if strict:
            problems += [f"{name} is missing" for name in own if name not in state]
            problems += [f"{name} is unexpected" for name in state if name not in own]
        if problems:
            raise ValueError(f"this state does not fit {type(self).__name__}: " + "; ".join(problems))
        for name, array in own.items():
            if name in state:
                devices.assign(array, state[name])
                if isinstance(entries[name], Parameter):
                    entries[name].version[0] += 1

    # ----------------------------------------------------------------------------------- inspection
    def __repr__(self) -> str:
        """The modules as a tree, each with its number of parameters."""
        lines = [f"{type(self).__name__}({self.extra_repr()})"]
        children = list(self.named_children())
        if children:
            lines[0] = lines[0][:-1]
            for name, child in children:
                first, *rest = repr(child).split("\n")
                lines += [f"  ({name}): {first}", *("  " + line for line in rest)]
            lines.append(")")
        count = sum(p.size for p in self.parameters())
        if count:
            lines[0] += f"  # {count:,} parameters"
        return "\n".join(lines)

    def extra_repr(self) -> str:
        """The arguments that __repr__ shows in parentheses; a subclass may define it."""
        return ""

    def flops(self, inputs: tuple[int, ...], output: tuple[int, ...]) -> int:
        """The floating-point operations of one forward pass of this layer; a multiplication and an
        addition are two. As is usual, only convolutions and linear layers are counted.

        Args:
            inputs, output: the shapes.
        """
        return 0

    def summary(self, input_shape: tuple[int, ...]) -> str:
        """A table of the layers in the order in which they run: output shape, parameters, FLOPs.

        Args:
            input_shape: (N, …).
        Raises:
            ValueError, TypeError: a layer cannot take its input; the message has the table of the
                layers before it.

        Example:
            >>> from minicnn import nn
            >>> print(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).summary((1, 2, 2, 1)))
            layer      output  parameters  FLOPs
            0 Flatten   1 × 4           0      0
            1 Linear    1 × 3          15     24
            total                      15     24
        """
        input_shape = sizes("summary: input_shape", input_shape)
        rows = [("layer", "output", "parameters", "FLOPs")]
        flops: list[int] = []

        def note(name: str) -> Hook:
            def hook(module: Module, inputs: tuple[Any, ...], output: Any) -> None:
                flops.append(module.flops(inputs[0].shape, output.shape))
                layer, shape = f"{name} {type(module).__name__}", " × ".join(map(str, output.shape))
                rows.append((layer, shape, f"{sum(p.size for p in module.parameters()):,}", f"{flops[-1]:,}"))

            return hook

        layers = {
            module: name for name, module in reversed(list(self.named_modules())) if not any(module.named_children())
        }
        removers = [module.register_forward_hook(note(name)) for module, name in layers.items()]
        modes = [(module, module.training) for _, module in self.named_modules()]
        dtype = next((p.dtype for p in self.parameters()), np.dtype(np.float32))
        try:
            with no_grad():
                self.eval()(Tensor(np.zeros(input_shape, dtype)))
        except (TypeError, ValueError) as error:
            if len(rows) > 1:
                error.args = (f"{error}\n\nthe layers before it:\n{_table(rows)}",)
            raise
        finally:
            for remove in removers:
                remove()
            for module, mode in modes:
                module.training = mode
        rows.append(("total", "", f"{sum(p.size for p in self.parameters()):,}", f"{sum(flops):,}"))
        return _table(rows)


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in rows)


class _Numbered(Module):
    """The common part of Sequential and ModuleList: modules by index, which can be replaced, added
    and removed as in a list."""

    def __len__(self) -> int:
        return len(list(self.children()))

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __setitem__(self, index: int | slice, new: Any) -> None:
        """Replace the module at an index, whose name the new one gets, or those in a slice."""
        entries = list(self.named_children())
        if isinstance(index, slice):
            new = several(f"{type(self).__name__}: modules for {index}", new)
            try:
                entries[index] = [("", module) for module in new]
            except (TypeError, ValueError) as error:
                raise ValueError(f"{type(self).__name__} index {index}: {error}") from None
        else:
            i = place(f"{type(self).__name__} index", index, len(entries))
            entries[i] = entries[i][0], new
        self._renew(entries)

    def __delitem__(self, index: int | slice) -> None:
        """Remove a module, or those of a slice; the indices of those behind it decrease."""
        entries = list(self.named_children())
        del entries[self._index(index)]
        self._renew(entries)

    def pop(self, index: int = -1) -> Module:
        """Remove a module.

        Args:
            index: by default that of the last one.
        Returns:
            The module that was removed.
        """
        module = list(self.children())[place("pop: index", index, len(self))]
        del self[index]
        return module

    def insert(self: Numbered, index: int, module: Module) -> Numbered:
        """Add a module before another; the indices from there on increase.

        Args:
            index: that of the other module.
            module: the new one.
        Returns:
            This container.
        """
        entries = list(self.named_children())
        entries.insert(whole("insert: index", index), ("", module))
        return self._renew(entries)

    def append(self: Numbered, module: Module) -> Numbered:
        """Add a module at the end.

        Args:
            module: the new one.
        Returns:
            This container.
        Raises:
            TypeError: it is not a Module.
        """
        return self._renew([*self.named_children(), ("", module)])

    def extend(self: Numbered, modules: Iterable[Module]) -> Numbered:
        """Add modules at the end.

        Args:
            modules: the new ones.
        Returns:
            This container.
        Raises:
            TypeError: one of them is not a Module; then none has been added.
        """
        return self._renew([*self.named_children(), *[("", module) for module in several("extend: modules", modules)]])

    __iadd__ = extend

    def _index(self, index: Any) -> Any:
        """A slice, or an index that exists."""
        kind, count = type(self).__name__, len(self)
        if isinstance(index, slice):
            try:
                index.indices(count)
            except (TypeError, ValueError) as error:
                raise TypeError(f"{kind} index {shown(index)}: {error}") from None
            return index
        return place(f"{kind} index", index, count)

    def _renew(self: Numbered, entries: list[tuple[str, Any]]) -> Numbered:
        """Replace all modules by these. Names that are numbers are assigned again.

        Raises:
            TypeError: one of them is not a Module, or contains this one. Nothing has changed then.
        """
        present = set(self.children())
        for _, module in entries:
            if not isinstance(module, Module):
                kind = type(self).__name__
                several = "; extend takes several" if isinstance(module, (list, tuple)) else ""
                raise TypeError(f"{kind} is made of Modules, not of a {type(module).__name__}{several}")
            if module not in present:
                self._refuse_around(module)
        for name, _ in list(self.named_children()):
            delattr(self, name)
        for i, (name, module) in enumerate(entries):
            object.__setattr__(self, str(i) if not name or name.isdecimal() else name, module)
        return self


class Sequential(_Numbered):
    """A chain of modules: each gets the output of the one before it.

    Args:
        *modules: they are named 0, 1, 2, …
        **named: they are named by keyword.
    Raises:
        TypeError: one of them is not a Module.
        ValueError: a name is an attribute of every Module.

    Example:
        >>> from minicnn import nn
        >>> nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        Sequential(  # 23 parameters
          (0): Linear(4, 3)  # 15 parameters
          (1): ReLU()
          (2): Linear(3, 2)  # 8 parameters
        )
    """

    def __init__(self, *modules: Module, **named: Module) -> None:
        for name, module in [*((str(i), m) for i, m in enumerate(modules)), *named.items()]:
            if not isinstance(module, Module):
                what = shown(module)
                if isinstance(module, (list, tuple, dict)):  # PyTorch takes an OrderedDict
                    stars = "**" if isinstance(module, dict) else "*"
                    what = f"a {type(module).__name__}: write Sequential({stars}modules)"
                raise TypeError(f"Sequential is made of Modules; {name} is {what}")
            if hasattr(self, name):
                raise ValueError(f"Sequential: a layer cannot be named {name!r}, which is an attribute already")
            setattr(self, name, module)

    def __getitem__(self, index: Any) -> Module:
        """The layer at an index, or a Sequential of those in a slice."""
        layers = list(self.children())[self._index(index)]
        return Sequential(*layers) if isinstance(layers, list) else layers

    def forward(self, x: Any) -> Any:
        modules = deque(self.children())
        while modules:
            module = modules.popleft()
            fused = module._fused_with(modules[0]) if modules else None
            if fused is None:
                x = module(x)
                continue
            try:
                x = fused(module, x)
            except (AttributeError, TypeError, ValueError) as error:
                module._explain(error, (x,))
                raise
            modules.popleft()  # it has been computed too
        return x


class ModuleList(_Numbered):
    """A list of modules, for use in the forward of another module. They are named 0, 1, 2, …

    Args:
        modules: the first ones.
    Raises:
        TypeError: one of them is not a Module.

    Example:
        >>> from minicnn import nn
        >>> layers = nn.ModuleList([nn.Linear(4, 4), nn.ReLU()])
        >>> len(layers.append(nn.Linear(4, 2))), layers[-1]
        (3, Linear(4, 2)  # 10 parameters)
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> "ModuleList": ...
    def __getitem__(self, index: int | slice) -> Module:
        """The module at an index, which counts from the end if it is negative, or a ModuleList of
        those in a slice."""
        modules = list(self.children())[self._index(index)]
        return ModuleList(modules) if isinstance(modules, list) else modules
