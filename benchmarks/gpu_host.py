"""What a training step on a GPU costs the host, measured without one: minicnn and CuPy as they are,
on the tests' rig (tests/cuda/rig), on which launches do nothing. A driver adds 2 to 3 µs to
each."""

import importlib
import os
import sys
import time
from pathlib import Path

from . import gpu_workers, ours

RIG = Path(__file__).resolve().parent.parent / "tests" / "cuda" / "rig"


class Host(ours.Ours):
    """A training step that is asked for and not done, by a contender of gpu_workers.py."""

    def __init__(self, threads: int, contender: str, network: str, batch: int) -> None:
        super().__init__(threads)
        sys.path.insert(0, os.fspath(RIG))
        rig = importlib.import_module("rig")
        try:
            rig.start()
        except rig.Unusable as error:
            print(f"What a step costs the host is not measured: {error}", file=sys.stderr)
            return
        worker = getattr(gpu_workers, contender)(threads, network)
        worker.take(batch, "fp32")
        self.tasks = worker.tasks

    def seconds(self, count: int) -> float | None:
        """What a step takes, the fastest of several: whatever else the processor does can only make
        it slower. None where there is no rig."""
        times = []
        for _ in range(count if self.tasks else 0):
            begin = time.process_time()
            self.tasks["step"]()
            times.append(time.process_time() - begin)
        return min(times, default=None)
