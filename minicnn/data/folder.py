"""ImageFolder: pictures in one folder per class; and read_image, which turns any picture file into RGB bytes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
SLIMMEST = 50  # times as long as wide, at most, is a picture that is made larger: others might fill the memory


class DataError(ValueError):
    """Data that cannot be used as it is. The message is one line, which names the file or folder if there is one."""


class PictureFiles:
    """A dataset of picture files: `dataset[i]` is (image, label), a uint8 array (H, W, 3) and an int. The image comes
    from `read_image(path, least)` when it is asked for.
    """

    def __init__(self, samples: list[tuple[str, int]], classes: list[str], least: int | None):
        self.samples, self.classes, self.least = samples, classes, least

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        path, label = self.samples[index]
        return read_image(path, self.least), label


class ImageFolder(PictureFiles):
    """The pictures in `root/<class>/<file>`: `folder[i]` is (image, label), a uint8 array (H, W, 3) and an int.

    Files count whose names end in one of `ENDINGS`, in either case; hidden files and folders, and folders within a
    class, do not. Files are listed now and decoded, by `read_image`, when they are asked for.

    classes: the class names in the order of their labels; by default the names of the folders, sorted. To a validation
        folder pass the training folder's `classes`: its folders must be exactly these.
    least: the short side that will be needed, see `read_image`.

    Attributes: `classes`, and `samples`, the list of (path, label).
    Raises DataError for a missing root, fewer than two classes, a class without pictures, `classes` that do not match.
    """

    def __init__(self, root: str | os.PathLike[str], *, classes: Sequence[str] | None = None, least: int | None = None):
        root = os.fspath(root)
        if not os.path.isdir(root):
            what = "is not a folder" if os.path.exists(root) else "does not exist"
            raise DataError(f"{root}: {what}; pass a folder that holds one folder of pictures per class")
        found = folders(root)
        if not found and pictures(root):
            raise DataError(
                f"{root}: pictures, but no class folders; ImageNet's flat validation folder is read with"
                " minicnn.data.ImageNet (imagenet:DIR in train.py)"
            )
        if classes is None and len(found) < 2:
            number = f"only one class folder, {found[0]!r}" if found else "no class folders"
            raise DataError(f"{root}: {number}; at least two are needed, each with the pictures of one class")
        classes = found if classes is None else list(classes)
        if set(classes) != set(found):
            missing, unknown = set(classes) - set(found), set(found) - set(classes)
            raise DataError(
                f"{root}: class folders differ from the classes asked for"
                f" (missing: {some(missing)}; unknown: {some(unknown)})"
            )
        samples = [(path, label) for label, name in enumerate(classes) for path in files(os.path.join(root, name))]
        super().__init__(samples, classes, least)


def read_image(file: str | os.PathLike[str] | BinaryIO, least: int | None = None) -> NDArray[np.uint8]:
    """The picture in a file as a uint8 RGB array (H, W, 3), read-only, turned upright as its EXIF orientation says.

    file: its path, or an open binary file, which errors call by its `.name`, or "picture" if it has none.

    Grey, palette, CMYK and other pictures are converted to RGB, 16-bit grey ones by their high byte; transparent parts
    are laid over white; of an animation the first frame counts. Colour profiles are ignored.

    least: how many pixels of the short side will be needed. A picture that has more is scaled down to them, as
        transforms.Resize would do afterwards, but sooner: a JPEG that is at least 2, 4 or 8 times as large is only
        decoded to that fraction, and what is left over never becomes an array.

    Raises DataError, naming the file, if it cannot be read or decoded whole, has pixels of 32 bits, whose range nothing
    tells, or cannot be scaled to `least` (see scaled_size); ImportError without Pillow.
    """
    if least is not None and least < 1:
        raise ValueError(f"least must be at least 1 pixel, got {least}")
    pil = pillow()
    name = getattr(file, "name", "picture") if hasattr(file, "read") else os.fspath(file)
    try:
        with pil.Image.open(file) as image:
            if least is not None:
                scaled_size(image.size, least)  # raises its error before anything is decoded
                image.draft(None, (least, least))  # a JPEG's next loading; of other files nothing
            if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
                raise DataError("its pixels have 32 bits, in a range that nothing tells; save it with 8 or 16 bits")
            image = upright(image)
            if image.mode.startswith("I"):  # 16 bits a pixel; convert() would clip at 255 instead of scaling
                image = pil.Image.fromarray((np.clip(image, 0, 65535) >> 8).astype(np.uint8))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = pil.Image.alpha_composite(pil.Image.new("RGBA", image.size, "white"), image)
            if image.mode != "RGB":  # convert() would copy
                image = image.convert("RGB")
            if least is not None and least < min(image.size):
                image = scaled(image, least)
            return np.asarray(image)  # (H, W, 3); np.array() would copy
    except pil.UnidentifiedImageError:
        raise DataError(f"{name}: not a picture that Pillow can read") from None
    except Exception as error:  # broken files make decoders raise OSError, ValueError, SyntaxError and others
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        raise DataError(f"{name}: cannot be read: {reason}") from error


def upright(image: Any) -> Any:
    """A Pillow image, turned as its EXIF orientation says. (ImageOps.exif_transpose also packs the other tags again,
    and fails if one of them is damaged.)"""
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # too damaged to say anything
        return image
    turn = pillow().Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE,
        6: turn.ROTATE_270, 7: turn.TRANSVERSE, 8: turn.ROTATE_90,
    }  # fmt: skip
    return image.transpose(turns[orientation]) if orientation in turns else image


def scaled(image: Any, short_side: int) -> Any:
    """A Pillow image, its short side scaled to so many pixels, the long one in proportion (bilinear, antialiased)."""
    return image.resize(scaled_size(image.size, short_side), pillow().Image.Resampling.BILINEAR)


def scaled_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(width, height) of a picture scaled so. Raises DataError if it would be made larger and is too slim for that."""
    scale = short_side / min(size)
    width, height = (round(side * scale) for side in size)
    if scale > 1 and max(size) > SLIMMEST * min(size):
        raise DataError(
            f"{size[0]} x {size[1]} pixels would become {width} x {height}, and a picture over {SLIMMEST} times as long"
            " as wide is not made larger: remove or crop it"
        )
    return width, height


def quiet() -> None:
    """Have Pillow not warn of damaged notes in pictures that it reads all the same, and does not name."""
    warnings.filterwarnings("ignore", module="PIL")


def pillow() -> Any:
    """The package PIL with its module Image, or an ImportError that says how to get it."""
    try:
        import PIL.Image
    except ImportError as error:
        raise ImportError("pictures are read and resized with Pillow: pip install pillow") from error
    return PIL


def folders(root: str) -> list[str]:
    """The names of the folders in a folder, but hidden ones, sorted."""
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")


def files(folder: str) -> list[str]:
    """The paths of the pictures in a folder, sorted. Raises DataError if there are none."""
    if found := pictures(folder):
        return found
    raise DataError(f"{folder}: no pictures in this folder (endings accepted: {' '.join(ENDINGS)})")


def pictures(folder: str) -> list[str]:
    """The same, but none will do."""
    return sorted(
        os.path.join(folder, entry.name)
        for entry in os.scandir(folder)
        if entry.is_file() and entry.name[0] != "." and entry.name.lower().endswith(ENDINGS)
    )


def some(names: Iterable[str]) -> str:
    """The first names of many, for a message of one line."""
    names = sorted(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"
