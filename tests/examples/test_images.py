"""What happens to an image on its way to the network: views, augmentation, the statistics of the training images."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from support import images, options
from support.images import IMAGENET, RAW, View
from support.recipes import complete

import minicnn
from minicnn.checkpoint import CheckpointError
from minicnn.data import DataError, PixelStatistics

MEAN_IMAGE = np.random.default_rng(1).random((40, 40, 3), np.float32) * 255


def settings_of(**given):
    return SimpleNamespace(**complete({"data": "somewhere", "workers": 0, "device": "cpu", "seed": 0, **given}))


def picture(height=50, width=44, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """A folder of 4 images of 40 × 40 to train on, and 2 to validate."""
    image = pytest.importorskip("PIL.Image")
    for part, count in (("train", 2), ("val", 1)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                image.fromarray(picture(40, 40, seed=i)).save(tmp_path / part / name / f"{i}.png")
    return tmp_path


# -- views ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init, least, most", [("he", 3, 6), ("paper", 255, 255)])
@pytest.mark.parametrize("mean", ["imagenet", "image"])
def test_the_scale_of_inputs_suits_the_initialization(init, least, most, mean):
    """About unit variance for He's weights, 0 to 255 less the mean for the paper's."""
    settings, statistics = settings_of(init=init, mean=mean, resize=40), PixelStatistics()
    statistics.add(np.full((40, 40, 3), 115, np.uint8))
    view, rng = View.of(32, settings, statistics), np.random.default_rng(0)
    for transform in (view.evaluation(), view.augmented(settings, statistics)):
        black, white = (transform(np.full((80, 90, 3), v, np.uint8), rng) for v in (0, 255))
        assert black.shape == (32, 32, 3) and black.dtype == np.float32
        span = white - black
        assert (span > least - 1e-3).all() and (span < most + 1e-3).all()
        assert (abs(black + white) < span / 4).all()


@pytest.mark.parametrize("std", [RAW, IMAGENET[1]])
def test_a_mean_image_is_subtracted_from_the_central_square(std):
    view = View(32, (0.0, 0.0, 0.0), std, MEAN_IMAGE, resize=40)
    seen = view.evaluation()(picture(40, 60), np.random.default_rng(0))
    expected = (picture(40, 60)[:, 10:50] - MEAN_IMAGE)[4:36, 4:36] / (255 * np.array(std))
    np.testing.assert_allclose(seen, expected, atol=1e-4)


@pytest.mark.parametrize("view", [View(31, *IMAGENET, resize=40), View(31, (0.0,) * 3, RAW, MEAN_IMAGE, resize=40)])
def test_pixels_are_those_that_the_image_was_made_of(view):
    rng, left = np.random.default_rng(0), 15 if view.mean_image is None else 10 + 4  # of the central square, from 10
    crop = picture(40, 61)[4:35, left : left + 31]
    for crops in (1, 10):
        seen = view.evaluation(crops)(picture(40, 61), rng)
        pixels = view.pixels(seen if crops == 1 else seen[4])
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, crop)
    assert view.pixels(np.full((31, 31, 3), 1e9, np.float32)).min() == 255


def test_ten_crops_of_a_view_are_of_the_whole_picture_without_a_mean_image():
    mean, std = IMAGENET
    crops = View(32, mean, std, resize=40).evaluation(crops=10)(picture(40, 60), np.random.default_rng(0))
    assert crops.shape == (10, 32, 32, 3) and crops.dtype == np.float32
    x = ((picture(40, 60) / 255 - mean) / std).astype(np.float32)
    np.testing.assert_allclose(crops[3], x[8:, 28:], atol=1e-5)
    np.testing.assert_allclose(crops[9], x[4:36, 14:46][:, ::-1], atol=1e-5)
    with pytest.raises(ValueError, match="in 1 crop or in 10, not in 5"):
        View(32, mean, std).evaluation(crops=5)


@pytest.mark.parametrize("scale", ["raw", "unit"])
def test_colors_are_shifted_on_the_scale_of_the_view(scale):
    """A shift is the same for a mean image as for a mean, and on each scale."""
    statistics, shifts = PixelStatistics(), []
    for seed in range(5):
        statistics.add(picture(40, 40, seed))
    for mean in ("imagenet", "image"):
        with_color = settings_of(mean=mean, scale=scale, resize=40, color_pca=True, crop="center", flip=False)
        view = View.of(32, with_color, statistics)
        assert view.std == (RAW if scale == "raw" else IMAGENET[1])
        color = view.augmented(with_color, statistics)(picture(), np.random.default_rng(3))
        shift = (color - view.evaluation()(picture(), np.random.default_rng(3))) * (255 * np.array(view.std))
        np.testing.assert_allclose(shift, np.broadcast_to(shift[0, 0], shift.shape), atol=1e-3)
        shifts.append(shift[0, 0])
    eigenvalues, eigenvectors = statistics.color_pca()
    expected = 255 * eigenvectors @ (eigenvalues * np.random.default_rng(3).normal(0, 0.1, 3))
    np.testing.assert_allclose(shifts, [expected, expected], atol=1e-3)


def test_crops_and_flips_can_be_left_out():
    rng, view = np.random.default_rng(0), View(32, (0, 0, 0), RAW, resize=40)
    for crop in ("center", "random"):
        for flip in (False, True):
            transform = view.augmented(settings_of(crop=crop, flip=flip), None)
            seen = {transform(picture(40, 40), rng)[0].tobytes() for _ in range(40)}
            assert len(seen) == 1 + flip if crop == "center" else len(seen) > 20


def test_numbers_make_a_view_again():
    view = View(32, *IMAGENET, resize=40)
    assert View(**view.numbers()).numbers() == view.numbers() == {
        "size": 32, "mean": IMAGENET[0], "std": IMAGENET[1], "resize": 40,
    }  # fmt: skip


# -- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, normalized_there", [({}, True), ({"color_pca": True}, False), ({"mean": "image"}, False)]
)
def test_bytes_cross_to_a_gpu_if_nothing_follows_their_normalization(given, normalized_there):
    settings, statistics = settings_of(resize=40, batch_size=2, **given), PixelStatistics()
    dataset = [(picture(40, 40, seed), seed) for seed in range(3)]
    for image, _ in dataset:
        statistics.add(image)
    view = View.of(32, settings, statistics)
    loader = images.training(dataset, view, settings, statistics)
    assert (loader.normalize is not None) == normalized_there
    assert (images.validation(dataset, view, settings).normalize is not None) == (given.get("mean") != "image")
    assert [images.dtype for images, _ in loader] == [np.float32] * 2


def test_ten_crops_come_in_batches_of_a_tenth():
    view, dataset = View(32, *IMAGENET, resize=40), [(picture(40, 40, seed), seed) for seed in range(5)]
    for batch_size, expected in ((32, [3, 2]), (4, [1] * 5)):
        loader = images.validation(dataset, view, settings_of(batch_size=batch_size), crops=10)
        batches = [images for images, _ in loader]
        assert [len(images) for images in batches] == expected
        assert all(images.shape[1:] == (10, 32, 32, 3) and images.dtype == np.float32 for images in batches)
        np.testing.assert_array_equal(np.concatenate(batches)[4], view.evaluation(10)(dataset[4][0], None))


def test_training_pictures_come_in_another_order_each_epoch_and_for_each_seed():
    dataset, orders = [(picture(40, 40, label), label) for label in range(12)], []
    for seed, epoch in ((0, 1), (0, 2), (1, 1), (0, 1)):
        settings = settings_of(resize=40, batch_size=5, seed=seed)
        loader = images.training(dataset, View(32, *IMAGENET, resize=40), settings)
        loader.set_epoch(epoch)
        orders.append([int(label) for _, labels in loader for label in labels])
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert orders[0] == orders[3] and len(set(map(tuple, orders))) == 3
    held_out = images.validation(dataset, View(32, *IMAGENET, resize=40), settings_of(batch_size=5))
    assert [int(label) for _, labels in held_out for label in labels] == list(range(12))


def test_workers_and_processes_are_what_was_asked_for():
    view, dataset = View(32, *IMAGENET, resize=40), [(picture(40, 40), 0)]
    for workers, processes in ((3, False), (2, True)):
        settings = settings_of(resize=40, workers=workers, processes=processes)
        for loader in (images.training(dataset, view, settings), images.validation(dataset, view, settings)):
            assert (loader.num_workers, loader.processes) == (workers, processes)


# -- statistics -----------------------------------------------------------------------------------------------------


def test_statistics_are_computed_from_central_squares(folder, capsys):
    dataset, _ = images.datasets(str(folder), 0, 32)
    for given in ({"mean": "image"}, {"color_pca": True}):
        statistics = images.pixel_statistics(dataset, settings_of(data=str(folder), resize=20, **given))
        assert statistics.count == 4 and statistics.mean_image.shape == (20, 20, 3)
        assert capsys.readouterr().out == "mean image and colors of the 4 training images: computed now\n"
    assert images.pixel_statistics(dataset, settings_of()) is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("prefix", ["", "imagenet:"])
def test_statistics_of_a_prepared_folder_are_used(folder, capsys, prefix):
    dataset, _ = images.datasets(prefix + str(folder), 0, 32)
    statistics = PixelStatistics()
    for i in range(4):
        statistics.add(np.full((40, 40, 3), i, np.uint8))  # others than computed
    minicnn.save(folder / "statistics.safetensors", statistics.arrays())
    settings = settings_of(data=prefix + str(folder), mean="image", resize=40)
    found = images.pixel_statistics(dataset, settings)
    assert found.mean_image[0, 0, 0] == 1.5
    assert str(folder / "statistics.safetensors") in capsys.readouterr().out
    settings.resize = 20
    with pytest.raises(DataError, match=r"4 images of 40x40, not of 4 of 20x20: run prepare\.py again, or remove"):
        images.pixel_statistics(dataset, settings)
    settings.resize = 40
    with pytest.raises(DataError, match="4 images of 40x40, not of 3 of 40x40"):
        images.pixel_statistics(dataset.samples[:3], settings)


def test_statistics_that_are_none(folder):
    dataset, _ = images.datasets(str(folder), 0, 32)
    path, settings = folder / "statistics.safetensors", settings_of(data=str(folder), mean="image", resize=40)
    minicnn.save(path, {"weight": np.zeros(3)})
    with pytest.raises(DataError, match=r"statistics.safetensors: these arrays are not pixel statistics: weight"):
        images.pixel_statistics(dataset, settings)
    path.write_text("words")
    with pytest.raises(CheckpointError, match=r"statistics.safetensors"):
        images.pixel_statistics(dataset, settings)


def test_data_without_a_folder_have_no_file(folder, monkeypatch):
    """Not even if a folder is called so."""
    statistics = PixelStatistics()
    statistics.add(picture(40, 40))
    (folder / "synthetic").mkdir()
    minicnn.save(folder / "synthetic" / "statistics.safetensors", statistics.arrays())
    monkeypatch.chdir(folder)
    dataset = [(picture(40, 40, 7), 0)]
    found = images.pixel_statistics(dataset, settings_of(data="synthetic", mean="image", resize=40))
    np.testing.assert_array_equal(found.mean_image, picture(40, 40, 7))


# -- datasets -------------------------------------------------------------------------------------------------------


def test_drawn_pictures_to_validate_on_are_not_those_to_train_on(monkeypatch):
    """Nor those of any other seed."""
    monkeypatch.setattr(images, "SYNTHETIC", {"train": 20, "val": 12})
    drawn = [part for seed in range(4) for part in images.datasets("synthetic", seed, 64)]
    seen = [{part[i][0].tobytes() for i in range(len(part))} for part in drawn]
    assert list(map(len, seen)) == [20, 12] * 4 and len(set.union(*seen)) == 4 * 32


@pytest.mark.parametrize("prefix", ["", "imagenet:"])
def test_what_is_no_picture_is_named(folder, capsys, prefix):
    for name in ("cat/IMG_1.HEIC", "dog/more/1.png", "cat/.hidden"):
        (folder / "train" / name).parent.mkdir(exist_ok=True)
        (folder / "train" / name).write_bytes(b"")
    train, _ = images.datasets(prefix + str(folder), 0, 32)
    assert len(train) == 4
    line = capsys.readouterr().err
    assert (
        line.endswith(f": {folder}: skipped, because they are not images: train/cat/IMG_1.HEIC, train/dog/more\n")
        and line.count("\n") == 1
    )


def test_imagenet(folder):
    train, val = images.datasets(f"imagenet:{folder}", 0, 20, least=20)
    assert train.classes == val.classes == ["cat", "dog"] and (len(train), len(val)) == (4, 2)
    assert train[0][0].shape == val[0][0].shape == (20, 20, 3)
    with pytest.raises(ValueError, match="imagenet:DIR"):
        images.datasets("imagenet", 0, 32)


@pytest.mark.parametrize("what", ["imagenet:{}", "{}"])
def test_to_validate_needs_no_pictures_to_train_on(folder, what):
    shutil.rmtree(folder / "train")
    (folder / "synset_words.txt").write_text("cat a cat\ndog a dog\n")
    val = images.dataset(what.format(folder), "val", 0, 32)
    assert val.classes == ["cat", "dog"] and len(val) == 2
    with pytest.raises(DataError, match="train"):
        images.datasets(what.format(folder), 0, 32)


def test_a_short_side_that_is_too_short():
    with pytest.raises(options.UsageError, match="--resize 31: the network sees 32 pixels"):
        images.datasets("nowhere", 0, 32, least=31)
