"""Measure how fast images are loaded, by the DataLoader and by Pillow alone, and how long a
training step waits for its next batch.

    python -m benchmarks.loader                  # loads JPEGs that the program draws
    python -m benchmarks.loader --data FOLDER    # loads FOLDER/train/<class>/*.jpg

Both sides load the same files for training: JPEGs in draft mode, the short side scaled to 256
pixels, a random crop of 227, half of them mirrored. Pillow's side is a plain loop in each of as
many threads as there are cores. Then follow the same for the files that examples/alexnet/prepare.py
makes of these, once more with all the paper's transforms, and training steps of the 2012 network on
both.
"""

import argparse
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from support import images
from support.options import Parser, UsageError, natural
from support.recipes import complete

import minicnn
from minicnn import Tensor
from minicnn.data import DataLoader, ImageFolder, ImageNet, PixelStatistics, SyntheticImages
from minicnn.data.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, Resize

from . import EXAMPLE, machine, ours
from .command import command
from .report import DISTURBED, MEDIANS, described, page, publish, shown, table, to_json
from .sections import OURS, Result
from .turns import BenchmarkError, Contender, Worker, enough, measure, ratios, running, spread

SHORT_SIDE, SIZE, BATCH, STEPS = 256, 227, 32, 5
FEWEST = (STEPS + 1) * BATCH  # images: the steps of a turn lie within an epoch
AUGMENT = Compose([Resize(SHORT_SIDE), RandomCrop(SIZE), RandomHorizontalFlip()])
PILLOW, ARRAYS, THREADS, PROCESSES = "Pillow", "Pillow to arrays", "threads", "processes"
FIRST, LOADED, READY = "first batch", "with loading", "without"


# --------------------------------------------------------------------------------------- contenders
class Loading(Worker):
    """Loads the images of a folder once, on `cores` cores."""

    def __init__(self, cores: int, folder: str, processes: bool = False) -> None:
        self.cores, self.dataset = cores, ImageFolder(folder, least=SHORT_SIDE)
        self.tasks = {"load": self.load}
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, machine.cores()[-cores:])
        self.loader = DataLoader(
            self.dataset, BATCH, transform=AUGMENT, shuffle=True, num_workers=cores, processes=processes
        )  # fmt: skip

    def threads(self) -> dict[str, int]:
        return {"asked": self.cores}

    def load(self) -> None:
        for _ in self.loader:
            pass

    def cpu(self) -> float:
        return super().cpu() + sum(map(machine.cpu_of, multiprocessing.active_children()))


class Recipe(Loading):
    """Loads a tree that prepare.py has made as train.py --recipe paper does."""

    def __init__(self, cores: int, tree: str, processes: bool) -> None:
        super().__init__(cores, os.path.join(tree, "train"))
        own = {"batch_size": BATCH, "workers": cores, "processes": processes, "device": "cpu", "seed": 0}
        settings = argparse.Namespace(**complete({"recipe": "paper", "data": tree, **own}))
        statistics = PixelStatistics.of(minicnn.load(os.path.join(tree, images.STATISTICS))[0])
        view = images.View.of(SIZE, settings, statistics)
        self.loader = images.training(self.dataset, view, settings, statistics)


class Bare(Loading):
    """Pillow alone. What it loads remains Pillow's, or becomes an array at last."""

    def __init__(self, cores: int, folder: str, arrays: bool) -> None:
        super().__init__(cores, folder)
        self.arrays = arrays

    def load(self) -> None:
        paths = [path for path, _ in self.dataset.samples]
        with ThreadPoolExecutor(self.cores) as pool:
            list(pool.map(self.loop, [paths[i :: self.cores] for i in range(self.cores)]))

    def loop(self, paths: Sequence[str]) -> None:
        for path in paths:
            picture = self.picture(path)
            if self.arrays:
                np.asarray(picture)

    @staticmethod
    def picture(path: str) -> Image.Image:
        with Image.open(path) as image:
            image.draft(None, (SHORT_SIDE, SHORT_SIDE))
            scale = SHORT_SIDE / min(image.size)
            width, height = (round(side * scale) for side in image.size)
            picture = image if scale == 1 else image.resize((width, height), Image.Resampling.BILINEAR)
            left, top = random.randint(0, width - SIZE), random.randint(0, height - SIZE)
            picture = picture.crop((left, top, left + SIZE, top + SIZE))
            return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else picture


