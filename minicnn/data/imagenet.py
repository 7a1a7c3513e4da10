"""ImageNet: the images of the 2012 challenge, 1,281,167 for training and 50,000 for validation in
1,000 classes (Russakovsky et al., "ImageNet large scale visual recognition challenge", 2015), in
the folders that they come in.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Sequence

from ..checks import flags
from .folder import IMAGES, DataError, ImageFiles, ImageFolder, files, folders, some
from .reading import checked_least, path_of

CAFFE, KAGGLE, TINY = "val.txt", "LOC_val_solution.csv", "val_annotations.txt"
KAGGLES_TREE = os.path.join("ILSVRC", "Data", "CLS-LOC")
# files that have the words of the classes; the last two are tiny-imagenet's
WORDS = ("synset_words.txt",), ("LOC_synset_mapping.txt",), ("wnids.txt", "words.txt")
DEVKIT = "ILSVRC2012_validation_ground_truth.txt"


class ImageNet(ImageFiles):
    """The training or the validation images: `dataset[i]` is (image, label), a uint8 array (H, W,
    3) and an int.

        root/train/<synset>/*.JPEG    the training images, by their synsets' ids
        root/val/<synset>/*.JPEG      the validation images, in folders like these,
        root/val/*.JPEG               or all in one; then one of two files gives the labels:
        root/val.txt                  Caffe's: in each line a file and its label, by sorted ids
        root/LOC_val_solution.csv     Kaggle's: a file without its ending, a comma, its class's id
        root/synset_words.txt         what the classes are called, if it is there: an id, its words
        root/LOC_synset_mapping.txt   Kaggle's name for the same

    In Kaggle's archive train and val are in root/ILSVRC/Data/CLS-LOC, and are read there.
    tiny-imagenet is read as well: `root/train/<synset>/images/*.JPEG`, `root/val/images/*.JPEG`,
    and the labels of those in root/val/val_annotations.txt, where each line is a file, its class's
    id and a box, with tabs between; root/words.txt has the words for the ids in root/wnids.txt, and
    for many others.

    Other subsets of ImageNet can be read, and other images in such folders. Without train/, a
    validation set has the classes that the file of words lists. The labels in the devkit's
    ILSVRC2012_validation_ground_truth.txt follow an order of its own, which only a MATLAB file
    tells, so they are not read.

    Args:
        root: the folder that holds train/ and val/, or Kaggle's archive.
        train: whether to list the training images; otherwise the validation images are listed.
        least: the short side that will be needed, see `read_image`.
    Attributes:
        classes: the synset ids, sorted.
        names: the words of each class, or the ids where there is no file of words.
        samples: the list of (path, label).
        least: as given.
    Raises:
        DataError: a file or folder is missing, a class is not known, a label is out of range, or an
            image has no label or a label no image; the message names the file or folder.
        OSError: a file or folder cannot be read.
        TypeError: root is not a path.
        ValueError: `least` is not a whole number from 1.

    Example:
        >>> ImageNet("imagenet", train=False, least=256)  # doctest: +SKIP
        ImageNet(50,000 images, 1000 classes)
    """

    def __init__(self, root: str | os.PathLike[str], *, train: bool = True, least: int | None = None):
        root = path_of("root", root)
        flags("ImageNet", train=train)
        checked_least(least)
        train_folder, val = (os.path.join(tree(root), part) for part in ("train", "val"))
        *ids, words = word_files(root) or [""]
        named = _read_words(words, *ids) if words else {}
        if train:
            found = ImageFolder(train_folder)
            classes, samples = found.classes, found.samples
        else:
            classes = folders(train_folder) if os.path.isdir(train_folder) else sorted(named)
            if not os.path.isdir(val) or not classes:
                raise DataError(
                    f"{root}: needs the folder val/ with the validation images, and train/ or one of"
                    f" {WORDS[0][0]} and {WORDS[1][0]} to tell the classes"
                )
            flat = not folders(val) or (folders(val) == [IMAGES] and IMAGES not in classes)
            samples = _labeled(root, val, classes) if flat else ImageFolder(val, classes=classes).samples
        if unknown := set(classes) - set(named) if named else ():
            raise DataError(f"{words}: has no words for the classes of {train_folder}: {some(unknown)}")
        self.names = [named.get(name, name) for name in classes]
        super().__init__(samples, classes, least)


def tree(root: str) -> str:
    """The folder that has train/ and val/ in it: the root, or where Kaggle's archive has them."""
    here = any(os.path.isdir(os.path.join(root, part)) for part in ("train", "val"))
    inner = os.path.join(root, KAGGLES_TREE)
    return inner if not here and os.path.isdir(inner) else root


def _labeled(root: str, val: str, classes: Sequence[str]) -> list[tuple[str, int]]:
    """The images of one folder, with the labels that a file beside it gives them."""
    path = _first(root, (CAFFE, KAGGLE)) or _first(val, (TINY,))
    if path is None:
        lies = f"; {DEVKIT} cannot be used, because its labels follow the devkit's own order of the classes"
        raise DataError(
            f"{val}: its images are in no class folders, so {root} needs their labels in {CAFFE} or {KAGGLE}"
            + (lies if os.path.exists(os.path.join(root, DEVKIT)) else "")
        )
    by_stem: dict[str, str] = {}
    for name in files(val):
        if (other := by_stem.setdefault(_stem(name), name)) != name:
            raise DataError(f"{name} and {other} have the same name but for the ending: labels cannot tell them apart")
    labels = _read_labels(path, classes, by_stem)
    if labels.keys() != by_stem.keys():
        without_label, without_image = by_stem.keys() - labels.keys(), labels.keys() - by_stem.keys()
        raise DataError(
            f"{path} does not fit {val}: images without a label: {some(without_label)};"
            f" labels without an image: {some(without_image)}"
        )
    return [(name, labels[stem]) for stem, name in by_stem.items()]


def _read_labels(path: str, classes: Sequence[str], stems: Container[str]) -> dict[str, int]:
    """The label of each image, by its name without ending. A name that is among the stems has no
    ending, and may have a point in it.
    """
    between, called = {CAFFE: (None, ""), KAGGLE: (",", "comma"), TINY: ("\t", "tab")}[os.path.basename(path)]
    if between is None:
        known = {str(i): i for i in range(len(classes))}
        form = f"a file and a label from 0 to {len(classes) - 1}"
    else:
        known = {name: i for i, name in enumerate(classes)}
        form = f"a file's name, a {called} and one of the {len(classes)} classes"
    labels: dict[str, int] = {}
    for place, line in lines(path):
        if line == "ImageId,PredictionString":
            continue
        parts = line.rsplit(None, 1) if between is None else line.split(between, 1)
        name, found, *_ = *parts, ""  # a line of one part has no label
        # boxes follow, and in Kaggle's file further objects of the same class
        found, *_ = *found.split(), ""
        if found not in known:
            raise DataError(f"{place}: {line[:60]!r} is not {form}")
        stem = name if name in stems else _stem(name)
        if stem in labels:
            raise DataError(f"{place}: {stem} has a label already")
        labels[stem] = known[found]
    return labels


def word_files(root: str) -> list[str]:
    """The paths of the first of WORDS whose files are all there; the last path has the words."""
    paths = ([os.path.join(root, name) for name in names] for names in WORDS)
    return next((found for found in paths if all(map(os.path.isfile, found))), [])


def _read_words(path: str, ids: str | None = None) -> dict[str, str]:
    """The words of each class; if there is a file of ids, only of those."""
    known = {synset for _, synset in lines(ids)} if ids else None
    named = {}
    for place, line in lines(path, errors="replace"):
        synset, *words = line.split(None, 1)
        if known is not None and synset not in known:
            continue
        if not words:
            raise DataError(f"{place}: {line[:60]!r} is not a class's id and its words")
        named[synset] = words[0]
    return named


def lines(path: str, errors: str = "surrogateescape") -> Iterator[tuple[str, str]]:
    """(where it is, the line without its surrounding blanks) for each line of a file that is not
    empty. `errors` says what becomes of bytes that are not UTF-8: by default what they are in the
    names of files, and with "replace" a character that can be drawn.
    """
    with open(path, encoding="utf-8-sig", errors=errors) as file:
        for number, line in enumerate(file, 1):
            if line := line.strip():
                yield f"{path}, line {number}", line


def _first(root: str, names: Sequence[str]) -> str | None:
    """The path of the first of these files that exists."""
    return next((path for name in names if os.path.isfile(path := os.path.join(root, name))), None)


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]
