"""predict.py: which photos, their answers for people and for programs, the image of them, and photos that cannot be
read."""

import io
import json
import re
from types import SimpleNamespace

import numpy as np
import predict
import pytest

import minicnn
from minicnn import nn
from minicnn.data import DataLoader

Image = pytest.importorskip("PIL.Image")

LINE = re.compile(r"^\s+(\w+)\s+(\d+\.\d)%\s*(█*)$")


@pytest.fixture
def photo(tmp_path):
    return picture(tmp_path / "photo.jpg", 0)


def picture(path, seed, size=(80, 100)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels // (1 + seed % 5)).save(path)
    return path


@pytest.fixture
def asked(run, finished):
    """asked(photo, …) runs predict.py with the network of `finished`."""
    return lambda *arguments: run("predict.py", "--checkpoint", finished.folder / "best.safetensors", *arguments)


def answers(result):
    """(photo, [(class, probability), …]) for each line of --json."""
    lines = [json.loads(line) for line in result.out.splitlines()]
    return [(line["photo"], [(a["class"], a["probability"]) for a in line["answers"]]) for line in lines]


# -- answers --------------------------------------------------------------------------------------------------------


def test_the_largest_probabilities_come_first_and_the_first_of_equal_ones():
    net = nn.Sequential(flatten=nn.Flatten(), fc=nn.Linear(3, 6))
    net.fc.weight.data[:] = 0
    net.fc.bias.data[:] = np.log([1, 5, 2, 9, 2, 5])
    loader = DataLoader([(np.zeros((1, 1, 3), np.float32), 7 - i) for i in range(3)], 2)
    places, found = zip(*predict.predict(net, loader, top=5), strict=True)
    assert places == (7, 6, 5) and [k for k, _ in found[0]] == [3, 1, 5, 2, 4]
    for answer in found:
        assert [p for _, p in answer] == pytest.approx([9 / 24, 5 / 24, 5 / 24, 2 / 24, 2 / 24])
    assert [len(answer) for _, answer in predict.predict(net, loader, top=9)] == [6, 6, 6]


@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_five_lines_with_bars(run, finished, photo, checkpoint):
    result = run("predict.py", "--checkpoint", finished.folder / f"{checkpoint}.safetensors", photo)
    assert result.status == 0 and not result.err
    title, *lines = result.out.splitlines()
    assert title == str(photo)
    names, percents, bars = zip(*(LINE.match(line).groups() for line in lines), strict=True)
    percents = [float(p) for p in percents]
    assert len(set(names)) == 5 and sorted(percents, reverse=True) == percents and 50 < sum(percents) < 100.3
    lengths = [len(bar) for bar in bars]
    assert lengths == pytest.approx(np.array(percents) * lengths[0] / percents[0], abs=1) and lengths[0] > 0


def test_several_photos_and_fewer_than_five_classes(run, photos, photo, tmp_path):
    run("train.py", "--data", photos(classes=2), "--epochs", 1, "--out", tmp_path / "run")
    result = run("predict.py", "--checkpoint", tmp_path / "run" / "best.safetensors", photo, photo)
    lines = result.out.splitlines()
    assert result.status == 0 and len(lines) == 6 and lines[:3] == lines[3:]
    assert {line.split()[0] for line in lines[1:3]} == {"cat", "dog"}


def test_lines_of_json_agree_with_those_for_people(asked, photo, tmp_path):
    other = picture(tmp_path / "é\n.png", 3, (200, 70))
    people, programs = asked(photo, other, "--top", 3), answers(asked(photo, other, "--top", 3, "--json"))
    assert [name for name, _ in programs] == [str(photo), str(other)]
    shown = [LINE.match(line).groups()[:2] for line in people.out.splitlines() if LINE.match(line)]
    assert shown == [(name, f"{100 * p:.1f}") for _, answer in programs for name, p in answer] and len(shown) == 6


def test_names_that_end_lines(run, finished, tmp_path):
    """Of photos, of what is skipped and of classes: each has a line all the same, and JSON has the
    names."""
    arrays, info = minicnn.load(finished.folder / "best.safetensors")
    words = [f"{i}\n\x1b[1m" for i in range(10)]
    minicnn.save(tmp_path / "words.safetensors", arrays, {"config": {**info["config"], "names": words}})
    photo = picture(tmp_path / "a\nb" / "photo\x1b.jpg", 0)
    (photo.parent / "c\nd.txt").write_text("no image")
    (photo.parent / "e\nf.jpg").write_text("no image")
    arguments = ["predict.py", "--checkpoint", tmp_path / "words.safetensors", photo.parent]
    result, lines = run(*arguments), run(*arguments, "--json").out.splitlines()
    folder = tmp_path / r"a\nb"
    assert result.status == 1 and result.err == (
        f"predict.py: {folder}: skipped, because they are not images: {folder}/c\\nd.txt\n"
        f"predict.py: {folder}/e\\nf.jpg: not an image that Pillow can read\n"
    )
    title, *answers = result.out.splitlines()
    assert title == f"{folder}/photo\\x1b.jpg" and len(answers) == 5
    assert all(re.match(r"  \d\\n\\x1b\[1m  +\d", line) for line in answers)
    found = {line["photo"]: line for line in map(json.loads, lines)}
    assert {a["name"] for a in found[str(photo)]["answers"]} < set(words) and len(found) == 2
    report = run("evaluate.py", "--checkpoint", tmp_path / "words.safetensors").out
    assert "\x1b" not in report and len(report.splitlines()) == 1 + 1 + 11 + 1 + 11 and r"9\n\x1b[1m " in report


def test_words_stand_for_classes(run, finished, photo, tmp_path):
    arrays, info = minicnn.load(finished.folder / "best.safetensors")
    words = [f"thing number {i}, which has quite a long name" for i in range(10)]
    minicnn.save(tmp_path / "words.safetensors", arrays, {"config": {**info["config"], "names": words}})
    arguments = ["predict.py", "--checkpoint", tmp_path / "words.safetensors", photo, "--draw", tmp_path / "bars.png"]
    _, *lines, wrote = run(*arguments).out.splitlines()
    assert wrote == f"wrote {tmp_path / 'bars.png'}"
    assert all(re.match(r"  thing number \d, which has quite a l…  +\d", line) for line in lines)
    (answer,) = run(*arguments, "--json").out.splitlines()
    for a in json.loads(answer)["answers"]:
        assert a["name"] == words[info["config"]["classes"].index(a["class"])]


def test_ten_crops(asked, finished, photo):
    """The mean of the answers to each of the ten."""
    from PIL import ImageOps
    from support import runs

    net, config, view = runs.load_network(finished.folder / "best.safetensors")
    pixels = minicnn.data.read_image(photo)
    crops = minicnn.Tensor(view.evaluation(crops=10)(pixels, np.random.default_rng(0)))  # (10, S, S, 3)
    p = minicnn.functional.softmax(net(crops)).numpy().mean(axis=0)
    ((_, answer),) = answers(asked(photo, "--crops", 10, "--json"))
    assert [name for name, _ in answer] == [config["classes"][k] for k in np.argsort(-p)[:5]]
    assert [value for _, value in answer] == pytest.approx(np.sort(p)[:-6:-1], rel=1e-4)
    mirrored = photo.with_name("mirrored.png")
    ImageOps.mirror(Image.fromarray(pixels)).save(mirrored)
    ((_, same),) = answers(asked(mirrored, "--crops", 10, "--json"))
    assert [value for _, value in same] == pytest.approx([value for _, value in answer], rel=0.02)


def test_a_network_that_diverged(mistake, finished, photo, tmp_path):
    arrays, info = minicnn.load(finished.folder / "best.safetensors")
    arrays["fc8.bias"][3] = np.nan
    minicnn.save(tmp_path / "nan.safetensors", arrays, info)
    assert not mistake("NaN or infinite", "predict.py", "--checkpoint", tmp_path / "nan.safetensors", photo).out


# -- which photos ---------------------------------------------------------------------------------------------------


def test_folders_at_any_depth_in_order(asked, tmp_path):
    for name in ("b/z.jpg", "b/c/d/1.PNG", "b/c/a.jpeg", "b/.hidden.jpg", "b/.git/x.jpg", "a.gif"):
        picture(tmp_path / name, len(name))
    for name in ("b/notes.txt", "b/c/table.csv", "b/.DS_Store"):
        (tmp_path / name).write_text("no image")
    result = asked(tmp_path / "b", tmp_path / "a.gif", "--json")
    found = [name.removeprefix(f"{tmp_path}/") for name, _ in answers(result)]
    assert found == ["b/c/a.jpeg", "b/c/d/1.PNG", "b/z.jpg", "a.gif"]
    assert result.status == 0 and len(result.err.splitlines()) == 1
    assert all(word in result.err for word in ("skipped", "b/c/table.csv", "b/notes.txt")) and "DS" not in result.err
    for i in range(9):
        (tmp_path / "b" / f"{i}.txt").write_text("no image")
    assert len(asked(tmp_path / "b").err.splitlines()[0]) < 600


def test_folders_that_are_links(asked, tmp_path):
    """Are followed, once."""
    picture(tmp_path / "a" / "1.jpg", 1)
    picture(tmp_path / "b" / "2.jpg", 2)
    (tmp_path / "b" / "more").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "again").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "round").symlink_to(tmp_path / "b")
    found = [name.removeprefix(f"{tmp_path}/") for name, _ in answers(asked(tmp_path / "b", "--json"))]
    assert len(found) == 2 and found[0] == "b/2.jpg" and found[1].endswith("/1.jpg")


