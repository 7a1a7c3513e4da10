"""Pooling: one number for each window and channel, so that the image shrinks and small shifts matter less.

    max_pool2d   y[p, q] = max  of what the window of (p, q) sees                  Krizhevsky et al. 2012, section 3.4
    avg_pool2d   y[p, q] = mean of what the window of (p, q) sees

Max-pooling copies one pixel, the winner, out of each window. Its derivative puts the gradient of
the window back at the winner's place. The paper's windows overlap, 3 × 3 pixels in steps of 2, so a
pixel may collect several. Away from ties, small changes of x keep the winners. So these are
constants (computed outside of apply), and both maps are linear, each the other's transpose:

    gather(x, winner)    y[p, q]      = x at the winner's place in window (p, q)
    scatter(dy, winner)  dx[h, w]     = Σ dy[p, q]  over the windows (p, q) that (h, w) has won

so the gradient of one is the other, to any order. A window with a NaN has no winner. MaxPool2d
keeps x and y for the backward pass, which finds the winners. Average-pooling is the same with every
pixel a winner, divided by how many pixels count (see count_include_pad).

    N images   H W C input height, width, channels   KH KW window   OH OW output height, width

The padding of a maximum is −∞, which never wins, and not 0: twelve libraries that were tried agree.

| where libraries differ | here and in PyTorch                      | others                     |
| ---------------------- | ---------------------------------------- | -------------------------- |
| equal maxima           | the first, row by row, takes all of dy   | they share it (tinygrad)   |
| size not a multiple    | floor; ceil_mode adds an incomplete one  | ceil (Caffe; Chainer, max) |
| padding, in a mean     | counts, but for count_include_pad=False  | does not by default        |
|                        |                                          | (TensorFlow, Paddle, ONNX) |

>>> import minicnn, minicnn.functional as F
>>> x = minicnn.Tensor([[1.0, 3.0, 2.0], [4.0, 0.0, 5.0], [7.0, 6.0, 8.0]], requires_grad=True)
>>> y = F.max_pool2d(x.reshape(1, 3, 3, 1), kernel_size=2, stride=1)
>>> y.reshape(2, 2)
Tensor([[4., 5.],
        [7., 8.]], dtype=float32, grad_fn=Reshape)
>>> y.sum().backward()
>>> x.grad
Tensor([[0., 0., 0.],
        [1., 0., 1.],
        [1., 0., 1.]], dtype=float32)
"""

import numpy as np

from ..autograd import Function, Gradients
from ..backends import kernel
from ..backends.devices import Array, on_device_of
from ..tensor import Tensor, apply
from .precision import float16_in_float32
from .windows import IntPair, Padding, Window, padded

__all__ = ["avg_pool2d", "max_pool2d"]


@kernel
def window_maximum(x: Array, window: Window) -> Array:
    """y = max over each window: (N, H, W, C) -> (N, OH, OW, C).

    For each place (i, j) in the window, window.taps yields what all windows see there: a view
    (N, OH, OW, C) of the array that it is given, so that += writes into that array."""
    return np.stack(list(window.taps(padded(x, window, -np.inf)))).max(axis=0)


@kernel
def winners(x: Array, y: Array, window: Window) -> Array:
    """For each window the place of its first maximum, i·KW + j: (N, H, W, C), (N, OH, OW, C) -> (N, OH,
    OW, C), uint8 if KH·KW ≤ 255, else uint32. A window with a NaN has no winner: its place is KH·KW."""
    equal = np.stack([tap == y for tap in window.taps(padded(x, window, np.nan))])  # (KH·KW, N, OH, OW, C)
    places = np.where(equal.any(axis=0), equal.argmax(axis=0), len(equal))
    return places.astype(np.uint8 if len(equal) <= 255 else np.uint32)


@kernel
def scatter(dy: Array, winner: Array | None, window: Window, size: tuple[int, int]) -> Array:
    """dx = what each pixel won: (N, OH, OW, C) -> (N, H, W, C), where (H, W) = size. Without winners every pixel of a
    window gets all of it."""
    (top, bottom), (left, right) = window.padding
    dx = np.zeros_like(dy, shape=(len(dy), top + size[0] + bottom, left + size[1] + right, dy.shape[3]))
    for k, tap in enumerate(window.taps(dx)):
        tap += dy if winner is None else np.where(winner == k, dy, dy.dtype.type(0))
    return window.unpadded(dx)


