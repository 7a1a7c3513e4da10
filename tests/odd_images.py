"""A folder of images that a long run may meet: odd ones, which must be read as a viewer shows them, and broken ones,
which must be refused in a line that names them.

`write(folder)` makes them, some of them no regular files, and returns a list of Odd. What is expected of a whole image
is the array that it was made from, not what Pillow reads.
"""

import io
import json
import os
import random
import socket
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

HEIGHT, WIDTH = 20, 28
down, right = np.linspace(0, 255, HEIGHT)[:, None, None], np.linspace(0, 255, WIDTH)[None, :, None]
RGB = (down * [1, 0.5, 0] + right * [0, 0.5, 1]).clip(0, 255).astype(np.uint8)
ALPHA = np.broadcast_to(right[..., 0], (HEIGHT, WIDTH)).astype(np.uint8)
TURNED = {
    2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].transpose(1, 0, 2), 8: lambda a: np.rot90(a),
}  # fmt: skip
FORMATS = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "BMP": ".bmp", "WEBP": ".webp", "TIFF": ".tif", "PPM": ".ppm"}
if "avif" in features.get_supported():
    FORMATS["AVIF"] = ".avif"
OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True, "exact": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}  # fmt: skip
LOSSY = {"JPEG": 12, "AVIF": 24, "GIF": 50}  # gray levels that they may be off; of GIF in few colors
MODES = "1 L LA La P PA RGB RGBA RGBa RGBX CMYK YCbCr HSV LAB I F I;16 I;16L I;16B".split()
NOT_READ = "DDS DIB EPS ICO JPEG2000 MSP PALM PCX PDF SGI TGA XBM".split()
MOST_PIXELS = 178_956_970  # that Pillow reads


@dataclass
class Odd:
    """A file, and what must become of it: an array that it shows to within `tolerance`, or an error, or, with
    `either`, one of the two. An array of no shape at all stands for any image."""

    path: str
    shown: np.ndarray | None
    tolerance: int = 0
    either: bool = False
    listed: bool = True  # by ImageFolder


def over_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[:, :, None] / 255
    return np.round(rgb * share + 255 * (1 - share)).astype(np.uint8)


def gray(rgb: np.ndarray) -> np.ndarray:
    """ITU-R 601-2, rounded as Pillow does."""
    levels = (rgb.astype(np.int64) @ [19595, 38470, 7471] + 0x8000) >> 16
    return np.dstack([levels.astype(np.uint8)] * 3)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    memory = io.BytesIO()
    image.save(memory, format, **OPTIONS.get(format, {}), **options)
    return memory.getvalue()


def of_mode(mode: str) -> tuple[Image.Image, np.ndarray, int]:
    """(an image of one of Pillow's modes, the colors that it shows, how far they may be off)"""
    levels = gray(RGB)
    if mode.startswith("I;16"):
        wide = (levels[..., 0] * np.uint16(257)).astype(">u2" if mode == "I;16B" else "<u2")
        return Image.frombytes(mode, (WIDTH, HEIGHT), wide.tobytes()), levels, 0
    if mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        colors = RGB if mode.startswith("RGB") else levels
        image = Image.fromarray(np.dstack([colors, ALPHA])).convert("RGBA" if mode.startswith("RGB") else "LA")
        if mode == "PA":  # for which convert() forgets alpha
            image = Image.frombytes("PA", image.size, image.tobytes())
            image.putpalette(np.arange(256, dtype=np.uint8).repeat(3).tobytes())
        tolerance = 4 if mode in ("RGBa", "La") else 1
        return image.convert(mode), over_white(colors, ALPHA), tolerance
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(Image.fromarray(RGB), srgb, lab, outputMode="LAB"), RGB, 40
    if mode == "1":
        two = np.where(levels > 127, 255, 0).astype(np.uint8)
        return Image.fromarray(two[..., 0]).convert("1"), two, 0
    if mode == "P":
        few = RGB // 128 * np.uint8(255)
        return Image.fromarray(few).convert("P", palette=Image.Palette.ADAPTIVE, colors=8), few, 0
    image = Image.fromarray(RGB).convert(mode)
    if mode in ("L", "I", "F"):
        return image, levels, 0
    return image, RGB, {"RGB": 0, "RGBX": 0, "CMYK": 0, "YCbCr": 3, "HSV": 6}[mode]


