"""No kernel reads or writes beyond its arrays: the tests of the kernels once more, in a process that has the address
sanitizer."""

import re
from pathlib import Path

import host
import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(host.missing() is not None, reason=str(host.missing()))
def test_kernels_stay_inside_their_arrays():
    files = [str(path) for path in sorted(HERE.glob("test_kernels_*.py"))]
    ended = host.under_address_sanitizer("-m", "pytest", "-q", "-x", "-m", "not gpu", "-p", "no:cacheprovider", *files)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert int(re.search(r"(\d+) passed", ended.stdout)[1]) > 100
