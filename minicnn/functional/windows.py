"""Windows: the pixels that a kernel sees as it slides over an image, and their layout as a matrix,
with which sliding becomes one matrix product.

![a window becomes a row, and the way back](../figures/windows.png)

Convolution and pooling look at an image through a window of KH × KW pixels that moves in steps of
the stride. Output pixel (p, q) sees

    x[p·s + i·d, q·s + j·d, :]    for i in 0 … KH−1, j in 0 … KW−1

where s is the stride, d the dilation, and x has its padding around it.

`im2col` copies each such window into one row of a matrix, so that a convolution is a matrix product
(lesson conv). `col2im` is its transpose: every element of such a matrix is added to the pixel that
it was copied from, or dropped if that was padding. Windows overlap, so a pixel may be copied many
times, and is then the sum of as many elements; a pixel that no window reaches is 0. Because the two
are transposes, one is the gradient of the other: ⟨u, w⟩ is the sum of u ∘ w, elementwise, and
⟨im2col(x), c⟩ = ⟨x, col2im(c)⟩ for all x and c.

Along one axis, H pixels with padding pt + pb give

    OH = ⌊(H + pt + pb − d·(KH − 1) − 1) / s⌋ + 1

    N images   H W height, width   C channels   KH KW kernel   OH OW output height, width

Images are channels last, (N, H, W, C): the C elements of a pixel are adjacent in memory, so a row
of a window is KW·C adjacent elements (for d = 1). The matrix is about KH·KW/s² times as large as x.

>>> import numpy as np
>>> x = np.arange(9.0).reshape(1, 3, 3, 1)
>>> window = Window.of(kernel_size=2, stride=1)
>>> im2col(x, window)
array([[0., 1., 3., 4.],
       [1., 2., 4., 5.],
       [3., 4., 6., 7.],
       [4., 5., 7., 8.]])
>>> col2im(np.ones((4, 4)), x.shape, window)[0, :, :, 0]  # in how many windows is each pixel?
array([[1., 2., 1.],
       [2., 4., 2.],
       [1., 2., 1.]])

Try: are they transposes, also with a stride and padding? For any two arrays, both sums are equal:

>>> rng, window = np.random.default_rng(0), Window.of(kernel_size=3, stride=2, padding=1)
>>> x, c = rng.random((2, 5, 5, 4)), rng.random((2 * 3 * 3, 3 * 3 * 4))
>>> bool(np.isclose((im2col(x, window) * c).sum(), (x * col2im(c, x.shape, window)).sum()))
True
"""

import operator
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from ..backends import kernel
from ..backends.devices import Array
from ..checks import LARGEST, shown

Pair = tuple[int, int]
IntPair = int | Pair  # one integer for both, or (height, width)
# or ((top, bottom), (left, right)); "same": the output has the input's size, for a stride of 1
Padding = IntPair | tuple[IntPair, IntPair] | Literal["same"]


def pair(value: Any, name: str, least: int = 1, most: int = LARGEST) -> Pair:
    """An int, or (height, width), as a pair.

    Raises:
        ValueError: the value is something else, too small, or too large.
    """
    try:
        h, w = value if isinstance(value, (tuple, list)) else (value, value)
        h, w = operator.index(h), operator.index(w)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be an integer or a pair (height, width), not {shown(value)}") from None
    if min(h, w) < least:
        raise ValueError(f"{name} must be at least {least}, not {shown(value)}")
    if max(h, w) > most:
        raise ValueError(f"{name} must be at most {most:,}, not {shown(value)}")
    return h, w


