"""minicnn/backends/native/compiler.py: what is compiled, kept and loaded, and what is not."""

import ctypes
import errno
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from reference import refuses

from minicnn import DeviceError, backends, use_backend
from minicnn.backends import Backend, native
from minicnn.backends.native import compiler

ROOT = Path(__file__).resolve().parents[3]
TINY = '#include "native.h"\nEXPORTED void put(Index first, Index last, real *y) { for (Index i = first; i < last; ++i) y[i] = NUMBER; }\n'


@pytest.fixture
def tiny(cc, cache, sources):
    """The cache's folder; tiny.c is compiled in a moment, and its put() writes 7."""
    (sources / "tiny.c").write_text("#define NUMBER 7\n" + TINY)
    return cache


def put(library):
    """What a library of tiny.c writes."""
    y = ctypes.c_float()
    library.put(ctypes.c_ssize_t(0), ctypes.c_ssize_t(1), ctypes.byref(y))
    return y.value


def again(name="tiny", real="float"):
    """library(), as another process would call it."""
    for known in (compiler.folder, compiler._identity, compiler._library):
        known.cache_clear()
    return compiler.library(name, real)


def only(folder):
    """The one thing in a folder."""
    (path,) = folder.iterdir()
    return path


@pytest.fixture
def compiled(monkeypatch):
    """A list with an entry for each library that the compiler makes."""
    made, make = [], compiler._compiled

    def noted(source, command):
        made.append(command)
        return make(source, command)

    monkeypatch.setattr(compiler, "_compiled", noted)
    return made


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Makes a shell script and has CC name it."""

    def make(text, head="#!/bin/sh\n"):
        path = tmp_path / "a compiler"
        path.write_text(head + text)
        path.chmod(0o700)
        monkeypatch.setenv("CC", shlex.quote(str(path)))
        return path

    return make


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of this test's temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


# ------------------------------------------------------------------------------------ what is kept
def test_a_library_is_compiled_once(tiny, temporary, compiled):
    assert put(compiler.library("tiny", "float")) == 7 and put(compiler.library("tiny", "float")) == 7
    path = only(tiny)
    assert path.name.startswith("tiny-float-") and path.suffix == ".so" and path.is_file() and len(compiled) == 1
    was = path.read_bytes()
    assert put(again()) == 7
    assert len(compiled) == 1 and only(tiny) == path and path.read_bytes() == was and not any(temporary.iterdir())


def test_float_and_double_are_two(tiny, compiled):
    y = ctypes.c_double()
    compiler.library("tiny", "double").put(ctypes.c_ssize_t(0), ctypes.c_ssize_t(1), ctypes.byref(y))
    assert y.value == 7 and put(compiler.library("tiny", "float")) == 7
    assert sorted(path.name.split("-")[1] for path in tiny.iterdir()) == ["double", "float"] and len(compiled) == 2


def test_real_is_what_the_headers_say(cc, cache, sources):
    (sources / "own.h").write_text(
        "#if REAL_IS_FLOAT == 1\n#define NUMBER 1\n#elif REAL_IS_DOUBLE == 1\n#define NUMBER 2\n#endif\n"
    )
    (sources / "tiny.c").write_text(f'// what own.h says\n#include "own.h"\n{TINY}')
    assert put(compiler.library("tiny", "float")) == 1
    y = ctypes.c_double()
    compiler.library("tiny", "double").put(ctypes.c_ssize_t(0), ctypes.c_ssize_t(1), ctypes.byref(y))
    assert y.value == 2


def test_a_header_is_read_where_it_is_named_first(sources):
    (sources / "native.h").write_text("first\n")
    (sources / "a.h").write_text('#include "native.h"\n#include "b.h"\n#include <math.h>\nsecond − \n')
    (sources / "b.h").write_text('#include "a.h"\nb\n')
    (sources / "own.c").write_text(
        'begin\n#include "a.h"\n#include "b.h"\n#include "native.h"\n// #include "no.h"\nend\n'
    )
    lines = [line for line in compiler.source_of("own").split("\n") if line]
    assert lines == ["begin", "first", "b", "#include <math.h>", "second − ", '// #include "no.h"', "end"]


def damages(content):
    """The file's bytes with one of them changed, cut off anywhere, with more of them, …"""
    size = len(content)
    for at in {*range(0, size, 211), *range(size - 33, size)}:
        yield content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        yield content[:at]
    yield content + b"\0"
    yield b"\0" + content
    yield content[1:]
    yield content[:-32]
    yield content[:-32] * 2 + content[-32:]


