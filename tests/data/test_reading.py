import errno
import io
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

Image = pytest.importorskip("PIL.Image")

from PIL import PngImagePlugin, features  # noqa: E402

from minicnn.data import CIFAR10, DataError, DataLoader, ImageFolder, ImageNet, folder, read_image, reading  # noqa: E402
from minicnn.data.folder import ImageFiles  # noqa: E402
from minicnn.data.transforms import Resize  # noqa: E402

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


# -- what is in a file ----------------------------------------------------------------------------------------------


def test_gray_palette_and_two_level_pictures(save):
    gray = RGB[:, :, 0]
    np.testing.assert_array_equal(read_image(save("gray.png", gray)), np.dstack([gray] * 3))
    few = RGB // 128 * 255  # 8 colors
    np.testing.assert_array_equal(read_image(save("p.png", Image.fromarray(few).convert("P", dither=0, colors=8))), few)
    two = Image.fromarray(few[:, :, 0]).convert("1")
    np.testing.assert_array_equal(read_image(save("1.png", two)), np.dstack([few[:, :, 0]] * 3))


@pytest.mark.parametrize("name", ["16.png", "16.tif", "16.pgm"])
def test_16_bit_pictures_keep_their_high_byte(save, name):
    gray = np.array([[0, 255, 256, 1000, 65535]], np.uint16)
    if name == "16.pgm":  # which Pillow 10.1 cannot write
        gray = b"P5 5 1 65535\n" + gray.astype(">u2").tobytes()
    assert read_image(save(name, gray))[0, :, 1].tolist() == [0, 0, 1, 3, 255]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pictures_of_32_bits_are_refused(save, kind):
    path = save("32.tif", np.array([[1, 200]], kind))
    with pytest.raises(DataError, match=f"^{path}: cannot be read: its pixels have 32 bits, whose value range is not"):
        read_image(path)


def test_cmyk_jpeg(save):
    colors = np.repeat(np.uint8([[[255, 0, 0]], [[0, 255, 0]], [[0, 0, 255]], [[255, 255, 255]]]), 32, axis=1)
    colors = np.repeat(colors, 32, axis=0)  # (128, 32, 3)
    image = read_image(save("cmyk.jpg", Image.fromarray(colors).convert("CMYK"), quality=95, subsampling=0))
    assert abs(image.astype(int) - colors)[8:].mean() < 3


def test_transparent_pictures_are_laid_over_white(save):
    alpha = np.uint8([[0, 51, 255]])
    rgba = np.dstack([np.full_like(alpha, v) for v in (100, 0, 255)] + [alpha])
    expected = [[255, 255, 255], [224, 204, 255], [100, 0, 255]]
    assert read_image(save("rgba.png", rgba))[0].tolist() == expected
    gray = Image.merge("LA", [Image.fromarray(np.full_like(alpha, 100)), Image.fromarray(alpha)])
    assert read_image(save("la.png", gray))[0].tolist() == [[255] * 3, [224] * 3, [100] * 3]
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 9, 9, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    for name in ("p.png", "p.gif"):
        assert read_image(save(name, palette, transparency=0))[0].tolist() == [[255] * 3, [40, 50, 60]]
    assert read_image(save("rgb.png", np.uint8([[[1, 2, 3], [4, 5, 6]]]), transparency=(1, 2, 3)))[0, 0, 0] == 255


