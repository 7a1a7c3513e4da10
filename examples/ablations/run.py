"""Measure on CIFAR-10 what each idea of the paper contributes: python examples/ablations/run.py
--data DIR

The baseline is a small network with all the ideas. Each other run changes one thing in it (two also
lower the learning rate, because they fail at the baseline's). The result is how many more of the
test images are then wrong, in the mean of several seeds, each compared with the baseline of the
same seed. The last column is the section of Krizhevsky et al. 2012.

    --only           the baseline                              instead                  the paper
    normalization    local response normalization              none; batch norm         3.3
    pooling          3 × 3 in steps of 2                       2 × 2 in steps of 2      3.4
    dropout          half of what the last layer sees          none                     4.2
    crops            24 × 24 of the 32 × 32 pixels, anywhere   in the middle            4.1
    flips            half of the images are mirrored           none                     4.1
    color            shifted along its principal components    as it is                 4.1
    initialization   He's, for pixels of unit variance         N(0, 0.01) and 0 to 255  5
    relu             figure 1: epochs until at most 25% of the training images are wrong, with ReLU,
                     tanh and sigmoid, each at the best of a few rates; without normalization or
                     regularization, and with the paper's weights and pixels. Two run again with
                     He's weights, which were not known then.

By default, the networks train on 5,000 of the training images for 24 epochs, at a learning rate
that falls along a cosine, and are tested on all test images. Each run is saved in the folder runs
as soon as it is done. So the same command continues where it was interrupted, also with more seeds,
and two commands with the same --out and different --only share the work. At the end, table.md,
table.json and the charts are written. The runs of all ideas together took 130 minutes on one core
of an AMD EPYC (Milan), those of relu another 130.

Pixels of unit variance are 63 times smaller than those from 0 to 255, so with them the constant α
of local response normalization is 63² times the paper's. As He's weights keep the scale from layer
to layer, this normalization is stronger than the paper's: at first α·Σa² is about 2 in conv1 and in
conv2, beside k = 2, while the paper's weights, pixels and α give 0.007 and 0.0003.
"""

import json
import sys
import time
import zlib
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

# whose options and charts are used here
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "alexnet"))
import support.installed  # noqa: F401 (first)

# isort: split
import numpy as np
from evaluate import evaluate
from report import GOAL, Run, reached, report
from support.drawing import require_matplotlib
from support.options import Parser, UsageError, add_machine, batch_of, command, natural, say, use_machine
from support.progress import batches
from support.scores import Score
from support.settings import CIFAR10_FILES, NO_VERIFY

import minicnn
from minicnn import Tensor, nn
from minicnn import functional as F
from minicnn.checkpoint import replacing
from minicnn.data import CIFAR10, DataLoader
from minicnn.data.statistics import PixelStatistics
from minicnn.data.transforms import CenterCrop, Compose, Normalize, PCAColor, RandomCrop, RandomHorizontalFlip
from minicnn.nn import init
from minicnn.optim import SGD, CosineLR, Optimizer

# Images to train and to test on, epochs, and epochs at most of a race.
SIZES = {"train": 5_000, "test": 10_000, "epochs": 24, "limit": 45}
QUICK = {"train": 512, "test": 512, "epochs": 2, "limit": 2}
SIDE, BATCH, TEST_EVERY = 24, 64, 8
ALPHA = {"paper": 1e-4, "he": 1e-4 * 63**2}


@dataclass(frozen=True)
class Setting:
    """All that can change from run to run."""

    activation: str = "relu"
    norm: str = "lrn"
    pool: int = 3
    dropout: float = 0.5
    crop: bool = True
    flip: bool = True
    color: bool = True
    init: str = "he"  # and the scale of the pixels that it suits
    decay: float = 5e-4
    rate: float = 0.02


BASELINE = Setting()
IDEAS = {
    "normalization": {
        # 48.6% wrong with seed 1; at 0.02 61.8%
        "no normalization": replace(BASELINE, norm="none", rate=0.01),
        "batch norm": replace(BASELINE, norm="batch"),
    },
    "pooling": {"pooling without overlap": replace(BASELINE, pool=2)},
    "dropout": {"no dropout": replace(BASELINE, dropout=0)},
    "crops": {"no random crops": replace(BASELINE, crop=False)},
    "flips": {"no flips": replace(BASELINE, flip=False)},
    "color": {"no color shift": replace(BASELINE, color=False)},
    # 41.8% wrong; at 0.02 66.5%
    "initialization": {"N(0, 0.01)": replace(BASELINE, init="paper", rate=0.002)},
}
BARE = Setting(norm="none", dropout=0, crop=False, flip=False, color=False, init="paper", decay=0)
RACES = {  # with the rates to try, the likely best first
    "ReLU": (BARE, (0.001, 0.003, 0.0003)),
    "tanh": (replace(BARE, activation="tanh"), (0.01, 0.03, 0.003)),
    "sigmoid": (replace(BARE, activation="sigmoid"), (0.1, 0.3)),
    "ReLU, He": (replace(BARE, init="he"), (0.01, 0.03, 0.003)),
    "tanh, He": (replace(BARE, activation="tanh", init="he"), (0.01, 0.03, 0.003)),
}


