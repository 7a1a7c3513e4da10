"""Winograd's convolution: a 3 × 3 kernel with less than half of the multiplications (Winograd 1980;
Lavin, Gray 2016).

Two neighboring outputs of a kernel g of three elements see four inputs d and take six
multiplications. Four will do:

    y₀ = d₀g₀ + d₁g₁ + d₂g₂ = m₀ + m₁ + m₂        m₀ = (d₀ − d₂) g₀              m₃ = (d₁ − d₃) g₂
    y₁ = d₁g₀ + d₂g₁ + d₃g₂ = m₁ − m₂ − m₃        m₁ = (d₁ + d₂) (g₀ + g₁ + g₂)/2
                                                  m₂ = (d₂ − d₁) (g₀ − g₁ + g₂)/2

which is y = A (B d · G g) with three small matrices (A and B are the transposes of the paper's).

Where they come from: the map from d to y is the transpose of a product of polynomials. For fixed g,
(z₀ + z₁t)(g₀ + g₁t + g₂t²) has four coefficients, and z to these is the matrix that y = (…) d has
transposed. A polynomial of four coefficients is known from its values at four points, and there a
product takes one multiplication each. So: evaluate z and g at the points, multiply, interpolate.

    at t =       0      1               −1              ∞ (the leading coefficient)
    g(t)         g₀     g₀ + g₁ + g₂    g₀ − g₁ + g₂    g₂           the rows of G
    z(t)         z₀     z₀ + z₁         z₀ − z₁         z₁           the columns of A

and the coefficients are v₀, (v₁ − v₋₁)/2 − v_∞, (v₁ + v₋₁)/2 − v₀, v_∞ of the products v: read by
columns, these are the rows of B, with the halves moved to G and one sign to A. The points 0, 1, −1
and ∞ are those at which evaluating takes additions only. More points, for larger tiles, bring
powers of 2 and of 1/2, and with them larger rounding errors.

What holds along a row holds along a column as well, so for 2 × 2 outputs, seen through a window of
4 × 4 pixels, the same equation holds with A⊗A, B⊗B, G⊗G: 16 multiplications, not 36.

A layer cuts its output into T tiles of 2 × 2. Each tile sees a 4 × 4 window, in steps of 2: those
are the columns of functional/windows.py. With C input and O output channels, every multiplication
becomes a matmul:

    V = (B⊗B) im2col(x)       16 matrices (T, C)          the tiles
    U = (G⊗G) W               16 matrices (C, O)          the kernel
    y = (A⊗A) (V U)           V U: 16 matrices (T, O)

Everything here is linear in x and in W, so the gradients follow in the same way, with each matrix
transposed:

    dM = (A⊗A)ᵀ dy            16 matrices (T, O)
    dx = col2im((B⊗B)ᵀ (dM Uᵀ))                           conv.py's convolve_transpose
    dW = (G⊗G)ᵀ (Vᵀ dM)                                   conv.py's convolve_weight

    N images   H W C input   OH OW O output   T tiles of 2 × 2
    with groups, C and O are one group's channels

What it costs is three transformations and a little accuracy: an error of 5e-7 of the result in
float32, against 3e-7, so an image's result can differ by as much between a small batch and a large
one. A NaN or an infinity among the pixels that a tile sees reaches all four of its outputs.

>>> import numpy as np
>>> from minicnn.backends.numpy.winograd import A, B, G
>>> d, g = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 10.0, 100.0])
>>> A @ ((B @ d) * (G @ g))
array([321., 432.])
"""

from typing import Any

import numpy as np

from .memory import empty, scratch
from .ops import matmul
from .threads import Array, parallel, parallel_sum, pieces
from .windows import band, channel_pieces, col2im_into, columns_of, groups_of

Window = Any  # functional.windows.Window, which belongs to a layer of imports above this one

A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
G = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2
AA, BB, GG = np.kron(A, A), np.kron(B, B), np.kron(G, G)  # (4, 16), (16, 16), (16, 9)
# With fewer output pixels, transforming the kernel costs what the matmuls save; with fewer
# channels, transforming the tiles does. Compared with im2col, 13 images of 13 × 13 take 0.9 times
# as long with 96 channels, 1.6 times with 48.
FEWEST_PIXELS, FEWEST_CHANNELS = 2048, 64


def suits(x: Array, window: Window, pixels: int, channels: int) -> bool:
    """Whether Winograd is faster than im2col for so many output pixels, with `channels` the smaller
    of a group's input and output channels. On a CPU it is for 3 × 3 kernels with stride 1, if there
    are enough of both.
    """
    slides = window.kernel_size == (3, 3) and window.stride == window.dilation == (1, 1)
    return slides and pixels >= FEWEST_PIXELS and channels >= FEWEST_CHANNELS


def convolve(
    x: Array, weight: Array, bias: Array | None, window: Window, groups: int, rectified: bool = False
) -> Array:
    """y = (A⊗A) (V U) + b: (N, H, W, C), (3, 3, C, O), (O,) -> (N, OH, OW, O); or, if rectified,
    max(y, 0)
    """
    n, h, w, channels = x.shape
    y = empty((n, *window.output_size(h, w), weight.shape[3]), x.dtype)  # (N, OH, OW, O)
    seen, made = _tiles(window, y.shape)
    u = _kernel(weight)  # (16, C, O)

    def some(images: slice, rows: slice) -> None:
        (above, window4), (below, window2) = band(seen, rows, h), band(made, rows, y.shape[1])
        out = y[images, below]
        for c, o, _ in groups_of(groups, channels, y.shape[3]):
            v = _transform(BB, x[images, above, :, c], window4, "v")  # (16, T, C)
            m = _products(v, u[:, :, o], "m")  # (16, T, O)
            _transform_back(AA, m, window2, out[..., o])
        if bias is not None:
            out += bias
        if rectified:
            np.maximum(out, 0, out=out)

    parallel(some, _pieces(x, y, groups))
    return y


