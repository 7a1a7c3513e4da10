"""AlexNet in minicnn and in each of its peers, one of them in this process: what `peers` starts and asks for figures.

A line of standard input is a method of `Worker` and its arguments as JSON, a line of standard output the answer.
Runs under the peer's own interpreter, Python 3.7 or newer, with nothing but the peer and its NumPy: so it imports
nothing from this package, and uses nothing newer. What the network is, its weights and its images
come in a folder that `peers` has written.
"""

# mypy: disable-error-code="import-not-found,import-untyped"
import json
import math
import os
import platform
import resource
import sys
import time
from collections import namedtuple
from types import SimpleNamespace

import numpy as np

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 5e-4

Conv = namedtuple("Conv", "inputs outputs kernel stride padding groups norm pool")


class Given:
    """What is computed: `convs`, with what follows each but the ReLU; the (inputs, outputs) of each
    `linear` layer; `values`, layer after layer a kernel and a bias; (images, labels) to measure with
    and to check with. Kernels and images are channels last for minicnn, and for its peers channels
    first; linear kernels are (in, out)."""

    def __init__(self, folder, layout):
        with open(os.path.join(folder, "network.json")) as file:
            described = json.load(file)
        self.network = described["network"]
        self.convs, self.linear = [Conv(**conv) for conv in described["convs"]], described["linear"]
        with np.load(os.path.join(folder, f"{layout}.npz")) as arrays:
            self.values = [arrays[f"arr_{i}"] for i in range(2 * len(self.convs + self.linear))]
            self.measured, self.checked = [(arrays[name], arrays[name + "_labels"]) for name in ("measured", "checked")]


def stack(given, layer, relu, pool, dropout, flatten, norm=None):
    """The network as a function of the images and the probability of dropout, 0 for none, from a peer's own parts;
    ``layer(i, x)`` is its i-th convolution or linear layer with the bias."""
    convs, last = given.convs, len(given.convs + given.linear) - 1  # and not the values, which are let go

    def forward(x, p):
        for i, c in enumerate(convs):
            x = relu(layer(i, x))
            x = norm(x) if c.norm else x
            x = pool(x) if c.pool else x
        x = flatten(x)
        for i in range(len(convs), last):
            x = relu(layer(i, x))
            x = dropout(x, p) if p else x
        return layer(last, x)

    return forward


# Each function below builds a peer's network. It gives back a namespace of
#   version;  inputs(images, labels) -> x, t;  forward(x, p) -> logits;  loss(logits, t);  zero() and update() around
#   backward();  quiet(), a context in which nothing is recorded;  array(logits);
#   parameters, the objects;  data(parameter) and grad(parameter), arrays


