"""Transforms of one image, to be composed and handed to a DataLoader.

A transform is called with an image, uint8 (H, W, 3), and a NumPy Generator. The random ones take all their randomness
from it, the others ignore it. Each returns a uint8 image, perhaps a view of the one given, which it never changes; only
Normalize returns float32, so it comes last; or it is handed to the DataLoader by itself, which then has a GPU do it. An
image that a transform cannot take raises DataError.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend import Array
from .folder import DataError, pillow
from .pictures import normalise, normalise_into

Image = NDArray[np.uint8]
Transform = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]


@dataclass
class Compose:
    """The transforms one after the other."""

    transforms: Sequence[Transform]

    def __call__(self, image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        for transform in self.transforms:
            image = transform(image, rng)
        return image


@dataclass
class Resize:
    """Scale the short side to `short_side` pixels and the long one in proportion (bilinear, antialiased)."""

    short_side: int

    def __post_init__(self) -> None:
        integer("short_side", self.short_side, 1)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        height, width = _sides(image, self)
        scale = self.short_side / min(height, width)
        if scale == 1:
            return image
        pil = pillow()
        size = round(width * scale), round(height * scale)
        return np.array(pil.Image.fromarray(image).resize(size, pil.Image.Resampling.BILINEAR))


@dataclass
class CenterCrop:
    """The square of `size` pixels in the middle; of an odd rest, the larger half is cut below and on the right."""

    size: int

    def __post_init__(self) -> None:
        integer("size", self.size, 1)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        rows, columns = _rest(image, self)
        return image[rows // 2 :, columns // 2 :][: self.size, : self.size]


@dataclass
class RandomCrop:
    """A square of `size` pixels anywhere in the image, after `padding` black pixels were added on each side."""

    size: int
    padding: int = 0

    def __post_init__(self) -> None:
        integer("size", self.size, 1)
        integer("padding", self.padding, 0)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        if self.padding:
            height, width = _sides(image, self)
            padded = np.zeros((height + 2 * self.padding, width + 2 * self.padding, 3), np.uint8)
            padded[self.padding : -self.padding, self.padding : -self.padding] = image
            image = padded
        rows, columns = _rest(image, self)
        top, left = rng.integers(rows + 1), rng.integers(columns + 1)
        return image[top : top + self.size, left : left + self.size]


@dataclass
class RandomHorizontalFlip:
    """The image's mirror image with probability p."""

    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"p must be a probability between 0 and 1, got {self.p}")

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        _sides(image, self)
        if rng.random() >= self.p:
            return image
        mirrored = np.empty(image.shape, np.uint8)
        for channel in range(3):  # copying the three together would move 3 bytes at a time: seven times slower
            mirrored[:, :, channel] = image[:, ::-1, channel]
        return mirrored


@dataclass
class Normalize:
    """(image/255 - mean) / std as float32; mean and std, per channel or one for all, are on the scale from 0 to 1.

    Also of a whole batch (N, H, W, 3), on any device.
    """

    mean: Sequence[float] | float
    std: Sequence[float] | float

    def __post_init__(self) -> None:
        try:
            mean, std = (np.broadcast_to(np.asarray(value, np.float64), 3) for value in (self.mean, self.std))
        except (TypeError, ValueError):
            mean = std = np.array([np.nan])
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise ValueError(f"mean and std must be one number or three, std above 0, got {self.mean} and {self.std}")
        self._scale, self._shift = (1 / (255 * std)).astype(np.float32), (mean / std).astype(np.float32)

    def __call__(self, images: Array, rng: np.random.Generator | None = None) -> Array:
        self.check(images)
        return normalise(images, self._scale, self._shift)

    def write(self, image: Image, out: NDArray[np.float32]) -> None:
        """out[...] = self(image), for an image that has been checked, without another array in between."""
        normalise_into(out, image, self._scale, self._shift)

    def check(self, images: Array) -> None:
        """DataError unless these are images to normalise."""
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[-1] != 3:
            raise DataError(f"{self} takes uint8 images (H, W, 3) or (N, H, W, 3), got {images.dtype} {images.shape}")


def integer(name: str, value: Any, least: int) -> int:
    """The value as an int, or a ValueError that says what `name` must be."""
    try:
        if least <= (number := operator.index(value)) < 2**63:
            return number
    except TypeError:
        pass
    raise ValueError(f"{name} must be an integer from {least} to 2**63 - 1, got {value!r}")


def _sides(image: NDArray[Any], transform: Any) -> tuple[int, int]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"{transform} takes a uint8 image (H, W, 3), got {image.dtype} {image.shape}")
    return image.shape[0], image.shape[1]


def _rest(image: NDArray[Any], crop: CenterCrop | RandomCrop) -> tuple[int, int]:
    """How many rows and columns a crop leaves over."""
    height, width = _sides(image, crop)
    if min(height, width) < crop.size:
        raise DataError(
            f"{crop} does not fit into an image of {height}x{width} (height x width); put Resize({crop.size}) before it"
        )
    return height - crop.size, width - crop.size