def test_a_folder_without_pictures(mistake, finished, photo, tmp_path):
    (tmp_path / "empty").mkdir()
    best = finished.folder / "best.safetensors"
    assert not mistake(
        ["empty", "no images", ".jpg"], "predict.py", "--checkpoint", best, photo, tmp_path / "empty"
    ).out


def test_standard_input(asked, photo, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(photo.read_bytes())))
    (one, answer), (two, same) = answers(asked("-", photo, "--json"))
    assert (one, two) == ("-", str(photo)) and answer == same
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"this is no image")))
    result = asked("-")
    assert (result.status, result.out) == (1, "")
    assert result.err == "predict.py: standard input: not an image that Pillow can read\n"
    monkeypatch.setattr("sys.stdin", None)
    result = asked("-")
    assert (result.status, result.out) == (2, "") and "no standard input" in result.err


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_batches_of_any_size(asked, photos, batch):
    folder = photos() / "train"
    one, other = answers(asked(folder, "--json")), answers(asked(folder, "--json", "--batch-size", batch))
    assert len(one) == 12 and [name for name, _ in one] == [name for name, _ in other]
    for (_, a), (_, b) in zip(one, other, strict=True):
        assert [p for _, p in b] == pytest.approx([p for _, p in a], rel=1e-4)


