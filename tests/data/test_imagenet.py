"""ImageNet's folders and files: each form of its labels gives the same samples, and each mistake one line."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

Image = pytest.importorskip("PIL.Image")

from minicnn.data import DataError, DataLoader, ImageNet  # noqa: E402

SYNSETS = ["n01440764", "n01443537", "n02012849", "n03126707"]
WORDS = ["tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "crane"]  # as in ImageNet, two of one name


def stem(i):
    return f"ILSVRC2012_val_{i + 1:08d}"


@pytest.fixture
def root(tmp_path):
    """root/train with two images of each class, in name alone."""
    for synset in reversed(SYNSETS):
        folder = tmp_path / "train" / synset
        folder.mkdir(parents=True)
        for i in (10026, 999):
            (folder / f"{synset}_{i}.JPEG").touch()
    return tmp_path


def flat(root, labels, caffe=True):
    """A flat val/ whose images have these labels, and the file that says so."""
    (root / "val").mkdir()
    for i in range(len(labels)):
        (root / "val" / f"{stem(i)}.JPEG").touch()
    write_labels(root, labels, caffe)


def write_labels(root, labels, caffe=True):
    order = reversed(range(len(labels)))  # Kaggle's are in none
    if caffe:
        (root / "val.txt").write_text("".join(f"{stem(i)}.JPEG {labels[i]}\n" for i in order))
    else:
        boxes = [" 85 1 499 272", " 1 2 3 4 {0} 5 6 7 8", ""]
        lines = (f"{stem(i)},{SYNSETS[labels[i]]}{boxes[i % 3].format(SYNSETS[labels[i]])} \n" for i in order)
        (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(lines))


def words(root, name="synset_words.txt"):
    lines = [f"{synset} {words}\n" for synset, words in zip(SYNSETS, WORDS, strict=True)]
    (root / name).write_text("".join(lines[2:] + lines[:2]) + "\n")


def message(root, train=False):
    with pytest.raises(DataError) as info:
        ImageNet(root, train=train)
    assert "\n" not in str(info.value)
    return str(info.value)


# -- what is found --------------------------------------------------------------------------------------------------


def test_training_pictures(root):
    dataset = ImageNet(root)
    assert dataset.classes == dataset.names == SYNSETS
    names = [(Path(path).name, label) for path, label in dataset.samples]
    assert names == [(f"{s}_{i}.JPEG", label) for label, s in enumerate(SYNSETS) for i in (10026, 999)]
    assert dataset.samples[0][0] == str(root / "train" / SYNSETS[0] / f"{SYNSETS[0]}_10026.JPEG")


@pytest.mark.parametrize("name", ["synset_words.txt", "LOC_synset_mapping.txt"])
def test_words_belong_to_their_classes(root, name):
    words(root, name)
    flat(root, [3, 0])
    for train in (True, False):
        dataset = ImageNet(str(root), train=train)
        assert dataset.classes == SYNSETS and dataset.names == WORDS


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_every_form_of_labels_gives_the_same_samples(tmp_path_factory, labels):
    found = []
    for form in ("caffe", "kaggle", "folders"):
        root = tmp_path_factory.mktemp(form)
        for synset in SYNSETS:
            (root / "train" / synset).mkdir(parents=True)
            (root / "val" / synset).mkdir(parents=True)
            (root / "val" / synset / "z.JPEG").touch()  # a class folder is never empty
        if form == "folders":
            for i, label in enumerate(labels):
                (root / "val" / SYNSETS[label] / f"{stem(i)}.JPEG").touch()
            samples = [sample for sample in ImageNet(root, train=False).samples if not sample[0].endswith("z.JPEG")]
        else:
            for synset in SYNSETS:
                (root / "val" / synset / "z.JPEG").unlink()
                (root / "val" / synset).rmdir()
            (root / "val").rmdir()
            flat(root, labels, form == "caffe")
            samples = ImageNet(root, train=False).samples
        found.append(sorted((Path(path).name, label) for path, label in samples))
    assert found[0] == found[1] == found[2] == [(f"{stem(i)}.JPEG", label) for i, label in enumerate(labels)]


def test_pictures_are_read_when_they_are_asked_for(root):
    flat(root, [2, 1])
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for i in range(2):
        Image.fromarray(pixels).save(root / "val" / f"{stem(i)}.JPEG", "JPEG", quality=95)
    dataset = ImageNet(root, train=False, least=20)
    assert len(dataset) == 2 and dataset[0][0].shape == (20, 27, 3) and dataset[0][1] == 2
    images, labels = next(iter(DataLoader(dataset, 2)))
    assert images.shape == (2, 20, 27, 3) and labels.tolist() == [2, 1]


def test_without_train_the_words_tell_the_classes(root):
    (root / "train").rename(root / "elsewhere")
    flat(root, [3, 1, 0], caffe=False)
    words(root)
    dataset = ImageNet(root, train=False)
    assert dataset.classes == SYNSETS and [label for _, label in dataset.samples] == [3, 1, 0]


def test_names_without_ending_and_case_of_endings(root):
    """Kaggle's names have no ending; Caffe's may have another than the file by now, or a folder."""
    flat(root, [1, 2])
    (root / "val" / f"{stem(0)}.JPEG").rename(root / "val" / f"{stem(0)}.jpg")
    (root / "val.txt").write_text(f"val/{stem(0)}.JPEG 1\n\n  {stem(1)}.JPEG 2  \n")
    assert [label for _, label in ImageNet(root, train=False).samples] == [1, 2]


@pytest.mark.parametrize("ending", ["", ".JPEG"])
def test_names_with_points(root, ending):
    """What follows the last one is an ending only if there is no such image."""
    (root / "val").mkdir()
    for i in (0, 1):
        (root / "val" / f"crane.{i}.JPEG").touch()
    (root / "LOC_val_solution.csv").write_text("".join(f"crane.{i}{ending},{SYNSETS[i + 1]}\n" for i in (0, 1)))
    assert [label for _, label in ImageNet(root, train=False).samples] == [1, 2]


def test_pictures_that_differ_by_their_endings_alone(root):
    flat(root, [1, 2])
    (root / "val" / f"{stem(1)}.png").touch()
    with pytest.raises(DataError, match=rf"{stem(1)}.png and .*{stem(1)}.JPEG have the same name but for the ending"):
        ImageNet(root, train=False)


def test_caffes_blanks_may_be_any(root):
    flat(root, [1, 2])
    (root / "val" / f"{stem(0)}.JPEG").rename(root / "val" / "a b.JPEG")
    (root / "val.txt").write_text(f"a b.JPEG\t1\n{stem(1)}.JPEG \t  2\n")
    assert [label for _, label in ImageNet(root, train=False).samples] == [2, 1]


@pytest.mark.parametrize("caffe", [True, False])
def test_a_byte_order_mark(root, caffe):
    flat(root, [1, 2], caffe)
    words(root)
    for name in ("val.txt" if caffe else "LOC_val_solution.csv", "synset_words.txt"):
        (root / name).write_bytes(b"\xef\xbb\xbf" + (root / name).read_bytes())
    dataset = ImageNet(root, train=False)
    assert [label for _, label in dataset.samples] == [1, 2] and dataset.names == WORDS


@pytest.mark.parametrize("form", ["{}.JPEG 2\n", "ImageId,PredictionString\n{},n02012849\n"])
def test_names_of_files_that_are_not_utf_8(root, form):
    name = b"caf\xe9"
    (root / "val").mkdir()
    (root / "val" / os.fsdecode(name + b".JPEG")).touch()
    (root / ("LOC_val_solution.csv" if "," in form else "val.txt")).write_bytes(form.encode().replace(b"{}", name))
    assert [(os.path.basename(os.fsencode(path)), label) for path, label in ImageNet(root, train=False).samples] == [
        (b"caf\xe9.JPEG", 2)
    ]


def test_words_that_are_not_utf_8_can_still_be_printed(root):
    words(root)
    content = (root / "synset_words.txt").read_bytes()
    (root / "synset_words.txt").write_bytes(content.replace(b" tench, Tinca", b"\tt\xe9nch,\tTinca"))
    assert ImageNet(root).names == ["t\ufffdnch,\tTinca tinca", *WORDS[1:]]


def test_caffes_labels_come_before_kaggles(root):
    flat(root, [1, 2])
    write_labels(root, [0, 0], caffe=False)
    assert [label for _, label in ImageNet(root, train=False).samples] == [1, 2]


# -- trees as they come ---------------------------------------------------------------------------------------------


def test_imagenet_as_kaggle_unpacks_it(root):
    words(root, "LOC_synset_mapping.txt")
    flat(root, [3, 1, 0], caffe=False)
    beside, tree = ImageNet(root, train=False), root / "ILSVRC" / "Data" / "CLS-LOC"
    tree.mkdir(parents=True)
    (tree / "test").mkdir()
    for part in ("train", "val"):
        (root / part).rename(tree / part)
    for train, labels in ((True, [0, 0, 1, 1, 2, 2, 3, 3]), (False, [3, 1, 0])):
        dataset = ImageNet(root, train=train)
        assert dataset.classes == SYNSETS and dataset.names == WORDS == beside.names
        assert [label for _, label in dataset.samples] == labels
        assert all(Path(path).exists() and Path(path).is_relative_to(tree) for path, _ in dataset.samples)
    (tree / "train").rename(root / "elsewhere")
    assert [label for _, label in ImageNet(root, train=False).samples] == [3, 1, 0]
    (root / "LOC_val_solution.csv").unlink()
    assert f"{tree}/val: its images are in no class folders, so {root} needs their labels in val.txt" in message(root)
    (root / "train").mkdir()  # then the tree is here
    assert message(root, train=True).startswith(f"{root}/train: no class folders")


@pytest.fixture
def tiny(root):
    """tiny-imagenet's tree."""
    for synset in SYNSETS:
        folder = root / "train" / synset
        (folder / "images").mkdir()
        for picture in list(folder.glob("*.JPEG")):
            picture.rename(folder / "images" / picture.name)
        (folder / f"{synset}_boxes.txt").write_text("1.JPEG\t0\t10\t63\t58\n")
    (root / "val" / "images").mkdir(parents=True)
    for i in range(3):
        (root / "val" / "images" / f"val_{i}.JPEG").touch()
    lines = (f"val_{i}.JPEG\t{SYNSETS[label]}\t0\t32\t44\t62\n" for i, label in enumerate([2, 0, 3]))
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return root


