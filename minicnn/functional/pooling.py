"""Max-pooling: one element for each window and channel, so that the image shrinks and small shifts
matter less (Krizhevsky et al. 2012, section 3.4).

![who wins in windows that overlap](../figures/pooling.png)

    N images   H W C input height, width, channels   OH OW output height, width   KH KW window

For each image and channel, output pixel (p, q) has a window of KH × KW pixels, and

    max_pool2d   y[p, q] = the maximum of its window

Max-pooling copies one pixel out of each window, the winner: the argmax of the window. Its
derivative adds the gradient of the window to the winner. The paper's windows overlap, 3 × 3 pixels
in steps of 2, so a pixel may win several windows and collect a gradient from each. Away from ties,
small changes of x do not change the winners, so these are treated as constants: they are computed
from arrays and not recorded. With them fixed, max-pooling is y = gather(x, winner), which is
linear, and so is scatter:

    gather(x, winner)    y[p, q]      = x at the winner's place in window (p, q)
    scatter(dy, winner)  dx[h, w]     = Σ dy[p, q]  over the windows (p, q) that (h, w) has won

They are transposes. Σ dy[p, q] · y[p, q] has a term dy[p, q] · x[h, w] for each window and its
winner; sorted by the winners it is Σ x[h, w] · dx[h, w]:

    ⟨dy, gather(x)⟩ = ⟨scatter(dy), x⟩

On either side the factor of x is scatter(dy), the gradient of gather, and the factor of dy is
gather(x), the gradient of scatter. So each is the gradient of the other, to any order. A window
with a NaN has no winner: y is NaN there, and no pixel gets its gradient.

For the backward pass MaxPool2d keeps x and y, and finds the winners by comparing them only then, so
that forward computes nothing but a maximum. Scatter and Gather keep the winners.

A maximum is padded with −∞, not with 0, which would win over negative pixels.

| where libraries differ    | here, PyTorch 2.14         | others                                |
| ------------------------- | -------------------------- | ------------------------------------- |
| gradient of equal maxima  | to the first, row by row   | shared (tinygrad 0.14)                |
| the last window overhangs | left out, unless ceil_mode | taken (OpenCV 4.14 for Caffe, Chainer |
|                           |                            | 7.8)                                  |

>>> import minicnn, minicnn.functional as F
>>> x = minicnn.Tensor([[1.0, 3.0, 2.0], [4.0, 8.0, 5.0], [7.0, 6.0, 9.0]], requires_grad=True)
>>> y = F.max_pool2d(x.reshape(1, 3, 3, 1), kernel_size=2, stride=1)
>>> y.reshape(2, 2)
Tensor([[8., 8.],
        [8., 9.]], dtype=float32, grad_fn=Reshape)
>>> y.sum().backward()
>>> x.grad  # the pixel in the middle has won three windows
Tensor([[0., 0., 0.],
        [0., 3., 0.],
        [0., 0., 1.]], dtype=float32)

Try: how do you compute min-pooling with it?

>>> -F.max_pool2d(-x.detach().reshape(1, 3, 3, 1), kernel_size=2, stride=1).reshape(2, 2)
Tensor([[1., 2.],
        [4., 5.]], dtype=float32)
"""

import numpy as np

from ..autograd import Function, Gradients
from ..backends import kernel
from ..backends.devices import Array
from ..tensor import Tensor, apply
from .arguments import require_images
from .windows import IntPair, Padding, Window, padded

__all__ = ["max_pool2d"]


# For each place (i, j) in a window, window.taps(x) yields the pixels of all windows there: the view
# x[:, i·d :: s, j·d :: s], (N, OH, OW, C). Adding to a view adds to the array.


@kernel
def window_maximum(x: Array, window: Window) -> Array:
    """y, the maximum of each window: (N, H, W, C) -> (N, OH, OW, C)"""
    return np.stack(list(window.taps(padded(x, window, -np.inf)))).max(axis=0)


@kernel
def winners(x: Array, y: Array, window: Window) -> Array:
    """For each window the place of its first maximum, i·KW + j, or KH·KW if it has a NaN:
    (N, H, W, C), (N, OH, OW, C) -> (N, OH, OW, C), uint8 if KH·KW ≤ 255, else uint32"""
    # the padding is NaN here, which equals nothing, so it never wins, not even if y is −∞
    taps = window.taps(padded(x, window, np.nan))
    equal = np.stack([tap == y for tap in taps])  # (KH·KW, N, OH, OW, C)
    places = np.where(equal.any(axis=0), equal.argmax(axis=0), len(equal))
    return places.astype(np.uint8 if len(equal) <= 255 else np.uint32)


@kernel
def scatter(dy: Array, winner: Array | None, window: Window, size: tuple[int, int]) -> Array:
    """dx, for each pixel the sum of dy over the windows that it won: (N, OH, OW, C) -> (N, H, W, C)
    with (H, W) = size. If winner is None (lesson average_pooling), all of a window's pixels win."""
    (top, bottom), (left, right) = window.padding
    dx = np.zeros_like(dy, shape=(len(dy), top + size[0] + bottom, left + size[1] + right, dy.shape[3]))
    for k, tap in enumerate(window.taps(dx)):
        # a 0 of dy's dtype, so that the result has that dtype
        tap += dy if winner is None else np.where(winner == k, dy, dy.dtype.type(0))
    return window.unpadded(dx)


@kernel
def gather(x: Array, winner: Array | None, window: Window) -> Array:
    """y, x at the winner's place in each window: (N, H, W, C) -> (N, OH, OW, C). If winner is None,
    the sum of each window."""
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

    def backward(self, dy: Tensor) -> Gradients:
        return apply(Scatter(self.winner, self.window, self.size), dy)


def max_pool2d(
    x: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: Padding = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The maximum of each window (Krizhevsky et al. 2012, section 3.4).

    Args:
        x: (N, H, W, C), floating point. A window with a NaN gives NaN.
        kernel_size, stride, dilation: int or (height, width), 3 and 2 in the paper; stride is
            kernel_size by default.
        padding: int, (height, width) or ((top, bottom), (left, right)), filled with −∞; at most
            kernel_size / 2 on each side.
        ceil_mode: keep a last window that reaches past the end, if it starts before the end.
    Returns:
        (N, OH, OW, C), of x's dtype.
    Raises:
        ValueError: the window does not fit, or a setting is not as described.
    """
    return apply(MaxPool2d(pool_window("max_pool2d", x, kernel_size, stride, padding, dilation, ceil_mode)), x)


def pool_window(
    name: str,
    x: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None,
    padding: Padding,
    dilation: IntPair,
    ceil_mode: bool,
) -> Window:
    """The window; for ceil_mode, with the padding that an incomplete last window needs."""
    require_images(name, x, ceil_mode=ceil_mode)
    window = Window.of_pooling(name, kernel_size, stride, padding, dilation)
    window.output_size(*x.shape[1:3])  # a ValueError if the window does not fit
    return window.with_overhang(*x.shape[1:3]) if ceil_mode else window


# Faster versions of the functions marked @kernel, which run in their place:
# backends/numpy/pooling.py, backends/native/pooling.c, backends/cuda/pooling.cu.
