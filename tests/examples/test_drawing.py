"""How the programs draw: with no settings of the user's, from a notebook, and names in any
script."""

import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import predict
import pytest
from support import confusion, drawing

import minicnn

Image = pytest.importorskip("PIL.Image")
matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("matplotlib.figure")  # and with it font_manager, ft2font and text

ROW = {"epoch": 1, "train_loss": 2.3, "train_top1": 10.0, "val_loss": 2.4, "val_top1": 15.0, "val_top5": 55.0}


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


# -- settings -------------------------------------------------------------------------------------------------------


def test_a_users_settings_change_nothing(tmp_path):
    """Neither LaTeX, which may not be there, nor colors and sizes; and they are the user's again
    afterwards."""
    own = {"text.usetex": True, "axes.facecolor": "black", "savefig.dpi": 30, "font.size": 30}
    photo = np.zeros((9, 9, 3), np.uint8)
    for draw in (
        lambda path: drawing.draw_curves([ROW], path),
        lambda path: drawing.draw_filters(np.ones((3, 3, 3, 4)), path),
        lambda path: confusion.draw(path, np.eye(2, dtype=int), ["a", "b"]),
        lambda path: predict.draw(path, [(photo, [(0, 0.9), (1, 0.1)])], ["a", "b"]),
    ):
        draw(tmp_path / "plain.png")
        with matplotlib.rc_context(own):
            draw(tmp_path / "own.png")
            assert all(matplotlib.rcParams[name] == value for name, value in own.items())
        np.testing.assert_array_equal(pixels(tmp_path / "plain.png"), pixels(tmp_path / "own.png"))


def in_a_process(program, folder, **environment):
    variables = {"PYTHONPATH": f"{Path(minicnn.__file__).parents[1]}", "MPLCONFIGDIR": str(folder), **environment}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(drawing.__file__).parents[1],
        env=variables,
        capture_output=True,
        text=True,
    )


def test_from_a_notebook(tmp_path):
    """Whose kernel tells the programs that it starts to draw in a way that their Python need not
    have."""
    program = f"from support import drawing; drawing.draw_curves([{ROW}], {str(tmp_path / 'curves.png')!r})"
    result = in_a_process(program, tmp_path, MPLBACKEND="module://matplotlib_inline.backend_inline")
    assert (result.returncode, result.stderr) == (0, "") and (tmp_path / "curves.png").exists()