def test_answers_come_before_all_photos_are_read():
    """What is in memory at one time does not depend on how many photos there are."""

    class Counted:
        read = 0

        def __len__(self):
            return 1000

        def __getitem__(self, i):
            self.read += 1
            return np.zeros((1, 1, 3), np.float32), i

    photos, net = Counted(), nn.Sequential(flatten=nn.Flatten(), fc=nn.Linear(3, 2))
    found = predict.predict(net, DataLoader(photos, 10, num_workers=1), top=1)
    assert next(found)[0] == 0 and photos.read <= 50
    found.close()


# -- photos that cannot be read -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "text", "truncated"])
def test_the_others_are_answered(asked, photo, tmp_path, kind):
    path = tmp_path / "other.jpg"
    if kind == "text":
        path.write_text("this is no image")
    elif kind == "truncated":
        path.write_bytes(photo.read_bytes()[:-700])
    result = asked(photo, path, photo, path, "--json")
    said, lines = result.err.splitlines(), [json.loads(line) for line in result.out.splitlines()]
    assert result.status == 1 and [line["photo"] for line in lines] == [str(photo), str(path)] * 2
    assert ["answers" in line for line in lines] == [True, False] * 2
    assert said == [f"predict.py: {line['error']}" for line in lines[1::2]]
    assert all(line.startswith(f"predict.py: {path}: ") for line in said)
    drawing = tmp_path / "none.png"
    alone = asked(path, "--draw", drawing)
    assert (alone.status, alone.out, alone.err.count("\n")) == (1, "", 2) and not drawing.exists()
    assert alone.err.endswith(f"predict.py: {drawing}: not drawn, because no photo can be read\n")


# -- the drawing ----------------------------------------------------------------------------------------------------