def every_mode() -> Iterator[tuple[str, bytes, np.ndarray | None, int]]:
    """Each mode in each format, as far as Pillow writes it as it is: it quietly drops alpha from some, and clips the
    numbers of 16 and 32 bits in others."""
    for format, ending in FORMATS.items():
        for mode in MODES:
            image, shown, tolerance = of_mode(mode)
            try:
                content = encoded(image, format)
            except (OSError, ValueError, SystemError):
                continue
            written = Image.open(io.BytesIO(content))
            kept = "A" not in mode.upper().replace("LAB", "") or written.has_transparency_data
            if not kept or (
                (mode in ("I", "F") or mode.startswith("I;16")) and not written.mode.startswith(("I", "F"))
            ):
                continue
            if mode == "I" and format in ("PNG", "PPM"):  # 0 to 255 of 65535
                shown = shown * 0
            elif written.mode == "F" or (format == "TIFF" and written.mode == "I"):  # of 32 bits
                shown = None
            yield f"mode {mode.replace(';', '-')}{ending}", content, shown, tolerance + LOSSY.get(format, 0)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int = 8, kind: int = 2, before: bytes = b"", data: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(data, 1)) + chunk(b"IEND", b"")


def tiff(width: int, height: int, count: int = 1, offset: int = 8) -> bytes:
    tags = (256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (278, height), (279, 100)
    entries = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, value in tags)
    return struct.pack("<2sHI", b"II", 42, offset) + struct.pack("<H", len(tags)) + entries + bytes(104)


def resized(content: bytes, place: int, form: str, *numbers: int) -> bytes:
    return content[:place] + struct.pack(form, *numbers) + content[place + struct.calcsize(form) :]


def claims() -> dict[str, bytes]:
    """Small files that say they are large, or many."""
    image = Image.fromarray(RGB)
    whole = {format: encoded(image, format) for format in FORMATS}
    start = whole["JPEG"].index(b"\xff\xc0") + 5
    bomb = zlib.compress(bytes(70_000_000), 1)
    frames = [Image.new("L", (8, 8), level) for level in range(64)]
    animation = io.BytesIO()
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:])
    return {
        "2^31.png": png(2**31 - 1, 2**31 - 1),
        "2^32.png": png(2**32 - 1, 1),
        "0x0.png": png(0, 0),
        "1x0.png": png(1, 0),
        "30000.png": png(30000, 30000),
        "13377.png": png(13377, 13377),
        "no depth.png": png(8, 8, bits=3),
        "no kind.png": png(8, 8, kind=5),
        "notes.png": png(8, 8, before=chunk(b"zTXt", b"a\0\0" + bomb)),
        "profile.png": png(8, 8, before=chunk(b"iCCP", b"a\0\0" + bomb)),
        "pixels.png": png(8, 8, data=bytes(100_000_000)),
        "65535.jpg": resized(whole["JPEG"], start, ">HH", 65535, 65535),
        "13000.jpg": resized(whole["JPEG"], start, ">HH", 13000, 13000),
        "0.jpg": resized(whole["JPEG"], start, ">HH", 0, 0),
        "components.jpg": resized(whole["JPEG"], start + 4, "B", 255),
        "segment.jpg": b"\xff\xd8\xff\xe1\xff\xff" + bytes(10),
        "segments.jpg": b"\xff\xd8" + b"\xff\xe1\0\2" * 10_000,
        "65535.gif": resized(whole["GIF"], 6, "<HH", 65535, 65535),
        "0.gif": resized(whole["GIF"], 6, "<HH", 0, 0),
        "2^31.bmp": resized(whole["BMP"], 18, "<ii", 2**31 - 1, 2**31 - 1),
        "-2^31.bmp": resized(whole["BMP"], 18, "<ii", -(2**31), -(2**31)),
        "colors.bmp": resized(whole["BMP"], 46, "<I", 2**32 - 1),
        "depth.bmp": resized(whole["BMP"], 28, "<H", 64),
        "2^32.tif": tiff(2**32 - 1, 2**32 - 1),
        "rows.tif": tiff(8, 2**31),
        "count.tif": tiff(8, 8, count=2**31),
        "circle.tif": tiff(8, 8, offset=0),
        "beyond.tif": tiff(8, 8, offset=2**32 - 1),
        "99999999.ppm": b"P6 99999999 99999999 255\n" + bytes(100),
        "2^64.ppm": b"P6 %d %d 255\n" % (2**64, 2**64),
        "-1.ppm": b"P6 -1 -1 255\n" + bytes(3),
        "digits.ppm": b"P6 " + b"9" * 5000 + b" 1 255\n" + bytes(3),
        "levels.pgm": b"P5 1 1 4294967296\n" + bytes(4),
        "blanks.pgm": b"P5" + b" " * 1_000_000,
        "plain.pgm": b"P2 3 1 255\n9 9",
        "32 bits.pgm": b"Pf 1 1 -1.0\n" + bytes(4),
    }