def test_the_first_frame_of_an_animation(save):
    frames = [Image.new("L", (3, 2), level) for level in (10, 200)]
    path = save("a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert np.unique(read_image(path)).tolist() == [10]


def test_an_orientation_beside_a_damaged_tag(save):
    """A resolution that is words."""
    tags = (0x0112, 3, 1, b"\6\0\0\0"), (0x011A, 2, 4, b"abc\0")
    exif = (
        b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + b"".join(struct.pack("<HHI4s", *tag) for tag in tags) + bytes(4)
    )
    assert read_image(save("turned.jpg", np.zeros((2, 5, 3), np.uint8), exif=exif)).shape == (5, 2, 3)


def jpeg_bytes(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "whole.jpg")
    return (tmp_path / "whole.jpg").read_bytes()


def test_a_broken_file_is_named_in_one_line(save, tmp_path):
    text, empty = save("a/text.jpg", b"hello"), save("a/empty.png", b"")
    cut = save("b/cut.jpg", jpeg_bytes(tmp_path)[:-500])
    number = save("b/number.ppm", b"P6 x 2 255\n")
    folder = ImageFolder(tmp_path)
    unknown, broken = "not an image that Pillow can read", "cannot be read: "
    expected = {empty: unknown, text: unknown, cut: broken + "image file is trunc", number: broken + "invalid literal"}
    for index, (path, reason) in enumerate(expected.items()):
        with pytest.raises(DataError) as info:
            folder[index]
        assert str(info.value).startswith(f"{path}: {reason}") and "\n" not in str(info.value)


def test_an_open_file_will_do(save):
    path = save("1.png")
    with open(path, "rb") as file:
        np.testing.assert_array_equal(read_image(file), RGB)
    memory = io.BytesIO(path.read_bytes())
    for _ in range(2):  # it is left open
        assert read_image(memory, 3).shape == (3, 4, 3)


def test_an_open_file_is_named_in_errors(save, tmp_path):
    path, cut = save("text.png", b"hello"), io.BytesIO(jpeg_bytes(tmp_path)[:-500])
    with open(path, "rb") as file, pytest.raises(DataError, match=f"^{path}: not an image that Pillow can read$"):
        read_image(file)
    with pytest.raises(DataError, match=r"^image: cannot be read: image file is trunc"):
        read_image(cut)
    cut.name = "standard input"
    with pytest.raises(DataError, match=r"^standard input: cannot be read: image file is trunc"):
        read_image(cut)


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(DataError, match=f"^{tmp_path}/gone.png: cannot be read: No such file or directory$"):
        read_image(tmp_path / "gone.png")


def test_an_error_without_a_message_is_named(monkeypatch, save):
    def no_memory(*arguments, **options):
        raise MemoryError

    path = save("1.png")
    monkeypatch.setattr(Image, "open", no_memory)
    with pytest.raises(DataError, match=r"1.png: cannot be read: MemoryError\(\)$"):
        read_image(path)


def test_without_pillow_the_error_says_how_to_get_it(monkeypatch, save):
    path = save("1.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"^images are read and resized with Pillow: pip install pillow$"):
        read_image(path)


# -- files that are no images, or of no kind that is read -----------------------------------------


def refused(path, least=None):
    """The message for a file, which comes within seconds."""
    messages = []

    def read():
        try:
            read_image(path, least)
        except DataError as error:
            messages.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert messages, "it is read, or waited for"
    return messages[0]


def test_what_is_no_regular_file_is_named_and_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket may not be long
    os.mkfifo("pipe.jpg")
    os.symlink("pipe.jpg", "link.jpg")
    os.symlink("itself.jpg", "itself.jpg")
    Path("folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket.jpg")
        assert refused("socket.jpg") == "socket.jpg: cannot be read: it is a socket, not a regular file"
    assert refused("pipe.jpg") == "pipe.jpg: cannot be read: it is a named pipe, not a regular file"
    assert refused(Path("link.jpg")) == "link.jpg: cannot be read: it is a named pipe, not a regular file"
    assert refused("/dev/zero") == "/dev/zero: cannot be read: it is a device, not a regular file"
    assert refused("folder.jpg") == "folder.jpg: cannot be read: Is a directory"
    assert refused("itself.jpg") == "itself.jpg: cannot be read: Too many levels of symbolic links"


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def test_no_program_is_started_for_a_picture(save, tmp_path):
    """A stand-in for Ghostscript notes that it was called. In a process of its own, for Pillow looks for it once."""
    save("bin/gs", b'#!/bin/sh\necho "$0 $@" >> "$(dirname "$0")/called"\n').chmod(0o755)
    names = [str(save(f"{name}", EPS)) for name in ("a.jpg", "a.png", "a.eps")]
    program = """
import sys
from minicnn.data import DataError, read_image
for name in sys.argv[1:]:
    try:
        read_image(name)
    except DataError as error:
        print(error)
"""
    environment = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    command = [sys.executable, "-c", program, *names]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.splitlines() == [f"{name}: not an image that Pillow can read" for name in names]
    assert not (tmp_path / "bin" / "called").exists()


@pytest.mark.parametrize("format", ["ICO", "TGA", "PCX", "SGI", "DDS", "JPEG2000"])
def test_formats_that_no_ending_names_are_not_read(save, format):
    picture = Image.fromarray(np.zeros((16, 16, 3), np.uint8))
    path = save("a.png", picture, format=format)
    assert refused(path) == f"{path}: not an image that Pillow can read"


def test_the_formats_are_those_of_the_endings(monkeypatch):
    known = ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"]
    avif = ["AVIF"] if "avif" in features.get_supported() else []
    assert reading.formats() == known + avif
    monkeypatch.setattr(reading, "find_spec", lambda name: None)
    assert reading.formats.__wrapped__() == known
    monkeypatch.undo()
    monkeypatch.delitem(sys.modules, "PIL._avif", raising=False)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert reading.formats.__wrapped__() == known


def test_an_error_is_one_line_whatever_the_name(save):
    path = save("a\nb\x1b[31m\x85\u2028é狗.jpg", b"hello")
    with pytest.raises(DataError) as info:
        read_image(path)
    assert str(info.value) == f"{path.parent}/a\\nb\\x1b[31m\\x85\\u2028é狗.jpg: not an image that Pillow can read"
    assert info.value.args[0].startswith(str(path))


# -- notes in a PNG ---------------------------------------------------------------------------------


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(save, before=b"", behind=b""):
    """RGB with these chunks before its pixels and behind them."""
    whole = save("whole.png").read_bytes()
    start, end = whole.index(b"IDAT") - 4, whole.index(b"IEND") - 4
    return save("notes.png", whole[:start] + before + whole[start:end] + behind + whole[end:])


LONG = zlib.compress(bytes(1_200_000))
NOTES = {
    "iCCP": chunk(b"iCCP", b"profile\0\0" + zlib.compress(np.random.default_rng(0).bytes(1_100_000))),
    "zTXt": chunk(b"zTXt", b"workflow\0\0" + LONG),
    "iTXt": chunk(b"iTXt", b"workflow\0\1\0\0\0" + LONG),
    "many": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(1_000_000))) * 70,  # 64 MB are too many
}
LYING = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 6, 0)  # EXIF with the orientation 6
PACKET = b'<x:xmpmeta><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></x:xmpmeta>'
TURNS = {
    "upright": b"",
    "eXIf": chunk(b"eXIf", LYING),
    "raw": chunk(
        b"tEXt",
        b"Raw profile type exif\0\nexif\n%8d\n" % len(LYING + b"Exif\0\0")
        + b"%b\n" % (b"Exif\0\0" + LYING).hex().encode(),
    ),
    "xmp": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + PACKET),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("note, behind", [(note, behind) for note in NOTES for behind in (False, note != "iCCP")])
