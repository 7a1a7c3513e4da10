"""TensorBoard's files: numbers and images of a run, for `tensorboard --logdir FOLDER`. No package
is needed to write them.

A file is a sequence of records, each of them: the length of its data (8 bytes, little-endian), a
checksum of these 8 bytes (4), the data, a checksum of the data (4). The checksum is CRC-32C,
rotated and shifted by a constant. The data are an Event, a message of Protocol Buffers: each field
begins with number · 8 + kind; of kind 0 (an integer of any length), 1 (8 bytes), 2 (a length, and
so many bytes) or 5 (4 bytes).

    Event      wall_time = 1 (double), step = 2 (int64), file_version = 3 (string),
               summary = 5 (Summary), session_log = 7 (SessionLog)
    Summary    value = 1 (Value), any number of them
    Value      tag = 1 (string), simple_value = 2 (float), image = 4 (Image)
    Image      height = 1, width = 2 (int32), encoded_image_string = 4 (bytes)
    SessionLog status = 1 (an enum, START is 1)

What a killed program has written stays readable: every record goes to the file at once, and a
record of which only a part came to the disk is the last of its file, because each start, and each
write after one that failed, makes a new file. Readers take the files of a folder in the order of
their names.
"""

import io
import os
import re
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

NAME = re.compile(r"events\.out\.tfevents\.(\d{10})\b.*")  # seconds since 1970
START = 1  # of a SessionLog


def _table() -> list[int]:
    """CRC-32C of each byte."""
    table = list(range(256))
    for _ in range(8):
        table = [(crc >> 1) ^ (0x82F63B78 if crc & 1 else 0) for crc in table]
    return table


TABLE = _table()


def checksum(data: bytes) -> int:
    """The masked CRC-32C of a record's data."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def integer(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth bit says that more follow."""
    value, more = value & (1 << 64) - 1, bytearray()
    while value > 127:
        more.append(value & 127 | 128)
        value >>= 7
    return bytes([*more, value])


def field(number: int, value: int | bytes | str) -> bytes:
    """A field of kind 0 or 2."""
    if isinstance(value, int):
        return integer(8 * number) + integer(value)
    if isinstance(value, str):
        value = value.encode(errors="replace")  # the name of a folder can have any bytes
    return integer(8 * number + 2) + integer(len(value)) + value


def event(step: int, content: bytes) -> bytes:
    """The record of an Event that happens now."""
    data = integer(8 + 1) + struct.pack("<d", time.time()) + field(2, step) + content
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", checksum(length)), data, struct.pack("<I", checksum(data))))


class Events:
    """The numbers and images of one start of a run, in a file of their own in a folder. Of several
    processes, one writes.

    Args:
        folder: where the file is made. It may hold those of earlier starts, and may not exist yet.
        purge_step: the first step that it will write, which is not 0 if the run continues: readers
            drop what earlier files say of this step and of later ones. (TensorBoard's default
            reader does so tag by tag, when a tag is written again.)
    Raises:
        OSError: the file cannot be made.

    Example:
        events = Events(folder, purge_step=optimizer.steps + 1)
        events.scalars(optimizer.steps, {"loss/train": 2.3, "lr": 0.01})
        events.image(optimizer.steps, "conv1", Path("filters.png").read_bytes())
        events.close()
    """

    def __init__(self, folder: str | os.PathLike[str], purge_step: int = 0) -> None:
        self.folder, self.failed = Path(folder), False
        self.file: io.FileIO | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        # Also of the first start: one of TensorBoard's two loaders ignores the first of these
        # records.
        self._begin(event(purge_step, field(7, field(1, START))))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers by their tags: what is before a slash in a tag is the group in which it is
        shown. Numbers are rounded to float32; NaN and infinities are numbers too.

        Raises:
            OSError: the file cannot be written, as when the disk is full. It is raised once. Later
                calls try it again, each in a new file, and are silent until one succeeds.
        """
        with np.errstate(over="ignore"):  # beyond float32 is infinite
            numbers = {tag: np.float32(value).tobytes() for tag, value in values.items()}
        self._write(step, {tag: integer(8 * 2 + 5) + number for tag, number in numbers.items()})

    def image(self, step: int, tag: str, png: bytes) -> None:
        """Write an image: the bytes of a PNG file.

        Raises:
            OSError: as for scalars.
        """
        width, height = struct.unpack(">II", png[16:24])
        self._write(step, {tag: field(4, field(1, height) + field(2, width) + field(4, png))})

    def close(self) -> None:
        """Close the file. What comes later goes to a new one."""
        file, self.file = self.file, None
        if file:
            file.close()

    def _write(self, step: int, values: Mapping[str, bytes]) -> None:
        record = event(step, field(5, b"".join(field(1, field(1, tag) + value) for tag, value in values.items())))
        try:
            append(self.file or self._begin(), record)
            self.failed = False
        except OSError:
            with suppress(OSError):
                self.close()
            known, self.failed = self.failed, True
            if not known:
                raise

    def _begin(self, record: bytes = b"") -> io.FileIO:
        """A new file, which sorts behind those that are there, even if the clock says otherwise."""
        found = [int(match[1]) for match in map(NAME.fullmatch, os.listdir(self.folder)) if match]
        second = max([int(time.time()), *(second + 1 for second in found)])
        path = self.folder / f"events.out.tfevents.{second:010d}.minicnn"
        self.file = open(path, "xb", buffering=0)  # noqa: SIM115 (until close)
        try:
            append(self.file, event(0, field(3, "brain.Event:2")) + record)
        except OSError:
            with suppress(OSError):
                self.close()
            with suppress(OSError):
                path.unlink()
            raise
        return self.file


def append(file: io.FileIO, record: bytes) -> None:
    """Write all of it at once: there is no buffer that would be lost with the program."""
    rest = memoryview(record)
    while rest:
        rest = rest[file.write(rest) :]
