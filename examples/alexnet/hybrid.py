"""One weird trick for parallelizing convolutional neural networks (Krizhevsky 2014): the
convolutions are data parallel, the linear layers model parallel.

    mpiexec -n 4 python examples/alexnet/train.py --parallel hybrid

    rows of the batch    own ─────── own ┬ all ── all ── all ┬ own
    outputs of a layer   all ─────── all ╳ some   some   some╳ all
                       conv1 … conv5       fc6    fc7    fc8

Convolutions are nine tenths of the work and 4% of the weights. So each worker has all of their
kernels, for its own rows of the batch, and their gradients are summed over the workers. The linear
layers are a tenth of the work and 96% of the weights. So each worker has some of the outputs of
each layer, for the rows of all workers, and no gradient of their weights is sent.

At the first crossing each worker gets the features of the others' rows; after the last it keeps the
logits of its own.
"""

from columns import DividedLinear

from minicnn import Tensor, nn
from minicnn import functional as F
from minicnn.random import rows_before
from minicnn.workers import Workers

LINEAR = ("flatten", "fc6", "fc7", "fc8")


class Hybrid(nn.Sequential):
    """A network of model.py, divided in this way. The layers keep their names; the weights of the
    linear ones come from the whole network, see support/parallel.py.

    Args:
        net: the whole network, with whose convolutions this one shares its weights.
        workers: what distributed.start() returned.
    """

    def __init__(self, net: nn.Sequential, workers: Workers) -> None:
        super().__init__(**{name: divided(layer, workers) for name, layer in net.named_children()})
        self.workers = workers

    def convolutions(self) -> nn.Sequential:
        """The layers that are data parallel."""
        return nn.Sequential(**{name: layer for name, layer in self.named_children() if name not in LINEAR})

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes) of this worker's images (n, S, S, 3)."""
        features = self.convolutions()(x)
        lengths = self.workers.gather(len(x))
        first = sum(lengths[: self.workers.rank])
        y = F.all_gather(features, self.workers, axis=0)
        with rows_before(0):  # dropout sees the whole batch
            for name in LINEAR:
                y = getattr(self, name)(y)
        return y[first : first + len(x)]


def divided(layer: nn.Module, workers: Workers) -> nn.Module:
    """The layer, with divided ones in the place of linear layers."""
    if isinstance(layer, nn.Linear):
        return DividedLinear(*layer.weight.shape, workers)
    if isinstance(layer, nn.Sequential):
        return nn.Sequential(**{name: divided(inner, workers) for name, inner in layer.named_children()})
    return layer
