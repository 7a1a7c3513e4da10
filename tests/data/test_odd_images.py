"""More than 300 odd and broken images: each is what a viewer shows, or refused in a line that names it; none makes the
program wait, or takes much memory."""

import os
import pickle
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL.Image")

from odd_images import RGB, write

from minicnn.data import ImageFolder
from minicnn.data.reading import escaped
from minicnn.data.transforms import Resize

SIDE = 16
SECONDS, MEMORY = 60, 1_500_000  # KB: Pillow reads 179 million pixels, and takes four bytes for each beside our three
# In a process of its own, for a limit of memory, and because one that waits forever has to be ended.
PROGRAM = """
import pickle, resource, sys, time
from minicnn.data import DataError, read_image
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

def memory():  # the most so far, in KB. What getrusage says begins with that of the process which has started this one
    try:
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

for path, least in pickle.load(open(sys.argv[1], "rb")):
    begin = time.process_time()
    try:
        found = read_image(path, least)
        found = found if found.size < 10_000 else found.shape
    except DataError as error:
        found = str(error)
    peak = memory()
    pickle.dump((found, time.process_time() - begin, peak), sys.stdout.buffer)
    sys.stdout.flush()
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What is in the class odd of a folder of images."""
    folder = tmp_path_factory.mktemp("root") / "odd"
    folder.mkdir()
    return write(folder)


@pytest.fixture(scope="module")
def odd(files, tmp_path_factory):
    """[(what is expected of a file, least, what has come, seconds, KB)]"""
    pytest.importorskip("resource")
    listed = tmp_path_factory.mktemp("odd") / "list"
    expected = [(file, least) for file in files for least in (None, SIDE)]
    listed.write_bytes(pickle.dumps([(file.path, least) for file, least in expected]))
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(listed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        results = [(*row, *pickle.load(process.stdout)) for row in expected]
    assert process.returncode == 0
    return results


def test_there_are_enough(odd):
    assert len(odd) > 2 * 330
    read = sum(not isinstance(found, str) for _, _, found, *_ in odd)
    assert len(odd) / 4 < read < len(odd) * 3 / 4


def test_what_is_whole_is_shown_and_what_is_not_is_refused(odd):
    wrong = []
    for file, least, found, *_ in odd:
        if isinstance(found, str):
            fits = file.shown is None or file.either
        elif file.shown is None:
            fits = False
        elif file.shown.ndim == 0:  # damaged, and not so that anybody could tell
            fits = True
        else:
            shown = file.shown if least is None else Resize(least)(file.shown, np.random.default_rng())
            fits = found.shape == shown.shape and abs(found.astype(int) - shown).max() <= file.tolerance
        if not fits:
            wrong.append((file.path, least, found))
    assert wrong == []


def test_each_refusal_is_one_line_that_names_the_file(odd):
    for file, _, found, *_ in odd:
        if isinstance(found, str):
            assert found.startswith(f"{escaped(file.path)}: ") and len(found) < len(escaped(file.path)) + 200
            assert not {"Cc", "Cs", "Zl", "Zp"} & set(map(unicodedata.category, found))


def test_none_takes_long_or_much(odd):
    """Nor do small files that claim to be large take memory, but for a JPEG of 169 million pixels."""
    before = odd[0][-1]
    for file, least, _, seconds, peak in odd:
        assert seconds < SECONDS, file.path
        assert peak < MEMORY and (peak < before + 100_000 or (file.path.endswith("/13000.jpg") and least is None))
        before = peak


def test_a_folder_lists_those_that_are_files(files):
    root = Path(files[0].path).parent.parent
    (root / "other").mkdir()
    (root / "other" / "1.png").write_bytes(b"")
    os.symlink("..", root / "other" / "up")
    os.symlink("circle", root / "circle")
    folder = ImageFolder(root)
    listed = [path for path, label in folder.samples if label == 0]
    assert listed == sorted(file.path for file in files if file.listed) and folder.classes == ["odd", "other"]
    plain = next(i for i, (path, _) in enumerate(folder.samples) if Path(path).name == "is PNG.jpg")
    np.testing.assert_array_equal(folder[plain][0], RGB)
