"""What every test shares: hypothesis's settings, the examples on the path, and guards against state that one test
leaves for the next."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

import minicnn
from minicnn import autograd
from minicnn.backends import numpy as fast

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
for folder in (ROOT / "examples" / "ablations", ROOT / "examples" / "alexnet", ROOT / "tests"):
    sys.path.insert(0, str(folder))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a job in the background, and of the programs it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile(
    "default", max_examples=25, deadline=None, derandomize=bool(os.environ.get("CI")), database=None
)
hypothesis.settings.register_profile("few", hypothesis.settings.get_profile("default"), max_examples=5)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def no_leaks():
    """Each test begins with the same random numbers and the default backends, and leaves grad mode, threads, NumPy's error handling and threads
    alive as they were."""
    minicnn.random.manual_seed(0)
    threads, errors = fast.threads.get_num_threads(), np.geterr()
    with minicnn.use_backend(None):
        yield
    assert autograd.is_recording(), "a test left gradients switched off"
    assert not autograd.observers, "a test left detect_anomaly on"
    assert fast.threads.get_num_threads() == threads, "a test left another number of threads"
    assert np.geterr() == errors, "a test left NumPy's error handling changed"
    strays = [t.name for t in threading.enumerate() if t.name.startswith("minicnn-data") and t.is_alive()]
    assert not strays or not any(t.join(5) or t.is_alive() for t in threading.enumerate() if t.name in strays), (
        f"threads left behind: {strays}"
    )


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads for one test."""
    before = fast.threads.get_num_threads()
    yield fast.threads.set_num_threads
    fast.threads.set_num_threads(before)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> fast.memory._Memory:
    """A recycler of its own, with nothing kept yet."""
    fresh = fast.memory._Memory()
    monkeypatch.setattr(fast.memory, "_memory", fresh)
    return fresh


@pytest.fixture
def printed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What the `program` of a test's file prints for a name."""

    def run(name: str) -> str:
        monkeypatch.setattr(sys, "argv", ["program", name])
        request.module.program.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def shared() -> Path:
    """The folder of real photos and CIFAR-10 that lies beside the project on its authors' machines."""
    if not SHARED.is_dir():
        pytest.skip("there is no ../shared/data beside this clone")
    return SHARED
