"""The first import of each program: if minicnn is not installed, the program ends with a line that
says what to run."""

import os
import sys
from pathlib import Path

try:
    import minicnn  # noqa: F401
except ModuleNotFoundError as error:  # or numpy, say, without which it cannot be imported
    clone = Path(__file__).resolve().parents[3]
    print(
        f"{os.path.basename(sys.argv[0])}: {error.name} is not installed in this Python: run "
        f'{sys.executable} -m pip install -e "{clone}[examples]" (README.md has more, under "With pip")',
        file=sys.stderr,
    )
    sys.exit(2)
