"""What minicnn's side and PyTorch's do in the same words: a training step, inference, gradients,
and each layer by itself."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from . import networks
from .turns import Worker


class Training(Worker):
    """A training step and inference of `net` on `images` and their `labels`. `names` are those of
    its parameters, `layers` those of its layers, each with the module."""

    functional: Any  # minicnn.functional or PyTorch's
    no_grad: Any
    net: Any
    optimizer: Any
    images: Any
    labels: Any
    names: list[str]
    layers: list[tuple[str, Any]]

    def loss(self, logits: Any) -> Any:
        return self.functional.cross_entropy(logits, self.labels)

    def step(self) -> None:
        self.net.train()
        self.train_once()

    def train_once(self) -> None:
        """A training step in the mode that the network is in."""
        self.optimizer.zero_grad()
        self.passes()
        self.optimizer.step()

    def passes(self) -> Any:
        """The passes forward and backward of a step: the loss."""
        loss = self.loss(self.net(self.images))
        loss.backward()
        return loss

    def infer(self) -> None:
        self.net.eval()
        with self.no_grad():
            self.net(self.images)

    def gradients(self) -> networks.Gradients:
        """The gradients of the loss in training mode, but without dropout, by the parameters'
        names."""
        self.net.train()
        for _, module in self.net.named_modules():
            if type(module).__name__ == "Dropout":
                module.eval()
        self.optimizer.zero_grad()
        loss = self.passes()
        pairs = zip(self.names, self.net.parameters(), strict=True)
        return loss.item(), {name: self.in_our_layout(name, p.grad) for name, p in pairs}

    def in_our_layout(self, name: str, gradient: Any) -> np.ndarray:
        raise NotImplementedError

    def begin_layers(self) -> None:
        """Tasks that run each layer by itself, on what reaches it in the network."""
        self.step()
        # the graphs below need theirs unchanged
        copies = [self.copy(p) for p in self.net.parameters()]
        for copy, p in zip(copies, self.net.parameters(), strict=True):
            copy.grad = p.grad
        self.tasks = {"sgd": self.sgd(copies).step}
        x = self.images
        for name, module in self.layers:
            if not name.startswith("flatten"):
                self.add(name, module, x, *module.parameters())
            x = self.output(module, x)
        self.add("loss", self.loss, x)

    def sgd(self, parameters: Iterable[Any]) -> Any:
        """The optimizer of these parameters."""
        raise NotImplementedError

    def copy(self, parameter: Any) -> Any:
        """Another parameter with the same elements."""
        raise NotImplementedError

    def output(self, module: Any, x: Any) -> Any:
        """What a layer makes of x, as a leaf that requires a gradient."""
        raise NotImplementedError

    def add(self, name: str, function: Callable[[Any], Any], x: Any, *parameters: Any) -> None:
        """Two tasks: the function, recorded, and the gradients of its result."""
        raise NotImplementedError
