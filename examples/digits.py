"""A first program: LeNet (LeCun, Bottou, Bengio, Haffner 1998) learns to read digits, which the
program draws itself, and is tried on others. That takes about ten seconds, and minicnn[examples].

    python examples/digits.py        # writes digits.safetensors and digits.png into runs/digits
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import minicnn
from minicnn import Tensor, nn, no_grad, optim
from minicnn import functional as F
from minicnn.data import Arrays, DataLoader


def draw_digits(n: int, seed: int) -> Arrays:
    """Images (n, 28, 28, 1) from about 0 to 1, and what they show (n,): digits, large or small,
    shifted, turned, in noise."""
    rng = np.random.default_rng(seed)
    pictures, digits = np.empty((n, 28, 28, 1), np.float32), rng.integers(0, 10, n)
    for i in range(n):
        page = Image.new("L", (28, 28))
        font = ImageFont.load_default(size=rng.uniform(14, 26))
        middle = rng.uniform(11, 17, 2)
        ImageDraw.Draw(page).text(middle, str(digits[i]), fill=255, font=font, anchor="mm")
        page = page.rotate(rng.uniform(-25, 25), Image.Resampling.BILINEAR)
        pictures[i, :, :, 0] = np.asarray(page) / 255 + rng.normal(0, 0.12, (28, 28))
    return Arrays(pictures, digits)


def lenet() -> nn.Sequential:
    """Images (N, 28, 28, 1) -> logits (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),  # -> (N, 14, 14, 6)
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),  # -> (N, 5, 5, 16)
        nn.Flatten(), nn.Linear(5 * 5 * 16, 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(), nn.Dropout(0.5), nn.Linear(84, 10),
    )  # fmt: skip


def answers(net: nn.Module, loader: DataLoader) -> np.ndarray:
    net.eval()  # dropout leaves nothing out
    with no_grad():  # nothing is kept for a backward pass
        logits = [net(Tensor(pictures)).numpy() for pictures, _ in loader]
    return np.concatenate(logits).argmax(axis=1)


def draw_answers(path: Path, dataset: Arrays, answers: np.ndarray) -> None:
    """The first hundred, each with its answer; wrong ones are red, the right one in brackets."""
    sheet = Image.new("RGB", (10 * 64, 10 * 80), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for i in range(100):
        x, y = i % 10 * 64, i // 10 * 80
        picture = Image.fromarray((255 * dataset.X[i, :, :, 0].clip(0, 1)).astype(np.uint8))
        sheet.paste(picture.resize((56, 56)), (x + 4, y + 4))
        words, color = f"{answers[i]}", "black"
        if answers[i] != dataset.y[i]:
            words, color = f"{answers[i]} ({dataset.y[i]})", "red"
        pen.text((x + 32, y + 70), words, fill=color, font=font, anchor="mm")
    sheet.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="LeNet learns to read digits.")
    parser.add_argument("--epochs", type=int, default=6, help="of all digits (default: 6)")
    epochs = parser.parse_args().epochs

    minicnn.manual_seed(0)  # each run begins with the same weights, and drops out the same
    validation = draw_digits(1000, seed=1)
    loader = DataLoader(draw_digits(6000, seed=0), 32, shuffle=True)
    validation_loader = DataLoader(validation, 100)
    net = lenet()
    optimizer = optim.Adam(net.parameters(), lr=0.002)
    for epoch in range(1, epochs + 1):
        net.train()
        losses = []
        for pictures, digits in loader:
            loss = F.cross_entropy(net(Tensor(pictures)), digits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        right = (answers(net, validation_loader) == validation.y).mean()
        print(f"epoch {epoch}: loss {np.mean(losses):.3f}, {right:.1%} of other digits right")

    folder = Path("runs/digits")
    folder.mkdir(parents=True, exist_ok=True)
    minicnn.save(folder / "digits.safetensors", net.state_dict())

    net = lenet()  # another one, which knows nothing yet
    state, _ = minicnn.load(folder / "digits.safetensors")
    net.load_state_dict(state)
    draw_answers(folder / "digits.png", validation, answers(net, validation_loader))
    print(f"wrote {folder}/digits.safetensors and {folder}/digits.png")


if __name__ == "__main__":
    main()
