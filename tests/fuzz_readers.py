"""A coverage-guided fuzzer of what reads files: checkpoints, images, folders of images, CIFAR-10.

    python tests/fuzz_readers.py --minutes 60                 all readers, a quarter of the time each
    python tests/fuzz_readers.py --reader images --inputs 500
    python tests/fuzz_readers.py --reader images --replay FILE

Inputs are changed ones: bits, numbers and pieces of files that the code itself has written, and of those that reached
a pair of lines, one run after the other, that none had reached before. A process with a limit of memory and of time
reads each; that it crashes or hangs is noticed, too. What is read is compared with what another way of reading it
gives, and what is refused must be one line that names the file. Each input that is neither is saved, and counts as a
failure: exit status 1. The same seed and number of inputs give the same run.
"""

import argparse
import contextlib
import faulthandler
import hashlib
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import stat
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import minicnn
from minicnn.checkpoint import DTYPES, CheckpointError
from minicnn.data import CIFAR10, DataError, ImageFolder, cifar10, folder, read_image

MINICNN = os.path.dirname(minicnn.__file__)
LIMIT = 60.0  # seconds for one input, of a machine with other work
MEMORY = 6 << 30  # bytes of address space; Pillow reads 179 million pixels, for which a gigabyte and a half is needed
LONGEST = 1 << 16  # bytes of an input that is kept
NUMBERS = [0, 1, 2, 3, 7, 8, 63, 64, 65, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536, 100_000_000, 100_000_001]
NUMBERS += [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**31), -(2**63)]

Arc = tuple[str, int, int]  # a function's file, and two lines of it, one run after the other


# ------------------------------------------------------------------------------------------------------------- readers
class Reader:
    """What is fuzzed. read() is what is traced; check() raises an AssertionError if the result is wrong."""

    refusals: tuple[type[Exception], ...] = (DataError,)
    traced: tuple[str, ...] = (MINICNN,)
    words: tuple[bytes, ...] = ()

    def seeds(self) -> list[bytes]:
        raise NotImplementedError

    def changed(self, data: bytes, chance: random.Random) -> bytes:
        """The input with a change that fits its form; by default none."""
        return data

    def worth(self, data: bytes) -> bool:
        """Whether it may be kept to be changed further: what takes seconds may not."""
        return len(data) <= LONGEST

    def read(self, data: bytes, at: Path) -> Any:
        raise NotImplementedError

    def check(self, data: bytes, at: Path, result: Any) -> None:
        raise NotImplementedError


def node_changed(node: Any, chance: random.Random) -> Any:
    """JSON with one change somewhere."""
    values = [
        chance.choice(NUMBERS),
        None,
        True,
        1.0,
        "",
        "F32",
        "BF16",
        "minicnn.",
        [],
        {},
        [0, 4],
        "0" * 64,
        "\ud800",
    ]
    if isinstance(node, dict) and node and chance.random() < 0.9:
        key = chance.choice([*node])
        match chance.randrange(6):
            case 0:
                return {name: value for name, value in node.items() if name != key}
            case 1:
                return {
                    (chance.choice([*node, "info", "__metadata__", "x"]) if name == key else name): value
                    for name, value in node.items()
                }
            case 2:
                other = chance.choice([*node])
                return node | {key: node[other], other: node[key]}
        return node | {key: node_changed(node[key], chance)}
    if isinstance(node, list) and node and chance.random() < 0.9:
        place = chance.randrange(len(node))
        match chance.randrange(4):
            case 0:
                return node[:place] + node[place + 1 :]
            case 1:
                return node[:place] + node[place : place + 1] * chance.choice([2, 3, 70]) + node[place:]
        return node[:place] + [node_changed(node[place], chance)] + node[place + 1 :]
    if isinstance(node, int) and chance.random() < 0.5:
        return node + chance.choice([-8, -4, -1, 1, 4, 8])
    return chance.choice(values)


