"""A training of many steps takes no more and more memory."""

import subprocess
import sys
from pathlib import Path

import pytest
from programs import PROGRAMS

TESTS = Path(__file__).resolve().parents[1]
# a small network in AlexNet's place, and the memory of the process after each step
PROGRAM = f"""
import resource, sys
from pathlib import Path
sys.path[:0] = [{str(TESTS)!r}, {str(PROGRAMS)!r}]
import pytest, runpy
from programs import small_world
from minicnn.optim import SGD

original, page = SGD.step, resource.getpagesize()

def step(optimizer):
    original(optimizer)
    if optimizer.steps in (50, 2000):
        print("MEMORY", int(Path("/proc/self/statm").read_text().split()[1]) * page, flush=True)

with pytest.MonkeyPatch.context() as patch:
    small_world(patch)
    from support import images
    patch.setattr(images, "SYNTHETIC", {{"train": 2000, "val": 10}})
    patch.setattr(SGD, "step", step)
    sys.argv[0] = {str(PROGRAMS / "train.py")!r}
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    "options", [[], ["--watch", "--tensorboard", "--checkpoint-every", "0.01"]], ids=["plain", "all"]
)
def test_memory_of_two_thousand_steps(tmp_path, options):
    """Less than 5 MB more from the 50th step to the last, with checkpoints, --watch and --tensorboard too."""
    options = ["--epochs", "1", "--batch-size", "1", *options, "--out", str(tmp_path / "run")]
    result = subprocess.run([sys.executable, "-c", PROGRAM, *options], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    first, last = (int(line.split()[1]) for line in result.stdout.splitlines() if line.startswith("MEMORY"))
    print(f"{(last - first) / 1e6:.2f} MB")
    assert last - first < 5e6
