"""PyTorch's side: the same networks, layers and operations, as its users write them."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import networks
from .cases import CASES, CHAIN
from .networks import Layer
from .turns import Worker


class LRN(nn.Module):
    """PyTorch divides alpha by the number of channels in the window."""

    def forward(self, x: Tensor) -> Tensor:
        return F.local_response_norm(x, 5, alpha=5 * 1e-4, beta=0.75, k=2.0)


def module(layer: Layer) -> nn.Module:
    if layer.kind == "conv":
        settings = layer.kernel, layer.stride, layer.padding
        return nn.Conv2d(layer.inputs, layer.outputs, *settings, groups=layer.groups)
    if layer.kind == "linear":
        return nn.Linear(layer.inputs, layer.outputs)
    made: dict[str, Callable[[], nn.Module]] = {
        "relu": lambda: nn.ReLU(inplace=True),
        "lrn": LRN,
        "pool": lambda: nn.MaxPool2d(3, 2),
        "flatten": nn.Flatten,
        "dropout": nn.Dropout,
    }
    return made[layer.kind]()


def theirs(name: str, array: np.ndarray) -> Tensor:
    """A parameter in PyTorch's layout."""
    if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)  # (KH, KW, C/G, O) -> (O, C/G, KH, KW)
    elif name == "fc6.weight":  # its rows follow a flatten
        array = array.reshape(6, 6, 256, -1).transpose(3, 2, 0, 1).reshape(-1, len(array))  # (O, C·H·W)
    return torch.from_numpy(np.array(array.T if name[:2] == "fc" and name != "fc6.weight" else array, order="C"))


def ours(name: str, tensor: Tensor) -> np.ndarray:
    """A gradient in minicnn's layout."""
    array = tensor.cpu().numpy()
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if name == "fc6.weight":
        return array.reshape(-1, 256, 6, 6).transpose(2, 3, 1, 0).reshape(-1, len(array))  # (H·W·C, O)
    return array.T


class PyTorch(Worker):
    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.tasks = {}

    def threads(self) -> dict[str, int]:
        return {"asked": torch.get_num_threads(), **super().threads()}

    def add(self, name: str, function: Callable[[Tensor], Tensor], leaf: Tensor, *parameters: Tensor) -> None:
        """Two tasks: the function, recorded, and the gradients of its result."""
        wanted = [t for t in (leaf, *parameters) if t.requires_grad]
        y = function(leaf.clone())  # a leaf cannot be overwritten, as nn.ReLU(inplace=True) does
        dy, x = torch.randn_like(y), leaf.clone()
        self.tasks[f"{name} forward"] = lambda: function(x)
        self.tasks[f"{name} backward"] = lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)


def sgd(parameters: Iterable[Tensor], best: bool) -> torch.optim.SGD:
    settings = {"momentum": networks.MOMENTUM, "weight_decay": networks.WEIGHT_DECAY, "fused": best or None}
    return torch.optim.SGD(parameters, networks.LEARNING_RATE, **settings)


class Network(PyTorch):
    """A training step and inference; `best` is the fastest configuration for a CPU."""

    def __init__(self, threads: int, network: str, batch: int, best: bool) -> None:
        super().__init__(threads)
        self.layers = networks.layers(network)
        self.net = nn.Sequential(*map(module, self.layers))
        self.names = list(weights := networks.weights(network))
        for p, (name, weight) in zip(self.net.parameters(), weights.items(), strict=True):
            p.data = theirs(name, weight)
        images, labels = networks.pictures(network, batch)
        self.images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())  # (N, C, H, W)
        self.labels = torch.from_numpy(labels)
        if best:
            self.net = self.net.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.optimizer = sgd(self.net.parameters(), best)
        self.tasks = {"step": self.step, "inference": self.infer}

    def step(self) -> None:
        self.net.train()
        self.optimizer.zero_grad()
        F.cross_entropy(self.net(self.images), self.labels).backward()
        self.optimizer.step()

    def infer(self) -> None:
        self.net.eval()
        with torch.no_grad():
            self.net(self.images)

    def gradients(self) -> networks.Gradients:
        """Of the loss without dropout."""
        self.net.eval()
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.net(self.images), self.labels)
        loss.backward()
        return loss.item(), {n: ours(n, p.grad) for n, p in zip(self.names, self.net.parameters(), strict=True)}


class Layers(Network):
    """Each layer by itself, on what reaches it in the network."""

    def __init__(self, threads: int, network: str, batch: int, best: bool) -> None:
        super().__init__(threads, network, batch, best)
        self.step()
        copies = [nn.Parameter(p.detach().clone()) for p in self.net.parameters()]  # the graphs need theirs unchanged
        for copy, p in zip(copies, self.net.parameters(), strict=True):
            copy.grad = p.grad
        self.tasks = {"sgd": sgd(copies, best).step}
        x = self.images
        for layer, part in zip(self.layers, self.net, strict=True):
            if layer.kind != "flatten":
                self.add(layer.name, part, x, *part.parameters())
            x = part(x.clone()).detach().requires_grad_()
        self.add("loss", lambda logits: F.cross_entropy(logits, self.labels), x)


class Operations(PyTorch):
    """Single operations, on images laid out channels last as well."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        functions: dict[str, Callable[..., Tensor]] = {
            "add": lambda a, b: a + b,
            "mul": lambda a, b: a * b,
            "exp": torch.exp,
            "relu": torch.relu,
            "dropout": F.dropout,
            "sum": torch.sum,
            "softmax": lambda a: torch.softmax(a, -1),
            "lrn": LRN(),
            "pool": lambda a: F.max_pool2d(a, 3, 2),
            "matmul": torch.matmul,
            "conv": lambda a, w: F.conv2d(a, w, padding=w.shape[2] // 2),
        }
        for case in CASES:
            rng = np.random.default_rng(0)
            x, *others = [torch.from_numpy(rng.standard_normal(s, np.float32)) for s in case.shapes]
            if x.ndim == 4:
                x = x.permute(0, 3, 1, 2)
                others = [w.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last) for w in others]
            for t in (x, *others):
                t.requires_grad_()
            self.add(case.name, lambda x, f=functions[case.op], others=others: f(x, *others), x, *others)


class Chains(PyTorch):
    """Long chains of operations on one number, forward and backward."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        operations = {"add": lambda x, y: x + y, "mul": lambda x, y: x * y, "relu": lambda x, y: torch.relu(x)}
        self.tasks = {name: lambda f=f: self.chain(f) for name, f in operations.items()}

    @staticmethod
    def chain(operation: Callable[[Tensor, Tensor], Tensor]) -> None:
        x, y = torch.ones(1, requires_grad=True), torch.ones(1)
        for _ in range(CHAIN):
            x = operation(x, y)
        x.backward()
