"""AlexNet 2012 as its authors drew it (figure 2): two workers, in the place of the paper's two
GPUs, each with half of the kernels of every layer.

    mpiexec -n 2 python examples/alexnet/train.py --parallel columns

    worker 0    48 ── 128 ┬ 192 ── 192 ── 128 ┬ 2048 ┬ 2048 ┬ classes/2
                          ╳                   ╳      ╳      ╳
    worker 1    48 ── 128 ┴ 192 ── 192 ── 128 ┴ 2048 ┴ 2048 ┴ classes/2

              conv1 conv2  conv3  conv4  conv5  fc6    fc7    fc8

Where the lines cross, each worker gets what the other has computed (minicnn/functional/exchange.py
is the lesson on that): conv3 and the linear layers see all of the layer before. In conv2, conv4 and
conv5 a kernel sees only what is on its own GPU, and nothing is sent. In one process that is a
convolution in two groups, and a normalization of each half by itself.

Both workers have all images of a batch and compute the same loss. Neither sends the gradient of a
weight, because each weight is on one of them only.

column() makes layers whose weights are zeros. support/parallel.py has the whole network, with
initial weights or those of a checkpoint, and gives each worker its part of them.
"""

from model import Layer, block, pool

from minicnn import Tensor, nn
from minicnn import functional as F
from minicnn.nn import init
from minicnn.workers import Workers

EMPTY = {"weight_init": init.constant(0.0)}  # the weights come later, see above


def column(workers: Workers, classes: int, norm: Layer, dropout: Layer) -> nn.Sequential:
    """This worker's column. The layers have the names that they have in alexnet_2012."""
    return nn.Sequential(  # an image, 227 × 227 × 3
        # -> 55 × 55 × 48, pooled to 27 × 27
        conv1=block(nn.Conv2d(3, 48, 11, stride=4, **EMPTY), norm=norm(), pool=pool()),
        # -> 13 × 13 × 128
        conv2=block(nn.Conv2d(48, 128, 5, padding=2, **EMPTY), norm=norm(), pool=pool()),
        # -> 13 × 13 × 256
        cross3=Cross(workers),
        # -> 13 × 13 × 192
        conv3=block(nn.Conv2d(256, 192, 3, padding=1, **EMPTY)),
        # -> 13 × 13 × 192
        conv4=block(nn.Conv2d(192, 192, 3, padding=1, **EMPTY)),
        # -> 6 × 6 × 128
        conv5=block(nn.Conv2d(192, 128, 3, padding=1, **EMPTY), pool=pool()),
        # -> 6 × 6 × 256
        cross6=Cross(workers),
        # -> 9216
        flatten=nn.Flatten(),
        # -> 2048, crossed to 4096
        fc6=nn.Sequential(fc=DividedLinear(9216, 4096, workers), relu=nn.ReLU(), dropout=dropout()),
        # -> 2048, crossed to 4096
        fc7=nn.Sequential(fc=DividedLinear(4096, 4096, workers), relu=nn.ReLU(), dropout=dropout()),
        # -> half of the logits, crossed to all
        fc8=DividedLinear(4096, classes, workers),
    )


class Cross(nn.Module):
    """The channels of all workers."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    def forward(self, x: Tensor) -> Tensor:
        return F.all_gather(x, self.workers)


class DividedLinear(nn.Linear):
    """A linear layer of which each worker computes some of the outputs, and gets the others. (What
    follows, ReLU and dropout, takes no time: each worker applies it to all outputs.)

    Args:
        in_features, out_features: of the whole layer.
        workers: what distributed.start() returned.
    """

    def __init__(self, in_features: int, out_features: int, workers: Workers) -> None:
        own = own_part(out_features, workers)
        super().__init__(in_features, own.stop - own.start, **EMPTY)
        self.workers = workers

    def forward(self, x: Tensor) -> Tensor:
        return F.all_gather(super().forward(x), self.workers)


def own_part(outputs: int, workers: Workers) -> slice:
    """Which of a layer's outputs are this worker's."""
    rank, size = workers.part
    return slice(outputs * rank // size, outputs * (rank + 1) // size)
