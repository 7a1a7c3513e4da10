"""events.py: TensorBoard's files, read here by a reader of its own and, where it is installed, by TensorBoard."""

import errno
import math
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given
from support import events
from support.events import Events

PNG = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\2\0\0\1\3\x08\2\0\0\0"  # 2 by 259 pixels: what follows is not looked at
    + bytes(range(256))
)


# -- a reader ---------------------------------------------------------------------------------------------------------


def crc32c(data):
    """Bit by bit."""
    crc = 2**32 - 1
    for byte in data:
        for i in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if (crc ^ byte >> i) & 1 else 0)
    return crc ^ 2**32 - 1


def masked(crc):
    turned = f"{crc:032b}"
    return (int(turned[-15:] + turned[:-15], 2) + 0xA282EAD8) % 2**32


def varint(data):
    value = count = 0
    while True:
        value += (data[count] & 127) << 7 * count
        count += 1
        if data[count - 1] < 128:
            return value, data[count:]


def message(data):
    """{number of a field: its values}, each an int or bytes."""
    found = {}
    while data:
        key, data = varint(data)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, data = varint(data)
        else:
            size, data = varint(data) if kind == 2 else ({1: 8, 5: 4}[kind], data)
            value, data = data[:size], data[size:]
            assert len(value) == size
        found.setdefault(number, []).append(value)
    return found


def records(path):
    """The Events of a file; a record of which only a part is there is the last."""
    data, found = path.read_bytes(), []
    while len(data) >= 12:
        (length, length_sum), data = struct.unpack("<QI", data[:12]), data[12:]
        assert length_sum == masked(crc32c(struct.pack("<Q", length)))
        if len(data) < length + 4:
            break
        (data_sum,) = struct.unpack("<I", data[length : length + 4])
        assert data_sum == masked(crc32c(data[:length]))
        found.append(message(data[:length]))
        data = data[length + 4 :]
    return found


def files(folder):
    return [folder / name for name in sorted(os.listdir(folder))]


def points(folder):
    """[(step, tag, number or image)] of all files, and what a purge leaves of them."""
    found = []
    for path in files(folder):
        first, *rest = records(path)
        assert first[3] == [b"brain.Event:2"] and first[2] == [0] and set(first) == {1, 2, 3}
        for record in rest:
            (step,) = record[2]
            assert 1e9 < struct.unpack("<d", record[1][0])[0] < 1e10
            if 7 in record:
                assert message(record[7][0]) == {1: [1]} and set(record) == {1, 2, 7}
                found = [point for point in found if point[0] < step]
                continue
            (summary,) = record[5]
            for value in message(summary)[1]:
                fields = message(value)
                (tag,) = fields[1]
                number = struct.unpack("<f", fields[2][0])[0] if 2 in fields else message(fields[4][0])
                found.append((step, tag.decode(), number))
    return found


@pytest.fixture
def clock(monkeypatch):
    """clock[0] is the time."""
    now = [1.75e9]
    monkeypatch.setattr(events.time, "time", lambda: now[0])
    return now


# -- what is written --------------------------------------------------------------------------------------------------


@given(st.binary(max_size=50))
def test_the_checksum(data):
    assert events.checksum(data) == masked(crc32c(data))


def test_the_checksum_of_the_standard(monkeypatch):
    """RFC 3720, appendix B.4, and the usual "123456789"."""
    monkeypatch.setattr(events, "TABLE", events._table())
    assert len(events.TABLE) == 256 and crc32c(b"123456789") == 0xE3069283 and crc32c(bytes(32)) == 0x8A9136AA
    assert events.checksum(bytes(32)) == masked(0x8A9136AA)


def test_numbers_and_images(tmp_path):
    writer = Events(tmp_path / "new" / "folder")
    writer.scalars(1, {"loss/train": 2.5, "lr": 0.01})
    writer.scalars(127, {"loss/train": 2, "café": -1e-30})
    writer.image(128, "conv1", PNG)
    writer.scalars(3_000_000_000, {"a\udce9": 0.0})
    writer.close()
    image = {1: [259], 2: [2], 4: [PNG]}
    assert points(tmp_path / "new" / "folder") == [
        (1, "loss/train", 2.5), (1, "lr", pytest.approx(0.01)), (127, "loss/train", 2.0),
        (127, "café", pytest.approx(-1e-30)), (128, "conv1", image), (3_000_000_000, "a?", 0.0),
    ]  # fmt: skip


