"""Elements where a mask holds, and 0 elsewhere; and 0 as ufuncs take it fastest."""

import numpy as np

from .threads import Array

INTEGERS = {size: np.dtype(f"i{size}") for size in (1, 2, 4, 8)}  # by their bytes
ZEROS = {np.dtype(kind): np.zeros((), kind) for kind in ("f2", "f4", "f8")}


def zero(x: Array) -> Array | int:
    """0, of x's dtype if that is a usual one: for a few numbers np.maximum(x, 0) takes twice as
    long, because the 0 becomes an array each time."""
    return ZEROS.get(x.dtype, 0)


def select(x: Array, mask: Array, out: Array) -> Array:
    """x where the mask holds, otherwise 0, into `out`, of x's dtype; an infinity or a NaN that is
    left out becomes 0 as well.

    The mask is multiplied by the bits of x, read as integers. That takes 62 µs for 262,144
    elements, about as much as mask · x (60), where ∞ · 0 would be NaN; np.where takes 1,400, and
    np.copyto 1,700.
    """
    integer = INTEGERS.get(x.itemsize)
    if integer is None:  # there is no integer as long as a long double
        out[...] = 0
        np.copyto(out, x, where=mask)
        return out
    np.multiply(x.view(integer), mask, out=out.view(integer))
    return out


def selected(x: Array, mask: Array) -> Array:
    """The same as a new array; the mask is broadcast against x."""
    integer = INTEGERS.get(x.itemsize)
    if integer is None:
        return np.where(mask, x, x.dtype.type(0))
    return np.multiply(x.view(integer), mask).view(x.dtype)