class Checkpoints(Reader):
    refusals = (CheckpointError,)
    words = (
        b"minicnn.",
        b'"dtype"',
        b'"F32"',
        b'"I64"',
        b'"BOOL"',
        b'"shape"',
        b"[0]",
        b"[]",
        b"{}",
        b",",
        b'"__metadata__"',
        b"\\ud800",
        b"1e9",
        b" ",
    )

    def seeds(self) -> list[bytes]:
        chance = np.random.default_rng(0)
        contents: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({}, {}),
            ({"a": np.ones(2, np.float32), "b": np.zeros((2, 2)), "c": np.array(3), "d": np.array([True, False]), "e": np.ones((0, 3), np.int8)}, {"epoch": 1}),
            ({f"layer{i}.weight": chance.standard_normal((3, 2)).astype(np.float16) for i in range(4)}, {"config": {"classes": ["cat", "dog"]}, "rows": [{"loss": 0.5}]}),
        ]  # fmt: skip
        found = []
        with tempfile.TemporaryDirectory() as at:
            for arrays, info in contents:
                minicnn.save(path := Path(at, "net"), arrays, info)
                found.append(path.read_bytes())
        _, header, body = self.parts(found[1])
        header["__metadata__"] = {"info": header["__metadata__"]["info"]}
        found.append(self.whole(header, body))  # of the first version
        del header["__metadata__"]
        return [*found, self.whole(header, body)]  # of another program

    @staticmethod
    def parts(data: bytes) -> tuple[int, Any, bytes]:
        start = 8 + int.from_bytes(data[:8], "little")
        return start, json.loads(data[8:start]), data[start:]

    @staticmethod
    def whole(header: Any, body: bytes, signed: bool = False) -> bytes:
        """A file. signed: with a right checksum, if it has one at all."""
        if signed and isinstance(header, dict) and isinstance(texts := header.get("__metadata__"), dict):
            header = header | {"__metadata__": texts | {"minicnn.checksum": f"minicnn.sha256:{'0' * 64}"}}
        text = json.dumps(header).encode()
        data = len(text).to_bytes(8, "little") + text + body
        return data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1) if signed else data

    def changed(self, data: bytes, chance: random.Random) -> bytes:
        try:
            _, header, body = self.parts(data)
        except (ValueError, RecursionError):
            return data
        for _ in range(chance.choice([0, 1, 1, 2, 4])):
            header = node_changed(header, chance)
        body = changed(body, chance) if chance.random() < 0.3 else body
        return self.whole(header, body, chance.random() < 0.5)

    def read(self, data: bytes, at: Path) -> Any:
        (at / "input").write_bytes(data)
        return minicnn.load(at / "input")

    def check(self, data: bytes, at: Path, result: Any) -> None:
        """The header once more, the checksum, and the package if it is there."""
        arrays, info = result
        start, header, body = self.parts(data)
        texts = header.pop("__metadata__", {})
        assert info == json.loads(texts.get("info", "{}")) or info != info
        told = texts.get("minicnn.checksum")
        if any(text.startswith("minicnn.") for text in (*texts, *texts.values())):
            digits = told.removeprefix("minicnn.sha256:")
            assert len(digits) == 64 and told.startswith("minicnn.sha256:")
            zeros = data[:start].replace(digits.encode(), b"0" * 64, 1) + body
            assert hashlib.sha256(zeros).hexdigest() == digits, "accepted with a wrong checksum"
        assert arrays.keys() == header.keys()
        taken = 0
        for name, array in arrays.items():
            entry = header[name]
            begin, end = entry["data_offsets"]
            taken += end - begin
            assert array.shape == tuple(entry["shape"]) and array.dtype == np.dtype(DTYPES[entry["dtype"]])
            assert array.tobytes() == body[begin:end] and array.nbytes == end - begin >= 0
        assert taken == len(body)
        with contextlib.suppress(ImportError):
            import safetensors

            theirs = dict(safetensors.deserialize(data))
            assert theirs.keys() == arrays.keys()
            assert all(bytes(theirs[name]["data"]) == array.tobytes() for name, array in arrays.items())


