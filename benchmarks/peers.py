"""minicnn beside the other NumPy frameworks, once: images a second of an AlexNet, in a table.

    python -m benchmarks.peers --python chainer=ENV/bin/python --python dezero=ENV/bin/python [--network 2012]

The environments: chainer "numpy<2" on Python 3.10; for chainer-ideep chainer ideep4py "numpy<1.22" "protobuf<4" on 3.7;
dezero matplotlib "numpy<1.24" on 3.11; pydynet; mygrad.

Every peer runs under the interpreter given for it, in a process of its own (`peer_worker`). It is checked against
minicnn, then both take turns. Rows of earlier runs stay in results/peers.json, so that peers can come one by one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from convert import channels_first, side_seen
from support.options import Parser, natural

from minicnn import nn

from . import machine, networks, peer_worker
from .command import command
from .turns import BenchmarkError, Turn, enough, measure, spread

RESULTS = Path(__file__).resolve().parent / "results"
# Relative. Rounding alone makes 1e-5, but it may also take one ReLU or one maximum of a pool to its other side.
TOLERANCE = {"logits": 1e-3, "change": 0.02, "moved": 0.02}
OURS, NETWORKS = "minicnn", ("2012", "tutorial")


CONDITIONS = f"""float32, 1,000 classes.
The 2012 network has LRN and groups of 2; the tutorial network, 96-256-384-384-256 at 224, has neither, so that every
peer can do it. A step is forward, dropout, loss, backward, and SGD with momentum {peer_worker.MOMENTUM} and weight
decay {peer_worker.WEIGHT_DECAY}. Each framework is in a process of its own, BLAS with the threads it takes by itself;
the two of a row did a step and an inference in turn. Medians; of the ratios, taken within each round, also quartiles
(extremes, of fewer than five rounds). Rounds in which other processes took more than 5% of the cores' time were thrown
away. Peak memory is the process's, in training.

What was checked before (the largest relative difference from minicnn of the logits of two images, of their change in
two steps without dropout, and of how far these moved each parameter), and what each framework lacks:
"""


class Peer(NamedTuple):
    name: str
    lacks: str
    networks: tuple[str, ...] = ("tutorial",)


PEERS = {
    "chainer": Peer("Chainer", "nothing that the network needs; NumPy 2", NETWORKS),
    "chainer-ideep": Peer(
        "Chainer with iDeep",
        "Pythons newer than 3.7; its layers are not NumPy's any more but a compiled extension's (ideep4py of 2019)",
        NETWORKS,
    ),
    "dezero": Peer(
        "DeZero",
        "LRN, groups, NumPy from 1.24 on; its gradients turn to float64 with labels of more than 16 bits, so these are "
        "int16; the gradient of the images is always computed",
    ),
    "pydynet": Peer("PyDyNet", "LRN, groups"),
    "mygrad": Peer(
        "MyGrad",
        "LRN, groups, linear layers, dropout, optimizers, windows that overhang: products, masks, SGD in place and the "
        "padding of the images to 227 are written here",
    ),
}


def described(layers: list[networks.Layer]) -> dict[str, list[Any]]:
    """The convolutions, with what follows each but the ReLU, and the linear layers, for JSON."""
    convs: list[dict[str, Any]] = []
    linear = []
    for _, module in layers:
        if isinstance(module, nn.Conv2d):
            kernel, _, channels, outputs = module.weight.shape
            conv = {"inputs": channels * module.groups, "outputs": outputs, "kernel": kernel}
            conv |= {name: getattr(module, name) for name in ("stride", "padding", "groups")}
            convs.append(conv | {"norm": False, "pool": False})
        elif isinstance(module, (nn.LocalResponseNorm, nn.MaxPool2d)):
            convs[-1]["pool" if isinstance(module, nn.MaxPool2d) else "norm"] = True
        elif isinstance(module, nn.Linear):
            linear.append(list(module.weight.shape))
    return {"convs": convs, "linear": linear}


def theirs(name: str, parameter: np.ndarray) -> np.ndarray:
    """A parameter as the peers have it: a linear layer's kernel is (in, out) here too."""
    turned = channels_first(parameter, side_seen(name))
    return np.ascontiguousarray(turned.T if turned.ndim == 2 else turned)


def prepare(folder: str, network: str, batch: int) -> None:
    """Write what the contenders compute, for `peer_worker.Given` to read."""
    layers = networks.layers(networks.build(network))
    parameters = networks.parameters(layers)
    networks.draw(parameters.values())
    pictures = {"measured": networks.pictures(network, batch), "checked": networks.pictures(network, 2)}

    def save(layout: str, values: list[np.ndarray], axes: tuple[int, ...]) -> None:
        named = {}
        for use, (images, labels) in pictures.items():
            named |= {use: np.ascontiguousarray(images.transpose(axes)), f"{use}_labels": labels}
        np.savez(f"{folder}/{layout}", *values, **named)

    save("last", [p.data for p in parameters.values()], (0, 1, 2, 3))
    save("first", [theirs(name, p.data) for name, p in parameters.items()], (0, 3, 1, 2))
    Path(folder, "network.json").write_text(json.dumps({"network": network, **described(layers)}))


