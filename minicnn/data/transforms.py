"""Transforms of one image, to be composed and handed to a DataLoader.

A transform is called with an image (H, W, C) and a NumPy Generator. The random ones take all their
randomness from it, the others ignore it. Each returns an image, perhaps a view of the one given,
which it never changes.

Images have 3 channels, or 1; PCAColor needs 3. They are uint8. SubtractMean and Normalize make them
float32; crops and flips take both dtypes, PCAColor float32 alone. A Normalize that comes last may
be handed to the DataLoader by itself, which then has a GPU do it. An image that a transform cannot
take raises DataError.

The paper's recipe (Krizhevsky et al. 2012, sections 2 and 4.1), with the PixelStatistics of the
training images:

    Compose([Resize(256), CenterCrop(256), SubtractMean(statistics.mean_image),
             RandomCrop(227), RandomHorizontalFlip(), PCAColor(*statistics.color_pca())])

>>> rng = np.random.default_rng(0)
>>> transform = Compose([RandomCrop(4), RandomHorizontalFlip(), Normalize(0.5, 0.25)])
>>> image = transform(np.zeros((6, 8, 3), np.uint8), rng)
>>> image.shape, image.dtype, float(image[0, 0, 0])
((4, 4, 3), dtype('float32'), -2.0)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.devices import Array, kind_of, on_host, real_array
from ..checks import number, real, shown, whole
from .folder import DataError, pillow, scaled
from .pixels import normalize

__all__ = [
    "CenterCrop", "Compose", "Normalize", "PCAColor", "RandomCrop", "RandomHorizontalFlip", "Resize", "SubtractMean",
    "TenCrop",
]  # fmt: skip

Image = NDArray[Any]  # (H, W, 3) or (H, W, 1), uint8 or float32
CHANNELS = (3, 1)
Transform = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]


def __dir__() -> list[str]:
    return __all__  # what tab completion offers


@dataclass
class Compose:
    """The transforms one after the other.

    Args:
        transforms: each is called as transform(image, rng).
    """

    transforms: Sequence[Transform]

    def __post_init__(self) -> None:
        if not isinstance(self.transforms, Sequence) or not all(map(callable, self.transforms)):
            raise TypeError(f"Compose takes a list of transforms, not {shown(self.transforms)}")

    def __call__(self, image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        for transform in self.transforms:
            image = transform(image, rng)
        return image


@dataclass
class Resize:
    """Scale the short side to `short_side` pixels and the long one in proportion (bilinear,
    antialiased).

    An image that is over 50 times as long as wide is not made larger.

    | where libraries differ   | here                | torchvision 0.29.1                        |
    | ------------------------ | ------------------- | ----------------------------------------- |
    | the long side            | rounded: 640 × 427  | cut off: 383                              |
    |                          | to 256 gives 384    |                                           |
    | CenterCrop, an odd rest  | the smaller half is | above and on the left is half the rest,   |
    |                          | above, on the left  | rounded to an even number if it ends in ½ |
    | EXIF orientation         | read_image turns    | its loaders do not                        |

    So the central crop lies a pixel beside torchvision's for some sizes: 640 × 427, not 500 × 375.

    Args:
        short_side: in pixels.
    Raises:
        ValueError: short_side is not an integer from 1.
        DataError: when called with an image that is not uint8, or too slim to be made larger.

    Example:
        >>> Resize(4)(np.zeros((8, 16, 3), np.uint8), np.random.default_rng(0)).shape
        (4, 8, 3)
    """

    short_side: int

    def __post_init__(self) -> None:
        self.short_side = whole("short_side", self.short_side, 1)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        height, width = _sides(image, self, "uint8")
        if not image.size:
            raise DataError(f"{self} was given an image of no pixels, {_size(image)}")
        if min(height, width) == self.short_side:
            return image
        gray = image.shape[2] == 1
        result = np.asarray(scaled(pillow().Image.fromarray(image[:, :, 0] if gray else image), self.short_side))
        return result[:, :, None] if gray else result


@dataclass
class CenterCrop:
    """The square of `size` pixels in the middle; if the rest is odd, its larger half is cut below
    and on the right.

    Args:
        size: the side of the square in pixels.
    Raises:
        ValueError: size is not an integer from 1.
        DataError: when called with an image that is smaller.

    Example:
        >>> image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
        >>> CenterCrop(2)(image, np.random.default_rng(0))[:, :, 0]
        array([[ 5,  6],
               [ 9, 10]], dtype=uint8)
    """

    size: int

    def __post_init__(self) -> None:
        self.size = whole("size", self.size, 1)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        rows, columns = _rest(image, self)
        return image[rows // 2 :, columns // 2 :][: self.size, : self.size]


@dataclass
class RandomCrop:
    """A square of `size` pixels anywhere in the image, after `padding` pixels of 0 were added on
    each side.

    Args:
        size: the side of the square in pixels.
        padding: pixels that are added on each side.
    Raises:
        ValueError: size is not an integer from 1, or padding from 0.
        DataError: when called with an image that is smaller.

    Example:
        >>> crop = RandomCrop(4, padding=1)
        >>> crop(np.zeros((6, 8, 3), np.uint8), np.random.default_rng(0)).shape
        (4, 4, 3)
    """

    size: int
    padding: int = 0

    def __post_init__(self) -> None:
        self.size = whole("size", self.size, 1)
        self.padding = whole("padding", self.padding, 0)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        if self.padding:
            height, width = _sides(image, self)
            shape = height + 2 * self.padding, width + 2 * self.padding, image.shape[2]
            padded = np.zeros(shape, image.dtype)
            padded[self.padding : -self.padding, self.padding : -self.padding] = image
            image = padded
        rows, columns = _rest(image, self)
        _check_generator(rng, self)
        top, left = rng.integers(rows + 1), rng.integers(columns + 1)
        return image[top : top + self.size, left : left + self.size]


@dataclass
class TenCrop:
    """Ten squares of `size` pixels, (10, size, size, C): the four corners and the center, then
    their mirror images.

    The paper evaluates an image by the mean of the network's ten softmax outputs for them (section
    4.1).

    Args:
        size: the side of a square in pixels.
    Raises:
        ValueError: size is not an integer from 1.
        DataError: when called with an image that is smaller.

    Example:
        >>> TenCrop(4)(np.zeros((6, 8, 3), np.uint8), np.random.default_rng(0)).shape
        (10, 4, 4, 3)
    """

    size: int

    def __post_init__(self) -> None:
        self.size = whole("size", self.size, 1)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        rows, columns = _rest(image, self)
        places = (0, 0), (0, columns), (rows, 0), (rows, columns), (rows // 2, columns // 2)
        crops = np.empty((10, self.size, self.size, image.shape[2]), image.dtype)
        for crop, (top, left) in zip(crops, places, strict=False):
            crop[...] = image[top : top + self.size, left : left + self.size]
        _mirror(crops[:5], crops[5:])
        return crops


@dataclass
class RandomHorizontalFlip:
    """The mirror image with probability p, otherwise the image.

    Args:
        p: from 0 to 1.
    Raises:
        ValueError: p is not a probability.

    Example:
        >>> image = np.array([[[1], [2], [3]]], np.uint8)
        >>> RandomHorizontalFlip(p=1.0)(image, np.random.default_rng(0))[:, :, 0]
        array([[3, 2, 1]], dtype=uint8)
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        self.p = number("p, a probability,", self.p, 0, 1)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        _sides(image, self)
        _check_generator(rng, self)
        if rng.random() >= self.p:
            return image
        mirrored = np.empty(image.shape, image.dtype)
        _mirror(image, mirrored)
        return mirrored


