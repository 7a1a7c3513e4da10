"""Why a training does not learn: a loss that stays at ln(classes), which is what people report most
about AlexNet, and a loss that is NaN or infinite. In both cases the network is looked at layer by
layer, and what is said depends on what is found."""

import textwrap
from argparse import Namespace
from typing import Any, NamedTuple

import numpy as np

import minicnn
from minicnn import AnomalyError, Tensor, detect_anomaly, nn
from minicnn import functional as F
from minicnn.backends.devices import Array, on_device_of
from minicnn.optim import Optimizer

from .observer import Observer
from .options import say
from .watch import learned, norm, on_outputs, weights

NEAR = 0.01  # of ln(classes)
PATIENCE = 150, 0.2, 5000
WINDOW = 0.25  # of the patience: over so many losses the mean is taken, at most MOST
MOST = 100
WIDTH = 100  # of the message's lines


class Plateau(Observer):
    """Notices once that the loss still is, or is again, within a per cent of ln(classes): that of a
    network that gives all images the same answer.

    It speaks after a fifth of the run's updates, but after 150 at least: the recipe quick has left
    ln(10) by the 60th, and its learning rate rises for the first tenth of them; in fewer updates
    nothing can be expected. And after 5000 at the latest,
    half an epoch of ImageNet in batches of 128, whose loss stays near ln(1000) for a while before
    the network learns.

    The losses are looked at only every so often, all together, so that a GPU need not be waited for
    in each step.

    net, optimizer: what is trained.
    settings: those of the run; init, scale and lr appear in the advice.
    classes: how many.
    updates: how many the run will make.
    alone: whether this process can compute the network's loss alone. With --parallel hybrid and
    columns it cannot, and the message has no evidence.
    """

    def __init__(
        self, net: nn.Module, optimizer: Optimizer, settings: Namespace, classes: int, updates: int, alone: bool = True
    ) -> None:
        self.net, self.optimizer, self.settings, self.classes, self.alone = net, optimizer, settings, classes, alone
        least, share, most = PATIENCE
        self.patience = min(max(least, int(share * updates)), most)
        self.window = min(int(WINDOW * self.patience), MOST)
        self.losses: list[Array] = []
        self.said = False

    def after(self, score: Any, images: Array, labels: Array) -> None:
        for line in self.noticed(score.loss, images, labels):
            say(line)

    def noticed(self, loss: Array, images: Array, labels: Array) -> list[str]:
        """A step has been made: the loss of its batch, and the batch. Returns the lines to print:
        almost always none."""
        if self.said:
            return []
        self.losses.append(loss)
        if len(self.losses) < self.window:
            return []
        with on_device_of(loss):
            mean = float(np.stack(self.losses).mean())
        self.losses = []
        steps = self.optimizer.steps
        if steps < self.patience or not abs(mean / np.log(self.classes) - 1) < NEAR:
            return []
        self.said = True
        lines = textwrap.wrap(
            f"after {steps} updates the loss is {mean:.4f} (the mean of the last {self.window}), that of a network "
            f"which gives every image the same answer: ln({self.classes}) = {np.log(self.classes):.4f}",
            WIDTH,
        )
        if not self.alone:
            return [*lines, "a run in one process would say here what each layer does"]
        try:
            layers = look(self.net, self.optimizer, images, labels)
        except MemoryError:
            return [*lines, "there is no memory to look at the layers: a smaller --batch-size needs less"]
        return [*lines, *table(layers), *textwrap.wrap(advice(layers, self.settings), WIDTH)]


# ------------------------------------------------------------------------------------- evidence
class Layer(NamedTuple):
    """What a layer does with a batch: what comes out of its ReLU or, of the last one, of itself.

    Attributes:
        size: the mean of |activation|.
        spread: how much a unit differs from image to image: the mean of the standard deviations.
        dead: the share of ReLUs that are 0 for every image; None without ReLUs.
        gradient: ‖g‖ of the weights; None if they are frozen.
        update: ‖Δw‖ / ‖w‖ of the last update; None if they are frozen.
    """

    size: float
    spread: float
    dead: float | None
    gradient: float | None
    update: float | None


