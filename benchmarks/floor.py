"""The floor: the matrix products of a network, as im2col makes them, through BLAS alone. No windows
are gathered, no gradients scattered, nothing is added up; the operands lie ready, contiguous where
BLAS likes it, in cache where they fit. The Winograd algorithm takes fewer multiplications, so a
layer of 3 × 3 kernels may lie below its floor."""

from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from minicnn import Tensor, nn, no_grad

from . import networks
from .turns import Worker

CACHE = 6 << 20  # bytes of the larger operand to a slice: minicnn's measure
Operands = tuple[np.ndarray, np.ndarray, np.ndarray]  # a @ b is written to the third


class Product(NamedTuple):
    """groups products (rows, inner) @ (inner, columns). `cut` is the side that is shared among the
    threads."""

    layer: str
    direction: str
    rows: int
    inner: int
    columns: int
    cut: str
    groups: int = 1

    @property
    def flops(self) -> int:
        return 2 * self.groups * self.rows * self.inner * self.columns


def products(network: str, batch: int) -> list[Product]:
    """All that a training step takes: y = x W forward, dW = xᵀ dy and dx = dy Wᵀ backward, but for
    the first dx."""
    found, x = [], Tensor(networks.pictures(network, 1)[0])
    for name, module in networks.layers(networks.build(network).eval()):
        with no_grad():
            x = module(x)
        if isinstance(module, nn.Conv2d):
            *taps, outputs = module.weight.shape
            pixels, inner = batch * prod(x.shape[:-1]), prod(taps)
            columns, groups = outputs // module.groups, module.groups
            found += [
                Product(name, "forward", pixels, inner, columns, "rows", groups),
                Product(name, "backward", inner, pixels, columns, "inner", groups),
                Product(name, "backward", pixels, columns, inner, "rows", groups),
            ]
        elif isinstance(module, nn.Linear):
            inputs, outputs = module.weight.shape
            sides = [
                ("forward", batch, inputs, outputs),
                ("backward", inputs, batch, outputs),
                ("backward", batch, outputs, inputs),
            ]
            found += [Product(name, *side, cut="rows" if side[1] >= side[3] else "columns") for side in sides]
    return found[:2] + found[3:]


def slices(product: Product, threads: int) -> list[tuple[int, int, int]]:
    """(rows, inner, columns) of each slice. Those of a convolution fit in the cache."""
    length = getattr(product, product.cut)
    step = -(-length // threads)
    if product.layer.startswith("conv"):
        widest = max(getattr(product, side) for side in ("rows", "inner", "columns") if side != product.cut)
        step = max(1, min(step, CACHE // (4 * widest)))
    return [
        product._replace(**{product.cut: min(step, length - start)})[2:5]
        for start in range(0, length, step)
        for _ in range(product.groups)
    ]


def operands(product: Product, threads: int) -> list[list[Operands]]:
    """What each thread multiplies. The slices of a convolution share memory: in life the operands
    were just made."""
    shares: list[list[Operands]] = [[] for _ in range(threads)]
    reused: dict[Any, Operands] = {}
    for i, (rows, inner, columns) in enumerate(slices(product, threads)):
        t = i // product.groups % threads
        key = t, rows, inner, columns
        if key not in reused:
            # dW's first operand is the transpose of what the forward pass gathered
            a = np.ones((inner, rows), np.float32).T if product.cut == "inner" else np.ones((rows, inner), np.float32)
            reused[key] = a, np.ones((inner, columns), np.float32), np.ones((rows, columns), np.float32)
        shares[t].append(reused[key])
    return shares


class Network(Worker):
    """The products of a step, of inference, and of each layer and direction."""

    def __init__(self, threads: int, network: str, batch: int) -> None:
        ThreadpoolController().limit(limits=1, user_api="blas")
        self.count = threads
        self.pool = ThreadPoolExecutor(max(1, threads - 1))
        tasks: dict[str, list[Any]] = {"step": [], "inference": []}
        for product in products(network, batch):
            shares = operands(product, threads)
            for task in ("step", f"{product.layer} {product.direction}"):
                tasks.setdefault(task, []).append(shares)
            if product.direction == "forward":
                tasks["inference"].append(shares)
        self.tasks = {name: lambda work=work: self.multiply(work) for name, work in tasks.items()}

    def threads(self) -> dict[str, int]:
        return {"asked": self.count, **super().threads()}

    def multiply(self, work: list[list[list[Operands]]]) -> None:
        for mine, *others in work:
            waiting = [self.pool.submit(_multiply, share) for share in others]
            _multiply(mine)
            for other in waiting:
                other.result()


def _multiply(share: list[Operands]) -> None:
    for a, b, out in share:
        np.matmul(a, b, out=out)