def network(setting: Setting) -> nn.Sequential:
    """Four layers with weights: images (N, 24, 24, 3) to logits (N, 10)."""
    activation = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[setting.activation]
    weights = {"he": init.he(), "paper": init.normal(0.01)}[setting.init]

    def block(inputs: int, outputs: int, norm: str = "none") -> nn.Sequential:
        layers: dict[str, nn.Module] = {"conv": nn.Conv2d(inputs, outputs, 5, padding=2, weight_init=weights)}
        layers["activation"] = activation()
        if norm == "lrn":
            layers["norm"] = nn.LocalResponseNorm(alpha=ALPHA[setting.init])
        elif norm == "batch":
            layers["norm"] = nn.BatchNorm2d(outputs)
        # the output size is the same with either window
        layers["pool"] = nn.MaxPool2d(setting.pool, stride=2, ceil_mode=True)
        return nn.Sequential(**layers)

    return nn.Sequential(
        conv1=block(3, 32, setting.norm),  # 12 × 12 × 32
        conv2=block(32, 32, setting.norm),  # 6 × 6 × 32
        conv3=block(32, 64),  # 3 × 3 × 64
        flatten=nn.Flatten(),
        dropout=nn.Dropout(setting.dropout),
        fc=nn.Linear(3 * 3 * 64, 10, weight_init=init.normal(0.01)),
    )


class Images:
    """The training and test images, and transforms that know of the training pixels."""

    def __init__(self, settings: Namespace, sizes: dict[str, int]) -> None:
        self.settings = settings
        self.train = evenly(CIFAR10(settings.data, True, verify=settings.verify), sizes["train"])
        self.test = evenly(CIFAR10(settings.data, False, verify=settings.verify), sizes["test"])
        pixels, self.checksum = PixelStatistics(), 0
        for image, _ in self.train:
            pixels.add(image)
        for image, label in (*self.train, *self.test):
            self.checksum = zlib.crc32(np.uint8(label), zlib.crc32(image, self.checksum))
        self.mean, self.color_pca = pixels.mean.tolist(), pixels.color_pca()
        self.std = {"he": np.sqrt(np.diag(pixels.covariance)).tolist(), "paper": [1 / 255] * 3}

    def training(self, setting: Setting, seed: int) -> DataLoader:
        place = RandomCrop(SIDE) if setting.crop else CenterCrop(SIDE)
        flip = [RandomHorizontalFlip()] * setting.flip
        color = [PCAColor(*self.color_pca, scale=[1 / std for std in self.std[setting.init]])] * setting.color
        return self._loader(self.train, [place, *flip, self.normalize(setting), *color], shuffle=True, seed=seed)

    def testing(self, setting: Setting) -> DataLoader:
        return self._loader(self.test, [CenterCrop(SIDE), self.normalize(setting)])

    def normalize(self, setting: Setting) -> Normalize:
        return Normalize(self.mean, self.std[setting.init])

    def _loader(self, dataset: Any, transforms: Any, **options: Any) -> DataLoader:
        workers, device = self.settings.workers, self.settings.device
        return DataLoader(dataset, BATCH, transform=Compose(transforms), num_workers=workers, device=device, **options)