def look(net: nn.Module, optimizer: Optimizer, images: Array, labels: Array) -> dict[str, Layer]:
    """What each layer does with a batch, from a forward and a backward pass that change nothing: in
    evaluation mode, where nothing is drawn and images differ by themselves alone, and without
    touching a .grad.

    images (N, S, S, 3), labels (N,): as they were trained on.
    """
    layers, outputs = learned(net), {}

    def note(name: str, y: Array, relu: bool) -> None:
        with on_device_of(y):
            flat = y.reshape(len(y), -1)
            dead = float((y.reshape(-1, y.shape[-1]).max(axis=0) == 0).mean()) if relu else None
            outputs[name] = float(abs(flat).mean()), float(flat.std(axis=0).mean()), dead

    learning = [p for layer in layers.values() for p in weights(layer) if p.requires_grad]
    modes = [(module, module.training) for _, module in net.named_modules()]
    remove = on_outputs(layers, note)
    try:
        loss = F.cross_entropy(net.eval()(Tensor(images)), Tensor(labels))
        gradients = dict(zip(learning, minicnn.grad(loss, learning), strict=True))
    finally:
        remove()
        for module, mode in modes:
            module.training = mode
    found = {}
    for name, layer in layers.items():
        own = [p for p in weights(layer) if p in gradients]
        gradient = norm([gradients[p].data for p in own]) if own else None
        found[name] = Layer(*outputs[name], gradient, last_update(optimizer, own) if own else None)
    return found


def last_update(optimizer: Optimizer, parameters: list[nn.Parameter]) -> float:
    """‖Δw‖ / ‖w‖ of SGD's last step, with the weights before it. With momentum, its velocity v says
    what has changed: in the paper's form Δw = v, in PyTorch's Δw = −lr · v. Without,
    Δw = −lr · (g + weight_decay · w)."""
    changes, former = [], []
    for group in optimizer.param_groups:
        lr, decay = group["lr"], group["weight_decay"]
        for p in (p for p in group["params"] if p in set(parameters)):
            with on_device_of(p.data), np.errstate(all="ignore"):
                if "velocity" in optimizer.state[p]:
                    change = optimizer.state[p]["velocity"] * (1 if group["paper_update"] else -lr)
                elif p.grad is not None:
                    change = -lr * (p.grad.data + decay * p.data) / (1 - lr * decay)
                else:
                    continue
                changes.append(change)
                former.append(p.data - change)
    return norm(changes) / max(norm(former), 1e-30)


def table(layers: dict[str, Layer]) -> list[str]:
    """The evidence, a line for each layer."""
    titles = ["layer", "mean |activation|", "std over images", "dead ReLUs", "gradient", "update / weight"]
    rows = [titles]
    for name, (size, spread, dead, gradient, update) in layers.items():
        numbers = ["" if value is None else f"{value:.2g}" for value in (gradient, update)]
        rows.append([name, f"{size:.2g}", f"{spread:.2g}", "" if dead is None else f"{dead:.0%}", *numbers])
    return ["  ".join(f"{cell:>{len(t)}}" for cell, t in zip(row, titles, strict=True)).rstrip() for row in rows]


# --------------------------------------------------------------------------------------- advice
DEAD = 0.99  # of the ReLUs of a layer
SHRUNK = 0.03  # of what comes out of the first layer; He's weights and the paper's have 0.2 to 3
ALIKE = 0.003  # how much a unit differs from image to image, of its size; they have 0.014 to 0.4
STILL, WILD = 1e-5, 0.1  # updates so small, or so large, against the weights


