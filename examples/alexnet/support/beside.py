"""What goes on beside a training: signals, which wait for the end of an import or of a step, and
files, which are written while the next steps are computed."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

SIGNALS = "SIGINT", "SIGTERM", "SIGHUP"  # Ctrl-C, batch systems, and a terminal that is closed
FINISHING = b"\nfinishing the step and saving; a second interrupt ends the program at once\n"


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside, interrupts wait for the end. This is for imports: a package that is interrupted there
    may say that it is broken, and matplotlib 3.11 may crash Python as it ends."""
    came: list[tuple[int, FrameType | None]] = []
    before = _on_interrupts(lambda *signal_and_frame: came.append(signal_and_frame), callable)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number, frame in came:
            before[number](number, frame)


def _on_interrupts(handler: Callable[..., Any], instead_of: Callable[[Any], bool]) -> dict[Any, Any]:
    """Have interrupts handled so, if what handles them is to be replaced: {number: what did}."""
    if threading.current_thread() is not threading.main_thread():  # others may not set handlers
        return {}
    # Windows has no SIGHUP
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    return {number: signal.signal(number, handler) for number in numbers if instead_of(signal.getsignal(number))}


class Stop:
    """Inside, once it is armed, the first interrupt only sets `asked`, and the second raises
    KeyboardInterrupt. Until then each does, as elsewhere. Signals that are ignored stay so."""

    def __init__(self) -> None:
        self.asked = self.armed = False
        self.before: dict[Any, Any] = {}

    def __enter__(self) -> "Stop":
        self.before = _on_interrupts(self._came, lambda handler: handler is signal.default_int_handler)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _came(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self.armed:
            raise KeyboardInterrupt
        self.asked = True
        with suppress(OSError):  # not by print, which may be what was interrupted
            os.write(2, FINISHING)


class Aside:
    """A thread that does one thing after another. What goes wrong there is raised in the caller's
    thread: by wait(), by look(), or at the end of the with-statement."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, "minicnn-files")
        self.last: Future[None] | None = None
        self.failed = False  # whether something has gone wrong

    def __enter__(self) -> "Aside":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.wait()
        except Exception:
            if error is None:  # otherwise that one is the reason
                raise
        finally:
            self.pool.shutdown()

    @property
    def busy(self) -> bool:
        return self.last is not None and not self.last.done()

    def begin(self, work: Callable[[], None]) -> None:
        """Do this when what was begun before is done."""
        self.wait()
        self.last = self.pool.submit(work)

    def wait(self) -> None:
        last, self.last = self.last, None
        if last is not None:
            self.failed = True
            try:
                last.result()
            finally:
                del last  # which has the error, whose traceback has this frame
            self.failed = False

    def look(self) -> None:
        """Raise what has gone wrong, without waiting."""
        if not self.busy:
            self.wait()
