"""The loader's benchmark: its images, what each side does with them, its table, its mistakes."""

import functools
import json
import os

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

from benchmarks import loader, machine  # noqa: E402
from benchmarks.turns import BenchmarkError, measure  # noqa: E402
from minicnn.data import ImageFolder, ImageNet  # noqa: E402

RESULTS = {
    "machine": {
        **{"date": "2030-01-02", "processor": "a processor", "cores": 2, "caches": "L2 512K", "memory_gib": 24},
        **{"system": "Linux", "python": "3.11", "numpy": "2.4", "blas": "a BLAS", "minicnn": None},
    },
    **{"data": "drawn", "images": 100, "prepare": {"images": 120, "seconds": 4.0}},
    "loading": [
        {
            **{"tree": "as they are", "cores": 2, "discarded": 3, "missing": 0},
            "seconds": {
                "load": {
                    **{"threads": [1.0, 2.0, 4.0], "processes": [0.5, 1.0, 2.0]},
                    **{"Pillow": [0.5, 1.9, 4.0], "Pillow to arrays": [1.0, 2.2, 8.0]},
                }
            },
        }
    ],
    "recipe": [
        {
            **{"cores": 2, "discarded": 1},
            "seconds": {"load": {"threads": [1.0, 2.0, 4.0], "processes": [1.0, 1.0, 2.0]}},
        }
    ],
    "training": [
        {
            **{"tree": "prepared", "cores": 2, "waited": [0.0, 0.01, 0.03]},
            "seconds": {"with loading": {"minicnn": [5.0, 5.5, 6.0]}, "without": {"minicnn": [5.0, 5.0, 5.0]}},
        }
    ],
}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A tree of 200 images, of 40 x 30 pixels."""
    monkeypatch.setattr(loader, "SyntheticImages", lambda n, size: Small(n))
    loader.draw(200, tmp_path / "tree")
    return tmp_path / "tree"


class Small(list):
    classes = [f"class{i}" for i in range(10)]

    def __init__(self, n):
        rng = np.random.default_rng(0)
        super().__init__((rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), i % 10) for i in range(n))


@pytest.fixture
def any_core(monkeypatch):
    """No process is bound to a core."""
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)


def test_drawings_make_a_tree(tree):
    train, val = ImageNet(tree), ImageNet(tree, train=False)
    assert len(train) == 200 and len(val) == 10 and train.classes == val.classes
    for path, label in train.samples:
        with Image.open(path) as image:
            assert image.format == "JPEG" and image.width == 40
        assert int(os.path.basename(path)[:-4]) % 10 == label


@pytest.mark.parametrize("number, linked", [(192, 192), (1000, 200)])
def test_links_make_a_tree_from_all_over_another(tree, tmp_path, number, linked):
    loader.link(str(tree), number, tmp_path / "links")
    dataset = ImageFolder(tmp_path / "links" / "train")
    assert len(dataset) == len({os.path.realpath(path) for path, _ in dataset.samples}) == linked
    assert dataset.classes == ImageFolder(tmp_path / "links" / "val").classes == Small.classes
    assert all(f"/{dataset.classes[label]}/" in os.path.realpath(path) for path, label in dataset.samples)


def test_both_sides_load_every_picture(tree, any_core, monkeypatch):
    monkeypatch.setattr(loader, "SHORT_SIDE", 30)
    monkeypatch.setattr(loader, "SIZE", 20)
    folder, opened, original = str(tree / "train"), [], Image.open

    def noted(file, **options):
        opened.append(getattr(file, "name", file))
        return original(file, **options)

    monkeypatch.setattr(Image, "open", noted)
    for worker in (loader.Loading(2, folder), loader.Bare(2, folder, False), loader.Bare(1, folder, True)):
        assert worker.threads() == {"asked": worker.cores}
        opened.clear()
        worker.tasks["load"]()
        assert sorted(opened) == sorted(path for path, _ in ImageFolder(folder).samples)


def test_processes_load_too_and_count_as_working(tree, any_core, monkeypatch):
    monkeypatch.setattr(machine, "cpu_of", lambda process: 1000.0 * process.is_alive())
    worker = loader.Loading(2, str(tree / "train"), processes=True)
    assert worker.cpu() < 1000
    worker.tasks["load"]()
    assert worker.cpu() >= 1000


def test_the_papers_recipe(tree, any_core, tmp_path):
    """Crops of what is left without the mean image."""
    loader.prepare(tree, tmp_path / "small")
    worker = loader.Recipe(1, str(tmp_path / "small"), False)
    means = [images.mean() for images, _ in worker.loader]
    assert all(images.shape[1:] == (227, 227, 3) and images.dtype == np.float32 for images, _ in worker.loader)
    assert abs(np.mean(means)) < 2 and np.ptp(means) > 0
    assert min(images.std() for images, _ in worker.loader) > 10  # pixels of 0 to 255


def test_bare_pillow_crops_and_mirrors(tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "SHORT_SIDE", 40)
    monkeypatch.setattr(loader, "SIZE", 32)
    ramp = np.broadcast_to(np.arange(60, dtype=np.uint8)[None, :, None], (40, 60, 3))
    Image.fromarray(ramp).save(tmp_path / "1.png")
    rows = [np.asarray(loader.Bare.picture(str(tmp_path / "1.png")))[0, :, 0].astype(int) for _ in range(60)]
    steps = [set(np.diff(row).tolist()) for row in rows]
    assert (
        {1} in steps
        and {-1} in steps
        and all(len(step) == 1 and len(row) == 32 for step, row in zip(steps, rows, strict=True))
    )
    assert len({row.min() for row in rows}) > 10
    Image.fromarray(np.ascontiguousarray(np.tile(ramp, (4, 4, 1)))).save(tmp_path / "4.jpg")
    assert loader.Bare.picture(str(tmp_path / "4.jpg")).size == (32, 32)


def test_the_share_of_waiting(monkeypatch):
    """Steps of 3 seconds, batches that take 1 each: a quarter; the first batch does not count."""
    now = [0.0]

    def pass_by(seconds):
        now[0] += seconds

    def batches():
        for i in range(6):
            pass_by(1 if i else 100)
            yield np.zeros((2, 2), np.float32), i

    monkeypatch.setattr(loader.time, "perf_counter", lambda: now[0])
    training, steps = object.__new__(loader.Training), []
    training.loader, training.batches, training.shares = type("", (), {"__iter__": lambda _: batches()})(), None, []
    training.step = lambda: pass_by(3) or steps.append(training.labels)
    training.loaded()
    training.first()
    training.loaded()
    assert training.waited() == [0.25, 0.25] and steps == [0, 1, 2, 3, 4] * 2


def test_the_table_gives_rates_and_shares():
    lines = loader.markdown(RESULTS).splitlines()
    threads, processes = "95 (50 to 100) | 110 (100 to 200)", "190 (100 to 200) | 220 (200 to 400)"
    assert f"| as they are | 2 | 53 | 45 | 50 | 100 | {threads} | {processes} | 3 (3) |" in lines
    assert "| 2 | 50 | 100 | 3 (1) |" in lines
    assert "| prepared | 1,100 (1,000 to 1,200) | 1,000 (1,000 to 1,000) | 1.1 (1 to 1.2) | 1 (0 to 3) |" in lines
    assert any(line.startswith("prepare.py did 120 in 4.0 s") and "30 a second" in line for line in lines)


@pytest.mark.parametrize(
    "arguments, status, said",
    [
        (["--images", "100"], 2, "at least 192"),
        (["--images", "many"], 2, "'many' is not a whole number"),
        (["--rounds", "0"], 2, "rounds"),
        (["--data", "no/such"], 2, "no/such/train: does not exist"),
        (["cpu"], 2, "cpu"),
    ],
)
def test_mistakes(arguments, status, said, capsys):
    assert loader.main(arguments) == status
    error = capsys.readouterr().err
    assert said in error and error.startswith("benchmarks.loader: ") and error.count("\n") == 1


def test_too_few_pictures(tree, capsys, monkeypatch):
    monkeypatch.setattr(loader, "FEWEST", 201)
    assert loader.main(["--data", str(tree), "--images", "300"]) == 2
    assert f"--data {tree}: 200 images; at least 201 are needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error, status, words", [(BenchmarkError("apart"), 1, "apart"), (KeyboardInterrupt(), 130, "as they were")]
)
def test_what_ends_a_run(error, status, words, monkeypatch, capsys, tmp_path):
    def stop(*_):
        raise error

    monkeypatch.setattr(loader, "run", stop)
    assert loader.main(["--output", str(tmp_path / "out")]) == status
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_files_of_a_run(monkeypatch, capsys, tmp_path):
    asked = []
    monkeypatch.setattr(loader, "run", lambda *arguments: asked.append(arguments) or RESULTS)
    assert loader.main(["--data", "photos", "--rounds", "4", "--output", str(tmp_path)]) == 0
    assert asked == [("photos", 512, 4)]
    said = capsys.readouterr()
    assert said.out.rstrip("\n") + "\n" == (tmp_path / "loader.md").read_text() and not said.err
    assert json.loads((tmp_path / "loader.json").read_text())["images"] == 100
    loader.main(["--output", str(tmp_path)])
    assert asked[1] == (None, 512, None) and "drawn" in capsys.readouterr().err


@pytest.mark.slow
def test_a_whole_run(tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "measure", functools.partial(measure, busy=lambda: None))  # so others may work as well
    assert loader.main(["--rounds", "1", "--images", "192", "--output", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "loader.json").read_text())
    assert results["data"] == "drawn" and results["images"] == 192 and results["prepare"]["images"] == 202
    assert [(r["tree"], r["cores"] == 1) for r in results["loading"]][:1] == [("as they are", True)]
    assert len(results["recipe"]) == len(results["loading"]) / 2
    assert all(0 <= share < 1 for r in results["training"] for share in r["waited"])
