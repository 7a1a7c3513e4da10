"""The layers: each holds the settings, and the parameters if any, of a function of
minicnn.functional, whose file is the lesson on it. Its arguments are checked when it is made; a
setting that does not fit is a ValueError, and so is an input of a shape that does not fit."""

from math import prod
from typing import Any

import numpy as np

from .. import functional as F
from ..backends.devices import Array
from ..checks import flags, number, numbers, sizes, whole
from ..functional.adaptive_pooling import MOST
from ..functional.arguments import require_tensors
from ..functional.conv_transpose import extra_pixels
from ..functional.dropout import check_dropout
from ..functional.elementwise_loss import check_reduction
from ..functional.targets import checked_options
from ..functional.windows import IntPair, Padding, Window, pair
from ..tensor import Tensor
from . import init
from .module import Module, Parameter

__all__ = [
    "GELU",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Identity",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "ReLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
]


class ReLU(Module):
    """max(x, 0), elementwise; see functional.relu.

    Example:
        >>> ReLU()(Tensor([-1.0, 2.0]))
        Tensor([0., 2.], dtype=float32)
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class Conv2d(Module):
    """Convolution of images with a learned kernel: (N, H, W, in_channels) -> (N, OH, OW,
    out_channels). See functional.conv2d.

    Args:
        in_channels, out_channels: the numbers of channels.
        kernel_size, stride, padding, dilation, groups: as in functional.conv2d.
        bias: whether there is one.
        weight_init: an initializer (see nn.init); by default nn.init.he().
        bias_init: the value with which every element of the bias starts.
    Attributes:
        weight: (KH, KW, in_channels/groups, out_channels).
        bias: (out_channels,), or None.

    Example:
        >>> x = Tensor(np.zeros((1, 32, 32, 3), np.float32))
        >>> Conv2d(3, 8, kernel_size=3)(x).shape
        (1, 30, 30, 8)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: Padding = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        weight_init: init.Initializer | None = None,
        bias_init: float = 0.0,
    ) -> None:
        _check_groups("Conv2d", groups, in_channels, out_channels)
        window = Window.of(kernel_size, stride, padding, dilation)  # also a check
        shape = (*window.kernel_size, in_channels // groups, out_channels)
        self.weight = Parameter(init.started(weight_init, shape, "Conv2d"))
        self.bias = _bias("Conv2d", bias, bias_init, out_channels)
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.groups = dilation, groups

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def _forward_relu(self, x: Tensor) -> Tensor:
        return F.conv2d_relu(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    _fused = {(forward, ReLU.forward): _forward_relu}

    def flops(self, inputs: tuple[int, ...], output: tuple[int, ...]) -> int:
        return 2 * prod(output) * prod(self.weight.shape[:3])

    def extra_repr(self) -> str:
        _, _, c, o = self.weight.shape
        return f"{c * self.groups}, {o}, kernel_size={self.kernel_size}" + _differing(
            self, stride=1, padding=0, dilation=1, groups=1
        )


class ConvTranspose2d(Module):
    """Transposed convolution, which enlarges images, (N, H, W, in_channels) -> (N, OH, OW,
    out_channels); see functional.conv_transpose2d.

    Args:
        in_channels, out_channels: the numbers of channels.
        kernel_size, stride, padding, output_padding, dilation, groups: as in
            functional.conv_transpose2d.
        bias: whether there is one.
        weight_init: an initializer (see nn.init); by default nn.init.he().
        bias_init: the value with which every element of the bias starts.
    Attributes:
        weight: (KH, KW, out_channels/groups, in_channels): that of the convolution whose transpose
            this layer is.
        bias: (out_channels,), or None.

    Example:
        >>> x = Tensor(np.zeros((1, 7, 7, 8), np.float32))
        >>> ConvTranspose2d(8, 3, kernel_size=2, stride=2)(x).shape
        (1, 14, 14, 3)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: Padding = 0,
        output_padding: IntPair = 0,
        *,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
        weight_init: init.Initializer | None = None,
        bias_init: float = 0.0,
    ) -> None:
        _check_groups("ConvTranspose2d", groups, in_channels, out_channels)
        window = Window.of(kernel_size, stride, padding, dilation)
        extra_pixels("ConvTranspose2d", output_padding, window)
        kernel = window.kernel_size
        # an initializer takes the last axis for the outputs; here the last axis is the inputs
        weight = init.started(weight_init, (*kernel, in_channels // groups, out_channels), "ConvTranspose2d")
        self.weight = Parameter(weight.reshape(*kernel, out_channels // groups, in_channels))
        self.bias = _bias("ConvTranspose2d", bias, bias_init, out_channels)
        self.kernel_size, self.stride, self.padding, self.output_padding = kernel_size, stride, padding, output_padding
        self.dilation, self.groups = dilation, groups

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding,
            dilation=self.dilation, groups=self.groups,
        )  # fmt: skip

    def flops(self, inputs: tuple[int, ...], output: tuple[int, ...]) -> int:
        return 2 * prod(inputs) * prod(self.weight.shape[:3])

    def extra_repr(self) -> str:
        _, _, c, o = self.weight.shape
        return f"{o}, {c * self.groups}, kernel_size={self.kernel_size}" + _differing(
            self, stride=1, padding=0, output_padding=0, dilation=1, groups=1
        )


def _bias(name: str, bias: bool, bias_init: float, count: int) -> Parameter | None:
    flags(name, bias=bias)
    value = number(f"{name}: bias_init", bias_init, finite=False)
    return Parameter(init.constant(value)((count,))) if bias else None


def _check_groups(name: str, groups: int, in_channels: int, out_channels: int) -> None:
    sizes = {"in_channels": in_channels, "out_channels": out_channels, "groups": groups}
    for size, value in sizes.items():
        whole(f"{name}: {size}", value, 1)
    if in_channels % groups or out_channels % groups:
        raise ValueError(
            f"{name}: groups={groups} must divide both in_channels={in_channels} and out_channels={out_channels}"
        )


def _differing(module: Module, **defaults: Any) -> str:
    """The settings that differ from the defaults, for a repr."""
    settings = [(name, getattr(module, name)) for name in defaults]
    text = "".join(f", {name}={value}" for name, value in settings if value != defaults[name])
    return text + (", bias=False" if getattr(module, "bias", 0) is None else "")


class Linear(Module):
    """x @ weight + bias, (…, in_features) -> (…, out_features); see functional.linear.

    Args:
        in_features, out_features: the sizes of the last axis.
        bias: whether there is one.
        weight_init: an initializer (see nn.init); by default nn.init.he(), for a layer that a ReLU
            follows. For the logits of K classes start smaller, as with nn.init.normal(0.01), and
            the first loss is ln K.
        bias_init: the value with which every element of the bias starts.
    Attributes:
        weight: (in_features, out_features).
        bias: (out_features,), or None.

    Example:
        >>> Linear(4, 2)(Tensor([[1.0, 2.0, 3.0, 4.0]])).shape
        (1, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        weight_init: init.Initializer | None = None,
        bias_init: float = 0.0,
    ) -> None:
        shape = whole("Linear: in_features", in_features, 1), whole("Linear: out_features", out_features, 1)
        self.weight = Parameter(init.started(weight_init, shape, "Linear"))
        self.bias = _bias("Linear", bias, bias_init, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def _forward_relu(self, x: Tensor) -> Tensor:
        return F.linear_relu(x, self.weight, self.bias)

    _fused = {(forward, ReLU.forward): _forward_relu}

    def flops(self, inputs: tuple[int, ...], output: tuple[int, ...]) -> int:
        return 2 * prod(output) * self.weight.shape[0]

    def extra_repr(self) -> str:
        return ", ".join([*map(str, self.weight.shape), *([] if self.bias is not None else ["bias=False"])])


class MaxPool2d(Module):
    """The maximum of each window, (N, H, W, C) -> (N, OH, OW, C); see functional.max_pool2d.

    Args:
        kernel_size, stride, padding, dilation: as in functional.max_pool2d.
        ceil_mode: the same; keyword-only, because PyTorch's layer has return_indices before it.

    Example:
        >>> MaxPool2d(3, stride=2)(Tensor(np.zeros((1, 55, 55, 96)))).shape
        (1, 27, 27, 96)
    """

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: Padding = 0,
        dilation: IntPair = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        flags("MaxPool2d", ceil_mode=ceil_mode)
        Window.of_pooling("MaxPool2d", kernel_size, stride, padding, dilation)  # a check
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.ceil_mode = ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self) -> str:
        stride = self.kernel_size if self.stride is None else self.stride
        return f"kernel_size={self.kernel_size}, stride={stride}" + _differing(
            self, padding=0, dilation=1, ceil_mode=False
        )


class AvgPool2d(Module):
    """The mean of each window, (N, H, W, C) -> (N, OH, OW, C); see functional.avg_pool2d.

    Args:
        kernel_size, stride, padding, ceil_mode, count_include_pad: as in functional.avg_pool2d.

    Example:
        >>> AvgPool2d(2)(Tensor(np.zeros((1, 8, 8, 16)))).shape
        (1, 4, 4, 16)
    """

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        flags("AvgPool2d", ceil_mode=ceil_mode, count_include_pad=count_include_pad)
        Window.of_pooling("AvgPool2d", kernel_size, stride, padding, 1)  # a check
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        stride = self.kernel_size if self.stride is None else self.stride
        return f"kernel_size={self.kernel_size}, stride={stride}" + _differing(
            self, padding=0, ceil_mode=False, count_include_pad=True
        )


class AdaptiveAvgPool2d(Module):
    """The mean of each of OH × OW bins that cover an image of any size:
    (N, H, W, C) -> (N, OH, OW, C). See functional.adaptive_avg_pool2d.

    Args:
        output_size: (OH, OW), or one integer for both.

    Example:
        >>> AdaptiveAvgPool2d(1)(Tensor(np.zeros((1, 7, 9, 16)))).shape
        (1, 1, 1, 16)
    """

    def __init__(self, output_size: IntPair) -> None:
        self.output_size = pair(output_size, "AdaptiveAvgPool2d: output_size", most=MOST)

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class LocalResponseNorm(Module):
    """x / (k + α Σ x²)^β over n neighboring channels, with the paper's constants as defaults; see
    functional.local_response_norm.

    Args:
        n: the number of channels that are summed.
        k, alpha, beta: as in the equation; keyword-only, because PyTorch has them in another order.

    Example:
        >>> LocalResponseNorm()(Tensor(np.zeros((1, 55, 55, 96)))).shape
        (1, 55, 55, 96)
    """

    def __init__(self, n: int = 5, *, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75) -> None:
        self.n = whole("LocalResponseNorm: n, the number of channels that are summed,", n, 1)
        self.k, self.alpha, self.beta = numbers("LocalResponseNorm", k=k, alpha=alpha, beta=beta)

    def forward(self, x: Tensor) -> Tensor:
        return F.local_response_norm(x, self.n, k=self.k, alpha=self.alpha, beta=self.beta)

    def extra_repr(self) -> str:
        return f"n={self.n}, k={self.k}, alpha={self.alpha}, beta={self.beta}"


class BatchNorm2d(Module):
    """Batch normalization of each channel of images (N, H, W, num_features); see
    functional.batch_norm.

    Args:
        num_features: the number of channels.
        eps: ε, which prevents a division by zero.
        momentum: the weight of the newest batch in the running averages, from 0 to 1.
    Attributes:
        gamma, beta: parameters (num_features,), at first 1 and 0; PyTorch's weight and bias.
        running_mean, running_var: buffers (num_features,), at first 0 and 1.

    Example:
        >>> BatchNorm2d(3)
        BatchNorm2d(3, eps=1e-05, momentum=0.1)  # 6 parameters
    """

    running_mean: Array
    running_var: Array

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        shape = sizes("BatchNorm2d: num_features", whole("BatchNorm2d: num_features", num_features, 1))
        self.eps, self.momentum = number("BatchNorm2d: eps", eps, 0), number("BatchNorm2d: momentum", momentum, 0, 1)
        self.gamma = Parameter(np.ones(shape, np.float32))
        self.beta = Parameter(np.zeros(shape, np.float32))
        self.register_buffer("running_mean", np.zeros(shape, np.float32))
        self.register_buffer("running_var", np.ones(shape, np.float32))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x,
            gamma=self.gamma,
            beta=self.beta,
            running_mean=self.running_mean,
            running_var=self.running_var,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )

    def extra_repr(self) -> str:
        return f"{self.gamma.size}, eps={self.eps}, momentum={self.momentum}"


class Sigmoid(Module):
    """1 / (1 + e^-x), elementwise; see functional.sigmoid.

    Example:
        >>> Sigmoid()(Tensor([0.0]))
        Tensor([0.5], dtype=float32)
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.sigmoid(x)


class Tanh(Module):
    """tanh(x), elementwise; see functional.tanh.

    Example:
        >>> Tanh()(Tensor([0.0]))
        Tensor([0.], dtype=float32)
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.tanh(x)


class GELU(Module):
    """x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))), elementwise; see functional.gelu.

    Example:
        >>> GELU()(Tensor([0.0, 3.0])).numpy().round(3)
        array([0.   , 2.996], dtype=float32)
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x)


class LeakyReLU(Module):
    """x where x is positive, else negative_slope · x, elementwise; see functional.leaky_relu.

    Args:
        negative_slope: the derivative where x is not positive.

    Example:
        >>> LeakyReLU(0.5)(Tensor([-1.0, 2.0]))
        Tensor([-0.5,  2. ], dtype=float32)
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = number("LeakyReLU: negative_slope", negative_slope)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class Identity(Module):
    """Returns its input: it stands in the place of a layer that is left out.

    Example:
        >>> Identity()(3)
        3
    """

    def forward(self, x: Tensor) -> Tensor:
        return x


class Softmax(Module):
    """e^x / Σ e^x along an axis; see functional.softmax. It is for probabilities that people look
    at: CrossEntropyLoss takes logits.

    Args:
        axis: an integer.

    Example:
        >>> Softmax()(Tensor([[0.0, 0.0]]))
        Tensor([[0.5, 0.5]], dtype=float32)
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = whole("Softmax: axis", axis)

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class LogSoftmax(Module):
    """log softmax(x) along an axis; see functional.log_softmax.

    Args:
        axis: an integer.

    Example:
        >>> LogSoftmax()(Tensor([0.0, 1000.0]))
        Tensor([-1000.,     0.], dtype=float32)
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = whole("LogSoftmax: axis", axis)

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(x, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class Dropout(Module):
    """In training each element is set to 0 with probability p; see functional.dropout.

    Args:
        p: from 0 to 1.
        scale: "training", or "evaluation" as in the paper: when to compensate.

    Example:
        >>> Dropout(0.5).eval()(Tensor([1.0, 2.0]))
        Tensor([1., 2.], dtype=float32)
    """

    def __init__(self, p: float = 0.5, *, scale: str = "training") -> None:
        self.p, self.scale = check_dropout("Dropout", p, scale), scale

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training, scale=self.scale)

    def extra_repr(self) -> str:
        return f"p={self.p}" + (f", scale={self.scale!r}" if self.scale != "training" else "")


class Flatten(Module):
    """Images as rows, (N, H, W, C) -> (N, H·W·C).

    Example:
        >>> Flatten()(Tensor(np.zeros((2, 6, 6, 256)))).shape
        (2, 9216)
    """

    def forward(self, x: Tensor) -> Tensor:
        require_tensors("Flatten", x=x)
        if x.ndim == 0:
            raise ValueError("Flatten needs x of (N, …), not a number")
        return x.reshape(x.shape[0], prod(x.shape[1:]))


class CrossEntropyLoss(Module):
    """The mean of −log softmax(logits) at the labels; see functional.cross_entropy.

    Args:
        reduction, weight, ignore_index, label_smoothing: as in functional.cross_entropy.

    Example:
        >>> CrossEntropyLoss()(Tensor([[100.0, 0.0], [100.0, 0.0]]), [0, 1]).item()
        50.0
    """

    def __init__(
        self,
        *,
        reduction: str = "mean",
        weight: Any = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        checked_options("CrossEntropyLoss", reduction, weight, ignore_index, label_smoothing)
        self.options = {
            "reduction": reduction, "weight": weight, "ignore_index": ignore_index, "label_smoothing": label_smoothing
        }  # fmt: skip

    def forward(self, logits: Tensor, labels: Any) -> Tensor:
        return F.cross_entropy(logits, labels, **self.options)


class BCEWithLogitsLoss(Module):
    """The mean of the binary cross-entropy; see functional.binary_cross_entropy_with_logits.

    Args:
        reduction: "mean", "sum" or "none".

    Example:
        >>> BCEWithLogitsLoss()(Tensor([100.0, 100.0]), [1.0, 0.0]).item()
        50.0
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        check_reduction("BCEWithLogitsLoss", reduction)
        self.reduction = reduction

    def forward(self, logits: Tensor, target: Any) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, target, reduction=self.reduction)


class MSELoss(Module):
    """The mean of (prediction − target)²; see functional.mse_loss.

    Args:
        reduction: "mean", "sum" or "none".

    Example:
        >>> MSELoss()(Tensor([1.0, 2.0]), [1.0, 4.0]).item()
        2.0
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        check_reduction("MSELoss", reduction)
        self.reduction = reduction

    def forward(self, prediction: Tensor, target: Any) -> Tensor:
        return F.mse_loss(prediction, target, reduction=self.reduction)