@dataclass(eq=False)
class SubtractMean:
    """(image - mean_image) / std as float32, all on the scale from 0 to 255.

    Without std it is the paper's only preprocessing (section 2). The mean of each pixel is
    subtracted, so this comes before the crop, and the image has to have the mean image's size.

    Args:
        mean_image: (H, W, 3) or (H, W, 1), such as PixelStatistics.mean_image.
        std: one number, or one for each channel, above 0.
    Raises:
        ValueError: mean_image is not finite or has another shape, or std does not fit.
        DataError: when called with an image of another size.

    Example:
        >>> subtract = SubtractMean(np.full((1, 1, 3), 100))
        >>> subtract(np.full((1, 1, 3), 110, np.uint8), np.random.default_rng(0))
        array([[[10., 10., 10.]]], dtype=float32)
    """

    mean_image: NDArray[np.float32]
    std: Sequence[float] | float = 1.0

    def __post_init__(self) -> None:
        mean = np.asarray(real_array("mean_image must be an array", self.mean_image), np.float32, order="C")
        std = np.asarray(real_array("std must be one number or several", self.std), np.float64)
        if mean.ndim != 3 or mean.shape[2] not in CHANNELS or not np.isfinite(mean).all():
            raise ValueError(f"mean_image must be a finite array (H, W, 3) or (H, W, 1), got an array {mean.shape}")
        channels = mean.shape[2]
        if std.shape not in ((), (channels,)) or not (std > 0).all():
            raise ValueError(
                f"std must be one number or one per channel of the mean image, above 0, got {shown(self.std)}"
            )
        self.mean_image = mean
        self._scale = None if (std == 1).all() else np.broadcast_to(1 / std, channels).astype(np.float32)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        _sides(image, self, "uint8", channels=self.mean_image.shape[2:])
        if image.shape != self.mean_image.shape:
            raise DataError(f"{self} was given an image of {_size(image)}; put Resize and CenterCrop before it")
        result = image - self.mean_image
        if self._scale is not None:
            rows = result.reshape(len(result), -1)  # (H, W·3), a view
            rows *= np.tile(self._scale, image.shape[1])
        return result

    def __repr__(self) -> str:
        return f"SubtractMean(mean_image of {_size(self.mean_image)}, std={self.std})"