class Images(Reader):
    words = (b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"eXIf", b"zTXt", b"iCCP", b"acTL", b"fcTL", b"Exif\0\0", b"\xff\xd8", b"\xff\xc0", b"\xff\xda", b"\xff\xe1",
             b"II*\0", b"MM\0*", b"GIF89a", b"BM", b"RIFF", b"WEBP", b"VP8X", b"P5 ", b"P6 ", b"P2", b"ftypavif", b"#", b"\n")  # fmt: skip

    def __init__(self) -> None:
        import PIL

        self.traced = (MINICNN, os.path.dirname(PIL.__file__))  # whose Python reads the headers

    def seeds(self) -> list[bytes]:
        import odd_images

        found = [content for _, content, shown, _ in odd_images.every_mode() if shown is not None]
        whole = odd_images.Image.fromarray(odd_images.RGB)
        for format in ("JPEG", "PNG", "WEBP", "TIFF"):
            exif = odd_images.Image.Exif()
            exif[0x0112] = 6
            found.append(odd_images.encoded(whole, format, exif=exif))
        frames = [odd_images.Image.new("L", (8, 8), level) for level in (0, 100, 255)]
        for format in ("GIF", "PNG", "WEBP", "TIFF"):
            found.append(odd_images.encoded(frames[0], format, save_all=True, append_images=frames[1:]))
        for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
            found.append(odd_images.encoded(whole, "TIFF", compression=compression))
        found.append(odd_images.encoded(whole, "PNG", transparency=(1, 2, 3)))
        found.append(odd_images.encoded(whole, "JPEG", progressive=True, comment="a"))
        return found

    def changed(self, data: bytes, chance: random.Random) -> bytes:
        """The checksums of a PNG's chunks made right, after a change to one of them, or to their order."""
        if not data.startswith(b"\x89PNG\r\n\x1a\n"):
            return data
        chunks, at = [], 8
        while at + 8 <= len(data):
            length, kind = struct.unpack_from(">I4s", data, at)
            chunks.append((kind, data[at + 8 : at + 8 + length]))
            at += 12 + length
        place = chance.randrange(len(chunks) or 1)
        if chunks:
            kind, content = chunks[place]
            match chance.randrange(5):
                case 0:
                    chunks.insert(chance.randrange(len(chunks)), chunks.pop(place))
                case 1:
                    chunks[place] = chance.choice(self.words[:9]), content
                case 2 if kind == b"IDAT":
                    with contextlib.suppress(zlib.error):
                        chunks[place] = kind, zlib.compress(changed(zlib.decompress(content), chance))
                case _:
                    chunks[place] = kind, changed(content, chance)
        parts = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
        return data[:8] + b"".join(parts)

    def worth(self, data: bytes) -> bool:
        from PIL import Image

        width = height = 0
        with contextlib.suppress(Exception), Image.open(io.BytesIO(data)) as image:
            width, height = image.size
        return super().worth(data) and width * height < 1_000_000

    def read(self, data: bytes, at: Path) -> Any:
        (at / "input").write_bytes(data)
        least = (None, 16)[sum(data[-8:]) % 2]
        return read_image(at / "input", least), least

    def check(self, data: bytes, at: Path, result: Any) -> None:
        """Its size, and for the ordinary modes the colors, as Pillow alone gives them."""
        from PIL import Image, ImageOps

        found, least = result
        assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3 and not found.flags.writeable
        if least is not None:
            assert min(found.shape[:2]) == least or min(found.shape[:2]) < least
            return
        with Image.open(io.BytesIO(data)) as image:
            plain = image.mode in ("1", "L", "LA", "RGB", "RGBA", "CMYK") and image.format in (
                "JPEG",
                "GIF",
                "BMP",
                "WEBP",
                "PPM",
            )
            if not plain or image.width * image.height > 1_000_000:
                return
            image.load()
            with contextlib.suppress(Exception):  # of tags that are damaged
                image = ImageOps.exif_transpose(image)
            size = image.height, image.width
            assert found.shape[:2] == size
            image = image.convert("RGBA")
        colors = np.asarray(image).astype(float)
        share = colors[:, :, 3:] / 255
        assert abs(found - (colors[:, :, :3] * share + 255 * (1 - share))).max() <= 1.01