def test_a_png_with_long_notes_is_read(save, note, turn, behind):
    bounds = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    path = png(save, TURNS[turn], NOTES[note]) if behind else png(save, NOTES[note] + TURNS[turn])
    expected = RGB if turn == "upright" else np.rot90(RGB, -1)
    np.testing.assert_array_equal(read_image(path), expected)
    np.testing.assert_array_equal(read_image(io.BytesIO(path.read_bytes()), 3), Resize(3)(expected, None))
    assert bounds == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)


def test_without_notes_a_png_has_all_else(save):
    notes = b"".join(NOTES.values()) + chunk(b"tEXt", b"Title\0a")
    kept = chunk(b"gAMA", struct.pack(">I", 45455)) + TURNS["eXIf"] + TURNS["raw"] + TURNS["xmp"]
    path = png(save, kept, kept)
    assert (
        reading.without_notes(png(save, notes + kept, kept + notes).read_bytes()) == png(save, kept, kept).read_bytes()
    )
    assert reading.without_notes(path.read_bytes()[:-3]) == path.read_bytes()[:-3]


@given(st.data())
def test_a_damaged_png_with_long_notes_is_an_error_of_its_own(tmp_path_factory, data):
    def save(name, content=None):
        path = folder / name
        path.write_bytes(content) if content else Image.fromarray(RGB).save(path)
        return path

    folder = tmp_path_factory.mktemp("damaged")
    whole = bytearray(png(save, NOTES["zTXt"], TURNS["xmp"]).read_bytes())
    for place in data.draw(st.lists(st.integers(8, len(whole) - 1), max_size=3)):
        whole[place] ^= data.draw(st.integers(1, 255))
    cut = whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole
    try:
        assert read_image(io.BytesIO(bytes(cut))).dtype == np.uint8
    except DataError as error:
        assert str(error).startswith("image: ")


