"""Ask a trained network what is in photos: python examples/alexnet/predict.py photo.jpg FOLDER …"""

import io
import json
import os
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import support.installed  # noqa: F401 (first)

# isort: split
import numpy as np
from evaluate import outputs, require_number
from numpy.typing import NDArray
from support.confusion import short
from support.drawing import drawable, new_figure, own_settings
from support.images import validation
from support.options import Parser, UsageError, add_network, command, complain, natural, output_file, say
from support.runs import begin

from minicnn import functional as F
from minicnn import nn, no_grad
from minicnn.backends.devices import to_device
from minicnn.checkpoint import replacing
from minicnn.checks import escaped
from minicnn.data import DataError, DataLoader, read_image
from minicnn.data.folder import ENDINGS, some
from minicnn.data.transforms import Resize

MOST_DRAWN = 20  # photos in one drawing

Answer = list[tuple[int, float]]  # classes, the most probable first, and their probabilities


def find(names: Sequence[str]) -> list[str]:
    """The names, and in place of a folder's those of all images in it, at any depth, sorted. Hidden
    files and folders do not count; other files that are not images are skipped, and a line names
    them."""

    def fail(error: OSError) -> NoReturn:
        raise error

    found: list[str] = []
    for name in names:
        if not os.path.isdir(name):
            found.append(name)
            continue
        files: list[str] = []
        seen: set[str] = set()  # folders, because links may lead to one more than once
        for folder, inner, here in os.walk(name, onerror=fail, followlinks=True):
            inner[:] = [one for one in inner if one[0] != "."]  # where os.walk goes next
            if (real := os.path.realpath(folder)) in seen:
                inner.clear()
                continue
            seen.add(real)
            files += [os.path.join(folder, one) for one in here if one[0] != "."]
        images = sorted(file for file in files if file.lower().endswith(ENDINGS))
        if not images:
            raise UsageError(f"{name}: no images in this folder (endings accepted: {' '.join(ENDINGS)})")
        if others := set(files) - set(images):
            complain(f"{name}: skipped, because they are not images: {some(others)}")
        found += images
    return found


class Photos:
    """Image files as a dataset: (image, its place among the names). The name - is the standard
    input. `least`: how many pixels the short side needs.

    An image that cannot be read is replaced by a black one, and `errors` has a line that says why.
    `kept` has small copies of the first `keep` images.
    """

    def __init__(self, names: Sequence[str], least: int, keep: int) -> None:
        self.names, self.least, self.keep = names, least, keep
        self.errors: dict[int, str] = {}
        self.kept: dict[int, NDArray[np.uint8]] = {}
        if "-" in names and sys.stdin is None:  # closed, as by <&-
            raise UsageError("-: there is no standard input to read an image from")
        self.standard_input = sys.stdin.buffer.read() if "-" in names else b""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, place: int) -> tuple[NDArray[np.uint8], int]:
        try:
            image = self._read(self.names[place])
            if place < self.keep:
                self.kept[place] = Resize(240)(image, np.random.default_rng(0))
            return image, place
        except DataError as error:
            self.errors[place] = str(error)
            return np.zeros((1, 1, 3), np.uint8), place

    def _read(self, name: str) -> NDArray[np.uint8]:
        if name != "-":
            return read_image(name, self.least)
        file = io.BytesIO(self.standard_input)
        file.name = "standard input"
        return read_image(file, self.least)


def predict(net: nn.Module, loader: DataLoader, top: int) -> Iterator[tuple[int, Answer]]:
    """(place, answer) for each image, batch by batch."""
    for images, places in loader:
        with no_grad():
            p = F.softmax(outputs(net, images)).numpy()  # (N, K)
        best = np.argsort(-p, axis=1, kind="stable")[:, :top]  # (N, top)
        for place, classes, row in zip(to_device(places, "cpu").tolist(), best.tolist(), p.tolist(), strict=True):
            yield place, [(k, row[k]) for k in classes]