class Folders(Reader):
    """Each line of an input makes one thing: f(ile), d(irectory), l(ink) or p(ipe), a path, and for a link where it
    leads."""

    words = (
        b"f ",
        b"d ",
        b"l ",
        b"p ",
        b"\n",
        b"/",
        b"cat",
        b"dog",
        b"images",
        b".jpg",
        b".PNG",
        b"@eaDir",
        b"..",
        b" ",
        b"caf\xc3\xa9",
        b"cafe\xcc\x81",
        b"\xff",
    )

    def seeds(self) -> list[bytes]:
        return [
            b"f cat/1.jpg\nf cat/2.PNG\nf dog/a.gif\nf dog/notes.txt\n",
            b"f cat/images/1.jpg\nf dog/images/1.jpg\nf dog/boxes.txt\nd @eaDir\nf .hidden/1.png\n",
            b"f cat/1.jpg\nl cat/2.jpg 1.jpg\nl cat/3.jpg 3.jpg\np cat/4.jpg\nl dog cat\nl eel eel\nl cat/up ..\n",
            b"f cat/a/b/1.jpg\nf dog/1.jpg\nl fox ../..\n",
            b"f caf\xc3\xa9/1.jpg\nf caf\xe9/\xff.jpg\nf \x1b[2J/1.jpg\n",
        ]

    def read(self, data: bytes, at: Path) -> Any:
        root = os.fsencode(at / "root")
        shutil.rmtree(root, ignore_errors=True)
        os.mkdir(root)
        for line in data.split(b"\n")[:50]:
            kind, _, rest = line.partition(b" ")
            path, _, target = rest.partition(b" ")
            inside = b"/".join(part for part in path.split(b"/") if part not in (b"", b".", b".."))
            with contextlib.suppress(OSError, ValueError):
                path = os.path.join(root, inside)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                if kind == b"f":
                    open(path, "xb").close()
                elif kind == b"d":
                    os.mkdir(path)
                elif kind == b"l":
                    os.symlink(target, path)
                elif kind == b"p":
                    os.mkfifo(path)
        return ImageFolder(at / "root")

    def check(self, data: bytes, at: Path, result: Any) -> None:
        root, expected = str(at / "root"), []

        def is_kind(path: str, kind: Callable[[int], bool]) -> bool:
            with contextlib.suppress(OSError):
                return kind(os.stat(path).st_mode)
            return False

        def images(name: str) -> list[str]:
            paths = (f"{name}/{file}" for file in os.listdir(name) if not file.startswith("."))
            return sorted(p for p in paths if os.path.splitext(p)[1].lower() in endings and is_kind(p, stat.S_ISREG))

        endings = {ending for ending in folder.ENDINGS if ending != ".avif" or "AVIF" in folder.formats()}
        for label, name in enumerate(result.classes):
            own = images(f"{root}/{name}") or images(f"{root}/{name}/images")
            assert own and not name.startswith(".")
            expected += [(path, label) for path in own]
        assert result.samples == expected and result.classes == sorted(set(result.classes)) and len(result.classes) > 1


class Cifar(Reader):
    """An input is the length of the file of names, in two bytes, that file, and a file of records."""

    words = (b"\n", b" ", b"cat\n", b"\xff", bytes(3073), bytes([9]) + bytes(3072))
    NAMES = b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n"

    def seeds(self) -> list[bytes]:
        chance = np.random.default_rng(0)
        records = chance.integers(0, 256, (2, 3073), dtype=np.uint8)
        records[:, 0] = 3, 9
        return [
            len(self.NAMES).to_bytes(2, "little") + self.NAMES + part
            for part in (records.tobytes(), records[0].tobytes(), b"")
        ]

    def changed(self, data: bytes, chance: random.Random) -> bytes:
        """The number of records, or of bytes of the last one; a label; a name."""
        end = 2 + int.from_bytes(data[:2], "little")
        names, records = data[2:end], bytearray(data[end:])
        match chance.randrange(4):
            case 0:
                records *= chance.choice([0, 2, 3])
            case 1:
                records = records[: chance.choice([0, 1, 3072, 3073, 3074, 6146])]
            case 2 if records:
                records[chance.randrange(0, len(records), 3073)] = chance.choice([0, 9, 10, 255])
            case _:
                names = changed(names, chance)[:65535]
        return len(names).to_bytes(2, "little") + names + bytes(records)

    def read(self, data: bytes, at: Path) -> Any:
        end = 2 + int.from_bytes(data[:2], "little")
        (at / "batches.meta.txt").write_bytes(data[2:end])
        (at / "test_batch.bin").write_bytes(data[end:])
        with contextlib.suppress(DataError):
            CIFAR10(at, train=False)
            raise AssertionError("accepted, and it is not the official file")
        return CIFAR10(at, train=False, verify=False)

    def check(self, data: bytes, at: Path, result: Any) -> None:
        end = 2 + int.from_bytes(data[:2], "little")
        names, records = data[2:end].decode(errors="replace").split(), data[end:]
        assert result.classes == names and len(names) == 10 and len(result) * cifar10.RECORD == len(records) > 0
        for i in (0, len(result) - 1):
            image, label = result[i]
            record = records[i * cifar10.RECORD : (i + 1) * cifar10.RECORD]
            assert label == record[0] < 10 and image.shape == (32, 32, 3)
            assert all(
                image[y, x, c] == record[1 + 1024 * c + 32 * y + x]
                for c in range(3)
                for y in (0, 31)
                for x in (0, 7, 31)
            )