# -- how much of a file is decoded ----------------------------------------------------------------------------------


SMOOTH = np.linspace(0, 255, 320)[:, None, None] * [1, 0, 0] + np.linspace(0, 255, 480)[None, :, None] * [0, 0.5, 1]


@pytest.fixture
def resized_from(monkeypatch):
    """The sizes (width, height) of the images that Pillow resizes."""
    sizes, resize = [], Image.Image.resize

    def noted(image, *args, **options):
        sizes.append(image.size)
        return resize(image, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", noted)
    return sizes


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50))
def test_least_scales_down_as_resize_does(tmp_path_factory, height, width, least):
    """Bit for bit, where the format has no smaller way to be decoded, and not beyond the size that there is."""
    path = tmp_path_factory.mktemp("least") / "1.png"
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    expected = Resize(least)(pixels, np.random.default_rng()) if least < min(height, width) else pixels
    np.testing.assert_array_equal(read_image(path, least), expected)


@pytest.mark.parametrize(
    "least, decoded", [(320, None), (161, (480, 320)), (160, None), (100, (240, 160)), (50, (120, 80)), (39, (60, 40))]
)
def test_a_jpeg_is_decoded_to_the_smallest_fraction_that_suffices(save, resized_from, least, decoded):
    path = save("1.jpg", SMOOTH.astype(np.uint8), quality=95)
    small = read_image(path, least)
    assert resized_from == ([] if decoded is None else [decoded])
    assert small.shape == (least, round(least * 1.5), 3)
    expected = Resize(least)(read_image(path), np.random.default_rng())
    assert abs(small.astype(int) - expected).mean() < 1.5


