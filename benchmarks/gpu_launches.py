"""What a training step asks of a GPU, recorded while the program runs; how many bytes and
operations each launch cannot do without; and what that takes on a given card at the least."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from minicnn.backends.cuda import launch, products

# What a kernel moves beyond each of its arrays once, in numbers for each that it works on: those
# that it changes in place are read and written, and those that it finds through a struct do not
# show.
MORE = {"optimizer.sgd": 5, "optimizer.adam": 7}
# Operations for each number of a kernel's largest array, roughly; 1 where nothing else is said.
OPERATIONS = {"lrn.normalize": 20, "lrn.normalize_backward": 50, "dropout.drop": 15, "optimizer.adam": 12}


# Kinds: one of minicnn's backends/cuda, by cuBLAS, CuPy's own. Besides, there are transfers and
# waits.
LAUNCHED = {"kernel": "of minicnn's kernels", "product": "products by cuBLAS", "cupy": "of CuPy's own"}


class Launch(NamedTuple):
    """Something that the GPU is asked for, with the bytes and operations that it takes at the
    least."""

    name: str
    kind: str
    shape: str
    bytes: int
    operations: float
    again: Callable[[], Any] | None = None  # does the same once more


def distinct(launches: Iterable[Launch]) -> list[tuple[Launch, int]]:
    """Those that differ, in order, and how often each occurs."""
    counts = Counter(launch[:-1] for launch in launches)
    firsts = {launch[:-1]: launch for launch in reversed(list(launches))}
    return [(firsts[key], count) for key, count in counts.items()]


class Card(NamedTuple):
    """Bytes and operations a second, and the shortest time between two launches."""

    name: str
    bandwidth: float
    fp32: float
    tf32: float
    shortest: float = 0.0

    def least(self, kind: str, nbytes: float, operations: float, precision: str) -> dict[str, Any]:
        """The fewest seconds that a launch takes, and what they are bound by."""
        rate = self.tf32 if precision == "tf32" and kind == "product" else self.fp32
        bounds = {"memory": nbytes / self.bandwidth, "arithmetic": operations / rate, "launching": self.shortest}
        bound = max(bounds, key=bounds.__getitem__)
        return {"seconds": bounds[bound], "bound": bound}


# By its data sheet: the SXM card with 80 GB; TF32 without sparsity.
H100 = Card("NVIDIA H100 SXM", 3.35e12, 67e12, 494e12)
# What a program gets of that, as far as it can be known before the first run: CARD.
ACHIEVABLE = {"bandwidth": 0.85, "fp32": 0.75, "tf32": 0.5}
SHORTEST = 3e-6


def expected(card: Card) -> Card:
    """What a program can expect of it."""
    rates = {name: getattr(card, name) * share for name, share in ACHIEVABLE.items()}
    return card._replace(shortest=SHORTEST, **rates)


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """The kernels and products that are launched inside."""
    found: list[Launch] = []
    kernel, product = launch._run, products.product

    def record_kernel(name: str, blocks: int, count: int, args: tuple[Any, ...], real: Any, *rest: Any) -> None:
        again = partial(kernel, name, blocks, count, args, real, *rest)
        again()
        if count:
            found.append(_kernel(name, args, real, again))

    def record_product(a: Any, b: Any, out: Any) -> Any:
        again = partial(product, a, b, out)
        again()
        if a.size and b.size:
            found.append(_product(a, b, out, again))
        return out

    launch._run, products.product = record_kernel, record_product
    try:
        yield found
    finally:
        launch._run, products.product = kernel, product


def _kernel(name: str, args: tuple[Any, ...], real: Any, again: Callable[[], Any]) -> Launch:
    arrays = [arg for arg in args if getattr(arg, "shape", ())]
    # the optimizers' struct says where it ends
    sizes = [array.size for array in arrays] or [int(args[0]["end"].max())]
    nbytes = sum(array.nbytes for array in arrays) + MORE.get(name, 0) * sizes[0] * np.dtype(real).itemsize
    shape = " → ".join(dict.fromkeys(map(_shape, arrays))) or f"{sizes[0]:,}"
    return Launch(name, "kernel", shape, nbytes, OPERATIONS.get(name, 1) * max(sizes), again)


def _product(a: Any, b: Any, out: Any, again: Callable[[], Any]) -> Launch:
    shape = " · ".join(_shape(m) + "ᵀ" * (m.strides[-1] != m.itemsize) for m in (a, b))
    return Launch("product", "product", shape, a.nbytes + b.nbytes + out.nbytes, 2 * a.size * b.shape[1], again)


def _shape(array: Any) -> str:
    return "×".join(map(str, array.shape))
