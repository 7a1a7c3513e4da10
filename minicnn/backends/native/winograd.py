"""Convolution's three maps by the Winograd algorithm, by the kernels of winograd.c.

The gradient of x is a convolution of dy with the kernel's places turned around and its matrices
transposed, so it is computed as one.
"""

from math import prod
from typing import Any

import numpy as np

from ..numpy.threads import BLOCK, usable_threads
from .launch import Array, added, contiguous, empty, launch
from .product import REGISTER, room_for

Window = Any  # functional.windows.Window, which belongs to a layer of imports above this one

# With fewer pixels, transforming the kernel costs what the products save; with fewer channels,
# transforming the tiles does.
FEWEST_PIXELS, FEWEST_CHANNELS = 2048, {3: 64, 5: 48}  # by the kernel's size
# Bytes of transformed tiles that a unit should have, and tiles, for which the transformed kernel is
# read once.
NEAR, ENOUGH = 2 << 20, {3: 196, 5: 96}  # by the kernel's size
SAVING = 0.6


def suits(y: Array, weight: Array, window: Window, groups: int) -> bool:
    """Whether Winograd is faster than the plain product for x or y of that shape."""
    n, h, w, _ = y.shape
    size, c, o = window.kernel_size[0], weight.shape[2], weight.shape[3] // groups
    width = REGISTER // y.itemsize  # whole registers on any processor
    return (
        window.kernel_size in ((3, 3), (5, 5))
        and window.stride == window.dilation == (1, 1)
        and max(max(sides) for sides in window.padding) < size
        and n * h * w >= FEWEST_PIXELS
        and min(c, o) >= FEWEST_CHANNELS[size]
        and c % width == o % width == 0
    )


def tile_for(size: tuple[int, int], k: int) -> int:
    """M, of tiles of M × M outputs: 4 where these save enough products to pay for the longer
    transformations. Of 13 × 13 pixels they would save a quarter, of 8 × 8 they save 0.44."""
    if k == 5:
        return 2
    two, four = (prod(-(-n // m) for n in size) * (m + 2) ** 2 for m in (2, 4))
    return 4 if four < SAVING * two else 2


def convolve(x: Array, weight: Array, bias: Array | None, window: Window, groups: int, rectified: bool) -> Array:
    """y = (A⊗A) (V U) + b: (N, H, W, C), (K, K, C/G, O), (O,) -> (N, OH, OW, O); or, if rectified,
    max(y, 0)"""
    ((top, _), (left, _)), size = window.padding, window.output_size(*x.shape[1:3])
    bias = bias if bias is None else contiguous(bias)
    return _convolve(x, weight, bias, size, weight.shape[3], top, left, groups, rectified=rectified)


def convolve_transpose(dy: Array, turned: Array, window: Window, groups: int, size: tuple[int, int]) -> Array:
    """dx: (N, OH, OW, O), Kᵀ (K, K, O, C/G) -> (N, H, W, C), where (H, W) = size"""
    ((top, _), (left, _)), most = window.padding, len(turned) - 1
    return _convolve(dy, turned, None, size, turned.shape[3] * groups, most - top, most - left, groups, turned=True)


def _convolve(
    x: Array, weight: Array, bias: Array | None, size: tuple[int, int], outputs: int, top: int, left: int, groups: int,
    turned: bool = False, rectified: bool = False,
) -> Array:  # fmt: skip
    x, y, k = contiguous(x), empty((len(x), *size, outputs), x.dtype), len(weight)
    m = tile_for(size, k)
    u = _kernels(weight, m, groups, turned)
    shape, units, room = _cut(x, y, m, k, top, left, groups)
    launch("winograd.convolve", units, x, u, bias, rectified, y, shape, real=x.dtype, each=BLOCK, room=room)
    return y


def convolve_weight(x: Array, dy: Array, window: Window, groups: int) -> Array:
    """dK = (G⊗G)ᵀ (Vᵀ dM): (N, H, W, C), (N, OH, OW, O) -> (K, K, C/G, O)"""
    ((top, _), (left, _)), (k, _) = window.padding, window.kernel_size
    m = tile_for(dy.shape[1:3], k)
    shape, units, room = _cut(x, dy, m, k, top, left, groups)
    shape[-1] = shares = min(units, usable_threads())
    c, o = x.shape[3] // groups, dy.shape[3]
    sums = empty((shares, groups, (m + k - 1) ** 2, c, o // groups), x.dtype)
    launch("winograd.convolve_weight", shares, x, dy, sums, shape, real=x.dtype, each=BLOCK, room=room)
    du, weight = sums[0] if shares == 1 else added(sums, sums[0]), empty((k, k, c, o), x.dtype)
    each = 2 * (m + k - 1) ** 2 * o // groups
    launch("winograd.kernels_back", groups * c, m, k, du, weight, c, o, groups, real=x.dtype, each=each)
    return weight


def _kernels(weight: Array, m: int, groups: int, turned: bool) -> Array:
    """U = (G⊗G) K of each group."""
    k, _, rows, columns = weight.shape
    u = empty((groups, (m + k - 1) ** 2, rows * columns // groups), weight.dtype)
    units = rows if turned else rows * groups
    numbers = rows, columns, groups, turned
    launch("winograd.kernels", units, m, k, contiguous(weight), u, *numbers, real=u.dtype, each=u.size // units)
    return u


def _cut(x: Array, y: Array, m: int, k: int, top: int, left: int, groups: int) -> tuple[Array, int, int]:
    """The Shape of winograd.c; into how many units the work is cut; and how much working memory a
    thread needs."""
    (n, h, w, c), (_, oh, ow, o) = x.shape, y.shape
    down, across = -(-oh // m), -(-ow // m)
    a_tile, threads = (m + k - 1) ** 2 * (c + o) // groups * x.itemsize, usable_threads()
    enough = max(ENOUGH[k], NEAR // a_tile)
    few = max(1, min(enough // (down * across), -(-n // threads)))
    bands = max(1, min(down, max(down * across // enough, -(-threads // n)))) if few == 1 else 1
    tiles = few * (down // bands + 1) * across
    longest = max(tiles, c // groups)
    room = room_for(longest, 3 * longest) + tiles * a_tile
    shape = n, h, w, c, oh, ow, o, m, k, top, left, groups, few, bands, 1
    return np.array(shape, np.intp), -(-n // few) * bands, room