def evenly(dataset: CIFAR10, n: int) -> list[tuple[Any, int]]:
    """n of the images, from all over the data set, or all if it has no more."""
    n = min(n, len(dataset))
    return [dataset[i * len(dataset) // n] for i in range(n)]


# --------------------------------------------------------------------------------------------- runs
@dataclass(frozen=True)
class Job:
    """A run to be done, for this many epochs; with rates to try, it is a race to the goal, of at
    most this many."""

    name: str
    setting: Setting
    seed: int
    epochs: int
    rates: tuple[float, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.name}, seed {self.seed}"


def plan(ideas: Iterable[str], seeds: int, sizes: dict[str, int]) -> list[Job]:
    """The runs that these ideas need, all of one seed before the next."""
    changes = {name: setting for idea in ideas if idea in IDEAS for name, setting in IDEAS[idea].items()}
    jobs = []
    for seed in range(seeds):
        for name, (setting, rates) in RACES.items() if "relu" in ideas else ():
            jobs.append(Job(name, setting, seed, sizes["limit"], rates))
        for name, setting in {"baseline": BASELINE, **changes}.items() if changes else ():
            jobs.append(Job(name, setting, seed, sizes["epochs"]))
    return jobs


def run(job: Job, images: Images) -> Run:
    """Do the job: returns what measure or race return, and the seconds."""
    start = time.perf_counter()
    result = race(job, images) if job.rates else measure(job, images)
    return {**result, "seconds": time.perf_counter() - start}


def measure(job: Job, images: Images) -> Run:
    """train_error, a list of per cent by epoch; test_error, a list of [epoch, per cent]; epochs."""
    train_error, test_error = [], []
    for epoch, (net, error) in enumerate(training(job, job.setting.rate, job.epochs, images), 1):
        train_error.append(error)
        if epoch % TEST_EVERY == 0 or epoch == job.epochs:
            test_error.append([epoch, 100 - evaluate(net, images.testing(job.setting))["top1"]])
    return {"train_error": train_error, "test_error": test_error, "epochs": job.epochs}


def race(job: Job, images: Images) -> Run:
    """train_error, a list of per cent by epoch, of the best of the rates; rate; rates, all that
    were tried; epochs, of all rates together. Once the goal is reached, the other rates get one
    epoch less to do better."""
    tried: list[Run] = []
    limit = job.epochs
    for rate in job.rates:
        train_error = []
        for _, error in training(job, rate, limit, images):
            train_error.append(error)
            if error <= GOAL:
                limit = max(1, len(train_error) - 1)
                break
        tried.append({"rate": rate, "train_error": train_error})
    best = min(tried, key=lambda run: (not reached(run), len(run["train_error"]), run["train_error"][-1]))
    return {**best, "rates": list(job.rates), "epochs": sum(len(run["train_error"]) for run in tried)}


def training(job: Job, rate: float, epochs: int, images: Images) -> Iterator[tuple[nn.Module, float]]:
    """After each epoch, the network and how many per cent of the images it got wrong as it learned
    them. The rate falls along a cosine; in a race it stays."""
    minicnn.manual_seed(job.seed)
    net = network(job.setting).to(images.settings.device)
    loader = images.training(job.setting, job.seed)
    optimizer = SGD(net.parameters(), rate, momentum=0.9, weight_decay=job.setting.decay)
    schedule = CosineLR(optimizer, epochs)
    for epoch in range(1, epochs + 1):
        yield net, train_epoch(net, loader, optimizer, f"{job.key}, rate {rate}, epoch {epoch}/{epochs}")
        if not job.rates:
            schedule.step()


def train_epoch(net: nn.Module, loader: DataLoader, optimizer: Optimizer, title: str) -> float:
    """One pass over the training images: how many per cent of them were wrong, each before the
    update with it."""
    net.train()
    score = Score()
    for images, labels in batches(loader, title, score):
        with batch_of(len(labels)):
            net.zero_grad()
            logits = net(Tensor(images))
            loss = F.cross_entropy(logits, Tensor(labels))
            loss.backward()
            score.add(loss, logits, labels)
            optimizer.step()
    return 100 - score.result()["top1"]


# ------------------------------------------------------------------------------------------ program
class Results:
    """The runs that are done, by the key of the job; each is a file in the folder runs, so several
    programs can share the work."""

    def __init__(self, folder: Path, counts: dict[str, int]) -> None:
        self.folder, self.counts = folder / "runs", counts  # how many, and a checksum
        self.runs: dict[str, Run] = {}

    def path(self, job: Job) -> Path:
        return self.folder / f"{job.key}.json"

    def job(self, job: Job) -> dict[str, Any]:
        """All that its result depends on, as it comes back from JSON."""
        return json.loads(json.dumps({**asdict(job), **self.counts}))

    def read(self, jobs: Iterable[Job]) -> None:
        """Read the results of the jobs that are done. Raises UsageError if one was of another job,
        or its file is damaged."""
        for job in jobs:
            path, mine = self.path(job), self.job(job)
            if not path.exists():
                continue
            try:
                found = json.loads(path.read_text())
                earlier, result = found["job"], found["result"]
                differ = [name for name in mine if earlier.get(name) != mine[name]]
                whole = {"train_error", "epochs", "seconds"} <= set(result)
            except (ValueError, KeyError, TypeError, AttributeError):
                whole = False
            if not whole:
                raise UsageError(f"{path} is not as ablations/run.py writes it: remove it, or take another --out")
            if differ:
                was, new = ({name: of.get(name) for name in differ} for of in (earlier, mine))
                raise UsageError(f"{path} is a run with {was}, not {new}: take another --out, or remove it")
            self.runs[job.key] = result

    def add(self, job: Job, result: Run) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.path(job)) as path:
            path.write_text(json.dumps({"job": self.job(job), "result": result}, indent=1) + "\n")
        self.runs[job.key] = result

    def seconds_per_epoch(self, images: Images) -> float:
        """How long an epoch takes, measured by the runs that are done, or else by a short one."""
        if self.runs:
            done = self.runs.values()
            return sum(run["seconds"] for run in done) / sum(run["epochs"] for run in done)
        few = copy(images)
        few.train, few.test = images.train[: 10 * BATCH], images.test[:BATCH]
        for _ in range(2):  # the first warms up
            seconds = run(Job("trial", BASELINE, 0, 1), few)["seconds"]
        return seconds * len(images.train) / len(few.train)


EXAMPLES = """\
The program writes into the results' folder: runs, with a JSON file for each
run; table.md and table.json; and charts, one for each idea, as dropout.png,
differences.png of all of them, and relu.png.

examples:
  ablations/run.py --data cifar-10-batches-bin
  ablations/run.py --data cifar-10-batches-bin --only dropout flips --seeds 5"""


def main() -> None:
    names = ("relu", *IDEAS)
    parser = Parser(
        prog="ablations/run.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--data", metavar="DIR", required=True, help=f"the folder of {CIFAR10_FILES}")
    parser.add_argument("--no-verify", dest="verify", action="store_false", help=NO_VERIFY)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=names,
        default=names,
        metavar="NAME",
        help=f"run only these comparisons, of {', '.join(names)} (default: all)",
    )
    parser.add_argument(
        "--seeds",
        type=natural,
        default=3,
        metavar="N",
        help="train each network N times, with other seeds (default: 3)",
    )
    parser.add_argument("--images", type=natural, metavar="N", help=f"train on N images (default: {SIZES['train']:,})")
    parser.add_argument(
        "--epochs", type=natural, metavar="N", help=f"each run has N epochs (default: {SIZES['epochs']})"
    )
    parser.add_argument(
        "--quick", action="store_true", help="try the program with few images and epochs; its results mean nothing"
    )
    add_machine(parser)
    parser.add_argument(
        "--out", default="runs/ablations", metavar="FOLDER", help="the results' folder (default: runs/ablations)"
    )
    settings = parser.parse_args()
    use_machine(settings)
    require_matplotlib()  # fail now rather than after the last run if it is missing

    sizes = dict(QUICK if settings.quick else SIZES)
    sizes["train"], sizes["epochs"] = settings.images or sizes["train"], settings.epochs or sizes["epochs"]
    folder, images = Path(settings.out), Images(settings, sizes)
    jobs, known = plan(settings.only, settings.seeds, sizes), plan(names, settings.seeds, sizes)
    counts = {"train": len(images.train), "test": len(images.test), "checksum": images.checksum}
    results = Results(folder, counts)
    results.read(known)
    waiting = [job for job in jobs if job.key not in results.runs]
    say(f"{len(jobs)} runs, {len(waiting)} of them to be done")
    for i, job in enumerate(waiting):
        results.read([job])  # another program may have done it meanwhile
        if job.key not in results.runs:
            minutes = results.seconds_per_epoch(images) * sum(job.epochs for job in waiting[i:]) / 60
            say(f"about {minutes:.0f} minutes to go; now {job.key}")
            results.add(job, run(job, images))

    results.read(known)  # also what an earlier call, or another program, has done
    done: dict[str, list[Run]] = {}
    for job in known:
        if job.key in results.runs:
            done.setdefault(job.name, []).append(results.runs[job.key])
    done = {name: runs for name, runs in done.items() if len(runs) == settings.seeds}
    races = {name: done.pop(name) for name in RACES if name in done}
    ideas = {idea: list(changes) for idea, changes in IDEAS.items() if {"baseline", *changes} <= set(done)}
    print(report(folder, ideas, done, races))


if __name__ == "__main__":
    sys.exit(command(main))
