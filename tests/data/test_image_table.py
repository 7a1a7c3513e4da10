"""Formats × modes × orientations: what read_image makes of a file is what a viewer shows.

Each image is of 2 × 3 squares of 16 pixels, each of one color, of which none of the eight turns makes
the same. Files that Pillow cannot write are written here, byte by byte. What is expected is the array
of the colors, turned by NumPy.
"""

import io
import struct
import zlib

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")
from PIL import features  # noqa: E402

from minicnn.data import DataError, read_image, reading  # noqa: E402
from minicnn.data.transforms import Resize  # noqa: E402

SIDE = 16
TURNED = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored),
}
COLORS = np.uint8([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [0, 0, 0], [0, 255, 255]]])
GRAYS = np.uint8([[0, 255, 85], [170, 85, 0]])  # which 2 bits can tell, too
ALPHAS = np.uint8([[255, 255, 0], [51, 255, 0]])
WIDE = np.uint16([[0, 65535, 0x5501], [0xAAFF, 0x5500, 1]])  # 16 bits; their high ones are GRAYS
FINE = np.uint16([[0, 4095, 0x550], [0xAAF, 0x55F, 1]])  # 12 bits


def gray(levels):
    return np.dstack([levels] * 3)


def over_white(colors, alphas):
    share = alphas[:, :, None] / 255
    return np.round(colors * share + 255 * (1 - share)).astype(np.uint8)


def large(small):
    """Each number becomes a square."""
    return small.repeat(SIDE, 0).repeat(SIDE, 1)


# -- files ------------------------------------------------------------------------------------------


def by_pillow(format, mode, colors=COLORS, **options):
    """A function of the orientation, to bytes. mode: None for the one that the array has."""

    def write(orientation):
        picture = Image.fromarray(large(colors))
        picture = picture if mode in (None, picture.mode) else picture.convert(mode)
        return saved(picture, format, orientation, **options)

    return write


def saved(picture, format, orientation, **options):
    memory = io.BytesIO()
    if orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    picture.save(memory, format, **options)
    return memory.getvalue()


def palette(format, **options):
    def write(orientation):
        indices = large(np.arange(6, dtype=np.uint8).reshape(2, 3))
        picture = Image.frombytes("P", (3 * SIDE, 2 * SIDE), indices.tobytes())
        picture.putpalette(COLORS.tobytes())
        return saved(picture, format, orientation, **options)

    return write


def packed(numbers, bits, order="big"):
    """Rows of numbers (H, N) of so many bits each, one after the other, each row in whole bytes."""
    if bits == 16:
        return [row.astype(">u2" if order == "big" else "<u2").tobytes() for row in numbers]
    rows = []
    for row in numbers:
        text = "".join(f"{number:0{bits}b}" for number in row)
        text += "0" * (-len(text) % 8)
        rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    return rows


def exif_bytes(orientation):
    return b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, orientation, 0)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(bits, kind, numbers, *chunks, late=False):
    """kind: 0 gray, 2 RGB, 3 palette, 4 gray with alpha, 6 RGBA. numbers (2, 3) or (2, 3, channels). late: the
    orientation stands behind the pixels."""

    def write(orientation):
        rows = large(np.asarray(numbers)).reshape(2 * SIDE, -1)
        turn = b"" if orientation is None else chunk(b"eXIf", exif_bytes(orientation))
        header = struct.pack(">IIBBBBB", 3 * SIDE, 2 * SIDE, bits, kind, 0, 0, 0)
        pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in packed(rows, bits))))
        middle = [*chunks, pixels, turn] if late else [turn, *chunks, pixels]
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(middle) + chunk(b"IEND", b"")

    return write


def tiff(bits, numbers, photometric=1, order="little", samples=1, deflate=False):
    """photometric: 0 for gray whose 0 is white, 1 for gray, 2 for RGB."""

    def write(orientation):
        rows = large(np.asarray(numbers)).reshape(2 * SIDE, -1)
        pixels, mark = b"".join(packed(rows, bits, order)), "<" if order == "little" else ">"
        pixels = zlib.compress(pixels) if deflate else pixels
        width, height = 3 * SIDE, 2 * SIDE
        tags = [
            (256, 4, width),
            (257, 4, height),
            (258, 3, bits),
            (259, 3, 8 if deflate else 1),
            (262, 3, photometric),
            (273, 4, 8),
        ]
        tags += [(274, 3, orientation or 1), (277, 3, samples), (278, 4, height), (279, 4, len(pixels))]
        entries = b""
        for tag, kind, value in tags:
            count = samples if tag == 258 else 1
            if count > 2:  # which do not fit: they stand at the end
                value, kind_code = 8 + len(pixels) + 2 + 12 * len(tags) + 4, "I"
            else:
                kind_code = "H2x" if kind == 3 else "I"
            entries += struct.pack(mark + "HHI" + kind_code, tag, kind, count, value)
        start = struct.pack(mark + "2sHI", b"II" if order == "little" else b"MM", 42, 8 + len(pixels))
        depths = struct.pack(mark + f"{samples}H", *[bits] * samples)
        return start + pixels + struct.pack(mark + "H", len(tags)) + entries + bytes(4) + depths

    return write