@dataclass(eq=False)
class PCAColor:
    """The image with its colors shifted along the principal components of the training pixels, as
    another light would shift them (section 4.1):

        image + Σᵢ pᵢ · λᵢ · αᵢ · scale        αᵢ ~ N(0, std), drawn once for all pixels at each use

    | where texts differ           | shift                                        | λ and p are of |
    | ---------------------------- | -------------------------------------------- | -------------- |
    | here and fb.resnet.torch     | Σ pᵢ λᵢ αᵢ on the scale 0 to 1               | training data  |
    | cuda-convnet2                | Σ pᵢ √λᵢ αᵢ; then the image is /(1 + std)    | training data  |
    | Albumentations 1.3.1         | Σ pᵢ λᵢ α on the scale 0 to 1, one α for all | that image     |
    | Albumentations 1.4.24, 2.0.8 | none: Σ pᵢ αᵢ (pᵢ · (x − mean color)) is     | that image     |
    |                              | added to each pixel x, contrast along pᵢ     |                |

    (Of fb.resnet.torch and cuda-convnet2 the source was read, Albumentations was run.)

    The paper names no scale, but it matters, because λ grows with its square: of ImageNet's pixels
    on 0 to 1 the largest is about 0.22, which shifts a channel by about 3 gray levels of 255; with
    pixels and covariance on 0 to 255 the same formula shifts it by over 800.

    Args:
        eigenvalues: λ (3,), of the covariance of the training pixels' RGB values on the scale 0 to
            1, as PixelStatistics.color_pca() returns them.
        eigenvectors: p, in columns (3, 3).
        std: of α; 0.1 in the paper.
        scale: what a step of 1 on the scale 0 to 1 is in the images given, one number or one for
            each channel: 255 after SubtractMean, 1/std of each channel after Normalize.
    Raises:
        ValueError: an argument has another shape, or std is negative.
        DataError: when called with an image that is not float32 (H, W, 3).

    Example:
        >>> shift = PCAColor(np.array([0.2, 0.01, 0.001]), np.eye(3), std=0.0)
        >>> shift(np.ones((1, 1, 3), np.float32), np.random.default_rng(0))
        array([[[1., 1., 1.]]], dtype=float32)
    """

    eigenvalues: NDArray[Any] = field(repr=False)
    eigenvectors: NDArray[Any] = field(repr=False)
    std: float = 0.1
    scale: Sequence[float] | float = 255.0

    def __post_init__(self) -> None:
        values, vectors, scale = (
            np.asarray(real_array(f"PCAColor: {name} must be numbers", getattr(self, name)), float)
            for name in ("eigenvalues", "eigenvectors", "scale")
        )
        std = real(self.std)
        fits = (values.shape, vectors.shape) == ((3,), (3, 3)) and scale.shape in ((), (3,))
        if not fits or std is None or not 0 <= std < np.inf:
            raise ValueError(
                "PCAColor takes eigenvalues (3,), eigenvectors (3, 3), a std of 0 or more, and one scale or three;"
                f" got {values.shape}, {vectors.shape}, {shown(self.std)} and {shown(self.scale)}"
            )
        self._components = scale.reshape(-1, 1) * vectors * values  # (3, 3), a shift in each column

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        height, width = _sides(image, self, "float32", channels=(3,))
        _check_generator(rng, self)
        shift = (self._components @ rng.normal(0, self.std, 3)).astype(np.float32)
        # in whole rows of W·3 elements, because broadcasting along an axis of 3 is ten times slower
        return (image.reshape(height, width * 3) + np.tile(shift, width)).reshape(image.shape)


