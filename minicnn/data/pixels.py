"""The arithmetic of transforms.Normalize: pixels become floats."""

from ..backends import kernel
from ..backends.devices import Array, device_of, to_device


@kernel
def normalize(images: Array, scale: Array, shift: Array, out: Array | None = None) -> Array:
    """x · scale[c] − shift[c]: uint8 (…, H, W, C) -> float32, in `out` if that is given; scale and
    shift are (C,), on the host, where C is 3 or 1.
    """
    here = device_of(images)
    result = images * to_device(scale, here) - to_device(shift, here)
    if out is None:
        return result
    out[...] = result
    return out
