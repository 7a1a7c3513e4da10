"""read_image: any image file as RGB bytes, by Pillow, and what Pillow leaves to do."""

from __future__ import annotations

import errno
import functools
import io
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..checks import escaped, whole

# Pillow is asked for these formats only: for EPS it would start a program on what is in the file.
FORMATS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".gif": "GIF", ".bmp": "BMP", ".webp": "WEBP",
    ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM", ".avif": "AVIF",
}  # fmt: skip
ENDINGS = tuple(FORMATS)
KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
# errors that say nothing of a file: the program has too many open, or no memory
NOT_THE_FILES = errno.EMFILE, errno.ENFILE, errno.ENOMEM
# An image that is more times as long as wide is not made larger: it might fill the memory.
SLIMMEST = 50
LONGEST = 1 << 20  # pixels of a side that an image is scaled to
BAND = 1 << 22  # pixels of a large image that are converted at a time
PNG = b"\x89PNG\r\n\x1a\n"
# the notes of a PNG that may say which side is up
ORIENTATION = b"Raw profile type exif", b"XML:com.adobe.xmp"


class DataError(ValueError):
    """Data that cannot be used as it is. The message is one line, which names the file or folder if
    there is one; control characters in a name are written as escape sequences.
    """

    def __str__(self) -> str:
        return escaped(super().__str__())


def read_image(file: str | os.PathLike[str] | BinaryIO, least: int | None = None) -> NDArray[np.uint8]:
    """The image in a file as RGB, turned as its EXIF data say.

    Gray, palette, CMYK and other images are converted to RGB, gray images of 12 or 16 bits by their
    high 8. Transparent parts are laid over white; of 16-bit RGB, a transparent color counts by its
    high bytes. Of an animation the first frame is read. Color profiles are ignored.

    A JPEG that ends early is an error. If one is damaged in the middle, the decoder often only
    warns, and Pillow does not pass that on: the rest of the image may be gray, without a message.

    Args:
        file: its path, or an open binary file, which errors call by its `.name`, or "image" if it
            has none. The content tells the format, which may be any of those that `ENDINGS` names.
        least: how many pixels of the short side will be needed. An image that has more is scaled
            down to them, as transforms.Resize would do afterwards, but sooner: a JPEG that is at
            least 2, 4 or 8 times as large is only decoded to that fraction, and the rest never
            becomes an array. For other images the result is that of Resize, for such a JPEG it is
            close: photographs differ by 1 to 5 gray levels of 255 in the mean.
    Returns:
        A read-only uint8 array (H, W, 3).
    Raises:
        DataError: the file is not a regular one, cannot be read or decoded, has 32-bit pixels,
            whose value range is not defined, or cannot be scaled to `least` because it is too slim;
            the message names it.
        ValueError: `least` is not a whole number from 1.
        TypeError: `file` is neither a path nor an open binary file.
        OSError: too many files are open, or there is no memory: the file may be sound.
        ImportError: Pillow is not installed.

    Example:
        >>> import io
        >>> file = io.BytesIO(b"P6 2 1 255 " + bytes([255, 0, 0, 0, 0, 255]))  # red, blue
        >>> read_image(file).tolist()
        [[[255, 0, 0], [0, 0, 255]]]
    """
    checked_least(least)
    pil = pillow()
    name = getattr(file, "name", "image") if hasattr(file, "read") else path_of("file", file, ", or an open file")
    try:
        if hasattr(file, "read"):
            return decoded(file, least)
        require_regular(name)
        # Given a path, Pillow 11 to 13 maps an uncompressed TIFF into memory, and turns some of
        # them wrongly.
        with open(name, "rb") as opened:
            return decoded(opened, least)
    except pil.UnidentifiedImageError:
        raise DataError(f"{name}: not an image that Pillow can read") from None
    # broken files make decoders raise OSError, ValueError, SyntaxError and others
    except Exception as error:
        if getattr(error, "errno", None) in NOT_THE_FILES:
            raise
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        raise DataError(f"{name}: cannot be read: {reason}") from error


def checked_least(least: int | None) -> int | None:
    """The short side that will be needed, None for none; otherwise a ValueError."""
    return None if least is None else whole("least", least, 1)


def path_of(name: str, path: Any, others: str = "") -> str:
    """A path that was given as the argument `name`, or a TypeError."""
    try:
        return os.fsdecode(path)
    except TypeError:
        raise TypeError(f"{name} must be a path{others}, not a {type(path).__name__}") from None


def require_regular(path: str) -> None:
    """Raise a DataError for what is neither a file nor a folder: opening a pipe would wait for a
    process that writes to it, and a device may have no end."""
    if kind := KINDS.get(stat.S_IFMT(os.stat(path).st_mode)):
        raise DataError(f"it is {kind}, not a regular file")


def decoded(file: Any, least: int | None) -> NDArray[np.uint8]:
    """The image in an open file, see read_image."""
    try:
        return pixels(file, least)
    # for a PNG perhaps because of its notes: Pillow accepts 1 MB of each, and 64 MB of all
    except ValueError:
        file.seek(0)
        if file.read(len(PNG)) != PNG:
            raise
    file.seek(0)
    return pixels(io.BytesIO(without_notes(file.read())), least)