@pytest.mark.parametrize("mode, tolerance", [("L", 2), ("CMYK", 4), ("RGB", 2)])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_other_modes_and_turned_jpegs_are_scaled_alike(save, mode, tolerance, orientation):
    upright = {1: lambda stored: stored, 3: lambda stored: stored[::-1, ::-1], 6: lambda stored: np.rot90(stored, -1)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(SMOOTH.astype(np.uint8)).convert(mode)
    path = save("1.jpg", stored, exif=exif, quality=95)
    small, full = read_image(path, 40), read_image(path)
    assert small.shape == ((60, 40, 3) if orientation == 6 else (40, 60, 3))
    assert abs(small.astype(int) - Resize(40)(full, np.random.default_rng())).mean() < tolerance
    np.testing.assert_allclose(full, upright[orientation](np.asarray(stored.convert("RGB"))), atol=12)


@pytest.mark.parametrize("least", [0, -1, 1.5, "256", (256, 256)])
def test_a_least_that_is_no_number_of_pixels(save, tmp_path, least):
    save("1.png")
    words = f"^least must be a whole number from 1, not {re.escape(repr(least))}$"
    for f in (read_image, ImageFolder, ImageNet):
        with pytest.raises(ValueError, match=words):
            f(tmp_path / "none", least=least)  # before anything else is looked at
    with pytest.raises(ValueError, match=words):
        folder.ImageFiles([], [], least)
    assert read_image(tmp_path / "1.png", np.int64(3)).shape == (3, 4, 3)


@pytest.mark.parametrize("path", [None, 3, ["a"]])
def test_what_is_no_path(path):
    kind = type(path).__name__
    with pytest.raises(TypeError, match=f"^file must be a path, or an open file, not a {kind}$"):
        read_image(path)
    for dataset in (ImageFolder, ImageNet, CIFAR10):
        with pytest.raises(TypeError, match=f"^root must be a path, not a {kind}$"):
            dataset(path)


def test_paths_in_bytes(save, tmp_path):
    path = save("1.png")
    np.testing.assert_array_equal(read_image(os.fsencode(path)), read_image(path))
    with pytest.raises(DataError, match=f"^{tmp_path}/none.png: cannot be read: "):
        read_image(os.fsencode(tmp_path / "none.png"))
    save("a/1.png"), save("b/1.png")
    assert ImageFolder(os.fsencode(tmp_path)).samples == ImageFolder(tmp_path).samples


@pytest.mark.parametrize("name", ["1.png", "1.jpg"])
def test_a_slim_picture_is_read_unless_it_has_to_become_larger(save, name):
    path = save(name, np.zeros((1, 5000, 3), np.uint8))
    assert read_image(path).shape == read_image(path, 1).shape == (1, 5000, 3)
    with pytest.raises(DataError) as info:
        read_image(path, 256)
    assert str(info.value) == (
        f"{path}: cannot be read: 5000 x 1 pixels would become 1280000 x 256, and an image over 50 times as long as wide"
        " is not made larger: remove or crop it"
    )


def test_a_cut_jpeg_is_broken_at_any_fraction(save, tmp_path):
    path = save("cut.jpg", jpeg_bytes(tmp_path)[:-500])
    for least in (None, 64, 8):
        with pytest.raises(DataError, match="cannot be read: image file is trunc"):
            read_image(path, least)


# -- the border of a scaled JPEG --------------------------------------------------------------------


def beyond(height, width, color, block, subsampling):
    """A white JPEG of this size, whose last blocks are filled up with a color, as encoders may."""
    pixels = np.full((-(-height // block) * block, -(-width // block) * block, 3), 255, np.uint8)
    pixels[height:] = pixels[:, width:] = color
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, "JPEG", quality=100, subsampling=subsampling)
    content = bytearray(memory.getvalue())
    place = content.index(b"\xff\xc0")
    content[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(content)


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 0, 0)])
@pytest.mark.parametrize("block, subsampling", [(8, 0), (16, 2)])
@pytest.mark.parametrize("height, width", [(1001, 1001), (1000, 1007), (1006, 1000), (1002, 1004), (99, 77), (17, 9)])
def test_nothing_of_what_lies_beyond_the_border_is_seen(height, width, color, block, subsampling):
    if subsampling and (height % 2 or width % 2):  # a color is stored for two pixels, of which one is beyond
        color = (0, 0, 0)
    content = beyond(height, width, color, block, subsampling)
    for fraction in (2, 4, 8):
        whole = min(height, width) // fraction
        for least in {whole, max(1, whole - 5)}:
            small = read_image(io.BytesIO(content), least)
            assert min(small.shape[:2]) == least and small.min() >= 250


@given(st.integers(16, 130), st.integers(16, 130), st.integers(1, 60))
def test_a_scaled_jpeg_has_the_shape_and_place_that_resize_gives(height, width, least):
    """A slope is the same at the border as in the middle."""
    slope = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 120, width))
    memory = io.BytesIO()
    Image.fromarray(slope.astype(np.uint8)).save(memory, "JPEG", quality=100)
    whole = read_image(memory)
    small = read_image(memory, least)
    expected = Resize(least)(whole, None) if least < min(height, width) else whole
    assert small.shape == expected.shape
    step = 240 / min(small.shape[:2])  # from a pixel to the next, at most
    assert abs(small.astype(int) - expected).max() <= max(4, 1.1 * step)


