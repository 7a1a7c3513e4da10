"""Average-pooling: the mean of each window (LeCun et al. 1998, section II.B).

    avg_pool2d   y[p, q] = the mean of what window (p, q) sees

The mean is the sum of each window, divided by a number of pixels. The sum is lesson pooling's
gather without winners, because every pixel of a window contributes to it. So its gradient is
scatter without winners: each window gives its dy to all of its pixels. Each of the two is linear
and the gradient of the other, to any order, so nothing of x is kept. A window is a rectangle, so
its sum is the sum of the sums of its rows. In a large window the rows are summed first, because
KW + KH additions lose less by rounding than KW·KH.

By how many pixels the sum is divided is a convention. Libraries differ where there is padding:

| where libraries differ                       | padding counts                         |
| -------------------------------------------- | -------------------------------------- |
| here, and in PyTorch 2.14                    | yes, unless count_include_pad is False |
| OpenCV 4.14 for Caffe, Chainer 7.8           | yes                                    |
| MXNet 1.9, Flax 0.12                         | yes, unless they are told otherwise    |
| TensorFlow 2.21; Keras 3.15 on it and on JAX | no                                     |
| ONNX 1.23, Paddle 3.3                        | no, unless they are told otherwise     |
| Keras 3.15 on PyTorch                        | there is none: it repeats the edge     |

>>> import minicnn, minicnn.functional as F
>>> x = minicnn.Tensor([4.0, 8.0, 2.0]).reshape(1, 1, 3, 1)
>>> F.avg_pool2d(x, (1, 3), stride=1, padding=(0, 1)).reshape(3)
Tensor([4.       , 4.6666665, 3.3333333], dtype=float32)
>>> F.avg_pool2d(x, (1, 3), stride=1, padding=(0, 1), count_include_pad=False).reshape(3)
Tensor([6.       , 4.6666665, 5.       ], dtype=float32)

Try: which convolution does the same as the first?

>>> thirds = minicnn.Tensor([[1 / 3] * 3]).reshape(1, 3, 1, 1)
>>> F.conv2d(x, thirds, padding=(0, 1)).reshape(3).numpy().round(4)
array([4.    , 4.6667, 3.3333], dtype=float32)
"""

import numpy as np

from ..backends.devices import Array, on_device_of
from ..ops import DivScalar
from ..tensor import Tensor, apply
from .arguments import require_images
from .pooling import Gather, gather, pool_window
from .precision import float16_in_float32
from .windows import IntPair, Padding, Pair, Window

__all__ = ["avg_pool2d"]

FEW = 64  # a window of at most so many pixels is summed in one step


@float16_in_float32
def avg_pool2d(
    x: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window (LeCun et al. 1998, section II.B).

    Args:
        x: (N, H, W, C), floating point.
        kernel_size, stride, padding, ceil_mode: as in max_pool2d, with a padding of zeros.
        count_include_pad: divide by the number of pixels in the window, padding included (but not
            what ceil_mode adds beyond it); if False, by the number of those inside the image.
    Returns:
        (N, OH, OW, C), of x's dtype.
    Raises:
        ValueError: the window does not fit, or a setting is not as described.

    Example:
        >>> avg_pool2d(Tensor([[1.0, 2.0], [3.0, 6.0]]).reshape(1, 2, 2, 1), kernel_size=2).item()
        3.0
    """
    require_images("avg_pool2d", x, count_include_pad=count_include_pad)
    window = pool_window("avg_pool2d", x, kernel_size, stride, padding, 1, ceil_mode)
    kh, kw = window.kernel_size
    counted = Window.of(kernel_size, padding=padding if count_include_pad else 0).padding
    # where all of the padding counts, each window has KH·KW pixels
    counts = None if window.padding == counted else _counts(x, window, counted)
    for part in _parts(window):
        x = apply(Gather(None, part), x)
    return apply(DivScalar(kh * kw), x) if counts is None else x / counts


def _counts(x: Tensor, window: Window, padding: tuple[Pair, Pair]) -> Array:
    """The number of pixels by which the sum of each window is divided, (1, OH, OW, 1): the window's
    sum over an image of ones. The padding that counts is ones too; the rest is zeros."""
    _, h, w, _ = x.shape
    (top, bottom), (left, right) = padding
    (all_top, all_bottom), (all_left, all_right) = window.padding
    h, w = top + h + bottom, left + w + right
    window = window._replace(padding=((all_top - top, all_bottom - bottom), (all_left - left, all_right - right)))
    with on_device_of(x.data):  # float32 holds every count, and does not promote x
        counts = np.ones_like(x.data, dtype=np.float32, shape=(1, h, w, 1))
        for part in _parts(window):
            counts = gather(counts, None, part)
        return counts


def _parts(window: Window) -> list[Window]:
    """The windows to sum over in turn: the rows of a large window, and then their sums."""
    (kh, kw), (sh, sw), (vertical, horizontal), _ = window
    if kh * kw <= FEW:
        return [window]
    return [
        window._replace(kernel_size=(1, kw), stride=(1, sw), padding=((0, 0), horizontal)),
        window._replace(kernel_size=(kh, 1), stride=(sh, 1), padding=(vertical, (0, 0))),
    ]


# The faster versions are those of lesson pooling's gather and scatter.
