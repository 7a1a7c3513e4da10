"""The C compiler of this machine, and the libraries that it has made of the .c files, which are
kept on the disk.

A library's name has a key: a hash of its source, of the flags, of the system's C library, and of
what the compiler says about itself and the processor it compiles for. Another processor, compiler
or version of minicnn looks for another name. At the end of the file stands a hash of the rest and
the key, so that a file that is torn, damaged or another's is compiled again and never loaded. A new
file is complete, and has been loaded once, before it takes its name, so two processes may compile
the same at once. What has not been loaded for a long time is removed when a new file comes.

It reads these environment variables.

    CC: the compiler, with arguments if it needs any: "gcc-14", "ccache clang".
    MINICNN_CFLAGS: more flags, after the others, such as "-mno-avx512f".
    MINICNN_CACHE: the folder of the libraries. Without it they are in $XDG_CACHE_HOME/minicnn or
        ~/.cache/minicnn, or, if they cannot be kept there, each process compiles its own.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from ...checks import escaped
from ..devices import DeviceError
from .declarations import wrappers

HERE = Path(__file__).parent
# A product and a sum may become one fused operation, which rounds once. Nothing else changes what a
# line of C means: there is no -ffast-math, so NaN, infinities and signed zeros are the lessons'.
# Two flags give up errno and floating-point traps, which nothing here reads.
FLAGS = (
    "-std=c11",
    "-O3",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
    "-pthread",
    "-w",
    "-fvisibility=hidden",
)
X86 = ("x86_64", "amd64", "i686", "i386")
LIBRARY = re.compile(r"\w+-(float|double)-[0-9a-f]{32}\.so")  # the names of files in the folder
UNFINISHED = re.compile(r"new-\w{8}")  # and of folders in which files are made
INCLUDE = re.compile(r'^#include "(.+)"$', re.MULTILINE)
LONGEST = 300  # seconds until a compiler is given up; the longest file takes a few
UNUSED = 100 * 24 * 3600  # seconds that a library is kept after it was last loaded

_lock = threading.RLock()


def library(name: str, real: str) -> ctypes.CDLL:
    """The functions of a .c file, compiled unless it has been before.

    Args:
        name: the file's, without its suffix.
        real: what the type `real` stands for in it: "float" or "double".
    Raises:
        DeviceError: it cannot be compiled, kept or loaded; one line says why.
    """
    with _lock:
        return _library(name, real)


@functools.cache
def _library(name: str, real: str) -> ctypes.CDLL:
    source, command = source_of(name), command_for(real)
    key = hashlib.sha256("\0".join([source, *command, _identity()]).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    try:
        path = folder() / f"{name}-{real}-{key}.so"
        if not _is_whole(path, key):
            return _keep(_compiled(source, command), path, key)
        with contextlib.suppress(OSError):
            os.utime(path)  # it has been used
        return ctypes.CDLL(str(path))
    except OSError as error:  # the disk is full, its files may not be run, …
        if named := os.environ.get("MINICNN_CACHE"):
            problem = f"cannot be kept in MINICNN_CACHE, {named!r}, and loaded from there: {error}"
            raise DeviceError(escaped(f"the library {name!r} {problem}")) from None
    try:
        with tempfile.TemporaryDirectory(prefix="minicnn-") as room:  # what is loaded needs no file
            made = Path(room, "made.so")
            made.write_bytes(_compiled(source, command))
            return ctypes.CDLL(str(made))
    except OSError as error:
        raise DeviceError(escaped(f"the library {name!r} cannot be loaded: {error}")) from None


def source_of(name: str) -> str:
    """All that the compiler sees of a .c file but the system's headers: the files that it includes,
    itself, and the wrappers of its kernels.

    Args:
        name: the file's, without its suffix.
    """
    text, included = f'#include "{name}.c"\n', set()

    def content(line: re.Match[str]) -> str:
        if line[1] in included:
            return ""
        included.add(line[1])
        return INCLUDE.sub(content, (HERE / line[1]).read_text("utf-8"))

    source = INCLUDE.sub(content, text)
    return source + wrappers(source)


def command_for(real: str) -> tuple[str, ...]:
    """The command that compiles for this processor, but for its files and the libraries.

    Args:
        real: what the type `real` stands for: "float" or "double".
    Raises:
        DeviceError: there is no compiler, or an environment variable cannot be read.
    """
    command = (*_compiler(), *FLAGS, *_processor(), *_words("MINICNN_CFLAGS"))
    return *command, f"-Dreal={real}", f"-DREAL_IS_{real.upper()}=1"


def open_compiler() -> None:
    """Find out now whether there is a compiler whose libraries can be loaded.

    Raises:
        DeviceError: there is none; one line says what to install.
    """
    library("activation", "float")


@functools.cache
def folder() -> Path:
    """The folder where libraries are kept, which nobody else may write to.

    Raises:
        OSError: there is none.
    """
    named, home = os.environ.get("MINICNN_CACHE"), os.environ.get("XDG_CACHE_HOME")
    path = Path(named).absolute() if named else Path(home or os.path.expanduser("~/.cache"), "minicnn")
    if not path.is_absolute():
        raise FileNotFoundError(f"{str(path.parent)!r} is not the whole path of a folder")
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = path.stat()
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
        raise PermissionError(f"others may write to {str(path)!r}")
    return path


@functools.cache
def _identity() -> str:
    """What tells the compiler, the processor and the C library from others: the macros that the
    compiler defines are its version and the processor's abilities."""
    return _run([*command_for("float"), "-dM", "-E", "-x", "c", os.devnull]) + " ".join(platform.libc_ver())


