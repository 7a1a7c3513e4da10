"""The examples in the docstrings are true: of the package, and of the network in examples/alexnet."""

import doctest
import importlib
import pkgutil

import pytest

import minicnn

MODULES = [name for _, name, _ in pkgutil.walk_packages(minicnn.__path__, "minicnn.")] + ["model"]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
