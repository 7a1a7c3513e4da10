"""The three recipes of train.py: --recipe sets all that the table has, and each row's option sets
one thing alone.

quick       a good network from few images in little time, with what has been learned since 2012
paper       Krizhevsky, Sutskever and Hinton 2012, piece by piece
tutorial    the network as textbooks print it, trained as plainly. Learning rate, epochs and the
            lack of weight decay are those of Zhang, Lipton, Li and Smola, "Dive into Deep
            Learning", section 8.1
"""

import os
from typing import Any

from model import INPUT_SIZE

RECIPES = "quick", "paper", "tutorial"
TABLE: dict[str, tuple[Any, Any, Any]] = {
    # option          quick       paper         tutorial     the paper's section
    "variant":       ("2012",     "2012",       "tutorial"),  # 3.5
    "groups":        (True,       True,         True),        # 3.2; of 2012 only
    "init":          ("he",       "paper",      "he"),        # 5: N(0, 0.01); some biases are 1
    "lrn_alpha":     (0.0001,     0.0001,       0.0001),      # 3.3; of 2012 only
    "dropout":       (0.5,        0.5,          0.5),         # 4.2
    "dropout_scale": ("training", "evaluation", "training"),  # 4.2: outputs times 0.5 in evaluation
    "resize":        (None,       256,          256),         # 2: the short side
    "mean":          ("imagenet", "image",      "imagenet"),  # 2: the mean of each pixel
    "scale":         (None,       None,         None),        # 2: raw with init paper, else unit
    "crop":          ("random",   "random",     "center"),    # 4.1
    "flip":          (True,       True,         False),       # 4.1
    "color_pca":     (False,      True,         False),       # 4.1
    "ten_crop":      (False,      True,         False),       # 4.1
    "epochs":        (30,         90,           10),          # 5
    "batch_size":    (32,         128,          32),          # 5
    "lr":            (0.01,       0.01,         0.01),        # 5
    "momentum":      (0.9,        0.9,          0.9),         # 5
    "weight_decay":  (0.0005,     0.0005,       0.0),         # 5
    "update":        ("pytorch",  "paper",      "pytorch"),   # 5: v ← 0.9·v − ε·(0.0005·w + g)
    "schedule":      ("cosine",   "plateau",    "constant"),  # 5: ε / 10 when errors stop falling
    "warmup":        (0.1,        0.0,          0.0),         # of cosine
    "patience":      (5,          5,            5),           # of plateau; the paper names none
}  # fmt: skip
QUICK: dict[str, dict[str, Any]] = {  # where quick differs for these data
    "synthetic": {"crop": "center", "flip": False, "epochs": 4, "batch_size": 16, "lr": 0.004},
    "cifar10": {"epochs": 20, "batch_size": 64},
}


def kind_and_folder(data: str) -> tuple[str, str]:
    """What an argument of --data asks for: synthetic, cifar10, imagenet or photos, and the folder
    of its files."""
    kind, _, folder = data.partition(":")
    if kind in ("cifar10", "imagenet"):
        return kind, os.path.expanduser(folder)  # which a shell does not do after a colon
    return (data, "") if data == "synthetic" else ("photos", data)


def complete(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a recipe, of quick if none is named, with these in the place of its own."""
    recipe, (kind, _) = settings.get("recipe", "quick"), kind_and_folder(settings.get("data", ""))
    column = {name: values[RECIPES.index(recipe)] for name, values in TABLE.items()}
    full = {"recipe": recipe, **column, **(QUICK.get(kind, {}) if recipe == "quick" else {}), **settings}
    if full["resize"] is None:  # drawn images need no border to crop from
        full["resize"] = INPUT_SIZE[full["variant"]] if kind == "synthetic" else 256
    if full["scale"] is None:
        full["scale"] = "raw" if full["init"] == "paper" else "unit"  # see View
    return full


def usual(name: str) -> str:
    """What the recipes have for an option, in words."""

    def said(value: Any) -> str:
        return ("yes" if value else "no") if isinstance(value, bool) else str(value)

    quick, *others = map(said, TABLE[name])
    quick += "".join(f", {kind} {said(own[name])}" for kind, own in QUICK.items() if name in own)
    if set(others) == {quick}:
        return f"default: {quick}"
    return "; ".join(f"{recipe}: {value}" for recipe, value in zip(RECIPES, (quick, *others), strict=True))