@kernel
def gather(x: Array, winner: Array | None, window: Window) -> Array:
    """y = x at the winners' places: (N, H, W, C) -> (N, OH, OW, C). Without winners, the sum of all places."""
    y = np.zeros_like(x, shape=(len(x), *window.output_size(*x.shape[1:3]), x.shape[3]))
    for k, tap in enumerate(window.taps(padded(x, window))):
        y += tap if winner is None else np.where(winner == k, tap, x.dtype.type(0))
    return y


class MaxPool2d(Function):
    promotes_integers = True
    saves = ((0,),)

    def __init__(self, window: Window):
        self.window = window

    def forward(self, x: Array) -> Array:
        self.y = window_maximum(x, self.window)
        return self.y

    def backward(self, dy: Tensor) -> Gradients:
        x = self.saved_inputs[0]
        return apply(Scatter(winners(x.data, self.y, self.window), self.window, x.shape[1:3]), dy)


class Scatter(Function):
    def __init__(self, winner: Array | None, window: Window, size: tuple[int, int]):
        self.winner, self.window, self.size = winner, window, size

    def forward(self, dy: Array) -> Array:
        return scatter(dy, self.winner, self.window, self.size)

    def backward(self, g: Tensor) -> Gradients:
        return apply(Gather(self.winner, self.window), g)


class Gather(Function):
    promotes_integers = True

    def __init__(self, winner: Array | None, window: Window):
        self.winner, self.window = winner, window

    def forward(self, x: Array) -> Array:
        self.size = x.shape[1:3]
        return gather(x, self.winner, self.window)

    def backward(self, g: Tensor) -> Gradients:
        return apply(Scatter(self.winner, self.window, self.size), g)


def max_pool2d(
    x: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: Padding = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest number in each window (Krizhevsky et al. 2012, section 3.4, with kernel_size=3 and stride=2).

    Args:
        x: (N, H, W, C), floating. NaN in a window gives NaN.
        kernel_size, stride, dilation: int or (height, width); stride is kernel_size by default.
        padding: int, (height, width) or ((top, bottom), (left, right)), of −∞; at most half of the window.
        ceil_mode: also take a last window that overhangs, if it starts before the image ends.

    Returns (N, OH, OW, C). Raises ValueError if the window does not fit.
    """
    return apply(MaxPool2d(_window("max_pool2d", x, kernel_size, stride, padding, dilation, ceil_mode)), x)


@float16_in_float32
def avg_pool2d(
    x: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window.

    Args:
        x: (N, H, W, C), floating.
        kernel_size, stride, padding, ceil_mode: as for max_pool2d, with padding of zeros.
        count_include_pad: divide by the number of pixels including the padding (but not those by which ceil_mode
            overhangs it), or only by the number of pixels of the image.

    Returns (N, OH, OW, C). Raises ValueError if the window does not fit.
    """
    window = _window("avg_pool2d", x, kernel_size, stride, padding, 1, ceil_mode)
    asked = Window.of(kernel_size, padding=padding)
    counting, (h, w) = window, x.shape[1:3]
    if count_include_pad:
        (top, bottom), (left, right) = asked.padding
        overhang = [(0, new[1] - old[1]) for new, old in zip(window.padding, asked.padding, strict=True)]
        counting, h, w = window._replace(padding=(overhang[0], overhang[1])), top + h + bottom, left + w + right
    with on_device_of(x.data):  # float32 has every count, and makes nothing wider
        counts = gather(np.ones_like(x.data, dtype=np.float32, shape=(1, h, w, 1)), None, counting)
    return apply(Gather(None, window), x) / counts  # (1, OH, OW, 1)


def _window(
    name: str,
    x: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None,
    padding: Padding,
    dilation: IntPair,
    ceil_mode: bool,
) -> Window:
    """The window; for ceil_mode, with as much padding on the far side as the last one overhangs."""
    if x.ndim != 4:
        raise ValueError(f"{name} needs x of (N, H, W, C), not {x.shape}")
    window = Window.of(kernel_size, kernel_size if stride is None else stride, padding, dilation)
    if any(2 * max(p) > k for p, k in zip(window.padding, window.kernel_size, strict=True)):
        raise ValueError(f"{name}: padding {padding} is more than half of the window {kernel_size}")
    window.output_size(*x.shape[1:3])
    return window.with_overhang(*x.shape[1:3]) if ceil_mode else window


# backends/numpy/pooling.py and backends/cuda/pooling.cu may replace the functions marked @kernel.
