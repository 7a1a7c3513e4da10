"""The C compiler of this machine, and the libraries that it has made of the .c files, which are
kept on the disk.

A library's name has a key: a hash of its source, of the flags, and of what the compiler says about
itself and the processor it compiles for. Another processor, compiler or version of minicnn looks
for another name. At the end of the file stands a hash of the rest and the key, so that a file that
is torn, damaged or another's is compiled again and never loaded. A new file is complete before it
takes its name, so two processes may compile the same at once.

The environment variable CC names the compiler, MINICNN_CFLAGS more flags for it, MINICNN_CACHE the
folder.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from ..devices import DeviceError

HERE = Path(__file__).parent
# A product and a sum may become one fused operation, which rounds once. Nothing else changes what a
# line of C means: there is no -ffast-math, so NaN, infinities and signed zeros are the lessons'.
# Two flags give up errno and floating-point traps, which nothing here reads.
FLAGS = ("-std=c11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-w")
X86 = ("x86_64", "amd64", "i686", "i386")
LONGEST = 300  # seconds until a compiler is given up; the longest file takes a few

_lock = threading.RLock()


def library(name: str, real: str) -> ctypes.CDLL:
    """The functions of a .c file, compiled unless it has been before.

    Args:
        name: the file's, without its suffix.
        real: what the type `real` stands for in it: "float" or "double".
    Raises:
        DeviceError: it cannot be compiled; one line says why.
    """
    with _lock:
        return _library(name, real)


@functools.cache
def _library(name: str, real: str) -> ctypes.CDLL:
    source = source_of(name)
    command, identity = compiler()
    command = (*command, f"-Dreal={real}", f"-DREAL_IS_{real.upper()}=1")
    key = hashlib.sha256("\0".join([source, *command, identity]).encode()).hexdigest()[:32]
    path = folder() / f"{name}-{real}-{key}.so"
    if not _is_whole(path, key):
        _compile(source, command, path, key)
    return ctypes.CDLL(str(path))


def source_of(name: str) -> str:
    """All that the compiler sees of a .c file but the system's headers.

    Args:
        name: the file's, without its suffix.
    """
    return (HERE / "native.h").read_text("utf-8") + (HERE / f"{name}.c").read_text("utf-8")


def open_compiler() -> None:
    """Find out now whether there is a compiler whose libraries can be loaded.

    Raises:
        DeviceError: there is none; one line says what to install.
    """
    library("activation", "float")


@functools.cache
def compiler() -> tuple[tuple[str, ...], str]:
    """The command that compiles for this processor, and what tells it from others: the macros that
    it defines, which are its version and the processor's abilities."""
    command = (*_command(), *FLAGS, *_processor(), *shlex.split(os.environ.get("MINICNN_CFLAGS", "")))
    asked = _run([*command, "-dM", "-E", "-x", "c", os.devnull])
    return command, asked


def _command() -> list[str]:
    """The compiler, CC or the first of the usual names."""
    named = shlex.split(os.environ.get("CC", ""))
    for words in [named] if named else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(words[0]):
            return words
    if named:
        raise DeviceError(f"there is no C compiler {named[0]!r}, which the environment variable CC names")
    raise DeviceError("there is no C compiler: install gcc or clang, or name one in the environment variable CC")


def _processor() -> tuple[str, ...]:
    """The flags for this processor. Compilers use half of an AVX-512 register unless they are told
    otherwise."""
    if platform.machine().lower() in X86:
        return "-march=native", "-mprefer-vector-width=512"
    return ("-mcpu=native",)


def _compile(source: str, command: tuple[str, ...], path: Path, key: str) -> None:
    """Compile to a file beside the path, which takes its name when it is complete."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="new-") as room:
        made = Path(room, "made.so")
        _run([*command, "-x", "c", "-", "-o", str(made), "-lm"], source)
        content = made.read_bytes()
        made.write_bytes(content + _seal(content, key))
        made.replace(path)


def _run(command: list[str], text: str = "") -> str:
    """What a compiler prints."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=LONGEST)
    except (OSError, subprocess.SubprocessError, UnicodeError) as error:
        raise DeviceError(f"the C compiler {command[0]!r} cannot be run: {error}") from None
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if line.strip()), f"exit status {done.returncode}")
        raise DeviceError(f"the C compiler {command[0]!r} failed: {first.strip()}")
    return done.stdout


def _is_whole(path: Path, key: str) -> bool:
    """Whether there is such a library, as it was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    size = len(_seal(b"", key))
    return content[-size:] == _seal(content[:-size], key)


def _seal(content: bytes, key: str) -> bytes:
    return hashlib.sha256(content + key.encode()).digest()


@functools.cache
def folder() -> Path:
    """Where the libraries are kept: a folder that nobody else may write to. If there is no such
    place, it is a temporary folder of this process."""
    named, home = os.environ.get("MINICNN_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        path = Path(named) if named else (Path(home) if home else Path.home() / ".cache") / "minicnn"
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = path.stat()
        ours = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)
        if ours:
            tempfile.TemporaryFile(dir=path).close()  # it can be written to
            return path
        problem = f"others may write to {path}"
    except (OSError, RuntimeError) as error:
        problem = str(error)
    if named:
        raise DeviceError(f"MINICNN_CACHE, {named}, cannot keep compiled libraries: {problem}")
    return Path(_temporary().name)


@functools.cache
def _temporary() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="minicnn-")
