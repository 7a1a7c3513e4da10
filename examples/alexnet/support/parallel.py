"""How the processes that mpiexec has started divide a training: the ways of --parallel."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from columns import column, own_part
from hybrid import LINEAR, Hybrid

from minicnn import nn
from minicnn.distributed import DataParallel, Sharded, Step
from minicnn.optim import Optimizer
from minicnn.workers import Workers

from .options import UsageError


class Way:
    """How workers divide a training. Here each weight is one worker's, and no gradient is anybody
    else's too.

    Attributes:
        workers: all of them.
        rows: the workers that share a batch: each has some of its rows.
    """

    def __init__(self, workers: Workers) -> None:
        self.workers = self.rows = workers

    @property
    def alone(self) -> bool:
        """Whether a worker can compute the loss of its rows by itself."""
        return True

    def divide(self, net: nn.Sequential) -> nn.Sequential:
        """What this worker has of a network."""
        return net

    def begin(self, net: nn.Sequential) -> None:
        """Begin to train what divide() has returned."""

    def step(self, rows: int) -> AbstractContextManager[Step]:
        """A context for the passes of a step with so many rows; its backward(loss) is called
        inside, and afterwards each .grad is that of the whole batch's mean loss."""
        return nullcontext(Step(1 / self.workers.size))

    def update(self, optimizer: Optimizer) -> None:
        """Make the optimizer's step."""
        optimizer.step()

    def whole(self, thing: Any) -> Any:
        """The network, or its optimizer, with the state of the whole."""
        return thing


class Alone(Way):
    """One process, which has all weights and all rows."""


class Data(Way):
    """Each worker has the whole network and some rows of each batch."""

    parallel: DataParallel
    kind = DataParallel

    def begin(self, net: nn.Sequential) -> None:
        self.parallel = self.kind(net, self.workers)

    def step(self, rows: int) -> AbstractContextManager[Step]:
        return self.parallel.step(rows)

    def update(self, optimizer: Optimizer) -> None:
        self.parallel.update(optimizer)


class ShardedData(Data):
    """The same, where each worker updates its own share of the weights."""

    kind = Sharded

    def whole(self, thing: Any) -> Any:
        if isinstance(thing, Optimizer):
            self.parallel.collect(thing)
        return thing


class Divided(Way):
    """Each worker has some outputs of some layers: the last axis of their parameters is divided."""

    divided: tuple[str, ...] = ()  # the names of these layers begin so

    def part_of(self, net: nn.Sequential) -> nn.Sequential:
        """This worker's part, without weights."""
        raise NotImplementedError

    @property
    def alone(self) -> bool:
        return self.workers.size == 1

    def divide(self, net: nn.Sequential) -> nn.Sequential:
        first = next(net.parameters())
        part = self.part_of(net).astype(first.dtype).to(first.device)
        self.names = {p: name for name, p in part.named_parameters() if name.startswith(self.divided)}
        self.whole(part).load_state_dict(net.state_dict())
        return part

    def whole(self, thing: Any) -> Any:
        if isinstance(thing, Optimizer):
            mine = [(i, p) for i, p in enumerate(thing.params) if p in self.names]
            return Whole(thing, {f"{slot}.{i}" for i, p in mine for slot in thing.state[p]}, self.workers)
        return Whole(thing, set(self.names.values()), self.workers)


class Columns(Divided):
    """Two columns, see columns.py. Both workers have all rows and the same loss."""

    divided = ("conv", "fc")

    def __init__(self, workers: Workers) -> None:
        super().__init__(workers)
        if workers.size != 2:
            raise UsageError(
                f"--parallel columns is for the two GPUs of the paper: mpiexec -n 2, not {workers.size}; --parallel "
                "data or hybrid takes any number, and goes on with a run of columns too"
            )
        self.rows = Workers()

    def part_of(self, net: nn.Sequential) -> nn.Sequential:
        layers = dict(net.named_modules())
        norm, dropout = layers["conv1.norm.norm"], layers["fc6.dropout"]  # which have no parameters
        return column(self.workers, layers["fc8"].weight.shape[1], lambda: norm, lambda: dropout)


class OneWeirdTrick(Divided, Data):
    """Convolutions divide the rows, linear layers their outputs; see hybrid.py."""

    divided = LINEAR

    def part_of(self, net: nn.Sequential) -> nn.Sequential:
        return Hybrid(net, self.workers)

    def begin(self, net: nn.Sequential) -> None:
        assert isinstance(net, Hybrid)
        super().begin(net.convolutions())


class Whole:
    """Something of which the workers have parts, with the state_dict and load_state_dict of the
    whole. All workers have to call them.

    Args:
        thing: what this worker has.
        divided: the names of the arrays in its state of which each worker has a part.
        workers: all of them.
    """

    def __init__(self, thing: Any, divided: set[str], workers: Workers) -> None:
        self.thing, self.divided, self.workers = thing, divided, workers

    def state_dict(self) -> dict[str, Any]:
        state = self.thing.state_dict()
        return {
            name: self.workers.all_gather(array, axis=-1)[0] if name in self.divided else array
            for name, array in state.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.thing.load_state_dict(
            {
                name: array[..., own_part(array.shape[-1], self.workers)] if name in self.divided else array
                for name, array in state.items()
            }
        )


WAYS = {"data": Data, "sharded": ShardedData, "columns": Columns, "hybrid": OneWeirdTrick}
