"""AlexNet, in the three forms that go by that name.

| variant  | channels of conv1-5 | groups       | normalized | input | parameters | source                             |
| -------- | ------------------- | ------------ | ---------- | ----- | ---------- | ---------------------------------- |
| 2012     | 96 256 384 384 256  | 2 in 2, 4, 5 | LRN        | 227   | 60,965,224 | Krizhevsky, Sutskever, Hinton 2012 |
| 2012     | 96 256 384 384 256  | none         | LRN        | 227   | 62,378,344 | the same as if on one GPU          |
| 2014     | 64 192 384 256 256  | none         | no         | 224   | 61,100,840 | Krizhevsky 2014; as in torchvision |
| tutorial | 96 256 384 384 256  | none         | no         | 224   | 62,378,344 | textbooks, with padding that fits  |

>>> net = alexnet("2012")
>>> sum(p.size for p in net.parameters())
60965224
>>> others = alexnet("2012", groups=False), alexnet("2014"), alexnet("tutorial")
>>> [sum(p.size for p in other.parameters()) for other in others]
[62378344, 61100840, 62378344]
"""

from typing import Any

from minicnn import nn
from minicnn.nn import init

VARIANTS = ("2012", "2014", "tutorial")
INPUT_SIZE = {"2012": 227, "2014": 224, "tutorial": 224}
LRN = {"n": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75}  # section 3.3


def alexnet(
    variant: str = "2012",
    classes: int = 1000,
    weight_init: str = "he",
    groups: bool = True,
    lrn: dict[str, Any] = LRN,
    dropout_scale: str = "training",
    dropout: float = 0.5,
) -> nn.Sequential:
    """The network: images (N, 227, 227, 3), or 224 for the later variants, to logits (N, classes).

    weight_init "he" suits inputs of unit variance; "paper" is section 5's N(0, 0.01), with biases of 1 where the paper
    has them, for inputs on the scale of 0 to 255. Either way conv1 and fc8 begin as in the paper: He's rule takes the
    numbers in a window for independent, which pixels are not, and is for a ReLU, which fc8 does not have. "zeros" is
    for weights that are going to be loaded: to draw 61 million takes a second.

    lrn: the constants of variant 2012's normalization, where they are not the paper's.
    dropout: the share of fc6's and fc7's outputs that training leaves out. dropout_scale: "training" or, as in the
    paper (section 4.2), "evaluation"; see minicnn/functional/dropout.py.
    """
    if variant not in VARIANTS or weight_init not in ("he", "paper", "zeros"):
        raise ValueError(
            f"variant is one of {VARIANTS}, weight_init he, paper or zeros; not {variant!r} and {weight_init!r}"
        )
    original, paper = variant == "2012", weight_init == "paper"
    small = init.constant(0.0) if weight_init == "zeros" else init.normal(0.01)
    usual = init.he() if weight_init == "he" else small
    one = 1.0 if paper else 0.0  # the biases that the paper starts at 1
    split = 2 if original and groups else 1
    c1, c2, c3, c4, c5 = (64, 192, 384, 256, 256) if variant == "2014" else (96, 256, 384, 384, 256)

    def block(conv: nn.Conv2d, norm: bool = False, pool: bool = False) -> nn.Sequential:
        layers: dict[str, nn.Module] = {"conv": conv, "relu": nn.ReLU()}
        if norm:
            layers["norm"] = nn.LocalResponseNorm(**lrn)
        if pool:
            layers["pool"] = nn.MaxPool2d(kernel_size=3, stride=2)
        return nn.Sequential(**layers)

    def hidden(fc: nn.Linear) -> nn.Sequential:
        drop = nn.Dropout(dropout, scale=dropout_scale)
        if variant == "2014":  # drops out what goes into the layer, not what comes out
            return nn.Sequential(dropout=drop, fc=fc, relu=nn.ReLU())
        return nn.Sequential(fc=fc, relu=nn.ReLU(), dropout=drop)

    conv1 = nn.Conv2d(3, c1, 11, stride=4, padding=0 if original else 2, weight_init=small)
    conv2 = nn.Conv2d(c1, c2, 5, padding=2, groups=split, weight_init=usual, bias_init=one)
    conv3 = nn.Conv2d(c2, c3, 3, padding=1, weight_init=usual)
    conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=split, weight_init=usual, bias_init=one)
    conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=split, weight_init=usual, bias_init=one)
    return nn.Sequential(
        conv1=block(conv1, norm=original, pool=True),  # 55 × 55 × 96, pooled to 27 × 27
        conv2=block(conv2, norm=original, pool=True),  # 27 × 27 × 256, pooled to 13 × 13
        conv3=block(conv3),  # 13 × 13 × 384
        conv4=block(conv4),  # 13 × 13 × 384
        conv5=block(conv5, pool=True),  # 13 × 13 × 256, pooled to 6 × 6
        flatten=nn.Flatten(),  # 9216
        fc6=hidden(nn.Linear(c5 * 6 * 6, 4096, weight_init=usual, bias_init=one)),
        fc7=hidden(nn.Linear(4096, 4096, weight_init=usual, bias_init=one)),
        fc8=nn.Linear(4096, classes, weight_init=small),
    )
