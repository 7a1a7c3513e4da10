"""Two ways to a GPU: `standin`, the stand-in for CuPy, with a new machine for each test; and `gpu`, for tests that run
on the stand-in and once more on a real GPU where there is one (marker gpu).

This folder must not become a package: NVIDIA's is called `cuda`, and CuPy imports it.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import programs
import pytest

from minicnn.backends import devices
from minicnn.backends.cuda import cublas, launch, products

sys.path.insert(0, str(Path(__file__).parent))

import host
import standin as stand_in

mistake, run = programs.mistake, programs.run  # fixtures

if host.ADDRESS in os.environ:  # everything is slow there
    hypothesis.settings.register_profile(
        "address sanitizer", parent=hypothesis.settings.get_profile("default"), max_examples=4
    )
    hypothesis.settings.load_profile("address sanitizer")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where there is no g++, the tests that run kernels by it are skipped."""
    reason = host.missing()
    for item in items if reason else ():
        fixtures, parameters = getattr(item, "fixturenames", ()), getattr(item, "callspec", None)
        real = parameters is not None and parameters.params.get("gpu") == "cuda"
        if not real and {"standin", "gpu"} & set(fixtures):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def no_devices_open() -> Iterator[None]:
    """minicnn has not looked for a GPU yet, and forgets the one it finds; nothing has been logged."""
    _forget()
    yield
    _forget()


def _forget() -> None:
    stand_in.machine.log.clear()
    devices.opened.clear()
    products.set_matmul_precision("fp32")
    launch._use.cache_clear()


@contextlib.contextmanager
def installed() -> Iterator[stand_in.Machine]:
    """The stand-in, and its libcublas."""
    library = stand_in.Library()
    with stand_in.installed() as machine, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cublas, "library", {machine.runtime // 1000: library}.__getitem__)
        yield machine


@pytest.fixture
def standin() -> Iterator[stand_in.Machine]:
    """The machine that the stand-in runs on, with two GPUs, a log, and ways to break it (machine.py, absences.py)."""
    with installed() as machine:
        yield machine


@pytest.fixture(scope="module", params=["stand-in", pytest.param("cuda", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module cupy: the stand-in's, then the real one."""
    if request.param == "stand-in":
        with installed():
            yield stand_in.cupy
    else:
        cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
        if not cupy.cuda.is_available():
            pytest.skip("there is no GPU")
        yield cupy
