"""AlexNet's structure with few channels, whole and as one of two columns, and train.py's folder on the path."""

import sys
from functools import partial

from programs import PROGRAMS

sys.path.insert(0, str(PROGRAMS))

from columns import EMPTY, Cross, DividedLinear
from model import LRN, block, normalization, pool

from minicnn import nn


def small(
    variant="2012", classes=10, weight_init="he", groups=True, lrn=LRN, dropout_scale="training", dropout=0.5
):  # fmt: skip
    """A network for images of 64 × 64 pixels."""
    norm, drop = partial(normalization, **lrn), partial(nn.Dropout, dropout, scale=dropout_scale)
    return nn.Sequential(
        conv1=block(nn.Conv2d(3, 8, 11, stride=8), norm=norm(), pool=pool()),
        conv2=block(nn.Conv2d(8, 12, 3, padding=1, groups=2 if groups else 1), norm=norm()),
        conv3=block(nn.Conv2d(12, 8, 3, padding=1)),
        flatten=nn.Flatten(),
        fc6=nn.Sequential(fc=nn.Linear(72, 20), relu=nn.ReLU(), dropout=drop()),
        fc7=nn.Sequential(fc=nn.Linear(20, 18), relu=nn.ReLU(), dropout=drop()),
        fc8=nn.Linear(18, classes),
    )


def small_column(workers, classes, norm, dropout):
    return nn.Sequential(
        conv1=block(nn.Conv2d(3, 4, 11, stride=8, **EMPTY), norm=norm(), pool=pool()),
        conv2=block(nn.Conv2d(4, 6, 3, padding=1, **EMPTY), norm=norm()),
        cross3=Cross(workers),
        conv3=block(nn.Conv2d(12, 4, 3, padding=1, **EMPTY)),
        cross6=Cross(workers),
        flatten=nn.Flatten(),
        fc6=nn.Sequential(fc=DividedLinear(72, 20, workers), relu=nn.ReLU(), dropout=dropout()),
        fc7=nn.Sequential(fc=DividedLinear(20, 18, workers), relu=nn.ReLU(), dropout=dropout()),
        fc8=DividedLinear(18, classes, workers),
    )
