"""minicnn's side: the network, layer by layer and operation by operation, through its public
API."""

import os
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from support.parallel import WAYS

import minicnn
import minicnn.functional as F
from minicnn import Tensor, distributed, nn, optim
from minicnn.backends import backend_of
from minicnn.backends.native.compiler import command_for
from minicnn.workers import Channel

from . import machine, networks
from .cases import CASES, CHAIN
from .jobs import Together, own_rows
from .training import Training
from .turns import Worker

# the widest first, by the macros of a compiler that may use them
INSTRUCTIONS = {"AVX-512": "__AVX512F__", "AVX2": "__AVX2__", "NEON": "__ARM_NEON"}


class Ours(Worker):
    """backend: the one that computes, if not the device's default."""

    def __init__(self, threads: int, backend: str | None = None) -> None:
        minicnn.set_num_threads(threads)
        minicnn.use_backend(backend)
        self.tasks = {}

    def threads(self) -> dict[str, int]:
        return {"asked": minicnn.get_num_threads(), **super().threads()}

    def describe(self) -> dict[str, Any]:
        """The machine, the backend, and what compiled it."""
        backend = backend_of("cpu")
        return {
            **machine.describe(minicnn.get_num_threads()),
            "backend": f"{backend} ({compiled_by()})" if backend == "native" else backend,
        }

    def sgd(self, parameters: Iterable[Tensor]) -> optim.SGD:
        return optim.SGD(parameters, networks.LEARNING_RATE, networks.MOMENTUM, weight_decay=networks.WEIGHT_DECAY)

    def add(self, name: str, function: Callable[[Tensor], Tensor], x: Tensor, *parameters: Tensor) -> None:
        """Two tasks: the function, recorded, and the gradients of its result."""
        wanted = [t for t in (x, *parameters) if t.requires_grad]
        y = function(x)
        dy = Tensor(np.random.default_rng(2).standard_normal(y.shape, np.float32))
        self.tasks[f"{name} forward"] = lambda: function(x)
        self.tasks[f"{name} backward"] = lambda: minicnn.grad(y, wanted, dy, retain_graph=True)


def compiled_by() -> str:
    """The native backend's compiler, and the instructions that it uses: "gcc 12.2.0, AVX-512"."""
    command = command_for("float")
    macros = subprocess.run([*command, "-dM", "-E", "-x", "c", os.devnull], capture_output=True, text=True).stdout
    version = re.search(r'__VERSION__ "(.*)"', macros)
    widest = [name for name, macro in INSTRUCTIONS.items() if macro in macros]
    return ", ".join([f"{Path(command[0]).name} {version[1] if version else ''}", *widest[:1]])


