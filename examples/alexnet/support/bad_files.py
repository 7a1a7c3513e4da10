"""Images that cannot be read: a run leaves out a few, and names each in bad_files.txt."""

from typing import Any

from minicnn.checks import escaped
from minicnn.data import DataError

from .options import complain, reason

BAD_FILES = "bad_files.txt"
SHARE = 1000  # without --max-bad, one image in so many may be unreadable


class BadFiles:
    """The images that could not be read.

    Args:
        most: how many a run leaves out; None: one in a thousand.
        images: how many there are to train on.
        known: {name: why} of those that the run has met before. If they were too many, it begins
            to count again: they may have been mended since.
    """

    def __init__(self, most: int | None, images: int, known: dict[str, str] | None = None) -> None:
        self.most = images // SHARE if most is None else most
        self.known = dict(known or {})
        if self.too_many:
            self.known = {}
        self.new: list[tuple[str, str]] = []

    @property
    def options(self) -> dict[str, Any]:
        """For a DataLoader: if none may be left out, it raises the error itself."""
        return {"on_bad": self._met} if self.most else {}

    def _met(self, name: str, error: Exception) -> None:
        self.new.append((name, reason(error).removeprefix(f"{name}: ")))

    def take(self) -> list[tuple[str, str]]:
        """Those met since the last time, by this process."""
        new, self.new = self.new, []
        return new

    def add(self, met: list[tuple[str, str]]) -> bool:
        """Add what the processes have met; a line names each image that is new. Returns whether
        there was one."""
        new = {name: why for name, why in met if name not in self.known}
        for name, why in new.items():
            complain(f"{name}: {why}; left out")
        self.known |= new
        return bool(new)

    @property
    def too_many(self) -> bool:
        return len(self.known) > self.most

    def require_few(self) -> None:
        """Raise a DataError if there are too many."""
        if self.too_many:
            raise DataError(
                f"{len(self.known)} images cannot be read, which {BAD_FILES} names, and --max-bad is {self.most}: "
                "mend or remove them, or give a larger --max-bad"
            )

    def text(self) -> str:
        """A line for each."""
        return "".join(f"{escaped(name)}: {escaped(why)}\n" for name, why in self.known.items())
