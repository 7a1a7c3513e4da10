"""ablations/report.py: the arithmetic of its tables, and what its charts show."""

import os

import numpy as np
import pytest
import report as ablation_report
import run as ablations

Image = pytest.importorskip("PIL.Image")


def runs_of(*errors):
    return [{"train_error": [80.0, error - 5], "test_error": [[1, 70.0], [2, error]]} for error in errors]


def test_the_tables_arithmetic():
    """Against NumPy, for random errors; differences are those of one seed."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 5):
        errors = {name: rng.uniform(20, 60, n) for name in ("baseline", "no flips", "no dropout")}
        rows = ablation_report.compare({name: runs_of(*values.tolist()) for name, values in errors.items()})
        assert [row["name"] for row in rows] == list(errors)
        for row, own in zip(rows, errors.values(), strict=True):
            more = own - errors["baseline"]
            assert row["seeds"] == n
            assert (row["test_error"], row["more"]) == pytest.approx((own.mean(), more.mean()))
            assert row["train_error"] == pytest.approx(own.mean() - 5)
            if n == 1:
                assert row["spread"] is row["more_spread"] is None
            else:
                assert (row["spread"], row["more_spread"]) == pytest.approx((own.std(ddof=1), more.std(ddof=1)))


def race_of(rate, *errors):
    return {"rate": rate, "rates": [0.1, 0.4], "train_error": list(errors)}


def test_the_races_arithmetic():
    races = {
        "relu": [race_of(0.1, 60, 25), race_of(0.2, 60, 40, 30, 20)],
        "tanh": [race_of(0.1, *[50] * 17, 25), race_of(0.1, *[50] * 17, 25)],
        "sigmoid": [race_of(0.3, 80, 25), race_of(0.3, 80, 70, 25.01)],
        "ReLU, He": [race_of(0.1, *[50] * 5, 25)] * 2,
    }
    relu, tanh, sigmoid, he = ablation_report.finish(races)
    assert all((row.pop("tried"), row.pop("seeds")) == ([0.1, 0.4], 2) for row in (relu, tanh, sigmoid, he))
    assert [row.pop("reached") for row in (relu, tanh, sigmoid, he)] == [2, 2, 1, 2]
    assert (he["epochs"], he["times"]) == (6, 2)
    assert relu == {"name": "relu", "rates": [0.1, 0.2], "epochs": 3, "spread": pytest.approx(2**0.5), "times": 1}
    assert tanh == {"name": "tanh", "rates": [0.1, 0.1], "epochs": 18, "spread": 0, "times": 6}
    assert sigmoid == {"name": "sigmoid", "rates": [0.3, 0.3], "epochs": None, "spread": None, "times": None}
    without = ablation_report.finish({"relu": races["sigmoid"], "tanh": races["tanh"]})
    assert [row["times"] for row in without] == [None, None]


def test_the_table_as_text():
    arms = ablation_report.compare({"baseline": runs_of(40.0, 42.0), "no color shift": runs_of(41.0, 45.0)})
    races = {"relu": [race_of(0.1, 60, 25)], "tanh": [race_of(0.4, 60, 50), race_of(0.1, 60, 25)]}
    races = ablation_report.finish(races)
    text = ablation_report.markdown(arms, races)
    assert "| baseline | 41.0 ± 1.4 |  |  | 36.0 |" in text
    assert "| no color shift | 43.0 ± 2.8 | +2.0 ± 1.4 | over 1 (4.1) | 38.0 |" in text
    assert "| relu | 0.1 (0.1, 0.4) | 2.0 | 1.0 |" in text
    assert "| tanh | 0.4, 0.1 (0.1, 0.4) | 1 of 2 runs have reached it |  |" in text
    for table in text.split("\n\n"):
        lines = table.strip().splitlines()
        assert len({line.count("|") for line in lines}) == 1 and set(lines[1]) == set("| -")
    assert (
        ablation_report.markdown(arms, []).count("---") == 5 and ablation_report.markdown([], races).count("---") == 4
    )
    assert set(ablation_report.PAPER) <= {name for changes in ablations.IDEAS.values() for name in changes}


def test_the_chart_of_races_marks_who_has_reached_the_goal():
    races = {"ReLU": [race_of(0.1, 60, 25), race_of(0.1, 60, 26)], "ReLU, He": [race_of(0.1, 60, 24)]}
    axes = ablation_report.draw_races(races).axes[0]
    marks = [line for line in axes.get_lines() if line.get_marker() == "o"]
    assert [tuple(line.get_xydata()[0]) for line in marks] == [(2, 25), (2, 24)]
    curves = [line for line in axes.get_lines() if len(line.get_xydata()) == 2 and line not in marks][:3]
    assert [line.get_linestyle() for line in curves] == ["-", "-", "--"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["ReLU", "ReLU, He"]


def test_the_chart_of_an_idea_has_a_dot_for_each_seed():
    _, right = ablation_report.draw_idea({"baseline": runs_of(40.0, 42.0), "no flips": runs_of(43.0, 44.0)}).axes
    dots = [line.get_xydata().tolist() for line in right.get_lines() if line.get_marker() == "o"]
    assert dots == [[[0, 40], [0, 42]], [[1, 43], [1, 44]]]


def test_a_baseline_alone_has_no_chart(tmp_path):
    ablation_report.report(tmp_path, {}, {"baseline": runs_of(40.0)}, {})
    assert set(os.listdir(tmp_path)) == {"table.md", "table.json"}


@pytest.mark.parametrize("seeds", [1, 3])
def test_charts_show_something(tmp_path, seeds):
    """Each run's color, and no other."""
    names = ["baseline", "no normalization", "batch norm", "no flips"]
    arms = {name: runs_of(*(30.0 + i + 2 * s for s in range(seeds))) for i, name in enumerate(names)}
    races = {name: [race_of(0.1, *range(90, 20, -9 + i))] * seeds for i, name in enumerate(ablations.RACES)}
    ideas = {"normalization": names[1:3], "flips": names[3:]}
    ablation_report.report(tmp_path, ideas, arms, races)
    colors = {"relu": 3, "differences": 1, "normalization": 3, "flips": 2}
    assert set(os.listdir(tmp_path)) == {"table.md", "table.json", *(f"{name}.png" for name in colors)}
    for name, count in colors.items():
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.format == "PNG" and picture.width >= 640
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        for i, color in enumerate(ablation_report.COLORS):
            near = abs(pixels - [int(color[k : k + 2], 16) for k in (1, 3, 5)]).max(axis=2) < 20
            assert (near.sum() > 20) == (i < count), name
