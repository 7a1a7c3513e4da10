"""What runs in processes of its own: minicnn's network on a GPU; the launches of train.py's
training step, recorded, each timed on the GPU, or only counted where there is none; and the clock
that all contenders on a GPU share."""

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from model import alexnet
from support import progress, scores
from support.options import batch_of
from support.progress import batches
from support.scores import Score

from minicnn import Captured, Tensor, no_grad, set_matmul_precision
from minicnn import functional as F
from minicnn.backends.cuda import products
from minicnn.backends.cuda.products import has_tf32
from minicnn.backends.devices import memory_stats, open_device
from minicnn.data import DataLoader, transforms
from minicnn.optim import CosineLR

from . import networks, ours
from .gpu_launches import Launch, distinct, recording
from .turns import Turn, Worker

DEVICE = "gpu"
STANDIN = Path(__file__).resolve().parent.parent / "tests" / "cuda"


class Timed(Worker):
    """Tasks that a GPU is asked to do, timed by its own clock."""

    network: str

    def mark(self) -> Any:
        """An event after all that has been asked of the GPU so far."""
        raise NotImplementedError

    def between(self, begin: Any, end: Any) -> float:
        """Wait for the second event; the seconds from the first to it."""
        raise NotImplementedError

    def turn(self, repeats: dict[str, int]) -> Turn:
        turn = Turn({}, {}, -time.process_time())
        for task, count in repeats.items():
            call, begin = self.tasks[task], self.mark()
            for _ in range(count):
                call()
            turn.seconds[task] = self.between(begin, self.mark()) / count
            turn.faults[task] = 0.0
        return turn._replace(cpu=turn.cpu + time.process_time())

    def waits(self, task: str, count: int = 4) -> tuple[float, float]:
        """Seconds that the host takes to ask for a task, and that the GPU takes to do it, when it
        is asked `count` times in a row (not more: a thousand launches fill its queue, and then
        asking means waiting)."""
        begin = self.mark()
        self.between(begin, begin)  # nothing is left to do
        start, begin = time.perf_counter(), self.mark()
        for _ in range(count):
            self.tasks[task]()
        host = time.perf_counter() - start
        return host / count, self.between(begin, self.mark()) / count

    def take(self, batch: int, precision: str) -> None:
        """Use batches of this size from now on, and products in that precision."""
        self.begin(precision, *networks.pictures(self.network, batch))

    def attempt(self, batch: int, precision: str) -> str | None:
        """Do the same, and each task once. If that fails, return the reason in one line."""
        try:
            self.take(batch, precision)
            for task in self.tasks.values():
                task()
            end = self.mark()
            self.between(end, end)
        except Exception as error:
            return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        return None

    def begin(self, precision: str, images: np.ndarray, labels: np.ndarray) -> None:
        raise NotImplementedError

    def reserved(self) -> float:
        """The most memory that arrays have taken since take(), in MiB, with what the allocator
        keeps beside them."""
        raise NotImplementedError


class OnGPU(Timed, ours.Ours):
    """minicnn with CuPy."""

    def __init__(self, *arguments: Any) -> None:
        open_device(DEVICE)
        self.cupy = sys.modules["cupy"]
        super().__init__(*arguments)

    def mark(self) -> Any:
        event = self.cupy.cuda.Event()
        event.record()
        return event

    def between(self, begin: Any, end: Any) -> float:
        end.synchronize()
        return self.cupy.cuda.get_elapsed_time(begin, end) / 1e3


class Network(OnGPU, ours.Network):
    """A training step and inference, on images that are on the GPU already."""

    def __init__(self, threads: int, network: str) -> None:
        super().__init__(threads, network, 1)
        self.network = network
        self.net.to(DEVICE)
        self.optimizer = self.sgd(self.net.parameters())

    def begin(self, precision: str, images: np.ndarray, labels: np.ndarray) -> None:
        set_matmul_precision(precision)
        self.images, self.labels = Tensor(0.0), np.zeros(0)
        self.optimizer.zero_grad()
        self.cupy.get_default_memory_pool().free_all_blocks()
        self.images, self.labels = Tensor(images, device=DEVICE), Tensor(labels, device=DEVICE)

    def reserved(self) -> float:
        return memory_stats(DEVICE)["reserved"] / 2**20


