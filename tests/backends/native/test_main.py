"""python -m minicnn.backends.native: what it prints is a whole source, and a command that compiles it."""

import re
import runpy
import shlex
import subprocess
import sys

import pytest

from minicnn.backends.native import __main__ as program
from minicnn.backends.native import compiler, declarations


@pytest.mark.parametrize("name", program.NAMES)
def test_it_is_the_source_and_how_to_compile_it(cc, printed, name, tmp_path):
    text = printed(name)
    assert text.endswith(compiler.source_of(name))
    print_it, compile_it, read_it = re.findall(r"(?m)^//     (.+)$", text)[:3]
    assert print_it == f"python -m minicnn.backends.native {name} > {name}.c" and read_it == f"objdump -d {name}.so"
    (tmp_path / f"{name}.c").write_text(text, "utf-8")
    subprocess.run(shlex.split(compile_it), cwd=tmp_path, check=True)
    content = (tmp_path / f"{name}.so").read_bytes()
    for kernel in declarations.declared(text):
        assert kernel.encode() in content


def test_flags_of_ones_own_are_printed(cc, printed, monkeypatch):
    monkeypatch.setenv("CC", "cc -pipe")
    monkeypatch.setenv("MINICNN_CFLAGS", "'-DA=a b'")
    assert "//     cc -pipe -std=c11 " in (text := printed("activation")) and " '-DA=a b' -Dreal=float " in text


def test_as_a_program(cc, capsys, monkeypatch, printed):
    expected = printed("activation")
    monkeypatch.delitem(sys.modules, program.__name__)
    runpy.run_module("minicnn.backends.native", run_name="__main__")
    assert capsys.readouterr().out == expected


def test_who_stops_reading(cc):
    command = f"{shlex.quote(sys.executable)} -m minicnn.backends.native activation | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("// activation.c as the compiler sees it") and not done.stderr


def test_another_name(printed):
    with pytest.raises(SystemExit, match=r"^there are no kernels named 'activatoin': use one of activation"):
        printed("activatoin")


def test_without_a_compiler(printed, monkeypatch, tmp_path):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"^there is no C compiler: install gcc or clang"):
        printed("activation")
