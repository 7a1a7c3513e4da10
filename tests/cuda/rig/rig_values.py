"""A plugin for pytest on the rig, where nothing is computed:

    python tests/cuda/rig --zeros -m pytest -p rig_values -m gpu tests/cuda

NumPy's comparisons of arrays look at shapes only, and a test whose own `assert` does not hold ends there
and has passed; the summary says how many do. What is left to fail: every other exception, every
warning, and pytest.raises where something else is raised, or nothing. Unchecked are all values, and in
the tests that end early what would follow.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

ended: list[str] = []  # tests that did at an assert


def _shapes_fit(actual: Any, desired: Any, *args: Any, **options: Any) -> None:
    np.broadcast_shapes(np.asarray(actual).shape, np.asarray(desired).shape)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    np.testing.assert_allclose = np.testing.assert_array_equal = _shapes_fit
    # an example whose assert does not hold is not worth looking for a smaller one
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("rig", phases=phases, report_multiple_bugs=False)
    hypothesis.settings.load_profile("rig")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    try:
        return (yield)
    except AssertionError as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if trace is None or "_pytest" in Path(trace.tb_frame.f_code.co_filename).parts:  # of pytest.raises
            raise
        ended.append(pyfuncitem.nodeid)
        return True  # it was called


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"rig: {len(ended)} tests ended at an assert about values")