def test_each_photo_has_its_bars_beside_it(tmp_path):
    """The first on top, whatever the names are."""
    red, blue = (np.full((30, 40, 3), color, np.uint8) for color in ((200, 0, 0), (0, 0, 200)))
    sure, unsure = [(0, 0.9), (1, 0.1)], [(k, 0.2) for k in range(4)]
    predict.draw(tmp_path / "bars.png", [(red, sure), (blue, unsure)], [r"$\frac$", "été", "c" * 99, "d", "e"])
    with Image.open(tmp_path / "bars.png") as drawing:
        pixels = np.asarray(drawing.convert("RGB")).astype(int)
    for half, channel, expected in ((0, 0, [0.9, 0.1, 0, 0, 0]), (1, 2, [0.2, 0.2, 0.2, 0.2, 0])):
        left, right = np.array_split(np.array_split(pixels, 2)[half], 2, axis=1)
        assert (left[..., channel] - left.min(axis=2) > 150).mean() > 0.4
        bars = np.ptp(right, axis=2) > 20
        lengths = np.array([part.sum(axis=1).max() for part in np.array_split(bars, 5)])
        assert lengths / right.shape[1] == pytest.approx(np.array(expected) * 0.88, abs=0.05)  # but for margins


def test_the_program_draws(asked, photo, tmp_path):
    result = asked(photo, photo, "--draw", tmp_path / "bars.png")
    assert result.status == 0 and not result.err
    assert {path.name for path in tmp_path.iterdir()} == {"photo.jpg", "bars.png"}
    with Image.open(tmp_path / "bars.png") as drawing:
        assert drawing.format == "PNG" and drawing.width > 500 and drawing.height > 400


def test_of_many_photos_the_first_are_drawn(run, finished, photos, tmp_path, monkeypatch, capsys):
    folder, broken = photos() / "train", tmp_path / "a.jpg"
    broken.write_text("this is no image")
    monkeypatch.setattr(predict, "MOST_DRAWN", 3)
    drawn, drawing = [], tmp_path / "bars.png"
    monkeypatch.setattr(predict, "draw", lambda path, pictures, names: drawn.append([x.mean() for x, _ in pictures]))
    arguments = ["predict.py", "--checkpoint", str(finished.folder / "best.safetensors"), "--draw", str(drawing)]
    monkeypatch.setattr("sys.argv", [*arguments, str(broken), str(folder / "dog" / "3.jpg"), str(folder)])
    with pytest.raises(SystemExit, match="1"):
        predict.main()
    assert "bars.png has the first 3 of 14 photos" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*arguments, str(folder / "dog" / "3.jpg"), str(folder / "cat")][:-1])
    predict.main()
    assert not capsys.readouterr().err
    dog, cat = (minicnn.data.read_image(folder / name).mean() for name in ("dog/3.jpg", "cat/0.jpg"))
    assert drawn == [pytest.approx([dog, cat], rel=0.02), pytest.approx([dog], rel=0.02)] and abs(dog - cat) > 20


def test_large_photos_are_decoded_only_as_large_as_they_are_needed(asked, photo, monkeypatch):
    sizes, read_image = [], minicnn.data.read_image

    def noted(path, *arguments):
        sizes.append((read_image(path, *arguments).shape, read_image(path).shape))
        return read_image(path, *arguments)

    monkeypatch.setattr(minicnn.data, "read_image", noted)
    picture(photo, 0, (720, 800))
    assert asked(photo).status == 0 and sizes == [((64, 71, 3), (720, 800, 3))]


@pytest.mark.parametrize(
    "name, word", [("photo.jpg/bars.png", "folder"), ("nowhere/bars.png", "folder"), ("bars.doc", ".png")]
)
def test_drawings_that_cannot_be_written(mistake, finished, photo, tmp_path, name, word):
    best = finished.folder / "best.safetensors"
    result = mistake([str(tmp_path / name), word], "predict.py", "--checkpoint", best, photo, "--draw", tmp_path / name)
    assert not result.out and list(tmp_path.iterdir()) == [photo]


def test_a_photo_is_not_drawn_over(mistake, finished, tmp_path):
    picture(tmp_path / "photo.png", 0)
    before, best = (tmp_path / "photo.png").read_bytes(), finished.folder / "best.safetensors"
    drawing = tmp_path / ".." / tmp_path.name / "photo.png"
    mistake("one of the photos", "predict.py", "--checkpoint", best, tmp_path, "--draw", drawing)
    assert (tmp_path / "photo.png").read_bytes() == before


def test_photos_are_asked_for(mistake):
    mistake("photo", "predict.py")
