"""minicnn/backends/native/launch.py and launch.c: what a kernel is given, and how threads share its work."""

import os
import re
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from reference import refuses

from minicnn.backends.native import compiler, declarations, launch
from minicnn.backends.native.declarations import TYPES
from minicnn.backends.native.launch import CONTIGUOUS, GRAIN, PLAIN, WRITEABLE, Declared, address, contiguous
from minicnn.backends.numpy import memory as buffers
from minicnn.backends.numpy import threads as fast

ALL_FILES = sorted(path.stem for path in compiler.HERE.glob("*.c"))
FILES = [name for name in ALL_FILES if name != "launch"]  # those with kernels
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
READ = Declared("f", F32, PLAIN)
WRITTEN, STRIDED = READ._replace(flags=READ.flags | WRITEABLE), READ._replace(flags=READ.flags & ~CONTIGUOUS)
NUMBERS = [name for name in TYPES] + ["real"]
KERNELS = f"""
#define _POSIX_C_SOURCE 200809L
#include "native.h"
#include <pthread.h>
#include <time.h>
// each unit once, and by which call
KERNEL void count(Index first, Index last, real *restrict y, Index *restrict firsts, Index *lasts) {{
    for (Index i = first; i < last; ++i) {{ y[i] += 1; firsts[i] = first; lasts[i] = last; }}
}}
// by which thread, and after how many nanoseconds for each unit
KERNEL void linger(Index first, Index last, Index *by, Index delay) {{
    const struct timespec rest = {{0, delay}};
    for (Index i = first; i < last; ++i) {{ by[i] = (Index)pthread_self(); if (delay) nanosleep(&rest, NULL); }}
}}
KERNEL void copy(Index first, Index last, const real *restrict x, real *y) {{
    for (Index i = first; i < last; ++i) y[i] = x[i];
}}
KERNEL void space(Index first, Index last, Index *restrict at, Index bytes, uint8_t *room) {{
    memset(room, first, bytes);  // of which the sanitizers see the end
    for (Index i = first; i < last; ++i) at[i] = (Index)room;
}}
KERNEL void pick(Index first, Index last, strided const real *x, Index step, strided real *y) {{
    for (Index i = first; i < last; ++i) y[i * step] = x[i * step];
}}
KERNEL void is_null(Index first, Index last, const real *x, uint8_t *y) {{ *y = !x; }}
KERNEL void numbers(Index first, Index last,
                    {", ".join(f"{kind} n{i}" for i, kind in enumerate(NUMBERS))}, double *y) {{
    {" ".join(f"y[{i}] = n{i};" for i in range(len(NUMBERS)))}
}}
KERNEL void arrays(Index first, Index last,
                   {", ".join(f"const {kind} *restrict x{i}" for i, kind in enumerate(NUMBERS))}, double *y) {{
    {" ".join(f"y[{i}] = *x{i};" for i in range(len(NUMBERS)))}
}}
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The test's kernels are compiled once."""
    folder = tmp_path_factory.mktemp("kept")
    folder.chmod(0o700)
    return folder


@pytest.fixture
def run(cc, cache, sources, kept, monkeypatch):
    """launch() with this file's kernels."""
    monkeypatch.setenv("MINICNN_CACHE", str(kept))
    (sources / "own.c").write_text(KERNELS)
    return lambda kernel, *args, real=F32, **options: launch.launch(f"own.{kernel}", *args, real=real, **options)


def counted(run, count, real=F32, **options):
    """How often each unit was done, and the pieces in which they were."""
    y, firsts, lasts = np.zeros(count, real), np.zeros(count, np.intp), np.zeros(count, np.intp)
    run("count", count, y, firsts, lasts, real=real, **options)
    return y.tolist(), sorted(set(zip(firsts.tolist(), lasts.tolist(), strict=True)))