def _compiler() -> list[str]:
    """The compiler: CC, or the first of the usual names."""
    named = _words("CC")
    for words in [named] if named else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(words[0]):
            return words
    if named:
        raise DeviceError(f"there is no C compiler {named[0]!r}, which the environment variable CC names")
    raise DeviceError("there is no C compiler: install gcc or clang, or name one in the environment variable CC")


def _words(variable: str) -> list[str]:
    """The words of an environment variable, as a shell reads them."""
    text = os.environ.get(variable, "")
    try:
        return shlex.split(text)
    except ValueError as error:
        raise DeviceError(f"the environment variable {variable}, {text!r}, cannot be read: {error}") from None


def _processor() -> tuple[str, ...]:
    """The flags for this processor. Compilers use half of an AVX-512 register unless they are told
    otherwise."""
    if platform.machine().lower() in X86:
        return "-march=native", "-mprefer-vector-width=512"
    return ("-mcpu=native",)


def _compiled(source: str, command: tuple[str, ...]) -> bytes:
    """The library that the compiler makes."""
    try:
        with tempfile.TemporaryDirectory(prefix="minicnn-") as room:
            made = Path(room, "made.so")
            _run([*command, "-x", "c", "-", "-o", str(made), "-lm"], source)
            return made.read_bytes()
    except OSError as error:
        raise DeviceError(escaped(f"the C compiler {command[0]!r} has made no library: {error}")) from None


def _run(command: list[str], text: str = "") -> str:
    """What a compiler prints."""
    compiler = f"the C compiler {command[0]!r}"
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{compiler} has not ended after {LONGEST} seconds") from None
    except OSError as error:
        raise DeviceError(escaped(f"{compiler} cannot be run: {error}")) from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines()]
        # but "In function 'rectify':"
        telling = [line for line in lines if line and not line.endswith((":", ","))]
        raise DeviceError(escaped(f"{compiler} failed: {[*telling, f'exit status {done.returncode}'][0]}"))
    return done.stdout.decode(errors="replace")


def _keep(content: bytes, path: Path, key: str) -> ctypes.CDLL:
    """Write a library to a file beside the path, which takes its name when it is complete and has
    been loaded."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="new-") as room:
        new = Path(room, path.name)
        new.write_bytes(content + _seal(content, key))
        loaded = ctypes.CDLL(str(new))
        new.replace(path)
    _remove_unused(path.parent)
    return loaded


def _remove_unused(place: Path) -> None:
    """Remove libraries that were not loaded for a long time, and what compilations have left that
    were killed as long ago. Processes that have loaded a library keep it; other files stay."""
    for path in place.iterdir():
        with contextlib.suppress(OSError):  # another process has removed it, or it has more in it
            if path.lstat().st_mtime > time.time() - UNUSED:
                continue
            if LIBRARY.fullmatch(path.name):
                path.unlink()
            elif UNFINISHED.fullmatch(path.name):
                for new in filter(lambda new: LIBRARY.fullmatch(new.name), path.iterdir()):
                    new.unlink()
                path.rmdir()


def _is_whole(path: Path, key: str) -> bool:
    """Whether there is such a library, as it was written."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # a pipe would wait for a writer
            return False
        content = path.read_bytes()
    except OSError:
        return False
    size = len(_seal(b"", key))
    return content[-size:] == _seal(content[:-size], key)


def _seal(content: bytes, key: str) -> bytes:
    return hashlib.sha256(content + key.encode()).digest()


def _after_fork() -> None:
    """A forked child must not wait for a lock that a thread of its parent held."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