def test_with_a_matplotlibrc_that_asks_for_latex(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    program = f"from support import drawing; drawing.draw_curves([{ROW}], {str(tmp_path / 'curves.png')!r})"
    result = in_a_process(program, tmp_path, MATPLOTLIBRC=str(tmp_path / "matplotlibrc"), PATH="")
    assert (result.returncode, result.stderr) == (0, "") and (tmp_path / "curves.png").exists()


@pytest.mark.parametrize(
    "error, words",
    [
        (ModuleNotFoundError("No module named 'matplotlib'"), "drawing needs matplotlib: pip install matplotlib"),
        (ImportError("numpy.core failed"), "matplotlib, which cannot be imported: numpy.core failed"),
        (AttributeError("_ARRAY_API"), "matplotlib, which cannot be imported: _ARRAY_API"),
    ],
)
def test_a_matplotlib_that_is_not_there_or_does_not_work(monkeypatch, mistake, tmp_path, error, words):
    class Broken(types.ModuleType):
        def __getattr__(self, name):
            raise error

    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    finder = types.SimpleNamespace(find_spec=lambda name, *_: fail(error) if name == "matplotlib" else None)
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    mistake(words, "train.py", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def fail(error):
    raise error


# -- curves ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top5, lines", [(True, 3), (False, 2)])
def test_curves_with_and_without_the_five_best(monkeypatch, tmp_path, top5, lines):
    figure = drawing.new_figure(9, 3.6)
    monkeypatch.setattr(drawing, "new_figure", lambda *_: figure)
    drawing.draw_curves([ROW], tmp_path / "curves.png", top5)
    assert len(figure.axes[1].get_lines()) == lines


# -- filters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, rows", [(1, 1), (16, 1), (17, 2), (48, 3)])
def test_each_kernel_has_a_place_and_a_scale_of_its_own(n, rows):
    weight = np.random.default_rng(n).standard_normal((3, 4, 3, n)) * np.arange(1, n + 1)
    sheet = drawing.filter_sheet(weight)
    assert sheet.shape == (rows * 4 + 1, 16 * 5 + 1, 3)
    for k in range(n):
        top, left = 4 * (k // 16) + 1, 5 * (k % 16) + 1
        kernel, own = sheet[top : top + 3, left : left + 4].copy(), weight[..., k]
        np.testing.assert_allclose(kernel, (own - own.min()) / (own.max() - own.min()), atol=1e-9)
        sheet[top : top + 3, left : left + 4] = 1
    assert (sheet == 1).all()
    assert (drawing.filter_sheet(np.full((2, 2, 3, 1), 7.0))[1:3, 1:3] == 0).all()


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fonts(monkeypatch):
    """fonts(file, …): these are the only ones, beside matplotlib's usual one."""
    manager = matplotlib.font_manager.fontManager
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")

    def only(*names):
        known = [
            font for font in manager.ttflist if Path(font.fname) in [folder / n for n in ("DejaVuSans.ttf", *names)]
        ]
        monkeypatch.setattr(manager, "ttflist", known)
        assert len(known) == 1 + len(names)

    return only


def letter_of(file):
    """One that the usual font does not have."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    own, usual = (matplotlib.ft2font.FT2Font(str(folder / name)).get_charmap() for name in (file, "DejaVuSans.ttf"))
    return next(chr(code) for code in sorted(own) if code not in usual and chr(code).isprintable())


def test_names_that_the_usual_font_has(fonts):
    fonts()
    assert drawing.drawable(["cat", "été", "two\nlines"]) == (["cat", "été", "two\nlines"], ["DejaVu Sans"])
    assert drawing.drawable([]) == ([], ["DejaVu Sans"])


def test_names_for_which_another_font_is_needed(fonts):
    letter = letter_of("STIXGeneral.ttf")
    fonts("DejaVuSansMono.ttf", "STIXGeneral.ttf")
    assert drawing.drawable(["cat", letter]) == (["cat", letter], ["DejaVu Sans", "STIXGeneral"])
    fonts("DejaVuSansMono.ttf")
    assert drawing.drawable(["cat", letter]) == (["cat", "2"], ["DejaVu Sans"])


def test_both_drawings_have_the_fonts(fonts, tmp_path, monkeypatch):
    letter, families = letter_of("STIXGeneral.ttf"), []
    fonts("STIXGeneral.ttf")

    def noted(figure, *_, **__):
        texts = figure.findobj(lambda thing: isinstance(thing, matplotlib.text.Text) and letter in thing.get_text())
        families.extend(text.get_fontfamily() for text in texts)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", noted)
    confusion.draw(tmp_path / "matrix.png", np.eye(2, dtype=int), ["cat", letter])
    predict.draw(tmp_path / "bars.png", [(np.zeros((9, 9, 3), np.uint8), [(1, 0.9)])], ["cat", letter])
    assert len(families) >= 3 and all(names == ["DejaVu Sans", "STIXGeneral"] for names in families)


def test_a_font_that_cannot_be_read(fonts, monkeypatch):
    fonts("STIXGeneral.ttf")
    original = matplotlib.font_manager.get_font

    def damaged(file):
        return fail(RuntimeError("invalid")) if "STIX" in file else original(file)

    monkeypatch.setattr(matplotlib.font_manager, "get_font", damaged)
    assert drawing.drawable([letter_of("STIXGeneral.ttf")]) == (["1"], ["DejaVu Sans"])


def test_names_in_chinese(fonts, tmp_path, monkeypatch, caplog):
    """By number where no font has them, and without a word."""
    fonts("STIXNonUniBol.ttf")  # which is bold only: matplotlib would say so
    names, texts = ["狗", "猫頭鷹", "cat"], []
    original = matplotlib.figure.Figure.savefig

    def noted(figure, *args, **options):
        texts.append({text.get_text() for text in figure.findobj(matplotlib.text.Text)})
        original(figure, *args, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", noted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        confusion.draw(tmp_path / "matrix.png", np.eye(3, dtype=int), names)
        picture = np.zeros((9, 9, 3), np.uint8)
        predict.draw(tmp_path / "bars.png", [(picture, [(1, 0.9), (2, 0.1)])], names)
    assert not caplog.records
    assert {"1", "2", "cat"} <= texts[0] and {"2  90.0%", "cat  10.0%"} <= texts[1] and not set(names[:2]) & texts[0]
