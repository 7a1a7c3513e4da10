"""--watch on a GPU: the figures of a CPU, and waits in the steps that are watched only."""

import csv

import numpy as np
from programs import step, tiny
from support import watch as watching
from support.folders import WATCH

import minicnn
from minicnn.optim import SGD


def rows_of(device, folder, monkeypatch):
    """The rows of two steps, of which the second is watched."""
    monkeypatch.setattr(watching, "due", lambda number: number == 2)
    minicnn.manual_seed(0)
    net = tiny(dropout=0.0).to(device)
    optimizer = SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=0.01, paper_update=True)
    images = minicnn.Tensor(np.random.default_rng(0).standard_normal((4, 64, 64, 3)).astype(np.float32), device=device)
    folder.mkdir()
    watch = watching.Watch(net, optimizer, folder)
    for _ in range(2):
        watch.before()
        step(net, optimizer, images.data, np.arange(4))
        watch.after(None, images.data, np.arange(4))
    with open(folder / WATCH, newline="") as file:
        return [[float(value or -1) for value in [row[0], *row[2:]]] for row in list(csv.reader(file))[1:]]


def test_the_figures_of_a_cpu(gpu, tmp_path, monkeypatch):
    here, there = (rows_of(device, tmp_path / device, monkeypatch) for device in ("cpu", "gpu"))
    assert len(here) == 3
    np.testing.assert_allclose(there, here, rtol=1e-3, atol=1e-6)


def test_a_step_that_is_not_watched_waits_for_nothing(standin, tmp_path, monkeypatch):
    rows_of("gpu", tmp_path / "run", monkeypatch)
    net = tiny().to("gpu")
    watch = watching.Watch(net, SGD(net.parameters(), 0.1), tmp_path)
    standin.log.clear()
    watch.before()
    watch.after(None, None, None)
    assert not standin.log


def test_on_another_gpu_than_the_current_one(standin, tmp_path, monkeypatch):
    here, there = (rows_of(name, tmp_path / name[-1], monkeypatch) for name in ("cpu", "gpu:1"))
    np.testing.assert_allclose(there, here, rtol=1e-3, atol=1e-6)
