"""What the benchmarks' command lines have in common."""

import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from support.options import UsageError

from minicnn import DeviceError
from minicnn.data import DataError

from .turns import BenchmarkError

INTERRUPTS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def command(program: str, run: Callable[[], object]) -> int:
    """Run a program. Its exit status: 2 for a mistake on the command line, a GPU that is not there
    or data that cannot be used, 1 if the figures would be wrong, 130 if interrupted, by Ctrl-C, a
    batch system or a closed terminal; the processes that it has started are ended."""
    for number in INTERRUPTS:
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup has one ignored
            signal.signal(number, signal.default_int_handler)
    try:
        run()
        return 0
    except (UsageError, DeviceError, DataError, BenchmarkError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1 if isinstance(error, BenchmarkError) else 2
    except KeyboardInterrupt as interrupt:
        kept = interrupt.args[0] if interrupt.args else "the files of the last run are as they were"
        with suppress(OSError):  # the terminal has been closed
            print(f"interrupted: {kept}", file=sys.stderr, flush=True)
        return 130