def other_files() -> dict[str, bytes]:
    """Files that are no images, or of no format that is read."""
    image, chance = Image.fromarray(RGB), random.Random(0)
    found = {f"empty {format}{ending}": b"" for format, ending in FORMATS.items()}
    found |= {f"begins as {format}{ending}": encoded(image, format)[:12] for format, ending in FORMATS.items()}
    found |= {
        f"random {i}{ending}": chance.randbytes(10**i) for i, ending in enumerate((*FORMATS.values(), ".jpg")) if i < 6
    }
    for format in NOT_READ:
        picture = image.convert("1") if format in ("MSP", "PALM", "XBM") else image
        found[f"is {format}.png"] = encoded(picture, format)
    return found | {
        "text.jpg": b"These are words.\n" * 100, "a page.jpg": b"<!DOCTYPE html><html><head><title>404</title>" + bytes(900),
        "svg.png": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "json.png": json.dumps({"error": "not found"}).encode(), "zip.webp": b"PK\3\4" + bytes(100), "zeros.bmp": bytes(1000),
        "ones.tif": b"\xff" * 1000, "pickle.gif": b"\x80\4\x95" + bytes(100), "mac._jpg.jpg": b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(60),
        "gzip.png": b"\x1f\x8b\x08" + bytes(100), "lfs.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    }  # fmt: skip


NAMES = [
    b"line\nbreak", b"\x1b[2J\x1b[31mred", b"return\rback", b"\xff\xfe", b"caf\xe9", "café".encode(), "cafe\u0301".encode(),
    "狗".encode(), "\U0001f600".encode(), "\u202eright to left".encode(), "\u2028".encode(), "\x85".encode(), b"-rf", b"--help", b"~", b"$HOME",
    b"a;b", b"a'b\"c", b"%s{0}", b"a\\nb", b" ", b"*?", b"l" * 251, "狗".encode() * 83, b"nul.txt", b"a.png", b"\x7f\x01",
]  # fmt: skip


def write(folder: Path) -> list[Odd]:
    """Make all the files, in a folder that is there."""
    found: list[Odd] = []

    def add(name: str, content: bytes, shown: np.ndarray | None, *more: Any, **options: Any) -> None:
        path = os.path.join(folder, name)
        with open(path, "xb") as file:
            file.write(content)
        found.append(Odd(path, shown, *more, **options))

    image = Image.fromarray(RGB)
    whole = {format: encoded(image, format) for format in FORMATS}
    as_read = {format: RGB if format not in LOSSY else opened(content) for format, content in whole.items()}
    for name, content, shown, tolerance in every_mode():
        add(name, content, shown, tolerance)
    for format in ("JPEG", "PNG", "WEBP", "TIFF"):
        for orientation in (*range(10), 255, 65535):
            exif = Image.Exif()
            exif[0x0112] = orientation
            turned = TURNED.get(orientation, np.asarray)(RGB)
            add(
                f"turned {orientation}{FORMATS[format]}",
                encoded(image, format, exif=exif),
                turned,
                LOSSY.get(format, 0),
            )
    for format, ending in FORMATS.items():
        content, tolerance = whole[format], LOSSY.get(format, 0)
        for tenth in range(1, 10):  # a part that shows the whole image is none the worse for it
            add(f"{tenth} tenths{ending}", content[: len(content) * tenth // 10], as_read[format], either=True)
        add(f"less a byte{ending}", content[:-1], as_read[format], either=True)
        add(f"and more{ending}", content + b"and more" * 100, RGB, tolerance)
        other = ".png" if ending == ".jpg" else ".jpg"
        add(f"is {format}{other}", content, RGB, tolerance)
        add(f"UPPER{ending.upper()}", content, RGB, tolerance)
        chance = random.Random(format)
        for seed in range(4):
            damaged = bytearray(content)
            for _ in range(1 + seed):
                damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            add(f"flipped {seed}{ending}", bytes(damaged), np.zeros(()), either=True)
    for name, content in claims().items():
        add(name, content, np.zeros(()), either=True)
    for name, content in other_files().items():
        add(f"no {name}", content, None)
    for name in NAMES:
        try:
            add(os.fsdecode(name + b".png")[-255:], whole["PNG"], RGB)
        except OSError:  # a file system that takes no such name
            continue
    found += odd_things(folder)
    return found


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def odd_things(folder: Path) -> list[Odd]:
    """What is called as an image, and is no file."""
    links = {
        "itself.jpg": "itself.jpg", "there.jpg": "back.jpg", "back.jpg": "there.jpg", "nowhere.jpg": "nothing", "up.jpg": "..",
        "here.jpg": ".", "zero.jpg": "/dev/zero", "pipe too.jpg": "a pipe.jpg", "through itself.jpg": "itself.jpg/a.jpg",
    }  # fmt: skip
    for name, target in links.items():
        os.symlink(target, folder / name)
    os.mkfifo(folder / "a pipe.jpg")
    (folder / "a folder.jpg").mkdir()
    before = os.getcwd()
    os.chdir(folder)  # the name of a socket may not be long
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("a socket.jpg")
    finally:
        os.chdir(before)
    return [
        Odd(os.path.join(folder, name), None, listed=False)
        for name in (*links, "a pipe.jpg", "a folder.jpg", "a socket.jpg")
    ]
