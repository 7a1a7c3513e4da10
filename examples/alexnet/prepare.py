"""Shrink photographs once, so that training need not: python examples/alexnet/prepare.py SOURCE
TARGET

The short side of each image is scaled to 256 pixels and the square in its middle kept, as in the
paper (section 2). Every file that is written is read again, to verify it and for the statistics of
the training images. After an interruption, the same command continues: files that are whole, and no
older than their sources, are only read.
"""

import json
import os
import sys
import threading
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import support.installed  # noqa: F401 (first)

# isort: split
import numpy as np
from numpy.typing import NDArray
from support.images import STATISTICS, announced
from support.options import Parser, UsageError, command, natural, number, progress_bar, say, side

import minicnn
from minicnn.checkpoint import replacing
from minicnn.checks import escaped
from minicnn.data import DataError, ImageNet, PixelStatistics, read_image
from minicnn.data.folder import IMAGES, image_files, pillow, some
from minicnn.data.imagenet import CAFFE, tree, word_files
from minicnn.data.transforms import CenterCrop, Compose, Resize

# the settings of a run, and the images that it could not read
BEGUN, BROKEN = "prepare.json", "broken.txt"
CHUNK = 16  # images that a worker does at a time
SHOWN = 10  # broken images that are named on the screen
END_OF_JPEG = b"\xff\xd9"


class Photo(NamedTuple):
    source: str
    target: str
    label: int
    train: bool


@dataclass
class Done:
    """What became of some images."""

    statistics: PixelStatistics = field(default_factory=PixelStatistics)  # of those to train on
    broken: dict[Photo, str] = field(default_factory=dict)  # and why
    before: int = 0  # so many were there already

    def merge(self, other: "Done") -> None:
        self.statistics.merge(other.statistics)
        self.broken |= other.broken
        self.before += other.before


def listed(source: str, target: str) -> list[Photo]:
    """All images of a tree, each with the file that it will become. Raises DataError if train.py
    could not use the tree."""
    photos, taken, root = [], {}, os.path.join(tree(source), "")
    for train in (True, False):
        for path, label in announced(ImageNet(source, train=train), source).samples:
            name, ending = os.path.splitext(path.removeprefix(root))
            name += ending if ending.lower() in (".jpg", ".jpeg") else ".jpg"
            if name in taken:
                raise UsageError(f"{taken[name]} and {path} would both become {name}: rename one of them")
            taken[name] = path
            photos.append(Photo(path, os.path.join(target, name), label, train))
    return photos


def begin(settings: Namespace, expected: set[str]) -> None:
    """Claim the target folder for a run with these settings, or for more of such a run; it may have
    no other images than are expected."""
    source, target = Path(settings.source), Path(settings.target)
    if source.resolve() in (target.resolve(), *target.resolve().parents):
        raise UsageError(f"TARGET {target} is SOURCE or lies in it, and SOURCE is never changed: take another folder")
    mine = json.dumps({"source": str(source.resolve()), "size": settings.size, "quality": settings.quality})
    if (note := target / BEGUN).exists():
        if (begun := note.read_text(errors="replace").strip()) != mine:
            raise UsageError(f"{target} was begun with {begun}: give the same settings, or take another folder")
    elif target.exists() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty, and no run of this program began it: take another folder")
    there: set[str] = set()
    for part in ("train", "val"):
        for at, *_ in os.walk(os.path.join(settings.target, part), topdown=False):
            there.update(image_files(at))
            with suppress(OSError):
                os.rmdir(at)  # if it is empty: there is no class without images
    if others := there - expected:
        raise UsageError(
            f"{target} holds images that {source} does not: {some(others)}; remove them, or take another folder"
        )
    target.mkdir(parents=True, exist_ok=True)
    with replacing(note) as path:
        path.write_text(mine + "\n")
    for name in (STATISTICS, BROKEN):
        (target / name).unlink(missing_ok=True)  # until they are true again


def shrink_all(photos: Sequence[Photo], settings: Namespace) -> Done:
    """Shrink photos in threads, because Pillow decodes, scales and encodes outside of the
    interpreter's lock."""
    done, chunks = Done(), [photos[i : i + CHUNK] for i in range(0, len(photos), CHUNK)]
    pool, stop = ThreadPoolExecutor(settings.workers), threading.Event()
    try:
        with progress_bar(total=len(photos), desc="shrink", unit=" images") as bar:
            results = pool.map(lambda chunk: shrink(chunk, settings.size, settings.quality, stop), chunks)
            for chunk, result in zip(chunks, results, strict=True):
                done.merge(result)
                if done.broken:
                    bar.set_postfix(broken=len(done.broken), refresh=False)
                bar.update(len(chunk))
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    return done


def shrink(photos: Sequence[Photo], size: int, quality: int, stop: threading.Event) -> Done:
    """Write the images that are not there yet, until `stop` is set. An image that cannot be read
    does not stop the others."""
    done = Done()
    for photo in photos:
        if stop.is_set():
            raise CancelledError
        pixels = None if outdated(photo) else whole(photo.target, size)
        if pixels is not None:
            done.before += 1
        else:
            try:
                pixels = write(photo, size, quality)
            except DataError as error:
                done.broken[photo] = str(error)
                continue
        if photo.train:
            done.statistics.add(pixels)
    return done


def outdated(photo: Photo) -> bool:
    """Whether the source has changed since the target was written, or there is none."""
    try:
        return os.path.getmtime(photo.source) > os.path.getmtime(photo.target)
    except OSError:
        return True


