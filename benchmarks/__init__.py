"""Measure how fast minicnn is. `python -m benchmarks cpu` and `python -m benchmarks gpu` compare it
with PyTorch and with the machine's limits; `parallel` compares training on several processes with
PyTorch's, and `scale` predicts it for many; `python -m benchmarks.loader` compares its loading of
images with Pillow's."""

import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "alexnet"
sys.path.insert(0, str(EXAMPLE))  # whose programs import one another by their bare names
