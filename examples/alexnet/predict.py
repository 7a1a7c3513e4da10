"""Ask a trained network what is in a photo: python examples/alexnet/predict.py photo.jpg
…"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from options import Parser, UsageError, add_checkpoint, add_machine, command, use_machine
from runs import load_network, new_figure

from minicnn import Tensor, no_grad
from minicnn import functional as F
from minicnn.checkpoint import replacing
from minicnn.data import read_image
from minicnn.data.transforms import Compose


@no_grad()
def predict(net: Any, picture: Any, transform: Any, classes: list[str], device: str = "cpu") -> list[tuple[str, float]]:
    """The five classes that the network finds most probable for a picture (H, W, 3), with their probabilities."""
    x = transform(picture, np.random.default_rng(0))[None]  # (1, H, W, 3)
    p = F.softmax(net(Tensor(x, device=device))).numpy()[0]  # (K,)
    return [(classes[k], float(p[k])) for k in np.argsort(-p)[:5]]


def draw(path: Path, pictures: list[Any], answers: list[list[tuple[str, float]]]) -> None:
    """Each photo with its five bars beside it, as in the paper's figure 4."""
    figure = new_figure(7, 2.4 * len(pictures))
    for row, picture, answer in zip(figure.subplots(len(pictures), 2, squeeze=False), pictures, answers, strict=True):
        row[0].imshow(picture)
        row[0].axis("off")
        names, values = zip(*reversed(answer), strict=True)
        row[1].barh(names, [100 * v for v in values])
        row[1].set(xlim=(0, 100), xlabel="%")
    figure.savefig(path, format="png")


def main() -> None:
    parser = Parser(prog="predict.py", description="The five most probable classes of each photo.")
    parser.add_argument("photos", nargs="+", metavar="photo", help="picture files")
    add_checkpoint(parser)
    parser.add_argument("--draw", metavar="FILE.png", help="also draw the photos with their bars")
    add_machine(parser)
    settings = parser.parse_args()
    if settings.draw and not settings.draw.endswith(".png"):
        raise UsageError(f"--draw {settings.draw}: the name of a picture ends in .png")
    use_machine(settings)
    net, config, view = load_network(settings.checkpoint, settings.device)
    pictures = [read_image(photo) for photo in settings.photos]
    transform = Compose([view.centre(), view.normalise()])
    answers = [predict(net, picture, transform, config["classes"], settings.device) for picture in pictures]
    width = max(len(name) for answer in answers for name, _ in answer)
    for photo, answer in zip(settings.photos, answers, strict=True):
        print(photo)
        for name, p in answer:
            print(f"  {name:<{width}}  {100 * p:5.1f}%  {'█' * round(40 * p)}")
    if settings.draw:
        with replacing(settings.draw) as path:
            draw(path, pictures, answers)


if __name__ == "__main__":
    sys.exit(command(main))