@dataclass
class Normalize:
    """(image/255 - mean) / std as float32.

    It can also be called with a whole batch (N, H, W, C), or (N, 10, H, W, C) after TenCrop, on any
    device.

    Args:
        mean: on the scale from 0 to 1, one number for all channels or three; images of one channel
            need one number.
        std: likewise, above 0.
    Raises:
        ValueError: mean or std does not fit.
        DataError: when called with images that are not uint8, or have another number of channels.

    Example:
        >>> Normalize(0.5, 0.25)(np.full((1, 1, 3), 255, np.uint8))
        array([[[2., 2., 2.]]], dtype=float32)
    """

    mean: Sequence[float] | float
    std: Sequence[float] | float

    def __post_init__(self) -> None:
        try:
            mean, std = (np.broadcast_to(np.asarray(real_array("", x), float), 3) for x in (self.mean, self.std))
        except (TypeError, ValueError):
            mean = std = np.array([np.nan])
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise ValueError(
                f"mean and std must be one number or three, std above 0, got {shown(self.mean)} and {shown(self.std)}"
            )
        self._scale, self._shift = (1 / (255 * std)).astype(np.float32), (mean / std).astype(np.float32)
        self._channels = CHANNELS if np.size(self.mean) == np.size(self.std) == 1 else (3,)

    def __call__(self, images: Array, rng: np.random.Generator | None = None) -> Array:
        self.check(images)
        return normalize(images, *self._numbers(images))

    def write(self, image: Image, out: NDArray[np.float32]) -> None:
        """Do out[...] = self(image), without another array in between.

        Args:
            image: an image that `check` accepts.
            out: a float32 array of its shape.
        """
        normalize(image, *self._numbers(image), out)

    def check(self, images: Array) -> None:
        """Check that these are images to normalize.

        Args:
            images: uint8 (…, H, W, C) on any device.
        Raises:
            DataError: they are not.
        """
        if kind_of(type(images)) is None:
            raise DataError(f"{self} takes uint8 images, an array (…, H, W, C), got {shown(images)}")
        if images.dtype != np.uint8 or images.ndim < 3 or images.shape[-1] not in self._channels:
            shapes = " or ".join(f"(…, H, W, {number})" for number in self._channels)
            raise DataError(f"{self} takes uint8 images {shapes}, got {images.dtype} {images.shape}")

    def _numbers(self, images: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The scale and the shift of each channel."""
        channels = images.shape[-1]
        return self._scale[:channels], self._shift[:channels]


def _sides(image: NDArray[Any], transform: Any, *dtypes: str, channels: Sequence[int] = CHANNELS) -> tuple[int, int]:
    """Height and width of an image; it is a DataError unless it has one of these dtypes, by default
    either of the two, and one of these counts of channels.
    """
    dtypes = dtypes or ("uint8", "float32")
    if not on_host(image):
        raise DataError(f"{transform} takes an image, an array (H, W, C), got {shown(image)}")
    if image.dtype not in dtypes or image.ndim != 3 or image.shape[2] not in channels:
        shapes = " or ".join(f"(H, W, {number})" for number in channels)
        raise DataError(f"{transform} takes a {' or '.join(dtypes)} image {shapes}, got {image.dtype} {image.shape}")
    return image.shape[0], image.shape[1]


def _check_generator(rng: Any, transform: Any) -> None:
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"{transform} takes rng, a numpy.random.Generator, second, not {shown(rng)}")


def _size(image: NDArray[Any]) -> str:
    return f"{image.shape[0]}x{image.shape[1]} (height x width)"


def _rest(image: NDArray[Any], crop: CenterCrop | RandomCrop | TenCrop) -> tuple[int, int]:
    """How many rows and columns a crop leaves over."""
    height, width = _sides(image, crop)
    if min(height, width) < crop.size:
        raise DataError(f"{crop} does not fit into an image of {_size(image)}; put Resize({crop.size}) before it")
    return height - crop.size, width - crop.size


def _mirror(images: NDArray[Any], out: NDArray[Any]) -> None:
    """Left and right exchanged in images (…, H, W, C)."""
    # all at once would be copied in runs of 3 elements, which is four to seven times slower
    for channel in range(out.shape[-1]):
        out[..., channel] = images[..., ::-1, channel]
