"""Arrays: a dataset of arrays that are in memory already.

>>> import numpy as np
>>> from minicnn.data import Arrays, DataLoader
>>> X, y = np.zeros((10, 8, 8, 1), np.uint8), np.arange(10) % 2
>>> dataset = Arrays(X, y)
>>> len(dataset), dataset[3][0].shape, int(dataset[3][1])
(10, (8, 8, 1), 1)
>>> [images.shape for images, labels in DataLoader(dataset, batch_size=4)]
[(4, 8, 8, 1), (4, 8, 8, 1), (2, 8, 8, 1)]
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import place


class Arrays:
    """X and y as a dataset: `dataset[i]` is (X[i], y[i]), views that cannot be written to.

    Args:
        X: (N, …) integers or floats, images channels last, (N, H, W, C); an array, which is not
            copied, or lists. Layers have float32 weights, so convert other floats:
            X.astype(np.float32).
        y: (N,) labels of any integer dtype, or booleans, which count as 0 and 1; or (N,) or (N, …)
            targets of any floating dtype.
    Attributes:
        X: the array.
        y: the array.
    Raises:
        TypeError: one of the two is not an array of such a dtype, or has no axes.
        ValueError: their lengths differ.

    Example:
        >>> Arrays([[0.5, 1.5], [2.5, 3.5]], [0, 1])
        Arrays(X float64 (2, 2), y int64 (2,))
    """

    def __init__(self, X: ArrayLike, y: ArrayLike):
        self.X, self.y = _numbers("X", X), _numbers("y", y, "biuf")
        if len(self.X) != len(self.y):
            raise ValueError(f"X and y must be of one length, got {len(self.X)} samples and {len(self.y)} labels")

    def __repr__(self) -> str:
        return f"Arrays(X {self.X.dtype} {self.X.shape}, y {self.y.dtype} {self.y.shape})"

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, index: int) -> tuple[NDArray[Any], Any]:
        index = place("Arrays: index", index, len(self))
        return self.X[index], self.y[index]


def _numbers(name: str, values: ArrayLike, kinds: str = "iuf") -> NDArray[Any]:
    """A read-only view of an array of one of these kinds of dtype."""
    try:
        array = np.asarray(values).view()
    except (TypeError, ValueError, RuntimeError) as error:  # lists of unequal lengths, say
        raise TypeError(f"{name} must be an array or lists of numbers: {error}") from None
    if array.ndim == 0 or array.dtype.kind not in kinds:
        raise TypeError(f"{name} must be an array (N, …) of integers or floats, got {array.dtype} {array.shape}")
    array.flags.writeable = False
    return array
