"""ImageFolder: pictures in one folder per class; and read_image, which turns any picture file into RGB bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class DataError(ValueError):
    """Data that cannot be used as it is. The message is one line, which names the file or folder if there is one."""


class ImageFolder:
    """The pictures in `root/<class>/<file>`: `folder[i]` is (image, label), a uint8 array (H, W, 3) and an int.

    Files count whose names end in one of `ENDINGS`, in either case; hidden files and folders, and folders within a
    class, do not. Files are listed now and decoded, by `read_image`, when they are asked for.

    classes: the class names in the order of their labels; by default the names of the folders, sorted. To a validation
        folder pass the training folder's `classes`: its folders must be exactly these.

    Attributes: `classes`, and `samples`, the list of (path, label).
    Raises DataError for a missing root, fewer than two classes, a class without pictures, `classes` that do not match.
    """

    def __init__(self, root: str | os.PathLike[str], classes: Sequence[str] | None = None):
        root = os.fspath(root)
        if not os.path.isdir(root):
            what = "is not a folder" if os.path.exists(root) else "does not exist"
            raise DataError(f"{root}: {what}; pass a folder that holds one folder of pictures per class")
        found = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")
        if classes is None and len(found) < 2:
            number = f"only one class folder, {found[0]!r}" if found else "no class folders"
            raise DataError(f"{root}: {number}; at least two are needed, each with the pictures of one class")
        self.classes = found if classes is None else list(classes)
        if set(self.classes) != set(found):
            missing, unknown = set(self.classes) - set(found), set(found) - set(self.classes)
            raise DataError(
                f"{root}: class folders differ from the classes asked for"
                f" (missing: {_list(missing)}; unknown: {_list(unknown)})"
            )
        self.samples = [
            (path, label) for label, name in enumerate(self.classes) for path in _pictures(os.path.join(root, name))
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        path, label = self.samples[index]
        return read_image(path), label


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """The picture in a file as a uint8 RGB array (H, W, 3), turned upright as its EXIF orientation says.

    Grey, palette, CMYK and other pictures are converted to RGB, 16-bit grey ones by their high byte; transparent parts
    are laid over white; of an animation the first frame counts. Colour profiles are ignored.
    Raises DataError, naming the file, if it cannot be read or decoded whole; ImportError without Pillow.
    """
    pil = pillow()
    try:
        with pil.Image.open(path) as image:
            pil.ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I"):  # 16 bits a pixel; convert() would clip at 255 instead of scaling
                image = pil.Image.fromarray((np.clip(image, 0, 65535) >> 8).astype(np.uint8))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = pil.Image.alpha_composite(pil.Image.new("RGBA", image.size, "white"), image)
            return np.array(image.convert("RGB"))  # (H, W, 3)
    except pil.UnidentifiedImageError:
        raise DataError(f"{os.fspath(path)}: not a picture that Pillow can read") from None
    except Exception as error:  # broken files make decoders raise OSError, ValueError, SyntaxError and others
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        raise DataError(f"{os.fspath(path)}: cannot be read: {reason}") from error


def pillow() -> Any:
    """The package PIL with its modules Image and ImageOps, or an ImportError that says how to get it."""
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise ImportError("pictures are read and resized with Pillow: pip install 'minicnn[io]'") from error
    return PIL


def _pictures(folder: str) -> list[str]:
    names = sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_file() and entry.name[0] != "." and entry.name.lower().endswith(ENDINGS)
    )
    if not names:
        raise DataError(f"{folder}: no pictures in this class folder (endings accepted: {' '.join(ENDINGS)})")
    return [os.path.join(folder, name) for name in names]


def _list(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"
