"""The tests of the NumPy backend compute by it, whatever the default is."""

from collections.abc import Iterator

import pytest

from minicnn import use_backend


@pytest.fixture(autouse=True)
def by_numpy(no_leaks: None) -> Iterator[None]:
    with use_backend("numpy"):
        yield