class CapturedNetwork(Network):
    """The same with minicnn.Captured: the two passes of a step, and inference."""

    def __init__(self, threads: int, network: str) -> None:
        super().__init__(threads, network)
        self.captured, self.predict = Captured(self.both, self.net), Captured(self.net, self.net)

    def both(self, images: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(self.net(images), labels)
        loss.backward()
        return loss

    def passes(self) -> Tensor:
        return self.captured(self.images, self.labels)

    def infer(self) -> None:
        self.net.eval()
        with no_grad():
            self.predict(self.images)

    def gradients(self) -> networks.Gradients:
        super().gradients()  # not captured yet
        return super().gradients()


class Steps:
    """A DataLoader's batches; `fetching` is called before each is fetched."""

    def __init__(self, loader: DataLoader, fetching: Callable[[], None]) -> None:
        self.loader, self.dataset, self.part, self.fetching = loader, loader.dataset, loader.part, fetching

    def __iter__(self) -> Iterator[Any]:
        batches, batch = iter(self.loader), None
        while True:
            self.fetching()
            batch = next(batches, None)
            if batch is None:
                return
            yield batch


class Loop(OnGPU):
    """The loop of examples/alexnet/train.py, on images that come from the host; recorded."""

    def __init__(self, threads: int, network: str, batch: int) -> None:
        super().__init__(threads)
        self.network, self.batch = network, batch
        # results are fetched only at the end, not in the step that is recorded
        scores.OFTEN = math.inf
        bar = SimpleNamespace(update=lambda n: None, close=lambda: None, disable=True)
        progress.progress_bar = lambda **_: bar
        progress.LINE = math.inf

    def second_step(self) -> list[Launch]:
        """What one step launches, when the one before it has compiled and allocated what both
        need."""
        self.net = alexnet(self.network, networks.CLASSES).to(DEVICE)  # kept: its memory is in use
        self.optimizer = self.sgd(self.net.parameters())
        image = networks.NETWORKS[self.network].image
        noise = np.random.default_rng(1).integers(0, 256, (8, *image), np.uint8)
        pictures = [(noise[i % 8], i % networks.CLASSES) for i in range(3 * self.batch)]
        normalize = transforms.Normalize(0.5, 0.25)
        loader = DataLoader(pictures, self.batch, num_workers=0, normalize=normalize, device=DEVICE)
        steps: list[list[Launch]] = []
        with self.recording() as found:

            def fetching() -> None:
                last = len(steps) == 2
                if last:  # the optimizer's struct points to them
                    self.gradients = [p.grad for p in self.net.parameters()]
                steps.append(list(found) if last else [])
                found.clear()

            schedule = CosineLR(self.optimizer, 3)
            self.epoch(self.net, self.optimizer, schedule, Steps(loader, fetching))
        return steps[2]

    @staticmethod
    def epoch(net: Any, optimizer: Any, schedule: Any, loader: Any) -> None:
        """The lines of train.py, with those of its passes(), which a test compares with these."""
        score = Score()
        for images, labels in batches(loader, "", score):
            with batch_of(len(labels)):
                net.zero_grad()
                logits = net(Tensor(images))
                loss = F.cross_entropy(logits, Tensor(labels))
                loss.backward()
                score.add(loss, logits, labels)
                optimizer.step()
            schedule.step()

    def recording(self) -> AbstractContextManager[list[Launch]]:
        return recording()


class Kernels(Loop):
    """Each launch by itself, with the arrays that it had in the step."""

    def __init__(self, threads: int, network: str, batch: int, quick: bool) -> None:
        super().__init__(threads, network, batch)
        self.precisions = ("fp32", "tf32") if has_tf32(DEVICE) else ("fp32",)
        self.quick, self.repeats = quick, 1 if quick else 20
        # More than any GPU's cache holds, and to fill it takes longer than to ask for the next:
        # with 256 MiB (60 µs on an H200) a kernel of 15 µs was once measured at 81, because the
        # host was late.
        self.other = self.cupy.empty(1 << 20 if quick else 1 << 30, np.uint8)

    def times(self, call: Callable[[], Any]) -> list[float]:
        """Seconds of each of several calls; before each, the GPU's cache is filled with something
        else, which also gives the host the time to be ahead."""
        call()
        pairs = []
        for _ in range(self.repeats):
            self.other.fill(0)
            begin = self.mark()
            call()
            pairs.append((begin, self.mark()))
        return [self.between(*pair) for pair in pairs]

    def launches(self) -> list[tuple[Launch, int]]:
        """Those that differ, and how often each occurs."""
        self.found = distinct(self.second_step())
        return [(entry._replace(again=None), times) for entry, times in self.found]

    def time(self, index: int) -> dict[str, list[float]]:
        """The seconds of one of them, by precision."""
        entry, _ = self.found[index]
        seconds = {}
        for precision in self.precisions if entry.kind == "product" else ("fp32",):
            set_matmul_precision(precision)
            seconds[precision] = self.times(entry.again)
        return seconds

    def peaks(self) -> dict[str, float]:
        """What this GPU reaches when nothing is in the way: bytes a second in a copy from device to
        device, operations a second in a product of square matrices; and seconds from one mark to
        the next."""
        nbytes, side = (1 << 20, 64) if self.quick else (1 << 30, 8192)
        source, target = (self.cupy.zeros(nbytes, np.uint8) for _ in range(2))
        copy = self.times(partial(self.cupy.copyto, target, source))
        found = {"bandwidth": 2 * nbytes / statistics.median(copy), "mark": statistics.median(self.times(int))}
        del source, target, copy
        a = self.cupy.asarray(np.random.default_rng(0).standard_normal((side, side), np.float32))
        b, out = a.copy(), a.copy()
        for precision in self.precisions:
            set_matmul_precision(precision)
            seconds = self.times(partial(products.product, a, b, out))
            found[precision] = 2 * side**3 / statistics.median(seconds)
        return {"tf32": found["fp32"], **found}  # a card without TF32 multiplies in fp32


class StandIn(Loop):
    """The launches without a GPU: through the tests' stand-in for CuPy, which sees CuPy's own and
    the transfers too. Nothing is computed, so that a large batch takes a moment."""

    def __init__(self, threads: int, network: str, batch: int) -> None:
        sys.path.insert(0, str(STANDIN))
        import standin

        self.installed = standin.installed()  # for good: this process has nothing else to do
        self.machine = self.installed.__enter__()
        standin.arrays.poisoned = np.empty  # touched, memory would have to be there
        standin.cupy.empty_like = lambda a, dtype=None, order="C", shape=None: standin.cupy.empty(
            a.shape if shape is None else shape, dtype or a.dtype
        )
        standin.cupy.cuda.cublas.gemmEx = lambda *_: None
        standin.cupy.RawModule = lambda **_: SimpleNamespace(get_function=lambda name: lambda *_: None)
        super().__init__(threads, network, batch)

    def launches(self) -> list[tuple[Launch, int]]:
        """Those that differ, and how often each occurs."""
        return [(entry._replace(again=None), times) for entry, times in distinct(self.second_step())]

    @contextmanager
    def recording(self) -> Iterator[list[Launch]]:
        with recording() as found:
            self.machine.log = Log(found)
            yield found


class Log(list[Any]):
    """What the stand-in writes its log to: adds it to the launches, but for the kernels and
    products there already."""

    def __init__(self, launches: list[Launch]) -> None:
        self.launches = launches

    def append(self, entry: Any) -> None:
        if entry.kind not in ("kernel", "product"):
            kind = "transfer" if " " in entry.kind else "wait" if entry.kind == "wait" else "cupy"
            name = f"{entry.name}, {entry.kind}" if kind == "transfer" else entry.name
            self.launches.append(Launch(name, kind, "", entry.nbytes, 0.0))