def pixels(file: Any, least: int | None) -> NDArray[np.uint8]:
    """The image as Pillow reads it, with what read_image promises beyond that."""
    pil = pillow()
    with pil.Image.open(file, formats=formats()) as image:
        if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
            raise DataError("its pixels have 32 bits, whose value range is not defined; save it with 8 or 16 bits")
        shift, inverted = gray_levels(image)
        mend_transparency(image)
        size, small, box = image.size, None, None
        if least is not None:
            small = scaled_size(size, least)  # raises its error before anything is decoded
            # prepares how a JPEG will be loaded; does nothing for other files
            _, box = image.draft(None, (least, least)) or (None, None)
        image.load()  # also turns a TIFF, and reads what stands behind the pixels of a PNG
        if box is not None and image.size != size:
            end_at(image, *box[2:])
            if box[2:] != small:
                image = image.resize(small, pil.Image.Resampling.BILINEAR, box)
        image = upright(image)
        large = image.width * image.height > BAND
        if large and (least is None or least >= min(image.size)):
            array = np.empty((image.height, image.width, 3), np.uint8)
            for top, band in bands(image):
                array[top : top + band.height] = rgb(band, shift, inverted)
            array.flags.writeable = False
            return array
        if large and (image.mode != "RGB" or image.has_transparency_data):
            whole = pil.Image.new("RGB", image.size)
            for top, band in bands(image):
                whole.paste(rgb(band, shift, inverted), (0, top))
        else:
            whole = rgb(image, shift, inverted)
        if least is not None and least < min(image.size):
            whole = scaled(whole, least)
        return np.asarray(whole)  # (H, W, 3); np.array() would copy


def without_notes(png: bytes) -> bytes:
    """A PNG without its color profile and notes, except those that may say how it is turned."""
    kept, at = [PNG], len(PNG)
    while at + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        end = at + 12 + length
        if kind not in (b"iCCP", b"tEXt", b"zTXt", b"iTXt") or png.startswith(ORIENTATION, at + 8):
            kept.append(png[at:end])
        at = end
    return b"".join(kept)


def gray_levels(image: Any) -> tuple[int, bool]:
    """(how many low bits are beyond 8, whether 0 is white) of a gray image of 12 or 16 bits, whose
    pixels Pillow hands out as they are stored.
    """
    if image.format != "TIFF" or not image.mode.startswith("I"):
        return 8, False
    bits, photometric = image.tag_v2[258][0], image.tag_v2.get(262)
    return bits - 8, photometric == 0


def mend_transparency(image: Any) -> None:
    """Scale the transparent color of a PNG as its pixels. Pillow scales only those to 8 bits: gray
    ones of 2 and 4 bits, and RGB of 16 bits."""
    color = image.info.get("transparency")
    if image.format != "PNG" or color is None:
        return
    stored = image.tile[0][3]
    if stored in ("L;2", "L;4"):
        largest = 2 ** int(stored[-1]) - 1
        image.info["transparency"] = color * (255 // largest) if color <= largest else color
    elif stored == "RGB;16B":
        image.info["transparency"] = tuple(level >> 8 for level in color)


def end_at(image: Any, right: float, bottom: float) -> None:
    """Let the last column and row of an image that ends within them repeat the ones before: the
    decoder has mixed the last with what lies beyond the border, which may be anything.
    """
    width, height = image.size
    if right < width:
        image.paste(image.crop((width - 2, 0, width - 1, height)), (width - 1, 0))
    if bottom < height:
        image.paste(image.crop((0, height - 2, width, height - 1)), (0, height - 1))


def bands(image: Any) -> Iterator[tuple[int, Any]]:
    """(first row, rows) of a large image, one band after the other, so that the whole image never
    exists in several forms.
    """
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def rgb(image: Any, shift: int, inverted: bool) -> Any:
    """A Pillow image of any mode in RGB, laid over white; the low `shift` bits of images of more
    than 8 are cut off.
    """
    pil = pillow()
    if image.mode.startswith("I"):  # convert() would clip at 255 instead of scaling
        levels = np.clip(image, 0, 65535)
        gray = (levels >> shift).astype(np.uint8) ^ np.uint8(255 if inverted else 0)
        gray[levels == image.info.get("transparency", -1)] = 255
        image = pil.Image.fromarray(gray)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = pil.Image.alpha_composite(pil.Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")  # it would copy


def upright(image: Any) -> Any:
    """A Pillow image, turned as its EXIF orientation says. (ImageOps.exif_transpose also packs the
    other tags again, and fails if one of them is damaged.)
    """
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
    """A Pillow image, its short side scaled to `short_side` pixels, the long one in proportion
    (bilinear, antialiased).
    """
    return image.resize(scaled_size(image.size, short_side), pillow().Image.Resampling.BILINEAR)


def scaled_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(width, height) of an image scaled so. It is a DataError if the image would be made larger
    and is too slim for that.
    """
    scale = short_side / min(size)
    width, height = (round(side * scale) for side in size)
    if scale > 1 and max(size) > SLIMMEST * min(size):
        raise DataError(
            f"{size[0]} x {size[1]} pixels would become {width} x {height}, and an image over {SLIMMEST} times as long"
            " as wide is not made larger: remove or crop it"
        )
    if max(width, height) > LONGEST:
        raise DataError(
            f"{size[0]} x {size[1]} pixels would become {width} x {height}, and no side can be longer than {LONGEST:,}"
        )
    return width, height


def quiet() -> None:
    """Keep Pillow from warning of damaged notes in images that it reads all the same, and does not
    name.
    """
    warnings.filterwarnings("ignore", module="PIL")


def pillow() -> Any:
    """The package PIL with its module Image, or an ImportError that says how to get it."""
    try:
        import PIL.Image
    except ImportError as error:
        raise ImportError("images are read and resized with Pillow: pip install pillow") from error
    return PIL


@functools.cache
def formats() -> list[str]:
    """The formats that `ENDINGS` names, less those that the installed Pillow does not know."""
    try:
        avif = find_spec("PIL._avif") is not None  # since 11.3, but not in every build
    except ImportError:
        avif = False
    return [format for format in dict.fromkeys(FORMATS.values()) if avif or format != "AVIF"]
