"""ImageFolder: images in one folder for each class."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ..checks import several
from .reading import ENDINGS, FORMATS, DataError, checked_least, formats, path_of, pillow, quiet, read_image, scaled

__all__ = ["ENDINGS", "DataError", "ImageFiles", "ImageFolder", "pillow", "quiet", "read_image", "scaled"]

SEARCHED = 1000  # folders at most, for an example in a message
IMAGES = "images"  # the folder within a class's own in which tiny-imagenet has its images


class ImageFiles:
    """A dataset of image files: `dataset[i]` is (image, label), a uint8 array (H, W, 3) and an int.
    The image comes from `read_image(path, least)` when it is asked for.

    Args:
        samples: a list of (path, label).
        classes: the names of the classes.
        least: the short side that will be needed, see `read_image`.
    Attributes:
        samples: as given.
        classes: as given.
        least: as given.
    Raises:
        ValueError: `least` is not a whole number from 1.
    """

    def __init__(self, samples: list[tuple[str, int]], classes: list[str], least: int | None):
        self.samples, self.classes, self.least = samples, classes, checked_least(least)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} images, {len(self.classes)} classes)"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        path, label = self.samples[index]
        return read_image(path, self.least), label


class ImageFolder(ImageFiles):
    """The images in `root/<class>/<file>`: `folder[i]` is (image, label), a uint8 array (H, W, 3)
    and an int.

    A file counts if its name ends in one of `ENDINGS`, in upper or lower case (`.avif` where Pillow
    can read it). Hidden files do not count, nor do files that are not regular, such as pipes, and
    links that lead nowhere or to themselves. Folders within a class do not count either; but where
    a class has no images beside a single folder called images, those in there are the class's, as
    in tiny-imagenet. Files are listed now, and decoded by `read_image` when they are asked for.

    Args:
        root: the folder that holds one folder of images for each class.
        classes: the class names in the order of their labels; by default the names of the folders,
            sorted as strings, as torchvision sorts them: "10" comes before "2". For a validation
            folder pass the training folder's `classes`: each of its folders must have one of these
            names, and may write an accented letter as one character or as two (Unicode's NFC and
            NFD). A class without a folder has no images there.
        least: the short side that will be needed, see `read_image`.
    Attributes:
        classes: the class names in the order of their labels.
        samples: the list of (path, label).
        least: as given.
    Raises:
        DataError: root does not exist, there are fewer than two classes, a class folder has no
            images, a folder is not among `classes`, or two names differ only in how accents are
            encoded.
        OSError: a folder cannot be read.
        TypeError: root is not a path, or `classes` has something else than names.
        ValueError: `least` is not a whole number from 1.

    Example:
        >>> train = ImageFolder("photos/train", least=256)  # doctest: +SKIP
        >>> val = ImageFolder("photos/val", classes=train.classes, least=256)  # doctest: +SKIP
    """

    def __init__(self, root: str | os.PathLike[str], *, classes: Sequence[str] | None = None, least: int | None = None):
        root = path_of("root", root)
        if classes is not None:
            classes = several("classes", classes, str)
        checked_least(least)  # before files are listed, which may take long
        if not os.path.isdir(root):
            what = "is not a folder" if os.path.exists(root) else "does not exist"
            raise DataError(f"{root}: {what}; pass a folder that holds one folder of images per class")
        found = folders(root)
        flat = not found or (found == [IMAGES] and IMAGES not in (classes or ()))
        if flat and image_files(os.path.join(root, *found)):
            raise DataError(
                f"{root}: images, but no class folders; ImageNet's flat validation folder is read with"
                " minicnn.data.ImageNet (imagenet:DIR in train.py)"
            )
        if classes is None and len(found) < 2:
            count = f"only one class folder, {found[0]!r}" if found else "no class folders"
            raise DataError(f"{root}: {count}; at least two are needed, each with the images of one class")
        classes = found if classes is None else list(classes)
        here, labels = composed(found, root), composed(classes, "classes")
        if not found or here.keys() - labels.keys():
            missing = [labels[name] for name in labels.keys() - here.keys()]
            unknown = [here[name] for name in here.keys() - labels.keys()]
            raise DataError(
                f"{root}: class folders differ from the classes asked for"
                f" (missing: {some(missing)}; unknown: {some(unknown)})"
            )
        samples = [
            (path, label)
            for label, name in enumerate(labels)
            if name in here
            for path in files(os.path.join(root, here[name]))
        ]
        super().__init__(samples, classes, least)


def folders(root: str) -> list[str]:
    """The names of the folders in a folder, but hidden ones and Synology's @eaDir, sorted."""
    return sorted(
        entry.name
        for entry in os.scandir(root)
        if leads_to(entry.is_dir) and entry.name[0] != "." and entry.name != "@eaDir"
    )


def files(folder: str) -> list[str]:
    """The paths of a class's images, in its folder or in the folder images within, sorted. It is a
    DataError if there are none.
    """
    inner = folders(folder)
    if found := image_files(folder) or (image_files(os.path.join(folder, IMAGES)) if inner == [IMAGES] else []):
        return found
    walks = (at for name in inner for at, *_ in os.walk(os.path.join(folder, name)))
    # not all of a disk, which a link may lead to
    example = next((image for at in islice(walks, SEARCHED) for image in image_files(at)), None)
    within = f", but in folders within it, where images are not searched for, such as {example}" if example else ""
    raise DataError(f"{folder}: no images in this folder{within} (endings accepted: {' '.join(ENDINGS)})")


def image_files(folder: str) -> list[str]:
    """The paths of the images that lie in a folder itself, sorted."""
    known = formats()
    endings = tuple(ending for ending in ENDINGS if FORMATS[ending] in known)
    return sorted(
        os.path.join(folder, entry.name)
        for entry in os.scandir(folder)
        if leads_to(entry.is_file) and entry.name[0] != "." and entry.name.lower().endswith(endings)
    )


def leads_to(kind: Callable[[], bool]) -> bool:
    """The is_file or is_dir of an item of a directory, but False for a link that leads to
    itself."""
    try:
        return kind()
    except OSError:
        return False


def composed(names: Iterable[str], where: str) -> dict[str, str]:
    """The names by their composed form (NFC), which is the same however a name is written. It is a
    DataError if two names have the same.
    """
    found: dict[str, str] = {}
    for name in names:
        if (key := unicodedata.normalize("NFC", name)) in found:
            raise DataError(f"{where}: {found[key]!a} and {name!a} are the same name: rename one of them")
        found[key] = name
    return found


def some(names: Iterable[str]) -> str:
    """The first names of many, for a message of one line."""
    names = sorted(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"