def advice(layers: dict[str, Layer], settings: Namespace) -> str:
    """What to change, by what is found first: dead layers, a signal that dies, wrong steps; else it
    is not the network. The numbers above were measured on the three variants."""
    inner = {name: layer for name, layer in layers.items() if layer.dead is not None}
    lower, higher = (f"{word} --lr (this run has {settings.lr:g})" for word in ("lower", "higher"))
    for name, layer in inner.items():
        if (layer.dead or 0) >= DEAD:
            return (
                f"{layer.dead:.0%} of the ReLUs of {name} give 0 for every image, so neither its weights nor those "
                "before it get a gradient: a step was too large, or biases are far below 0. This does not mend itself: "
                f"begin again with a {lower}."
            )
    (first, before), *_, (last, behind) = inner.items()
    shrunk = behind.size < SHRUNK * before.size
    if shrunk or behind.spread < ALIKE * behind.size:
        found = f"The activations shrink from layer to layer, from {before.size:.2g} in {first} to {behind.size:.2g}"
        if not shrunk:
            found = (
                f"Images hardly differ any more after the layers: by {behind.spread / behind.size:.2g} of a unit's size"
            )
        if (settings.init, settings.scale) == ("he", "unit"):
            return f"{found} in {last}. With --init he they do not begin so: begin again with a {lower}."
        return (
            f"{found} in {last}: the initial weights are too small for these pixels. This run has --init "
            f"{settings.init} and --scale {settings.scale}; begin again with --init he --scale unit. The paper's "
            "N(0, 0.01) wants pixels from 0 to 255 and biases of 1: --init paper --scale raw."
        )
    update = float(np.median([layer.update for layer in layers.values() if layer.update is not None]))
    if not STILL <= update <= WILD:
        return (
            f"An update changes the weights of half of the layers by {'less' if update < STILL else 'more'} than "
            f"{update:.2g} of their size, where about 0.001 is usual: "
            + (f"begin again with a {lower}." if update > WILD else f"give a {higher}.")
        )
    return (
        "Activations, gradients and updates look as they should, so it may be the data: do images have the labels of "
        "others? predict.py --draw on some of the training images shows what the network sees. Or it needs time, or a "
        f"{lower}."
    )


# ----------------------------------------------------------------------------------- divergence
def divergence(net: nn.Module, images: Array, labels: Array, step: int, alone: bool = True) -> tuple[str, list[str]]:
    """Where a loss that is NaN or infinite comes from.

    net: as it is before the update of that step; after it all weights may be NaN, and nothing can
    be said.
    images, labels: the batch whose loss it was.
    step: the number of the step, from 1: optimizer.steps + 1.
    alone: as in Plateau.
    Returns a line that names the first layer whose output or gradient went wrong, and in which
    step; and lines of evidence.
    """
    layers = learned(net)
    wrong = [name for name, layer in layers.items() if not all(finite(p.data) for p in layer.parameters())]
    begins = f"the loss of step {step} is NaN or infinite"
    if wrong:
        evidence = [f"weights that are NaN or infinite: {', '.join(wrong)}"]
        if len(wrong) == len(layers):
            return (
                f"{begins}, and so are weights of every layer, so the first that went wrong is not known: "
                "--detect-anomaly finds it, from the last checkpoint on",
                evidence,
            )
        fine = [name for name in layers if name not in wrong]
        return (
            f"{begins}: the first that went wrong is the gradient of {wrong[-1]}, in step {step - 1}: of the layers "
            "whose weights that step has made NaN or infinite it is the nearest to the loss",
            [*evidence, f"weights that are finite: {', '.join(fine)}"],
        )
    sizes = ", ".join(f"{name} {largest(layer):.2g}" for name, layer in layers.items())
    evidence = [f"the largest weight of each layer: {sizes}"]
    if not finite(images):
        return f"{begins}, because pixels of the batch are", []
    if not alone:
        return f"{begins}, while all weights are finite: it went wrong in step {step} itself", evidence
    try:
        with np.errstate(all="ignore"), detect_anomaly():
            loss = F.cross_entropy(net(Tensor(images)), Tensor(labels))
            minicnn.grad(loss, [p for p in net.parameters() if p.requires_grad])
    except AnomalyError as error:
        layer = error.path.partition(".")[0]
        what = "gradient" if "backward pass: " in str(error) else "output"
        first = f"the {what} of {layer}" if layer else f"the {what} of the loss"
        return f"{begins}: the first that went wrong is {first}, in step {step}", [str(error), *evidence]
    return f"{begins}, but not if it is computed again with the weights before it", evidence


def largest(layer: nn.Module) -> float:
    """The largest |w| of a layer's weights."""
    found = []
    for p in weights(layer):
        with on_device_of(p.data):
            found.append(float(abs(p.data).max()))
    return max(found)


def finite(array: Array) -> bool:
    """Whether all elements are."""
    with on_device_of(array):
        return bool(np.isfinite(array).all())
