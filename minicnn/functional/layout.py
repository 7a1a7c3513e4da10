"""Which axis is which: a check of the shapes that convolutions take, with a hint for shapes in the
order of another library.

Images are channels last here, (N, H, W, C), and weights (KH, KW, C/groups, O); PyTorch, Caffe and
ONNX have (N, C, H, W) and (O, C/groups, KH, KW). If the shapes fit, the two orders cannot be told
apart, so only shapes that do not fit lead to a hint.
"""

from ..checks import whole
from ..tensor import Tensor
from .arguments import require_constants, require_tensors

IMAGES = "images are channels last, (N, H, W, C): x.transpose(0, 2, 3, 1)?"
KERNELS = "a weight is (KH, KW, C/groups, O): weight.transpose(2, 3, 1, 0)?"


def check_convolution(
    name: str, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, transposed: bool = False
) -> None:
    """Check that images, weight and bias fit together; if `transposed`, for conv_transpose2d.

    Raises:
        ValueError: they do not fit, or groups is not a divisor of the channels.
    """
    require_tensors(name, x=x)
    require_constants(name, weight=weight)
    if bias is not None:
        require_constants(name, bias=bias)
    whole(f"{name}: groups", groups)
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(
            f"{name} needs x of (N, H, W, C) and weight of (KH, KW, C/groups, O), not {x.shape} and {weight.shape}"
        )
    problem = _problem(x.shape, weight.shape, bias, groups, transposed)
    if not problem:
        return
    n, c, h, w = x.shape
    images = (n, h, w, c)
    o, inputs, kh, kw = weight.shape
    kernel = (kh, kw, inputs, o)
    for x_shape, weight_shape, hint in (
        (images, weight.shape, IMAGES),
        (x.shape, kernel, KERNELS),
        (images, kernel, f"{IMAGES} And {KERNELS}"),
    ):
        if not _problem(x_shape, weight_shape, bias, groups, transposed):
            problem += f": {hint}"
            break
    raise ValueError(f"{name}: {problem}")


def _problem(x: tuple[int, ...], weight: tuple[int, ...], bias: Tensor | None, groups: int, transposed: bool) -> str:
    """What does not fit, as text; empty if everything fits."""
    if groups < 1 or weight[3] % groups:
        return (
            f"groups={groups} must divide the {weight[3]} channels that are the last axis of the "
            f"weight of shape {weight}"
        )
    taken, made = weight[2] * groups, weight[3]
    if transposed:
        taken, made = made, taken
    if x[3] != taken:
        return f"x of shape {x} has {x[3]} channels; a weight of shape {weight} with groups={groups} needs {taken}"
    if bias is not None and bias.shape != (made,):
        return f"bias of shape {bias.shape}, expected ({made},)"
    return ""
