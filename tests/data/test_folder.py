import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

from minicnn.data import (  # noqa: E402
    DataError,
    ImageFolder,
    reading,
)
from minicnn.data.folder import ENDINGS, image_files  # noqa: E402

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_classes_and_files_are_sorted_and_labeled(save, tmp_path):
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


def test_what_a_folder_prints(save, tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        save(name)
    assert repr(ImageFolder(tmp_path)) == "ImageFolder(3 images, 2 classes)"


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
        "@eaDir/6.png",  # Synology's disks have it
        "7.png",
    ):
        save(name, b"")
    assert [Path(path).name for path, _ in ImageFolder(tmp_path).samples] == ["1.PNG", "5.Jpeg"]


def test_every_accepted_ending_can_be_read(save, tmp_path):
    """Of .avif, where Pillow can."""
    endings = [ending for ending in ENDINGS if reading.FORMATS[ending] in reading.formats()]
    for ending in ENDINGS:
        if ending in endings:
            save(f"a/picture{ending}", RGB[:, :, 0] if ending == ".pgm" else RGB, format=reading.FORMATS[ending])
        else:
            save(f"a/picture{ending}", b"")
    save("b/1.png")
    folder = ImageFolder(tmp_path)
    assert {".jfif", ".avif"} < set(ENDINGS) and len(endings) >= 11 and len(folder) == len(endings) + 1
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

    root, usage = tmp_path / "root", "; pass a folder that holds one folder of images per class"
    assert message(root) == f"{root}: does not exist{usage}"
    file = save("file.png")
    assert message(file) == f"{file}: is not a folder{usage}"
    root.mkdir()
    needs = "; at least two are needed, each with the images of one class"
    assert message(root) == f"{root}: no class folders{needs}"
    save("root/cat/1.png")
    assert message(root) == f"{root}: only one class folder, 'cat'{needs}"
    (root / "dog").mkdir()
    assert message(root) == (
        f"{root}/dog: no images in this folder (endings accepted:"
        " .jpg .jpeg .jfif .png .gif .bmp .webp .tif .tiff .ppm .pgm .avif)"
    )
    differ = f"{root}: class folders differ from the classes asked for"
    assert message(root, classes=["cat"]) == f"{differ} (missing: none; unknown: dog)"
    assert message(root, classes=["dog", "eel"]) == f"{differ} (missing: eel; unknown: cat)"
    assert (
        message(root, classes=["cat", "dog", "cat"]) == "classes: 'cat' and 'cat' are the same name: rename one of them"
    )
    assert message(root, classes=["cat", *"gfedcba"]) == f"{differ} (missing: a, b, c, d, e and 2 more; unknown: dog)"
    assert message(root, classes=["cat", *"fedcba"]) == f"{differ} (missing: a, b, c, d, e and 1 more; unknown: dog)"
    assert message(root, classes=["cat", *"edcba"]) == f"{differ} (missing: a, b, c, d, e; unknown: dog)"


@pytest.mark.parametrize("classes", [None, ["cat", "dog"]])
def test_pictures_in_no_class_folders_may_be_imagenets(save, tmp_path, classes):
    save("1.JPEG", b"")
    with pytest.raises(DataError) as info:
        ImageFolder(tmp_path, classes=classes)
    assert str(info.value) == (
        f"{tmp_path}: images, but no class folders; ImageNet's flat validation folder is read with"
        " minicnn.data.ImageNet (imagenet:DIR in train.py)"
    )


def test_a_validation_folder_may_lack_classes(save, tmp_path):
    """The labels stay those of all classes; but a folder that is there has images, and at least one is."""
    for name in ("train/ant/1.png", "train/bee/1.png", "train/cat/1.png", "val/cat/1.png", "val/ant/1.png"):
        save(name)
    classes = ImageFolder(tmp_path / "train").classes
    val = ImageFolder(tmp_path / "val", classes=classes)
    assert val.classes == ["ant", "bee", "cat"] and [label for _, label in val.samples] == [0, 2]
    (tmp_path / "val" / "bee").mkdir()
    with pytest.raises(DataError, match="val/bee: no images in this folder"):
        ImageFolder(tmp_path / "val", classes=classes)
    save("val/dog/1.png")
    with pytest.raises(DataError, match=r"\(missing: none; unknown: dog\)"):
        ImageFolder(tmp_path / "val", classes=classes)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: class folders differ .*\(missing: ant, bee, cat; unknown: none\)"):
        ImageFolder(tmp_path / "empty", classes=classes)


def test_folders_called_by_numbers_are_sorted_as_strings_and_matched_by_name(save, tmp_path):
    """As torchvision sorts them: 10 has the label 2."""
    for number in range(12):
        save(f"train/{number}/1.png"), save(f"val/{number}/1.png")
    train = ImageFolder(tmp_path / "train")
    assert train.classes == ["0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9"]
    by_number = ImageFolder(tmp_path / "val", classes=[str(number) for number in range(12)])
    for folder in (train, by_number):
        assert all(folder.classes[label] == Path(path).parent.name for path, label in folder.samples)
    with pytest.raises(DataError, match=r"\(missing: ant, bee; unknown: 10, 11\)"):
        ImageFolder(tmp_path / "val", classes=[*map(str, range(10)), "ant", "bee"])


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_an_accent_may_be_written_in_two_ways(save, tmp_path, forms):
    for part, form in zip(("train", "val"), forms, strict=True):
        for name in ("bar", "café", "Ω"):
            save(f"{part}/{unicodedata.normalize(form, name)}/1.png")
    train = ImageFolder(tmp_path / "train")
    val = ImageFolder(tmp_path / "val", classes=train.classes)
    assert val.classes == train.classes == [unicodedata.normalize(forms[0], name) for name in ("bar", "café", "Ω")]
    assert [label for _, label in val.samples] == [0, 1, 2] and all(Path(path).exists() for path, _ in val.samples)


