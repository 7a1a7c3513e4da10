"""What cross-entropy is given besides logits: labels and options, checked, so that its lesson need
not speak of them."""

from typing import Any

import numpy as np

from ..backends.devices import Array, on_device_of, on_host, real_array, to_device
from ..checks import number, whole
from ..tensor import Tensor
from .elementwise_loss import check_reduction


def checked_options(name: str, reduction: str, weight: Any, ignore_index: Any, label_smoothing: Any) -> Any:
    """The weight as an array, after a check of all options (on a GPU not of its elements)."""
    check_reduction(name, reduction)
    number(f"{name}: label_smoothing, a share,", label_smoothing, 0, 1)
    if ignore_index is not None:
        whole(f"{name}: ignore_index", ignore_index)
    if weight is None:
        return None
    what = f"{name}: weight is a number for each class, (K,)"
    try:
        array = weight.data if isinstance(weight, Tensor) else real_array(what, weight)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if array.ndim != 1 or array.dtype.kind == "b":
        raise ValueError(f"{what}, not {array.dtype} of shape {array.shape}")
    # equivalent (term): on a CPU every array is the host's (such notes are for tests/mutation.py)
    for extreme in (array.min(), array.max()) if on_host(array) and array.size else ():
        number(f"{name}: weight, each element of it,", extreme.item(), 0)
    return array


def class_numbers(labels: Any, logits: Tensor, ignore_index: int | None) -> tuple[Array, Array | None]:
    """The labels, checked, on the logits' device, with 0 for ignored ones; and a mask of the others
    (None: no label is ignored)."""
    what = "cross_entropy: labels are class numbers, integers"
    numbers = labels.data if isinstance(labels, Tensor) else real_array(what, labels)
    if logits.ndim != 2 or numbers.shape != logits.shape[:1]:
        raise ValueError(f"cross_entropy needs logits (N, K) and labels (N,), not {logits.shape} and {numbers.shape}")
    if numbers.dtype.kind not in "iub" and numbers.size:
        raise TypeError(f"{what}; these are {numbers.dtype}")
    kept = None
    with on_device_of(numbers):
        if ignore_index is not None:
            kept = numbers != ignore_index
            numbers = np.where(kept, numbers, 0)
        # a copy, because callers reuse their arrays; on a GPU labels must not be overwritten
        # equivalent (argument): on a CPU it is a copy either way
        numbers = numbers.astype(np.int64, copy=on_host(numbers))
    # equivalent (term): on a CPU every array is the host's
    if on_host(numbers) and numbers.size and not 0 <= numbers.min() <= numbers.max() < logits.shape[1]:
        raise ValueError(
            f"cross_entropy: labels run from {numbers.min()} to {numbers.max()}, "
            f"but there are {logits.shape[1]} classes"
        )
    return to_device(numbers, logits.device), None if kept is None else to_device(kept, logits.device)