def replace(path, content):
    """Another file of that name: a library that is loaded must not change, or this process crashes at its end."""
    path.unlink()
    path.write_bytes(content)


def test_no_damage_goes_unnoticed(tiny):
    compiler.library("tiny", "float")
    path = only(tiny)
    content, key = path.read_bytes(), path.stem.split("-")[2]
    assert compiler._is_whole(path, key)
    for damaged in damages(content):
        replace(path, damaged)
        assert not compiler._is_whole(path, key)
    replace(path, content)
    assert compiler._is_whole(path, key) and not compiler._is_whole(path, key[:-1] + "x")


@pytest.mark.parametrize("damage", [
    lambda c: c[:3000] + bytes([c[3000] ^ 128]) + c[3001:], lambda c: c[: len(c) // 2], lambda c: c[:-32], lambda c: b"",
    lambda c: c[:-1], lambda c: bytes(len(c)), lambda c: c[-32:], lambda c: b"not a library",
])  # fmt: skip
def test_a_damaged_file_is_compiled_again(tiny, compiled, damage):
    compiler.library("tiny", "float")
    path = only(tiny)
    was = path.read_bytes()
    replace(path, damage(was))
    assert put(again()) == 7 and len(compiled) == 2
    assert only(tiny) == path and path.read_bytes() == was


def test_what_is_not_used_for_long_is_removed_and_nothing_else(tiny, compiled):
    compiler.library("tiny", "float")
    mine, key = only(tiny), "0123456789abcdef" * 2
    old = [tiny / f"lrn-double-{key}.so", tiny / "new-ab_cdef1" / f"lrn-float-{key}.so"]
    own = [
        tiny / name
        for name in ("notes.txt", f"lrn-half-{key}.so", "a-b-c.so", f"lrn-float-{key}.so.txt", "new-pictures/a.png",
                     "new-photos12/a.png", "new-ab_cdef2/deep/b.so", f"lrn-float-{key[1:]}0.so/c")
    ]  # fmt: skip
    for path in [*old, *own]:
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"x")
    (tiny / f"conv-float-{key}.so").symlink_to(own[0])
    long_ago = time.time() - compiler.UNUSED - 60
    for path in [mine, *tiny.rglob("*")]:
        os.utime(path, (long_ago, long_ago), follow_symlinks=False)
    young = tiny / f"loss-float-{key}.so"
    young.write_bytes(b"x")
    assert put(again()) == 7 and len(compiled) == 1 and all(path.exists() for path in old)  # nothing new has come
    compiler.library("tiny", "double")
    assert not any(path.exists() or (path.parent != tiny and path.parent.exists()) for path in old)
    assert all(path.read_bytes() == b"x" for path in [*own, young])
    assert mine.exists() and not (tiny / f"conv-float-{key}.so").is_symlink()  # mine was loaded again


def test_a_library_of_another_key_is_compiled_again(tiny, sources, compiled):
    """Whole as it is, and well renamed."""
    compiler.library("tiny", "float")
    mine = only(tiny)
    (sources / "tiny.c").write_text("#define NUMBER 8\n" + TINY)
    assert put(again()) == 8
    (other,) = set(tiny.iterdir()) - {mine}
    replace(other, mine.read_bytes())
    assert put(again()) == 8 and len(compiled) == 3
    assert other.read_bytes() != mine.read_bytes()


