"""train.py as a process of its own that is killed, stopped, or runs out of disk, again and again, at
random moments: in the end there is what an undisturbed run leaves, bit for bit."""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import FILES, PROGRAMS, files, state

import minicnn

TESTS = Path(__file__).resolve().parents[1]
# a small network in AlexNet's place
PROGRAM = f"""
import sys
sys.path[:0] = [{str(TESTS)!r}, {str(PROGRAMS)!r}]
import pytest, runpy
from programs import small_world
with pytest.MonkeyPatch.context() as patch:
    small_world(patch)
    sys.argv[0] = {str(PROGRAMS / "train.py")!r}
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
COMMAND = ["--epochs", 5, "--batch-size", 2, "--watch", "--checkpoint-every", 0.001]  # 75 steps
KILLS = int(os.environ.get("KILLS", 12))


def start(*options):
    environment = {**os.environ, "PYTHONPATH": str(Path(minicnn.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, options)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(what an undisturbed run leaves, its watch.csv, how long it takes)."""
    folder, begun = tmp_path_factory.mktemp("whole") / "run", time.perf_counter()
    process = start(*COMMAND, "--out", folder)
    _, err = process.communicate()
    assert process.returncode == 0, err
    return left(folder), time.perf_counter() - begun


def left(folder):
    """What a run leaves, but how it was loaded."""
    return state(folder), (folder / "watch.csv").read_bytes()


def options(folder):
    """How to go on with a run, or to begin it: if it was killed before its first checkpoint, its folder is taken over."""
    if any((folder / name).exists() for name in ("last.safetensors", "previous.safetensors")):
        return ["--resume", folder / "last.safetensors"]
    return [*COMMAND, "--out", folder]


def disturbed(folder, whole, moments, signals, statuses):
    """Runs, each of which is disturbed at several moments until it comes to its end."""
    (expected, seconds), runs, disturbances = whole, 0, 0
    while disturbances < KILLS:
        run, status = folder / str(runs), None
        while status != 0:
            process = start(*options(run))
            if disturbances < KILLS:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(moments.uniform(0.3, seconds))
                process.send_signal(signals)
            _, err = process.communicate(timeout=60)
            status = process.returncode
            assert status in (0, *statuses), err
            if status == statuses[0]:
                disturbances += 1
            if status == 130 and "finishing the step" in err:
                assert err.endswith(f"--resume {run / 'last.safetensors'}\n"), err
        assert left(run) == expected
        assert files(run) == FILES | {"watch.csv", "watch.png"}
        runs += 1
    return runs


@pytest.mark.slow
@pytest.mark.parametrize(("signals", "statuses"), [(signal.SIGKILL, (-9,)), (signal.SIGTERM, (130, -15))])
def test_killed_at_random_moments(whole, tmp_path, signals, statuses):
    """SIGTERM may come before the program has begun, when Python dies of it."""
    pytest.importorskip("fcntl")
    print(disturbed(tmp_path, whole, random.Random(1), signals, statuses), "runs")


@pytest.mark.slow
def test_a_reader_that_has_gone(whole, tmp_path):
    """As that of `train.py | head`: the run is saved, and one line says how it goes on."""
    last = tmp_path / "run" / "last.safetensors"
    process = start(*COMMAND, "--out", last.parent)
    while not process.stdout.readline().startswith("epoch 1/"):
        pass
    process.stdout.close()
    with process.stderr:
        err = process.stderr.read()
    assert process.wait() == 141
    assert err == f"train.py: Broken pipe; go on with: python {PROGRAMS / 'train.py'} --resume {last}\n"
    process = start("--resume", last)
    _, err = process.communicate()
    assert process.returncode == 0 and left(last.parent) == whole[0], err


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB, where this user may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no small disk can be made: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts a tmpfs")
def test_a_disk_that_is_full_for_a_while(whole, small_disk):
    """Each time the run ends in one line, which says how to go on when there is space."""
    (expected, seconds), moments = whole, random.Random(2)
    filler, ended = small_disk / "other", 0
    for number in itertools.count():
        if ended >= 3:
            break
        run, status = small_disk / f"run{number}", None
        while status != 0:
            process = start(*options(run))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moments.uniform(0.3, 0.8) * seconds)
            with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
                while True:  # all there is
                    file.write(bytes(4096))
            _, err = process.communicate(timeout=60)
            status = process.returncode
            filler.unlink()
            assert status in (0, 2), err
            if status:
                ended += 1
                *others, line = err.splitlines()
                assert all(other.endswith("; the run continues") for other in others), err
                assert line.startswith(f"train.py: {run}") and "No space left on device" in line, err
                assert (run / "last.safetensors").exists() == ("go on with" in line)
        assert left(run) == expected
        for name in files(run):
            (run / name).unlink()