@pytest.mark.parametrize("value, written", [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\1"), (-1, 9 * b"\xff" + b"\1")])
def test_whole_numbers(value, written):
    """Of protobuf's int64: a negative one has ten bytes."""
    assert events.integer(value) == written and varint(written) == (value % 2**64, b"")


def test_numbers_that_are_not_finite(tmp_path):
    """Those too large for float32 are infinite."""
    writer = Events(tmp_path)
    writer.scalars(0, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1e300})
    writer.close()
    nan, *rest = [number for _, _, number in points(tmp_path)]
    assert math.isnan(nan) and rest == [math.inf, -math.inf, math.inf]


def test_each_record_is_in_the_file_at_once(tmp_path):
    writer = Events(tmp_path)
    for i in range(3):
        assert len(points(tmp_path)) == i
        writer.scalars(i, {"loss": i})
    writer.close()
    assert len(points(tmp_path)) == 3


# -- starts -----------------------------------------------------------------------------------------------------------


def write(folder, *steps, **options):
    writer = Events(folder, **options)
    for step in steps:
        writer.scalars(step, {"loss": step})
    writer.close()


def test_a_run_that_continues(tmp_path):
    """It repeats steps after its last checkpoint: what was written of them before is dropped."""
    write(tmp_path, 1, 2, 3, 4)
    write(tmp_path, 3, purge_step=3)
    assert [(step, number) for step, _, number in points(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    write(tmp_path, 4, purge_step=4)
    assert [step for step, _, _ in points(tmp_path)] == [1, 2, 3, 4]
    write(tmp_path, 1)
    assert [step for step, _, _ in points(tmp_path)] == [1] and len(files(tmp_path)) == 4


def test_each_start_has_a_purge_record(tmp_path):
    """Also the first one: TensorBoard's server with --load_fast=false takes the first such record of a folder for the
    beginning, and purges at the others."""
    write(tmp_path, 1)
    write(tmp_path, 2, purge_step=2)
    assert [records(path)[1][2] for path in files(tmp_path)] == [[0], [2]]
    assert all(message(records(path)[1][7][0]) == {1: [1]} for path in files(tmp_path))


@pytest.mark.parametrize("times", [[1.75e9] * 3, [1.75e9, 1.7e9, 1.6e9], [1.7e9, 1.75e9, 1.7e9]])
def test_files_sort_in_the_order_of_the_starts(tmp_path, clock, times):
    """Also those within a second, and those before which the clock was set back."""
    for step, clock[0] in enumerate(times):
        write(tmp_path, step, purge_step=step)
    assert [step for step, _, _ in points(tmp_path)] == [0, 1, 2]
    assert {path.name[:19] for path in files(tmp_path)} == {"events.out.tfevents"}


def test_files_of_others(tmp_path, clock):
    """Also of other programs, whose names have more parts; what is not of TensorBoard's does not count."""
    for name in (
        "events.out.tfevents.1750000007.host.12.0",
        "events.out.tfevents.17500000099",
        "xevents.out.tfevents.1750000099",
    ):
        (tmp_path / name).touch()
    write(tmp_path, 1)
    assert (tmp_path / "events.out.tfevents.1750000008.minicnn").exists()
    clock[0] = 1.75e9 + 60
    write(tmp_path, 1)
    assert (tmp_path / "events.out.tfevents.1750000060.minicnn").exists()


# -- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 3, 4, 5, 30])
def test_a_torn_record_is_the_last_of_its_file(tmp_path, lost):
    write(tmp_path, 1, 2)
    (path,) = files(tmp_path)
    os.truncate(path, path.stat().st_size - lost)
    write(tmp_path, 2, 3, purge_step=2)
    assert [step for step, _, _ in points(tmp_path)] == [1, 2, 3]


@pytest.fixture
def disk(monkeypatch):
    """disk["free"] bytes are left on it."""
    left, append = {"free": 10_000}, events.append

    class File:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            count = min(len(data), left["free"], 50)  # never more than 50 at a time
            if not count:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left["free"] -= count
            return self.file.write(data[:count])

    monkeypatch.setattr(events, "append", lambda file, record: append(File(file), record))
    return left


def test_a_disk_that_is_full_and_then_freed(tmp_path, disk):
    """One error; later calls are silent, leave no empty files, and go on in a new file when there is space."""
    writer = Events(tmp_path)
    writer.image(1, "conv1", PNG)
    disk["free"] = 20
    with pytest.raises(OSError, match="No space left"):
        writer.scalars(2, {"loss": 2.0})
    for step in (3, 4):
        writer.scalars(step, {"loss": 2.0})
    disk["free"] = 20
    writer.scalars(5, {"loss": 2.0})
    assert len(files(tmp_path)) == 1
    disk["free"] = 10_000
    writer.scalars(6, {"loss": 2.0})
    writer.scalars(7, {"loss": 2.0})
    disk["free"] = 0
    with pytest.raises(OSError, match="No space left"):
        writer.scalars(8, {"loss": 2.0})
    writer.close()
    assert [(step, tag) for step, tag, _ in points(tmp_path)] == [(1, "conv1"), (6, "loss"), (7, "loss")]
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("where", ["close", "unlink"])
def test_an_error_after_the_error(tmp_path, monkeypatch, disk, where):
    """It is not the one that is raised."""
    writer, (owner, original) = (
        Events(tmp_path),
        {"close": (Events, Events.close), "unlink": (Path, Path.unlink)}[where],
    )

    def failing(*arguments):
        original(*arguments)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk["free"] = 20
    with monkeypatch.context() as patch:
        patch.setattr(owner, where, failing)
        for call in (lambda: writer.scalars(1, {"loss": 1.0}), lambda: Events(tmp_path)):
            with pytest.raises(OSError, match="No space left"):
                call()
    writer.scalars(1, {"loss": 1.0})


def test_no_file_can_be_made(tmp_path, disk):
    disk["free"] = 30
    with pytest.raises(OSError, match="No space left"):
        Events(tmp_path)
    assert files(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Events(tmp_path / "file")


def test_the_folder_has_gone(tmp_path):
    writer = Events(tmp_path / "run")
    writer.close()
    for path in files(tmp_path / "run"):
        path.unlink()
    (tmp_path / "run").rmdir()
    with pytest.raises(FileNotFoundError):
        writer.scalars(1, {"loss": 1.0})
    writer.scalars(2, {"loss": 1.0})
    (tmp_path / "run").mkdir()
    writer.scalars(3, {"loss": 1.0})
    writer.close()
    assert [step for step, _, _ in points(tmp_path / "run")] == [3]


# -- TensorBoard ------------------------------------------------------------------------------------------------------

WRITER = """
import os, signal, sys
from support.events import Events
first, last, purge = map(int, sys.argv[2:])
writer = Events(sys.argv[1], purge_step=purge)
for step in range(first, last):
    writer.scalars(step, {"loss/train": 10 * last + step, "odd": float("nan")})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_tensorboard_reads_killed_and_continued_runs(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    for arguments in ((1, 31, 0), (21, 41, 21)):  # killed at step 30, 10 steps after its checkpoint
        command = [sys.executable, "-c", WRITER, tmp_path, *arguments]
        done = subprocess.run(
            list(map(str, command)), cwd=Path(events.__file__).parents[1], env={**os.environ, "PYTHONPATH": "."}
        )
        assert done.returncode == -signal.SIGKILL
    found = accumulator.EventAccumulator(str(tmp_path)).Reload()
    losses = [(event.step, event.value) for event in found.Scalars("loss/train")]
    assert losses == [(step, (310 if step < 21 else 410) + step) for step in range(1, 41)]
    assert all(math.isnan(event.value) for event in found.Scalars("odd"))