# ------------------------------------------------------------------------------------- sharing out
@pytest.mark.parametrize("real", [F32, F64])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, GRAIN, 2 * GRAIN - 1, 2 * GRAIN, 2 * GRAIN + 1, 5 * GRAIN, 40 * GRAIN + 7])
def test_each_unit_is_done_once(run, threads, number, count, real):
    threads(number)
    done, pieces = counted(run, count, real)
    assert done == [1] * count
    assert pieces[0][0] == 0 and pieces[-1][1] == count
    assert all(a[1] == b[0] for a, b in pairwise(pieces))
    assert len(pieces) == 1 or count >= 2 * GRAIN


@pytest.mark.parametrize("count, each, number, pieces", [
    (2 * GRAIN - 1, 1, 2, 1),  # less than two threads should have
    (2 * GRAIN, 1, 2, 2),
    (3 * GRAIN, 1, 2, 3),
    (8 * GRAIN, 1, 2, 8),
    (80 * GRAIN, 1, 2, 8),  # four for each thread
    (80 * GRAIN, 1, 1, 1),
    (80 * GRAIN, 1, 3, 12),
    (10, GRAIN, 2, 5),  # two at a time
    (10, GRAIN // 2, 2, 5),
    (10, GRAIN // 5 + 1, 2, 3),
    (10, GRAIN // 5, 2, 1),
    (2, GRAIN, 2, 2),
    (2, GRAIN - 1, 2, 1),
    (1, 100 * GRAIN, 2, 1),
    (7, 100 * GRAIN, 2, 7),
    (10, 0, 2, 1),
])  # fmt: skip
def test_pieces(run, threads, count, each, number, pieces):
    threads(number)
    done, found = counted(run, count, each=each)
    assert done == [1] * count and len(found) == pieces


def test_nothing_is_done_for_no_units(run):
    y = np.zeros(4, F32)
    for count in (0, -1):
        run("copy", count, y, y)
        run("copy", count, "not even looked at")


def takers(run, count=24, delay=2_000_000):
    """The threads that take the units, of which each lasts 2 ms."""
    by = np.zeros(count, np.intp)
    run("linger", count, by, delay, each=GRAIN)
    assert by.all()
    return set(by.tolist())


def most_takers(run, count=24):
    """So many threads take part, of 50 times the most: on a busy machine some may come too late."""
    found = [takers(run, count)]
    while len(found) < 50 and len(found[-1]) < min(count, fast.get_num_threads()):
        found.append(takers(run, count))
    assert all(threading.get_ident() in some for some in found)
    return max(map(len, found))


def test_all_threads_take_part_and_none_inside_a_slice(run, threads, monkeypatch):
    for number in (3, 1, 2, 4):
        threads(number)
        assert most_takers(run) == number
    assert most_takers(run, 2) == 2 and most_takers(run, 1) == 1  # no more than there are pieces
    time.sleep(0.2)  # by now they sleep
    assert most_takers(run) == 4
    by = np.zeros(9, np.intp)
    run("linger", 9, by, 0, each=1)  # too little to share
    assert set(by.tolist()) == {threading.get_ident()}
    monkeypatch.setattr(fast._threads.local, "busy", True, raising=False)
    assert takers(run) == {threading.get_ident()}


def test_who_comes_while_the_threads_are_busy_works_alone(run, threads):
    """Any number of Python's threads may launch at the same time, and each has all of its work done."""
    threads(3)
    failures = []

    def many():
        try:
            for _ in range(30):
                assert counted(run, 8 * GRAIN)[0] == [1] * (8 * GRAIN)
                assert takers(run, 8, 100_000)
        except BaseException as error:
            failures.append(error)
            raise

    callers = [threading.Thread(target=many) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


def test_no_call_is_missed(run, threads):
    """Threads that watch, that are about to sleep, and that sleep."""
    threads(3)
    y, firsts, lasts = np.zeros(8, np.float32), np.zeros(8, np.intp), np.zeros(8, np.intp)
    for pause in [0.0] * 3000 + [i * 1e-7 for i in range(1000)] + [0.001] * 50:
        time.sleep(pause) if pause > 1e-4 else [None for end in [time.perf_counter() + pause] if spin(end)]
        run("count", 8, y, firsts, lasts, each=GRAIN)
    assert y.tolist() == [4050] * 8


def spin(end):
    while time.perf_counter() < end:
        pass


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="two cores, and Linux's ways to them",
)
def test_nobody_waits_for_a_thread_that_has_not_begun(run, threads):
    """On a core that another program uses, it would begin some milliseconds later, and its work is done by then."""
    threads(2)
    y, firsts, lasts = np.zeros(8, F32), np.zeros(8, np.intp), np.zeros(8, np.intp)
    run("count", 8, y, firsts, lasts, each=GRAIN)
    cores = os.sched_getaffinity(0)
    mine, theirs = sorted(cores)[:2]
    tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        for task in (*tasks, other.pid):
            os.sched_setaffinity(task, {mine if task == threading.get_native_id() else theirs})
        time.sleep(0.2)
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        for _ in range(300):
            run("count", 8, y, firsts, lasts, each=GRAIN)
        waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
    finally:
        for task in tasks:
            os.sched_setaffinity(task, cores)
        other.kill()
        other.wait()
    assert y.tolist() == [301] * 8 and waits < 20  # without that about half of them do


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are seen in /proc, which Linux has")
def test_signals_are_for_threads_of_python(run, threads):
    """One that arrives is taken by the main thread, though another may be at work."""
    threads(4)
    takers(run)
    mine = {str(thread.native_id) for thread in threading.enumerate()}
    blocked = {
        task.name: int(re.search(r"SigBlk:\s*(\w+)", (task / "status").read_text())[1], 16)
        for task in Path("/proc/self/task").iterdir()
    }
    others = [mask for name, mask in blocked.items() if name not in mine]
    assert sum(bool(mask >> (signal.SIGINT - 1) & 1) for mask in others) >= 3
    assert not blocked[str(os.getpid())] >> (signal.SIGINT - 1) & 1  # the main thread's


def test_a_forked_child_goes_on(run, threads):
    """With threads of its own, and kernels that are loaded or not yet."""
    threads(2)
    counted(run, 8 * GRAIN)
    if not (child := os.fork()):
        signal.alarm(60)
        done = [counted(run, 8 * GRAIN, real)[0] == [1] * (8 * GRAIN) for real in (F32, F64)]
        os._exit(0 if all(done) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert counted(run, 8 * GRAIN)[0] == [1] * (8 * GRAIN)


def test_a_child_that_is_forked_while_the_threads_are_at_work_goes_on(run, threads):
    threads(3)
    takers(run)
    other = threading.Thread(target=takers, args=(run, 300))
    other.start()
    time.sleep(0.02)
    if not (child := os.fork()):
        signal.alarm(60)
        os._exit(0 if counted(run, 8 * GRAIN)[0] == [1] * (8 * GRAIN) and len(takers(run)) == 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    other.join()


@pytest.mark.parametrize("room", [1, 63, 64, 1000, 100_001])
def test_each_thread_has_room(run, threads, room):
    """Memory of its own, from a line of the cache on; the same for each of its pieces."""
    threads(3)
    at = np.zeros(8 * GRAIN, np.intp)
    run("space", at.size, at, room, room=room)
    begins = sorted(set(at.tolist()))
    assert 1 <= len(begins) <= 3 and all(begin and begin % 64 == 0 for begin in begins)
    assert all(b - a >= room for a, b in pairwise(begins))
    small = np.zeros(3, np.intp)
    run("space", 3, small, room, room=room)
    assert small.all() and (small % 64 == 0).all()
    with refuses(TypeError, "own.space takes 3 arguments, not 4"):
        run("space", 3, small, room, small, room=room)
    with refuses(TypeError, "own.space takes 3 arguments, not 2"):
        run("space", 3, small, room)


def test_where_the_room_is(run, threads, monkeypatch):
    """Each thread's begins with a line of the cache, and the last one's ends within the buffer."""
    threads(3)
    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(launch, "_share", lambda: calls.append)
        for asked in (1, 63, 64, 65, 1000):
            buffers._scratch.buffers.pop("native", None)
            run("space", 8 * GRAIN, np.zeros(8 * GRAIN, np.intp), asked, room=asked)
            *_, begin, room, number = struct.unpack_from("=QqqQqq", calls[-1])
            buffer = buffers._scratch.buffers["native"]
            assert number == 3 and begin % 64 == room % 64 == 0 and asked <= room < asked + 64
            assert 0 <= begin - buffer.ctypes.data < 64 and begin + 3 * room <= buffer.ctypes.data + buffer.nbytes
        run("copy", 4, np.zeros(4, F32), np.zeros(4, F32))
    assert struct.unpack_from("=QqqQqq", calls[-1])[3:] == (0, 0, 1)


def test_a_call_holds_its_room(run, threads, monkeypatch):
    """Python drops a thread's buffers at its end, and the thread may be at work in C by then."""
    held = []

    def share(*_):
        buffer = weakref.ref(buffers._scratch.buffers.pop("native"))
        held.append(buffer() is not None)

    with monkeypatch.context() as patch:
        patch.setattr(launch, "_share", lambda: share)
        run("space", 3, np.zeros(3, np.intp), 1000, room=1000)
    assert held == [True]


@pytest.mark.parametrize("size", [1, 1 << 10, (1 << 18) + 5])
def test_the_shares_of_threads_are_added_in_their_order(threads, size):
    threads(2)
    shares = np.random.default_rng(0).standard_normal((5, size), np.float32)
    given, total = shares.copy(), np.zeros(size, np.float32)
    assert launch.added(shares, total) is total
    assert np.array_equal(total, (((shares[0] + shares[1]) + shares[2]) + shares[3]) + shares[4])
    assert np.array_equal(launch.added(shares[3:], total), shares[3] + shares[4])
    assert np.array_equal(shares, given)


# --------------------------------------------------------------------------------------- arguments
def test_numbers_arrive_as_they_are_declared(run):
    top = {"Index": -(2**63), "int64_t": -(2**63) + 2**11, "uint8_t": 255, "uint32_t": 2**32 - 1, "uint64_t": 2**63}
    for real in (F32, F64):
        given = [top.get(name, 0.1) for name in NUMBERS]
        y = np.zeros(len(NUMBERS))
        run("numbers", 1, *given, y, real=real)
        kinds = {"float": F32, "double": F64, "real": real}
        assert y.tolist() == [float(kinds.get(k, F64).type(g)) for k, g in zip(NUMBERS, given, strict=True)]
    integers = [np.int64(n) if k in top else np.float32(n) for k, n in zip(NUMBERS, range(1, 10), strict=False)]
    run("numbers", 1, *integers, y)
    assert y.tolist() == list(range(1, len(NUMBERS) + 1))


def test_arrays_arrive_as_they_are_declared(run):
    kinds = {name: np.dtype(dtype) for name, (dtype, *_) in TYPES.items()}
    assert [kinds[name].itemsize for name in ("Index", "int64_t", "uint8_t", "uint32_t", "uint64_t")] == [8, 8, 1, 4, 8]
    for real in (F32, F64):
        given = [np.full(3, i, kinds.get(name, real)) for i, name in enumerate(NUMBERS, 1)]
        y = np.zeros(len(NUMBERS))
        run("arrays", 1, *given, y, real=real)
        assert y.tolist() == list(range(1, len(NUMBERS) + 1))
        for i, array in enumerate(given):
            wrong = array.astype(F32 if array.dtype == F64 else F64)
            with refuses(
                TypeError, f"own.arrays takes an array of {array.dtype}, not an array of shape (3,)", str(wrong.dtype)
            ):
                run("arrays", 1, *given[:i], wrong, *given[i + 1 :], y, real=real)


def misfits():
    x = np.zeros((4, 6), F32)
    yield x.astype(F64), "takes an array of float32, not an array of shape (4, 6) and dtype float64"
    yield x.astype(np.int32), "int32"
    yield x.astype(">f4"), "takes an array of float32, not an array of shape (4, 6) and dtype >f4"
    yield x.T, "takes a contiguous array, not an array of shape (6, 4) and dtype float32 with strides (4, 24)"
    yield x[:, :3], "strides (24, 4)"
    yield x[::-1], "strides (-24, 4)"
    yield np.broadcast_to(x[:1], x.shape), "strides (0, 4)"
    yield np.zeros(97, np.uint8)[1:].view(F32), "takes a contiguous array"  # at an odd address
    yield 1.0, "takes an array of float32, not 1.0"
    yield [0.0] * 24, "takes an array of float32"
    yield np.float32(1), "takes an array of float32, not np.float32(1.0)"


def test_arrays_that_do_not_fit(run):
    for wrong, words in misfits():
        good = np.zeros(24, F32)
        with refuses(TypeError, "own.copy ", words):
            run("copy", 24, wrong, good)
        with refuses(
            TypeError,
            "own.copy ",
            words.replace("takes a contiguous array", "takes a contiguous array that it may write to"),
        ):
            run("copy", 24, good, wrong)
        assert not good.any()


def test_strided_arrays_may_lie_in_any_way(run):
    whole = np.arange(12, dtype=F32)
    for x, step in ((whole[::3], 3), (whole[::-2], -2), (whole.reshape(3, 4).T[1], 4), (whole, 1), (whole[1:2], 9)):
        y = np.zeros(12, F32)[:: abs(step)][: len(x)]
        y = y[::-1] if step < 0 else y
        run("pick", len(x), x, step, y)
        assert y.tolist() == x.tolist()
        read_only = x[:]
        read_only.flags.writeable = False
        run("pick", len(x), read_only, step, y)
        with refuses(TypeError, "own.pick takes an aligned array that it may write to, not an array of shape"):
            run("pick", len(x), x, step, read_only)
    odd = np.zeros(97, np.uint8)[1:].view(F32)
    with refuses(TypeError, "own.pick takes an aligned array, not an array of shape (24,)"):
        run("pick", 4, odd, 1, whole)
    with refuses(TypeError, "own.pick takes an array of float32, not an array of shape (12,) and dtype float64"):
        run("pick", 4, whole.astype(F64), 1, whole)


def test_read_only_arrays_are_read_only(run):
    x, y = np.arange(4, dtype=F32), np.zeros(4, F32)
    for read_only in (np.frombuffer(x.tobytes(), F32), np.broadcast_to(x, (4,))):
        assert not read_only.flags.writeable
        y[:] = 0
        run("copy", 4, read_only, y)
        assert y.tolist() == x.tolist()
        with refuses(TypeError, "own.copy takes a contiguous array that it may write to, not an array of shape (4,)"):
            run("copy", 4, y, read_only)
        assert read_only.tolist() == x.tolist()


def test_none_is_a_null_pointer(run):
    y = np.full(1, 9, np.uint8)
    run("is_null", 1, None, y)
    assert y[0] == 1
    for x in (np.zeros(1, F32), np.zeros(0, F32), np.zeros((2, 0), F32)):
        run("is_null", 1, x, y)
        assert y[0] == 0
    with refuses(TypeError, "a number does not fit own.numbers: "):
        run("numbers", 1, *[None] * len(NUMBERS), np.zeros(len(NUMBERS)))


def test_arrays_without_elements_or_without_axes(run):
    run("copy", 1, np.array(3.0, F32), y := np.array(0.0, F32))
    assert y == 3
    for shape in ((0,), (3, 0), (0, 3)):
        empty = np.zeros(shape, F32)
        assert address(empty, READ) == empty.ctypes.data == address(empty, WRITTEN)
        empty.flags.writeable = False
        assert address(empty, READ) == empty.ctypes.data


def test_an_address_is_where_an_array_begins():
    x = np.zeros(10, F32)
    for part in (x, x[3:], x[3:].reshape(7, 1), x[:0]):
        assert address(part, READ) == address(part, WRITTEN) == part.ctypes.data
    x.flags.writeable = False
    assert address(x[3:], READ) == x.ctypes.data + 12
    assert address(None, READ) == 0
    gaps = np.zeros((4, 6), F32)[:, 1::2]
    assert address(gaps, STRIDED) == gaps.ctypes.data
    with refuses(TypeError, "f takes a contiguous array, not an array of shape (4, 3)"):
        address(gaps, READ)


def test_the_number_of_arguments(run):
    y = np.zeros(4, F32)
    for wrong in ([], [y], [y, y, y]):
        with refuses(TypeError, f"own.copy takes 2 arguments, not {len(wrong)}"):
            run("copy", 4, *wrong)
    for wrong in ("1", 1j, y, 1.5, 2**63):
        with refuses(TypeError, "a number does not fit own.numbers: "):
            run("numbers", 1, 1.0, 1.0, wrong, *[1] * (len(NUMBERS) - 3), np.zeros(len(NUMBERS)))


def test_contiguous():
    x = np.arange(24, dtype=F32).reshape(4, 6)
    fixed = x.copy()
    fixed.flags.writeable = False
    for same in (x, x[1:], fixed, np.zeros(0, F32), np.array(1.0)):
        assert contiguous(same) is same
    odd = np.zeros(97, np.uint8)[1:].view(F32).reshape(4, 6)
    odd[:] = x
    still = odd[:]
    still.flags.writeable = False
    for other in (x.T, x[:, ::2], x[::-1], np.broadcast_to(x[0], (3, 6)), np.asfortranarray(x), odd, still):
        copy = contiguous(other)
        assert copy.flags.carray and copy.dtype == F32 and not np.shares_memory(copy, other)
        np.testing.assert_array_equal(copy, other)


# --------------------------------------------------------------------------------- what the files declare
@pytest.mark.parametrize("name", FILES)
def test_every_declaration_is_read(cc, name):
    """KERNEL appears in a file where a kernel is declared; launch() reads each, and finds its wrapper in the library."""
    source = re.sub(r"//.*", "", compiler.source_of(name))
    kernels = declarations.declared(compiler.source_of(name))
    assert kernels and len(kernels) == len(re.findall(r"\bKERNEL\b", source)) - 1  # its definition
    for kernel, arguments in kernels.items():
        for real in launch.REALS.values():
            wrapper, _, kinds, has_room = launch._kernel(f"{name}.{kernel}", real)
            assert wrapper and len(kinds) + has_room == len(arguments)
            assert [kind is not None for kind in kinds] == [a.is_array for a in arguments if a.name != "room"]


@pytest.mark.parametrize("real", launch.REALS.values())
@pytest.mark.parametrize("name", ALL_FILES)
def test_a_file_gives_the_compiler_no_reason_to_warn(cc, tmp_path, name, real):
    command = [word for word in compiler.command_for(real) if word != "-w"]
    warnings = "-O0 -Wall -Wextra -Werror -Wno-unused-function -x c - -lm -o".split()
    source = compiler.source_of(name).encode()
    done = subprocess.run([*command, *warnings, str(tmp_path / "made.so")], input=source, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("name", FILES)
def test_every_kernel_is_launched_by_the_file_beside_it(name):
    text = (compiler.HERE / f"{name}.py").read_text("utf-8")
    for kernel in declarations.declared(compiler.source_of(name)):
        assert f'"{name}.{kernel}"' in text or (f'f"{name}.{{kernel}}"' in text and f'("{kernel}"' in text)
