"""A small network of all the kinds of layers that there are, and how it is trained: by each backend, on each device."""

from minicnn import Tensor, manual_seed, nn, optim
from minicnn import functional as F

OPTIMIZERS = {
    "plain": lambda p: optim.SGD(p, 0.05, weight_decay=0.01),
    "momentum": lambda p: optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
    "paper": lambda p: optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01, paper_update=True),
    "Adam": lambda p: optim.Adam(p, 0.01, weight_decay=0.01),
    "AdamW": lambda p: optim.AdamW(p, 0.01, weight_decay=0.1),
}


def small_network():
    """For images of 15 × 15 and 3 classes, always with the same weights."""
    manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.LocalResponseNorm(n=5, k=2.0, alpha=0.1, beta=0.75),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False),  # its gradient would be 0, but for rounding
        nn.BatchNorm2d(8),
        nn.Tanh(),
        nn.AvgPool2d(2, 1, padding=1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8 * 4 * 4, 16),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(16, 3),
    )


def train(net, optimizer, images, labels, steps):
    """The losses of so many steps."""
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(net(Tensor(images, device=next(net.parameters()).device)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