READERS: dict[str, type[Reader]] = {"checkpoint": Checkpoints, "images": Images, "folders": Folders, "cifar10": Cifar}


# ------------------------------------------------------------------------------------------------------------- changes
def changed(
    data: bytes, chance: random.Random, others: list[bytes] | None = None, words: tuple[bytes, ...] = (b"\0",)
) -> bytes:
    """One change of bytes: of a bit, a number, a piece."""
    a = chance.randrange(len(data) + 1)
    b = min(len(data), a + chance.choice([1, 2, 4, 8, 64, 1024]))
    match chance.randrange(11):
        case 0 | 1 if data:
            place = chance.randrange(len(data))
            return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]
        case 2:
            return data[:a] + chance.randbytes(b - a) + data[b:]
        case 3:
            return data[:a] + data[b:]
        case 4:
            return data[:b] + data[a:b] * chance.choice([1, 2, 50]) + data[b:]
        case 5:
            return data[:a]
        case 6:
            return data[:a] + chance.choice(words) + data[chance.choice([a, b]) :]
        case 7:  # a number of two, four or eight bytes, or one more or less
            form = chance.choice("<>") + chance.choice("BHIQ")
            size = struct.calcsize(form)
            if a + size > len(data):
                return data + bytes(8)
            number = (
                chance.choice([*NUMBERS, struct.unpack_from(form, data, a)[0] + chance.choice([-1, 1])]) % 256**size
            )
            return data[:a] + struct.pack(form, number) + data[a + size :]
        case 8:  # a number in digits
            places = [i for i in range(len(data)) if data[i : i + 1].isdigit()]
            place = chance.choice(places or [a])
            return data[:place] + str(chance.choice(NUMBERS)).encode() + data[place + 1 :]
        case 9 if others:
            other = chance.choice(others)
            return data[:a] + other[chance.randrange(len(other) + 1) :]
        case _:
            c, d = sorted((a, chance.randrange(len(data) + 1)))
            return data[:c] + data[d : d + (b - a)] + data[c:]