class Network(Ours, Training):
    """A training step and inference."""

    functional, no_grad = F, minicnn.no_grad

    def __init__(self, threads: int, network: str, batch: int, backend: str | None = None, **options: int) -> None:
        super().__init__(threads, backend)
        self.net = networks.build(network, **options)
        self.layers = networks.layers(self.net)
        self.names = list(networks.parameters(self.layers))
        networks.draw(self.net.parameters())
        images, self.labels = networks.pictures(network, batch)
        self.images = Tensor(images)
        self.optimizer = self.sgd(self.net.parameters())
        self.tasks = {"step": self.step, "inference": self.infer}

    def in_our_layout(self, name: str, gradient: Tensor) -> np.ndarray:
        return gradient.numpy()

    def copy(self, parameter: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(parameter.data.copy())

    def output(self, module: nn.Module, x: Tensor) -> Tensor:
        return Tensor(module(x).detach().data, requires_grad=True)

    def nodes(self) -> int:
        """How many operations a training step records."""
        self.net.train()
        seen: set[Any] = set()
        stack = [F.cross_entropy(self.net(self.images), self.labels).grad_fn]
        while stack:
            node = stack.pop()
            if hasattr(node, "parents") and node not in seen:  # a leaf has none
                seen.add(node)
                stack.extend(node.parents)
        return len(seen)


class Parallel(Together, Network):
    """Training steps of one of several workers, in one of the ways of --parallel. It notes what a
    step's parts have taken, and the bytes that it has received."""

    def __init__(self, threads: int, network: str, batch: int, way: str) -> None:
        workers = distributed.start()
        super().__init__(threads, network, batch, **({"norms": 2} if way == "columns" else {}))
        self.workers, self.way = workers, WAYS[way](workers)
        self.net = self.way.divide(self.net)
        self.way.begin(self.net)
        self.optimizer = self.sgd(self.net.parameters())
        rows = own_rows(batch, *self.way.rows.part)
        self.images, self.labels = self.images[rows], self.labels[rows]
        self.parallel = getattr(self.way, "parallel", None)  # columns have none
        self.tasks = {"step": lambda: self.timed("step", self.step)}
        if way == "data" and workers.size > 1:
            self.tasks["after"] = lambda: self.timed("after", self.without_overlap)
        first = next(p for name, p in self.net.named_parameters() if name.startswith("fc"))
        first.register_post_accumulate_grad_hook(self.linear_done)
        self.began = self.linear = self.backward = self.update = 0.0

    def linear_done(self, p: Tensor) -> None:
        """The first linear layer has its gradients: the last of the linear layers in a backward
        pass."""
        self.linear = perf_counter() - self.began

    def train_once(self) -> None:
        with self.way.step(len(self.labels)) as step:
            loss = self.loss(self.net(self.images))
            self.optimizer.zero_grad()
            self.began = perf_counter()
            step.backward(loss)
            self.backward = perf_counter() - self.began
        begun = perf_counter()
        self.way.update(self.optimizer)
        self.update = perf_counter() - begun

    def timed(self, task: str, step: Callable[[], None]) -> None:
        received, waited = self.workers.received, self.waited()
        super().timed(task, step)
        self.note(
            task, received=self.workers.received - received, waited=self.waited() - waited, linear=self.linear,
            backward=self.backward, update=self.update,
        )  # fmt: skip

    def waited(self) -> float:
        return self.parallel.waited if self.parallel else 0.0

    def without_overlap(self) -> None:
        """A step that sends its gradients after the backward pass."""
        channels = self.parallel.channels
        self.parallel.channels = {device: Later(channel) for device, channel in channels.items()}
        self.step()
        self.parallel.channels = channels


class Later(Channel):
    """Sends when it is waited for."""

    def __init__(self, channel: Channel) -> None:
        self.channel, self.calls = channel, list[Sequence[Any]]()

    def all_reduce(self, arrays: Sequence[Any]) -> None:
        self.calls.append(arrays)

    def wait(self) -> None:
        for arrays in self.calls:
            self.channel.all_reduce(arrays)
        self.channel.wait()


class Layers(Network):
    """Each layer by itself."""

    def __init__(self, threads: int, network: str, batch: int, backend: str | None = None) -> None:
        super().__init__(threads, network, batch, backend)
        self.begin_layers()


class Operations(Ours):
    """Single operations."""

    def __init__(self, threads: int, backend: str | None = None) -> None:
        super().__init__(threads, backend)
        functions: dict[str, Callable[..., Tensor]] = {
            "add": lambda a, b: a + b,
            "mul": lambda a, b: a * b,
            "exp": lambda a: a.exp(),
            "relu": F.relu,
            "dropout": F.dropout,
            "sum": lambda a: a.sum(),
            "softmax": F.softmax,
            "lrn": F.local_response_norm,
            "pool": lambda a: F.max_pool2d(a, 3, 2),
            "matmul": lambda a, b: a @ b,
            "conv": lambda a, w: F.conv2d(a, w, padding=w.shape[0] // 2),
        }
        for case in CASES:
            rng = np.random.default_rng(0)
            x, *others = [Tensor(rng.standard_normal(s, np.float32), requires_grad=True) for s in case.shapes]
            self.add(case.name, lambda x, f=functions[case.op], others=others: f(x, *others), x, *others)


class Chains(Ours):
    """Long chains of operations on one number, forward and backward; and what they would be without
    an engine."""

    def __init__(self, threads: int, backend: str | None = None) -> None:
        super().__init__(threads, backend)
        operations = {"add": lambda x, y: x + y, "mul": lambda x, y: x * y, "relu": lambda x, y: F.relu(x)}
        self.tasks = {name: lambda f=f: self.chain(f) for name, f in operations.items()}
        a, b = np.ones(1, np.float32), np.ones(1, np.float32)
        calls = {"add": np.add, "mul": np.multiply, "relu": np.maximum}
        self.tasks |= {f"numpy {name}": lambda f=f: [f(a, b) for _ in range(CHAIN)] for name, f in calls.items()}

    @staticmethod
    def chain(operation: Callable[[Tensor, Tensor], Tensor]) -> None:
        x, y = Tensor(np.ones(1, np.float32), requires_grad=True), Tensor(np.ones(1, np.float32))
        for _ in range(CHAIN):
            x = operation(x, y)
        x.backward()
