"""PyTorch's side: the same networks, layers and operations, as its users write them."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from convert import channels_first, channels_last
from torch import Tensor, nn
from torch.nn import functional as F

import minicnn.nn

from . import networks
from .cases import CASES, CHAIN
from .jobs import Together, own_rows
from .networks import Layer
from .training import Training
from .turns import Worker

TWINS: dict[type, Callable[[Any], nn.Module]] = {
    minicnn.nn.Conv2d: lambda conv: nn.Conv2d(
        conv.weight.shape[2] * conv.groups, conv.weight.shape[3], conv.kernel_size,
        conv.stride, conv.padding, conv.dilation, conv.groups, conv.bias is not None,
    ),
    minicnn.nn.Linear: lambda linear: nn.Linear(*linear.weight.shape),
    minicnn.nn.ReLU: lambda _: nn.ReLU(inplace=True),
    # PyTorch divides alpha by the number of channels in the window.
    minicnn.nn.LocalResponseNorm: lambda lrn: nn.LocalResponseNorm(lrn.n, lrn.n * lrn.alpha, lrn.beta, lrn.k),
    minicnn.nn.BatchNorm2d: lambda norm: nn.BatchNorm2d(norm.gamma.size, norm.eps, norm.momentum),
    minicnn.nn.MaxPool2d: lambda pool: nn.MaxPool2d(
        pool.kernel_size, pool.stride, pool.padding, pool.dilation, ceil_mode=pool.ceil_mode,
    ),
    # Without padding there is none to count. To say so gives torch.compile the right gradient of
    # windows that overhang (https://github.com/pytorch/pytorch/issues/198119).
    minicnn.nn.AvgPool2d: lambda pool: nn.AvgPool2d(
        pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, pool.count_include_pad and pool.padding != 0,
    ),
    minicnn.nn.Flatten: lambda _: nn.Flatten(),
    minicnn.nn.Dropout: lambda dropout: nn.Dropout(dropout.p),
}  # fmt: skip


def twin(layers: Sequence[Layer]) -> nn.Sequential:
    """The network in PyTorch, from minicnn's layers: with their settings, and copies of their
    parameters."""
    net, sides = nn.Sequential(*(TWINS[type(module)](module) for _, module in layers)), networks.sides(layers)
    for p, (name, ours) in zip(net.parameters(), networks.parameters(layers).items(), strict=True):
        p.data = torch.from_numpy(np.array(channels_first(ours.data, sides.get(name, 1)), order="C"))
    return net


class PyTorch(Worker):
    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.tasks = {}

    def threads(self) -> dict[str, int]:
        return {"asked": torch.get_num_threads(), **super().threads()}

    def describe(self) -> dict[str, str]:
        """The version, and the instructions that its own kernels are chosen for."""
        return {"pytorch": f"{torch.__version__} ({torch.backends.cpu.get_cpu_capability()})"}

    def add(self, name: str, function: Callable[[Tensor], Tensor], leaf: Tensor, *parameters: Tensor) -> None:
        """Two tasks: the function, recorded, and the gradients of its result."""
        wanted = [t for t in (leaf, *parameters) if t.requires_grad]
        y = function(leaf.clone())  # a leaf cannot be overwritten, as nn.ReLU(inplace=True) does
        dy, x = torch.randn_like(y), leaf.clone()
        self.tasks[f"{name} forward"] = lambda: function(x)
        self.tasks[f"{name} backward"] = lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)


class Compiler(PyTorch):
    """Asks whether torch.compile works."""

    def problem(self) -> str | None:
        """What it says, in one line, if it cannot compile a single operation."""
        try:
            torch.compile(torch.sin)(torch.ones(8))
        except Exception as error:
            inner = getattr(error, "inner_exception", error)  # without the advice around it
            return f"{type(inner).__name__}: {str(inner).strip().partition(chr(10))[0]}"
        return None


class Network(PyTorch, Training):
    """A training step and inference; `best` is the fastest configuration for a CPU, `compiled` is
    through torch.compile as well, which compiles when a task is done for the first time: before
    anything is measured."""

    functional, no_grad = F, torch.no_grad

    def __init__(self, threads: int, network: str, batch: int, best: bool, compiled: bool = False) -> None:
        super().__init__(threads)
        self.best, layers = best, networks.layers(networks.build(network))
        self.names, self.sides = list(parameters := networks.parameters(layers)), networks.sides(layers)
        networks.draw(parameters.values())
        self.net = twin(layers)
        self.layers = [(name, module) for (name, _), module in zip(layers, self.net, strict=True)]
        images, labels = networks.pictures(network, batch)
        self.images, self.labels = self.channels_first(torch.from_numpy(images)), torch.from_numpy(labels)
        if best:
            self.net = self.net.to(memory_format=torch.channels_last)
        self.optimizer = self.sgd(self.net.parameters())
        if compiled:
            self.net = torch.compile(self.net, dynamic=False)
        self.tasks = {"step": self.step, "inference": self.infer}

    def channels_first(self, images: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, C, H, W), in the memory layout that goes with the configuration."""
        if images.ndim != 4:
            return images
        layout = torch.channels_last if self.best else torch.contiguous_format
        return images.permute(0, 3, 1, 2).contiguous(memory_format=layout)

    def sgd(self, parameters: Iterable[Tensor]) -> torch.optim.SGD:
        settings = {"momentum": networks.MOMENTUM, "weight_decay": networks.WEIGHT_DECAY, "fused": self.best or None}
        return torch.optim.SGD(parameters, networks.LEARNING_RATE, **settings)

    def in_our_layout(self, name: str, gradient: Tensor) -> np.ndarray:
        return channels_last(gradient.cpu().numpy(), self.sides.get(name, 1))

    def copy(self, parameter: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(parameter.detach().clone())

    def output(self, module: nn.Module, x: Tensor) -> Tensor:
        # Of a clone, for nn.ReLU(inplace=True) overwrites what it is given.
        return module(x.clone()).detach().requires_grad_()


class Distributed(Together, Network):
    """Training steps of one of several processes: DistributedDataParallel over gloo, as it comes or
    in its best eager configuration. One process alone does without it."""

    def __init__(self, threads: int, network: str, batch: int, best: bool) -> None:
        super().__init__(threads, network, batch, best)
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        rows = own_rows(batch, rank, size)
        self.images, self.labels = self.images[rows], self.labels[rows]
        self.tasks = {"step": lambda: self.timed("step", self.step)}
        if size > 1:
            store = f"file://{os.environ['BENCHMARK_STORE']}"
            torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
            settings = {"gradient_as_bucket_view": True, "static_graph": True} if best else {}
            self.net = nn.parallel.DistributedDataParallel(self.net, **settings)
            if not best:
                self.tasks["alone"] = lambda: self.timed("alone", self.without_communication)

    def without_communication(self) -> None:
        """A step that sends nothing."""
        with self.net.no_sync():
            self.step()


class Layers(Network):
    """Each layer by itself."""

    def __init__(self, threads: int, network: str, batch: int, best: bool) -> None:
        super().__init__(threads, network, batch, best)
        self.begin_layers()


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
            "lrn": TWINS[minicnn.nn.LocalResponseNorm](minicnn.nn.LocalResponseNorm()),
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
