"""The examples in the docstrings are true: of the package, and of the network in examples/alexnet. Each lesson ends
with a question, whose answer is such an example, and is short."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import minicnn
import minicnn.functional
from minicnn import nn

LESSONS = re.findall(r"`(minicnn\.functional\.\w+)`", minicnn.functional.__doc__)  # in the order to read them
MODULES = [name for _, name, _ in pkgutil.walk_packages(minicnn.__path__, "minicnn.")] + ["model"]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, monkeypatch):
    if name == "model":  # whose examples count weights; 240 million random ones would take a while
        monkeypatch.setattr(nn.init, "_gaussian", lambda shape, std: np.zeros(shape, np.float32))
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("name", ["minicnn.autograd", *LESSONS])
def test_a_lesson_ends_with_something_to_try(name):
    _, *tries = importlib.import_module(name).__doc__.split("\nTry: ")
    assert len(tries) == 1
    question, _, answer = tries[0].partition("\n\n")
    assert "?" in question
    assert answer.startswith(">>> ") and doctest.DocTestParser().get_examples(answer)[-1].want
    assert len(tries[0].strip().splitlines()) <= 14


@pytest.mark.parametrize(
    "path", sorted(Path(minicnn.functional.__file__).parent.glob("*.py")), ids=lambda path: path.name
)
def test_a_lesson_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 200


def test_the_reading_order_has_every_lesson():
    helpers = {"arguments", "layout", "precision", "shapes", "targets"}
    folder = Path(minicnn.functional.__file__).parent
    names = {name.rpartition(".")[2] for name in LESSONS}
    assert names | helpers == {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert len(names) == len(LESSONS)
