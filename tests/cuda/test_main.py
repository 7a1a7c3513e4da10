"""python -m minicnn.backends.cuda: what it prints is a whole source."""

import subprocess
import sys

import host
import pytest

from minicnn.backends.cuda import __main__ as program
from minicnn.backends.cuda import launch

FILES = sorted(path.stem for path in launch.HERE.glob("*.cu"))


def test_every_file_can_be_asked_for():
    assert sorted(program.CONSTANTS) == FILES


@pytest.mark.parametrize("name", FILES)
def test_it_is_the_source_and_how_to_compile_it(printed, name):
    text = printed(name)
    assert launch._source(f"{name}.cu") in text and launch._source("kernels.h") in text
    assert f"//     nvcc -std=c++17 -lineinfo -ftz=true -arch=sm_80 -cubin -Xptxas -v {name}.cu\n" in text
    if not host.missing():
        for kernel in launch.declarations(name):
            host.RawModule(code=text).get_function(kernel)


def test_without_cupy(printed):
    script = """if True:
        import runpy, sys
        sys.modules["cupy"] = None
        runpy.run_module("minicnn.backends.cuda", run_name="__main__")"""
    done = subprocess.run([sys.executable, "-c", script, "lrn"], capture_output=True, text=True, check=True)
    assert done.stdout == printed("lrn") and not done.stderr


def test_another_name(printed):
    with pytest.raises(SystemExit, match=r"^there are no kernels named 'lrm': use one of activation, .*, windows$"):
        printed("lrm")