def convolve_transpose(dy: Array, weight: Array, window: Window, groups: int, size: tuple[int, int]) -> Array:
    """dx = col2im((B⊗B)ᵀ (dM Uᵀ)): (N, OH, OW, O), (3, 3, C, O) -> (N, H, W, C) of size (H, W)"""
    dx = empty((len(dy), *size, weight.shape[2] * groups), dy.dtype)  # (N, H, W, C)
    seen, made = _tiles(window, dy.shape)
    ut = _kernel(weight).transpose(0, 2, 1)  # (16, O, C)

    def some(images: slice, c: slice, o: slice, within: slice) -> None:
        dm = _transform(AA.T, dy[images, :, :, o], made, "m")  # (16, T, O)
        v = _products(dm, ut[:, o, within], "v")  # (16, T, c)
        _transform_back(BB.T, v, seen, dx[images, :, :, c])

    parallel(some, channel_pieces(dx, dy, groups, _image_bytes(dx, dy, groups)))
    return dx


def convolve_weight(x: Array, dy: Array, window: Window, groups: int) -> Array:
    """dW = (G⊗G)ᵀ (Vᵀ dM): (N, H, W, C), (N, OH, OW, O) -> (3, 3, C, O)"""
    h, channels, oh, outputs = x.shape[1], x.shape[3], dy.shape[1], dy.shape[3]
    seen, made = _tiles(window, dy.shape)

    def some(images: slice, rows: slice) -> Array:
        (above, window4), (below, window2) = band(seen, rows, h), band(made, rows, oh)
        du = scratch("du", (16, channels // groups, outputs), like=x)
        for c, o, _ in groups_of(groups, channels, outputs):
            v = _transform(BB, x[images, above, :, c], window4, "v")  # (16, T, C)
            dm = _transform(AA.T, dy[images, below, :, o], window2, "m")  # (16, T, O)
            np.matmul(v.transpose(0, 2, 1), dm, out=du[:, :, o])
        return du

    du = parallel_sum(some, _pieces(x, dy, groups))
    return matmul(GG.T.astype(x.dtype), du.reshape(16, -1)).reshape(3, 3, channels // groups, outputs)


def _tiles(window: Window, y_shape: tuple[int, ...]) -> tuple[Window, Window]:
    """The windows of the tiles: 4 × 4 of the input that each sees, 2 × 2 of the output that each
    computes. Where the output's size is odd, the last tile hangs over.
    """
    odd = y_shape[1] % 2, y_shape[2] % 2
    (top, bottom), (left, right) = window.padding
    seen = window._replace(kernel_size=(4, 4), stride=(2, 2), padding=((top, bottom + odd[0]), (left, right + odd[1])))
    return seen, seen._replace(kernel_size=(2, 2), padding=((0, odd[0]), (0, odd[1])))


def _pieces(x: Array, y: Array, groups: int) -> list[tuple[slice, slice]]:
    """Some images and rows of tiles at a time."""
    rows = -(-y.shape[1] // 2)
    return pieces(x, rows, _image_bytes(x, y, groups) // rows)


def _image_bytes(x: Array, y: Array, groups: int) -> int:
    """How much goes through the transformations for one group of an image, and should stay in the
    cache: 16 elements in a tile for 4 of x and 4 of y.
    """
    return 4 * (x[:1].nbytes + y[:1].nbytes) // groups


def _kernel(weight: Array) -> Array:
    """U = (G⊗G) W: (3, 3, C, O) -> (16, C, O)"""
    return matmul(GG.astype(weight.dtype), weight.reshape(9, -1)).reshape(16, *weight.shape[2:])


def _transform(matrix: Array, x: Array, window: Window, name: str) -> Array:
    """What each tile sees, K elements a channel, times a matrix (16, K): (n, H, W, C) -> (16, T,
    C)"""
    columns = columns_of(x, window)  # (T, K·C)
    tiles = columns.reshape(len(columns), matrix.shape[1], x.shape[3])  # (T, K, C)
    out = scratch(name, (len(tiles), 16, x.shape[3]), like=x)  # (T, 16, C)
    return np.matmul(matrix.astype(x.dtype), tiles, out=out).transpose(1, 0, 2)


def _products(a: Array, b: Array, name: str) -> Array:
    """The 16 products (T, ·) (·, ·), each tile's 16 results side by side, as the transformation
    back wants them."""
    out = scratch(name, (a.shape[1], 16, b.shape[2]), like=a).transpose(1, 0, 2)
    return np.matmul(a, b, out=out)


def _transform_back(matrix: Array, m: Array, window: Window, out: Array) -> None:
    """A matrix (K, 16) times each tile's 16 elements a channel, added up where the tile sees: (16,
    T, C) -> out
    """
    tiles = m.transpose(1, 0, 2)  # (T, 16, C)
    columns = scratch("columns", (len(tiles), len(matrix), out.shape[3]), like=m)  # (T, K, C)
    np.matmul(matrix.astype(m.dtype), tiles, out=columns)
    col2im_into(out, columns, window)
