"""The single operations whose cost is measured over sizes, and the chains of tiny ones that show
the engine's."""

from math import prod
from typing import NamedTuple

CHAIN = 1000  # operations in a chain
# how many NumPy calls it takes forward and backward
CHAINS = {"add": (1, 0), "mul": (1, 1), "relu": (1, 2)}


class Case(NamedTuple):
    """op applied to arrays of these shapes, channels last. `work` is what its forward pass has to
    do, in 1e9 of the unit: bytes read and written once, or floating-point operations."""

    op: str
    shapes: tuple[tuple[int, ...], ...]
    work: float
    unit: str

    @property
    def name(self) -> str:
        return f"{self.op} {', '.join('×'.join(map(str, shape)) for shape in self.shapes)}"


def _streams(op: str, *shapes: tuple[int, ...], written: float = 1.0) -> Case:
    """An operation that is bound by memory; it writes so many times what it reads first."""
    numbers = sum(map(prod, shapes)) + written * prod(shapes[0])
    return Case(op, shapes, numbers * 4 / 1e9, "GB/s")


def _conv(size: int, channels: int, kernel: int, batch: int) -> Case:
    x, w = (batch, size, size, channels), (kernel, kernel, channels, channels)
    return Case("conv", (x, w), 2 * batch * size**2 * prod(w) / 1e9, "GFLOP/s")


CASES = [
    *(_streams(op, *[(n,)] * (2 if op in ("add", "mul") else 1))
      for op in ("add", "mul", "exp", "relu", "dropout") for n in (1_000, 100_000, 10_000_000)),
    *(_streams("sum", (n,), written=0) for n in (1_000, 100_000, 10_000_000)),
    *(_streams("softmax", (n, 1000)) for n in (1, 32, 4096)),
    *(_streams("lrn", (n, 55, 55, 96)) for n in (1, 32)),
    *(_streams("pool", (n, 55, 55, 96), written=(27 / 55) ** 2) for n in (1, 32)),
    *(Case("matmul", ((n, n), (n, n)), 2 * n**3 / 1e9, "GFLOP/s") for n in (32, 256, 2048)),
    *(_conv(27, 96, kernel, batch) for kernel in (1, 3, 5) for batch in (1, 32)),
]  # fmt: skip
