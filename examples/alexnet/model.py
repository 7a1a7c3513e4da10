"""AlexNet, in the three forms that go by that name.

| variant  | channels of conv1-5 | groups       | normalised | input | parameters | source                             |
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

from minicnn import nn
from minicnn.nn import init

VARIANTS = ("2012", "2014", "tutorial")
INPUT_SIZE = {"2012": 227, "2014": 224, "tutorial": 224}


def alexnet(variant: str = "2012", classes: int = 1000, weight_init: str = "he", groups: bool = True) -> nn.Sequential:
    """The network: images (N, 227, 227, 3), or 224 for the later variants, to logits (N, classes).

    weight_init "he" suits inputs of unit variance; "paper" is section 5's N(0, 0.01), with biases of 1 where the paper
    has them, for inputs on the scale of 0 to 255.
    """
    if variant not in VARIANTS or weight_init not in ("he", "paper"):
        raise ValueError(
            f"variant is one of {VARIANTS}, weight_init 'he' or 'paper'; not {variant!r} and {weight_init!r}"
        )
    paper = weight_init == "paper"
    weights = init.normal(0.01) if paper else init.he()
    original = variant == "2012"
    split = 2 if original and groups else 1
    c1, c2, c3, c4, c5 = (64, 192, 384, 256, 256) if variant == "2014" else (96, 256, 384, 384, 256)

    def conv(c: int, o: int, kernel: int, bias: float = 0.0, **settings: int) -> nn.Conv2d:
        return nn.Conv2d(c, o, kernel, weight_init=weights, bias_init=bias if paper else 0.0, **settings)

    def linear(i: int, o: int, bias: float = 0.0) -> nn.Linear:
        return nn.Linear(i, o, weight_init=weights, bias_init=bias if paper else 0.0)

    def norm() -> dict[str, nn.Module]:
        return {"norm": nn.LocalResponseNorm(n=5, k=2.0, alpha=1e-4, beta=0.75)} if original else {}

    def pool() -> nn.MaxPool2d:
        return nn.MaxPool2d(kernel_size=3, stride=2)

    def block(conv: nn.Conv2d, **rest: nn.Module) -> nn.Sequential:
        return nn.Sequential(conv=conv, relu=nn.ReLU(), **rest)

    def hidden(fc: nn.Linear) -> nn.Sequential:
        """2014 drops out what goes into a linear layer, 2012 what comes out."""
        layers = {"dropout": nn.Dropout(0.5), "fc": fc, "relu": nn.ReLU()}
        return nn.Sequential(
            **(layers if variant == "2014" else {name: layers[name] for name in ("fc", "relu", "dropout")})
        )

    return nn.Sequential(
        conv1=block(
            conv(3, c1, 11, stride=4, padding=0 if original else 2), **norm(), pool=pool()
        ),  # 55 × 55 × 96, then 27 × 27
        conv2=block(
            conv(c1, c2, 5, bias=1.0, padding=2, groups=split), **norm(), pool=pool()
        ),  # 27 × 27 × 256, then 13 × 13
        conv3=block(conv(c2, c3, 3, padding=1)),  # 13 × 13 × 384
        conv4=block(conv(c3, c4, 3, bias=1.0, padding=1, groups=split)),  # 13 × 13 × 384
        conv5=block(conv(c4, c5, 3, bias=1.0, padding=1, groups=split), pool=pool()),  # 13 × 13 × 256, then 6 × 6
        flatten=nn.Flatten(),  # 9216
        fc6=hidden(linear(c5 * 6 * 6, 4096, bias=1.0)),
        fc7=hidden(linear(4096, 4096, bias=1.0)),
        # small weights in either case: He's are for a ReLU, and here they would begin with wild guesses
        fc8=nn.Linear(4096, classes, weight_init=init.normal(0.01)),
    )
