"""What the tests of the C kernels share: a compiler or a skip, and a cache folder of their own."""

import shutil
from pathlib import Path

import pytest

from minicnn.backends import native
from minicnn.backends.native import compiler, launch


def forget() -> None:
    """Forget what this process knows of the compiler, the folder and the libraries."""
    for known in (compiler.folder, compiler._identity, compiler._library, launch._kernel, launch._share):
        known.cache_clear()


@pytest.fixture
def cc() -> None:
    """For tests that compile."""
    if (problem := native.backend.problem()) is not None:
        pytest.skip(problem)


@pytest.fixture(autouse=True)
def cc_for_kernels(request: pytest.FixtureRequest) -> None:
    """The tests of a lesson's kernels do; the others ask for it themselves."""
    if request.path.stem not in ("test_compiler", "test_launch", "test_main"):
        request.getfixturevalue("cc")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty folder for libraries, which MINICNN_CACHE names."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("MINICNN_CACHE", str(folder))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("MINICNN_CFLAGS", raising=False)
    forget()
    yield folder
    forget()


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder of .c files, with native.h and launch.c, in the place of the real one."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for name in ("native.h", "launch.c"):
        shutil.copy(compiler.HERE / name, folder)
    monkeypatch.setattr(compiler, "HERE", folder)
    forget()
    yield folder
    forget()
