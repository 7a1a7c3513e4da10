"""Data: arrays in, arrays out. A dataset has `len(dataset)` and `dataset[i]`, which is (image,
label), for images a uint8 array (H, W, 3) and an int. A list of such pairs is a dataset, and
`Arrays(X, y)` makes one of two arrays. Where the labels have names, `dataset.classes` lists them.
"""

from . import transforms
from .arrays import Arrays
from .cifar10 import CIFAR10
from .folder import DataError, ImageFolder, read_image
from .imagenet import ImageNet
from .loader import DataLoader
from .statistics import PixelStatistics
from .synthetic import SyntheticImages

__all__ = [
    "CIFAR10", "Arrays", "DataError", "DataLoader", "ImageFolder", "ImageNet", "PixelStatistics", "SyntheticImages",
    "read_image", "transforms",
]  # fmt: skip
