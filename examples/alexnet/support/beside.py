"""What goes on beside a training: interrupts, which wait for the end of a step or of an import, and
files, which are written while the next steps are computed."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

SIGNALS = "SIGINT", "SIGTERM", "SIGHUP"  # Ctrl-C, batch systems, and a terminal that is closed
FINISHING = b"\nfinishing the step and saving; a second interrupt ends the program at once\n"


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside, an interrupt waits for the end, unless a second one comes. This is for imports: a
    package that is interrupted there may say that it is broken, and after matplotlib 3.11 Python
    may crash at its own end."""
    came: list[tuple[int, FrameType | None]] = []
    before: dict[int, Any] = {}

    def wait(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))
        if len(came) > 1:
            before[number](number, frame)

    try:
        with _handled(wait, callable, before):
            yield
    finally:
        if came:
            number, frame = came[0]
            before[number](number, frame)


@contextmanager
def _handled(handler: Callable[..., Any], instead_of: Callable[[Any], bool], before: dict[int, Any]) -> Iterator[None]:
    """Inside, this handles the interrupts whose present handler is one to be replaced; `before` is
    given that handler, by the signal's number."""
    with ExitStack() as ends:  # which restores all of them, also if one more interrupt comes there
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            for name in SIGNALS:
                number = getattr(signal, name, None)  # Windows has no SIGHUP
                if number is not None and instead_of(signal.getsignal(number)):
                    before[number] = signal.getsignal(number)
                    ends.callback(signal.signal, number, before[number])
                    signal.signal(number, handler)
        yield


class Stop:
    """Inside, once it is armed, the first interrupt only sets `asked`, and the second raises
    KeyboardInterrupt. Until then each does, as elsewhere. Signals that are ignored stay so."""

    def __init__(self) -> None:
        self.asked = self.armed = False
        self.handled = _handled(self._came, lambda handler: handler is signal.default_int_handler, {})

    def __enter__(self) -> "Stop":
        self.handled.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.handled.__exit__(*error)

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
