"""report.py: the page of a run, read by a parser of HTML."""

import base64
import html.parser
import io
import re
import sys

import numpy as np
import pytest
from support import confusion, drawing, report, scores
from support.images import IMAGENET, View

Image = pytest.importorskip("PIL.Image")
matplotlib = pytest.importorskip("matplotlib")

VOID = {"meta", "img", "br"}
VIEW = View(20, *IMAGENET, resize=24)
HOSTILE = [
    "<script>alert(1)</script>", "a&b \"q\" 'r'", "caf\udce9", "two\nlines", "\u202elive", "狗 猫頭鷹", "كلب",
    "</bdi></td><img src=x onerror=alert(1)>", "long " * 30, "--> <!-- ]]>",
]  # fmt: skip


class Page(html.parser.HTMLParser):
    """What a page has: `tags` [(name, attributes)], `words` (all text), `tables` (rows of texts), `headings`."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.words, self.tables, self.headings, self.style = [], [], "", [], [], ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")
        if tag == "h2":
            self.headings.append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            self.style += data
            return
        self.words += data
        if {"th", "td"} & set(self.open):
            self.tables[-1][-1][-1] += data
        if "h2" in self.open:
            self.headings[-1] += data

    def images(self, alt):
        """The images that are described so, as (H, W, 3)."""
        sources = [attributes["src"] for tag, attributes in self.tags if tag == "img" and attributes["alt"] == alt]
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(s.split(",")[1]))).convert("RGB")) for s in sources]


def rows_of(count, **more):
    return [
        {
            "epoch": e, "step": 10 * e, "lr": 0.01 / e, "train_loss": 2.0 / e, "train_top1": 50 - 40 / e,
            "val_loss": 2.5 / e, "val_top1": [40.04, 60.06, 50.05][e % 3], "val_top5": 90.0, "images_per_s": 1234.5,
            "seconds": 60.4 * e, **more,
        }
        for e in range(1, count + 1)
    ]  # fmt: skip


def config_of(names, **more):
    classes = [f"n{i}" for i in range(len(names))]
    known = {
        "variant": "2012",
        "data": "/some/photos",
        "recipe": "quick",
        "epochs": 9,
        "out": "runs/a",
        "minicnn": "1.2",
    }
    return {**known, "classes": classes, "names": list(names), "view": {"size": 20}, **more}


def score_of(classes, mistakes=()):
    score = scores.Score(classes, mistakes=24)
    score.confusion = np.random.default_rng(0).integers(0, 9, (classes, classes))
    score.mistakes = list(mistakes)
    return score


@pytest.fixture
def page(tmp_path, monkeypatch):
    """page(config, rows, …) -> Page, which needs nothing from outside and has no scripts."""
    monkeypatch.setattr(sys, "argv", ["examples/alexnet/train.py"])

    def write(*arguments):
        report.write_report(tmp_path / "report.html", *arguments)
        source = (tmp_path / "report.html").read_bytes().decode()
        found = Page(source)
        assert source.startswith("<!DOCTYPE html>") and "script" not in {tag for tag, _ in found.tags}
        found.size = len(source.encode())
        for _, attributes in found.tags:
            assert not [name for name in attributes if name.startswith("on")]
            links = [attributes[name] for name in ("src", "href", "xlink:href") if name in attributes]
            assert all(link.startswith(("data:image/", "#")) for link in links)
        assert "url(" not in found.style and "@import" not in found.style
        ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
        assert len(set(ids)) == len(ids)
        used = re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)", source)
        assert {name for pair in used for name in pair if name} <= set(ids)
        return found

    return write


# -- all of it --------------------------------------------------------------------------------------------------------


def mistakes_of(names, count=24):
    rng = np.random.default_rng(0)
    for i in range(count):
        image = VIEW.evaluation()(np.full((24, 24, 3), 10 * i, np.uint8), rng)
        yield scores.Mistake(0.99 - i / 100, i % len(names), (i + 1) % len(names), image)


def test_a_whole_report(page):
    names = [f"name {i}" for i in range(10)]
    score, kernels = score_of(10, mistakes_of(names)), np.random.default_rng(1).standard_normal((11, 11, 3, 96))
    rows = rows_of(4, data_seconds=1.0, compute_seconds=9.0)
    found = page(config_of(names), rows, kernels, score, VIEW, {"top1": 61.0, "top5": 91.0})
    assert found.headings == [
        "Curves", "Filters of conv1", "Confusion", "Most confused", "Classes", "Most confident mistakes", "Speed",
        "Settings", "To measure it, to ask it, to go on",
    ]  # fmt: skip
    assert len([tag for tag, _ in found.tags if tag == "svg"]) == 5
    assert "AlexNet 2012 on photos" in found.words
    assert "10 classes · recipe quick · 4 of 9 epochs · 4 min 2 s · minicnn 1.2" in found.words


def test_the_same_run_gives_the_same_bytes(page, tmp_path):
    """Whatever the user's own settings are."""
    names = [f"name {i}" for i in range(3)]
    written = []
    for own in ({}, {"axes.facecolor": "black", "svg.hashsalt": None, "font.size": 30}, {}):
        with matplotlib.rc_context(own):
            page(config_of(names), rows_of(3), np.ones((3, 3, 3, 4)), score_of(3, mistakes_of(names, 2)), VIEW)
        written.append((tmp_path / "report.html").read_bytes())
    assert written[0] == written[1] == written[2]


