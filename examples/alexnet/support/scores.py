"""What is counted of a network's answers: the loss, how many are right, which classes it takes for
which, and the mistakes that it is most sure of."""

import time
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minicnn import Tensor
from minicnn.backends.devices import Array, on_device_of, on_host, to_device
from minicnn.workers import Workers

from .options import Divergence

MOST_KEPT, OFTEN = 50, 0.5  # batches and seconds between counts
MOST_BYTES = 2**28  # of images, where these are kept until they are counted


def top_k(logits: Array, labels: Array, k: int) -> Array:
    """The number of labels (N,) that are among the k largest of their logits (N, K), as an array of
    one number on their device.

    A label that ties with others for the last places counts in part, by its chance if the places
    were drawn at random. So a network that gives each of 10 classes the same logit has 10% right:
    neither all, nor a share that depends on the order of the classes. NaN logits are wrong.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)  # (N, 1)
    # (N,), at least 1, because a logit equals itself; 0 if it is NaN
    tied = (logits == own).sum(axis=1)
    larger = logits.shape[1] - (logits <= own).sum(axis=1)
    return (np.clip((k - larger) / np.maximum(tied, 1), 0, 1) * (tied > 0)).sum()


class Mistake(NamedTuple):
    """A wrong answer."""

    probability: float
    label: int
    answer: int
    image: NDArray[np.float32]  # (S, S, 3), as the network saw it; of ten crops, the middle one


class Score:
    """The mean loss of an epoch's images, and how many per cent of their labels are the best answer
    or among the five best.

    The results of a batch stay on the device, and are counted only now and then, because the
    program then has to wait for the GPU, and the GPU for the program.

    Args:
        classes: their number K, for `confusion`.
        workers: those that have other rows of the batches; after result(), all of them have what
            all have counted.
        mistakes: how many mistakes to keep.
        strict: raise a Divergence if a batch's loss is NaN or infinite: on a CPU at once, on a GPU
            when it is counted.
    Attributes:
        confusion: (K, K), how many images of each class (the rows) got each answer (the columns),
            the first of equal ones.
        mistakes: the wrong answers that the network was most sure of, from the most probable one,
            with copies of their images.
        batches: on how many the network was trained. The caller counts them, and these two:
        lr: the learning rate of the last of them.
        waited: the seconds in which there was none.
        loss: that of the last batch that was added, on its device.
    """

    def __init__(
        self, classes: int = 0, workers: Workers | None = None, mistakes: int = 0, strict: bool = False
    ) -> None:
        self.workers, self.strict = workers or Workers(), strict
        # (which one, from 1, loss, logits, labels, images) of each batch that is not counted yet
        self.kept: list[tuple[int, Array, Array, Array, Array | None]] = []
        self.begun = self.counted = time.perf_counter()
        self.sums, self.seen = np.zeros(3), 0  # of loss, top-1 and top-5; over so many images
        self.batches, self.lr, self.waited = 0, 0.0, 0.0
        self.loss: Array = np.zeros(())
        self.confusion = np.zeros((classes, classes), np.int64)
        self.most, self.mistakes = mistakes, list[Mistake]()

    def add(self, loss: Tensor, logits: Tensor, labels: Array, images: Array | None = None) -> None:
        """Add a batch, with its mean loss; with its images, (N, S, S, 3) or (N, 10, S, S, 3), if
        mistakes are to be kept. The first one is counted at once."""
        if not len(labels):  # the rows of a small batch are other workers'
            return
        self.loss = loss.data
        if self.strict and on_host(loss.data) and not np.isfinite(loss.data):
            raise Divergence(self.batches + 1)
        if not self.most:
            images = None
        self.kept.append((self.batches + 1, loss.data, logits.data, labels, images))
        full = len(self.kept) == MOST_KEPT or (images is not None and len(self.kept) * images.nbytes > MOST_BYTES)
        if not self.seen or full or time.perf_counter() - self.counted > OFTEN:
            self.count()

    def count(self) -> None:
        """Count the batches that were kept."""
        if self.kept:
            numbers, losses, *batches, images = zip(*self.kept, strict=True)
            with on_device_of(losses[0]):
                of_batches = to_device(np.stack(losses), "cpu")
                logits, labels = map(np.concatenate, batches)
                self.sums[1:] += to_device(np.stack([top_k(logits, labels, k) for k in (1, 5)]), "cpu")
                if self.confusion.size:
                    pairs = to_device(np.stack([labels, logits.argmax(axis=1)]), "cpu")  # (2, N)
                    np.add.at(self.confusion, tuple(pairs), 1)
                if self.most:
                    self._keep_mistakes(logits, labels, images)
            if self.strict and not np.isfinite(of_batches).all():
                raise Divergence(numbers[int(np.argmin(np.isfinite(of_batches)))])
            sizes = [len(rows) for rows in batches[0]]
            # one by one, so that the sum is the same however many are counted at once
            for size, mean in zip(sizes, of_batches.tolist(), strict=True):
                self.sums[0] += size * mean
            self.seen += sum(sizes)
        self.kept, self.counted = [], time.perf_counter()

    @property
    def finite(self) -> bool:
        """Whether the sum of the losses that were counted is a number."""
        return bool(np.isfinite(self.sums[0]))

    @property
    def seconds(self) -> float:
        """Since the first image; more than 0, although a clock may stand still."""
        return max(time.perf_counter() - self.begun, 1e-9)

    def total(self) -> tuple[np.ndarray, int]:
        """The sums of all workers, and over how many images."""
        self.count()
        sums, seen = zip(*self.workers.gather((self.sums, self.seen)), strict=True)
        return sum(sums), sum(seen)  # in the order of the ranks: equal everywhere

    def _keep_mistakes(self, logits: Array, labels: Array, batches: tuple[Array, ...]) -> None:
        """Keep the mistakes among these that are more probable than others."""
        # softmax of the answer
        p = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
        labels, answers, p = to_device(np.stack([labels, logits.argmax(axis=1), p]), "cpu")
        least = self.mistakes[-1].probability if len(self.mistakes) == self.most else 0
        rows = np.flatnonzero((labels != answers) & (p > least))  # of which one that is NaN is none
        images = [image for batch in batches for image in batch]  # views
        for row in rows[np.argsort(-p[rows], kind="stable")][: self.most]:
            image = images[row] if images[row].ndim == 3 else images[row][4]
            copy = np.array(to_device(image, "cpu"))  # not a view, which would hold its batch
            self.mistakes.append(Mistake(float(p[row]), int(labels[row]), int(answers[row]), copy))
        self.mistakes = sorted(self.mistakes, key=lambda mistake: -mistake.probability)[: self.most]

    def result(self) -> dict[str, float]:
        """loss, top1 and top5 of all images so far."""
        self.sums, self.seen = self.total()
        self.confusion = sum(self.workers.gather(self.confusion))
        if self.most:
            self._gather_mistakes()
        return means(self.sums, self.seen)

    def _gather_mistakes(self) -> None:
        """The most probable ones of all workers; images are sent of these alone."""
        found = self.workers.gather([mistake.probability for mistake in self.mistakes])
        places = sorted((-p, rank, i) for rank, own in enumerate(found) for i, p in enumerate(own))[: self.most]
        chosen = self.workers.gather([self.mistakes[i] for _, rank, i in places if rank == self.workers.rank])
        self.mistakes = sorted(chain(*chosen), key=lambda mistake: -mistake.probability)

    def trained(self) -> dict[str, float]:
        """The results of the images that were trained on, by the names in a run's table, images a
        second, and the seconds with a batch to work on and without."""
        sums, seen = self.total()
        result, seconds = means(sums, seen), self.seconds
        return {
            "train_loss": result["loss"], "train_top1": result["top1"], "images_per_s": seen / seconds,
            "compute_seconds": max(seconds - self.waited, 0), "data_seconds": self.waited,
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        """All that restore() needs, as JSON can hold it."""
        sums, seen = self.total()
        counts = {"batches": self.batches, "lr": self.lr, "seen": seen, "sums": sums.tolist()}
        return {**counts, "seconds": self.seconds, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with what another Score has counted."""
        self.batches, self.lr, self.waited = state["batches"], state["lr"], state["waited"]
        self.begun -= state["seconds"]
        if self.workers.rank == 0:  # for all
            self.sums, self.seen = np.array(state["sums"]), state["seen"]


def means(sums: np.ndarray, seen: int) -> dict[str, float]:
    """The mean loss, and top-1 and top-5 in per cent, from sums over so many images."""
    loss, top1, top5 = (sums * (1, 100, 100) / seen).tolist()
    return {"loss": loss, "top1": top1, "top5": top5}