def test_tiny_imagenet(tiny):
    train, val = ImageNet(tiny), ImageNet(tiny, train=False)
    assert train.classes == val.classes == SYNSETS and [label for _, label in train.samples] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [(os.path.relpath(path, tiny), label) for path, label in val.samples] == [
        ("val/images/val_0.JPEG", 2), ("val/images/val_1.JPEG", 0), ("val/images/val_2.JPEG", 3)
    ]  # fmt: skip
    assert train.names == val.names == SYNSETS
    everything = "".join(f"{synset}\t{words}\n" for synset, words in zip(SYNSETS, WORDS, strict=True))
    (tiny / "words.txt").write_text("n00001740\tentity\n" + everything + "n99999999\n")
    assert ImageNet(tiny).names == SYNSETS  # of which classes it is, is not said: another file of that name, perhaps
    (tiny / "wnids.txt").write_text("\n".join(SYNSETS[::-1]))
    (tiny / "train").rename(tiny / "elsewhere")
    without_train = ImageNet(tiny, train=False)
    (tiny / "elsewhere").rename(tiny / "train")
    for dataset in (ImageNet(tiny), ImageNet(tiny, train=False), without_train):
        assert dataset.classes == SYNSETS and dataset.names == WORDS
    words(tiny, "synset_words.txt")
    (tiny / "wnids.txt").write_text("")
    assert ImageNet(tiny).names == WORDS  # this one comes first
    (tiny / "val.txt").write_text("".join(f"val_{i}.JPEG {i}\n" for i in range(3)))  # as prepare.py writes it
    assert [label for _, label in ImageNet(tiny, train=False).samples] == [0, 1, 2]


