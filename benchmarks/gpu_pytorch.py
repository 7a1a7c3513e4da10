"""PyTorch's side on a GPU."""

from typing import Any

import torch

from . import pytorch
from .gpu_workers import Timed


class Network(Timed, pytorch.Network):
    """A training step and inference. `best`: channels_last, SGD(fused=True), and cuDNN tries its
    ways to find the fastest; `compiled`: through torch.compile as well."""

    def __init__(self, threads: int, network: str, best: bool, compiled: bool) -> None:
        super().__init__(threads, network, 1, best)
        torch.backends.cudnn.benchmark = best
        self.network, self.compiled = network, compiled
        self.plain = self.net = self.net.cuda()
        self.optimizer = self.sgd(self.net.parameters())

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, begin: Any, end: Any) -> float:
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    def begin(self, precision: str, images: Any, labels: Any) -> None:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        self.images = self.labels = None
        self.optimizer.zero_grad()
        if self.compiled:
            torch.compiler.reset()
            self.net = torch.compile(self.plain, dynamic=False)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        self.images = self.channels_first(torch.from_numpy(images).cuda())
        self.labels = torch.from_numpy(labels).cuda()

    def reserved(self) -> float:
        return torch.cuda.max_memory_reserved() / 2**20
