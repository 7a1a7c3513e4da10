"""What to train on: datasets and transforms for each kind of --data, and the scale of the numbers that the network
sees."""

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from options import UsageError

from minicnn.data import CIFAR10, DataError, DataLoader, ImageFolder, SyntheticImages, transforms

# mean and standard deviation of ImageNet's pixels, on the scale of 0 to 1
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SYNTHETIC = 1120, 200  # how many pictures to train and to validate on


@dataclass
class View:
    """How the network sees a picture: `size` pixels square, each channel less its mean and divided by std (scale of 0
    to 1).

    The paper's weights want pixels of 0 to 255 less their mean; He's want unit variance. With one scale for the
    other's weights the signal dies, or explodes, from layer to layer.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, size: int, weight_init: str) -> "View":
        mean, std = IMAGENET
        return cls(size, mean, std if weight_init == "he" else (1 / 255,) * 3)

    def normalise(self) -> transforms.Normalize:
        return transforms.Normalize(self.mean, self.std)

    def centre(self) -> transforms.Compose:
        """For evaluation: the middle of the picture, shrunk so that a little of the border falls away, as with the
        paper's 256 and 224."""
        return transforms.Compose([transforms.Resize(round(self.size * 256 / 227)), transforms.CenterCrop(self.size)])

    def random(self) -> transforms.Compose:
        """For training: a random place in the picture, mirrored half of the time (section 4.1)."""
        crop, flip = transforms.RandomCrop(self.size), transforms.RandomHorizontalFlip()
        return transforms.Compose([transforms.Resize(round(self.size * 256 / 227)), crop, flip])

    def as_drawn(self) -> transforms.CenterCrop:
        """For pictures that are made at the right size."""
        return transforms.CenterCrop(self.size)


def datasets(what: str, seed: int, size: int, verify: bool = True) -> tuple[Any, Any]:
    """(training set, validation set) for an argument of --data; verify the checksums of CIFAR-10?"""
    kind, _, where = what.partition(":")
    if what == "synthetic":
        train, val = SYNTHETIC
        return SyntheticImages(train, seed=2 * seed, size=size), SyntheticImages(val, seed=2 * seed + 1, size=size)
    if kind == "cifar10":
        if not where:
            raise UsageError("--data cifar10 needs the folder of its files: cifar10:DIR")
        return CIFAR10(where, True, verify), CIFAR10(where, False, verify)
    root = Path(what)
    if not what or not root.is_dir():
        raise UsageError(
            f"--data {what!r}: no such folder; give 'synthetic', 'cifar10:DIR' or a folder with train/ and val/"
        )
    if not (root / "train").is_dir() or not (root / "val").is_dir():
        raise DataError(f"{what} needs two folders, train/ and val/, each with one folder of pictures per class")
    train = ImageFolder(root / "train")
    return train, ImageFolder(root / "val", classes=train.classes)


def training(dataset: Any, view: View, settings: Namespace) -> DataLoader:
    """Shuffled and augmented batches to train on."""
    transform = view.as_drawn() if settings.data == "synthetic" else view.random()
    return _loader(dataset, view, transform, settings, shuffle=True, seed=settings.seed)


def validation(dataset: Any, view: View, settings: Namespace) -> DataLoader:
    """Batches of a validation set, in order."""
    transform = view.as_drawn() if settings.data == "synthetic" else view.centre()
    return _loader(dataset, view, transform, settings)


def _loader(dataset: Any, view: View, transform: Any, settings: Namespace, **options: Any) -> DataLoader:
    return DataLoader(
        dataset, settings.batch_size, transform, num_workers=settings.workers,
        normalize=view.normalise(), device=settings.device, **options,
    )  # fmt: skip