def test_names_with_any_characters(page):
    score = score_of(10, mistakes_of(HOSTILE))
    config = config_of(HOSTILE, data="/some/<b>&\udce9", out="runs/<i>it's")
    found = page(config, rows_of(2), None, score, VIEW)
    assert not {"b>", "i"} & {tag for tag, _ in found.tags}
    for name in (
        "<script>alert(1)</script>",
        "a&b \"q\" 'r'",
        r"caf\udce9",
        r"two\nlines",
        "\u202elive",
        "狗 猫頭鷹",
        "كلب",
    ):
        assert found.words.count(name) >= 3, name
    assert (
        "long long long long long long long long long lo…" in found.words
        and r"AlexNet 2012 on <b>&\udce9" in found.words
    )
    assert {"bdi"} == {tag for tag, _ in found.tags} - {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "b", "br", "img", "table", "tr", "th",
        "td", "figure", "figcaption", "details", "summary", "pre", "svg", "g", "path", "defs", "clippath", "rect", "use",
        "text",
    }  # fmt: skip
    assert """python examples/alexnet/train.py --resume 'runs/<i>it'"'"'s/last.safetensors'""" in found.words


def test_a_thousand_classes(page):
    """Below a megabyte, with noise for photos."""
    names, rng, view = [f"a name, with others {i}" for i in range(1000)], np.random.default_rng(0), View(227, *IMAGENET)
    score = score_of(1000)
    score.confusion = np.where(rng.random((1000, 1000)) < 0.02, 1, 0) + np.diag(rng.integers(10, 40, 1000))
    for i in range(24):
        image = view.evaluation()(rng.integers(0, 256, (256, 256, 3), np.uint8), rng)
        score.mistakes.append(scores.Mistake(0.5, i, i + 1, image))
    found = page(config_of(names), rows_of(90), rng.standard_normal((11, 11, 3, 96)), score, view)
    assert found.size < 1e6
    (pixels,) = found.images("confusion matrix")
    np.testing.assert_array_equal(pixels, confusion.colors(score.confusion))
    assert (
        "1,000 classes from top to bottom" in found.words and "The 20 classes with the lowest recall" in found.headings
    )
    assert "and 995 more" in found.tables[-1][-1][1]


# -- what is left out -------------------------------------------------------------------------------------------------


def test_a_run_that_has_only_begun(page):
    found = page(config_of(["a", "b"]), [])
    assert found.headings == ["Settings", "To measure it, to ask it, to go on"]
    assert not [tag for tag, _ in found.tags if tag in ("svg", "img", "details")]


def test_rows_of_older_runs(page):
    """Without some columns, or with others; one that came later is missing in the first rows."""
    rows = [{"epoch": 1, "train_loss": 2.0, "note": "<b>"}, {"epoch": 2, "train_loss": 1.0, "val_loss": 3.0}]
    found = page(config_of(["a"] * 6), rows)
    assert found.headings[0] == "Curves" and len([tag for tag, _ in found.tags if tag == "svg"]) == 1
    assert found.tables[0] == [
        ["epoch", "train loss", "note", "val loss"],
        ["1", "2", "<b>", "–"],
        ["2", "1", "–", "3"],
    ]
    assert "best top-1" not in found.words and "1.000loss in training" in found.words and "3.000loss" in found.words