def test_two_folders_of_one_name_are_refused(save, tmp_path):
    for form in ("NFC", "NFD"):
        save(f"{unicodedata.normalize(form, 'café')}/1.png")
    with pytest.raises(DataError) as info:
        ImageFolder(tmp_path)
    assert str(info.value) == f"{tmp_path}: 'cafe\\u0301' and 'caf\\xe9' are the same name: rename one of them"


def test_pictures_in_a_folder_called_images_are_the_classs(save, tmp_path):
    """As in tiny-imagenet."""
    save("train/n01/images/b.JPEG"), save("train/n01/images/a.JPEG"), save("train/n01/n01_boxes.txt", b"a.JPEG 1 2 3 4")
    save("train/n02/c.png"), save("train/n02/images/d.png")
    names = [(os.path.relpath(path, tmp_path), label) for path, label in ImageFolder(tmp_path / "train").samples]
    assert names == [("train/n01/images/a.JPEG", 0), ("train/n01/images/b.JPEG", 0), ("train/n02/c.png", 1)]


def test_pictures_further_down_are_mentioned(save, tmp_path, monkeypatch):
    def message(folder):
        with pytest.raises(DataError) as info:
            ImageFolder(tmp_path / folder)
        return str(info.value).partition(" (endings")[0].removeprefix(f"{tmp_path}/")

    save("one/a/deep/er/2.png"), save("one/a/deep/er/1.png"), save("one/a/deep/notes.txt", b""), save("one/a/x/0.png")
    save("one/b/1.png")
    within = "no images in this folder, but in folders within it, where images are not searched for, such as"
    assert message("one") == f"one/a: {within} {tmp_path}/one/a/deep/er/1.png"
    save("two/a/images/1.png"), save("two/a/more/2.png"), save("two/b/1.png")
    assert message("two") == f"two/a: {within} {tmp_path}/two/a/images/1.png"
    monkeypatch.setattr("minicnn.data.folder.SEARCHED", 1)
    assert message("one") == "one/a: no images in this folder"
    monkeypatch.setattr("minicnn.data.folder.SEARCHED", 2)
    assert message("one").startswith("one/a: no images in this folder, but in")


@pytest.mark.parametrize("classes", [None, ["a", "b"]])
def test_a_flat_folder_of_tiny_imagenets_is_read_with_another_class(save, tmp_path, classes):
    save("images/val_0.JPEG")
    with pytest.raises(DataError, match="images, but no class folders; ImageNet's flat validation folder is read with"):
        ImageFolder(tmp_path, classes=classes)
    assert len(ImageFolder(tmp_path, classes=["images", "other"])) == 1


def test_what_is_no_regular_file_is_not_listed(save, tmp_path):
    """A link to itself, one to nothing, a pipe; a link to an image is."""
    save("a/1.png"), save("b/2.png")
    os.symlink("loop.png", tmp_path / "a" / "loop.png")
    os.symlink("nothing.png", tmp_path / "a" / "dangling.png")
    os.symlink("../b/2.png", tmp_path / "a" / "linked.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    os.symlink("c", tmp_path / "c")  # a class that is a link to itself
    folder = ImageFolder(tmp_path)
    assert folder.classes == ["a", "b"]
    assert [Path(path).name for path, _ in folder.samples] == ["1.png", "linked.png", "2.png"]
    assert len(image_files(str(tmp_path / "a"))) == 2


def test_avif_is_listed_where_pillow_can_read_it(save, tmp_path, monkeypatch):
    save("a/1.png"), save("a/2.avif", b""), save("b/1.png")
    known = reading.formats()
    for formats, number in ((["PNG", "AVIF"], 3), (["PNG"], 2), (known, 2 + ("AVIF" in known))):
        monkeypatch.setattr("minicnn.data.folder.formats", lambda formats=formats: formats)
        assert len(ImageFolder(tmp_path)) == number


def test_one_class_will_do_if_it_is_what_was_asked_for(save, tmp_path):
    save("cat/1.png")
    assert len(ImageFolder(tmp_path, classes=["cat"])) == 1


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


@pytest.mark.parametrize("classes", ["cat", b"cat", [1, 2], ["cat", None]])
def test_classes_that_are_no_names(save, tmp_path, classes):
    save("cat/1.png"), save("dog/1.png")
    with pytest.raises(TypeError, match=r"^classes must be a list of strings, not "):
        ImageFolder(tmp_path, classes=classes)


def test_a_folder_passes_least_on(save, tmp_path):
    save("a/1.png"), save("b/2.jpg", np.zeros((320, 480, 3), np.uint8))
    folder = ImageFolder(tmp_path, least=4)
    assert [image.shape for image, _ in folder] == [(4, 6, 3), (4, 6, 3)]
    assert ImageFolder(tmp_path, classes=["b", "a"], least=3)[1][0].shape == (3, 4, 3)
