"""Habits: names that PyTorch's Tensors or NumPy's arrays have and Tensors do not, with what to write
instead. The message is that of an AttributeError, so hasattr is False for them."""

from typing import Any


class Instead:
    """Stands in a class under a name that it does not have: using it is an AttributeError that says
    what to write. (With a __getattr__ Python would look up all attributes of the class more slowly.)
    """

    def __init__(self, name: str, instead: str) -> None:
        self.name, self.instead = name, instead
        self.__doc__ = "@private"  # pdoc leaves it out of the API pages

    def __get__(self, _: Any, owner: type) -> Any:
        # obj: without it Python adds a guess, "Did you mean …?"
        raise AttributeError(f"a {owner.__name__} has no {self.name}: {self.instead}", name=self.name, obj=None)


_ONES = ("relu", "sigmoid", "tanh", "softmax", "log_softmax")
_SIGNS = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "matmul": "@", "mm": "@", "bmm": "@", "dot": "@",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip
_DTYPES = {
    "float": "float32", "double": "float64", "half": "float16", "long": "int64", "int": "int32",
    "bool": "bool_",
}  # fmt: skip
_IN_PLACE = "add_", "sub_", "mul_", "div_", "zero_", "fill_", "copy_", "clamp_", "normal_", "uniform_"
# habits from NumPy's arrays
_PLAIN = "tolist", "prod", "cumsum", "round", "sort", "argsort", "repeat", "take", "nonzero"

TENSOR = {
    "view": "write x.reshape(…)",
    "view_as": "write x.reshape(y.shape)",
    "permute": "write x.transpose(…)",
    "t": "write x.T",
    "mT": "write x.swapaxes(-1, -2)",
    "unsqueeze": "write x[None], x[:, None] … or x.reshape(…)",
    "expand": "write x.broadcast_to(…)",
    "ravel": "write x.flatten()",
    "contiguous": "write x.copy()",
    "clone": "write x.copy()",
    "cpu": 'write x.to("cpu")',
    "cuda": 'write x.to("gpu")',
    "is_cuda": "write x.device",
    "dim": "write x.ndim",
    "numel": "write x.size",
    "type": "write x.dtype, or x.astype(…)",
    "clamp": "write x.clip(low, high)",
    "square": "write x * x",
    "norm": "write (x * x).sum().sqrt()",
    "amax": "write x.max(axis)",
    "amin": "write x.min(axis)",
    "masked_fill": "write minicnn.functional.where(mask, value, x)",
    "is_leaf": "write x.grad_fn is None",
    "requires_grad_": "write x.requires_grad = True, or Tensor(…, requires_grad=True)",
    "detach_": "write x = x.detach()",
    "retain_grad": "write minicnn.grad(y, [x]) for the gradient of what was computed",
    "register_hook": "write x.register_post_accumulate_grad_hook(…), for a leaf",
    **{name: f"write minicnn.functional.{name}(x)" for name in _ONES},
    **{name: f"write x {sign} y" for name, sign in _SIGNS.items()},
    **{name: f"write x.astype(np.{dtype})" for name, dtype in _DTYPES.items()},
    **{name: "write x.data[...] = … to overwrite its array, or compute another Tensor" for name in _IN_PLACE},
    **{name: f"write x.numpy().{name}(…), to which no gradient belongs" for name in _PLAIN},
}


class TensorHabits:
    """The base class of Tensor, which has the names of the table. (In Tensor itself, tools would take
    the float and int of its annotations for these.)"""

    __slots__ = ()
    locals().update({name: Instead(name, instead) for name, instead in TENSOR.items()})


SAVES = "name the inputs that backward reads in `saves`, and read them as self.saved_inputs"
