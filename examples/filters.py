"""What a first layer learns to see, from photographs of your own: figure 3 of AlexNet's paper
(Krizhevsky, Sutskever, Hinton 2012).

    python examples/filters.py FOLDER      # FOLDER/<class>/*.jpg; writes runs/filters/filters.png

The first layer is the paper's: 96 filters of 11 × 11 × 3, four pixels apart, which begin as noise
of standard deviation 0.01 (section 5), then ReLU, response normalization and overlapping pooling.
Two small convolutions follow instead of the paper's other layers, so that half an hour on one core
suffices. The network learns a photograph's class, and which of its sides is up, from random crops.
Weight decay, ten times the paper's, removes the noise that the filters began with; with the
paper's own that takes about as many updates as its 90 epochs of ImageNet have.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import trange

import minicnn
from minicnn import Tensor, nn, optim
from minicnn import functional as F
from minicnn.data import DataLoader, ImageFolder
from minicnn.data.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, Resize

CROP = 83


def network(classes: int) -> nn.Sequential:
    """Images (N, 83, 83, 3) -> logits (N, 4 · classes), one for each class and side."""
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4, weight_init=nn.init.normal(0.01)), nn.ReLU(),  # 19 × 19
        nn.LocalResponseNorm(5, k=2.0, alpha=0.3, beta=0.75),  # a large alpha, for small pixels
        nn.MaxPool2d(3, stride=2),  # 9 × 9
        nn.Conv2d(96, 96, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2),  # 4 × 4
        nn.Conv2d(96, 96, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(4 * 4 * 96, 4 * classes),
    )  # fmt: skip


def draw(filters: np.ndarray, path: Path) -> None:
    """The filters (11, 11, 3, 96) in rows of 16, each on a scale of its own."""
    least, largest = filters.min(axis=(0, 1, 2)), filters.max(axis=(0, 1, 2))
    border = (1, 1), (1, 1), (0, 0), (0, 0)
    tiles = np.pad((filters - least) / (largest - least), border, constant_values=1)
    size = len(tiles)
    rows = tiles.transpose(3, 0, 1, 2).reshape(-1, 16, size, size, 3).swapaxes(1, 2)
    sheet = Image.fromarray((255 * rows.reshape(-1, 16 * size, 3)).astype(np.uint8))
    sheet.resize((4 * sheet.width, 4 * sheet.height), Image.Resampling.NEAREST).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Learn the filters of a first layer from photographs, and draw them into runs/filters/filters.png.",
        epilog="example: python examples/filters.py photos",
    )
    parser.add_argument("folder", help="a folder that has a folder of photographs for each class")
    parser.add_argument("--epochs", type=int, default=400, metavar="N", help="train for N epochs (default: 400)")
    arguments = parser.parse_args()

    minicnn.manual_seed(0)
    rng = np.random.default_rng(0)
    dataset, resize = ImageFolder(arguments.folder), Resize(160)
    photographs = [(resize(image, rng), label) for image, label in dataset]  # read once
    pixels = np.concatenate([image.reshape(-1, 3) for image, _ in photographs])
    normalize = Normalize(pixels.mean(axis=0) / 255, [pixels.std() / 255] * 3)
    crops = Compose([RandomCrop(CROP), RandomHorizontalFlip()])
    loader = DataLoader(
        photographs, 64, shuffle=True, drop_last=True, transform=crops, normalize=normalize
    )  # fmt: skip

    net = network(len(dataset.classes))
    first, *others = net.parameters()
    groups = [{"params": first, "weight_decay": 0.005}, {"params": others}]
    optimizer = optim.SGD(groups, 0.03, 0.9, weight_decay=0.002)
    updates = arguments.epochs * len(loader)
    schedule = optim.CosineLR(optimizer, updates, warmup_steps=updates // 20)
    for _ in (epochs := trange(arguments.epochs, unit=" epochs")):
        for images, labels in loader:
            up = rng.integers(4, size=len(labels))
            turned = np.stack([np.rot90(image, k) for image, k in zip(images, up, strict=True)])
            loss = F.cross_entropy(net(Tensor(turned)), 4 * labels + up)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        epochs.set_description(f"loss {loss.item():.3f}")
    path = Path("runs/filters/filters.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(first.data, path)
    print(f"loss {loss.item():.3f} after {updates} updates; wrote {path}")


if __name__ == "__main__":
    main()