def write(photo: Photo, size: int, quality: int) -> NDArray[np.uint8]:
    """The pixels of the target, once it is there. Raises DataError if the source cannot be read,
    OSError if the target cannot be written."""
    square = Compose([Resize(size), CenterCrop(size)])
    # these transforms need no random numbers
    pixels = square(read_image(photo.source, least=size), np.random.default_rng(0))
    os.makedirs(os.path.dirname(photo.target), exist_ok=True)
    with replacing(photo.target, sync=False) as temporary:
        pillow().Image.fromarray(pixels).save(temporary, "JPEG", quality=quality)
        written = whole(temporary, size)
        if written is None:
            raise UsageError(f"{photo.target}: cannot be read back as written; is the disk full, or failing?")
    return written


def whole(path: str | os.PathLike[str], size: int) -> NDArray[np.uint8] | None:
    """The pixels of an image that was written to its end, and is of this size."""
    try:
        with open(path, "rb") as file:
            file.seek(-len(END_OF_JPEG), os.SEEK_END)
            ends = file.read() == END_OF_JPEG
        pixels = read_image(path)
    except (OSError, DataError):
        return None
    return pixels if ends and pixels.shape == (size, size, 3) else None


def report(broken: dict[Photo, str], photos: Sequence[Photo], settings: Namespace) -> None:
    """Report the images that could not be read. Raises DataError unless they may be left out, and
    each folder has others."""
    reasons, path = list(map(escaped, broken.values())), os.path.join(settings.target, BROKEN)
    with replacing(path) as temporary:
        temporary.write_text("\n".join(reasons) + "\n", encoding="utf-8", errors="surrogateescape")
    print(*reasons[:SHOWN], sep="\n", file=sys.stderr)
    if len(reasons) > SHOWN:
        print(escaped(f"and {len(reasons) - SHOWN} more, see {path}"), file=sys.stderr)
    if not settings.skip_broken:
        raise DataError(
            f"{len(reasons)} of {len(photos)} images cannot be read ({path}), the others are done; mend or remove"
            " them and start again, or add --skip-broken to do without them"
        )
    kept = {os.path.dirname(photo.source) for photo in photos if photo not in broken}
    if lost := {os.path.dirname(photo.source) for photo in broken} - kept:
        raise DataError(
            f"no image in {some(lost)} can be read, and a class needs one: mend one, or remove the class from train/"
            " and val/"
        )
    for photo in broken:  # which may have been whole once
        Path(photo.target).unlink(missing_ok=True)


def finish(photos: Sequence[Photo], statistics: PixelStatistics, settings: Namespace) -> str:
    """Write the files beside the images: labels, words, statistics. Returns the images' --data for
    train.py."""
    target = Path(settings.target)
    val = os.path.join(tree(settings.source), "val")
    flat = val, os.path.join(val, IMAGES)
    labels = [f"{os.path.basename(p.target)} {p.label}\n" for p in photos if os.path.dirname(p.source) in flat]
    texts = {os.path.basename(path): Path(path).read_bytes() for path in word_files(settings.source)}
    if labels:
        texts[CAFFE] = os.fsencode("".join(labels))
    for name, content in texts.items():
        with replacing(target / name) as path:
            path.write_bytes(content)
    minicnn.save(target / STATISTICS, dict(statistics.arrays()))
    return f"imagenet:{target}" if texts else str(target)


def prepare(settings: Namespace) -> None:
    photos = listed(settings.source, settings.target)
    begin(settings, {photo.target for photo in photos})
    done = shrink_all(photos, settings)
    if done.broken:
        report(done.broken, photos, settings)
        photos = [photo for photo in photos if photo not in done.broken]
    name = finish(photos, done.statistics, settings)
    trained = sum(photo.train for photo in photos)
    say(
        f"{settings.target}: {trained} images to train on and {len(photos) - trained} to validate, {settings.size} "
        f"x {settings.size} pixels; {done.before} were there before, {len(done.broken)} left out"
    )
    say(f"to train on them: train.py --data {name}")


DESCRIPTION = """\
Shrink photographs once, so that training need not do it in each epoch. The
short side of each is scaled to 256 pixels, and the square in the middle is
kept. If the program is interrupted, the same command continues where it was."""
EXAMPLES = """\
The program writes into TARGET: train/ and val/, with a JPEG for each image;
statistics.safetensors, with the mean image and the colors of the training
images; prepare.json, with the settings; the files of SOURCE that name classes
and labels; and, if images cannot be read, broken.txt, with their names.

examples:
  prepare.py photos small_photos
  prepare.py imagenet small_imagenet --skip-broken"""


def parser() -> Parser:
    parser = Parser(
        prog="prepare.py",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="a folder with train/ and val/, as train.py takes it, or ImageNet's files"
    )
    parser.add_argument("target", metavar="TARGET", help="a new folder, or that of an earlier run")
    parser.add_argument(
        "--size", type=side, default=256, metavar="N", help="make images of N x N pixels (default: 256)"
    )
    quality = number(int, 1, 100, "a whole number from 1 to 100")
    parser.add_argument(
        "--quality", type=quality, default=95, metavar="N", help="the JPEGs' quality, from 1 to 100 (default: 95)"
    )
    parser.add_argument(
        "--workers", type=natural, default=minicnn.get_num_threads(), metavar="N",
        help="shrink in N threads (default: one for each core)",
    )  # fmt: skip
    parser.add_argument(
        "--skip-broken", action="store_true",
        help="leave out images that cannot be read, and name them (default: do the others, then end with an error)",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(command(lambda: prepare(parser().parse_args())))
