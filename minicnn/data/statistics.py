"""PixelStatistics: what the paper's recipe needs to know of the training images: their mean image
(section 2) and the principal components of their colors (section 4.1).

>>> import numpy as np
>>> statistics = PixelStatistics()
>>> for level in (0, 100, 200):
...     statistics.add(np.full((2, 2, 3), level, np.uint8))
>>> statistics.count, statistics.mean_image[0, 0].tolist()
(3, [100.0, 100.0, 100.0])
>>> eigenvalues, eigenvectors = statistics.color_pca()  # gray images vary along gray alone
>>> eigenvalues.round(3).tolist(), eigenvectors[:, 0].round(3).tolist()
([0.308, 0.0, 0.0], [0.577, 0.577, 0.577])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.devices import on_host
from ..checks import shown
from .folder import DataError


class PixelStatistics:
    """Sums over images of one size, uint8 (H, W, 3), in integers: neither the order of the images
    nor how they are divided among workers changes a result.

    Attributes:
        count: how many images were added.
        sums: int64 (H, W, 3), of each pixel over the images.
        products: int64 (3, 3), of each channel times each, over all pixels.
    Raises:
        DataError: a result is asked for before the first image.
    """

    def __init__(self) -> None:
        self.count = 0
        # takes the size of the first image
        self.sums: NDArray[np.int64] = np.zeros((0, 0, 3), np.int64)
        self.products: NDArray[np.int64] = np.zeros((3, 3), np.int64)

    def __repr__(self) -> str:
        return f"PixelStatistics({self.count:,} images)"

    def add(self, image: NDArray[np.uint8]) -> None:
        """Count an image.

        Args:
            image: uint8 (H, W, 3).
        Raises:
            DataError: the image is not such an array, or not of the size of the others.
        """
        if not on_host(image):
            raise DataError(f"PixelStatistics takes uint8 images (H, W, 3), got {shown(image)}")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise DataError(f"PixelStatistics takes uint8 images (H, W, 3), got {image.dtype} {image.shape}")
        self._fit(image.shape)
        planes = np.ascontiguousarray(image.reshape(-1, 3).T, np.float64)  # (3, H·W)
        # This is exact: 256 × 256 pixels make 2³² at most, and float64 holds integers up to 2⁵³.
        # BLAS is not faster with so flat a product, and ten times slower where its threads have to
        # wait for busy cores.
        self.products += np.einsum("ik,jk->ij", planes, planes).astype(np.int64)
        self.sums += image
        self.count += 1

    def merge(self, other: PixelStatistics) -> None:
        """Count the images of other statistics as well.

        Args:
            other: another PixelStatistics.
        Raises:
            DataError: its images are of another size.
        """
        if not isinstance(other, PixelStatistics):
            raise TypeError(f"merge: other must be a PixelStatistics, not {shown(other)}")
        if other.count:
            self._fit(other.sums.shape)
            self.count += other.count
            self.sums += other.sums
            self.products += other.products

    @property
    def mean_image(self) -> NDArray[np.float32]:
        """The mean of each pixel, float32 (H, W, 3), from 0 to 255: what the paper subtracts
        (section 2).
        """
        self._pixels()
        return (self.sums / self.count).astype(np.float32)

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean of each channel, float64 (3,), from 0 to 1."""
        return self.sums.sum(axis=(0, 1)) / self._pixels() / 255

    @property
    def covariance(self) -> NDArray[np.float64]:
        """The covariance of the channels over all pixels, float64 (3, 3), on the scale 0 to 1: E[x
        xᵀ] − E[x] E[x]ᵀ.
        """
        n, totals = self._pixels(), self.sums.sum(axis=(0, 1)).astype(object)
        # n² times the covariance, in integers of any length
        scaled = n * self.products.astype(object) - np.outer(totals, totals)
        return (scaled / (255 * n) ** 2).astype(np.float64)

    def color_pca(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The principal components of the colors, as transforms.PCAColor takes them (section 4.1).

        Returns:
            (eigenvalues, eigenvectors) of the covariance: float64 (3,), the largest first, and (3,
            3), the vectors in columns, each with its largest component positive.
        """
        # eigh returns the smallest first, each vector of either sign
        eigenvalues, eigenvectors = np.linalg.eigh(self.covariance)
        eigenvalues, eigenvectors = np.maximum(eigenvalues[::-1], 0), eigenvectors[:, ::-1]
        # (1, 3)
        largest = np.take_along_axis(eigenvectors, abs(eigenvectors).argmax(axis=0)[None], axis=0)
        return eigenvalues, eigenvectors * np.sign(largest)

    def arrays(self) -> dict[str, NDArray[np.int64]]:
        """A dict of arrays with all of the statistics, to be stored."""
        return {"count": np.array(self.count, np.int64), "sums": self.sums, "products": self.products}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> PixelStatistics:
        """The statistics whose arrays() these are.

        Args:
            arrays: that dict.
        Returns:
            A PixelStatistics.
        Raises:
            DataError: the dict is something else.
        """
        if not isinstance(arrays, Mapping) or not all(map(on_host, arrays.values())):
            raise DataError(
                f"PixelStatistics.of takes arrays by their names, as arrays() returns them, not {shown(arrays)}"
            )
        kinds = {name: (array.dtype, array.ndim, array.shape[-1:]) for name, array in arrays.items()}
        whole = np.dtype(np.int64)
        if kinds != {"count": (whole, 0, ()), "sums": (whole, 3, (3,)), "products": (whole, 2, (3,))}:
            raise DataError(f"these arrays are not pixel statistics: {', '.join(sorted(arrays)) or 'there are none'}")
        statistics = cls()
        statistics.count = int(arrays["count"])
        statistics.sums, statistics.products = arrays["sums"].copy(), arrays["products"].copy()
        return statistics

    def _fit(self, shape: tuple[int, ...]) -> None:
        if self.count == 0:
            self.sums = np.zeros(shape, np.int64)
        if self.sums.shape != shape:
            raise DataError(
                f"PixelStatistics takes images of one size: the first was {self.sums.shape}, this one is {shape};"
                " put Resize and CenterCrop before it"
            )

    def _pixels(self) -> int:
        """How many pixels were added up: all of all images."""
        if self.count == 0:
            raise DataError("PixelStatistics has no results before the first image")
        return self.count * self.sums.shape[0] * self.sums.shape[1]