class Training(ours.Network):
    """Training steps, each on a batch that a loader makes ready meanwhile, or all on one that is at
    hand."""

    def __init__(self, threads: int, folder: str) -> None:
        super().__init__(threads, "2012", BATCH)
        self.loader = DataLoader(
            ImageFolder(folder, least=SHORT_SIDE), BATCH, transform=AUGMENT, normalize=Normalize(0.5, 0.25),
            shuffle=True, num_workers=1, drop_last=True,
        )  # fmt: skip
        self.batches: Iterator[Any] | None = None
        self.shares: list[float] = []
        self.tasks = {FIRST: self.first, LOADED: self.loaded, READY: lambda: [self.step() for _ in range(STEPS)]}

    def first(self) -> None:
        """The first batch of all, for which nothing could be done beforehand."""
        self.batches = iter(self.loader)
        images, self.labels = next(self.batches)
        self.images = Tensor(images)

    def loaded(self) -> None:
        if self.batches is None:
            self.first()
        start, waited = time.perf_counter(), 0.0
        for _ in range(STEPS):
            self.step()
            asked = time.perf_counter()
            images, self.labels = next(self.batches)
            waited += time.perf_counter() - asked
            self.images = Tensor(images)
        self.shares.append(waited / (time.perf_counter() - start))
        self.batches = None  # its worker ends

    def waited(self) -> list[float]:
        """The share of their time that the steps of each turn have waited for batches."""
        return self.shares