def test_the_results_of_evaluate(page):
    """One row, of no epoch."""
    found = page(
        config_of(["a"] * 6, out=None), [{"val_loss": 1.5, "val_top1": 12.34, "val_top5": 56.78}], None, score_of(6)
    )
    assert "12.3%top-1" in found.words and "56.8%top-5" in found.words and "1.500loss" in found.words
    assert found.headings == ["Confusion", "Most confused", "Classes", "Settings"]


@pytest.mark.parametrize(
    "column, right",
    [
        (["1", "20%", "–"], True),
        (["–", "1e-05", "nan"], True),
        (["–", "–", "–"], False),
        (["1", "<b>2</b>", "3"], False),
    ],
)
def test_numbers_stand_on_the_right(column, right):
    found = Page(report.table(["a", "b"], [(cell, "<b>c</b>") for cell in column]))
    assert [attributes.get("class") for tag, attributes in found.tags if tag in ("th", "td")] == [
        "number" if right else None,
        None,
    ] * 4
    assert report.table(["a", "b"], []) == ""


def test_a_network_that_makes_no_mistakes(page):
    score = score_of(3)
    score.confusion = np.diag([3, 0, 2])
    found = page(config_of("abc"), [], None, score, VIEW)
    assert found.headings[:2] == ["Confusion", "Classes"]
    assert found.tables[0] == [
        ["class", "images", "recall", "precision", "most often taken for"], ["a", "3", "100%", "100%", "–"], ["c", "2", "100%", "100%", "–"],
    ]  # fmt: skip
    for score in (scores.Score(), None):
        found = page(config_of("abc"), [], None, score, VIEW)
        assert found.headings[0] == "Settings"
        assert [tag for tag, attributes in found.tags if attributes.get("class") == "faint"] == ["p"]


def test_a_few_pairs_have_no_more(page):
    found = page(config_of("abc"), [], None, score_of(3))
    assert found.headings[:3] == ["Confusion", "Most confused", "Classes"] and len(found.tables[0]) == 4
    assert "details" not in {tag for tag, _ in found.tags}


def test_settings_that_are_missing(page):
    found = page({"classes": ["a", "b"], "data": "imagenet:/x"}, rows_of(1))
    assert "AlexNet  on ImageNet" in found.words and "1 of 1 epochs" in found.words
    assert found.tables[-1] == [["setting", "value"], ["data", "imagenet:/x"], ["classes", "a, b"]]
    assert found.headings == ["Curves", "Speed", "Settings"]


# -- numbers and curves -----------------------------------------------------------------------------------------------


def test_the_best_and_the_last_numbers_come_first(page):
    found = page(config_of(["a"] * 6), rows_of(6), None, None, None, {"top1": 61.26, "top5": 91.0})
    numbers = found.words[found.words.index("minicnn 1.2") : found.words.index("Curves")].split("\n")
    assert [line for line in numbers[1:] if line] == [
        "60.1%best top-1, in epoch 4", "40.0%last top-1", "90.0%last top-5", "0.417last loss", "0.333loss in training",
        "1,234.5images a second", "61.3%top-1 over ten crops", "91.0%top-5 over ten crops",
    ]  # fmt: skip
    few = page(config_of(["a"] * 5), rows_of(1), None, None, None, {"top1": 61.26, "top5": 91.0})
    assert not [words for words in ("90.0%", "91.0%", "best top-1", "five best") if words in few.words]
    assert "60.1%top-1" in few.words and "five best" in found.words


