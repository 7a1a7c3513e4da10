"""What a training step asks of a GPU, recorded while the program runs; how many bytes and
operations each launch cannot do without; and what that takes on a given card at the least."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
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


class Code(NamedTuple):
    """What a launch of one of minicnn's kernels compiles, and how many run it."""

    source: str
    blocks: int
    turns: int  # how often warps run the body of FOR_EACH or FOR_EACH_BLOCK, all together
    numbers: tuple[tuple[str, int], ...]  # the constants, and arguments that count something


class Launch(NamedTuple):
    """Something that the GPU is asked for, with the bytes and operations that it takes at the
    least."""

    name: str
    kind: str
    shape: str
    bytes: int
    operations: float
    code: Code | None = None
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

    def least(
        self, kind: str, nbytes: float, operations: float, precision: str, issuing: float = 0.0
    ) -> dict[str, Any]:
        """The fewest seconds that a launch takes, and what they are bound by. `issuing` its
        instructions takes that many."""
        rate = self.tf32 if precision == "tf32" and kind == "product" else self.fp32
        bounds = {
            "memory": nbytes / self.bandwidth, "arithmetic": operations / rate, "instructions": issuing,
            "launching": self.shortest,
        }  # fmt: skip
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
            found.append(_kernel(name, args, real, again)._replace(code=_code(name, blocks, count, args, real, *rest)))

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
    return Launch(name, "kernel", shape, nbytes, OPERATIONS.get(name, 1) * max(sizes), again=again)


class _Reader:
    """In CuPy's place: a kernel is its source, not compiled."""

    @staticmethod
    def RawModule(code: str, options: Any) -> Any:
        return SimpleNamespace(get_function=lambda name: code)


def _code(
    name: str, blocks: int, count: int, args: tuple[Any, ...], real: Any, types: Any, constants: dict[str, int]
) -> Code:
    wide = max(count, *(getattr(arg, "size", 1) for arg in args)) >= 1 << 31
    use = launch._use(
        _Reader,
        0,
        name,
        np.dtype(real),
        wide,
        tuple((types or {}).items()),
        tuple(constants),
        tuple(constants.values()),
    )
    counts = {
        parameter.what.split()[-1]: int(arg)
        for parameter, arg in zip(use.parameters, args, strict=True)
        if parameter.text.startswith("Index ")
    }
    numbers = {name: int(value) for name, value in {**constants, **counts}.items()}
    # a thread or a whole block for each result; 32 threads are a warp
    turns = count * launch.BLOCK // 32 if blocks == count else -(-count // 32)
    return Code(use.compiled, min(int(blocks), use.most_blocks), int(turns), tuple(numbers.items()))


def _product(a: Any, b: Any, out: Any, again: Callable[[], Any]) -> Launch:
    shape = " · ".join(_shape(m) + "ᵀ" * (m.strides[-1] != m.itemsize) for m in (a, b))
    return Launch("product", "product", shape, a.nbytes + b.nbytes + out.nbytes, 2 * a.size * b.shape[-1], again=again)


def _shape(array: Any) -> str:
    return "×".join(map(str, array.shape))
