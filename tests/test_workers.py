"""A worker that is alone."""

import os

import numpy as np
import pytest

from minicnn import workers
from minicnn.workers import Channel, Workers, WorkersError


def test_alone():
    alone, x = Workers(), np.arange(6.0).reshape(2, 3)
    assert (alone.rank, alone.size, alone.limit, alone.received, alone.part) == (0, 1, 600.0, 0.0, (0, 1))
    alone.all_reduce(x)
    alone.broadcast(x)
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert alone.all_gather(x)[0] is x and alone.all_gather(x)[1] == [2]
    assert alone.all_gather(x, 1)[1] == alone.all_gather(x, -1)[1] == [3]
    assert alone.reduce_scatter(x, [2]) is x
    assert alone.gather({"a": 1}) == [{"a": 1}] and alone.decided("stop") == "stop"
    assert [alone.device(name) for name in ("cpu", "gpu", "gpu:1")] == ["cpu", "gpu", "gpu:1"]
    assert alone.threads() == len(workers.cores())
    assert alone.received == 0


def test_its_channel():
    channel, x = Workers().channel("cpu"), np.arange(6.0)
    channel.all_reduce([x])
    ((place, total),) = channel.reduce_scatter(x)
    channel.all_gather(x)
    channel.wait()
    assert type(channel) is Channel and total is x and x[place].tolist() == x.tolist() == [0, 1, 2, 3, 4, 5]


def test_abort(capfd, monkeypatch):
    for message, said in ("no\nmore", "no\nmore\n"), ("", ""):
        with pytest.raises(SystemExit) as caught:
            Workers().abort(7, message)
        assert caught.value.code == 7 and capfd.readouterr() == ("", said)
    printed = []
    monkeypatch.setattr("builtins.print", lambda *text, **options: printed.append((text, options)))
    with pytest.raises(SystemExit):
        Workers().abort(1, "now")
    assert printed[0][1]["flush"] is True


def test_cores(monkeypatch):
    asked = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: asked.append(pid) or {2, 0, 1}, raising=False)
    assert workers.cores() == [0, 1, 2] and asked == [0]
    monkeypatch.delattr(os, "sched_getaffinity")
    for count, found in (3, [0, 1, 2]), (None, [0]):
        monkeypatch.setattr(os, "cpu_count", lambda n=count: n)
        assert workers.cores() == found


def test_the_error():
    assert issubclass(WorkersError, RuntimeError)