# ------------------------------------------------------------------------------------------- images
def link(folder: str, number: int, tree: Path) -> None:
    """Make a tree of links to `number` images, from all over a folder."""
    dataset = ImageNet(folder)
    if len(dataset) < FEWEST:
        raise UsageError(f"--data {folder}: {len(dataset)} images; at least {FEWEST} are needed")
    number = min(number, len(dataset))
    for i in range(number):
        path, label = dataset.samples[i * len(dataset) // number]
        target = Path(path).resolve()
        place(tree, dataset.classes[label], f"{i}{target.suffix}", lambda new, target=target: new.symlink_to(target))


def draw(number: int, tree: Path) -> None:
    """Make a tree of `number` JPEGs of 500 x 375 pixels, as most of ImageNet's have."""
    dataset = SyntheticImages(number, size=500)
    for i in range(number):
        pixels, label = dataset[i]
        picture = Image.fromarray(pixels[:375])
        place(tree, dataset.classes[label], f"{i}.jpg", lambda new, picture=picture: picture.save(new, quality=90))


def place(tree: Path, name: str, file: str, make: Callable[[Path], Any]) -> None:
    """Make an image of a class, in train/; the first of each class in val/ as well."""
    for folder in (tree / "train" / name, tree / "val" / name):
        if folder.parent.name == "train" or not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            make(folder / file)


def prepare(source: Path, target: Path) -> Result:
    """Let prepare.py shrink a tree, and take the time."""
    start = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(EXAMPLE / "prepare.py"), str(source), str(target)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ended.returncode:
        raise BenchmarkError(ended.stderr.strip())
    seconds = time.perf_counter() - start
    return {"images": sum(len(ImageNet(target, train=train)) for train in (True, False)), "seconds": seconds}


# ---------------------------------------------------------------------------------------- measuring
def loading(name: str, folder: Path, cores: int, rounds: int | None) -> Result:
    """Measure minicnn and Pillow in turn."""
    contenders = [
        *(Contender(ours, cores, "loader:Loading", str(folder), ours == PROCESSES) for ours in (THREADS, PROCESSES)),
        *(Contender(other, cores, "loader:Bare", str(folder), other == ARRAYS) for other in (PILLOW, ARRAYS)),
    ]
    return {"tree": name, "cores": cores, **in_turn(contenders, rounds)}


def recipe(tree: Path, cores: int, rounds: int | None) -> Result:
    """Measure minicnn alone, with all that the paper does."""
    contenders = [
        Contender(ours, cores, "loader:Recipe", str(tree), ours == PROCESSES) for ours in (THREADS, PROCESSES)
    ]
    return {"cores": cores, **in_turn(contenders, rounds)}


def in_turn(contenders: Sequence[Contender], rounds: int | None) -> Result:
    with running(*contenders):
        return enough(measure(contenders, ["load"], rounds, budget=30))


def training(name: str, folder: Path, cores: int, rounds: int | None) -> Result:
    """Measure training steps with and without loading."""
    with running(Contender(OURS, cores, "loader:Training", str(folder))) as contenders:
        measured = enough(measure(contenders, [FIRST, LOADED, READY], rounds or 3, shortest=0))
        return {"tree": name, "cores": cores, "waited": contenders[0].ask("waited"), **measured}


def run(data: str | None, number: int, rounds: int | None) -> Result:
    """Measure all of it, on a tree of links or drawings."""
    with tempfile.TemporaryDirectory() as temporary:
        photos, prepared = Path(temporary) / "photos", Path(temporary) / "prepared"
        draw(number, photos) if data is None else link(data, number, photos)
        every = len(machine.cores())
        results: Result = {"machine": machine.describe(every), "data": "drawn" if data is None else "photographs"}
        results["prepare"] = prepare(photos, prepared)
        trees = {"as they are": photos / "train", f"prepared at {SHORT_SIDE}": prepared / "train"}
        results["images"] = len(ImageFolder(photos / "train"))
        results["loading"] = [
            loading(name, folder, cores, rounds) for name, folder in trees.items() for cores in sorted({1, every})
        ]
        results["recipe"] = [recipe(prepared, cores, rounds) for cores in sorted({1, every})]
        results["training"] = [training(name, folder, every, rounds) for name, folder in trees.items()]
    return results


def markdown(results: Result) -> str:
    m, count, prepared = results["machine"], results["images"], results["prepare"]
    rows, recipes, steps = [], [], []

    def rates(seconds: Result, *names: str) -> list[str]:
        return [f"{count / spread(seconds[name]).median:.0f}" for name in names]

    for r in results["loading"]:
        seconds = r["seconds"]["load"]
        shares = [shown(ratios(seconds, name, ours), 100) for ours in (THREADS, PROCESSES) for name in (PILLOW, ARRAYS)]
        done = f"{len(seconds[PILLOW])} ({r['discarded']})"
        rows.append([r["tree"], str(r["cores"]), *rates(seconds, PILLOW, ARRAYS, THREADS, PROCESSES), *shares, done])
    for r in results["training"]:
        seconds = {task: r["seconds"][task][OURS] for task in (LOADED, READY)}
        times = [shown(spread(seconds[task]), 1e3 / STEPS) for task in (LOADED, READY)]
        steps.append([r["tree"], *times, shown(ratios(seconds, LOADED, READY)), shown(spread(r["waited"]), 100)])
    for r in results["recipe"]:
        seconds = r["seconds"]["load"]
        done = f"{len(seconds[THREADS])} ({r['discarded']})"
        recipes.append([str(r["cores"]), *rates(seconds, THREADS, PROCESSES), done])
    rate = prepared["images"] / prepared["seconds"]
    blocks = [
        "# Loading images",
        described(m, f"Pillow {Image.__version__}"),
        f"{count} JPEGs, {results['data']}, loaded as for training: in draft mode, the short side at {SHORT_SIDE} "
        f"pixels, a random crop of {SIZE}, half of them mirrored. **{PILLOW}** does it in a plain loop for each core, "
        f"to images in its own memory or on to arrays; {OURS}'s DataLoader with a **thread** or a **process** for "
        f"each core, to batches of {BATCH}. They took turns. {MEDIANS} {DISTURBED}.",
        table(
            ["JPEGs", "cores", *(f"{name}, images/s" for name in (PILLOW, ARRAYS, THREADS, PROCESSES)),
             *(f"{ours}, % of {name}" for ours in (THREADS, PROCESSES) for name in (PILLOW, ARRAYS)),
             "rounds (thrown away)"], *rows,
        ),
        f"prepare.py did {prepared['images']} in {prepared['seconds']:.1f} s on all cores, {rate:.0f} a second, its "
        "start and end included.",
        "## As the paper does it",
        f"The JPEGs of {SHORT_SIDE} x {SHORT_SIDE} with all of sections 2 and 4.1: the mean image taken off, crops, "
        "flips, colors shifted along their principal components. They become numbers of 32 bits, four times as large.",
        table(["cores", *(f"{how}, images/s" for how in (THREADS, PROCESSES)), "rounds (thrown away)"], *recipes),
        "## In training",
        f"Steps of the 2012 network at batch {BATCH}, on all cores, {STEPS} in a turn: each on a batch that one worker "
        "has loaded during the steps before, to float32; or all on one batch.",
        table(["JPEGs", "step with loading, ms", "without, ms", "ratio", "of it waiting for a batch, %"], *steps),
    ]  # fmt: skip
    return page(blocks)


def parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.loader",
        description=__doc__.partition("\n\n")[0],
        epilog="example: python -m benchmarks.loader --data photos --images 1000",
    )
    parser.add_argument(
        "--data", metavar="FOLDER", help="load FOLDER/train/<class>/*.jpg (default: JPEGs that the program draws)"
    )
    parser.add_argument("--images", type=natural, default=512, metavar="N", help="load N images (default: 512)")
    parser.add_argument(
        "--rounds", type=natural, metavar="N", help="repeat each measurement N times (default: as often as time allows)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results", metavar="FOLDER",
        help="write loader.md and loader.json into this folder (default: benchmarks/results)",
    )  # fmt: skip
    return parser


def write(given: argparse.Namespace) -> None:
    if given.images < FEWEST:
        raise UsageError(f"--images {given.images}: at least {FEWEST} are needed")
    if given.data is None:
        print("no --data: the JPEGs are drawn, and may decode slower or faster than photographs", file=sys.stderr)
    results = run(given.data, given.images, given.rounds)
    given.output.mkdir(parents=True, exist_ok=True)
    publish(given.output, {"loader.md": lambda: markdown(results), "loader.json": lambda: to_json(results)})
    print(markdown(results))


def main(arguments: Sequence[str] | None = None) -> int:
    return command("benchmarks.loader", lambda: write(parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
