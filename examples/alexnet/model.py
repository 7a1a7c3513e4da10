"""AlexNet, in the three forms that have that name: a function for each is the network from the
image to the logits.

| variant  | channels of conv1-5 | groups       | normalized | input | parameters | source        |
| -------- | ------------------- | ------------ | ---------- | ----- | ---------- | ------------- |
| 2012     | 96 256 384 384 256  | 2 in 2, 4, 5 | LRN        | 227   | 60,965,224 | the paper     |
| 2012     | 96 256 384 384 256  | none         | LRN        | 227   | 62,378,344 | as if one GPU |
| 2014     | 64 192 384 256 256  | none         | no         | 224   | 61,100,840 | torchvision   |
| tutorial | 96 256 384 384 256  | none         | no         | 224   | 62,378,344 | textbooks     |

The paper is Krizhevsky, Sutskever and Hinton 2012; variant 2014 is from Krizhevsky 2014, and the
one that torchvision has; textbooks print the paper's channels with padding that fits.

>>> net = alexnet_2012()
>>> sum(p.size for p in net.parameters())
60965224
>>> others = alexnet_2012(groups=1), alexnet_2014(), alexnet_tutorial()
>>> [sum(p.size for p in other.parameters()) for other in others]
[62378344, 61100840, 62378344]
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from minicnn import Tensor, nn
from minicnn.nn import init

INPUT_SIZE = {"2012": 227, "2014": 224, "tutorial": 224}
VARIANTS = tuple(INPUT_SIZE)
LRN = {"n": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75}  # section 3.3

Layer = Callable[[], nn.Module]


def alexnet_2012(
    classes: int = 1000, weights: str = "he", groups: int = 2,
    norm: Layer = nn.LocalResponseNorm, dropout: Layer = nn.Dropout,
) -> nn.Sequential:  # fmt: skip
    """The paper's figure 2. There were two GPUs: in conv2, conv4 and conv5 each half of the
    channels sees the half before it on the same one, as two groups of a convolution do."""
    edge, inner, ones = first_weights(weights)
    return nn.Sequential(  # an image, 227 × 227 × 3
        # -> 55 × 55 × 96, pooled to 27 × 27
        conv1=block(nn.Conv2d(3, 96, 11, stride=4, **edge), norm=norm(), pool=pool()),
        # -> 13 × 13 × 256
        conv2=block(nn.Conv2d(96, 256, 5, padding=2, groups=groups, **ones), norm=norm(), pool=pool()),
        # -> 13 × 13 × 384
        conv3=block(nn.Conv2d(256, 384, 3, padding=1, **inner)),
        # -> 13 × 13 × 384
        conv4=block(nn.Conv2d(384, 384, 3, padding=1, groups=groups, **ones)),
        # -> 6 × 6 × 256
        conv5=block(nn.Conv2d(384, 256, 3, padding=1, groups=groups, **ones), pool=pool()),
        # -> 9216
        flatten=nn.Flatten(),
        # -> 4096
        fc6=nn.Sequential(fc=nn.Linear(9216, 4096, **ones), relu=nn.ReLU(), dropout=dropout()),
        # -> 4096
        fc7=nn.Sequential(fc=nn.Linear(4096, 4096, **ones), relu=nn.ReLU(), dropout=dropout()),
        # -> a logit for each class
        fc8=nn.Linear(4096, classes, **edge),
    )


def alexnet_2014(classes: int = 1000, weights: str = "he", dropout: Layer = nn.Dropout) -> nn.Sequential:
    """Its author's later network for one GPU, with fewer channels and no normalization. It drops
    out what goes into fc6 and fc7, not what comes out."""
    edge, inner, ones = first_weights(weights)
    return nn.Sequential(  # an image, 224 × 224 × 3
        # -> 55 × 55 × 64, pooled to 27 × 27
        conv1=block(nn.Conv2d(3, 64, 11, stride=4, padding=2, **edge), pool=pool()),
        # -> 13 × 13 × 192
        conv2=block(nn.Conv2d(64, 192, 5, padding=2, **ones), pool=pool()),
        # -> 13 × 13 × 384
        conv3=block(nn.Conv2d(192, 384, 3, padding=1, **inner)),
        # -> 13 × 13 × 256
        conv4=block(nn.Conv2d(384, 256, 3, padding=1, **ones)),
        # -> 6 × 6 × 256
        conv5=block(nn.Conv2d(256, 256, 3, padding=1, **ones), pool=pool()),
        # -> 9216
        flatten=nn.Flatten(),
        # -> 4096
        fc6=nn.Sequential(dropout=dropout(), fc=nn.Linear(9216, 4096, **ones), relu=nn.ReLU()),
        # -> 4096
        fc7=nn.Sequential(dropout=dropout(), fc=nn.Linear(4096, 4096, **ones), relu=nn.ReLU()),
        # -> a logit for each class
        fc8=nn.Linear(4096, classes, **edge),
    )


def alexnet_tutorial(classes: int = 1000, weights: str = "he", dropout: Layer = nn.Dropout) -> nn.Sequential:
    """The channels of 2012 without groups and without normalization, as textbooks print it."""
    edge, inner, ones = first_weights(weights)
    return nn.Sequential(  # an image, 224 × 224 × 3
        # -> 55 × 55 × 96, pooled to 27 × 27
        conv1=block(nn.Conv2d(3, 96, 11, stride=4, padding=2, **edge), pool=pool()),
        # -> 13 × 13 × 256
        conv2=block(nn.Conv2d(96, 256, 5, padding=2, **ones), pool=pool()),
        # -> 13 × 13 × 384
        conv3=block(nn.Conv2d(256, 384, 3, padding=1, **inner)),
        # -> 13 × 13 × 384
        conv4=block(nn.Conv2d(384, 384, 3, padding=1, **ones)),
        # -> 6 × 6 × 256
        conv5=block(nn.Conv2d(384, 256, 3, padding=1, **ones), pool=pool()),
        # -> 9216
        flatten=nn.Flatten(),
        # -> 4096
        fc6=nn.Sequential(fc=nn.Linear(9216, 4096, **ones), relu=nn.ReLU(), dropout=dropout()),
        # -> 4096
        fc7=nn.Sequential(fc=nn.Linear(4096, 4096, **ones), relu=nn.ReLU(), dropout=dropout()),
        # -> a logit for each class
        fc8=nn.Linear(4096, classes, **edge),
    )


def block(conv: nn.Conv2d, **after: nn.Module) -> nn.Sequential:
    """A convolution and its ReLU (section 3.1), and what comes after them."""
    return nn.Sequential(conv=conv, relu=nn.ReLU(), **after)


def pool() -> nn.MaxPool2d:
    """Windows of 3 × 3 in steps of 2, which overlap (section 3.4)."""
    return nn.MaxPool2d(kernel_size=3, stride=2)


def normalization(groups: int = 1, **constants: float) -> nn.Module:
    """Local response normalization, in one group of channels or in several."""
    norm = nn.LocalResponseNorm(**constants)
    return norm if groups == 1 else GroupNorm(norm, groups)


class GroupNorm(nn.Module):
    """Each group of channels is normalized by itself, as on the paper's two GPUs."""

    def __init__(self, norm: nn.Module, groups: int) -> None:
        self.norm, self.groups = norm, groups

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.reshape(*x.shape[:-1], self.groups, x.shape[-1] // self.groups)).reshape(x.shape)


def first_weights(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Settings of layers: of conv1 and fc8, of conv3, and of all others, whose biases the paper
    starts at 1.

    "paper" is section 5's N(0, 0.01), for inputs on the scale of 0 to 255; "he" suits inputs of
    unit variance, and has no biases of 1. Either way conv1 and fc8 begin as in the paper: He's rule
    takes the numbers in a window for independent, which pixels are not, and is for a ReLU, which
    fc8 does not have. "zeros" is for a network whose weights are loaded later: to draw 61 million
    takes a second.
    """
    edge = init.constant(0.0) if name == "zeros" else init.normal(0.01)
    inner = init.he() if name == "he" else edge
    one = 1.0 if name == "paper" else 0.0
    return {"weight_init": edge}, {"weight_init": inner}, {"weight_init": inner, "bias_init": one}


def alexnet(
    variant: str = "2012",
    classes: int = 1000,
    weight_init: str = "he",
    groups: bool = True,
    lrn: Mapping[str, Any] = LRN,
    dropout_scale: str = "training",
    dropout: float = 0.5,
) -> nn.Sequential:
    """One of the three: images (N, 227, 227, 3), or 224 for the later variants, to logits (N,
    classes).

    weight_init: "he", "paper" or "zeros", as first_weights has them. groups, lrn: of variant 2012,
    whether it has groups, and the constants of its normalization, where they are not the paper's,
    with "groups": 2 if it normalizes each half of the channels by itself.
    dropout: the share of fc6's and fc7's outputs that training leaves out. dropout_scale:
    "training" or, as in the paper (section 4.2), "evaluation"; see minicnn/functional/dropout.py.
    """
    if variant not in VARIANTS or weight_init not in ("he", "paper", "zeros"):
        raise ValueError(
            f"variant is one of {VARIANTS}, weight_init he, paper or zeros; not {variant!r} and {weight_init!r}"
        )
    drop = partial(nn.Dropout, dropout, scale=dropout_scale)
    if variant == "2012":
        return alexnet_2012(classes, weight_init, 2 if groups else 1, partial(normalization, **lrn), drop)
    return (alexnet_2014 if variant == "2014" else alexnet_tutorial)(classes, weight_init, drop)