class Contender:
    """A worker in a process of its own, as `turns.measure` wants it, with what is in the folder."""

    tasks = ("step", "inference")

    def __init__(self, name: str, python: str, folder: str) -> None:
        self.name, self._errors = name, tempfile.TemporaryFile("w+")  # noqa: SIM115 (end closes it)
        # A peer has the file alone: -I keeps this repository and PYTHONPATH from it.
        program = ["-m", "benchmarks.peer_worker"] if name == OURS else ["-I", peer_worker.__file__]
        self._process = subprocess.Popen(
            [python, *program, name, folder],
            cwd=RESULTS.parents[1],
            env={key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self, method: str, *arguments: Any) -> Any:
        """The result of a method of the Worker."""
        assert self._process.stdin and self._process.stdout
        try:
            print(json.dumps([method, *arguments]), file=self._process.stdin, flush=True)
            answer = json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            status = self._process.wait()
            self._errors.seek(0)
            said = [line for line in self._errors.read().splitlines() if line.strip()] or ["it said nothing"]
            raise BenchmarkError(f"{self.name}'s process ended (exit code {status}): {said[-1]}") from None
        return Turn(**answer) if method == "turn" else answer

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def apart(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """The largest relative difference of the logits, of their change in two steps, and of each parameter's."""
    found = {}
    for key in TOLERANCE:
        a, b = np.array(ours[key]), np.array(theirs[key])
        found[key] = float((np.abs(a - b) / (a if key == "moved" else np.abs(a).max())).max())
    return found


def compare(peer: str, python: str, network: str, batch: int, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = {"network": network, "peer": peer, "batch": batch, "date": time.strftime("%Y-%m-%d")}
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder, network, batch)
        pair = [Contender(OURS, sys.executable, folder), Contender(peer, python, folder)]
        try:
            ours, theirs = (c.ask("check") for c in pair)
            row |= {"versions": [ours["version"], theirs["version"]], "gradients": theirs["gradients"]}
            row["apart"] = apart(ours, theirs)
            if not all(row["apart"][key] < limit for key, limit in TOLERANCE.items()):
                wrong = f"{peer} computes something else than {OURS}; relative differences: {row['apart']}"
                raise BenchmarkError(wrong)
            row |= enough(measure(pair, Contender.tasks, rounds))
            row["peak"] = {c.name: c.ask("peak") for c in pair}
        finally:
            for c in pair:
                c.end()
    return row


def markdown(where: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    heads = ["network", "framework", "batch"]
    for task in Contender.tasks:
        heads += [f"{task}, images/s", OURS, "times as fast"]
    lines, notes = [heads + ["peak memory, MiB", OURS], ["---"] * (len(heads) + 2)], []
    for row in sorted(rows, key=lambda r: (r["network"], r["batch"], list(PEERS).index(r["peer"]))):
        key, peer = row["peer"], PEERS[row["peer"]]
        cells = [row["network"], peer.name, str(row["batch"])]
        for task in Contender.tasks:
            seconds = row["seconds"][task]
            cells += [f"{row['batch'] / statistics.median(seconds[name]):.1f}" for name in (key, OURS)]
            s = spread([a / b for a, b in zip(seconds[key], seconds[OURS], strict=True)])
            cells.append(f"**{s.median:.2f}** ({s.low:.2f} to {s.high:.2f})" if s else "–")
        lines.append([*cells, *(f"{row['peak'][name]:.0f}" for name in (key, OURS))])
        notes.append(
            f"- **{peer.name}** {row['versions'][1]}, {row['network']} network, beside {OURS} {row['versions'][0]}, "
            f"{row['date']}: {len(seconds[OURS])} rounds, {row['discarded']} thrown away. Apart by "
            f"{row['apart']['logits']:.0e} in logits, {row['apart']['change']:.0e} in their change, "
            f"{row['apart']['moved']:.0e} in the parameters'; gradients in {'/'.join(row['gradients'])}. "
            f"Lacks {peer.lacks}."
        )
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    system = f"{where['processor']}, {where['cores']} cores, {where['memory_gib']} GiB, {where['system']}"
    return "\n".join([f"# {OURS} beside the other NumPy frameworks\n", table, f"\n{system}; {CONDITIONS}", *notes, ""])


def given(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if name not in PEERS or not os.access(path, os.X_OK) or os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{text!r} is not PEER=PYTHON, one of {', '.join(PEERS)} and its interpreter")
    return name, path


def run(arguments: Sequence[str] | None, results: Path) -> None:
    parser = Parser(prog="python -m benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", required=True, type=given, metavar="PEER=PYTHON")
    parser.add_argument("--network", choices=NETWORKS, default="tutorial")
    parser.add_argument("--batch", type=natural, default=32)
    parser.add_argument("--rounds", type=natural, default=5)
    args = parser.parse_args(arguments)
    for name, _ in args.python:
        if args.network not in PEERS[name].networks:
            parser.error(f"{name} lacks {PEERS[name].lacks}: it can only do --network tutorial")
    stored, where = results / "peers.json", machine.describe(len(machine.cores()))
    old = json.loads(stored.read_text("utf-8")) if stored.exists() else {"rows": []}
    rows = [r for r in old["rows"] if old["machine"]["processor"] == where["processor"]]
    for name, python in args.python:
        row = compare(name, python, args.network, args.batch, args.rounds)
        mine = ("network", "peer", "batch")
        rows = [r for r in rows if any(r[key] != row[key] for key in mine)] + [row]
        results.mkdir(exist_ok=True)
        stored.write_text(json.dumps({"machine": where, "rows": rows}, indent=1) + "\n", "utf-8")
        (results / "peers.md").write_text(markdown(where, rows), "utf-8")
    print(markdown(where, rows))


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    return command("benchmarks.peers", lambda: run(arguments, results))


if __name__ == "__main__":
    sys.exit(main())
