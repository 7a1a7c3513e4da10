"""A first program: LeNet (LeCun, Bottou, Bengio, Haffner 1998) learns to read digits, which the
program draws itself, and is tried on others. That takes about ten seconds, and minicnn[examples].

    python examples/digits.py        # writes digits.safetensors and digits.png into runs/
"""

import os

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from minicnn import Tensor, load, manual_seed, nn, no_grad, optim, save
from minicnn import functional as F
from minicnn.data import Arrays, DataLoader


def draw_digits(n: int, seed: int) -> Arrays:
    """Images (n, 28, 28, 1) and what they show (n,): digits, large or small, turned, in noise."""
    rng = np.random.default_rng(seed)
    images, digits = rng.normal(0, 0.12, (n, 28, 28, 1)).astype(np.float32), rng.integers(0, 10, n)
    for image, digit in zip(images, digits, strict=True):
        page, font = Image.new("L", (28, 28)), ImageFont.load_default(rng.uniform(14, 26))
        ImageDraw.Draw(page).text(rng.uniform(11, 17, 2), str(digit), fill=255, font=font, anchor="mm")
        image[:, :, 0] += np.asarray(page.rotate(rng.uniform(-25, 25), Image.Resampling.BILINEAR)) / 255
    return Arrays(images, digits)


def lenet() -> nn.Sequential:  # images (N, 28, 28, 1) -> logits (N, 10)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),  # -> (N, 14, 14, 6)
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),  # -> (N, 5, 5, 16)
        nn.Flatten(), nn.Linear(5 * 5 * 16, 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(), nn.Dropout(0.5), nn.Linear(84, 10),
    )  # fmt: skip


def answers(net: nn.Module, images: np.ndarray) -> np.ndarray:
    net.eval()  # dropout leaves nothing out
    with no_grad():  # nothing is kept for a backward pass
        return net(Tensor(images)).numpy().argmax(axis=1)


def main(epochs: int = 6) -> None:
    manual_seed(0)  # each run begins with the same weights, and drops out the same
    others, loader = draw_digits(1000, seed=1), DataLoader(draw_digits(6000, seed=0), 32, shuffle=True)
    net = lenet()
    optimizer = optim.Adam(net.parameters(), lr=0.002)
    for epoch in range(1, epochs + 1):
        net.train()
        for images, digits in loader:
            loss = F.cross_entropy(net(Tensor(images)), digits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: {np.mean(answers(net, others.X) == others.y):.1%} of other digits right")

    os.makedirs("runs", exist_ok=True)
    save("runs/digits.safetensors", net.state_dict())
    net = lenet()  # another one, which knows nothing yet
    net.load_state_dict(load("runs/digits.safetensors")[0])

    # 60 of them, each above its answer: red, if wrong
    sheet = Image.new("RGB", (640, 480), "white")
    for i, answer in enumerate(answers(net, others.X)[:60]):
        x, y, color = i % 10 * 64, i // 10 * 80, "black" if answer == others.y[i] else "red"
        sheet.paste(Image.fromarray(np.uint8(255 * others.X[i, :, :, 0].clip(0, 1))).resize((56, 56)), (x + 4, y + 4))
        ImageDraw.Draw(sheet).text((x + 32, y + 70), str(answer), color, ImageFont.load_default(16), anchor="mm")
    sheet.save("runs/digits.png")
    print("wrote runs/digits.safetensors and runs/digits.png")


if __name__ == "__main__":
    main()