# ------------------------------------------------------------------------------------------------------------- running
class Arcs:
    """A trace function that gathers the pairs of lines of some files."""

    def __init__(self, files: tuple[str, ...]):
        self.files, self.found = files, set[Arc]()

    def __call__(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        name, last, found = frame.f_code.co_filename, 0, self.found
        if not name.startswith(self.files):
            return None
        found.add((name, 0, frame.f_lineno))

        def line(frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
            nonlocal last
            if event == "line":
                found.add((name, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line


def attempt(reader: Reader, data: bytes, at: Path) -> tuple[str, str, set[Arc]]:
    """("read", "refused" or a failure's kind, what there is to say, the arcs)"""
    arcs = Arcs(reader.traced)
    what, said = "read", ""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.settrace(arcs)
    try:
        result = reader.read(data, at)
    except reader.refusals as error:
        what, said = "refused", str(error)
    except BaseException:
        what, said = "error", traceback.format_exc()
    finally:
        sys.settrace(None)
    if what == "read":
        try:
            reader.check(data, at, result)
        except Exception:
            what, said = "wrongly read", traceback.format_exc()
    elif what == "refused" and not (str(at) in said and len(said) < 2000 and not {"\n", "\r", "\x1b", "\0"} & {*said}):
        what, said = "badly refused", said + "\n"
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > 2_000_000 and what in ("read", "refused"):
        what, said = "too much memory", "more than 2 GB\n"
    return what, said, arcs.found


def serve(reader: Reader, connection: Any) -> None:
    """A process that reads one input after the other."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where libtiff writes
    known: set[Arc] = set()
    with tempfile.TemporaryDirectory(prefix="fuzz") as at, contextlib.suppress(EOFError):
        while True:
            data = connection.recv_bytes()
            what, said, arcs = attempt(reader, data, Path(at))
            new = arcs - known
            connection.send((what, said, new, bool(new) and reader.worth(data)))
            known |= arcs


class Server:
    """That process, and another one when it has ended or takes too long."""

    def __init__(self, reader: Reader, limit: float):
        self.reader, self.limit = reader, limit
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(self.reader, theirs), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, where the tests before left threads
            self.process.start()
        theirs.close()

    def ask(self, data: bytes) -> tuple[str, str, set[Arc], bool]:
        """What attempt returns, and whether the input may be kept."""
        with contextlib.suppress(EOFError, OSError):
            self.connection.send_bytes(data)
            if self.connection.poll(self.limit):
                answer: tuple[str, str, set[Arc], bool] = self.connection.recv()
                return answer
            self.stop()
            self.start()
            return "hang", f"longer than {self.limit:g} s\n", set(), False
        self.process.join()
        status = self.process.exitcode
        self.start()
        return "crash", f"exit status {status}\n", set(), False

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


@dataclass
class Summary:
    name: str
    inputs: int = 0
    arcs: int = 0
    kept: int = 0
    read: int = 0
    refused: int = 0
    failures: dict[str, tuple[int, str, bytes]] = field(default_factory=dict)  # how often, what was said, the first

    def __str__(self) -> str:
        failed = sum(count for count, *_ in self.failures.values())
        return (
            f"{self.name}: {self.inputs:,} inputs, {self.arcs:,} arcs, {self.kept:,} kept, {self.read:,} read,"
            f" {self.refused:,} refused, {failed:,} failures of {len(self.failures)} kinds"
        )


def inputs(reader: Reader, corpus: list[bytes], chance: random.Random) -> Iterator[bytes]:
    """The seeds, and then changes of what is in the corpus by then, rather of what is new in it."""
    yield from reader.seeds()
    while True:
        new = chance.random() < 0.5
        data = chance.choice(corpus[-20:] if new else corpus)
        if chance.random() < 0.5:
            data = reader.changed(data, chance)
        for _ in range(chance.choice([0, 1, 1, 1, 2, 4, 16])):
            data = changed(data, chance, corpus, reader.words)
        yield data[: 4 * LONGEST]


def fuzz(
    name: str, seed: int = 0, most: int | None = None, seconds: float = float("inf"), limit: float = LIMIT
) -> Summary:
    """Read so many inputs, or for so many seconds."""
    reader = READERS[name]()
    summary, seen, corpus = Summary(name), set[Arc](), [b""]
    server = Server(reader, limit)
    end = time.monotonic() + seconds
    try:
        for data in inputs(reader, corpus, random.Random(seed)):
            if summary.inputs == most or time.monotonic() > end:
                break
            what, said, arcs, worth = server.ask(data)
            summary.inputs += 1
            if arcs - seen and worth:
                corpus.append(data)
            seen |= arcs
            if what == "read":
                summary.read += 1
            elif what == "refused":
                summary.refused += 1
            else:  # of one kind are those of one place
                kind = what + ": " + "".join(line for line in said.splitlines() if line.startswith("  File "))[-200:]
                count, *first = summary.failures.get(kind, (0, said, data))
                summary.failures[kind] = count + 1, *first
            summary.arcs, summary.kept = len(seen), len(corpus) - 1
    finally:
        server.stop()
    return summary


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", choices=[*READERS, "all"], default="all")
    parser.add_argument(
        "--minutes", type=float, help="for all readers together (default: 1, or without end if --inputs is given)"
    )
    parser.add_argument("--inputs", type=int, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="fuzz-failures", help="the folder for inputs that fail")
    parser.add_argument("--replay", help="a file to be read as one input")
    settings = parser.parse_args()
    names = [*READERS] if settings.reader == "all" else [settings.reader]
    if settings.replay:
        server = Server(READERS[names[0]](), LIMIT)
        what, said, *_ = server.ask(Path(settings.replay).read_bytes())
        server.stop()
        print(f"{what}: {said}".rstrip())
        return what not in ("read", "refused")
    minutes = settings.minutes or (float("inf") if settings.inputs else 1)
    failed = False
    for name in names:
        summary = fuzz(name, settings.seed, settings.inputs, minutes * 60 / len(names))
        for kind, (count, said, data) in summary.failures.items():
            failed = True
            path = Path(settings.output, f"{name}-{hashlib.sha256(data).hexdigest()[:12]}")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            print(f"{path}: {count} times {kind.partition(':')[0]}\n{said}")
        print(summary, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
