"""Sums on a GPU: ops.total, by the kernel of ops.cu."""

from math import prod

from ..devices import Array
from .launch import empty, launch_blocks, pack

FEW = 1024  # rows that one block adds up in about the time of another launch
LEAST = 64  # rows to a chunk; with fewer, the second launch would have much to read
CHUNKS = 512  # with fewer, the first launch would have few threads for much work


def total(x: Array, axes: tuple[int, ...]) -> Array:
    """The sum over some axes. If these are the first ones, of contiguous floats, it takes two
    launches, or one for up to FEW rows; anything else is left to CuPy, which for 96 columns would
    keep only 3 blocks busy."""
    if axes != tuple(range(len(axes))) or not axes or not x.flags.c_contiguous or x.dtype.kind != "f":
        return x.sum(axis=axes)
    kept = x.shape[len(axes) :]
    rows, columns = prod(x.shape[: len(axes)]), prod(kept)
    if rows > FEW:
        x = _sums(x, rows, columns, max(LEAST, -(-rows // CHUNKS)))
        rows = len(x)
    return _sums(x, rows, columns, rows).reshape(kept)


def _sums(x: Array, rows: int, columns: int, chunk: int) -> Array:
    """(rows, columns) -> (⌈rows / chunk⌉, columns); of no rows, one row of zeros."""
    sums = empty((-(-rows // chunk) if rows else 1, columns), x.dtype)
    packed = pack(columns, x, sums)
    wide = min(32, max(1, columns // packed))
    across = -(-columns // (packed * wide))
    blocks = across * len(sums)
    launch_blocks(
        "ops.column_sums", blocks, x, sums, blocks, across, rows, columns, chunk, real=x.dtype, WIDE=wide, PACK=packed
    )
    return sums
