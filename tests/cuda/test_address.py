"""No kernel reads or writes beyond its arrays: the tests of the kernels once more, in a process that has the address
sanitizer."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import host
import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(host.missing() is not None, reason=str(host.missing()))
def test_kernels_stay_inside_their_arrays():
    files = [str(path) for path in sorted(HERE.glob("test_kernels_*.py"))]
    command = "-m", "pytest", "-q", "-x", "-m", "not gpu", "-p", "no:cacheprovider"
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda some: host.under_address_sanitizer(*command, *some), (files[::2], files[1::2])))
    for process in ended:
        assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    assert sum(int(re.search(r"(\d+) passed", process.stdout)[1]) for process in ended) > 100
