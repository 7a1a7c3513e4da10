"""Module: a part of a network, which owns parameters and other modules. Parameter: a Tensor that is to be learned.
Sequential: a chain. ModuleList: modules by number.

A module's attributes are its contents: every Parameter and every Module assigned to it counts, in
the order of assignment, under the name of the attribute. Nothing is registered, except buffers
(arrays that belong to the state but are not learned). What would be lost without a word is an
error: modules or parameters in a plain list, tuple, set or dict, and a parameter that is replaced
by something else.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, overload

import numpy as np

from ..autograd import no_grad
from ..backends import devices
from ..backends.devices import Array
from ..tensor import Tensor

Self = TypeVar("Self", bound="Module")
Hook = Callable[["Module", tuple[Any, ...], Any], None]


class Parameter(Tensor):
    """A leaf Tensor that requires a gradient. Its array is contiguous, so that optimizers can update it in place,
    block by block."""

    __slots__ = ()

    def __init__(self, data: Any) -> None:
        super().__init__(data, requires_grad=True)
        flags = self.data.flags
        if not flags.c_contiguous or not getattr(flags, "writeable", True):  # as an array of JAX is not
            with devices.on_device_of(self.data):
                self.data = self.data.copy(order="C")


def _part_in(value: Any) -> str | None:
    """What a plain container holds at any depth, "Module" or "Parameter"; None if neither."""
    if not isinstance(value, (list, tuple, set, frozenset, dict, deque)):
        return None
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, (Module, Parameter)):
            return "Module" if isinstance(item, Module) else "Parameter"
        inside = _part_in(item)
        if inside is not None:
            return inside
    return None


def _refuse_container(owner: "Module", name: str, value: Any) -> None:
    """TypeError if the attribute is a plain container of modules or parameters, which nobody would
    find."""
    part = _part_in(value)
    if part is None:
        return
    instead = "wrap the modules in nn.ModuleList([…])"
    if part == "Parameter":
        instead = "give each parameter an attribute of its own, or to a Module in an nn.ModuleList"
    elif isinstance(value, dict):
        instead = "write nn.Sequential(**modules), or give each module an attribute of its own"
    raise TypeError(
        f"{type(owner).__name__}.{name} is a {type(value).__name__} that holds a {part}: only a "
        "Parameter or Module that is itself an attribute is trained, saved and moved: "
        f"{instead}"
    )


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

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute.

        Raises TypeError for a plain list, tuple, set or dict that holds modules or parameters, and
        for an attribute that is a Parameter and would become anything but a Parameter, a Module or
        None.
        """
        before = vars(self).get(name)
        if isinstance(before, Parameter) and not isinstance(value, (Parameter, Module, type(None))):
            raise TypeError(
                f"{type(self).__name__}.{name} is a Parameter and would be lost, replaced by a "
                f"{type(value).__name__}: write {name}.data[...] = … for new values, or assign "
                "nn.Parameter(…) for a new parameter (the optimizer then has to be made anew)"
            )
        _refuse_container(self, name, value)
        object.__setattr__(self, name, value)

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        try:
            output = self.forward(*inputs, **options)
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
        if isinstance(array, Tensor):
            raise TypeError(f"register_buffer: {name!r} is a Tensor; a buffer is an array, such as its .data")
        setattr(self, name, array)
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
                _refuse_container(self, name, value)  # it was empty when it was assigned

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
                _refuse_container(self, name, value)  # it was empty when it was assigned

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
                    value.data = function(value.data)
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
        (N, …)."""
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
        finally:
            for remove in removers:
                remove()
            for module, mode in modes:
                module.training = mode
        rows.append(("total", "", f"{sum(p.size for p in self.parameters()):,}", f"{sum(flops):,}"))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return "\n".join(
            f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in rows
        )


class Sequential(Module):
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

    def __len__(self) -> int:
        return len(list(self.children()))

    def __getitem__(self, index: Any) -> Module:
        """The layer of that number, or a Sequential of a slice."""
        layers = list(self.children())
        return Sequential(*layers[index]) if isinstance(index, slice) else layers[index]

    def __setitem__(self, index: int, module: Module) -> None:
        """Put another layer in the place of the one of that number."""
        if not isinstance(module, Module):
            raise TypeError(f"Sequential is made of Modules, not of a {type(module).__name__}")
        setattr(self, [name for name, _ in self.named_children()][index], module)

    def forward(self, x: Any) -> Any:
        for module in self.children():
            x = module(x)
        return x


class ModuleList(Module):
    """Modules by number, for a forward of one's own; as attributes they are named 0, 1, 2, …

    >>> from minicnn import nn
    >>> layers = nn.ModuleList([nn.Linear(4, 4), nn.ReLU()])
    >>> len(layers.append(nn.Linear(4, 2))), layers[-1]
    (3, Linear(4, 2)  # 10 parameters)
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        """Raises TypeError for what is no Module."""
        for module in modules:
            self.append(module)

    def append(self: Self, module: Module) -> Self:
        """Add a module at the end. Raises TypeError for what is no Module."""
        if not isinstance(module, Module):
            raise TypeError(
                f"ModuleList is made of Modules, not of a {type(module).__name__}: write ModuleList([module, …])"
            )
        setattr(self, str(len(self)), module)  # type: ignore[arg-type]
        return self

    def __len__(self) -> int:
        return len(list(self.children()))

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> "ModuleList": ...
    def __getitem__(self, index: int | slice) -> Module:
        """The module of that number, from the end if it is negative, or a ModuleList of a slice."""
        modules = list(self.children())
        return ModuleList(modules[index]) if isinstance(index, slice) else modules[index]
