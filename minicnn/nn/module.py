"""Module: a part of a network, which owns parameters and other modules. Parameter: a Tensor that is to be learned.
Sequential: a chain. ModuleList: modules by number.

A module's attributes are its contents: every Parameter and every Module assigned to it counts, in
the order of assignment, under the name of the attribute. Nothing is registered, except buffers
(arrays that belong to the state but are not learned). What would be lost without a word is an
error: modules or parameters in a plain container or in the class, a Tensor that requires a gradient
but is no Parameter, and a parameter or module that is replaced by something else.
"""

from collections import UserDict, UserList, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, overload

import numpy as np

from ..autograd import no_grad
from ..backends import devices
from ..backends.devices import Array
from ..tensor import Tensor

Self = TypeVar("Self", bound="Module")
Numbered = TypeVar("Numbered", bound="_Numbered")
Hook = Callable[["Module", tuple[Any, ...], Any], None]


class Parameter(Tensor):
    """A leaf Tensor that requires a gradient. Its array is contiguous, so that optimizers can update it in place,
    block by block."""

    __slots__ = ()

    def __init__(self, data: Any) -> None:
        if isinstance(data, Tensor):
            raise TypeError("a Parameter is made of an array: write nn.Parameter(tensor.data)")
        super().__init__(data, requires_grad=True)
        flags = self.data.flags
        if not flags.c_contiguous or not getattr(flags, "writeable", True):  # as an array of JAX is not
            with devices.on_device_of(self.data):
                self.data = self.data.copy(order="C")

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. Raises TypeError if `data` would become anything but an array of its
        shape and dtype, which neither the optimizer nor the layer could work with."""
        if name == "data" and hasattr(self, "data"):
            value = np.asarray(value) if isinstance(value, np.generic) else value  # NumPy's 0-d results
            if not _is_array(value) or (value.shape, value.dtype) != (self.shape, self.dtype):
                raise TypeError(
                    f"a Parameter of shape {self.shape} and dtype {self.dtype} cannot become {_described(value)}: "
                    "write p.data[...] = … for new values, net.astype(…) for another dtype, or assign "
                    "an nn.Parameter(…) to the module (the optimizer then has to be made anew)"
                )
            self.version[0] += 1
        object.__setattr__(self, name, value)


def _is_array(value: Any) -> bool:
    return not isinstance(value, (np.generic, Tensor)) and devices.kind_of(type(value)) is not None


def _described(value: Any) -> str:
    if _is_array(value):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return f"a {type(value).__name__}"


# what can hold modules that nobody finds; an array can if its dtype is object
CONTAINERS: Any = (
    list, tuple, set, frozenset, dict, deque, UserDict, UserList, MappingProxyType,
    type({}.keys()), type({}.values()), type({}.items()),
)  # fmt: skip


def _part_in(value: Any) -> str | None:
    """What a value is or, if it is a container, what it holds at any depth that a network has to
    know of; None if nothing."""
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
            seen[id(value)] = value  # and so it lives on, for else another could get its id
            stack.extend(value.values() if isinstance(value, Mapping) else value)
        elif isinstance(value, np.ndarray) and value.dtype == object:
            stack.extend(value.ravel().tolist())
    return None


def _refuse_lost(owner: str, name: str, value: Any) -> None:
    """TypeError if the attribute is, or holds, modules or parameters that nobody would find."""
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
    """Part of a network. A subclass assigns its parameters and submodules in __init__ and defines forward(*inputs).

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

    def __init_subclass__(cls, **options: Any) -> None:
        """Raises TypeError for modules and parameters that belong to the class, which all its objects
        would share and none would find."""
        super().__init_subclass__(**options)
        for name, value in vars(cls).items():
            if (part := _part_in(value)) is not None:
                raise TypeError(
                    f"{cls.__name__}.{name} is or holds a {part} and belongs to the class: assign it "
                    f"in __init__, self.{name} = …, so that it is trained, saved and moved"
                )

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute.

        Raises TypeError for what would be lost: a plain container of modules or parameters; a Tensor
        that requires a gradient, is no Parameter and was not computed; anything but a Parameter, a
        Module or None over one of the two; what is no array over a buffer. So it does for this module,
        or one around it, as a part of itself.
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
                        "nn.Parameter(…) for a new parameter (the optimizer then has to be made anew)"
                    )
                raise TypeError(
                    f"{owner}.{name} is a {'Parameter' if isinstance(before, Parameter) else 'Module'} and would be "
                    f"lost, replaced by a {type(value).__name__}: {instead}"
                )
            _refuse_lost(owner, name, value)
        object.__setattr__(self, name, value)

    def _refuse_around(self, part: "Module") -> None:
        """TypeError if this module is inside that one, of which it would then have no end."""
        if any(module is self for _, module in part.named_modules()):
            raise TypeError(
                f"a {type(self).__name__} cannot have as its part a {type(part).__name__} that it is a "
                "part of itself: keep a weakref.ref of a module around it"
            )

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        try:
            output = self.forward(*inputs, **options)
        except AttributeError as error:  # as None has no shape
            if not inputs or error.obj is not inputs[0] or isinstance(error.obj, Tensor):
                raise
            other = TypeError(f"the input is a {type(error.obj).__name__}, not a Tensor: {error}")
            self._say_where(other)
            raise other from error
        except (TypeError, ValueError) as error:
            self._say_where(error)
            raise
        for hook in self._hooks.values():
            if hook(self, inputs, output) is not None:
                raise TypeError("a forward hook returned something: it can look at the output and not replace it")
        return output

    def _say_where(self, error: TypeError | ValueError) -> None:
        """Put before an error's message where in this network the layer is that raised it: "features.conv1
        (Conv2d): …". Each module around it that it passes through adds its part of the name."""
        raised: Any = error
        if len(error.args) != 1 or not isinstance(error.args[0], str):  # not of ours
            return
        inner, path, text = getattr(raised, "place", (self, "", f"({type(self).__name__}): {error}"))
        if inner is not self:
            name = next((name for name, module in self.named_modules() if module is inner), "")
            path = f"{name}.{path}" if path else name
            error.args = (f"{path} {text}",)
        raised.place = self, path, text

    def register_forward_hook(self, hook: Hook) -> Callable[[], None]:
        """Call hook(module, inputs, output) after each forward pass. Returns a function that removes the hook."""
        key = object()
        vars(self)["_hooks"] = {**self._hooks, key: hook}  # a Module can be a hook

        def remove() -> None:
            vars(self)["_hooks"] = {k: h for k, h in self._hooks.items() if k is not key}

        return remove

    # --------------------------------------------------------------------------------------------------------- contents
    def register_buffer(self, name: str, array: Array) -> None:
        """Set attribute `name` to an array that is part of the state but not learned, such as a running mean."""
        setattr(self, name, _buffer(type(self).__name__, name, array))
        self._buffers = (*self._buffers, name)

    def children(self) -> Iterator["Module"]:
        """The modules directly inside, in the order of assignment; one of two names comes twice."""
        return (module for _, module in self.named_children())

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """(name, module) of the modules directly inside, in the order of assignment."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif name != "_hooks":
                _refuse_lost(type(self).__name__, name, value)  # it was empty when it was assigned

    def named_modules(self, *, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """(dotted name, module): this one, under the name "", and all inside it, outer before inner."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(prefix=f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter), each parameter once, in the order of assignment."""
        seen = set()
        for name, value in self._entries():
            if isinstance(value, Parameter) and value not in seen:
                seen.add(value)
                yield name, value

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def _entries(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """(dotted name, parameter or buffer array), in the order of assignment."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter) or name in self._buffers:
                yield prefix + name, value
            elif isinstance(value, Module):
                yield from value._entries(f"{prefix}{name}.")
            elif name != "_hooks":
                _refuse_lost(type(self).__name__, name, value)  # it was empty when it was assigned

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    # ------------------------------------------------------------------------------------------------------------ modes
    def train(self: Self, mode: bool = True) -> Self:
        """Into training mode, or out of it: dropout and batch normalization behave differently."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Into evaluation mode."""
        return self.train(False)

    def to(self: Self, device: str) -> Self:
        """Move all parameters and buffers to a device, in place."""
        return self._convert(lambda array: devices.to_device(array, device))

    def astype(self: Self, dtype: Any) -> Self:
        """Convert all floating parameters and buffers to a dtype, in place."""
        return self._convert(lambda array: array.astype(dtype, copy=False) if array.dtype.kind == "f" else array)

    def _convert(self: Self, function: Callable[[Array], Array]) -> Self:
        for _, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    # past the check of Parameter, for the dtype may be another
                    object.__setattr__(value, "data", function(value.data))
                    value.version[0] += 1
                    if value.grad is not None:
                        value.grad = Tensor(function(value.grad.data))
                elif name in module._buffers:
                    setattr(module, name, function(value))
        return self

    # ------------------------------------------------------------------------------------------------------------ state
    def state_dict(self) -> dict[str, Array]:
        """All parameters and buffers under their dotted names: the live arrays, not copies."""
        return {name: value.data if isinstance(value, Parameter) else value for name, value in self._entries()}

    def load_state_dict(self, state: dict[str, Array], strict: bool = True) -> None:
        """Copy arrays into the parameters and buffers of the same names.

        Raises ValueError, having written nothing, if a shape or a kind of number differs, or (strict) if
        names are missing or unexpected; it lists them all.
        """
        if not isinstance(state, Mapping):
            what = type(state).__name__
            raise TypeError(
                f"load_state_dict takes arrays by name, not a {what}; minicnn.load returns a pair, (arrays, info)"
            )
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

    # ------------------------------------------------------------------------------------------------------- inspection
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
        """The arguments that __repr__ shows between the brackets."""
        return ""

    def flops(self, inputs: tuple[int, ...], output: tuple[int, ...]) -> int:
        """Floating-point operations of one forward pass from the one shape to the other, a multiplication and an
        addition being two. Only products are counted, as is usual: convolutions and linear layers."""
        return 0

    def summary(self, input_shape: tuple[int, ...]) -> str:
        """A table of the layers, in the order they run: output shape, parameters and FLOPs, for an input of that shape
        (N, …). If a layer cannot take what reaches it, the error has the table as far as it got."""
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
    """What Sequential and ModuleList share: modules by number, which can be exchanged, added and taken out."""

    def __len__(self) -> int:
        return len(list(self.children()))

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __setitem__(self, index: int | slice, new: Any) -> None:
        """Put another module in the place of the one of that number, whose name it gets, or modules in
        the place of a slice, as in a list."""
        entries = list(self.named_children())
        if isinstance(index, slice):
            entries[index] = [("", module) for module in new]
        else:
            entries[index] = entries[index][0], new
        self._renew(entries)

    def __delitem__(self, index: int | slice) -> None:
        """Take one out, or a slice; those after it get smaller numbers."""
        entries = list(self.named_children())
        del entries[index]
        self._renew(entries)

    def pop(self, index: int = -1) -> Module:
        """Take the module of that number out, by default the last, and return it."""
        module = list(self.children())[index]
        del self[index]
        return module

    def insert(self: Numbered, index: int, module: Module) -> Numbered:
        """Add a module before the one of that number; that and those after it get larger numbers."""
        entries = list(self.named_children())
        entries.insert(index, ("", module))
        return self._renew(entries)

    def append(self: Numbered, module: Module) -> Numbered:
        """Add a module at the end. Raises TypeError for what is no Module."""
        return self._renew([*self.named_children(), ("", module)])

    def extend(self: Numbered, modules: Iterable[Module]) -> Numbered:
        """Add modules at the end."""
        return self._renew([*self.named_children(), *[("", module) for module in modules]])

    __iadd__ = extend

    def _renew(self: Numbered, entries: list[tuple[str, Any]]) -> Numbered:
        """Have these modules in place of the present ones. Names that are numbers are given anew. Raises
        TypeError, having changed nothing, for what is no Module, or one around this."""
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
    """Modules one after the other; they are named 0, 1, 2, … or by keyword.

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
                what = repr(module)
                if isinstance(module, (list, tuple, dict)):  # PyTorch takes an OrderedDict
                    stars = "**" if isinstance(module, dict) else "*"
                    what = f"a {type(module).__name__}: write Sequential({stars}modules)"
                raise TypeError(f"Sequential is made of Modules; {name} is {what}")
            if hasattr(self, name):
                raise ValueError(f"Sequential: a layer cannot be named {name!r}, which is an attribute already")
            setattr(self, name, module)

    def __getitem__(self, index: Any) -> Module:
        """The layer of that number, or a Sequential of a slice."""
        layers = list(self.children())
        return Sequential(*layers[index]) if isinstance(index, slice) else layers[index]

    def forward(self, x: Any) -> Any:
        for module in self.children():
            x = module(x)
        return x


class ModuleList(_Numbered):
    """Modules by number, for a forward of one's own; as attributes they are named 0, 1, 2, …

    >>> from minicnn import nn
    >>> layers = nn.ModuleList([nn.Linear(4, 4), nn.ReLU()])
    >>> len(layers.append(nn.Linear(4, 2))), layers[-1]
    (3, Linear(4, 2)  # 10 parameters)
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        """Raises TypeError for what is no Module."""
        self.extend(modules)

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> "ModuleList": ...
    def __getitem__(self, index: int | slice) -> Module:
        """The module of that number, from the end if it is negative, or a ModuleList of a slice."""
        modules = list(self.children())
        return ModuleList(modules[index]) if isinstance(index, slice) else modules[index]
