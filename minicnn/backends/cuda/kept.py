"""What a pass forward has made of an array, kept for the pass backward where the GPU has memory for
it: the columns of a convolution's images, which the gradient of its weights needs again. At a batch
of 128 AlexNet's take 2.5 GB, and to make them a second time takes 0.9 ms of a step.
"""

import sys
import threading
import weakref
from typing import Any

from ..devices import Array

SHARE = 4  # of a GPU's memory, one part in so many may hold what is kept


class Kept:
    """Arrays by the array that they were made of, its source, as long as that one lives. Once a GPU
    has run out of memory, nothing is kept on it any more."""

    def __init__(self) -> None:
        self.made: dict[tuple[int, Any], tuple[weakref.ref[Array], Array, int]] = {}
        self.room: dict[int, int] = {}  # by a GPU's number: how many bytes it may still hold
        self.lock = threading.RLock()  # reentrant: a source may end while another one is kept

    def keep(self, source: Array, how: Any, made: Array) -> None:
        """Keep what was made, if there is room.

        Args:
            source: the array that it was made of, which must not be overwritten before it is taken.
            how: tells it from whatever else may be made of the source.
            made: an array that has memory of its own.
        """
        key, gpu = (id(source), how), made.device.id
        with self.lock:
            self._forget(key)
            if gpu not in self.room:
                self.room[gpu] = sys.modules["cupy"].cuda.runtime.memGetInfo()[1] // SHARE
            if made.nbytes <= self.room[gpu]:
                self.room[gpu] -= made.nbytes
                self.made[key] = weakref.ref(source, lambda _: self._forget(key)), made, gpu

    def take(self, source: Array, how: Any) -> Array | None:
        """What was made, which is not kept any longer; None if it was not kept."""
        return self._forget((id(source), how))

    def give_up(self) -> bool:
        """Keep nothing any more on the current GPU, which has no memory left. Returns whether
        anything was kept there."""
        gpu = sys.modules["cupy"].cuda.Device().id
        with self.lock:
            keys = [key for key, (_, _, where) in list(self.made.items()) if where == gpu]
            for key in keys:
                self._forget(key)
            self.room[gpu] = 0
        return bool(keys)

    def _forget(self, key: tuple[int, Any]) -> Array | None:
        with self.lock:
            _, made, gpu = self.made.pop(key, (None, None, 0))
            if made is not None:
                self.room[gpu] += made.nbytes
            return made


columns = Kept()