def test_a_class_may_be_called_images(root):
    for part in ("train", "val"):
        (root / part / "images").mkdir(parents=True)
        (root / part / "images" / "1.JPEG").touch()
    assert [label for _, label in ImageNet(root, train=False).samples] == [0]


def test_mistakes_in_tiny_imagenet(tiny):
    labels = tiny / "val" / "val_annotations.txt"
    with open(labels, "a") as file:
        file.write("val_3.JPEG\tn99999999\t0\t32\t44\t62\n")
    assert message(tiny) == (
        f"{labels}, line 4: 'val_3.JPEG\\tn99999999\\t0\\t32\\t44\\t62' is not a file's name, a tab and one of the"
        " 4 classes"
    )
    labels.write_text(f"val_0.JPEG\t{SYNSETS[0]}\t1\n")
    assert message(tiny).endswith("images without a label: val_1, val_2; labels without an image: none")
    labels.unlink()
    assert "needs their labels in val.txt or LOC_val_solution.csv" in message(tiny)


def test_a_validation_set_may_lack_classes(root):
    for synset in SYNSETS[2:]:
        (root / "val" / synset).mkdir(parents=True)
        (root / "val" / synset / "1.JPEG").touch()
    dataset = ImageNet(root, train=False)
    assert dataset.classes == SYNSETS and [label for _, label in dataset.samples] == [2, 3]


# -- mistakes -------------------------------------------------------------------------------------------------------


