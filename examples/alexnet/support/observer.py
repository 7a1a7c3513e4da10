"""What looks on while a network is trained."""

from pathlib import Path
from typing import Any


class Observer:
    """Sees each step of a training, and changes nothing in it. This one does nothing; each method is
    for others to have their own."""

    def before(self) -> None:
        """A step begins: before its forward pass."""

    def after(self, score: Any) -> None:
        """It has ended, after the update, and the score has counted it."""

    def draw(self, folder: Path, row: dict[str, Any]) -> None:
        """An epoch has ended, and its table and images are in the folder. This is called in another
        thread, while the next steps are made."""

    def close(self) -> None:
        """The training has ended, however it did."""