class Window(NamedTuple):
    """How a kernel slides: (height, width) of the kernel, of its stride and of its dilation, and
    the padding ((top, bottom), (left, right))."""

    kernel_size: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair

    @classmethod
    def of(cls, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> "Window":
        """The Window of a user's settings: ints or pairs; padding also as ((top, bottom), (left,
        right)) or "same"."""
        kernel, steps, holes = pair(kernel_size, "kernel_size"), pair(stride, "stride"), pair(dilation, "dilation")
        if isinstance(padding, str) and padding == "same":
            if steps != (1, 1):
                raise ValueError(
                    f'padding="same" needs a stride of 1, not {shown(stride)}: give the padding in numbers'
                )
            spans = [d * (k - 1) for k, d in zip(kernel, holes, strict=True)]
            padding = tuple([(span // 2, span - span // 2) for span in spans])
        sides = padding if isinstance(padding, (tuple, list)) else (padding, padding)
        try:
            vertical, horizontal = (pair(side, "padding", 0) for side in sides)
        except ValueError:
            raise ValueError(
                "padding must be integers of at least 0, as n, (height, width) or ((top, bottom), (left, right)), "
                f'or "same", not {shown(padding)}'
            ) from None
        return cls(kernel, steps, (vertical, horizontal), holes)

    @classmethod
    def of_pooling(cls, name: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> "Window":
        """The same for pooling: the stride is the kernel's size if it is None.

        Raises:
            ValueError: there is so much padding that a window might see no pixel.
        """
        window = cls.of(kernel_size, kernel_size if stride is None else stride, padding, dilation)
        if any(2 * max(p) > k for p, k in zip(window.padding, window.kernel_size, strict=True)):
            raise ValueError(f"{name}: padding {padding} is more than half of the window {kernel_size}")
        return window

    def output_size(self, height: int, width: int) -> Pair:
        """(OH, OW).

        Raises:
            ValueError: the window does not fit into the padded image.
        """
        oh, ow = (
            (n + sum(p) - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(
                (height, width), self.kernel_size, self.stride, self.padding, self.dilation, strict=True
            )
        )
        if oh < 1 or ow < 1:
            raise ValueError(
                f"a window of {self.kernel_size}, dilation {self.dilation}, padding {self.padding} "
                f"does not fit {height} × {width} pixels"
            )
        return oh, ow

    def with_overhang(self, height: int, width: int) -> "Window":
        """The same window with the padding at the bottom and on the right that a last, incomplete
        window needs (ceil_mode). A window that would begin beyond the image is left out."""
        wider = []
        for n, k, s, (before, after), d in zip((height, width), *self, strict=True):
            room = n + before + after - d * (k - 1) - 1  # how far the first window can move
            last = -(-room // s) * s  # where a window begins that reaches the end of the padding
            wider.append((before, after + (last - room if last < n + before else 0)))
        return self._replace(padding=(wider[0], wider[1]))

    def unpadded(self, x: Array) -> Array:
        """A view of x, an image with padding, without the padding."""
        (top, bottom), (left, right) = self.padding
        return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]

    def taps(self, x: Array) -> Iterator[Array]:
        """For each place (i, j) in the window, row by row: the pixels that all output pixels see
        there, a view (N, OH, OW, C) of the padded x."""
        (kh, kw), (sh, sw), _, (dh, dw) = self
        oh, ow = self._replace(padding=((0, 0), (0, 0))).output_size(x.shape[1], x.shape[2])
        for i in range(0, kh * dh, dh):
            for j in range(0, kw * dw, dw):
                yield x[:, i : i + sh * (oh - 1) + 1 : sh, j : j + sw * (ow - 1) + 1 : sw]


def padded(x: Array, window: Window, value: float = 0.0) -> Array:
    """(N, H, W, C) -> (N, H + top + bottom, W + left + right, C): x with `value` around it."""
    return np.pad(x, ((0, 0), *window.padding, (0, 0)), constant_values=value)


@kernel
def im2col(x: Array, window: Window) -> Array:
    """(N, H, W, C) -> (N·OH·OW, KH·KW·C): each window as a row."""
    seen = np.stack(list(window.taps(padded(x, window))), axis=3)  # (N, OH, OW, KH·KW, C)
    n, oh, ow, places, c = seen.shape
    return seen.reshape(n * oh * ow, places * c)


@kernel
def col2im(columns: Array, shape: tuple[int, ...], window: Window) -> Array:
    """(N·OH·OW, KH·KW·C) -> shape (N, H, W, C): each element added to the pixel of which it is a
    copy."""
    (n, h, w, c), (kh, kw), ((top, bottom), (left, right)) = shape, window.kernel_size, window.padding
    columns = columns.reshape(n, *window.output_size(h, w), kh * kw, c)
    x = np.zeros_like(columns, shape=(n, top + h + bottom, left + w + right, c))
    for k, tap in enumerate(window.taps(x)):
        tap += columns[:, :, :, k]
    return window.unpadded(x)


# Faster versions of the functions marked @kernel, which run in their place:
# backends/numpy/windows.py, backends/cuda/windows.cu.
