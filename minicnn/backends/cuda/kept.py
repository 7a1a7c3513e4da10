"""What a pass forward has made of an array, kept for the pass backward where the GPU has memory for
it: the columns of a convolution's images, which the gradient of its weights needs again. At a batch
of 128 AlexNet's take 2.5 GB, and to make them a second time takes 0.9 ms of a step.
"""

import sys
import threading
import weakref
from typing import Any

from ..devices import Array

SHARE = 4  # what is kept may take one part in so many of a GPU's memory


class Kept:
    """Arrays by the array that they were made of, its source, as long as that one lives. Once a GPU
    has run out of memory, nothing is kept on it any more."""

    def __init__(self) -> None:
        self.made: dict[Any, tuple[weakref.ref[Array], Array, int]] = {}
        self.room: dict[int, int] = {}  # by a GPU's number: how many bytes it may still hold
        self.lock = threading.RLock()  # reentrant: a source may end while another one is kept

    def keep(self, source: Array, how: Any, made: Array) -> None:
        """Keep what was made, in the place of older things if there is no room beside them.

        Args:
            source: the array that it was made of, which must not be overwritten before it is taken.
            how: tells it from whatever else may be made of the source.
            made: an array that has memory of its own.
        """
        key, gpu = _key(source, how), made.device.id
        with self.lock:
            self._forget(key)
            if gpu not in self.room:
                self.room[gpu] = sys.modules["cupy"].cuda.runtime.memGetInfo()[1] // SHARE
            older = self._on(gpu)
            if made.nbytes > self.room[gpu] + sum(self.made[old][1].nbytes for old in older):
                return
            while made.nbytes > self.room[gpu]:
                self._forget(older.pop(0))
            self.room[gpu] -= made.nbytes
            self.made[key] = weakref.ref(source, lambda _: self._forget(key)), made, gpu

    def take(self, source: Array, how: Any) -> Array | None:
        """What was made, which is not kept any longer; None if it was not kept."""
        return self._forget(_key(source, how))

    def end(self, stream: int) -> None:
        """Forget what was made on a stream, which has ended.

        Args:
            stream: its address.
        """
        with self.lock:
            for key in [key for key in list(self.made) if key[2] == stream]:
                self._forget(key)

    def give_up(self) -> bool:
        """Keep nothing any more on the current GPU, which has no memory left. Returns whether
        anything was kept there."""
        gpu = sys.modules["cupy"].cuda.Device().id
        with self.lock:
            keys = self._on(gpu)
            for key in keys:
                self._forget(key)
            self.room[gpu] = 0
        return bool(keys)

    def _on(self, gpu: int) -> list[Any]:
        """The keys of what is kept there, the oldest first."""
        return [key for key, (_, _, where) in list(self.made.items()) if where == gpu]

    def _forget(self, key: Any) -> Array | None:
        with self.lock:
            _, made, gpu = self.made.pop(key, (None, None, 0))
            if made is not None:
                self.room[gpu] += made.nbytes
            return made


def _key(source: Array, how: Any) -> tuple[int, Any, int]:
    """What is made on one stream is there for that stream only."""
    return id(source), how, sys.modules["cupy"].cuda.get_current_stream().ptr


kept = Kept()
