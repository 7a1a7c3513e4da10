"""python tests/cuda/rig [--zeros] PROGRAM …: Python, with these arguments, on the rig (rig.py), and so
all processes that it starts. Where the rig cannot be built, one line says why, and the status is 3."""

import os
import sys

import rig


def main(arguments: list[str]) -> None:
    environment = {"CUPY_CACHE_DIR": str(rig.cache() / "kernels"), **os.environ}
    if arguments[:1] == ["--zeros"]:
        del arguments[0]
        environment[rig.ZEROS] = "1"
    try:
        rig.build()
    except rig.Unusable as error:
        print(f"rig: {error}", file=sys.stderr)
        sys.exit(3)
    environment["PYTHONPATH"] = os.pathsep.join([str(rig.HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    warnings = [word for option in sys.warnoptions for word in ("-W", option)]  # python -W error tests/cuda/rig …
    os.execve(sys.executable, [sys.executable, *warnings, *arguments], environment)


if __name__ == "__main__":
    main(sys.argv[1:])