@pytest.mark.parametrize("epochs", [1, 2, 499, 500, 2000])
def test_long_runs_are_thinned(page, epochs):
    found = page(config_of(["a"] * 3), rows_of(epochs))
    (table,) = [table for table in found.tables if table[0][0] == "epoch"]
    shown = [int(row[0]) for row in table[1:]]
    assert shown[0] == 1 and shown[-1] == epochs and len(shown) == min(epochs, 500) and sorted(set(shown)) == shown
    assert max(np.diff(shown), default=1) <= -(-epochs // 499)
    words = f"500 of {epochs} epochs" if epochs > 500 else f"{epochs} epochs"
    assert f"{words} in numbers" in found.words
    assert found.size < 400_000


def paths(svg):
    """The curves of a chart, as the numbers of their points."""
    found = Page(svg).tags
    return [
        len(re.findall("[ML]", attributes["d"]))
        for tag, attributes in found
        if "stroke:" in attributes.get("style", "") and tag == "path"
    ]


def test_a_chart():
    lines = {"a": ("first", "#111111", "-"), "b": ("second", "#222222", "--")}
    svg = report.chart("loss", [{"epoch": e, "a": e, "b": 10.0 - e} for e in range(1, 10)], lines)
    found = Page(svg)
    assert found.tags[0][1]["aria-label"] == "loss, by epoch" and found.tags[0][0] == "svg"
    assert {"first", "second", "epoch"} <= set(found.words.split()) and paths(svg).count(9) == 2
    assert report.INK not in svg and "currentColor" in svg and "http" not in svg.replace("http://www.w3.org", "")
    for color in ("#111111", "#222222"):
        assert color in svg
    (alone,) = [report.chart("loss", [{"epoch": 1, "a": 3.0}], {"a": lines["a"]})]
    assert "first" not in Page(alone).words


@pytest.mark.parametrize("epochs, points", [(1, 2), (30, 60), (31, 0)])
def test_each_of_a_few_epochs_has_a_point(epochs, points):
    """Without which a run of one epoch would show nothing."""
    lines = {"train_loss": ("a", "#111111", "-"), "val_loss": ("b", "#222222", "-")}
    found = Page(report.chart("loss", rows_of(epochs), lines)).tags
    styles = [attributes.get("style", "") for tag, attributes in found if tag == "use"]
    assert sum("#111111" in style or "#222222" in style for style in styles) == points + 2 * (
        points > 0
    )  # the legend's


def test_a_chart_has_the_colors_of_the_page():
    """Its own are those of its lines: nothing is black or white, which would not be seen on such a page."""
    svg = report.chart("loss", rows_of(3), {"train_loss": ("a", "#111111", "-"), "val_loss": ("b", "#222222", "-")})
    assert set(re.findall("#[0-9a-f]{6}", svg)) == {"#111111", "#222222"}


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_a_rate_that_is_divided_by_ten(schedule):
    rows = [row | {"lr": 0.1 ** (2 + row["epoch"])} for row in rows_of(3)]
    svg = report.charts(rows, {"schedule": schedule}, ["learning rate"])
    ticks = [float(word.replace("−", "-")) for word in Page(svg).words.split() if word[0].isdigit()]
    assert (1e-5 in ticks and 1e-4 in ticks) == (schedule == "plateau")


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_losses_and_shares_begin_at_0(schedule):
    for title, column in (("loss", "val_loss"), ("correct, %", "val_top1")):
        rows = [row | {column: 50 + row["epoch"]} for row in rows_of(3)]
        svg = report.charts(rows, {"schedule": schedule}, [title])
        assert "\n0\n" in re.sub(r"\s*\n\s*", "\n", Page(svg).words)


@pytest.mark.parametrize(
    "seconds, words", [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (3_723_660, "1,034 h 21 min")]
)
def test_durations(seconds, words):
    assert report.duration(seconds) == words


# -- images -----------------------------------------------------------------------------------------------------------


def test_filters(page):
    kernels = np.random.default_rng(0).standard_normal((5, 5, 3, 20)).astype(np.float32)
    kernels[..., 7] = np.nan
    found = page(config_of("ab"), [], kernels)
    (pixels,) = found.images("filters")
    assert pixels.shape == (2 * 6 + 1, 16 * 6 + 1, 3) and (pixels[0] == 255).all()
    np.testing.assert_allclose(pixels / 255, drawing.filter_sheet(np.nan_to_num(kernels)), atol=0.5 / 255 + 1e-9)
    assert "20 kernels of 5×5" in found.words
    assert [tag for tag, attributes in found.tags if attributes.get("class") == "faint"] == ["p", "p"]
    own = kernels[..., 18]
    expected = (own - own.min()) / (own.max() - own.min())
    np.testing.assert_allclose(pixels[7:12, 13:18] / 255, expected, atol=0.003)


@pytest.mark.parametrize("classes", [20, 21])
def test_of_few_classes_the_matrix_has_names(page, classes):
    score = score_of(classes)
    found = page(config_of([f"name {i}" for i in range(classes)]), [], None, score)
    (pixels,) = found.images("confusion matrix")
    assert (pixels.shape == (21, 21, 3)) == (classes == 21) and (len(pixels) > 600) == (classes == 20)
    (style,) = [a["style"] for tag, a in found.tags if "--width" in a.get("style", "")] or [None]
    assert style == (f"--width: {pixels.shape[1]}px" if classes == 20 else None)
    counts = score.confusion - np.diag(np.diag(score.confusion))
    (head, *first), (_, *others) = found.tables[:2]
    assert head == ["class", "taken for", "times", "share"] and len(first) == 15 and len(others) == 35
    assert [int(row[2]) for row in first + others] == sorted(counts.ravel(), reverse=True)[:50]
    for name, other, times, share in first + others:
        i, k = int(name[5:]), int(other[5:])
        assert counts[i, k] == int(times) and share == f"{100 * counts[i, k] / score.confusion[i].sum():.0f}%"
    assert len(found.tables[2]) == 21 and ("Classes" in found.headings) == (classes == 20)
    recalls = [float(row[2].strip("%")) for row in found.tables[2][1:]]
    assert recalls == sorted(recalls)


def test_mistakes_are_shown_as_the_network_saw_them(page):
    """In their order, with the answer, its probability, and what is right."""
    names = ["ant", "bee", "cat"]
    image = np.zeros((24, 24, 3), np.uint8)
    image[:, :12] = 200, 40, 90
    seen = VIEW.evaluation()(image, np.random.default_rng(0))
    other = VIEW.evaluation()(np.full((24, 24, 3), 128, np.uint8), np.random.default_rng(0))
    mistakes = [scores.Mistake(0.98765, 0, 2, seen), scores.Mistake(0.5, 1, 0, other)]
    found = page(config_of(names), [], None, score_of(3, mistakes), VIEW)
    words = found.words[found.words.index("Most confident") : found.words.index("Settings")]
    assert [line for line in words.split("\n") if line][2:] == ["cat 98.8%is ant", "ant 50.0%is bee"]
    first, second = found.images("")
    assert first.shape == second.shape == (144, 144, 3)
    assert abs(first[:, :60].astype(int) - (200, 40, 90)).max() < 12 and first[:, 84:].max() < 12
    assert abs(second.astype(int) - 128).max() < 4
    assert "Most confident mistakes" not in page(config_of(names), [], None, score_of(3, mistakes)).headings


# -- settings and commands --------------------------------------------------------------------------------------------


def test_all_settings_are_there(page):
    config = config_of("abcdefg", verify=True, workers=None, lr=0.01, earlier=[{"until_epoch": 3, "lr": 0.1}])
    found = page(config, [])
    settings = dict(found.tables[-1][1:])
    assert settings.pop("classes") == "a, b, c, d, e and 2 more"
    assert settings == {
        "variant": "2012", "data": "/some/photos", "recipe": "quick", "epochs": "9", "out": "runs/a", "minicnn": "1.2",
        "view": '{"size": 20}', "verify": "true", "workers": "null", "lr": "0.01",
        "earlier": '[{"until_epoch": 3, "lr": 0.1}]',
    }  # fmt: skip


@pytest.mark.parametrize("epochs, further", [(8, ""), (9, " --epochs 18"), (12, " --epochs 18")])
def test_commands(page, epochs, further):
    found = page(config_of("abc"), rows_of(epochs))
    assert found.words.rstrip().endswith(
        f"""
python examples/alexnet/evaluate.py --checkpoint runs/a/best.safetensors
python examples/alexnet/predict.py --checkpoint runs/a/best.safetensors PHOTO
python examples/alexnet/train.py --resume runs/a/last.safetensors{further}""".lstrip("\n")
    )