@pytest.mark.parametrize("turn", [lambda a: a, lambda a: a.T])
def test_the_last_row_is_the_pictures_own_or_the_one_before_it(turn):
    """Scaled by 2, of 32 rows the last one is of the rows 30 and 31; of 33, row 32 shares one with what
    is beyond, and becomes as the one before."""

    def last(*black, of):
        picture = np.full((of, 64), 255, np.uint8)
        picture[list(black)] = 0
        memory = io.BytesIO()
        Image.fromarray(turn(picture)).save(memory, "JPEG", quality=100)
        return turn(read_image(memory, 16)[..., 0])[-1].mean()

    assert last(30, 31, of=32) < 10 < 245 < last(28, 29, of=32)
    assert last(30, 31, of=33) < 20 and last(32, of=33) > 245


def test_only_a_large_picture_is_converted_by_bands(save, monkeypatch):
    sizes, bands = [], reading.bands

    def noted(image):
        for top, band in bands(image):
            sizes.append(band.size)
            yield top, band

    monkeypatch.setattr(reading, "bands", noted)
    gray, rgb = save("gray.png", np.zeros((10, 7), np.uint8)), save("rgb.png", np.zeros((10, 7, 3), np.uint8))
    clear = save("clear.png", np.zeros((10, 7, 3), np.uint8), transparency=(1, 2, 3))
    monkeypatch.setattr(reading, "BAND", 70)
    for path in (gray, rgb, clear):
        read_image(path), read_image(path, 5)
    assert sizes == []
    monkeypatch.setattr(reading, "BAND", 30)  # four rows
    by_bands = [(7, 4), (7, 4), (7, 2)]
    for path, least, expected in (
        (gray, None, by_bands), (rgb, None, by_bands), (clear, None, by_bands), (gray, 5, by_bands), (rgb, 5, []),
        (clear, 5, by_bands),
    ):  # fmt: skip
        read_image(path, least)
        assert sizes == expected
        sizes.clear()
    monkeypatch.setattr(reading, "BAND", 3)
    read_image(gray)
    assert sizes == [(7, 1)] * 10


# -- what is promised of damage and of memory -------------------------------------------------------


def test_a_hole_in_a_jpeg_is_not_seen_as_the_docstring_says(tmp_path):
    whole = jpeg_bytes(tmp_path)
    assert read_image(io.BytesIO(whole[: len(whole) // 2] + b"\xff\xd9"))[-1, -1].tolist() == [128, 128, 128]
    assert "rest of the image may be gray" in re.sub(r"\s+", " ", read_image.__doc__)


@pytest.mark.slow
@pytest.mark.parametrize("least", [None, 256])
def test_a_large_palette_with_transparency_fits_into_a_gigabyte(tmp_path, least):
    """178,756,900 pixels of one byte in the file, which is as many as Pillow reads."""
    pytest.importorskip("resource")
    path = tmp_path / "a.png"
    picture = Image.new("P", (13370, 13370))
    picture.putpalette([9, 9, 9, 40, 50, 60])
    picture.save(path, transparency=0)
    program = f"""
import resource
from minicnn.data import read_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert read_image({str(path)!r}, {least}).min() == 255
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert path.stat().st_size < 30_000 and int(result.stdout) < 1_000_000  # KB


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_too_many_open_files_are_no_fault_of_an_image(monkeypatch, tmp_path, number):
    """So a loader does not leave it out either."""
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    images = ImageFiles([(str(path), 0)], ["a"], None)
    left_out = []
    loader = DataLoader(images, 1, num_workers=0, on_bad=lambda *what: left_out.append(what))

    def refuse(*_):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(reading, "decoded", refuse)
    with pytest.raises(OSError, match=r"a\.png") as caught:
        next(iter(loader))
    assert caught.value.errno == number and not left_out
