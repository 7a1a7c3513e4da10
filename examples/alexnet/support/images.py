"""The datasets of --data, and the transforms of an image on its way to the network, in training and
in evaluation."""

import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import minicnn
from minicnn.data import CIFAR10, DataError, DataLoader, ImageFolder, ImageNet, PixelStatistics, SyntheticImages
from minicnn.data.folder import ImageFiles, composed, folders, some
from minicnn.data.transforms import (
    CenterCrop,
    Compose,
    Normalize,
    PCAColor,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
    SubtractMean,
    TenCrop,
    Transform,
)
from minicnn.workers import Workers

from .options import UsageError, complain, progress_bar, say
from .recipes import kind_and_folder

# mean and standard deviation of ImageNet's pixels, on the scale of 0 to 1
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RAW = (1 / 255,) * 3  # the standard deviation that leaves pixels on the scale of 0 to 255
SYNTHETIC = {"train": 1120, "val": 200}  # how many images
STATISTICS = "statistics.safetensors"  # of the training images, where prepare.py has been


@dataclass(eq=False)
class View:
    """How the network sees an image: its short side is scaled to `resize` pixels, a square of
    `size` is cut out of it, and channels become (x − mean) / std, on the scale of 0 to 1.

    With a mean image (resize, resize, 3), on the scale of 0 to 255, the image is first cut to its
    central square, and each pixel loses its own mean instead (section 2).

    The paper's initial weights need pixels of 0 to 255 less their mean; He's need unit variance.
    With the wrong scale, the signal vanishes or explodes from layer to layer.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mean_image: NDArray[np.float32] | None = None
    resize: int = 256
    NUMBERS: ClassVar[tuple[str, ...]] = "size", "mean", "std", "resize"

    @classmethod
    def of(
        cls, size: int, settings: Namespace, statistics: PixelStatistics | None, source: "View | None" = None
    ) -> "View":
        """The view of --mean, --scale and --resize; the value "source" takes that of the source's
        view."""
        mean, std = IMAGENET
        if settings.scale == "raw":
            std = RAW
        elif settings.scale == "source":
            std = source.std
        if settings.mean == "image":
            return cls(size, (0.0, 0.0, 0.0), std, statistics.mean_image, settings.resize)
        if settings.mean == "source":
            if source.mean_image is not None and settings.resize != source.resize:
                raise UsageError(
                    f"--resize {settings.resize}: the mean image of {settings.source} has {source.resize} pixels: give "
                    "--mean too, or leave --resize out"
                )
            return replace(source, std=std, resize=settings.resize)
        return cls(size, mean, std, resize=settings.resize)

    def numbers(self) -> dict[str, Any]:
        """All but the mean image, for JSON."""
        return {name: getattr(self, name) for name in self.NUMBERS}

    def steps(self, *crops: Transform) -> list[Transform]:
        """The steps from an image of any size, through these crops, to the network's input."""
        if self.mean_image is None:
            return [Resize(self.resize), *crops, Normalize(self.mean, self.std)]
        square = Resize(self.resize), CenterCrop(self.resize)
        return [*square, SubtractMean(self.mean_image, tuple(255 * std for std in self.std)), *crops]

    def evaluation(self, crops: int = 1) -> Compose:
        """The middle of the image, float32 (size, size, 3); or ten crops of it, (10, size, size, 3)
        (section 4.1)."""
        if crops not in (1, 10):
            raise ValueError(f"an image is evaluated in 1 crop or in 10, not in {crops}")
        return Compose(self.steps(CenterCrop(self.size) if crops == 1 else TenCrop(self.size)))

    def pixels(self, image: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The pixels (size, size, 3) of which evaluation() has made this image; of its ten crops,
        of the middle one."""
        scale, mean = 255 * np.array(self.std), 255 * np.array(self.mean)
        if self.mean_image is not None:
            mean = CenterCrop(self.size)(self.mean_image, np.random.default_rng(0))
        return np.rint(np.clip(image * scale + mean, 0, 255)).astype(np.uint8)

    def augmented(self, settings: Namespace, statistics: PixelStatistics | None) -> Compose:
        """The transforms of training, by --crop, --flip and --color-pca (section 4.1)."""
        crops: list[Transform] = [RandomCrop(self.size) if settings.crop == "random" else CenterCrop(self.size)]
        if settings.flip:
            crops.append(RandomHorizontalFlip())
        steps = self.steps(*crops)
        if settings.color_pca:
            steps.append(PCAColor(*statistics.color_pca(), scale=tuple(1 / std for std in self.std)))
        return Compose(steps)


def datasets(
    what: str, seed: int, size: int, verify: bool = True, least: int | None = None, known: Sequence[str] = ()
) -> tuple[Any, Any]:
    """(training set, validation set) for an argument of --data, see dataset. known: the classes of
    a network that continues; if the data have just these classes, the labels are in their order."""
    if least is not None and least < size:
        raise UsageError(f"--resize {least}: the network sees {size} pixels, so at least as many are needed")
    train, val = (dataset(what, part, seed, size, verify, least) for part in ("train", "val"))
    if len(known) == len(train.classes):
        train, val = labeled_as(known, train), labeled_as(known, val)
    return train, val


def dataset(
    what: str, part: str, seed: int, size: int, verify: bool = True, least: int | None = None,
    known: Sequence[str] = (),
) -> Any:  # fmt: skip
    """The part "train" or "val" for an argument of --data. Of photographs to validate on, it alone
    has to be there.

    size: of drawn images. verify: the checksums of CIFAR-10? least: how many pixels a photo's
    short side needs. known: the classes of a network that is measured. Where it knows all classes
    of the data, the labels are its own."""
    train, (kind, folder) = part == "train", kind_and_folder(what)
    if kind == "synthetic":
        return SyntheticImages(SYNTHETIC[part], seed=2 * seed + (not train), size=size)
    if kind in ("cifar10", "imagenet"):
        if not folder:
            raise UsageError(f"--data {kind} needs the folder of its files: {kind}:DIR")
        return (
            CIFAR10(folder, train, verify=verify)
            if kind == "cifar10"
            else labeled_as(known, announced(ImageNet(folder, train=train, least=least), folder))
        )
    root = Path(what)
    if not what or not root.is_dir():
        raise UsageError(
            f"--data {what!r}: no such folder; give 'synthetic', 'cifar10:DIR', 'imagenet:DIR' or a folder with train/"
            " and val/"
        )
    if not (root / part).is_dir():
        kaggle = f"; ImageNet as Kaggle unpacks it is imagenet:{what}" if (root / "ILSVRC").is_dir() else ""
        raise DataError(
            f"{root / part}: no such folder; {what} needs train/ and val/, each with one folder of images per class"
            f"{kaggle}"
        )
    classes = None  # of folders to train on, of which there have to be two
    if known or not train:
        classes = folders(root / ("train" if (root / "train").is_dir() else part)) or None
    return labeled_as(known, announced(ImageFolder(root / part, classes=classes, least=least), what))


def labeled_as(known: Sequence[str], dataset: Any) -> Any:
    """Image files with the labels that a network gives to their classes, by name, because folders
    called 0 to 999 are not sorted as numbers, and some classes may be missing. If the network does
    not know all of the classes, the dataset is returned unchanged."""
    labels = {name: label for label, name in enumerate(composed(known, "classes"))}
    found = composed(dataset.classes, "classes")
    if not isinstance(dataset, ImageFiles) or not labels.keys() >= found.keys():
        return dataset
    own = [labels[name] for name in found]
    return ImageFiles([(path, own[label]) for path, label in dataset.samples], list(known), dataset.least)


def announced(images: ImageFiles, root: str) -> ImageFiles:
    """The images, after a line that names what else is in their folders and is not hidden, such as
    photos of another format, or inner folders."""
    known = {path for path, _ in images.samples}
    entries = (entry for folder in set(map(os.path.dirname, known)) for entry in os.scandir(folder))
    if others := [e.path for e in entries if e.path not in known and e.name[0] != "."]:
        complain(
            f"{root}: skipped, because they are not images: {some(os.path.relpath(path, root) for path in others)}"
        )
    return images


def pixel_statistics(
    dataset: Any, settings: Namespace, saved: dict[str, NDArray[Any]] | None = None, workers: Workers | None = None,
    **options: Any,
) -> PixelStatistics | None:  # fmt: skip
    """The mean image and the colors of the training images, if --mean or --color-pca need them.
    They come from a checkpoint, from the file that prepare.py wrote, or are computed now, by each
    worker from some of the images. Other options are a DataLoader's."""
    if settings.mean != "image" and not settings.color_pca:
        return None
    if saved:
        return PixelStatistics.of(saved)
    kind, folder = kind_and_folder(settings.data)
    if kind in ("imagenet", "photos") and (path := Path(folder) / STATISTICS).exists():
        say(f"mean image and colors of the training images: {path}")
        return _stored(path, len(dataset), settings.resize)
    workers = workers or Workers()
    say(f"mean image and colors of the {len(dataset)} training images: computed now")
    statistics, square = PixelStatistics(), Compose([Resize(settings.resize), CenterCrop(settings.resize)])
    loader = DataLoader(
        dataset, 32, transform=square, num_workers=minicnn.get_num_threads(), part=workers.part, **options
    )
    with progress_bar(total=len(dataset), desc="statistics", unit=" images") as bar:
        for images, _ in loader:
            for image in images:
                statistics.add(image)
            bar.update(len(images))
    total = PixelStatistics()
    for part in workers.gather(statistics.arrays()):
        total.merge(PixelStatistics.of(part))
    return total


def _stored(path: Path, count: int, side: int) -> PixelStatistics:
    """The statistics in a file, which has to be of this many images of this size."""
    try:
        statistics = PixelStatistics.of(minicnn.load(path)[0])
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    height, width, _ = statistics.sums.shape
    if (statistics.count, height, width) != (count, side, side):
        raise DataError(
            f"{path} is of {statistics.count} images of {height}x{width}, not of {count} of {side}x{side}:"
            " run prepare.py again, or remove that file to have it computed here"
        )
    return statistics


def training(
    dataset: Any, view: View, settings: Namespace, statistics: PixelStatistics | None = None, **options: Any
) -> DataLoader:
    """Shuffled and augmented batches to train on. Other options are a DataLoader's."""
    transform = view.augmented(settings, statistics)
    return _loader(dataset, settings.batch_size, transform, settings, shuffle=True, seed=settings.seed, **options)


def validation(dataset: Any, view: View, settings: Namespace, crops: int = 1, **options: Any) -> DataLoader:
    """Batches of a validation set, in order. In ten crops, a batch has a tenth of the images."""
    return _loader(dataset, max(1, settings.batch_size // crops), view.evaluation(crops), settings, **options)


def _loader(dataset: Any, batch_size: int, transform: Compose, settings: Namespace, **options: Any) -> DataLoader:
    """A DataLoader with these transforms. If Normalize is the last one, the loader applies it, so
    that only bytes are copied to a GPU. A mean image, of which each crop needs another part, and
    shifted colors have to be applied to each image before: then float32 is copied, 79 MB instead of
    20 for 128 images of 227 × 227."""
    *steps, last = transform.transforms
    bytes_cross = isinstance(last, Normalize)
    return DataLoader(
        dataset, batch_size, transform=Compose(steps) if bytes_cross else transform, num_workers=settings.workers,
        normalize=last if bytes_cross else None, device=settings.device,
        processes=getattr(settings, "processes", False), **options,
    )  # fmt: skip