def test_what_is_no_file_is_never_opened(tiny, tmp_path, compiled):
    compiler.library("tiny", "float")
    path = only(tiny)
    whole = tmp_path / "moved"
    path.rename(whole)
    for make in (
        os.mkfifo,
        lambda at: os.symlink(whole, at),
        lambda at: os.symlink(at, at),
        lambda at: os.symlink(tmp_path / "nowhere", at),
        lambda at: os.symlink("/dev/zero", at),
    ):
        make(path)
        before = len(compiled)
        assert put(again()) == 7 and len(compiled) == before + 1
        assert only(tiny) == path and not path.is_symlink() and path.read_bytes() == whole.read_bytes()
        path.unlink()


def test_a_folder_in_the_place_of_a_library(tiny, monkeypatch, compiled):
    """A folder of libraries that is named must be in order; else each process compiles its own."""
    compiler.library("tiny", "float")
    path = only(tiny)
    path.unlink()
    path.mkdir()
    with refuses(DeviceError, f"MINICNN_CACHE, {str(tiny)!r}", "directory"):
        again()
    monkeypatch.delenv("MINICNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny.parent))
    tiny.rename(tiny.with_name("minicnn"))
    assert put(again()) == 7 and len(compiled) == 4 and only(tiny.with_name("minicnn")).is_dir()


def test_what_is_kept_but_cannot_be_loaded(tiny, monkeypatch, temporary, compiled):
    """As on a disk whose files may not be run: each process compiles its own, and leaves nothing."""
    load = ctypes.CDLL

    def refused(name):
        if name.startswith(str(tiny.parent / "home")):
            raise OSError(f"{name}: failed to map segment from shared object")
        return load(name)

    monkeypatch.setattr(ctypes, "CDLL", refused)
    monkeypatch.delenv("MINICNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny.parent / "home"))
    assert put(again()) == 7 and len(compiled) == 2
    assert not any(temporary.iterdir()) and not any((tiny.parent / "home/minicnn").iterdir())


# ------------------------------------------------------------------------------- several processes
PROCESS = """if True:
    import ctypes, sys
    from minicnn.backends.native import compiler
    y = ctypes.c_float()
    compiler.HERE = compiler.Path(sys.argv[1])
    compiler.library("tiny", "float").put(ctypes.c_ssize_t(0), ctypes.c_ssize_t(1), ctypes.byref(y))
    print(y.value)"""


def process(sources, **options):
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(sources)], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize("count", [2, 8])
def test_processes_may_compile_at_once(tiny, sources, tmp_path, script, count):
    """Each waits in the middle until all of them compile."""
    gate = tmp_path / "gate"
    gate.mkdir()
    script(f"""case "$*" in *-dM*) ;; *)
        mktemp -q {gate}/XXXXXX >/dev/null
        for i in $(seq 600); do [ $(ls {gate} | wc -l) -ge {count} ] && break; sleep 0.05; done
        esac
        exec cc "$@"
    """)
    running = [process(sources) for _ in range(count)]
    assert [(*one.communicate(timeout=100), one.returncode) for one in running] == [("7.0\n", "", 0)] * count
    assert len(list(gate.iterdir())) == count
    path = only(tiny)
    assert compiler._is_whole(path, path.stem.split("-")[2])
    assert process(sources).communicate(timeout=100) == ("7.0\n", "") and only(tiny) == path
    assert len(list(gate.iterdir())) == count


def test_a_process_that_is_killed_while_it_compiles(tiny, sources, tmp_path, script, temporary):
    started = tmp_path / "started"
    script(f"""case "$*" in *-dM*) ;; *)
        [ -e {started} ] || {{ echo half > "$(echo "$*" | sed 's/.* -o \\(.*\\) -lm/\\1/')"; echo $$ > {started}; exec sleep 100; }}
        esac
        exec cc "$@"
    """)
    first = process(sources)
    while not started.exists() or not started.read_text().strip():
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    first.kill()
    os.kill(int(started.read_text()), signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL and not any(tiny.iterdir())
    assert process(sources).communicate(timeout=100) == ("7.0\n", "")
    path = only(tiny)
    assert compiler._is_whole(path, path.stem.split("-")[2])


def test_a_process_that_is_killed_before_a_library_has_its_name(tiny, compiled):
    if not (child := os.fork()):
        Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        compiler.library("tiny", "float")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = only(tiny)
    assert left.name.startswith("new-") and left.is_dir()
    assert put(again()) == 7 and len(compiled) == 1
    assert {path.suffix for path in tiny.iterdir()} == {"", ".so"}


def test_a_forked_child_compiles_while_a_thread_of_its_parent_does(tiny, sources, monkeypatch):
    """It does not wait for that thread, which it has not."""
    inside, leave, run = threading.Event(), threading.Event(), compiler._compiled

    def slow(source, command):
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            assert leave.wait(60)
        return run(source, command)

    monkeypatch.setattr(compiler, "_compiled", slow)
    (sources / "other.c").write_text("#define NUMBER 9\n" + TINY)
    thread = threading.Thread(target=compiler.library, args=("tiny", "float"))
    thread.start()
    assert inside.wait(60)
    if not (child := os.fork()):
        signal.alarm(60)
        os._exit(0 if put(compiler.library("other", "float")) == 9 else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    leave.set()
    thread.join()
    assert status == 0


def test_threads_compile_one_at_a_time(tiny, compiled):
    threads = [threading.Thread(target=compiler.library, args=("tiny", "float")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(compiled) == 1 and only(tiny)


# ------------------------------------------------------------------------------------- what the key has
@pytest.fixture
def name(monkeypatch, cache, sources, script):
    """Asks for the name of tiny.c's library; nothing is compiled but by a script that says what processor it is."""
    (sources / "tiny.c").write_text("#define NUMBER 7\n" + TINY)
    script("echo '#define __AVX2__ 1'")
    monkeypatch.setattr(compiler, "_compiled", lambda *_: b"")
    monkeypatch.setattr(compiler, "_keep", lambda content, path, key: path.name)

    def ask(real="float"):
        found = again("tiny", real)
        kind, of, key = found.removesuffix(".so").split("-")
        assert (kind, of) == ("tiny", real) and len(key) == 32
        return key

    return ask


def test_the_same_has_one_key(name):
    assert name() == name()


def test_what_changes_the_key(name, sources, script, tmp_path, monkeypatch):
    keys = [name(), name("double")]
    (sources / "tiny.c").write_text("#define NUMBER 8\n" + TINY)
    keys.append(name())
    (sources / "native.h").write_text("// a line more\n" + (sources / "native.h").read_text())
    keys.append(name())
    (sources / "more.h").write_text("// more\n")
    (sources / "tiny.c").write_text('#include "more.h"\n#define NUMBER 8\n' + TINY)
    keys.append(name())
    (sources / "more.h").write_text("// still more\n")
    keys.append(name())
    script("echo '#define __AVX2__ 1'; echo '#define __AVX512F__ 1'")
    keys.append(name())
    monkeypatch.setenv("MINICNN_CFLAGS", "-O2")
    keys.append(name())
    monkeypatch.setenv("MINICNN_CFLAGS", "-O2 '-DA=a b'")
    keys.append(name())
    monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-g"))
    keys.append(name())
    monkeypatch.setattr(compiler, "_processor", lambda: ("-march=another",))
    keys.append(name())
    monkeypatch.setenv("CC", f"{os.environ['CC']} -pipe")
    keys.append(name())
    shutil.copy(tmp_path / "a compiler", tmp_path / "another")
    monkeypatch.setenv("CC", shlex.join([str(tmp_path / "another"), "-pipe"]))
    keys.append(name())
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.99"))
    keys.append(name())
    assert len(set(keys)) == len(keys)


def test_the_compiler_says_what_it_and_the_processor_are(cc, cache, monkeypatch):
    found = compiler._identity()
    assert "#define __VERSION__ " in found and "#define real float\n" in found and "#define __linux__ 1\n" in found
    if platform.machine() == "x86_64":
        monkeypatch.setenv("MINICNN_CFLAGS", "-march=x86-64-v3")
        compiler._identity.cache_clear()
        other = compiler._identity()
        assert "#define __AVX2__ 1\n" in other and "AVX512" not in other
        monkeypatch.setenv("MINICNN_CFLAGS", "-march=x86-64")
        compiler._identity.cache_clear()
        assert "AVX2" not in compiler._identity()


@pytest.mark.parametrize("machine, flags", [
    ("x86_64", ("-march=native", "-mprefer-vector-width=512")),
    ("AMD64", ("-march=native", "-mprefer-vector-width=512")),
    ("i686", ("-march=native", "-mprefer-vector-width=512")),
    ("aarch64", ("-mcpu=native",)),
    ("arm64", ("-mcpu=native",)),
])  # fmt: skip
def test_the_flags_for_a_processor(script, monkeypatch, machine, flags):
    path = script("")
    monkeypatch.setenv("MINICNN_CFLAGS", "-g '-DA=a b'")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    command = compiler.command_for("double")
    assert command == (str(path), *compiler.FLAGS, *flags, "-g", "-DA=a b", "-Dreal=double", "-DREAL_IS_DOUBLE=1")
    assert "-ffast-math" not in command and "-Ofast" not in command


# ---------------------------------------------------------------------------------------------- the folder
def places(monkeypatch, **variables):
    for variable in ("MINICNN_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
        if variable in variables:
            monkeypatch.setenv(variable, str(variables[variable]))
    compiler.folder.cache_clear()
    return compiler.folder


def test_where_libraries_are_kept(cache, tmp_path, monkeypatch):
    a, b, c = tmp_path / "a/a", tmp_path / "b/b", tmp_path / "c"
    assert places(monkeypatch, MINICNN_CACHE=a, XDG_CACHE_HOME=b, HOME=c)() == a and a.is_dir()
    assert places(monkeypatch, MINICNN_CACHE="", XDG_CACHE_HOME=b, HOME=c)() == b / "minicnn"
    assert places(monkeypatch, XDG_CACHE_HOME="", HOME=c)() == c / ".cache/minicnn"
    assert places(monkeypatch, HOME=c)() == c / ".cache/minicnn"
    for made in (a, b / "minicnn", c / ".cache/minicnn"):
        assert made.stat().st_mode & 0o777 == 0o700


def test_a_folder_may_be_named_from_where_one_is(tiny, tmp_path, monkeypatch, compiled):
    """A name without a slash would be looked for among the system's libraries."""
    monkeypatch.chdir(tiny)
    monkeypatch.setenv("MINICNN_CACHE", ".")
    assert put(again()) == 7 and put(again()) == 7 and len(compiled) == 1
    assert only(tiny).suffix == ".so" and compiler.folder().is_absolute()


def test_without_a_home(tiny, tmp_path, monkeypatch, temporary, compiled):
    """As a user has who has none: the system is asked for it; if it knows none, nothing is kept."""
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", str(tmp_path / "home")))
    assert places(monkeypatch)() == tmp_path / "home/.cache/minicnn"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(temporary)
    with pytest.raises(FileNotFoundError, match=r"^'~/\.cache' is not the whole path of a folder$"):
        places(monkeypatch)()
    assert put(again()) == 7 and len(compiled) == 1 and not any(temporary.iterdir())


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702, 0o770])
def test_a_folder_that_others_may_write_to(tiny, monkeypatch, temporary, compiled, mode):
    """It is not used: what lies there may be anybody's."""
    compiler.library("tiny", "float")
    tiny.chmod(mode)
    with refuses(DeviceError, "MINICNN_CACHE", f"others may write to {str(tiny)!r}"):
        again()
    monkeypatch.delenv("MINICNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny.parent))
    tiny.rename(tiny.with_name("minicnn"))
    assert put(again()) == 7 and len(compiled) == 2 and not any(temporary.iterdir())


def test_a_folder_that_others_may_read(tiny, compiled):
    tiny.chmod(0o755)
    assert put(again()) == put(again()) == 7 and len(compiled) == 1


def test_a_folder_of_somebody_else(tiny, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: tiny.stat().st_uid + 1)
    with refuses(DeviceError, f"others may write to {str(tiny)!r}"):
        again()
    monkeypatch.delattr(os, "getuid")  # as on Windows, where a folder in a user's own is his
    assert put(again()) == 7


def test_a_folder_that_cannot_be_made(tiny, tmp_path, monkeypatch, temporary, compiled):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file/below", Path("/dev/null/below"), Path("/proc/minicnn")):
        monkeypatch.setenv("MINICNN_CACHE", str(path))
        with refuses(DeviceError, "'tiny'", f"MINICNN_CACHE, {str(path)!r}", "[Errno "):
            again()
    monkeypatch.setenv("MINICNN_CACHE", "line\nline")
    (tmp_path / "line\nline").write_text("")
    monkeypatch.chdir(tmp_path)
    with refuses(DeviceError, "MINICNN_CACHE, 'line\\nline'"):
        again()
    assert not compiled
    monkeypatch.delenv("MINICNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert put(again()) == 7 and len(compiled) == 1 and not any(temporary.iterdir())


@pytest.mark.parametrize("writes", [0, 5000])
def test_a_full_disk(tiny, monkeypatch, temporary, compiled, writes):
    """What has been written of a library is not left."""
    write = Path.write_bytes

    def full(path, content):
        if temporary in path.parents:
            return write(path, content)
        write(path, content[:writes])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with refuses(DeviceError, "MINICNN_CACHE", "No space left"):
        again()
    assert not any(tiny.iterdir()) and not any(temporary.iterdir())
    monkeypatch.delenv("MINICNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny))
    assert put(again()) == 7 and len(compiled) == 3
    assert not any((tiny / "minicnn").iterdir()) and not any(temporary.iterdir())


def test_no_place_at_all(tiny, tmp_path, monkeypatch):
    """Not even for what a compiler writes on its way."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with refuses(DeviceError, "made no library", "No such file"):
        again()
    assert not any(tiny.iterdir())


# --------------------------------------------------------------------------------------------- the compiler
def test_cc_may_have_arguments(tiny, monkeypatch, compiled):
    monkeypatch.setenv("CC", "cc -DUNUSED='a b'  -pipe")
    assert put(again()) == 7 and compiled[0][:3] == ("cc", "-DUNUSED=a b", "-pipe")
    monkeypatch.setenv("CC", " ")
    assert put(again()) == 7 and compiled[1][1] == compiler.FLAGS[0]


def test_the_usual_names_are_tried_in_turn(tmp_path, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for made in ("clang", "gcc", "cc"):
        (tmp_path / made).write_text("#!/bin/sh\n")
        (tmp_path / made).chmod(0o700)
        assert compiler.command_for("float")[0] == made


def test_a_compiler_that_is_not_there(cache, tmp_path, monkeypatch):
    for named in ("/nowhere/cc", "cc-99.9 -O1", str(tmp_path)):
        monkeypatch.setenv("CC", named)
        with refuses(DeviceError, f"there is no C compiler {named.split()[0]!r}", "environment variable CC"):
            again("activation")
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with refuses(DeviceError, "there is no C compiler: install gcc or clang"):
        again("activation")


@pytest.mark.parametrize("variable", ["CC", "MINICNN_CFLAGS"])
def test_words_that_cannot_be_read(cache, script, monkeypatch, variable):
    script("")
    monkeypatch.setenv(variable, "gcc '-O2\n")
    with refuses(DeviceError, f'the environment variable {variable}, "gcc \'-O2\\n", cannot be read', "quotation"):
        again("activation")


@pytest.mark.parametrize("text, words", [
    ("exit 3", ["failed: exit status 3"]),
    ("kill -9 $$", ["failed: exit status -9"]),
    ("echo 'a.c: In function f:' >&2; echo >&2; echo ' from a.h,' >&2; echo ' a.c: it is  wrong ' >&2; echo then >&2; exit 1",
     ["failed: a.c: it is  wrong"]),
    ("echo 'In a.c:' >&2; exit 1", ["failed: exit status 1"]),
    ("printf 'wrong: \\377\\000\\033[1m\\n' >&2; exit 1", ["failed: wrong: \N{REPLACEMENT CHARACTER}\\x00\\x1b[1m"]),
    ("printf '\\377\\000'", ["has made no library", "/minicnn-", "/made.so"]),
    ("exit 0", ["has made no library", "/minicnn-", "/made.so"]),
    ("exec sleep 100", ["has not ended after 0.2 seconds"]),
])  # fmt: skip
def test_a_compiler_that_does_not_do_it(tiny, temporary, script, monkeypatch, text, words):
    path = script(text)
    monkeypatch.setattr(compiler, "LONGEST", 0.2 if "sleep" in text else 60)
    with refuses(DeviceError, f"the C compiler {str(path)!r} ", *words):
        again()
    assert not any(tiny.iterdir()) and not any(temporary.iterdir())


def test_a_compiler_that_cannot_be_run(tiny, script):
    path = script("", head="#!/nowhere/sh\n")
    with refuses(DeviceError, f"the C compiler {str(path)!r} cannot be run: [Errno 2]"):
        again()


def test_a_compiler_whose_libraries_are_none(tiny, temporary, script, monkeypatch):
    """They are not kept: another time it may make better ones."""
    script("""while [ $# -gt 1 ]; do [ "$1" = -o ] && head -c 5000 /dev/zero > "$2"; shift; done""")
    with refuses(DeviceError, "cannot be kept in MINICNN_CACHE", "invalid ELF header"):
        again()
    assert not any(tiny.iterdir())
    monkeypatch.delenv("MINICNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny))
    with refuses(DeviceError, "the library 'tiny' cannot be loaded: ", "/minicnn-", "invalid ELF header"):
        again()
    assert not any((tiny / "minicnn").iterdir()) and not any(temporary.iterdir())


def test_a_mistake_in_a_source_is_said(tiny, sources):
    (sources / "tiny.c").write_text(
        '#include "native.h"\nEXPORTED void put(Index first, Index last, real *y) { y[0] = missing; }\n'
    )
    with refuses(DeviceError, "failed: ", "missing"):
        again()
    (sources / "tiny.c").write_text(
        '#include "native.h"\nINLINE void missing(void); EXPORTED void put(Index first) { missing(); }\n'
    )
    with pytest.raises(DeviceError):
        again()
    assert not any(tiny.iterdir())


def test_flags_that_are_added_come_last(tiny, monkeypatch, sources):
    (sources / "tiny.c").write_text("#ifdef MINE\n#define NUMBER MINE\n#else\n#define NUMBER 7\n#endif\n" + TINY)
    assert put(again()) == 7
    monkeypatch.setenv("MINICNN_CFLAGS", "-DMINE=8 '-DOTHER=a b'")
    assert put(again()) == 8
    assert len(list(tiny.iterdir())) == 2


# --------------------------------------------------------------------------------------- the backend with it
def test_where_there_is_no_compiler(cache, tmp_path, monkeypatch):
    """A backend that is asked for is an error; the one that is used unless another is named gives way."""
    monkeypatch.setenv("PATH", str(tmp_path))
    kernels = {"activation.rectify": lambda x: np.full(x.shape, 7.0)}
    backend = Backend(
        "c", "cpu", kernels, default=True, otherwise=native.backend.otherwise, opens=compiler.open_compiler
    )
    try:
        assert backends._default("cpu").problem() is None and backends._default("cpu") is not backend
        assert backends.backend_of("cpu") != "c"
        assert backends.missed("cpu") == (
            "there is no C compiler: install gcc or clang, or name one in the environment variable CC; "
            f"without the c backend, {backends.backend_of('cpu')} computes, slower"
        )
        with refuses(DeviceError, "backend 'c': there is no C compiler: install gcc or clang"):
            use_backend("c")
        assert backends.chosen_backend() is None
    finally:
        backend.remove()


def test_native_without_a_compiler():
    script = """if True:
        import minicnn
        print(minicnn.functional.relu(minicnn.Tensor([-1.0, 2.0])))
        minicnn.use_backend("native")"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": "/nowhere", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "Tensor([0., 2.], dtype=float32)\n"
    assert done.stderr.splitlines()[-1].endswith(
        "DeviceError: backend 'native': there is no C compiler: install gcc or clang, or name one in the environment variable CC"
    )


def test_opening_it_compiles(cc, cache):
    compiler.open_compiler()
    assert only(cache).name.startswith("activation-float-")
