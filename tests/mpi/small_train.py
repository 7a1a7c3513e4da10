"""train.py with small networks and images, several times in one program: python small_train.py JOBS, a JSON file with a
list of command lines; or with what goes wrong in epoch 2 of the first: python small_train.py JOBS WHAT RANK. Files are
in the working folder."""

import json
import os
import resource
import runpy
import signal
import sys
import time
from pathlib import Path

import numpy as np
import small  # it has the path to the others
from programs import PROGRAMS, SIZE

# isort: split
import evaluate
import model
from support import folders, images, parallel, recording, runs

from minicnn import distributed

NAME = Path(sys.argv[1]).stem
IMAGES = {"train": 18, "val": 10}


def full_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def no_memory():
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
    np.ones(1 << 30)


def waits():
    """For the test, which waits for this file."""
    Path(f"{NAME} waits").touch()
    time.sleep(3)


def rots():
    """The last image to validate can no longer be read: its row of the batch is the last rank's."""
    *_, last = sorted(Path("rotting/val").rglob("*.png"))
    os.truncate(last, 100)


def one_line():
    raise OSError("this is what went wrong")


def traceback():
    raise RuntimeError("a fault of the program")


HOW = {
    "full disk": full_disk,
    "no memory": no_memory,
    "waits": waits,
    "rots": rots,
    "one line": one_line,
    "traceback": traceback,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def small_world():
    for module in model, runs:
        module.alexnet = small.small
    parallel.column = small.small_column
    model.INPUT_SIZE.update(dict.fromkeys(model.INPUT_SIZE, SIZE))
    images.SYNTHETIC = IMAGES
    folders.require_matplotlib = lambda: None  # which takes half a second, for each process
    recording.draw_curves = lambda rows, path, *_: path.write_bytes(b"")  # drawing takes a second
    recording.draw_filters = lambda kernels, path: path.write_bytes(b"")
    recording.write_report = lambda path, **_: path.write_bytes(b"")
    distributed.SMALL = 256  # so that --parallel sharded divides something


def goes_wrong(how, rank):
    original, calls = evaluate.evaluate, []

    def measured(*arguments):
        calls.append(arguments)
        if len(calls) == 2 and distributed.start().rank == rank:
            HOW[how]()
        return original(*arguments)

    evaluate.evaluate = measured


def main(jobs, how=None, rank="0"):
    small_world()
    if how:
        goes_wrong(how, int(rank))
    Path(f"{NAME} pid {os.getpid()}").touch()
    outputs = []
    for arguments in json.loads(Path(jobs).read_text()):
        sys.argv = ["train.py", *arguments]
        try:
            runpy.run_path(str(PROGRAMS / "train.py"), run_name="__main__")
        except SystemExit as exit:
            if exit.code:
                raise
        outputs.append(sys.stdout)
        distributed.start().gather(None)  # the next may read what this one has written
    sys.stdout = sys.__stdout__
    for output in set(outputs) - {sys.stdout}:
        output.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
