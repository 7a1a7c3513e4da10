"""What looks on while a network is trained."""

from pathlib import Path
from typing import Any

from minicnn.backends.devices import Array


class Observer:
    """Sees each step of a training, and changes nothing in it. This one does nothing; each method
    is for others to have their own."""

    def before(self) -> None:
        """A step begins: before its forward pass."""

    def after(self, score: Any, images: Array, labels: Array) -> None:
        """It has ended, after the update: the step with these images and labels, which the score
        has counted."""

    def draw(self, folder: Path, row: dict[str, Any]) -> None:
        """An epoch has ended, and its table and images are in the folder. This is called in another
        thread, while the next steps are made."""

    def close(self) -> None:
        """The training has ended, however it did."""
