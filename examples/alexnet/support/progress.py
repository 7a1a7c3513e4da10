"""How far a training is: a bar on a terminal, and elsewhere a line now and then."""

import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from minicnn.backends.devices import Array
from minicnn.data import DataLoader

from .options import progress_bar, say

WIDE = 100  # columns of a terminal from which there is room for a bar and whole words
BAR = 0.1  # seconds between changes of the bar
LINE = 30.0  # and between lines, where there is no terminal


def batches(loader: DataLoader, title: str, score: Any, run: Any = None) -> Iterator[tuple[Array, Array]]:
    """The loader's batches to train on, each of which the caller adds to the score before the next.
    Of several workers, each shows its own part.

    Args:
        loader: of all batches, or of those that are left of an epoch.
        title: which epoch it is.
        score: counts them; if the mean loss is NaN or infinite, they end early, unless it is
            strict, and raises an error itself.
        run: the Run whose check() is called after each.
    """
    expected = len(loader.dataset) // loader.part[1]
    with closing(iter(loader)) as loaded, Meter(expected, title, score, run) as meter:
        while True:
            begun = time.perf_counter()
            try:
                images, labels = next(loaded)
            except StopIteration:
                return
            score.waited += time.perf_counter() - begun
            if run:
                run.before(images, labels)
            yield images, labels
            score.batches += 1
            if run:
                run.after()
            meter.show(len(labels))
            if not score.strict and not all(score.workers.gather(score.finite)):
                return
            if run:
                run.check()


class Meter:
    """Shows an epoch's loss, top-1, images a second, the share of the time that was spent waiting
    for data, and the time left for the epoch and for the run: as a bar on a terminal, elsewhere as
    a line every 30 seconds.

    Args:
        images: how many an epoch has.
        title: which epoch it is.
        score: what was counted so far.
        run: the Run, which knows how long an epoch takes, or None.
    """

    def __init__(self, images: int, title: str, score: Any, run: Any = None) -> None:
        self.images, self.title, self.score, self.run = images, title, score, run
        self.done = self.before = score.seen // score.workers.size  # which has counted for all
        self.begun = self.told = time.perf_counter()

    def __enter__(self) -> "Meter":
        self.bar = progress_bar(total=self.images, initial=self.before, bar_format=f"{self.title} |{{bar}}|")
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, images: int) -> None:
        """Count so many images more."""
        self.done += images
        now = time.perf_counter()
        if not self.bar.disable:
            if now - self.told >= BAR:
                self.told, columns = now, shutil.get_terminal_size().columns
                words = self.words(columns < WIDE)
                self.bar.bar_format = (
                    fitting(words, columns - 1)
                    if columns < WIDE
                    else f"{'  '.join(words[:3])} |{{bar}}| {'  '.join(words[3:])}"
                )
            self.bar.update(images)
        elif now - self.told >= LINE:
            self.told = now
            say("  ".join(self.words()))

    def words(self, short: bool = False) -> list[str]:
        """Title, loss, top-1, per cent done, images a second, waiting, time left, time of the
        run."""
        score, seconds = self.score, max(time.perf_counter() - self.begun, 1e-9)
        loss, top1, _ = score.sums / max(score.seen, 1)
        # all rows may have been of other workers, or unreadable
        rate = max(self.done - self.before, 1) / seconds
        left = (self.images - self.done) / rate
        waited = f"{100 * score.waited / score.seconds:.0f}%"
        words = [self.title, f"loss {loss:.3f}", f"top-1 {100 * top1:.1f}%", f"{100 * self.done / self.images:.0f}%"]
        words.append(f"{rate:,.0f}/s" if short else f"{rate:,.0f} images/s")
        words.append(f"wait {waited}" if short else f"{waited} waiting for data")
        words.append(duration(left) if short else f"{duration(left)} left")
        if self.run:
            words.append(f"run {duration(left + self.run.seconds_of_others(self.images / rate))}")
        return words


def fitting(words: list[str], columns: int) -> str:
    """As many of the words of Meter.words(short=True) as there is room for: those that can be
    missed most easily are left out first."""
    kept = dict(enumerate(words))
    for least in (5, 4, 7, 2, 6):
        if len(" ".join(kept.values())) <= columns:
            break
        kept.pop(least, None)
    return " ".join(kept.values())


def duration(seconds: float) -> str:
    """3:05, 1:02:03, or 2 d 4 h."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