def minicnn(given):
    import minicnn
    from benchmarks import networks

    net = networks.build(given.network)
    net.load_state_dict(dict(zip(net.state_dict(), given.values)))  # noqa: B905 (as below)
    sgd = minicnn.optim.SGD(net.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    return SimpleNamespace(
        version=minicnn.__version__,
        inputs=lambda images, labels: (minicnn.Tensor(images), labels),
        forward=lambda x, p: net.train(p > 0)(x),
        loss=minicnn.functional.cross_entropy,
        zero=sgd.zero_grad,
        update=sgd.step,
        quiet=minicnn.no_grad,
        array=lambda y: y.numpy(),
        parameters=list(net.parameters()),
        data=lambda p: p.data,
        grad=lambda p: p.grad.data,
    )


def like_chainer(framework, weight_decay, net, layers, **own):
    """What Chainer and DeZero, which imitates it, have alike, beside their own."""
    sgd = framework.optimizers.MomentumSGD(LEARNING_RATE, MOMENTUM).setup(net)
    sgd.add_hook(weight_decay(WEIGHT_DECAY))
    return SimpleNamespace(
        version=framework.__version__,
        loss=framework.functions.softmax_cross_entropy,
        zero=net.cleargrads,
        update=sgd.update,
        parameters=[p for layer in layers for p in (layer.W, layer.b)],
        **own,
    )


def chainer(given, ideep=False):
    import chainer
    from chainer import functions as F
    from chainer import links as L

    net, values = chainer.ChainList(), given.values
    for i, c in enumerate(given.convs):
        options = {"groups": c.groups, "initialW": values[2 * i], "initial_bias": values[2 * i + 1]}
        net.append(L.Convolution2D(c.inputs, c.outputs, c.kernel, c.stride, c.padding, **options))
    for i, (inputs, outputs) in enumerate(given.linear, len(given.convs)):
        net.append(L.Linear(inputs, outputs, initialW=values[2 * i].T, initial_bias=values[2 * i + 1]))
    if ideep:
        chainer.global_config.use_ideep = "auto"
        net.to_intel64()
    return like_chainer(
        *(chainer, chainer.optimizer_hooks.WeightDecay, net, net),
        inputs=lambda images, labels: (images, labels.astype(np.int32)),
        forward=stack(
            given,
            lambda i, x: net[i](x),
            F.relu,
            lambda x: F.max_pooling_2d(x, 3, 2),
            F.dropout,
            lambda x: x,  # its linear layers flatten
            lambda x: F.local_response_normalization(x, n=5, k=2, alpha=1e-4, beta=0.75),
        ),
        quiet=chainer.no_backprop_mode,
        array=lambda y: np.array(y.array),
        data=lambda p: np.array(p.array),
        grad=lambda p: np.array(p.grad),
    )


def dezero(given):
    import dezero
    from dezero import functions as F
    from dezero import layers as L

    layers = [L.Conv2d(c.outputs, c.kernel, c.stride, c.padding) for c in given.convs]
    layers += [L.Linear(outputs) for _, outputs in given.linear]
    for i, layer in enumerate(layers):
        layer.W.data, layer.b.data = given.values[2 * i : 2 * i + 2]
    net = dezero.models.Sequential(*layers)  # only to hold the parameters
    return like_chainer(
        *(dezero, dezero.optimizers.WeightDecay, net, layers),
        # Wider labels, subtracted from the probabilities, turn every gradient to float64.
        inputs=lambda images, labels: (images, labels.astype(np.int16)),
        forward=stack(
            given,
            lambda i, x: layers[i](x),
            F.relu,
            lambda x: F.pooling(x, 3, 2),
            F.dropout,
            lambda x: F.reshape(x, (len(x), -1)),
        ),
        quiet=dezero.no_grad,
        array=lambda y: y.data,
        data=lambda p: p.data,
        grad=lambda p: p.grad.data,
    )


def pydynet(given):
    from importlib.metadata import version

    import pydynet
    from pydynet import nn, optim

    layers = [nn.Conv2d(c.inputs, c.outputs, c.kernel, c.stride, c.padding, dtype=np.float32) for c in given.convs]
    layers += [nn.Linear(*sizes, dtype=np.float32) for sizes in given.linear]
    parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
    for p, value in zip(parameters, given.values):  # noqa: B905 (this Python may not know strict=)
        p.data[...] = value.reshape(p.shape)
    sgd = optim.SGD(parameters, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, nesterov=False)
    return SimpleNamespace(
        version=version("pydynet"),
        inputs=lambda images, labels: (
            pydynet.Tensor(images),
            pydynet.Tensor(labels),
        ),
        forward=stack(
            given,
            lambda i, x: layers[i](x),
            nn.functional.relu,
            lambda x: nn.functional.max_pool2d(x, 3, 2),
            lambda x, p: nn.Dropout(p)(x),
            lambda x: x.reshape(x.shape[0], -1),
        ),
        loss=nn.functional.cross_entropy_loss,
        zero=sgd.zero_grad,
        update=sgd.step,
        quiet=pydynet.no_grad,
        array=lambda y: y.data,
        parameters=parameters,
        data=lambda p: p.data,
        grad=lambda p: p.grad,
    )


def mygrad(given):
    import mygrad
    from mygrad import nnet

    mygrad.turn_memory_guarding_off()  # as its manual advises for speed
    convs, random = given.convs, np.random.default_rng(3)
    parameters = [mygrad.tensor(value) for value in given.values]
    velocity = [np.zeros_like(p.data) for p in parameters]

    def layer(i, x):
        kernel, bias = parameters[2 * i], parameters[2 * i + 1]
        if i >= len(convs):
            return mygrad.matmul(x, kernel) + bias
        y = nnet.conv_nd(x, kernel, stride=convs[i].stride, padding=convs[i].padding if i else 0)
        return y + bias.reshape(-1, 1, 1)

    def update():
        for i, p in enumerate(parameters):
            velocity[i] *= MOMENTUM
            velocity[i] += p.grad
            velocity[i] += WEIGHT_DECAY * p.data
            p.data -= LEARNING_RATE * velocity[i]

    return SimpleNamespace(
        version=mygrad.__version__,
        # A window that overhangs the right edge is an error there, so what conv1 reads is padded here, to 227.
        inputs=lambda images, labels: (
            mygrad.tensor(np.pad(images, [(0, 0), (0, 0), (2, 1), (2, 1)]), constant=True),
            labels,
        ),
        forward=stack(
            given,
            layer,
            nnet.relu,
            lambda x: nnet.max_pool(x, (3, 3), 2),
            lambda x, p: x * ((random.random(x.shape, np.float32) >= p) * np.float32(1 / (1 - p))),
            lambda x: x.reshape(len(x), -1),
        ),
        loss=nnet.softmax_crossentropy,
        zero=lambda: [p.null_grad() for p in parameters],
        update=update,
        quiet=lambda: mygrad.no_autodiff,
        array=lambda y: y.data,
        parameters=parameters,
        data=lambda p: p.data,
        grad=lambda p: p.grad,
    )


BUILD = {
    "minicnn": minicnn,
    "chainer": chainer,
    "chainer-ideep": lambda given: chainer(given, ideep=True),
    "dezero": dezero,
    "pydynet": pydynet,
    "mygrad": mygrad,
}


class Worker:
    """What `turns.measure` asks of a contender, and the check that comes before it."""

    def __init__(self, name, folder):
        given = Given(folder, "last" if name == "minicnn" else "first")
        self.net, self.checked = BUILD[name](given), given.checked
        x, t = self.net.inputs(*given.measured)
        self.tasks = {"step": lambda: self.step(x, t, 0.5), "inference": lambda: self.infer(x)}

    def step(self, x, t, p):
        self.net.zero()
        self.net.loss(self.net.forward(x, p), t).backward()
        self.net.update()

    def infer(self, x):
        with self.net.quiet():
            return self.net.array(self.net.forward(x, 0))

    def check(self):
        """Logits of two images, how two steps without dropout change them, and how far these move each parameter."""
        net, (x, t) = self.net, self.net.inputs(*self.checked)
        logits, start = self.infer(x), [net.data(p).copy() for p in net.parameters]
        for _ in range(2):
            self.step(x, t, 0)
        return {
            "logits": logits.ravel().tolist(),
            "change": (self.infer(x) - logits).ravel().tolist(),
            "moved": [float(np.linalg.norm(net.data(p) - start[i])) for i, p in enumerate(net.parameters)],
            "gradients": sorted({str(net.grad(p).dtype) for p in net.parameters}),
            "version": f"{net.version} (Python {platform.python_version()}, NumPy {np.__version__})",
        }

    def warm_up(self, task, shortest):
        """Do a task twice; how often it must be done to last so many seconds."""
        seconds = [self.turn({task: 1})["seconds"][task] for _ in range(2)]
        return math.ceil(shortest / min(seconds))

    def turn(self, repeats):
        """Do each task so many times: seconds and page faults for each once, and seconds of CPU in all."""
        seconds, faults, cpu = {}, {}, time.process_time()
        for task, count in repeats.items():
            before, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
            for _ in range(count):
                self.tasks[task]()
            seconds[task] = (time.perf_counter() - start) / count
            faults[task] = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / count
        return {"seconds": seconds, "faults": faults, "cpu": time.process_time() - cpu}

    def peak(self):
        """The most memory this process has had, in MiB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(name, folder):
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing that a framework prints may get among the answers
    worker = Worker(name, folder)
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        print(json.dumps(getattr(worker, method)(*arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