def test_folders_that_are_missing(root, tmp_path):
    nowhere = tmp_path / "nowhere"
    assert message(nowhere, train=True).startswith(f"{nowhere}/train: does not exist; ")
    needs = (
        ": needs the folder val/ with the validation images, and train/ or one of synset_words.txt and"
        " LOC_synset_mapping.txt to tell the classes"
    )
    assert message(nowhere) == f"{nowhere}{needs}"
    assert message(root) == f"{root}{needs}"
    (root / "val").mkdir()
    (root / "train").rename(root / "other")
    assert message(root) == f"{root}{needs}"


def test_val_folders_that_differ_from_train(root):
    for synset in [*SYNSETS[1:], "n99999999"]:
        (root / "val" / synset).mkdir(parents=True)
    assert message(root) == (
        f"{root}/val: class folders differ from the classes asked for (missing: n01440764; unknown: n99999999)"
    )


def test_labels_that_are_missing(root):
    flat(root, [0, 1])
    (root / "val.txt").unlink()
    needs = f"{root}/val: its images are in no class folders, so {root} needs their labels in val.txt or LOC_val_solution.csv"
    assert message(root) == needs
    (root / "ILSVRC2012_validation_ground_truth.txt").write_text("490\n361\n")
    assert message(root) == (
        needs + "; ILSVRC2012_validation_ground_truth.txt cannot be used, because its labels follow the devkit's own"
        " order of the classes"
    )


@pytest.mark.parametrize(
    "line", ["x.JPEG 4", "x.JPEG -1", "x.JPEG 01", "x.JPEG 1.0", "x.JPEG", "3", "4", f"x.JPEG {SYNSETS[0]}"]
)
def test_a_label_out_of_range(root, line):
    flat(root, [0, 1])
    with open(root / "val.txt", "a") as file:
        file.write(f"\n{line}\n")
    assert message(root) == f"{root}/val.txt, line 4: {line!r} is not a file and a label from 0 to 3"


@pytest.mark.parametrize("line", ["x,n99999999 1 2 3 4", "x,", "x", f"x {SYNSETS[0]}", f"x,1 {SYNSETS[0]}"])
def test_a_synset_that_is_unknown(root, line):
    flat(root, [0, 1], caffe=False)
    with open(root / "LOC_val_solution.csv", "a") as file:
        file.write(f"{line}\n")
    assert message(root) == (
        f"{root}/LOC_val_solution.csv, line 4: {line!r} is not a file's name, a comma and one of the 4 classes"
    )


def test_long_lines_are_cut(root):
    flat(root, [0])
    (root / "val.txt").write_text("x" * 1000)
    assert message(root) == f"{root}/val.txt, line 1: {'x' * 60!r} is not a file and a label from 0 to 3"


def test_labels_and_pictures_that_do_not_belong_together(root):
    flat(root, [0, 1, 2])
    (root / "val" / f"{stem(0)}.JPEG").unlink()
    (root / "val" / "more.JPEG").touch()
    assert message(root) == (
        f"{root}/val.txt does not fit {root}/val: images without a label: more; labels without an image: {stem(0)}"
    )
    (root / "val" / "more.JPEG").unlink()
    assert message(root).endswith(f": images without a label: none; labels without an image: {stem(0)}")
    write_labels(root, [0, 1])
    (root / "val" / f"{stem(0)}.JPEG").touch()
    assert message(root).endswith(f": images without a label: {stem(2)}; labels without an image: none")


def test_two_labels_of_one_picture(root):
    flat(root, [0, 1])
    with open(root / "val.txt", "a") as file:
        file.write(f"{stem(1)}.JPEG 0\n")
    assert message(root) == f"{root}/val.txt, line 3: {stem(1)} has a label already"


def test_words_that_do_not_fit(root):
    (root / "synset_words.txt").write_text(f"{SYNSETS[0]} tench\n\n{SYNSETS[1]}\n")
    assert (
        message(root, train=True)
        == f"{root}/synset_words.txt, line 3: {SYNSETS[1]!r} is not a class's id and its words"
    )
    (root / "synset_words.txt").write_text(f"{SYNSETS[0]} tench\n{SYNSETS[1]} goldfish\n")
    assert message(root, train=True) == (
        f"{root}/synset_words.txt: has no words for the classes of {root}/train: n02012849, n03126707"
    )


def test_no_pictures_to_validate_on(root):
    flat(root, [])
    assert message(root).startswith(f"{root}/val: no images in this folder (endings accepted: ")


def test_bytes_that_are_no_text(root):
    flat(root, [0])
    (root / "val.txt").write_bytes(b"\xff\xfe\x00 0\n")
    assert message(root).startswith(f"{root}/val.txt does not fit {root}/val: ")
