import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

Image = pytest.importorskip("PIL.Image")

from minicnn.data import DataError, ImageFolder, read_image  # noqa: E402
from minicnn.data.folder import ENDINGS  # noqa: E402
from minicnn.data.transforms import Resize  # noqa: E402

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.fixture
def save(tmp_path):
    """save("cat/1.png", picture) writes a picture or bytes below tmp_path and returns the path."""

    def write(name, content=RGB, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            picture = Image.fromarray(content) if isinstance(content, np.ndarray) else content
            picture.save(path, **options)
        return path

    return write


# -- which files ----------------------------------------------------------------------------------------------------


def test_classes_and_files_are_sorted_and_labelled(save, tmp_path):
    for name in ("dog/b.png", "dog/a.png", "Cat/z.png", "ant/1.png", "dog/d.png", "dog/c.png"):
        save(name)
    folder = ImageFolder(tmp_path)
    assert folder.classes == ["Cat", "ant", "dog"]
    names = [("Cat/z.png", 0), ("ant/1.png", 1), *((f"dog/{letter}.png", 2) for letter in "abcd")]
    assert folder.samples == [(str(tmp_path / name), label) for name, label in names]
    assert len(folder) == 6
    image, label = folder[2]
    assert image.dtype == np.uint8 and not image.flags.writeable and type(label) is int and label == 2
    np.testing.assert_array_equal(image, RGB)
    assert [label for _, label in folder] == [0, 1, 2, 2, 2, 2]


def test_only_visible_files_with_a_picture_ending_count(save, tmp_path):
    for name in (
        "a/1.PNG",
        "a/.2.png",
        "a/notes.txt",
        "a/jpg",
        "a/deep/3.png",
        "a/folder.png/4.png",
        "b/5.Jpeg",
        ".c/6.png",
        "7.png",
    ):
        save(name, b"")
    assert [Path(path).name for path, _ in ImageFolder(tmp_path).samples] == ["1.PNG", "5.Jpeg"]


def test_every_accepted_ending_can_be_read(save, tmp_path):
    for ending in ENDINGS:
        save(f"a/picture{ending}", RGB[:, :, 0] if ending == ".pgm" else RGB)
    save("b/1.png")
    folder = ImageFolder(tmp_path)
    assert len(folder) == len(ENDINGS) + 1
    assert {image.shape for image, _ in folder} == {(5, 7, 3)}


def test_classes_can_be_given_in_another_order(save, tmp_path):
    save("a/1.png"), save("b/2.png")
    folder = ImageFolder(tmp_path, classes=("b", "a"))
    assert folder.classes == ["b", "a"]
    assert [(Path(path).name, label) for path, label in folder.samples] == [("2.png", 0), ("1.png", 1)]


def test_errors_of_the_folder_are_one_line(save, tmp_path):
    def message(root, **options):
        with pytest.raises(DataError) as info:
            ImageFolder(root, **options)
        return str(info.value)

    root, usage = tmp_path / "root", "; pass a folder that holds one folder of pictures per class"
    assert message(root) == f"{root}: does not exist{usage}"
    file = save("file.png")
    assert message(file) == f"{file}: is not a folder{usage}"
    root.mkdir()
    needs = "; at least two are needed, each with the pictures of one class"
    assert message(root) == f"{root}: no class folders{needs}"
    save("root/cat/1.png")
    assert message(root) == f"{root}: only one class folder, 'cat'{needs}"
    (root / "dog").mkdir()
    assert message(root) == (
        f"{root}/dog: no pictures in this folder (endings accepted:"
        " .jpg .jpeg .png .gif .bmp .webp .tif .tiff .ppm .pgm)"
    )
    differ = f"{root}: class folders differ from the classes asked for"
    assert message(root, classes=["cat"]) == f"{differ} (missing: none; unknown: dog)"
    assert message(root, classes=["cat", "dog", "eel"]) == f"{differ} (missing: eel; unknown: none)"
    assert message(root, classes=["cat", *"gfedcba"]) == f"{differ} (missing: a, b, c, d, e and 2 more; unknown: dog)"
    assert message(root, classes=["cat", *"fedcba"]) == f"{differ} (missing: a, b, c, d, e and 1 more; unknown: dog)"
    assert message(root, classes=["cat", *"edcba"]) == f"{differ} (missing: a, b, c, d, e; unknown: dog)"


@pytest.mark.parametrize("classes", [None, ["cat", "dog"]])
def test_pictures_in_no_class_folders_may_be_imagenets(save, tmp_path, classes):
    save("1.JPEG", b"")
    with pytest.raises(DataError) as info:
        ImageFolder(tmp_path, classes=classes)
    assert str(info.value) == (
        f"{tmp_path}: pictures, but no class folders; ImageNet's flat validation folder is read with"
        " minicnn.data.ImageNet (imagenet:DIR in train.py)"
    )


def test_one_class_will_do_if_it_is_what_was_asked_for(save, tmp_path):
    save("cat/1.png")
    assert len(ImageFolder(tmp_path, classes=["cat"])) == 1


# -- what is in a file ----------------------------------------------------------------------------------------------


def test_grey_palette_and_two_level_pictures(save):
    grey = RGB[:, :, 0]
    np.testing.assert_array_equal(read_image(save("grey.png", grey)), np.dstack([grey] * 3))
    few = RGB // 128 * 255  # 8 colours
    np.testing.assert_array_equal(read_image(save("p.png", Image.fromarray(few).convert("P", dither=0, colors=8))), few)
    two = Image.fromarray(few[:, :, 0]).convert("1")
    np.testing.assert_array_equal(read_image(save("1.png", two)), np.dstack([few[:, :, 0]] * 3))


@pytest.mark.parametrize("name", ["16.png", "16.tif", "16.pgm"])
def test_16_bit_pictures_keep_their_high_byte(save, name):
    grey = np.array([[0, 255, 256, 1000, 65535]], np.uint16)
    assert read_image(save(name, grey))[0, :, 1].tolist() == [0, 0, 1, 3, 255]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pictures_of_32_bits_are_refused(save, kind):
    path = save("32.tif", np.array([[1, 200]], kind))
    with pytest.raises(DataError, match=f"^{path}: cannot be read: its pixels have 32 bits, in a range that nothing"):
        read_image(path)


def test_cmyk_jpeg(save):
    colours = np.repeat(np.uint8([[[255, 0, 0]], [[0, 255, 0]], [[0, 0, 255]], [[255, 255, 255]]]), 32, axis=1)
    colours = np.repeat(colours, 32, axis=0)  # (128, 32, 3)
    image = read_image(save("cmyk.jpg", Image.fromarray(colours).convert("CMYK"), quality=95, subsampling=0))
    assert abs(image.astype(int) - colours)[8:].mean() < 3


def test_transparent_pictures_are_laid_over_white(save):
    alpha = np.uint8([[0, 51, 255]])
    rgba = np.dstack([np.full_like(alpha, v) for v in (100, 0, 255)] + [alpha])
    expected = [[255, 255, 255], [224, 204, 255], [100, 0, 255]]
    assert read_image(save("rgba.png", rgba))[0].tolist() == expected
    grey = Image.merge("LA", [Image.fromarray(np.full_like(alpha, 100)), Image.fromarray(alpha)])
    assert read_image(save("la.png", grey))[0].tolist() == [[255] * 3, [224] * 3, [100] * 3]
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


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_exif_orientation(save, orientation, mode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save("turned.png", Image.fromarray(RGB).convert(mode), exif=exif)
    np.testing.assert_array_equal(read_image(path), UPRIGHT[orientation](RGB))


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
    unknown, broken = "not a picture that Pillow can read", "cannot be read: "
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
    with open(path, "rb") as file, pytest.raises(DataError, match=f"^{path}: not a picture that Pillow can read$"):
        read_image(file)
    with pytest.raises(DataError, match=r"^picture: cannot be read: image file is trunc"):
        read_image(cut)
    cut.name = "standard input"
    with pytest.raises(DataError, match=r"^standard input: cannot be read: image file is trunc"):
        read_image(cut)


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(DataError, match=f"^{tmp_path}/gone.png: cannot be read: No such file or directory$"):
        read_image(tmp_path / "gone.png")


def test_an_error_without_a_message_is_named(monkeypatch, save):
    def no_memory(path):
        raise MemoryError

    path = save("1.png")
    monkeypatch.setattr(Image, "open", no_memory)
    with pytest.raises(DataError, match=r"1.png: cannot be read: MemoryError\(\)$"):
        read_image(path)


def test_without_pillow_the_error_says_how_to_get_it(monkeypatch, save):
    path = save("1.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"^pictures are read and resized with Pillow: pip install pillow$"):
        read_image(path)


def test_real_photos(shared):
    train = ImageFolder(shared / "caltech10" / "train")
    val = ImageFolder(shared / "caltech10" / "val", classes=train.classes)
    assert (len(train), len(val), len(train.classes)) == (788, 195, 10)
    assert sorted({label for _, label in val.samples}) == list(range(10))
    for index in range(0, len(train), 40):
        image, label = train[index]
        assert image.dtype == np.uint8 and image.shape[2] == 3
        assert 100 < min(image.shape[:2]) <= 300
        assert image.std() > 5 and train.classes[label] in train.samples[index][0]


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
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(SMOOTH.astype(np.uint8)).convert(mode)
    path = save("1.jpg", stored, exif=exif, quality=95)
    small, full = read_image(path, 40), read_image(path)
    assert small.shape == ((60, 40, 3) if orientation == 6 else (40, 60, 3))
    assert abs(small.astype(int) - Resize(40)(full, np.random.default_rng())).mean() < tolerance
    np.testing.assert_allclose(full, UPRIGHT[orientation](np.asarray(stored.convert("RGB"))), atol=12)


def test_a_folder_passes_least_on(save, tmp_path):
    save("a/1.png"), save("b/2.jpg", SMOOTH.astype(np.uint8))
    folder = ImageFolder(tmp_path, least=4)
    assert [image.shape for image, _ in folder] == [(4, 6, 3), (4, 6, 3)]
    assert ImageFolder(tmp_path, classes=["b", "a"], least=3)[1][0].shape == (3, 4, 3)


def test_a_least_of_nothing(save):
    with pytest.raises(ValueError, match=r"^least must be at least 1 pixel, got 0$"):
        read_image(save("1.png"), 0)


@pytest.mark.parametrize("name", ["1.png", "1.jpg"])
def test_a_slim_picture_is_read_unless_it_has_to_become_larger(save, name):
    path = save(name, np.zeros((1, 5000, 3), np.uint8))
    assert read_image(path).shape == read_image(path, 1).shape == (1, 5000, 3)
    with pytest.raises(DataError) as info:
        read_image(path, 256)
    assert str(info.value) == (
        f"{path}: cannot be read: 5000 x 1 pixels would become 1280000 x 256, and a picture over 50 times as long as wide"
        " is not made larger: remove or crop it"
    )


def test_a_cut_jpeg_is_broken_at_any_fraction(save, tmp_path):
    path = save("cut.jpg", jpeg_bytes(tmp_path)[:-500])
    for least in (None, 64, 8):
        with pytest.raises(DataError, match="cannot be read: image file is trunc"):
            read_image(path, least)
