"""confusion.py: figures for each class, the text and the image of a confusion matrix."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from support import confusion

WORDS = [
    "tench, Tinca tinca",
    "yellow lady's slipper, yellow lady-slipper, Cypripedium calceolus",
    r"$\frac$",
    "été",
    "caf\udce9",  # a folder's name that is not UTF-8
]


@st.composite
def matrices(draw):
    classes = draw(st.integers(1, 6))
    rows = st.lists(st.integers(0, 3), min_size=classes, max_size=classes)
    return np.array(draw(st.lists(rows, min_size=classes, max_size=classes)))


@given(matrices())
def test_figures_of_each_class(matrix):
    """Counted from the list of all images, each a pair of its class and the answer."""
    pairs = [(i, k) for (i, k), count in np.ndenumerate(matrix) for _ in range(count)]
    classes, names = [f"n{k}" for k in range(len(matrix))], [f"name {k}" for k in range(len(matrix))]
    for k, row in enumerate(confusion.per_class(matrix, classes, names)):
        answers, sources = [a for i, a in pairs if i == k], [i for i, a in pairs if a == k]
        wrong = [a for a in answers if a != k]
        assert (row["class"], row["name"], row["images"]) == (classes[k], names[k], len(answers))
        assert row["right"] == answers.count(k) == sources.count(k)
        assert row["recall"] == (pytest.approx(100 * answers.count(k) / len(answers)) if answers else None)
        assert row["precision"] == (pytest.approx(100 * sources.count(k) / len(sources)) if sources else None)
        most = max(set(wrong), key=lambda a: (wrong.count(a), -a)) if wrong else None
        assert row["taken_for"] == (classes[most] if wrong else None) and row["times"] == wrong.count(most)


@given(matrices(), st.integers(1, 40))
def test_the_most_confused_classes(matrix, most):
    """Of equally frequent mistakes, the first comes first."""
    pairs = [(-count, i, k) for (i, k), count in np.ndenumerate(matrix) if i != k and count]
    assert confusion.most_confused(matrix, most) == [(i, k, -count) for count, i, k in sorted(pairs)[:most]]
    assert all(type(number) is int for pair in confusion.most_confused(matrix, most) for number in pair)


def test_a_pixel_for_each_cell():
    """From white to dark blue, by the share of the row; small shares can be seen."""
    pytest.importorskip("matplotlib")
    colors = confusion.colors(np.array([[99, 1, 0], [0, 0, 0], [0, 3, 1]]))
    assert colors.shape == (3, 3, 3) and colors.dtype == np.uint8
    red = colors[..., 0].astype(int)
    white, dark = red[1, 1], red[0, 0]
    assert white > 240 and dark < 20 and (red[1] == white).all() and red[0, 2] == red[2, 0] == white
    assert dark < red[2, 1] < red[2, 2] < red[0, 1] < white - 10
    assert (
        confusion.colors(np.eye(2, dtype=int))[0, 0, 0] == confusion.colors(9 * np.eye(2, dtype=int))[0, 0, 0] <= dark
    )
    assert (colors[2, 1] == confusion.colors(np.array([[3, 1], [0, 5]]) * 2)[0, 0]).all()


MATRIX = np.array([[7, 0, 3], [0, 0, 0], [12, 0, 100]])


def test_the_texts():
    table = confusion.per_class(MATRIX, ["a", "b", "c"], ["ant", "a bee of more than 24 letters", "cat"])
    assert confusion.table_text(table, worst=3).splitlines() == [
        "class                     images  recall  precision  most often taken for",
        "ant                             10   70.0%      36.8%  cat (3)",
        "a bee of more than 24 l…         0       -          -  -",
        "cat                            112   89.3%      97.1%  ant (12)",
    ]
    assert confusion.matrix_text(MATRIX, ["ant", "bee", "a cat that sits"]).splitlines() == [
        "         taken for    1   2   3",
        " 1 ant                7   .   3",
        " 2 bee                .   .   .",
        " 3 a cat that sits   12   . 100",
    ]


def test_of_many_classes_the_worst_are_listed():
    """Those without images are not the worst; of equal recall, the one that is said wrongly more often comes first."""
    matrix = np.diag([9, 5, 5, 1, 0]) + np.array([[1, 0, 0, 0, 0], [0, 0, 5, 0, 0], [0, 1, 0, 4, 0], [0] * 5, [0] * 5])
    table = confusion.per_class(matrix, list("abcde"), list("ABCDE"))
    title, _, *lines = confusion.table_text(table, worst=4).splitlines()
    assert title == "the 4 classes with the lowest recall, of 5:"
    assert [line.split()[0] for line in lines] == ["C", "B", "D", "A"]
    assert [line.split()[0] for line in confusion.table_text(table, worst=1).splitlines()[2:]] == ["C"]
    assert confusion.table_text(table, worst=5).splitlines()[1].startswith("A ")
    never_said = np.array([[0, 3, 0], [0, 2, 1], [0, 1, 0]])
    table = confusion.per_class(never_said, list("abc"), list("ABC"))
    assert [line[0] for line in confusion.table_text(table, worst=2).splitlines()[2:]] == ["A", "C"]


def drawn(tmp_path, matrix, names):
    image = pytest.importorskip("PIL.Image")
    confusion.draw(tmp_path / "matrix.png", matrix, names)
    with image.open(tmp_path / "matrix.png") as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize("classes", [2, 5])
def test_pictures_of_few_classes(tmp_path, classes):
    """The cells of a network that is always right run down to the right."""
    pixels = drawn(tmp_path, 9 * np.eye(classes, dtype=int), WORDS[:classes])
    assert 200 < len(pixels) < 2000 and 200 < pixels.shape[1] < 2000
    dark = (pixels[..., 2] - pixels[..., 0] > 60) & (pixels[..., 0] < 30)
    rows, columns = np.nonzero(dark[:, : int(0.7 * pixels.shape[1])])  # without the color bar
    assert len(rows) > 1000 and np.corrcoef(rows, columns)[0, 1] > 0.5


def test_in_a_picture_of_many_classes_several_share_a_cell(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    shown, imshow = [], Axes.imshow
    monkeypatch.setattr(Axes, "imshow", lambda self, x, **options: shown.append(x) or imshow(self, x, **options))
    monkeypatch.setattr(confusion, "CELLS", 5)
    matrix = np.random.default_rng(0).integers(0, 9, (45, 45))
    matrix[:9] = 0
    assert min(drawn(tmp_path, matrix, WORDS * 9).shape[:2]) > 1000
    (share,) = shown
    assert share.shape == (5, 5) and not share[0].any()
    np.testing.assert_allclose(share[1:].sum(axis=1), 100)
    assert share[4, 2] == pytest.approx(100 * matrix[36:, 18:27].sum() / matrix[36:].sum())
    drawn(tmp_path, matrix[:44, :44], (WORDS * 9)[:44])
    assert shown[1][4, 2] == pytest.approx(100 * matrix[36:44, 18:27].sum() / matrix[36:44, :44].sum())  # of 8 classes