def pgm(largest, numbers):
    rows = large(np.asarray(numbers)).astype(">u2" if largest > 255 else "u1")
    return lambda _: b"P5\n48 32\n%d\n" % largest + rows.tobytes()


def mpo(orientation):
    options = {"quality": 95, "save_all": True, "append_images": [Image.new("RGB", (48, 32))]}
    return saved(Image.fromarray(large(COLORS)), "MPO", orientation, **options)


WITHOUT_RED = np.uint8([[[255] * 3, *COLORS[0, 1:]], COLORS[1]])  # which is transparent
WITHOUT_85 = gray(np.where(GRAYS == 85, 255, GRAYS))
DEEP = COLORS * np.uint16(257)
DEEP[0, 0] = 0x1234, 0x5678, 0x9ABC  # in place of red
ON = np.uint8([[0, 255, 0], [0, 0, 255]])
RGBA, LA = np.dstack([COLORS, ALPHAS]), np.dstack([GRAYS, ALPHAS])
CMYK = np.dstack([255 - COLORS, np.zeros_like(GRAYS)])
PALETTE = chunk(b"PLTE", COLORS.tobytes())
INDICES = np.arange(6).reshape(2, 3)
EVERY, NONE = tuple(range(1, 9)), (None,)

# name: (how it is written, the colors that a viewer shows, how far they may be off, orientations)
TABLE = {
    "jpeg L": (by_pillow("JPEG", "L", GRAYS, quality=95), gray(GRAYS), 2, EVERY),
    "jpeg RGB": (by_pillow("JPEG", "RGB", quality=95), COLORS, 4, EVERY),
    "jpeg RGB 4:4:4": (by_pillow("JPEG", "RGB", quality=95, subsampling=0), COLORS, 4, EVERY),
    "jpeg RGB progressive": (by_pillow("JPEG", "RGB", quality=95, progressive=True), COLORS, 4, EVERY),
    "jpeg CMYK": (by_pillow("JPEG", "CMYK", quality=95), COLORS, 6, EVERY),
    "jpeg without EXIF": (by_pillow("JPEG", "RGB", quality=95), COLORS, 4, NONE),
    "mpo": (mpo, COLORS, 4, EVERY),
    "png 1": (by_pillow("PNG", "1", ON), gray(ON), 0, EVERY),
    "png L": (by_pillow("PNG", "L", GRAYS), gray(GRAYS), 0, EVERY),
    "png L, transparent": (by_pillow("PNG", "L", GRAYS, transparency=85), WITHOUT_85, 0, EVERY),
    "png LA": (png(8, 4, LA), over_white(gray(GRAYS), ALPHAS), 1, EVERY),
    "png RGB": (by_pillow("PNG", "RGB"), COLORS, 0, EVERY),
    "png RGB, transparent": (by_pillow("PNG", "RGB", transparency=(255, 0, 0)), WITHOUT_RED, 0, EVERY),
    "png RGBA": (by_pillow("PNG", "RGBA", RGBA), over_white(COLORS, ALPHAS), 1, EVERY),
    "png P": (palette("PNG"), COLORS, 0, EVERY),
    "png P, alphas": (palette("PNG", transparency=ALPHAS.tobytes()), over_white(COLORS, ALPHAS), 1, EVERY),
    "png gray 1, own": (png(1, 0, ON // 255), gray(ON), 0, EVERY),
    "png gray 2": (png(2, 0, GRAYS // 85), gray(GRAYS), 0, EVERY),
    "png gray 4": (png(4, 0, GRAYS // 17), gray(GRAYS), 0, EVERY),
    "png gray 1, transparent": (png(1, 0, ON // 255, chunk(b"tRNS", b"\0\0")), gray(ON | 255), 0, EVERY),
    "png gray 2, transparent": (png(2, 0, GRAYS // 85, chunk(b"tRNS", b"\0\1")), WITHOUT_85, 0, EVERY),
    "png gray 4, transparent": (png(4, 0, GRAYS // 17, chunk(b"tRNS", b"\0\5")), WITHOUT_85, 0, EVERY),
    "png gray 16": (png(16, 0, WIDE), gray(WIDE >> 8), 0, EVERY),
    "png gray 16, transparent": (
        png(16, 0, WIDE, chunk(b"tRNS", b"\x55\x01")), gray(np.where(WIDE == 0x5501, 255, WIDE >> 8)), 0, EVERY),
    "png gray 16, black transparent": (
        png(16, 0, WIDE, chunk(b"tRNS", b"\0\0")), gray(np.where(WIDE == 0, 255, WIDE >> 8)), 0, EVERY),
    "png RGB 16": (png(16, 2, COLORS * np.uint16(257)), COLORS, 0, EVERY),
    "png RGB 16, transparent": (
        png(16, 2, DEEP, chunk(b"tRNS", bytes.fromhex("123456789abc"))), WITHOUT_RED, 0, EVERY),
    "png LA 16": (png(16, 4, LA * np.uint16(257)), over_white(gray(GRAYS), ALPHAS), 1, EVERY),
    "png RGBA 16": (png(16, 6, RGBA * np.uint16(257)), over_white(COLORS, ALPHAS), 1, EVERY),
    "png P 4": (png(4, 3, INDICES, PALETTE), COLORS, 0, EVERY),
    "png P 4, alphas": (
        png(4, 3, INDICES, PALETTE, chunk(b"tRNS", ALPHAS.tobytes())), over_white(COLORS, ALPHAS), 1, EVERY),
    "png turned behind its pixels": (png(8, 2, COLORS, late=True), COLORS, 0, EVERY),
    "png without EXIF": (png(8, 2, COLORS), COLORS, 0, NONE),
    "webp lossless RGB": (by_pillow("WEBP", "RGB", lossless=True), COLORS, 0, EVERY),
    "webp lossless RGBA": (by_pillow("WEBP", "RGBA", RGBA, lossless=True, exact=True), over_white(COLORS, ALPHAS), 1, EVERY),
    "webp RGB": (by_pillow("WEBP", "RGB", quality=95), COLORS, 10, EVERY),
    "gif P": (palette("GIF"), COLORS, 0, NONE),
    "gif P, transparent": (palette("GIF", transparency=0), WITHOUT_RED, 0, NONE),
    "bmp 1": (by_pillow("BMP", "1", ON), gray(ON), 0, NONE),
    "bmp L": (by_pillow("BMP", "L", GRAYS), gray(GRAYS), 0, NONE),
    "bmp P": (palette("BMP"), COLORS, 0, NONE),
    "bmp RGB": (by_pillow("BMP", "RGB"), COLORS, 0, NONE),
    "ppm RGB": (by_pillow("PPM", "RGB"), COLORS, 0, NONE),
    "pgm L": (pgm(255, GRAYS), gray(GRAYS), 0, NONE),
    "pgm of 4096 levels": (pgm(4095, FINE), gray(FINE >> 4), 0, NONE),
    "pgm of 65536 levels": (pgm(65535, WIDE), gray(WIDE >> 8), 0, NONE),
    "tiff own RGB": (tiff(8, COLORS, 2, samples=3), COLORS, 0, EVERY),
    "tiff gray 4": (tiff(4, GRAYS // 17), gray(GRAYS), 0, EVERY),
    "tiff gray 8, 0 is white": (tiff(8, GRAYS, 0), gray(255 - GRAYS), 0, EVERY),
}  # fmt: skip
for order in ("little", "big"):
    TABLE |= {
        f"tiff gray 16 {order}": (tiff(16, WIDE, order=order), gray(WIDE >> 8), 0, EVERY),
        f"tiff RGB 16 {order}": (tiff(16, COLORS * np.uint16(257), 2, order, 3), COLORS, 0, EVERY),
    }
TABLE |= {
    "tiff gray 16, 0 is white": (tiff(16, WIDE, 0), gray(255 - (WIDE >> 8)), 0, EVERY),
    "tiff gray 16, 0 is white, deflate": (tiff(16, WIDE, 0, deflate=True), gray(255 - (WIDE >> 8)), 0, EVERY),
    "tiff gray 12": (tiff(12, FINE), gray(FINE >> 4), 0, EVERY),
    "tiff gray 12 deflate": (tiff(12, FINE, deflate=True), gray(FINE >> 4), 0, EVERY),
    "tiff gray 8, 0 is white, deflate": (tiff(8, GRAYS, 0, deflate=True), gray(255 - GRAYS), 0, EVERY),
    "tiff RGB 16 deflate": (tiff(16, COLORS * np.uint16(257), 2, "little", 3, True), COLORS, 0, EVERY),
    "tiff RGB 16 big deflate": (tiff(16, COLORS * np.uint16(257), 2, "big", 3, True), COLORS, 0, EVERY),
    "tiff gray 16 big deflate": (tiff(16, WIDE, 1, "big", 1, True), gray(WIDE >> 8), 0, EVERY),
}
for compression in ("raw", "tiff_lzw", "tiff_deflate", "packbits"):
    options = {"compression": compression}
    TABLE |= {
        f"tiff 1 {compression}": (by_pillow("TIFF", "1", ON, **options), gray(ON), 0, EVERY),
        f"tiff L {compression}": (by_pillow("TIFF", "L", GRAYS, **options), gray(GRAYS), 0, EVERY),
        f"tiff LA {compression}": (
            by_pillow("TIFF", None, LA, **options), over_white(gray(GRAYS), ALPHAS), 1, EVERY),
        f"tiff P {compression}": (palette("TIFF", **options), COLORS, 0, EVERY),
        f"tiff RGB {compression}": (by_pillow("TIFF", "RGB", **options), COLORS, 0, EVERY),
        f"tiff RGBA {compression}": (by_pillow("TIFF", "RGBA", RGBA, **options), over_white(COLORS, ALPHAS), 1, EVERY),
        f"tiff CMYK {compression}": (by_pillow("TIFF", "CMYK", **options), COLORS, 0, EVERY),
        f"tiff I;16 {compression}": (by_pillow("TIFF", None, WIDE, **options), gray(WIDE >> 8), 0, EVERY),
    }  # fmt: skip
for compression in ("group3", "group4"):
    TABLE[f"tiff 1 {compression}"] = by_pillow("TIFF", "1", ON, compression=compression), gray(ON), 0, EVERY
for mode, colors, expected in (("L", GRAYS, gray(GRAYS)), ("RGB", COLORS, COLORS)):
    options = {"compression": "jpeg", "quality": 95}
    TABLE[f"tiff {mode} jpeg"] = by_pillow("TIFF", mode, colors, **options), expected, 4, EVERY
if "avif" in features.get_supported():
    TABLE |= {
        "avif RGB": (by_pillow("AVIF", "RGB", quality=95), COLORS, 8, EVERY),
        "avif RGBA": (by_pillow("AVIF", "RGBA", RGBA, quality=95), over_white(COLORS, ALPHAS), 8, EVERY),
    }

INPUTS = [(name, orientation) for name, (*_, orientations) in TABLE.items() for orientation in orientations]


@pytest.mark.parametrize("name, orientation", INPUTS)
def test_a_picture_is_what_a_viewer_shows(tmp_path, name, orientation):
    """From a path and from memory, whole and scaled."""
    write, colors, tolerance, _ = TABLE[name]
    colors = np.asarray(TURNED[orientation or 1](colors), np.uint8)
    content, path = write(orientation), tmp_path / "a.jpg"  # what is in it counts, and not the name
    path.write_bytes(content)
    for least, expected in ((None, large(colors)), (SIDE, Resize(SIDE)(large(colors), None))):
        for file in (path, io.BytesIO(content)):
            found = read_image(file, least)
            assert found.dtype == np.uint8 and not found.flags.writeable
            assert found.shape == expected.shape
            if tolerance < 2:
                assert abs(found.astype(int) - expected).max() <= tolerance
            else:  # the middle of each square
                step = SIDE if least is None else SIDE // 2
                middles = (x[step // 2 :: step, step // 2 :: step].astype(int) for x in (found, expected))
                assert abs(next(middles) - next(middles)).max() <= tolerance


def test_how_many_inputs_there_are():
    avif = 16 if "avif" in features.get_supported() else 0
    assert len(INPUTS) == 692 + avif


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("least", [None, SIDE])
def test_a_large_picture_is_the_same_by_bands(monkeypatch, name, least):
    write, *_, orientations = TABLE[name]
    content = write(orientations[-1])
    whole = read_image(io.BytesIO(content), least)
    monkeypatch.setattr(reading, "BAND", 5 * 48 + 1)
    found = read_image(io.BytesIO(content), least)
    assert found.dtype == np.uint8 and not found.flags.writeable
    np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize(
    "write, expected",
    [
        (tiff(16, WIDE, 0, "big"), 255 - (WIDE >> 8)),
        (tiff(12, FINE, 0), 255 - (FINE >> 4)),
        (tiff(12, FINE, 1, "big"), FINE >> 4),
    ],
)
def test_what_pillow_does_not_know_is_refused_and_not_wrong(write, expected):
    try:
        found = read_image(io.BytesIO(write(1)))
    except DataError as error:
        assert str(error) == "image: not an image that Pillow can read"
    else:
        np.testing.assert_array_equal(found, large(gray(expected)))