@own_settings()
def draw(path: Path, drawn: Sequence[tuple[NDArray[np.uint8], Answer]], names: Sequence[str]) -> None:
    """Each image with its first five bars beside it, as in the paper's figure 4."""
    figure = new_figure(7, 2.2 * len(drawn))
    labels, fonts = drawable([short(name, 36) for name in names])
    for (left, right), (photo, answer) in zip(figure.subplots(len(drawn), 2, squeeze=False), drawn, strict=True):
        left.imshow(photo)
        left.axis("off")
        for row, (k, p) in enumerate(answer[:5]):
            right.barh(row, 100 * p, color="lightsteelblue")
            text = f"{labels[k]}  {100 * p:.1f}%"
            right.text(2, row, text, va="center", fontfamily=fonts, parse_math=False)
        right.set(xlim=(0, 100), ylim=(4.5, -0.5))
        right.axis("off")
    figure.savefig(path, format="png")


EXAMPLES = """\
The program prints its answers, and writes a file only with --draw. The exit
status is 0 if each photo has an answer, 1 if some photos cannot be read (the
standard error has a line for each), and 2 if nothing could be done.

examples:
  predict.py cat.jpg dog.jpg
  predict.py photos --json
  predict.py --checkpoint runs/photos/best.safetensors cat.jpg --draw answer.png"""


def command_line() -> Parser:
    parser = Parser(
        prog="predict.py",
        description="Ask a network of train.py or convert.py what is in photos.",
        epilog=EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "photos", nargs="+", metavar="photo",
        help="an image file, a folder (all images in it, at any depth), or - for an image from the standard input",
    )  # fmt: skip
    add_network(parser)
    parser.add_argument(
        "--top", type=natural, default=5, metavar="K", help="show the K most probable classes (default: 5)"
    )
    parser.add_argument(
        "--draw",
        type=output_file(".png"),
        metavar="FILE.png",
        help=f"also draw the first {MOST_DRAWN} photos, each with bars for its classes",
    )
    parser.add_argument("--json", action="store_true", help="print each answer, or error, as a line of JSON")
    return parser


def main() -> None:
    settings, net, config, view = begin(command_line())
    classes, names = config["classes"], config["names"]
    photos = Photos(find(settings.photos), view.resize, MOST_DRAWN if settings.draw else 0)
    if settings.draw and os.path.realpath(settings.draw) in map(os.path.realpath, photos.names):
        raise UsageError(f"--draw {settings.draw} is one of the photos: take another name")
    width, drawn = max(len(short(name, 36)) for name in names), []
    for place, answer in predict(net, validation(photos, view, settings, settings.crops), settings.top):
        if place in photos.errors:
            complain(photos.errors[place])
            if settings.json:
                print(json.dumps({"photo": photos.names[place], "error": photos.errors[place]}))
            continue
        require_number(answer[0][1], settings.checkpoint)
        if settings.json:
            answers = [{"class": classes[k], "name": names[k], "probability": p} for k, p in answer]
            print(json.dumps({"photo": photos.names[place], "answers": answers}))
        else:
            lines = [f"  {short(names[k], width):<{width}}  {100 * p:5.1f}%  {'█' * round(30 * p)}" for k, p in answer]
            print(escaped(photos.names[place]), *map(str.rstrip, lines), sep="\n")
        if place in photos.kept:
            drawn.append((photos.kept[place], answer))
    if drawn:
        with replacing(settings.draw) as path:
            draw(path, drawn, names)
        if not settings.json:
            say(f"wrote {settings.draw}")
        if len(photos) > MOST_DRAWN:
            complain(f"{settings.draw} has the first {MOST_DRAWN} of {len(photos)} photos")
    elif settings.draw:
        complain(f"{settings.draw}: not drawn, because no photo can be read")
    if photos.errors:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(command(main))
